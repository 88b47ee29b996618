//! `podgate detach`: takes everything out of the kernel.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use super::output::Format;
use crate::kernel::{self, Detached};
use crate::options::BPFFS;

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
    /// Then stay until SIGTERM or SIGINT: a DaemonSet starts again what ends
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

impl Options {
    pub(super) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let Detached { links, filters, maps } = kernel::detach(&self.bpffs)
            .with_context(|| format!("cannot detach from {}", self.bpffs.display()))?;
        format.print(&Gone { links, filters, maps }, |Gone { links, filters, maps }| {
            format!("detached: {links} links, {filters} filters, {maps} maps\n")
        })?;
        if self.stay {
            crate::run::until_told()?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
