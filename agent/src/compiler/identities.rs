//! Identities: addresses that no rule can tell apart.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use podgate_common::PrefixKey;

use super::{Atom, RuleSet, Step, prefixes, steps};
use crate::model::{Cluster, IpBlock, Labels, NamedPort, Pod, Selector};

/// The properties that the addresses of an identity have.
pub type Signature = BTreeSet<Arc<Atom>>;

/// Which identity each address has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identities {
    /// Index 0: no property at all.
    pub signatures: Vec<Signature>,
    /// Addresses of pods and nodes that a rule mentions by more than a block.
    pub addresses: BTreeMap<IpAddr, usize>,
    /// For all other addresses: the longest prefix decides; none: identity 0.
    pub prefixes: BTreeMap<PrefixKey, usize>,
}

impl Identities {
    pub fn identity(&self, address: IpAddr) -> usize {
        self.addresses
            .get(&address)
            .or_else(|| prefixes::longest(&self.prefixes, address.into()))
            .copied()
            .unwrap_or(0)
    }
}

pub(super) fn compile(cluster: &Cluster, rule_sets: &[Arc<RuleSet>]) -> Identities {
    let terms = rule_sets.iter().flat_map(|rules| &rules.policies).flatten();
    let of_steps = steps::distinct(rule_sets).flat_map(Step::atoms);
    let atoms: BTreeSet<&Arc<Atom>> = terms.flat_map(|term| &term.atoms).chain(of_steps).collect();
    let blocks: Vec<(&Arc<Atom>, &IpBlock)> = atoms
        .iter()
        .filter_map(|atom| match &***atom {
            Atom::Block(block) => Some((*atom, block)),
            _ => None,
        })
        .collect();
    let mut interner = Interner::default();
    let prefixes: BTreeMap<PrefixKey, usize> = prefixes::compile(&blocks)
        .into_iter()
        .map(|(prefix, signature)| (prefix, interner.intern(signature)))
        .collect();

    let pod_atoms = PodAtoms::new(cluster, &atoms);
    let mut known = HashMap::new();
    let mut addresses = Addresses { prefixes: &prefixes, interner, identities: BTreeMap::new() };
    for pod in cluster.pods.values().filter(|pod| !pod.host_network && !pod.addresses.is_empty()) {
        // Replicas share their label set, so most pods are answered from here.
        let question = (&pod.name.namespace, Arc::as_ptr(&pod.labels), &pod.ports);
        let matching = known.entry(question).or_insert_with(|| pod_atoms.of(pod));
        if matching.is_empty() {
            continue;
        }
        pod.addresses.iter().for_each(|address| addresses.add(*address, matching));
    }
    let node_atoms: Vec<(&Arc<Atom>, &Selector)> = atoms
        .iter()
        .filter_map(|atom| match &***atom {
            Atom::Node(nodes) => Some((*atom, nodes)),
            _ => None,
        })
        .collect();
    if !node_atoms.is_empty() {
        for node in cluster.nodes.values() {
            let matching: Signature = matching(&node_atoms, &node.labels).into_iter().collect();
            if !matching.is_empty() {
                node.addresses.iter().for_each(|address| addresses.add(*address, &matching));
            }
        }
    }
    let Addresses { interner, identities, .. } = addresses;
    Identities { signatures: interner.signatures, addresses: identities, prefixes }
}

/// Addresses with properties that no prefix has.
struct Addresses<'a> {
    prefixes: &'a BTreeMap<PrefixKey, usize>,
    interner: Interner,
    identities: BTreeMap<IpAddr, usize>,
}

impl Addresses<'_> {
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

/// The properties whose selectors match these labels.
fn matching(candidates: &[(&Arc<Atom>, &Selector)], labels: &Labels) -> Vec<Arc<Atom>> {
    let matching = candidates.iter().filter(|(_, selector)| selector.matches(labels));
    matching.map(|(atom, _)| Arc::clone(atom)).collect()
}

struct Interner {
    signatures: Vec<Signature>,
    by_content: HashMap<Signature, usize>,
}

impl Default for Interner {
    fn default() -> Self {
        Self { signatures: vec![Signature::new()], by_content: HashMap::from([(Signature::new(), 0)]) }
    }
}

impl Interner {
    fn intern(&mut self, signature: Signature) -> usize {
        *self.by_content.entry(signature).or_insert_with_key(|signature| {
            self.signatures.push(signature.clone());
            self.signatures.len() - 1
        })
    }
}

/// The properties that only pods have, ordered so that a pod is not tried against all of them.
struct PodAtoms<'a> {
    cluster: &'a Cluster,
    in_namespace: BTreeMap<&'a str, Vec<(&'a Arc<Atom>, &'a Selector)>>,
    across: BTreeMap<&'a Selector, Vec<(&'a Arc<Atom>, &'a Selector)>>,
    ports: BTreeMap<&'a NamedPort, &'a Arc<Atom>>,
}

impl<'a> PodAtoms<'a> {
    fn new(cluster: &'a Cluster, atoms: &BTreeSet<&'a Arc<Atom>>) -> Self {
        let mut sorted =
            Self { cluster, in_namespace: BTreeMap::new(), across: BTreeMap::new(), ports: BTreeMap::new() };
        for &atom in atoms {
            match &**atom {
                Atom::PodsIn(namespace, pods) => {
                    sorted.in_namespace.entry(namespace).or_default().push((atom, pods));
                }
                Atom::PodsAcross { namespaces, pods } => {
                    sorted.across.entry(namespaces).or_default().push((atom, pods));
                }
                Atom::Port(port) => {
                    sorted.ports.insert(port, atom);
                }
                Atom::Block(_) | Atom::Node(_) => {}
            }
        }
        sorted
    }

    fn of(&self, pod: &Pod) -> Signature {
        let mut signature = Signature::new();
        if let Some(candidates) = self.in_namespace.get(&*pod.name.namespace) {
            signature.extend(matching(candidates, &pod.labels));
        }
        let namespace_labels = self.cluster.namespace_labels(&pod.name.namespace);
        for (namespaces, candidates) in &self.across {
            if namespaces.matches(&namespace_labels) {
                signature.extend(matching(candidates, &pod.labels));
            }
        }
        signature
            .extend(pod.ports.iter().filter_map(|port| self.ports.get(port)).map(|atom| Arc::clone(atom)));
        signature
    }
}
