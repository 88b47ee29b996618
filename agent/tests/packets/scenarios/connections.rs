//! Connections: evaluated when new, replies pass, denied packets leave no trace.

use podgate_common::{
    NODE,
    Outcome::{Allowed, Denied, Established, NotIsolated, OwnNode, Spoofed},
    Protocol::{Sctp, Tcp, Udp},
    frames::{Frame, flag},
};

use crate::{
    node::Node,
    world::{Family, Host, UPLINK, World, all_pods, allow, arrives, leaves, pods_like, port},
};

const SYN: u8 = flag::SYN;
const SYN_ACK: u8 = flag::SYN | flag::ACK;
const ACK: u8 = flag::ACK;

/// A may talk to B, on one port of each protocol, and to no one else; no one else may talk to either.
fn closed() -> World {
    let protocols = [(Tcp, 80), (Udp, 53), (Sctp, 9000)];
    let to_b = protocols.map(|(protocol, number)| allow(pods_like(Host::B), port(protocol, number)));
    let from_a = protocols.map(|(protocol, number)| allow(pods_like(Host::A), port(protocol, number)));
    World::new().ingress(Host::A, []).egress(Host::A, to_b).ingress(Host::B, from_a).egress(Host::B, [])
}

#[test]
fn a_new_connection_is_evaluated_on_both_sides_and_its_replies_pass() {
    let mut node = Node::new(&closed());
    for family in Family::ALL {
        let (a, b) = ((Host::A.at(family), 40_000), (Host::B.at(family), 80));
        let to_b = arrives(Host::B, Host::A.veth());
        let to_a = arrives(Host::A, Host::B.veth());
        node.expect(leaves(Host::A), &Frame::tcp(a, b, SYN), Allowed);
        node.expect(to_b, &Frame::tcp(a, b, SYN), Allowed);
        node.expect(leaves(Host::B), &Frame::tcp(b, a, SYN_ACK), Established);
        node.expect(to_a, &Frame::tcp(b, a, SYN_ACK), Established);
        for flags in [ACK, ACK | flag::PSH, ACK | flag::FIN, ACK | flag::RST, flag::RST] {
            node.expect(leaves(Host::A), &Frame::tcp(a, b, flags), Established);
            node.expect(to_b, &Frame::tcp(a, b, flags), Established);
            node.expect(leaves(Host::B), &Frame::tcp(b, a, flags), Established);
            node.expect(to_a, &Frame::tcp(b, a, flags), Established);
        }
        // The other port, and the other direction.
        let wrong = (b.0, 81);
        node.expect(leaves(Host::A), &Frame::tcp(a, wrong, SYN), Denied);
        node.expect(to_b, &Frame::tcp(a, wrong, SYN), Denied);
        let (back, forth) = ((b.0, 40_001), (a.0, 80));
        node.expect(leaves(Host::B), &Frame::tcp(back, forth, SYN), Denied);
        node.expect(to_a, &Frame::tcp(back, forth, SYN), Denied);
    }
}

#[test]
fn each_direction_is_isolated_by_itself() {
    let world = World::new()
        .ingress(Host::B, [allow(all_pods(), port(Tcp, 80))])
        .egress(Host::Z, [allow(all_pods(), port(Tcp, 80))]);
    let mut node = Node::new(&world);
    for family in Family::ALL {
        let at = |host: Host, port| (host.at(family), port);
        for (number, evaluated) in [(80, Allowed), (81, Denied)] {
            let syn = |from: Host, to: Host| Frame::tcp(at(from, 40_000 + number), at(to, number), SYN);
            // Into the one that is isolated for ingress.
            node.expect(leaves(Host::A), &syn(Host::A, Host::B), NotIsolated);
            node.expect(arrives(Host::B, Host::A.veth()), &syn(Host::A, Host::B), evaluated);
            node.expect(arrives(Host::B, UPLINK), &syn(Host::Remote, Host::B), evaluated);
            node.expect(arrives(Host::B, UPLINK), &syn(Host::Outside, Host::B), Denied);
            // Out of it everything goes, and its answers come back.
            node.expect(leaves(Host::B), &syn(Host::B, Host::Outside), NotIsolated);
            let answer = Frame::tcp(at(Host::Outside, number), at(Host::B, 40_000 + number), SYN_ACK);
            node.expect(arrives(Host::B, UPLINK), &answer, Established);
            // Out of the one that is isolated for egress.
            node.expect(leaves(Host::Z), &syn(Host::Z, Host::Remote), evaluated);
            node.expect(leaves(Host::Z), &syn(Host::Z, Host::A), evaluated);
            node.expect(leaves(Host::Z), &syn(Host::Z, Host::Outside), Denied);
            // Into it everything goes, and its answers leave.
            node.expect(arrives(Host::Z, UPLINK), &syn(Host::Outside, Host::Z), NotIsolated);
            let answer = Frame::tcp(at(Host::Z, number), at(Host::Outside, 40_000 + number), SYN_ACK);
            node.expect(leaves(Host::Z), &answer, Established);
        }
    }
}

