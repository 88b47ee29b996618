//! What the cluster says changes: policies, labels, addresses, backends. New packets are evaluated by what it
//! says now.

use std::{net::IpAddr, sync::Arc};

use podgate_common::{
    Outcome::{Allowed, Denied, Established, NotIsolated},
    Protocol::Tcp,
    frames::{Frame, flag},
};
use podgate_core::model::{NamedPort, Peer, Peers, PortRule, Ports, Rule, Selector};

use crate::{
    node::Node,
    world::{
        Family, Host, UPLINK, World, allow, app, arrives, labels, leaves, named, pods_like, port, service_at,
    },
};

const SYN: u8 = flag::SYN;
const ACK: u8 = flag::ACK;

/// Asks whether a pod of this node may be reached from this address, by a connection that nothing is known
/// of.
#[track_caller]
fn expect_into(node: &mut Node, from: IpAddr, ingress_ifindex: u32, to: Host, number: u16, allowed: bool) {
    let family = if from.is_ipv4() { Family::V4 } else { Family::V6 };
    node.forget();
    let frame = Frame::tcp((from, 40_000), (to.at(family), number), SYN);
    node.expect(arrives(to, ingress_ifindex), &frame, if allowed { Allowed } else { Denied });
}

fn pod(world: &mut World, host: Host) -> &mut podgate_core::model::Pod {
    Arc::make_mut(world.cluster.pods.get_mut(&host.name()).expect("a pod of the world"))
}

#[test]
fn a_policy_that_goes_takes_its_own_rules_along() {
    let from_a = |number| [allow(pods_like(Host::A), port(Tcp, number))];
    let both = World::new().ingress(Host::B, from_a(80)).ingress(Host::B, from_a(81));
    let mut node = Node::new(&both);
    let mut one = both.clone();
    one.cluster.policies = one.cluster.policies.without_max().1;
    let mut none = one.clone();
    none.cluster.policies = one.cluster.policies.without_max().1;
    for (world, open) in
        [(&both, [true, true, false]), (&one, [true, false, false]), (&both, [true, true, false])]
    {
        node.publish(world);
        for family in Family::ALL {
            for (number, open) in (80..).zip(open) {
                expect_into(&mut node, Host::A.at(family), Host::A.veth(), Host::B, number, open);
            }
            expect_into(&mut node, Host::Outside.at(family), UPLINK, Host::B, 80, false);
        }
    }
    node.publish(&none);
    let frame = Frame::tcp((Host::Outside.at(Family::V4), 9), (Host::B.at(Family::V4), 82), SYN);
    node.expect(arrives(Host::B, UPLINK), &frame, NotIsolated);
}

#[test]
fn labels_that_change_make_and_unmake_peers_and_subjects() {
    // B lets in pods like A; Z is none.
    let before = World::new().ingress(Host::B, [allow(pods_like(Host::A), Ports::Any)]);
    let mut like_a = before.clone();
    pod(&mut like_a, Host::Z).labels = labels(&[("app", "a"), ("more", "")]);
    // Z is selected like B.
    let mut like_b = before.clone();
    pod(&mut like_b, Host::Z).labels = labels(&[("app", "b")]);
    let mut node = Node::new(&before);
    for family in Family::ALL {
        let into_z = Frame::tcp((Host::Outside.at(family), 9), (Host::Z.at(family), 80), SYN);
        // (what the cluster says, whether Z may talk to B, what becomes of a stranger at Z)
        for (world, peer, at_z) in [
            (&before, false, NotIsolated),
            (&like_a, true, NotIsolated),
            (&like_b, false, Denied),
            (&before, false, NotIsolated),
        ] {
            node.publish(world);
            expect_into(&mut node, Host::Z.at(family), Host::Z.veth(), Host::B, 80, peer);
            node.expect(arrives(Host::Z, UPLINK), &into_z, at_z);
        }
    }
}

