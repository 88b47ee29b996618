//! The table under a checker of the C11 memory model: two or three threads read and write a set
//! ([`loom_barriers`]).

use core::{
    mem::MaybeUninit,
    panic::Location,
    ptr::{read_volatile, write_volatile},
};
use std::{boxed::Box, cell::RefCell, sync::Arc};

use loom::sync::atomic::{
    AtomicU32,
    Ordering::{Relaxed, SeqCst},
};

use super::*;
use crate::loom_barriers::{self, Barrier, BarrierSet, Failed};

/// The words of a set in one execution of the checker.
struct Model {
    first: usize,
    words: Vec<AtomicU32>,
    /// The second word of the lock: its holder's alone, and written whole with the first one when that is
    /// freed. Of a word that is written more than seven times the checker forgets which value is the last.
    choice: std::sync::atomic::AtomicU32,
    /// For a scenario in which the agent exchanges them: the checker keeps the order of exchanges only among
    /// each other.
    exchanges_tags: bool,
}

/// The number of that word.
const CHOICE: usize = 1;
const TAGS: core::ops::RangeInclusive<usize> = 2..=1 + WAYS as usize;

impl Model {
    fn load(&self, word: usize) -> u32 {
        if word == CHOICE { self.choice.load(Relaxed) } else { self.words[word].load(Relaxed) }
    }

    fn store(&self, word: usize, value: u32) {
        match word {
            CHOICE => self.choice.store(value, Relaxed),
            word if self.exchanges_tags && TAGS.contains(&word) => {
                self.words[word].swap(value, Relaxed);
            }
            _ => self.words[word].store(value, Relaxed),
        }
    }
}

std::thread_local! {
    /// All threads of an execution run on one of the system's.
    static MODEL: RefCell<Option<Arc<Model>>> = const { RefCell::new(None) };
}

fn model() -> Option<Arc<Model>> {
    MODEL.with_borrow(Clone::clone)
}

/// The model that a place belongs to, and the numbers of the words there.
fn modelled<T>(place: *const T) -> Option<(Arc<Model>, core::ops::Range<usize>)> {
    let model = model()?;
    let first = place.addr().checked_sub(model.first)? / 4;
    let words = first..first + size_of::<T>() / 4;
    (words.end <= model.words.len()).then_some((model, words))
}

/// # Safety
///
/// As of `read_volatile`.
pub(in crate::flow_table) unsafe fn read<T: Copy>(place: *const T) -> T {
    let Some((model, words)) = modelled(place) else {
        // SAFETY: the caller's.
        return unsafe { read_volatile(place) };
    };
    let mut value = MaybeUninit::<T>::uninit();
    for (number, word) in words.enumerate() {
        // SAFETY: within the value, which consists of words.
        unsafe { value.as_mut_ptr().cast::<u32>().add(number).write(model.load(word)) };
    }
    // SAFETY: all of it is written; any words are a value of the types of a set.
    unsafe { value.assume_init() }
}

/// Puts `new` in the place of `current`; whether that was there.
///
/// # Safety
///
/// As of `HostAtomic::replace`.
pub(in crate::flow_table) unsafe fn replace(word: *mut u32, current: u32, new: u32) -> bool {
    match modelled(word) {
        Some((model, words)) => {
            model.words[words.start].compare_exchange(current, new, SeqCst, Relaxed).is_ok()
        }
        // SAFETY: the caller's.
        None => unsafe { HostAtomic::replace(word, current, new) },
    }
}

/// # Safety
///
/// As of `write_volatile`.
pub(in crate::flow_table) unsafe fn write<T: Copy>(place: *mut T, value: T) {
    let Some((model, words)) = modelled(place) else {
        // SAFETY: the caller's.
        return unsafe { write_volatile(place, value) };
    };
    // Who holds the lock stands in the first of its words: what is written whole in fact must not be seen as
    // free before the other word is.
    for (number, word) in words.enumerate().rev() {
        // SAFETY: within the value.
        let part = unsafe { (&raw const value).cast::<u32>().add(number).read() };
        model.store(word, part);
    }
}

/// The checker's atomic operations, but for the barrier that is left out.
struct Modelled;

