//! The properties of addresses that rules speak of: what each kind of peer is as a property, and who has it.
//!
//! In: peers of rules, pods and nodes. Out: properties, and those that each pod and node has. Which addresses
//! a block covers is found in `prefixes`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::{Shared, Signature};
use crate::model::{
    Cluster, DomainPattern, IpBlock, LabelExpression, Labels, Name, NamedPort, Node, Peer, Pod, Selector,
};

/// A property that an address has or has not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Atom {
    /// It is a pod's, in one namespace, with such labels.
    PodsIn(Name, Selector),
    /// It is a pod's, in a namespace with such labels, with such labels of its own.
    PodsAcross {
        /// By the labels of the namespace.
        namespaces: Selector,
        /// By the labels of the pod.
        pods: Selector,
    },
    /// The address belongs to a pod or host endpoint that an expression of Calico's matches.
    Endpoints(LabelExpression),
    /// The address belongs to a pod or host endpoint that has this named port.
    Port(NamedPort),
    /// It lies in one of these blocks: all those of a rule together.
    Blocks(BTreeSet<IpBlock>),
    /// It is one of a node with such labels.
    Node(Selector),
    /// It is no address, but a name of the DNS that one of these matches: all those of a rule together.
    Names(BTreeSet<DomainPattern>),
}

/// Whose addresses can have a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    Pods,
    Nodes,
    /// Any address in them.
    Networks,
    /// Names, which stand among addresses.
    Names,
}

/// All that the properties of a pod depend on: replicas share it. Label sets and lists of ports are known by
/// their places in memory, so it lives as long as the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PodKey<'a> {
    namespace: &'a Name,
    labels: *const BTreeMap<Name, Name>,
    service_account: Option<&'a Name>,
    ports: *const [NamedPort],
}

impl<'a> PodKey<'a> {
    pub(super) fn of(pod: &'a Pod) -> Self {
        let Pod { name, labels, service_account, ports, .. } = pod;
        let (labels, ports) = (Arc::as_ptr(labels), Arc::as_ptr(ports));
        Self { namespace: &name.namespace, labels, service_account: service_account.as_ref(), ports }
    }
}

impl Atom {
    /// Whose addresses can have it.
    pub(super) const fn holder(&self) -> Holder {
        match self {
            Self::PodsIn(..) | Self::PodsAcross { .. } | Self::Endpoints(_) | Self::Port(_) => Holder::Pods,
            Self::Node(_) => Holder::Nodes,
            Self::Blocks(_) => Holder::Networks,
            Self::Names(_) => Holder::Names,
        }
    }
}

/// Left out is a peer that was not understood and matches nothing, or that means a namespace that its policy
/// does not have.
pub(crate) fn peer_atoms(peers: &[Peer], namespace: Option<&Name>) -> BTreeSet<Shared<Atom>> {
    let mut blocks = BTreeSet::new();
    let mut names = BTreeSet::new();
    let mut atoms = BTreeSet::new();
    for peer in peers {
        let atom = match peer {
            Peer::Pods { namespaces: None, pods } => {
                let Some(namespace) = namespace else { continue };
                Atom::PodsIn(namespace.clone(), pods.clone())
            }
            Peer::Pods { namespaces: Some(namespaces), pods } => {
                Atom::PodsAcross { namespaces: namespaces.clone(), pods: pods.clone() }
            }
            Peer::Block(block) => {
                blocks.insert(block.clone());
                continue;
            }
            Peer::Nodes(nodes) => Atom::Node(nodes.clone()),
            Peer::Name(name) => {
                names.insert(name.clone());
                continue;
            }
            Peer::Nothing => continue,
        };
        atoms.insert(Shared::new(atom));
    }
    if !blocks.is_empty() {
        atoms.insert(Shared::new(Atom::Blocks(blocks)));
    }
    if !names.is_empty() {
        atoms.insert(Shared::new(Atom::Names(names)));
    }
    atoms
}

/// The blocks among properties.
pub(super) fn blocks<'a>(
    atoms: impl IntoIterator<Item = &'a Shared<Atom>>,
) -> Vec<(&'a Shared<Atom>, &'a BTreeSet<IpBlock>)> {
    let blocks = atoms.into_iter().filter_map(|atom| match &**atom {
        Atom::Blocks(blocks) => Some((atom, blocks)),
        Atom::PodsIn(..)
        | Atom::PodsAcross { .. }
        | Atom::Endpoints(_)
        | Atom::Port(_)
        | Atom::Node(_)
        | Atom::Names(_) => None,
    });
    blocks.collect()
}

/// The properties that only pods have, ordered so that a pod is not tried against all of them.
#[derive(Debug, Default)]
pub(crate) struct PodAtoms {
    in_namespace: HashMap<Name, Vec<(Shared<Atom>, Selector)>>,
    across: BTreeMap<Selector, Vec<(Shared<Atom>, Selector)>>,
    /// Those of one namespace, and all others.
    endpoints_in: HashMap<Name, Vec<Shared<Atom>>>,
    endpoints: Vec<Shared<Atom>>,
    ports: HashMap<NamedPort, Shared<Atom>>,
}

