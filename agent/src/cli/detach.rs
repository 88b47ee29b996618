//! `podgate detach`: takes everything out of the kernel.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;
use podgate_datapath::Detached;
use serde::Serialize;

use super::output::Format;
use crate::options::BPFFS;

/// Remove every program, link and pin; works without a running agent
#[derive(Debug, Args)]
#[command(after_help = "\
Afterwards podgate enforces nothing. Stop the agent first: an agent that is restarted puts everything back.

Example:
  podgate detach")]
pub(super) struct DetachOptions {
    /// BPF file system with the pins
    #[arg(long, value_name = "DIR", default_value = BPFFS)]
    bpffs: PathBuf,
    /// Then wait for SIGTERM or SIGINT, because a DaemonSet restarts a process that ends
    #[arg(long)]
    stay: bool,
}

/// How many of each are gone.
#[derive(Debug, Serialize)]
struct Gone {
    links: usize,
    filters: usize,
    maps: usize,
}

impl DetachOptions {
    pub(super) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let Detached { links, filters, maps } = podgate_datapath::detach(&self.bpffs)
            .with_context(|| format!("cannot detach from {}", self.bpffs.display()))?;
        format.print(&Gone { links, filters, maps }, |Gone { links, filters, maps }| {
            format!("detached: {links} links, {filters} filters, {maps} maps\n")
        })?;
        if self.stay {
            crate::run::until_signal()?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
