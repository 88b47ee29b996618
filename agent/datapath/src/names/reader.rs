//! What pods have learnt, for those who only read it.
//!
//! The agent that writes keeps each table open for them: without CAP_SYS_ADMIN no one can open a map by its
//! id, which is all that the outer map gives. The programs go on meanwhile: a set is taken when its version
//! was the same before and after.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{Ordering, fence},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use podgate_common::{
    Address, FlowSeed, JIFFIES_PER_TICK, MAX_LIFETIME, NameEntry, NameSet, NameSpots, WAYS_OF_NAMES,
    seconds_of_ticks,
};
use podgate_core::compiler::NamePlace;

use super::NodeNumbers;
use crate::{TickClock, sys};

/// `NameSet`, as plain numbers.
type RawSet = [u64; NameSet::WORDS as usize];

/// How often a set is read again that a program writes to.
const READS: usize = 8;

/// The tables of all pods, by number, and the numbers of names. Copies share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct OpenTables(Arc<Mutex<Known>>);

/// The other way round than [`NodeNumbers`].
type NamesByNumber = BTreeMap<u32, Vec<Box<[u8]>>>;

#[derive(Debug, Default)]
struct Known {
    tables: BTreeMap<u32, Arc<OwnedFd>>,
    nodes: Arc<NamesByNumber>,
    numbers: Arc<NodeNumbers>,
}

/// Reads what pods have learnt. Copies share the tables.
#[derive(Clone, Debug)]
pub struct NameReader {
    open: OpenTables,
    clock: TickClock,
    seed: FlowSeed,
}

/// An address in the table of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LearntAddress {
    /// The address.
    pub address: IpAddr,
    /// The name that it was learnt for, as far as rules have it.
    pub name: NamePlace,
    /// For how long it counts; `None`: it has ended, and its place was not needed yet.
    pub left: Option<Duration>,
}

/// How many tables there are, and how many addresses count in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameTableSizes {
    /// Pods that have one.
    pub tables: usize,
    /// In all of them.
    pub live: usize,
}

impl NameTableSizes {
    /// How many addresses one table has room for.
    pub const ROOM: usize = NameSet::SETS as usize * WAYS_OF_NAMES;
}

impl OpenTables {
    pub(super) fn put(&self, number: u32, table: OwnedFd) {
        self.lock().tables.insert(number, Arc::new(table));
    }

    pub(super) fn remove(&self, number: u32) {
        self.lock().tables.remove(&number);
    }

    pub(super) fn count(&self) -> usize {
        self.lock().tables.len()
    }

    pub(super) fn set_nodes(&self, nodes: &NodeNumbers) {
        let by_number = Arc::new(nodes.iter().map(|(name, number)| (*number, name.clone())).collect());
        let numbers = Arc::new(nodes.clone());
        let mut known = self.lock();
        (known.nodes, known.numbers) = (by_number, numbers);
    }

    pub(super) fn numbers(&self) -> Arc<NodeNumbers> {
        self.lock().numbers.clone()
    }

    /// A panic while it is locked leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NameReader {
    pub(super) const fn new(open: OpenTables, clock: TickClock, seed: FlowSeed) -> Self {
        Self { open, clock, seed }
    }

