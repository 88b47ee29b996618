//! What the programs report about connections: every one in a flow counter, some as events; and policies in
//! audit mode, which only tell.

use std::{collections::BTreeMap, sync::Arc};

use podgate_common::{
    Direction::{self, Egress, Ingress},
    Outcome::{self, Allowed, Deferred, Denied, DeniedBackend, Established, NotIsolated, Spoofed, WouldDeny},
    Protocol::Tcp,
    Share, Unreported,
    frames::{Frame, flag},
};

use crate::{
    node::Node,
    world::{
        Family, Host, UPLINK, World, all_pods, allow, arrives, block, leaves, pods_like, port, service_at,
    },
};

const SYN: u8 = flag::SYN;
const ACK: u8 = flag::ACK;

/// Packets by pod, direction and outcome.
fn flow_counters(node: &Node) -> BTreeMap<(u32, Direction, Outcome), u64> {
    let mut sums = BTreeMap::new();
    for (key, counted) in node.readers.flow_counters.read().expect("the kernel's flow counters") {
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
        flow_counters(&node),
        BTreeMap::from([
            ((at_b, Ingress, Denied), 1_000),
            ((at_b, Ingress, Allowed), 1),
            ((at_a, Egress, Spoofed), 1)
        ])
    );
    let reported =
        |outcome: Outcome| node.reported.iter().filter(|event| event.outcome == outcome as u8).count();
    // 64 a second, on each CPU on which the test may run, for as long as it took.
    assert!((64..1_000).contains(&reported(Denied)), "{} denied packets were reported", reported(Denied));
    assert_eq!((reported(Allowed), reported(Spoofed)), (1, 1));
    assert_eq!(node.reported[0].packets, 1);
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
        node.expect(leaves(Host::A), &Frame::tcp((a, 9), (b, 80), SYN), NotIsolated);
        node.expect(leaves(Host::A), &Frame::tcp((a, 9), (b, 81), SYN), WouldDeny);
        node.expect(arrives(Host::B, Host::A.veth()), &Frame::tcp((a, 9), (b, 80), SYN), NotIsolated);
        node.expect(arrives(Host::B, Host::Z.veth()), &Frame::tcp((z, 9), (b, 80), SYN), WouldDeny);
        // The connection lives like any other.
        node.expect(leaves(Host::B), &Frame::tcp((b, 80), (z, 9), SYN | ACK), Established);
        // What cannot be read is not dropped for its sake.
        node.expect_bytes(
            arrives(Host::B, Host::Z.veth()),
            &Frame::tcp((z, 9), (b, 80), SYN).bytes()[..if family == Family::V4 { 36 } else { 56 }],
            Outcome::Unparsed,
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
    let frontend = (service_at(Family::V4), 80);
    for (world, denied) in [(&enforced, DeniedBackend), (&audited, WouldDeny)] {
        let mut node = Node::new(world);
        node.expect(leaves(Host::A), &Frame::tcp((a, 9), frontend, SYN), Deferred);
        let [b, z] = [Host::B, Host::Z].map(|host| (host.at(Family::V4), 80));
        node.expect(arrives(Host::B, Host::A.veth()), &Frame::tcp((a, 9), b, SYN), NotIsolated);
        node.expect(arrives(Host::Z, Host::A.veth()), &Frame::tcp((a, 10), z, SYN), denied);
        // It is the sender's side that was evaluated.
        let event = node.reported.last().expect("it is reported");
        assert_eq!((event.ifindex, event.direction), (Host::A.veth(), Egress as u8));
    }
}

/// Asks for many ports of many hosts, all of which some policy tells apart.
#[test]
fn a_pod_that_scans_uses_up_its_own_share_of_counters_and_events_alone() {
    const HOSTS: u8 = 40;
    const PORTS: u16 = 40;
    let mut world = World::new().egress(Host::B, [allow(pods_like(Host::Z), port(Tcp, 80))]);
    // Each of these is a kind of its own.
    for host in 0..HOSTS {
        let block = block(&format!("198.51.100.{host}/32"), &[]);
        world = world.egress(Host::A, [allow(block, port(Tcp, 1_000 + u16::from(host)))]);
    }
    let mut node = Node::new(&world);
    let at = |host: u8| std::net::IpAddr::from([198, 51, 100, host]);
    let (a, b) = (Host::A.at(Family::V4), Host::B.at(Family::V4));
    let (mut allowed, mut denied) = (0, 0);
    for host in 0..HOSTS {
        for scanned in 1_000..1_000 + PORTS {
            let frame = Frame::tcp((a, 9), (at(host), scanned), SYN).bytes();
            match node.programs.run(leaves(Host::A), &frame) {
                true => allowed += 1,
                false => denied += 1,
            }
        }
    }
    assert_eq!((allowed, denied), (u64::from(HOSTS), u64::from(PORTS) * u64::from(HOSTS) - u64::from(HOSTS)));
    // All of them are counted, if not by what they are.
    let at_a = |outcome| (Host::A.veth(), Egress, outcome);
    assert_eq!(flow_counters(&node), BTreeMap::from([(at_a(Allowed), allowed), (at_a(Denied), denied)]));
    let shares = node.readers.flow_counters.shares().expect("the shares");
    assert_eq!(shares[&Host::A.veth()].flow_counters, Share::FLOW_COUNTERS);
    let beyond = u64::from(PORTS) * u64::from(HOSTS) - u64::from(Share::FLOW_COUNTERS);
    assert_eq!((node.lost(Unreported::CounterOfShare), node.lost(Unreported::FlowCounter)), (beyond, 0));
    // None of them is reported too often, but all of them together.
    let events = node.take_events();
    assert!(events.len() >= Share::EVENTS as usize, "{} events", events.len());
    assert!(node.lost(Unreported::EventOfShare) > 0 || events.len() > 512, "{} events", events.len());
    // What others do is counted and reported as before.
    for (from, to) in [(Host::B, at(1)), (Host::B, at(2))] {
        node.expect_bytes(leaves(from), &Frame::tcp((b, 9), (to, 80), SYN).bytes(), Denied);
        let event = node.reported.pop().expect("it is reported");
        assert_eq!((event.ifindex, event.outcome), (from.veth(), Denied as u8));
    }
    assert_eq!(flow_counters(&node)[&(Host::B.veth(), Egress, Denied)], 2);
}

#[test]
fn what_a_pod_does_to_another_is_in_its_own_share() {
    let mut node = Node::new(&World::new().ingress(Host::B, [allow(pods_like(Host::A), port(Tcp, 80))]));
    let (a, b, z) = (Host::A.at(Family::V4), Host::B.at(Family::V4), Host::Z.at(Family::V4));
    for source in 0..600 {
        // All of them are alike, and like what others will send.
        for destination in [81, 82, 83, 84, 85, 86, 87, 88] {
            let frame = Frame::tcp((z, 1_024 + source), (b, destination), SYN).bytes();
            assert!(!node.programs.run(arrives(Host::B, Host::Z.veth()), &frame));
        }
    }
    let _ = node.take_events();
    let shares = node.readers.flow_counters.shares().expect("the shares");
    assert_eq!(shares.keys().copied().collect::<Vec<_>>(), [Host::Z.veth()], "{shares:?}");
    node.expect(arrives(Host::B, Host::A.veth()), &Frame::tcp((a, 9), (b, 81), SYN), Denied);
    assert_eq!(node.reported.len(), 1);
    // No rule tells this one from Z. It comes from beyond the node: that is in the receiver's share.
    let outside = Host::Outside.at(Family::V4);
    node.expect(arrives(Host::B, UPLINK), &Frame::tcp((outside, 9), (b, 81), SYN), Denied);
    assert_eq!(node.reported.len(), 2);
    let shares = node.readers.flow_counters.shares().expect("the shares");
    let veths: Vec<_> = [Host::A, Host::B, Host::Z].map(Host::veth).into_iter().collect();
    assert!(veths.iter().all(|veth| shares.contains_key(veth)) && shares.len() == 3, "{shares:?}");
}

#[test]
fn flow_counters_of_a_veth_that_has_gone_are_removed_and_given_back_to_its_share() {
    let mut node = Node::new(&World::new().ingress(Host::B, [allow(pods_like(Host::A), port(Tcp, 80))]));
    let (a, b, z) = (Host::A.at(Family::V4), Host::B.at(Family::V4), Host::Z.at(Family::V4));
    for source in [a, z] {
        let veth = if source == a { Host::A } else { Host::Z };
        node.expect(arrives(Host::B, veth.veth()), &Frame::tcp((source, 9), (b, 81), SYN), Denied);
    }
    node.expect(leaves(Host::A), &Frame::tcp((a, 9), (b, 80), SYN), NotIsolated);
    let counted = |node: &Node| flow_counters(node).into_keys().map(|(veth, ..)| veth).collect::<Vec<_>>();
    let taken = |node: &Node| -> BTreeMap<u32, u32> {
        let shares = node.readers.flow_counters.shares().expect("the shares");
        shares.into_iter().map(|(veth, share)| (veth, share.flow_counters)).collect()
    };
    let mut veths = vec![Host::A.veth(), Host::B.veth()];
    veths.sort_unstable();
    assert_eq!(counted(&node), veths);
    let before = taken(&node);
    assert_eq!((before[&Host::A.veth()], before[&Host::Z.veth()]), (2, 1), "{before:?}");
    node.datapath.flow_counters.remove_gone(|veth| veth == Host::B.veth()).expect("the kernel removes them");
    assert_eq!(counted(&node), [Host::A.veth()]);
    let after = taken(&node);
    assert_eq!(
        (after[&Host::A.veth()], after.get(&Host::Z.veth()).copied().unwrap_or(0)),
        (1, 0),
        "{after:?}"
    );
}
