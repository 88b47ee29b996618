//! What kind of device a pod has in its own network namespace: why no veth of the node is its.
//!
//! In: the namespace, as CNI results name it, and the pod's addresses. Out: the kernel's word for the device, as in
//! `macvlan`; empty for one that is no virtual device. The namespace is entered by a thread that ends with it.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io,
    net::IpAddr,
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::Path,
    thread,
};

use anyhow::{Context as _, Result, ensure};
use netlink_packet_route::link::LinkHeader;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::read::{LINK_HEADER, address, addresses_request, attributes, information_kind, links_request};
use crate::netlink::Requests;

/// The kind of the device that carries one of these addresses; `None`: no device does.
///
/// # Errors
///
/// When the namespace cannot be entered (needs CAP_SYS_ADMIN) or read.
pub fn device_kind(namespace: &Path, addresses: &BTreeSet<IpAddr>) -> Result<Option<String>> {
    let mut requests = requests_in(namespace)?;
    let found = requests.dump(addresses_request(None), |payload| address(payload, None));
    let found = found.context("cannot list its addresses")?;
    let Some(found) = found.into_iter().find(|found| addresses.contains(&found.address.addr())) else {
        return Ok(None);
    };
    let kinds = requests.dump(links_request(), |payload| {
        let ifindex = LinkHeader::parse(payload).ok()?.index;
        let mut kinds = attributes(payload, LINK_HEADER).filter(|it| it.kind() == libc::IFLA_LINKINFO);
        Some((ifindex, kinds.find_map(|it| information_kind(it.value())).unwrap_or_default()))
    });
    let kinds = kinds.context("cannot list its links")?;
    Ok(kinds.into_iter().find(|(ifindex, _)| *ifindex == found.ifindex).map(|(_, kind)| kind))
}

/// A socket in another network namespace.
pub(super) fn requests_in(namespace: &Path) -> Result<Requests> {
    // The file system of namespaces. Nothing else is opened, whatever the path leads to.
    let nsfs = fs::metadata("/proc/self/ns/net").context("cannot stat the own network namespace")?.dev();
    let metadata = fs::metadata(namespace).with_context(|| format!("cannot stat {}", namespace.display()))?;
    ensure!(metadata.dev() == nsfs, "{} is no network namespace", namespace.display());
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(namespace);
    let file = file.with_context(|| format!("cannot open {}", namespace.display()))?;
    thread::scope(|scope| {
        let opener = scope.spawn(|| {
            // SAFETY: a valid descriptor. Of the calling thread alone, the network namespace changes.
            match unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) } {
                0 => Requests::open(NETLINK_ROUTE),
                _ => Err(io::Error::last_os_error()),
            }
        });
        opener.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
    .with_context(|| format!("cannot enter {}", namespace.display()))
}
