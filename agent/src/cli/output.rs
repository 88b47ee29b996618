//! How data reaches stdout: for people as text, for scripts as JSON, both from the same struct.

use std::io::{self, BufWriter, ErrorKind, Write};

use anyhow::Context;
use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    Table,
    Json,
}

impl Format {
    pub(super) fn print<T: Serialize>(self, data: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        let mut stdout = BufWriter::new(io::stdout().lock());
        let written = match self {
            Self::Table => stdout.write_all(text(data).as_bytes()),
            Self::Json => serde_json::to_writer_pretty(&mut stdout, data)
                .map_err(io::Error::from)
                .and_then(|()| stdout.write_all(b"\n")),
        };
        match written.and_then(|()| stdout.flush()) {
            // The reader has seen enough (`podgate status | head -1`).
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            written => written.context("stdout"),
        }
    }
}
