//! What changes under a connection: policies, owners of addresses, time; and veths that are not known yet.

use podgate_common::{
    EndpointState, NODE,
    Outcome::{Allowed, Denied, Established, Neighbour, NotIsolated, OwnNode, Pending, Related, Spoofed},
    Protocol::{Tcp, Udp},
    frames::{Frame, arp, flag},
};

use crate::{
    node::Node,
    world::{Family, Host, UPLINK, World, all_pods, allow, arrives, ip, leaves, pods_like, port},
};

const SYN: u8 = flag::SYN;
const SYN_ACK: u8 = flag::SYN | flag::ACK;
const ACK: u8 = flag::ACK;

fn open() -> World {
    World::new()
        .ingress(Host::B, [allow(pods_like(Host::A), port(Tcp, 80))])
        .egress(Host::A, [allow(pods_like(Host::B), port(Tcp, 80))])
}

fn shut() -> World {
    World::new().ingress(Host::B, []).egress(Host::A, [])
}

/// Opens a connection from A to port 80 of B.
fn connect(node: &mut Node, family: Family, from: u16) {
    let (a, b) = ((Host::A.at(family), from), (Host::B.at(family), 80));
    node.expect(leaves(Host::A), &Frame::tcp(a, b, SYN), Allowed);
    node.expect(arrives(Host::B, Host::A.veth()), &Frame::tcp(a, b, SYN), Allowed);
    node.expect(leaves(Host::B), &Frame::tcp(b, a, SYN_ACK), Established);
    node.expect(arrives(Host::A, Host::B.veth()), &Frame::tcp(b, a, SYN_ACK), Established);
}

#[test]
fn a_policy_change_keeps_live_connections_and_stops_new_ones() {
    let mut node = Node::new(&open());
    for family in Family::ALL {
        connect(&mut node, family, 40_000);
    }
    let published = node.publish(&shut());
    assert!(!published.settled, "the old rules were in force until now");
    for _ in 0..2 {
        for family in Family::ALL {
            let (a, b) = ((Host::A.at(family), 40_000), (Host::B.at(family), 80));
            node.expect(leaves(Host::A), &Frame::tcp(a, b, ACK), Established);
            node.expect(arrives(Host::B, Host::A.veth()), &Frame::tcp(a, b, ACK), Established);
            node.expect(leaves(Host::B), &Frame::tcp(b, a, ACK), Established);
            node.expect(arrives(Host::A, Host::B.veth()), &Frame::tcp(b, a, ACK), Established);
            // A new one, from another port and from the same.
            for from in [40_001, 40_000] {
                let syn = Frame::tcp((a.0, from), b, SYN);
                node.expect(leaves(Host::A), &syn, Denied);
                node.expect(arrives(Host::B, Host::A.veth()), &syn, Denied);
            }
            node.expect(leaves(Host::A), &Frame::tcp(a, b, ACK), Established);
        }
        assert!(node.publish(&shut()).settled);
    }
}

#[test]
fn a_policy_change_ends_live_connections_when_they_are_rechecked() {
    let mut node = Node::that_rechecks(&open());
    for family in Family::ALL {
        connect(&mut node, family, 40_000);
    }
    node.publish(&shut());
    for family in Family::ALL {
        let (a, b) = ((Host::A.at(family), 40_000), (Host::B.at(family), 80));
        // Each side is asked the question that opened the connection, whoever sends.
        node.expect(leaves(Host::A), &Frame::tcp(a, b, ACK), Denied);
        node.expect(arrives(Host::B, Host::A.veth()), &Frame::tcp(a, b, ACK), Denied);
        node.expect(leaves(Host::B), &Frame::tcp(b, a, ACK), Denied);
        node.expect(arrives(Host::A, Host::B.veth()), &Frame::tcp(b, a, ACK), Denied);
    }
    node.publish(&open());
    for family in Family::ALL {
        let (a, b) = ((Host::A.at(family), 40_000), (Host::B.at(family), 80));
        node.expect(leaves(Host::B), &Frame::tcp(b, a, ACK), Allowed);
        node.expect(leaves(Host::B), &Frame::tcp(b, a, ACK), Established);
        // B was asked whether A may send, too: it might have done so to a service.
        node.expect(arrives(Host::A, Host::B.veth()), &Frame::tcp(b, a, ACK), Established);
        node.expect(leaves(Host::A), &Frame::tcp(a, b, ACK), Established);
        node.expect(arrives(Host::B, Host::A.veth()), &Frame::tcp(a, b, ACK), Established);
    }
}

#[test]
fn a_recheck_goes_by_the_way_that_the_connection_came() {
    let world = World::new().ingress(Host::B, []);
    let mut node = Node::that_rechecks(&world);
    for family in Family::ALL {
        let (prober, b) = ((Host::Node.at(family), 9), (Host::B.at(family), 8080));
        node.expect(arrives(Host::B, NODE), &Frame::tcp(prober, b, SYN), OwnNode);
    }
    node.publish(&World::new().ingress(Host::B, []).egress(Host::B, []));
    for family in Family::ALL {
        let (prober, b) = ((Host::Node.at(family), 9), (Host::B.at(family), 8080));
        node.expect(leaves(Host::B), &Frame::tcp(b, prober, ACK), OwnNode);
        node.expect(leaves(Host::B), &Frame::tcp(b, prober, ACK), Established);
    }
}

