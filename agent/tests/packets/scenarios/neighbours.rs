//! ARP, neighbour discovery and multicast listener discovery: what hosts need passes whatever the policies
//! say, nothing else passes as such a message, and nothing in another's name.

use std::net::{IpAddr, Ipv4Addr};

use podgate_common::{
    EndpointState, NODE, Outcome,
    Outcome::{Denied, Neighbour, NotIsolated, Spoofed, Unparsed, Unreadable},
    frames::{Extension, Fragment, Frame, MAC, arp, link_layer, listeners, neighbour, solicited_node},
};

use crate::{
    node::Node,
    world::{BRIDGE, Family, Host, UPLINK, World, arrives, ip, leaves},
};

const NODE_LINK: &str = "fe80::1";

/// B and Z are isolated both ways, B on a bridge; A is free.
fn world() -> World {
    let mut world = World::new().on_bridge(Host::B).on_bridge(Host::A);
    for pod in [Host::B, Host::Z] {
        world = world.ingress(pod, []).egress(pod, []);
    }
    world.node.insert(ip(NODE_LINK));
    world
}

fn v6(host: Host) -> IpAddr {
    host.at(Family::V6)
}

fn v4(host: Host) -> Ipv4Addr {
    match host.at(Family::V4) {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => unreachable!("an address of IPv4"),
    }
}

/// A message whose target, if it has one, is `target`.
fn body(target: IpAddr, options: &[u8]) -> Vec<u8> {
    let IpAddr::V6(target) = target else { panic!("of IPv6") };
    [&[0; 4], &target.octets()[..], options].concat()
}

