//! What each of a rule's peers says of an address, and which pods a policy is for: in the words of a policy's
//! author.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use podgate_common::{Direction, RuleProtocol};

use super::{
    calico::{self, LabelWish, NetworkWish},
    end::ResolvedEndpoint,
    findings::{EntryFinding, EntryName, Miss, RuleList, TriedEntry},
    name::{AskedName, NameFinding, ShownAddress},
    service_peer::ServiceWish,
};
use crate::model::{
    Cluster, ClusterSubject, IpBlock, IpFamily, LabelExpression, LabelValues, Labels, Name, Peer, Peers, Pod,
    Requirement, Selector,
};

/// What a peer wants, and what is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerFinding {
    /// A pod, and it is none.
    NoPod {
        /// What it is called.
        name: String,
        /// It is a pod that counts as its node.
        is_host_pod: bool,
    },
    /// A pod of one namespace, and it is in another.
    OtherNamespace {
        /// `None`: the policy has none.
        wanted: Option<Name>,
        /// The pod.
        name: String,
        /// Its own.
        namespace: Name,
    },
    /// A pod of one namespace, and it is one.
    PodOfNamespace {
        /// The namespace.
        namespace: Name,
        /// The pod.
        name: String,
    },
    /// Any pod, and it is one.
    AnyPod {
        /// The pod.
        name: String,
    },
    /// Labels, and what they are.
    Labels(Vec<LabelFinding>),
    /// Addresses in a block.
    Block {
        /// The block.
        cidr: IpNet,
        /// The address.
        address: ShownAddress,
        /// Where it is.
        place: BlockPlace,
    },
    /// Labels, by an expression of Calico's.
    Expression(LabelWish),
    /// Networks of a rule of Calico's.
    Networks(NetworkWish),
    /// An endpoint of a Service, of a rule of Calico's.
    Service(ServiceWish),
    /// An address of one family.
    Family {
        /// The family.
        wanted: IpFamily,
        /// The address.
        address: IpAddr,
    },
    /// A node, and whose the address is.
    Node {
        /// The address.
        address: ShownAddress,
        /// `None`: it is none's.
        node: Option<Name>,
    },
}

/// Where an address is, of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockPlace {
    /// Outside.
    Outside,
    /// In an exception.
    InExcept(IpNet),
    /// Inside, and there is no exception.
    Inside,
    /// Inside, and in no exception.
    InNoExcept,
}

/// What a selector wants of labels, and what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelFinding {
    /// Whose labels.
    pub of: LabelsOf,
    /// What that is called.
    pub name: String,
    /// Each requirement with the value that its label has, if it is there. `None`: they were not understood.
    pub requirements: Option<Vec<(Requirement, Option<Name>)>>,
}

/// What has labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelsOf {
    /// A pod.
    Pod,
    /// A namespace.
    Namespace,
    /// A node.
    Node,
}

/// The pods that a policy is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SelectedPods {
    /// Of one namespace.
    Of(Name, Selector),
    /// Of many.
    Across(ClusterSubject),
    /// By an expression of Calico's.
    By(LabelExpression),
}

/// The end of a connection that a rule's peers are about.
pub(super) struct OtherEnd<'a> {
    pub(super) resolved: &'a ResolvedEndpoint<'a>,
    /// The one of its addresses that is tried.
    pub(super) address: IpAddr,
    /// The destination's port.
    pub(super) port: (RuleProtocol, u16),
    /// `None`: no name opens it.
    pub(super) name: Option<AskedName<'a>>,
}

/// What an entry wants and what was found: `Ok` when it matches.
type PeerMatch = Result<PeerFinding, PeerFinding>;

/// One for each peer; a single one for the list when there are no peers.
pub(super) fn entries(
    cluster: &Cluster,
    policy_namespace: Option<&Name>,
    peers: &Peers,
    direction: Direction,
    own: &Pod,
    other @ &OtherEnd { resolved, address, port: _, name }: &OtherEnd<'_>,
) -> Vec<TriedEntry> {
    let list = match direction {
        Direction::Egress => RuleList::To,
        Direction::Ingress => RuleList::From,
    };
    let entry = |index, found| TriedEntry { entry: EntryName { list, index }, found };
    let peers = match peers {
        Peers::Any => return vec![entry(None, Ok(EntryFinding::AnyPeer))],
        Peers::Listed(peers) if peers.is_empty() => return vec![entry(None, Err(EntryFinding::EmptyList))],
        Peers::Listed(peers) => peers,
        Peers::Calico(ends) => return calico::entries(cluster, ends, direction, own, other),
    };
    let tried = |peer: &Peer| {
        let found = match peer {
            Peer::Pods { namespaces, pods } => {
                of_pods(cluster, policy_namespace, namespaces.as_ref(), pods, resolved)
            }
            Peer::Block(block) => of_block(block, address, resolved),
            Peer::Nodes(nodes) => of_nodes(cluster, nodes, address, resolved),
            Peer::Name(wanted) => {
                let found = name.map_or_else(|| Err(NameFinding::of_none(wanted)), |name| name.find(wanted));
                return found.map(EntryFinding::Name).map_err(EntryFinding::Name);
            }
            Peer::Nothing => return Err(EntryFinding::NotUnderstood),
        };
        found.map(EntryFinding::Peer).map_err(EntryFinding::Peer)
    };
    peers.iter().enumerate().map(|(index, peer)| entry(Some(index), tried(peer))).collect()
}

