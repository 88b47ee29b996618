//! Connections that are older than the agent: entered from the sockets of a pod, then evaluated by the real
//! programs.

use std::net::{IpAddr, SocketAddr};

use podgate_common::{
    Flow, NODE,
    Outcome::{Allowed, Denied, Established, NotIsolated, OwnNode, Spoofed},
    Protocol::{self, Tcp, Udp},
    frames::{Frame, flag},
};
use podgate_datapath::sockets::{Socket, SocketState};

use crate::{
    node::Node,
    world::{BRIDGE, Family, Host, UPLINK, World, all_pods, allow, arrives, leaves, port},
};

const ACK: u8 = flag::ACK;
const SYN: u8 = flag::SYN;

/// B is isolated, both ways and from everyone.
fn closed() -> World {
    World::new().ingress(Host::B, []).egress(Host::B, [])
}

fn connected(protocol: Protocol, local: (IpAddr, u16), remote: (IpAddr, u16)) -> Socket {
    let state = SocketState::Connected { ended: false, peer_ended: false };
    Socket { protocol, state, local: local.into(), remote: remote.into() }
}

fn listening(protocol: Protocol, port: u16) -> Socket {
    let everywhere = |port| SocketAddr::from(([0; 16], port));
    Socket { protocol, state: SocketState::Listens, local: everywhere(port), remote: everywhere(0) }
}

#[test]
fn they_go_on_whatever_the_policy_says_and_nothing_else_does() {
    let mut node = Node::new(&closed());
    for family in Family::ALL {
        let (client, server) = ((Host::Outside.at(family), 40_000), (Host::Remote.at(family), 443));
        let (port_80, port_53, from) =
            ((Host::B.at(family), 80), (Host::B.at(family), 53), (Host::B.at(family), 40_001));
        node.enter_older(
            Host::B,
            &[
                listening(Tcp, 80),
                listening(Udp, 53),
                connected(Tcp, port_80, client),
                connected(Udp, port_53, client),
                connected(Tcp, from, server),
            ],
        );
        for ingress_ifindex in [UPLINK, BRIDGE, Host::A.veth()] {
            let arrives = arrives(Host::B, ingress_ifindex);
            node.expect(arrives, &Frame::tcp(client, port_80, ACK), Established);
            node.expect(leaves(Host::B), &Frame::tcp(port_80, client, ACK), Established);
            node.expect(arrives, &Frame::udp(client, port_53, 10), Established);
            node.expect(leaves(Host::B), &Frame::udp(port_53, client, 10), Established);
            node.expect(leaves(Host::B), &Frame::tcp(from, server, ACK), Established);
            node.expect(arrives, &Frame::tcp(server, from, ACK), Established);
            // New ones: from another port, and between the same ports once more.
            let other = (client.0, 40_002);
            for frame in [
                Frame::tcp(client, port_80, SYN),
                Frame::tcp(other, port_80, ACK),
                Frame::udp(other, port_53, 10),
            ] {
                node.expect(arrives, &frame, Denied);
            }
            for frame in [Frame::tcp(from, server, SYN), Frame::tcp(from, other, ACK)] {
                node.expect(leaves(Host::B), &frame, Denied);
            }
        }
        // No other pod has part in them.
        let neighbour = (Host::A.at(family), 40_000);
        node.expect(arrives(Host::B, Host::A.veth()), &Frame::tcp(neighbour, port_80, ACK), Denied);
    }
}

#[test]
fn between_two_pods_of_the_node_both_ends_are_entered() {
    let world = closed().ingress(Host::A, []).egress(Host::A, []);
    for order in [[Host::A, Host::B], [Host::B, Host::A]] {
        let mut node = Node::new(&world);
        for family in Family::ALL {
            let (client, server) = ((Host::A.at(family), 40_000), (Host::B.at(family), 80));
            for pod in order {
                let sockets = match pod {
                    Host::A => vec![connected(Tcp, client, server)],
                    _ => vec![listening(Tcp, 80), connected(Tcp, server, client)],
                };
                node.enter_older(pod, &sockets);
            }
            node.expect(leaves(Host::A), &Frame::tcp(client, server, ACK), Established);
            node.expect(arrives(Host::B, Host::A.veth()), &Frame::tcp(client, server, ACK), Established);
            node.expect(leaves(Host::B), &Frame::tcp(server, client, ACK), Established);
            node.expect(arrives(Host::A, Host::B.veth()), &Frame::tcp(server, client, ACK), Established);
            // A's address comes from A or not at all.
            node.expect(arrives(Host::B, UPLINK), &Frame::tcp(client, server, ACK), Spoofed);
            node.expect(arrives(Host::B, Host::Z.veth()), &Frame::tcp(client, server, ACK), Spoofed);
        }
    }
}

