//! Whose address it is: spoofed sources, hairpins, bridges, link-local addresses, DHCP.

use podgate_common::{
    NODE,
    Outcome::{Allowed, Denied, Dhcp, Established, NotIsolated, OwnAddress, OwnNode, Spoofed},
    Protocol::Tcp,
    frames::{Frame, flag},
};

use crate::{
    node::Node,
    world::{BRIDGE, Family, Host, UPLINK, World, allow, arrives, ip, leaves, pods_like, port},
};

const SYN: u8 = flag::SYN;

#[test]
fn a_pod_sends_from_its_own_addresses_alone() {
    // The same for a pod that is isolated and for one that is not.
    for world in [World::new(), World::new().egress(Host::Z, []).ingress(Host::Z, [])] {
        let mut node = Node::new(&world);
        for family in Family::ALL {
            let to = Host::B.at(family);
            let unowned = ip(if family == Family::V4 { "10.1.0.99" } else { "fd00:1::99" });
            let unspecified = ip(if family == Family::V4 { "0.0.0.0" } else { "::" });
            let others = [Host::A, Host::B, Host::Remote, Host::Outside, Host::Node, Host::OtherNode];
            for from in others.map(|host| host.at(family)).into_iter().chain([unowned, unspecified]) {
                for frame in [
                    Frame::tcp((from, 9), (to, 80), SYN),
                    Frame::tcp((from, 9), (to, 80), flag::ACK),
                    Frame::udp((from, 9), (to, 53), 8),
                    Frame::echo_request(from, to, 7),
                    Frame::ip(from, to, 47, vec![0; 20]),
                ] {
                    node.expect(leaves(Host::Z), &frame, Spoofed);
                }
            }
        }
        assert_eq!(node.flow_count(), 0);
    }
}

#[test]
fn the_address_of_a_local_pod_does_not_come_from_elsewhere() {
    let world = World::new().ingress(Host::B, [allow(pods_like(Host::A), port(Tcp, 80))]);
    let mut node = Node::new(&world);
    for family in Family::ALL {
        let frame = Frame::tcp((Host::A.at(family), 9), (Host::B.at(family), 80), SYN);
        for ingress_ifindex in [UPLINK, BRIDGE, Host::Z.veth(), 77] {
            node.expect(arrives(Host::B, ingress_ifindex), &frame, Spoofed);
            // Nor into a pod that is not isolated.
            let free = Frame::tcp((Host::A.at(family), 9), (Host::Z.at(family), 80), SYN);
            node.expect(arrives(Host::Z, ingress_ifindex), &free, Spoofed);
        }
        node.expect(arrives(Host::B, Host::A.veth()), &frame, Allowed);
    }
}

#[test]
fn packets_that_a_bridge_has_routed_come_from_the_bridge() {
    let rules = || [allow(pods_like(Host::A), port(Tcp, 80))];
    let world = World::new().ingress(Host::B, rules()).on_bridge(Host::A).on_bridge(Host::B);
    let mut node = Node::new(&world);
    for family in Family::ALL {
        let b = (Host::B.at(family), 80);
        let from = |host: Host| Frame::tcp((host.at(family), 9), b, SYN);
        // Bridged, and routed by the bridge's own interface.
        node.expect(arrives(Host::B, Host::A.veth()), &from(Host::A), Allowed);
        node.expect(arrives(Host::B, BRIDGE), &from(Host::A), Allowed);
        node.expect(arrives(Host::B, UPLINK), &from(Host::A), Spoofed);
        // Z is on no bridge.
        node.expect(arrives(Host::B, BRIDGE), &from(Host::Z), Spoofed);
    }
}

#[test]
fn a_frame_that_a_bridge_floods_takes_nothing_over() {
    let mut node = Node::new(&World::new().ingress(Host::A, [allow(pods_like(Host::B), port(Tcp, 80))]));
    for family in Family::ALL {
        let (a, b) = ((Host::A.at(family), 80), (Host::B.at(family), 40_000));
        let syn = Frame::tcp(b, a, SYN);
        let answer = Frame::tcp(a, b, SYN | flag::ACK);
        node.expect(leaves(Host::B), &syn, NotIsolated);
        node.expect(arrives(Host::A, Host::B.veth()), &syn, Allowed);
        // Z sees it too; that gives it no way to answer.
        node.expect(arrives(Host::Z, Host::B.veth()), &syn, NotIsolated);
        node.expect(leaves(Host::Z), &answer, Spoofed);
        node.expect(leaves(Host::A), &answer, Established);
        node.expect(arrives(Host::B, Host::A.veth()), &answer, Established);
    }
}

