//! The publisher: brings the kernel from one complete state to the next, so that each packet is judged by one of them.
//!
//! In: compiled tables and what is behind each veth. Out: map writes in the order that makes each step harmless:
//!
//! 1. verdict rows of the new tables, beside those in force;
//! 2. ports -> class, addresses -> identity, services, owners;
//! 3. endpoint -> policy: one write is one pod's switch;
//! 4. the epoch;
//! 5. when no running program can have seen the old state: what is in no use goes.
//!
//! A packet reads its endpoint first. One that still finds the old policy may meet new identities and classes; the
//! compiler was told which rule sets are in force ([`Publisher::in_force`]) and has rows for those, too. One that has
//! found the old identity before it meets the new class of a port needs rows of its own ([`Target::crossing`]).

mod ids;

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use anyhow::{Context as _, Result};
use podgate_common::{
    Address, BITS_PER_ROW, ClassId, Endpoint, EndpointState, IdentityId, PolicyId, Protocol, Row, RowKey,
    ServiceId, ServiceKey, Slot,
};

use self::ids::{Assigned, Ids};
use crate::{
    compiler::{Rows, RuleSet, Subject, Tables, compile_rows},
    kernel::{Capacity, Maps, TableSet},
};

/// The least room of a hash table. Doubling from here, a table is rebuilt a handful of times in its life.
const MIN_CAPACITY: u32 = 4_096;

/// What the kernel shall know of one veth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    pub state: EndpointState,
    pub subject: Subject,
    /// The bridge that the veth is a port of, 0 if none.
    pub master: u32,
}

/// The veths of a node, by ifindex, and whose each address is (0: the node's own).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub endpoints: BTreeMap<u32, Judged>,
    pub owners: BTreeMap<IpAddr, u32>,
}

/// What a publication did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Raised when any verdict may have changed.
    pub epoch: u32,
    /// False: rule sets that were in force until now are no longer; compile once more to coarsen the tables.
    pub settled: bool,
    /// The tables stand in another slot than before.
    moved: bool,
}

/// Knows what the kernel holds, and under which ids.
#[derive(Debug, Default)]
pub struct Publisher {
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    slot: Slot,
    capacity: Capacity,
    set: TableSet,
    ids: Ids,
    /// The rule sets that the endpoints refer to, and so the ones whose rows must stay right.
    in_force: BTreeSet<Arc<RuleSet>>,
}

impl Publisher {
    /// Rule sets that a packet may still be judged by while the next tables are published.
    pub fn in_force(&self) -> Vec<Arc<RuleSet>> {
        self.current.iter().flat_map(|current| &current.in_force).cloned().collect()
    }