#[test]
fn under_recheck_they_are_asked_the_question_that_opened_them() {
    let world = closed().ingress(Host::B, [allow(all_pods(), port(Tcp, 80))]);
    for family in Family::ALL {
        let server = (Host::B.at(family), 80);
        // (client, where it comes from, whether the policy lets it in)
        for (host, ingress_ifindex, allowed) in
            [(Host::A, Host::A.veth(), true), (Host::Outside, UPLINK, false)]
        {
            let client = (host.at(family), 40_000);
            let mut node = Node::that_rechecks(&world);
            let sockets = [listening(Tcp, 80), connected(Tcp, server, client)];
            let (question, reply) = (Frame::tcp(client, server, ACK), Frame::tcp(server, client, ACK));
            for frames in [[&reply, &question], [&question, &reply]] {
                node.forget();
                node.enter_older(Host::B, &sockets);
                let first = if allowed { Allowed } else { Denied };
                let next = if allowed { Established } else { Denied };
                for (frame, expected) in frames.into_iter().zip([first, next]) {
                    let hook = if frame.source == client.0 {
                        arrives(Host::B, ingress_ifindex)
                    } else {
                        leaves(Host::B)
                    };
                    node.expect(hook, frame, expected);
                }
            }
            // The last question came from the client: its way is known.
            let known = node.flows().values().next().expect("one connection").ingress_ifindex;
            assert_eq!(known, if allowed { ingress_ifindex } else { Flow::ANY_INGRESS });
        }
        let client = (Host::Node.at(family), 40_000);
        let mut node = Node::that_rechecks(&closed());
        node.enter_older(Host::B, &[listening(Tcp, 80), connected(Tcp, server, client)]);
        node.expect(leaves(Host::B), &Frame::tcp(server, client, ACK), Denied);
        node.expect(arrives(Host::B, NODE), &Frame::tcp(client, server, ACK), OwnNode);
        node.expect(leaves(Host::B), &Frame::tcp(server, client, ACK), Established);
    }
}

/// The programs have seen it in between: the client stands there under the node's address. Its server's
/// socket says so too, and knows nothing of who is behind it.
#[test]
fn what_the_node_has_rewritten_is_not_the_clients_own_because_a_socket_reports_it() {
    let world = World::new().egress(Host::B, []);
    for family in Family::ALL {
        let mut node = Node::new(&world);
        let (rewritten, server) = ((Host::Node.at(family), 40_000), (Host::B.at(family), 80));
        let frame = Frame::tcp(rewritten, server, ACK);
        node.expect(arrives(Host::B, Host::A.veth()), &frame, NotIsolated);
        node.expect(leaves(Host::A), &frame, Spoofed);
        node.enter_older(Host::B, &[listening(Tcp, 80), connected(Tcp, server, rewritten)]);
        node.expect(leaves(Host::A), &frame, Spoofed);
        // Another agent comes, or a pod goes: whatever has it looked through ends no live connection.
        node.publish(&world.clone().with_address_moved(Host::Z, Host::A));
        node.expect(leaves(Host::B), &frame.reversed(), Established);
    }
}

#[test]
fn the_tables_of_the_programs_are_counted() {
    let mut node = Node::new(&World::new());
    let fill = |node: &Node| node.readers.tables.fill().expect("the kernel counts");
    assert_eq!(
        fill(&node).iter().map(|(name, entries, _)| (*name, *entries)).collect::<Vec<_>>(),
        [("flows", 0), ("fragments", 0)]
    );
    // More than the kernel tells at once.
    let pod = (Host::B.at(Family::V4), 5_000);
    let sockets: Vec<Socket> =
        (0..5_000).map(|port| connected(Udp, pod, (Host::Outside.at(Family::V4), 1_000 + port))).collect();
    node.enter_older(Host::B, &sockets);
    assert_eq!(fill(&node)[0], ("flows", 5_000, Some(crate::node::OPTIONS.flows)));
    node.forget();
    assert_eq!(fill(&node)[0].1, 0);
}
