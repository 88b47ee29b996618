//! Which veths lead out of the node, not to a pod.
//!
//! A node may itself be a container or a lab's namespace: then its uplink is a veth too, and holding it would cut the
//! node off from the very API server that could tell who is who. But carrying an address does not make a link an
//! uplink: the ptp plug-in puts the gateway's address on every pod's veth, as a /32 or /128, and others a link-local one.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use super::{
    super::Endpoints,
    Candidate, Evidence,
    owners::{Owner, Owners},
};
use crate::endpoints::network::{Link, Network};

/// Veths that are uplinks whatever else speaks for a pod: those with a default route, and those that alone carry an
/// address of the Node object. (If another link carries it as well, the veth only borrows it, as unnumbered links do.)
pub(super) fn certain(evidence: &Evidence<'_>) -> BTreeSet<u32> {
    let veths = evidence.network.links.iter().filter(|(_, link)| link.peer.is_some());
    veths.filter(|(_, link)| leads_out(evidence, link)).map(|(ifindex, _)| *ifindex).collect()
}

/// Veths that nobody claims and that look like uplinks. Weaker than a pod's claim, because pods' veths may look so too:
///
/// * It carries an address with an on-link prefix that no other link carries: a second uplink, or the only one of a node
///   that has neither a default route nor a Node object. A plug-in that gives every pod a subnet of its own with the
///   node in it would look the same until its CNI result is there; no known one does.
/// * It is the port by which a bridge with the default route or the node's address leaves the node: nothing but veths of other namespaces is
///   in the bridge, and of these all but one are claimed. Once found it stays, also while an unknown veth joins.
pub(super) fn probable(
    evidence: &Evidence<'_>,
    candidates: &[Candidate<'_>],
    owners: &Owners<'_>,
    previous: &Endpoints,
) -> BTreeSet<u32> {
    let network = evidence.network;
    let unclaimed = || candidates.iter().filter(|candidate| matches!(owners.of(candidate), Owner::Nobody));
    let numbered = unclaimed().filter(|candidate| has_own_subnet(network, candidate));
    let mut uplinks: BTreeSet<u32> = numbered.map(|candidate| candidate.ifindex).collect();
    for (bridge, _) in network.links.iter().filter(|(_, link)| leads_out(evidence, link)) {
        let mut ports = network.links.values().filter(|link| link.master == *bridge);
        if ports.any(|port| port.peer.is_none()) {
            continue;
        }
        let ports =
            || unclaimed().filter(|candidate| candidate.link.master == *bridge).map(|port| port.ifindex);
        let found: BTreeSet<u32> = ports().filter(|port| previous.uplinks.contains(port)).collect();
        match found.is_empty() {
            true if ports().count() == 1 => uplinks.extend(ports()),
            true => {}
            false => uplinks.extend(found),
        }
    }
    uplinks
}

fn leads_out(evidence: &Evidence<'_>, link: &Link) -> bool {
    let node = evidence.cluster.nodes.get(evidence.node);
    let addresses = node.map(|node| node.addresses.as_slice()).unwrap_or_default();
    link.default_route
        || addresses.iter().any(|address| carriers(evidence.network, address) == 1 && carries(link, address))
}

fn has_own_subnet(network: &Network, candidate: &Candidate<'_>) -> bool {
    candidate.link.addresses.iter().any(|net| {
        net.prefix_len() < net.max_prefix_len() && !is_link_local(net) && carriers(network, &net.addr()) == 1
    })
}

fn carriers(network: &Network, address: &IpAddr) -> usize {
    network.links.values().filter(|link| carries(link, address)).count()
}

fn carries(link: &Link, address: &IpAddr) -> bool {
    link.addresses.iter().any(|net| net.addr() == *address)
}

fn is_link_local(net: &IpNet) -> bool {
    match net.addr() {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}