#[test]
fn labels_of_a_namespace_are_those_of_all_its_pods_for_every_policy() {
    let team = |name: &str| {
        let in_team = podgate_core::model::Requirement::In("team".into(), [name.into()].into());
        let peer = Peer::Pods { namespaces: Some(Selector::All(vec![in_team])), pods: Selector::EVERYTHING };
        allow(Peers::Listed(vec![peer]), Ports::Any)
    };
    // Subjects of two namespaces; the pod of the other node, in `y`, gets many fellows.
    let mut world = World::new().ingress(Host::A, [team("red")]).ingress(Host::B, [team("blue")]);
    let fellows: Vec<IpAddr> = (1..=100).map(|number| IpAddr::from([10, 2, 1, number])).collect();
    for (number, address) in fellows.iter().enumerate() {
        let mut fellow = (*world.cluster.pods[&Host::Remote.name()]).clone();
        fellow.name.name = format!("fellow-{number}").into();
        fellow.addresses = [*address].into();
        world.cluster.pods.insert(fellow.name.clone(), fellow.into());
    }
    let labelled = |name: &str| {
        let mut world = world.clone();
        let labels = labels(&[("kubernetes.io/metadata.name", "y"), ("team", name)]);
        world
            .cluster
            .namespaces
            .insert("y".into(), podgate_core::model::Namespace { labels, audit: false }.into());
        world
    };
    let mut node = Node::new(&world);
    for (name, at_a, at_b) in [("red", true, false), ("blue", false, true), ("green", false, false)] {
        node.publish(&labelled(name));
        for from in fellows.iter().copied().chain(Family::ALL.map(|family| Host::Remote.at(family))) {
            expect_into(&mut node, from, UPLINK, Host::A, 80, at_a);
            expect_into(&mut node, from, UPLINK, Host::B, 80, at_b);
        }
    }
}

#[test]
fn an_address_counts_for_the_pod_that_has_it_now() {
    let in_y = Peer::Pods { namespaces: Some(Selector::EVERYTHING), pods: app("a") };
    let friends = allow(Peers::Listed(vec![in_y]), Ports::Any);
    let full = World::new().ingress(Host::B, [friends]);
    let mut nowhere = full.clone();
    pod(&mut nowhere, Host::Remote).addresses.clear();
    // One address is there, the other comes later.
    let mut first = full.clone();
    pod(&mut first, Host::Remote).addresses.truncate(1);
    let mut deleted = full.clone();
    deleted.cluster.pods.remove(&Host::Remote.name());
    let mut given = deleted.clone();
    let mut next = (*full.cluster.pods[&Host::Remote.name()]).clone();
    (next.name.name, next.labels) = ("next".into(), labels(&[("app", "other")]));
    given.cluster.pods.insert(next.name.clone(), next.clone().into());
    // Before the old one is known to be gone both have it, and it has the properties of both.
    let mut claimed = full.clone();
    claimed.cluster.pods.insert(next.name.clone(), next.into());

    let mut node = Node::new(&nowhere);
    // (what the cluster says, whether each of the two addresses is a friend's)
    for (world, client_allowed) in [
        (&nowhere, [false, false]),
        (&first, [true, false]),
        (&full, [true, true]),
        (&deleted, [false, false]),
        (&full, [true, true]),
        (&claimed, [true, true]),
        (&given, [false, false]),
        (&claimed, [true, true]),
        (&full, [true, true]),
    ] {
        node.publish(world);
        for (family, client_allowed) in Family::ALL.into_iter().zip(client_allowed) {
            expect_into(&mut node, Host::Remote.at(family), UPLINK, Host::B, 80, client_allowed);
        }
    }
}

