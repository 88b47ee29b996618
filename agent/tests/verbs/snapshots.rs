//! Each verb's output, letter by letter, as it stands in `expected/`.
//!
//! After a change that is meant, `PODGATE_WRITE_EXPECTED=1` writes the files again, and the command
//! reference; read the difference before you commit it.

use std::{collections::BTreeSet, env, fs, os::unix::process::CommandExt as _, path::Path};

use crate::{
    agent::Agent,
    podgate::{directory, run},
    reference,
};

/// Writes what is seen in place of comparing it.
pub(crate) const WRITE: &str = "PODGATE_WRITE_EXPECTED";

/// A file of `expected/` and the command line that it is of.
const OFFLINE: [(&str, &str); 114] = [
    (
        "explain-allowed",
        "explain --from shop/frontend --to shop/backend-1 --port TCP/8080 --manifests shop.yaml",
    ),
    (
        "explain-denied",
        "explain --from shop/database --to shop/backend-1 --port TCP/http --manifests shop.yaml",
    ),
    (
        "explain-denied-json",
        "explain --from shop/database --to shop/backend-1 --port TCP/http --manifests shop.yaml -o json",
    ),
    (
        "explain-cluster-policy",
        "explain --from guests/visitor --to shop/database --port UDP/53 --manifests shop.yaml",
    ),
    ("explain-except", "explain --from 10.0.1.9 --to shop/backend-1 --port TCP/9100 --manifests shop.yaml"),
    ("explain-service", "explain --from shop/frontend --to shop/svc:web --port TCP/80 --manifests shop.yaml"),
    (
        "explain-what-if",
        "explain --from shop/frontend --to shop/svc:web --port TCP/80 --manifests shop.yaml --what-if change.yaml",
    ),
    (
        "explain-name",
        "explain --from shop/frontend --to name:api.example.com --port TCP/443 --manifests names.yaml",
    ),
    (
        "explain-name-denied",
        "explain --from shop/frontend --to name:example.org --port TCP/443 --manifests names.yaml",
    ),
    (
        "explain-from-a-name",
        "explain --from name:example.org --to shop/frontend --port TCP/443 --manifests names.yaml",
    ),
    ("explain-unknown", "explain --from shop/absent --to shop/backend-1 --port TCP/80 --manifests shop.yaml"),
    (
        "explain-no-change",
        "explain --from shop/a --to shop/b --port TCP/80 --manifests shop.yaml --what-if none.yaml",
    ),
    ("explain-calico", "explain --from shop/web --to shop/db --port TCP/5432 --manifests calico.yaml"),
    ("explain-calico-denied", "explain --from shop/web --to shop/db --port TCP/80 --manifests calico.yaml"),
    (
        "explain-calico-network-set",
        "explain --from shop/web --to 203.0.113.7 --port TCP/80 --manifests calico.yaml",
    ),
    ("check-calico", "check --calico calico.yaml"),
    ("check-calico-json", "check --calico calico.yaml -o json"),
    ("check-names", "check --names names.yaml"),
    ("check-names-json", "check --names names.yaml -o json"),
    ("check-names-of-no-pod", "check --names shop.yaml"),
    ("check-of-a-context", "check --context other"),
    ("matrix-names", "matrix --manifests names.yaml --ports TCP/443,UDP/443 --names"),
    ("matrix-names-json", "matrix --manifests names.yaml --ports TCP/443 --names -o json"),
    ("matrix-names-csv", "matrix --manifests names.yaml --ports TCP/443 --names -o csv"),
    ("matrix-names-html", "matrix --manifests names.yaml --ports TCP/443 --names -o html"),
    ("matrix-names-of-none", "matrix --manifests shop.yaml --ports TCP/443 --names"),
    ("matrix", "matrix --manifests shop.yaml --ports TCP/8080,TCP/http"),
    ("matrix-json", "matrix --manifests shop.yaml --ports TCP/8080,TCP/http -o json"),
    ("matrix-csv", "matrix --manifests shop.yaml --ports TCP/http -o csv"),
    ("matrix-diff", "matrix --manifests shop.yaml --ports TCP/8080,TCP/9100 --diff change.yaml"),
    ("matrix-diff-json", "matrix --manifests shop.yaml --ports TCP/8080,TCP/9100 --diff change.yaml -o json"),
    ("matrix-diff-csv", "matrix --manifests shop.yaml --ports TCP/8080,TCP/9100 --diff change.yaml -o csv"),
    ("matrix-diff-nothing", "matrix --manifests shop.yaml --ports TCP/8080 --diff shop.yaml"),
    ("matrix-diff-of-no-object", "matrix --manifests shop.yaml --ports TCP/8080 --diff foreign.yaml"),
    (
        "explain-may-be-led-elsewhere",
        "explain --from shop/frontend --to node/n2 --port TCP/30080 --manifests ports.yaml",
    ),
    ("explain-host-port", "explain --from shop/frontend --to node/n2 --port TCP/8880 --manifests ports.yaml"),
    ("matrix-of-no-pod", "matrix --manifests foreign.yaml --ports TCP/80"),
    ("matrix-of-no-pod-meant", "matrix --manifests foreign.yaml --ports TCP/80 --allow-empty"),
    ("matrix-uncertain", "matrix --manifests unread.yaml --ports TCP/80"),
    ("matrix-uncertain-json", "matrix --manifests unread.yaml --ports TCP/80 -o json"),
    ("matrix-diff-misspelt", "matrix --manifests shop.yaml --ports TCP/8080 --diff misspelt.yaml"),
    ("explain-uncertain", "explain --from x/a --to x/b --port TCP/80 --manifests unread.yaml"),
    (
        "explain-strict",
        "explain --from shop/frontend --to shop/backend-1 --port TCP/8080 --manifests shop.yaml --what-if misspelt.yaml --strict",
    ),
    (
        "explain-exit-code",
        "explain shop.yaml --from guests/visitor --to shop/database --port 5432 --exit-code -o table",
    ),
    ("matrix-of-a-path", "matrix foreign.yaml --ports http --allow-empty"),
    ("lint", "lint lint.yaml"),
    ("lint-json", "lint lint.yaml --severity error -o json"),
    ("lint-nothing", "lint change.yaml --allow-empty"),
    ("lint-notes", "lint shop.yaml --severity note"),
    ("lint-of-no-pod", "lint foreign.yaml"),
    ("lint-unread", "lint unread.yaml --severity error"),
    ("lint-strict", "lint lint.yaml --strict"),
    ("coverage", "coverage shop.yaml"),
    ("coverage-json", "coverage unread.yaml -o json"),
    ("coverage-wide", "coverage shop.yaml -o wide"),
    ("coverage-of-a-namespace", "coverage shop.yaml -n shop --direction ingress --fail-under 50"),
    ("coverage-fails", "coverage shop.yaml --fail-under 41"),
    ("advise", "advise shop.yaml --flows seen.jsonl -n shop"),
    ("advise-enforced", "advise shop.yaml --flows seen.jsonl -n guests --enforce"),
    ("advise-would-deny", "advise shop.yaml --flows seen-denied.jsonl"),
    ("advise-without-flows", "advise shop.yaml --flows shop.yaml"),
    ("convert", "convert convert.yaml"),
    ("convert-nothing", "convert calico.yaml"),
    ("convert-unread", "convert unread.yaml"),
    (
        "explain-calico-service",
        "explain --from shop/db --to shop/web --port TCP/8080 --manifests calico.yaml",
    ),
    ("wide-elsewhere", "matrix --manifests shop.yaml --ports TCP/80 -o wide"),
    ("no-agent", "status --socket none.sock"),
    ("wrong-output", "status -o html"),
    ("wrong-verb", "fly"),
    ("help", "--help"),
    ("help-agent", "agent --help"),
    ("help-check", "check --help"),
    ("help-detach", "detach --help"),
    ("help-mount", "mount --help"),
    ("help-cni", "cni --help"),
    ("help-cni-install", "cni install --help"),
    ("help-cni-uninstall", "cni uninstall --help"),
    ("help-status", "status --help"),
    ("help-endpoints", "endpoints --help"),
    ("help-names", "names --help"),
    ("help-policies", "policies --help"),
    ("help-rollout", "rollout --help"),
    ("help-flows", "flows --help"),
    ("help-trace", "trace --help"),
    ("help-dump", "dump --help"),
    ("help-cluster", "cluster --help"),
    ("help-cluster-status", "cluster status --help"),
    ("help-cluster-endpoints", "cluster endpoints --help"),
    ("help-cluster-names", "cluster names --help"),
    ("help-cluster-policies", "cluster policies --help"),
    ("help-cluster-flows", "cluster flows --help"),
    ("help-cluster-explain", "cluster explain --help"),
    ("help-cluster-advise", "cluster advise --help"),
    ("help-cluster-report", "cluster report --help"),
    ("help-cluster-rollout-status", "cluster rollout status --help"),
    ("cluster-without-kubeconfig", "cluster status --kubeconfig none.yaml"),
    ("flows-wrong-port", "flows --port TCP/http"),
    ("trace-wrong-port", "trace --pod shop/frontend --port ICMP/8"),
    ("help-explain", "explain --help"),
    ("help-matrix", "matrix --help"),
    ("help-lint", "lint --help"),
    ("help-coverage", "coverage --help"),
    ("help-advise", "advise --help"),
    ("help-convert", "convert --help"),
    ("help-doctor", "doctor --help"),
    ("help-completion", "completion --help"),
    ("help-man", "man --help"),
    ("man", "man"),
    ("man-status", "man status"),
    ("man-of-nothing", "man fly"),
    ("version", "--version"),
    ("version-json", "version -o json"),
    ("version-with-layout", "version"),
    ("help-version", "version --help"),
];

