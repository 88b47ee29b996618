//! How data reaches stdout: for people as text, for scripts as JSON, both from the same struct.

use std::io::{self, ErrorKind, Write};

use anyhow::Context;
use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    Table,
    Json,
}

impl Format {
    pub(super) fn print<T: Serialize>(self, data: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        let output = match self {
            Self::Table => text(data),
            Self::Json => serde_json::to_string_pretty(data).context("JSON")? + "\n",
        };
        let mut stdout = io::stdout().lock();
        match stdout.write_all(output.as_bytes()).and_then(|()| stdout.flush()) {
            // The reader has seen enough (`podgate status | head -1`).
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            written => written.context("stdout"),
        }
    }
}
