//! `podgate detach`: takes everything out of the kernel.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use super::{agent::BPFFS, output::Format};
use crate::kernel;

/// Take every program, pin and link away; works with no agent running
#[derive(Debug, Args)]
#[command(after_help = "\
All pods are free afterwards. Stop the agent first: it would put everything back when it is restarted.

Example:
  podgate detach")]
pub(super) struct Options {
    /// BPF file system with the pins
    #[arg(long, value_name = "DIR", default_value = BPFFS)]
    bpffs: PathBuf,
}

/// How many of each are gone.
#[derive(Debug, Serialize)]
struct Gone {
    programs: usize,
    links: usize,
    maps: usize,
}

impl Options {
    pub(super) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let detached =
            kernel::detach(&self.bpffs).with_context(|| format!("detach {}", self.bpffs.display()))?;
        let gone = Gone { programs: detached.programs, links: detached.links, maps: detached.maps };
        format.print(&gone, |Gone { programs, links, maps }| {
            format!("detached: {programs} programs, {links} links, {maps} maps\n")
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
