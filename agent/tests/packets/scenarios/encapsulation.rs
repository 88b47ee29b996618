//! Packets in packets: a pod hands none to a node, which would take them out in anyone's name.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use podgate_common::{
    EndpointState, FilterBit, NODE,
    Outcome::{Allowed, Denied, Encapsulated, Established, NotIsolated, Spoofed, Unparsed, Unreadable},
    Protocol, filter_bits,
    frames::{Extension, Frame},
};
use podgate_core::model::{ObjectName, Peers, Ports};

use crate::{
    node::Node,
    world::{
        Family, Host, NODE_PORT, TUNNEL_PORTS, UPLINK, World, allow, arrives, block, ip, leaves, service_at,
    },
};

/// IP in IP, 6in4, GRE, L2TP, MPLS in IP.
const PROTOCOLS: [u32; 5] = [4, 41, 47, 115, 137];

#[test]
fn a_pod_sends_no_tunnelled_packet_to_a_node() {
    let mut node = Node::new(&World::new());
    for family in Family::ALL {
        let a = Host::A.at(family);
        let many =
            if family == Family::V4 { ["224.0.0.1", "255.255.255.255"] } else { ["ff02::1", "ff05::9"] };
        let nodes = [Host::Node.at(family), Host::OtherNode.at(family)];
        for to in nodes.into_iter().chain(many.map(ip)) {
            for protocol in PROTOCOLS {
                node.expect(leaves(Host::A), &Frame::ip(a, to, protocol, vec![0; 40]), Encapsulated);
            }
            for port in TUNNEL_PORTS {
                let vxlan = Frame::udp((a, 40_000), (to, port), 60);
                node.expect(leaves(Host::A), &vxlan, Encapsulated);
                node.expect(leaves(Host::A), &vxlan.fragments(7, 4)[0], Encapsulated);
                // What is no address of the pod's has its own reason.
                node.expect(leaves(Host::B), &vxlan, Spoofed);
            }
            node.expect(leaves(Host::A), &Frame::udp((a, 4_789), (to, 4_790), 60), NotIsolated);
            node.expect(leaves(Host::A), &Frame::tcp((a, 9), (to, 4_789), 2), NotIsolated);
        }
        // Pods and hosts outside may be sent what they like, and answer as they like.
        for to in [Host::B, Host::Remote, Host::Outside].map(|host| host.at(family)) {
            node.expect(leaves(Host::A), &Frame::ip(a, to, 47, vec![0; 40]), NotIsolated);
            node.expect(leaves(Host::A), &Frame::udp((a, 40_000), (to, 4_789), 60), NotIsolated);
        }
        // What a node sends gives no way back.
        let gre = Frame::ip(Host::OtherNode.at(family), a, 47, vec![0; 40]);
        node.expect(arrives(Host::A, UPLINK), &gre, NotIsolated);
        node.expect(leaves(Host::A), &gre.reversed(), Encapsulated);
        let from_node = Frame::udp((Host::OtherNode.at(family), 40_000), (a, 4_789), 60);
        node.expect(arrives(Host::A, UPLINK), &from_node, NotIsolated);
    }
}

/// The node translates a service's address where no program sees the packet any more: what leads to a tunnel
/// is known at the pod's veth, also of a free pod.
#[test]
fn a_service_leads_a_pod_to_no_tunnel_of_a_node() {
    let port = TUNNEL_PORTS[0];
    let to_other_node = ["172.16.0.2/32", "fd00:f::2/128"].map(|node| allow(block(node, &[]), Ports::Any));
    let tunnels = [Host::Node, Host::OtherNode];
    // With room of their own, and in the filter.
    for (tunnel_at, room) in tunnels.into_iter().flat_map(|at| [(at, usize::MAX), (at, 0)]) {
        let mut world = World::new()
            .egress(Host::A, to_other_node.clone())
            .service(Protocol::Udp, &[(tunnel_at, port), (Host::Outside, 80)]);
        world.room_for_tunnels = room;
        let mut node = Node::new(&world);
        for family in Family::ALL {
            let to_service = (service_at(family), 80);
            for pod in [Host::A, Host::B] {
                let from = (pod.at(family), 40_000);
                for to in
                    [to_service, (Host::Node.at(family), NODE_PORT), (Host::OtherNode.at(family), NODE_PORT)]
                {
                    node.expect(leaves(pod), &Frame::udp(from, to, 60), Encapsulated);
                }
            }
            let b = (Host::B.at(family), 40_000);
            node.expect(leaves(Host::B), &Frame::udp(b, (to_service.0, 81), 60), NotIsolated);
            node.expect(leaves(Host::B), &Frame::tcp(b, to_service, 2), NotIsolated);
            // Translated all the same, by whomever: an isolated pod's packet is known where it leaves.
            for from in [(Host::A.at(family), 40_000), (Host::Node.at(family), 50_000)] {
                let translated = Frame::udp(from, (Host::OtherNode.at(family), port), 60);
                node.expect_on_wire(Host::A.veth(), &translated, Some(Encapsulated));
            }
        }
    }
}

