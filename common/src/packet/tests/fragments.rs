//! Parts of datagrams.

use super::*;

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
