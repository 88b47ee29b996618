//! What needs a clock of its own or a table that fails. Everything else is tested on the real programs and on
//! [`decide`] side by side, with crafted packets.

use core::{
    cell::{Cell, RefCell},
    net::IpAddr,
};
use std::collections::BTreeMap;

use super::*;
use crate::{
    ClassId, EndpointState, FlowKey, FragmentKey, IdentityId, Known, Lookup, PolicyId, Ports, Protocol,
    Reach, Row, RowKey, ServiceId, ServiceKey, Slot, Timeouts,
    frames::{Frame, flag},
};

const VETH: u32 = 7;
const UPLINK: u32 = 2;
/// The veth of another pod.
const NEXT_VETH: u32 = 8;
const SECOND: u32 = 100;

/// A node with one pod behind [`VETH`], isolated both ways; `allows` is its policy.
struct Node {
    allows: Cell<bool>,
    flows: RefCell<BTreeMap<FlowKey, Flow>>,
    now: Cell<u32>,
    /// Ticks that pass with each look-up of a connection, with the entry refreshed by another CPU after that.
    busy: Cell<u32>,
    full: Cell<bool>,
    recheck: Cell<bool>,
}

impl Node {
    fn new() -> Self {
        Self {
            allows: Cell::new(true),
            flows: RefCell::default(),
            now: Cell::new(u32::MAX - 10 * SECOND),
            busy: Cell::new(0),
            full: Cell::new(false),
            recheck: Cell::new(false),
        }
    }

    fn sends(&self, frame: &Frame) -> Outcome {
        self.judge(Hook { direction: Direction::Egress, ifindex: VETH, via: 0 }, frame)
    }

    fn receives(&self, frame: &Frame) -> Outcome {
        self.receives_from(UPLINK, frame)
    }

    fn receives_from(&self, via: u32, frame: &Frame) -> Outcome {
        self.judge(Hook { direction: Direction::Ingress, ifindex: VETH, via }, frame)
    }

    /// Enters a connection that is older than the agent, of which the pod is the server.
    fn knows_older(&self, client: (IpAddr, u16), port: u16) {
        let ((source, source_port), protocol) = (client, number::TCP);
        let (source, destination) = (source.into(), pod().into());
        let tuple = Tuple { source, destination, source_port, destination_port: port, protocol };
        let (key, source_is_low) = FlowKey::of(&tuple);
        let seen = Seen::REPLY.with(Seen::CLIENT_IS_LOW, source_is_low);
        let (via, last) = (Flow::ANY_VIA, self.now.get());
        let flow = Flow { server_if: VETH, via, last, seen, ..Flow::EMPTY };
        self.flows.borrow_mut().insert(key, flow);
    }

    fn judge(&self, hook: Hook, frame: &Frame) -> Outcome {
        let bytes = frame.bytes();
        let packet = bytes.as_slice();
        let at_sight = is_established_at_sight(&packet, || hook, self);
        let at_once = is_established(&packet, &hook, self);
        // A program that serves both hooks takes a packet that the node sends back for one of the pod's.
        let sent_back = Hook { direction: Direction::Egress, ..hook };
        let taken_for_another =
            is_established(&packet, &sent_back, self).filter(|_| hook.via == hook.ifindex);
        let outcome = decide(&packet, &mut { Scratch::EMPTY }, &hook, self);
        let passes = "the fast path lets pass what is";
        assert!(at_once.is_none() || outcome == Outcome::Established, "{passes} {outcome:?}");
        assert!(at_sight.is_none() || at_sight == at_once, "at first sight {passes} not established");
        assert!(taken_for_another.is_none() || outcome.passes(), "{passes} {outcome:?}");
        outcome
    }

    fn wait(&self, ticks: u32) {
        self.now.set(self.now.get().wrapping_add(ticks));
    }
}

impl Tables for Node {
    type Place = ();
    type Entry = FlowKey;

    fn endpoint(&self, _: u32) -> Endpoint {
        Endpoint {
            state: EndpointState::Known as u32,
            ingress: PolicyId(1),
            egress: PolicyId(1),
            ..Endpoint::HELD
        }
    }

    fn owner(&self, address: &Address) -> Option<u32> {
        let owners = [(pod(), VETH), (neighbour(), NEXT_VETH)];
        owners.into_iter().find(|(owned, _)| *address == (*owned).into()).map(|(_, owner)| owner)
    }