impl Atomic for Modelled {
    unsafe fn compare_exchange(word: *mut u64, current: u64, new: u64) -> u64 {
        let (model, words) = modelled(word).expect("a word of the model");
        assert!(current == 0 && new >> 32 == 0, "the lock, whose first word says who holds it");
        let new = u32::try_from(new).unwrap();
        match model.words[words.start].compare_exchange(0, new, SeqCst, Relaxed) {
            Ok(_) => 0,
            Err(holder) => holder.into(),
        }
    }

    unsafe fn or(word: *mut u64, bits: u64) {
        let (model, words) = modelled(word).expect("a word of the model");
        model.words[words.start + 1].fetch_or(u32::try_from(bits >> 32).unwrap(), SeqCst);
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

struct NoShares;

impl FlowShares for NoShares {
    fn of(&self, _: u32) -> u32 {
        0
    }

    fn add(&self, _: u32) {}

    fn subtract(&self, _: u32) {}
}

const RULE: ReplacementRule<'_, NoShares> =
    ReplacementRule { timeouts: &TIMEOUTS, shares: &NoShares, sets: 1 };

/// A connection of which each part says whose it is.
fn flow(number: u32) -> Flow {
    let seen = Seen(number);
    Flow {
        client_if: 1,
        server_if: number,
        ingress_ifindex: number,
        client_revision: number,
        server_revision: number,
        seen,
        last: number,
    }
}

fn lookup(key: FlowKey) -> Lookup {
    let mut lookup = Lookup::of(key);
    lookup.place(&SEED, 1);
    lookup
}

fn key(number: u32) -> FlowKey {
    let [source, destination] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(Address::from_v4);
    let protocol = if number & 1 << 16 == 0 { number::TCP } else { number::UDP };
    let source_port = u16::try_from(number & 0xffff).unwrap();
    let tuple = Tuple { source, destination, source_port, destination_port: 80, protocol };
    FlowKey::of(&tuple).0
}

/// Two connections that readers tell apart by their keys alone: tags and ways are the same.
fn alike() -> [FlowKey; 2] {
    let mut known = BTreeMap::new();
    let alike = (0..1 << 17).find_map(|number| {
        let Spot { tag, set: _, way } = Spot::of(&key(number), &SEED, 1);
        let other = known.insert((tag, way.number()), number)?;
        Some([key(other), key(number)])
    });
    alike.expect("of 131,072 keys some share 24 bits")
}

fn put(set: SharedSet, key: FlowKey, number: u32) -> bool {
    set.put::<Modelled, _>(&lookup(key), &flow(number), &RULE, Holder::Program).is_some()
}

/// Runs a scenario in all orders, on a set that holds connection 1 under a key.
fn check(key: FlowKey, scenario: Scenario, without: Option<Barrier>) -> Result<BarrierSet, Failed> {
    let mut memory = Box::new(FlowSet::EMPTY);
    // SAFETY: memory of our own; the model stands for it while threads run.
    let set = unsafe { SharedSet::new(&raw mut *memory) };
    set.put::<HostAtomic, _>(&lookup(key), &flow(1), &RULE, Holder::Program).expect("a free set");
    let first = (&raw const *memory).addr();
    // SAFETY: a set consists of words.
    let words: Vec<u32> = unsafe {
        core::slice::from_raw_parts((&raw const *memory).cast::<u32>(), size_of::<FlowSet>() / 4).to_vec()
    };
    let place = (&raw mut *memory).addr();
    let checked = loom_barriers::in_all_orders(scenario.interruptions, without, move || {
        let words = words.iter().map(|word| AtomicU32::new(*word)).collect();
        let exchanges_tags = scenario.exchanges_tags;
        MODEL.set(Some(Arc::new(Model { first, words, choice: 0.into(), exchanges_tags })));
        // SAFETY: as above.
        (scenario.run)(unsafe { SharedSet::new(core::ptr::with_exposed_provenance_mut(place)) });
        MODEL.set(None);
    });
    MODEL.set(None);
    checked
}

/// What threads do, and how often one may be interrupted in the middle of it.
#[derive(Clone, Copy)]
struct Scenario {
    interruptions: usize,
    exchanges_tags: bool,
    run: fn(SharedSet),
}

const fn scenario(run: fn(SharedSet)) -> Scenario {
    Scenario { interruptions: 2, exchanges_tags: false, run }
}

/// Takes away what the set holds of connection 1, as the agent does.
fn remove_the_first(set: SharedSet) {
    set.remove_as::<Modelled>(|_, flow| flow.server_if == 1, &NoShares);
}

fn glance(set: SharedSet, key: FlowKey) -> Option<u32> {
    let spot = Spot::of(&key, &SEED, 1);
    let (known, _) = set.peek::<Modelled>(&key, &spot, Reach::Everywhere)?;
    let FlowSummary { client_if, server_if, ingress_ifindex, seen, last } = known;
    assert!(client_if == 1 && [ingress_ifindex, seen.0, last] == [server_if; 3], "{known:?}");
    Some(server_if)
}

fn find_at_first(set: SharedSet, key: FlowKey) -> Option<u32> {
    let mut lookup = lookup(key);
    let is_found = set.find_at_first::<Modelled>(&mut lookup);
    is_found.then(|| whole(&lookup.flow))
}

fn find_everywhere(set: SharedSet, key: FlowKey) -> Option<u32> {
    let mut lookup = lookup(key);
    let is_found = set.find_everywhere::<Modelled>(&mut lookup);
    is_found.then(|| whole(&lookup.flow))
}

fn list(set: SharedSet, key: FlowKey) -> Option<u32> {
    let mut entries = set.entries::<Modelled>().filter(|(of, _)| *of == key);
    entries.next().map(|(_, flow)| whole(&flow))
}

/// The number of a connection that is read as it was written.
fn whole(flow: &Flow) -> u32 {
    assert_eq!(*flow, self::flow(flow.server_if));
    flow.server_if
}

/// A reader of connection 1 beside a writer that gives its way to connection 2, under the same key or
/// another.
fn beside_a_writer(set: SharedSet, read: fn(SharedSet, FlowKey) -> Option<u32>, written: usize) {
    let (keys, first) = (ALIKE.get().expect("they are known"), 0);
    let writer = loom::thread::spawn(move || assert!(put(set, keys[written], 2)));
    if let Some(found) = read(set, keys[first]) {
        assert!(found == 1 || found == 2 && written == first, "connection {found}");
    }
    writer.join().expect("it has written");
    assert_eq!(read(set, keys[written]), Some(2));
}

static ALIKE: std::sync::OnceLock<[FlowKey; 2]> = std::sync::OnceLock::new();

const SCENARIOS: [(&str, Scenario); 9] = [
    ("a glance at a connection that is written again", scenario(|set| beside_a_writer(set, glance, 0))),
    ("a glance at one whose way another gets", scenario(|set| beside_a_writer(set, glance, 1))),
    ("a look at the first way, written again", scenario(|set| beside_a_writer(set, find_at_first, 0))),
    ("a look at the first way, which another gets", scenario(|set| beside_a_writer(set, find_at_first, 1))),
    ("a look at all ways, one written again", scenario(|set| beside_a_writer(set, find_everywhere, 0))),
    (
        "a look at all ways, one of which another gets",
        scenario(|set| beside_a_writer(set, find_everywhere, 1)),
    ),
    (
        "two writers",
        scenario(|set| {
            let key = ALIKE.get().expect("they are known")[0];
            let before = set.tag(WayNumber::of(lookup(key).preferred));
            let other = loom::thread::spawn(move || put(set, key, 2));
            let both = u32::from(put(set, key, 3)) + u32::from(other.join().expect("it has tried"));
            let found = find_everywhere(set, key).expect("one has written");
            assert!(set.holder() == 0 && (found == 2 || found == 3), "connection {found}");
            // Each gives the way a tag that it has not had before.
            assert_eq!(set.tag(WayNumber::of(lookup(key).preferred)), before + both);
        }),
    ),
    (
        "a list of all, one of which another gets",
        Scenario { interruptions: 1, ..scenario(|set| beside_a_writer(set, list, 1)) },
    ),
    (
        "the agent removes a connection that is written again",
        Scenario {
            interruptions: 1,
            exchanges_tags: true,
            ..scenario(|set| {
                let key = ALIKE.get().expect("they are known")[0];
                let writer = loom::thread::spawn(move || assert!(put(set, key, 2)));
                remove_the_first(set);
                writer.join().expect("it has written");
                assert_eq!(find_everywhere(set, key), Some(2));
            })
        },
    ),
];

#[test]
fn in_any_order_a_set_is_read_right_and_each_barrier_is_needed() {
    let keys = ALIKE.get_or_init(alike);
    loom_barriers::each_is_needed(&SCENARIOS, 11, |scenario, without| check(keys[0], scenario, without));
}
