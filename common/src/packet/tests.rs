//! What the parser makes of each kind of frame, of their beginnings, and of noise.

use core::net::IpAddr;
use std::{vec, vec::Vec};

use super::*;
use crate::frames::{self, BareIp, Extension, Fragment, Frame, flag};

mod fragments;
mod icmp;
mod noise;
mod unreadable;

const ATOMIC: Extension = Extension::Fragment(Fragment { id: 9, offset: 0, more: false });

/// Two addresses of each family.
const FAMILIES: [[&str; 2]; 2] = [["10.0.0.1", "192.0.2.2"], ["fd00::1", "2001:db8::2"]];

fn families() -> [[IpAddr; 2]; 2] {
    FAMILIES.map(|pair| pair.map(ip))
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("a literal of the test")
}

/// Parses into memory that holds the remains of another packet.
fn read(frame: &[u8]) -> (PacketKind, Headers) {
    let remains = Tuple {
        source: Address::from_v4([9; 4]),
        destination: Address::from_v6([9; 16]),
        source_port: 9,
        destination_port: 9,
        protocol: number::TCP,
    };
    let mut headers = Headers {
        tuple: remains,
        sender: remains.source,
        datagram: 99,
        segment: Segment::with_flags(flag::SYN | flag::FIN | flag::RST),
        kind: PacketKind::Related,
        is_fragment: true,
        payload: Payload { offset: 9, end: 9, fragment_offset: 9, more_fragments: 9 },
    };
    (parse(&frame, &mut headers), headers)
}

fn tuple(from: (IpAddr, u16), to: (IpAddr, u16), protocol: u32) -> Tuple {
    Tuple {
        source: from.0.into(),
        destination: to.0.into(),
        source_port: from.1,
        destination_port: to.1,
        protocol,
    }
}

/// A packet of each kind that belongs to a connection, and the tuple that stands in it.
fn connections(a: IpAddr, b: IpAddr) -> Vec<(Frame, Tuple)> {
    let (from, to) = ((a, 40_000), (b, 80));
    let icmp = if a.is_ipv4() { number::ICMP } else { number::ICMPV6 };
    vec![
        (Frame::tcp(from, to, flag::SYN), tuple(from, to, number::TCP)),
        (Frame::udp(from, to, 100), tuple(from, to, number::UDP)),
        (Frame::udp(from, to, 0), tuple(from, to, number::UDP)),
        (Frame::sctp(from, to, 1), tuple(from, to, number::SCTP)),
        (Frame::echo_request(a, b, 7), tuple((a, 7), (b, 0), icmp)),
        (Frame::echo_reply(a, b, 7), tuple((a, 0), (b, 7), icmp)),
        // Redirect and its like: no identifier, but a connection of its own for each type and code.
        (Frame::icmp(a, b, 5, 7), tuple((a, 0x0500), (b, 0x0500), icmp)),
        (Frame::ip(a, b, 47, vec![0x5a; 40]), tuple((a, 0), (b, 0), 47)),
        (Frame::ip(a, b, 254, vec![]), tuple((a, 0), (b, 0), 254)),
    ]
}

/// Asserts that each packet of these families is read as one of its connection, once it is changed.
fn assert_read_alike(families: &[[IpAddr; 2]], change: impl Fn(Frame) -> Vec<u8>) {
    for [a, b] in families {
        for (frame, tuple) in connections(*a, *b) {
            let bytes = change(frame);
            let (kind, headers) = read(&bytes);
            assert_eq!((kind, headers.tuple), (PacketKind::Flow, tuple), "{bytes:02x?}");
        }
    }
}

#[test]
fn a_packet_of_a_connection_gives_its_ends() {
    for [a, b] in families() {
        for (frame, tuple) in connections(a, b) {
            let (kind, headers) = read(&frame.bytes());
            assert_eq!((kind, headers.tuple), (PacketKind::Flow, tuple), "{frame:?}");
            let opens = [number::TCP, number::SCTP].contains(&tuple.protocol);
            assert_eq!(headers.segment.opens(), opens, "{frame:?}");
            assert!(!headers.segment.ends(), "{frame:?}");
        }
    }
}

