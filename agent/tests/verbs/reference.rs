//! The command reference, `agent/docs/cli.md`: it is made of the expected outputs, so it says what podgate
//! prints.
//!
//! `PODGATE_WRITE_EXPECTED=1` writes it as it writes the expected outputs.

use std::{env, fmt::Write, fs, path::PathBuf, sync::Mutex};

use podgate_core::lint::LintName;

use crate::{podgate::directory, snapshots::WRITE};

/// Each command with the expected outputs that are its examples.
const COMMANDS: [(&str, &[&str]); 24] = [
    ("agent", &[]),
    ("check", &[]),
    ("detach", &[]),
    ("mount", &[]),
    ("cni", &["help-cni-install", "help-cni-uninstall"]),
    ("status", &["status", "status-json", "no-agent"]),
    ("endpoints", &["endpoints", "endpoints-of-one-json"]),
    ("names", &["names", "names-of-one-json", "names-without-rules"]),
    ("policies", &["policies", "policies-of-one-json"]),
    ("rollout", &["rollout", "rollout-of-one-json"]),
    ("flows", &["flows", "flows-of-a-namespace-json"]),
    ("trace", &["trace-of-no-pod"]),
    (
        "explain",
        &[
            "explain-denied",
            "explain-denied-json",
            "explain-cluster-policy",
            "explain-name",
            "explain-what-if",
            "explain-live",
            "explain-uncertain",
            "explain-unknown",
            "explain-exit-code",
        ],
    ),
    (
        "matrix",
        &["matrix", "matrix-json", "matrix-csv", "matrix-diff", "matrix-diff-json", "matrix-of-no-pod"],
    ),
    ("lint", &["lint", "lint-json", "lint-of-no-pod"]),
    ("coverage", &["coverage", "coverage-of-a-namespace", "coverage-fails", "coverage-json"]),
    ("advise", &["advise", "advise-would-deny"]),
    ("convert", &["convert"]),
    ("dump", &[]),
    ("doctor", &[]),
    ("completion", &[]),
    ("man", &[]),
    ("version", &["version-with-layout", "version-json"]),
    (
        "cluster",
        &[
            "help-cluster-status",
            "help-cluster-endpoints",
            "help-cluster-names",
            "help-cluster-policies",
            "help-cluster-flows",
            "help-cluster-explain",
            "help-cluster-advise",
            "help-cluster-report",
            "help-cluster-rollout-status",
        ],
    ),
];

const HEAD: &str = "\
# Command reference

<!-- Generated from agent/tests/verbs/expected. Do not edit: PODGATE_WRITE_EXPECTED=1 cargo test --test verbs -->

The help text of each command and examples of its output, as the tests expect them. Data goes to standard
output, messages to standard error. JSON is a contract: fields are added, and any other change is listed in
the [changelog](../../.github/CHANGELOG.md). Exit codes: 0 done, 1 failed, 2 wrong usage, 3 found what was
looked for: a change opens or closes something (`matrix --diff`), there are findings (`lint`), too few pods
are isolated (`coverage --fail-under`), a connection is denied (`explain --exit-code`), objects are not
carried whole or have no equal (`check --calico`, `convert`), pods ask resolvers that are not believed or not
seen (`check --names`); 4 some nodes did not answer (`cluster`).
";

#[test]
fn the_command_reference_is_made_of_the_expected_outputs() {
    if env::var_os(WRITE).is_some() {
        return write();
    }
    let written = fs::read_to_string(path()).expect("agent/docs/cli.md");
    assert!(written == text(), "{} is out of date: see {WRITE} in {}", path().display(), file!());
}

#[test]
fn every_finding_is_documented_with_its_severity() {
    let page = fs::read_to_string(directory().join("../../docs/lint.md")).expect("agent/docs/lint.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let documented: Vec<(&str, &str)> =
        rows.map(|(name, rest)| (name, rest.split(' ').next().unwrap_or_default())).collect();
    let known = LintName::ALL.map(|name| (name.as_str(), name.severity().word()));
    assert_eq!(documented, known);
}

#[test]
fn the_readme_shows_lines_that_lint_coverage_and_matrix_print() {
    let readme = fs::read_to_string(directory().join("../../../README.md")).expect("the README");
    let mut shown = 0;
    let mut printed: Option<(&str, String)> = None;
    for line in readme.lines() {
        if let Some(command) = line.strip_prefix("$ podgate ") {
            let verb = command.split(' ').next().unwrap_or_default();
            let file = [("lint", "lint"), ("coverage", "coverage"), ("matrix", "matrix-diff")];
            let file = file.into_iter().find(|(of, _)| *of == verb);
            printed = file.map(|(_, file)| {
                let path = directory().join(format!("expected/{file}.txt"));
                let text = fs::read_to_string(path).expect("an expected output");
                assert!(text.starts_with(&format!("{line}\n")), "{line} is not {text}");
                (verb, text)
            });
        }
        match &printed {
            _ if line == "```" => printed = None,
            Some((verb, printed)) if line != "..." => {
                assert!(printed.lines().any(|printed| printed == line), "{verb} does not print {line:?}");
                shown += 1;
            }
            Some(_) | None => {}
        }
    }
    assert!(shown >= 6, "only {shown} lines");
}

/// Tests run at once: each writes the page after its outputs, so the last one to do so has read all of them.
pub(crate) fn write() {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().expect("writing does not panic elsewhere");
    fs::write(path(), text()).expect("agent/docs/cli.md can be written");
}

fn path() -> PathBuf {
    directory().join("../../docs/cli.md")
}

fn text() -> String {
    let mut text = HEAD.to_owned();
    let mut put = |line: std::fmt::Arguments<'_>| text.write_fmt(line).expect("a string takes all");
    put(format_args!("\n## podgate\n\n{}", block("help")));
    for (command, examples) in COMMANDS {
        put(format_args!("\n## podgate {command}\n\n{}", block(&format!("help-{command}"))));
        for example in examples {
            put(format_args!("\n{}", block(example)));
        }
    }
    text
}

/// An expected output; that a command succeeded needs no words.
fn block(name: &str) -> String {
    let text = fs::read_to_string(directory().join("expected").join(format!("{name}.txt")));
    let text = text.unwrap_or_default();
    let lines = text.lines().filter(|line| *line != "[exit code 0]").map(str::trim_end);
    format!("```console\n{}\n```\n", lines.collect::<Vec<_>>().join("\n"))
}
