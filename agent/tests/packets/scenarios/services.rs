//! Services: the pod sends to an address that the node translates later; what counts is the backend.

use podgate_common::{
    NODE,
    Outcome::{
        Allowed, Deferred, Denied, DeniedBackend, Established, NotIsolated, OwnAddress, OwnNode, Spoofed,
    },
    Protocol::{Tcp, Udp},
    frames::{Frame, flag},
};

use crate::{
    node::Node,
    world::{
        Family, Host, NODE_PORT, UPLINK, World, allow, arrives, block, leaves, pods_like, port, service_at,
    },
};

const SYN: u8 = flag::SYN;
const SYN_ACK: u8 = flag::SYN | flag::ACK;
const ACK: u8 = flag::ACK;

/// A may send to B, port 8080, and to no one else.
fn a_may_send_to_b() -> World {
    World::new().egress(Host::A, [allow(pods_like(Host::B), port(Tcp, 8080))])
}

/// Where A sends to: the service's own address, and a port of the node's address.
fn frontends(family: Family) -> [(std::net::IpAddr, u16); 2] {
    [(service_at(family), 80), (Host::Node.at(family), NODE_PORT)]
}

#[test]
fn all_none_or_some_of_the_backends_are_allowed() {
    // (backends, what becomes of A's packet to the service)
    let table = [
        (&[(Host::B, 8080)][..], Allowed),
        (&[(Host::B, 8081)], Denied),
        (&[(Host::Z, 8080)], Denied),
        (&[(Host::Z, 8080), (Host::Remote, 8080), (Host::Outside, 8080)], Denied),
        (&[(Host::B, 8080), (Host::Z, 8080)], Deferred),
        (&[(Host::B, 8080), (Host::B, 8081)], Deferred),
        (&[(Host::B, 8080), (Host::Remote, 8080)], Deferred),
        (&[(Host::Node, 6443)], Allowed),
        (&[(Host::Node, 6443), (Host::B, 8080)], Allowed),
        (&[(Host::Node, 6443), (Host::Z, 8080)], Deferred),
        (&[(Host::OtherNode, 6443)], Denied),
    ];
    for (backends, expected) in table {
        let mut node = Node::new(&a_may_send_to_b().service(Tcp, backends));
        for family in Family::ALL {
            for (number, frontend) in (0..).zip(frontends(family)) {
                let a = (Host::A.at(family), 40_000 + number);
                node.expect(leaves(Host::A), &Frame::tcp(a, frontend, SYN), expected);
                // The same port by another protocol is no service.
                let other = if frontend.1 == NODE_PORT { OwnNode } else { Denied };
                node.expect(leaves(Host::A), &Frame::udp(a, frontend, 1), other);
            }
        }
    }
}

#[test]
fn the_address_of_the_service_itself_matches_no_block() {
    for family in Family::ALL {
        let (vip, b) = (service_at(family), Host::B.at(family));
        let bits = if family == Family::V4 { 32 } else { 128 };
        // (block, what becomes of a packet to the service with B behind it)
        for (of, expected) in [(vip, Denied), (b, Allowed)] {
            let rule = allow(block(&format!("{of}/{bits}"), &[]), port(Tcp, 8080));
            let rule_for_frontend = allow(block(&format!("{of}/{bits}"), &[]), port(Tcp, 80));
            let world =
                World::new().egress(Host::A, [rule, rule_for_frontend]).service(Tcp, &[(Host::B, 8080)]);
            let mut node = Node::new(&world);
            let a = (Host::A.at(family), 40_000);
            node.expect(leaves(Host::A), &Frame::tcp(a, (vip, 80), SYN), expected);
        }
    }
}