#[test]
fn what_hosts_need_passes_whatever_the_policies_say() {
    let mut node = Node::new(&world());
    let (b, b_link, node_link, node_at) = (v6(Host::B), ip("fe80::b"), ip(NODE_LINK), v6(Host::Node));
    let (nowhere, all_nodes, routers) = (ip("::"), ip("ff02::1"), ip("ff02::2"));
    let out = leaves(Host::B);
    let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
    let with_nonce = neighbour(nowhere, solicited_node(b), 135, &body(b, &nonce));
    let groups: Vec<_> = (0..8_u16).map(|group| [0xff02, 0, 0, 0, 0, 0, 0, group].into()).collect();
    let sent = [
        // Is this address taken? Who has that one? Are you still there?
        Frame::solicitation(nowhere, solicited_node(b), b),
        with_nonce,
        Frame::solicitation(nowhere, solicited_node(b_link), b_link),
        Frame::solicitation(b, solicited_node(node_at), node_at),
        Frame::solicitation(b_link, solicited_node(v6(Host::Remote)), v6(Host::Remote)),
        Frame::solicitation(b, node_at, node_at),
        Frame::solicitation(b, node_link, node_link),
        Frame::solicitation(b, v6(Host::A), v6(Host::A)),
        Frame::solicitation(b, ip("fd00:1::77"), ip("fd00:1::77")),
        Frame::advertisement(b, node_at, b),
        Frame::advertisement(b_link, all_nodes, b),
        Frame::advertisement(b_link, ip("fe80::77"), b_link),
        Frame::advertisement(b, ip("fd00:1::77"), b),
        neighbour(b_link, routers, 133, &[&[0; 4], &link_layer(1, MAC)[..]].concat()),
        neighbour(nowhere, routers, 133, &[0; 4]),
        Frame::listener_report(b_link, &groups),
        Frame::listener_report(nowhere, &groups[..1]),
        listeners(b_link, ip("ff02::fb"), 131, &body(ip("ff02::fb"), &[])),
        listeners(b_link, routers, 132, &body(ip("ff02::fb"), &[])),
    ];
    for frame in sent {
        node.expect(out, &frame, Neighbour);
    }
    let router = ip("fe80::99");
    let prefix = [&[64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &[5, 1, 0, 0, 0, 0, 5, 0]].concat();
    let query = listeners(router, all_nodes, 130, &body(nowhere, &[0; 4]));
    let received = [
        (Host::A.veth(), Frame::solicitation(v6(Host::A), solicited_node(b), b)),
        (Host::A.veth(), Frame::advertisement(v6(Host::A), b, v6(Host::A))),
        (NODE, Frame::solicitation(node_at, solicited_node(b), b)),
        (NODE, Frame::advertisement(node_link, b, node_at)),
        // The node answers for others, as a proxy.
        (NODE, Frame::advertisement(node_link, b, v6(Host::Z))),
        (NODE, neighbour(node_link, all_nodes, 134, &prefix)),
        (UPLINK, neighbour(router, all_nodes, 134, &prefix)),
        (UPLINK, Frame::advertisement(router, b, router)),
        (UPLINK, Frame::solicitation(v6(Host::Remote), solicited_node(b), b)),
        (UPLINK, Frame::solicitation(nowhere, solicited_node(b), b)),
        (UPLINK, query),
    ];
    for (ingress_ifindex, frame) in received {
        node.expect(arrives(Host::B, ingress_ifindex), &frame, Neighbour);
    }
    assert_eq!(node.flow_count(), 0);
}

#[test]
fn nothing_else_passes_as_a_message_between_neighbours() {
    let mut node = Node::new(&world());
    let (b, b_link, remote) = (v6(Host::B), ip("fe80::b"), v6(Host::Remote));
    let node_at = v6(Host::Node);
    let asks = || Frame::solicitation(b, solicited_node(node_at), node_at);
    let longer = |mut frame: Frame, by: usize| {
        frame.payload.resize(frame.payload.len() + by, 0x5a);
        frame
    };
    let coded = |mut frame: Frame| {
        frame.payload[1] = 1;
        frame
    };
    let part = Extension::Fragment(Fragment { id: 7, offset: 0, more: false });
    let groups: Vec<_> = (0..9_u16).map(|group| [0xff02, 0, 0, 0, 0, 0, 0, group].into()).collect();
    let report = || Frame::listener_report(b_link, &groups[..1]);
    let sent = [
        asks().with_hop_limit(254),
        asks().with_hop_limit(1),
        coded(asks()),
        longer(asks(), 1),
        longer(asks(), 8),
        longer(asks(), 1_000),
        asks().with_extensions(&[Extension::Destination(0)]),
        asks().with_extensions(&[Extension::HopByHop(3)]),
        asks().with_extensions(&[part]),
        neighbour(b, solicited_node(node_at), 135, &body(node_at, &link_layer(1, [6; 6]))),
        neighbour(b, solicited_node(node_at), 135, &body(node_at, &[5, 1, 0, 0, 0, 0, 5, 0])),
        // To a host beyond the link, or not to whom it asks for.
        Frame::solicitation(b, remote, remote),
        Frame::solicitation(b, solicited_node(b), node_at),
        Frame::advertisement(b, remote, b),
        Frame::advertisement(b, ip("ff02::2"), b),
        neighbour(b, remote, 133, &[0; 4]),
        listeners(b_link, ip("ff02::1"), 130, &body(ip("::"), &[])),
        report().with_hop_limit(255),
        report().with_hop_limit(64),
        report().with_extensions(&[]),
        report().with_extensions(&[Extension::RouterAlert, Extension::Destination(0)]),
        longer(report(), 4),
        Frame::listener_report(b_link, &groups),
        Frame::listener_report(b, &groups[..1]),
        listeners(b_link, remote, 131, &body(ip("ff02::fb"), &[])),
    ];
    for frame in sent {
        node.expect(leaves(Host::B), &frame, Denied);
    }
    // The bytes of a router alert in a header for routing, and in one for the destination.
    for header in [43, 60] {
        let mut frame = report().bytes();
        frame[20] = header;
        node.expect_bytes(leaves(Host::B), &frame, Denied);
    }
    // On a routed veth the node is all of the link.
    let z = v6(Host::Z);
    for other in [v6(Host::A), ip("fd00:1::77")] {
        node.expect(leaves(Host::Z), &Frame::solicitation(z, other, other), Denied);
        node.expect(leaves(Host::Z), &Frame::advertisement(z, other, z), Denied);
    }
    let to_b = || Frame::solicitation(remote, solicited_node(b), b);
    let received = [
        to_b().with_hop_limit(254),
        longer(to_b(), 64),
        to_b().with_extensions(&[part]),
        neighbour(remote, ip("ff02::1"), 134, &[0; 12]),
        neighbour(ip("fe80::99"), ip("ff02::1"), 134, &[&[0; 12], &[1, 0, 7, 7][..]].concat()),
        Frame::solicitation(ip("::"), b, b),
        Frame::listener_report(ip("fe80::99"), &groups[..1]),
        listeners(remote, ip("ff02::1"), 130, &body(ip("::"), &[])),
    ];
    for frame in received {
        node.expect(arrives(Host::B, UPLINK), &frame, Denied);
    }
    // What the frame holds behind the packet is none of it.
    let mut trailing = asks().bytes();
    trailing.extend([0x5a; 200]);
    node.expect_bytes(leaves(Host::B), &trailing, Denied);
    let mut trailing = to_b().bytes();
    trailing.extend([0x5a; 2]);
    node.expect_bytes(arrives(Host::B, UPLINK), &trailing, Denied);
    // To a pod that is not isolated it is a packet like any other.
    node.expect(leaves(Host::A), &Frame::solicitation(v6(Host::A), remote, remote), NotIsolated);
}

#[test]
fn no_pod_speaks_in_anothers_name() {
    let world = world().with_state(Host::Z, EndpointState::Pending);
    let mut node = Node::new(&world);
    let (node_link, all_nodes) = (ip(NODE_LINK), ip("ff02::1"));
    let part = Extension::Fragment(Fragment { id: 7, offset: 0, more: true });
    for pod in [Host::A, Host::B, Host::Z] {
        let (own, link) = (v6(pod), ip("fe80::b"));
        let out = leaves(pod);
        for kind in [134, 137] {
            let says = neighbour(link, all_nodes, kind, &[0; 36]);
            for frame in [
                says.clone(),
                says.clone().with_hop_limit(64),
                says.clone().with_extensions(&[Extension::Destination(0)]),
                says.with_extensions(&[part]),
            ] {
                node.expect(out, &frame, Spoofed);
            }
        }
        for target in [v6(Host::Node), node_link, if pod == Host::B { v6(Host::A) } else { v6(Host::B) }] {
            let says = Frame::advertisement(own, all_nodes, target);
            node.expect(out, &says, Spoofed);
            node.expect(out, &says.clone().with_extensions(&[Extension::HopByHop(0)]), Spoofed);
            node.expect(out, &says.with_extensions(&[part]), Spoofed);
        }
        // A known pod may be asked whose address it is that it says to have.
        let unowned = Frame::advertisement(own, all_nodes, ip("fd00:1::99"));
        node.expect(out, &unowned, if pod == Host::Z { Neighbour } else { Spoofed });
        node.expect(
            out,
            &Frame::solicitation(v6(Host::Node), solicited_node(own), own),
            match pod {
                Host::Z => Outcome::Pending,
                _ => Spoofed,
            },
        );
    }
    // Nor do others on the link, in the name of the node or of a pod.
    let b = v6(Host::B);
    for target in [v6(Host::Node), v6(Host::A)] {
        for ingress_ifindex in [UPLINK, 77] {
            let says = Frame::advertisement(ip("fe80::99"), b, target);
            node.expect(arrives(Host::B, ingress_ifindex), &says, Spoofed);
            node.expect(arrives(Host::A, ingress_ifindex), &says, Spoofed);
        }
    }
    let through_bridge = Frame::advertisement(v6(Host::A), b, v6(Host::A));
    node.expect(arrives(Host::B, BRIDGE), &through_bridge, Neighbour);
    assert_eq!(node.flow_count(), 0);
}

#[test]
fn arp_passes_in_the_senders_name_alone_and_carries_nothing() {
    let world = world().with_state(Host::Z, EndpointState::Pending);
    let mut node = Node::new(&world);
    let (a, b, z, gateway) = (v4(Host::A), v4(Host::B), v4(Host::Z), v4(Host::Node));
    let unowned: Ipv4Addr = [10, 1, 0, 99].into();
    let out = leaves(Host::B);
    for operation in [1, 2] {
        node.expect_bytes(out, &arp(operation, b, gateway), Neighbour);
        node.expect_bytes(leaves(Host::A), &arp(operation, a, b), Neighbour);
        node.expect_bytes(leaves(Host::Z), &arp(operation, z, gateway), Neighbour);
        for others in [a, gateway, unowned, v4(Host::Remote)] {
            node.expect_bytes(out, &arp(operation, others, b), Spoofed);
            let mut other_hardware = arp(operation, others, b);
            // Linux takes IEEE 802 for Ethernet.
            other_hardware[15] = 6;
            node.expect_bytes(out, &other_hardware, Spoofed);
        }
        node.expect_bytes(leaves(Host::Z), &arp(operation, a, gateway), Spoofed);
        node.expect_bytes(leaves(Host::Z), &arp(operation, gateway, a), Spoofed);
        node.expect_bytes(leaves(Host::A), &arp(operation, b, gateway), Spoofed);

        let into = |ingress_ifindex| arrives(Host::B, ingress_ifindex);
        node.expect_bytes(into(Host::A.veth()), &arp(operation, a, b), Neighbour);
        node.expect_bytes(into(UPLINK), &arp(operation, v4(Host::Remote), b), Neighbour);
        // The node answers for itself, and for others as a proxy.
        for sender in [gateway, a, unowned] {
            node.expect_bytes(into(NODE), &arp(operation, sender, b), Neighbour);
        }
        for sender in [gateway, a] {
            node.expect_bytes(into(UPLINK), &arp(operation, sender, b), Spoofed);
        }
    }
    let unspecified: Ipv4Addr = [0; 4].into();
    node.expect_bytes(out, &arp(1, unspecified, b), Neighbour);
    node.expect_bytes(out, &arp(2, unspecified, b), Unreadable);
    node.expect_bytes(out, &arp(3, b, gateway), Unreadable);
    let longer = |mut frame: Vec<u8>, length| {
        frame.resize(length, 0x5a);
        frame
    };
    let of_another_device = |mut frame: Vec<u8>| {
        frame[24] ^= 1;
        frame
    };
    node.expect_bytes(out, &of_another_device(arp(2, b, gateway)), Unreadable);
    node.expect_bytes(out, &longer(arp(1, b, gateway), 43), Unreadable);
    node.expect_bytes(out, &longer(arp(1, b, gateway), 1_000), Unreadable);
    node.expect_bytes(out, &arp(1, b, gateway)[..40], Unreadable);
    node.expect_bytes(leaves(Host::A), &longer(arp(1, a, gateway), 1_000), Unparsed);
    // A network card pads to 60 bytes.
    let from_uplink = arp(1, v4(Host::Remote), b);
    node.expect_bytes(arrives(Host::B, UPLINK), &longer(from_uplink.clone(), 60), Neighbour);
    node.expect_bytes(arrives(Host::B, UPLINK), &longer(from_uplink, 61), Unreadable);
}

#[test]
fn what_cannot_be_read_to_its_end_has_a_source_all_the_same() {
    let mut node = Node::new(&World::new().with_state(Host::Z, EndpointState::Pending));
    let chain = [Extension::Destination(0); 7];
    let to = (v6(Host::Remote), 80);
    for from in [v6(Host::B), v6(Host::Node), ip("2001:db8::77")] {
        let endless = Frame::udp((from, 9), to, 8).with_extensions(&chain);
        node.expect(leaves(Host::A), &endless, Spoofed);
        let others = from != ip("2001:db8::77");
        node.expect(leaves(Host::Z), &endless, if others { Spoofed } else { Outcome::Pending });
    }
    let own = Frame::udp((v6(Host::A), 9), to, 8).with_extensions(&chain);
    node.expect(leaves(Host::A), &own, Unparsed);
    // Receivers read on, and take what has this hop limit for a neighbour's message.
    node.expect(leaves(Host::A), &own.clone().with_hop_limit(255), Unreadable);
    // Nor does a pod get such a packet in the name of another one.
    node.expect(arrives(Host::B, UPLINK), &own, Spoofed);
    node.expect(arrives(Host::B, Host::A.veth()), &own, Unparsed);

    for family in Family::ALL {
        let part =
            |from| Frame::udp((from, 9), (Host::Remote.at(family), 80), 200).fragments(5, 10).remove(1);
        node.expect(leaves(Host::A), &part(Host::B.at(family)), Spoofed);
        node.expect(leaves(Host::A), &part(Host::A.at(family)), Unparsed);
        node.expect(leaves(Host::Z), &part(Host::B.at(family)), Spoofed);
        node.expect(arrives(Host::B, UPLINK), &part(Host::A.at(family)), Spoofed);
        // An error in another's name.
        let quoted = Frame::udp((Host::Remote.at(family), 9), (Host::A.at(family), 80), 8);
        node.expect(leaves(Host::Z), &Frame::unreachable(Host::B.at(family), &quoted), Spoofed);
        let mut misled = Frame::unreachable(Host::B.at(family), &quoted);
        misled.destination = Host::Outside.at(family);
        node.expect(leaves(Host::A), &misled, Spoofed);
        let to_b = Frame::udp((Host::B.at(family), 9), (Host::Remote.at(family), 80), 8);
        node.expect(arrives(Host::B, UPLINK), &Frame::unreachable(Host::A.at(family), &to_b), Spoofed);
    }
}

#[test]
fn a_pod_that_is_not_known_yet_sends_from_no_address_of_another() {
    for state in [EndpointState::Pending, EndpointState::Unmanaged] {
        let mut node = Node::new(&World::new().with_state(Host::Z, state));
        for family in Family::ALL {
            for other in [Host::A, Host::B, Host::Node] {
                let frame = Frame::udp((other.at(family), 9), (Host::Remote.at(family), 80), 8);
                let expected = if state == EndpointState::Pending { Outcome::Pending } else { Spoofed };
                node.expect(leaves(Host::Z), &frame, expected);
            }
            let own = Frame::udp((Host::Z.at(family), 9), (Host::Remote.at(family), 80), 8);
            node.expect(
                leaves(Host::Z),
                &own,
                if state == EndpointState::Pending { Outcome::Pending } else { NotIsolated },
            );
        }
    }
}

#[test]
fn a_frame_for_an_address_that_the_pod_has_not_got_opens_no_way_to_send_from_it() {
    let mut node = Node::new(&World::new());
    for family in Family::ALL {
        let many = ip(if family == Family::V4 { "224.0.0.251" } else { "ff02::fb" });
        let unowned = ip(if family == Family::V4 { "10.1.0.99" } else { "fd00:1::99" });
        for to in [many, unowned, Host::Remote.at(family)] {
            let flooded = Frame::udp((Host::B.at(family), 5_353), (to, 5_353), 30);
            node.expect(arrives(Host::A, Host::B.veth()), &flooded, NotIsolated);
            node.expect(leaves(Host::A), &flooded.reversed(), Spoofed);
        }
    }
    assert_eq!(node.flow_count(), 0);
}
