//! Packets without an ingress interface: the node's own, and what the kernel has made again of what others
//! have sent. And packets that leave the node by devices without link headers.

use podgate_common::{
    Flow, NODE,
    Outcome::{
        Allowed, Deferred, Denied, DeniedBackend, Established, Fragment as Orphan, NotIsolated, OwnNode,
        Spoofed, Unreadable,
    },
    Protocol::{Tcp, Udp},
    frames::{Frame, flag},
};
use podgate_core::model::Ports;

use crate::{
    node::Node,
    world::{
        Family, Host, UPLINK, World, all_pods, allow, arrives, block, leaves, pods_like, port, service_at,
    },
};

const SYN: u8 = flag::SYN;

/// The parts of a datagram to B, as the kernel has divided it again.
fn parts(from: Host, port: u16) -> Vec<Frame> {
    let ends = ((from.at(Family::V6), 40_000), (Host::B.at(Family::V6), port));
    Frame::udp(ends.0, ends.1, 4_000).fragments(7, 150)
}

#[test]
fn a_datagram_that_was_divided_again_is_evaluated_by_its_sender() {
    let world = World::new().ingress(Host::B, [allow(pods_like(Host::A), port(Udp, 53))]).egress(Host::B, []);
    let mut node = Node::new(&world);
    for from in [Host::Remote, Host::Outside, Host::OtherNode, Host::Node] {
        for (part, outcome) in parts(from, 53).iter().zip([Denied, Orphan, Orphan]) {
            node.expect(arrives(Host::B, NODE), part, outcome);
        }
    }
    // Nothing was seen of this at A's veth.
    node.expect(arrives(Host::B, NODE), &parts(Host::A, 53)[0], Spoofed);
    assert_eq!(node.flow_count(), 0);
    for (port, outcome) in [(53, Allowed), (54, Denied)] {
        let parts = parts(Host::A, port);
        node.expect(leaves(Host::A), &parts[0], NotIsolated);
        node.expect(arrives(Host::B, NODE), &parts[0], outcome);
        for part in &parts[1..] {
            node.expect(leaves(Host::A), part, Established);
            node.expect(arrives(Host::B, NODE), part, if outcome == Allowed { Established } else { Denied });
        }
    }
    // In one's own name alone.
    for part in parts(Host::A, 53) {
        node.expect(leaves(Host::Z), &part, Spoofed);
    }
}

#[test]
fn parts_of_a_evaluated_connection_go_on_with_and_without_an_ingress_interface() {
    let world = World::new().ingress(Host::B, [allow(all_pods(), Ports::Any)]);
    let closed = World::new().ingress(Host::B, []);
    for (host, ingress_ifindex) in [(Host::A, Host::A.veth()), (Host::Remote, UPLINK)] {
        let mut node = Node::new(&world);
        let parts = parts(host, 53);
        if host == Host::A {
            node.expect(leaves(Host::A), &parts[0], NotIsolated);
        }
        node.expect(arrives(Host::B, NODE), &parts[0], Allowed);
        let known = |node: &Node| node.flows().values().next().expect("one connection").ingress_ifindex;
        if host == Host::A {
            assert_eq!(known(&node), ingress_ifindex);
        } else {
            assert_eq!(known(&node), Flow::UNKNOWN_INGRESS);
            node.expect(arrives(Host::B, ingress_ifindex), &parts[0], Allowed);
            assert_eq!(known(&node), ingress_ifindex);
        }
        node.publish(&closed);
        for part in &parts {
            node.expect(arrives(Host::B, NODE), part, Established);
            node.expect(arrives(Host::B, ingress_ifindex), part, Established);
        }
        assert_eq!(known(&node), ingress_ifindex, "what is known stays");
    }
}

#[test]
fn nothing_rides_on_an_entry_of_the_nodes_own() {
    let world = World::new().ingress(Host::B, []).egress(Host::B, []);
    let mut node = Node::new(&world);
    let (from, to) = ((Host::Node.at(Family::V6), 40_000), (Host::B.at(Family::V6), 53));
    node.expect(arrives(Host::B, NODE), &Frame::udp(from, to, 20), OwnNode);
    node.expect(arrives(Host::B, NODE), &parts(Host::Node, 53)[0], Denied);
    node.expect(arrives(Host::B, NODE), &Frame::udp(from, to, 20), Established);
    // The answer to what the pod has asked comes from anywhere, as ever.
    let question = Frame::udp((Host::B.at(Family::V6), 9), (Host::Node.at(Family::V6), 53), 20);
    node.expect(leaves(Host::B), &question, OwnNode);
    let mut answer = question.reversed();
    answer.payload.resize(2_000, 0);
    node.expect(arrives(Host::B, NODE), &answer.fragments(8, 150)[0], Established);
}

#[test]
fn a_reset_in_a_servers_name_reaches_the_client_that_has_asked() {
    let world = World::new().egress(Host::A, [allow(all_pods(), Ports::Any)]).ingress(Host::A, []);
    let mut node = Node::new(&world);
    for family in Family::ALL {
        for server in [Host::B, Host::Remote] {
            let (a, server) = ((Host::A.at(family), 40_000), (server.at(family), 80));
            let reset = Frame::tcp(server, a, flag::RST | flag::ACK);
            let refused = if server.0 == Host::B.at(family) { Spoofed } else { Denied };
            node.expect(arrives(Host::A, NODE), &reset, refused);
            node.expect(leaves(Host::A), &Frame::tcp(a, server, SYN), Allowed);
            node.expect(arrives(Host::A, NODE), &reset, Established);
        }
        let (client, a) = ((Host::Outside.at(family), 9), (Host::A.at(family), 80));
        node.expect_on_wire(NODE, &Frame::tcp(a, client, flag::RST | flag::ACK), None);
    }
}