/// One for each peer when none matches; empty when one does. Of a rule of Calico's, one for each that does
/// not match: it wants all of them.
pub(super) fn misses(peers: &Peers, entries: &[TriedEntry]) -> Vec<Miss> {
    let misses = entries.iter().map(|TriedEntry { entry, found }| match found {
        Ok(_) => None,
        Err(finding) => Some(Miss::Entry(*entry, finding.clone())),
    });
    match peers {
        Peers::Any | Peers::Listed(_) => misses.collect::<Option<_>>().unwrap_or_default(),
        Peers::Calico(_) => misses.flatten().collect(),
    }
}

fn of_pods(
    cluster: &Cluster,
    policy_namespace: Option<&Name>,
    namespaces: Option<&Selector>,
    pods: &Selector,
    resolved: &ResolvedEndpoint<'_>,
) -> PeerMatch {
    let name = || resolved.shown.clone();
    let Some(pod) = resolved.policed() else {
        return Err(PeerFinding::NoPod { name: name(), is_host_pod: resolved.is_host_pod() });
    };
    let namespace = &pod.name.namespace;
    let mut met = Vec::new();
    match namespaces {
        None if Some(namespace) == policy_namespace => {}
        None => {
            let (wanted, namespace) = (policy_namespace.cloned(), namespace.clone());
            return Err(PeerFinding::OtherNamespace { wanted, name: name(), namespace });
        }
        Some(selector) => {
            let labels = cluster.namespace_labels(namespace);
            met.extend(of_labels(selector, &labels, LabelsOf::Namespace, namespace)?);
        }
    }
    met.extend(of_labels(pods, &pod.labels, LabelsOf::Pod, &resolved.shown)?);
    Ok(match (met.is_empty(), namespaces) {
        (false, _) => PeerFinding::Labels(met),
        (true, None) => PeerFinding::PodOfNamespace { namespace: namespace.clone(), name: name() },
        (true, Some(_)) => PeerFinding::AnyPod { name: name() },
    })
}

fn of_block(block: &IpBlock, address: IpAddr, resolved: &ResolvedEndpoint<'_>) -> PeerMatch {
    let shown = || resolved.shown_address(address);
    let found = |place| PeerFinding::Block { cidr: block.cidr, address: shown(), place };
    if !block.cidr.contains(&address) {
        return Err(found(BlockPlace::Outside));
    }
    match block.except.iter().find(|except| except.contains(&address)) {
        Some(except) => Err(found(BlockPlace::InExcept(*except))),
        None if block.except.is_empty() => Ok(found(BlockPlace::Inside)),
        None => Ok(found(BlockPlace::InNoExcept)),
    }
}

fn of_nodes(
    cluster: &Cluster,
    nodes: &Selector,
    address: IpAddr,
    resolved: &ResolvedEndpoint<'_>,
) -> PeerMatch {
    let node_finding = |node| PeerFinding::Node { address: resolved.shown_address(address), node };
    let with_address = cluster.nodes.iter().filter(|(_, node)| node.addresses.contains(&address));
    let mut missed = None;
    for (name, node) in with_address {
        match of_labels(nodes, &node.labels, LabelsOf::Node, name) {
            Ok(Some(met)) => return Ok(PeerFinding::Labels(vec![met])),
            Ok(None) => return Ok(node_finding(Some(name.clone()))),
            Err(miss) => missed = Some(miss),
        }
    }
    Err(missed.unwrap_or_else(|| node_finding(None)))
}