    /// What stands in the table with a number, also what has ended; `None`: this agent has no such table
    /// open.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn read(&self, number: u32) -> Result<Option<Vec<LearntAddress>>> {
        let (Some(table), nodes) = self.table(number) else { return Ok(None) };
        let now = self.clock.now()?;
        let entries = entries(&table)?;
        Ok(Some(entries.iter().filter_map(|entry| self.learnt(&nodes, entry, now)).collect()))
    }

    /// What stands in the table with a number for an address, also what has ended: a connection may have been
    /// opened before.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn find(&self, number: u32, address: IpAddr) -> Result<Vec<LearntAddress>> {
        let (Some(table), nodes) = self.table(number) else { return Ok(Vec::new()) };
        let now = self.clock.now()?;
        let address = Address::from(address);
        let spots = NameSpots::of(&address, &self.seed, NameSet::SETS);
        let mut found = Vec::new();
        for at in BTreeSet::from([spots.first, spots.second]) {
            let Some(set) = settled(&table, at)? else { continue };
            let of_it = set.entries().into_iter();
            let of_it = of_it.filter(|entry| entry.address == address && !entry.name.is_none());
            found.extend(of_it.filter_map(|entry| self.learnt(&nodes, &entry, now)));
        }
        Ok(found)
    }

    /// `None` where no rule has had the name since the agent started.
    fn learnt(&self, nodes: &NamesByNumber, entry: &NameEntry, now: u32) -> Option<LearntAddress> {
        let left = entry.left(now, self.longest());
        let seconds = seconds_of_ticks(left, self.clock.jiffies_per_second);
        let (number, labels_left) = entry.name.parts();
        Some(LearntAddress {
            address: entry.address.into(),
            name: (nodes.get(&number)?.clone(), labels_left),
            left: (left != 0).then(|| Duration::from_secs(seconds)),
        })
    }

    fn table(&self, number: u32) -> (Option<Arc<OwnedFd>>, Arc<NamesByNumber>) {
        let known = self.open.lock();
        (known.tables.get(&number).cloned(), known.nodes.clone())
    }

    /// Counts what is in all tables. Sets that are written meanwhile may be counted as they were or will be.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn sizes(&self) -> Result<NameTableSizes> {
        let tables: Vec<_> = self.open.lock().tables.values().cloned().collect();
        if tables.is_empty() {
            return Ok(NameTableSizes::default());
        }
        let (now, longest) = (self.clock.now()?, self.longest());
        let mut live = 0;
        for table in &tables {
            let entries = sets(table)?.into_iter().flat_map(|set| set.entries());
            live += entries.filter(|entry| !entry.name.is_none() && entry.left(now, longest) != 0).count();
        }
        Ok(NameTableSizes { tables: tables.len(), live })
    }

    /// In ticks.
    const fn longest(&self) -> u32 {
        MAX_LIFETIME * self.clock.jiffies_per_second / JIFFIES_PER_TICK
    }
}

/// The entries of a table. A set that is written all the time is left out.
fn entries(table: &OwnedFd) -> Result<Vec<NameEntry>> {
    let copies = [sets(table)?, sets(table)?, sets(table)?];
    let [before, sets, after] = copies.each_ref().map(|sets| sets.iter());
    let mut entries = Vec::new();
    for (at, ((before, set), after)) in (0_u32..).zip(before.zip(sets).zip(after)) {
        let set = match is_settled([before, set, after]) {
            true => Some(*set),
            false => settled(table, at)?,
        };
        let all = set.iter().flat_map(NameSet::entries);
        entries.extend(all.filter(|entry| !entry.name.is_none()));
    }
    Ok(entries)
}

/// A set that was not written while it was read; `None`: writes never stopped.
fn settled(table: &OwnedFd, at: u32) -> Result<Option<NameSet>> {
    let mut copies = [element(table, at)?, element(table, at)?, element(table, at)?];
    for _ in 0..READS {
        if is_settled(copies.each_ref()) {
            return Ok(Some(copies[1]));
        }
        let [_, before, set] = copies;
        copies = [before, set, element(table, at)?];
    }
    Ok(None)
}

/// Whether the middle one of three consecutive copies was read while no one wrote to the set. One copy alone
/// proves nothing: the kernel and the processor may read its words in any order.
const fn is_settled([before, _, after]: [&NameSet; 3]) -> bool {
    before.version() == after.version() && before.version() & 1 == 0
}

fn element(table: &OwnedFd, at: u32) -> Result<NameSet> {
    let read: RawSet = sys::element(table, at).context("cannot read a table of names")?;
    order_copies();
    Ok(set(&read))
}

fn sets(table: &OwnedFd) -> Result<Vec<NameSet>> {
    let sets: Vec<RawSet> =
        sys::elements(table, NameSet::SETS).context("cannot read a table of names at once")?;
    order_copies();
    Ok(sets.iter().map(set).collect())
}

/// Orders this copy's reads before those of the next copy: a system call is no barrier (arm64).
fn order_copies() {
    fence(Ordering::SeqCst);
}

const fn set(set: &RawSet) -> NameSet {
    // SAFETY: as many words, and every bit pattern is valid.
    unsafe { std::mem::transmute(*set) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(version: u64) -> NameSet {
        let mut words = [0; NameSet::WORDS as usize];
        words[0] = version;
        set(&words)
    }

    /// The version inside the middle copy does not count: its words may have been read before its version.
    #[test]
    fn a_copy_counts_when_no_one_wrote_from_before_it_until_after_it() {
        for (versions, expected) in [
            ([4, 4, 4], true),
            ([4, 4, 6], false),
            ([4, 6, 6], false),
            ([2, 4, 4], false),
            ([5, 5, 5], false),
            ([5, 6, 6], false),
        ] {
            let copies = versions.map(copy);
            assert_eq!(is_settled(copies.each_ref()), expected, "{versions:?}");
        }
    }
}