#[test]
fn a_pod_reaches_itself() {
    let mut node = Node::new(&World::new().ingress(Host::B, []).egress(Host::B, []));
    for family in Family::ALL {
        let b = Host::B.at(family);
        node.expect(leaves(Host::B), &Frame::tcp((b, 9), (b, 80), SYN), OwnAddress);
        // Through its service: sent to it again, perhaps with the node's address as the source.
        let hairpin = arrives(Host::B, Host::B.veth());
        node.expect(hairpin, &Frame::tcp((b, 9), (b, 80), SYN), OwnAddress);
        let masqueraded = (Host::Node.at(family), 1_024);
        node.expect(hairpin, &Frame::tcp(masqueraded, (b, 80), SYN), OwnAddress);
        node.expect(leaves(Host::B), &Frame::tcp((b, 80), masqueraded, SYN | flag::ACK), Established);
        // Not in the name of another pod.
        node.expect(hairpin, &Frame::tcp((Host::A.at(family), 9), (b, 80), SYN), Spoofed);
    }
}

#[test]
fn link_local_addresses_are_between_a_pod_and_its_link() {
    let mut world = World::new().ingress(Host::B, []).egress(Host::B, []);
    let node_link = ip("fe80::1");
    world.node.insert(node_link);
    let mut node = Node::new(&world);
    let (b_link, other_link) = (ip("fe80::b"), ip("fe80::c"));
    node.expect(leaves(Host::B), &Frame::tcp((b_link, 9), (node_link, 80), SYN), OwnNode);
    node.expect(
        arrives(Host::B, NODE),
        &Frame::tcp((node_link, 80), (b_link, 9), SYN | flag::ACK),
        Established,
    );
    node.expect(arrives(Host::B, NODE), &Frame::tcp((node_link, 9), (b_link, 80), SYN), OwnNode);
    node.expect(leaves(Host::B), &Frame::tcp((b_link, 9), (other_link, 80), SYN), Denied);
    node.expect(arrives(Host::B, BRIDGE), &Frame::tcp((other_link, 9), (b_link, 80), SYN), Denied);
    // The node's own on a packet that it did not send; it gives its pod no right to send from it.
    node.expect(arrives(Host::B, BRIDGE), &Frame::tcp((node_link, 9), (b_link, 81), SYN), Denied);
    let in_the_nodes_name = Frame::tcp((node_link, 9), (ip("fe80::d"), 80), SYN);
    for pod in [Host::Z, Host::B] {
        node.expect(arrives(pod, Host::A.veth()), &in_the_nodes_name, Spoofed);
        node.expect(leaves(Host::A), &in_the_nodes_name, Spoofed);
    }
    // A link of IPv4 has no such right: the pod would have to own the address.
    let v4 = Frame::tcp((ip("169.254.7.7"), 9), (Host::Node.at(Family::V4), 80), SYN);
    node.expect(leaves(Host::B), &v4, Spoofed);
}

