//! A program that changes the packet from run to run and calls the program under test, written as
//! instructions.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_map_type, bpf_prog_type};
use podgate_common::Hook;
use podgate_datapath::{Datapath, Program};

use crate::packets::world::Family;

/// Source ports that take turns; their number is a power of two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) first: u16,
    pub(crate) count: u32,
}

/// The driver for one family, and the programs that it can call.
pub(crate) struct Driver {
    program: OwnedFd,
    state: std::cell::RefCell<Array<MapData, State>>,
    /// Holds what the driver calls.
    _programs: MapData,
}

/// What the driver works with, by place. One element: the only kind of array that a program has the address
/// of.
type State = [u64; 4];

mod state {
    pub(super) const COUNTER: i16 = 0;
    pub(super) const MASK: i16 = 1;
    pub(super) const FIRST: i16 = 2;
    pub(super) const PROGRAM: i16 = 3;
}

/// Odd, so that every port has its turn; large, so that the order is none that hardware foresees.
const STRIDE: i32 = 40_503;

impl Driver {
    pub(crate) const EMPTY: u32 = 0;
    pub(crate) const FROM_POD: u32 = 1;
    pub(crate) const TO_POD: u32 = 2;

    pub(crate) fn new(datapath: &mut Datapath, family: Family) -> Result<Self> {
        let create = |kind: bpf_map_type, value, elements, name| {
            let map = aya_obj::Map::new_from_params(kind as u32, 4, value, elements, 0);
            MapData::create(map, name, None).with_context(|| format!("cannot make map {name}"))
        };
        let state = create(bpf_map_type::BPF_MAP_TYPE_ARRAY, 32, 1, "state")?;
        let programs = create(bpf_map_type::BPF_MAP_TYPE_PROG_ARRAY, 4, 3, "programs")?;
        let code = code(&state, &programs, family);
        let empty = load(&[insn(op::MOV, 0, 0, 0, -1), insn(op::EXIT, 0, 0, 0, 0)])?;
        set(&programs, Self::EMPTY, empty.as_fd())?;
        for (place, program) in [(Self::FROM_POD, Program::FromPod), (Self::TO_POD, Program::ToPod)] {
            set(&programs, place, datapath.program(program)?.fd()?.as_fd())?;
        }
        let program = load(&code)?;
        let state = Array::try_from(Map::Array(state))?;
        Ok(Self { program, state: state.into(), _programs: programs })
    }

    /// Nanoseconds that one of so many runs takes.
    pub(crate) fn run(&self, program: u32, frame: &[u8], hook: Hook, ports: Ports, runs: u32) -> Result<f64> {
        self.set(program, ports)?;
        let started = Instant::now();
        test_run(&self.program, frame, hook, runs)?;
        Ok(started.elapsed().as_secs_f64() * 1e9 / f64::from(runs))
    }

    /// Whether the program lets the packet pass.
    pub(crate) fn passes(&self, program: u32, frame: &[u8], hook: Hook, ports: Ports) -> Result<bool> {
        self.set(program, ports)?;
        match test_run(&self.program, frame, hook, 1)? {
            u32::MAX => Ok(true),
            2 => Ok(false),
            other => anyhow::bail!("the program answered {other}"),
        }
    }

    fn set(&self, program: u32, ports: Ports) -> Result<()> {
        ensure!(ports.count.is_power_of_two());
        let state = [0, u64::from(ports.count - 1), u64::from(ports.first), u64::from(program)];
        self.state.borrow_mut().set(0, state, 0)?;
        Ok(())
    }
}

/// The driver's instructions.
fn code(state: &MapData, programs: &MapData, family: Family) -> Vec<u64> {
    /// Offsets in `struct __sk_buff`.
    const DATA: i16 = 76;
    const DATA_END: i16 = 80;
    const TCP: i16 = 20;
    let header: i16 = if family == Family::V4 { 34 } else { 54 };
    let map = |map: &MapData| map.fd().as_fd().as_raw_fd();
    let at = |place: i16| 8 * place;
    vec![
        insn(op::MOV_REGISTER, 6, 1, 0, 0),
        insn(op::LOAD_IMMEDIATE, 9, pseudo::MAP_VALUE, 0, map(state)),
        0,
        insn(op::LOAD_WORD, 7, 6, DATA, 0),
        insn(op::LOAD_WORD, 8, 6, DATA_END, 0),
        insn(op::MOV_REGISTER, 2, 7, 0, 0),
        insn(op::ADD, 2, 0, 0, i32::from(header + TCP)),
        insn(op::JUMP_IF_GREATER, 2, 8, 14, 0),
        // The next port.
        insn(op::LOAD_DOUBLE, 3, 9, at(state::COUNTER), 0),
        insn(op::ADD, 3, 0, 0, STRIDE),
        insn(op::STORE_DOUBLE, 9, 3, at(state::COUNTER), 0),
        insn(op::LOAD_DOUBLE, 4, 9, at(state::MASK), 0),
        insn(op::AND_REGISTER, 3, 4, 0, 0),
        insn(op::LOAD_DOUBLE, 4, 9, at(state::FIRST), 0),
        insn(op::ADD_REGISTER, 3, 4, 0, 0),
        insn(op::TO_BIG_ENDIAN, 3, 0, 0, 16),
        insn(op::STORE_HALF, 7, 3, header, 0),
        // The program.
        insn(op::MOV_REGISTER, 1, 6, 0, 0),
        insn(op::LOAD_IMMEDIATE, 2, pseudo::MAP, 0, map(programs)),
        0,
        insn(op::LOAD_DOUBLE, 3, 9, at(state::PROGRAM), 0),
        insn(op::CALL, 0, 0, 0, TAIL_CALL),
        // Only reached when the packet is too short, or there is no such program.
        insn(op::MOV, 0, 0, 0, 0),
        insn(op::EXIT, 0, 0, 0, 0),
    ]
}

