//! The command line as scripts use it: options and where they come from, exit codes, help.

use std::{collections::BTreeSet, fs, path::PathBuf};

use clap::CommandFactory;

use super::{layers::parse, *};
use crate::options::{Established, LogFormat, MasqueradedIngress};

fn arguments(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

fn parse_in(line: &str, environment: &[(&str, &str)]) -> Result<Cli, CliError> {
    let lookup = |variable: &str| {
        environment.iter().find(|(name, _)| *name == variable).map(|(_, value)| OsString::from(value))
    };
    parse(arguments(line), &lookup)
}

/// The options of `agent`, with `--config` naming a file of this text.
fn agent(line: &str, environment: &[(&str, &str)], config: &str) -> Result<AgentOptions, String> {
    let file = tempfile::Builder::new().prefix("config").suffix(".yaml").tempfile().unwrap();
    fs::write(&file, config).unwrap();
    let path = file.path().display().to_string();
    match parse_in(&format!("podgate agent --config {path} {line}"), environment) {
        Ok(Cli { verb: Verb::Agent(options), .. }) => Ok(options),
        Ok(other) => panic!("{other:?}"),
        Err(CliError::Failed(error)) => Err(format!("{error:#}").replace(&path, "config.yaml")),
        Err(CliError::Usage(usage)) => Err(usage.to_string()),
    }
}

#[test]
fn the_definition_of_the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn a_command_line_is_understood_or_refused_as_wrong_usage() {
    for (line, understood) in [
        ("podgate agent", true),
        ("podgate agent --manifests a --manifests b --metrics off --established recheck", true),
        ("podgate agent --masqueraded-ingress allow --log-format json --log debug,podgate=trace", true),
        ("podgate agent --metrics 0.0.0.0:80 --flows 1 --bpffs /x --cni-results /y --kubeconfig /z", true),
        ("podgate check", true),
        ("podgate check --bpffs /x --cni-results /y -o json", true),
        ("podgate detach --bpffs /x", true),
        ("podgate status --socket /x --output json", true),
        ("podgate -o json status", true),
        ("podgate endpoints", true),
        ("podgate endpoints x/a", true),
        ("podgate explain --from x/a --to node/n --port TCP/80", true),
        ("podgate explain --from 10.0.0.1 --to x/svc:b --port UDP/dns --manifests - -o table", true),
        ("podgate explain --from x/a --to x/b --port TCP/80 --what-if a --what-if b --socket c", true),
        ("podgate matrix --manifests a --manifests b --ports TCP/80,UDP/53", true),
        ("podgate matrix --manifests a --ports TCP/80 --ports TCP/81", true),
        ("podgate lint a b - --severity note --strict --allow-empty -n x", true),
        ("podgate lint", false),
        ("podgate lint a --severity fatal", false),
        ("podgate lint a -o wide", false),
        ("podgate coverage a b -n x -o wide --fail-under 100 --direction egress", true),
        ("podgate -o wide coverage a", true),
        ("podgate coverage a --fail-under 101", false),
        ("podgate coverage a -o csv", false),
        ("podgate matrix --manifests a --ports TCP/80 -o wide", false),
        ("podgate doctor --file - --addresses --socket a --bpffs b --cni-results c", true),
        ("podgate cni", true),
        ("podgate cni install --conf-dir a --bin-dir b --socket c --bpffs d --timeout 9 --watch", true),
        ("podgate cni install --when-unknown open", true),
        ("podgate cni install --when-unknown ajar", false),
        ("podgate cni install --timeout 0", false),
        ("podgate cni uninstall --conf-dir a -o json", true),
        ("podgate cni fly", false),
        ("podgate completion bash", true),
        ("podgate completion tcsh", false),
        ("podgate man", true),
        ("podgate man explain", true),
        ("podgate man --directory d", true),
        ("podgate man explain --directory d", false),
        ("podgate", false),
        ("podgate fly", false),
        ("podgate agent extra", false),
        ("podgate agent --flows 0", false),
        ("podgate agent --flows many", false),
        ("podgate agent --flows 4294967296", false),
        ("podgate agent --metrics 9177", false),
        ("podgate agent --established maybe", false),
        ("podgate agent --manifests a --hook clsact", true),
        ("podgate agent --hook xdp", false),
        ("podgate agent --log =x=", false),
        ("podgate agent --node=", false),
        ("podgate status -o xml", false),
        ("podgate endpoints a", false),
        ("podgate endpoints node/n", false),
        ("podgate explain --from x/a --to x/b", false),
        ("podgate explain --from x --to x/b --port TCP/80", false),
        ("podgate explain --from x/a --to x/b --port 80", true),
        ("podgate explain a - --from x/a --to x/b --port http --exit-code", true),
        ("podgate explain a --from x/a --to x/b --port 80 --socket b", false),
        ("podgate explain --from x/a --to x/b --port TCP/80 --manifests a --socket b", false),
        ("podgate matrix --manifests a --ports TCP/80 -o csv", true),
        ("podgate matrix --manifests a --ports TCP/80 -o html --diff b --diff c", true),
        ("podgate -o csv matrix --manifests a --ports TCP/80", true),
        ("podgate matrix --manifests a --ports TCP/80 -o xml", false),
        ("podgate explain --from x/a --to x/b --port TCP/80 -o html", false),
        ("podgate -o csv status", false),
        ("podgate matrix --ports TCP/80", false),
        ("podgate matrix a b --ports 80,http", true),
        ("podgate version -o json", true),
        ("podgate matrix --manifests a", false),
        ("podgate matrix --manifests a --ports TCP/80,", false),
    ] {
        match parse_in(line, &[]) {
            Ok(_) => assert!(understood, "{line}"),
            Err(CliError::Usage(usage)) => {
                assert!(!understood, "{line}: {usage}");
                assert_eq!(usage.exit_code(), 2, "{line}");
            }
            Err(CliError::Failed(error)) => panic!("{line}: {error:#}"),
        }
    }
}

#[test]
fn every_verb_has_help_with_an_example_and_takes_an_output_format() {
    for verb in Cli::command().get_subcommands() {
        let name = verb.get_name();
        let help = match parse_in(&format!("podgate {name} --help"), &[]) {
            Err(CliError::Usage(help)) => help,
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(help.exit_code(), 0, "{name}");
        let help = help.to_string();
        assert!(help.contains("Example:\n  ") && help.contains(&format!("podgate {name}")), "{name}: {help}");
        assert!(help.contains("-o, --output <FORMAT>"), "{name}: {help}");
    }
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let Ok(Cli { output, verb: Verb::Agent(options) }) = parse_in("podgate agent", &[]) else { panic!() };
    assert_eq!(output, Output::Table);
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(*options.node, *host.trim().to_lowercase());
    assert_eq!(options.manifests, Vec::<PathBuf>::new());
    assert_eq!(options.kubeconfig, None);
    assert_eq!(options.bpffs, PathBuf::from("/sys/fs/bpf"));
    assert_eq!(options.socket, PathBuf::from("/run/podgate/podgate.sock"));
    assert_eq!(options.metrics.to_string(), "127.0.0.1:9177");
    assert_eq!(options.cni_results, PathBuf::from("/var/lib/cni/results"));
    assert_eq!(options.flows, 262_144);
    assert_eq!(options.established, Established::Keep);
    assert_eq!(options.masqueraded_ingress, MasqueradedIngress::Evaluate);
    assert!(!options.allow_encapsulation);
    assert_eq!((options.deny_log, options.deny_log_size), (None, 100 << 20));
    assert_eq!((options.log.to_string().as_str(), options.log_format), ("info", LogFormat::Text));
}

#[test]
fn the_command_line_wins_over_the_environment_and_the_environment_over_the_file() {
    let file = "flows: 3";
    for (line, environment, file, flows) in [
        ("--flows 1", &[("PODGATE_FLOWS", "2")][..], file, 1),
        ("", &[("PODGATE_FLOWS", "2")], file, 2),
        ("", &[("PODGATE_FLOWS", "")], file, 3),
        ("", &[], file, 3),
        ("", &[], "", 262_144),
        ("", &[], "# nothing\n", 262_144),
    ] {
        assert_eq!(agent(line, environment, file).unwrap().flows, flows, "{line:?} {environment:?} {file:?}");
    }
}

#[test]
fn every_option_can_be_set_in_all_three_places() {
    let command = Cli::command();
    let agent_command = command.find_subcommand("agent").unwrap();
    let set = [
        ("node", "n7"),
        ("manifests", "/m"),
        ("allow-empty", "true"),
        ("kubeconfig", "/k"),
        ("bpffs", "/b"),
        ("socket", "/s"),
        ("metrics", "off"),
        ("cni-results", "/c"),
        ("flows", "7"),
        ("established", "recheck"),
        ("hook", "clsact"),
        ("masqueraded-ingress", "allow"),
        ("unenforced", "not-ready"),
        ("allow-encapsulation", "true"),
        ("shortcut", "local"),
        ("resolvers", "192.0.2.1"),
        ("names-keep", "9"),
        ("failsafe-inbound", "TCP/9"),
        ("failsafe-outbound", "UDP/9"),
        ("host-endpoints-guard", "9"),
        ("kubelet-healthz", "http://192.0.2.2:9/healthz"),
        ("history", "9"),
        ("deny-log", "/d"),
        ("deny-log-size", "9"),
        ("otlp", "http://collector:4318"),
        ("otlp-headers", "/h"),
        ("otlp-ca", "/c"),
        ("otlp-interval", "9"),
        ("log", "debug"),
        ("log-format", "json"),
    ];
    let options: Vec<&str> = agent_command.get_arguments().filter_map(clap::Arg::get_long).collect();
    assert_eq!(options, set.iter().map(|(option, _)| *option).chain(["config"]).collect::<Vec<_>>());

    // The chart sets some itself; it takes all others.
    let by_the_chart = ["node", "manifests", "kubeconfig", "bpffs", "socket", "cni-results", "config"];
    let schema = include_str!("../../../deploy/helm/podgate/values.schema.json");
    let schema: serde_json::Value = serde_json::from_str(schema).unwrap();
    let of_the_chart = schema["properties"]["options"]["properties"].as_object().unwrap().keys();
    let both: BTreeSet<&str> = of_the_chart.map(String::as_str).chain(by_the_chart).collect();
    assert_eq!(both, options.into_iter().collect());

    let shown = |options: AgentOptions| format!("{:?}", AgentOptions { config: None, ..options });
    let line: Vec<String> = set.iter().map(|(option, value)| format!("--{option}={value}")).collect();
    let expected = shown(agent(&line.join(" "), &[], "").unwrap());
    let variables: Vec<String> = set
        .iter()
        .map(|(option, _)| format!("PODGATE_{}", option.replace('-', "_").to_uppercase()))
        .collect();
    let environment: Vec<(&str, &str)> =
        variables.iter().zip(&set).map(|(variable, (_, value))| (variable.as_str(), *value)).collect();
    assert_eq!(shown(agent("", &environment, "").unwrap()), expected);
    let file: Vec<String> = set.iter().map(|(option, value)| format!("{option}: {value}")).collect();
    assert_eq!(shown(agent("", &[], &file.join("\n")).unwrap()), expected);
}

#[test]
fn familiar_variables_count_after_those_of_podgate() {
    let both = [("NODE_NAME", "a"), ("PODGATE_NODE", "b"), ("RUST_LOG", "warn")];
    let options = agent("", &both, "node: c\nlog: error").unwrap();
    assert_eq!((&*options.node, options.log.to_string().as_str()), ("b", "warn"));
    let options = agent("", &both[..1], "node: c").unwrap();
    assert_eq!(&*options.node, "a");
}

#[test]
fn manifests_are_several_in_every_place() {
    let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
    assert_eq!(
        agent("--manifests a --manifests b", &[], "manifests: c").unwrap().manifests,
        paths(&["a", "b"])
    );
    let environment = [("PODGATE_MANIFESTS", "a:b")];
    assert_eq!(agent("", &environment, "manifests: c").unwrap().manifests, paths(&["a", "b"]));
    assert_eq!(agent("", &[], "manifests: [a, b]").unwrap().manifests, paths(&["a", "b"]));
    assert_eq!(agent("", &[], "manifests: a b").unwrap().manifests, paths(&["a b"]));
}

#[test]
fn a_wrong_value_is_named_with_its_place() {
    for (environment, file, message) in [
        (&[][..], "flow: 1", "config.yaml: flow: no option of `podgate agent` has this name"),
        (&[], "config: x", "config.yaml: config: no option of `podgate agent` has this name"),
        (
            &[],
            "flows: many",
            "config.yaml: flows: invalid value 'many' for '--flows <N>': invalid digit found in string",
        ),
        (
            &[],
            "flows: 0",
            "config.yaml: flows: invalid value '0' for '--flows <N>': 0 is not in 1..=4294967295",
        ),
        (&[], "flows: [1, 2]", "config.yaml: flows: takes one value, not a list"),
        (&[], "flows: {a: 1}", "config.yaml: flows: takes a value, not a mapping"),
        (&[], "flows:", "config.yaml: flows: has no value"),
        (&[], "manifests: [[a]]", "config.yaml: manifests: takes a list of values, not a list in a list"),
        (
            &[],
            "established: perhaps",
            "config.yaml: established: invalid value 'perhaps' for '--established <ESTABLISHED>' \
             [possible values: keep, recheck]",
        ),
        (
            &[("PODGATE_METRICS", "x")],
            "",
            "environment variable PODGATE_METRICS: invalid value 'x' for '--metrics <ADDR:PORT>': not an address and \
             port like 127.0.0.1:9177 or [::]:9177, nor `off`",
        ),
        (
            &[("RUST_LOG", "=x=")],
            "",
            "environment variable RUST_LOG: invalid value '=x=' for '--log <FILTER>': invalid filter directive",
        ),
    ] {
        assert_eq!(agent("", environment, file).unwrap_err(), message);
    }
    for (file, part) in
        [("flows: 1\nflows: 2", "duplicate"), ("- a", "config.yaml: "), ("{", "config.yaml: ")]
    {
        let message = agent("", &[], file).unwrap_err();
        assert!(message.starts_with("config.yaml: ") && message.contains(part), "{file}: {message}");
    }
}

#[test]
fn a_config_file_that_is_not_there_is_named() {
    let Err(CliError::Failed(error)) = parse_in("podgate agent --config /none/x.yaml", &[]) else { panic!() };
    assert_eq!(format!("{error:#}"), "/none/x.yaml: No such file or directory (os error 2)");
}

#[test]
fn other_verbs_take_only_socket_and_bpffs_from_the_environment() {
    let environment = [
        ("PODGATE_SOCKET", "/s"),
        ("PODGATE_BPFFS", "/b"),
        ("PODGATE_MANIFESTS", "/m"),
        ("PODGATE_FLOWS", "wrong"),
        ("PODGATE_CONFIG", "/none"),
    ];
    for (line, part) in [
        ("podgate status", "socket: \"/s\""),
        ("podgate status --socket /t", "socket: \"/t\""),
        ("podgate endpoints", "socket: \"/s\""),
        ("podgate detach", "bpffs: \"/b\""),
        ("podgate check", "bpffs: \"/b\""),
        (
            "podgate explain --from x/a --to x/b --port TCP/80",
            "manifests: [], paths: [], what_if: [], what_if_stdin: None, exit_code: false, reading: ReadingOptions { namespace: None, allow_empty: false, strict: false }, socket: \"/s\"",
        ),
        (
            "podgate explain --from x/a --to x/b --port TCP/80 --manifests m",
            "manifests: [\"m\"], paths: [], what_if: [], what_if_stdin: None, exit_code: false, reading: ReadingOptions { namespace: None, allow_empty: false, strict: false }, socket: \"/s\"",
        ),
    ] {
        let parsed = format!("{:?}", parse_in(line, &environment).unwrap());
        assert!(parsed.contains(part), "{line}: {parsed}");
    }
}

#[test]
fn a_failure_is_one_line_and_the_log_of_the_verifier_is_shown_in_full() {
    let plain = anyhow::anyhow!("no such\n  file").context("cannot start");
    assert_eq!(complaint(&plain), "error: cannot start: no such file\n");

    let verifier_log: String =
        (0..10_000).map(|line| format!("{line}: (85) call\n    R2 !read_ok\n")).collect();
    let refused = RejectedProgram {
        program: "from_pod".to_owned(),
        reason: std::io::ErrorKind::PermissionDenied.into(),
        verifier_log: verifier_log.clone(),
    };
    let shown = complaint(&anyhow::Error::from(refused).context("cannot start"));
    let line =
        "error: cannot start: the kernel refused program from_pod: permission denied (its verifier says why)";
    assert_eq!(shown, format!("{verifier_log}{line}\n"));
}

#[test]
fn each_verb_offers_the_outputs_that_it_has() {
    let command = Cli::command();
    let mut command = command;
    command.build();
    let offered = |verb: &clap::Command| -> Vec<String> {
        let output =
            verb.get_arguments().find(|option| option.get_id() == "output").expect("a global option");
        output.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect()
    };
    for verb in command.get_subcommands() {
        if verb.get_name() == "cluster" {
            assert_eq!(offered(verb), ["table", "wide", "json", "yaml"]);
            continue;
        }
        let others: &[&str] = match verb.get_name() {
            "matrix" => &["csv", "html"],
            "coverage" => &["wide"],
            _ => &[],
        };
        assert_eq!(offered(verb), [&["table", "json"], others].concat(), "{}", verb.get_name());
    }
    let output = |line: &str| parse_in(line, &[]).expect("a command line").output;
    assert_eq!(output("podgate -o csv matrix --manifests a --ports TCP/80"), Output::Csv);
    assert_eq!(output("podgate status -o json"), Output::Json);
}