#[test]
fn datagrams_are_answered_but_a_server_opens_nothing() {
    let mut node = Node::new(&closed());
    for family in Family::ALL {
        let (a, b) = ((Host::A.at(family), 40_000), (Host::B.at(family), 53));
        let to_b = arrives(Host::B, Host::A.veth());
        let to_a = arrives(Host::A, Host::B.veth());
        // Before there was a question there is no answer.
        node.expect(leaves(Host::B), &Frame::udp(b, a, 10), Denied);
        node.expect(to_a, &Frame::udp(b, a, 10), Denied);
        node.expect(leaves(Host::A), &Frame::udp(a, b, 10), Allowed);
        node.expect(to_b, &Frame::udp(a, b, 10), Allowed);
        node.expect(leaves(Host::B), &Frame::udp(b, a, 10), Established);
        node.expect(to_a, &Frame::udp(b, a, 10), Established);
        node.expect(leaves(Host::A), &Frame::udp(a, b, 10), Established);
        // An answer from or to another port is none.
        for (from, to) in [((b.0, 54), a), (b, (a.0, 40_001))] {
            node.expect(leaves(Host::B), &Frame::udp(from, to, 10), Denied);
            node.expect(to_a, &Frame::udp(from, to, 10), Denied);
        }
        // The port was opened for UDP alone.
        node.expect(leaves(Host::A), &Frame::tcp(a, b, SYN), Denied);
        node.expect(to_b, &Frame::sctp(a, b, 1), Denied);
    }
}

#[test]
fn sctp_is_answered_too() {
    const INIT: u8 = 1;
    const INIT_ACK: u8 = 2;
    const ABORT: u8 = 6;
    let mut node = Node::new(&closed());
    for family in Family::ALL {
        let (a, b) = ((Host::A.at(family), 40_000), (Host::B.at(family), 9000));
        let to_b = arrives(Host::B, Host::A.veth());
        node.expect(leaves(Host::A), &Frame::sctp(a, b, INIT), Allowed);
        node.expect(to_b, &Frame::sctp(a, b, INIT), Allowed);
        node.expect(leaves(Host::B), &Frame::sctp(b, a, INIT_ACK), Established);
        node.expect(arrives(Host::A, Host::B.veth()), &Frame::sctp(b, a, INIT_ACK), Established);
        node.expect(to_b, &Frame::sctp(a, b, ABORT), Established);
        node.expect(to_b, &Frame::sctp(a, (b.0, 9001), INIT), Denied);
    }
}

#[test]
fn an_init_is_a_new_association_and_meets_the_policy_of_its_time() {
    const DATA: u8 = 0;
    const INIT: u8 = 1;
    const INIT_ACK: u8 = 2;
    const ABORT: u8 = 6;
    const SHUTDOWN_COMPLETE: u8 = 14;
    let mut node = Node::new(&closed());
    for end in [None, Some(ABORT), Some(SHUTDOWN_COMPLETE)] {
        for family in Family::ALL {
            node.publish(&closed());
            let (a, b) = ((Host::A.at(family), 40_000), (Host::B.at(family), 9000));
            let (to_b, to_a) = (arrives(Host::B, Host::A.veth()), arrives(Host::A, Host::B.veth()));
            for hook in [leaves(Host::A), to_b] {
                node.expect(hook, &Frame::sctp(a, b, INIT), Allowed);
            }
            for hook in [leaves(Host::B), to_a] {
                node.expect(hook, &Frame::sctp(b, a, INIT_ACK), Established);
                if let Some(end) = end {
                    node.expect(hook, &Frame::sctp(b, a, end), Established);
                }
            }
            node.publish(
                &World::new()
                    .ingress(Host::A, [])
                    .egress(Host::A, [])
                    .ingress(Host::B, [])
                    .egress(Host::B, []),
            );
            // What was opened goes on. No one opens anything, the server neither.
            for hook in [leaves(Host::A), to_b] {
                node.expect(hook, &Frame::sctp(a, b, DATA), Established);
                node.expect(hook, &Frame::sctp(a, b, INIT), Denied);
            }
            for hook in [leaves(Host::B), to_a] {
                node.expect(hook, &Frame::sctp(b, a, INIT), Denied);
            }
            node.forget();
        }
    }
}

