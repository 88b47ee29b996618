//! Addresses that the node translates perhaps: external ones, which whoever may create a Service chooses,
//! those of another proxy's services, cluster addresses that the node has itself, and services without
//! endpoints.

use std::sync::Arc;

use podgate_common::{
    NODE,
    Outcome::{Allowed, Deferred, Denied, DeniedBackend, Established, NotIsolated, OwnNode},
    Protocol::{Tcp, Udp},
    frames::{Frame, flag},
};
use podgate_core::model::ObjectName;

use crate::{
    node::Node,
    world::{Family, Host, NODE_PORT, World, allow, arrives, block, leaves, pods_like, port, service_at},
};

const SYN: u8 = flag::SYN;
const ACK: u8 = flag::ACK;

/// A may send to B, port 8080, and to no one else.
pub(super) fn a_may_send_to_b() -> World {
    World::new().egress(Host::A, [allow(pods_like(Host::B), port(Tcp, 8080))])
}

/// The address alone.
pub(super) fn just(address: std::net::IpAddr) -> podgate_core::model::Peers {
    block(&format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 }), &[])
}

#[test]
fn an_external_address_is_certain_only_when_it_and_all_backends_are() {
    // (backends, what becomes of A's packet when the address itself is forbidden, and when it is allowed)
    let table = [
        (&[(Host::B, 8080)][..], Deferred, Allowed),
        (&[(Host::Z, 8080)], Denied, Deferred),
        (&[(Host::B, 8080), (Host::Z, 8080)], Deferred, Deferred),
        (&[], Denied, Allowed),
    ];
    for family in Family::ALL {
        let address = Host::Outside.at(family);
        for (backends, forbidden, allowed) in table {
            let open = a_may_send_to_b().egress(Host::A, [allow(just(address), port(Tcp, 80))]);
            for (world, expected) in [(a_may_send_to_b(), forbidden), (open, allowed)] {
                let mut node = Node::new(&world.external(address, backends));
                let a = (Host::A.at(family), 40_000);
                node.expect(leaves(Host::A), &Frame::tcp(a, (address, 80), SYN), expected);
                // Another port of it is no service: an address like any other.
                node.expect(leaves(Host::A), &Frame::tcp(a, (address, 81), SYN), Denied);
            }
        }
    }
}

#[test]
fn a_forbidden_address_stays_forbidden_until_the_node_translates_it() {
    for family in Family::ALL {
        let (address, ingress_ifindex) = ((Host::Outside.at(family), 80), Host::A.veth());
        let world = a_may_send_to_b().external(address.0, &[(Host::B, 8080)]);
        assert!(world.compile(Vec::new()).services.leave_node, "the ways out are watched");
        let mut node = Node::new(&world);
        let (a, b) = ((Host::A.at(family), 40_000), (Host::B.at(family), 8080));
        for flags in [SYN, ACK, ACK] {
            let expected = if flags == SYN { Deferred } else { Established };
            node.expect(leaves(Host::A), &Frame::tcp(a, address, flags), expected);
            node.expect_on_wire(ingress_ifindex, &Frame::tcp(a, address, flags), Some(DeniedBackend));
            // Behind the node's own address too.
            let masqueraded = (Host::Node.at(family), 50_000);
            if flags == SYN {
                node.expect_on_wire(
                    ingress_ifindex,
                    &Frame::tcp(masqueraded, address, flags),
                    Some(DeniedBackend),
                );
            }
        }
        node.expect(leaves(Host::A), &Frame::tcp(a, address, SYN), Deferred);
        node.expect(arrives(Host::B, ingress_ifindex), &Frame::tcp(a, b, SYN), NotIsolated);
    }
}

#[test]
fn an_allowed_address_goes_on_untranslated() {
    for family in Family::ALL {
        let (address, ingress_ifindex) = ((Host::Outside.at(family), 80), Host::A.veth());
        let world = a_may_send_to_b()
            .egress(Host::A, [allow(just(address.0), port(Tcp, 80))])
            .external(address.0, &[(Host::Z, 8080)]);
        let mut node = Node::new(&world);
        let a = (Host::A.at(family), 40_000);
        node.expect(leaves(Host::A), &Frame::tcp(a, address, SYN), Deferred);
        node.expect_on_wire(ingress_ifindex, &Frame::tcp(a, address, SYN), Some(Allowed));
        node.expect(arrives(Host::A, crate::world::UPLINK), &Frame::tcp(address, a, SYN | ACK), Established);
        node.expect(leaves(Host::A), &Frame::tcp(a, address, ACK), Established);
        node.expect_on_wire(ingress_ifindex, &Frame::tcp(a, address, ACK), None);
        // The same ports again: what was evaluated before does not count for a new connection.
        node.publish(&a_may_send_to_b().external(address.0, &[(Host::B, 8080)]));
        node.expect(leaves(Host::A), &Frame::tcp(a, address, ACK), Established);
        node.expect_on_wire(ingress_ifindex, &Frame::tcp(a, address, ACK), None);
        node.expect(leaves(Host::A), &Frame::tcp(a, address, SYN), Deferred);
        node.expect_on_wire(ingress_ifindex, &Frame::tcp(a, address, SYN), Some(DeniedBackend));
    }
}

