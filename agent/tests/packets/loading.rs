//! The BPF object: the verifier takes it, with room to spare, whatever debug information it carries, and has
//! little left to call on the fast path.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
};

use aya::{Btf, Ebpf, EbpfLoader, programs::SchedClassifier, util::KernelVersion};
use object::{
    Object as _, ObjectSymbol as _,
    build::elf::{Builder, SectionData},
    elf,
};
use podgate_common::{Config, FlowSeed, HookMark, SocketOffsets, Timeouts, TraceFilter, Tracking};
use podgate_datapath::{
    Datapath, DatapathOptions, HookKind, KernelReads, Linked, OBJECT, Pins, Program, TRACING_OBJECT,
    hand_over_tracing, linked,
};

use crate::{
    node::OPTIONS,
    translated::{helper_calls, instructions},
};

/// The verifier gives up at a million. What is called from many places is a global function, which it walks
/// over once.
const MAX_VERIFIED: u32 = 65_000;
/// Older ones are less clever: that of Linux 6.1 walks over half as much again.
const MAX_VERIFIED_BEFORE: u32 = 90_000;
/// What names come to on top: finding them in `from_pod`, learning them in `to_pod`, each step once.
const NAMES: u32 = 80_000;
/// What reading messages over several segments comes to: they are copied, and each step is there once more.
const SEGMENTS: u32 = 25_000;
/// The same of finding them alone, where packets leave the node.
const NAMES_FOUND: u32 = 25_000;
/// Programs at the node's own devices read no names.
const MAX_VERIFIED_AT_HOST: u32 = 60_000;
/// The first release that counts as new here. From it on, the verifier inlines look-ups in arrays of each
/// CPU.
const NEW: KernelVersion = KernelVersion::new(6, 10, 0);
/// The first release that counts what the verifier walks over (`verified_insns`).
const COUNTS_VERIFIED: KernelVersion = KernelVersion::new(5, 16, 0);

#[test]
fn the_verifier_walks_over_few_instructions() {
    let most = if kernel_version() >= NEW { MAX_VERIFIED } else { MAX_VERIFIED_BEFORE };
    for share in [false, true] {
        let mut datapath = datapath(share);
        for program in Program::ALL {
            let info = datapath.program(program).expect("all programs").info().expect("a loaded program");
            let name = info.name_as_str().unwrap_or_default().to_owned();
            // Before Linux 5.16 the kernel does not say: that it loads them is what can be known there.
            let Some(verified) = info.verified_instruction_count() else {
                assert!(kernel_version() < COUNTS_VERIFIED, "{name}: the kernel does not count");
                println!("{name}: verified, {} bytes", info.size_translated().unwrap_or_default());
                continue;
            };
            println!(
                "{name}: {verified} instructions verified, {} bytes",
                info.size_translated().unwrap_or_default()
            );
            // One that serves two hooks has the code of two.
            let most = match program {
                _ if name == "at_pod" => 2 * most + NAMES + SEGMENTS,
                Program::FromPod => most + NAMES,
                Program::ToPod => most + NAMES + SEGMENTS,
                Program::ToWire | Program::ToTunnel => most + NAMES_FOUND,
                Program::FromNetdev | Program::ToNetdev | Program::FromBareNetdev | Program::ToBareNetdev => {
                    MAX_VERIFIED_AT_HOST
                }
            };
            assert!(verified <= most, "{name}: {verified} instructions verified");
        }
    }
}

/// `cargo xtask kernels` reads the line that is printed: a fallback must not be taken in silence.
#[test]
fn barriers_are_in_the_programs_only_where_the_processor_reorders() {
    let mut datapath = datapath(false);
    let reorders = cfg!(not(target_arch = "x86_64"));
    for program in Program::ALL {
        let descriptor = datapath.program(program).expect("all programs").fd().expect("a loaded program");
        let barriers = barriers(descriptor.as_fd()).expect("root may read it");
        assert_eq!(barriers > 0, reorders, "{}: {barriers} barriers", program.name());
    }
    let KernelReads { tracking, hooks, names } = datapath.reads;
    let tcx = HookKind::of_this_kernel().expect("a kernel's version") == HookKind::Tcx;
    println!("kernel: tcx={tcx} tracking={tracking} hooks={hooks} names={names} barriers={reorders}");
}

