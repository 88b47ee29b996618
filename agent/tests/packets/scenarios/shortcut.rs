//! The short cut: which packets go straight from pod to pod, and which never do.

use std::collections::BTreeSet;

use podgate_common::{
    Protocol::{Tcp, Udp},
    frames::{Frame, flag::*},
};

use crate::{
    node::Node,
    world::{Family, Host, UPLINK, World, all_pods, allow, arrives, leaves, pods_like, port, service_at},
};

/// A and B may talk to each other on one port of each protocol, and are isolated otherwise.
fn node() -> Node {
    let rules = || [allow(all_pods(), port(Tcp, 80)), allow(all_pods(), port(Udp, 53))];
    let world = [Host::A, Host::B]
        .iter()
        .fold(World::new(), |world, pod| world.ingress(*pod, rules()).egress(*pod, rules()));
    let mut node = Node::with_shortcut(&world);
    open(&mut node, &[Host::A, Host::B]);
    node
}

fn open(node: &mut Node, hosts: &[Host]) {
    let now = node.datapath.clock.now().expect("the kernel's clock");
    node.datapath.maps.open_veths.set_all(hosts.iter().map(|host| host.veth()).collect(), now);
}

/// Two ends of one connection.
#[derive(Clone, Copy)]
struct Ends {
    family: Family,
    client_port: u16,
    server_port: u16,
}

impl Ends {
    fn tcp(self, flags: u8) -> Frame {
        let [client, server] = self.ends();
        Frame::tcp(client, server, flags)
    }

    /// The server's.
    fn answer(self, flags: u8) -> Frame {
        let [client, server] = self.ends();
        Frame::tcp(server, client, flags)
    }

    fn udp(self) -> Frame {
        let [client, server] = self.ends();
        Frame::udp(client, server, 30)
    }

    fn ends(self) -> [(std::net::IpAddr, u16); 2] {
        [(Host::A.at(self.family), self.client_port), (Host::B.at(self.family), self.server_port)]
    }
}

/// The client's packet leaves its pod; whether it is handed to the server.
fn sent(node: &Node, frame: &Frame) -> bool {
    node.programs.hands_over(leaves(Host::A), &frame.bytes())
}

/// The same in the other direction.
fn answered(node: &Node, frame: &Frame) -> bool {
    node.programs.hands_over(leaves(Host::B), &frame.bytes())
}

/// The node brings a packet to the other end.
fn brought(node: &Node, frame: &Frame, to: Host) {
    let from = if to == Host::A { Host::B } else { Host::A };
    assert!(!node.programs.hands_over(arrives(to, from.veth()), &frame.bytes()));
}

/// A handshake up to the SYN/ACK, by the node.
fn shake_hands(node: &Node, ends: Ends) {
    let syn = ends.tcp(SYN);
    let answer = ends.answer(SYN | ACK);
    assert!(!sent(node, &syn), "a SYN");
    brought(node, &syn, Host::B);
    assert!(!answered(node, &answer), "a SYN/ACK");
    brought(node, &answer, Host::A);
}

fn ends(family: Family) -> Ends {
    Ends { family, client_port: 40_000, server_port: 80 }
}

#[test]
fn a_connection_takes_it_from_the_end_of_its_handshake_on_both_ways_until_it_ends() {
    let node = node();
    for family in Family::ALL {
        let ends = ends(family);
        shake_hands(&node, ends);
        for flags in [ACK, ACK | PSH, ACK | FIN] {
            assert!(sent(&node, &ends.tcp(flags)) && answered(&node, &ends.answer(flags)), "{flags}");
        }
        // The SYN/ACK was lost on the last bit of its way.
        assert!(!answered(&node, &ends.answer(SYN | ACK)));
        brought(&node, &ends.answer(SYN | ACK), Host::A);
        assert!(sent(&node, &ends.tcp(ACK | RST)));
        // The ports are taken again.
        shake_hands(&node, ends);
        assert!(sent(&node, &ends.tcp(ACK)));
    }
}

#[test]
fn udp_takes_it_on_both_ways_when_the_first_answer_has_arrived() {
    let node = node();
    for family in Family::ALL {
        let (question, answer) = question_and_answer(family);
        assert!(!sent(&node, &question) && !sent(&node, &question), "none has arrived");
        brought(&node, &question, Host::B);
        assert!(!sent(&node, &question) && !answered(&node, &answer), "no answer has arrived");
        brought(&node, &answer, Host::A);
        assert!(answered(&node, &answer) && sent(&node, &question));
    }
}

fn question_and_answer(family: Family) -> (Frame, Frame) {
    let question = Ends { server_port: 53, ..ends(family) }.udp();
    (question.clone(), question.reversed())
}

