//! `cargo xtask kernels`: the programs and agents on the kernels of several distributions in qemu, and on the
//! one that runs here.
//!
//! In: the test programs, built here for both processors, and qemu and kernels from packages. Out: the output
//! of the tests, a line for each kernel and part, and a table of the features of each kernel and of podgate's
//! fallbacks. Runs without KVM show that each verifier accepts the programs, that each fallback works, and
//! that verdicts are the same; they never measure time. This program is also the machine's `init` (`inside`).

mod archive;
mod catalogue;
mod files;
pub(crate) mod inside;
mod machine;
mod modules;
mod packages;
mod parts;
mod programs;
mod report;

use std::{path::Path, process::ExitCode, time::Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::{flags::KernelsFlags, platform::Platform, root, screen::mark, setup, workspace};
use catalogue::{Origin, TestedKernel};
use programs::Programs;
use report::{KernelReport, PartReport};

pub(crate) fn run(flags: &KernelsFlags) -> Result<ExitCode> {
    let chosen = chosen(&flags.only)?;
    root::require("the run on several kernels (packages, and the programs of the tests)")?;
    setup::run()?;
    let directory = workspace::target()?.join("kernels");
    let mut reports: Vec<KernelReport> = Vec::new();
    for platform in Platform::ALL {
        let chosen: Vec<&TestedKernel> =
            chosen.iter().copied().filter(|kernel| kernel.platform == platform).collect();
        if chosen.is_empty() {
            continue;
        }
        let programs = Programs::build(platform, &flags.profile)?;
        for kernel in chosen {
            let report = test(kernel, &programs, &directory.join(kernel.name), &flags.part);
            // A kernel that cannot be had does not keep the others from being tried.
            let report = report.unwrap_or_else(|error| KernelReport::broken(kernel, &error));
            print!("{}", report.lines());
            reports.push(report);
        }
    }
    println!("\n{}", report::table(&reports));
    let failed = reports.iter().filter(|report| !report.is_good()).count();
    println!("{} kernels passed, {failed} failed", reports.len() - failed);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn chosen(names: &[String]) -> Result<Vec<&'static TestedKernel>> {
    let known = catalogue::KERNELS.iter().map(|kernel| kernel.name).collect::<Vec<_>>().join(", ");
    for name in names {
        let is_known = catalogue::KERNELS.iter().any(|kernel| kernel.name == name);
        ensure!(is_known, "--only {name}: the kernels are {known}");
    }
    let is_chosen = |kernel: &&TestedKernel| names.is_empty() || names.iter().any(|name| name == kernel.name);
    Ok(catalogue::KERNELS.iter().filter(is_chosen).collect())
}

/// `only`: these of its parts, or all if there is none.
fn test(
    kernel: &'static TestedKernel,
    programs: &Programs,
    directory: &Path,
    only: &[String],
) -> Result<KernelReport> {
    let mut parts = parts::of(kernel, programs);
    if let Some(unknown) = only.iter().find(|name| parts.iter().all(|part| part.name != **name)) {
        bail!("{} has no part {unknown}", kernel.name);
    }
    parts.retain(|part| only.is_empty() || only.contains(&part.name));
    let mut report = KernelReport::new(kernel, &parts);
    let mut started = Instant::now();
    let mut hear = |line: &str| {
        println!("{line}");
        if let Some(PartReport { name, outcome: Some(outcome), .. }) = report.hear(line) {
            println!("{} {} {name}: {outcome}, {} s", mark(outcome.is_good()), kernel.name, {
                let took = started.elapsed().as_secs();
                started = Instant::now();
                took
            });
        }
    };
    match kernel.origin {
        Origin::Running => inside::perform(&parts, 1, &mut hear)?,
        Origin::Package { release, package } => {
            setup::install(&[machine::emulator(kernel.platform), files::UNPACKER])?;
            std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
            let unpacked = packages::Kernel::unpack(release, kernel.platform, package, directory)?;
            let initramfs = directory.join("initramfs");
            machine::pack(kernel.platform, &unpacked, programs, parts, &initramfs)?;
            machine::boot(kernel, &unpacked, &initramfs, &mut hear)?;
        }
    }
    Ok(report)
}