    fn identity(&self, _: Slot, _: &Address) -> IdentityId {
        IdentityId::NONE
    }

    fn class(&self, _: Slot, _: Protocol, _: u16) -> ClassId {
        ClassId::NONE
    }

    fn row(&self, _: Slot, _: &RowKey) -> Option<Row> {
        self.allows.get().then_some(Row([1, 0, 0, 0]))
    }

    fn service(&self, _: Slot, _: &ServiceKey) -> Option<ServiceId> {
        None
    }

    fn flow(&self, lookup: &mut Lookup) -> Option<()> {
        self.wait(self.busy.get());
        lookup.flow = *self.flows.borrow().get(&lookup.key)?;
        lookup.flow.last = lookup.flow.last.wrapping_add(self.busy.get());
        Some(())
    }

    fn known_flow(&self, key: &FlowKey, _: Reach) -> Option<(Known, FlowKey)> {
        self.flows.borrow().get(key).map(|flow| (flow.known(), *key))
    }

    fn touch_flow(&self, entry: FlowKey, now: u32) {
        self.flows.borrow_mut().get_mut(&entry).expect("it was found").last = now;
    }

    fn mark_flow(&self, entry: FlowKey, seen: Seen) {
        self.flows.borrow_mut().get_mut(&entry).expect("it was found").seen = seen;
    }

    fn put_flow(&self, lookup: &Lookup, flow: &Flow) -> bool {
        if !self.full.get() {
            self.flows.borrow_mut().insert(lookup.key, *flow);
        }
        !self.full.get()
    }

    fn refresh_flow(&self, (): (), lookup: &Lookup, now: u32, seen: Seen) {
        let mut flows = self.flows.borrow_mut();
        let flow = flows.get_mut(&lookup.key).expect("an entry that was found");
        (flow.last, flow.seen) = (now, seen);
    }

    fn fragment(&self, _: &FragmentKey) -> Option<Ports> {
        None
    }

    fn put_fragment(&self, _: &FragmentKey, _: Ports) {}

    fn now(&self) -> u32 {
        self.now.get()
    }

    fn epoch(&self) -> u32 {
        1
    }

    fn timeout(&self, of: Timeout) -> u32 {
        Timeouts::with_ticks_per_second(SECOND).get(of)
    }

    fn refresh(&self) -> u32 {
        Timeouts::with_ticks_per_second(SECOND).refresh
    }

    fn recheck(&self) -> bool {
        self.recheck.get()
    }

    fn passes_masqueraded(&self) -> bool {
        false
    }
}

fn pod() -> IpAddr {
    IpAddr::from([10, 0, 0, 1])
}