#[test]
fn each_packet_asks_whether_both_veths_are_open_now() {
    let mut node = node();
    let ends = ends(Family::V4);
    let (data, back) = (ends.tcp(ACK), ends.answer(ACK));
    shake_hands(&node, ends);
    for closed in [&[][..], &[Host::A], &[Host::B], &[Host::Z]] {
        open(&mut node, closed);
        assert!(!sent(&node, &data) && !answered(&node, &back));
        open(&mut node, &[Host::A, Host::B]);
        assert!(sent(&node, &data) && answered(&node, &back));
    }
    // The agent has said it long ago.
    let now = node.datapath.clock.now().expect("the kernel's clock");
    let veths = BTreeSet::from([Host::A.veth(), Host::B.veth()]);
    node.datapath.maps.open_veths.set_all(veths, now.wrapping_sub(1_000_000));
    assert!(!sent(&node, &data) && !answered(&node, &back));
}

/// Connection tracking has picked it up, or has translated into its tuple what is another connection.
#[test]
fn a_packet_that_comes_through_the_node_ends_it_for_its_connection() {
    for family in Family::ALL {
        for to in [Host::A, Host::B] {
            let node = node();
            let ends = ends(family);
            shake_hands(&node, ends);
            let (question, answer) = question_and_answer(family);
            assert!(!sent(&node, &question));
            brought(&node, &question, Host::B);
            assert!(!answered(&node, &answer));
            brought(&node, &answer, Host::A);
            for [there, back] in [[ends.tcp(ACK), ends.answer(ACK)], [question, answer]] {
                assert!(sent(&node, &there) && answered(&node, &back));
                brought(&node, if to == Host::A { &back } else { &there }, to);
                for _ in 0..2 {
                    assert!(!sent(&node, &there) && !answered(&node, &back));
                    brought(&node, &there, Host::B);
                    brought(&node, &back, Host::A);
                }
            }
            // The ports are taken again.
            shake_hands(&node, ends);
            assert!(sent(&node, &ends.tcp(ACK)) && answered(&node, &ends.answer(ACK)));
        }
    }
}

/// Its client sends to the backend itself as well, from the same port.
#[test]
fn what_is_translated_never_takes_it_beside_what_is_not() {
    let node = node();
    for family in Family::ALL {
        let (direct, answer) = question_and_answer(family);
        for _ in 0..3 {
            // A rule of the node drops it. What comes then was sent to a service, and its answer is
            // translated back.
            assert!(!sent(&node, &direct));
            brought(&node, &direct, Host::B);
            assert!(!answered(&node, &answer));
        }
        // The node has dropped that rule, and connection tracking has forgotten the service's.
        brought(&node, &direct, Host::B);
        brought(&node, &answer, Host::A);
        assert!(sent(&node, &direct) && answered(&node, &answer));
        // It forgets this one too, as packets go past it: the tuple is free for what is sent to the service.
        brought(&node, &direct, Host::B);
        assert!(!answered(&node, &answer) && !sent(&node, &direct), "it must be translated back");
    }
}

/// What happens, the veths that are open before it, and how.
type Beginning = (&'static str, &'static [Host], fn(&mut Node, Ends));

#[test]
fn a_connection_that_did_not_qualify_at_its_beginning_never_does() {
    let beginnings: [Beginning; 6] = [
        ("a veth was closed", &[Host::A], |node, ends| {
            let syn_ack = ends.answer(SYN | ACK);
            assert!(!sent(node, &ends.tcp(SYN)));
            brought(node, &ends.tcp(SYN), Host::B);
            assert!(!answered(node, &syn_ack));
            brought(node, &syn_ack, Host::A);
        }),
        ("the SYN/ACK did not arrive", &[Host::A, Host::B], |node, ends| {
            let (syn_ack, data) = (ends.answer(SYN | ACK), ends.answer(ACK | PSH));
            assert!(!sent(node, &ends.tcp(SYN)));
            brought(node, &ends.tcp(SYN), Host::B);
            assert!(!answered(node, &syn_ack) && !answered(node, &data));
            brought(node, &data, Host::A);
            brought(node, &syn_ack, Host::A);
        }),
        ("a veth was closed when the SYN arrived", &[Host::A, Host::B], |node, ends| {
            assert!(!sent(node, &ends.tcp(SYN)));
            open(node, &[Host::A]);
            brought(node, &ends.tcp(SYN), Host::B);
            open(node, &[Host::A, Host::B]);
            assert!(!answered(node, &ends.answer(SYN | ACK)));
            brought(node, &ends.answer(SYN | ACK), Host::A);
        }),
        ("its server answers as if it had just begun", &[Host::A, Host::B], |node, ends| {
            assert!(!sent(node, &ends.tcp(ACK)));
            brought(node, &ends.tcp(ACK), Host::B);
            assert!(!answered(node, &ends.answer(SYN | ACK)));
            brought(node, &ends.answer(SYN | ACK), Host::A);
        }),
        ("its answers come from elsewhere", &[Host::A, Host::B], |node, ends| {
            assert!(!sent(node, &ends.tcp(SYN)));
            brought(node, &ends.tcp(SYN), Host::B);
            assert!(!answered(node, &ends.answer(SYN | ACK)));
            let arriving = ends.answer(SYN | ACK).bytes();
            assert!(!node.programs.hands_over(arrives(Host::A, UPLINK), &arriving));
        }),
        ("it is older than its entry", &[Host::A, Host::B], |node, ends| {
            assert!(!sent(node, &ends.tcp(ACK)));
            brought(node, &ends.tcp(ACK), Host::B);
            let answer = ends.answer(ACK);
            assert!(!answered(node, &answer));
            brought(node, &answer, Host::A);
        }),
    ];
    for (what, hosts, begin) in beginnings {
        let mut node = node();
        open(&mut node, hosts);
        for family in Family::ALL {
            let ends = ends(family);
            begin(&mut node, ends);
            open(&mut node, &[Host::A, Host::B]);
            for _ in 0..3 {
                let (data, back) = (ends.tcp(ACK), ends.answer(ACK));
                assert!(!sent(&node, &data) && !answered(&node, &back), "{what}");
                brought(&node, &data, Host::B);
                brought(&node, &back, Host::A);
            }
            open(&mut node, hosts);
        }
    }
}

