//! Who claims which address, and so which identity each has.
//!
//! A claim is what rules say of one pod or node: its properties. An address has the properties of all who
//! claim it, and of the blocks that it lies in. Only claims on addresses that several claim are kept: of all
//! others, they are what the identity has beside its blocks.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv6Addr},
    ops::RangeInclusive,
    sync::Arc,
};

use imbl::OrdMap;
use podgate_common::{Address, PrefixKey};

use super::numbering::Numbering;
use crate::{
    compiler::{Identities, Signature, atoms::Holder, prefixes},
    model::Pod,
};

/// Bits of the mapped form before an IPv4 address.
const MAPPED_BITS: u32 = 96;

#[derive(Debug, Default)]
pub(super) struct AddressProperties {
    identities: Numbering<Signature>,
    /// How many addresses and prefixes have an identity.
    uses: HashMap<usize, usize>,
    addresses: OrdMap<IpAddr, usize>,
    prefixes: Arc<BTreeMap<PrefixKey, usize>>,
    /// The claims on addresses that several claim.
    crowded: HashMap<IpAddr, Vec<Arc<Signature>>>,
    /// Of the step at hand: identities that are new, those that may be in no use any more, and which identity
    /// each address had that may have another one.
    new: BTreeSet<usize>,
    idle: BTreeSet<usize>,
    before: Moves,
    blocks: Vec<RangeInclusive<IpAddr>>,
    /// Answers of the step at hand. The claims are kept so that no other one gets the place in memory that
    /// they are known by.
    known: HashMap<(usize, usize), (usize, Arc<Signature>)>,
    known_claims: HashMap<usize, Arc<Signature>>,
}

/// Addresses that have another identity than before the step, with the one that they had.
pub(super) type Moves = BTreeMap<IpAddr, Option<usize>>;

/// What a step did to the identities.
pub(super) struct Settled {
    pub(super) new: BTreeSet<usize>,
    pub(super) gone: BTreeSet<usize>,
    pub(super) moves: Moves,
    /// Addresses in these lie in other blocks than before.
    pub(super) blocks: Vec<RangeInclusive<IpAddr>>,
}

impl AddressProperties {
    pub(super) fn identities(&self) -> Identities {
        Identities {
            signatures: self.identities.contents().clone(),
            addresses: self.addresses.clone(),
            prefixes: self.prefixes.clone(),
        }
    }

    /// Other blocks: whatever lies in one that changed gets another identity.
    pub(super) fn set_prefixes(&mut self, compiled: BTreeMap<PrefixKey, Arc<Signature>>) {
        // Many prefixes share a signature, and it is looked at once.
        let mut known: HashMap<*const Signature, usize> = HashMap::new();
        let numbered = compiled.iter().map(|(prefix, signature)| {
            let number =
                known.entry(Arc::as_ptr(signature)).or_insert_with(|| self.number(signature.clone()));
            (*prefix, *number)
        });
        let compiled: BTreeMap<PrefixKey, usize> = numbered.collect();
        let before = std::mem::replace(&mut self.prefixes, Arc::new(compiled));
        let now = self.prefixes.clone();
        now.values().for_each(|identity| self.begin_use(*identity));
        before.values().for_each(|identity| self.end_use(*identity));
        let keys: BTreeSet<&PrefixKey> = before.keys().chain(now.keys()).collect();
        let mut affected: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for prefix in keys.into_iter().filter(|prefix| before.get(prefix) != now.get(prefix)) {
            self.blocks.push(addresses_of(prefix));
            let inside = self.addresses.range(addresses_of(prefix));
            affected.extend(inside.map(|(address, identity)| (*address, *identity)));
        }
        for (address, identity) in affected {
            let claim = self.claim_backends(identity);
            self.set(address, Some(&claim));
        }
    }

    /// A pod with other addresses, or other properties.
    pub(super) fn replace(
        &mut self,
        before: Option<(&Arc<Pod>, &Arc<Signature>)>,
        after: Option<(&Arc<Pod>, &Arc<Signature>)>,
    ) {
        if let Some((pod, claim)) = before {
            pod.addresses.iter().for_each(|address| self.release(*address, claim));
        }
        if let Some((pod, claim)) = after {
            pod.addresses.iter().for_each(|address| self.claim(*address, claim));
        }
    }

    pub(super) fn claim(&mut self, address: IpAddr, claim: &Arc<Signature>) {
        if let Some(claims) = self.crowded.get_mut(&address) {
            claims.push(claim.clone());
        } else if let Some(&identity) = self.addresses.get(&address) {
            let first = self.claim_backends(identity);
            self.crowded.insert(address, vec![first, claim.clone()]);
        } else {
            self.set(address, Some(claim));
            return;
        }
        self.unite(address);
    }

