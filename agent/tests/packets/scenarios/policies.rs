//! What rules say of ports, protocols and blocks, asked with packets of both directions.

use podgate_common::{
    Outcome::{Allowed, Denied},
    Protocol::{Sctp, Tcp, Udp},
    frames::{Frame, flag},
};
use podgate_core::model::{Peers, Ports};

use crate::{
    node::Node,
    world::{
        Family, Host, UPLINK, World, all_pods, allow, arrives, block, every_port_of, ip, leaves, named,
        pods_like, port, range,
    },
};

/// Asks whether B may be reached from this address, each time by a connection that nothing is known of.
#[track_caller]
fn expect_into_b(node: &mut Node, frame: &Frame, allowed: bool) {
    node.forget();
    node.expect(arrives(Host::B, UPLINK), frame, if allowed { Allowed } else { Denied });
}

#[track_caller]
fn expect_out_of_b(node: &mut Node, frame: &Frame, allowed: bool) {
    node.forget();
    node.expect(leaves(Host::B), frame, if allowed { Allowed } else { Denied });
}

#[test]
fn ports_match_by_number_range_name_and_protocol_alone() {
    let ports = [
        port(Tcp, 80),
        range(Tcp, 1_000, 2_000),
        range(Udp, 65_535, 65_535),
        every_port_of(Sctp),
        // Of B: TCP 8080 and UDP 8081 have the name.
        named(Tcp, "web"),
        named(Udp, "web"),
        named(Tcp, "nobody-has-this"),
    ];
    let rules = ports.map(|ports| allow(Peers::Any, ports));
    // (frame, port, allowed)
    type Make = fn((std::net::IpAddr, u16), (std::net::IpAddr, u16)) -> Frame;
    let tcp: Make = |from, to| Frame::tcp(from, to, flag::SYN);
    let udp: Make = |from, to| Frame::udp(from, to, 0);
    let sctp: Make = |from, to| Frame::sctp(from, to, 1);
    let table = [
        (tcp, 0, false),
        (tcp, 79, false),
        (tcp, 80, true),
        (tcp, 81, false),
        (tcp, 999, false),
        (tcp, 1_000, true),
        (tcp, 1_500, true),
        (tcp, 2_000, true),
        (tcp, 2_001, false),
        (tcp, 8080, true),
        (tcp, 8081, false),
        (tcp, 65_535, false),
        (udp, 80, false),
        (udp, 1_000, false),
        (udp, 8080, false),
        (udp, 8081, true),
        (udp, 65_534, false),
        (udp, 65_535, true),
        (sctp, 0, true),
        (sctp, 80, true),
        (sctp, 65_535, true),
    ];
    let mut node = Node::new(&World::new().ingress(Host::B, rules));
    for family in Family::ALL {
        for (make, number, allowed) in table {
            // The port of the source is never looked at.
            for from in [80, 40_000] {
                let frame = make((Host::Outside.at(family), from), (Host::B.at(family), number));
                expect_into_b(&mut node, &frame, allowed);
            }
        }
    }
}

#[test]
fn a_named_port_of_an_egress_rule_is_the_destinations() {
    let world = World::new().egress(
        Host::B,
        [
            allow(Peers::Any, named(Tcp, "web")),
            allow(pods_like(Host::B), named(Udp, "web")),
            allow(block("192.0.2.0/24", &[]), named(Tcp, "web")),
        ],
    );
    let mut node = Node::new(&world);
    for family in Family::ALL {
        let b = (Host::B.at(family), 40_000);
        // (destination, its port, allowed)
        let table = [
            (Host::A, 8080, true),
            (Host::Remote, 8080, true),
            (Host::A, 80, false),
            (Host::A, 8081, false),
            (Host::Outside, 8080, false),
            (Host::OtherNode, 8080, false),
        ];
        for (host, number, allowed) in table {
            let frame = Frame::tcp(b, (host.at(family), number), flag::SYN);
            expect_out_of_b(&mut node, &frame, allowed);
        }
        // Only B has the name on UDP.
        expect_out_of_b(&mut node, &Frame::udp(b, (Host::A.at(family), 8081), 0), false);
    }
}

#[test]
fn protocols_without_ports_follow_rules_without_ports() {
    for (ports, allowed) in [
        (Ports::Any, true),
        (range(Tcp, 1, 65_535), false),
        (every_port_of(Tcp), false),
        (every_port_of(Udp), false),
        (every_port_of(Sctp), false),
    ] {
        let rule = || [allow(all_pods(), ports.clone())];
        let mut node = Node::new(&World::new().ingress(Host::B, rule()).egress(Host::B, rule()));
        for family in Family::ALL {
            let (b, peer) = (Host::B.at(family), Host::Remote.at(family));
            let other_icmp = if family == Family::V4 { 58 } else { 1 };
            // GRE, ESP, IPIP, no next header, an experimental one, and ICMP of the other version of IP.
            for protocol in [47, 50, 4, 59, 253, other_icmp] {
                let payload = vec![0x5a; 24];
                let inward = Frame::ip(peer, b, protocol, payload.clone());
                expect_into_b(&mut node, &inward, allowed);
                expect_out_of_b(&mut node, &Frame::ip(b, peer, protocol, payload.clone()), allowed);
                let outside = Frame::ip(Host::Outside.at(family), b, protocol, payload);
                expect_into_b(&mut node, &outside, false);
            }
            expect_into_b(&mut node, &Frame::echo_request(peer, b, 7), allowed);
            expect_out_of_b(&mut node, &Frame::echo_request(b, peer, 7), allowed);
            expect_into_b(&mut node, &Frame::echo_reply(peer, b, 7), allowed);
            expect_into_b(&mut node, &Frame::echo_request(Host::Outside.at(family), b, 7), false);
            // A redirect, and a type that does not exist.
            for kind in [5, 200] {
                expect_into_b(&mut node, &Frame::icmp(peer, b, kind, 7), allowed);
            }
        }
    }
}

