//! The publisher: brings the kernel from one complete state to the next, so that each packet is evaluated by
//! one of them.
//!
//! In: compiled tables and what is behind each veth. Out: map writes in the order that makes each step
//! harmless:
//!
//! 1. verdict rows of the new tables, beside those in force;
//! 2. ports -> class, addresses -> identity, services, owners;
//! 3. endpoint -> policy: one write is one pod's switch;
//! 4. the revision;
//! 5. when no running program can have seen the old state: what is in no use goes.
//!
//! A packet reads its endpoint first. One that still finds the old policy may meet new identities and
//! classes; the compiler knows which rule sets are in force ([`Publisher::in_force`]) and has rows for
//! those, too. One that has found the old identity before it meets the new class of a port needs rows of its
//! own ([`PublishTarget::crossing`]).

mod held;
mod ids;
mod names;
mod stale;
mod target;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use anyhow::{Context as _, Result};
use podgate_common::{
    Address, ClassId, Endpoint, EndpointState, PolicyId, Resolver, RuleProtocol, ServiceKey, TableSetIndex,
    TunnelPort, is_nodes,
};
use podgate_core::{
    address_filter::AddressFilter,
    compiler::{CompiledTables, RuleSet, Subject},
};

use self::{
    held::{add_flags, forget_addresses},
    ids::{Assigned, Ids},
    names::NameKeys,
    stale::Stale,
    target::{MapChanges, PublishTarget, new_keys, united},
};
use crate::{BpfMaps, Capacity, TableSet, WantedHosts};

/// The least room of a hash table. Doubling from here, a table is rebuilt a handful of times in its life.
const MIN_CAPACITY: u32 = 4_096;

/// What the kernel shall know of one veth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointEntry {
    /// Whether the pod is known.
    pub state: EndpointState,
    /// The rule sets of the pod.
    pub subject: Subject,
    /// The bridge that the veth is a port of, 0 if none.
    pub master: u32,
}

/// The veths of a node, by ifindex, and whose each address is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// By ifindex.
    pub endpoints: BTreeMap<u32, EndpointEntry>,
    /// Whose an address is: an ifindex, or one for which [`is_nodes`] holds.
    pub owners: BTreeMap<IpAddr, u32>,
    /// UDP ports at which tunnels of nodes listen.
    pub tunnel_ports: BTreeMap<u16, TunnelPort>,
    /// Addresses and ports of services over UDP that lead to tunnels of nodes; and, of those that the filter
    /// takes for such, [the ones that do not](ServiceKey::of_no_tunnel).
    pub tunnel_services: BTreeSet<ServiceKey>,
    /// The addresses of these services where there are more than have room.
    pub tunnel_filter: AddressFilter,
    /// What only devices with host endpoints look up.
    pub hosts: WantedHosts,
    /// Servers of which pods' replies are believed.
    pub resolvers: BTreeMap<ServiceKey, Resolver>,
    /// By ifindex, of the veths that are ports of bridges: the link-layer addresses that their pods were
    /// given.
    pub link_addresses: BTreeMap<u32, [u8; 6]>,
}

/// What a publication did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Raised when any verdict may have changed.
    pub revision: u32,
    /// False: rule sets that were in force until now are no longer; compile once more to coarsen the tables.
    pub settled: bool,
    /// When every packet was evaluated by the new state. Tidying up comes after it.
    pub enforced: Instant,
    /// The tables stand in another slot than before.
    moved: bool,
}

/// Knows what the kernel holds, and under which ids.
#[derive(Debug, Default)]
pub struct Publisher {
    current: Option<Current>,
    /// Writes to tables that larger ones have taken the place of.
    earlier_writes: u64,
}

#[derive(Debug)]
struct Current {
    table_set: TableSetIndex,
    capacity: Capacity,
    set: TableSet,
    ids: Ids,
    /// The rule sets that the endpoints refer to, and so the ones whose rows must stay right.
    in_force: BTreeMap<PolicyId, Arc<RuleSet>>,
    /// What the kernel holds, with its ids. `None` after a failure.
    published: Option<(CompiledTables, Assigned)>,
}

impl Publisher {
    /// Rule sets that a packet may still be evaluated by while the next tables are published.
    pub fn in_force(&self) -> Vec<Arc<RuleSet>> {
        self.current.iter().flat_map(|current| current.in_force.values()).cloned().collect()
    }

