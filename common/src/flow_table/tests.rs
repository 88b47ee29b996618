//! The table against a model, full sets, writers that die, and threads that write and read at once.

mod crowd;
pub(super) mod modelled;
mod shares;
mod sweep;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    thread,
    vec::Vec,
};

use proptest::prelude::*;

use super::*;
use crate::{Address, Timeouts, Tuple, protocol::number};

const TICKS: u32 = 100;
const TIMEOUTS: Timeouts = Timeouts::with_ticks_per_second(TICKS);
const SEED: FlowSeed = FlowSeed::OF_PI;

/// A table in memory of its own, which several threads may use.
struct SharedTable {
    /// It owns what the pointer points to.
    memory: Vec<FlowSet>,
    first: *mut FlowSet,
    shares: Vec<AtomicI64>,
}

// SAFETY: only used through the functions under test, which are made for it.
unsafe impl Sync for SharedTable {}

impl SharedTable {
    fn new(sets: usize) -> Self {
        let mut memory = std::vec![FlowSet::EMPTY; sets];
        let shares = (0..FlowShare::SLOTS).map(|_| AtomicI64::new(0)).collect();
        Self { first: memory.as_mut_ptr(), memory, shares }
    }

    fn set(&self, number: usize) -> SharedSet {
        assert!(number < self.memory.len(), "a set of the table");
        // SAFETY: inside the table, which lives, and is used in this way alone.
        unsafe { SharedSet::new(self.first.add(number)) }
    }

    fn sets(&self) -> impl Iterator<Item = SharedSet> {
        (0..self.memory.len()).map(|set| self.set(set))
    }

    fn place(&self, key: FlowKey) -> (SharedSet, Lookup) {
        let mut lookup = Lookup::of(key);
        let set = lookup.place(&SEED, u32::try_from(self.memory.len()).unwrap());
        (self.set(set as usize), lookup)
    }

    fn find(&self, key: FlowKey) -> Option<Flow> {
        let (set, mut lookup) = self.place(key);
        set.find::<HostAtomic>(&mut lookup).then_some(lookup.flow)
    }

    fn rule(&self) -> ReplacementRule<'_, Self> {
        ReplacementRule { timeouts: &TIMEOUTS, shares: self, sets: u32::try_from(self.memory.len()).unwrap() }
    }

    fn put(&self, key: FlowKey, flow: &Flow) -> Option<Entered> {
        let (set, lookup) = self.place(key);
        set.put::<HostAtomic, _>(&lookup, flow, &self.rule(), Holder::Program)
    }

    fn refresh(&self, key: FlowKey, now: u32, seen: Seen) {
        let (set, mut lookup) = self.place(key);
        if set.find::<HostAtomic>(&mut lookup) {
            set.refresh::<HostAtomic>(&lookup, now, seen);
        }
    }

    /// Of all sets.
    fn sweep(&self, now: u32) -> usize {
        self.sets().map(|set| set.sweep(now, &TIMEOUTS, self)).sum()
    }

    fn remove(&self, key: FlowKey) -> usize {
        let set = self.place(key).0;
        set.remove(|known, _| *known == key, self)
    }

    fn entries(&self) -> BTreeMap<FlowKey, Flow> {
        self.sets().flat_map(SharedSet::entries::<HostAtomic>).collect()
    }
}

impl FlowShares for SharedTable {
    fn of(&self, veth: u32) -> u32 {
        FlowShare(self.shares[FlowShare::slot(veth) as usize].load(Ordering::Relaxed)).count()
    }

