//! podgate's workshop: what `cargo xtask` runs, and the lab that namespace tests use.

mod bench;
mod calico;
mod cargo;
mod checklist;
pub mod cluster;
mod demo;
mod dns;
mod e2e;
pub mod flags;
pub mod image;
mod kernels;
pub mod kubernetes;
pub mod lab;
pub mod manifest;
mod miri;
pub mod peers;
mod perf;
pub mod platform;
mod plugin;
mod release;
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
        Command::Miri => miri::run(),
        Command::Kernels(flags) => kernels::run(&flags),
        Command::Inside => kernels::inside::run().map(|()| ExitCode::SUCCESS),
        Command::Checklist(flags) => checklist::run(&flags),
        Command::Bench { command } => bench::run(&command),
        Command::Scale(flags) => scale::run(&flags),
        Command::E2e(flags) => e2e::run(&flags),
        Command::Calico(flags) => calico::run(flags),
        Command::Perf(flags) => perf::run(&flags),
        Command::Conformance(flags) => suites::conformance(&flags),
        Command::Upstream(flags) => suites::upstream(&flags),
        Command::Dns(flags) => dns::run(&flags),
        Command::Image(flags) => image::run(&flags),
        Command::Plugin(flags) => plugin::run(&flags),
        Command::Release(flags) => release::run(&flags),
        Command::Manifest => manifest::run(),
        Command::Cluster { command } => cluster::run(&command),
        Command::Tidy => tidy::run(),
        Command::Lab(flags) => shell::run(&flags),
    }
}