#[test]
fn a_backend_on_this_node_is_evaluated_where_it_receives() {
    let mut node = Node::new(&a_may_send_to_b().service(Tcp, &[(Host::B, 8080), (Host::Z, 8080)]));
    for family in Family::ALL {
        let (a, frontend) = ((Host::A.at(family), 40_000), (service_at(family), 80));
        let [b, z] = [Host::B, Host::Z].map(|host| (host.at(family), 8080));
        node.expect(leaves(Host::A), &Frame::tcp(a, frontend, SYN), Deferred);
        node.expect(arrives(Host::B, Host::A.veth()), &Frame::tcp(a, b, SYN), NotIsolated);
        node.expect(leaves(Host::B), &Frame::tcp(b, a, SYN_ACK), Established);
        node.expect(arrives(Host::A, Host::B.veth()), &Frame::tcp(frontend, a, SYN_ACK), Established);
        node.expect(leaves(Host::A), &Frame::tcp(a, frontend, ACK), Established);
        node.expect(arrives(Host::B, Host::A.veth()), &Frame::tcp(a, b, ACK), Established);

        let flows = node.flow_count();
        node.expect(arrives(Host::Z, Host::A.veth()), &Frame::tcp(a, z, SYN), DeniedBackend);
        node.expect(arrives(Host::Z, Host::A.veth()), &Frame::tcp(a, z, ACK), DeniedBackend);
        assert_eq!(node.flow_count(), flows, "what is denied leaves no trace");
    }
}

#[test]
fn the_sender_is_known_by_its_veth_when_the_node_has_rewritten_its_address() {
    let world = a_may_send_to_b()
        .ingress(Host::B, [allow(pods_like(Host::A), port(Tcp, 8080))])
        .service(Tcp, &[(Host::B, 8080), (Host::Z, 8080)]);
    let mut node = Node::new(&world);
    for family in Family::ALL {
        let rewritten = (Host::Node.at(family), 50_000);
        let [b, z] = [Host::B, Host::Z].map(|host| (host.at(family), 8080));
        node.expect(arrives(Host::B, Host::A.veth()), &Frame::tcp(rewritten, b, SYN), Allowed);
        node.expect(arrives(Host::Z, Host::A.veth()), &Frame::tcp(rewritten, z, SYN), DeniedBackend);
        // The same address from Z, from elsewhere, and from the node itself.
        let other = (Host::Node.at(family), 50_001);
        node.expect(arrives(Host::B, Host::Z.veth()), &Frame::tcp(other, b, SYN), Denied);
        node.expect(arrives(Host::B, UPLINK), &Frame::tcp(other, b, SYN), Denied);
        node.expect(arrives(Host::B, NODE), &Frame::tcp(other, b, SYN), OwnNode);
    }
}

/// A may send to port 8080 of B, and of pods on other nodes.
fn to_b_and_remote() -> World {
    World::new()
        .egress(Host::A, [allow(pods_like(Host::B), port(Tcp, 8080))])
        .egress(Host::A, [allow(block("10.2.0.0/16", &[]), port(Tcp, 8080))])
        .egress(Host::A, [allow(block("fd00:2::/32", &[]), port(Tcp, 8080))])
}

/// An entry under the node's address is for what the node sends on, not for the pod whose packets these were.
#[test]
fn a_pod_sends_nothing_in_the_name_that_the_node_has_given_it() {
    let world =
        to_b_and_remote().service(Tcp, &[(Host::Remote, 8080), (Host::B, 8080), (Host::Outside, 8080)]);
    let mut node = Node::new(&world);
    for family in Family::ALL {
        let rewritten = (Host::Node.at(family), 50_000);
        let [remote, b] = [Host::Remote, Host::B].map(|host| (host.at(family), 8080));
        node.expect_on_wire(Host::A.veth(), &Frame::tcp(rewritten, remote, SYN), Some(Allowed));
        node.expect(arrives(Host::B, Host::A.veth()), &Frame::tcp(rewritten, b, SYN), NotIsolated);
        node.expect(leaves(Host::B), &Frame::tcp(b, rewritten, SYN_ACK), Established);
        for to in [remote, b] {
            for flags in [SYN, ACK, flag::FIN | ACK, flag::RST] {
                node.expect(leaves(Host::A), &Frame::tcp(rewritten, to, flags), Spoofed);
            }
        }
        node.expect_on_wire(Host::A.veth(), &Frame::tcp(rewritten, remote, ACK), None);
        node.expect(arrives(Host::B, Host::A.veth()), &Frame::tcp(rewritten, b, ACK), Established);
    }
}

