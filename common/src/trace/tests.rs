//! Steps are read back as they were written, and filters match packets of both directions.

use core::net::IpAddr;

use super::*;
use crate::{ClassId, IdentityId, NODE, PolicyId, PortPair, RowKey, RuleProtocol, Seen, ServiceId};

fn address(text: &str) -> Address {
    text.parse::<IpAddr>().expect("a literal of the test").into()
}

#[test]
fn each_step_comes_back_from_its_words_and_no_other_words_are_one() {
    let (v4, v6) = (address("10.1.2.3"), address("fd00::f00d:1"));
    let most = u32::MAX;
    let row = |block| TracedLookup::Row {
        key: RowKey { policy: PolicyId(most), identity: IdentityId(7), block },
        class: ClassId(u16::MAX),
        is_there: true,
        has_bit: block == most,
    };
    let steps = [
        TracedLookup::Fragment { ports: None },
        TracedLookup::Fragment { ports: Some(PortPair { source: u16::MAX, destination: 1 }) },
        TracedLookup::LinkAddress { ifindex: most, is_bound: false },
        TracedLookup::LinkAddress { ifindex: 7, is_bound: true },
        TracedLookup::Flow { entry: None },
        TracedLookup::Flow {
            entry: Some(FlowStep { client_if: most, server_if: 1, seen: Seen::REPLY, last: most }),
        },
        TracedLookup::Endpoint {
            ifindex: 1,
            state: 2,
            ingress: PolicyId(3),
            egress: PolicyId(most),
            audit: [PolicyId(5), PolicyId(6)],
        },
        TracedLookup::Owner { address: v4, owner: None },
        TracedLookup::Owner { address: v6, owner: Some(NODE) },
        TracedLookup::Sender { address: v6, pod: most, is_rewritten: true, is_masqueraded: false },
        TracedLookup::Sender { address: v4, pod: 1, is_rewritten: false, is_masqueraded: true },
        TracedLookup::Service { address: v4, port: u16::MAX, protocol: 132, service: Some(ServiceId(most)) },
        TracedLookup::Service { address: v6, port: 0, protocol: 0, service: None },
        TracedLookup::Identity { address: v6, identity: IdentityId(most) },
        TracedLookup::Class { protocol: RuleProtocol::Other, place: u16::MAX, class: ClassId(u16::MAX) },
        row(0),
        row(most),
        TracedLookup::Names { address: v6, is_allowed: true },
        TracedLookup::Names { address: v4, is_allowed: false },
        TracedLookup::Entered { is_entered: false, client_if: most, server_if: 0 },
        TracedLookup::Entered { is_entered: true, client_if: 0, server_if: most },
    ];
    for step in steps {
        assert_eq!(TraceStep::of(&step).read(), Some(step));
    }
    for kind in [0, 14, u64::MAX] {
        assert_eq!(TraceStep { kind, words: [0; 3] }.read(), None);
    }
}

#[test]
fn a_filter_takes_packets_of_a_connection_both_ways_and_no_others() {
    let (a, b, c) = (address("10.0.0.1"), address("10.0.0.2"), address("fd00::3"));
    let tuple = |source, destination, source_port, destination_port| Tuple {
        source,
        destination,
        source_port,
        destination_port,
        protocol: 6,
    };
    let only = |these: &[Address]| TracedAddresses::of(these).expect("a few");
    let http = TraceFilter { from: only(&[a, c]), to: only(&[b]), protocol: 6, port: 80, ..TraceFilter::ANY };
    let matches = |filter: &TraceFilter, packet: &Tuple| {
        filter.matches(packet, |at| filter.from.has(at), |at| filter.to.has(at))
    };
    for (packet, is_wanted) in [
        (tuple(a, b, 5, 80), true),
        (tuple(b, a, 80, 5), true),
        (tuple(c, b, 5, 80), true),
        (tuple(b, a, 5, 80), false),
        (tuple(a, b, 80, 5), false),
        (tuple(a, c, 5, 80), false),
        (tuple(b, b, 5, 80), false),
        (Tuple { protocol: 17, ..tuple(a, b, 5, 80) }, false),
    ] {
        assert_eq!(matches(&http, &packet), is_wanted, "{packet:?}");
        assert!(matches(&TraceFilter::ANY, &packet));
    }
    assert_eq!(TracedAddresses::of(&[]), None);
    assert_eq!(TracedAddresses::of(&[a; TracedAddresses::MOST + 1]), None);
}

#[test]
fn steps_beyond_the_room_are_counted() {
    // SAFETY: numbers alone.
    let mut trace: PacketTrace = unsafe { core::mem::zeroed() };
    trace.begin();
    let step =
        TraceStep::of(&TracedLookup::Class { protocol: RuleProtocol::Tcp, place: 80, class: ClassId(9) });
    for _ in 0..TRACE_STEPS + 3 {
        trace.add(step);
    }
    assert_eq!((trace.steps().count(), trace.omitted, trace.class()), (TRACE_STEPS, 3, 9));
    trace.begin();
    assert_eq!((trace.steps().count(), trace.omitted, trace.class()), (0, 0, 0));
}
