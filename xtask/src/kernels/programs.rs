//! The programs that run on the kernels, built for a processor.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{cargo, platform::Platform, test::programs::TestProgram, workspace};

/// Built for one processor.
#[derive(Debug)]
pub(super) struct Programs {
    pub(super) packets: Program,
    pub(super) namespaces: Program,
    /// The agent that the tests between namespaces start.
    pub(super) podgate: Program,
    /// The first process of a machine.
    pub(super) init: PathBuf,
}

/// A program, and where it runs: tests in the directory of their package.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) executable: PathBuf,
    pub(super) directory: PathBuf,
}

impl Programs {
    /// For this machine's processor they are linked as other builds are; else statically, as nothing of this
    /// machine's runs on the other one.
    pub(super) fn build(platform: Platform, profile: &str) -> Result<Self> {
        platform.set_up()?;
        let mut arguments = vec!["test", "--no-run", "--profile", profile, "--workspace"];
        arguments.extend(["--exclude", "podgate-ebpf", "--test", "packets", "--test", "namespaces"]);
        let triple = platform.triple()?;
        let mut settings = Vec::new();
        if platform != Platform::HOST {
            arguments.extend(["--target", &triple]);
            settings = platform.settings()?;
        }
        let settings: Vec<_> = settings.iter().map(|(name, value)| (name.as_str(), value.as_ref())).collect();
        let messages = cargo::build_with(&format!("the tests, for {platform}"), &arguments, &settings)?;
        let find = |name: &str| {
            let mut programs = messages.iter().filter_map(TestProgram::from_message);
            let found = programs.find(|program| program.target == name);
            let found = found.with_context(|| format!("cargo built no tests {name}"))?;
            anyhow::Ok(Program { executable: found.executable, directory: found.directory })
        };
        let namespaces = find("namespaces")?;
        let podgate = workspace::podgate_of_test(&namespaces.executable).context("cargo built no podgate")?;
        Ok(Self {
            packets: find("packets")?,
            init: podgate.with_file_name("xtask"),
            podgate: Program { executable: podgate, directory: workspace::root().to_owned() },
            namespaces,
        })
    }
}
