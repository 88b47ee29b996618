//! What the agent enters into the table of a pod's names, beside what the programs learn.

use std::net::IpAddr;

use podgate_common::{
    Direction::Egress,
    NameAnswer::{self, Entered, Gone, Refused},
    NameCount,
};
use podgate_core::{
    compiler::NamePlace,
    model::{Action, Ports, Tier},
};

use super::{
    Family, Host, Node, RESOLVER, address, connection, everywhere, exchange, leaves, reply, rule, with, world,
};
use crate::world::World;

/// The table of A, the only pod that has one.
const TABLE: u32 = 1;

fn place(name: &str, left: u32) -> NamePlace {
    (name.split('.').map(|label| label.as_bytes().into()).collect(), left)
}

fn enter(node: &Node, table: u32, name: &NamePlace, at: IpAddr, seconds: u32) -> Option<NameAnswer> {
    let asker = (Host::A.veth(), table);
    node.datapath.names.enter(asker, name, at, seconds).expect("the kernel answers")
}

fn is_open(node: &Node, at: IpAddr) -> bool {
    node.programs.run(leaves(Host::A), &connection(at, 443).bytes())
}

fn seconds_left(node: &Node, at: IpAddr) -> Vec<u64> {
    let found = node.readers.names.find(TABLE, at).expect("it is read");
    found.iter().filter_map(|it| it.left).map(|left| left.as_secs()).collect()
}

#[test]
fn what_is_entered_opens_as_what_a_reply_has_taught() {
    let node = Node::new(&world(&["api.example.com"]));
    let name = place("api.example.com", 0);
    for (at, other) in [("198.51.100.7", "198.51.100.8"), ("2001:db8:7::7", "2001:db8:7::8")] {
        let (at, other) = (address(at), address(other));
        assert!(!is_open(&node, at));
        assert_eq!(enter(&node, TABLE, &name, at, 30), Some(Entered));
        assert!(is_open(&node, at) && !is_open(&node, other));
        assert!(!node.programs.run(leaves(Host::A), &connection(at, 80).bytes()), "another port");
        assert!((58..=60).contains(&seconds_left(&node, at)[0]), "the least time counts");
        // It becomes longer, never shorter, and is one entry.
        assert_eq!(enter(&node, TABLE, &name, at, 300), Some(Entered));
        assert_eq!(enter(&node, TABLE, &name, at, 1), Some(Entered));
        let left = seconds_left(&node, at);
        assert!(left.len() == 1 && (298..=300).contains(&left[0]), "{left:?}");
    }
    assert_eq!(node.named(NameCount::Learnt), 0, "no reply was read");
}

#[test]
fn what_no_name_may_open_is_refused() {
    let node = Node::new(&world(&["api.example.com"]));
    let name = place("api.example.com", 0);
    for special in ["127.0.0.1", "169.254.169.254", "224.0.0.1", "::1", "fe80::1", "fd00:ec2::254"] {
        assert_eq!(enter(&node, TABLE, &name, address(special), 30), Some(Refused), "{special}");
        assert!(!is_open(&node, address(special)));
    }
    // Addresses of nodes are left out where a connection is evaluated.
    let other = Host::OtherNode.at(Family::V4);
    assert_eq!(enter(&node, TABLE, &name, other, 30), Some(Entered));
    assert!(!is_open(&node, other));
}

#[test]
fn an_answer_that_comes_too_late_opens_nothing() {
    let mut node = Node::new(&world(&["api.example.com"]));
    let (at, name) = (address("198.51.100.7"), place("api.example.com", 0));
    assert_eq!(enter(&node, TABLE + 1, &name, at, 30), Some(Gone), "another pod's table");
    assert_eq!(enter(&node, 0, &name, at, 30), Some(Gone));
    assert_eq!(enter(&node, TABLE, &place("never.test", 0), at, 30), None, "no rule has it");
    // Its rule has gone, and others are there.
    node.publish(&world(&["other.test"]));
    let _ = enter(&node, TABLE, &name, at, 30);
    assert!(!is_open(&node, at));
    // All its rules have gone, and so has its table.
    node.publish(&without_names());
    assert_eq!(enter(&node, TABLE, &name, at, 30), Some(Gone));
}

fn without_names() -> World {
    with(World::new(), Tier::Admin, Host::A, Egress, rule(Action::Deny, everywhere(), Ports::Any))
}

#[test]
fn the_agent_and_replies_write_to_one_table() {
    let mut node = Node::new(&world(&["*.wild.test", "api.test"]));
    let of = |last: u8| IpAddr::from([198, 51, 100, last]);
    let learnt: Vec<IpAddr> = (0..40).map(of).collect();
    exchange(&mut node, Family::V4, (RESOLVER, 53), 40_000, &reply("a.wild.test", &learnt));
    for last in 20..60 {
        assert_eq!(enter(&node, TABLE, &place("wild.test", 1), of(last), 90), Some(Entered));
    }
    for last in 0..60 {
        let left = seconds_left(&node, of(last));
        let expected = if last < 20 { 58..=60 } else { 88..=90 };
        assert!(left.len() == 1 && expected.contains(&left[0]), "{last}: {left:?}");
        assert!(is_open(&node, of(last)));
    }
    assert!(!is_open(&node, of(99)));
}