#[test]
fn a_connection_does_not_follow_its_service_to_a_tunnel() {
    for room_for_tunnels in [usize::MAX, 0] {
        let service = |backend| {
            let world = World::new().service(Protocol::Udp, &[backend]);
            World { room_for_tunnels, ..world }
        };
        let mut node = Node::new(&service((Host::Outside, 80)));
        let connections = Family::ALL.map(|family| {
            let from = (Host::B.at(family), 40_000);
            [(service_at(family), 80), (Host::Node.at(family), NODE_PORT), (Host::Outside.at(family), 80)]
                .map(|to| Frame::udp(from, to, 60))
        });
        for frame in connections.as_flattened() {
            node.expect(leaves(Host::B), frame, NotIsolated);
            node.expect(leaves(Host::B), frame, Established);
        }
        node.publish(&service((Host::Node, TUNNEL_PORTS[0])));
        for [to_service, to_node_port, to_outside] in &connections {
            node.expect(leaves(Host::B), to_service, Encapsulated);
            node.expect(leaves(Host::B), to_node_port, Encapsulated);
            node.expect(leaves(Host::B), to_outside, Established);
        }
    }
}

/// One port of a service leads to a tunnel, then another one does, too.
#[test]
fn a_connection_does_not_follow_another_port_of_such_a_service_to_a_tunnel() {
    for room_for_tunnels in [usize::MAX, 0] {
        let service = |host: Host, number| {
            let tunnel = (Host::Node, TUNNEL_PORTS[0]);
            let world = World::new().service(Protocol::Udp, &[tunnel]).second_port(81, (host, number));
            World { room_for_tunnels, ..world }
        };
        let mut node = Node::new(&service(Host::Outside, 80));
        let frames =
            Family::ALL.map(|family| Frame::udp((Host::B.at(family), 40_000), (service_at(family), 81), 60));
        for frame in &frames {
            node.expect(leaves(Host::B), frame, NotIsolated);
            node.expect(leaves(Host::B), frame, Established);
        }
        node.publish(&service(Host::Node, TUNNEL_PORTS[0]));
        for frame in &frames {
            node.expect(leaves(Host::B), frame, Encapsulated);
        }
    }
}

/// Addresses of the tenant's own choice, whose bits in a filter cover those of this one.
fn covering(address: IpAddr) -> Vec<IpAddr> {
    let chosen = |number: u32| IpAddr::from(Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(number)));
    let mut wanted: Vec<FilterBit> = filter_bits(&address.into()).collect();
    let mut found = Vec::new();
    for candidate in (0..).map(chosen) {
        for bit in filter_bits(&candidate.into()) {
            if let Some(at) = wanted.iter().position(|wanted| *wanted == bit) {
                wanted.remove(at);
                found.push(candidate);
            }
        }
        if wanted.is_empty() {
            break;
        }
    }
    found
}

