//! The agent's metrics and its export, with the programs that read them: OpenTelemetry's collector and
//! Prometheus.
//!
//! The tests need root, for the network namespaces, and both programs, which Go builds first: see
//! `xtask::kubernetes`. Without these they fail.

mod collector;
#[path = "../namespaces/fixture.rs"]
mod fixture;
#[path = "../namespaces/harness.rs"]
mod harness;
mod prometheus;
#[path = "../namespaces/scene.rs"]
mod scene;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use libtest_mimic::{Failed, Trial};
use xtask::{kubernetes, lab::Lab, sandbox::Sandbox};

/// A test gets an empty lab, and the programs.
type Test = fn(&mut Lab, &Readers) -> Result<()>;

/// They wait more than they compute.
const AT_ONCE: usize = 4;

/// The programs that read the agent's data.
#[derive(Clone, Debug)]
pub(crate) struct Readers {
    pub(crate) collector: PathBuf,
    pub(crate) prometheus: PathBuf,
}

fn main() -> Result<ExitCode> {
    // The sandbox has no way out to where Go's modules come from.
    let prepare =
        || Ok(Readers { collector: kubernetes::collector()?, prometheus: kubernetes::prometheus()? });
    harness::run_in_sandbox(AT_ONCE, prepare, trials)
}

/// Without a sandbox, which takes root, all of them fail.
fn trials(inside: Option<(Sandbox, Readers)>) -> Vec<Trial> {
    let trial = |(number, &(name, test)): (usize, &(&str, Test))| {
        let inside = inside.clone();
        Trial::test(name, move || {
            let (sandbox, readers) = inside.ok_or("needs root")?;
            let mut lab = Lab::new(sandbox, &format!("test-{number}"))?;
            test(&mut lab, &readers).map_err(|error| Failed::from(format!("{error:#}\n{}", lab.logs())))
        })
    };
    prometheus::TESTS.iter().chain(collector::TESTS).enumerate().map(trial).collect()
}
