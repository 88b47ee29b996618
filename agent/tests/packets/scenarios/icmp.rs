//! ICMP errors about connections, echoes, and what neighbours say to each other.

use podgate_common::{
    NODE,
    Outcome::{Allowed, Denied, Established, NotIsolated, OwnNode, Related, Spoofed, Unparsed, Unreadable},
    Protocol::{Sctp, Tcp, Udp},
    frames::{Frame, flag},
};

use crate::{
    node::Node,
    world::{Family, Host, UPLINK, World, all_pods, allow, arrives, ip, leaves, port},
};

/// B is isolated both ways, but may be reached on, and may reach, one port of each protocol, and be pinged.
fn world() -> World {
    let rules = || {
        [(Tcp, 80), (Udp, 53), (Sctp, 9000)]
            .map(|(protocol, number)| allow(all_pods(), port(protocol, number)))
    };
    World::new().ingress(Host::B, rules()).egress(Host::B, rules())
}

fn router(family: Family) -> std::net::IpAddr {
    ip(if family == Family::V4 { "198.51.100.7" } else { "2001:db8:9::7" })
}

/// An opening packet of each protocol.
fn openings(from: std::net::IpAddr, to: std::net::IpAddr) -> [Frame; 3] {
    [
        Frame::tcp((from, 40_000), (to, 80), flag::SYN),
        Frame::udp((from, 40_000), (to, 53), 30),
        Frame::sctp((from, 40_000), (to, 9000), 1),
    ]
}

#[test]
fn an_error_passes_to_the_client_of_a_connection_from_any_router() {
    let mut node = Node::new(&world());
    for family in Family::ALL {
        let (b, remote) = (Host::B.at(family), Host::Remote.at(family));
        for opening in openings(b, remote) {
            let error = Frame::unreachable(router(family), &opening);
            node.expect(arrives(Host::B, UPLINK), &error, Denied);
            node.expect(leaves(Host::B), &opening, Allowed);
            node.expect(arrives(Host::B, UPLINK), &error, Related);
            node.expect(arrives(Host::B, UPLINK), &Frame::unreachable(remote, &opening), Related);
            // The other pods have nothing to do with it.
            let world_free = Frame::unreachable(router(family), &opening);
            node.expect(arrives(Host::A, UPLINK), &world_free, Unparsed);
            node.forget();
            node.expect(arrives(Host::B, UPLINK), &error, Denied);
        }
    }
}

#[test]
fn an_error_of_and_to_a_server_passes_too() {
    let mut node = Node::new(&world());
    for family in Family::ALL {
        let (b, remote) = (Host::B.at(family), Host::Remote.at(family));
        for opening in openings(remote, b) {
            let own_error = Frame::unreachable(b, &opening);
            node.expect(leaves(Host::B), &own_error, Denied);
            node.expect(arrives(Host::B, UPLINK), &opening, Allowed);
            node.expect(leaves(Host::B), &own_error, Related);
            // About an answer of the server's, from a router on its way.
            let answer = if opening.protocol == 6 {
                Frame::tcp((b, 80), (remote, 40_000), flag::SYN | flag::ACK)
            } else {
                opening.reversed()
            };
            node.expect(leaves(Host::B), &answer, Established);
            node.expect(arrives(Host::B, UPLINK), &Frame::unreachable(router(family), &answer), Related);
            node.forget();
        }
    }
}

#[test]
fn an_error_about_another_connection_does_not_pass() {
    let mut node = Node::new(&world());
    for family in Family::ALL {
        let (b, remote, outside) = (Host::B.at(family), Host::Remote.at(family), Host::Outside.at(family));
        node.expect(leaves(Host::B), &Frame::tcp((b, 40_000), (remote, 80), flag::SYN), Allowed);
        let never_sent = [
            Frame::tcp((b, 40_001), (remote, 80), flag::SYN),
            Frame::tcp((b, 40_000), (remote, 81), flag::SYN),
            Frame::tcp((b, 40_000), (outside, 80), flag::SYN),
            Frame::udp((b, 40_000), (remote, 80), 0),
            Frame::echo_request(b, remote, 7),
            Frame::ip(b, remote, 47, vec![0; 8]),
        ];
        for quoted in never_sent {
            node.expect(arrives(Host::B, UPLINK), &Frame::unreachable(router(family), &quoted), Denied);
        }
        // Sent to another than the one who sent the quoted packet.
        let mut misled =
            Frame::unreachable(router(family), &Frame::tcp((remote, 80), (b, 40_000), flag::ACK));
        misled.destination = b;
        node.expect(arrives(Host::B, UPLINK), &misled, Unreadable);
        node.forget();
    }
}

