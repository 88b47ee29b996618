//! What the parser makes of each kind of frame, of their beginnings, and of noise.

use core::net::IpAddr;
use std::{format, vec, vec::Vec};

use etherparse::{
    NetSlice, SlicedPacket, TransportSlice,
    err::{ipv6_exts::HeaderError, packet::SliceError},
};
use proptest::prelude::*;

use super::*;
use crate::frames::{self, Extension, Fragment, Frame, flag};

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
        // Redirect and its like: no identifier, evaluated by addresses alone.
        (Frame::icmp(a, b, 5, 7), tuple((a, 0), (b, 0), icmp)),
        (Frame::ip(a, b, 47, vec![0x5a; 40]), tuple((a, 0), (b, 0), 47)),
        (Frame::ip(a, b, 254, vec![]), tuple((a, 0), (b, 0), 254)),
    ]
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
fn every_part_of_a_datagram_is_known_to_be_one() {
    for [a, b] in families() {
        let whole = Frame::udp((a, 1), (b, 2), 100);
        assert!(!read(&whole.bytes()).1.is_fragment());
        for part in whole.fragments(7, 5) {
            assert!(read(&part.bytes()).1.is_fragment(), "{part:?}");
        }
        if a.is_ipv6() {
            // Also when a header of a whole datagram follows.
            let first = whole.fragments(7, 5).remove(0);
            let chain = [first.extensions.clone(), vec![ATOMIC]].concat();
            let (kind, headers) = read(&first.with_extensions(&chain).bytes());
            assert_eq!((kind, headers.is_fragment()), (PacketKind::FirstFragment, true));
        }
        let error = Frame::unreachable(b, &whole);
        assert!(!read(&error.bytes()).1.is_fragment());
        let (kind, headers) = read(&error.fragments(7, 10)[0].bytes());
        assert_eq!((kind, headers.is_fragment()), (PacketKind::Related, true));
    }
}

/// A packet on a device without link headers.
struct BareIp<'a>(&'a [u8]);

impl Packet for BareIp<'_> {
    const LINK_HEADER: usize = 0;

    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.read(offset)
    }

    fn start<const LENGTH: usize>(&self) -> Option<impl Start> {
        self.0.start::<LENGTH>()
    }

    fn pull(&self) {}

    fn tracked(&self, _: &mut Tracked) -> bool {
        false
    }

    fn has_local_socket(&self) -> bool {
        false
    }
}

#[test]
fn ports_are_found_behind_ipv4_options_of_every_length() {
    let [[a, b], _] = families();
    for words in 0..=10 {
        for (frame, tuple) in connections(a, b) {
            let frame = frame.with_options(words);
            let (kind, headers) = read(&frame.bytes());
            assert_eq!((kind, headers.tuple), (PacketKind::Flow, tuple), "{frame:?}");
        }
    }
}

#[test]
fn ports_are_found_behind_chains_of_ipv6_extension_headers() {
    use Extension::{Authentication, Destination, HopByHop, Routing};
    let [_, [a, b]] = families();
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
        for (frame, tuple) in connections(a, b) {
            let frame = frame.with_extensions(chain);
            let (kind, headers) = read(&frame.bytes());
            assert_eq!((kind, headers.tuple), (PacketKind::Flow, tuple), "{frame:?}");
        }
    }
}

#[test]
fn the_first_fragment_has_ports_and_later_ones_have_none() {
    for [a, b] in families() {
        let icmp = if a.is_ipv4() { number::ICMP } else { number::ICMPV6 };
        let mut echo = Frame::echo_request(a, b, 7);
        echo.payload.resize(64, 0);
        let mut segment = Frame::tcp((a, 40_000), (b, 80), flag::ACK);
        segment.payload.resize(64, 0);
        let table = [
            (Frame::udp((a, 40_000), (b, 80), 64), tuple((a, 40_000), (b, 80), number::UDP)),
            (segment, tuple((a, 40_000), (b, 80), number::TCP)),
            (echo, tuple((a, 7), (b, 0), icmp)),
            (Frame::ip(a, b, 47, vec![0; 64]), tuple((a, 0), (b, 0), 47)),
        ];
        for (datagram, whole) in table {
            let parts = datagram.fragments(0xbeef, 3);
            let portless = Tuple { source_port: 0, destination_port: 0, ..whole };
            for (at, part) in parts.iter().enumerate() {
                let (kind, headers) = read(&part.bytes());
                let expected = match at {
                    0 => (PacketKind::FirstFragment, whole),
                    _ => (PacketKind::LaterFragment, portless),
                };
                assert_eq!((kind, headers.tuple), expected, "part {at} of {datagram:?}");
                assert_eq!(headers.datagram, 0xbeef);
            }
            assert!(parts.len() > 2);
        }
    }
}

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

