//! `cargo xtask old-kernel`: the packet tests and a smoke suite on a kernel of Debian 12's, in qemu: its own
//! (6.1), or the newer one (6.12), which has netkit.
//!
//! In: the test programs as `cargo xtask test` builds them, qemu and the kernel's package from Debian. Out:
//! the output of the tests, and their count. Without KVM: what is tried is that an older verifier takes the
//! programs, that clsact stands in for TCX, and that verdicts are the same; never time. This program is the
//! machine's `init`, too (`inside`).

mod archive;
mod files;
pub(crate) mod inside;
mod modules;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{
    flags::DebianKernel,
    root, setup,
    test::programs::{self, Count, Selection, TestProgram},
    workspace,
};
use archive::Archive;
use inside::Plan;

const EMULATOR: (&str, &str) = ("qemu-system-x86_64", "qemu-system-x86");
/// Newer kernels have compressed modules.
const UNPACKER: (&str, &str) = ("unxz", "xz-utils");

impl DebianKernel {
    const fn name(self) -> &'static str {
        match self {
            Self::Own => "6.1",
            Self::Newer => "6.12",
        }
    }

    /// Debian's package that depends on its newest release for virtual machines.
    const fn package(self) -> &'static str {
        match self {
            Self::Own => "linux-image-cloud-amd64",
            Self::Newer => "linux-image-6.12-cloud-amd64",
        }
    }

    const fn has_netkit(self) -> bool {
        match self {
            Self::Own => false,
            Self::Newer => true,
        }
    }
}

/// Packet tests that take minutes on an emulated processor or measure time, and prove nothing of the kernel.
const TOO_LONG: [&str; 5] =
    ["agreement::", "corpus::", "passes::", "publishing::during::", "publishing::scale::"];
/// Tests between namespaces, each one in full.
const SMOKE: [&str; 4] = [
    "a_live_connection_survives_a_change_of_policy",
    "egress_to_a_service_is_evaluated_by_the_backend_routed",
    "a_spoofed_source_address_gets_nowhere",
    "kill_9_of_the_agent_changes_no_verdict",
];

pub(crate) fn run(kernel: DebianKernel) -> Result<ExitCode> {
    root::require("the old kernel (packages, and the programs of the tests)")?;
    setup::run()?;
    setup::install(&[EMULATOR, UNPACKER])?;
    let has_netkit = kernel.has_netkit();
    let directory = workspace::target()?.join("old-kernel").join(kernel.name());
    fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
    // Cargo builds this program again for its tests, with other features, in its own place.
    let init = directory.join("init");
    fs::copy("/proc/self/exe", &init).with_context(|| format!("writing {}", init.display()))?;
    let kernel = Kernel::unpack(kernel.package(), &directory)?;

    let programs = programs::build("podgate-ebpf", &Selection { only: None, shard: None })?;
    let find = |name| {
        programs.iter().find(|program| program.target == name).with_context(|| format!("no tests {name}"))
    };
    let runs = runs(find("packets")?, find("namespaces")?, has_netkit);
    let initramfs = directory.join("initramfs");
    pack(&kernel, &runs, &init, &initramfs)?;
    let counts = boot(&kernel, &initramfs)?;

    let passed: usize = counts.iter().map(|count| count.passed).sum();
    let failed: usize = counts.iter().map(|count| count.failed).sum();
    println!("\nLinux {}: {passed} passed, {failed} failed", kernel.release);
    ensure!(counts.len() == runs.len(), "{} of {} test programs came to an end", counts.len(), runs.len());
    ensure!(counts.iter().all(|count| count.passed + count.failed > 0), "a test program ran no test");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A kernel's package, unpacked.
#[derive(Debug)]
struct Kernel {
    release: String,
    image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    /// The newest one that Debian has, or the one that was unpacked before.
    fn unpack(package: &str, directory: &Path) -> Result<Self> {
        let unpacked = directory.join("root");
        if !unpacked.is_dir() {
            let depends = output(Command::new("apt-cache").args(["depends", package]))?;
            let image = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
            let image = image.with_context(|| format!("{package} depends on no kernel"))?;
            println!("old-kernel: download linux-image-{image}");
            // As root, for the directory is no one else's.
            let mut download = Command::new("apt-get");
            download.args(["-qq", "-o", "APT::Sandbox::User=root", "download"]);
            output(download.arg(format!("linux-image-{image}")).current_dir(directory))?;
            let archive = only(directory, |name| name.ends_with(".deb"))?;
            output(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&unpacked))?;
            files::decompress(&unpacked.join("lib/modules"))?;
        }
        let modules = only(&unpacked.join("lib/modules"), |_| true)?;
        let release = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let image = unpacked.join("boot").join(format!("vmlinuz-{release}"));
        Ok(Self { release, image, modules })
    }
}

