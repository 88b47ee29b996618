//! bpf system calls that aya has no function for.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use aya_obj::generated::{bpf_attr, bpf_cmd};

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