    /// Brings the kernel to the new state.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a write. What was in force stays in force; publishing again goes on from there.
    pub fn publish(&mut self, maps: &mut Maps, tables: &Tables, wanted: &Wanted) -> Result<Published> {
        let mut current = match self.current.take() {
            Some(current) => current,
            None => Current::create(maps, tables)?,
        };
        let mut target = current.target(tables);
        if !current.has_room_for(&target) {
            tracing::info!(rows = target.rows.len(), addresses = target.addresses.len(), "tables grow");
            let in_force = current.in_force;
            current = Current::create(maps, tables).inspect_err(|_| {
                tracing::error!("no larger tables: what was in force stays");
            })?;
            // The tables hold them, too: they settle with the next publication.
            current.in_force = in_force;
            target = current.target(tables);
        }
        let result = current.publish(maps, tables, wanted, &target);
        let slot = current.slot;
        self.current = Some(current);
        let published = result?;
        if published.moved {
            for other in (0..Slot::COUNT).map(Slot).filter(|other| *other != slot) {
                maps.clear(other)?;
            }
        }
        Ok(published)
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

/// Tables with the ids that the kernel sees.
struct Target {
    ids: Assigned,
    rows: BTreeMap<RowKey, Row>,
    /// What the rule sets in force say of identities that go, for the classes to come.
    crossing: BTreeMap<RowKey, Row>,
    addresses: BTreeMap<Address, IdentityId>,
    prefixes: BTreeMap<podgate_common::PrefixKey, IdentityId>,
    services: BTreeMap<ServiceKey, ServiceId>,
}

impl Current {
    /// An empty table set in a slot that no endpoint is judged by, with room for these tables.
    fn create(maps: &mut Maps, tables: &Tables) -> Result<Self> {
        let in_use: BTreeSet<Slot> =
            maps.endpoints.entries().values().map(|endpoint| endpoint.slot).collect();
        let slot = (0..Slot::COUNT)
            .map(Slot)
            .find(|slot| !in_use.contains(slot))
            .context("endpoints are judged by every table slot there is")?;
        let mut ids = Ids::default();
        let assigned = ids.assign(tables);
        let capacity = Capacity {
            addresses: room_for(tables.identities.addresses.len()),
            rows: room_for(rows(&tables.rows, &assigned).len() + tables.services.verdicts.len()),
            services: room_for(tables.services.fronts.len()),
        };
        let set = TableSet::create(capacity)?;
        maps.install(slot, &set)?;
        Ok(Self { slot, capacity, set, ids, in_force: BTreeSet::new() })
    }

    fn target(&mut self, tables: &Tables) -> Target {
        let ids = self.ids.assign(tables);
        let identity = |index: &usize| ids.identities[*index];
        Target {
            rows: rows(&tables.rows, &ids).into_iter().chain(service_rows(tables, &ids)).collect(),
            crossing: self.crossing(tables, &ids),
            addresses: tables
                .identities
                .addresses
                .iter()
                .map(|(at, id)| ((*at).into(), identity(id)))
                .collect(),
            prefixes: tables.identities.prefixes.iter().map(|(at, id)| (*at, identity(id))).collect(),
            services: tables.services.fronts.iter().map(|(at, id)| (*at, ids.services[*id])).collect(),
            ids,
        }
    }

    fn crossing(&self, tables: &Tables, ids: &Assigned) -> BTreeMap<RowKey, Row> {
        let (signatures, identities) = self.ids.leaving(tables);
        let in_force = tables.rule_sets.iter().zip(&ids.policies);
        let (rule_sets, policies): (Vec<_>, _) = in_force
            .filter(|(rule_set, _)| self.in_force.contains(*rule_set))
            .map(|(rule_set, id)| (rule_set.clone(), *id))
            .unzip();
        let compiled = compile_rows(&rule_sets, &signatures, &tables.classes);
        let classes = ids.classes.clone();
        rows(&compiled, &Assigned { policies, identities, classes, services: Vec::new() })
    }

    fn has_room_for(&self, target: &Target) -> bool {
        let coming: BTreeMap<_, _> = target.rows.iter().chain(&target.crossing).collect();
        fits(self.set.rows.entries(), &coming, self.capacity.rows)
            && fits(self.set.addresses.entries(), &target.addresses, self.capacity.addresses)
            && fits(self.set.services.entries(), &target.services, self.capacity.services)
    }

    fn publish(
        &mut self,
        maps: &mut Maps,
        tables: &Tables,
        wanted: &Wanted,
        target: &Target,
    ) -> Result<Published> {
        let writes =
            |maps: &Maps, set: &TableSet| maps.endpoints.writes() + maps.owners.writes() + set.writes();
        let before = writes(maps, &self.set);
        let moved = maps.endpoints.entries().values().any(|endpoint| endpoint.slot != self.slot);

        // 1. A row that is in force keeps the bits of classes that ports still have.
        for (key, row) in target.rows.iter().chain(&target.crossing) {
            let held = self.set.rows.entries().get(key).copied().unwrap_or_default();
            self.set.rows.put(*key, united(held, *row))?;
        }
        // 2.
        for protocol in Protocol::ALL {
            let runs = &tables.classes.runs[protocol.index() as usize];
            self.set.ports.set_all(protocol, &runs_of_ids(runs, &target.ids.classes));
        }
        self.set.prefixes.put_all(&target.prefixes)?;
        self.set.prefixes.keep(&target.prefixes)?;
        self.set.addresses.put_all(&target.addresses)?;
        self.set.addresses.keep(&target.addresses)?;
        self.set.services.put_all(&target.services)?;
        self.set.services.keep(&target.services)?;
        let owners: BTreeMap<Address, u32> =
            wanted.owners.iter().map(|(address, ifindex)| ((*address).into(), *ifindex)).collect();
        let orphaned = orphaned(maps.owners.entries(), &owners);
        maps.owners.put_all(&owners)?;
        // 3.
        let mut endpoints: BTreeMap<u32, Endpoint> = wanted
            .endpoints
            .iter()
            .map(|(&ifindex, judged)| (ifindex, self.endpoint(judged, &target.ids)))
            .collect();
        for (&address, ifindex) in wanted.owners.iter().rev() {
            // Of several in one family the lowest stays.
            if let Some(endpoint) = endpoints.get_mut(ifindex) {
                let own = if address.is_ipv4() { &mut endpoint.v4 } else { &mut endpoint.v6 };
                *own = address.into();
            }
        }
        let subjects =
            wanted.endpoints.values().flat_map(|judged| [judged.subject.ingress, judged.subject.egress]);
        let in_force: BTreeSet<_> =
            subjects.filter(|&at| at != 0).map(|at| tables.rule_sets[at].clone()).collect();
        // Should a write fail, some endpoints have the new rule sets and some the old ones.
        let settled = self.in_force.is_subset(&in_force);
        self.in_force.extend(in_force.iter().cloned());
        maps.endpoints.put_all(&endpoints)?;
        self.in_force = in_force;
        // 4.
        let mut epoch = maps.epoch()?;
        if writes(maps, &self.set) != before || epoch == 0 {
            epoch = epoch.wrapping_add(1);
            maps.set_epoch(epoch)?;
            // 5.
            maps.wait_for_programs(self.slot, &self.set)?;
        }
        self.set.rows.keep(&target.rows)?;
        self.set.rows.put_all(&target.rows)?;
        maps.owners.keep(&owners)?;
        maps.endpoints.keep(&endpoints)?;
        self.ids.keep(tables, &target.ids);
        if !orphaned.is_empty() {
            let gone = maps.flows.open()?.remove(|key, flow| {
                let orphan = |address, ifindex| orphaned.get(&address) == Some(&ifindex) && ifindex != 0;
                [key.low, key.high]
                    .into_iter()
                    .any(|end| orphan(end, flow.client_if) || orphan(end, flow.server_if))
            })?;
            tracing::debug!(flows = gone, "flows of addresses that changed hands removed");
        }
        Ok(Published { epoch, settled, moved })
    }

    fn endpoint(&self, judged: &Judged, ids: &Assigned) -> Endpoint {
        Endpoint {
            state: judged.state as u32,
            slot: self.slot,
            ingress: ids.policies[judged.subject.ingress],
            egress: ids.policies[judged.subject.egress],
            master: judged.master,
            ..Endpoint::HELD
        }
    }
}

type RowKeyOf = fn(PolicyId, IdentityId, ClassId) -> RowKey;

/// Verdict rows under the kernel's ids; only those with a bit.
fn rows(compiled: &Rows, ids: &Assigned) -> BTreeMap<RowKey, Row> {
    let mut rows: BTreeMap<RowKey, Row> = BTreeMap::new();
    let allowed = (&compiled.allowed, RowKey::new as RowKeyOf);
    for (compiled, key) in [allowed, (&compiled.denied_on_own_node, RowKey::of_own_node)] {
        for ((rule_set, identity), blocks) in compiled {
            let (policy, identity) = (ids.policies[*rule_set], ids.identities[*identity]);
            for (index, class) in ids.classes.iter().enumerate() {
                let (block, bit) = (index / usize::from(BITS_PER_ROW), index % usize::from(BITS_PER_ROW));
                if blocks[block].0[bit / 64] >> (bit % 64) & 1 != 0 {
                    rows.entry(key(policy, identity, *class)).or_default().set(*class);
                }
            }
        }
    }
    rows
}

/// Verdicts on services, under the kernel's ids.
fn service_rows<'a>(tables: &'a Tables, ids: &'a Assigned) -> impl Iterator<Item = (RowKey, Row)> + use<'a> {
    tables.services.verdicts.iter().filter_map(|(&(rule_set, place), verdict)| {
        Some((RowKey::of_service(ids.policies[rule_set], ids.services[place]), verdict.row()?))
    })
}

fn runs_of_ids(runs: &[(u16, usize)], classes: &[ClassId]) -> Vec<(u16, ClassId)> {
    runs.iter().map(|&(first, class)| (first, classes[class])).collect()
}

fn united(row: Row, other: Row) -> Row {
    let mut words = row.0;
    for (word, more) in words.iter_mut().zip(other.0) {
        *word |= more;
    }
    Row(words)
}

/// Whether what is there and what comes fit side by side.
fn fits<K: Ord, V, C: Borrow<K> + Ord, W>(
    held: &BTreeMap<K, V>,
    coming: &BTreeMap<C, W>,
    capacity: u32,
) -> bool {
    let more = coming.keys().filter(|key| !held.contains_key((*key).borrow())).count();
    held.len() + more <= capacity as usize
}

/// Twice what is needed now.
fn room_for(entries: usize) -> u32 {
    let doubled = u32::try_from(entries.saturating_mul(2)).unwrap_or(u32::MAX / 2 + 1);
    doubled.max(MIN_CAPACITY).checked_next_power_of_two().unwrap_or(1 << 31)
}

/// Addresses that had another owner until now, and that owner.
fn orphaned(before: &BTreeMap<Address, u32>, now: &BTreeMap<Address, u32>) -> BTreeMap<Address, u32> {
    before
        .iter()
        .filter(|(address, owner)| now.get(address) != Some(owner))
        .map(|(address, owner)| (*address, *owner))
        .collect()
}
