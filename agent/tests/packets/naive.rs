//! What the policies of a cluster say of a connection, by walking over them: no classes, no identities, no tables.

use std::net::IpAddr;

use podgate::model::{Cluster, NetworkPolicy, Peer, Peers, Pod, PortRule, Ports, Rule};
use podgate_common::{Direction, Protocol};

/// The pods' end of a connection, and the other one. `protocol` is `None` for one without ports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) subject: &'a Pod,
    pub(crate) direction: Direction,
    pub(crate) peer: IpAddr,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) port: u16,
}

/// Whether a policy isolates the pod in this direction.
pub(crate) fn isolates(cluster: &Cluster, pod: &Pod, direction: Direction) -> bool {
    rules_of(cluster, pod, direction).next().is_some()
}

/// Whether the pod's side of the connection is allowed.
pub(crate) fn allows(cluster: &Cluster, asked: Asked<'_>) -> bool {
    let mut rules = rules_of(cluster, asked.subject, asked.direction).peekable();
    rules.peek().is_none()
        || rules.any(|(policy, rules)| rules.iter().any(|rule| holds(cluster, policy, rule, asked)))
}

/// The policies that isolate a pod in a direction, with their rules for it.
fn rules_of<'a>(
    cluster: &'a Cluster,
    pod: &Pod,
    direction: Direction,
) -> impl Iterator<Item = (&'a NetworkPolicy, &'a Vec<Rule>)> {
    cluster
        .policies
        .values()
        .filter(|policy| policy.name.namespace == pod.name.namespace && policy.subject.matches(&pod.labels))
        .filter_map(move |policy| {
            let rules = match direction {
                Direction::Ingress => &policy.ingress,
                Direction::Egress => &policy.egress,
            };
            Some((policy, rules.as_ref()?))
        })
}

fn holds(cluster: &Cluster, policy: &NetworkPolicy, rule: &Rule, asked: Asked<'_>) -> bool {
    let peer = match &rule.peers {
        Peers::Any => true,
        Peers::Listed(peers) => peers.iter().any(|peer| is_peer(cluster, policy, peer, asked.peer)),
    };
    let port = match (&rule.ports, asked.protocol) {
        (Ports::Any, _) => true,
        (Ports::Listed(_), None) => false,
        (Ports::Listed(ports), Some(protocol)) => {
            ports.iter().any(|port| is_port(cluster, port, asked, protocol))
        }
    };
    peer && port
}

fn is_peer(cluster: &Cluster, policy: &NetworkPolicy, peer: &Peer, address: IpAddr) -> bool {
    match peer {
        Peer::Nothing => false,
        Peer::Block(block) => {
            block.cidr.contains(&address) && !block.except.iter().any(|except| except.contains(&address))
        }
        Peer::Pods { namespaces, pods } => pods_at(cluster, address).any(|pod| {
            let namespace = match namespaces {
                None => pod.name.namespace == policy.name.namespace,
                Some(selector) => selector.matches(&cluster.namespace_labels(&pod.name.namespace)),
            };
            namespace && pods.matches(&pod.labels)
        }),
    }
}

fn is_port(cluster: &Cluster, port: &PortRule, asked: Asked<'_>, protocol: Protocol) -> bool {
    match port {
        PortRule::Nothing => false,
        PortRule::Protocol(wanted) => *wanted == protocol,
        PortRule::Range { protocol: wanted, first, last } => {
            *wanted == protocol && (*first..=*last).contains(&asked.port)
        }
        PortRule::Named(wanted, name) => {
            let has_it = |pod: &Pod| {
                let mut ports = pod.ports.iter();
                ports.any(|port| port.name == *name && port.protocol == *wanted && port.number == asked.port)
            };
            *wanted == protocol
                && match asked.direction {
                    Direction::Ingress => has_it(asked.subject),
                    Direction::Egress => pods_at(cluster, asked.peer).any(has_it),
                }
        }
    }
}

fn pods_at(cluster: &Cluster, address: IpAddr) -> impl Iterator<Item = &Pod> {
    cluster.pods.values().filter(move |pod| !pod.host_network && pod.addresses.contains(&address))
}
