//! `cargo xtask setup`: finds or installs what building and testing need, and says what it does while it does
//! it.
//!
//! In: the machine. Out: an eBPF toolchain whose name is written to `target/ebpf-toolchain` (the agent's
//! build script reads it there), bpf-linker, iproute2 and nftables. When all is there it only looks, which
//! takes milliseconds. Left out: rustup, cargo and a C linker, without which this program would not run.

mod machine;
mod plan;
mod step;
mod versions;

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{root, workspace};
use machine::Machine;
use plan::Plan;

/// Takes the steps that are missing on this machine.
pub(crate) fn run() -> Result<()> {
    let started = Instant::now();
    let machine = Machine::probe()?;
    let Plan { toolchain, steps } = plan::plan(&machine)?;
    if let Some(step) = steps.iter().find(|step| step.needs_root()) {
        root::require(&format!("setup: {step}"))?;
    }
    for step in &steps {
        let started = Instant::now();
        println!("setup: {step}");
        step.take().with_context(|| format!("setup: {step}"))?;
        println!("setup: done in {}", seconds(started.elapsed()));
    }
    record(&workspace::root().join("target/ebpf-toolchain"), &toolchain)?;
    println!(
        "setup: ready in {}; BPF programs are built by the toolchain {toolchain}",
        seconds(started.elapsed())
    );
    Ok(())
}

/// Installs the packages of programs that are missing, for commands that need more than the others.
pub(crate) fn install(programs: &[(&str, &'static str)]) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &str| std::env::split_paths(&path).any(|place| place.join(program).is_file());
    let missing: Vec<&'static str> =
        programs.iter().filter(|(program, _)| !is_there(program)).map(|(_, package)| *package).collect();
    install_packages(missing)
}

/// The same for packages that bring no program but this file.
pub(crate) fn install_files(files: &[(&str, &'static str)]) -> Result<()> {
    let missing = files.iter().filter(|(file, _)| !Path::new(file).exists()).map(|(_, package)| *package);
    install_packages(missing.collect())
}

/// Installs Debian packages that are known to be missing.
pub(crate) fn install_packages(missing: Vec<&'static str>) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let step = step::Step::Packages(missing);
    println!("setup: {step}");
    step.take().with_context(|| format!("setup: {step}"))
}

/// Installs a subcommand of cargo that is missing, by its name and version.
pub(crate) fn cargo_tool((name, version): (&'static str, &'static str)) -> Result<()> {
    if machine::find_program(name).is_some() {
        return Ok(());
    }
    let step = step::Step::CargoTool { name, version };
    println!("setup: {step}");
    step.take().with_context(|| format!("setup: {step}"))
}

/// Writes the name of the toolchain, unless it stands there already: a newer file would make cargo build
/// again.
fn record(file: &Path, toolchain: &str) -> Result<()> {
    let line = format!("{toolchain}\n");
    if fs::read_to_string(file).is_ok_and(|written| written == line) {
        return Ok(());
    }
    let directory = file.parent().context("the file is in a directory")?;
    fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
    fs::write(file, line).with_context(|| format!("writing {}", file.display()))
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