#[test]
fn the_middle_of_an_unknown_connection_is_evaluated_by_its_direction() {
    let mut node = Node::new(&closed());
    for family in Family::ALL {
        let at = |host: Host, port| (host.at(family), port);
        for flags in [ACK, SYN_ACK, flag::RST, flag::RST | ACK, flag::FIN, flag::FIN | ACK, flag::PSH, 0] {
            // From one who may not: dropped, whatever it claims to belong to.
            for from in [Host::Outside, Host::Remote, Host::OtherNode] {
                let frame = Frame::tcp(at(from, 443), at(Host::A, 50_000), flags);
                node.expect(arrives(Host::A, UPLINK), &frame, Denied);
            }
            let to_b = Frame::tcp(at(Host::Z, 80), at(Host::B, 50_000), flags);
            node.expect(arrives(Host::B, Host::Z.veth()), &to_b, Denied);
            node.expect(leaves(Host::B), &Frame::tcp(at(Host::B, 80), at(Host::Z, 5), flags), Denied);
        }
        assert_eq!(node.flow_count(), 0);
        // From one who may: taken up, as after a restart of the machine's connection tracking.
        let taken_up = Frame::tcp(at(Host::A, 40_000), at(Host::B, 80), ACK);
        node.expect(leaves(Host::A), &taken_up, Allowed);
        node.expect(arrives(Host::B, Host::A.veth()), &taken_up, Allowed);
        let answer = Frame::tcp(at(Host::B, 80), at(Host::A, 40_000), ACK);
        node.expect(leaves(Host::B), &answer, Established);
        node.forget();
    }
}

#[test]
fn a_denied_packet_leaves_no_trace_and_opens_no_way_back() {
    let mut node = Node::new(&closed());
    for family in Family::ALL {
        let (z, b) = ((Host::Z.at(family), 40_000), (Host::B.at(family), 80));
        let to_b = arrives(Host::B, Host::Z.veth());
        for frame in [Frame::tcp(z, b, SYN), Frame::udp(z, b, 0), Frame::sctp(z, b, 1)] {
            node.expect(to_b, &frame, Denied);
        }
        assert_eq!(node.flow_count(), 0);
        for frame in [Frame::tcp(b, z, SYN_ACK), Frame::udp(b, z, 0), Frame::sctp(b, z, 2)] {
            node.expect(leaves(Host::B), &frame, Denied);
        }
        assert_eq!(node.flow_count(), 0);
    }
}

#[test]
fn a_syn_is_new_also_on_the_tuple_of_a_live_connection() {
    let mut node = Node::new(&closed());
    for family in Family::ALL {
        let (a, b) = ((Host::A.at(family), 40_000), (Host::B.at(family), 80));
        let to_b = arrives(Host::B, Host::A.veth());
        node.expect(leaves(Host::A), &Frame::tcp(a, b, SYN), Allowed);
        node.expect(to_b, &Frame::tcp(a, b, SYN), Allowed);
        node.expect(leaves(Host::B), &Frame::tcp(b, a, SYN_ACK), Established);
        // The server's end opens nothing through it, and the connection lives on.
        node.expect(leaves(Host::B), &Frame::tcp(b, a, SYN), Denied);
        node.expect(arrives(Host::A, Host::B.veth()), &Frame::tcp(b, a, SYN), Denied);
        node.expect(leaves(Host::B), &Frame::tcp(b, a, ACK), Established);
        // A second SYN of the client is asked again on both sides.
        node.expect(leaves(Host::A), &Frame::tcp(a, b, SYN), Allowed);
        node.expect(to_b, &Frame::tcp(a, b, SYN), Allowed);
        node.expect(leaves(Host::B), &Frame::tcp(b, a, SYN_ACK), Established);
    }
}