impl PodAtoms {
    pub(crate) fn new<'a>(atoms: impl IntoIterator<Item = &'a Shared<Atom>>) -> Self {
        let mut sorted = Self::default();
        for atom in atoms {
            match &**atom {
                Atom::PodsIn(namespace, pods) => {
                    let candidates = sorted.in_namespace.entry(namespace.clone()).or_default();
                    candidates.push((atom.clone(), pods.clone()));
                }
                Atom::PodsAcross { namespaces, pods } => {
                    let candidates = sorted.across.entry(namespaces.clone()).or_default();
                    candidates.push((atom.clone(), pods.clone()));
                }
                Atom::Endpoints(expression) => match expression.namespace() {
                    Some(namespace) => {
                        sorted.endpoints_in.entry(namespace.clone()).or_default().push(atom.clone());
                    }
                    None => sorted.endpoints.push(atom.clone()),
                },
                Atom::Port(port) => {
                    sorted.ports.insert(port.clone(), atom.clone());
                }
                Atom::Blocks(_) | Atom::Node(_) | Atom::Names(_) => {}
            }
        }
        sorted
    }

    /// Whether any pod of a namespace can have one of these properties.
    pub(super) fn may_mention(&self, namespace: &Name, cluster: &Cluster) -> bool {
        let may_match = |atom: &Shared<Atom>, labels: &Labels| match &**atom {
            Atom::Endpoints(expression) => expression.may_match_in(namespace, labels),
            _ => false,
        };
        !self.ports.is_empty()
            || self.in_namespace.contains_key(namespace)
            || self.endpoints_in.contains_key(namespace)
            || (!self.across.is_empty() || !self.endpoints.is_empty()) && {
                let labels = cluster.namespace_labels(namespace);
                self.across.keys().any(|namespaces| namespaces.matches(&labels))
                    || self.endpoints.iter().any(|atom| may_match(atom, &labels))
            }
    }

    /// The properties that a pod of this cluster has.
    pub(crate) fn of(&self, pod: &Pod, cluster: &Cluster) -> Signature {
        let mut signature = Signature::new();
        let is_pod = pod.host.is_none();
        if let Some(candidates) = self.in_namespace.get(&pod.name.namespace) {
            signature.extend(matching(candidates, &pod.labels).cloned());
        }
        if !self.across.is_empty() && is_pod {
            let namespace_labels = cluster.namespace_labels(&pod.name.namespace);
            for (namespaces, candidates) in &self.across {
                if namespaces.matches(&namespace_labels) {
                    signature.extend(matching(candidates, &pod.labels).cloned());
                }
            }
        }
        let of_namespace = self.endpoints_in.get(&pod.name.namespace).map_or(&[][..], Vec::as_slice);
        if !of_namespace.is_empty() || !self.endpoints.is_empty() {
            let namespace_labels = cluster.namespace_labels(&pod.name.namespace);
            let labels = cluster.calico.labels_of(pod, &namespace_labels);
            let is_matching = |atom: &&Shared<Atom>| match &***atom {
                Atom::Endpoints(expression) => expression.matches(&labels),
                Atom::PodsIn(..)
                | Atom::PodsAcross { .. }
                | Atom::Port(_)
                | Atom::Blocks(_)
                | Atom::Node(_)
                | Atom::Names(_) => false,
            };
            signature.extend(of_namespace.iter().chain(&self.endpoints).filter(is_matching).cloned());
        }
        signature.extend(pod.ports.iter().filter_map(|port| self.ports.get(port)).cloned());
        signature
    }
}

/// The properties that only nodes have.
#[derive(Debug, Default)]
pub(crate) struct NodeAtoms(Vec<(Shared<Atom>, Selector)>);

impl NodeAtoms {
    pub(crate) fn new<'a>(atoms: impl IntoIterator<Item = &'a Shared<Atom>>) -> Self {
        let nodes = atoms.into_iter().filter_map(|atom| match &**atom {
            Atom::Node(nodes) => Some((atom.clone(), nodes.clone())),
            Atom::PodsIn(..)
            | Atom::PodsAcross { .. }
            | Atom::Endpoints(_)
            | Atom::Port(_)
            | Atom::Blocks(_)
            | Atom::Names(_) => None,
        });
        Self(nodes.collect())
    }

    /// The nodes that have any of them, and which.
    pub(crate) fn mentioned<'a>(&self, cluster: &'a Cluster) -> Vec<(&'a Node, Signature)> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let nodes = cluster.nodes.values();
        let nodes = nodes.map(|node| (&**node, matching(&self.0, &node.labels).cloned().collect()));
        nodes.filter(|(_, matching): &(_, Signature)| !matching.is_empty()).collect()
    }
}

/// The properties whose selectors match these labels.
fn matching<'a>(
    candidates: &'a [(Shared<Atom>, Selector)],
    labels: &Labels,
) -> impl Iterator<Item = &'a Shared<Atom>> {
    candidates.iter().filter(|(_, selector)| selector.matches(labels)).map(|(atom, _)| atom)
}
