//! `cargo xtask calico`: compares podgate's reading of Calico's policies with Calico itself.
//!
//! In: the number of clusters. Out: the output of this package's example `calico`, which has the oracle's
//! generator and evaluator; its exit code is 1 if anything differs.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use crate::{
    cargo,
    flags::CalicoFlags,
    kubernetes::{CalicoPrograms, Programs},
    peers, root, setup,
};

pub(crate) fn run(flags: CalicoFlags) -> Result<ExitCode> {
    root::require("Calico's agent (network namespaces, iptables)")?;
    setup::install(&peers::PROGRAMS)?;
    Programs::small()?;
    CalicoPrograms::built()?;
    let example = ["--release", "--package", "xtask", "--example", "calico"];
    cargo::build("the comparison", &[&["build"], &example[..]].concat())?;
    let mut run = cargo::command();
    run.args(["run", "--quiet"]).args(example).arg("--");
    run.args(["--clusters", &flags.clusters.to_string(), "--seed", &flags.seed.to_string()]);
    run.args(flags.only.iter().flat_map(|only| ["--only".to_owned(), only.to_string()]));
    let status = run.status().context("starting the comparison")?;
    ensure!(status.code().is_some(), "the comparison ended: {status}");
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