/// Likewise, beside an agent.
const LIVE: [(&str, &str); 25] = [
    ("status", "status"),
    ("status-json", "status -o json"),
    ("endpoints", "endpoints"),
    ("endpoints-of-one-json", "endpoints shop/frontend -o json"),
    ("endpoints-of-no-pod", "endpoints shop/absent"),
    ("names", "names"),
    ("names-of-one-json", "names shop/frontend -o json"),
    ("names-without-rules", "names shop/database"),
    ("names-of-no-pod", "names shop/absent"),
    ("policies", "policies"),
    ("policies-of-one-json", "policies shop/backends -o json"),
    ("policies-of-no-pod", "policies shop/nothing"),
    ("policies-unused", "policies --unused 24h"),
    ("rollout", "rollout"),
    ("rollout-of-one-json", "rollout shop/backends -o json"),
    ("rollout-of-nothing", "rollout shop/nothing"),
    ("flows", "flows"),
    ("flows-denied", "flows --denied --port UDP/9100"),
    ("flows-of-a-namespace-json", "flows --namespace shop --last 1 -o json"),
    ("flows-of-no-pod", "flows --pod shop/absent"),
    ("flows-of-an-agent-that-ends", "flows --follow --last 1 --color always"),
    ("trace-of-no-pod", "trace --pod shop/absent"),
    ("advise-live", "advise shop.yaml -n shop"),
    ("explain-live", "explain --from guests/visitor --to shop/backend-2 --port TCP/8080"),
    (
        "explain-live-what-if",
        "explain --from shop/frontend --to shop/backend-2 --port TCP/8080 --what-if change.yaml",
    ),
];

