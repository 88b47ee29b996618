//! podgate's workshop: what `cargo xtask` runs, and the lab that namespace tests use.

mod bench;
mod cargo;
mod checklist;
pub mod cluster;
mod demo;
mod e2e;
pub mod flags;
pub mod image;
pub mod kubernetes;
pub mod lab;
pub mod manifest;
mod old_kernel;
pub mod peers;
mod perf;
mod plugin;
mod results;
mod root;
pub mod sandbox;
mod scale;
mod screen;
mod setup;
mod shell;
mod suites;
mod test;
mod tidy;
pub mod walkthrough;
pub mod workspace;

use std::process::ExitCode;

use anyhow::Result;

use flags::{Command, Flags};

/// Runs one command and hands back the exit code of the process.
pub fn run(flags: Flags) -> Result<ExitCode> {
    match flags.command {
        Command::Setup => setup::run().map(|_| ExitCode::SUCCESS),
        Command::Demo => demo::run(),
        Command::Test(flags) => test::run(&flags),
        Command::OldKernel(flags) => old_kernel::run(flags.kernel),
        Command::Inside => old_kernel::inside::run().map(|()| ExitCode::SUCCESS),
        Command::Checklist(flags) => checklist::run(&flags),
        Command::Bench { command } => bench::run(&command),
        Command::Scale(flags) => scale::run(&flags),
        Command::E2e(flags) => e2e::run(&flags),
        Command::Perf(flags) => perf::run(&flags),
        Command::Conformance(flags) => suites::conformance(&flags),
        Command::Upstream(flags) => suites::upstream(&flags),
        Command::Image(flags) => image::run(&flags),
        Command::Plugin => plugin::run(),
        Command::Manifest => manifest::run(),
        Command::Cluster { command } => cluster::run(&command),
        Command::Tidy => tidy::run(),
        Command::Lab(flags) => shell::run(&flags),
    }
}
