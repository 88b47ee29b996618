//! Network namespaces of the process alone: one that plays the node, and one that holds the far ends of its
//! veths.

use std::{
    ffi::CStr,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    ptr,
};

use anyhow::{Context as _, Result, ensure};

/// Where the process's own bpffs is.
const BPFFS: &CStr = c"/sys/fs/bpf";

/// Takes the process into new namespaces with so many veths, from ifindex [`FIRST_VETH`] on; returns its
/// bpffs. The kernel removes all of it when the process ends.
pub(crate) fn enter(veths: u32) -> Result<PathBuf> {
    // SAFETY: concerns this process alone, which has one thread yet.
    succeed("unshare", unsafe { libc::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS) })?;
    mount(None, c"/", None, libc::MS_REC | libc::MS_PRIVATE)?;
    mount(Some(c"bpf"), BPFFS, Some(c"bpf"), libc::MS_NOSUID)?;
    let lines: String = (FIRST_VETH..FIRST_VETH + veths)
        .map(|index| {
            let far = index + veths;
            format!("link add name veth{index} index {index} type veth peer name far{index} index {far}\n")
        })
        .collect();
    let ip = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn();
    let mut ip = ip.context("cannot start ip (iproute2)")?;
    ip.stdin.take().context("a pipe to ip")?.write_all(lines.as_bytes()).context("ip reads its input")?;
    ensure!(ip.wait().context("ip is a child of this process")?.success(), "cannot make the veths");
    Ok(Path::new(BPFFS.to_str().context("a literal")?).to_owned())
}

pub(crate) const FIRST_VETH: u32 = 10;

fn mount(source: Option<&CStr>, target: &CStr, kind: Option<&CStr>, flags: libc::c_ulong) -> Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: strings that end in NUL and live through the call, or null where the kernel reads none.
    let result = unsafe { libc::mount(pointer(source), target.as_ptr(), pointer(kind), flags, ptr::null()) };
    succeed("mount", result)
}

fn succeed(call: &str, result: libc::c_int) -> Result<()> {
    ensure!(result == 0, "{call}: {} (run it as root)", io::Error::last_os_error());
    Ok(())
}
