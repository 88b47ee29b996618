//! Services with more addresses and ports than fit: their addresses stand in a filter, for all ports, and
//! what is sent there is evaluated where it ends.

use std::net::IpAddr;

use podgate_common::{
    Direction::Egress,
    NODE,
    Outcome::{self, Allowed, Deferred, Denied, DeniedBackend, Established, NotIsolated, OwnNode},
    Protocol::{Tcp, Udp},
    frames::{Frame, flag},
};
use podgate_core::model::{Action, Ports, Tier};

use super::{
    cluster_policies::{own_node, rule, with},
    external::{a_may_send_to_b, just},
};
use crate::{
    node::Node,
    world::{Family, Host, NODE_PORT, UPLINK, World, allow, arrives, leaves, port, service_at},
};

const SYN: u8 = flag::SYN;
const ACK: u8 = flag::ACK;

/// Its port is 80, as far as it is distinguished.
fn claims(world: World, address: IpAddr, backends: &[(Host, u16)]) -> World {
    world.external(address, backends).over_limit()
}

fn has_filter(world: &World) -> bool {
    !world.compile(Vec::new()).services.filter.is_empty()
}

#[test]
fn a_forbidden_backend_is_not_reached_and_an_allowed_one_is() {
    let ingress_ifindex = Host::A.veth();
    for family in Family::ALL {
        let external = Host::Outside.at(family);
        for backends in
            [&[(Host::B, 8080), (Host::Z, 8080), (Host::Remote, 8080)][..], &[(Host::Z, 8080)], &[]]
        {
            let world = claims(a_may_send_to_b(), external, backends);
            assert!(world.compile(Vec::new()).services.leave_node, "the ways out are watched");
            let mut node = Node::new(&world);
            let a = (Host::A.at(family), 40_000);
            let [b, z, remote] = [Host::B, Host::Z, Host::Remote].map(|host| (host.at(family), 8080));
            for number in [80, 81] {
                node.forget();
                node.expect(leaves(Host::A), &Frame::tcp(a, (external, number), SYN), Deferred);
                node.expect(arrives(Host::Z, ingress_ifindex), &Frame::tcp(a, z, SYN), DeniedBackend);
                node.expect_on_wire(ingress_ifindex, &Frame::tcp(a, remote, SYN), Some(DeniedBackend));
                node.expect(arrives(Host::B, ingress_ifindex), &Frame::tcp(a, b, SYN), NotIsolated);
                node.expect(leaves(Host::A), &Frame::udp(a, (external, number), 30), Deferred);
                node.expect(arrives(Host::B, ingress_ifindex), &Frame::udp(a, b, 30), DeniedBackend);
            }
            // What has no ports is not translated.
            node.expect(leaves(Host::A), &Frame::echo_request(a.0, external, 1), Denied);
        }
    }
}

#[test]
fn what_is_not_translated_is_evaluated_by_its_own_address() {
    let ingress_ifindex = Host::A.veth();
    for family in Family::ALL {
        let external = (Host::Outside.at(family), 80);
        let open = a_may_send_to_b().egress(Host::A, [allow(just(external.0), port(Tcp, 80))]);
        for (world, expected) in [(a_may_send_to_b(), DeniedBackend), (open, Allowed)] {
            let mut node = Node::new(&claims(world, external.0, &[(Host::B, 8080)]));
            let a = (Host::A.at(family), 40_000);
            node.expect(leaves(Host::A), &Frame::tcp(a, external, SYN), Deferred);
            node.expect_on_wire(ingress_ifindex, &Frame::tcp(a, external, SYN), Some(expected));
            let other_port = (external.0, 81);
            node.expect(leaves(Host::A), &Frame::tcp(a, other_port, SYN), Deferred);
            node.expect_on_wire(ingress_ifindex, &Frame::tcp(a, other_port, SYN), Some(DeniedBackend));
            if expected == Allowed {
                let reply = Frame::tcp(external, a, SYN | ACK);
                node.expect(arrives(Host::A, UPLINK), &reply, Established);
                node.expect(leaves(Host::A), &Frame::tcp(a, external, ACK), Established);
                node.expect_on_wire(ingress_ifindex, &Frame::tcp(a, external, ACK), None);
            }
        }
        // A pod whose address is claimed.
        let (z, b) = ((Host::Z.at(family), 80), (Host::B.at(family), 8080));
        let mut node = Node::new(&claims(a_may_send_to_b(), z.0, &[(Host::B, 8080)]));
        let a = (Host::A.at(family), 40_000);
        node.expect(leaves(Host::A), &Frame::tcp(a, z, SYN), Deferred);
        node.expect(arrives(Host::Z, ingress_ifindex), &Frame::tcp(a, z, SYN), DeniedBackend);
        node.expect(arrives(Host::B, ingress_ifindex), &Frame::tcp(a, b, SYN), NotIsolated);
    }
}