#[test]
fn another_pod_that_sends_in_a_connections_name_is_stopped() {
    let mut node = Node::new(&closed());
    for family in Family::ALL {
        let (a, b) = ((Host::A.at(family), 40_000), (Host::B.at(family), 80));
        node.expect(leaves(Host::A), &Frame::tcp(a, b, SYN), Allowed);
        node.expect(arrives(Host::B, Host::A.veth()), &Frame::tcp(a, b, SYN), Allowed);
        for flags in [ACK, SYN, flag::RST, flag::FIN] {
            // At its own veth, and, were it not for that, at the one of its victim.
            node.expect(leaves(Host::Z), &Frame::tcp(a, b, flags), Spoofed);
            node.expect(arrives(Host::B, Host::Z.veth()), &Frame::tcp(a, b, flags), Spoofed);
            node.expect(arrives(Host::B, UPLINK), &Frame::tcp(a, b, flags), Spoofed);
            node.expect(leaves(Host::Z), &Frame::tcp(b, a, flags), Spoofed);
        }
        node.expect(arrives(Host::B, Host::A.veth()), &Frame::tcp(a, b, ACK), Established);
    }
}

#[test]
fn the_own_node_reaches_an_isolated_pod_and_hears_its_answers() {
    let world = World::new().ingress(Host::B, []).egress(Host::B, []);
    let mut node = Node::new(&world);
    for family in Family::ALL {
        let b = Host::B.at(family);
        let prober = Host::Node.at(family);
        node.expect(arrives(Host::B, NODE), &Frame::tcp((prober, 9), (b, 8080), SYN), OwnNode);
        node.expect(leaves(Host::B), &Frame::tcp((b, 8080), (prober, 9), SYN_ACK), Established);
        node.expect(arrives(Host::B, NODE), &Frame::tcp((prober, 9), (b, 8080), ACK), Established);
        node.expect(arrives(Host::B, NODE), &Frame::echo_request(prober, b, 5), OwnNode);
        node.expect(leaves(Host::B), &Frame::echo_reply(b, prober, 5), Established);
        node.forget();
        // No ingress interface is no proof with another address, nor is the address from elsewhere.
        let outside = Host::Outside.at(family);
        node.expect(arrives(Host::B, NODE), &Frame::tcp((outside, 9), (b, 8080), SYN), Denied);
        node.expect(arrives(Host::B, NODE), &Frame::echo_request(outside, b, 5), Denied);
        node.expect(arrives(Host::B, UPLINK), &Frame::tcp((prober, 9), (b, 8080), SYN), Denied);
        node.expect(arrives(Host::B, UPLINK), &Frame::tcp((prober, 9), (b, 8080), ACK), Denied);
        node.expect(arrives(Host::B, Host::A.veth()), &Frame::tcp((prober, 9), (b, 8080), SYN), Denied);
        node.expect(leaves(Host::A), &Frame::tcp((prober, 9), (b, 8080), SYN), Spoofed);
    }
}

#[test]
fn an_isolated_pod_reaches_its_own_node_and_no_other() {
    let world = World::new().ingress(Host::B, []).egress(Host::B, []);
    let mut node = Node::new(&world);
    for family in Family::ALL {
        let b = (Host::B.at(family), 40_000);
        let dns = (Host::Node.at(family), 53);
        node.expect(leaves(Host::B), &Frame::udp(b, dns, 20), OwnNode);
        node.expect(arrives(Host::B, NODE), &Frame::udp(dns, b, 20), Established);
        node.expect(leaves(Host::B), &Frame::tcp(b, (dns.0, 6443), SYN), OwnNode);
        node.expect(leaves(Host::B), &Frame::udp(b, (Host::OtherNode.at(family), 53), 20), Denied);
        node.expect(leaves(Host::B), &Frame::udp(b, (Host::Outside.at(family), 53), 20), Denied);
    }
}

#[test]
fn a_free_pod_talks_to_everyone() {
    let mut node = Node::new(&World::new());
    for family in Family::ALL {
        for host in Host::ALL {
            if host == Host::A {
                continue;
            }
            let (a, other) = (Host::A.at(family), host.at(family));
            for (number, opening) in (1_000..).zip(0..=3_u8) {
                let frame = |from, to| match opening {
                    0 => Frame::tcp(from, to, SYN),
                    1 => Frame::udp(from, to, 9),
                    2 => Frame::sctp(from, to, 1),
                    _ => Frame::ip(from.0, to.0, 50, vec![0; 20]),
                };
                node.expect(leaves(Host::A), &frame((a, number), (other, 9)), NotIsolated);
                if host != Host::Node {
                    let ingress_ifindex = if Host::LOCAL.contains(&host) { host.veth() } else { UPLINK };
                    let arrived = if opening == 3 { Established } else { NotIsolated };
                    node.expect(arrives(Host::A, ingress_ifindex), &frame((other, number), (a, 7)), arrived);
                }
            }
        }
    }
}
