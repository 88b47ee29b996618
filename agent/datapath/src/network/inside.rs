//! What kind of device a pod has in its own network namespace: why no veth of the node is its.
//!
//! In: the namespace, as CNI results name it, and the pod's addresses. Out: the kernel's word for the device,
//! as in `macvlan`; empty for one that is no virtual device. The node's namespace is asked about the other
//! one by its id: a running agent may not enter any.

use std::{collections::BTreeSet, net::IpAddr, path::Path};

use anyhow::{Context as _, Result};
use netlink_packet_core::parse_i32;
use netlink_packet_route::link::LinkHeader;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::read::{
    IFLA_TARGET_NETNSID, LINK_HEADER, address, addresses_request, attributes, information_kind, links_request,
};
use crate::netlink::{Requests, namespace::open_namespace};

/// The kind of the device that carries one of these addresses; `None`: no device does.
///
/// # Errors
///
/// When the namespace cannot be opened or read (needs CAP_NET_ADMIN over it).
pub fn device_kind(namespace: &Path, addresses: &BTreeSet<IpAddr>) -> Result<Option<String>> {
    let file = open_namespace(namespace)?;
    let mut requests = Requests::open(NETLINK_ROUTE).context("cannot open an rtnetlink socket")?;
    let id = requests.given_id_of(&file);
    let id = id.with_context(|| format!("{} gets no id in the node's namespace", namespace.display()))?;
    let found = requests.dump(addresses_request(Some(id)), |payload| address(payload, Some(id)));
    let found = found.context("cannot list its addresses")?;
    let Some(found) = found.into_iter().find(|found| addresses.contains(&found.address.addr())) else {
        return Ok(None);
    };
    let kinds = requests.dump(links_request(Some(id)), |payload| {
        let ifindex = LinkHeader::parse(payload).ok()?.index;
        let (mut is_there, mut kind) = (false, None);
        for attribute in attributes(payload, LINK_HEADER) {
            match attribute.kind() {
                IFLA_TARGET_NETNSID => is_there = parse_i32(attribute.value()).ok()? == id,
                libc::IFLA_LINKINFO => kind = information_kind(attribute.value()),
                _ => {}
            }
        }
        // A kernel that does not understand the question answers for the node.
        is_there.then(|| (ifindex, kind.unwrap_or_default()))
    });
    let kinds = kinds.context("cannot list its links")?;
    Ok(kinds.into_iter().find(|(ifindex, _)| *ifindex == found.ifindex).map(|(_, kind)| kind))
}
