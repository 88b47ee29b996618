//! The BPF file system: mounting it, and whether what is pinned in it outlives the agent.
//!
//! A pin lasts as long as its file system is mounted somewhere. One that the agent mounts in a mount
//! namespace of its own, such as a container's, is gone with its last process, and with it every link: the
//! pods are free then. Whether the host has the file system as well is read from the mounts of the agent and
//! of process 1 (proc_pid_mountinfo(5)).

use std::{
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

/// `BPF_FS_MAGIC` of `linux/magic.h`.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// The first namespace of processes (`PROC_PID_INIT_INO` in include/linux/proc_ns.h): its process 1 is the
/// host's.
const FIRST_PROCESS_NAMESPACE: &str = "pid:[4026531836]";

/// Whether a bpffs is mounted at this path.
pub fn is_bpffs(path: &Path) -> bool {
    let Ok(path) = std::ffi::CString::new(path.as_os_str().as_bytes()) else { return false };
    let mut stat = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: a valid path and room for the answer, which is read only after success.
    unsafe {
        libc::statfs(path.as_ptr(), stat.as_mut_ptr()) == 0
            && u64::try_from(stat.assume_init().f_type).is_ok_and(|kind| kind == BPF_FS_MAGIC)
    }
}

/// Mounts a bpffs where there is none; returns whether there was none.
///
/// # Errors
///
/// When the directory cannot be made, or the kernel does not mount it (CAP_SYS_ADMIN).
pub fn mount(path: &Path) -> Result<bool> {
    if is_bpffs(path) {
        return Ok(false);
    }
    fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
    let target = std::ffi::CString::new(path.as_os_str().as_bytes())
        .with_context(|| format!("{} is no path for a mount", path.display()))?;
    // Without it every process of the node may make directories and pins here.
    let options = c"mode=700";
    // SAFETY: all strings end in NUL and live through the call.
    let result = unsafe {
        let kind = c"bpf".as_ptr();
        libc::mount(kind, target.as_ptr(), kind, libc::MS_NOSUID, options.as_ptr().cast())
    };
    if result != 0 {
        bail!("cannot mount a bpffs at {}: {}", path.display(), io::Error::last_os_error());
    }
    tracing::info!(path = %path.display(), "mounted a bpffs");
    Ok(true)
}

/// Why the pins at this path are lost when this process ends; `None`: they last, as far as can be seen.
/// `made`: this process has mounted the file system, or would.
pub fn pins_lost(root: &Path, bpffs: &Path, made: bool) -> Option<String> {
    let read = |file: &str| fs::read_to_string(root.join(file)).ok();
    let own = read("proc/self/mountinfo")?;
    // The first process of a container that is the agent itself proves nothing.
    let is_first = read("proc/self/stat").is_some_and(|stat| stat.starts_with("1 "));
    let first = read("proc/1/mountinfo").filter(|_| !is_first);
    let namespace = fs::read_link(root.join("proc/self/ns/pid"));
    let is_host = namespace.is_ok_and(|namespace| namespace == Path::new(FIRST_PROCESS_NAMESPACE));
    let path = fs::canonicalize(bpffs).unwrap_or_else(|_| bpffs.to_owned());
    lost(&own, first.as_deref(), is_host, &path, made).then(|| {
        format!(
            "the BPF file system at {} is mounted in this mount namespace alone: when its last process ends, nothing is \
             enforced any more. Mount it on the host: mount -t bpf bpf /sys/fs/bpf",
            bpffs.display()
        )
    })
}

/// `own`, `first`: the mounts of this process and of process 1, if that is another one. `is_host`: that one
/// is the host's.
fn lost(own: &str, first: Option<&str>, is_host: bool, path: &Path, made: bool) -> bool {
    let Some(mount) = mount_over(own, path).filter(|mount| mount.kind == "bpf") else { return made };
    if first.is_some_and(|first| mounts(first).any(|other| other.device == mount.device)) {
        return false;
    }
    if first.is_some() && is_host {
        return true;
    }
    made && !mount.is_propagated
}

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount<'a> {
    /// As in `0:23`.
    device: &'a str,
    point: PathBuf,
    /// Other namespaces have it too, or get it.
    is_propagated: bool,
    /// The type of the file system.
    pub kind: &'a str,
}