/// A pod that is not traced pays nothing for traces.
#[test]
fn only_the_object_that_traces_has_anything_of_it() {
    let names = |object: &[u8]| {
        let file = object::File::parse(object).expect("an ELF file");
        let names = file.symbols().filter_map(|symbol| symbol.name().ok().map(str::to_lowercase));
        names.filter(|name| name.contains("trace") || name.contains("record")).collect::<Vec<_>>()
    };
    assert_eq!(names(OBJECT), Vec::<String>::new());
    let tracing = names(TRACING_OBJECT);
    for name in ["traces", "trace_filter", "trace_counts", "record_step"] {
        assert!(tracing.iter().any(|known| known == name), "{tracing:?} lack {name}");
    }
    assert!(!tracing.iter().chain(&names(OBJECT)).any(|name| name.contains("aya_log")));
}

#[test]
fn programs_that_use_other_maps_do_not_take_the_agents_place() {
    let bpffs = crate::sandbox::enter();
    let pins = Pins::create(&bpffs).expect("a bpffs of our own");
    let (mut agent, _readers) = crate::node::load(&pins, OPTIONS);
    agent.pin_programs(&pins, HookKind::Tcx).expect("a bpffs of our own");
    let reads = agent.reads;
    let hand_over =
        || hand_over_tracing(&pins, 7, (OPTIONS, reads), &TraceFilter::ANY).expect("the kernel takes them");
    // A process that sees less of the kernel, as in a container without its type information.
    let blind = KernelReads { tracking: !reads.tracking, ..reads };
    let refused = hand_over_tracing(&pins, 7, (OPTIONS, blind), &TraceFilter::ANY).expect_err("they differ");
    assert!(refused.to_string().contains("type information"), "{refused:#}");
    assert!(agent.take_tracing(&pins, 7).is_err(), "nothing was handed over");
    hand_over();
    agent.take_tracing(&pins, 7).expect("they use this agent's maps");
    hand_over();
    // One with maps of its own, which no pins name.
    let mut other = Datapath::load(None, OPTIONS).expect("the kernel takes the programs").0;
    let refused = other.take_tracing(&pins, 7).map(drop).expect_err("they use another agent's maps");
    assert!(refused.to_string().contains("maps of this agent's"), "{refused:#}");
    // No pin is left, whatever became of it.
    assert!(agent.take_tracing(&pins, 7).is_err(), "nothing was handed over");
    let left = std::fs::read_dir(bpffs.join("podgate")).expect("a bpffs").flatten().flat_map(|layout| {
        std::fs::read_dir(layout.path().join("traces")).expect("traces").flatten().map(|pin| pin.file_name())
    });
    let mut left: Vec<_> = left.collect();
    left.sort();
    assert_eq!(left, ["ADDRESS_FILTER", "EVENTS"]);
}

#[test]
fn no_helper_is_called_for_a_packet_of_a_known_connection() {
    for share in [false, true] {
        let mut datapath = datapath(share);
        for program in [Program::FromPod, Program::ToPod] {
            let descriptor = datapath.program(program).expect("all programs").fd().expect("a loaded program");
            let calls = helper_calls(descriptor.as_fd()).expect("root may read it");
            // The verifier inlines look-ups in arrays, from Linux 6.10 on also in those of each CPU,
            // which stand on several ways. What takes the short cut is handed over by a helper, in the
            // code of each hook.
            let inlined = if kernel_version() >= NEW { 0 } else { 8 };
            let handed_over = if share { 2 } else { 1 };
            assert!(calls <= inlined + handed_over, "{}: {calls} calls", program.name());
        }
    }
}