#[test]
fn another_services_verdicts_are_as_before() {
    for family in Family::ALL {
        let (own, external, claimed) =
            (service_at(family), Host::OtherNode.at(family), Host::Outside.at(family));
        let world = a_may_send_to_b()
            .egress(Host::A, [allow(just(external), port(Tcp, 80))])
            .service(Tcp, &[(Host::B, 8080)])
            .external(external, &[(Host::B, 8080)]);
        let beside = claims(world.clone(), claimed, &[(Host::Z, 8080)]);
        assert!(has_filter(&beside) && !has_filter(&world));
        let a = Host::A.at(family);
        let at = |address, number| Frame::tcp((a, 40_000), (address, number), SYN);
        let table: [(Frame, Outcome); 6] = [
            (at(own, 80), Allowed),
            (at(own, 81), Denied),
            (at(external, 80), Allowed),
            (at(external, 81), Denied),
            (at(Host::Z.at(family), 8080), Denied),
            (at(Host::Node.at(family), NODE_PORT), Allowed),
        ];
        let mut node = Node::new(&world);
        for world in [&world, &beside, &world] {
            node.publish(world);
            for (frame, expected) in &table {
                node.expect(leaves(Host::A), frame, *expected);
            }
        }
    }
}

#[test]
fn at_an_address_that_others_claim_too_all_backends_count() {
    for family in Family::ALL {
        let (a, own, external) = ((Host::A.at(family), 40_000), service_at(family), Host::Outside.at(family));
        let [b, z] = [Host::B, Host::Z].map(|host| (host.at(family), 8080));
        let world = a_may_send_to_b()
            .egress(Host::A, [allow(just(external), port(Tcp, 80))])
            .service(Tcp, &[(Host::B, 8080)])
            .external(external, &[(Host::B, 8080)]);
        for claimed in [own, external] {
            let mut node = Node::new(&world);
            let (to, ingress_ifindex) = ((claimed, 80), Host::A.veth());
            let beside = claims(world.clone(), claimed, &[(Host::Z, 8080)]);
            for (world, expected) in [(&world, Allowed), (&beside, Deferred), (&world, Allowed)] {
                node.publish(world);
                node.expect(leaves(Host::A), &Frame::tcp(a, to, SYN), expected);
                if expected == Deferred {
                    node.expect(arrives(Host::Z, ingress_ifindex), &Frame::tcp(a, z, SYN), DeniedBackend);
                }
                node.expect(arrives(Host::B, ingress_ifindex), &Frame::tcp(a, b, SYN), NotIsolated);
            }
        }
    }
}

#[test]
fn the_cluster_address_of_such_a_service_is_evaluated_where_a_packet_ends_too() {
    let ingress_ifindex = Host::A.veth();
    for family in Family::ALL {
        let (a, own) = ((Host::A.at(family), 40_000), service_at(family));
        let [b, z] = [Host::B, Host::Z].map(|host| (host.at(family), 8080));
        for backends in [&[(Host::B, 8080)][..], &[(Host::Z, 8080)], &[]] {
            let mut node = Node::new(&a_may_send_to_b().service(Tcp, backends).over_limit());
            node.expect(leaves(Host::A), &Frame::tcp(a, (own, 80), SYN), Deferred);
            node.expect(arrives(Host::Z, ingress_ifindex), &Frame::tcp(a, z, SYN), DeniedBackend);
            node.expect(arrives(Host::B, ingress_ifindex), &Frame::tcp(a, b, SYN), NotIsolated);
            // Node ports are listed as ever.
            let expected = match backends {
                [(Host::B, _)] => Allowed,
                [] => OwnNode,
                _ => Denied,
            };
            let to_node = (Host::Node.at(family), NODE_PORT);
            node.expect(leaves(Host::A), &Frame::tcp(a, to_node, SYN), expected);
        }
    }
}