#[test]
fn a_pod_whose_address_a_service_claims_is_as_forbidden_as_before() {
    for family in Family::ALL {
        let (z, ingress_ifindex) = ((Host::Z.at(family), 80), Host::A.veth());
        let mut node = Node::new(&a_may_send_to_b().external(z.0, &[(Host::B, 8080)]));
        let (a, b) = ((Host::A.at(family), 40_000), (Host::B.at(family), 8080));
        node.expect(leaves(Host::A), &Frame::tcp(a, z, SYN), Deferred);
        for flags in [SYN, ACK] {
            node.expect(arrives(Host::Z, ingress_ifindex), &Frame::tcp(a, z, flags), DeniedBackend);
        }
        node.expect(arrives(Host::B, ingress_ifindex), &Frame::tcp(a, b, SYN), NotIsolated);
    }
}

#[test]
fn a_service_of_another_proxy_opens_nothing_that_it_does_not_translate() {
    let world = a_may_send_to_b().service(Tcp, &[(Host::B, 8080)]).of_another_proxy();
    for family in Family::ALL {
        let mut node = Node::new(&world);
        let (a, frontend, ingress_ifindex) =
            ((Host::A.at(family), 40_000), (service_at(family), 80), Host::A.veth());
        node.expect(leaves(Host::A), &Frame::tcp(a, frontend, SYN), Deferred);
        node.expect_on_wire(ingress_ifindex, &Frame::tcp(a, frontend, SYN), Some(DeniedBackend));
        node.expect(
            arrives(Host::B, ingress_ifindex),
            &Frame::tcp(a, (Host::B.at(family), 8080), SYN),
            NotIsolated,
        );
        // Its node port may be no more than a port of the node's; what is led elsewhere from there is
        // evaluated there.
        assert!(world.compile(Vec::new()).services.leave_node);
        node.expect(leaves(Host::A), &Frame::tcp(a, (Host::Node.at(family), NODE_PORT), SYN), OwnNode);
    }
}

#[test]
fn who_claims_the_address_of_another_service_neither_closes_it_nor_opens_anything() {
    for family in Family::ALL {
        let (a, frontend, ingress_ifindex) =
            ((Host::A.at(family), 40_000), (service_at(family), 80), Host::A.veth());
        let [b, z] = [Host::B, Host::Z].map(|host| (host.at(family), 8080));
        // (behind the service itself, behind the one that claims its address, what becomes of A's packet)
        let table = [
            (&[(Host::B, 8080)][..], &[(Host::Z, 8080)][..], Deferred),
            (&[(Host::B, 8080)], &[], Deferred),
            (&[(Host::B, 8080)], &[(Host::Node, 10_250)], Deferred),
            (&[(Host::Z, 8080)], &[(Host::B, 8080)], Deferred),
            (&[(Host::Z, 8080)], &[(Host::Node, 10_250)], Denied),
        ];
        for (own, claimed, expected) in table {
            for claims_first in [false, true] {
                let world = a_may_send_to_b();
                let world = match claims_first {
                    true => world.external(frontend.0, claimed).service(Tcp, own),
                    false => world.service(Tcp, own).external(frontend.0, claimed),
                };
                let mut node = Node::new(&world);
                node.expect(leaves(Host::A), &Frame::tcp(a, frontend, SYN), expected);
                node.expect(arrives(Host::B, ingress_ifindex), &Frame::tcp(a, b, SYN), NotIsolated);
                node.expect(arrives(Host::Z, ingress_ifindex), &Frame::tcp(a, z, SYN), DeniedBackend);
            }
        }
    }
}

#[test]
fn a_port_of_the_node_stays_what_it_is_when_a_service_claims_it() {
    for family in Family::ALL {
        let ssh = (Host::Node.at(family), 80);
        let mut node = Node::new(&a_may_send_to_b().external(ssh.0, &[(Host::Z, 8080)]));
        let (a, z) = ((Host::A.at(family), 40_000), (Host::Z.at(family), 8080));
        node.expect(leaves(Host::A), &Frame::tcp(a, ssh, SYN), Deferred);
        node.expect(arrives(Host::A, NODE), &Frame::tcp(ssh, a, SYN | ACK), Established);
        node.expect(arrives(Host::Z, Host::A.veth()), &Frame::tcp(a, z, SYN), DeniedBackend);
    }
}

