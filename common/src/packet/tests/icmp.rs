//! Errors, and messages between neighbours.

use super::*;

#[test]
fn an_icmp_error_gives_the_connection_that_it_speaks_of() {
    let router = [ip("198.51.100.9"), ip("2001:db8::9")];
    for ([a, b], router) in families().into_iter().zip(router) {
        for (quoted, tuple) in connections(a, b) {
            if quoted.payload.len() < 8 && tuple.protocol != 254 {
                continue;
            }
            let (kind, headers) = read(&Frame::unreachable(router, &quoted).bytes());
            assert_eq!(
                (kind, headers.tuple, headers.sender),
                (PacketKind::Related, tuple, router.into()),
                "about {quoted:?}"
            );
        }
    }
}

#[test]
fn every_type_of_icmp_is_an_error_a_neighbours_message_or_of_a_connection() {
    let [[a4, b4], [a6, b6]] = families();
    for kind in 0..=u8::MAX {
        // The quoted packet is empty, so that an error is unreadable.
        let (v4, _) = read(&Frame::icmp(a4, b4, kind, 0).bytes());
        let expected =
            if matches!(kind, 3 | 4 | 11 | 12) { PacketKind::Unreadable } else { PacketKind::Flow };
        assert_eq!(v4, expected, "ICMP type {kind}");
        let (v6, _) = read(&Frame::icmp(a6, b6, kind, 0).bytes());
        let expected = match kind {
            1..=4 => PacketKind::Unreadable,
            // Listener discovery, neighbour discovery, version 2 of listener reports.
            130..=137 | 143 => PacketKind::Neighbour,
            _ => PacketKind::Flow,
        };
        assert_eq!(v6, expected, "ICMPv6 type {kind}");
    }
}

#[test]
fn icmp_of_the_other_version_of_ip_is_a_protocol_like_any_other() {
    for [a, b] in families() {
        let other = if a.is_ipv4() { number::ICMPV6 } else { number::ICMP };
        for kind in 0..=u8::MAX {
            let frame = Frame::ip(a, b, other, Frame::icmp(a, b, kind, 7).payload);
            let (read, headers) = read(&frame.bytes());
            assert_eq!(
                (read, headers.tuple),
                (PacketKind::Flow, tuple((a, 0), (b, 0), other)),
                "type {kind}"
            );
        }
    }
}

#[test]
fn arp_is_known_by_its_ethertype() {
    let frame = frames::arp(1, [10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    assert_eq!(read(&frame).0, PacketKind::Arp);
}