fn an_arp_request() -> Vec<u8> {
    frames::arp(1, [10, 0, 0, 1].into(), [10, 0, 0, 2].into())
}

#[test]
fn arp_is_known_by_its_ethertype() {
    assert_eq!(read(&an_arp_request()).0, PacketKind::Arp);
}

#[test]
fn what_contradicts_itself_or_is_no_ip_is_unreadable() {
    let [[a4, b4], [a6, b6]] = families();
    let udp4 = || Frame::udp((a4, 1), (b4, 2), 64);
    let udp6 = || Frame::udp((a6, 1), (b6, 2), 64);
    let tcp = |from: IpAddr, to: IpAddr| Frame::tcp((from, 1), (to, 2), flag::ACK);
    let with = |frame: Frame, place: usize, byte: u8| {
        let mut bytes = frame.bytes();
        bytes[place] = byte;
        bytes
    };
    let ethertype = |kind: [u8; 2]| {
        let mut bytes = udp4().bytes();
        bytes[12..14].copy_from_slice(&kind);
        bytes
    };
    let seven = [Extension::Destination(0); 7];
    let to_another = {
        let mut error = Frame::unreachable(b4, &tcp(a4, b4));
        error.destination = ip("10.0.0.99");
        error.bytes()
    };
    let to_another_v6 = {
        let mut error = Frame::unreachable(b6, &tcp(a6, b6));
        error.destination = ip("fd00::99");
        error.bytes()
    };
    let about_a_later_fragment =
        |from, to| Frame::unreachable(to, &Frame::udp((from, 1), (to, 2), 64).fragments(7, 3)[1]).bytes();
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("an Ethernet header alone", udp4().bytes()[..14].to_vec()),
        ("a VLAN tag", udp4().in_vlan()),
        ("a VLAN tag before IPv6", udp6().in_vlan()),
        ("LLDP", ethertype([0x88, 0xcc])),
        ("EAPOL", ethertype([0x88, 0x8e])),
        ("MPLS", ethertype([0x88, 0x47])),
        ("RARP", ethertype([0x80, 0x35])),
        ("802.3 with a length", ethertype([0x00, 0x40])),
        ("IPv6 as IPv4", ethertype([0x86, 0xdd])),
        ("version 5", with(udp4(), 14, 0x55)),
        ("version 6 in IPv4", with(udp4(), 14, 0x65)),
        ("version 4 in IPv6", with(udp6(), 14, 0x40)),
        ("a header length of 16", with(udp4(), 14, 0x44)),
        ("a header length of 0", with(udp4(), 14, 0x40)),
        ("a total length less than the header", udp4().with_claimed_length(19).bytes()),
        ("a total length less than the options", udp4().with_options(5).with_claimed_length(39).bytes()),
        ("ports beyond the total length", udp4().with_claimed_length(27).bytes()),
        ("ports beyond the payload length", udp6().with_claimed_length(7).bytes()),
        ("TCP flags beyond the total length", tcp(a4, b4).with_claimed_length(39).bytes()),
        ("TCP flags beyond the payload length", tcp(a6, b6).with_claimed_length(19).bytes()),
        (
            "extension headers beyond the payload length",
            Frame::ip(a6, b6, 47, vec![0; 64])
                .with_extensions(&[Extension::Destination(1)])
                .with_claimed_length(15)
                .bytes(),
        ),
        ("an echo beyond the total length", Frame::echo_request(a4, b4, 1).with_claimed_length(27).bytes()),
        ("a TCP header of 16 bytes", with(tcp(a4, b4), 14 + 20 + 12, 4 << 4)),
        ("a TCP header of 0 bytes", with(tcp(a6, b6), 14 + 40 + 12, 0)),
        ("a first fragment without TCP flags", tcp(a4, b4).fragments(7, 1)[0].bytes()),
        ("a first fragment without TCP flags in IPv6", tcp(a6, b6).fragments(7, 1)[0].bytes()),
        ("a second fragment over the TCP flags", tcp(a4, b4).fragments(7, 1)[1].bytes()),
        ("a second fragment over the TCP flags in IPv6", tcp(a6, b6).fragments(7, 1)[1].bytes()),
        ("more extension headers than anybody sends", udp6().with_extensions(&seven).bytes()),
        ("a mapped source", Frame::udp((ip("::ffff:10.0.0.1"), 1), (b6, 2), 0).bytes()),
        ("a mapped destination", Frame::udp((a6, 1), (ip("::ffff:10.0.0.1"), 2), 0).bytes()),
        ("an error about a packet of somebody else", to_another),
        ("an error about a packet of somebody else in IPv6", to_another_v6),
        ("an error about a later fragment", about_a_later_fragment(a4, b4)),
        ("an error about a later fragment in IPv6", about_a_later_fragment(a6, b6)),
        ("an error about nothing", Frame::icmp(a4, b4, 3, 0).bytes()),
        (
            "an error that quotes a mapped address",
            Frame::unreachable(b6, &Frame::udp((a6, 1), (ip("::ffff:10.0.0.1"), 2), 0)).bytes(),
        ),
    ];
    for (what, frame) in table {
        assert_eq!(read(&frame).0, PacketKind::Unreadable, "{what}");
    }
}