#[test]
fn a_backend_elsewhere_is_evaluated_where_packets_leave_the_node() {
    let world = to_b_and_remote().service(Tcp, &[(Host::Remote, 8080), (Host::Outside, 8080)]);
    let mut node = Node::new(&world);
    let ingress_ifindex = Host::A.veth();
    for family in Family::ALL {
        let frontend = (service_at(family), 80);
        for (number, source) in (0..).zip([Host::A, Host::Node]) {
            let a = (Host::A.at(family), 40_000 + number);
            let from = (source.at(family), a.1);
            let [remote, outside] = [Host::Remote, Host::Outside].map(|host| (host.at(family), 8080));
            node.expect(leaves(Host::A), &Frame::tcp(a, frontend, SYN), Deferred);
            node.expect_on_wire(ingress_ifindex, &Frame::tcp(from, remote, SYN), Some(Allowed));
            node.expect_on_wire(ingress_ifindex, &Frame::tcp(from, remote, ACK), None);
            node.expect_on_wire(ingress_ifindex, &Frame::tcp(from, outside, SYN), Some(DeniedBackend));
            // Under the node's address it might be a reply; who cannot open a connection has no use of it.
            let goes_on = if source == Host::A { DeniedBackend } else { Allowed };
            node.expect_on_wire(ingress_ifindex, &Frame::tcp(from, outside, ACK), Some(goes_on));
        }
        // What was evaluated at the veth, what a free pod sends, and what no pod sends.
        let [direct, remote] = [(Host::A.at(family), 41_000), (Host::Remote.at(family), 8080)];
        node.expect(leaves(Host::A), &Frame::tcp(direct, remote, SYN), Allowed);
        node.expect_on_wire(ingress_ifindex, &Frame::tcp(direct, remote, SYN), None);
        let outside = (Host::Outside.at(family), 8080);
        node.expect_on_wire(Host::B.veth(), &Frame::tcp((Host::B.at(family), 1), outside, SYN), None);
        node.expect_on_wire(NODE, &Frame::tcp((Host::Node.at(family), 1), outside, SYN), None);
        node.expect_on_wire(UPLINK, &Frame::tcp((Host::OtherNode.at(family), 1), outside, SYN), None);
    }
}

#[test]
fn replies_leave_the_node_without_another_evaluation() {
    let mut node = Node::new(&a_may_send_to_b());
    for family in Family::ALL {
        let (outside, a) = ((Host::Outside.at(family), 50_000), (Host::A.at(family), 80));
        node.expect(arrives(Host::A, UPLINK), &Frame::tcp(outside, a, SYN), NotIsolated);
        node.expect(leaves(Host::A), &Frame::tcp(a, outside, SYN_ACK), Established);
        node.expect_on_wire(Host::A.veth(), &Frame::tcp(a, outside, SYN_ACK), None);
    }
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    let world = World::new().egress(Host::A, []).ingress(Host::A, []);
    for backends in [&[(Host::A, 8080)][..], &[(Host::A, 8080), (Host::B, 8080)]] {
        let mut node = Node::new(&world.clone().service(Tcp, backends));
        for family in Family::ALL {
            let (a, frontend) = ((Host::A.at(family), 40_000), (service_at(family), 80));
            node.expect(leaves(Host::A), &Frame::tcp(a, frontend, SYN), Deferred);
            let (rewritten, itself) = ((Host::Node.at(family), 40_000), (Host::A.at(family), 8080));
            node.expect(arrives(Host::A, Host::A.veth()), &Frame::tcp(rewritten, itself, SYN), OwnAddress);
            node.expect(leaves(Host::A), &Frame::tcp(itself, rewritten, SYN_ACK), Established);
            node.expect(arrives(Host::A, Host::A.veth()), &Frame::tcp(frontend, a, SYN_ACK), Established);
            let b = (Host::B.at(family), 8080);
            node.expect(arrives(Host::B, Host::A.veth()), &Frame::tcp(a, b, SYN), DeniedBackend);
        }
    }
}

#[test]
fn a_change_keeps_live_connections_and_evaluates_new_ones() {
    let backends = [(Host::B, 8080), (Host::Z, 8080)];
    let mut node = Node::new(&a_may_send_to_b().service(Tcp, &backends));
    let family = Family::V4;
    let (a, frontend, b) =
        ((Host::A.at(family), 40_000), (service_at(family), 80), (Host::B.at(family), 8080));
    node.expect(leaves(Host::A), &Frame::tcp(a, frontend, SYN), Deferred);
    node.expect(arrives(Host::B, Host::A.veth()), &Frame::tcp(a, b, SYN), NotIsolated);
    let only_z = World::new().egress(Host::A, [allow(pods_like(Host::Z), port(Tcp, 8080))]);
    node.publish(&only_z.service(Tcp, &backends));
    node.expect(leaves(Host::A), &Frame::tcp(a, frontend, ACK), Established);
    node.expect(arrives(Host::B, Host::A.veth()), &Frame::tcp(a, b, ACK), Established);
    // The same ports, but a new connection.
    node.expect(leaves(Host::A), &Frame::tcp(a, frontend, SYN), Deferred);
    node.expect(arrives(Host::B, Host::A.veth()), &Frame::tcp(a, b, SYN), DeniedBackend);
}