#[test]
fn each_verb_prints_what_is_expected_without_an_agent() {
    compare(OFFLINE.map(|(name, line)| (name, line, seen(line, &[]))).to_vec());
}

#[test]
fn each_verb_that_asks_an_agent_prints_what_is_expected() {
    let agent = Agent::start();
    let socket = agent.socket();
    let environment = [("PODGATE_SOCKET", socket.as_path())];
    compare(LIVE.map(|(name, line)| (name, line, seen(line, &environment))).to_vec());
}

#[test]
fn completion_scripts_know_every_verb_and_are_scripts_of_their_shell() {
    for (shell, part) in
        [("bash", "complete -F _podgate"), ("zsh", "#compdef podgate"), ("fish", "complete -c podgate")]
    {
        let script = seen(&format!("completion {shell}"), &[]);
        assert!(script.contains(part), "{shell}: {script}");
        for word in ["explain", "matrix", "doctor", "what-if", "manifests"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
    }
}

#[test]
fn who_may_not_ask_learns_that_it_takes_root() {
    let agent = Agent::start();
    for (verb, part) in [
        ("status", "only root may ask the agent"),
        ("status --socket none.sock", "is `podgate agent` running?"),
    ] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_podgate"));
        command.args(verb.split(' ')).env_clear().env("PODGATE_SOCKET", agent.socket()).uid(65_534);
        let output = command.current_dir("/").output().expect("the program that cargo has built");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(part) && text.lines().count() == 1, "{verb}: {text}");
    }
}

