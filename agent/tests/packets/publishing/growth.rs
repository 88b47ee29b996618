//! A table that is too small is replaced: in another slot, behind the back of no one.

use std::net::IpAddr;

use podgate_common::{
    Outcome, Protocol,
    frames::{Frame, flag},
};
use podgate_core::model::{IpBlock, Peer, Peers, Ports, Rule};

use super::verdicts::{assert_compiled_verdicts, assert_verdicts, settle};
use crate::{
    node::Node,
    world::{Family, Host, UPLINK, World, allow, arrives, leaves, pods_like, port},
};

/// More than the rows that a table has room for at first.
const CROWD: u32 = 4_200;

/// So many outside addresses, each an identity of its own, may reach B: one half on port 80, the other on
/// port 81.
fn crowd(size: u32) -> World {
    let peers = |is_one: &dyn Fn(u32) -> bool| {
        let numbers = (0..size).filter(|number| is_one(*number));
        Peers::Listed(
            numbers
                .map(|number| Peer::Block(IpBlock { cidr: address(number).into(), except: [].into() }))
                .collect(),
        )
    };
    // By the last ones no two addresses have the same rules.
    let rules: [Rule; 16] = std::array::from_fn(|at| match u16::try_from(at).expect("small") {
        0 => allow(pods_like(Host::A), port(Protocol::Tcp, 80)),
        1 => allow(peers(&|number| number % 2 == 0), port(Protocol::Tcp, 80)),
        2 => allow(peers(&|number| number % 2 == 1), port(Protocol::Tcp, 81)),
        bit => allow(peers(&|number| number >> (bit - 3) & 1 == 1), port(Protocol::Tcp, 9_000 + bit)),
    });
    World::new().ingress(Host::B, rules)
}

fn address(number: u32) -> IpAddr {
    let [_, _, high, low] = number.to_be_bytes();
    IpAddr::from([10, 3, high, low])
}

#[test]
fn more_rows_than_there_is_room_for_move_to_another_slot() {
    let small = crowd(10);
    let mut node = Node::new(&small);
    let (a, b) = ((Host::A.at(Family::V4), 40_000), (Host::B.at(Family::V4), 80));
    node.expect(arrives(Host::B, Host::A.veth()), &Frame::tcp(a, b, flag::SYN), Outcome::Allowed);
    let before = node.pinned.read();
    let large = crowd(CROWD);
    node.publish(&large);
    let after = node.pinned.read();
    assert_ne!(before.table_set(), after.table_set(), "each identity takes a row");
    assert_eq!(after.sets.len(), 1, "the old slot is empty");
    assert_compiled_verdicts(&mut node, &large);
    // Connections live on; every address has its port.
    node.expect(leaves(Host::B), &Frame::tcp(b, a, flag::ACK), Outcome::Established);
    for number in [0, 1, 255, 256, CROWD - 1] {
        let (from, open) = ((address(number), 9), if number % 2 == 0 { 80 } else { 81 });
        for to in [80, 81] {
            let outcome = if to == open { Outcome::Allowed } else { Outcome::Denied };
            node.expect(arrives(Host::B, UPLINK), &Frame::tcp(from, (b.0, to), flag::SYN), outcome);
        }
    }
    // Small again: the room stays, the rows go.
    settle(&mut node, &small);
    let shrunk = node.pinned.read();
    assert_eq!(shrunk.table_set(), after.table_set());
    assert_eq!(shrunk.set().sizes(), before.set().sizes());
    assert_verdicts(&mut node, &small);
}

#[test]
fn tables_that_grow_keep_nothing_of_the_rules_before() {
    let mut node = Node::new(&World::new().egress(Host::Z, [allow(Peers::Any, Ports::Any)]));
    let large = crowd(CROWD);
    settle(&mut node, &large);
    let grown = node.pinned.read().set().sizes();
    let mut fresh = Node::new(&large);
    settle(&mut fresh, &large);
    assert_eq!(grown, fresh.pinned.read().set().sizes());
}