#[test]
fn six_extension_headers_are_read_and_a_fragment_ends_the_chain() {
    const DESTINATION_OPTIONS: u8 = 60;
    let [_, [a, b]] = families();
    let chain = [Extension::Destination(0); 6];
    let udp = Frame::udp((a, 1), (b, 2), 64);
    assert_eq!(read(&udp.clone().with_extensions(&chain).bytes()).0, PacketKind::Flow);
    // What follows the header of a later fragment is data, whatever its "next header" says.
    let mut part = udp.fragments(7, 3).remove(1);
    part.protocol = DESTINATION_OPTIONS;
    let (kind, headers) = read(&part.bytes());
    assert_eq!((kind, headers.tuple.protocol), (PacketKind::LaterFragment, number::DESTINATION_OPTIONS));
}

#[test]
fn a_length_of_zero_is_that_of_a_packet_over_64_kib() {
    for [a, b] in families() {
        for (frame, tuple) in connections(a, b) {
            let (kind, headers) = read(&frame.with_claimed_length(0).bytes());
            assert_eq!((kind, headers.tuple), (PacketKind::Flow, tuple));
        }
    }
}

#[test]
fn padding_behind_a_packet_changes_nothing() {
    for [a, b] in families() {
        for (frame, tuple) in connections(a, b) {
            let mut bytes = frame.bytes();
            bytes.resize(bytes.len() + 46, 0xff);
            let (kind, headers) = read(&bytes);
            assert_eq!((kind, headers.tuple), (PacketKind::Flow, tuple));
        }
    }
}

/// Well-formed frames of all kinds.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let extension = prop_oneof![
        (0..3_u8).prop_map(Extension::HopByHop),
        (0..3_u8).prop_map(Extension::Routing),
        (0..3_u8).prop_map(Extension::Destination),
        (1..6_u8).prop_map(Extension::Authentication),
        Just(ATOMIC),
    ];
    let ends = (0..2_usize, any::<u16>(), any::<u16>());
    let shape = (0..=10_u8, prop::collection::vec(extension, 0..8), 0..12_u8, any::<u8>());
    (ends, shape).prop_map(|((family, from, to), (words, chain, what, flags))| {
        let [a, b] = families()[family];
        let frame = match what {
            0..=2 => Frame::tcp((a, from), (b, to), flags),
            3 => Frame::udp((a, from), (b, to), usize::from(flags)),
            4 => Frame::sctp((a, from), (b, to), flags),
            5 => Frame::echo_request(a, b, from),
            6 => Frame::icmp(a, b, flags, from),
            7 => Frame::unreachable(b, &Frame::tcp((a, from), (b, to), flags)),
            8 => Frame::unreachable(b, &Frame::echo_request(a, b, from)),
            9 => Frame::udp((a, from), (b, to), 200).fragments(7, 3).remove(usize::from(flags) % 3),
            10 => Frame::ip(a, b, [2, 47, 50, 59, 254][usize::from(flags) % 5], vec![0x5a; 32]),
            _ => return an_arp_request(),
        };
        if a.is_ipv4() {
            return frame.with_options(words).bytes();
        }
        let chain = chain.into_iter().chain(frame.extensions.clone()).collect::<Vec<_>>();
        frame.with_extensions(&chain).bytes()
    })
}

