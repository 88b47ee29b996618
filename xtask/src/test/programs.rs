//! Test programs: building them, listing their tests, running them and counting.
//!
//! In: the workspace and a selection of tests. Out: what each program prints, as it prints it, and how many
//! of its tests passed and failed. Programs are run one after another; each runs its tests in parallel.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{cargo, flags::Shard, results::Results};

/// Of the workspace's manifest.
const PROFILE: &str = "tests";

/// Which tests to run.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    /// Part of the name.
    pub(crate) only: Option<String>,
    pub(crate) shard: Option<Shard>,
}

/// A program that cargo built from tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TestProgram {
    package: String,
    /// Of the library, binary or test file.
    pub(crate) target: String,
    kind: String,
    pub(crate) executable: PathBuf,
    /// Where cargo would run it: the package's directory.
    pub(crate) directory: PathBuf,
    /// Tests that are not selected.
    others: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) ignored: usize,
}

/// Builds podgate and the test programs of the workspace without the package `left_out`, and keeps those with
/// a selected test. What clippy has to say of the code is an error.
pub(crate) fn build(left_out: &str, selection: &Selection) -> Result<Vec<TestProgram>> {
    let arguments = ["test", "--no-run", "--profile", PROFILE, "--workspace", "--exclude", left_out];
    let messages = cargo::build_and_lint("the tests", &arguments)?;
    let mut selected = Vec::new();
    for mut program in messages.iter().filter_map(TestProgram::from_message) {
        let (wanted, others) = selection.split(program.list()?);
        program.others = others;
        if !wanted.is_empty() {
            selected.push(program);
        }
    }
    // Unit tests of libraries and programs first, those between namespaces last.
    selected.sort_by_key(|program| (program.kind == "test", program.package.clone(), program.target.clone()));
    Ok(selected)
}

impl Selection {
    /// The selected tests, and the others.
    fn split(&self, tests: Vec<String>) -> (Vec<String>, Vec<String>) {
        let named = |name: &str| self.only.as_ref().is_none_or(|only| name.contains(only));
        let (named, mut others): (Vec<_>, Vec<_>) = tests.into_iter().partition(|name| named(name));
        let mut wanted = Vec::new();
        for (position, name) in named.into_iter().enumerate() {
            let taken = self.shard.is_none_or(|shard| shard.takes(position));
            if taken { &mut wanted } else { &mut others }.push(name);
        }
        (wanted, others)
    }
}

impl TestProgram {
    /// From one of cargo's JSON messages, when it is about a test program.
    pub(crate) fn from_message(message: &Value) -> Option<Self> {
        if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
            return None;
        }
        let directory = Path::new(message["manifest_path"].as_str()?).parent()?;
        Some(Self {
            package: directory.file_name()?.to_string_lossy().into_owned(),
            target: message["target"]["name"].as_str()?.to_owned(),
            kind: message["target"]["kind"][0].as_str()?.to_owned(),
            executable: message["executable"].as_str()?.into(),
            directory: directory.to_owned(),
            others: Vec::new(),
        })
    }

    pub(crate) fn title(&self) -> String {
        match self.kind.as_str() {
            "test" => format!("tests of {}: {}", self.package, self.target),
            kind => format!("unit tests of {} ({kind})", self.package),
        }
    }

    /// What full names of its tests start with: one package has one program of unit tests.
    fn name(&self) -> &str {
        if self.kind == "test" { &self.target } else { &self.package }
    }

    /// Runs the selected tests, notes their outcomes, and counts them. Fails when the program ends otherwise
    /// than its count says.
    pub(crate) fn run(&self, results: &mut Results) -> Result<Count> {
        let mut command = self.command();
        // Of the two harnesses in use, one takes a single name to run, both take many to skip.
        command.arg("--exact").args(self.others.iter().flat_map(|name| ["--skip", name.as_str()]));
        let mut run = command.stdout(Stdio::piped()).spawn().context("starting the tests")?;
        let output = run.stdout.take().context("stdout is piped")?;
        let mut count = None;
        for line in BufReader::new(output).lines() {
            let line = line.context("reading the output of the tests")?;
            count = Count::from_line(&line).or(count);
            results.note(self.name(), &line);
            println!("{line}");
        }
        let status = run.wait().context("waiting for the tests")?;
        let count = count.with_context(|| format!("the tests ended without a result: {status}"))?;
        ensure!(status.success() == (count.failed == 0), "the tests ended with {status} after {count:?}");
        Ok(count)
    }

    fn list(&self) -> Result<Vec<String>> {
        let output =
            self.command().args(["--list", "--format", "terse"]).output().context("listing tests")?;
        ensure!(output.status.success(), "listing tests: {}", output.status);
        let lines = String::from_utf8(output.stdout).context("names of tests")?;
        Ok(lines.lines().filter_map(|line| Some(line.strip_suffix(": test")?.to_owned())).collect())
    }

    /// Nothing may be skipped in silence: `CI` turns what cannot run into a failure.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.executable);
        command.current_dir(&self.directory).env("CARGO_MANIFEST_DIR", &self.directory).env("CI", "true");
        command
    }
}

impl Count {
    /// From `test result: ok. 12 passed; 0 failed; …`.
    pub(crate) fn from_line(line: &str) -> Option<Self> {
        let result = line.strip_prefix("test result: ")?;
        let number = |what: &str| {
            result.split(['.', ';']).find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok())
        };
        Some(Self { passed: number("passed")?, failed: number("failed")?, ignored: number("ignored")? })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn results_are_read_from_the_last_line_of_a_test_program() {
        let count = |passed, failed, ignored| Some(Count { passed, failed, ignored });
        for (line, expected) in [
            (
                "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
                count(12, 0, 1),
            ),
            (
                "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
                count(3, 2, 0),
            ),
            ("test result_is_ok ... ok", None),
            ("running 3 tests", None),
        ] {
            assert_eq!(Count::from_line(line), expected, "{line}");
        }
    }

    #[test]
    fn a_selection_takes_names_with_the_pattern_and_of_those_its_shard() {
        let tests = ["a_pod", "b_pod", "c_node", "d_pod"].map(str::to_owned).to_vec();
        for (only, shard, wanted) in [
            (None, None, vec!["a_pod", "b_pod", "c_node", "d_pod"]),
            (Some("pod"), None, vec!["a_pod", "b_pod", "d_pod"]),
            (Some("pod"), Some("1/2"), vec!["a_pod", "d_pod"]),
            (Some("pod"), Some("2/2"), vec!["b_pod"]),
            (Some("nobody"), None, vec![]),
        ] {
            let shard = shard.map(|shard| shard.parse().expect("well-formed"));
            let (taken, others) = Selection { only: only.map(str::to_owned), shard }.split(tests.clone());
            assert_eq!(taken, wanted);
            assert_eq!(taken.len() + others.len(), tests.len());
        }
    }

    #[test]
    fn test_programs_are_found_among_messages() {
        let mut message = json!({
            "reason": "compiler-artifact", "manifest_path": "/p/agent/Cargo.toml",
            "target": {"name": "matrix", "kind": ["test"]}, "profile": {"test": true}, "executable": "/p/t/matrix-1",
        });
        let program = TestProgram::from_message(&message).expect("a test program");
        assert_eq!(program.title(), "tests of agent: matrix");
        assert_eq!(program.directory, Path::new("/p/agent"));
        message["profile"]["test"] = false.into();
        assert_eq!(TestProgram::from_message(&message), None);
    }
}
