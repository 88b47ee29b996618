//! The link-layer address that a pod sends from: on a bridge its own alone, whatever it sends, for the bridge
//! learns it.

use podgate_common::{
    Direction, Hook,
    Outcome::{Established, Neighbour, NotIsolated, Spoofed, Unparsed},
    frames::{Extension, Fragment, Frame, MAC, arp, flag},
};

use crate::{
    node::Node,
    world::{BRIDGE, Family, Host, UPLINK, World, arrives, leaves},
};

/// Another pod's, by all its bytes but one.
const OTHERS: [[u8; 6]; 3] = [[2, 0, 0, 0, 0, 3], [0x42, 0, 0, 0, 0, 2], [0xff; 6]];

fn from_link(address: [u8; 6], frame: &Frame) -> Vec<u8> {
    with_source(address, frame.bytes())
}

fn with_source(address: [u8; 6], mut frame: Vec<u8>) -> Vec<u8> {
    frame[6..12].copy_from_slice(&address);
    frame
}

/// B on a bridge, Z behind a veth of its own; no one is isolated.
fn world() -> World {
    World::new().on_bridge(Host::B)
}

#[test]
fn a_pod_on_a_bridge_sends_from_its_own_link_layer_address_alone() {
    let out = leaves(Host::B);
    for family in Family::ALL {
        let (b, outside, node) = (Host::B.at(family), Host::Outside.at(family), Host::Node.at(family));
        let frames = [
            Frame::tcp((b, 5_000), (outside, 80), flag::SYN),
            Frame::udp((b, 5_000), (outside, 53), 10),
            Frame::udp((b, 5_000), (node, 53), 10),
            Frame::echo_request(b, outside, 1),
            Frame::udp((b, 5_000), (outside, 53), 10).as_fragment(Fragment { id: 1, offset: 0, more: true }),
            Frame::udp((b, 5_000), (outside, 53), 10).as_fragment(Fragment { id: 9, offset: 9, more: true }),
            Frame::unreachable(b, &Frame::udp((outside, 53), (b, 5_000), 10)),
            Frame::ip(b, outside, 50, vec![0; 24]),
        ];
        let mut node = Node::new(&world());
        for frame in frames {
            for other in OTHERS {
                node.expect_bytes(out, &from_link(other, &frame), Spoofed);
            }
            assert_ne!(node.evaluate(out, &frame.bytes()), Spoofed, "{frame:?}");
        }
    }
    let mut node = Node::new(&world());
    let std::net::IpAddr::V4(v4) = Host::B.at(Family::V4) else { unreachable!("of IPv4") };
    let v6 = Host::B.at(Family::V6);
    let unknown = [&[2, 0, 0, 0, 0, 1], &MAC[..], &[0x88, 0xb5], &[0; 40]].concat();
    let tagged = Frame::udp((v6, 5_000), (Host::Outside.at(Family::V6), 53), 10).in_vlan();
    let frames = [
        (arp(1, v4, [10, 1, 0, 9].into()), Neighbour),
        (Frame::advertisement(v6, crate::world::ip("ff02::1"), v6).bytes(), Neighbour),
        (
            Frame::udp((v6, 5_000), (Host::Outside.at(Family::V6), 53), 10)
                .with_extensions(&[Extension::Destination(0); 7])
                .bytes(),
            Unparsed,
        ),
        (unknown, Unparsed),
        (tagged, Unparsed),
    ];
    for (frame, expected) in frames {
        node.expect_bytes(out, &with_source(OTHERS[0], frame.clone()), Spoofed);
        node.expect_bytes(out, &frame, expected);
    }
}

/// Also of connections that are known, at either end, whoever is on a bridge.
#[test]
fn no_connection_carries_a_frame_from_another_link_layer_address() {
    for family in Family::ALL {
        let at = |host: Host| host.at(family);
        // (client, its way to the server, server, its way to the client)
        let pairs = [
            (Host::B, BRIDGE, Host::Z),
            (Host::Z, Host::Z.veth(), Host::B),
            (Host::B, BRIDGE, Host::Outside),
            (Host::Outside, UPLINK, Host::B),
        ];
        for (client, by, server) in pairs {
            let mut node = Node::new(&world());
            let (from, to) = ((at(client), 5_000), (at(server), 80));
            let ends =
                |hook: &dyn Fn(Host) -> Hook, host: Host| Host::LOCAL.contains(&host).then(|| hook(host));
            let back = if server == Host::B { BRIDGE } else { server_way(server) };
            let sent = [
                (ends(&leaves, client), Frame::tcp(from, to, flag::SYN), NotIsolated),
                (ends(&|pod| arrives(pod, by), server), Frame::tcp(from, to, flag::SYN), NotIsolated),
                (ends(&leaves, server), Frame::tcp(to, from, flag::SYN | flag::ACK), Established),
                (
                    ends(&|pod| arrives(pod, back), client),
                    Frame::tcp(to, from, flag::SYN | flag::ACK),
                    Established,
                ),
                (ends(&leaves, client), Frame::tcp(from, to, flag::ACK), Established),
            ];
            for (hook, frame, expected) in sent {
                let Some(hook) = hook else { continue };
                let is_bound = hook == leaves(Host::B);
                if is_bound {
                    node.expect_bytes(hook, &from_link(OTHERS[0], &frame), Spoofed);
                }
                node.expect(hook, &frame, expected);
                if is_bound {
                    for flags in [flag::ACK, flag::ACK | flag::PSH, flag::ACK | flag::FIN] {
                        let later = match client {
                            Host::B => Frame::tcp(from, to, flags),
                            _ => Frame::tcp(to, from, flags),
                        };
                        node.expect_bytes(hook, &from_link(OTHERS[1], &later), Spoofed);
                    }
                } else if hook.direction == Direction::Egress {
                    node.expect_bytes(hook, &from_link(OTHERS[0], &frame), expected);
                }
            }
        }
    }
}

/// Where the other end's packets come from, as a pod of this node sees it.
fn server_way(server: Host) -> u32 {
    if server == Host::Outside { UPLINK } else { server.veth() }
}

#[test]
fn where_no_bridge_learns_or_no_one_knows_the_address_a_pod_sends_from_any() {
    let mut node = Node::new(&world().on_bridge(Host::A).without_link_address(Host::A));
    for pod in [Host::A, Host::Z] {
        for to in [Host::Outside, Host::Node] {
            let frame = Frame::udp((pod.at(Family::V4), 5_000), (to.at(Family::V4), 53), 10);
            node.expect_bytes(leaves(pod), &from_link(OTHERS[0], &frame), NotIsolated);
            node.expect_bytes(leaves(pod), &from_link(OTHERS[1], &frame), Established);
        }
    }
    // A bridge that it becomes a port of, and an address that is learned later, count from then on.
    node.publish(&world().on_bridge(Host::A));
    let frame = Frame::udp((Host::A.at(Family::V4), 5_000), (Host::Outside.at(Family::V4), 53), 10);
    node.expect_bytes(leaves(Host::A), &from_link(OTHERS[0], &frame), Spoofed);
    node.expect_bytes(leaves(Host::A), &frame.bytes(), Established);
}
