//! How data reaches stdout: for people as text, for scripts as JSON, both from the same struct.

use std::{
    ffi::OsStr,
    fmt,
    io::{self, BufWriter, ErrorKind, Write},
};

use anyhow::Context;
use clap::{
    Arg, Command, ValueEnum as _,
    builder::{EnumValueParser, PossibleValue, PossibleValuesParser, TypedValueParser},
};
use serde::Serialize;

/// What every verb can print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Table,
    Json,
}

/// What users may ask for. Not every verb has all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Output {
    Table,
    Json,
    Csv,
    Html,
    Wide,
    Yaml,
}

/// What every verb has.
pub(super) const OF_EVERY_VERB: [Output; 2] = [Output::Table, Output::Json];
pub(super) const OF_MATRIX: [Output; 4] = [Output::Table, Output::Json, Output::Csv, Output::Html];
pub(super) const OF_COVERAGE: [Output; 3] = [Output::Table, Output::Json, Output::Wide];

pub(super) const OF_CLUSTER: [Output; 4] = [Output::Table, Output::Wide, Output::Json, Output::Yaml];
/// The page of the whole cluster, and its data.
pub(super) const OF_REPORT: [Output; 3] = [Output::Html, Output::Json, Output::Yaml];

/// What was looked for was found: a pipeline stops here and lets somebody look.
pub(super) const FOUND: u8 = 3;

/// Offers what a verb has, and reads the others as well: they may stand before a verb that has them.
#[derive(Clone, Debug)]
pub(super) struct Offered(pub(super) &'static [Output]);

impl TypedValueParser for Offered {
    type Value = Output;

    fn parse_ref(
        &self,
        command: &Command,
        option: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Output, clap::Error> {
        let known = EnumValueParser::<Output>::new().parse_ref(command, option, value);
        known.or_else(|_| {
            let offered = PossibleValuesParser::new(self.0.iter().copied().map(possible));
            offered.parse_ref(command, option, value)?;
            unreachable!("what a verb has is known")
        })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.0.iter().copied().map(possible)))
    }
}

fn possible(output: Output) -> PossibleValue {
    output.to_possible_value().expect("no value is hidden")
}

impl Output {
    /// `None`: not every verb has it.
    pub(super) const fn format(self) -> Option<Format> {
        match self {
            Self::Table => Some(Format::Table),
            Self::Json => Some(Format::Json),
            Self::Csv | Self::Html | Self::Wide | Self::Yaml => None,
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

/// Writes to stderr. Who has closed it (`podgate explain 2>&1 | head -1`) has seen enough.
pub(super) fn say(text: impl fmt::Display) {
    let _ = write!(io::stderr().lock(), "{text}");
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