#[test]
fn a_pod_sends_errors_from_its_own_address_alone() {
    let mut node = Node::new(&world());
    for family in Family::ALL {
        let (b, remote) = (Host::B.at(family), Host::Remote.at(family));
        let opening = Frame::tcp((remote, 40_000), (b, 80), flag::SYN);
        node.expect(arrives(Host::B, UPLINK), &opening, Allowed);
        node.expect(leaves(Host::B), &Frame::unreachable(router(family), &opening), Spoofed);
        node.expect(leaves(Host::Z), &Frame::unreachable(b, &opening), Spoofed);
        node.expect(leaves(Host::B), &Frame::unreachable(b, &opening), Related);
    }
}

#[test]
fn errors_of_the_own_node_pass() {
    let mut node = Node::new(&world());
    for family in Family::ALL {
        let quoted = Frame::tcp((Host::B.at(family), 9), (Host::Outside.at(family), 9), flag::SYN);
        let error = Frame::unreachable(Host::Node.at(family), &quoted);
        node.expect(arrives(Host::B, NODE), &error, OwnNode);
        node.expect(arrives(Host::B, UPLINK), &error, Denied);
        // A part of one is another's when the datagram is IPv6: the node's own have a socket.
        let part = error.fragments(7, if family == Family::V4 { 5 } else { 7 }).remove(0);
        node.expect(arrives(Host::B, NODE), &part, if family == Family::V4 { OwnNode } else { Denied });
    }
}

#[test]
fn errors_about_an_echo_know_which_side_asked() {
    let world = World::new()
        .ingress(Host::B, [])
        .egress(Host::B, [allow(all_pods(), podgate_core::model::Ports::Any)]);
    let mut node = Node::new(&world);
    for family in Family::ALL {
        let (b, remote) = (Host::B.at(family), Host::Remote.at(family));
        let request = Frame::echo_request(b, remote, 7);
        node.expect(leaves(Host::B), &request, Allowed);
        node.expect(arrives(Host::B, UPLINK), &Frame::unreachable(router(family), &request), Related);
        node.expect(arrives(Host::B, UPLINK), &Frame::echo_reply(remote, b, 7), Established);
        // Another echo, and the same number asked from the other side.
        node.expect(arrives(Host::B, UPLINK), &Frame::echo_reply(remote, b, 8), Denied);
        node.expect(arrives(Host::B, UPLINK), &Frame::echo_request(remote, b, 7), Denied);
        let other = Frame::echo_request(b, remote, 8);
        node.expect(arrives(Host::B, UPLINK), &Frame::unreachable(router(family), &other), Denied);
    }
}

#[test]
fn what_looks_like_a_neighbours_message_in_ipv4_is_none() {
    let mut node = Node::new(&World::new().ingress(Host::B, []).egress(Host::B, []));
    let (a, b) = (Host::A.at(Family::V4), Host::B.at(Family::V4));
    for kind in [130, 135, 136, 143] {
        let payload = Frame::icmp(Host::A.at(Family::V6), Host::B.at(Family::V6), kind, 0).payload;
        node.expect(arrives(Host::B, Host::A.veth()), &Frame::ip(a, b, 58, payload.clone()), Denied);
        node.expect(leaves(Host::B), &Frame::ip(b, a, 58, payload.clone()), Denied);
        node.expect(
            leaves(Host::A),
            &Frame::ip(a, b, 58, payload),
            if kind == 130 { NotIsolated } else { Established },
        );
    }
}
