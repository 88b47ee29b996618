//! The node's end of a pod's interface.
//!
//! In: the pod's network namespace and the name of the interface in it. Out: the device of this namespace
//! that it is paired with: each must name the other as its peer, for what is in the pod's namespace is the
//! pod's own word.

use std::{io, os::fd::AsRawFd as _, path::Path, thread};

use anyhow::{Context as _, Result};
use netlink_sys::protocols::NETLINK_ROUTE;
use podgate_core::model::Name;

use super::read::{link, links_request};
use crate::netlink::{Requests, namespace::open_namespace};
use crate::network::{Link, VethPeer};

/// One end of a pair of devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostSide {
    /// The interface's number on the node.
    pub ifindex: u32,
    /// The interface's name on the node.
    pub name: Name,
    /// Ifindex of the bridge that it is a port of, 0 if none.
    pub master: u32,
}

/// `None`: the interface is no end of a pair, or its other end is not in this namespace.
///
/// # Errors
///
/// When the namespace cannot be entered (needs CAP_SYS_ADMIN) or one of both cannot be read.
pub fn host_side(namespace: &Path, interface: &str) -> Result<Option<HostSide>> {
    let mut inside = requests_in(namespace)?;
    let links = inside.dump(links_request(None), link);
    let links = links.with_context(|| format!("the links of {}", namespace.display()))?;
    let found = links.into_iter().find(|(_, link)| *link.name == *interface);
    let Some((inner, Link { peer: Some(VethPeer { ifindex: outer, .. }), .. })) = found else {
        return Ok(None);
    };
    let mut outside = Requests::open(NETLINK_ROUTE).context("cannot open an rtnetlink socket")?;
    let links = outside.dump(links_request(None), link).context("cannot list the links of the node")?;
    let found = links.into_iter().find(|(ifindex, link)| {
        *ifindex == outer && link.peer.as_ref().is_some_and(|peer| peer.ifindex == inner)
    });
    Ok(found.map(|(ifindex, link)| HostSide { ifindex, name: link.name, master: link.master }))
}

/// A socket in another network namespace. Not for the agent: while it runs it may enter none.
fn requests_in(namespace: &Path) -> Result<Requests> {
    let file = open_namespace(namespace)?;
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
