//! What needs a clock of its own or a table that fails. Everything else is tested on the real programs and on
//! [`decide`] side by side, with crafted packets.

use core::net::IpAddr;

use super::*;
use crate::{
    ClassId, FlowKey, IdentityId, PolicyId, PolicyLookup,
    frames::{Frame, flag},
};

mod host;
mod lifetime;
mod node;
mod nowhere;
mod older;
mod opening;
mod sent;
mod shortcut;

use node::Node;
use sent::{Sent, tuple};

const VETH: u32 = 7;

const UPLINK: u32 = 2;

/// The veth of another pod.
const NEXT_VETH: u32 = 8;

/// The interface of a pod that nothing isolates.
const FREE: u32 = 9;

const SECOND: u32 = 100;

fn pod() -> IpAddr {
    IpAddr::from([10, 0, 0, 1])
}

/// A pod behind [`NEXT_VETH`].
fn neighbour() -> IpAddr {
    IpAddr::from([10, 0, 0, 2])
}

/// An address of the node's own.
fn node() -> IpAddr {
    IpAddr::from([172, 16, 0, 1])
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("a literal of the test")
}

fn server() -> IpAddr {
    IpAddr::from([192, 0, 2, 1])
}

fn udp() -> Frame {
    Frame::udp((pod(), 5_000), (server(), 53), 0)
}

fn udp_reply() -> Frame {
    Frame::udp((server(), 53), (pod(), 5_000), 0)
}

fn tcp(flags: u8) -> Frame {
    Frame::tcp((pod(), 5_000), (server(), 80), flags)
}

fn tcp_reply(flags: u8) -> Frame {
    Frame::tcp((server(), 80), (pod(), 5_000), flags)
}

#[test]
fn a_connection_that_has_no_room_in_the_table_is_dropped_and_says_so() {
    let node = Node::new();
    node.full.set(true);
    assert_eq!(node.sends(&tcp(flag::SYN)), Outcome::FlowTable);
    assert_eq!(node.receives(&tcp_reply(flag::SYN)), Outcome::FlowTable);
    node.full.set(false);
    assert_eq!(node.sends(&tcp(flag::SYN)), Outcome::Allowed);
}

#[test]
fn a_frame_that_was_flooded_leaves_no_entry() {
    let node = Node::new();
    let flooded = Hook { direction: Direction::Ingress, ifindex: VETH + 1, ingress_ifindex: UPLINK };
    assert_eq!(node.verdict(flooded, &udp_reply()), Outcome::Allowed);
    assert_eq!(node.flows.borrow().len(), 0, "the address is that of the pod behind the other veth");
    assert_eq!(node.receives(&udp_reply()), Outcome::Allowed);
    assert_eq!(node.flows.borrow().len(), 1);
}

/// The memory of a run is used again and again.
#[test]
fn nothing_is_left_of_the_packet_before() {
    let mut scratch = Scratch::EMPTY;
    scratch.policy_lookup = PolicyLookup {
        policy: PolicyId(9),
        identity: IdentityId(9),
        class: ClassId(9),
        is_to_node: true,
        ..scratch.policy_lookup
    };
    let dirty =
        Flow { client_if: 9, server_if: 9, ingress_ifindex: 9, last: 9, seen: Seen::RST, ..Flow::EMPTY };
    let dirty = Flow { client_revision: 9, server_revision: 9, ..dirty };
    for direction in Direction::ALL {
        let hook = Hook { direction, ifindex: VETH, ingress_ifindex: NEXT_VETH };
        let mut used = scratch;
        used.begin(&hook);
        let fresh = PolicyLookup { ifindex: VETH, direction, ..PolicyLookup::NOTHING };
        assert_eq!(used.policy_lookup, fresh);
        let (mut opened, mut expected) = (dirty, Flow::EMPTY);
        opened.open(&hook, true, 5);
        match direction {
            Direction::Egress => expected.client_if = VETH,
            Direction::Ingress => (expected.server_if, expected.ingress_ifindex) = (VETH, NEXT_VETH),
        }
        assert_eq!(opened, Flow { last: 5, seen: Seen::CLIENT_IS_LOW, ..expected });
    }
}
