//! Who makes room for whom: veths that open connections as fast as they can, beside others whose connections
//! live.

use super::*;

pub(super) const NOW: u32 = 10_000 * TICKS;
const OTHER: u32 = 50;
const FLOODER: u32 = 99;
const CLOSED: Seen = Seen(Seen::REPLY.0 | Seen::CLIENT_FIN.0 | Seen::SERVER_FIN.0);
const REFUSED: Seen = Seen(Seen::REPLY.0 | Seen::RST.0);

pub(super) fn of(veth: u32, last: u32, seen: Seen) -> Flow {
    Flow { client_if: veth, last, seen, ..Flow::EMPTY }
}

/// A connection that no other one in these tests is.
pub(super) fn nth(veth: u32, number: u32) -> FlowKey {
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
fn a_veth_that_floods_takes_the_place_of_no_other_pods_connections() {
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
        for number in 0..flood {
            let now = NOW + number / 1_000;
            let key = nth(FLOODER, number);
            table.put(key, &of(FLOODER, now, Seen::default()));
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
fn a_newcomer_takes_the_place_of_who_has_most_of_the_table() {
    let [half, est] = [Seen::default(), Seen::REPLY];
    let flood = FLOODER;
    // Of each: veth, seconds idle, what was seen. The newcomer is of the flooder, who has 40 connections in
    // the whole table; veths 1 to 3 have 10 each, 4 to 6 have 900 each, 7 has 8,000, 8 and 9 as below.
    let share = |veth: u32| match veth {
        FLOODER => 40,
        1..=3 => 10,
        4..=6 => 900,
        8 => 1_020,
        9 => 50,
        _ => 8_000,
    };
    let alone = Some(Entered::Alone);
    let table = [
        // (what is in the set, how the newcomer is entered, whose connection is gone then)
        // Whoever has more than all others, whatever its connections are.
        (
            [
                (1, 90, half),
                (2, 900, est),
                (4, 9, half),
                (flood, 9, half),
                (7, 9, est),
                (7, 90, est),
                (6, 9, est),
            ],
            instead(true, false),
            Some((7, 90)),
        ),
        (
            [
                (1, 90, half),
                (2, 900, est),
                (4, 9, est),
                (5, 90, est),
                (6, 9, half),
                (flood, 9, half),
                (1, 9, est),
            ],
            instead(false, false),
            Some((6, 9)),
        ),
        // One that has an eighth less keeps what it has, its own or another's.
        (
            [
                (1, 90, half),
                (2, 900, est),
                (4, 100, half),
                (5, 90, est),
                (8, 9, est),
                (flood, 9, half),
                (1, 9, est),
            ],
            instead(true, false),
            Some((8, 9)),
        ),
        (
            [
                (1, 90, half),
                (2, 900, est),
                (3, 9, half),
                (9, 9, est),
                (2, 9, est),
                (flood, 90, half),
                (3, 9, est),
            ],
            instead(true, false),
            Some((9, 9)),
        ),
        // Its own, however young and whatever those of veths with less are.
        (
            [
                (1, 90, half),
                (2, 900, est),
                (3, 9, half),
                (1, 9, est),
                (2, 9, est),
                (3, 9, est),
                (flood, 0, est),
            ],
            instead(true, true),
            Some((flood, 0)),
        ),
        (
            [
                (1, 90, half),
                (1, 99, est),
                (3, 9, half),
                (1, 9, est),
                (flood, 90, est),
                (flood, 9, half),
                (2, 9, est),
            ],
            instead(false, true),
            Some((flood, 9)),
        ),
        // What has ended is worth nothing to anyone: its own first.
        (
            [
                (1, 9, CLOSED),
                (7, 9, est),
                (7, 9, est),
                (7, 9, est),
                (5, 9, est),
                (flood, 9, half),
                (flood, 0, REFUSED),
            ],
            alone,
            Some((flood, 0)),
        ),
        (
            [
                (1, 9, REFUSED),
                (7, 9, est),
                (7, 9, est),
                (7, 9, est),
                (5, 9, est),
                (flood, 9, half),
                (flood, 8, est),
            ],
            alone,
            Some((1, 9)),
        ),
        // What is over goes before all.
        (
            [
                (1, 121, half),
                (7, 9, est),
                (3, 9, est),
                (4, 9, est),
                (5, 9, est),
                (flood, 9, half),
                (flood, 8, CLOSED),
            ],
            alone,
            Some((1, 121)),
        ),
        // All have less than it, and it has none here.
        (
            [
                (1, 9, est),
                (2, 9, est),
                (3, 100, half),
                (1, 9, est),
                (2, 90, est),
                (3, 99, est),
                (1, 999, est),
            ],
            Some(Entered::Refused),
            None,
        ),
    ];
    for (number, (entries, expected, gone)) in (0..).zip(table) {
        let table = set_of(entries);
        for veth in 1..=FLOODER {
            table.shares[FlowShare::slot(veth) as usize].store(share(veth), Ordering::Relaxed);
        }
        let before = ages(&table);
        assert_eq!(table.put(nth(flood, 100), &of(flood, NOW, half)), expected, "row {number}");
        let mut left = before.clone();
        if let Some(gone) = gone {
            left.remove(left.iter().position(|one| *one == gone).unwrap());
            left.push((flood, 0));
            left.sort_unstable();
        }
        assert_eq!(ages(&table), left, "row {number}");
        for veth in [1, 4, 7, FLOODER] {
            let count = |ages: &[(u32, u32)]| i64::try_from(ages.iter().filter(|one| one.0 == veth).count());
            let change = count(&left).unwrap() - count(&before).unwrap();
            assert_eq!(i64::from(table.of(veth)), share(veth) + change, "row {number}: share of {veth}");
        }
    }
}

/// Veths and seconds idle of the connections in a set.
fn ages(table: &SharedTable) -> Vec<(u32, u32)> {
    let entries = table.entries();
    let mut ages: Vec<_> =
        entries.values().map(|flow| (flow.charged_to(), (NOW - flow.last) / TICKS)).collect();
    ages.sort_unstable();
    ages
}

#[test]
fn a_small_veth_gets_a_place_though_all_others_here_are_smaller() {
    let [half, est] = [Seen::default(), Seen::REPLY];
    for (last, established, gone) in [(half, false, 7), (est, true, 3)] {
        let set = set_of([
            (1, 9, est),
            (2, 9, est),
            (3, 900, est),
            (4, 9, est),
            (5, 9, est),
            (6, 9, est),
            (7, 9, last),
        ]);
        for (sets, entered) in [(127, Some(Entered::Refused)), (128, instead(established, false))] {
            set.shares[FlowShare::slot(FLOODER) as usize].store(2, Ordering::Relaxed);
            let (place, lookup) = set.place(nth(FLOODER, 100));
            let rule = ReplacementRule { sets, ..set.rule() };
            let flow = of(FLOODER, NOW, half);
            assert_eq!(place.put::<HostAtomic, _>(&lookup, &flow, &rule, Holder::Program), entered);
        }
        assert!(!veths(&set).contains(&gone) && veths(&set).contains(&FLOODER));
    }
}

proptest! {
    /// Whatever happens: no veth loses a live connection to one that has an eighth more in the whole table,
    /// none is refused while another in its set has as many, and the shares are what the table holds.
    #[test]
    fn no_veth_takes_from_one_that_has_less(
        steps in prop::collection::vec((1..8_u32, 0..4_usize, 0..20_u32), 1..250),
    ) {
        let table = SharedTable::new(4);
        let held = || {
            let mut held = BTreeMap::<u32, u32>::new();
            for flow in table.entries().values() {
                *held.entry(flow.charged_to()).or_default() += 1;
            }
            held
        };
        for (number, (veth, seen, removed)) in (0..).zip(steps) {
            let (now, seen) = (NOW + number, [Seen::default(), Seen::REPLY, Seen::REPLY, REFUSED][seen]);
            let before = table.entries();
            let share = |of: u32| before.values().filter(|flow| flow.charged_to() == of).count();
            let entered = table.put(nth(veth, number), &of(veth, now, seen));
            let after = table.entries();
            let lost = before.iter().find(|(key, flow)| !after.contains_key(*key) && !flow.seen.is_closed());
            if let Some((_, flow)) = lost {
                let other = flow.charged_to();
                prop_assert!(8 * share(other) >= 7 * share(veth), "{} took from {}", veth, other);
            }
            prop_assert_eq!(after.contains_key(&nth(veth, number)), entered != Some(Entered::Refused));
            if entered == Some(Entered::Refused) {
                let (set, _) = table.place(nth(veth, number));
                let has_less = |(_, flow): (_, Flow)| share(flow.charged_to()) < share(veth);
                prop_assert!(set.entries::<HostAtomic>().all(has_less), "{} was refused", veth);
            }
            if removed == 0 {
                table.remove(nth(veth, number));
            }
            for veth in 1..8 {
                prop_assert_eq!(table.of(veth), held().get(&veth).copied().unwrap_or(0), "share of {}", veth);
            }
        }
    }
}

#[test]
fn whoever_opened_a_connection_has_it_in_its_share() {
    for (client_if, server_if, veth) in [(1, 2, 1), (1, 0, 1), (0, 2, 2), (u32::MAX, 3, u32::MAX), (0, 0, 0)]
    {
        let flow = Flow { client_if, server_if, last: 1, ..Flow::EMPTY };
        let table = SharedTable::new(1);
        table.put(nth(1, 1), &flow);
        let charged = WayNumber::all().fold(0, |charged, way| charged | table.set(0).charge_of(way));
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
        let put = |lookup: &Lookup| {
            let flow = of(veth, NOW, Seen::default());
            set.put::<HostAtomic, _>(lookup, &flow, &table.rule(), Holder::Program)
        };
        assert_eq!(put(&lookup), expected);
        assert_eq!(
            put(&lookup),
            if expected == Some(Entered::Refused) { expected } else { Some(Entered::Alone) }
        );
        assert_eq!(table.find(known).is_some(), expected == Some(Entered::Refused));
        set.remove(|_, _| true, &table);
    }
}
