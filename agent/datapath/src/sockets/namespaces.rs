//! The network namespaces behind veths, as files that can be entered.
//!
//! In: ids, as the kernel gives them with the links (IFLA_LINK_NETNSID). Out: an open file for each that is
//! found. The kernel tells the id of a given namespace, not the namespace of a given id, so all that can be
//! seen are asked: those that CNI results name, those that `ip netns` and container runtimes keep, and those
//! of processes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    iter::from_fn,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result};
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::netlink::{Requests, namespace::nsfs};

/// Where namespaces are kept as files: iproute2, containerd and CRI-O; Docker. `/var/run` is `/run`, but for
/// containers into which only one of them is mounted.
const DIRECTORIES: [&str; 3] = ["/run/netns", "/var/run/netns", "/var/run/docker/netns"];

/// Namespaces by the id that the node's own one has for them.
#[derive(Debug, Default)]
pub struct Namespaces(BTreeMap<i32, File>);

impl Namespaces {
    /// Looks until all of `wanted` are found, no more are left, or the time is up. `named`: files to look at
    /// first.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer ids at all. What cannot be opened is passed over.
    pub fn find(
        wanted: &BTreeSet<i32>,
        named: impl IntoIterator<Item = PathBuf>,
        deadline: Instant,
    ) -> Result<Self> {
        let mut requests = Requests::open(NETLINK_ROUTE).context("cannot open an rtnetlink socket")?;
        // Nothing else is opened, whatever a path leads to.
        let nsfs = nsfs()?;
        let mut seen = BTreeSet::new();
        let mut found = BTreeMap::new();
        for path in named.into_iter().chain(kept()).chain(of_processes()) {
            if found.len() == wanted.len() || Instant::now() >= deadline {
                break;
            }
            match fs::metadata(&path) {
                Ok(file) if file.dev() == nsfs && seen.insert(file.ino()) => {}
                _ => continue,
            }
            let Ok(file) = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path) else {
                continue;
            };
            match requests.id_of(&file) {
                Ok(Some(id)) if wanted.contains(&id) => {
                    found.insert(id, file);
                }
                Ok(_) => {}
                // Of another kind than network, or gone meanwhile.
                Err(error) => tracing::debug!(path = %path.display(), %error, "no network namespace"),
            }
        }
        Ok(Self(found))
    }

    /// The namespace with this id, as the node's own one numbers it.
    pub fn get(&self, id: i32) -> Option<&File> {
        self.0.get(&id)
    }
}

fn kept() -> impl Iterator<Item = PathBuf> {
    DIRECTORIES.into_iter().flat_map(|directory| entries(Path::new(directory)))
}

/// Read only when everything before has been looked at: it is much.
fn of_processes() -> impl Iterator<Item = PathBuf> {
    let mut processes = None;
    from_fn(move || processes.get_or_insert_with(|| entries(Path::new("/proc"))).next())
        .filter(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes()[0].is_ascii_digit()))
        .map(|process| process.join("ns/net"))
}

/// What is in a directory; one that is not there is empty.
fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(directory).into_iter().flatten().map_while(Result::ok).map(|entry| entry.path())
}
