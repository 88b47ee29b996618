//! What a machine has, as far as setting it up depends on it.
//!
//! In: files, the environment, and three quick commands. Out: a description that `plan` decides on. Nothing
//! is changed.

use std::{
    collections::BTreeSet,
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

/// The description of a machine.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    /// `linux`, `macos`, …
    pub(super) system: String,
    pub(super) architecture: String,
    pub(super) kernel: Kernel,
    pub(super) btf: bool,
    /// Packages can be installed by `apt-get`.
    pub(super) apt: bool,
    pub(super) rustup: bool,
    /// `EBPF_TOOLCHAIN`.
    pub(super) chosen: Option<String>,
    /// rustup's toolchains, also those that link elsewhere.
    pub(super) toolchains: Vec<Toolchain>,
    /// The rustup toolchain that links to `/usr`.
    pub(super) linked: Option<String>,
    /// Debian's compiler, cargo and prebuilt `core` are under `/usr`.
    pub(super) debian_core: bool,
    /// Installed LLVM versions with their headers.
    pub(super) llvm: BTreeSet<u32>,
    /// Version of bpf-linker.
    pub(super) linker: Option<(u32, u32)>,
    pub(super) missing_programs: Vec<Program>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kernel {
    pub(super) major: u32,
    pub(super) minor: u32,
}

/// A toolchain of rustup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Toolchain {
    /// Its directory's name, `nightly-x86_64-unknown-linux-gnu` for instance.
    pub(super) name: String,
    pub(super) core: Core,
}

/// How a toolchain comes to `core` for the BPF target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Core {
    /// Built from rust-src, which only a nightly does.
    Source,
    Prebuilt,
    Missing,
}

/// A program that tests and demo call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    Ip,
    Tc,
    Nft,
}

/// Debian's `core` for the BPF target is under this directory.
const USR: &str = "/usr";

impl Machine {
    pub(super) fn probe() -> Result<Self> {
        let rustup = find_program("rustup").is_some();
        let home = if rustup { rustup_home()? } else { PathBuf::new() };
        let installed = list(&home.join("toolchains"));
        let usr = Path::new(USR);
        let linked = installed.iter().find(|path| fs::canonicalize(path).is_ok_and(|path| path == usr));
        Ok(Self {
            system: env::consts::OS.to_owned(),
            architecture: env::consts::ARCH.to_owned(),
            kernel: kernel()?,
            btf: Path::new("/sys/kernel/btf/vmlinux").is_file(),
            apt: find_program("apt-get").is_some(),
            rustup,
            chosen: env::var("EBPF_TOOLCHAIN").ok().filter(|name| !name.is_empty()),
            linked: linked.map(|path| file_name(path)),
            toolchains: installed
                .iter()
                .map(|path| Toolchain { name: file_name(path), core: core_of(path) })
                .collect(),
            debian_core: has_prebuilt_core(usr)
                && ["rustc", "cargo"].iter().all(|program| usr.join("bin").join(program).exists()),
            llvm: llvm_versions(),
            linker: linker_version(),
            missing_programs: Program::ALL
                .into_iter()
                .filter(|program| find_program(program.name()).is_none())
                .collect(),
        })
    }
}

impl Toolchain {
    /// Whether rustup takes `name` for this toolchain: its full name, or the name without the host.
    pub(super) fn is_called(&self, name: &str) -> bool {
        let host = self.name.strip_prefix(name);
        host.is_some_and(|host| {
            host.is_empty() || host.starts_with(&format!("-{}-unknown-linux-", env::consts::ARCH))
        })
    }
}

impl Program {
    const ALL: [Self; 3] = [Self::Ip, Self::Tc, Self::Nft];

    fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Tc => "tc",
            Self::Nft => "nft",
        }
    }

    /// The package that brings it.
    pub(super) fn package(self) -> &'static str {
        match self {
            Self::Ip | Self::Tc => "iproute2",
            Self::Nft => "nftables",
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The file of a program in PATH, in cargo's directory, or where Debian keeps what root needs.
pub(super) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain(cargo_bin()).chain(["/usr/sbin".into(), "/sbin".into()]);
    directories.map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// Where `cargo install` puts programs.
fn cargo_bin() -> Option<PathBuf> {
    let home =
        env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")))?;
    Some(home.join("bin"))
}

fn rustup_home() -> Result<PathBuf> {
    let output =
        Command::new("rustup").args(["show", "home"]).output().context("running rustup show home")?;
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

fn kernel() -> Result<Kernel> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("reading the kernel's version")?;
    parse_version(&release)
        .map(|(major, minor)| Kernel { major, minor })
        .with_context(|| format!("kernel version {release:?}"))
}

fn linker_version() -> Option<(u32, u32)> {
    let output = Command::new(find_program("bpf-linker")?).arg("--version").output().ok()?;
    parse_version(String::from_utf8_lossy(&output.stdout).split_whitespace().last()?)
}

/// The first two numbers of `6.1.0-18-amd64`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn core_of(toolchain: &Path) -> Core {
    let source = toolchain.join("lib/rustlib/src/rust/library/core/src/lib.rs");
    if has_prebuilt_core(toolchain) {
        Core::Prebuilt
    } else if file_name(toolchain).starts_with("nightly") && source.is_file() {
        Core::Source
    } else {
        Core::Missing
    }
}

fn has_prebuilt_core(toolchain: &Path) -> bool {
    let libraries = list(&toolchain.join("lib/rustlib/bpfel-unknown-none/lib"));
    libraries.iter().any(|file| file_name(file).starts_with("libcore-"))
}

/// Debian installs each LLVM under a directory with its number.
fn llvm_versions() -> BTreeSet<u32> {
    let with_headers =
        list(Path::new("/usr/lib")).into_iter().filter(|path| path.join("include/llvm-c").is_dir());
    with_headers.filter_map(|path| file_name(&path).strip_prefix("llvm-")?.parse().ok()).collect()
}

/// What is in a directory, sorted; nothing when there is none.
fn list(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_programs_print() {
        for (text, expected) in [
            ("6.1.0-18-amd64\n", Some((6, 1))),
            ("5.15.146.1-microsoft-standard-WSL2", Some((5, 15))),
            ("0.13.0", Some((0, 13))),
            ("unknown", None),
        ] {
            assert_eq!(parse_version(text), expected, "{text}");
        }
    }

    #[test]
    fn rustup_takes_a_toolchain_by_its_full_name_or_without_the_host() {
        let nightly =
            Toolchain { name: "nightly-2026-01-01-x86_64-unknown-linux-gnu".into(), core: Core::Source };
        for (name, expected) in [
            ("nightly-2026-01-01-x86_64-unknown-linux-gnu", true),
            ("nightly-2026-01-01", true),
            ("nightly-2026", false),
            ("stable", false),
        ] {
            assert_eq!(nightly.is_called(name), expected, "{name}");
        }
    }

    #[test]
    fn this_machine_can_be_described() {
        let machine = Machine::probe().expect("tests run on Linux with cargo");
        assert_eq!(machine.system, "linux");
        assert!(machine.kernel.major >= 3, "{}", machine.kernel);
    }
}
