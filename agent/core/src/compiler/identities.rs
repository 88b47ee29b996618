//! Identities: addresses that no rule can distinguish.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use imbl::OrdMap;
use podgate_common::PrefixKey;

use super::{
    Atom, NamePlace, RuleSet, Shared,
    atoms::{NodeAtoms, PodAtoms, PodKey},
    names, prefixes, rules,
};
use crate::model::Cluster;

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

/// `prefixes`: what networks have. The names of rule sets in `closed` have no identities.
pub(super) fn compile(
    cluster: &Cluster,
    rule_sets: &[Arc<RuleSet>],
    closed: &BTreeSet<usize>,
    prefixes: BTreeMap<PrefixKey, Arc<Signature>>,
) -> (Identities, Arc<BTreeSet<NamePlace>>) {
    let atoms: BTreeSet<&Shared<Atom>> = rules::atoms(rule_sets).collect();
    let mut interner = SignatureInterner::default();
    let prefixes: BTreeMap<PrefixKey, usize> = prefixes
        .into_iter()
        .map(|(prefix, signature)| (prefix, interner.intern((*signature).clone())))
        .collect();

    let pod_atoms = PodAtoms::new(atoms.iter().copied());
    let mut known = HashMap::new();
    let mut addresses = AddressIdentities { prefixes: &prefixes, interner, identities: OrdMap::new() };
    let ends = cluster.pods.values().chain(cluster.calico.host_subjects());
    for pod in ends.filter(|pod| !pod.host_network && !pod.addresses.is_empty()) {
        // Replicas share their label set, so most pods are answered from here.
        let matching = known.entry(PodKey::of(pod)).or_insert_with(|| pod_atoms.of(pod, cluster));
        if matching.is_empty() {
            continue;
        }
        pod.addresses.iter().for_each(|address| addresses.add(*address, matching));
    }
    let node_atoms = NodeAtoms::new(atoms.iter().copied());
    for (node, matching) in node_atoms.mentioned(cluster) {
        node.addresses.iter().for_each(|address| addresses.add(*address, &matching));
    }
    let open: Vec<_> = rule_sets.iter().enumerate().filter(|(place, _)| !closed.contains(place)).collect();
    let places = names::places(rules::atoms(open.iter().map(|(_, rule_set)| *rule_set)));
    places.iter().for_each(|(place, matching)| addresses.add(names::key(place), matching));
    let AddressIdentities { interner, identities, .. } = addresses;
    let signatures = interner.signatures.into_iter().map(Arc::new).enumerate().collect();
    let identities = Identities { signatures, addresses: identities, prefixes: Arc::new(prefixes) };
    (identities, Arc::new(places.into_keys().collect()))
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
