//! Which veths lead out of the node, not to a pod.
//!
//! A node may itself be a container or a lab's namespace: then its uplink is a veth too, and holding it would
//! cut the node off from the very API server that could tell who is who. But carrying an address does not
//! make a link an uplink: the ptp plug-in puts the gateway's address on every pod's veth, as a /32 or /128,
//! and others a link-local one.
//!
//! Only what the node's administrator sets is proof. What a node learns from the other end of a link, a pod
//! can say too: a router advertisement makes a default route and an address, and so does DHCP. And nothing
//! makes an uplink of a veth that something speaks for a pod behind, or ever did.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use podgate_datapath::network::{DefaultRoute, Link, Network};

use super::{
    super::Endpoints,
    Candidate, Evidence,
    history::History,
    owners::{InterfaceOwner, PodByInterface},
};

/// Of the veths that no one claims, those that are uplinks:
///
/// * It has a default route that was set, or alone carries an address of the Node object. (If another link
///   carries it as well, the veth only borrows it, as unnumbered links do.)
/// * It has a default route that was learned, the Node object has no address to compare, and the veth was
///   there when the first agent of this node came: containers as nodes often get all they have by DHCP.
/// * It carries an address that was set, with an on-link prefix, that no other link carries: a second uplink,
///   or the only one of a node that has neither a default route nor a Node object. A plug-in that gives every
///   pod a subnet of its own with the node in it would look the same until its CNI result is there; no known
///   one does.
/// * It is the port by which a bridge with a default route that was set, or with the node's address, leaves
///   the node: nothing but veths of other namespaces is in the bridge, and of these all but one are claimed.
///   Once found it stays, also while an unknown veth joins.
pub(super) fn find(
    evidence: &Evidence<'_>,
    candidates: &[Candidate<'_>],
    owners: &PodByInterface<'_>,
    previous: &Endpoints,
    history: &History,
) -> BTreeSet<u32> {
    let network = evidence.network;
    let unclaimed = || {
        candidates.iter().filter(|candidate| {
            matches!(owners.of(candidate), InterfaceOwner::Unclaimed) && !history.was_a_pods(candidate)
        })
    };
    let by_itself = unclaimed().filter(|candidate| {
        leads_out(evidence, candidate.link)
            || has_own_subnet(network, candidate)
            || (candidate.link.default_route == DefaultRoute::Learned
                && node_addresses(evidence).is_empty()
                && history.was_first(candidate))
    });
    let mut uplinks: BTreeSet<u32> = by_itself.map(|candidate| candidate.ifindex).collect();
    for (bridge, _) in network.links.iter().filter(|(_, link)| leads_out(evidence, link)) {
        let mut ports = network.links.values().filter(|link| link.master == *bridge);
        if ports.any(|port| port.peer.is_none()) {
            continue;
        }
        let ports = || unclaimed().filter(|candidate| candidate.link.master == *bridge);
        let stays =
            |port: &&Candidate<'_>| previous.uplinks.contains(&port.ifindex) && previous.history.knows(port);
        let found: BTreeSet<u32> = ports().filter(stays).map(|port| port.ifindex).collect();
        if !found.is_empty() {
            uplinks.extend(found);
        } else if ports().count() == 1 {
            uplinks.extend(ports().map(|port| port.ifindex));
        }
    }
    uplinks
}

fn leads_out(evidence: &Evidence<'_>, link: &Link) -> bool {
    let carries_alone = |address: &IpAddr| carries(link, address) && carriers(evidence.network, address) == 1;
    link.default_route == DefaultRoute::Set || node_addresses(evidence).iter().any(carries_alone)
}

/// Those of the Node object.
fn node_addresses<'a>(evidence: &Evidence<'a>) -> &'a [IpAddr] {
    evidence.cluster.nodes.get(evidence.node).map(|node| node.addresses.as_slice()).unwrap_or_default()
}

fn has_own_subnet(network: &Network, candidate: &Candidate<'_>) -> bool {
    let Link { addresses, learned_addresses, .. } = candidate.link;
    addresses.iter().any(|net| {
        net.prefix_len() < net.max_prefix_len()
            && !is_link_local(net)
            && !learned_addresses.contains(&net.addr())
            && carriers(network, &net.addr()) == 1
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
