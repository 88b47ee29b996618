//! Whether one of a rule's peers matches, and why not: in the words of a policy's author.

use std::{collections::BTreeSet, net::IpAddr};

use podgate_common::Direction;

use super::end::Party;
use crate::model::{Cluster, IpBlock, Labels, Name, Peer, Peers, Requirement, Selector};

/// One line for each peer when none matches; empty when one does, or when the rule names none.
pub(super) fn misses(
    cluster: &Cluster,
    policy_namespace: Option<&Name>,
    peers: &Peers,
    direction: Direction,
    party: &Party<'_>,
    address: IpAddr,
) -> Vec<String> {
    let Peers::Listed(peers) = peers else { return Vec::new() };
    let field = match direction {
        Direction::Egress => "to",
        Direction::Ingress => "from",
    };
    let mut misses = Vec::with_capacity(peers.len());
    for (index, peer) in peers.iter().enumerate() {
        let miss = match peer {
            Peer::Pods { namespaces, pods } => {
                pods_miss(cluster, policy_namespace, namespaces.as_ref(), pods, party)
            }
            Peer::Block(block) => block_miss(block, address),
            Peer::Nodes(nodes) => node_miss(cluster, nodes, address),
            Peer::Nothing => Some("was not understood, matches nothing".into()),
        };
        match miss {
            None => return Vec::new(),
            Some(miss) => misses.push(format!("{field}[{index}] {miss}")),
        }
    }
    if misses.is_empty() {
        misses.push(format!("{field} has no entry that was understood"));
    }
    misses
}

fn pods_miss(
    cluster: &Cluster,
    policy_namespace: Option<&Name>,
    namespaces: Option<&Selector>,
    pods: &Selector,
    party: &Party<'_>,
) -> Option<String> {
    let name = party.name;
    let Some(pod) = party.policed() else {
        let why =
            if party.is_host_pod() { "is on the host network and counts as its node" } else { "is none" };
        return Some(format!("wants a pod, {name} {why}"));
    };
    let namespace = &pod.name.namespace;
    match namespaces {
        None if Some(namespace) == policy_namespace => {}
        None => {
            let wanted = policy_namespace.map_or("no namespace", |name| name);
            return Some(format!("wants a pod of namespace {wanted}, {name} is in {namespace}"));
        }
        Some(selector) => {
            let labels = cluster.namespace_labels(namespace);
            if let Some(miss) = selector_miss(selector, &labels) {
                return Some(format!(
                    "wants {} on the namespace, {namespace} has {}",
                    miss.wanted, miss.found
                ));
            }
        }
    }
    let miss = selector_miss(pods, &pod.labels)?;
    Some(format!("wants {} on the pod, {name} has {}", miss.wanted, miss.found))
}

fn block_miss(block: &IpBlock, address: IpAddr) -> Option<String> {
    if !block.cidr.contains(&address) {
        return Some(format!("wants {}, {address} is outside", block.cidr));
    }
    let except = block.except.iter().find(|except| except.contains(&address))?;
    Some(format!("wants {} except {except}, {address} is in the except", block.cidr))
}

fn node_miss(cluster: &Cluster, nodes: &Selector, address: IpAddr) -> Option<String> {
    let with_address = cluster.nodes.iter().filter(|(_, node)| node.addresses.contains(&address));
    let mut misses = Vec::new();
    for (name, node) in with_address {
        let miss = selector_miss(nodes, &node.labels)?;
        misses.push(format!("wants {} on the node, {name} has {}", miss.wanted, miss.found));
    }
    Some(misses.pop().unwrap_or_else(|| format!("wants a node, {address} is none's")))
}

/// The first requirement that labels do not meet.
struct LabelMiss {
    wanted: String,
    found: String,
}

fn selector_miss(selector: &Selector, labels: &Labels) -> Option<LabelMiss> {
    let requirements = match selector {
        Selector::All(requirements) => requirements,
        Selector::Nothing => {
            return Some(LabelMiss {
                wanted: "labels that were not understood".into(),
                found: "none of them".into(),
            });
        }
    };
    let requirement = requirements.iter().find(|requirement| !requirement.holds(labels))?;
    let (Requirement::In(key, _)
    | Requirement::NotIn(key, _)
    | Requirement::Exists(key)
    | Requirement::DoesNotExist(key)) = requirement;
    let found = labels.get(key).map_or_else(|| format!("no {key}"), |value| format!("{key}={value}"));
    Some(LabelMiss { wanted: wanted(requirement), found })
}

/// As `kubectl get -l` writes it.
fn wanted(requirement: &Requirement) -> String {
    let list = |values: &BTreeSet<Name>| values.iter().map(|value| &**value).collect::<Vec<_>>().join(", ");
    match requirement {
        Requirement::In(key, values) if values.len() == 1 => format!("{key}={}", list(values)),
        Requirement::In(key, values) => format!("{key} in ({})", list(values)),
        Requirement::NotIn(key, values) => format!("{key} notin ({})", list(values)),
        Requirement::Exists(key) => key.to_string(),
        Requirement::DoesNotExist(key) => format!("!{key}"),
    }
}
