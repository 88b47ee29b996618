//! What is no packet.

use super::*;

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
        ("more extension headers than any host sends", udp6().with_extensions(&seven).bytes()),
        ("a mapped source", Frame::udp((ip("::ffff:10.0.0.1"), 1), (b6, 2), 0).bytes()),
        ("a mapped destination", Frame::udp((a6, 1), (ip("::ffff:10.0.0.1"), 2), 0).bytes()),
        ("an error about a packet of another host", to_another),
        ("an error about a packet of another host in IPv6", to_another_v6),
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
