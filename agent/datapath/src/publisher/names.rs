//! Names in the kernel: where each stands among addresses, and the tables of the pods that have rules with
//! names.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use anyhow::Result;
use podgate_common::{Address, Endpoint, IdentityId};
use podgate_core::compiler::{CompiledTables, NamePlace, Subject, name_key};

use super::{EndpointEntry, ids::Assigned, target::MapChanges};
use crate::BpfMaps;

/// Where the names of tables stand in the kernel: the compiler knows none of its numbers.
#[derive(Debug, Default)]
pub(super) struct NameKeys(HashMap<IpAddr, Address>);

impl NameKeys {
    /// Of these tables and of those that were published before.
    ///
    /// # Errors
    ///
    /// When the kernel does not take the number of the next name.
    pub(super) fn of<'a>(
        maps: &mut BpfMaps,
        tables: impl IntoIterator<Item = &'a CompiledTables>,
    ) -> Result<Self> {
        let mut keys = HashMap::new();
        for tables in tables {
            maps.names.number(&*tables.names)?;
            let ids = tables.names.iter().filter_map(|place| Some((place, maps.names.id(place)?)));
            keys.extend(ids.map(|(place, id)| (name_key(place), id.as_key())));
        }
        Ok(Self(keys))
    }

    /// The key of an address, or of a name that stands in its place.
    pub(super) fn key(&self, address: IpAddr) -> Address {
        self.0.get(&address).copied().unwrap_or_else(|| address.into())
    }
}

/// Gives each pod that has rules with names a table of what it has learnt. One that has a table keeps it.
pub(super) fn give_tables(
    maps: &mut BpfMaps,
    tables: &CompiledTables,
    wanted: &BTreeMap<u32, EndpointEntry>,
    endpoints: &mut BTreeMap<u32, Endpoint>,
) -> Result<()> {
    let mut in_use: BTreeSet<u32> = tables_of(maps.endpoints.entries().values());
    for (ifindex, endpoint) in endpoints {
        let has_names = |entry: &EndpointEntry| {
            let sets = Subject::of_egress(&entry.subject);
            sets.iter().any(|rule_set| tables.strata.contains_key(rule_set))
        };
        if !wanted.get(ifindex).is_some_and(has_names) {
            continue;
        }
        let held = maps.endpoints.entries().get(ifindex).map_or(0, |held| held.names);
        endpoint.names = if held != 0 { held } else { maps.names.make_table(&in_use)? };
        in_use.insert(endpoint.names);
    }
    Ok(())
}

/// What was learnt for names that no rule has any more is what they are to the rules that there are.
pub(super) fn moved(
    maps: &BpfMaps,
    tables: &CompiledTables,
    ids: &Assigned,
) -> MapChanges<Address, IdentityId> {
    let identity = |place: NamePlace| {
        let index = tables.identities.addresses.get(&name_key(&place))?;
        Some(ids.identities[index])
    };
    let retired = maps.names.retired().into_iter();
    retired.map(|(id, place)| (id.as_key(), place.and_then(identity))).collect()
}

/// The tables of endpoints.
pub(super) fn tables_of<'a>(endpoints: impl IntoIterator<Item = &'a Endpoint>) -> BTreeSet<u32> {
    endpoints.into_iter().map(|endpoint| endpoint.names).filter(|names| *names != 0).collect()
}
