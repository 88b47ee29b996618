//! The table under a checker of the C11 memory model: two threads read and write a set ([`loom_barriers`]).

use core::{
    panic::Location,
    ptr::{read_volatile, write_volatile},
};
use std::{boxed::Box, cell::RefCell, sync::Arc, vec::Vec};

use loom::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
    fence,
};

use super::*;
use crate::{
    Atomic, HostAtomic, Learnt, NameEntry, NameSet, SharedNameSet, WAYS_OF_NAMES,
    loom_barriers::{self, Barrier, BarrierSet, Failed},
};

/// The words of a set in one execution of the checker.
struct Model {
    first: usize,
    words: Vec<AtomicU64>,
}

std::thread_local! {
    /// All threads of an execution run on one of the system's.
    static MODEL: RefCell<Option<Arc<Model>>> = const { RefCell::new(None) };
}

/// The model that a word belongs to, and its number there.
fn modelled(word: *const u64) -> Option<(Arc<Model>, usize)> {
    let model = MODEL.with_borrow(Clone::clone)?;
    let number = word.addr().checked_sub(model.first)? / size_of::<u64>();
    (number < model.words.len()).then_some((model, number))
}

/// # Safety
///
/// As of `read_volatile`.
pub(in crate::names) unsafe fn read(word: *const u64) -> u64 {
    match modelled(word) {
        Some((model, number)) => model.words[number].load(Relaxed),
        // SAFETY: the caller's.
        None => unsafe { read_volatile(word) },
    }
}

/// # Safety
///
/// As of `write_volatile`.
pub(in crate::names) unsafe fn write(word: *mut u64, value: u64) {
    match modelled(word) {
        Some((model, number)) => model.words[number].store(value, Relaxed),
        // SAFETY: the caller's.
        None => unsafe { write_volatile(word, value) },
    }
}

/// The checker's atomic operations, but for the barrier that is left out.
struct Modelled;

impl Atomic for Modelled {
    unsafe fn compare_exchange(word: *mut u64, current: u64, new: u64) -> u64 {
        let (model, number) = modelled(word).expect("a word of the model");
        fence(AcqRel);
        let before = model.words[number].compare_exchange(current, new, AcqRel, Acquire);
        fence(AcqRel);
        before.unwrap_or_else(|other| other)
    }

    unsafe fn or(_: *mut u64, _: u64) {
        unreachable!("nothing of names adds bits")
    }

    fn pause() {
        loom::thread::yield_now();
    }

    unsafe fn order_reads(_: *mut u64) {
        loom_barriers::order_reads(Location::caller());
    }

    unsafe fn order_writes(_: *mut u64) {
        loom_barriers::order_writes(Location::caller());
    }
}

const LONGEST: u32 = 1 << 20;
/// The addresses that scenarios enter: none stands in the set before.
const NEW: [u32; 2] = [100, 200];

/// Until when each way of the set counts, before. The first ends first, then the second.
fn until(way: u32) -> u32 {
    10 + 10 * way
}

/// An entry of which each part says whose it is, but for the name: two addresses may share one.
fn entry(number: u32, name: u32, until: u32) -> NameEntry {
    let [a, b, c, d] = number.to_be_bytes();
    let address = Address::from_v6([a, b, c, d, 1, 0, 0, 0, 0, 0, 0, 1, a, b, c, d]);
    NameEntry { address, name: NameId(name), until }
}

fn enter(set: SharedNameSet, entry: &NameEntry) -> Learnt {
    let mut tries = (0..TRIES_TO_ENTER).filter_map(|_| {
        let learnt = SharedNameSet::enter::<Modelled>([set; 2], entry, 0, LONGEST);
        learnt.is_none().then(Modelled::pause);
        learnt
    });
    tries.next().expect("the other one goes on")
}

/// The names of an address; `None`: the set is being written to.
fn names(set: SharedNameSet, number: u32) -> Option<Vec<NameId>> {
    let mut names = [NameId::NONE; WAYS_OF_NAMES];
    let is_read = set.names::<Modelled>(&entry(number, 0, 0).address, 0, LONGEST, &mut names);
    is_read.then(|| names.into_iter().filter(|name| !name.is_none()).collect())
}

/// Until when an address counts for a name; 0: it does not.
fn lasts(set: SharedNameSet, number: u32, name: u32) -> u32 {
    let wanted = entry(number, name, 0);
    let entries = set.entries::<Modelled>().expect("no one writes any more");
    let mut own = entries.iter().filter(|one| (one.address, one.name) == (wanted.address, wanted.name));
    let until = own.next().map_or(0, |one| one.until);
    assert_eq!(own.next(), None, "it stands there once");
    until
}