fn kernel_version() -> KernelVersion {
    KernelVersion::current().expect("a kernel's version")
}

fn datapath(share: bool) -> Datapath {
    crate::sandbox::enter();
    let options = DatapathOptions { flows: 1, share, ..OPTIONS };
    Datapath::load(None, options).expect("the kernel takes the programs").0
}

#[test]
fn the_programs_verify_with_and_without_debug_information() {
    crate::sandbox::enter();
    let sections = |names: &[&str]| without(|name| names.iter().any(|prefix| name.starts_with(prefix)));
    let system = Btf::from_sys_fs().ok();
    // What the line and function information is attached to stays: the maps are described by BTF.
    let table = [
        ("as built", OBJECT.to_vec()),
        ("without DWARF", sections(&[".debug_", ".rel.debug_"])),
        (
            "without DWARF and line information",
            sections(&[".debug_", ".rel.debug_", ".BTF.ext", ".rel.BTF.ext"]),
        ),
    ];
    assert!(table.is_sorted_by(|(_, one), (_, next)| one.len() > next.len()), "there was something to strip");
    for (what, object) in table {
        for (btf, reorders) in [(system.as_ref(), 0), (None, 0), (system.as_ref(), 1)] {
            load(&object, btf, reorders).unwrap_or_else(|error| {
                panic!("{what}, kernel BTF {}, barriers {reorders}: {error}", btf.is_some())
            });
        }
        println!("{what}: {} bytes, all programs verify", object.len());
    }
}

/// The object without some of its sections.
fn without(doomed: impl Fn(&str) -> bool) -> Vec<u8> {
    let mut builder = Builder::read(OBJECT).expect("the object is ELF");
    for section in &mut builder.sections {
        section.delete = std::str::from_utf8(&section.name).is_ok_and(&doomed);
    }
    // LLVM has one table of strings for symbols and sections; this writer wants two.
    let names = builder.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = elf::SHT_STRTAB;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    builder.write(&mut stripped).expect("ELF again");
    stripped
}

fn load(object: &[u8], btf: Option<&Btf>, reorders: u32) -> Result<(), String> {
    let config = Config {
        timeouts: Timeouts::with_ticks_per_second(250),
        recheck: 0,
        masqueraded: 0,
        encapsulation: 0,
        shortcut: 1,
        tracking: Tracking::default(),
        hook_mark: HookMark::default(),
        sockets: SocketOffsets::default(),
        flow_sets: 1,
        flow_seed: FlowSeed::default(),
        reorders,
        names: u32::from(btf.is_some()),
        names_keep: 60,
        jiffies_per_second: 250,
    };
    let Linked { object, reads } = linked(object, config).map_err(|error| format!("{error:#}"))?;
    let mut ebpf: Ebpf = EbpfLoader::new().btf(btf).load(&object).map_err(|error| format!("{error:#}"))?;
    for name in Program::ALL.map(Program::name).into_iter().chain(reads.hooks.then_some("at_pod")) {
        let program: &mut SchedClassifier = ebpf
            .program_mut(name)
            .ok_or("no such program")?
            .try_into()
            .map_err(|error| format!("{error}"))?;
        program.load().map_err(|error| format!("{name}: {error:?}"))?;
    }
    Ok(())
}

/// The full barriers of a program with all its functions: atomic operations on shared tables that fetch the
/// old value and set no bits.
fn barriers(program: BorrowedFd<'_>) -> io::Result<usize> {
    /// `BPF_STX | BPF_ATOMIC | BPF_DW`, and `BPF_OR | BPF_FETCH` as its immediate value.
    const ATOMIC: u8 = 0xdb;
    const FETCH_OR: i32 = 0x41;
    let is_barrier = |[operation, _, _, _, a, b, c, d]: &[u8; 8]| {
        *operation == ATOMIC && i32::from_ne_bytes([*a, *b, *c, *d]) == FETCH_OR
    };
    Ok(instructions(program)?.iter().filter(|instruction| is_barrier(instruction)).count())
}
