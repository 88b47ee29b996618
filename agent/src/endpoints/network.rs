//! What one look at the node's network namespace shows: links, addresses, default routes, and what sits at the other
//! end of each veth.
//!
//! Filled by `netlink`, read by `resolve`. Ordered maps only, so that two equal looks compare equal. Left out:
//! everything that does not help to tell which veth is which pod (state, MTU, MAC, other routes).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::model::Name;

/// A full picture of the node's network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// By ifindex.
    pub links: BTreeMap<u32, Link>,
}

/// One link of the node's own namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub name: Name,
    /// How many links were seen to lose this ifindex before. Another number: another device, though all else agree.
    pub generation: u32,
    /// Ifindex of the bridge (or bond, or VRF) that the link is a port of, 0 if none.
    pub master: u32,
    /// The node's addresses on this link, with the length of their on-link prefix.
    pub addresses: BTreeSet<IpNet>,
    /// Whether a default route of the main table, IPv4 or IPv6, leaves here.
    pub default_route: bool,
    /// Of a veth whose other end is in another network namespace: that end.
    pub peer: Option<Peer>,
}

/// The far end of a veth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The id that the node's namespace has for the namespace of this end; negative if the kernel could not give one.
    pub namespace: i32,
    /// Its ifindex in there.
    pub ifindex: u32,
    /// Its addresses in there. Whoever rules that namespace chooses them: evidence, never proof.
    pub addresses: BTreeSet<IpAddr>,
}

impl Network {
    /// Every address of every link.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.links.values().flat_map(|link| &link.addresses).map(IpNet::addr)
    }
}
