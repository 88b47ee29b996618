//! `cargo xtask bench`: what podgate costs, next to what others cost.
//!
//! In: which kind of measurement. Out: figures next to their goals, on the terminal, as JSON and as a page
//! for people. What all kinds share is here: the machine, statistics, figures and their report. Left out:
//! tests gate on what is stable (helper calls, instructions) and stand elsewhere; a benchmark is no timed
//! test.

mod figure;
mod iptables;
mod machine;
mod names;
mod path;
mod program;
mod progress;
mod report;
mod statistics;

use std::{env, process::ExitCode};

use anyhow::Result;

use crate::flags::BenchCommand;
pub(crate) use statistics::percentile;

/// Runs one kind of measurement.
pub(crate) fn run(command: &BenchCommand) -> Result<ExitCode> {
    match command {
        BenchCommand::Decision(flags) => program::run(&program::DECISION, flags),
        BenchCommand::Path(flags) => path::run(flags),
        BenchCommand::Control(flags) => program::run(&program::CONTROL, flags),
        BenchCommand::Names(flags) => program::run(&program::NAMES, flags),
    }
}

/// The command that was run, as one can run it again.
fn command() -> String {
    let arguments: Vec<String> = env::args().skip(1).collect();
    format!("cargo xtask {}", arguments.join(" "))
}
