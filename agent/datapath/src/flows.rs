//! The flow table as the agent uses it, by a mapping that it shares with the programs. They write to it all
//! the time.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsRawFd as _, OwnedFd},
    ptr::NonNull,
    thread,
};

use anyhow::{Context as _, Result, bail};
use podgate_common::{Flow, FlowKey, FlowSeed, FlowSet, Holder, HostAtomic, Lookup, Timeouts, WAYS};

/// The map, and what its programs were loaded with.
#[derive(Debug)]
pub struct FlowTable {
    map: OwnedFd,
    sets: u32,
    seed: FlowSeed,
    timeouts: Timeouts,
}

/// The table while the agent reads or writes it. It is mapped for no longer: its pages would count as the
/// agent's memory.
#[derive(Debug)]
pub struct MappedFlows<'a> {
    table: &'a FlowTable,
    mapping: NonNull<FlowSet>,
    shared: PhantomData<*mut FlowSet>,
}

/// Sets, two mebibytes of them: a millisecond or two.
const SWEPT_AT_ONCE: usize = 4_096;

/// How often a set is tried that the programs write to.
const ATTEMPTS: usize = 1_000;

impl FlowTable {
    /// The table of a map with so many sets. What an agent held that died is free again: the caller is the
    /// only one.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the mapping.
    pub(super) fn new(map: OwnedFd, sets: u32, seed: FlowSeed, timeouts: Timeouts) -> Result<Self> {
        let table = Self { map, sets, seed, timeouts };
        for set in table.open()?.sets() {
            // SAFETY: a set of the table, and no other agent lives.
            unsafe { FlowSet::free::<HostAtomic>(set) };
        }
        Ok(table)
    }

    /// How many connections there is room for.
    pub const fn capacity(&self) -> u32 {
        self.sets.saturating_mul(WAYS)
    }

    /// # Errors
    ///
    /// When the kernel refuses the mapping.
    pub fn open(&self) -> Result<MappedFlows<'_>> {
        // SAFETY: a new mapping of a map of this size; the kernel chooses the address.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                self.bytes(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                self.map.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error()).context("cannot map the flow table");
        }
        let mapping = NonNull::new(address.cast()).context("the kernel mapped the flow table at 0")?;
        Ok(MappedFlows { table: self, mapping, shared: PhantomData })
    }

    const fn bytes(&self) -> usize {
        self.sets as usize * size_of::<FlowSet>()
    }
}

impl MappedFlows<'_> {
    /// Enters a connection; `entry` gets what the table has of it.
    ///
    /// # Errors
    ///
    /// When the programs do not let the agent write.
    pub fn enter(&self, key: FlowKey, entry: impl Fn(Option<Flow>) -> Flow) -> Result<()> {
        let mut lookup = Lookup::of(key);
        let place = lookup.place(&self.table.seed, self.table.sets);
        // SAFETY: the connection's set.
        let set = unsafe { self.mapping.as_ptr().add(place as usize) };
        // SAFETY: as above; all that write to sets use these functions.
        let update = || unsafe {
            FlowSet::update::<HostAtomic>(set, &mut { lookup }, &self.table.timeouts, Holder::Agent, &entry)
        };
        patiently(update).context("cannot enter a connection")?;
        Ok(())
    }

    /// Removes the connections for which `gone` is true; returns how many.
    pub fn remove(&self, gone: impl Fn(&FlowKey, &Flow) -> bool) -> usize {
        // SAFETY: sets of the table; all that write to sets use these functions.
        self.sets().map(|set| unsafe { FlowSet::remove(set, &gone) }).sum()
    }

    /// Removes the connections whose time is up from some sets.
    ///
    /// Returns the place where to go on, the beginning after the end, and how many there were.
    pub fn sweep(&self, place: usize, now: u32) -> (usize, usize) {
        // SAFETY: sets of the table; all that write to sets use these functions.
        let swept = |set| unsafe { FlowSet::sweep(set, now, &self.table.timeouts) };
        let next = place + SWEPT_AT_ONCE;
        let removed = self.sets().skip(place).take(SWEPT_AT_ONCE).map(swept).sum();
        (if next < self.table.sets as usize { next } else { 0 }, removed)
    }

    /// All connections. The programs go on: one that comes or goes meanwhile may be missed.
    pub fn entries(&self) -> impl Iterator<Item = (FlowKey, Flow)> {
        // SAFETY: sets of the table; all that write to sets use these functions.
        self.sets().flat_map(|set| unsafe { FlowSet::entries(set) })
    }

    /// How many connections the table holds, those whose time is up included. Reads one line of each set.
    pub fn count(&self) -> usize {
        // SAFETY: as above.
        self.sets().map(|set| unsafe { FlowSet::len(set) }).sum()
    }

    fn sets(&self) -> impl Iterator<Item = *mut FlowSet> {
        let first = self.mapping.as_ptr();
        // SAFETY: inside the mapping.
        (0..self.table.sets as usize).map(move |set| unsafe { first.add(set) })
    }
}

impl Drop for MappedFlows<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `open` with this size, and nothing refers to it any more.
        unsafe { libc::munmap(self.mapping.as_ptr().cast(), self.table.bytes()) };
    }
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