    fn add(&self, veth: u32) {
        self.shares[FlowShare::slot(veth) as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn subtract(&self, veth: u32) {
        self.shares[FlowShare::slot(veth) as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

fn key(number: u32) -> FlowKey {
    let [a, b, c, d] = number.to_be_bytes();
    let tuple = Tuple {
        source: Address::from_v4([10, a, b, 1]),
        destination: Address::from_v4([10, 200, 0, c]),
        source_port: 1_000 + u16::from(d),
        destination_port: 80,
        protocol: number::TCP,
    };
    FlowKey::of(&tuple).0
}

/// An entry all of whose words tell which connection and which write it is of.
fn stamped(number: u32, write: u32) -> Flow {
    let stamp = number.wrapping_mul(31).wrapping_add(write << 20);
    Flow {
        client_if: stamp,
        server_if: !stamp,
        ingress_ifindex: stamp ^ 1,
        client_revision: stamp ^ 2,
        server_revision: stamp ^ 3,
        last: write,
        seen: Seen(stamp & 0x70),
    }
}

fn is_whole(flow: &Flow, number: u32) -> bool {
    let stamp = flow.client_if;
    (stamp & 0xf_ffff) == (number.wrapping_mul(31) & 0xf_ffff)
        && flow.server_if == !stamp
        && flow.ingress_ifindex == stamp ^ 1
        && flow.client_revision == stamp ^ 2
        && flow.server_revision == stamp ^ 3
        && flow.seen.0 & 0x70 == stamp & 0x70
}

fn flow(last: u32, seen: Seen) -> Flow {
    Flow { client_if: 1, last, seen, ..Flow::EMPTY }
}

#[derive(Clone, Debug)]
enum Step {
    Put(u32, u32),
    Refresh(u32, u32),
    Remove(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..40_u32, 0..16_u32).prop_map(|(number, write)| Step::Put(number, write)),
        2 => (0..40_u32, 0..16_u32).prop_map(|(number, bits)| Step::Refresh(number, bits)),
        1 => (0..40_u32).prop_map(Step::Remove),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    /// With room for all, the table is a map.
    #[test]
    fn what_was_entered_last_is_found_until_it_is_removed(steps in steps()) {
        let table = SharedTable::new(64);
        let mut model = BTreeMap::new();
        for step in steps {
            match step {
                Step::Put(number, write) => {
                    prop_assert_eq!(table.put(key(number), &stamped(number, write)), Some(Entered::Alone));
                    model.insert(key(number), stamped(number, write));
                }
                Step::Refresh(number, bits) => {
                    table.refresh(key(number), bits, Seen(bits));
                    if let Some(flow) = model.get_mut(&key(number)) {
                        flow.last = bits;
                        flow.seen = flow.seen.with(Seen(bits).marks(), true);
                    }
                }
                Step::Remove(number) => {
                    let known = model.remove(&key(number)).is_some();
                    prop_assert_eq!(table.remove(key(number)), usize::from(known));
                }
            }
            for number in 0..40 {
                prop_assert_eq!(table.find(key(number)), model.get(&key(number)).copied(), "{}", number);
            }
            prop_assert_eq!(&table.entries(), &model);
        }
    }

    /// Without room, what is found is right, and what was entered last is found.
    #[test]
    fn a_full_table_forgets_but_tells_no_lies(steps in steps()) {
        let table = SharedTable::new(2);
        let mut model = BTreeMap::new();
        for step in steps {
            if let Step::Put(number, write) = step {
                prop_assert!(table.put(key(number), &stamped(number, write)).is_some());
                model.insert(key(number), stamped(number, write));
                prop_assert_eq!(table.find(key(number)), Some(stamped(number, write)));
            }
        }
        let entries = table.entries();
        prop_assert!(entries.len() <= 2 * WAYS as usize);
        for (key, flow) in entries {
            prop_assert_eq!(model.get(&key), Some(&flow));
        }
    }
}

#[test]
fn the_entry_goes_that_is_worth_least() {
    let table = SharedTable::new(1);
    let now = 1_000 * TICKS;
    let age = |seconds: u32| now - seconds * TICKS;
    // (age, marks): the order in which they go.
    let entries = [
        (age(200), Seen::default()),
        (age(100), Seen::REPLY.with(Seen::RST, true)),
        (age(100), Seen::default()),
        (age(10), Seen::default()),
        (age(900), Seen::REPLY),
        (age(100), Seen::REPLY),
        (age(10), Seen::REPLY),
    ];
    let entered = [
        Entered::Alone,
        Entered::Alone,
        Entered::Instead { established: false, same_pod: true },
        Entered::Instead { established: false, same_pod: true },
        Entered::Instead { established: true, same_pod: true },
        Entered::Instead { established: true, same_pod: true },
        Entered::Instead { established: true, same_pod: true },
    ];
    for (number, (last, seen)) in (0..).zip(entries) {
        assert_eq!(table.put(key(number), &flow(last, seen)), Some(Entered::Alone), "room for seven");
    }
    for (number, entered) in (0..).zip(entered) {
        // Younger than all, and answered: it stays.
        let newcomer = key(100 + number);
        assert_eq!(table.put(newcomer, &flow(now, Seen::REPLY)), Some(entered), "in place of {number}");
        assert_eq!(table.find(key(number)), None);
        assert!(table.find(newcomer).is_some());
        assert_eq!(table.entries().len(), WAYS as usize);
    }
}

#[test]
fn an_entry_is_replaced_in_its_place_however_full_the_set_is() {
    let table = SharedTable::new(1);
    for number in 0..WAYS {
        table.put(key(number), &flow(1, Seen::REPLY));
    }
    for number in 0..WAYS {
        assert_eq!(table.put(key(number), &flow(2, Seen::default())), Some(Entered::Alone));
    }
    assert!(table.entries().values().all(|entry| *entry == flow(2, Seen::default())));
}

#[test]
fn connections_are_spread_evenly_and_each_seed_does_it_its_own_way() {
    const SETS: u32 = 256;
    const EACH: u32 = 16;
    let place = |number: u32, seed: &FlowSeed| Lookup::of(key(number)).place(seed, SETS);
    let other = FlowSeed(SEED.0.map(|word| word.rotate_left(7) ^ 0x5bd1_e995));
    for seed in [SEED, other] {
        let mut counts = [0_u32; SETS as usize];
        for number in 0..SETS * EACH {
            counts[place(number, &seed) as usize] += 1;
        }
        // The sum of squared deviations of a fair throw is 255 +- 23 times the expected count.
        let deviation: u32 = counts.iter().map(|count| count.abs_diff(EACH).pow(2)).sum();
        assert!(deviation / EACH < 400, "{deviation} with {seed:?}: {counts:?}");
    }
    let moved = (0..1_000).filter(|number| place(*number, &SEED) != place(*number, &other)).count();
    assert!(moved > 900, "{moved}");
}

#[test]
fn a_set_whose_writer_died_is_read_but_not_written_until_it_is_freed() {
    let table = SharedTable::new(1);
    table.put(key(1), &flow(1, Seen::REPLY));
    table.put(key(2), &flow(1, Seen::REPLY));
    // An agent that got as far as marking a way.
    let (set, mut dead) = table.place(key(2));
    assert!(set.find::<HostAtomic>(&mut dead));
    assert!(set.try_lock::<HostAtomic>(Holder::Agent));
    set.set_tag(dead.way(), set.tag(dead.way()) | BUSY);
    assert_eq!(table.find(key(1)), Some(flow(1, Seen::REPLY)));
    assert_eq!(table.find(key(2)), None, "half an entry is none");
    assert_eq!(table.put(key(3), &flow(1, Seen::default())), None);
    set.free::<HostAtomic>();
    assert_eq!(table.put(key(3), &flow(1, Seen::default())), Some(Entered::Alone));
    assert_eq!(table.entries().into_keys().collect::<Vec<_>>(), [key(1), key(3)]);
}

/// Writers and readers of a few sets at once: no one ever reads an entry made of two writes.
#[test]
fn threads_never_see_half_an_entry() {
    const WRITES: u32 = 60_000;
    const CONNECTIONS: u32 = 48;
    const ENOUGH: usize = 1_000;
    let table = SharedTable::new(4);
    let (done, found, entered) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let threads =
        thread::available_parallelism().map_or(2, |cpus| u32::try_from(cpus.get()).unwrap().clamp(2, 64));
    thread::scope(|scope| {
        let writers: Vec<_> = (0..threads)
            .map(|thread| {
                let (table, entered, found) = (&table, &entered, &found);
                scope.spawn(move || {
                    for write in 0..100 * WRITES {
                        // A busy machine may let the readers wait.
                        if write >= WRITES && found.load(Ordering::Relaxed) > ENOUGH {
                            break;
                        }
                        let number =
                            (write.wrapping_mul(2_654_435_761) >> 7).wrapping_add(thread * 7) % CONNECTIONS;
                        if table.put(key(number), &stamped(number, write % 1_024)).is_some() {
                            entered.fetch_add(1, Ordering::Relaxed);
                        }
                        if write % 97 == 0 {
                            table.refresh(key(number), write, Seen(1));
                        }
                    }
                })
            })
            .collect();
        for thread in 0..threads {
            let (table, done, found) = (&table, &done, &found);
            scope.spawn(move || {
                let mut number = thread;
                while !done.load(Ordering::Relaxed) {
                    number = (number + 5) % CONNECTIONS;
                    if let Some(flow) = table.find(key(number)) {
                        found.fetch_add(1, Ordering::Relaxed);
                        assert!(is_whole(&flow, number), "{number}: {flow:?}");
                    }
                }
            });
        }
        let (table, done) = (&table, &done);
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                // Some of them are over.
                table.sweep(14_000);
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(found.into_inner() > ENOUGH);
    assert!(entered.into_inner() > WRITES as usize);
    assert!(table.entries().len() <= 4 * WAYS as usize);
    for (known, flow) in table.entries() {
        let number = (0..CONNECTIONS).find(|number| key(*number) == known).expect("one that was entered");
        assert!(is_whole(&flow, number), "{number}: {flow:?}");
    }
}