#[test]
fn two_pods_that_swap_their_addresses_swap_what_is_allowed() {
    let before = World::new().ingress(Host::B, [allow(pods_like(Host::A), Ports::Any)]).egress(Host::Z, []);
    let mut after = before.clone();
    let of_a = pod(&mut after, Host::A).addresses.clone();
    let of_z = std::mem::replace(&mut pod(&mut after, Host::Z).addresses, of_a);
    pod(&mut after, Host::A).addresses = of_z;
    let mut node = Node::new(&before);
    for world in [&before, &after, &before] {
        node.publish(world);
        for (host, sends, arrived) in [(Host::A, NotIsolated, Allowed), (Host::Z, Denied, Denied)] {
            for from in world.cluster.pods[&host.name()].addresses.clone() {
                let family = if from.is_ipv4() { Family::V4 } else { Family::V6 };
                let frame = Frame::tcp((from, 40_000), (Host::B.at(family), 80), SYN);
                node.forget();
                node.expect(leaves(host), &frame, sends);
                node.expect(arrives(Host::B, host.veth()), &frame, arrived);
            }
        }
    }
}

#[test]
fn a_named_port_follows_the_pod_that_has_it_now() {
    let by_name = || [allow(Peers::Any, named(Tcp, "web"))];
    let before = World::new().ingress(Host::B, by_name()).egress(Host::Z, by_name());
    let mut after = before.clone();
    pod(&mut after, Host::B).ports = [NamedPort { name: "web".into(), protocol: Tcp, number: 9090 }].into();
    let mut node = Node::new(&before);
    for (world, open, closed) in [(&before, 8080, 9090), (&after, 9090, 8080), (&before, 8080, 9090)] {
        node.publish(world);
        for family in Family::ALL {
            for (number, allowed) in [(open, true), (closed, false)] {
                expect_into(&mut node, Host::Outside.at(family), UPLINK, Host::B, number, allowed);
                node.forget();
                let to_b = Frame::tcp((Host::Z.at(family), 40_000), (Host::B.at(family), number), SYN);
                node.expect(leaves(Host::Z), &to_b, if allowed { Allowed } else { Denied });
            }
        }
    }
}

#[test]
fn a_thousand_policies_and_hundreds_of_ports_all_count() {
    const POLICIES: u16 = 1_000;
    // Each policy opens one even port, one rule of a last one hundreds of odd ones.
    let single = (0..POLICIES).map(|number| allow(Peers::Any, port(Tcp, 10_000 + 2 * number)));
    let world = single.fold(World::new(), |world, rule| world.ingress(Host::B, [rule]));
    let odd = (0..400).map(|number| 20_001 + 4 * number);
    let range = |number| PortRule::Range { protocol: Tcp, first: number, last: number };
    let rule = Rule { peers: Peers::Any, ports: Ports::Listed(odd.clone().map(range).collect()) };
    let mut node = Node::new(&world.ingress(Host::B, [rule]));
    let family = Family::V6;
    for number in (0..POLICIES).map(|number| 10_000 + 2 * number) {
        expect_into(&mut node, Host::Outside.at(family), UPLINK, Host::B, number, true);
        expect_into(&mut node, Host::Outside.at(family), UPLINK, Host::B, number + 1, false);
    }
    for number in odd {
        expect_into(&mut node, Host::Outside.at(family), UPLINK, Host::B, number, true);
        expect_into(&mut node, Host::Outside.at(family), UPLINK, Host::B, number + 2, false);
    }
}

#[test]
fn both_ends_may_open_a_connection_at_once() {
    let rule = |peer| [allow(pods_like(peer), port(Tcp, 80))];
    let world = World::new()
        .ingress(Host::A, rule(Host::B))
        .egress(Host::A, rule(Host::B))
        .ingress(Host::B, rule(Host::A))
        .egress(Host::B, rule(Host::A));
    let mut node = Node::new(&world);
    for family in Family::ALL {
        let (a, b) = ((Host::A.at(family), 80), (Host::B.at(family), 80));
        node.expect(leaves(Host::A), &Frame::tcp(a, b, SYN), Allowed);
        node.expect(leaves(Host::B), &Frame::tcp(b, a, SYN), Allowed);
        node.expect(arrives(Host::B, Host::A.veth()), &Frame::tcp(a, b, SYN), Allowed);
        node.expect(arrives(Host::A, Host::B.veth()), &Frame::tcp(b, a, SYN), Allowed);
        for (from, to, here, there) in [(a, b, Host::A, Host::B), (b, a, Host::B, Host::A)] {
            for flags in [SYN | ACK, ACK] {
                let frame = Frame::tcp(from, to, flags);
                assert!(node.evaluate(leaves(here), &frame.bytes()).passes(), "{frame:?}");
                assert!(node.evaluate(arrives(there, here.veth()), &frame.bytes()).passes(), "{frame:?}");
            }
        }
    }
}

