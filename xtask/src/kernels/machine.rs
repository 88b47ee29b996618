//! A machine in qemu: what it needs in one initramfs, its start, its console, and its end in time.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, bail};

use super::{
    archive::Archive,
    catalogue::TestedKernel,
    files,
    inside::{self, Part, Plan},
    modules,
    packages::{self, Kernel},
    programs::Programs,
};
use crate::{platform::Platform, workspace};

/// The emulator, and its package.
pub(super) const fn emulator(platform: Platform) -> (&'static str, &'static str) {
    match platform {
        Platform::Amd64 => ("qemu-system-x86_64", "qemu-system-x86"),
        Platform::Arm64 => ("qemu-system-aarch64", "qemu-system-arm"),
    }
}

/// Programs that tests call.
const TOOLS: [&str; 6] = ["ip", "nft", "sh", "sleep", "tc", "timeout"];

/// Everything that the machine needs, at the places where it is here.
pub(super) fn pack(
    platform: Platform,
    kernel: &Kernel,
    programs: &Programs,
    parts: Vec<Part>,
    initramfs: &Path,
) -> Result<()> {
    let mut archive = Archive::default();
    archive.file_as("init", &programs.init)?;
    let target = workspace::target()?;
    archive.file(&target.join("CACHEDIR.TAG"))?;
    let Programs { packets, namespaces, podgate, init: _ } = programs;
    let own = [packets, namespaces, podgate];
    for program in own {
        archive.file(&program.executable)?;
        archive.directory(&program.directory);
    }
    if platform == Platform::HOST {
        let tools = TOOLS.map(files::tool).into_iter().collect::<Result<Vec<_>>>()?;
        for tool in &tools {
            archive.file(tool)?;
        }
        let linked = own.map(|program| &program.executable).into_iter().chain(&tools).chain([&programs.init]);
        for library in files::libraries(linked)? {
            archive.file(&library)?;
        }
    } else {
        pack_tools(&mut archive, platform)?;
    }
    // What tests read of the repository: the agent's rights, and policies.
    files::below(&workspace::root().join("deploy"), &mut |path| archive.found(path))?;
    let modules = modules::in_order(&kernel.modules)?;
    for module in &modules {
        archive.file_as(&module.to_string_lossy(), &kernel.modules.join(module))?;
    }
    let plan = Plan { modules, parts };
    archive.bytes(inside::PLAN, &serde_json::to_vec(&plan).context("writing the plan")?);
    archive.write(initramfs)
}

/// The programs of another processor, with their libraries.
fn pack_tools(archive: &mut Archive, platform: Platform) -> Result<()> {
    let root = packages::tools(platform)?;
    for directory in ["bin", "sbin", "usr/bin", "usr/sbin", "lib", "usr/lib"] {
        let directory = root.join(directory);
        if directory.is_dir() {
            files::below(&directory, &mut |path| {
                let place = path.strip_prefix(&root).unwrap_or(path);
                archive.found_as(&place.to_string_lossy(), path);
            })?;
        }
    }
    Ok(())
}

/// Boots the machine, hands on what it says, and ends it when its time is up.
pub(super) fn boot(
    kernel: &TestedKernel,
    unpacked: &Kernel,
    initramfs: &Path,
    hear: &mut dyn FnMut(&str),
) -> Result<()> {
    println!("kernels: boot Linux {} for {}", unpacked.release, kernel.platform);
    let mut machine = qemu(kernel.platform, &unpacked.image, initramfs)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", emulator(kernel.platform).0))?;
    let console = machine.stdout.take().context("stdout is piped")?;
    let (lines, said) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n') {
            let Ok(line) = line else { return };
            if lines.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
    let started = Instant::now();
    let ended = loop {
        match said.recv_timeout(kernel.limit.saturating_sub(started.elapsed())) {
            Ok(line) => hear(&line),
            Err(RecvTimeoutError::Disconnected) => break true,
            Err(RecvTimeoutError::Timeout) => break false,
        }
    };
    if !ended {
        machine.kill().context("ending the machine")?;
    }
    let status = machine.wait().context("waiting for the machine")?;
    if !ended {
        bail!("{} took more than {} minutes", kernel.name, kernel.limit.as_secs() / 60);
    }
    if !status.success() {
        bail!("{}: {status}", emulator(kernel.platform).0);
    }
    Ok(())
}

fn qemu(platform: Platform, image: &PathBuf, initramfs: &Path) -> Command {
    let mut qemu = Command::new(emulator(platform).0);
    let (machine, processor, console) = match platform {
        // On a busy machine the emulated timer fails the check that the kernel makes of it.
        Platform::Amd64 => ("pc", "max", "console=ttyS0 no_timer_check"),
        // Pointer authentication as specified takes most of the time.
        Platform::Arm64 => ("virt,gic-version=3", "max,pauth-impdef=on", "console=ttyAMA0"),
    };
    qemu.args([
        "-accel",
        "tcg,thread=multi",
        "-machine",
        machine,
        "-cpu",
        processor,
        "-smp",
        "2",
        "-m",
        "4G",
    ]);
    qemu.args(["-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio", "-monitor", "none"]);
    qemu.arg("-kernel").arg(image).arg("-initrd").arg(initramfs);
    qemu.args(["-append", &format!("{console} quiet panic=-1 -- inside")]);
    qemu
}
