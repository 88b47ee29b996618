//! Names in the kernel: where each stands among addresses, the tables of the pods that have rules with names,
//! and the connections from which these learn.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use anyhow::Result;
use podgate_common::{Address, Endpoint, Flow, FlowKey, IdentityId, Protocol, Seen, ServiceKey};
use podgate_core::compiler::{CompiledTables, NamePlace, Subject, name_key};

use super::{EndpointEntry, Wanted, ids::Assigned, target::MapChanges};
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

/// Writes what the programs need to learn before the endpoints say that they shall: the names, the resolvers,
/// and a table for each pod.
///
/// # Errors
///
/// When the kernel refuses names or resolvers.
pub(super) fn prepare(
    maps: &mut BpfMaps,
    tables: &CompiledTables,
    wanted: &Wanted,
    endpoints: &mut BTreeMap<u32, Endpoint>,
) -> Result<()> {
    maps.names.show(&tables.names)?;
    maps.names.resolvers.put_all(&wanted.resolvers)?;
    give_tables(maps, tables, &wanted.endpoints, endpoints);
    Ok(())
}

/// Takes away what no program asks for any more; `held`: the tables that pods had.
///
/// # Errors
///
/// When the kernel refuses.
pub(super) fn tidy(
    maps: &mut BpfMaps,
    tables: &CompiledTables,
    wanted: &Wanted,
    held: &BTreeSet<u32>,
) -> Result<()> {
    maps.names.keep(&tables.names)?;
    maps.names.resolvers.keep(&wanted.resolvers)?;
    for table in held.difference(&tables_of(maps.endpoints.entries().values())) {
        maps.names.remove_table(*table)?;
    }
    Ok(())
}

/// Has the replies of connections to resolvers read that pods have opened before they had rules with names,
/// or before it was known that their server is a resolver: some clients keep one socket for days. `held`: the
/// tables that pods had, and the resolvers that there were; `None`: no one has looked at the connections yet.
///
/// # Errors
///
/// When the kernel refuses the mapping of the flow table, or its programs do not let the agent write.
pub(super) fn mark_connections(
    maps: &BpfMaps,
    wanted: &Wanted,
    held: Option<(&BTreeSet<u32>, &BTreeSet<ServiceKey>)>,
) -> Result<()> {
    let endpoints = maps.endpoints.entries();
    let is_new = |endpoint: &Endpoint| {
        endpoint.names != 0 && held.is_none_or(|(tables, _)| !tables.contains(&endpoint.names))
    };
    let are_new =
        held.is_some_and(|(_, resolvers)| wanted.resolvers.keys().any(|key| !resolvers.contains(key)));
    let learns = |endpoint: &Endpoint| is_new(endpoint) || are_new && endpoint.names != 0;
    let learning: BTreeSet<u32> =
        endpoints.iter().filter(|(_, endpoint)| learns(endpoint)).map(|(ifindex, _)| *ifindex).collect();
    if learning.is_empty() {
        return Ok(());
    }
    let flows = maps.flows.open()?;
    let asks = |(key, flow): &(FlowKey, Flow)| {
        learning.contains(&flow.client_if)
            && !key.is_at_host()
            && !flow.seen.has(Seen::NAMES)
            && leads_to_resolver(key, flow, wanted)
    };
    let asking: Vec<_> = flows.entries().filter(asks).collect();
    for (key, flow) in &asking {
        // One that has gone meanwhile comes back: it was let through a moment ago.
        flows.enter(*key, |known| {
            let flow = known.unwrap_or(*flow);
            Flow { seen: flow.seen.that_reads_names(), ..flow }
        })?;
    }
    if !asking.is_empty() {
        tracing::debug!(flows = asking.len(), "live connections to resolvers are read for names");
    }
    Ok(())
}

fn leads_to_resolver(key: &FlowKey, flow: &Flow, wanted: &Wanted) -> bool {
    let ([low, high], [low_port, high_port]) = (key.addresses(), key.ports());
    let (server, port) = if flow.seen.has(Seen::CLIENT_IS_LOW) { (high, high_port) } else { (low, low_port) };
    let protocol = Protocol::try_from(key.protocol());
    protocol.is_ok_and(|protocol| wanted.resolvers.contains_key(&ServiceKey::new(server, protocol, port)))
}

/// Gives each pod that has rules with names a table of what it has learnt. One that has a table keeps it. A
/// pod for which there is none learns nothing, and its names open nothing.
fn give_tables(
    maps: &mut BpfMaps,
    tables: &CompiledTables,
    wanted: &BTreeMap<u32, EndpointEntry>,
    endpoints: &mut BTreeMap<u32, Endpoint>,
) {
    let mut in_use: BTreeSet<u32> = tables_of(maps.endpoints.entries().values());
    let mut without = BTreeSet::new();
    for (ifindex, endpoint) in endpoints {
        let has_names = |entry: &EndpointEntry| {
            let sets = Subject::of_egress(&entry.subject);
            sets.iter().any(|rule_set| tables.strata.contains_key(rule_set))
        };
        if !wanted.get(ifindex).is_some_and(has_names) {
            continue;
        }
        let held = maps.endpoints.entries().get(ifindex).filter(|held| is_same_pods(held, endpoint));
        let held = held.map_or(0, |held| held.names);
        endpoint.names = if held != 0 {
            held
        } else {
            maps.names.make_table(&in_use).unwrap_or_else(|error| {
                without.insert(*ifindex);
                if !maps.names.without_table.contains(ifindex) {
                    let error = format!("{error:#}");
                    tracing::error!(
                        ifindex,
                        error,
                        "a pod learns no names: its rules with names open nothing"
                    );
                }
                0
            })
        };
        in_use.extend(Some(endpoint.names).filter(|table| *table != 0));
    }
    maps.names.without_table = without;
}

/// Whether the same pod is behind a veth: another one must not have what this one has learnt.
fn is_same_pods(held: &Endpoint, now: &Endpoint) -> bool {
    let pairs = [(held.v4, now.v4), (held.v6, now.v6)];
    pairs.iter().any(|(before, now)| before == now && !now.is_unspecified())
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
