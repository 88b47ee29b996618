//! bpf system calls that aya has no function for.

use std::{
    collections::BTreeSet,
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya::Pod;
use aya_obj::generated::{
    bpf_attach_type, bpf_attr, bpf_attr__bindgen_ty_3, bpf_cmd, bpf_map_type, bpf_prog_info, bpf_prog_type,
};

/// Removes an element of a map with keys of four bytes. An element that is not there is fine.
pub(super) fn delete(map: &OwnedFd, key: u32) -> io::Result<()> {
    // SAFETY: all zeroes is a valid value of this union of plain structs.
    let mut attributes = unsafe { std::mem::zeroed::<bpf_attr>() };
    // SAFETY: this command reads the union as its second struct; map and key live through the call.
    let result = unsafe {
        let element = &mut attributes.__bindgen_anon_2;
        element.map_fd = map.as_raw_fd().cast_unsigned();
        element.key = (&raw const key).addr() as u64;
        libc::syscall(libc::SYS_bpf, bpf_cmd::BPF_MAP_DELETE_ELEM, &raw mut attributes, size_of::<bpf_attr>())
    };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Runs a program over a packet; returns what it returns.
pub(super) fn test_run(program: &OwnedFd, packet: &[u8]) -> io::Result<u32> {
    let mut attributes = zeroed();
    attributes.test.prog_fd = program.as_raw_fd().cast_unsigned();
    attributes.test.data_in = packet.as_ptr().addr() as u64;
    attributes.test.data_size_in = u32::try_from(packet.len()).map_err(io::Error::other)?;
    bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attributes)?;
    // SAFETY: the kernel has written it.
    Ok(unsafe { attributes.test.retval })
}

/// How many maps a program of podgate's uses at the most.
const MOST_MAPS: u32 = 64;

/// The ids of the maps that a program uses. By its descriptor: who asks by its id needs CAP_SYS_ADMIN.
pub(super) fn map_ids(program: BorrowedFd<'_>) -> io::Result<BTreeSet<u32>> {
    let mut ids = [0_u32; MOST_MAPS as usize];
    // SAFETY: all zeroes is a valid value of this struct of numbers.
    let mut info = unsafe { std::mem::zeroed::<bpf_prog_info>() };
    info.nr_map_ids = MOST_MAPS;
    info.map_ids = ids.as_mut_ptr().addr() as u64;
    let mut attributes = zeroed();
    attributes.info.bpf_fd = program.as_raw_fd().cast_unsigned();
    attributes.info.info_len = u32::try_from(size_of_val(&info)).map_err(io::Error::other)?;
    attributes.info.info = (&raw mut info).addr() as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    match ids.get(..info.nr_map_ids as usize) {
        Some(ids) => Ok(ids.iter().copied().collect()),
        None => Err(io::Error::other("it uses more maps than a program of podgate's")),
    }
}

/// How many entries of a hash one call reads.
const BATCH: u32 = 4_096;

/// Counts the entries of a hash, at most `most`. `key` and `value` are sizes in bytes. Others may write
/// meanwhile: who is there all the time is counted once.
pub(super) fn count(map: &OwnedFd, key: usize, value: usize, most: u32) -> io::Result<usize> {
    let mut keys = vec![0_u8; BATCH as usize * key];
    let mut values = vec![0_u8; BATCH as usize * value];
    // For a hash, the bucket that comes next (`__htab_map_lookup_and_delete_batch` in kernel/bpf/hashtab.c).
    let mut bucket = 0_u32;
    let (mut entries, mut first) = (0, true);
    loop {
        // SAFETY: all zeroes is a valid value of this union of plain structs.
        let mut attributes = unsafe { std::mem::zeroed::<bpf_attr>() };
        let at = (&raw mut bucket).addr() as u64;
        attributes.batch = bpf_attr__bindgen_ty_3 {
            in_batch: if first { 0 } else { at },
            out_batch: at,
            keys: keys.as_mut_ptr().addr() as u64,
            values: values.as_mut_ptr().addr() as u64,
            count: BATCH,
            map_fd: map.as_raw_fd().cast_unsigned(),
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the buffers have room for `count` keys and values, and live through the call with `bucket`;
        // it is read before it is written.
        let result = unsafe {
            let (command, size) = (bpf_cmd::BPF_MAP_LOOKUP_BATCH, size_of::<bpf_attr>());
            libc::syscall(libc::SYS_bpf, command, &raw mut attributes, size)
        };
        let last = match io::Error::last_os_error() {
            _ if result == 0 => false,
            error if error.kind() == io::ErrorKind::NotFound => true,
            error => return Err(error),
        };
        // SAFETY: the kernel has written how many there were, also with the last ones.
        entries += unsafe { attributes.batch.count } as usize;
        first = false;
        if last || entries >= most as usize {
            return Ok(entries.min(most as usize));
        }
    }
}

/// One element of an array whose values are `T`: of the kernel's size, and valid whatever is in it.
pub(super) fn element<T: Pod>(array: &OwnedFd, index: u32) -> io::Result<T> {
    // SAFETY: all bit patterns are valid, zeroes too.
    let mut value = unsafe { std::mem::zeroed::<T>() };
    let mut attributes = zeroed();
    // SAFETY: this command reads the union as its second struct; key and value live through the call.
    unsafe {
        let element = &mut attributes.__bindgen_anon_2;
        element.map_fd = array.as_raw_fd().cast_unsigned();
        element.key = (&raw const index).addr() as u64;
        element.__bindgen_anon_1.value = (&raw mut value).addr() as u64;
    }
    bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attributes)?;
    Ok(value)
}

/// The first elements of an array, as [`element`], by one call.
pub(super) fn elements<T: Pod>(array: &OwnedFd, count: u32) -> io::Result<Vec<T>> {
    let mut keys = vec![0_u32; count as usize];
    // SAFETY: all bit patterns are valid, zeroes too.
    let mut values = vec![unsafe { std::mem::zeroed::<T>() }; count as usize];
    let mut last = 0_u32;
    let mut attributes = zeroed();
    attributes.batch = bpf_attr__bindgen_ty_3 {
        in_batch: 0,
        out_batch: (&raw mut last).addr() as u64,
        keys: keys.as_mut_ptr().addr() as u64,
        values: values.as_mut_ptr().addr() as u64,
        count,
        map_fd: array.as_raw_fd().cast_unsigned(),
        elem_flags: 0,
        flags: 0,
    };
    bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attributes)?;
    // SAFETY: the kernel has written how many there were; an array is read from its first element on.
    values.truncate(unsafe { attributes.batch.count } as usize);
    Ok(values)
}

