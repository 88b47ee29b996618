//! What the policies of a cluster say of a connection, by walking over them: no classes, no identities, no
//! tables.

use std::{net::IpAddr, sync::Arc};

use podgate_common::{Direction, RuleProtocol};
use podgate_core::model::{
    Action, Cluster, ClusterNetworkPolicy, ClusterRule, ClusterSubject, Name, NamedPort, NetworkPolicy,
    ObjectName, Peer, Peers, Pod, PortRule, Ports, Rule, Tier,
};

use crate::world::Learnt;

/// The pods' end of a connection, and the other one. `port` is a place of the protocol.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query<'a> {
    pub(crate) subject: &'a Pod,
    pub(crate) direction: Direction,
    pub(crate) peer: IpAddr,
    pub(crate) protocol: RuleProtocol,
    pub(crate) port: u16,
    /// The peer is the node that the pod runs on.
    pub(crate) own_node: bool,
    /// What pods have learnt, where that counts.
    pub(crate) learnt: &'a [Learnt],
}

/// Whether some policy has a say in this direction, so that what is not understood is dropped.
pub(crate) fn isolates(cluster: &Cluster, pod: &Pod, direction: Direction) -> bool {
    let pods = || cluster.pods.values().filter(|pod| !pod.host_network);
    let named_ports = || pods().flat_map(|pod| &*pod.ports);
    let can_match = |rule: &ClusterRule| {
        let has_port = |port: &PortRule| match port {
            PortRule::Named(protocol, name) => {
                let is_meant = |port: &NamedPort| {
                    port.name == *name && protocol.is_none_or(|wanted| wanted == port.protocol)
                };
                match direction {
                    Direction::Ingress => pod.ports.iter().any(is_meant),
                    Direction::Egress => named_ports().any(is_meant),
                }
            }
            PortRule::Nothing => false,
            PortRule::Protocol(_) | PortRule::Range { .. } | PortRule::Number(_) | PortRule::Icmp { .. } => {
                true
            }
        };
        let has_port = match &rule.matches.ports {
            Ports::Any => true,
            Ports::Listed(ports) => ports.iter().any(has_port),
            Ports::Except { .. } => panic!("{OF_CALICO}"),
        };
        let has_peer = match &rule.matches.peers {
            Peers::Any => true,
            Peers::Listed(peers) => peers.iter().any(|peer| *peer != Peer::Nothing),
            Peers::Calico(_) => panic!("{OF_CALICO}"),
        };
        has_port && has_peer
    };
    rules_of(cluster, pod, direction).next().is_some()
        || [Tier::Admin, Tier::Baseline]
            .into_iter()
            .any(|tier| tier_rules(cluster, pod, tier, direction).any(can_match))
}

/// Whether the same policies are for a pod in both clusters, which have the same policies.
pub(crate) fn has_equal_verdict(one: &Cluster, other: &Cluster, pod: &ObjectName) -> bool {
    let names = |cluster: &Cluster| {
        let pod = &cluster.pods[pod];
        let policies = Direction::ALL.map(|direction| {
            rules_of(cluster, pod, direction).map(|(policy, _)| policy.name.clone()).collect::<Vec<_>>()
        });
        let tiers = [Tier::Admin, Tier::Baseline].map(|tier| {
            tier_policies(cluster, pod, tier).iter().map(|policy| policy.name.clone()).collect::<Vec<_>>()
        });
        (policies, tiers)
    };
    names(one) == names(other)
}

/// The cluster as if nothing in it were in audit mode.
pub(crate) fn without_audit(cluster: &Cluster) -> Cluster {
    let mut cluster = cluster.clone();
    for namespace in cluster.namespaces.clone().keys() {
        Arc::make_mut(&mut cluster.namespaces[namespace]).audit = false;
    }
    for policy in cluster.policies.clone().keys() {
        Arc::make_mut(&mut cluster.policies[policy]).audit = false;
    }
    for policy in cluster.cluster_policies.clone().keys() {
        Arc::make_mut(&mut cluster.cluster_policies[policy]).audit = false;
    }
    cluster
}

/// The generated clusters of these tests have none.
const OF_CALICO: &str = "a rule of Calico's";

/// Whether the pod's side of the connection is allowed.
pub(crate) fn allows(cluster: &Cluster, query: Query<'_>) -> bool {
    if let Some(verdict) = tier_verdict(cluster, query, Tier::Admin) {
        return verdict;
    }
    let mut rules = rules_of(cluster, query.subject, query.direction).peekable();
    if rules.peek().is_none() {
        return tier_verdict(cluster, query, Tier::Baseline).unwrap_or(true);
    }
    query.own_node
        || rules.any(|(policy, rules)| {
            rules.iter().any(|rule| holds(cluster, Some(&policy.name.namespace), rule, query))
        })
}

/// What the first rule that matches says; `None`: the tier leaves it to the next.
fn tier_verdict(cluster: &Cluster, query: Query<'_>, tier: Tier) -> Option<bool> {
    let mut rules = tier_rules(cluster, query.subject, tier, query.direction);
    match rules.find(|rule| holds(cluster, None, &rule.matches, query))?.action {
        Action::Accept => Some(true),
        Action::Deny => Some(false),
        Action::Pass | Action::Log => None,
    }
}

