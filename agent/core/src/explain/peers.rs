//! What each of a rule's peers says of an address, and which pods a policy is for: in the words of a policy's
//! author.

use std::{collections::BTreeSet, net::IpAddr};

use podgate_common::Direction;

use super::{EntryTrace, end::ResolvedEndpoint};
use crate::model::{
    Cluster, ClusterNetworkPolicy, IpBlock, Labels, Name, NetworkPolicy, Peer, Peers, Requirement, Selector,
};

/// What an entry wants and what was found: `Ok` when it matches.
type PeerMatch = Result<String, String>;

/// One for each peer; a single one for the list when there are no peers.
pub(super) fn entries(
    cluster: &Cluster,
    policy_namespace: Option<&Name>,
    peers: &Peers,
    direction: Direction,
    resolved: &ResolvedEndpoint<'_>,
    address: IpAddr,
) -> Vec<EntryTrace> {
    let field = match direction {
        Direction::Egress => "to",
        Direction::Ingress => "from",
    };
    let peers = match peers {
        Peers::Any => return vec![EntryTrace::of(field, Ok("names nobody, so everybody matches".into()))],
        Peers::Listed(peers) if peers.is_empty() => {
            return vec![EntryTrace::of(field, Err("has no entry that was understood".into()))];
        }
        Peers::Listed(peers) => peers,
    };
    let outcome = |peer: &Peer| match peer {
        Peer::Pods { namespaces, pods } => {
            of_pods(cluster, policy_namespace, namespaces.as_ref(), pods, resolved)
        }
        Peer::Block(block) => of_block(block, address),
        Peer::Nodes(nodes) => of_nodes(cluster, nodes, address),
        Peer::Nothing => Err("was not understood, matches nothing".into()),
    };
    let peers = peers.iter().enumerate();
    peers.map(|(index, peer)| EntryTrace::of(format!("{field}[{index}]"), outcome(peer))).collect()
}

/// One line for each peer when none matches; empty when one does.
pub(super) fn misses(entries: &[EntryTrace]) -> Vec<String> {
    if entries.iter().any(|entry| entry.matched) {
        return Vec::new();
    }
    let lines = |entry: &EntryTrace| -> Vec<String> {
        entry.why.iter().map(|why| format!("{} {why}", entry.entry)).collect()
    };
    entries.iter().flat_map(lines).collect()
}

/// The pods that a NetworkPolicy is for.
pub(super) fn selected(policy: &NetworkPolicy) -> String {
    let namespace = &policy.name.namespace;
    match wanted(&policy.subject) {
        None => format!("every pod of {namespace}"),
        Some(labels) => format!("pods of {namespace} with {labels}"),
    }
}

/// The pods that a ClusterNetworkPolicy is for.
pub(super) fn selected_by_all(policy: &ClusterNetworkPolicy) -> String {
    let pods =
        wanted(&policy.subject.pods).map_or("every pod".into(), |labels| format!("pods with {labels}"));
    match wanted(&policy.subject.namespaces) {
        None => pods,
        Some(labels) => format!("{pods} of namespaces with {labels}"),
    }
}

fn of_pods(
    cluster: &Cluster,
    policy_namespace: Option<&Name>,
    namespaces: Option<&Selector>,
    pods: &Selector,
    resolved: &ResolvedEndpoint<'_>,
) -> PeerMatch {
    let name = &resolved.shown;
    let Some(pod) = resolved.policed() else {
        let why =
            if resolved.is_host_pod() { "is on the host network and counts as its node" } else { "is none" };
        return Err(format!("wants a pod, {name} {why}"));
    };
    let namespace = &pod.name.namespace;
    let mut met = Vec::new();
    match namespaces {
        None if Some(namespace) == policy_namespace => {}
        None => {
            let wanted = policy_namespace.map_or("no namespace", |name| name);
            return Err(format!("wants a pod of namespace {wanted}, {name} is in {namespace}"));
        }
        Some(selector) => {
            met.extend(of_labels(
                selector,
                &cluster.namespace_labels(namespace),
                "the namespace",
                namespace,
            )?);
        }
    }
    met.extend(of_labels(pods, &pod.labels, "the pod", name)?);
    Ok(match (met.is_empty(), namespaces) {
        (false, _) => met.join("; "),
        (true, None) => format!("wants a pod of namespace {namespace}, {name} is one"),
        (true, Some(_)) => format!("wants a pod, {name} is one"),
    })
}

