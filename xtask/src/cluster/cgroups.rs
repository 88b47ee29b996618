//! The cgroups of the cluster: one of each node, below one of our own, in each hierarchy.
//!
//! In: what is mounted here, version 1 or 2. Out: `podgate-cluster/NODE` for kubelets to work below, the same
//! hierarchies mounted inside a node, and nothing of it once the cluster is down. Cgroups belong to no
//! namespace: they are the one thing that must be removed by hand.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};

use crate::lab::until;

/// The one of our own.
const ROOT: &str = "podgate-cluster";
/// Where everybody mounts them.
const MOUNTS: &str = "/sys/fs/cgroup";
/// A cgroup stays busy until the last process in it is gone.
const END: Duration = Duration::from_secs(20);

/// A hierarchy of cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Hierarchy {
    /// Version 1, with its options (`cpu,cpuacct`, `name=systemd`).
    Old(String),
    /// Version 2.
    Unified,
}

/// What a node's kubelet is given as its root.
pub(super) fn root_of(node: &str) -> String {
    format!("/{ROOT}/{node}")
}

/// Makes the cgroups of a node.
pub(super) fn create(node: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let top = hierarchy.mount_point();
        let (ours, place) = (top.join(ROOT), top.join(ROOT).join(node));
        match hierarchy {
            Hierarchy::Unified => {
                delegate(&top)?;
                make(&ours)?;
                delegate(&ours)?;
                make(&place)?;
                delegate(&place)?;
            }
            Hierarchy::Old(_) => {
                make(&ours)?;
                inherit(&top, &ours)?;
                make(&place)?;
                inherit(&ours, &place)?;
            }
        }
    }
    Ok(())
}

/// Removes the cgroups of all nodes, whose processes have ended.
pub(super) fn remove() -> Result<()> {
    for hierarchy in hierarchies()? {
        remove_tree(&hierarchy.mount_point().join(ROOT))?;
    }
    Ok(())
}

/// Mounts all hierarchies where programs expect them, on a `/sys` that is new.
pub(super) fn mount_all() -> Result<()> {
    let hierarchies = hierarchies()?;
    let new = |kind: &str, place: &Path, options: Option<&str>| {
        fs::create_dir_all(place).with_context(|| format!("creating {}", place.display()))?;
        mount(Some(kind), place, Some(kind), MsFlags::empty(), options)
            .with_context(|| format!("mounting {kind} on {}", place.display()))
    };
    if hierarchies != [Hierarchy::Unified] {
        new("tmpfs", Path::new(MOUNTS), Some("mode=755"))?;
    }
    for hierarchy in hierarchies {
        match &hierarchy {
            Hierarchy::Old(options) => new("cgroup", &hierarchy.mount_point(), Some(options))?,
            Hierarchy::Unified => new("cgroup2", &hierarchy.mount_point(), None)?,
        }
    }
    Ok(())
}

/// Those that this kernel uses: of the first version, if there are any, or the one of the second.
fn hierarchies() -> Result<Vec<Hierarchy>> {
    let text = fs::read_to_string("/proc/self/cgroup").context("reading /proc/self/cgroup")?;
    let found = parse(&text);
    ensure!(!found.is_empty(), "this kernel has no cgroups");
    Ok(found)
}

/// Lines are `NUMBER:OPTIONS:PATH`; the second version has no options (cgroups(7)).
fn parse(text: &str) -> Vec<Hierarchy> {
    let options = text.lines().filter_map(|line| line.split(':').nth(1));
    let old: Vec<_> = options.filter(|options| !options.is_empty()).collect();
    match old.as_slice() {
        [] if text.is_empty() => Vec::new(),
        [] => vec![Hierarchy::Unified],
        old => old.iter().map(|options| Hierarchy::Old((*options).to_owned())).collect(),
    }
}

impl Hierarchy {
    fn mount_point(&self) -> PathBuf {
        match self {
            Self::Old(options) => Path::new(MOUNTS).join(options.trim_start_matches("name=")),
            Self::Unified => MOUNTS.into(),
        }
    }
}

fn make(place: &Path) -> Result<()> {
    fs::create_dir_all(place).with_context(|| format!("creating the cgroup {}", place.display()))
}

/// A new cpuset of the first version is empty, and takes no process.
fn inherit(parent: &Path, place: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"].iter().filter(|file| parent.join(file).exists()) {
        let value = fs::read(parent.join(file)).with_context(|| format!("reading {file}"))?;
        fs::write(place.join(file), value).with_context(|| format!("writing {file}"))?;
    }
    Ok(())
}

/// Gives all controllers to what is below.
fn delegate(place: &Path) -> Result<()> {
    let controllers = fs::read_to_string(place.join("cgroup.controllers")).context("reading controllers")?;
    let control = place.join("cgroup.subtree_control");
    for controller in controllers.split_whitespace() {
        fs::write(&control, format!("+{controller}"))
            .with_context(|| format!("{controller} in {}", control.display()))?;
    }
    Ok(())
}

/// From the leaves up: a cgroup is removed like an empty directory, whatever files show in it.
fn remove_tree(place: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(place) else { return Ok(()) };
    for entry in entries.filter_map(Result::ok).filter(|entry| entry.path().is_dir()) {
        remove_tree(&entry.path())?;
    }
    let what = format!("the cgroup {} is removed", place.display());
    until(&what, END, || match fs::remove_dir(place) {
        Err(error) if error.kind() == ErrorKind::ResourceBusy => Ok(None),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).with_context(|| what.clone()),
        _ => Ok(Some(())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_told_apart() {
        let old = |options: &str| Hierarchy::Old(options.to_owned());
        for (text, expected) in [
            ("2:cpu,cpuacct:/\n1:name=systemd:/x\n0::/\n", vec![old("cpu,cpuacct"), old("name=systemd")]),
            ("0::/user.slice\n", vec![Hierarchy::Unified]),
            ("", vec![]),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
        assert_eq!(old("name=systemd").mount_point(), Path::new("/sys/fs/cgroup/systemd"));
    }
}