/// Takes the program of a link off its hook, whoever else holds the link. When this returns, no packet meets
/// it any more: the kernel waits for those that did (`tcx_entry_sync` in include/net/tcx.h). A device that is
/// gone is fine.
pub(super) fn detach_link(link: &OwnedFd) -> io::Result<()> {
    let mut attributes = zeroed();
    attributes.link_detach.link_fd = link.as_raw_fd().cast_unsigned();
    match bpf(bpf_cmd::BPF_LINK_DETACH, &mut attributes) {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOLINK | libc::ENODEV)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Programs at a hook that are looked at; more than the kernel takes (`BPF_MPROG_MAX`).
const PROGRAMS: usize = 64;

/// The ids of the programs at a TCX hook of a device, in the order in which they run. None where the kernel
/// has no TCX.
pub(super) fn programs_at(ifindex: u32, hook: bpf_attach_type) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; PROGRAMS];
    let mut attributes = zeroed();
    attributes.query.__bindgen_anon_1.target_ifindex = ifindex;
    attributes.query.attach_type = hook as u32;
    attributes.query.prog_ids = ids.as_mut_ptr().addr() as u64;
    attributes.query.__bindgen_anon_2.count = 64;
    match bpf(bpf_cmd::BPF_PROG_QUERY, &mut attributes) {
        Ok(_) => {
            // SAFETY: the kernel has written how many there are.
            let count = unsafe { attributes.query.__bindgen_anon_2.count };
            Ok(ids.into_iter().take(count as usize).collect())
        }
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Waits until no BPF program runs that began before this call: so does the kernel after each change of a map
/// of maps (`maybe_wait_bpf_programs` in kernel/bpf/syscall.c), also of one that no program has.
pub(super) fn wait_for_programs() -> io::Result<()> {
    let inner = make_array(bpf_map_type::BPF_MAP_TYPE_ARRAY, None)?;
    let outer = make_array(bpf_map_type::BPF_MAP_TYPE_ARRAY_OF_MAPS, Some(&inner))?;
    let (key, value) = (0_u32, inner.as_raw_fd().cast_unsigned());
    let mut attributes = zeroed();
    attributes.__bindgen_anon_2.map_fd = outer.as_raw_fd().cast_unsigned();
    attributes.__bindgen_anon_2.key = (&raw const key).addr() as u64;
    attributes.__bindgen_anon_2.__bindgen_anon_1.value = (&raw const value).addr() as u64;
    bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attributes).map(|_| ())
}

