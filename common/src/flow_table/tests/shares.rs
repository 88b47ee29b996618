//! Who makes room for whom: a veth that opens connections as fast as it can, beside others whose connections
//! live.

use super::*;
use crate::Rate;

const NOW: u32 = 10_000 * TICKS;
const OTHER: u32 = 50;
const FLOODER: u32 = 99;
const CLOSED: Seen = Seen(Seen::REPLY.0 | Seen::CLIENT_FIN.0 | Seen::SERVER_FIN.0);
const REFUSED: Seen = Seen(Seen::REPLY.0 | Seen::RST.0);

fn of(veth: u32, last: u32, seen: Seen) -> Flow {
    Flow { client_if: veth, last, seen, ..Flow::EMPTY }
}

/// A connection that no other one in these tests is.
fn nth(veth: u32, number: u32) -> FlowKey {
    key(veth << 24 | number)
}

fn instead(established: bool, same_pod: bool) -> Option<Entered> {
    Some(Entered::Instead { established, same_pod })
}

/// One set with these entries: (veth, seconds idle, what was seen).
fn set_of(entries: [(u32, u32, Seen); WAYS as usize]) -> SharedTable {
    let table = SharedTable::new(1);
    for (number, (veth, idle, seen)) in (0..).zip(entries) {
        let put = table.put(nth(veth, number), &of(veth, NOW - idle * TICKS, seen));
        assert_eq!(put, Some(Entered::Alone), "room for seven");
    }
    table
}

/// Veths of the live connections in a set.
fn veths(table: &SharedTable) -> Vec<u32> {
    let mut veths: Vec<_> = table.entries().values().map(Flow::charged_to).collect();
    veths.sort_unstable();
    veths
}

/// 40 veths have idle connections in an eighth of the table. Then one opens ten times as many as there is
/// room for, and they are answered, refused, closed, or nothing comes of them.
#[test]
fn a_veth_that_floods_takes_the_place_of_nobody_elses_connections() {
    const SETS: u32 = 4_096;
    const OTHERS: std::ops::Range<u32> = 1..41;
    const EACH: u32 = 90;
    let flood = 10 * SETS * WAYS;
    let kinds = [
        ("half-open", std::vec![Seen::default()]),
        ("answered", std::vec![Seen::REPLY]),
        ("refused", std::vec![REFUSED]),
        ("mixed", std::vec![Seen::default(), Seen::REPLY, CLOSED, REFUSED]),
    ];
    for (what, states) in kinds {
        let table = SharedTable::new(SETS as usize);
        let live = |veth: u32| (0..EACH).map(move |number| nth(veth, number));
        for veth in OTHERS {
            for (number, key) in (0..).zip(live(veth)) {
                table.put(key, &of(veth, NOW - 3_600 * TICKS - number, Seen::REPLY));
            }
        }
        let mut rate = Rate::NONE;
        for number in 0..flood {
            let now = NOW + number / 1_000;
            let key = nth(FLOODER, number);
            let pace = Pace { opened: rate.count(now, Pace::SECONDS * TICKS), sets: SETS };
            table.put_at(key, &of(FLOODER, now, Seen::default()), pace);
            table.refresh(key, now, states[number as usize % states.len()]);
            // The others open connections, too, one for some hundred of the flooder's, and each is entered.
            if number % 401 == 0 {
                let veth = 1 + number / 401 % 40;
                let key = nth(veth, EACH + number);
                table.put(key, &of(veth, now, Seen::default()));
                assert!(table.find(key).is_some(), "{what}: a new connection of {veth}");
                table.refresh(key, now, CLOSED);
            }
        }
        for veth in OTHERS {
            let gone = live(veth).filter(|key| table.find(*key).is_none()).count();
            assert_eq!(gone, 0, "{what}: connections of {veth}");
        }
        // And then it needs no rest to get room.
        for veth in OTHERS {
            for number in 0..10 {
                let key = nth(veth, (1 << 23) + number);
                table.put(key, &of(veth, NOW, Seen::default()));
                assert!(table.find(key).is_some(), "{what}: a new connection of {veth}");
            }
            assert!(live(veth).all(|key| table.find(key).is_some()), "{what}: {veth}");
        }
    }
}