/// `bpf_tail_call`
const TAIL_CALL: i32 = 12;

/// Operation codes of `linux/bpf.h`.
mod op {
    pub(super) const MOV: u8 = 0xb7;
    pub(super) const MOV_REGISTER: u8 = 0xbf;
    pub(super) const ADD: u8 = 0x07;
    pub(super) const ADD_REGISTER: u8 = 0x0f;
    pub(super) const AND_REGISTER: u8 = 0x5f;
    pub(super) const TO_BIG_ENDIAN: u8 = 0xdc;
    pub(super) const LOAD_IMMEDIATE: u8 = 0x18;
    pub(super) const LOAD_WORD: u8 = 0x61;
    pub(super) const LOAD_DOUBLE: u8 = 0x79;
    pub(super) const STORE_HALF: u8 = 0x6b;
    pub(super) const STORE_DOUBLE: u8 = 0x7b;
    pub(super) const JUMP_IF_GREATER: u8 = 0x2d;
    pub(super) const CALL: u8 = 0x85;
    pub(super) const EXIT: u8 = 0x95;
}

/// What the immediate value of a load is.
mod pseudo {
    pub(super) const MAP: u8 = 1;
    pub(super) const MAP_VALUE: u8 = 2;
}

/// `struct bpf_insn`
fn insn(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> u64 {
    let ([a, b], [c, d, e, f]) = (offset.to_ne_bytes(), immediate.to_ne_bytes());
    u64::from_ne_bytes([code, destination | source << 4, a, b, c, d, e, f])
}

fn load(code: &[u64]) -> Result<OwnedFd> {
    // SAFETY: all zeroes is a valid value of this union of plain structs.
    let mut attributes = unsafe { std::mem::zeroed::<bpf_attr>() };
    let mut log = vec![0_u8; 1 << 16];
    // SAFETY: the member that this command reads; a struct of plain numbers.
    let program = unsafe { &mut attributes.__bindgen_anon_3 };
    program.prog_type = bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS as u32;
    program.insn_cnt = u32::try_from(code.len())?;
    program.insns = code.as_ptr().addr() as u64;
    program.license = c"GPL".as_ptr().addr() as u64;
    program.log_level = 1;
    program.log_size = u32::try_from(log.len())?;
    program.log_buf = log.as_mut_ptr().addr() as u64;
    let fd = bpf(bpf_cmd::BPF_PROG_LOAD, &mut attributes)
        .with_context(|| String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned())?;
    // SAFETY: a new descriptor that no one else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set(programs: &MapData, place: u32, program: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: all zeroes is a valid value of this union of plain structs.
    let mut attributes = unsafe { std::mem::zeroed::<bpf_attr>() };
    let descriptor = program.as_raw_fd();
    // SAFETY: the member that this command reads.
    let element = unsafe { &mut attributes.__bindgen_anon_2 };
    element.map_fd = programs.fd().as_fd().as_raw_fd().cast_unsigned();
    element.key = (&raw const place).addr() as u64;
    element.__bindgen_anon_1.value = (&raw const descriptor).addr() as u64;
    bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attributes).context("cannot enter a program to call")?;
    Ok(())
}

/// Runs a program; what it answered last.
fn test_run(program: &OwnedFd, frame: &[u8], hook: Hook, runs: u32) -> Result<u32> {
    // `struct __sk_buff` of `linux/bpf.h` up to `ifindex`.
    let mut context = [0_u8; 44];
    context[36..40].copy_from_slice(&hook.ingress_ifindex.to_ne_bytes());
    context[40..44].copy_from_slice(&hook.ifindex.to_ne_bytes());
    // SAFETY: all zeroes is a valid value of this union of plain structs.
    let mut attributes = unsafe { std::mem::zeroed::<bpf_attr>() };
    // SAFETY: the member that this command reads.
    let test = unsafe { &mut attributes.test };
    test.prog_fd = program.as_raw_fd().cast_unsigned();
    test.data_in = frame.as_ptr().addr() as u64;
    test.data_size_in = u32::try_from(frame.len())?;
    test.ctx_in = context.as_ptr().addr() as u64;
    test.ctx_size_in = u32::try_from(context.len())?;
    test.repeat = runs;
    bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attributes).context("cannot run the driver")?;
    // SAFETY: written by the kernel.
    Ok(unsafe { attributes.test.retval })
}

fn bpf(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: the attributes are valid for the command, and what they point to lives through the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<bpf_attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(i32::try_from(result).unwrap_or(0)) }
}
