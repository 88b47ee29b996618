//! A loaded program as the kernel's verifier has rewritten it.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_prog_info};

/// Calls of helpers in a program's main function, after what the verifier inlines. What is called from there
/// in functions of its own is not counted: the fast path has none.
pub(crate) fn helper_calls(program: BorrowedFd<'_>) -> io::Result<usize> {
    const CALL: u8 = 0x85;
    const HELPER: u8 = 0;
    const FUNCTION: u8 = 1;
    // `struct bpf_insn`: code, registers, offset, immediate value. A call of a function has its number as the
    // value, and the distance as the offset (`jit_subprogs` in kernel/bpf/verifier.c).
    let calls: Vec<(usize, u8, i16)> = instructions(program)?
        .iter()
        .enumerate()
        .filter(|(_, instruction)| instruction[0] == CALL)
        .map(|(at, [_, registers, low, high, ..])| (at, registers >> 4, i16::from_ne_bytes([*low, *high])))
        .collect();
    // Functions follow one another; the main one is the first.
    let functions = calls.iter().filter(|(_, kind, _)| *kind == FUNCTION);
    let ends =
        functions.filter_map(|(at, _, distance)| (at + 1).checked_add_signed((*distance).into())).min();
    let main = calls.iter().filter(|(at, ..)| ends.is_none_or(|end| *at < end));
    Ok(main.filter(|(_, kind, _)| *kind == HELPER).count())
}

/// Eight bytes each.
pub(crate) fn instructions(program: BorrowedFd<'_>) -> io::Result<Vec<[u8; 8]>> {
    // SAFETY: all zeroes is a valid value of a struct of plain numbers.
    let mut info = unsafe { std::mem::zeroed::<bpf_prog_info>() };
    ask(program, &mut info)?;
    let bytes = info.xlated_prog_len;
    let mut instructions = vec![[0; 8]; bytes as usize / 8];
    // SAFETY: as above.
    info = unsafe { std::mem::zeroed() };
    info.xlated_prog_len = bytes;
    info.xlated_prog_insns = instructions.as_mut_ptr().addr() as u64;
    ask(program, &mut info)?;
    Ok(instructions)
}

fn ask(program: BorrowedFd<'_>, info: &mut bpf_prog_info) -> io::Result<()> {
    // SAFETY: all zeroes is a valid value of this union of plain structs.
    let mut attributes = unsafe { std::mem::zeroed::<bpf_attr>() };
    // SAFETY: the member that this command reads.
    let query = unsafe { &mut attributes.info };
    query.bpf_fd = program.as_raw_fd().cast_unsigned();
    query.info_len = u32::try_from(size_of::<bpf_prog_info>()).expect("a small struct");
    query.info = (&raw mut *info).addr() as u64;
    let (command, size) = (bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, size_of::<bpf_attr>());
    // SAFETY: what the attributes point to has room for what they say, and lives through the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attributes, size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