/// A may reach one of two backends elsewhere.
fn mixed() -> World {
    World::new()
        .egress(Host::A, [allow(block("10.2.0.0/16", &[]), port(Tcp, 8080))])
        .egress(Host::A, [allow(block("fd00:2::/32", &[]), port(Tcp, 8080))])
        .egress(Host::A, [allow(block("fd00:2::/32", &[]), port(Udp, 8080))])
        .service(Tcp, &[(Host::Remote, 8080), (Host::Outside, 8080)])
}

#[test]
fn what_leaves_the_node_without_an_ingress_interface_is_evaluated_by_its_sender() {
    let mut node = Node::new(&mixed());
    let datagram = |from: Host, to: Host| {
        Frame::udp((from.at(Family::V6), 9), (to.at(Family::V6), 8080), 4_000).fragments(7, 150)
    };
    let good = datagram(Host::A, Host::Remote);
    node.expect_on_wire(NODE, &good[1], Some(Orphan));
    node.expect_on_wire(NODE, &good[0], Some(Allowed));
    node.expect_on_wire(NODE, &good[1], None);
    let bad = datagram(Host::A, Host::Outside);
    node.expect_on_wire(NODE, &bad[0], Some(DeniedBackend));
    node.expect_on_wire(NODE, &bad[1], Some(Orphan));
    for free in [Host::B, Host::Node, Host::OtherNode] {
        for part in datagram(free, Host::Outside) {
            node.expect_on_wire(NODE, &part, None);
        }
    }
}

#[test]
fn a_packet_without_a_link_header_is_evaluated_as_one_behind_an_ethernet_header() {
    let mut node = Node::new(&mixed());
    let ingress_ifindex = Host::A.veth();
    for family in Family::ALL {
        let (a, frontend) = ((Host::A.at(family), 40_000), (service_at(family), 80));
        let [remote, outside] = [Host::Remote, Host::Outside].map(|host| (host.at(family), 8080));
        node.expect(leaves(Host::A), &Frame::tcp(a, frontend, SYN), Deferred);
        let mut expect = |frame: &Frame, outcome| {
            assert_eq!(node.verdict_on_tunnel(ingress_ifindex, &frame.bytes()[14..]), outcome, "{frame:?}");
        };
        expect(&Frame::tcp(a, outside, SYN), Some(DeniedBackend));
        expect(&Frame::tcp(a, remote, SYN), Some(Allowed));
        expect(&Frame::tcp(a, remote, flag::ACK), None);
    }
}

#[test]
fn what_cannot_be_read_leaves_the_node_from_a_free_pod_alone() {
    let mut node = Node::new(&mixed());
    for bytes in [&[0x00; 40][..], &[0x81; 40], &[0x45; 16]] {
        for (ingress_ifindex, outcome) in
            [(Host::A.veth(), Some(Unreadable)), (Host::B.veth(), None), (UPLINK, None), (NODE, None)]
        {
            assert_eq!(node.verdict_on_tunnel(ingress_ifindex, bytes), outcome, "{bytes:02x?}");
        }
    }
    let tagged = Frame::tcp((Host::A.at(Family::V4), 9), (Host::Outside.at(Family::V4), 9), SYN).in_vlan();
    assert_eq!(node.verdict_on_wire(Host::A.veth(), &tagged), Some(Unreadable));
    assert_eq!(node.verdict_on_wire(Host::B.veth(), &tagged), None);
}

#[test]
fn an_error_leaves_an_isolated_pod_when_it_speaks_of_a_connection_that_was_evaluated() {
    let mut node = Node::new(&mixed());
    let ingress_ifindex = Host::A.veth();
    for family in Family::ALL {
        let a = (Host::A.at(family), 40_000);
        let [remote, outside] = [Host::Remote, Host::Outside].map(|host| (host.at(family), 8080));
        let answer = |server| Frame::unreachable(a.0, &Frame::tcp(server, a, SYN | flag::ACK));
        node.expect(leaves(Host::A), &Frame::tcp(a, (service_at(family), 80), SYN), Deferred);
        node.expect_on_wire(ingress_ifindex, &Frame::tcp(a, remote, SYN), Some(Allowed));
        node.expect_on_wire(ingress_ifindex, &Frame::tcp(a, outside, SYN), Some(DeniedBackend));
        node.expect_on_wire(ingress_ifindex, &answer(remote), None);
        node.expect_on_wire(ingress_ifindex, &answer(outside), Some(Denied));
        // Of what reached it, and from a free pod.
        let asks = Frame::udp((Host::Outside.at(family), 9), (a.0, 53), 9);
        node.expect(arrives(Host::A, UPLINK), &asks, NotIsolated);
        node.expect_on_wire(ingress_ifindex, &Frame::unreachable(a.0, &asks), None);
        let asks = Frame { destination: Host::B.at(family), ..asks };
        node.expect_on_wire(Host::B.veth(), &Frame::unreachable(Host::B.at(family), &asks), None);
    }
}
