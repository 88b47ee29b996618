//! What has to be done on a machine, as a pure function of what the machine has.
//!
//! The BPF programs need a compiler with `core` for `bpfel-unknown-none` and a linker that reads its bitcode.
//! Three ways lead there, in this order: the toolchain named by `EBPF_TOOLCHAIN`; a rustup nightly with the
//! component rust-src, best the one of `ebpf/toolchain.toml`; Debian's `rustc-web`, which has `core` prebuilt
//! and an LLVM to build the linker with.

use podgate_common::OLDEST_KERNEL;
use thiserror::Error;

use super::{
    machine::{Core, Kernel, Machine},
    step::Step,
    versions,
};

/// The toolchain to build BPF programs with, and the steps until it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) toolchain: String,
    pub(super) steps: Vec<Step>,
}

/// Why a machine cannot be set up.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum Refusal {
    #[error("this machine runs {0}; podgate needs Linux")]
    System(String),
    #[error("this machine is {0}; podgate is built for x86_64 and aarch64")]
    Architecture(String),
    #[error("this machine runs Linux {0}; podgate needs {OLDEST} or newer")]
    OldKernel(Kernel),
    #[error(
        "this kernel has no BTF (/sys/kernel/btf/vmlinux): the agent falls back, but the tests need CONFIG_DEBUG_INFO_BTF"
    )]
    NoBtf,
    #[error("EBPF_TOOLCHAIN={0}: rustup has no such toolchain")]
    UnknownToolchain(String),
    #[error(
        "EBPF_TOOLCHAIN={0}: it has neither the component rust-src (on a nightly) nor core for bpfel-unknown-none"
    )]
    ToolchainWithoutCore(String),
    #[error(
        "no toolchain can build BPF programs and this machine has no apt-get: \
         rustup toolchain install {} --component rust-src",
        versions::nightly()
    )]
    NoToolchain,
    #[error(
        "this machine has no rustup (https://rustup.rs), which the BPF build needs to choose a toolchain"
    )]
    NoRustup,
    #[error("this machine has no apt-get; install by hand: {}", .0.join(" "))]
    NoPackages(Vec<&'static str>),
}

const OLDEST: Kernel = Kernel { major: OLDEST_KERNEL.0, minor: OLDEST_KERNEL.1 };

/// bpf-linker from this version on has the options that aya-build passes.
const OLDEST_LINKER: (u32, u32) = (0, 13);

/// LLVM versions that bpf-linker can be built with, newest first.
const LINKER_LLVM: [u32; 3] = [23, 22, 21];

const COMPILER_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];
/// LLVM is C++: its libraries bring no `libstdc++.so` to link with.
const LINKER_PACKAGES: [&str; 4] = ["llvm-22-dev", "libzstd-dev", "zlib1g-dev", "g++"];

/// The name that Debian's compiler gets in rustup.
const LINK_NAME: &str = "podgate-ebpf";

pub(super) fn plan(machine: &Machine) -> Result<Plan, Refusal> {
    supported(machine)?;
    let mut packages: Vec<&'static str> =
        machine.missing_programs.iter().map(|program| program.package()).collect();
    packages.dedup();
    let linker = machine.linker.is_some_and(|version| version >= OLDEST_LINKER);
    let way = Way::choose(machine, linker)?;

    let mut steps = Vec::new();
    if way == Way::Debian && !machine.debian_core {
        packages.extend(COMPILER_PACKAGES);
    }
    let llvm = way.llvm(machine);
    if !linker && llvm == Some(versions::llvm()) && !machine.llvm.contains(&versions::llvm()) {
        packages.extend(LINKER_PACKAGES);
    }
    if !packages.is_empty() {
        if !machine.apt {
            return Err(Refusal::NoPackages(packages));
        }
        steps.push(Step::Packages(packages));
    }
    let toolchain = match way {
        Way::Rustup(name) => name,
        Way::Debian => match &machine.linked {
            Some(name) => name.clone(),
            None => {
                steps.push(Step::Link(LINK_NAME));
                LINK_NAME.to_owned()
            }
        },
    };
    if !linker {
        steps.push(Step::Linker { llvm });
    }
    Ok(Plan { toolchain, steps })
}

fn supported(machine: &Machine) -> Result<(), Refusal> {
    if machine.system != "linux" {
        return Err(Refusal::System(machine.system.clone()));
    }
    if !["x86_64", "aarch64"].contains(&machine.architecture.as_str()) {
        return Err(Refusal::Architecture(machine.architecture.clone()));
    }
    if machine.kernel < OLDEST {
        return Err(Refusal::OldKernel(machine.kernel));
    }
    if !machine.btf {
        return Err(Refusal::NoBtf);
    }
    if !machine.rustup {
        return Err(Refusal::NoRustup);
    }
    Ok(())
}

