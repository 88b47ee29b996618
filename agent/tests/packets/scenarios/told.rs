//! What the programs tell of connections: every one in a tally, some as events; and policies in audit mode, which only tell.

use std::{collections::BTreeMap, sync::Arc};

use podgate_common::{
    Direction::{self, Egress, Ingress},
    Outcome::{self, Allowed, Deferred, Denied, DeniedBackend, Established, Free, Spoofed, WouldDeny},
    Protocol::Tcp,
    frames::{Frame, flag},
};

use crate::{
    node::Node,
    world::{Family, Host, World, all_pods, allow, arrives, leaves, pods_like, port, service_at},
};

const SYN: u8 = flag::SYN;
const ACK: u8 = flag::ACK;

/// Packets by pod, direction and outcome.
fn tallies(node: &Node) -> BTreeMap<(u32, Direction, Outcome), u64> {
    let mut sums = BTreeMap::new();
    let tallies =
        node.kernel.tallies.as_ref().expect("nobody took them").read().expect("the kernel's tallies");
    for (key, counted) in tallies {
        let direction = Direction::try_from(key.direction).expect("a direction");
        let outcome = Outcome::try_from(key.outcome).expect("an outcome");
        *sums.entry((key.ifindex, direction, outcome)).or_default() += counted.packets;
    }
    sums
}

/// All policies, in audit mode.
fn in_audit(mut world: World) -> World {
    for policy in world.cluster.policies.clone().keys() {
        Arc::make_mut(&mut world.cluster.policies[policy]).audit = true;
    }
    world
}

#[test]
fn all_are_counted_and_the_first_ones_are_told() {
    let world = World::new().ingress(Host::B, [allow(pods_like(Host::A), port(Tcp, 80))]);
    let mut node = Node::new(&world);
    let (a, z, b) = (Host::A.at(Family::V4), Host::Z.at(Family::V4), Host::B.at(Family::V4));
    for source in 0..1_000 {
        let frame = Frame::tcp((z, 1_024 + source), (b, 80), SYN);
        node.expect_bytes(arrives(Host::B, Host::Z.veth()), &frame.bytes(), Denied);
    }
    node.expect(arrives(Host::B, Host::A.veth()), &Frame::tcp((a, 9), (b, 80), SYN), Allowed);
    node.expect(leaves(Host::B), &Frame::tcp((b, 80), (a, 9), SYN | ACK), Established);
    node.expect(leaves(Host::A), &Frame::tcp((z, 9), (b, 80), SYN), Spoofed);
    let (at_a, at_b) = (Host::A.veth(), Host::B.veth());
    assert_eq!(
        tallies(&node),
        BTreeMap::from([
            ((at_b, Ingress, Denied), 1_000),
            ((at_b, Ingress, Allowed), 1),
            ((at_a, Egress, Spoofed), 1)
        ])
    );
    let told = |outcome: Outcome| node.told.iter().filter(|event| event.outcome == outcome as u8).count();
    // 64 a second, on each CPU on which the test may run, for as long as it took.
    assert!((64..1_000).contains(&told(Denied)), "{} denied packets were told of", told(Denied));
    assert_eq!((told(Allowed), told(Spoofed)), (1, 1));
    assert_eq!(node.told[0].packets, 1);
}

#[test]
fn what_is_in_audit_mode_denies_nothing_and_tells_what_it_would() {
    let enforced = World::new()
        .ingress(Host::B, [allow(pods_like(Host::A), port(Tcp, 80))])
        .egress(Host::A, [allow(all_pods(), port(Tcp, 80))]);
    let audited = in_audit(enforced.clone());
    let mut node = Node::new(&audited);
    for family in Family::ALL {
        let (a, b, z) = (Host::A.at(family), Host::B.at(family), Host::Z.at(family));
        node.expect(leaves(Host::A), &Frame::tcp((a, 9), (b, 80), SYN), Free);
        node.expect(leaves(Host::A), &Frame::tcp((a, 9), (b, 81), SYN), WouldDeny);
        node.expect(arrives(Host::B, Host::A.veth()), &Frame::tcp((a, 9), (b, 80), SYN), Free);
        node.expect(arrives(Host::B, Host::Z.veth()), &Frame::tcp((z, 9), (b, 80), SYN), WouldDeny);
        // The connection lives like any other.
        node.expect(leaves(Host::B), &Frame::tcp((b, 80), (z, 9), SYN | ACK), Established);
        // What cannot be read is not dropped for its sake.
        node.expect_bytes(
            arrives(Host::B, Host::Z.veth()),
            &Frame::tcp((z, 9), (b, 80), SYN).bytes()[..if family == Family::V4 { 36 } else { 56 }],
            Outcome::UnreadFree,
        );
    }
    node.publish(&enforced);
    let (z, b) = (Host::Z.at(Family::V4), Host::B.at(Family::V4));
    node.expect(arrives(Host::B, Host::Z.veth()), &Frame::tcp((z, 10), (b, 80), SYN), Denied);
}

#[test]
fn what_is_in_audit_mode_opens_nothing_that_another_isolates() {
    let mut world = World::new().ingress(Host::B, [allow(all_pods(), port(Tcp, 80))]);
    world = in_audit(world).ingress(Host::B, []);
    let mut node = Node::new(&world);
    let (a, b) = (Host::A.at(Family::V4), Host::B.at(Family::V4));
    node.expect(arrives(Host::B, Host::A.veth()), &Frame::tcp((a, 9), (b, 80), SYN), Denied);
}

#[test]
fn a_namespace_in_audit_mode_has_all_its_policies_in_it() {
    let mut world = World::new().ingress(Host::B, []);
    let namespace = Host::B.name().namespace;
    let mut node = Node::new(&world);
    let (a, b) = (Host::A.at(Family::V4), Host::B.at(Family::V4));
    for (audit, expected) in [(false, Denied), (true, WouldDeny), (false, Denied)] {
        Arc::make_mut(&mut world.cluster.namespaces[&namespace]).audit = audit;
        node.publish(&world);
        node.forget();
        node.expect(arrives(Host::B, Host::A.veth()), &Frame::tcp((a, 9), (b, 80), SYN), expected);
    }
}

#[test]
fn of_a_services_backends_the_one_that_is_chosen_is_told() {
    let backends = [(Host::B, 80), (Host::Z, 80)];
    let enforced =
        World::new().service(Tcp, &backends).egress(Host::A, [allow(pods_like(Host::B), port(Tcp, 80))]);
    let audited = in_audit(enforced.clone());
    let a = Host::A.at(Family::V4);
    let front = (service_at(Family::V4), 80);
    for (world, denied) in [(&enforced, DeniedBackend), (&audited, WouldDeny)] {
        let mut node = Node::new(world);
        node.expect(leaves(Host::A), &Frame::tcp((a, 9), front, SYN), Deferred);
        let [b, z] = [Host::B, Host::Z].map(|host| (host.at(Family::V4), 80));
        node.expect(arrives(Host::B, Host::A.veth()), &Frame::tcp((a, 9), b, SYN), Free);
        node.expect(arrives(Host::Z, Host::A.veth()), &Frame::tcp((a, 10), z, SYN), denied);
        // It is the sender's side that was judged.
        let event = node.told.last().expect("it is told");
        assert_eq!((event.ifindex, event.direction), (Host::A.veth(), Egress as u8));
    }
}
