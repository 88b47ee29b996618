//! What one look at the node's network namespace shows: links, addresses, default routes, and what sits at
//! the other end of each veth.
//!
//! Filled by [`NetworkWatch`] through rtnetlink. Ordered maps only, so that two equal looks compare equal.
//! Left out: everything that does not help to tell which veth is which pod (state, MTU, other routes, and the
//! MAC, which a pod may change).

mod host_side;
mod inside;
mod read;
mod socket;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use podgate_core::model::Name;

pub use self::{
    host_side::{HostSide, host_side},
    inside::device_kind,
    watch::NetworkWatch,
};

/// A full picture of the node's network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// By ifindex.
    pub links: BTreeMap<u32, Link>,
}

/// One link of the node's own namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The interface's name.
    pub name: Name,
    /// How many links were seen to lose this ifindex before. Another number: another device, though all else
    /// agree.
    pub generation: u32,
    /// Ifindex of the bridge (or bond, or VRF) that the link is a port of, 0 if none.
    pub master: u32,
    /// The node's addresses on this link, with the length of their on-link prefix.
    pub addresses: BTreeSet<IpNet>,
    /// Those of them that were learned from whoever is at the other end of the link, by a router
    /// advertisement or DHCP: they expire.
    pub learned_addresses: BTreeSet<IpAddr>,
    /// Of the default routes of the main table, IPv4 and IPv6, that leave here: the strongest.
    pub default_route: DefaultRoute,
    /// Packets on it begin with their IP header, without a link header before it: a tunnel, PPP.
    pub bare_ip: bool,
    /// The UDP port at which it takes encapsulated packets, of a tunnel that has one.
    pub tunnel_port: Option<u16>,
    /// Of a veth whose other end is in another network namespace: that end.
    pub peer: Option<VethPeer>,
}

/// Where a link's default route comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum DefaultRoute {
    /// No default route leaves here.
    #[default]
    None,
    /// From whoever is at the other end, by a router advertisement or DHCP. A pod can send these too.
    Learned,
    /// From the node's administrator, or from a routing protocol that the administrator runs.
    Set,
}

/// The far end of a veth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VethPeer {
    /// The id that the node's namespace has for the namespace of this end; negative if the kernel could not
    /// give one.
    pub namespace: i32,
    /// Its ifindex in there.
    pub ifindex: u32,
    /// Its addresses in there. Whoever rules that namespace chooses them: evidence, never proof.
    pub addresses: BTreeSet<IpAddr>,
}