/// The mount that a path lies in. Later mounts hide earlier ones.
pub fn mount_over<'a>(mountinfo: &'a str, path: &Path) -> Option<Mount<'a>> {
    let over = mounts(mountinfo).filter(|mount| path.starts_with(&mount.point));
    over.max_by_key(|mount| mount.point.components().count())
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn mounts(mountinfo: &str) -> impl Iterator<Item = Mount<'_>> {
    mountinfo.lines().filter_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let mut fields = place.split(' ');
        let (device, point) = (fields.nth(2)?, fields.nth(1)?);
        let is_propagated =
            fields.skip(1).any(|field| field.starts_with("shared:") || field.starts_with("master:"));
        Some(Mount {
            device,
            point: point.replace("\\040", " ").into(),
            is_propagated,
            kind: kind.split(' ').next()?,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIVATE: &str = "30 1 0:20 / / rw - ext4 /dev/a rw\n31 30 0:40 / /bpf rw,nosuid - bpf bpf rw\n";
    const SHARED: &str =
        "30 1 0:20 / / rw shared:1 - ext4 /dev/a rw\n31 30 0:40 / /bpf rw,nosuid shared:7 - bpf bpf rw\n";
    const NONE: &str = "30 1 0:20 / / rw - ext4 /dev/a rw\n";
    const HOST: &str =
        "20 1 0:19 / / rw shared:1 - ext4 /dev/b rw\n21 20 0:40 / /sys/fs/bpf rw shared:9 - bpf bpf rw\n";
    const HOST_WITHOUT: &str = "20 1 0:19 / / rw shared:1 - ext4 /dev/b rw\n";

    #[test]
    fn pins_last_only_where_another_namespace_has_their_file_system() {
        let cases = [
            ("mounted by the agent in a container", PRIVATE, None, false, true, true),
            ("bound into a container by the kubelet", PRIVATE, None, false, false, false),
            ("mounted by the agent, propagated", SHARED, None, false, true, false),
            ("the host has it", PRIVATE, Some(HOST), true, false, false),
            ("made in the namespace of another first process", PRIVATE, Some(HOST), false, true, false),
            ("the host has it not", PRIVATE, Some(HOST_WITHOUT), true, false, true),
            (
                "the host has it not, though it is shared with others",
                SHARED,
                Some(HOST_WITHOUT),
                true,
                true,
                true,
            ),
            ("a container's first process has it not", PRIVATE, Some(HOST_WITHOUT), false, true, true),
            ("not mounted yet, to be mounted by the agent", NONE, None, false, true, true),
            ("not mounted", NONE, None, false, false, false),
        ];
        for (case, own, first, is_host, made, expected) in cases {
            assert_eq!(lost(own, first, is_host, Path::new("/bpf"), made), expected, "{case}");
        }
    }

    #[test]
    fn a_path_lies_in_the_nearest_and_latest_mount() {
        let mounts = "1 0 0:1 / / rw - ext4 a rw\n2 1 0:2 / /sys rw - sysfs s rw\n3 2 0:3 / /sys/fs/bpf rw - tmpfs t rw\n\
                      4 3 0:4 / /sys/fs/bpf rw master:3 propagate_from:2 - bpf b rw\n5 1 0:5 / /a\\040b rw - bpf b rw\n";
        for (path, device, kind) in [
            ("/sys/fs/bpf/podgate", "0:4", "bpf"),
            ("/sys/fs/bpf2", "0:2", "sysfs"),
            ("/x", "0:1", "ext4"),
            ("/a b/c", "0:5", "bpf"),
        ] {
            let mount = mount_over(mounts, Path::new(path)).unwrap();
            assert_eq!((mount.device, mount.kind), (device, kind), "{path}");
        }
        assert!(mount_over(mounts, Path::new("/sys/fs/bpf")).unwrap().is_propagated);
    }
}
