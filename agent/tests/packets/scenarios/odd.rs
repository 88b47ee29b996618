//! Frames that are odd: options, extension headers, lies, and what is no IP at all.

use podgate_common::{
    NODE,
    Outcome::{Allowed, Denied, NotIsolated, OwnNode, Spoofed, Unparsed, Unreadable},
    Protocol::Tcp,
    frames::{Extension, Fragment, Frame, flag},
};

use crate::{
    node::Node,
    world::{Family, Host, UPLINK, World, all_pods, allow, arrives, leaves, port},
};

fn world() -> World {
    let rules = || [allow(all_pods(), port(Tcp, 80))];
    World::new().ingress(Host::B, rules()).egress(Host::B, rules())
}

fn syn(family: Family, to: u16) -> Frame {
    Frame::tcp((Host::Remote.at(family), 40_000), (Host::B.at(family), to), flag::SYN)
}

#[test]
fn options_and_extension_headers_hide_no_port() {
    let mut node = Node::new(&world());
    for words in 0..=10 {
        node.expect(arrives(Host::B, UPLINK), &syn(Family::V4, 80).with_options(words), Allowed);
        node.expect(arrives(Host::B, UPLINK), &syn(Family::V4, 81).with_options(words), Denied);
    }
    use Extension::{Authentication, Destination, HopByHop, Routing};
    let atomic = Extension::Fragment(Fragment { id: 7, offset: 0, more: false });
    let chains: [&[Extension]; 8] = [
        &[HopByHop(0)],
        &[Destination(3)],
        &[Routing(0)],
        &[Routing(2)],
        &[Authentication(4)],
        &[atomic],
        &[HopByHop(0), Destination(0), Routing(2), atomic, Authentication(4), Destination(1)],
        // Both ports of the segment that is not there, where they would be without the chain.
        &[Destination(10)],
    ];
    for chain in chains {
        node.expect(arrives(Host::B, UPLINK), &syn(Family::V6, 80).with_extensions(chain), Allowed);
        node.expect(arrives(Host::B, UPLINK), &syn(Family::V6, 81).with_extensions(chain), Denied);
    }
    let endless = [Destination(0); 7];
    node.expect(arrives(Host::B, UPLINK), &syn(Family::V6, 80).with_extensions(&endless), Unreadable);
    node.expect(arrives(Host::A, UPLINK), &syn(Family::V6, 80).with_extensions(&endless), Unparsed);
}

#[test]
fn what_cannot_be_read_is_dropped_for_an_isolated_direction_and_passes_a_free_one() {
    let world = World::new().ingress(Host::B, []).egress(Host::Z, []);
    let mut node = Node::new(&world);
    let tcp = |family| syn(family, 80);
    let ethertype = |kind: [u8; 2]| {
        let mut bytes = tcp(Family::V4).bytes();
        bytes[12..14].copy_from_slice(&kind);
        bytes
    };
    // (what, whether its source can be read, frame)
    let mut table = vec![
        ("a VLAN tag", false, tcp(Family::V4).in_vlan()),
        ("a VLAN tag before IPv6", false, tcp(Family::V6).in_vlan()),
        ("LLDP", false, ethertype([0x88, 0xcc])),
        ("MPLS", false, ethertype([0x88, 0x47])),
        ("802.3", false, ethertype([0, 60])),
        (
            "a mapped address",
            true,
            Frame::tcp((crate::world::ip("::ffff:10.2.0.1"), 9), (Host::B.at(Family::V6), 80), flag::SYN)
                .bytes(),
        ),
        ("a total length that is too small", true, tcp(Family::V4).with_claimed_length(30).bytes()),
        ("a payload length that is too small", true, tcp(Family::V6).with_claimed_length(10).bytes()),
    ];
    for family in Family::ALL {
        let whole = tcp(family).bytes();
        // From the end of the IP header on: the kernel runs no program on less.
        let header = if family == Family::V4 { 34 } else { 54 };
        table.extend((header..header + 14).map(|end| ("cut short", true, whole[..end].to_vec())));
    }
    for (what, has_source, frame) in table {
        println!("{what}");
        node.expect_bytes(arrives(Host::B, UPLINK), &frame, Unreadable);
        node.expect_bytes(arrives(Host::B, NODE), &frame, Unreadable);
        // No pod's own.
        node.expect_bytes(leaves(Host::B), &frame, if has_source { Spoofed } else { Unparsed });
        node.expect_bytes(leaves(Host::Z), &frame, if has_source { Spoofed } else { Unreadable });
        node.expect_bytes(arrives(Host::Z, UPLINK), &frame, Unparsed);
        node.expect_bytes(arrives(Host::A, UPLINK), &frame, Unparsed);
    }
    assert_eq!(node.flow_count(), 0);
}

#[test]
fn large_packets_are_evaluated_by_their_headers() {
    let mut node = Node::new(&world());
    for family in Family::ALL {
        for (to, outcome) in [(80, Allowed), (81, Denied)] {
            let mut large = syn(family, to);
            large.payload.resize(3_000, 0x5a);
            node.expect(arrives(Host::B, UPLINK), &large, outcome);
            // A length of 0: over 64 KiB.
            node.expect(arrives(Host::B, UPLINK), &large.with_claimed_length(0), outcome);
        }
    }
}

#[test]
fn the_reason_of_a_drop_is_that_of_the_direction_it_was_dropped_in() {
    let mut node = Node::new(&World::new().ingress(Host::B, []));
    let to_b = Frame::udp((Host::A.at(Family::V4), 9), (Host::B.at(Family::V4), 9), 0);
    node.expect(leaves(Host::A), &to_b, NotIsolated);
    node.expect(arrives(Host::B, Host::A.veth()), &to_b, Denied);
    let from_node = Frame::udp((Host::Node.at(Family::V4), 9), (Host::B.at(Family::V4), 9), 0);
    node.expect(arrives(Host::B, NODE), &from_node, OwnNode);
}
