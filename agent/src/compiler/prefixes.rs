//! ipBlocks as prefixes: each prefix knows every block that covers it, so that the longest one says it all.
//!
//! This is what makes overlapping blocks harmless: an entry for `10.1.0.0/16` carries the properties of `10.0.0.0/8`
//! too, less those blocks that except it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipnet::IpNet;
use podgate_common::{Address, PrefixKey};

use super::{Atom, Signature};
use crate::model::IpBlock;

/// Bits of the mapped form before an IPv4 address.
const MAPPED_BITS: u32 = 96;

/// Every prefix that a block names, with the blocks that hold for its addresses.
pub(super) fn compile(blocks: &[(&Arc<Atom>, &IpBlock)]) -> BTreeMap<PrefixKey, Signature> {
    let mut begins: BTreeMap<PrefixKey, Vec<&Arc<Atom>>> = BTreeMap::new();
    let mut excepts: BTreeMap<PrefixKey, Vec<&Arc<Atom>>> = BTreeMap::new();
    for &(atom, block) in blocks {
        begins.entry(prefix_key(&block.cidr)).or_default().push(atom);
        for except in &block.except {
            excepts.entry(prefix_key(except)).or_default().push(atom);
        }
    }
    // IPv6 prefixes that contain the mapped form must not reach IPv4 addresses.
    let mapped = PrefixKey { length: MAPPED_BITS, address: Address::from_v4([0; 4]) };
    let mut prefixes: BTreeSet<PrefixKey> = begins.keys().chain(excepts.keys()).copied().collect();
    if prefixes.iter().any(|prefix| prefix.length < MAPPED_BITS) {
        prefixes.insert(mapped);
    }
    // `PrefixKey` orders by length: what covers a prefix comes before it.
    let mut compiled: BTreeMap<PrefixKey, Signature> = BTreeMap::new();
    for prefix in prefixes {
        let mut signature = if prefix == mapped {
            Signature::new()
        } else {
            longest(&compiled, prefix.address).cloned().unwrap_or_default()
        };
        for atom in excepts.get(&prefix).into_iter().flatten() {
            signature.remove(*atom);
        }
        signature.extend(begins.get(&prefix).into_iter().flatten().map(|atom| Arc::clone(atom)));
        compiled.insert(prefix, signature);
    }
    compiled
}

/// What the kernel's trie finds: the value of the longest prefix that contains the address.
pub(super) fn longest<T>(prefixes: &BTreeMap<PrefixKey, T>, address: Address) -> Option<&T> {
    // From the longest down, jumping over lengths that no prefix has.
    let mut bound = PrefixKey { length: 129, address: Address::from_v6([0; 16]) };
    loop {
        let (candidate, _) = prefixes.range(..bound).next_back()?;
        let masked = mask(address, candidate.length);
        let key = PrefixKey { length: candidate.length, address: masked };
        if let Some(found) = prefixes.get(&key) {
            return Some(found);
        }
        bound = PrefixKey { length: candidate.length, address: Address::from_v6([0; 16]) };
    }
}

pub(super) fn prefix_key(net: &IpNet) -> PrefixKey {
    let family = if net.addr().is_ipv4() { MAPPED_BITS } else { 0 };
    PrefixKey { length: family + u32::from(net.prefix_len()), address: net.network().into() }
}

fn mask(address: Address, length: u32) -> Address {
    let bits = u128::from_be_bytes(address.bytes());
    let kept = u128::MAX.checked_shl(128 - length).unwrap_or(0);
    Address::from_v6((bits & kept).to_be_bytes())
}
