//! The naive evaluator: NetworkPolicy (networking.k8s.io/v1), ClusterNetworkPolicy
//! (policy.networking.k8s.io/v1alpha2), Calico's policies, and those of AWS and GKE with names, sentence by
//! sentence, on raw Kubernetes JSON.
//!
//! In: objects as a user writes them, with defaults omitted. Out: a verdict, or the matrix of all pods.
//! Clear and slow on purpose. Quoted sentences are those of the API documentation (`networking/v1/types.go`,
//! `meta/v1/types.go`) and of the Network Policies page of the Kubernetes documentation.
//! Left out: connections that exist already and replies; a verdict is about a new connection.

mod calico;
#[cfg(test)]
mod checklist;
mod cidr;
mod cluster_policy;
mod matrix;
mod names;
mod object;
mod policy;
mod selector;
mod service;

use std::net::IpAddr;

use serde_json::Value;

pub use matrix::matrix;
pub use names::learnt;
pub(crate) use object::asked_number;
use object::{addresses, is_alive, namespace_of, node_of, on_host_network};
use policy::{isolates, rule_allows, rules, selects};
pub use service::{Destination, backends, destinations};

/// Who opens a connection, or to whom it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResolvedEndpoint {
    Pod {
        namespace: String,
        name: String,
    },
    /// At its cluster addresses. Only a destination.
    Service {
        namespace: String,
        name: String,
    },
    /// A process of the node itself.
    Node(String),
    Address(IpAddr),
}

/// A new connection between two addresses of one family.
struct Connection<'a> {
    source: EndpointRef<'a>,
    destination: EndpointRef<'a>,
    /// As the API writes it: `TCP`, `UDP`, `SCTP`; `ICMP`, `ICMPv6`; `IP` for any other protocol.
    protocol: &'a str,
    /// Of the destination; else type times 256, and code, or the number of the protocol.
    port: u16,
}

#[derive(Clone, Copy)]
struct EndpointRef<'a> {
    address: IpAddr,
    /// The pod that has this address. Never one on the host network.
    pod: Option<&'a Value>,
    /// The node whose own address or process this is.
    node: Option<&'a str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Ingress,
    Egress,
}

/// May `from` open a connection to `to`? Several addresses: every pair of one family must be allowed. Two
/// parties without a family in common do not reach each other. Through a service: every endpoint that may be
/// chosen must be allowed, and there must be one.
///
/// Panics when a party is not among the objects.
pub fn allowed(
    objects: &[Value],
    from: &ResolvedEndpoint,
    to: &ResolvedEndpoint,
    protocol: &str,
    port: u16,
) -> bool {
    if let Some(verdict) = service::allowed(objects, from, to, protocol, port) {
        return verdict;
    }
    let sources = ends(objects, from);
    let mut destinations = ends(objects, to);
    // A packet *to* a node's address ends at that node. A packet *from* it proves nothing: the address may be
    // forged, or stand for a masqueraded client.
    for end in &mut destinations {
        end.node = end.node.or_else(|| object::node_with(objects, &end.address));
    }
    every_pair_allowed(objects, &sources, &destinations, protocol, port)
}

