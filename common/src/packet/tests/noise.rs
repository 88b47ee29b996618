//! Generated frames, whole and spoilt: nothing panics, and other ways of reading them agree.

use std::format;

use etherparse::{
    NetSlice, SlicedPacket, TransportSlice,
    err::{ipv6_exts::HeaderError, packet::SliceError},
};
use proptest::prelude::*;

use super::*;

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
            _ => return frames::arp(1, [10, 0, 0, 1].into(), [10, 0, 0, 2].into()),
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
