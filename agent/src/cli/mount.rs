//! `podgate mount`: mounts the BPF file system, for a start of the agent that may not.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::bail;
use clap::Args;
use podgate_datapath::bpffs;
use serde::Serialize;

use super::output::Format;
use crate::options::BPFFS;

/// Mount the BPF file system, if it is not mounted, so that it outlasts this container
#[derive(Debug, Args)]
#[command(after_help = "\
In a container, DIR must be a directory of the host that is mounted with bidirectional propagation. deploy/base does \
this before the agent starts.

Example:
  podgate mount --bpffs /sys/fs/bpf")]
pub(super) struct MountOptions {
    /// Directory to mount it on
    #[arg(long, value_name = "DIR", default_value = BPFFS)]
    bpffs: PathBuf,
}

#[derive(Debug, Serialize)]
struct Mounted {
    mounted: bool,
}

impl MountOptions {
    pub(super) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let made = bpffs::mount(&self.bpffs)?;
        if let Some(reason) = bpffs::pins_lost(Path::new("/"), &self.bpffs, made) {
            bail!("{reason}");
        }
        format.print(&Mounted { mounted: made }, |Mounted { mounted }| {
            let what = if *mounted { "mounted" } else { "mounted already" };
            format!("{}: {what}\n", self.bpffs.display())
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