/// All rules of a tier for a pod, the first one first.
fn tier_rules<'a>(
    cluster: &'a Cluster,
    pod: &Pod,
    tier: Tier,
    direction: Direction,
) -> impl Iterator<Item = &'a ClusterRule> + use<'a> {
    tier_policies(cluster, pod, tier).into_iter().flat_map(move |policy| match direction {
        Direction::Ingress => &policy.ingress,
        Direction::Egress => &policy.egress,
    })
}

/// The policies of a tier for a pod, the first one first.
fn tier_policies<'a>(cluster: &'a Cluster, pod: &Pod, tier: Tier) -> Vec<&'a ClusterNetworkPolicy> {
    let namespace = cluster.namespace_labels(&pod.name.namespace);
    let is_for = |policy: &&ClusterNetworkPolicy| {
        let ClusterSubject { namespaces, pods } = &policy.subject;
        !policy.audit && policy.tier == tier && namespaces.matches(&namespace) && pods.matches(&pod.labels)
    };
    let mut policies: Vec<_> = cluster.cluster_policies.values().map(Arc::as_ref).filter(is_for).collect();
    policies.sort_by_key(|policy| (policy.priority, policy.name.clone()));
    policies
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
        .map(Arc::as_ref)
        .filter(|policy| {
            let whole_namespace = &cluster.namespaces[&policy.name.namespace];
            !policy.audit
                && !whole_namespace.audit
                && policy.name.namespace == pod.name.namespace
                && policy.subject.matches(&pod.labels)
        })
        .filter_map(move |policy| {
            let rules = match direction {
                Direction::Ingress => &policy.ingress,
                Direction::Egress => &policy.egress,
            };
            Some((policy, rules.as_ref()?))
        })
}

fn holds(cluster: &Cluster, own: Option<&Name>, rule: &Rule, query: Query<'_>) -> bool {
    let peer = match &rule.peers {
        Peers::Any => true,
        Peers::Listed(peers) => peers.iter().any(|peer| is_peer(cluster, own, peer, query)),
        Peers::Calico(_) => panic!("{OF_CALICO}"),
    };
    let port = match &rule.ports {
        Ports::Any => true,
        Ports::Except { .. } => panic!("{OF_CALICO}"),
        Ports::Listed(ports) => ports.iter().any(|port| is_port(cluster, port, query)),
    };
    peer && port
}

fn is_peer(cluster: &Cluster, own: Option<&Name>, peer: &Peer, query: Query<'_>) -> bool {
    let address = query.peer;
    match peer {
        Peer::Nothing => false,
        // The addresses of nodes are no name's.
        Peer::Name(pattern) => {
            let is_node = cluster.nodes.values().any(|node| node.addresses.contains(&address));
            let is_its = |learnt: &Learnt| {
                learnt.pod.name() == query.subject.name
                    && learnt.address == address
                    && pattern.matches(learnt.name)
            };
            query.direction == Direction::Egress && !is_node && query.learnt.iter().any(is_its)
        }
        Peer::Nodes(labels) => {
            let mut nodes = cluster.nodes.values();
            nodes.any(|node| labels.matches(&node.labels) && node.addresses.contains(&address))
        }
        Peer::Block(block) => {
            block.cidr.contains(&address) && !block.except.iter().any(|except| except.contains(&address))
        }
        Peer::Pods { namespaces, pods } => pods_at(cluster, address).any(|pod| {
            let namespace = match namespaces {
                None => Some(&pod.name.namespace) == own,
                Some(selector) => selector.matches(&cluster.namespace_labels(&pod.name.namespace)),
            };
            namespace && pods.matches(&pod.labels)
        }),
    }
}

fn is_port(cluster: &Cluster, port: &PortRule, query: Query<'_>) -> bool {
    let protocol = query.protocol;
    match port {
        PortRule::Nothing => false,
        PortRule::Protocol(wanted) => *wanted == protocol,
        PortRule::Range { protocol: wanted, first, last } => {
            *wanted == protocol && (*first..=*last).contains(&query.port)
        }
        PortRule::Number(wanted) => protocol.number(query.port) == u32::from(*wanted),
        PortRule::Icmp { protocol: wanted, kind, code } => {
            let [asked_kind, asked_code] = query.port.to_be_bytes();
            *wanted == protocol && *kind == asked_kind && code.is_none_or(|code| code == asked_code)
        }
        PortRule::Named(wanted, name) => {
            let has_it = |pod: &Pod| {
                let mut ports = pod.ports.iter();
                ports.any(|port| port.name == *name && port.protocol == protocol && port.number == query.port)
            };
            wanted.is_none_or(|wanted| wanted == protocol)
                && match query.direction {
                    Direction::Ingress => has_it(query.subject),
                    Direction::Egress => pods_at(cluster, query.peer).any(has_it),
                }
        }
    }
}

fn pods_at(cluster: &Cluster, address: IpAddr) -> impl Iterator<Item = &Pod> {
    cluster
        .pods
        .values()
        .map(Arc::as_ref)
        .filter(move |pod| !pod.host_network && pod.addresses.contains(&address))
}