    /// Brings the kernel to the new state.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a write. What was in force stays in force; publishing again goes on from
    /// there.
    pub fn publish(
        &mut self,
        maps: &mut BpfMaps,
        tables: &CompiledTables,
        wanted: &Wanted,
    ) -> Result<Published> {
        let mut current = match self.current.take() {
            Some(current) => current,
            None => Current::create(maps, tables)?,
        };
        let names = current.name_keys(maps, tables)?;
        let mut target = current.target(tables, &names);
        if !current.has_room_for(&target, 3 * maps.names.count()) {
            tracing::info!(rows = target.rows.len(), addresses = target.addresses.len(), "tables grow");
            self.earlier_writes += current.set.writes();
            let in_force: BTreeSet<Arc<RuleSet>> = current.in_force.into_values().collect();
            current = Current::create(maps, tables).inspect_err(|_| {
                tracing::error!("cannot make larger tables: the policies in force stay");
            })?;
            // The tables hold them, too: they settle with the next publication.
            target = current.target(tables, &names);
            let held = tables.rule_sets.iter().filter(|(_, rule_set)| in_force.contains(*rule_set));
            current.in_force =
                held.map(|(index, rule_set)| (target.ids.policies[index], rule_set.clone())).collect();
        }
        let result = current.publish(maps, tables, wanted, target);
        let table_set = current.table_set;
        self.current = Some(current);
        let published = result?;
        if published.moved {
            for other in (0..TableSetIndex::COUNT).map(TableSetIndex).filter(|other| *other != table_set) {
                maps.clear(other)?;
            }
        }
        Ok(published)
    }

    /// How often this process has written to compiled tables.
    pub fn writes(&self) -> u64 {
        self.earlier_writes + self.current.as_ref().map_or(0, |current| current.set.writes())
    }

    /// Entries and room of the tables in use: (name, entries, room, `None` where only memory limits it).
    pub fn sizes(&self) -> Vec<(&'static str, usize, Option<u32>)> {
        let sizes = |Current { set, capacity, .. }: &Current| {
            [
                ("addresses", set.addresses.entries().len(), Some(capacity.addresses)),
                ("prefixes", set.prefixes.entries().len(), None),
                ("rows", set.rows.entries().len(), Some(capacity.rows)),
                ("services", set.services.entries().len(), Some(capacity.services)),
            ]
        };
        self.current.iter().flat_map(sizes).collect()
    }
}

impl Current {
    /// An empty table set at an index that no endpoint uses, with room for these tables.
    fn create(maps: &mut BpfMaps, tables: &CompiledTables) -> Result<Self> {
        let in_use: BTreeSet<TableSetIndex> =
            maps.endpoints.entries().values().map(|endpoint| endpoint.table_set).collect();
        let table_set = (0..TableSetIndex::COUNT)
            .map(TableSetIndex)
            .find(|table_set| !in_use.contains(table_set))
            .context("endpoints use every table set: none is free for new tables")?;
        let (mut ids, mut assigned) = (Ids::default(), Assigned::default());
        ids.assign(tables, &CompiledTables::default(), &mut assigned);
        let capacity = Capacity {
            addresses: room_for(tables.identities.addresses.len() + 3 * maps.names.count()),
            rows: room_for(target::count_rows(tables, &assigned)),
            services: room_for(tables.services.frontends.len()),
        };
        let set = TableSet::create(capacity)?;
        maps.install(table_set, &set)?;
        Ok(Self { table_set, capacity, set, ids, in_force: BTreeMap::new(), published: None })
    }

    fn name_keys(&self, maps: &mut BpfMaps, tables: &CompiledTables) -> Result<NameKeys> {
        let before = self.published.iter().map(|(before, _)| before);
        NameKeys::of(maps, before.chain([tables]))
    }

    fn target(&mut self, tables: &CompiledTables, names: &NameKeys) -> PublishTarget {
        let Self { set, ids, in_force, published, .. } = self;
        // Should a write fail, the next publication compares everything.
        match published.take() {
            Some((before, assigned)) if before.series.is(&tables.series) => {
                PublishTarget::since(before, assigned, tables, ids, set, in_force, names)
            }
            _ => {
                let mut assigned = Assigned::default();
                ids.assign(tables, &CompiledTables::default(), &mut assigned);
                PublishTarget::compared(assigned, tables, ids, set, in_force, names)
            }
        }
    }