#[test]
fn a_newcomer_takes_the_place_of_its_own_veths_before_anothers() {
    let [half, est] = [Seen::default(), Seen::REPLY];
    let flood = FLOODER;
    // (who has what in a full set, what a newcomer of the flooder takes the place of, of whom one is gone
    // then)
    let table = [
        // Its own, however young and whatever the others' are.
        (
            [
                (1, 90, half),
                (2, 900, est),
                (3, 9, half),
                (4, 9, est),
                (5, 9, est),
                (6, 9, est),
                (flood, 0, half),
            ],
            instead(false, true),
            flood,
        ),
        (
            [
                (1, 90, half),
                (2, 900, est),
                (3, 9, half),
                (4, 9, est),
                (5, 9, est),
                (6, 9, est),
                (flood, 0, est),
            ],
            instead(true, true),
            flood,
        ),
        (
            [
                (1, 9, est),
                (1, 9, est),
                (2, 9, est),
                (3, 9, est),
                (flood, 9, half),
                (flood, 9, est),
                (flood, 9, est),
            ],
            instead(false, true),
            flood,
        ),
        // What has ended is worth nothing to anybody: its own first.
        (
            [
                (1, 9, CLOSED),
                (2, 9, est),
                (3, 9, est),
                (4, 9, est),
                (5, 9, est),
                (flood, 9, half),
                (flood, 0, REFUSED),
            ],
            Some(Entered::Alone),
            flood,
        ),
        (
            [
                (1, 9, REFUSED),
                (2, 9, est),
                (3, 9, est),
                (4, 9, est),
                (5, 9, est),
                (flood, 9, half),
                (flood, 9, est),
            ],
            Some(Entered::Alone),
            1,
        ),
        // What is over goes before all.
        (
            [
                (1, 121, half),
                (2, 9, est),
                (3, 9, est),
                (4, 9, est),
                (5, 9, est),
                (flood, 9, half),
                (flood, 9, CLOSED),
            ],
            Some(Entered::Alone),
            1,
        ),
        // It has less than its share: the one with the most gives way, and of its own what is worth least.
        (
            [
                (1, 9, est),
                (1, 900, est),
                (1, 9, est),
                (1, 9, est),
                (1, 9, est),
                (2, 9_000, est),
                (flood, 9, est),
            ],
            instead(true, false),
            1,
        ),
        (
            [
                (1, 9, est),
                (1, 900, est),
                (1, 9, est),
                (1, 9, half),
                (1, 9, est),
                (2, 90, half),
                (flood, 9, est),
            ],
            instead(false, false),
            1,
        ),
        (
            [
                (1, 9, est),
                (1, 900, est),
                (1, 9, est),
                (2, 9_000, est),
                (2, 9_000, est),
                (3, 9_000, est),
                (3, 9_000, est),
            ],
            instead(true, false),
            1,
        ),
        // All have one, and it has none.
        (
            [(1, 9, est), (2, 9, est), (3, 900, est), (4, 9, est), (5, 9, est), (6, 9, est), (7, 9, est)],
            instead(true, false),
            3,
        ),
        (
            [(1, 9, est), (2, 9, half), (3, 900, est), (4, 9, est), (5, 9, est), (6, 9, est), (7, 9, est)],
            instead(false, false),
            2,
        ),
    ];
    for (number, (entries, expected, gone)) in (0..).zip(table) {
        let table = set_of(entries);
        let mut left = veths(&table);
        assert_eq!(table.put(nth(flood, 100), &of(flood, NOW, half)), expected, "row {number}");
        left.remove(left.iter().position(|veth| *veth == gone).unwrap());
        left.push(flood);
        left.sort_unstable();
        assert_eq!(veths(&table), left, "row {number}");
    }
}

#[test]
fn a_veth_that_opens_many_takes_only_from_who_has_most_of_a_set() {
    let est = Seen::REPLY;
    let table = [
        ([1, 2, 3, 4, 5, 6, 7], Some(Entered::Refused)),
        ([1, 1, 1, 1, 2, 2, 2], Some(Entered::Refused)),
        ([1, 1, 1, 1, 1, 2, 2], instead(true, false)),
        ([1, 1, 1, 1, 1, FLOODER, FLOODER], instead(true, false)),
        ([1, 1, 1, 1, FLOODER, FLOODER, FLOODER], instead(true, true)),
        ([1, 1, 1, 1, 2, 3, FLOODER], instead(true, true)),
    ];
    for (entries, expected) in table {
        let table = set_of(entries.map(|veth| (veth, 9, est)));
        let before = veths(&table);
        let newcomer = nth(FLOODER, 100);
        assert_eq!(
            table.put_at(newcomer, &of(FLOODER, NOW, Seen::default()), Pace { opened: 1, sets: 1 }),
            expected
        );
        let refused = expected == Some(Entered::Refused);
        assert_eq!(
            (table.find(newcomer).is_none(), veths(&table) == before),
            (refused, refused || expected == instead(true, true))
        );
    }
}

