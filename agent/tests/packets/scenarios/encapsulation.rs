//! Packets in packets: a pod hands none to a node, which would take them out in anybody's name.

use std::net::IpAddr;

use podgate_common::{
    NODE,
    Outcome::{Allowed, Denied, Encapsulated, NotIsolated, Spoofed, Unparsed, Unreadable},
    frames::{Extension, Frame},
};
use podgate_core::model::Ports;

use crate::{
    node::Node,
    world::{Family, Host, TUNNEL_PORTS, UPLINK, World, allow, arrives, block, ip, leaves},
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