    /// `names`: keys that may come beside those of the tables.
    fn has_room_for(&self, target: &PublishTarget, names: usize) -> bool {
        let crossing = target.crossing.keys().filter(|key| !target.rows.contains_key(key));
        let crossing = crossing.filter(|key| !self.set.rows.entries().contains_key(key)).count();
        self.ids.have_room()
            && self.set.rows.entries().len() + new_keys(self.set.rows.entries(), &target.rows) + crossing
                <= self.capacity.rows as usize
            && self.set.addresses.entries().len()
                + new_keys(self.set.addresses.entries(), &target.addresses)
                + names
                <= self.capacity.addresses as usize
            && self.set.services.entries().len() + new_keys(self.set.services.entries(), &target.services)
                <= self.capacity.services as usize
    }

    fn publish(
        &mut self,
        maps: &mut BpfMaps,
        tables: &CompiledTables,
        wanted: &Wanted,
        target: PublishTarget,
    ) -> Result<Published> {
        let PublishTarget { before, mut ids, rows, crossing, mut addresses, prefixes, services } = target;
        let same_classes =
            before.as_ref().is_some_and(|before| Arc::ptr_eq(&before.classes, &tables.classes));
        let writes = |maps: &BpfMaps, set: &TableSet| {
            maps.hosts.writes() + maps.endpoints.writes() + maps.owners.writes() + set.writes()
        };
        let written = writes(maps, &self.set);
        let moved = maps.endpoints.entries().values().any(|endpoint| endpoint.table_set != self.table_set);

        // 1. A row that is in force keeps the bits of classes that ports still have.
        let coming = rows.iter().filter_map(|(key, row)| Some((key, row.as_ref()?)));
        for (key, row) in coming.chain(&crossing) {
            let held = self.set.rows.entries().get(key).copied().unwrap_or_default();
            // Where ids stand in place of bits, two rows have no union.
            let row = if key.is_of_strata() { *row } else { united(held, *row) };
            self.set.rows.put(*key, row)?;
        }
        // 2.
        if !same_classes {
            for protocol in RuleProtocol::ALL {
                let runs = &tables.classes.runs[protocol.index() as usize];
                self.set.ports.set_all(protocol, &runs_of_ids(runs, &ids.classes));
            }
        }
        self.set.prefixes.change(&prefixes)?;
        maps.names.retire(&tables.names);
        addresses.extend(names::moved(maps, tables, &ids));
        self.set.addresses.change(&addresses)?;
        let (coming, gone): (MapChanges<_, _>, MapChanges<_, _>) =
            services.into_iter().partition(|(_, place)| place.is_some());
        self.set.services.change(&coming)?;
        let owners: BTreeMap<Address, u32> =
            wanted.owners.iter().map(|(address, ifindex)| ((*address).into(), *ifindex)).collect();
        let stale = Stale::of(maps, wanted, &owners, before.is_none())?;
        // With the exceptions of the filter, before it.
        let tunnel_services = stale::put_tunnel_services(maps, wanted)?;
        let filters = [&tables.services.filter, &wanted.tunnel_filter];
        maps.filter.add(filters)?;
        // Before the endpoints: a new policy has no verdict on what is behind a service that goes.
        let flags = tables.services.endpoint_flags();
        add_flags(maps, flags)?;
        // No program may miss a service both where it is listed and in the filter while it changes from one
        // to the other.
        let has_filter = maps.endpoints.entries().values().any(Endpoint::has_filter);
        if has_filter && !gone.is_empty() {
            maps.wait_for_programs(self.table_set, &self.set)?;
        }
        self.set.services.change(&gone)?;
        forget_addresses(maps, &owners)?;
        maps.owners.put_all(&owners)?;
        maps.tunnel_ports.add(&wanted.tunnel_ports)?;
        maps.link_addresses.set_all(&wanted.link_addresses);
        maps.hosts.add(&wanted.hosts)?;
        // 3.
        let mut endpoints: BTreeMap<u32, Endpoint> =
            wanted.endpoints.iter().map(|(&at, entry)| (at, self.endpoint(entry, &ids, flags))).collect();
        let of_pods = wanted.owners.iter().rev().filter(|(_, owner)| !is_nodes(**owner));
        for (&address, ifindex) in of_pods {
            // Of several in one family the lowest stays.
            if let Some(endpoint) = endpoints.get_mut(ifindex) {
                let own = if address.is_ipv4() { &mut endpoint.v4 } else { &mut endpoint.v6 };
                *own = address.into();
            }
        }
        let resolvers = maps.names.resolvers.entries().keys().copied().collect();
        names::prepare(maps, tables, wanted, &mut endpoints)?;
        let subjects = wanted.endpoints.values().flat_map(|entry| entry.subject.rule_sets());
        let parts = |at| tables.strata.get(&at).into_iter().flat_map(|parts| parts.iter());
        let subjects = subjects.flat_map(|at| parts(at).flat_map(|part| [part.names, part.open]).chain([at]));
        let in_force: BTreeMap<PolicyId, Arc<RuleSet>> = subjects
            .filter(|&at| at != 0)
            .map(|at| (ids.policies[&at], tables.rule_sets[&at].clone()))
            .collect();
        // Should a write fail, some endpoints have the new rule sets and some the old ones.
        let settled = self.in_force.keys().all(|policy| in_force.contains_key(policy));
        self.in_force.extend(in_force.clone());
        let held_names = names::tables_of(maps.endpoints.entries().values());
        maps.endpoints.put_all(&endpoints)?;
        self.in_force = in_force;
        // 4.
        let mut revision = maps.revision()?;
        if writes(maps, &self.set) != written || revision == 0 {
            revision = revision.wrapping_add(1);
            maps.set_revision(revision)?;
        }
        let enforced = Instant::now();
        let held = before.is_some().then_some((&held_names, &resolvers));
        names::mark_connections(maps, wanted, held)?;
        // 5.
        let goes = !crossing.is_empty()
            || rows.iter().any(|(key, row)| self.set.rows.entries().get(key) != row.as_ref())
            || maps.owners.entries().len() != owners.len()
            || maps.endpoints.entries().len() != endpoints.len()
            || held_names != names::tables_of(endpoints.values())
            || self.ids.has_idle(tables)
            || maps.filter.may_have_others(filters)
            // A program that has read the old state may still enter what it asks for.
            || stale.is_any();
        if goes {
            maps.wait_for_programs(self.table_set, &self.set)?;
        }
        for key in crossing.keys() {
            self.set.rows.remove(key)?;
        }
        self.set.rows.change(&rows)?;
        maps.owners.keep(&owners)?;
        maps.tunnel_ports.set_all(&wanted.tunnel_ports)?;
        maps.tunnel_services.keep(&tunnel_services)?;
        maps.hosts.keep(&wanted.hosts)?;
        maps.endpoints.keep(&endpoints)?;
        maps.filter.keep(filters)?;
        names::tidy(maps, tables, wanted, &held_names)?;
        match &before {
            Some(before) if same_classes => self.ids.free(tables, before, &mut ids),
            _ => self.ids.keep(tables, &mut ids),
        }
        if stale.is_any() {
            let gone = maps.flows.open()?.remove(|key, flow| stale.has(key, flow));
            tracing::debug!(flows = gone, "removed stale connections");
        }
        self.published = Some((tables.clone(), ids));
        Ok(Published { revision, settled, enforced, moved })
    }

    fn endpoint(&self, entry: &EndpointEntry, ids: &Assigned, flags: u32) -> Endpoint {
        Endpoint {
            state: entry.state as u32,
            table_set: self.table_set,
            ingress: ids.policies[&entry.subject.ingress],
            egress: ids.policies[&entry.subject.egress],
            audit_ingress: ids.policies[&entry.subject.audit_ingress],
            audit_egress: ids.policies[&entry.subject.audit_egress],
            master: entry.master,
            flags,
            ..Endpoint::PENDING
        }
    }
}

fn runs_of_ids(runs: &[(u16, usize)], classes: &[ClassId]) -> Vec<(u16, ClassId)> {
    runs.iter().map(|&(first, class)| (first, classes[class])).collect()
}

/// Twice what is needed now.
fn room_for(entries: usize) -> u32 {
    let doubled = u32::try_from(entries.saturating_mul(2)).unwrap_or(u32::MAX / 2 + 1);
    doubled.max(MIN_CAPACITY).checked_next_power_of_two().unwrap_or(1 << 31)
}
