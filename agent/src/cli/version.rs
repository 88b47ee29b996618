//! `podgate version`: the version of this binary, and the layout of the maps that it shares with others.

use std::process::ExitCode;

use clap::Args;
use podgate_common::LAYOUT_VERSION;
use serde::Serialize;

use super::output::Format;

/// Print the version of this binary
#[derive(Debug, Args)]
#[command(after_help = "\
An agent whose maps have the same layout takes over the connections of the agent before it.

Example:
  podgate version -o json")]
pub(super) struct VersionOptions {}

#[derive(Debug, Serialize)]
struct VersionReport {
    version: &'static str,
    layout: u32,
}

impl VersionOptions {
    pub(super) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let Self {} = self;
        let report = VersionReport { version: env!("CARGO_PKG_VERSION"), layout: LAYOUT_VERSION };
        format.print(&report, |VersionReport { version, layout }| {
            format!("podgate {version}, layout {layout}\n")
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