#[test]
fn isolation_that_begins_and_ends_is_that_of_new_connections() {
    let mut node = Node::new(&World::new());
    let (x, b) = ((Host::Outside.at(Family::V4), 40_000), (Host::B.at(Family::V4), 80));
    let into = arrives(Host::B, UPLINK);
    node.expect(into, &Frame::tcp(x, b, SYN), NotIsolated);
    node.publish(&shut());
    node.expect(into, &Frame::tcp(x, b, ACK), Established);
    node.expect(into, &Frame::tcp((x.0, 40_001), b, SYN), Denied);
    node.publish(&World::new());
    node.expect(into, &Frame::tcp((x.0, 40_001), b, SYN), NotIsolated);
}

#[test]
fn a_closed_connections_ports_are_evaluated_again() {
    let mut node = Node::new(&open());
    let (a, b) = ((Host::A.at(Family::V4), 40_000), (Host::B.at(Family::V4), 80));
    connect(&mut node, Family::V4, 40_000);
    for (hook, frame) in [
        (leaves(Host::A), Frame::tcp(a, b, ACK | flag::FIN)),
        (leaves(Host::B), Frame::tcp(b, a, ACK | flag::FIN)),
        (leaves(Host::A), Frame::tcp(a, b, ACK)),
    ] {
        node.expect(hook, &frame, Established);
    }
    node.publish(&shut());
    node.expect(leaves(Host::A), &Frame::tcp(a, b, SYN), Denied);
    // What is closed on both sides is forgotten soon.
    node.idle(121);
    node.expect(leaves(Host::A), &Frame::tcp(a, b, ACK), Denied);
}

#[test]
fn a_silent_connection_is_forgotten_after_its_time() {
    let ask = || [allow(all_pods(), port(Udp, 53)), allow(all_pods(), port(Tcp, 80))];
    let mut node = Node::new(&World::new().ingress(Host::B, []).egress(Host::B, ask()));
    for family in Family::ALL {
        let (b, server) = ((Host::B.at(family), 40_000), (Host::Remote.at(family), 53));
        let (question, answer) = (Frame::udp(b, server, 9), Frame::udp(server, b, 9));
        node.expect(leaves(Host::B), &question, Allowed);
        node.idle(25);
        node.expect(arrives(Host::B, UPLINK), &answer, Established);
        // Answered: two minutes.
        node.idle(115);
        node.expect(arrives(Host::B, UPLINK), &answer, Established);
        node.idle(125);
        node.expect(arrives(Host::B, UPLINK), &answer, Denied);
        node.expect(leaves(Host::B), &question, Allowed);
        node.idle(35);
        node.expect(arrives(Host::B, UPLINK), &answer, Denied);
        let error = Frame::unreachable(server.0, &question);
        node.expect(arrives(Host::B, UPLINK), &error, Denied);
        // TCP that was answered lives for days.
        let web = (server.0, 80);
        node.expect(leaves(Host::B), &Frame::tcp(b, web, SYN), Allowed);
        node.expect(arrives(Host::B, UPLINK), &Frame::tcp(web, b, SYN_ACK), Established);
        node.idle(4 * 24 * 3_600);
        node.expect(arrives(Host::B, UPLINK), &Frame::tcp(web, b, ACK), Established);
        node.expect(arrives(Host::B, UPLINK), &Frame::unreachable(web.0, &Frame::tcp(b, web, ACK)), Related);
    }
}

#[test]
fn connections_end_with_the_ownership_of_their_address() {
    let mut node = Node::new(&open());
    for family in Family::ALL {
        connect(&mut node, family, 40_000);
    }
    node.publish(&open().with_address_moved(Host::A, Host::Z));
    assert_eq!(node.flow_count(), 0);
    for family in Family::ALL {
        let (a, b) = ((Host::A.at(family), 40_000), (Host::B.at(family), 80));
        node.expect(leaves(Host::A), &Frame::tcp(a, b, ACK), Spoofed);
        node.expect(leaves(Host::Z), &Frame::tcp(a, b, ACK), NotIsolated);
        // Z is no pod that B may hear, whatever its address was before.
        node.expect(arrives(Host::B, Host::Z.veth()), &Frame::tcp(a, b, ACK), Denied);
        node.expect(arrives(Host::B, Host::A.veth()), &Frame::tcp(a, b, ACK), Spoofed);
    }
}

