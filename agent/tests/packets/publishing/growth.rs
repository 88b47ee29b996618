//! A table that is too small is replaced: in another slot, behind the back of nobody.

use podgate::model::{NetworkPolicy, ObjectName, Peer, Peers, Pod, Ports, Rule};
use podgate_common::{
    Outcome, Protocol,
    frames::{Frame, flag},
};

use super::verdicts::{assert_verdicts, settle};
use crate::{
    node::Node,
    world::{Family, Host, World, allow, app, arrives, ip, labels, leaves, pods_like, port},
};

/// Pods of another node, each an identity of its own, all of which may reach B on each of many ports.
fn crowd(size: u16) -> World {
    let mut world = World::new().ingress(Host::B, [allow(pods_like(Host::A), port(Protocol::Tcp, 80))]);
    for number in 0..size {
        let name = format!("crowd-{number}");
        let [high, low] = number.to_be_bytes();
        world.cluster.pods.insert(
            ObjectName::new("x", &*name),
            Pod {
                name: ObjectName::new("x", &*name),
                labels: labels(&[("app", &name)]),
                node: Some("n2".into()),
                addresses: vec![ip(&format!("10.3.{high}.{low}")), ip(&format!("fd00:3::{number:x}"))],
                host_network: false,
                ports: vec![],
            },
        );
        let policy = ObjectName::new("x", &*name);
        let peer = Peer::Pods { namespaces: None, pods: app(&name) };
        let rule = Rule { peers: Peers::Listed(vec![peer]), ports: port(Protocol::Tcp, number + 1) };
        world.cluster.policies.insert(
            policy.clone(),
            NetworkPolicy { name: policy, subject: app("b"), ingress: Some(vec![rule]), egress: None },
        );
    }
    world
}

#[test]
fn more_rows_than_there_is_room_for_move_to_another_slot() {
    let small = crowd(10);
    let mut node = Node::new(&small);
    let (a, b) = ((Host::A.at(Family::V4), 40_000), (Host::B.at(Family::V4), 80));
    node.expect(arrives(Host::B, Host::A.veth()), &Frame::tcp(a, b, flag::SYN), Outcome::Allowed);
    let before = node.pinned.read();
    let large = crowd(1_500);
    node.publish(&large);
    let after = node.pinned.read();
    assert_ne!(before.slot(), after.slot(), "1,500 identities in 6 blocks of port classes do not fit");
    assert_eq!(after.sets.len(), 1, "the old slot is empty");
    assert_verdicts(&node, &large);
    // Connections live on; every identity has its own port.
    node.expect(leaves(Host::B), &Frame::tcp(b, a, flag::ACK), Outcome::Established);
    for number in [0, 1, 255, 256, 1_499_u16] {
        let [high, low] = number.to_be_bytes();
        let from = ip(&format!("10.3.{high}.{low}"));
        for (to, outcome) in [(number + 1, Outcome::Allowed), (number + 2, Outcome::Denied)] {
            let syn = Frame::tcp((from, 9), (b.0, to), flag::SYN);
            node.expect(arrives(Host::B, crate::world::UPLINK), &syn, outcome);
        }
    }
    // Small again: the room stays, the rows go.
    settle(&mut node, &small);
    let shrunk = node.pinned.read();
    assert_eq!(shrunk.slot(), after.slot());
    assert_eq!(shrunk.set().sizes(), before.set().sizes());
    assert_verdicts(&node, &small);
}

#[test]
fn tables_that_grow_keep_nothing_of_the_rules_before() {
    let mut node = Node::new(&World::new().egress(Host::Z, [allow(Peers::Any, Ports::Any)]));
    let large = crowd(1_500);
    settle(&mut node, &large);
    let grown = node.pinned.read().set().sizes();
    let mut fresh = Node::new(&large);
    settle(&mut fresh, &large);
    assert_eq!(grown, fresh.pinned.read().set().sizes());
}