/// A service's packets reach its backend under another address than they have left with.
#[test]
fn what_is_translated_never_takes_it() {
    for family in Family::ALL {
        let rules = || [allow(pods_like(Host::B), port(Udp, 53)), allow(pods_like(Host::B), port(Tcp, 80))];
        let world = World::new()
            .egress(Host::A, rules())
            .ingress(Host::B, [allow(all_pods(), port(Udp, 53)), allow(all_pods(), port(Tcp, 80))])
            .service(Udp, &[(Host::B, 53), (Host::Z, 53)])
            .service(Tcp, &[(Host::B, 80), (Host::Z, 80)]);
        let mut node = Node::with_shortcut(&world);
        open(&mut node, &[Host::A, Host::B]);
        let (client, service) = ((Host::A.at(family), 40_000), (service_at(family), 80));
        let (udp, tcp) = ((Host::B.at(family), 53), (Host::B.at(family), 80));
        // (as it leaves, as it arrives, the answer as it leaves, as it arrives)
        let kinds = [
            [
                Frame::udp(client, service, 30),
                Frame::udp(client, udp, 30),
                Frame::udp(udp, client, 30),
                Frame::udp(service, client, 30),
            ],
            [
                Frame::tcp(client, service, SYN),
                Frame::tcp(client, tcp, SYN),
                Frame::tcp(tcp, client, SYN | ACK),
                Frame::tcp(service, client, SYN | ACK),
            ],
        ];
        for [leaving, arriving, answer, back] in kinds {
            for _ in 0..3 {
                assert!(!sent(&node, &leaving));
                brought(&node, &arriving, Host::B);
                assert!(!answered(&node, &answer));
                brought(&node, &back, Host::A);
            }
            // Nor does a packet to the backend itself that has the tuple of what was translated.
            assert!(!sent(&node, &arriving));
        }
    }
}

#[test]
fn what_the_node_must_see_goes_by_the_node() {
    let node = node();
    for family in Family::ALL {
        let ends = ends(family);
        shake_hands(&node, ends);
        let last_hop = ends.tcp(ACK).with_hop_limit(1);
        assert!(!sent(&node, &last_hop), "its sender must get an ICMP error");
        if family == Family::V4 {
            let frame = ends.tcp(ACK).with_options(1).bytes();
            assert!(!node.programs.hands_over(leaves(Host::A), &frame), "options");
        }
        assert!(sent(&node, &ends.tcp(ACK).with_hop_limit(2)));
        // A host outside, under the same policy.
        let remote = Frame::tcp((Host::Remote.at(family), 40_000), (Host::B.at(family), 80), SYN);
        assert!(!node.programs.hands_over(arrives(Host::B, UPLINK), &remote.bytes()));
        for flags in [SYN | ACK, ACK] {
            let answer = Frame::tcp((Host::B.at(family), 80), (Host::Remote.at(family), 40_000), flags);
            assert!(!answered(&node, &answer));
        }
    }
}

#[test]
fn an_error_about_a_packet_that_took_it_takes_it_too() {
    let node = node();
    for family in Family::ALL {
        let (question, answer) = question_and_answer(family);
        let refusals = || {
            let of_question = Frame::unreachable(Host::B.at(family), &question);
            let of_answer = Frame::unreachable(Host::A.at(family), &answer);
            [answered(&node, &of_question), sent(&node, &of_answer)]
        };
        assert!(!sent(&node, &question));
        brought(&node, &question, Host::B);
        assert_eq!(refusals(), [false, false], "both have come through the node");
        assert!(!answered(&node, &answer));
        brought(&node, &answer, Host::A);
        assert!(sent(&node, &question) && answered(&node, &answer));
        assert_eq!(refusals(), [true, true], "of what was handed over");
    }
}
