//! What the kernel knows of a packet besides its bytes: that it comes from no interface, how its addresses
//! were translated, whose socket has sent it, and by which type it is handed on.

use super::*;
use crate::Tracked;

/// As connection tracking has it, of a client whose packets are rewritten from `original` to `translated`.
fn translated(original: &Frame, translated: &Frame) -> Tracked {
    Tracked { original: tuple(original), reply: tuple(translated).reversed(), is_reply: false }
}

impl Node {
    /// What becomes of a packet that comes to the pod from no interface.
    fn receives_from_nowhere(&self, frame: &Frame, tracked: Option<Tracked>, has_socket: bool) -> Outcome {
        let bytes = frame.bytes();
        let packet = Sent { bytes: &bytes, tracked, has_socket, ..Sent::default() };
        let hook = Hook { direction: Direction::Ingress, ifindex: VETH, ingress_ifindex: NODE };
        decide(&packet, &mut { Scratch::EMPTY }, &hook, self)
    }
}

#[test]
fn a_frame_that_is_ip_to_the_kernel_alone_does_not_leave() {
    let (ip, ipv6, arp, vlan, local) = ([0x08, 0x00], [0x86, 0xdd], [0x08, 0x06], [0x81, 0x00], [0x88, 0xb5]);
    // From another pod's address.
    let packet = Frame::udp((neighbour(), 9), (node(), 53), 64).bytes();
    for (named, received_as, expected) in [
        (local, ip, Outcome::Unreadable),
        (arp, ip, Outcome::Unreadable),
        (vlan, ip, Outcome::Unreadable),
        (ipv6, ip, Outcome::Spoofed),
        (local, ipv6, Outcome::Unreadable),
        (local, local, Outcome::Unparsed),
        (local, arp, Outcome::Unparsed),
        (ip, ip, Outcome::Spoofed),
        (ip, local, Outcome::Spoofed),
    ] {
        let bytes = [&packet[..12], &named, &packet[14..]].concat();
        let sent = Sent { bytes: &bytes, received_as: Some(received_as), ..Sent::default() };
        let hook = Hook { direction: Direction::Egress, ifindex: FREE, ingress_ifindex: FREE };
        let outcome = decide(&sent, &mut { Scratch::EMPTY }, &hook, &Node::new());
        assert_eq!(outcome, expected, "{named:02x?} received as {received_as:02x?}");
    }
}

#[test]
fn no_ingress_interface_is_the_node_only_with_its_address_and_in_one_piece_or_with_its_socket() {
    let datagram = |from: &str| Frame::udp((ip(from), 9), (ip("fd00::1"), 53), 100);
    let part = |from: &str| datagram(from).fragments(7, 10).remove(0);
    let (own, other, spoofed) = (Outcome::OwnNode, Outcome::Denied, Outcome::Spoofed);
    // (packet, what becomes of it without a socket of the node's)
    let table = [
        (datagram("fd00:f::1"), own),
        (datagram("fe80::1"), own),
        (datagram("::"), own),
        (datagram("2001:db8::1"), other),
        // A pod's address, and no packet of it was seen at the pod's veth.
        (datagram("fd00::2"), spoofed),
        (part("fd00:f::1"), other),
        (part("fe80::1"), other),
        (part("::"), other),
        (part("2001:db8::1"), other),
        (part("fd00::2"), spoofed),
        // IPv4 parts keep the interface that their datagram came by.
        (Frame::udp((node(), 9), (pod(), 53), 100).fragments(7, 5).remove(0), own),
        (Frame::udp((server(), 9), (pod(), 53), 100).fragments(7, 5).remove(0), other),
    ];
    for (frame, expected) in table {
        for (has_socket, expected) in [(false, expected), (true, own)] {
            let node = Node::new();
            node.allows.set(false);
            assert_eq!(node.receives_from_nowhere(&frame, None, has_socket), expected, "{frame:?}");
        }
    }
}

#[test]
fn a_masqueraded_packet_without_ingress_interface_is_not_the_nodes() {
    let to_service = Frame::tcp((ip("fd00::2"), 9), (ip("fd00:96::1"), 80), flag::SYN);
    let rewritten = Frame::tcp((ip("fd00:f::1"), 9), (ip("fd00::1"), 80), flag::SYN);
    let from_elsewhere = Frame { source: ip("2001:db8::1"), ..to_service.clone() };
    for (original, expected) in [(&to_service, Outcome::Spoofed), (&from_elsewhere, Outcome::Denied)] {
        let node = Node::new();
        node.allows.set(false);
        let tracked = Some(translated(original, &rewritten));
        assert_eq!(node.receives_from_nowhere(&rewritten, tracked, false), expected);
        assert_eq!(node.receives_from_nowhere(&rewritten, None, false), Outcome::OwnNode);
    }
    // The pod's own veth has seen it.
    let node = Node::new();
    let leaves = Hook { direction: Direction::Egress, ifindex: NEXT_VETH, ingress_ifindex: NEXT_VETH };
    assert_eq!(node.verdict(leaves, &to_service), Outcome::Allowed);
    let tracked = Some(translated(&to_service, &rewritten));
    assert_eq!(node.receives_from_nowhere(&rewritten, tracked, false), Outcome::Allowed);
    assert_eq!(
        node.receives_from_nowhere(&rewritten, None, false),
        Outcome::OwnNode,
        "of its own it says nothing"
    );
}

#[test]
fn a_pods_packet_without_ingress_interface_passes_when_its_connection_was_seen_at_the_pods_veth() {
    let whole = Frame::udp((ip("fd00::2"), 9), (ip("fd00::1"), 53), 100);
    let part = whole.fragments(7, 10).remove(0);
    let leaves = Hook { direction: Direction::Egress, ifindex: NEXT_VETH, ingress_ifindex: NEXT_VETH };
    let node = Node::new();
    assert_eq!(node.receives_from_nowhere(&part, None, false), Outcome::Spoofed);
    assert_eq!(node.verdict(leaves, &whole), Outcome::Allowed);
    assert_eq!(node.receives_from_nowhere(&part, None, false), Outcome::Allowed);
    node.allows.set(false);
    assert_eq!(node.receives_from_nowhere(&part, None, false), Outcome::Established);
    // It counts as having come by that veth.
    assert_eq!(node.receives_from(NEXT_VETH, &whole), Outcome::Established);
    // Of another connection nothing was seen.
    let other = Frame::udp((ip("fd00::2"), 9), (ip("fd00::1"), 54), 100).fragments(7, 10).remove(0);
    assert_eq!(node.receives_from_nowhere(&other, None, false), Outcome::Spoofed);
}

#[test]
fn nothing_rides_on_the_entry_of_the_nodes_own_connection() {
    for from in ["fd00:f::1", "2001:db8::1"] {
        let whole = Frame::udp((ip(from), 9), (ip("fd00::1"), 53), 100);
        let part = whole.fragments(7, 10).remove(0);
        let node = Node::new();
        node.allows.set(false);
        // With its socket the node may speak in the name of others.
        assert_eq!(node.receives_from_nowhere(&whole, None, true), Outcome::OwnNode);
        assert_eq!(node.receives_from_nowhere(&part, None, false), Outcome::Denied, "from {from}");
        assert_eq!(node.receives_from_nowhere(&part, None, true), Outcome::Established, "from {from}");
        assert_eq!(node.receives_from_nowhere(&whole, None, true), Outcome::Established, "from {from}");
    }
}