#[test]
fn only_a_syn_without_ack_opens() {
    for flags in 0..=u8::MAX {
        for [a, b] in families() {
            let (kind, headers) = read(&Frame::tcp((a, 1), (b, 2), flags).bytes());
            assert_eq!(kind, PacketKind::Flow);
            let segment = headers.segment;
            let expected = (
                flags & (flag::SYN | flag::ACK) == flag::SYN,
                flags & flag::FIN != 0,
                flags & flag::RST != 0,
            );
            assert_eq!((segment.opens(), segment.fin(), segment.rst()), expected, "flags {flags:#x}");
            assert_eq!(segment.ends(), segment.fin() || segment.rst(), "flags {flags:#x}");
        }
    }
}

#[test]
fn only_an_init_opens_an_association_and_only_abort_and_shutdown_complete_end_it() {
    for chunk in 0..=u8::MAX {
        for [a, b] in families() {
            let (kind, headers) = read(&Frame::sctp((a, 1), (b, 2), chunk).bytes());
            assert_eq!(kind, PacketKind::Flow);
            let segment = headers.segment;
            let expected = (chunk == 1, [6, 14].contains(&chunk));
            assert_eq!((segment.opens(), segment.ends()), expected, "chunk {chunk}");
        }
    }
}

#[test]
fn a_packet_without_a_link_header_gives_what_it_gives_behind_one() {
    for [a, b] in families() {
        for (frame, _) in connections(a, b) {
            let parts =
                [frame.clone(), Frame::unreachable(b, &frame)].into_iter().chain(frame.fragments(7, 1));
            for frame in parts {
                let bytes = frame.bytes();
                let (kind, headers) = read(&bytes);
                let mut bare = Headers { ..headers };
                assert_eq!(parse(&BareIp(&bytes[ETHERNET_HEADER..]), &mut bare), kind, "{frame:?}");
                let of = |headers: &Headers| (headers.tuple, headers.segment, headers.is_fragment());
                assert_eq!(of(&bare), of(&headers), "{frame:?}");
            }
        }
    }
    for other in [&[0x00_u8; 40][..], &[0x50; 40], &[0x81; 40], &[0xff; 40], &[0x45], &[]] {
        assert_eq!(parse(&BareIp(other), &mut { Headers::EMPTY }), PacketKind::Unreadable, "{other:02x?}");
    }
}

#[test]
fn ports_are_found_behind_ipv4_options_of_every_length() {
    for words in 0..=10 {
        assert_read_alike(&families()[..1], |frame| frame.with_options(words).bytes());
    }
}

#[test]
fn ports_are_found_behind_chains_of_ipv6_extension_headers() {
    use Extension::{Authentication, Destination, HopByHop, Routing};
    let chains: [&[Extension]; 9] = [
        &[HopByHop(0)],
        &[Routing(2)],
        &[Destination(0)],
        &[Destination(31)],
        // 24 bytes, what an integrity value of 96 bits takes.
        &[Authentication(4)],
        &[Authentication(1)],
        &[ATOMIC],
        &[HopByHop(1), Destination(0), Routing(0), ATOMIC, Authentication(4), Destination(0)],
        &[Destination(0), Destination(0), Destination(0), Destination(0), Destination(0), Destination(0)],
    ];
    for chain in chains {
        assert_read_alike(&families()[1..], |frame| frame.with_extensions(chain).bytes());
    }
}

#[test]
fn a_length_of_zero_is_that_of_a_packet_over_64_kib() {
    assert_read_alike(&families(), |frame| frame.with_claimed_length(0).bytes());
}

#[test]
fn padding_behind_a_packet_changes_nothing() {
    assert_read_alike(&families(), |frame| [frame.bytes(), vec![0xff; 46]].concat());
}
