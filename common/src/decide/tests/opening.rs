//! Whose address a new connection comes from, where its client's own veth has just said so.

use super::*;
use crate::Tracked;

const LEAVES: Hook = Hook { direction: Direction::Egress, ifindex: VETH, ingress_ifindex: VETH };
const ARRIVES: Hook = Hook { direction: Direction::Ingress, ifindex: NEXT_VETH, ingress_ifindex: VETH };

fn syn() -> Frame {
    Frame::tcp((pod(), 5_000), (neighbour(), 80), flag::SYN)
}

impl Node {
    /// How many owners of addresses the decision on a packet looks up.
    fn owners_asked_for(&self, hook: Hook, frame: &Frame) -> u32 {
        let before = self.owners_asked_for.get();
        let bytes = frame.bytes();
        assert!(decide(&bytes.as_slice(), &mut { Scratch::EMPTY }, &hook, self).passes());
        self.owners_asked_for.get() - before
    }

    /// The only connection.
    fn entry(&self) -> Flow {
        *self.flows.borrow().values().next().expect("one connection")
    }
}

#[test]
fn whose_a_senders_address_is_was_found_where_it_has_left_its_pod() {
    let (from, of_link) = ((ip("fd00::1"), 5_000), (ip("fe80::1"), 5_000));
    for frame in [
        syn(),
        Frame::udp((pod(), 5_000), (neighbour(), 53), 9),
        Frame::tcp(from, (ip("fd00::2"), 80), flag::SYN),
        Frame::tcp(of_link, (ip("fd00::2"), 80), flag::SYN),
    ] {
        let node = Node::new();
        assert!(node.verdict(LEAVES, &frame).passes());
        let sent = node.entry();
        let asked_for = node.owners_asked_for(ARRIVES, &frame);
        let arrived = node.entry();
        assert_eq!(arrived.client_if, VETH);
        // Had it to be looked up, it would be found to be the same.
        let unknown = Flow { seen: sent.seen.without(Seen::OWN_ADDRESS), ..sent };
        node.flows.borrow_mut().values_mut().for_each(|flow| *flow = unknown);
        assert_eq!(node.owners_asked_for(ARRIVES, &frame), asked_for + 1, "{frame:?}");
        let seen = node.entry().seen.with(Seen::OWN_ADDRESS, true);
        assert_eq!(Flow { seen, ..node.entry() }, arrived, "{frame:?}");
    }
}

#[test]
fn an_address_that_its_pod_has_sent_from_comes_from_no_other_veth() {
    let node = Node::new();
    assert_eq!(node.verdict(LEAVES, &syn()), Outcome::Allowed);
    for ingress_ifindex in [UPLINK, FREE, NEXT_VETH] {
        let elsewhere = Hook { ingress_ifindex, ..ARRIVES };
        assert_eq!(node.verdict(elsewhere, &syn()), Outcome::Spoofed, "from {ingress_ifindex}");
    }
    assert_eq!(node.verdict(ARRIVES, &syn()), Outcome::Allowed);
}

/// As connection tracking says of a packet whose address the node has put in place of another one.
fn arrives_translated(node: &Node) -> Flow {
    let frame = syn();
    let original = Tuple { source: server().into(), ..tuple(&frame) };
    let tracked = Tracked { original, reply: tuple(&frame).reversed(), is_reply: false };
    let bytes = frame.bytes();
    let packet = Sent { bytes: &bytes, tracked: Some(tracked), ..Sent::default() };
    assert!(decide(&packet, &mut { Scratch::EMPTY }, &ARRIVES, node).passes());
    node.entry()
}

#[test]
fn an_address_that_was_a_pods_is_not_taken_for_its_own_after_a_change() {
    let node = Node::new();
    assert_eq!(node.verdict(LEAVES, &syn()), Outcome::Allowed);
    assert!(!arrives_translated(&node).seen.has(Seen::REWRITTEN));
    node.lost.set(true);
    node.revision.set(2);
    assert!(arrives_translated(&node).seen.has(Seen::REWRITTEN));
}

/// A pod that is not known may send from any address that no one has.
#[test]
fn an_address_that_is_not_known_to_be_a_pods_is_looked_up() {
    let node = Node::new();
    node.lost.set(true);
    assert_eq!(node.verdict(LEAVES, &syn()), Outcome::NotIsolated);
    assert!(arrives_translated(&node).seen.has(Seen::REWRITTEN));
}

#[test]
fn what_was_found_of_an_address_ends_with_the_evaluation_that_found_it() {
    // At the receiver's veth, which evaluates the sender after a change.
    let node = Node::new();
    assert_eq!(node.verdict(LEAVES, &syn()), Outcome::Allowed);
    assert!(node.entry().seen.has(Seen::OWN_ADDRESS));
    node.revision.set(2);
    assert_eq!(node.verdict(ARRIVES, &syn()), Outcome::Allowed);
    assert_eq!((node.entry().client_revision, node.entry().seen.has(Seen::OWN_ADDRESS)), (2, false));
    // At the sender's own.
    let node = Node::new();
    node.recheck.set(true);
    let ack = Frame::tcp((pod(), 5_000), (neighbour(), 80), flag::ACK);
    assert_eq!(node.verdict(LEAVES, &ack), Outcome::Allowed);
    node.lost.set(true);
    node.revision.set(2);
    assert_eq!(node.verdict(LEAVES, &ack), Outcome::NotIsolated);
    assert_eq!((node.entry().client_revision, node.entry().seen.has(Seen::OWN_ADDRESS)), (2, false));
}

/// Where packets leave the node, under an address that it has put in place of the pod's.
#[test]
fn an_address_of_the_nodes_is_not_taken_for_a_pods_own() {
    let node = Node::new();
    let ack = Frame::tcp((self::node(), 5_000), (server(), 80), flag::ACK);
    let (key, source_is_low) = FlowKey::of(&tuple(&ack));
    let seen = Seen::DEFERRED.with(Seen::OWN_ADDRESS, true).with(Seen::CLIENT_IS_LOW, source_is_low);
    let flow = Flow { client_if: VETH, last: node.now.get(), seen, ..Flow::EMPTY };
    node.flows.borrow_mut().insert(key, flow);
    let bytes = ack.bytes();
    let outcome = decide_on_wire(&bytes.as_slice(), &mut { Scratch::EMPTY }, VETH, &node);
    assert_eq!(outcome, Some(Outcome::Allowed));
    assert_eq!((node.entry().client_if, node.entry().seen.has(Seen::OWN_ADDRESS)), (VETH, false));
}
