//! The steps of a set-up: what each says, and what it does.
//!
//! Programs that take long show their own progress; those that would fill the screen are quiet and are quoted
//! when they fail.

use std::{fmt, process::Command};

use anyhow::{Context, Result, bail, ensure};

use super::versions;
use crate::cargo;

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Install Debian packages.
    Packages(Vec<&'static str>),
    /// Make Debian's compiler known to rustup by this name.
    Link(&'static str),
    /// Build bpf-linker with this LLVM of Debian's, or with what its defaults find.
    Linker { llvm: Option<u32> },
    /// Build a subcommand of cargo.
    CargoTool { name: &'static str, version: &'static str },
}

impl Step {
    pub(super) fn needs_root(&self) -> bool {
        matches!(self, Self::Packages(_))
    }

    pub(super) fn take(&self) -> Result<()> {
        match self {
            Self::Packages(packages) => install(packages),
            Self::Link(name) => quietly(Command::new("rustup").args(["toolchain", "link", name, "/usr"])),
            Self::Linker { llvm } => build_linker(*llvm),
            Self::CargoTool { name, version } => build_tool(name, version),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packages(packages) => write!(f, "install packages by apt-get: {}", packages.join(" ")),
            Self::Link(name) => write!(f, "link Debian's compiler as rustup toolchain {name}"),
            Self::Linker { llvm: Some(llvm) } => {
                write!(f, "build bpf-linker {} with LLVM {llvm} (about a minute)", versions::linker())
            }
            Self::Linker { llvm: None } => {
                write!(f, "build bpf-linker {} (about a minute)", versions::linker())
            }
            Self::CargoTool { name, version } => write!(f, "build {name} {version} (some minutes)"),
        }
    }
}

fn install(packages: &[&str]) -> Result<()> {
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq");
        apt
    };
    quietly(apt().arg("update"))?;
    // Debian's `rustc` conflicts with `rustc-web`: whoever has it shall decide, not be surprised.
    quietly(apt().args(["install", "--yes", "--no-install-recommends", "--no-remove"]).args(packages))
}

fn build_linker(llvm: Option<u32>) -> Result<()> {
    let mut install = cargo::command();
    install.args(["install", "bpf-linker", "--locked", "--version", versions::linker()]);
    // Its debug information takes as long to make as all the rest.
    install.env("CARGO_PROFILE_RELEASE_DEBUG", "false");
    if let Some(llvm) = llvm {
        install.args(["--no-default-features", "--features", &format!("llvm-{llvm}")]);
        install.env("LLVM_PREFIX", format!("/usr/lib/llvm-{llvm}"));
    }
    let status = install.status().context("starting cargo")?;
    ensure!(status.success(), "cargo install bpf-linker: {status}");
    Ok(())
}

fn build_tool(name: &str, version: &str) -> Result<()> {
    let mut install = cargo::command();
    install.args(["install", name, "--locked", "--version", version]);
    install.env("CARGO_PROFILE_RELEASE_DEBUG", "false");
    let status = install.status().context("starting cargo")?;
    ensure!(status.success(), "cargo install {name}: {status}");
    Ok(())
}

/// Runs a command whose output matters only when it fails.
fn quietly(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        bail!("{command:?}: {}\n{stdout}{stderr}", output.status);
    }
    Ok(())
}
