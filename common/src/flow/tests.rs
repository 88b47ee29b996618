//! Keys, words and times of entries of the flow table.

use proptest::prelude::*;

use super::*;
use crate::Segment;

/// Few values each, so that ends often share an address or a port, and IPv6 addresses that look like keys of
/// IPv4 ones.
fn tuples() -> impl Strategy<Value = Tuple> {
    let v4 = |last: u8| Address::from_v4([10, 0, 0, last]);
    let v6 = |last: u8| Address::from_halves(0x0a00_0000_0a00_0000 | u64::from(last), 0);
    let zero = |_| Address::UNSPECIFIED;
    let family = prop::sample::select(std::vec![v4 as fn(u8) -> Address, v6, zero]);
    let protocol = prop::sample::select(std::vec![1_u32, 6, 17]);
    (family, 0..3_u8, 0..3_u8, 0..3_u16, 0..3_u16, protocol).prop_map(
        |(address, source, destination, source_port, destination_port, protocol)| Tuple {
            source: address(source),
            destination: address(destination),
            source_port,
            destination_port,
            protocol,
        },
    )
}

proptest! {
    #[test]
    fn both_directions_of_a_connection_have_one_key(tuple in tuples()) {
        let (key, source_is_low) = FlowKey::of(&tuple);
        let (back, back_is_low) = FlowKey::of(&tuple.reversed());
        prop_assert_eq!(key, back);
        let to_itself = tuple == tuple.reversed();
        prop_assert_eq!(source_is_low, !back_is_low || to_itself);
        let ends = |tuple: &Tuple| ([tuple.source, tuple.destination], [tuple.source_port, tuple.destination_port]);
        let low_first = if source_is_low { tuple } else { tuple.reversed() };
        prop_assert_eq!((key.addresses(), key.ports()), ends(&low_first));
        prop_assert_eq!(key.protocol(), tuple.protocol);
    }

    #[test]
    fn two_connections_have_two_keys(one in tuples(), other in tuples()) {
        let same = one == other || one == other.reversed();
        prop_assert_eq!(FlowKey::of(&one).0 == FlowKey::of(&other).0, same);
    }
}

#[test]
fn an_entry_lives_as_long_as_in_netfilters_connection_tracking() {
    const TICKS: u32 = 100;
    let timeouts = Timeouts::with_ticks_per_second(TICKS);
    let none = Seen::default();
    let [reply, client_fin, server_fin, rst] = [Seen::REPLY, Seen::CLIENT_FIN, Seen::SERVER_FIN, Seen::RST];
    let with = |bits: &[Seen]| bits.iter().fold(none, |seen, bit| seen.with(*bit, true));
    let days = 24 * 60 * 60;
    // (protocol, what was seen, seconds)
    let table = [
        (number::TCP, none, 120),
        (number::TCP, reply, 5 * days),
        (number::TCP, with(&[reply, client_fin]), 5 * days),
        (number::TCP, with(&[reply, server_fin]), 5 * days),
        (number::TCP, with(&[reply, client_fin, server_fin]), 120),
        (number::TCP, with(&[reply, rst]), 120),
        (number::TCP, rst, 120),
        (number::UDP, none, 30),
        (number::UDP, reply, 120),
        (number::SCTP, none, 30),
        (number::SCTP, reply, 120),
        (number::SCTP, with(&[reply, rst]), 30),
        (number::ICMP, none, 30),
        (number::ICMP, reply, 30),
        (number::ICMPV6, reply, 30),
        (47, none, 30),
        (47, reply, 120),
    ];
    for (protocol, seen, seconds) in table {
        for seen in [seen, seen.with(Seen::CLIENT_IS_LOW, true)] {
            assert_eq!(timeouts.of(protocol, seen), seconds * TICKS, "protocol {protocol}, seen {seen:?}");
        }
    }
}

#[test]
fn an_entry_that_is_never_removed_does_not_look_young_again_for_two_years() {
    // All that kernels are built with (kernel/Kconfig.hz).
    for hz in [100, 250, 300, 1_000] {
        let timeouts = Timeouts::of_kernel(hz);
        let Timeouts { tcp, tcp_half, stream, unreplied, refresh } = timeouts;
        for timeout in [tcp, tcp_half, stream, unreplied, refresh] {
            assert!(timeout > 0 && timeout < u32::MAX / 100, "{timeout} with {hz}");
        }
        assert_eq!(unreplied, tcp.min(tcp_half).min(stream).min(unreplied), "looked at first");
        let days = |days: u64| u32::try_from(days * 86_400 * u64::from(hz) / u64::from(JIFFIES_PER_TICK));
        assert_eq!(seconds_of_ticks(days(30).expect("30 days"), hz), 30 * 86_400);
        for idle in [6, 25, 50, 55, 100, 365, 730] {
            let last = u32::MAX - 7;
            let now = last.wrapping_add(days(idle).expect("the clock counts two years"));
            assert!(timeouts.idle(last, now) > tcp, "{idle} days with {hz}");
        }
        assert_eq!(timeouts.idle(7, 6), 0, "used after the clock was read");
    }
}

#[test]
fn each_side_leaves_its_own_marks_on_a_connection() {
    let segment = |fin, rst| Segment::with_flags(u8::from(fin) | u8::from(rst) << 2);
    // (segment, from the client, marks)
    let table = [
        (segment(false, false), true, 0),
        (segment(false, false), false, Seen::REPLY.0),
        (segment(true, false), true, Seen::CLIENT_FIN.0),
        (segment(true, false), false, Seen::REPLY.0 | Seen::SERVER_FIN.0),
        (segment(false, true), true, Seen::RST.0),
        (segment(false, true), false, Seen::REPLY.0 | Seen::RST.0),
    ];
    for (segment, from_client, marks) in table {
        assert_eq!(Seen::default().after(segment, from_client), Seen(marks), "{segment:?} {from_client}");
        assert_eq!(Seen(31).after(segment, from_client), Seen(31), "marks never go");
    }
}