#[test]
fn at_a_claimed_address_of_the_node_its_own_row_comes_first() {
    let deny = rule(Action::Deny, own_node(), Ports::Any);
    let ingress_ifindex = Host::A.veth();
    for family in Family::ALL {
        let (a, own) = ((Host::A.at(family), 40_000), Host::Node.at(family));
        let z = (Host::Z.at(family), 8080);
        // The node port leads to an allowed backend, the claim anywhere.
        let world = a_may_send_to_b().service(Tcp, &[(Host::B, 8080)]);
        let claimed = claims(world, own, &[(Host::Z, 8080)]);
        for number in [80, 81, NODE_PORT] {
            let mut node = Node::new(&claimed);
            node.expect(leaves(Host::A), &Frame::tcp(a, (own, number), SYN), Deferred);
            node.expect(arrives(Host::Z, ingress_ifindex), &Frame::tcp(a, z, SYN), DeniedBackend);
            // Or it is not translated.
            node.expect(arrives(Host::A, NODE), &Frame::tcp((own, number), a, SYN | ACK), Established);
        }
        let mut node = Node::new(&with(claimed, Tier::Admin, Host::A, Egress, deny.clone()));
        for number in [80, 81] {
            node.expect(leaves(Host::A), &Frame::tcp(a, (own, number), SYN), Denied);
        }
    }
}

/// The node port leads to the node itself, which is denied: that another service claims the node's address
/// does not open it.
#[test]
fn a_claim_at_the_nodes_address_opens_no_node_port() {
    let deny = rule(Action::Deny, own_node(), Ports::Any);
    for family in Family::ALL {
        let (a, own) = ((Host::A.at(family), 40_000), Host::Node.at(family));
        let world = a_may_send_to_b().service(Tcp, &[(Host::Node, 10_250)]);
        let world = with(world, Tier::Admin, Host::A, Egress, deny.clone());
        for world in [world.clone(), claims(world, own, &[(Host::B, 8080)])] {
            let mut node = Node::new(&world);
            node.expect(leaves(Host::A), &Frame::tcp(a, (own, NODE_PORT), SYN), Denied);
        }
    }
}

#[test]
fn a_node_that_a_cluster_policy_denies_is_no_backend_either() {
    let deny = rule(Action::Deny, own_node(), Ports::Any);
    let world = with(a_may_send_to_b(), Tier::Admin, Host::A, Egress, deny);
    for family in Family::ALL {
        let (a, external) = ((Host::A.at(family), 40_000), Host::Outside.at(family));
        for (backends, expected) in
            [(&[(Host::B, 8080), (Host::Node, 10_250)][..], Denied), (&[(Host::B, 8080)], Deferred)]
        {
            let mut node = Node::new(&claims(world.clone(), external, backends));
            node.expect(leaves(Host::A), &Frame::tcp(a, (external, 80), SYN), expected);
            node.expect(leaves(Host::A), &Frame::udp(a, (external, 80), 30), expected);
        }
    }
}

#[test]
fn a_service_that_exceeds_the_limit_and_fits_again_is_evaluated_by_each_state() {
    for family in Family::ALL {
        let (a, external) = ((Host::A.at(family), 40_000), Host::Outside.at(family));
        let fits = a_may_send_to_b().external(external, &[(Host::Z, 8080)]);
        let world = fits.clone().over_limit();
        let mut node = Node::new(&fits);
        for (world, expected) in [(&fits, Denied), (&world, Deferred), (&fits, Denied), (&world, Deferred)] {
            node.publish(world);
            node.forget();
            for protocol in [Tcp, Udp] {
                let frame = match protocol {
                    Udp => Frame::udp(a, (external, 80), 30),
                    _ => Frame::tcp(a, (external, 80), SYN),
                };
                node.expect(leaves(Host::A), &frame, expected);
            }
        }
        node.publish(&a_may_send_to_b());
        node.forget();
        node.expect(leaves(Host::A), &Frame::udp(a, (external, 80), 30), Denied);
    }
}