#[test]
fn a_service_changes_its_backends_while_policies_stay() {
    let world = a_may_send_to_b();
    let mut node =
        Node::new(&world.clone().service(Udp, &[(Host::B, 8080)]).service(Tcp, &[(Host::B, 8080)]));
    let (a, frontend) = ((Host::A.at(Family::V4), 40_000), (service_at(Family::V4), 80));
    node.expect(leaves(Host::A), &Frame::udp(a, frontend, 1), Denied);
    node.expect(leaves(Host::A), &Frame::tcp(a, frontend, SYN), Allowed);
    node.publish(&world.clone().service(Tcp, &[(Host::Z, 8080)]));
    node.expect(leaves(Host::A), &Frame::tcp(a, frontend, SYN), Denied);
    node.publish(&world.clone().service(Tcp, &[(Host::Z, 8080), (Host::B, 8080)]));
    node.expect(leaves(Host::A), &Frame::tcp(a, frontend, SYN), Deferred);
    node.publish(&world);
    node.expect(leaves(Host::A), &Frame::tcp(a, frontend, SYN), Denied);
}

#[test]
fn the_ways_out_are_watched_while_a_service_may_lead_to_a_forbidden_backend_elsewhere() {
    // (protocol, backends, watched): A may send to B alone, by either protocol.
    let table = [
        (Tcp, &[(Host::B, 8080), (Host::Remote, 8080)][..], true),
        (Tcp, &[(Host::B, 8080), (Host::Z, 8080)], false),
        (Tcp, &[(Host::Remote, 8080)], false),
        (Tcp, &[(Host::B, 8080)], false),
        // The node may have led a datagram's entry elsewhere before, and lead it there now.
        (Udp, &[(Host::Remote, 8080)], true),
        (Udp, &[(Host::Z, 8080)], false),
        (Udp, &[(Host::B, 8080)], false),
    ];
    for (protocol, backends, watched) in table {
        let world = World::new().egress(Host::A, [allow(pods_like(Host::B), port(protocol, 8080))]);
        let tables = world.service(protocol, backends).compile(Vec::new());
        assert_eq!(tables.services.leave_node, watched, "{protocol} {backends:?}");
    }
}

#[test]
fn a_datagram_that_the_node_leads_to_another_backend_is_evaluated_as_a_connection_of_its_own() {
    let world = || World::new().egress(Host::A, [allow(pods_like(Host::B), port(Udp, 8080))]);
    let mut node = Node::new(&world().service(Udp, &[(Host::B, 8080)]));
    for family in Family::ALL {
        let (a, frontend) = ((Host::A.at(family), 40_000), (service_at(family), 80));
        let [b, z, remote] = [Host::B, Host::Z, Host::Remote].map(|host| (host.at(family), 8080));
        node.publish(&world().service(Udp, &[(Host::B, 8080)]));
        node.expect(leaves(Host::A), &Frame::udp(a, frontend, 1), Allowed);
        node.expect(arrives(Host::B, Host::A.veth()), &Frame::udp(a, b, 1), NotIsolated);
        node.publish(&world().service(Udp, &[(Host::Remote, 8080), (Host::Z, 8080)]));
        // `from_pod` keeps the live connection to the service; where it leads to now is another one.
        node.expect(leaves(Host::A), &Frame::udp(a, frontend, 1), Established);
        node.expect(arrives(Host::Z, Host::A.veth()), &Frame::udp(a, z, 1), DeniedBackend);
        for source in [Host::A, Host::Node] {
            let from = (source.at(family), a.1);
            node.expect_on_wire(Host::A.veth(), &Frame::udp(from, remote, 1), Some(DeniedBackend));
        }
    }
}