#[test]
fn dhcp_works_before_a_pod_has_an_address() {
    let (nowhere, everyone, server) = (ip("0.0.0.0"), ip("255.255.255.255"), ip("172.16.0.9"));
    let (b, free_address) = (Host::B.at(Family::V4), ip("10.1.0.99"));
    let (b_link, server_link, servers) = (ip("fe80::b"), ip("fe80::9"), ip("ff02::1:2"));
    let mut node = Node::new(&World::new().ingress(Host::B, []).egress(Host::B, []));
    let out = leaves(Host::B);
    let into = arrives(Host::B, UPLINK);
    let table = [
        (out, Frame::udp((nowhere, 68), (everyone, 67), 300), Dhcp),
        (out, Frame::udp((b_link, 546), (servers, 547), 100), Dhcp),
        (into, Frame::udp((server, 67), (everyone, 68), 300), Dhcp),
        (into, Frame::udp((server, 67), (free_address, 68), 300), Dhcp),
        (into, Frame::udp((server_link, 547), (b_link, 546), 100), Dhcp),
        // While it has an address that is to run on ("rebinding").
        (out, Frame::udp((b, 68), (everyone, 67), 300), Dhcp),
        (into, Frame::udp((server, 67), (b, 68), 300), Dhcp),
        // From the node's side alone, and for this pod.
        (
            arrives(Host::B, Host::A.veth()),
            Frame::udp((Host::A.at(Family::V4), 67), (everyone, 68), 300),
            Denied,
        ),
        (arrives(Host::B, Host::A.veth()), Frame::udp((ip("fe80::a"), 547), (b_link, 546), 100), Denied),
        (into, Frame::udp((server, 67), (Host::A.at(Family::V4), 68), 300), Denied),
        // Nearly.
        (out, Frame::udp((nowhere, 68), (server, 67), 300), Spoofed),
        (out, Frame::udp((nowhere, 68), (everyone, 68), 300), Spoofed),
        (out, Frame::udp((nowhere, 67), (everyone, 67), 300), Spoofed),
        (out, Frame::udp((b, 68), (server, 67), 300), Denied),
        (out, Frame::udp((b_link, 546), (server_link, 547), 100), Denied),
        (out, Frame::udp((Host::B.at(Family::V6), 546), (servers, 547), 100), Denied),
        (out, Frame::tcp((nowhere, 68), (everyone, 67), SYN), Spoofed),
        (into, Frame::udp((server, 68), (everyone, 68), 300), Denied),
        (into, Frame::udp((server, 67), (everyone, 67), 300), Denied),
        (into, Frame::udp((ip("2001:db8::9"), 547), (b_link, 546), 100), Denied),
        (into, Frame::tcp((server, 67), (everyone, 68), SYN), Denied),
    ];
    for (hook, frame, outcome) in table {
        node.expect(hook, &frame, outcome);
    }
    assert_eq!(node.flow_count(), 0);
}

#[test]
fn answers_of_dhcp_open_no_pod_that_has_not_just_asked() {
    let (nowhere, everyone, server) = (ip("0.0.0.0"), ip("255.255.255.255"), ip("172.16.0.9"));
    let (b_link, server_link, servers) = (ip("fe80::b"), ip("fe80::9"), ip("ff02::1:2"));
    let answers = [
        Frame::udp((server, 67), (everyone, 68), 300),
        Frame::udp((server, 67), (ip("10.1.0.99"), 68), 300),
        Frame::udp((server, 67), (Host::B.at(Family::V4), 68), 300),
        Frame::udp((server_link, 547), (b_link, 546), 100),
    ];
    let asks = |node: &mut Node, pod: Host| {
        node.expect(leaves(pod), &Frame::udp((nowhere, 68), (everyone, 67), 300), Dhcp);
        node.expect(leaves(pod), &Frame::udp((b_link, 546), (servers, 547), 100), Dhcp);
    };
    let mut node = Node::new(&World::new().ingress(Host::B, []).egress(Host::B, []));
    let expect = |node: &mut Node, outcome| {
        for answer in &answers {
            node.expect(arrives(Host::B, UPLINK), answer, outcome);
        }
    };
    expect(&mut node, Denied);
    // Another pod's question is not this one's.
    asks(&mut node, Host::A);
    expect(&mut node, Denied);
    asks(&mut node, Host::B);
    expect(&mut node, Dhcp);
    node.idle(20);
    expect(&mut node, Dhcp);
    node.idle(11);
    expect(&mut node, Denied);
}

#[test]
fn multicast_and_broadcast_are_evaluated_like_any_address() {
    let world = World::new()
        .egress(Host::A, [allow(crate::world::block("224.0.0.0/4", &[]), podgate_core::model::Ports::Any)])
        .egress(Host::B, [])
        .ingress(Host::B, []);
    let mut node = Node::new(&world);
    let mdns = (ip("224.0.0.251"), 5353);
    node.expect(leaves(Host::A), &Frame::udp((Host::A.at(Family::V4), 5353), mdns, 30), Allowed);
    node.expect(leaves(Host::B), &Frame::udp((Host::B.at(Family::V4), 5353), mdns, 30), Denied);
    node.expect(
        arrives(Host::B, Host::A.veth()),
        &Frame::udp((Host::A.at(Family::V4), 5353), mdns, 30),
        Denied,
    );
    let everyone = (ip("255.255.255.255"), 9);
    node.expect(leaves(Host::B), &Frame::udp((Host::B.at(Family::V4), 9), everyone, 30), Denied);
    // Group membership (IGMP).
    let igmp = Frame::ip(Host::B.at(Family::V4), ip("224.0.0.22"), 2, vec![0; 16]);
    node.expect(leaves(Host::B), &igmp.with_options(1), Denied);
}
