//! The kernel's BPF objects, by their ids: which are pinned in a directory, and whether they still exist.
//!
//! Plain `bpf(2)` calls, so that the agent's own library is not what checks it.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use anyhow::{Context, Result};
use nix::{libc, net::if_::if_nametoindex};
use xtask::lab::{PATIENT, until};

/// A BPF object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Object {
    Map(u32),
    Program(u32),
    Link(u32),
}

impl Object {
    pub(crate) fn is_map(&self) -> bool {
        matches!(self, Self::Map(_))
    }

    pub(crate) fn is_program(&self) -> bool {
        matches!(self, Self::Program(_))
    }

    pub(crate) fn is_link(&self) -> bool {
        matches!(self, Self::Link(_))
    }
}

/// `enum bpf_cmd` (linux/bpf.h).
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_MAP_GET_FD_BY_ID: libc::c_int = 14;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_GET_FD_BY_ID: libc::c_int = 30;

/// The objects that are pinned below `directory`, and the programs of the pinned links.
pub(crate) fn pinned(directory: &Path) -> Result<Vec<Object>> {
    let mut objects = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            objects.extend(pinned(&path)?);
        } else {
            match behind(&path) {
                // A trace removes its pins as soon as it runs.
                Err(_) if !path.exists() => {}
                found => objects.extend(found?),
            }
        }
    }
    Ok(objects)
}

fn behind(pin: &Path) -> Result<Vec<Object>> {
    let path = CString::new(pin.as_os_str().as_bytes()).context("a path without NUL")?;
    // The part of `union bpf_attr` for BPF_OBJ_GET: path, bpf_fd and file_flags.
    let attributes = [path.as_ptr() as u64, 0];
    let object = bpf(BPF_OBJ_GET, &attributes).with_context(|| format!("opening {}", pin.display()))?;
    let info =
        fs::read_to_string(format!("/proc/self/fdinfo/{}", object.as_raw_fd())).context("reading fdinfo")?;
    let id = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    let found = [
        id("map_id:").map(Object::Map),
        id("link_id:").map(Object::Link),
        id("prog_id:").map(Object::Program),
    ];
    Ok(found.into_iter().flatten().collect())
}

/// Waits until the kernel has freed them, which it does after a grace period.
pub(crate) fn are_gone<'a>(objects: impl IntoIterator<Item = &'a Object> + Copy) -> Result<()> {
    until("programs, links and maps are gone", PATIENT, || {
        let left = objects.into_iter().map(exists).collect::<Result<Vec<_>>>()?;
        Ok(left.iter().all(|exists| !exists).then_some(()))
    })
}

fn exists(object: &Object) -> Result<bool> {
    let (command, id) = match *object {
        Object::Map(id) => (BPF_MAP_GET_FD_BY_ID, id),
        Object::Program(id) => (BPF_PROG_GET_FD_BY_ID, id),
        Object::Link(id) => (BPF_LINK_GET_FD_BY_ID, id),
    };
    // The part of `union bpf_attr` for these commands: id, next_id and open_flags.
    match bpf(command, &[u64::from_ne_bytes(pair(id)), 0]) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("looking for {object:?}")),
    }
}

/// A program that ends the chain, at the TCX ingress hook of a device of this thread's namespace, ahead of
/// all others. It is there as long as the descriptor is open.
pub(crate) fn attach_foreign(interface: &str) -> Result<OwnedFd> {
    const SCHED_CLS: u32 = 3;
    const TCX_INGRESS: u32 = 46;
    const BEFORE: u32 = 1 << 3;
    // r0 = 0 (TCX_PASS); exit
    let code: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 0, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    let both = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let (code, license) = (code.as_ptr() as u64, c"GPL".as_ptr() as u64);
    let program = bpf(BPF_PROG_LOAD, &[both(SCHED_CLS, 2), code, license]).context("loading a program")?;
    let ifindex = if_nametoindex(interface)?;
    let program = u32::try_from(program.as_raw_fd())?;
    bpf(BPF_LINK_CREATE, &[both(program, ifindex), both(TCX_INGRESS, BEFORE)]).context("attaching a program")
}

/// `id` followed by four zero bytes, in the machine's own order.
fn pair(id: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&id.to_ne_bytes());
    bytes
}

fn bpf(command: libc::c_int, attributes: &[u64]) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads `size_of_val(attributes)` bytes from a live array and takes the rest of the
    // union as zero; a pointer in it is to a string that the caller keeps alive.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(attributes)) };
    match i32::try_from(fd) {
        // SAFETY: these commands return a new descriptor that no one else owns.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
