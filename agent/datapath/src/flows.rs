//! The flow table as the agent uses it, by a mapping that it shares with the programs. They write to it all
//! the time. Who only counts its entries has another handle, and maps it without the right to write.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    os::fd::OwnedFd,
    sync::atomic::{AtomicI64, Ordering},
    thread,
};

use anyhow::{Context as _, Result, bail};
use podgate_common::{
    Flow, FlowKey, FlowSeed, FlowSet, FlowShare, FlowShares, Holder, HostAtomic, Lookup, ReplacementRule,
    Seen, SharedSet, Timeouts, WAYS,
};

use super::mapping::Mapping;

/// The map, and what its programs were loaded with.
#[derive(Debug)]
pub struct FlowTable {
    map: OwnedFd,
    /// How many connections each veth has.
    shares: OwnedFd,
    sets: u32,
    seed: FlowSeed,
    timeouts: Timeouts,
}

/// The table while the agent reads or writes it. It is mapped for no longer.
#[derive(Debug)]
pub struct MappedFlows<'a> {
    table: &'a FlowTable,
    sets: Mapping<FlowSet>,
    shares: MappedShares,
}

/// The same map for who only reads it, or the map of an agent before this one.
#[derive(Debug)]
pub struct FlowTableReader {
    map: OwnedFd,
    sets: u32,
}

/// Where connections of a veth's pod lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpenedServer {
    /// The pod's veth.
    pub ifindex: u32,
    /// The server's address.
    pub address: IpAddr,
    /// IP protocol number.
    pub protocol: u32,
    /// The server's port; what stands in its place where the protocol has none.
    pub port: u16,
}

#[derive(Debug)]
struct MappedShares(Mapping<AtomicI64>);

/// Sets, two mebibytes of them: a fraction of a millisecond. They begin a page.
const SWEPT_AT_ONCE: usize = 4_096;

/// How often a set is tried that the programs write to.
const ATTEMPTS: usize = 1_000;

impl FlowTable {
    /// The table of a map with so many sets, and of that of its shares. What an agent held that died is free
    /// again: the caller is the only one.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the mapping.
    pub(super) fn new(
        map: OwnedFd,
        shares: OwnedFd,
        sets: u32,
        seed: FlowSeed,
        timeouts: Timeouts,
    ) -> Result<Self> {
        let table = Self { map, shares, sets, seed, timeouts };
        shared(&table.open()?.sets).for_each(SharedSet::free::<HostAtomic>);
        Ok(table)
    }

    /// # Errors
    ///
    /// When the kernel refuses the mapping.
    pub fn open(&self) -> Result<MappedFlows<'_>> {
        let sets = Mapping::new(&self.map, self.sets as usize, true).context("the flow table")?;
        Ok(MappedFlows { table: self, sets, shares: self.map_shares()? })
    }

    /// Removes the connections whose time is up from some sets. It is called each second, and maps no others:
    /// the kernel takes half a microsecond to map a page and to unmap it, and a table of the default size has
    /// 4,682 pages.
    ///
    /// Returns the place where to go on, the beginning after the end, and how many there were.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the mapping.
    pub fn sweep(&self, place: usize, now: u32) -> Result<(usize, usize)> {
        let (sets, shares) = (self.sets as usize, self.map_shares()?);
        let next = (place + SWEPT_AT_ONCE).min(sets);
        let part = Mapping::of_part(&self.map, place.min(next)..next, true).context("the flow table")?;
        let removed = shared(&part).map(|set| set.sweep(now, &self.timeouts, &shares)).sum();
        Ok((if next < sets { next } else { 0 }, removed))
    }

    /// Of what the programs find places by.
    pub(super) const fn seed(&self) -> FlowSeed {
        self.seed
    }

    fn map_shares(&self) -> Result<MappedShares> {
        let shares = Mapping::new(&self.shares, FlowShare::SLOTS as usize, true);
        Ok(MappedShares(shares.context("the shares of the flow table")?))
    }

    pub(super) fn reader(&self) -> Result<FlowTableReader> {
        let map = self.map.try_clone().context("cannot keep the flow table open")?;
        Ok(FlowTableReader::new(map, self.sets))
    }
}

impl FlowTableReader {
    pub(super) const fn new(map: OwnedFd, sets: u32) -> Self {
        Self { map, sets }
    }

    /// How many connections there is room for.
    pub(super) const fn capacity(&self) -> u32 {
        self.sets.saturating_mul(WAYS)
    }

    /// How many connections the table holds, those whose time is up included. Reads one line of each set.
    pub(super) fn count(&self) -> Result<usize> {
        Ok(shared(&self.open()?).map(SharedSet::count).sum())
    }

    /// All connections, as [`MappedFlows::entries`].
    pub(super) fn entries(&self) -> Result<Vec<(FlowKey, Flow)>> {
        Ok(shared(&self.open()?).flat_map(SharedSet::entries::<HostAtomic>).collect())
    }

