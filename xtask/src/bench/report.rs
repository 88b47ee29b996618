//! The report of a benchmark: as JSON for scripts, as a page for people.
//!
//! In: the machine, figures, refusals, notes and plots of one run. Out: text. Nothing here knows what was
//! measured.

mod page;
mod plot;

use std::{fmt, fs, path::Path};

use anyhow::{Context, Result};
use serde::Serialize;

pub(crate) use plot::{Bar, Bars, Line, Lines, Plot};

use super::{figure::Figure, machine::Machine};

/// Everything that one run has found out.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
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
    #[serde(skip)]
    pub(crate) title: String,
    /// What the page says first.
    #[serde(skip)]
    pub(crate) lead: String,
    #[serde(skip)]
    pub(crate) plots: Vec<Plot>,
}

/// A measure whose control was off: it has no figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Refusal {
    pub(crate) name: String,
    /// By how much, in per cent; nothing when there was no control.
    pub(crate) off: Option<f64>,
    pub(crate) tolerance: f64,
}

impl Report {
    pub(crate) fn write_json(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("writing the figures as JSON")?;
        fs::write(file, text + "\n").with_context(|| format!("writing {}", file.display()))
    }

    pub(crate) fn write_page(&self, file: &Path) -> Result<()> {
        fs::write(file, page::page(self)).with_context(|| format!("writing {}", file.display()))
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
