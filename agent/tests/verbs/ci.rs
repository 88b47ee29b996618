//! `deploy/ci/action.yml`: it is what GitHub reads as a composite action, and its scripts do what they say
//! when bash runs them, with a `gh` that only notes what it is asked.

use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::podgate::directory;

/// The scripts of the action by their ids, and a place for what they write.
struct Action {
    steps: BTreeMap<String, Value>,
    temp: TempDir,
}

impl Action {
    fn new() -> Self {
        let text = fs::read_to_string(directory().join("../../../deploy/ci/action.yml")).expect("the action");
        let action: Value = serde_saphyr::from_str(&text).expect("the action is YAML");
        assert_eq!(action["runs"]["using"], "composite");
        let steps = action["runs"]["steps"].as_array().expect("steps");
        let steps = steps.iter().map(|step| {
            let id = step["id"].as_str().expect("each step has an id").to_owned();
            assert_eq!(step["shell"], "bash", "{id}");
            (id, step.clone())
        });
        let action = Self { steps: steps.collect(), temp: tempfile::tempdir().expect("a directory") };
        action.put_gh("exit 0");
        action
    }

    fn put_gh(&self, then: &str) {
        let gh = self.path("gh");
        let script = format!("#!/bin/bash\necho \"gh $*\" >> {}\n{then}\n", self.path("asked").display());
        fs::write(&gh, script).expect("a file");
        fs::set_permissions(&gh, fs::Permissions::from_mode(0o755)).expect("a mode");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn written(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Runs one script in the directory of these tests. `values` take the place of the action's expressions.
    fn run(&self, id: &str, values: &[(&str, &str)]) -> Output {
        let step = &self.steps[id];
        let program = Path::new(env!("CARGO_BIN_EXE_podgate")).parent().expect("a directory");
        let path = env::join_paths([self.temp.path(), program, Path::new("/usr/bin"), Path::new("/bin")]);
        let mut command = Command::new("bash");
        // As GitHub runs `shell: bash`.
        command.args(["--noprofile", "--norc", "-eo", "pipefail", "-c"]);
        command.arg(step["run"].as_str().expect("a script")).current_dir(directory()).env_clear();
        command.env("PATH", path.expect("no colon")).env("RUNNER_TEMP", self.temp.path());
        command.env("GITHUB_REPOSITORY", "shop/manifests");
        for name in ["GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_PATH"] {
            command.env(name, self.path(name));
        }
        let declared = step["env"].as_object().expect("variables");
        for (name, expression) in declared {
            let given = values.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
            assert!(expression.as_str().is_some_and(|it| it.starts_with("${{ ")), "{name}");
            command.env(name, given.unwrap_or_default());
        }
        let unknown = values.iter().find(|(name, _)| !declared.contains_key(*name));
        assert_eq!(unknown, None, "{id} declares its variables");
        command.output().expect("bash")
    }

    /// Runs one script, which succeeds.
    fn succeed(&self, id: &str, values: &[(&str, &str)]) {
        let output = self.run(id, values);
        assert!(output.status.success(), "{id}: {output:?}");
    }
}

#[test]
fn scripts_hold_no_expression_and_inputs_exist() {
    let text = fs::read_to_string(directory().join("../../../deploy/ci/action.yml")).expect("the action");
    let action: Value = serde_saphyr::from_str(&text).expect("the action is YAML");
    let inputs = action["inputs"].as_object().expect("inputs");
    for step in Action::new().steps.values() {
        assert!(!step["run"].as_str().expect("a script").contains("${{"), "{step}");
        for expression in step["env"].as_object().expect("variables").values() {
            let expression = expression.as_str().expect("text");
            if let Some(input) = expression.strip_prefix("${{ inputs.") {
                assert!(inputs.contains_key(input.trim_end_matches(" }}")), "{expression}");
            }
        }
    }
}

#[test]
fn a_run_of_a_pull_request_writes_both_tables_into_the_summary_and_a_comment() {
    let action = Action::new();
    action.succeed("podgate", &[]);
    action.succeed("lint", &[("MANIFESTS", "lint.yaml\n"), ("SEVERITY", "warning")]);
    let compared = [("MANIFESTS", "change.yaml"), ("BEFORE", "\nshop.yaml\n"), ("PORTS", "TCP/8080")];
    action.succeed("matrix", &compared);
    assert_eq!(action.written("GITHUB_OUTPUT"), "code=3\ncode=3\n");
    action.succeed("report", &[("COMMENT", "true"), ("PULL_REQUEST", "7")]);
    let summary = action.written("GITHUB_STEP_SUMMARY");
    for part in [
        "### podgate lint\n\n<pre>\nread 8 objects",
        "\nPLACE ",
        "policy-selects-no-pod",
        "### podgate matrix --diff",
        "-&gt;",
    ] {
        assert!(summary.contains(part), "{part}: {summary}");
    }
    assert_eq!(summary, action.written("podgate-report.md"));
    let asked = action.written("asked");
    assert!(asked.contains("--method POST repos/shop/manifests/issues/7/comments -F body=@"), "{asked}");
}

#[test]
fn an_earlier_comment_is_replaced_and_a_refused_one_is_no_failure() {
    let action = Action::new();
    action.succeed("lint", &[("MANIFESTS", "shop.yaml"), ("SEVERITY", "error")]);
    action.put_gh("echo 12");
    action.succeed("report", &[("COMMENT", "true"), ("PULL_REQUEST", "7")]);
    let asked = action.written("asked");
    assert!(asked.contains("--method PATCH repos/shop/manifests/issues/comments/12 -F body=@"), "{asked}");
    action.put_gh("exit 1");
    let output = action.run("report", &[("COMMENT", "true"), ("PULL_REQUEST", "7")]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("::warning::"), "{output:?}");
}

#[test]
fn without_a_pull_request_or_a_state_before_there_is_less_to_report() {
    let action = Action::new();
    action.succeed("lint", &[("MANIFESTS", "shop.yaml"), ("SEVERITY", "error")]);
    action.succeed("matrix", &[("MANIFESTS", "shop.yaml"), ("BEFORE", ""), ("PORTS", "TCP/80")]);
    action.succeed("report", &[("COMMENT", "true"), ("PULL_REQUEST", "")]);
    assert_eq!(action.written("GITHUB_OUTPUT"), "code=0\ncode=0\n");
    assert!(!action.written("GITHUB_STEP_SUMMARY").contains("matrix"));
    assert_eq!(action.written("asked"), "");
}

#[test]
fn what_objects_are_called_is_text_in_the_report() {
    let action = Action::new();
    let file = action.path("hostile.yaml");
    let text = "kind: Pod\napiVersion: v1\nmetadata: {name: \"</pre><b>``` @everybody\"}\n";
    fs::write(&file, text).expect("a file");
    let manifests = [("MANIFESTS", file.to_str().expect("UTF-8")), ("SEVERITY", "error")];
    action.succeed("lint", &manifests);
    action.succeed("report", &[("COMMENT", "false"), ("PULL_REQUEST", "7")]);
    let summary = action.written("GITHUB_STEP_SUMMARY");
    assert!(summary.contains("&lt;/pre&gt;&lt;b&gt;") && !summary.contains("<b>"), "{summary}");
    assert_eq!(summary.matches("</pre>").count(), 1, "{summary}");
}

#[test]
fn the_verdict_is_that_of_both_commands() {
    let action = Action::new();
    for (lint, matrix, on_difference, succeeds) in [
        ("0", "0", "false", true),
        ("0", "3", "false", true),
        ("0", "3", "true", false),
        ("3", "0", "false", false),
        ("1", "0", "false", false),
        ("0", "1", "false", false),
        ("", "0", "false", false),
    ] {
        let values = [("LINT", lint), ("MATRIX", matrix), ("FAIL_ON_DIFFERENCE", on_difference)];
        let output = action.run("verdict", &values);
        assert_eq!(output.status.success(), succeeds, "{values:?} {output:?}");
    }
}
