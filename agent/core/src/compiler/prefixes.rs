//! ipBlocks as prefixes: each prefix knows every set of blocks that covers it, so that the longest one says
//! it all.
//!
//! This is what makes overlapping blocks harmless: an entry for `10.1.0.0/16` carries the properties of
//! `10.0.0.0/8` too, less those whose blocks except it. A prefix that says no more than the one around it is
//! left out.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use ipnet::IpNet;
use podgate_common::{Address, PrefixKey};

use super::{Atom, Shared, Signature, TableLimits};
use crate::model::IpBlock;

/// Bits of the mapped form before an IPv4 address.
const MAPPED_BITS: u32 = 96;

/// Every prefix at which other properties hold than around it, with those properties; `None`: more than the
/// limits allow.
pub(super) fn compile(
    blocks: &[(&Shared<Atom>, &BTreeSet<IpBlock>)],
    limits: &TableLimits,
) -> Option<BTreeMap<PrefixKey, Arc<Signature>>> {
    let changes = changes(blocks);
    let nothing: Arc<Signature> = Arc::default();
    let mut known: HashMap<Vec<usize>, Arc<Signature>> = HashMap::from([(Vec::new(), nothing.clone())]);
    let mut compiled = BTreeMap::new();
    let (mut memberships, mut visits) = (0, 0);
    // The prefixes around the one at hand.
    let mut around: Vec<Around> = Vec::new();
    for (prefix, changes) in changes {
        while around.last().is_some_and(|last| !last.prefix.contains(&prefix)) {
            around.pop();
        }
        let (outer, mut covering) = match around.last() {
            // IPv6 prefixes that contain the mapped form must not reach IPv4 addresses.
            Some(last) if prefix == Ordered::MAPPED => (&last.signature, Vec::new()),
            Some(last) => (&last.signature, last.covering.clone()),
            None => (&nothing, Vec::new()),
        };
        for (atom, change) in changes {
            let place = covering.partition_point(|(other, _)| *other < atom);
            match covering.get_mut(place).filter(|(other, _)| *other == atom) {
                Some((_, count)) => *count += change,
                None => covering.insert(place, (atom, change)),
            }
        }
        covering.retain(|(_, count)| *count > 0);
        visits += covering.len();
        let places: Vec<usize> = covering.iter().map(|(atom, _)| *atom).collect();
        let signature = known.entry(places).or_insert_with_key(|places| {
            memberships += places.len();
            Arc::new(places.iter().map(|place| blocks[*place].0.clone()).collect())
        });
        if memberships > limits.memberships || visits > MOST_VISITS {
            return None;
        }
        // What IPv4 addresses have is always said, also where IPv6 networks around the mapped form say the
        // same: who looks for the addresses in a prefix looks for those of its family.
        let divides_families = prefix == Ordered::MAPPED && !around.is_empty();
        if divides_families || !Arc::ptr_eq(signature, outer) {
            compiled.insert(prefix.key(), signature.clone());
        }
        around.push(Around { prefix, covering, signature: signature.clone() });
    }
    Some(compiled)
}

/// Properties that are looked at, prefix by prefix: some 100 ms. One namespace can cause a quarter of it.
const MOST_VISITS: usize = 1 << 25;

struct Around {
    prefix: Ordered,
    /// How many blocks of each property cover it, by the place of the property.
    covering: Vec<(usize, i32)>,
    signature: Arc<Signature>,
}

/// A prefix, ordered so that what lies in one follows it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Ordered {
    bits: u128,
    length: u32,
}

impl Ordered {
    const MAPPED: Self = Self { bits: 0xffff << 32, length: MAPPED_BITS };

    fn contains(&self, other: &Self) -> bool {
        self.length <= other.length && mask(other.bits, self.length) == self.bits
    }

    const fn key(self) -> PrefixKey {
        PrefixKey { length: self.length, address: Address::from_v6(self.bits.to_be_bytes()) }
    }
}

/// Where blocks of which property begin (1) and are excepted from (-1).
fn changes(blocks: &[(&Shared<Atom>, &BTreeSet<IpBlock>)]) -> BTreeMap<Ordered, Vec<(usize, i32)>> {
    let mut changes: BTreeMap<Ordered, Vec<(usize, i32)>> = BTreeMap::new();
    for (place, (_, blocks)) in blocks.iter().enumerate() {
        for IpBlock { cidr, except } in *blocks {
            if is_mapped(cidr) {
                continue;
            }
            changes.entry(ordered(cidr)).or_default().push((place, 1));
            let mut last: Option<Ordered> = None;
            // A network comes right before those that lie in it.
            for net in except.iter().filter(|net| !is_mapped(net)) {
                let except = ordered(net);
                if last.is_none_or(|last| !last.contains(&except)) {
                    changes.entry(except).or_default().push((place, -1));
                    last = Some(except);
                }
            }
        }
    }
    if changes.keys().any(|prefix| prefix.length < MAPPED_BITS) {
        changes.entry(Ordered::MAPPED).or_default();
    }
    changes
}

/// IPv6 networks of mapped addresses match no packet: the parser refuses these.
fn is_mapped(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(_)) && Ordered::MAPPED.contains(&ordered(net))
}

/// What the kernel's trie finds: the value of the longest prefix that contains the address.
pub(super) fn longest<T>(prefixes: &BTreeMap<PrefixKey, T>, address: Address) -> Option<&T> {
    // From the longest down, jumping over lengths that no prefix has.
    let mut bound = PrefixKey { length: 129, address: Address::from_v6([0; 16]) };
    loop {
        let (candidate, _) = prefixes.range(..bound).next_back()?;
        let masked = mask(u128::from_be_bytes(address.bytes()), candidate.length);
        let masked = Address::from_v6(masked.to_be_bytes());
        let key = PrefixKey { length: candidate.length, address: masked };
        if let Some(found) = prefixes.get(&key) {
            return Some(found);
        }
        bound = PrefixKey { length: candidate.length, address: Address::from_v6([0; 16]) };
    }
}

fn ordered(net: &IpNet) -> Ordered {
    let family = if net.addr().is_ipv4() { MAPPED_BITS } else { 0 };
    let address: Address = net.network().into();
    Ordered { bits: u128::from_be_bytes(address.bytes()), length: family + u32::from(net.prefix_len()) }
}

fn mask(bits: u128, length: u32) -> u128 {
    bits & u128::MAX.checked_shl(128 - length).unwrap_or(0)
}
