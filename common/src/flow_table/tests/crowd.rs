//! Many veths together, beside one that they could leave no room.

use super::{
    shares::{NOW, nth, of},
    *,
};

/// So many pods act together, at full speed or so slowly that none of them stands out. Between them, others
/// have some connections each, and go on opening more.
#[test]
fn veths_that_fill_the_table_together_take_nothing_from_others_and_leave_them_room() {
    const SETS: u32 = 1_024;
    const OTHERS: std::ops::Range<u32> = 1..41;
    const EACH: u32 = 10;
    for count in [2, 3, 7, 50] {
        let attackers = 100..100 + count;
        let table = SharedTable::new(SETS as usize);
        let live = |veth: u32| (0..EACH).map(move |number| nth(veth, number));
        for veth in OTHERS {
            for (number, key) in (0..).zip(live(veth)) {
                table.put(key, &of(veth, NOW - 3_600 * TICKS - number, Seen::REPLY));
            }
        }
        for number in 0..3 * SETS * WAYS / count {
            for veth in attackers.clone() {
                table.put(nth(veth, number), &of(veth, NOW + number, Seen::REPLY));
            }
        }
        let held: usize = table.entries().len();
        assert!(held > (SETS * WAYS) as usize * 9 / 10, "{held}: the table is full");
        // Each of these opens more than one for 64 sets.
        for number in 0..100 {
            for veth in OTHERS.step_by(8) {
                let newcomer = nth(veth, 1_000 + number);
                table.put(newcomer, &of(veth, NOW + number, Seen::default()));
                assert!(table.find(newcomer).is_some(), "{attackers:?}: {number} of {veth}");
            }
        }
        for veth in OTHERS {
            let gone = live(veth).filter(|key| table.find(*key).is_none()).count();
            assert_eq!(gone, 0, "{attackers:?}: connections of {veth}");
        }
    }
}

/// Two veths, or some, want more of the table than there is, each as much as any other. A set may well hold
/// none of the connections of one of them.
#[test]
fn veths_with_equal_shares_of_a_full_table_go_on_opening_connections() {
    const SETS: u32 = 1_024;
    for count in [2, 5, 40] {
        let table = SharedTable::new(SETS as usize);
        for number in 0..3 * SETS * WAYS / count {
            for veth in 100..100 + count {
                let key = nth(veth, number);
                table.put(key, &of(veth, NOW + number, Seen::REPLY));
                assert!(table.find(key).is_some(), "{count} veths: number {number} of {veth}");
            }
        }
        assert!(table.entries().len() > (SETS * WAYS) as usize * 9 / 10, "the table is full");
    }
}

/// 20 veths hold all of the table with connections that live. Another one opens 60 a second, of which each
/// ends at once: what it has that lives is never as much as theirs.
#[test]
fn connections_that_have_ended_keep_no_veth_from_opening_others() {
    const SETS: u32 = 4_096;
    const OPENER: u32 = 50;
    const SWEEP: u32 = 10;
    let closed = Seen(Seen::REPLY.0 | Seen::RST.0);
    let table = SharedTable::new(SETS as usize);
    for number in 0..SETS * WAYS / 10 {
        for veth in 100..120 {
            table.put(nth(veth, number), &of(veth, NOW, Seen::REPLY));
        }
    }
    assert!(table.entries().len() > (SETS * WAYS) as usize * 9 / 10, "the table is full");
    for second in 0..5 * 60 {
        let now = NOW + second * TICKS;
        for number in 60 * second..60 * (second + 1) {
            let key = nth(OPENER, number);
            table.put(key, &of(OPENER, now, Seen::default()));
            assert!(table.find(key).is_some(), "number {number}, of {} with {}", OPENER, table.of(OPENER));
            table.refresh(key, now, closed);
        }
        let part = table.sets().skip((second % SWEEP) as usize).step_by(SWEEP as usize);
        part.for_each(|set| _ = set.sweep(now, &TIMEOUTS, &table));
    }
}
