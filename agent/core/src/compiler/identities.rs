//! Identities: addresses that no rule can distinguish.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use imbl::OrdMap;
use podgate_common::PrefixKey;

use super::{Atom, RuleSet, Shared, prefixes, rules};
use crate::model::{Cluster, IpBlock, Labels, Name, NamedPort, Node, Pod, Selector};

/// The properties that the addresses of an identity have.
pub type Signature = BTreeSet<Shared<Atom>>;

/// Which identity each address has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identities {
    /// Index 0: no property at all.
    pub signatures: OrdMap<usize, Arc<Signature>>,
    /// Addresses of pods and nodes that a rule mentions by more than a block.
    pub addresses: OrdMap<IpAddr, usize>,
    /// For all other addresses: the longest prefix decides; none: identity 0.
    pub prefixes: Arc<BTreeMap<PrefixKey, usize>>,
}

impl Identities {
    /// The identity of an address: its own one, else that of the longest prefix that covers it.
    pub fn identity(&self, address: IpAddr) -> usize {
        self.addresses
            .get(&address)
            .or_else(|| prefixes::longest(&self.prefixes, address.into()))
            .copied()
            .unwrap_or(0)
    }
}

/// `prefixes`: what networks have.
pub(super) fn compile(
    cluster: &Cluster,
    rule_sets: &[Arc<RuleSet>],
    prefixes: BTreeMap<PrefixKey, Arc<Signature>>,
) -> Identities {
    let atoms: BTreeSet<&Shared<Atom>> = rules::atoms(rule_sets).collect();
    let mut interner = SignatureInterner::default();
    let prefixes: BTreeMap<PrefixKey, usize> = prefixes
        .into_iter()
        .map(|(prefix, signature)| (prefix, interner.intern((*signature).clone())))
        .collect();

    let pod_atoms = PodAtoms::new(atoms.iter().copied());
    let mut known = HashMap::new();
    let mut addresses = AddressIdentities { prefixes: &prefixes, interner, identities: OrdMap::new() };
    for pod in cluster.pods.values().filter(|pod| !pod.host_network && !pod.addresses.is_empty()) {
        // Replicas share their label set, so most pods are answered from here.
        let question = (&pod.name.namespace, Arc::as_ptr(&pod.labels), &pod.ports);
        let matching = known.entry(question).or_insert_with(|| pod_atoms.of(pod, cluster));
        if matching.is_empty() {
            continue;
        }
        pod.addresses.iter().for_each(|address| addresses.add(*address, matching));
    }
    let node_atoms = NodeAtoms::new(atoms.iter().copied());
    for (node, matching) in node_atoms.mentioned(cluster) {
        node.addresses.iter().for_each(|address| addresses.add(*address, &matching));
    }
    let AddressIdentities { interner, identities, .. } = addresses;
    let signatures = interner.signatures.into_iter().map(Arc::new).enumerate().collect();
    Identities { signatures, addresses: identities, prefixes: Arc::new(prefixes) }
}

/// The blocks among properties.
pub(super) fn blocks<'a>(
    atoms: impl IntoIterator<Item = &'a Shared<Atom>>,
) -> Vec<(&'a Shared<Atom>, &'a BTreeSet<IpBlock>)> {
    let blocks = atoms.into_iter().filter_map(|atom| match &**atom {
        Atom::Blocks(blocks) => Some((atom, blocks)),
        Atom::PodsIn(..) | Atom::PodsAcross { .. } | Atom::Port(_) | Atom::Node(_) => None,
    });
    blocks.collect()
}

/// Addresses with properties that no prefix has.
struct AddressIdentities<'a> {
    prefixes: &'a BTreeMap<PrefixKey, usize>,
    interner: SignatureInterner,
    identities: OrdMap<IpAddr, usize>,
}

impl AddressIdentities<'_> {
    /// Gives an address these properties beside those that it has.
    fn add(&mut self, address: IpAddr, matching: &Signature) {
        // Two pods may claim one address for a moment: it has the properties of both, as an ipset would.
        let known = self.identities.get(&address);
        let known = known.or_else(|| prefixes::longest(self.prefixes, address.into()));
        let mut signature =
            known.map_or_else(Signature::new, |&known| self.interner.signatures[known].clone());
        signature.extend(matching.iter().cloned());
        self.identities.insert(address, self.interner.intern(signature));
    }
}

struct SignatureInterner {
    signatures: Vec<Signature>,
    by_content: HashMap<Signature, usize>,
}

impl Default for SignatureInterner {
    fn default() -> Self {
        Self { signatures: vec![Signature::new()], by_content: HashMap::from([(Signature::new(), 0)]) }
    }
}

impl SignatureInterner {
    fn intern(&mut self, signature: Signature) -> usize {
        *self.by_content.entry(signature).or_insert_with_key(|signature| {
            self.signatures.push(signature.clone());
            self.signatures.len() - 1
        })
    }
}

/// The properties that only pods have, ordered so that a pod is not tried against all of them.
#[derive(Debug, Default)]
pub(super) struct PodAtoms {
    in_namespace: HashMap<Name, Vec<(Shared<Atom>, Selector)>>,
    across: BTreeMap<Selector, Vec<(Shared<Atom>, Selector)>>,
    ports: HashMap<NamedPort, Shared<Atom>>,
}

impl PodAtoms {
    pub(super) fn new<'a>(atoms: impl IntoIterator<Item = &'a Shared<Atom>>) -> Self {
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
                Atom::Port(port) => {
                    sorted.ports.insert(port.clone(), atom.clone());
                }
                Atom::Blocks(_) | Atom::Node(_) => {}
            }
        }
        sorted
    }

    /// Whether any pod of a namespace can have one of these properties.
    pub(super) fn may_mention(&self, namespace: &Name, cluster: &Cluster) -> bool {
        !self.ports.is_empty()
            || self.in_namespace.contains_key(namespace)
            || !self.across.is_empty() && {
                let labels = cluster.namespace_labels(namespace);
                self.across.keys().any(|namespaces| namespaces.matches(&labels))
            }
    }

    /// The properties that a pod of this cluster has.
    pub(super) fn of(&self, pod: &Pod, cluster: &Cluster) -> Signature {
        let mut signature = Signature::new();
        if let Some(candidates) = self.in_namespace.get(&pod.name.namespace) {
            signature.extend(matching(candidates, &pod.labels).cloned());
        }
        if !self.across.is_empty() {
            let namespace_labels = cluster.namespace_labels(&pod.name.namespace);
            for (namespaces, candidates) in &self.across {
                if namespaces.matches(&namespace_labels) {
                    signature.extend(matching(candidates, &pod.labels).cloned());
                }
            }
        }
        signature.extend(pod.ports.iter().filter_map(|port| self.ports.get(port)).cloned());
        signature
    }
}

/// The properties that only nodes have.
#[derive(Debug, Default)]
pub(super) struct NodeAtoms(Vec<(Shared<Atom>, Selector)>);

impl NodeAtoms {
    pub(super) fn new<'a>(atoms: impl IntoIterator<Item = &'a Shared<Atom>>) -> Self {
        let nodes = atoms.into_iter().filter_map(|atom| match &**atom {
            Atom::Node(nodes) => Some((atom.clone(), nodes.clone())),
            Atom::PodsIn(..) | Atom::PodsAcross { .. } | Atom::Port(_) | Atom::Blocks(_) => None,
        });
        Self(nodes.collect())
    }

    /// The nodes that have any of them, and which.
    pub(super) fn mentioned<'a>(&self, cluster: &'a Cluster) -> Vec<(&'a Node, Signature)> {
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
