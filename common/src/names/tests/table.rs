//! The table of learnt addresses against a model, full, and with threads that write and read at once.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
    vec::Vec,
};

use proptest::prelude::*;

use super::*;
use crate::{FlowSeed, HostAtomic};

const SETS: u32 = 512;
const LONGEST: u32 = 1 << 20;
const SEED: FlowSeed = FlowSeed::OF_PI;

struct Table {
    /// It owns what the pointer points to.
    memory: Vec<NameSet>,
    first: *mut NameSet,
    sets: u32,
}

// SAFETY: only used through the functions under test, which are made for it.
unsafe impl Sync for Table {}

impl Table {
    fn new(sets: u32) -> Self {
        let mut memory = std::vec![NameSet::EMPTY; sets as usize];
        Self { first: memory.as_mut_ptr(), memory, sets }
    }

    fn set(&self, number: u32) -> SharedNameSet {
        assert!((number as usize) < self.memory.len(), "a set of the table");
        // SAFETY: inside the table, which lives, and is used in this way alone.
        unsafe { SharedNameSet::new(self.first.add(number as usize)) }
    }

    /// As the programs do it.
    fn learn(&self, entry: &NameEntry, now: u32) -> Option<Learnt> {
        let spots = NameSpots::of(&entry.address, &SEED, self.sets);
        let sets = [spots.first, spots.second].map(|at| self.set(at));
        (0..TRIES_TO_ENTER).find_map(|_| SharedNameSet::enter::<HostAtomic>(sets, entry, now, LONGEST))
    }

    fn names(&self, address: &Address, now: u32) -> Vec<NameId> {
        let spots = NameSpots::of(address, &SEED, self.sets);
        let mut found = Vec::new();
        for at in [spots.first, spots.second] {
            let mut names = [NameId(77); WAYS_OF_NAMES];
            assert!(self.set(at).names::<HostAtomic>(address, now, LONGEST, &mut names));
            found.extend(names.into_iter().filter(|name| !name.is_none()));
            if spots.first == spots.second {
                break;
            }
        }
        found.sort_unstable();
        found
    }
}

fn address(at: u32) -> Address {
    let [a, b, c, d] = at.to_be_bytes();
    if at.is_multiple_of(2) {
        Address::from_v4([a, b, c, d])
    } else {
        Address::from_v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d])
    }
}

proptest! {
    #[test]
    fn what_is_learnt_is_known_until_it_ends_and_nothing_else_is(
        entries in prop::collection::vec((0..40_u32, 1..6_u32, 1..200_u32), 1..80),
        start: u32,
    ) {
        // So many that no two sets of an address are ever full.
        let table = Table::new(SETS);
        let mut model: BTreeMap<(u32, u32), (NameId, u32)> = BTreeMap::new();
        for (step, (at, identity, ticks)) in (0_u32..).zip(&entries) {
            let now = start.wrapping_add(step * 5);
            let name = NameId(*identity);
            // No entry ends when the clock stands at zero.
            let until = now.wrapping_add(*ticks).max(1);
            let learnt = table.learn(&NameEntry { address: address(*at), name, until }, now);
            let left = |until: u32| { let left = until.wrapping_sub(now); if left <= LONGEST { left } else { 0 } };
            let known = model.get(&(*at, *identity)).filter(|(_, until)| left(*until) != 0).copied();
            prop_assert_eq!(learnt, Some(if known.is_some() { Learnt::Longer } else { Learnt::New }));
            match known {
                Some((_, before)) if left(before) >= left(until) => {}
                _ => { model.insert((*at, *identity), (name, until)); }
            }
            for at in 0..40 {
                let mut expected: Vec<NameId> = model.range((at, 0)..(at + 1, 0))
                    .filter(|(_, (_, until))| left(*until) != 0).map(|(_, (name, _))| *name).collect();
                expected.sort_unstable();
                prop_assert_eq!(table.names(&address(at), now), expected);
            }
        }
    }
}

#[test]
fn three_quarters_of_a_table_live_without_a_loss() {
    let table = Table::new(SETS);
    for at in 0..3_000 {
        let entry = NameEntry { address: address(at), name: NameId(10), until: 1_000 };
        assert_eq!(table.learn(&entry, 0), Some(Learnt::New), "address {at}");
    }
    assert!((0..3_000).all(|at| table.names(&address(at), 0) == [NameId(10)]));
}

#[test]
fn of_a_full_set_the_entry_goes_that_ends_first() {
    let table = Table::new(1);
    for at in 0..8 {
        let entry = NameEntry { address: address(at), name: NameId(10), until: 100 + at };
        assert_eq!(table.learn(&entry, 0), Some(Learnt::New));
    }
    let entry = NameEntry { address: address(8), name: NameId(10), until: 50 };
    assert_eq!(table.learn(&entry, 0), Some(Learnt::Instead));
    assert_eq!((table.names(&address(0), 0), table.names(&address(1), 0)), ([].into(), [NameId(10)].into()));
    assert_eq!(table.names(&address(8), 0), [NameId(10)]);
}

#[test]
fn a_name_that_is_asked_a_hundred_times_is_one_entry() {
    let table = Table::new(1);
    for until in 1..100 {
        table.learn(&NameEntry { address: address(2), name: NameId(10), until }, 0);
    }
    assert_eq!(table.names(&address(2), 0), [NameId(10)]);
}

#[test]
fn no_reader_pairs_an_address_with_the_name_of_another() {
    const ADDRESSES: u32 = 12;
    let table = Table::new(1);
    let (stop, seen) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for writer in 0..2 {
            let (table, stop) = (&table, &stop);
            scope.spawn(move || {
                let mut at = writer;
                while !stop.load(Ordering::Relaxed) {
                    at = (at + 5) % ADDRESSES;
                    // What ends sooner gives way: each of them is written again and again.
                    let entry =
                        NameEntry { address: address(at), name: NameId(10 * (at + 1)), until: 1 + at };
                    table.learn(&entry, 0);
                }
            });
        }
        let reader = scope.spawn(|| {
            // A writer that is not scheduled may hold the only set for a while.
            let start = Instant::now();
            let mut round = 0_u32;
            while seen.load(Ordering::Relaxed) < 20_000 && start.elapsed() < Duration::from_secs(30) {
                round = round.wrapping_add(1);
                let at = round % ADDRESSES;
                let mut names = [NameId::NONE; WAYS_OF_NAMES];
                if table.set(0).names::<HostAtomic>(&address(at), 0, LONGEST, &mut names) {
                    for name in names.into_iter().filter(|name| !name.is_none()) {
                        assert_eq!(name, NameId(10 * (at + 1)), "of address {at}");
                        seen.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        let outcome = reader.join();
        stop.store(true, Ordering::Relaxed);
        outcome.expect("the reader has found nothing wrong");
    });
    assert!(seen.into_inner() >= 20_000, "entries were seen");
}
