//! Changes of the endpoints that are in force, before they are replaced.

use std::collections::BTreeMap;

use anyhow::Result;
use podgate_common::{Address, Endpoint};

use crate::BpfMaps;

/// Lets the policies of before find services by their addresses too.
pub(super) fn add_flags(maps: &mut BpfMaps, flags: u32) -> Result<()> {
    let held = maps.endpoints.entries().iter();
    let flagged = held.map(|(&at, held)| (at, Endpoint { flags: held.flags | flags, ..*held }));
    let endpoints: BTreeMap<u32, Endpoint> = flagged.collect();
    maps.endpoints.put_all(&endpoints)
}

/// Takes from endpoints the addresses that are about to be another's, or no one's: a pod may send from its
/// endpoint's addresses, whatever the owners say.
pub(super) fn forget_addresses(maps: &mut BpfMaps, owners: &BTreeMap<Address, u32>) -> Result<()> {
    let kept = |address: Address, ifindex| {
        if owners.get(&address) == Some(&ifindex) { address } else { Address::UNSPECIFIED }
    };
    let endpoints: BTreeMap<u32, Endpoint> = maps
        .endpoints
        .entries()
        .iter()
        .map(|(&ifindex, &held)| {
            (ifindex, Endpoint { v4: kept(held.v4, ifindex), v6: kept(held.v6, ifindex), ..held })
        })
        .collect();
    maps.endpoints.put_all(&endpoints)
}