/// Where the BPF compiler comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    /// A toolchain of rustup by this name.
    Rustup(String),
    Debian,
}

impl Way {
    fn choose(machine: &Machine, linker: bool) -> Result<Self, Refusal> {
        if let Some(name) = &machine.chosen {
            let found = machine.toolchains.iter().find(|toolchain| toolchain.is_called(name));
            return match found.map(|toolchain| toolchain.core) {
                None => Err(Refusal::UnknownToolchain(name.clone())),
                Some(Core::Missing) => Err(Refusal::ToolchainWithoutCore(name.clone())),
                Some(Core::Source | Core::Prebuilt) => Ok(Self::Rustup(name.clone())),
            };
        }
        let mut nightlies = machine.toolchains.iter().filter(|toolchain| toolchain.core == Core::Source);
        let pinned = nightlies.clone().find(|toolchain| toolchain.is_called(versions::nightly()));
        let nightly = pinned.or_else(|| nightlies.next());
        match nightly {
            // Without a linker, Debian's way is the surer one: it has the LLVM to build one for its own
            // compiler, while a nightly's LLVM is often newer than any that is packaged.
            Some(nightly) if linker || !machine.apt => Ok(Self::Rustup(nightly.name.clone())),
            _ if machine.debian_core || machine.apt => Ok(Self::Debian),
            _ => Err(Refusal::NoToolchain),
        }
    }