    pub(super) fn release(&mut self, address: IpAddr, claim: &Arc<Signature>) {
        let Some(claims) = self.crowded.get_mut(&address) else {
            self.set(address, None);
            return;
        };
        if let Some(place) = claims.iter().position(|known| known == claim) {
            claims.swap_remove(place);
        }
        self.unite(address);
    }

    /// Ends the step.
    pub(super) fn settle(&mut self) -> Settled {
        let mut gone = BTreeSet::new();
        for identity in std::mem::take(&mut self.idle) {
            if identity != 0 && self.uses.get(&identity).copied().unwrap_or(0) == 0 {
                self.uses.remove(&identity);
                self.identities.remove(identity);
                gone.insert(identity);
            }
        }
        let mut new = std::mem::take(&mut self.new);
        new.retain(|identity| self.identities.contents().contains_key(identity));
        self.known.clear();
        self.known_claims.clear();
        let mut moves = std::mem::take(&mut self.before);
        moves.retain(|address, before| self.addresses.get(address) != before.as_ref());
        Settled { new, gone, moves, blocks: std::mem::take(&mut self.blocks) }
    }

    /// Gives an address that several claim what they all say of it.
    fn unite(&mut self, address: IpAddr) {
        let claims = &self.crowded[&address];
        let mut all = Signature::new();
        claims.iter().for_each(|claim| all.extend(claim.iter().cloned()));
        if claims.len() < 2 {
            self.crowded.remove(&address);
        }
        self.set(address, Some(&Arc::new(all)));
    }

    /// `None`: no one claims it.
    fn set(&mut self, address: IpAddr, claim: Option<&Arc<Signature>>) {
        let now = claim.map(|claim| self.identity(address, claim));
        now.iter().for_each(|identity| self.begin_use(*identity));
        let before = match now {
            Some(identity) => self.addresses.insert(address, identity),
            None => self.addresses.remove(&address),
        };
        before.iter().for_each(|identity| self.end_use(*identity));
        self.before.entry(address).or_insert(before);
    }

    fn identity(&mut self, address: IpAddr, claim: &Arc<Signature>) -> usize {
        let around = prefixes::longest(&self.prefixes, address.into()).copied().unwrap_or(0);
        let question = (around, Arc::as_ptr(claim).addr());
        if let Some((known, _)) = self.known.get(&question) {
            return *known;
        }
        let mut signature = (*self.identities.contents()[&around]).clone();
        signature.extend(claim.iter().cloned());
        let identity = self.number(Arc::new(signature));
        self.known.insert(question, (identity, claim.clone()));
        identity
    }

    fn number(&mut self, signature: Arc<Signature>) -> usize {
        let identity = self.identities.number(&signature);
        if identity != 0 && !self.uses.contains_key(&identity) {
            self.uses.insert(identity, 0);
            self.new.insert(identity);
            self.idle.insert(identity);
        }
        identity
    }

    /// What an identity has beside its blocks.
    fn claim_backends(&mut self, identity: usize) -> Arc<Signature> {
        let signature = &self.identities.contents()[&identity];
        let known = self.known_claims.entry(identity).or_insert_with(|| {
            let claimed = signature.iter().filter(|atom| atom.holder() != Holder::Networks);
            Arc::new(claimed.cloned().collect())
        });
        known.clone()
    }

    fn begin_use(&mut self, identity: usize) {
        *self.uses.entry(identity).or_default() += 1;
    }

    fn end_use(&mut self, identity: usize) {
        let uses = self.uses.entry(identity).or_default();
        *uses = uses.saturating_sub(1);
        if *uses == 0 {
            self.idle.insert(identity);
        }
    }
}

/// Addresses that a prefix may decide on.
fn addresses_of(prefix: &PrefixKey) -> RangeInclusive<IpAddr> {
    let first = u128::from_be_bytes(prefix.address.bytes());
    let last = first | u128::MAX.checked_shr(prefix.length).unwrap_or(0);
    let address = |bits: u128| Address::from_v6(bits.to_be_bytes());
    if prefix.address.is_v4() && prefix.length >= MAPPED_BITS {
        return address(first).into()..=address(last).into();
    }
    IpAddr::V6(Ipv6Addr::from_bits(first))..=IpAddr::V6(Ipv6Addr::from_bits(last))
}
