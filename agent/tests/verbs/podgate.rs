//! Runs the program in the directory of these tests, so that it names files as users would.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Runs one command line, which has no quotes in it.
pub(crate) fn run(line: &str, environment: &[(&str, &Path)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_podgate"));
    command.args(line.split_whitespace()).current_dir(directory()).env_clear();
    command.envs(environment.iter().copied()).output().expect("the program that cargo has built")
}

pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verbs")
}