/// What a decision is made of. The rest of the headers is memory to work in.
fn meaning((kind, headers): (PacketKind, Headers)) -> (PacketKind, Option<(Tuple, Segment)>) {
    match kind {
        PacketKind::Arp | PacketKind::Neighbour | PacketKind::Unreadable => (kind, None),
        _ => (kind, Some((headers.tuple, headers.segment))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_beginning_of_a_frame_is_read_like_the_whole_or_not_at_all(frame in frames()) {
        let whole = meaning(read(&frame));
        for length in 0..frame.len() {
            let part = meaning(read(&frame[..length]));
            prop_assert!(part == whole || part.0 == PacketKind::Unreadable, "{length} bytes: {part:?}, all: {whole:?}");
        }
    }

    #[test]
    fn noise_is_read_without_a_panic_and_alike_each_time(
        mut frame in frames(),
        noise in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
    ) {
        for (place, byte) in noise {
            let place = place.index(frame.len());
            frame[place] = byte;
        }
        let mut clean = Headers::EMPTY;
        let kind = parse(&frame.as_slice(), &mut clean);
        prop_assert_eq!(meaning((kind, clean)), meaning(read(&frame)));
    }

    #[test]
    fn another_parser_reads_the_same_ports(frame in frames()) {
        let (kind, headers) = read(&frame);
        // The other one has its own idea of how long each kind of ICMP message is.
        if kind != PacketKind::Flow || matches!(headers.tuple.protocol, number::ICMP | number::ICMPV6) {
            return Ok(());
        }
        let packet = match SlicedPacket::from_ethernet(&frame) {
            Ok(packet) => packet,
            // No receiver takes them in this order; here they are walked over like any others.
            Err(SliceError::Ipv6Exts(HeaderError::HopByHopNotAtStart)) => return Ok(()),
            Err(error) => return Err(TestCaseError::fail(format!("refused by the other parser: {error}"))),
        };
        let (source, destination): (IpAddr, IpAddr) = match packet.net.expect("an IP packet") {
            NetSlice::Ipv4(v4) => (v4.header().source_addr().into(), v4.header().destination_addr().into()),
            NetSlice::Ipv6(v6) => (v6.header().source_addr().into(), v6.header().destination_addr().into()),
            NetSlice::Arp(_) => unreachable!("ARP has no connections"),
        };
        prop_assert_eq!((headers.tuple.source, headers.tuple.destination), (source.into(), destination.into()));
        let ports = match packet.transport {
            Some(TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port()),
            Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port()),
            _ => return Ok(()),
        };
        prop_assert_eq!((headers.tuple.source_port, headers.tuple.destination_port), ports);
    }
}

/// Bytes that are nearly a plain packet: some are changed, and some are missing.
fn nearly_plain() -> impl Strategy<Value = Vec<u8>> {
    let [v4, v6] = families();
    let frames = [v4, v6].into_iter().flat_map(|[a, b]| connections(a, b)).map(|(frame, _)| frame.bytes());
    let changes = prop::collection::vec((0..80_usize, any::<u8>()), 0..4);
    (prop::sample::select(frames.collect::<Vec<_>>()), changes, 0..90_usize, any::<bool>()).prop_map(
        |(mut bytes, changes, length, is_cut)| {
            // Room for the headers of every protocol.
            bytes.resize(bytes.len().max(80), 0);
            for (at, byte) in changes {
                bytes[at] = byte;
            }
            bytes.truncate(if is_cut { length } else { bytes.len() });
            bytes
        },
    )
}

proptest! {
    #[test]
    fn what_is_read_at_one_go_is_what_is_read_header_by_header(bytes in nearly_plain()) {
        let packet = bytes.as_slice();
        if let Some(at_one_go) = plain::read(&packet) {
            let mut by_header = Headers::EMPTY;
            prop_assert_eq!(frame(&packet, &mut by_header), Some(PacketKind::Flow));
            prop_assert_eq!((at_one_go.tuple, at_one_go.segment), (by_header.tuple, by_header.segment));
        }
    }
}

#[test]
fn nearly_all_packets_are_plain() {
    for [a, b] in families() {
        for (frame, tuple) in connections(a, b) {
            let mut bytes = frame.bytes();
            bytes.resize(bytes.len().max(80), 0);
            let has_ports = [number::TCP, number::UDP].contains(&tuple.protocol);
            assert_eq!(plain::read(&bytes.as_slice()).is_some(), has_ports, "{frame:?}");
        }
    }
}
