//! A network namespace with a few devices, and a bpffs, for the calling thread alone.

use std::{
    ffi::CStr,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    ptr,
};

use super::world::{BRIDGE, Host, UPLINK};

/// Where the thread's own bpffs is.
const BPFFS: &CStr = c"/sys/fs/bpf";

/// Takes the thread into new namespaces and returns the bpffs there. The kernel removes all of it when the
/// thread ends.
pub(crate) fn enter() -> PathBuf {
    // SAFETY: has no arguments and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        panic!("these tests load BPF programs: run them as root");
    }
    // SAFETY: concerns this thread alone.
    succeed("unshare", unsafe { libc::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS) });
    mount(None, c"/", None, libc::MS_REC | libc::MS_PRIVATE);
    mount(Some(c"bpf"), BPFFS, Some(c"bpf"), libc::MS_NOSUID);
    let pods = Host::LOCAL.map(Host::veth);
    add_devices([UPLINK, BRIDGE].into_iter().chain(pods));
    Path::new(BPFFS.to_str().expect("a literal")).to_owned()
}

/// Programs run at a device, which the kernel looks up by its index: less than 1,000.
pub(crate) fn add_devices(indexes: impl Iterator<Item = u32>) {
    let lines: String = indexes
        .map(|index| {
            format!(
                "link add name at{index} index {index} type veth peer name of{index} index {}\n",
                1_000 + index
            )
        })
        .collect();
    let mut ip = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().expect("iproute2");
    ip.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("ip reads its input");
    assert!(ip.wait().expect("a child of this process").success(), "cannot make the devices");
}

fn mount(source: Option<&CStr>, target: &CStr, kind: Option<&CStr>, flags: libc::c_ulong) {
    let pointer = |text: Option<&CStr>| text.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: strings that end in NUL and live through the call, or null where the kernel reads none.
    let result = unsafe { libc::mount(pointer(source), target.as_ptr(), pointer(kind), flags, ptr::null()) };
    succeed("mount", result);
}

fn succeed(call: &str, result: libc::c_int) {
    assert_eq!(result, 0, "{call}: {}", io::Error::last_os_error());
}
