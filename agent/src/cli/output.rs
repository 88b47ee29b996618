//! How data reaches stdout: for people as text, for scripts as JSON, both from the same struct.

use std::io::{self, BufWriter, ErrorKind, Write};

use anyhow::Context;
use serde::Serialize;

/// What every verb can print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Table,
    Json,
}

/// What users may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Output {
    Table,
    Json,
    Csv,
    Html,
}

impl Output {
    /// `None`: not every verb has it.
    pub(super) const fn format(self) -> Option<Format> {
        match self {
            Self::Table => Some(Format::Table),
            Self::Json => Some(Format::Json),
            Self::Csv | Self::Html => None,
        }
    }
}

impl Format {
    pub(super) fn print<T: Serialize>(self, data: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        match self {
            Self::Table => print(|stdout| stdout.write_all(text(data).as_bytes())),
            Self::Json => print_json(data),
        }
    }
}

pub(super) fn print_json<T: Serialize>(data: &T) -> anyhow::Result<()> {
    print(|stdout| {
        serde_json::to_writer_pretty(&mut *stdout, data)?;
        stdout.write_all(b"\n")
    })
}

/// Lets `write` write to stdout.
pub(super) fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> anyhow::Result<()> {
    let mut stdout = BufWriter::new(io::stdout().lock());
    match write(&mut stdout).and_then(|()| stdout.flush()) {
        // The reader has seen enough (`podgate status | head -1`).
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}