/// Nothing closes the own address and port of another service: neither that the tenant lists it, nor that it
/// looks so in a filter.
#[test]
fn a_tenant_closes_no_service_of_another_by_a_filter() {
    for family in Family::ALL {
        let mut claimed = covering(service_at(family));
        claimed.push(service_at(family));
        let dns = World::new().egress(Host::A, []).service(Protocol::Udp, &[(Host::Outside, 80)]);
        // Ports 1 to 100 of other services lead to tunnels.
        let tunnels = dns.clone().with_tunnels("10.97.1", 1, 100, 1);
        let set = |world: &mut World, name: &str| {
            let service = Arc::make_mut(&mut world.cluster.services[&ObjectName::new("x", name)]);
            service.external_addresses.clone_from(&claimed);
        };
        let mut over_limit = tunnels.clone().external(service_at(family), &[(Host::B, 80)]).over_limit();
        set(&mut over_limit, "s2");
        let mut in_filter = tunnels;
        set(&mut in_filter, "tunnels1");
        in_filter.room_for_tunnels = 10;
        let exceptions = in_filter.wanted(&in_filter.compile(Vec::new())).tunnel_services;
        assert_eq!(exceptions.len(), 1);
        let to = |port| Frame::udp((Host::B.at(family), 40_000), (service_at(family), port), 60);
        let mut node = Node::new(&dns);
        for (world, other_port) in [(&over_limit, NotIsolated), (&in_filter, Encapsulated)] {
            node.publish(world);
            node.forget();
            node.expect(leaves(Host::B), &to(80), NotIsolated);
            // To which the tenant's service leads.
            node.expect(leaves(Host::B), &to(81), other_port);
            node.publish(&dns);
        }
    }
}

/// A host outside becomes a node of the cluster.
#[test]
fn a_connection_does_not_go_on_to_what_becomes_a_node() {
    let mut node = Node::new(&World::new());
    let frames = Family::ALL.map(|family| {
        let (b, outside) = (Host::B.at(family), Host::Outside.at(family));
        [Frame::udp((b, 40_000), (outside, TUNNEL_PORTS[0]), 60), Frame::ip(b, outside, 47, vec![0; 40])]
    });
    for frame in frames.as_flattened() {
        node.expect(leaves(Host::B), frame, NotIsolated);
        node.expect(leaves(Host::B), frame, Established);
    }
    node.publish(&World::new().with_node(Host::Outside));
    for frame in frames.as_flattened() {
        node.expect(leaves(Host::B), frame, Encapsulated);
    }
}

/// Delivered to another pod's veth, whose pod is not known, it opens nothing at its own.
#[test]
fn a_tunnelled_packet_that_goes_astray_opens_no_way_to_its_node() {
    let mut node = Node::new(&World::new().with_state(Host::Z, EndpointState::Unmanaged));
    for family in Family::ALL {
        let (a, to) = (Host::A.at(family), Host::OtherNode.at(family));
        let vxlan = Frame::udp((a, 40_000), (to, TUNNEL_PORTS[0]), 60);
        let others = PROTOCOLS.map(|protocol| Frame::ip(a, to, protocol, vec![0; 40]));
        for frame in others.iter().chain([&vxlan]) {
            node.expect(arrives(Host::Z, Host::A.veth()), frame, NotIsolated);
            node.expect(leaves(Host::A), frame, Encapsulated);
        }
    }
}

/// Whoever may write a Service claims the address of a pod, with a tunnel behind it. What the node does not
/// translate reaches the pod all the same, by its own service's address or from outside.
#[test]
fn who_claims_a_pods_address_for_a_tunnel_takes_no_answer_from_it() {
    let own = World::new().ingress(Host::B, [allow(Peers::Any, Ports::Any)]).egress(Host::B, []);
    let mut claimed = own.clone().service(Protocol::Udp, &[(Host::Node, TUNNEL_PORTS[0])]);
    let name = claimed.cluster.services.keys().next().expect("the service").clone();
    let service = Arc::make_mut(&mut claimed.cluster.services[&name]);
    service.external_addresses = Family::ALL.map(|family| Host::B.at(family)).to_vec();
    for claimed_before in [true, false] {
        let mut node = Node::new(if claimed_before { &claimed } else { &own });
        for family in Family::ALL {
            let server = (Host::B.at(family), 80);
            let outside = Frame::udp((Host::Outside.at(family), 40_000), server, 60);
            let pod = Frame::udp((Host::A.at(family), 40_000), server, 60);
            node.expect(arrives(Host::B, UPLINK), &outside, Allowed);
            node.expect(arrives(Host::B, Host::A.veth()), &pod, Allowed);
            node.publish(&claimed);
            node.expect(leaves(Host::B), &outside.reversed(), Established);
            // What the other pod sends to this address itself, the node leads to the tunnel.
            node.expect(leaves(Host::A), &pod, Encapsulated);
            node.expect(
                arrives(Host::B, Host::A.veth()),
                &pod,
                if claimed_before { Established } else { Allowed },
            );
            node.expect(leaves(Host::B), &pod.reversed(), Established);
            node.expect(leaves(Host::A), &pod, Encapsulated);
            node.publish(if claimed_before { &claimed } else { &own });
        }
        // The client's address goes to another pod, which this one has no right to send to.
        node.publish(&claimed.clone().with_address_moved(Host::A, Host::Z));
        for family in Family::ALL {
            let pod = Frame::udp((Host::A.at(family), 40_000), (Host::B.at(family), 80), 60);
            node.expect(leaves(Host::B), &pod.reversed(), Denied);
        }
    }
}