proptest! {
    /// Whatever a full set holds, who has fewer connections in it than the newcomer would have loses none.
    #[test]
    fn nobody_takes_from_who_has_less(
        entries in prop::array::uniform7((1..5_u32, 0..100_u32, prop::sample::select(std::vec![Seen::default(), Seen::REPLY]))),
        newcomer in 1..6_u32,
    ) {
        let table = set_of(entries);
        let before = veths(&table);
        table.put(nth(newcomer, 100), &of(newcomer, NOW, Seen::default()));
        let after = veths(&table);
        let count = |veths: &[u32], veth: u32| veths.iter().filter(|other| **other == veth).count();
        for veth in 1..5 {
            if veth != newcomer && count(&after, veth) < count(&before, veth) {
                prop_assert!(count(&after, veth) >= count(&after, newcomer), "{:?} {:?}", before, after);
            }
        }
        prop_assert!(count(&after, newcomer) >= 1);
    }
}

#[test]
fn whoever_opened_a_connection_has_it_in_its_share() {
    for (client_if, server_if, veth) in [(1, 2, 1), (1, 0, 1), (0, 2, 2), (u32::MAX, 3, u32::MAX), (0, 0, 0)]
    {
        let flow = Flow { client_if, server_if, last: 1, ..Flow::EMPTY };
        let table = SharedTable::new(1);
        table.put(nth(1, 1), &flow);
        // SAFETY: a set of the table.
        let charged =
            unsafe { (1..=WAYS).fold(0, |charged, way| charged | write::charge_of(entry(table.1, way))) };
        assert_eq!((flow.charged_to(), charged), (veth, veth));
    }
}

#[test]
fn a_connection_that_looks_like_another_veths_live_one_is_not_entered() {
    let table = SharedTable::new(1);
    let (known, stranger) = (nth(OTHER, 1), nth(FLOODER, 1));
    let place = |last| {
        table.remove(known);
        table.put(known, &of(OTHER, last, Seen::REPLY));
        let (set, known) = table.place(known);
        let (_, mut lookup) = table.place(stranger);
        lookup.tag = known.tag;
        (set, lookup)
    };
    let day = 24 * 60 * 60 * TICKS;
    for (last, veth, expected) in [
        (NOW, FLOODER, Some(Entered::Refused)),
        (NOW, OTHER, instead(true, true)),
        (NOW.wrapping_sub(6 * day), FLOODER, Some(Entered::Alone)),
    ] {
        let (set, lookup) = place(last);
        // SAFETY: the only thread.
        let put = |lookup: &Lookup| unsafe {
            let flow = of(veth, NOW, Seen::default());
            FlowSet::put::<HostAtomic>(set, lookup, &flow, &TIMEOUTS, Holder::Program, SLOW)
        };
        assert_eq!(put(&lookup), expected);
        assert_eq!(
            put(&lookup),
            if expected == Some(Entered::Refused) { expected } else { Some(Entered::Alone) }
        );
        assert_eq!(table.find(known).is_some(), expected == Some(Entered::Refused));
        // SAFETY: as above.
        unsafe { FlowSet::remove(set, |_, _| true) };
    }
}

#[test]
fn what_is_over_is_swept_and_nothing_else() {
    let day = 24 * 60 * 60;
    // (seconds idle, what was seen, whether it goes)
    let entries = [
        (119, Seen::default(), false),
        (130, Seen::default(), true),
        (130, CLOSED, true),
        (5 * day - 1, Seen::REPLY, false),
        (5 * day + 9, Seen::REPLY, true),
        (0, Seen::REPLY, false),
    ];
    // Across the end of what the clock counts, too.
    for now in [NOW, 1_000 * TICKS, u32::MAX, 10 * day * TICKS] {
        let table = SharedTable::new(1);
        for (number, (idle, seen, _)) in (0..).zip(entries) {
            table.put(nth(OTHER, number), &of(OTHER, now.wrapping_sub(idle * TICKS), seen));
        }
        // Used by another processor after the clock was read.
        table.put(nth(OTHER, 50), &of(OTHER, now.wrapping_add(3), Seen::REPLY));
        assert_eq!(table.sweep(now), 3);
        for (number, (idle, _, goes)) in (0..).zip(entries) {
            assert_eq!(table.find(nth(OTHER, number)).is_none(), goes, "{idle} seconds");
        }
        assert!(table.find(nth(OTHER, 50)).is_some());
        assert_eq!(table.sweep(now), 0);
    }
}