    /// How many connections these veths (by ifindex) have opened to each address, and not ended.
    pub(super) fn opened_by(&self, veths: &BTreeSet<u32>) -> Result<BTreeMap<(u32, IpAddr), usize>> {
        let mut opened = BTreeMap::new();
        for (key, flow) in shared(&self.open()?).flat_map(SharedSet::entries::<HostAtomic>) {
            if is_opened_by(veths, &key, &flow) {
                let [low, high] = key.addresses();
                let server = if flow.seen.has(Seen::CLIENT_IS_LOW) { high } else { low };
                *opened.entry((flow.client_if, server.into())).or_default() += 1;
            }
        }
        Ok(opened)
    }

    /// To which servers these veths (by ifindex) have connections that they have opened and not ended.
    pub(super) fn servers_of(&self, veths: &BTreeSet<u32>) -> Result<BTreeSet<OpenedServer>> {
        let entries = self.open()?;
        let entries = shared(&entries).flat_map(SharedSet::entries::<HostAtomic>);
        let opened = entries.filter(|(key, flow)| is_opened_by(veths, key, flow));
        let server = |(key, flow): (FlowKey, Flow)| {
            let ([low, high], [low_port, high_port]) = (key.addresses(), key.ports());
            let is_high = flow.seen.has(Seen::CLIENT_IS_LOW);
            let (address, port) = if is_high { (high, high_port) } else { (low, low_port) };
            OpenedServer { ifindex: flow.client_if, address: address.into(), protocol: key.protocol(), port }
        };
        Ok(opened.map(server).collect())
    }

    fn open(&self) -> Result<Mapping<FlowSet>> {
        Mapping::new(&self.map, self.sets as usize, false).context("the flow table")
    }
}

impl MappedFlows<'_> {
    /// Enters a connection; `entry` gets what the table has of it.
    ///
    /// # Errors
    ///
    /// When the programs do not let the agent write.
    pub fn enter(&self, key: FlowKey, entry: impl Fn(Option<Flow>) -> Flow) -> Result<()> {
        let FlowTable { sets, seed, timeouts, .. } = self.table;
        let mut lookup = Lookup::of(key);
        let place = lookup.place(seed, *sets);
        let set = shared_set(&self.sets, place as usize);
        let rule = ReplacementRule { timeouts, shares: &self.shares, sets: *sets };
        let update = || set.update::<HostAtomic, _>(&mut { lookup }, &rule, Holder::Agent, &entry);
        patiently(update).context("cannot enter a connection")?;
        Ok(())
    }

    /// Removes the connections for which `gone` is true; returns how many.
    pub fn remove(&self, gone: impl Fn(&FlowKey, &Flow) -> bool) -> usize {
        shared(&self.sets).map(|set| set.remove(&gone, &self.shares)).sum()
    }

    /// All connections. The programs go on: one that comes or goes meanwhile may be missed.
    pub fn entries(&self) -> impl Iterator<Item = (FlowKey, Flow)> {
        shared(&self.sets).flat_map(SharedSet::entries::<HostAtomic>)
    }

    /// How many connections are charged to a veth, those whose time is up included.
    pub fn share(&self, veth: u32) -> u32 {
        self.shares.of(veth)
    }
}

impl MappedShares {
    fn element(&self, slot: u32) -> &AtomicI64 {
        // SAFETY: it is there as long as the mapping, and only written by atomic operations.
        unsafe { self.0.element(slot as usize).as_ref() }
    }
}

impl FlowShares for MappedShares {
    fn of(&self, veth: u32) -> u32 {
        FlowShare(self.element(FlowShare::slot(veth)).load(Ordering::Relaxed)).count()
    }

    fn add(&self, veth: u32) {
        self.element(FlowShare::slot(veth)).fetch_add(1, Ordering::Relaxed);
    }

    fn subtract(&self, veth: u32) {
        self.element(FlowShare::slot(veth)).fetch_sub(1, Ordering::Relaxed);
    }
}

/// A set of a table, which all that access sets do in this way.
fn shared_set(sets: &Mapping<FlowSet>, number: usize) -> SharedSet {
    // SAFETY: inside the mapping, which outlives what the callers in this file do with it.
    unsafe { SharedSet::new(sets.element(number).as_ptr()) }
}

fn shared(sets: &Mapping<FlowSet>) -> impl Iterator<Item = SharedSet> {
    // SAFETY: as above.
    sets.elements().map(|set| unsafe { SharedSet::new(set.as_ptr()) })
}

/// Tries until a set's writers let the agent have it.
fn patiently<T>(mut attempt: impl FnMut() -> Option<T>) -> Result<T> {
    for _ in 0..ATTEMPTS {
        if let Some(done) = attempt() {
            return Ok(done);
        }
        thread::yield_now();
    }
    bail!("the programs have written to its set {ATTEMPTS} times in a row")
}

/// Entries of devices with host endpoints tell of the same connections.
fn is_opened_by(veths: &BTreeSet<u32>, key: &FlowKey, flow: &Flow) -> bool {
    !key.is_at_host() && veths.contains(&flow.client_if) && !flow.seen.is_closed()
}
