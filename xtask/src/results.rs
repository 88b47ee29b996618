//! What each single test came to when it ran last: a file in cargo's target directory, a line `ok NAME` or
//! `failed NAME` each.
//!
//! In: the lines that test programs print. Out: the outcome of a test, by its full name `PROGRAM::PATH`.
//! Tests that were ignored have no outcome.

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::workspace;

/// Outcomes by full name; `true` is a test that passed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Results {
    passed: BTreeMap<String, bool>,
}

impl Results {
    /// What earlier runs have left; nothing if there was none.
    pub(crate) fn load() -> Result<Self> {
        let file = file()?;
        match fs::read_to_string(&file) {
            Ok(text) => Ok(Self::from_text(&text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("reading {}", file.display())),
        }
    }

    pub(crate) fn save(&self) -> Result<()> {
        let file = file()?;
        fs::write(&file, self.to_text()).with_context(|| format!("writing {}", file.display()))
    }

    /// Takes in one line of a test program's output, if it says how a test ended.
    pub(crate) fn note(&mut self, program: &str, line: &str) {
        if let Some((name, passed)) = outcome(line) {
            self.passed.insert(format!("{program}::{name}"), passed);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.passed.is_empty()
    }

    /// `None`: it did not run.
    pub(crate) fn passed(&self, name: &str) -> Option<bool> {
        self.passed.get(name).copied()
    }

    fn from_text(text: &str) -> Self {
        let entry = |line: &str| match line.split_once(' ')? {
            ("ok", name) => Some((name.to_owned(), true)),
            ("failed", name) => Some((name.to_owned(), false)),
            _ => None,
        };
        Self { passed: text.lines().filter_map(entry).collect() }
    }

    fn to_text(&self) -> String {
        let word = |passed| if passed { "ok" } else { "failed" };
        self.passed.iter().map(|(name, passed)| format!("{} {name}\n", word(*passed))).collect()
    }
}

fn file() -> Result<PathBuf> {
    Ok(workspace::target()?.join(Path::new("test-results")))
}

/// From `test NAME ... ok`; one of the two harnesses in use pads the names.
fn outcome(line: &str) -> Option<(&str, bool)> {
    let (name, outcome) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let passed = match outcome.split_whitespace().next()? {
        "ok" => true,
        "FAILED" => false,
        _ => return None,
    };
    Some((name.trim_end(), passed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_read_from_what_both_harnesses_print_and_come_back_from_the_file() {
        let mut results = Results::default();
        for line in [
            "running 3 tests",
            "test rows::a_row_is_read ... ok",
            "test rows::a_bad_row_is_named ... FAILED",
            "test rows::later ... ignored",
            "test a_padded_name        ... ok",
            "test result: FAILED. 2 passed; 1 failed; 1 ignored",
        ] {
            results.note("agent", line);
        }
        for (name, expected) in [
            ("agent::rows::a_row_is_read", Some(true)),
            ("agent::rows::a_bad_row_is_named", Some(false)),
            ("agent::rows::later", None),
            ("agent::a_padded_name", Some(true)),
        ] {
            assert_eq!(results.passed(name), expected, "{name}");
        }
        assert_eq!(Results::from_text(&results.to_text()), results);
    }
}
