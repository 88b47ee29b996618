//! Other network namespaces, seen from the node's own: files that hold them, and the ids that the node's one
//! has for them.
//!
//! In: paths. Out: open files, and ids by which rtnetlink answers for that namespace (`IFA_TARGET_NETNSID`,
//! `IFLA_TARGET_NETNSID`). Nothing here enters a namespace, so CAP_NET_ADMIN is enough.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use netlink_packet_core::Parseable as _;
use netlink_packet_route::{
    RouteNetlinkMessage,
    nsid::{NsidAttribute, NsidMessage},
};

use super::Requests;

/// Lets the kernel choose an id (`NETNSA_NSID_NOT_ASSIGNED`).
const ANY_ID: i32 = -1;

/// The file system of namespaces, as the device number of its files.
pub fn nsfs() -> Result<u64> {
    Ok(fs::metadata("/proc/self/ns/net").context("cannot stat the own network namespace")?.dev())
}

/// Opens a file that holds a namespace. Nothing else is opened, whatever the path leads to.
pub fn open_namespace(path: &Path) -> Result<File> {
    let metadata = fs::metadata(path).with_context(|| format!("cannot stat {}", path.display()))?;
    ensure!(metadata.dev() == nsfs()?, "{} is no network namespace", path.display());
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    file.with_context(|| format!("cannot open {}", path.display()))
}

/// Of an rtnetlink socket.
impl Requests {
    /// The id that this socket's namespace has for another one; `None`: it has none, so no link leads there.
    pub fn id_of(&mut self, namespace: &File) -> io::Result<Option<i32>> {
        let mut message = NsidMessage::default();
        message.attributes.push(NsidAttribute::Fd(namespace.as_raw_fd().cast_unsigned()));
        let answers = self.ask(RouteNetlinkMessage::GetNsId(message), |payload| {
            let attributes = NsidMessage::parse(payload).ok()?.attributes;
            attributes.into_iter().find_map(|attribute| match attribute {
                NsidAttribute::Id(id) => Some(id),
                _ => None,
            })
        })?;
        Ok(answers.into_iter().find(|id| *id >= 0))
    }

    /// The same; where there is none yet, the kernel is asked to give one. It lasts as long as the other
    /// namespace does.
    pub fn given_id_of(&mut self, namespace: &File) -> io::Result<i32> {
        if let Some(id) = self.id_of(namespace)? {
            return Ok(id);
        }
        let mut message = NsidMessage::default();
        let file = NsidAttribute::Fd(namespace.as_raw_fd().cast_unsigned());
        message.attributes.extend([NsidAttribute::Id(ANY_ID), file]);
        match self.ask(RouteNetlinkMessage::NewNsId(message), |_| None::<()>) {
            // Somebody else was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            answer => drop(answer?),
        }
        self.id_of(namespace)?.ok_or_else(|| io::Error::other("the kernel gives it no id"))
    }
}
