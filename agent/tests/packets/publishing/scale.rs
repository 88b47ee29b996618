//! As much as the largest clusters have: all of it counts, and a change is in force soon.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use podgate_common::{
    Outcome::{Allowed, Denied},
    Protocol::Tcp,
    frames::{Frame, flag},
};
use podgate_core::model::{IpBlock, Peer, Peers, Ports};

use crate::{
    node::Node,
    world::{Family, Host, UPLINK, World, all_pods, allow, arrives, labels, pods_like, port},
};

/// Addresses of every second /24 below 100.0.0.0/8.
fn network(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x6400_0000 | number << 9)
}

#[test]
fn ten_thousand_blocks_are_all_enforced() {
    const BLOCKS: u32 = 10_000;
    let block = |number| {
        let cidr = format!("{}/24", network(number)).parse().expect("a block");
        Peer::Block(IpBlock { cidr, except: [].into() })
    };
    let blocks = Peers::Listed((0..BLOCKS).map(block).collect());
    let mut node = Node::new(&World::new().ingress(Host::B, [allow(blocks, port(Tcp, 80))]));
    let b = (Host::B.at(Family::V4), 80);
    for number in 0..BLOCKS {
        let inside = u32::from(network(number)) | number & 0xff;
        for (from, expected) in [(inside, Allowed), (inside + 0x100, Denied)] {
            let frame = Frame::tcp((IpAddr::from(Ipv4Addr::from(from)), 9), b, flag::SYN);
            node.expect_bytes(arrives(Host::B, UPLINK), &frame.bytes(), expected);
        }
        if number % 1_000 == 0 {
            node.forget();
        }
    }
}

/// More than twice the nodes of which other systems' limits speak.
const PODS: u32 = 20_000;
const LIMIT: Duration = Duration::from_secs(1);

#[test]
fn a_policy_is_in_force_within_a_second_among_twenty_thousand_pods() {
    let mut before = World::new().egress(Host::A, [allow(all_pods(), Ports::Any)]);
    for number in 0..PODS {
        let mut pod = (*before.cluster.pods[&Host::Remote.name()]).clone();
        pod.name.name = format!("pod-{number}").into();
        pod.labels =
            labels(&[("app", &format!("app-{}", number % 200)), ("tier", &format!("{}", number % 3))]);
        pod.addresses = [Ipv4Addr::from(0x0a10_0000 + number).into()].into();
        before.cluster.pods.insert(pod.name.clone(), pod.into());
    }
    let mut node = Node::new(&before);
    let (a, b) = ((Host::A.at(Family::V4), 9), (Host::B.at(Family::V4), 80));
    let into_b = arrives(Host::B, Host::A.veth());
    let after = before.clone().ingress(Host::B, [allow(pods_like(Host::Z), Ports::Any)]);
    // The machine may be busy with other tests: the best of three counts.
    let mut best = Duration::MAX;
    for _ in 0..3 {
        node.publish(&before);
        node.forget();
        let start = Instant::now();
        node.publish(&after);
        best = best.min(start.elapsed());
        node.expect_bytes(into_b, &Frame::tcp(a, b, flag::SYN).bytes(), Denied);
    }
    println!("{best:?} from a new policy to its enforcement, {PODS} pods");
    // Only optimised code is in a hurry.
    if !cfg!(debug_assertions) {
        assert!(best < LIMIT, "{best:?} for {PODS} pods");
    }
    // Each of them is known.
    let last = IpAddr::from(Ipv4Addr::from(0x0a10_0000 + PODS - 1));
    let from_a = |to| Frame::tcp((Host::A.at(Family::V4), 9), (to, 80), flag::SYN).bytes();
    node.expect_bytes(crate::world::leaves(Host::A), &from_a(last), Allowed);
    let unowned = IpAddr::from(Ipv4Addr::from(0x0a10_0000 + PODS));
    node.expect_bytes(crate::world::leaves(Host::A), &from_a(unowned), Denied);
}