#[test]
fn a_node_port_leads_to_its_backends_also_when_a_service_claims_the_very_address() {
    for family in Family::ALL {
        let at = (Host::Node.at(family), NODE_PORT);
        let port_alone = a_may_send_to_b().service(Tcp, &[(Host::Remote, 8080)]);
        let both = port_alone.clone().external(at.0, &[]).at_the_node_port();
        let foreign = both.clone().of_another_proxy();
        let mut claim_alone = both.clone();
        claim_alone.cluster.services.remove(&ObjectName::new("x", "s0"));

        let mut node = Node::new(&port_alone);
        let steps = [(&both, Deferred), (&claim_alone, Allowed), (&foreign, Deferred), (&port_alone, Denied)];
        for (number, (world, expected)) in (40_000..).zip(steps) {
            node.publish(world);
            let a = (Host::A.at(family), number);
            node.expect(leaves(Host::A), &Frame::tcp(a, at, SYN), expected);
            let is_watched = expected == Deferred;
            assert_eq!(world.compile(Vec::new()).services.leave_node, is_watched, "{expected}");
            if is_watched {
                let translated = Frame::tcp(a, (Host::Remote.at(family), 8080), SYN);
                node.expect_on_wire(Host::A.veth(), &translated, Some(DeniedBackend));
            }
        }
    }
}

#[test]
fn a_cluster_address_that_the_node_has_itself_is_the_own_node() {
    for family in Family::ALL {
        let dns = service_at(family);
        // The usual recipe, and none.
        let recipe = World::new().egress(Host::A, [allow(just(dns), port(Udp, 53))]);
        for (world, backends) in [
            (World::new().egress(Host::A, []), &[(Host::Remote, 53)][..]),
            (World::new().egress(Host::A, []), &[]),
            (recipe.clone(), &[(Host::Remote, 53), (Host::Z, 53)]),
            (recipe, &[]),
        ] {
            for protocol in [Tcp, Udp] {
                let mut world = world.clone().service(protocol, backends);
                world.node.insert(dns);
                let mut node = Node::new(&world);
                let a = (Host::A.at(family), 40_000);
                let packet = |from, to, flags| match protocol {
                    Udp => Frame::udp(from, to, 30),
                    _ => Frame::tcp(from, to, flags),
                };
                let expected = if backends.is_empty() { Allowed } else { Deferred };
                node.expect(leaves(Host::A), &packet(a, (dns, 80), SYN), expected);
                node.expect(arrives(Host::A, NODE), &packet((dns, 80), a, SYN | ACK), Established);
                node.expect(leaves(Host::A), &packet(a, (dns, 81), SYN), OwnNode);
                // Where it is translated after all, the backends count.
                let (z, ingress_ifindex) = ((Host::Z.at(family), 53), Host::A.veth());
                node.expect(arrives(Host::Z, ingress_ifindex), &packet(a, z, SYN), DeniedBackend);
            }
        }
    }
}

#[test]
fn a_service_without_endpoints_is_refused_by_the_node_and_the_refusal_arrives() {
    for family in Family::ALL {
        let frontend = (service_at(family), 80);
        let a = (Host::A.at(family), 40_000);
        for (protocol, opening) in [(Tcp, Frame::tcp(a, frontend, SYN)), (Udp, Frame::udp(a, frontend, 30))] {
            let closed = World::new().egress(Host::A, []).service(protocol, &[]);
            let mut node = Node::new(&closed);
            node.expect(leaves(Host::A), &opening, Denied);
            node.expect(leaves(Host::A), &Frame::tcp(a, (Host::Node.at(family), NODE_PORT), SYN), OwnNode);

            // Its own address is allowed: nothing else can be meant.
            let open = World::new().egress(Host::A, [allow(just(frontend.0), port(protocol, 80))]);
            let mut node = Node::new(&open.service(protocol, &[]));
            node.expect(leaves(Host::A), &opening, Allowed);
            let refusals = [
                Frame::tcp(frontend, a, flag::RST | ACK),
                Frame::unreachable(Host::Node.at(family), &opening),
            ];
            for refusal in refusals.iter().skip(usize::from(protocol == Udp)) {
                let outcome = node.evaluate(arrives(Host::A, NODE), &refusal.bytes());
                assert!(outcome.passes(), "{refusal:?}: {outcome}");
            }
        }
    }
}

#[test]
fn a_service_whose_endpoints_are_not_ready_is_that_of_its_endpoints() {
    for family in Family::ALL {
        // (endpoint, what becomes of A's packet)
        for (backend, expected) in [(Host::B, Deferred), (Host::Z, Denied)] {
            let mut world = a_may_send_to_b().service(Tcp, &[(backend, 8080)]);
            let names: Vec<_> = world.cluster.slices.keys().cloned().collect();
            for name in names {
                Arc::make_mut(&mut world.cluster.slices[&name]).endpoints[0].ready = false;
            }
            let mut node = Node::new(&world);
            let a = (Host::A.at(family), 40_000);
            node.expect(leaves(Host::A), &Frame::tcp(a, (service_at(family), 80), SYN), expected);
        }
    }
}
