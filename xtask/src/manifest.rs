//! `cargo xtask manifest`: `deploy/base` in one file, for who has no kustomize.
//!
//! In: `deploy/base`. Out: `deploy/podgate.yaml`; a test compares the two.

use std::{
    fs,
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, ensure};

use crate::{kubernetes::Programs, workspace};

const HEAD: &str = "\
# deploy/base in one file: kubectl apply -f deploy/podgate.yaml. Made by `cargo xtask manifest`.
";

pub(crate) fn run() -> Result<ExitCode> {
    let path = path();
    fs::write(&path, single_file()?).with_context(|| path.display().to_string())?;
    println!("{}", path.display());
    Ok(ExitCode::SUCCESS)
}

/// Where it stands.
pub fn path() -> PathBuf {
    workspace::root().join("deploy/podgate.yaml")
}

/// What should stand there.
///
/// # Errors
///
/// When there is no `kubectl`, or it does not take `deploy/base`.
pub fn single_file() -> Result<String> {
    Ok(format!("{HEAD}{}", kustomized("base")?))
}

/// The objects of a directory of `deploy`, as YAML.
///
/// # Errors
///
/// As above.
pub fn kustomized(part: &str) -> Result<String> {
    let kubectl = Programs::small()?.path("kubectl");
    let directory = workspace::root().join("deploy").join(part);
    let output =
        Command::new(kubectl).arg("kustomize").arg(directory).output().context("starting kubectl")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "kubectl kustomize deploy/{part}: {}", complaint.trim());
    String::from_utf8(output.stdout).context("the output of kubectl")
}
