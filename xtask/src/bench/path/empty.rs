//! An empty program where podgate has its own: what TCX costs by itself.
//!
//! In: names of interfaces in the calling thread's network namespace. Out: a program of two instructions at
//! ingress and egress of each, there until the links are dropped. Written against the system call: a loader
//! would be a dependency for these two instructions.

use std::{
    io,
    mem::size_of,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result};
use nix::{libc, net::if_::if_nametoindex};

/// Takes the program away when dropped.
#[derive(Debug)]
pub(super) struct Links(#[expect(dead_code, reason = "held, not read")] Vec<OwnedFd>);

/// Commands and constants of `bpf(2)` (`linux/bpf.h`).
const PROG_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;
const SCHED_CLS: u32 = 3;
const TCX: [u32; 2] = [46, 47];

/// `r0 = -1; exit`: the next program has its say, as after podgate's.
const CODE: [u64; 2] = [0xffff_ffff_0000_00b7, 0x95];

/// What `bpf(2)` reads of its attributes to load a program, up to the log that is not wanted.
#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log: [u64; 2],
}

#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches the program to all `interfaces`.
pub(super) fn attach(interfaces: &[&str]) -> Result<Links> {
    let program = bpf(
        PROG_LOAD,
        &ProgLoad {
            kind: SCHED_CLS,
            instructions: u32::try_from(CODE.len())?,
            code: CODE.as_ptr().expose_provenance() as u64,
            license: c"GPL".as_ptr().expose_provenance() as u64,
            ..ProgLoad::default()
        },
    )
    .context("loading an empty program")?;
    let mut links = Vec::new();
    for name in interfaces {
        let interface = if_nametoindex(*name).with_context(|| format!("no interface {name}"))?;
        for attach_type in TCX {
            let program = u32::try_from(program.as_raw_fd())?;
            let link = bpf(LINK_CREATE, &LinkCreate { program, interface, attach_type, flags: 0 });
            links.push(link.with_context(|| format!("attaching an empty program to {name}"))?);
        }
    }
    Ok(Links(links))
}

/// A command of `bpf(2)` that makes a file descriptor.
fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the attributes have their size, which the kernel takes for the rest being zero; what they point
    // to lives.
    let made = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<T>()) };
    match i32::try_from(made) {
        // SAFETY: a new descriptor, no one else's.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}