/// What two threads do with a full set of which way `n` has address `n` for name `n + 1`.
type Scenario = fn(SharedNameSet);

const SCENARIOS: [(&str, Scenario); 6] = [
    ("the names of an address whose way another one gets", |set| {
        let writer = loom::thread::spawn(move || enter(set, &entry(NEW[0], 77, 500)));
        if let Some(found) = names(set, 0) {
            assert!(found.is_empty() || found == [NameId(1)], "{found:?}");
        }
        assert_eq!(writer.join().expect("it has written"), Learnt::Instead);
        assert_eq!((names(set, 0), names(set, NEW[0])), (Some([].into()), Some([NameId(77)].into())));
    }),
    ("the names of an address that gets the way of another one", |set| {
        let writer = loom::thread::spawn(move || enter(set, &entry(NEW[0], 77, 500)));
        if let Some(found) = names(set, NEW[0]) {
            assert!(found.is_empty() || found == [NameId(77)], "{found:?}");
        }
        writer.join().expect("it has written");
    }),
    ("all entries, of which one gives way", |set| {
        let writer = loom::thread::spawn(move || enter(set, &entry(NEW[0], 77, 500)));
        if let Some(entries) = set.entries::<Modelled>() {
            let known = |way: u32| entry(way, way + 1, until(way));
            for (entry, way) in entries.into_iter().zip(0..) {
                let is_new = way == 0 && entry == self::entry(NEW[0], 77, 500);
                assert!(entry == known(way) || is_new, "{entry:?}");
            }
        }
        writer.join().expect("it has written");
    }),
    ("two addresses are entered", |set| {
        let other = loom::thread::spawn(move || enter(set, &entry(NEW[0], 77, 500)));
        assert_eq!(enter(set, &entry(NEW[1], 88, 600)), Learnt::Instead);
        assert_eq!(other.join().expect("it has written"), Learnt::Instead);
        // Each has taken the place of one that ended first.
        assert_eq!((lasts(set, NEW[0], 77), lasts(set, NEW[1], 88)), (500, 600));
        assert_eq!((lasts(set, 0, 1), lasts(set, 1, 2)), (0, 0));
        assert_eq!(lasts(set, 2, 3), until(2));
    }),
    ("one address is entered twice", |set| {
        let other = loom::thread::spawn(move || enter(set, &entry(NEW[0], 77, 500)));
        enter(set, &entry(NEW[0], 77, 600));
        other.join().expect("it has written");
        assert_eq!(lasts(set, NEW[0], 77), 600);
        assert_eq!((lasts(set, 0, 1), lasts(set, 1, 2)), (0, until(1)));
    }),
    (
        // Half of the one and half of the other are the address for its name, for longer than is asked for.
        "an address is made to last longer, whose way another one with the same name gets",
        |set| {
            let other = loom::thread::spawn(move || enter(set, &entry(NEW[0], 1, 500)));
            enter(set, &entry(0, 1, 400));
            other.join().expect("it has written");
            assert_eq!((lasts(set, NEW[0], 1), lasts(set, 0, 1)), (500, 400));
        },
    ),
];

/// Runs a scenario in all orders.
fn check(run: Scenario, without: Option<Barrier>) -> Result<BarrierSet, Failed> {
    let mut memory = Box::new(NameSet::EMPTY);
    // SAFETY: memory of our own; the model stands for it while threads run.
    let set = unsafe { SharedNameSet::new(&raw mut *memory) };
    for way in 0..u32::try_from(WAYS_OF_NAMES).expect("eight") {
        SharedNameSet::enter::<HostAtomic>([set; 2], &entry(way, way + 1, until(way)), 0, LONGEST);
    }
    let place = (&raw mut *memory).addr();
    // SAFETY: a set consists of words.
    let words = unsafe {
        core::slice::from_raw_parts((&raw const *memory).cast::<u64>(), NameSet::WORDS as usize).to_vec()
    };
    let checked = loom_barriers::in_all_orders(2, without, move || {
        let words = words.iter().map(|word| AtomicU64::new(*word)).collect();
        MODEL.set(Some(Arc::new(Model { first: place, words })));
        // SAFETY: as above.
        run(unsafe { SharedNameSet::new(core::ptr::with_exposed_provenance_mut(place)) });
        MODEL.set(None);
    });
    MODEL.set(None);
    checked
}

#[test]
fn in_any_order_a_set_of_names_is_read_right_and_each_barrier_is_needed() {
    loom_barriers::each_is_needed(&SCENARIOS, 7, check);
}
