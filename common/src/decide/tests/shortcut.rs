//! The short cut, as far as it needs a clock or a VLAN tag, or connection tracking.

use super::*;
use crate::Tracked;

const HOOK: Hook = Hook { direction: Direction::Egress, ifindex: VETH, ingress_ifindex: VETH };

/// A node on which a connection between two pods, by its client's packet, takes the short cut.
fn node_with(question: &Frame) -> Node {
    let node = Node::new();
    node.has_shortcut.set(true);
    let (key, source_is_low) = FlowKey::of(&tuple(question));
    let seen = Seen::REPLY.with(Seen::SHORTCUT, true).with(Seen::CLIENT_IS_LOW, source_is_low);
    let (client_if, server_if, last) = (VETH, NEXT_VETH, node.now.get());
    let seen = seen.with(Seen::ANSWERED, true).with(Seen::ROUTED, true);
    let flow = Flow { client_if, server_if, ingress_ifindex: VETH, last, seen, ..Flow::EMPTY };
    node.flows.borrow_mut().insert(key, flow);
    node
}

/// To whom it is handed.
fn receiver(node: &Node, frame: &Frame, is_tagged: bool) -> u32 {
    let bytes = frame.bytes();
    let packet = Sent { bytes: &bytes, is_tagged, ..Sent::default() };
    match is_established(&packet, &HOOK, node) {
        passage if passage.passes() => passage.receiver(),
        _ => {
            let mut scratch = Scratch::EMPTY;
            assert!(decide(&packet, &mut scratch, &HOOK, node).passes());
            scratch.receiver
        }
    }
}

/// Else its next packet came through the node, where connection tracking has forgotten it.
#[test]
fn a_connection_stays_on_it_when_it_was_silent_for_as_long_as_it_lives() {
    let (tcp, udp) =
        (Frame::tcp((pod(), 9), (neighbour(), 80), flag::ACK), Frame::udp((pod(), 9), (neighbour(), 53), 9));
    for (frame, seconds) in [(tcp, 432_000), (udp, 120)] {
        for (silence, expected) in [(seconds * SECOND, NEXT_VETH), (seconds * SECOND + 1, 0)] {
            let node = node_with(&frame);
            node.wait(silence);
            assert_eq!(receiver(&node, &frame, false), expected, "{frame:?} after {silence} ticks");
        }
    }
}

#[test]
fn no_packet_with_a_vlan_tag_takes_it() {
    let question = Frame::udp((neighbour(), 9), (pod(), 53), 9);
    let answer = question.reversed();
    let refused = Frame::unreachable(pod(), &question);
    let node = node_with(&answer);
    for frame in [answer, refused] {
        assert_eq!(receiver(&node, &frame, false), NEXT_VETH, "{frame:?}");
        assert_eq!(receiver(&node, &frame, true), 0, "{frame:?} with a tag");
    }
}

/// The client has sent the same to the server itself, where a rule of the node has dropped it.
#[test]
fn what_connection_tracking_has_translated_has_not_opened_a_connection_directly() {
    for frame in
        [Frame::tcp((pod(), 9), (neighbour(), 80), flag::SYN), Frame::udp((pod(), 9), (neighbour(), 53), 9)]
    {
        let original = tuple(&frame);
        let to_service = Tuple { destination: server().into(), ..original };
        let tracked = |original| Tracked { original, reply: tuple(&frame).reversed(), is_reply: false };
        for (tracked, is_direct) in
            [(None, true), (Some(tracked(original)), true), (Some(tracked(to_service)), false)]
        {
            let node = Node::new();
            node.has_shortcut.set(true);
            let bytes = frame.bytes();
            let packet = Sent { bytes: &bytes, tracked, ..Sent::default() };
            let arrives = Hook { direction: Direction::Ingress, ifindex: NEXT_VETH, ingress_ifindex: VETH };
            for hook in [HOOK, arrives] {
                assert!(decide(&packet, &mut { Scratch::EMPTY }, &hook, &node).passes());
            }
            let flows = node.flows.borrow();
            let opened = flows.values().any(|flow| flow.seen.has(Seen::OPENED_DIRECTLY));
            assert_eq!(opened, is_direct, "{tracked:?}");
        }
    }
}