/// What a selector wants of labels and what they are: each requirement when all hold (none: nothing), else
/// those that do not.
fn of_labels(
    selector: &Selector,
    labels: &Labels,
    of: LabelsOf,
    name: &str,
) -> Result<Option<LabelFinding>, PeerFinding> {
    let finding = |requirements| LabelFinding { of, name: name.to_owned(), requirements };
    let requirements = match selector {
        Selector::All(requirements) => requirements,
        Selector::Nothing => return Err(PeerFinding::Labels(vec![finding(None)])),
    };
    let found = |requirements: Vec<&Requirement>| {
        let with_value =
            |requirement: &Requirement| (requirement.clone(), labels.get(requirement.key()).cloned());
        finding(Some(requirements.into_iter().map(with_value).collect()))
    };
    let (met, missed): (Vec<&Requirement>, Vec<&Requirement>) =
        requirements.iter().partition(|requirement| requirement.holds(labels));
    match (missed.is_empty(), met.is_empty()) {
        (false, _) => Err(PeerFinding::Labels(vec![found(missed)])),
        (true, false) => Ok(Some(found(met))),
        (true, true) => Ok(None),
    }
}

impl fmt::Display for PeerFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPod { name, is_host_pod: true } => {
                write!(f, "wants a pod, {name} is on the host network and counts as its node")
            }
            Self::NoPod { name, is_host_pod: false } => write!(f, "wants a pod, {name} is none"),
            Self::OtherNamespace { wanted, name, namespace } => {
                let wanted = wanted.as_deref().unwrap_or("no namespace");
                write!(f, "wants a pod of namespace {wanted}, {name} is in {namespace}")
            }
            Self::PodOfNamespace { namespace, name } => {
                write!(f, "wants a pod of namespace {namespace}, {name} is one")
            }
            Self::AnyPod { name } => write!(f, "wants a pod, {name} is one"),
            Self::Labels(found) => {
                let found: Vec<String> = found.iter().map(ToString::to_string).collect();
                f.write_str(&found.join("; "))
            }
            Self::Block { cidr, address, place } => match place {
                BlockPlace::Outside => write!(f, "wants {cidr}, {address} is outside"),
                BlockPlace::InExcept(except) => {
                    write!(f, "wants {cidr} except {except}, {address} is in the except")
                }
                BlockPlace::Inside => write!(f, "wants {cidr}, {address} is inside"),
                BlockPlace::InNoExcept => write!(f, "wants {cidr}, {address} is inside and in no except"),
            },
            Self::Expression(wish) => wish.fmt(f),
            Self::Networks(wish) => wish.fmt(f),
            Self::Service(wish) => wish.fmt(f),
            Self::Family { wanted, address } => {
                let is_it = if IpFamily::of(address) == *wanted { "one" } else { "none" };
                write!(f, "wants {wanted}, {address} is {is_it}")
            }
            Self::Node { address, node: Some(node) } => write!(f, "wants a node, {address} is {node}'s"),
            Self::Node { address, node: None } => write!(f, "wants a node, {address} is none's"),
        }
    }
}

impl fmt::Display for LabelFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, name, requirements } = self;
        let of = match of {
            LabelsOf::Pod => "the pod",
            LabelsOf::Namespace => "the namespace",
            LabelsOf::Node => "the node",
        };
        let Some(requirements) = requirements else {
            return write!(f, "wants labels that were not understood on {of}, {name} has none of them");
        };
        let wanted: Vec<String> = requirements.iter().map(|(requirement, _)| words(requirement)).collect();
        let found = requirements.iter().map(|(requirement, value)| {
            let key = requirement.key();
            value.as_ref().map_or_else(|| format!("no {key}"), |value| format!("{key}={value}"))
        });
        let found: Vec<String> = found.collect();
        write!(f, "wants {} on {of}, {name} has {}", wanted.join(" and "), found.join(" and "))
    }
}

impl fmt::Display for SelectedPods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(namespace, pods) => match wanted(pods) {
                None => write!(f, "every pod of {namespace}"),
                Some(labels) => write!(f, "pods of {namespace} with {labels}"),
            },
            Self::By(expression) => write!(f, "pods with {expression}"),
            Self::Across(ClusterSubject { namespaces, pods }) => {
                match wanted(pods) {
                    None => f.write_str("every pod")?,
                    Some(labels) => write!(f, "pods with {labels}")?,
                }
                wanted(namespaces).map_or(Ok(()), |labels| write!(f, " of namespaces with {labels}"))
            }
        }
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

/// As `kubectl get -l` writes it.
fn words(requirement: &Requirement) -> String {
    let list = |values: &LabelValues| values.iter().map(|value| &**value).collect::<Vec<_>>().join(", ");
    match requirement {
        Requirement::In(key, values) if values.len() == 1 => format!("{key}={}", list(values)),
        Requirement::In(key, values) => format!("{key} in ({})", list(values)),
        Requirement::NotIn(key, values) => format!("{key} notin ({})", list(values)),
        Requirement::Exists(key) => key.to_string(),
        Requirement::DoesNotExist(key) => format!("!{key}"),
    }
}
