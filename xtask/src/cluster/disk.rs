//! What a node's machine sees as its files: this machine's programs, and everything that changes in a place
//! of its own.
//!
//! In: a process that is alone, and the node's directory. Out: new `/proc`, `/sys` and `/run`, a bpffs of its
//! own, `/etc` and `/var` that are written beside the originals, and a host name. Mounts spread as on any
//! node, so that pods with host paths see what is mounted later. The directory is the disk: it outlives a
//! reboot of the node.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::sethostname,
};

use super::cgroups;
use crate::sandbox;

/// What programs write below `/etc` and `/var` goes to a layer of the node's own.
const LAYERED: [&str; 2] = ["/etc", "/var"];
/// Directories that must be no layers: containerd makes layers in them, or kubelet mounts in them.
const PLAIN: [&str; 2] = ["/var/lib/containerd", "/var/lib/kubelet"];

pub(super) fn mount_all(node: &str, directory: &Path) -> Result<()> {
    let hidden = LAYERED.iter().find(|layered| directory.starts_with(layered));
    ensure!(hidden.is_none(), "{} must not lie below {LAYERED:?}", directory.display());
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)
        .context("unshare(CLONE_NEWNS|CLONE_NEWUTS)")?;
    sethostname(node).context("sethostname")?;
    sandbox::mount_own()?;
    cgroups::mount_all()?;
    LAYERED.iter().try_for_each(|place| layer(place, directory))?;
    PLAIN.iter().try_for_each(|place| bind(place, directory))?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SHARED, none).context("making mounts shared")
}

fn layer(place: &str, directory: &Path) -> Result<()> {
    let [upper, work] = ["upper", "work"].map(|part| below(directory, place).join(part));
    for part in [&upper, &work] {
        fs::create_dir_all(part).with_context(|| format!("creating {}", part.display()))?;
    }
    let options = format!("lowerdir={place},upperdir={},workdir={}", upper.display(), work.display());
    mount(Some("overlay"), place, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .with_context(|| format!("mounting an overlay on {place}"))
}

fn bind(place: &str, directory: &Path) -> Result<()> {
    let plain = below(directory, place);
    for part in [plain.as_path(), Path::new(place)] {
        fs::create_dir_all(part).with_context(|| format!("creating {}", part.display()))?;
    }
    mount(Some(&plain), place, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("mounting {} on {place}", plain.display()))
}

/// `var-lib-kubelet` for `/var/lib/kubelet`.
fn below(directory: &Path, place: &str) -> PathBuf {
    directory.join(place.trim_start_matches('/').replace('/', "-"))
}