/// A pod behind [`NEXT_VETH`].
fn neighbour() -> IpAddr {
    IpAddr::from([10, 0, 0, 2])
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
fn an_entry_ends_when_nothing_was_heard_for_its_time() {
    // (what is exchanged before the silence, seconds that the entry lives on)
    let closed = [tcp(flag::FIN | flag::ACK), tcp_reply(flag::FIN | flag::ACK)];
    let reset = [tcp_reply(flag::RST)];
    let syn_ack = [tcp_reply(flag::SYN | flag::ACK)];
    let table: [(Frame, &[Frame], Frame, u32); 6] = [
        (udp(), &[], udp_reply(), 30),
        (udp(), &[udp_reply()], udp_reply(), 120),
        (tcp(flag::SYN), &[], tcp_reply(flag::ACK), 120),
        (tcp(flag::SYN), &syn_ack, tcp_reply(flag::ACK), 432_000),
        (tcp(flag::SYN), &closed, tcp_reply(flag::ACK), 120),
        (tcp(flag::SYN), &reset, tcp_reply(flag::ACK), 120),
    ];
    for (first, exchanged, after, seconds) in table {
        for (silence, expected) in
            [(seconds * SECOND, Outcome::Established), (seconds * SECOND + 1, Outcome::Denied)]
        {
            let node = Node::new();
            assert_eq!(node.sends(&first), Outcome::Allowed);
            node.allows.set(false);
            for frame in exchanged {
                let seen = if frame.source == pod() { node.sends(frame) } else { node.receives(frame) };
                assert_eq!(seen, Outcome::Established);
            }
            node.wait(silence);
            assert_eq!(node.receives(&after), expected, "{first:?}, {exchanged:?}, {silence} ticks");
        }
    }
}

#[test]
fn an_entry_in_use_lives_on_across_the_turn_of_the_clock() {
    let node = Node::new();
    assert_eq!(node.sends(&udp()), Outcome::Allowed);
    node.allows.set(false);
    for _ in 0..100 {
        node.wait(29 * SECOND);
        assert_eq!(node.receives(&udp_reply()), Outcome::Established);
    }
}

#[test]
fn an_entry_that_another_cpu_has_just_refreshed_is_alive() {
    let node = Node::new();
    assert_eq!(node.sends(&udp()), Outcome::Allowed);
    node.allows.set(false);
    node.busy.set(1);
    assert_eq!(node.receives(&udp_reply()), Outcome::Established);
}

#[test]
fn last_use_is_not_written_with_each_packet() {
    let node = Node::new();
    node.sends(&tcp(flag::SYN));
    node.receives(&tcp_reply(flag::SYN | flag::ACK));
    let last = || node.flows.borrow().values().next().expect("one connection").last;
    let first = last();
    for _ in 1..SECOND {
        node.wait(1);
        node.sends(&tcp(flag::ACK));
        assert_eq!(last(), first);
    }
    node.wait(1);
    node.sends(&tcp(flag::ACK));
    assert_eq!(last(), first.wrapping_add(SECOND));
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
    let flooded = Hook { direction: Direction::Ingress, ifindex: VETH + 1, via: UPLINK };
    assert_eq!(node.judge(flooded, &udp_reply()), Outcome::Allowed);
    assert_eq!(node.flows.borrow().len(), 0, "the address is that of the pod behind the other veth");
    assert_eq!(node.receives(&udp_reply()), Outcome::Allowed);
    assert_eq!(node.flows.borrow().len(), 1);
}

#[test]
fn a_connection_older_than_the_agent_goes_on_from_wherever_its_client_may_come() {
    let at_pod = (pod(), 80);
    // (client, where its packets come from, what becomes of them)
    let table = [
        (server(), UPLINK, Outcome::Established),
        (server(), NEXT_VETH, Outcome::Established),
        (neighbour(), NEXT_VETH, Outcome::Established),
        (neighbour(), UPLINK, Outcome::Spoofed),
        (neighbour(), VETH, Outcome::Spoofed),
    ];
    for (client, via, expected) in table {
        let node = Node::new();
        node.allows.set(false);
        let client = (client, 5_000);
        node.knows_older(client, at_pod.1);
        let flows = node.flows.borrow().clone();
        assert_eq!(node.sends(&Frame::tcp(at_pod, client, flag::ACK)), Outcome::Established);
        assert_eq!(node.receives_from(via, &Frame::tcp(client, at_pod, flag::ACK)), expected, "{client:?}");
        // Another connection of the same client is a new one, and so is this one when it begins anew.
        let other = (client.0, 5_001);
        for frame in [Frame::tcp(other, at_pod, flag::ACK), Frame::tcp(client, at_pod, flag::SYN)] {
            assert_ne!(node.receives_from(via, &frame), Outcome::Established, "{client:?}");
        }
        assert_eq!(*node.flows.borrow(), flows, "nothing was denied or made known");
    }
}

#[test]
fn a_connection_older_than_the_agent_is_judged_by_where_it_comes_from_once_that_is_known() {
    let (client, at_pod) = ((neighbour(), 5_000), (pod(), 80));
    let (question, reply) = (Frame::tcp(client, at_pod, flag::ACK), Frame::tcp(at_pod, client, flag::ACK));
    for (allows, expected) in [(true, Outcome::Allowed), (false, Outcome::Denied)] {
        let node = Node::new();
        node.recheck.set(true);
        node.allows.set(allows);
        node.knows_older(client, at_pod.1);
        let via = || node.flows.borrow().values().next().expect("one connection").via;
        // The server speaks first: the way of the client is not known yet.
        assert_eq!(node.sends(&reply), expected);
        assert_eq!(via(), Flow::ANY_VIA);
        node.knows_older(client, at_pod.1);
        assert_eq!(node.receives_from(NEXT_VETH, &question), expected);
        assert_eq!(via(), if allows { NEXT_VETH } else { Flow::ANY_VIA });
        // The node's own connections are never judged by a policy.
        node.knows_older(client, at_pod.1);
        assert_eq!(node.receives_from(NODE, &question), Outcome::OwnNode);
    }
}