/// An array with one value of four bytes.
fn make_array(kind: bpf_map_type, inner: Option<&OwnedFd>) -> io::Result<OwnedFd> {
    let mut attributes = zeroed();
    attributes.__bindgen_anon_1.map_type = kind as u32;
    attributes.__bindgen_anon_1.key_size = 4;
    attributes.__bindgen_anon_1.value_size = 4;
    attributes.__bindgen_anon_1.max_entries = 1;
    attributes.__bindgen_anon_1.inner_map_fd = inner.map_or(0, |inner| inner.as_raw_fd().cast_unsigned());
    new_descriptor(bpf_cmd::BPF_MAP_CREATE, &mut attributes)
}

/// The object that is pinned at a path.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = zeroed();
    attributes.__bindgen_anon_4.pathname = path.as_ptr().addr() as u64;
    new_descriptor(bpf_cmd::BPF_OBJ_GET, &mut attributes)
}

/// Pins an object.
pub(super) fn pin(object: &OwnedFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = zeroed();
    attributes.__bindgen_anon_4.pathname = path.as_ptr().addr() as u64;
    attributes.__bindgen_anon_4.bpf_fd = object.as_raw_fd().cast_unsigned();
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut attributes).map(|_| ())
}

/// Loads a program for TC hooks that drops every packet: `r0 = TC_ACT_SHOT; exit` (linux/bpf.h,
/// linux/pkt_cls.h).
pub(super) fn load_drop_all() -> io::Result<OwnedFd> {
    const TC_ACT_SHOT: u8 = 2;
    let code: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, TC_ACT_SHOT, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    let license = c"Dual MIT/GPL";
    let mut attributes = zeroed();
    // SAFETY: a plain struct of the union.
    let program = unsafe { &mut attributes.__bindgen_anon_3 };
    program.prog_type = bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS as u32;
    program.insn_cnt = 2;
    program.insns = code.as_ptr().addr() as u64;
    program.license = license.as_ptr().addr() as u64;
    for (to, from) in program.prog_name.iter_mut().zip(b"podgate_drop") {
        *to = from.cast_signed();
    }
    new_descriptor(bpf_cmd::BPF_PROG_LOAD, &mut attributes)
}

fn new_descriptor(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<OwnedFd> {
    let descriptor = i32::try_from(bpf(command, attributes)?).map_err(io::Error::other)?;
    // SAFETY: such commands return a new descriptor that no one else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn zeroed() -> bpf_attr {
    // SAFETY: all zeroes is a valid value of this union of plain structs.
    unsafe { std::mem::zeroed() }
}

/// The caller keeps alive what the attributes point to.
fn bpf(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<i64> {
    // SAFETY: the kernel reads and writes as many bytes as the union has, and what its pointers lead to.
    match unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<bpf_attr>()) } {
        ..0 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}