#[test]
fn where_encapsulation_is_allowed_no_connection_ends_because_of_a_tunnel() {
    let world = World::new();
    let mut node = Node::that_allows_encapsulation(&world);
    let frames = Family::ALL.map(|family| {
        let (b, outside) = (Host::B.at(family), Host::Outside.at(family));
        [Frame::udp((b, 40_000), (outside, TUNNEL_PORTS[0]), 60), Frame::ip(b, outside, 47, vec![0; 40])]
    });
    for frame in frames.as_flattened() {
        node.expect(leaves(Host::B), frame, NotIsolated);
    }
    node.publish(&world.with_node(Host::Outside).egress(Host::B, []));
    for frame in frames.as_flattened() {
        node.expect(leaves(Host::B), frame, Established);
    }
}

#[test]
fn nothing_is_tunnelled_behind_more_headers_than_are_read() {
    let mut node = Node::new(&World::new());
    let chain = [Extension::Destination(0); 7];
    let to = |host: Host| {
        Frame::udp((Host::A.at(Family::V6), 9), (host.at(Family::V6), 4_789), 60).with_extensions(&chain)
    };
    node.expect(leaves(Host::A), &to(Host::Node), Unreadable);
    node.expect(leaves(Host::A), &to(Host::OtherNode), Unreadable);
    node.expect(leaves(Host::A), &to(Host::Outside), Unparsed);
    node.expect(arrives(Host::A, NODE), &to(Host::Node).reversed(), Unparsed);
}

#[test]
fn where_encapsulation_is_allowed_a_pods_policies_alone_decide_about_it() {
    let to_other_node =
        [allow(block("172.16.0.2/32", &[]), Ports::Any), allow(block("fd00:f::2/128", &[]), Ports::Any)];
    let world = World::new().egress(Host::B, to_other_node);
    for (encapsulation, free, allowed, denied) in
        [(false, Encapsulated, Encapsulated, Encapsulated), (true, NotIsolated, Allowed, Denied)]
    {
        for family in Family::ALL {
            let mut node = match encapsulation {
                true => Node::that_allows_encapsulation(&world),
                false => Node::new(&world),
            };
            let tunnelled = |from: Host, to: IpAddr| {
                let vxlan = Frame::udp((from.at(family), 40_000), (to, TUNNEL_PORTS[0]), 60);
                [vxlan, Frame::ip(from.at(family), to, 47, vec![0; 40])]
            };
            let group = ip(if family == Family::V4 { "224.0.0.1" } else { "ff02::1" });
            for (from, to, expected) in [
                (Host::A, Host::OtherNode.at(family), free),
                (Host::A, Host::Node.at(family), free),
                (Host::B, Host::OtherNode.at(family), allowed),
                (Host::B, group, denied),
            ] {
                for frame in tunnelled(from, to) {
                    node.expect(leaves(from), &frame, expected);
                }
            }
            // The address that it is sent from is the pod's own in any case.
            for frame in tunnelled(Host::A, Host::OtherNode.at(family)) {
                node.expect(leaves(Host::Z), &frame, Spoofed);
            }
        }
    }
}