#[test]
fn a_veth_that_is_held_lets_nothing_new_through() {
    // Z may be the pod of no one that we know.
    let held = World::new().with_state(Host::Z, EndpointState::Pending);
    let mut node = Node::new(&held);
    for family in Family::ALL {
        let (z, b) = (Host::Z.at(family), Host::B.at(family));
        for frame in [
            Frame::tcp((z, 9), (b, 80), SYN),
            Frame::tcp((z, 9), (b, 80), ACK),
            Frame::udp((z, 9), (Host::Node.at(family), 53), 0),
            Frame::echo_request(z, b, 7),
            Frame::unreachable(z, &Frame::tcp((b, 1), (z, 2), SYN)),
            Frame::udp((z, 9), (b, 53), 100).fragments(7, 4).remove(1),
        ] {
            node.expect(leaves(Host::Z), &frame, Pending);
        }
        for frame in [Frame::tcp((b, 9), (z, 80), SYN), Frame::udp((b, 9), (z, 53), 0)] {
            node.expect(arrives(Host::Z, Host::B.veth()), &frame, Pending);
            node.expect(
                arrives(Host::Z, UPLINK),
                &Frame { source: Host::Outside.at(family), ..frame },
                Pending,
            );
        }
    }
    node.expect_bytes(
        leaves(Host::Z),
        &Frame::tcp((Host::Z.at(Family::V4), 1), (Host::B.at(Family::V4), 2), SYN).in_vlan(),
        Pending,
    );
    node.expect_bytes(leaves(Host::Z), &arp(1, [10, 1, 0, 26].into(), [10, 1, 0, 1].into()), Neighbour);
    node.expect(
        leaves(Host::Z),
        &Frame::solicitation(ip("::"), ip("ff02::1:ff00:1"), ip("fd00:1::1")),
        Neighbour,
    );
    assert_eq!(node.flow_count(), 0);
    // The own node's probes reach it, and are answered.
    let (prober, z) = ((Host::Node.at(Family::V4), 9), (Host::Z.at(Family::V4), 8080));
    node.expect(arrives(Host::Z, NODE), &Frame::tcp(prober, z, SYN), OwnNode);
    node.expect(leaves(Host::Z), &Frame::tcp(z, prober, SYN_ACK), Established);
    // Known at last: free, as no policy selects it.
    node.publish(&World::new());
    node.expect(leaves(Host::Z), &Frame::tcp(z, (Host::B.at(Family::V4), 80), SYN), NotIsolated);
}

#[test]
fn a_veth_that_is_not_known_yet_is_held() {
    let mut world = World::new();
    world.veths.remove(&Host::Z.veth());
    let mut node = Node::new(&world);
    for family in Family::ALL {
        let (z, b) = ((Host::Z.at(family), 9), (Host::B.at(family), 80));
        node.expect(leaves(Host::Z), &Frame::tcp(z, b, SYN), Pending);
        node.expect(arrives(Host::Z, Host::B.veth()), &Frame::tcp(b, z, SYN), Pending);
    }
    // Removed again after it was known: held again.
    node.publish(&World::new());
    let (z, b) = ((Host::Z.at(Family::V4), 9), (Host::B.at(Family::V4), 80));
    node.expect(leaves(Host::Z), &Frame::tcp(z, b, SYN), NotIsolated);
    node.publish(&world);
    node.expect(leaves(Host::Z), &Frame::tcp(z, b, SYN), Pending);
    assert_eq!(node.flow_count(), 0, "its addresses are no one's now");
}

#[test]
fn a_veth_behind_which_no_isolated_pod_can_be_is_open() {
    let world = World::new()
        .ingress(Host::B, [allow(all_pods(), port(Tcp, 80))])
        .with_state(Host::Z, EndpointState::Unmanaged);
    let mut node = Node::new(&world);
    for family in Family::ALL {
        let (z, b) = (Host::Z.at(family), Host::B.at(family));
        // Whatever its address is, but for that of another pod.
        node.expect(leaves(Host::Z), &Frame::tcp((Host::A.at(family), 9), (b, 80), SYN), Spoofed);
        for from in [z, Host::Outside.at(family)] {
            node.expect(leaves(Host::Z), &Frame::tcp((from, 9), (b, 80), SYN), NotIsolated);
        }
        node.expect(
            arrives(Host::B, Host::Z.veth()),
            &Frame::tcp((Host::A.at(family), 9), (b, 80), SYN),
            Spoofed,
        );
        node.expect(arrives(Host::B, Host::Z.veth()), &Frame::tcp((z, 9), (b, 80), SYN), Allowed);
        node.expect(arrives(Host::B, Host::Z.veth()), &Frame::tcp((z, 9), (b, 81), SYN), Denied);
        node.expect(leaves(Host::B), &Frame::tcp((b, 80), (z, 9), SYN_ACK), Established);
        node.expect(arrives(Host::Z, Host::B.veth()), &Frame::tcp((b, 80), (z, 9), SYN_ACK), Established);
        node.expect(
            arrives(Host::Z, UPLINK),
            &Frame::udp((Host::Outside.at(family), 9), (z, 9), 0),
            NotIsolated,
        );
    }
}
