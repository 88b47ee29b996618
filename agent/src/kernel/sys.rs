//! bpf system calls that aya has no function for.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use aya_obj::generated::{bpf_attr, bpf_attr__bindgen_ty_3, bpf_cmd};

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

/// How many entries of a hash one call reads.
const BATCH: u32 = 4_096;

/// Counts the entries of a hash, at most `most`. `key` and `value` are sizes in bytes. Others may write meanwhile: who is
/// there all the time is counted once.
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
        // SAFETY: the buffers have room for `count` keys and values, and live through the call with `bucket`; it is read
        // before it is written.
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