fn of_block(block: &IpBlock, address: IpAddr) -> PeerMatch {
    if !block.cidr.contains(&address) {
        return Err(format!("wants {}, {address} is outside", block.cidr));
    }
    match block.except.iter().find(|except| except.contains(&address)) {
        Some(except) => Err(format!("wants {} except {except}, {address} is in the except", block.cidr)),
        None if block.except.is_empty() => Ok(format!("wants {}, {address} is inside", block.cidr)),
        None => Ok(format!("wants {}, {address} is inside and in no except", block.cidr)),
    }
}

fn of_nodes(cluster: &Cluster, nodes: &Selector, address: IpAddr) -> PeerMatch {
    let with_address = cluster.nodes.iter().filter(|(_, node)| node.addresses.contains(&address));
    let mut missed = None;
    for (name, node) in with_address {
        match of_labels(nodes, &node.labels, "the node", name) {
            Ok(met) => return Ok(met.unwrap_or_else(|| format!("wants a node, {address} is {name}'s"))),
            Err(miss) => missed = Some(miss),
        }
    }
    Err(missed.unwrap_or_else(|| format!("wants a node, {address} is none's")))
}

/// What a selector wants of labels and what they are: each requirement when all hold (none: no line), else
/// those that do not.
fn of_labels(
    selector: &Selector,
    labels: &Labels,
    whose: &str,
    name: &str,
) -> Result<Option<String>, String> {
    let Selector::All(requirements) = selector else {
        return Err(format!("wants labels that were not understood on {whose}, {name} has none of them"));
    };
    let words = |requirements: &[&Requirement]| {
        let wanted: Vec<String> = requirements.iter().map(|requirement| words(requirement)).collect();
        let found: Vec<String> = requirements.iter().map(|requirement| found(requirement, labels)).collect();
        format!("wants {} on {whose}, {name} has {}", wanted.join(" and "), found.join(" and "))
    };
    let (met, missed): (Vec<&Requirement>, Vec<&Requirement>) =
        requirements.iter().partition(|requirement| requirement.holds(labels));
    match (missed.is_empty(), met.is_empty()) {
        (false, _) => Err(words(&missed)),
        (true, false) => Ok(Some(words(&met))),
        (true, true) => Ok(None),
    }
}

/// `None`: everything.
fn wanted(selector: &Selector) -> Option<String> {
    match selector {
        Selector::Nothing => Some("labels that were not understood".into()),
        Selector::All(requirements) if requirements.is_empty() => None,
        Selector::All(requirements) => Some(requirements.iter().map(words).collect::<Vec<_>>().join(" and ")),
    }
}

fn found(requirement: &Requirement, labels: &Labels) -> String {
    let (Requirement::In(key, _)
    | Requirement::NotIn(key, _)
    | Requirement::Exists(key)
    | Requirement::DoesNotExist(key)) = requirement;
    labels.get(key).map_or_else(|| format!("no {key}"), |value| format!("{key}={value}"))
}

/// As `kubectl get -l` writes it.
fn words(requirement: &Requirement) -> String {
    let list = |values: &BTreeSet<Name>| values.iter().map(|value| &**value).collect::<Vec<_>>().join(", ");
    match requirement {
        Requirement::In(key, values) if values.len() == 1 => format!("{key}={}", list(values)),
        Requirement::In(key, values) => format!("{key} in ({})", list(values)),
        Requirement::NotIn(key, values) => format!("{key} notin ({})", list(values)),
        Requirement::Exists(key) => key.to_string(),
        Requirement::DoesNotExist(key) => format!("!{key}"),
    }
}