#[test]
fn overlapping_blocks_add_up_and_an_except_takes_only_from_its_own() {
    let rules = [
        allow(block("10.0.0.0/8", &["10.1.1.0/24", "10.64.0.0/10"]), port(Tcp, 80)),
        allow(block("10.1.0.0/16", &["10.1.1.128/25"]), port(Tcp, 81)),
        allow(block("10.1.1.0/24", &[]), port(Tcp, 82)),
        allow(block("10.1.1.7/32", &[]), port(Tcp, 83)),
        allow(block("fd00::/8", &["fd01:1::/32", "fd01:1:8000::/33"]), port(Tcp, 80)),
        allow(block("fd01::/16", &["fd01:1:8000::/33"]), port(Tcp, 81)),
        allow(block("fd01:1::/32", &[]), port(Tcp, 82)),
        allow(block("fd01:1::7/128", &[]), port(Tcp, 83)),
    ];
    // (address, ports that are open)
    let table: [(&str, &[u16]); 20] = [
        ("9.255.255.255", &[]),
        ("10.0.0.0", &[80]),
        ("10.63.255.255", &[80]),
        ("10.64.0.0", &[]),
        ("10.127.255.255", &[]),
        ("10.128.0.0", &[80]),
        ("11.0.0.0", &[]),
        ("10.1.0.255", &[80, 81]),
        ("10.1.1.0", &[81, 82]),
        ("10.1.1.7", &[81, 82, 83]),
        ("10.1.1.8", &[81, 82]),
        ("10.1.1.127", &[81, 82]),
        ("10.1.1.128", &[82]),
        ("10.1.2.0", &[80, 81]),
        ("fcff:ffff:ffff:ffff::1", &[]),
        ("fd00::1", &[80]),
        ("fd01:0:ffff::1", &[80, 81]),
        ("fd01:1::7", &[81, 82, 83]),
        ("fd01:1:8000::", &[82]),
        ("fd01:2::", &[80, 81]),
    ];
    let mut node = Node::new(&World::new().ingress(Host::B, rules.clone()).egress(Host::B, rules));
    for (address, open) in table {
        let address = ip(address);
        let b = Host::B.at(if address.is_ipv4() { Family::V4 } else { Family::V6 });
        for number in 79..85 {
            let allowed = open.contains(&number);
            let inward = Frame::tcp((address, 40_000), (b, number), flag::SYN);
            expect_into_b(&mut node, &inward, allowed);
            let outward = Frame::tcp((b, 40_000), (address, number), flag::SYN);
            expect_out_of_b(&mut node, &outward, allowed);
        }
    }
}

#[test]
fn a_block_of_one_family_never_allows_the_other() {
    for (cidr, inside) in [
        ("0.0.0.0/0", Some(Family::V4)),
        ("::/0", Some(Family::V6)),
        ("::/1", None),
        ("::/80", None),
        ("::/96", None),
    ] {
        let rule = || [allow(block(cidr, &[]), Ports::Any)];
        let mut node = Node::new(&World::new().ingress(Host::B, rule()).egress(Host::B, rule()));
        for family in Family::ALL {
            let v6_low_half = cidr == "::/1" && family == Family::V6;
            let (b, peer) = (Host::B.at(family), Host::Outside.at(family));
            // 2001:db8::1 lies in the lower half of all IPv6 addresses.
            let allowed = inside == Some(family) || v6_low_half;
            expect_into_b(&mut node, &Frame::tcp((peer, 1), (b, 2), flag::SYN), allowed);
            expect_into_b(&mut node, &Frame::echo_request(peer, b, 2), allowed);
            expect_out_of_b(&mut node, &Frame::udp((b, 1), (peer, 2), 0), allowed);
        }
    }
}

#[test]
fn peers_are_pods_by_label_and_namespace_and_blocks_hold_for_pods_too() {
    // (peers, who of A, Z, Remote, Outside, OtherNode matches)
    let table = [
        (Peers::Any, [true, true, true, true, true]),
        (all_pods(), [true, true, true, false, false]),
        (pods_like(Host::A), [true, false, false, false, false]),
        (block("10.1.0.1/32", &[]), [true, false, false, false, false]),
        (block("10.0.0.0/8", &["10.1.0.26/32"]), [true, false, true, false, false]),
        (block("172.16.0.0/12", &[]), [false, false, false, false, true]),
        (Peers::Listed(vec![podgate_core::model::Peer::Nothing]), [false; 5]),
    ];
    let hosts = [Host::A, Host::Z, Host::Remote, Host::Outside, Host::OtherNode];
    for (peers, matches) in table {
        let rule = || [allow(peers.clone(), port(Tcp, 80))];
        let mut node = Node::new(&World::new().ingress(Host::B, rule()).egress(Host::B, rule()));
        for (host, matches) in hosts.into_iter().zip(matches) {
            let (b, peer) = (Host::B.at(Family::V4), host.at(Family::V4));
            node.forget();
            let evaluated = if matches { Allowed } else { Denied };
            let ingress_ifindex = if Host::LOCAL.contains(&host) { host.veth() } else { UPLINK };
            node.expect(
                arrives(Host::B, ingress_ifindex),
                &Frame::tcp((peer, 9), (b, 80), flag::SYN),
                evaluated,
            );
            node.forget();
            node.expect(leaves(Host::B), &Frame::tcp((b, 9), (peer, 80), flag::SYN), evaluated);
        }
    }
}
