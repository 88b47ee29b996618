//! The report of a benchmark: as JSON for scripts, as a page for people.
//!
//! In: what one run found out, measured now or read from its JSON, and how to show it. Out: text. Nothing
//! here knows what was measured.

mod page;
mod plot;

use std::{fmt, fs, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

pub(crate) use plot::{Bar, Bars, Line, Lines, Plot};

use super::{figure::Figure, machine::Machine};
use crate::flags::ReportFlags;

/// Everything that one run has found out. Its JSON is read again to draw a page without measuring.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Findings {
    /// The command that was run.
    pub(crate) command: String,
    pub(crate) machine: Machine,
    pub(crate) variants: Vec<String>,
    pub(crate) figures: Vec<Figure>,
    pub(crate) refused: Vec<Refusal>,
    /// How it was measured, and what could not be.
    pub(crate) notes: Vec<String>,
    /// What the figures do not show.
    pub(crate) limits: Vec<String>,
}

/// Findings as they are shown.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) findings: Findings,
    pub(crate) title: &'static str,
    /// The first sentence of the page.
    pub(crate) lead: &'static str,
    pub(crate) plots: Vec<Plot>,
}

/// A measure whose control was off: it has no figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) name: String,
    /// By how much, in per cent; nothing when there was no control.
    pub(crate) off: Option<f64>,
    pub(crate) tolerance: f64,
}

impl Findings {
    /// Those of an earlier run, from its JSON.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} was not written by `cargo xtask bench ... --json`", file.display()))
    }
}

impl Report {
    /// Writes the files that were asked for.
    pub(crate) fn write(&self, flags: &ReportFlags) -> Result<()> {
        if let Some(file) = &flags.json {
            let text = serde_json::to_string_pretty(&self.findings).context("writing the figures as JSON")?;
            fs::write(file, text + "\n").with_context(|| format!("writing {}", file.display()))?;
        }
        if let Some(file) = &flags.report {
            fs::write(file, page::page(self)).with_context(|| format!("writing {}", file.display()))?;
        }
        Ok(())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, off, tolerance } = self;
        match off {
            Some(off) => {
                write!(f, "{name}: two equal variants differ by {off:+.1} %, more than {tolerance} %")
            }
            None => write!(f, "{name}: there is no control"),
        }
    }
}