fn runs(packets: &TestProgram, namespaces: &TestProgram, has_netkit: bool) -> Vec<inside::Run> {
    let skipped = TOO_LONG.into_iter().flat_map(|name| ["--skip", name]).map(str::to_owned).collect();
    let run = |program: &TestProgram, arguments| inside::Run {
        program: program.executable.clone(),
        directory: program.directory.clone(),
        arguments,
    };
    let smoke = SMOKE.map(|name| run(namespaces, vec!["--exact".to_owned(), name.to_owned()]));
    let netkit =
        has_netkit.then(|| run(namespaces, ["netkit", "--test-threads=1"].map(str::to_owned).into()));
    [run(packets, skipped)].into_iter().chain(smoke).chain(netkit).collect()
}

/// Everything that the machine needs, at the places where it is here.
fn pack(kernel: &Kernel, runs: &[inside::Run], init: &PathBuf, initramfs: &Path) -> Result<()> {
    let mut archive = Archive::default();
    archive.file_as("init", init)?;
    let target = workspace::target()?;
    archive.file(&target.join("CACHEDIR.TAG"))?;
    let podgate = runs.iter().find_map(|run| workspace::podgate_of_test(&run.program));
    let programs: Vec<PathBuf> = runs.iter().map(|run| run.program.clone()).chain(podgate).collect();
    let tools =
        ["ip", "nft", "sh", "sleep", "timeout"].map(files::tool).into_iter().collect::<Result<Vec<_>>>()?;
    for program in programs.iter().chain(&tools) {
        archive.file(program)?;
    }
    for library in files::libraries(programs.iter().chain(&tools).chain([init]))? {
        archive.file(&library)?;
    }
    for run in runs {
        archive.directory(&run.directory);
    }
    let modules = modules::in_order(&kernel.modules)?;
    for module in &modules {
        archive.file_as(&module.to_string_lossy(), &kernel.modules.join(module))?;
    }
    let plan = Plan { modules, runs: runs.to_vec() };
    archive.bytes(inside::PLAN, &serde_json::to_vec(&plan).context("writing the plan")?);
    archive.write(initramfs)
}

/// Boots the machine, shows what it says, and hands back the count of each test program.
fn boot(kernel: &Kernel, initramfs: &Path) -> Result<Vec<Count>> {
    println!("old-kernel: boot Linux {}", kernel.release);
    let mut machine = Command::new(EMULATOR.0)
        .args([
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "4G",
            "-nographic",
            "-no-reboot",
        ])
        .args(["-nodefaults", "-serial", "stdio", "-monitor", "none"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs)
        // On a busy machine the emulated timer fails the check that the kernel makes of it.
        .args(["-append", "console=ttyS0 quiet panic=-1 no_timer_check -- inside"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", EMULATOR.0))?;
    let output = machine.stdout.take().context("stdout is piped")?;
    let mut counts = Vec::new();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("reading the machine's console")?;
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        println!("{line}");
        counts.extend(Count::from_line(line));
    }
    machine.wait().context("waiting for the machine")?;
    Ok(counts)
}

/// The one entry of a directory whose name is right.
fn only(directory: &Path, right: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.retain(|path| path.file_name().is_some_and(|name| right(&name.to_string_lossy())));
    ensure!(paths.len() == 1, "{}: one entry expected, not {paths:?}", directory.display());
    Ok(paths.remove(0))
}

/// What a command prints; fails with what it complains of.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{complaint}", output.status);
    String::from_utf8(output.stdout).with_context(|| format!("reading the output of {command:?}"))
}