#[test]
fn a_connection_outlives_its_place_behind_the_service() {
    let world = World::new().egress(Host::A, [allow(pods_like(Host::B), port(Tcp, 8080))]);
    let mut node = Node::new(&world.clone().service(Tcp, &[(Host::B, 8080)]));
    for family in Family::ALL {
        let (a, frontend) = ((Host::A.at(family), 40_000), (service_at(family), 80));
        node.expect(leaves(Host::A), &Frame::tcp(a, frontend, SYN), Allowed);
        node.expect(arrives(Host::A, Host::B.veth()), &Frame::tcp(frontend, a, SYN | ACK), Established);
    }
    for backends in [&[(Host::Z, 8080)][..], &[]] {
        node.publish(&world.clone().service(Tcp, backends));
        for family in Family::ALL {
            let (a, frontend) = ((Host::A.at(family), 40_000), (service_at(family), 80));
            node.expect(leaves(Host::A), &Frame::tcp(a, frontend, ACK), Established);
            node.expect(arrives(Host::A, Host::B.veth()), &Frame::tcp(frontend, a, ACK), Established);
            let new = Frame::tcp((a.0, 40_001), frontend, SYN);
            node.expect(leaves(Host::A), &new, Denied);
        }
    }
}

#[test]
fn a_full_table_lets_live_connections_go_on_and_opens_nothing() {
    const ROOM: u16 = 1_024;
    let friends = [allow(pods_like(Host::A), port(Tcp, 80))];
    let node = Node::with_room(&World::new().ingress(Host::B, friends).egress(Host::B, []), ROOM.into());
    let programs = &node.programs;
    for family in Family::ALL {
        let (a, b) = ((Host::A.at(family), 40_000), (Host::B.at(family), 80));
        let into_b = arrives(Host::B, Host::A.veth());
        assert!(programs.run(into_b, &Frame::tcp(a, b, SYN).bytes()));
        assert!(programs.run(leaves(Host::B), &Frame::tcp(b, a, SYN | ACK).bytes()));
        // Denied ones take no room, however many there are.
        for number in 0..10 * ROOM {
            let client_denied = (Host::Outside.at(family), 1_024 + number);
            assert!(!programs.run(arrives(Host::B, UPLINK), &Frame::tcp(client_denied, b, SYN).bytes()));
        }
        assert!(programs.run(leaves(Host::B), &Frame::tcp(b, a, ACK).bytes()), "it was not pushed out");
        // Allowed ones of another pod do: what was idle is forgotten, and goes on with the next word of its
        // client.
        for number in 0..10 * ROOM {
            let busy = (Host::Z.at(family), 1_024 + number);
            let to = (Host::Outside.at(family), 443);
            assert!(programs.run(leaves(Host::Z), &Frame::tcp(busy, to, SYN).bytes()));
        }
        assert!(
            !programs.run(leaves(Host::B), &Frame::tcp(b, (a.0, 40_001), ACK).bytes()),
            "never was there"
        );
        assert!(programs.run(into_b, &Frame::tcp(a, b, ACK).bytes()));
        assert!(programs.run(leaves(Host::B), &Frame::tcp(b, a, ACK).bytes()));
        let client_denied = (Host::Outside.at(family), 9);
        for flags in [SYN, ACK] {
            assert!(!programs.run(arrives(Host::B, UPLINK), &Frame::tcp(client_denied, b, flags).bytes()));
        }
    }
}