fn every_pair_allowed(
    objects: &[Value],
    sources: &[EndpointRef<'_>],
    destinations: &[EndpointRef<'_>],
    protocol: &str,
    port: u16,
) -> bool {
    // Each version of IP has an ICMP of its own.
    let is_of_protocol = |end: &EndpointRef<'_>| match protocol {
        "ICMP" => end.address.is_ipv4(),
        "ICMPv6" => end.address.is_ipv6(),
        _ => true,
    };
    let mut pairs = pairs(sources, destinations).filter(|(source, _)| is_of_protocol(source)).peekable();
    pairs.peek().is_some()
        && pairs.all(|(source, destination)| {
            connection_allowed(objects, &Connection { source, destination, protocol, port })
        })
}

/// "For a connection from a source pod to a destination pod to be allowed, both the egress policy on the
/// source pod and the ingress policy on the destination pod need to allow the connection."
fn connection_allowed(objects: &[Value], connection: &Connection<'_>) -> bool {
    is_to_itself(connection)
        || direction_allowed(objects, Direction::Egress, connection)
            && direction_allowed(objects, Direction::Ingress, connection)
}

/// "A Pod cannot block access to itself."
fn is_to_itself(connection: &Connection<'_>) -> bool {
    matches!((connection.source.pod, connection.destination.pod), (Some(from), Some(to)) if std::ptr::eq(from, to))
}

fn direction_allowed(objects: &[Value], direction: Direction, connection: &Connection<'_>) -> bool {
    let (subject, peer) = match direction {
        Direction::Egress => (connection.source, connection.destination),
        Direction::Ingress => (connection.destination, connection.source),
    };
    // Only pods are isolated, and nodes by host endpoints: nothing outside of the cluster.
    let Some(pod) = subject.pod else {
        let node_at = |address| object::node_with(objects, address);
        let Some(node) = subject.node.or_else(|| node_at(&subject.address)) else { return true };
        // Traffic between a node and its own pods passes none of its devices.
        let peers_node = peer.pod.map_or_else(|| peer.node.or_else(|| node_at(&peer.address)), node_of);
        return peers_node == Some(node)
            || calico::allowed_at_host(objects, direction, (node, subject.address), peer, connection);
    };
    // "Traffic to and from the node where a Pod is running is always allowed, regardless of the IP address of
    // the Pod or the node." That is said of NetworkPolicies; peers of a ClusterNetworkPolicy's ingress are
    // pods alone.
    let is_own_node = peer.node.is_some() && peer.node == node_of(pod);
    if is_own_node && direction == Direction::Ingress {
        return true;
    }
    if calico::is_used(objects) {
        return calico::allowed(objects, direction, pod, peer, connection, is_own_node);
    }
    // "If Admin tier has made a final decision (Accept or Deny) on a connection, then no further evaluation
    // is done."
    if let Some(verdict) = cluster_policy::verdict(objects, "Admin", direction, pod, peer, connection) {
        return verdict;
    }
    let mut enforced_policies_selecting = object::policies(objects)
        .filter(|policy| selects(policy, pod) && isolates(policy, direction))
        .peekable();
    // "By default, a pod is non-isolated for ingress; all inbound connections are allowed. A pod is isolated
    // for ingress if there is any NetworkPolicy that both selects the pod and has "Ingress" in its
    // policyTypes." The same words stand there for egress. "NetworkPolicy always makes a final decision for
    // selected pods. Further evaluation only happens for Pods not selected by a NetworkPolicy. ... If a given
    // connection wasn't allowed or denied by any of the tiers, the default kubernetes policy is applied,
    // which says that all pods can communicate with each other."
    if enforced_policies_selecting.peek().is_none() {
        return cluster_policy::verdict(objects, "Baseline", direction, pod, peer, connection)
            .unwrap_or(true);
    }
    if is_own_node {
        return true;
    }
    // "Network policies do not conflict; they are additive. If any policy or policies apply to a given pod
    // for a given direction, the connections allowed in that direction from that pod is the union of what the
    // applicable policies allow. Thus, order of evaluation does not affect the policy result."
    enforced_policies_selecting.any(|policy| {
        rules(policy, direction)
            .iter()
            .any(|rule| rule_allows(objects, namespace_of(policy), rule, direction, peer, connection))
    })
}

/// All pairs of one family: IPv4 does not talk to IPv6.
fn pairs<'a>(
    sources: &[EndpointRef<'a>],
    destinations: &[EndpointRef<'a>],
) -> impl Iterator<Item = (EndpointRef<'a>, EndpointRef<'a>)> {
    sources.iter().flat_map(move |source| {
        destinations
            .iter()
            .filter(|destination| destination.address.is_ipv4() == source.address.is_ipv4())
            .map(|destination| (*source, *destination))
    })
}

fn ends<'a>(objects: &'a [Value], party: &'a ResolvedEndpoint) -> Vec<EndpointRef<'a>> {
    match party {
        ResolvedEndpoint::Pod { namespace, name } => pod_ends(object::pod(objects, namespace, name)),
        ResolvedEndpoint::Service { .. } => panic!("a service opens no connection: {party:?}"),
        ResolvedEndpoint::Node(name) => object::node_addresses(objects, name)
            .into_iter()
            .map(|address| EndpointRef { address, pod: None, node: Some(name) })
            .collect(),
        ResolvedEndpoint::Address(address) => {
            let pod = object::pods(objects)
                .find(|pod| is_alive(pod) && !on_host_network(pod) && addresses(pod).contains(address));
            vec![EndpointRef { address: *address, pod, node: None }]
        }
    }
}

/// The addresses of a pod.
///
/// "NetworkPolicy behaviour for hostNetwork pods is undefined"; the common case of the two that the page
/// names: "hostNetwork pod traffic is ignored when matching podSelector and namespaceSelector ... Traffic
/// to/from hostNetwork pods is treated the same as all other traffic to/from the node IP."
fn pod_ends(pod: &Value) -> Vec<EndpointRef<'_>> {
    let host = on_host_network(pod);
    addresses(pod)
        .into_iter()
        .map(|address| EndpointRef {
            address,
            pod: (!host).then_some(pod),
            node: if host { node_of(pod) } else { None },
        })
        .collect()
}