    /// The LLVM to build a linker with; nothing leaves the choice to bpf-linker's defaults.
    fn llvm(&self, machine: &Machine) -> Option<u32> {
        match self {
            Self::Debian => Some(versions::llvm()),
            Self::Rustup(_) => {
                let installed = LINKER_LLVM.into_iter().find(|version| machine.llvm.contains(version));
                installed.or(machine.apt.then_some(versions::llvm()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::setup::machine::{Program, Toolchain};

    /// Debian 12 with rustup's stable toolchain and nothing else.
    fn fresh() -> Machine {
        Machine {
            system: "linux".into(),
            architecture: "x86_64".into(),
            kernel: Kernel { major: 6, minor: 1 },
            btf: true,
            apt: true,
            rustup: true,
            chosen: None,
            toolchains: vec![toolchain("stable-x86_64-unknown-linux-gnu", Core::Missing)],
            linked: None,
            debian_core: false,
            llvm: BTreeSet::new(),
            linker: None,
            missing_programs: vec![Program::Ip, Program::Tc, Program::Nft],
        }
    }

    fn toolchain(name: &str, core: Core) -> Toolchain {
        Toolchain { name: name.into(), core }
    }

    const NIGHTLY: &str = "nightly-2026-01-01";

    fn with(change: impl FnOnce(&mut Machine)) -> Machine {
        let mut machine = fresh();
        change(&mut machine);
        machine
    }

    fn ready() -> Machine {
        with(|machine| {
            machine.debian_core = true;
            machine.linked = Some("debian".into());
            machine.linker = Some((0, 13));
            machine.llvm = BTreeSet::from([22]);
            machine.missing_programs.clear();
        })
    }

    #[test]
    fn the_packages_are_those_of_the_pinned_llvm() {
        assert!(LINKER_PACKAGES.contains(&format!("llvm-{}-dev", versions::llvm()).as_str()));
    }

    #[test]
    fn a_fresh_debian_gets_packages_then_the_link_then_the_linker() {
        let plan = plan(&fresh()).expect("Debian is supported");
        assert_eq!(plan.toolchain, "podgate-ebpf");
        let packages = [&["iproute2", "nftables"][..], &COMPILER_PACKAGES, &LINKER_PACKAGES].concat();
        let expected =
            [Step::Packages(packages), Step::Link("podgate-ebpf"), Step::Linker { llvm: Some(22) }];
        assert_eq!(plan.steps, expected);
    }

    #[test]
    fn steps_that_are_done_are_not_taken_again() {
        let nothing: [Step; 0] = [];
        for (name, machine, toolchain, steps) in [
            ("all there", ready(), "debian", nothing.to_vec()),
            (
                "packages without the rest",
                with(|machine| {
                    machine.debian_core = true;
                    machine.llvm = BTreeSet::from([22]);
                    machine.missing_programs.clear();
                }),
                LINK_NAME,
                vec![Step::Link(LINK_NAME), Step::Linker { llvm: Some(22) }],
            ),
            (
                "an old linker",
                Machine { linker: Some((0, 9)), ..ready() },
                "debian",
                vec![Step::Linker { llvm: Some(22) }],
            ),
            (
                "only nft missing",
                Machine { missing_programs: vec![Program::Nft], ..ready() },
                "debian",
                vec![Step::Packages(vec!["nftables"])],
            ),
        ] {
            let plan = plan(&machine).expect(name);
            assert_eq!((plan.toolchain.as_str(), plan.steps), (toolchain, steps), "{name}");
        }
    }

    #[test]
    fn the_named_toolchain_comes_first_then_a_nightly_then_debian() {
        let nightly = || vec![toolchain("stable", Core::Missing), toolchain(NIGHTLY, Core::Source)];
        for (name, machine, expected) in [
            (
                "named, with a nightly there too",
                Machine {
                    chosen: Some("mine".into()),
                    toolchains: [nightly(), vec![toolchain("mine", Core::Prebuilt)]].concat(),
                    ..ready()
                },
                "mine",
            ),
            (
                "named, which is Debian's",
                Machine {
                    chosen: Some("debian".into()),
                    toolchains: vec![toolchain("debian", Core::Prebuilt)],
                    ..ready()
                },
                "debian",
            ),
            ("nightly with a linker", Machine { toolchains: nightly(), ..ready() }, NIGHTLY),
            (
                "the pinned nightly behind another one",
                Machine {
                    toolchains: [nightly(), vec![toolchain(versions::nightly(), Core::Source)]].concat(),
                    ..ready()
                },
                versions::nightly(),
            ),
            (
                "nightly without a linker",
                Machine { toolchains: nightly(), linker: None, ..ready() },
                "debian",
            ),
            (
                "nightly without a linker, no packages",
                Machine { toolchains: nightly(), linker: None, apt: false, ..ready() },
                NIGHTLY,
            ),
            (
                "nightly without sources",
                Machine { toolchains: vec![toolchain(NIGHTLY, Core::Missing)], ..ready() },
                "debian",
            ),
            ("debian installed, no apt-get", Machine { apt: false, ..ready() }, "debian"),
        ] {
            assert_eq!(plan(&machine).expect(name).toolchain, expected, "{name}");
        }
    }

    #[test]
    fn a_linker_is_built_with_the_newest_llvm_that_it_supports() {
        let nightly = || vec![toolchain(NIGHTLY, Core::Source)];
        for (installed, apt, chosen, expected) in [
            (vec![19, 22, 23], false, None, Some(23)),
            (vec![19], false, None, None),
            (vec![22, 23], true, None, Some(22)), // Debian's way
            (vec![23], true, Some(NIGHTLY.to_owned()), Some(23)),
            (vec![], true, Some(NIGHTLY.to_owned()), Some(22)),
        ] {
            let machine = Machine {
                toolchains: nightly(),
                linker: None,
                llvm: installed.iter().copied().collect(),
                apt,
                chosen,
                ..ready()
            };
            let steps = plan(&machine).expect("supported").steps;
            assert_eq!(steps.last(), Some(&Step::Linker { llvm: expected }), "{installed:?}");
        }
    }

    #[test]
    fn an_unsupported_machine_gets_one_line_that_says_why() {
        for (machine, expected) in [
            (with(|machine| machine.system = "macos".into()), "this machine runs macos; podgate needs Linux"),
            (
                with(|machine| machine.architecture = "riscv64".into()),
                "this machine is riscv64; podgate is built for x86_64 and aarch64",
            ),
            (
                with(|machine| machine.kernel = Kernel { major: 5, minor: 10 }),
                "this machine runs Linux 5.10; podgate needs 5.15 or newer",
            ),
            (
                with(|machine| machine.btf = false),
                "this kernel has no BTF (/sys/kernel/btf/vmlinux): the agent falls back, but the tests need CONFIG_DEBUG_INFO_BTF",
            ),
            (
                with(|machine| machine.apt = false),
                "no toolchain can build BPF programs and this machine has no apt-get: \
                 rustup toolchain install nightly-2026-04-01 --component rust-src",
            ),
            (
                Machine { missing_programs: vec![Program::Tc, Program::Nft], apt: false, ..ready() },
                "this machine has no apt-get; install by hand: iproute2 nftables",
            ),
            (
                with(|machine| machine.rustup = false),
                "this machine has no rustup (https://rustup.rs), which the BPF build needs to choose a toolchain",
            ),
            (
                with(|machine| machine.chosen = Some("mine".into())),
                "EBPF_TOOLCHAIN=mine: rustup has no such toolchain",
            ),
            (
                with(|machine| machine.chosen = Some("stable".into())),
                "EBPF_TOOLCHAIN=stable: it has neither the component rust-src (on a nightly) nor core for \
                 bpfel-unknown-none",
            ),
        ] {
            let refusal = plan(&machine).expect_err(expected);
            assert_eq!(refusal.to_string(), expected);
        }
    }
}
