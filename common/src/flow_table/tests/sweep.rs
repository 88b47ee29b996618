//! Which connections a sweep removes.

use super::*;

const NOW: u32 = 10_000 * TICKS;
const CLOSED: Seen = Seen(Seen::REPLY.0 | Seen::CLIENT_FIN.0 | Seen::SERVER_FIN.0);

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
            table.put(key(number), &flow(now.wrapping_sub(idle * TICKS), seen));
        }
        // Used by another processor after the clock was read.
        table.put(key(50), &flow(now.wrapping_add(3), Seen::REPLY));
        assert_eq!(table.sweep(now), 3);
        for (number, (idle, _, goes)) in (0..).zip(entries) {
            assert_eq!(table.find(key(number)).is_none(), goes, "{idle} seconds");
        }
        assert!(table.find(key(50)).is_some());
        assert_eq!(table.sweep(now), 0);
    }
}

#[test]
fn what_has_ended_is_swept_from_a_full_set_alone() {
    for (count, idle, seen, goes) in [
        (WAYS, 10, CLOSED, 1),
        (WAYS - 1, 10, CLOSED, 0),
        // The last packets may still be on their way.
        (WAYS, 1, CLOSED, 0),
        (WAYS, 10, Seen::REPLY, 0),
        (WAYS, 10, Seen::default(), 0),
    ] {
        let table = SharedTable::new(1);
        table.put(key(0), &flow(NOW - idle * TICKS, seen));
        for number in 1..count {
            table.put(key(number), &flow(NOW, Seen::REPLY));
        }
        assert_eq!(table.sweep(NOW), goes, "{count} entries, idle for {idle} s, {seen:?}");
        assert_eq!(table.find(key(0)).is_none(), goes == 1);
    }
}