/// As in `podgate explain 2>&1 | head -1`.
#[test]
fn no_one_has_to_read_to_the_end() {
    for line in [
        "explain --from x/a --to x/b --port TCP/80 --manifests unread.yaml",
        "matrix --manifests shop.yaml --ports TCP/80",
        "lint lint.yaml --severity error --allow-empty",
        "coverage shop.yaml",
        "fly",
        "status --socket none.sock",
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_podgate"));
        command
            .args(line.split(' '))
            .current_dir(directory())
            .stdout(writer.try_clone().expect("its end"))
            .stderr(writer);
        let status = command.status().expect("the program that cargo has built");
        assert!(status.code().is_some_and(|code| code <= 3), "{line}: {status}");
    }
}

#[test]
fn every_verb_has_a_manual_page() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let output = run(&format!("man --directory {}", directory.path().display()), &[]);
    assert!(output.status.success(), "{output:?}");
    let page = |name: &str| {
        fs::read_to_string(directory.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    assert!(page("podgate.1").contains("podgate\\-explain(1)"), "it names the others");
    for verb in [
        "agent",
        "check",
        "detach",
        "mount",
        "status",
        "endpoints",
        "policies",
        "flows",
        "trace",
        "explain",
        "matrix",
        "lint",
        "coverage",
        "doctor",
        "completion",
        "man",
        "version",
    ] {
        let page = page(&format!("podgate-{verb}.1"));
        assert!(page.contains(".SH SYNOPSIS") && page.contains("podgate"), "{verb}");
    }
}

#[test]
fn no_expected_output_is_left_over() {
    let named: BTreeSet<String> =
        OFFLINE.iter().chain(&LIVE).map(|(name, _)| format!("{name}.txt")).collect();
    let found = fs::read_dir(directory().join("expected")).expect("the directory of expected outputs");
    let found: BTreeSet<String> =
        found.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(found, named);
}

/// What a terminal would show, and the exit code.
fn seen(line: &str, environment: &[(&str, &Path)]) -> String {
    let output = run(line, environment);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("podgate prints UTF-8");
    let code = output.status.code().expect("it ends by itself");
    format!("{}{}[exit code {code}]\n", text(&output.stdout), text(&output.stderr))
}

fn compare(outputs: Vec<(&str, &str, String)>) {
    let write = env::var_os(WRITE).is_some();
    let mut differing = Vec::new();
    for (name, line, seen) in outputs {
        let path = directory().join("expected").join(format!("{name}.txt"));
        let seen = format!("$ podgate {line}\n{seen}");
        let expected = fs::read_to_string(&path).unwrap_or_default();
        if expected == seen {
            continue;
        }
        if write {
            fs::write(&path, &seen).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        } else {
            differing.push(format!("{name}: {}", first_difference(&expected, &seen)));
        }
    }
    if write {
        reference::write();
    }
    assert!(differing.is_empty(), "see {WRITE} in {}\n{}", file!(), differing.join("\n"));
}

fn first_difference(expected: &str, seen: &str) -> String {
    let same = expected.lines().zip(seen.lines()).take_while(|(expected, seen)| expected == seen).count();
    let line = |text: &str| text.lines().nth(same).unwrap_or("(the end)").to_owned();
    format!("line {}\n  expected {}\n  seen     {}", same + 1, line(expected), line(seen))
}
