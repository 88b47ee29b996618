//! What needs a clock of its own or a table that fails. Everything else is tested on the real programs and on
//! [`decide`] side by side, with crafted packets.

use core::{
    cell::{Cell, RefCell},
    net::IpAddr,
};
use std::collections::BTreeMap;

use super::*;
use crate::{
    ClassId, EndpointState, FlowKey, FlowSummary, FragmentKey, IdentityId, LinkAddress, Lookup, PolicyId,
    PortPair, Protocol, Reach, Row, RowKey, ServiceId, ServiceKey, Start, TableSetIndex, Timeouts, Tracked,
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
    fragments: RefCell<BTreeMap<FragmentKey, PortPair>>,
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
            fragments: RefCell::default(),
            now: Cell::new(u32::MAX - 10 * SECOND),
            busy: Cell::new(0),
            full: Cell::new(false),
            recheck: Cell::new(false),
        }
    }

    fn sends(&self, frame: &Frame) -> Outcome {
        self.verdict(Hook { direction: Direction::Egress, ifindex: VETH, ingress_ifindex: 0 }, frame)
    }

    fn receives(&self, frame: &Frame) -> Outcome {
        self.receives_from(UPLINK, frame)
    }

    fn receives_from(&self, ingress_ifindex: u32, frame: &Frame) -> Outcome {
        self.verdict(Hook { direction: Direction::Ingress, ifindex: VETH, ingress_ifindex }, frame)
    }

    /// Enters a connection that is older than the agent, of which the pod is the server.
    fn knows_older(&self, client: (IpAddr, u16), port: u16) {
        let ((source, source_port), protocol) = (client, number::TCP);
        let (source, destination) = (source.into(), pod().into());
        let tuple = Tuple { source, destination, source_port, destination_port: port, protocol };
        let (key, source_is_low) = FlowKey::of(&tuple);
        let seen = Seen::REPLY.with(Seen::CLIENT_IS_LOW, source_is_low);
        let (ingress_ifindex, last) = (Flow::ANY_INGRESS, self.now.get());
        let flow = Flow { server_if: VETH, ingress_ifindex, last, seen, ..Flow::EMPTY };
        self.flows.borrow_mut().insert(key, flow);
    }

    fn verdict(&self, hook: Hook, frame: &Frame) -> Outcome {
        let bytes = frame.bytes();
        let packet = bytes.as_slice();
        let v4_fast_path = established_v4_fast_path(&packet, || hook, self);
        let at_once = is_established(&packet, &hook, self);
        // A program that serves both hooks takes a packet that the node sends back for one of the pod's.
        let sent_back = Hook { direction: Direction::Egress, ..hook };
        let taken_for_another =
            is_established(&packet, &sent_back, self).filter(|_| hook.ingress_ifindex == hook.ifindex);
        let outcome = decide(&packet, &mut { Scratch::EMPTY }, &hook, self);
        let passes = "the fast path lets pass what is";
        assert!(at_once.is_none() || outcome == Outcome::Established, "{passes} {outcome:?}");
        assert!(
            v4_fast_path.is_none() || v4_fast_path == at_once,
            "on the fast path {passes} not established"
        );
        assert!(taken_for_another.is_none() || outcome.passes(), "{passes} {outcome:?}");
        outcome
    }

    fn wait(&self, ticks: u32) {
        self.now.set(self.now.get().wrapping_add(ticks));
    }
}

impl Tables for Node {
    type FlowHandle = ();
    type Entry = FlowKey;

    fn endpoint(&self, ifindex: u32) -> Endpoint {
        if ![VETH, NEXT_VETH].contains(&ifindex) {
            return Endpoint::PENDING;
        }
        Endpoint {
            state: EndpointState::Identified as u32,
            ingress: PolicyId(1),
            egress: PolicyId(1),
            ..Endpoint::PENDING
        }
    }

    fn owner(&self, address: &Address) -> Option<u32> {
        let owners = [(pod(), VETH), (neighbour(), NEXT_VETH), (node(), NODE), (v6("fd00::1"), VETH)]
            .into_iter()
            .chain([(v6("fd00::2"), NEXT_VETH), (v6("fd00:f::1"), NODE)]);
        let mut owners = owners;
        owners.find(|(owned, _)| *address == (*owned).into()).map(|(_, owner)| owner)
    }

    fn link_address(&self, _: u32) -> LinkAddress {
        LinkAddress::NONE
    }

    fn is_node(&self, _: &Address) -> bool {
        false
    }

    fn is_tunnel_port(&self, _: u16) -> bool {
        false
    }

    fn identity(&self, _: TableSetIndex, _: &Address) -> IdentityId {
        IdentityId::NONE
    }

    fn class(&self, _: TableSetIndex, _: Protocol, _: u16) -> ClassId {
        ClassId::NONE
    }

    fn row(&self, _: TableSetIndex, _: &RowKey) -> Option<Row> {
        self.allows.get().then_some(Row([1, 0, 0, 0]))
    }

    fn service(&self, _: TableSetIndex, _: &ServiceKey) -> Option<ServiceId> {
        None
    }

    fn flow(&self, lookup: &mut Lookup) -> Option<()> {
        self.wait(self.busy.get());
        lookup.flow = *self.flows.borrow().get(&lookup.key)?;
        lookup.flow.last = lookup.flow.last.wrapping_add(self.busy.get());
        Some(())
    }

    fn known_flow(&self, key: &FlowKey, _: Reach) -> Option<(FlowSummary, FlowKey)> {
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

    fn fragment(&self, key: &FragmentKey) -> Option<PortPair> {
        self.fragments.borrow().get(key).copied()
    }

    fn put_fragment(&self, key: &FragmentKey, ports: PortPair, _: u32) {
        self.fragments.borrow_mut().insert(*key, ports);
    }

    fn now(&self) -> u32 {
        self.now.get()
    }

    fn revision(&self) -> u32 {
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

    fn passes_encapsulation(&self) -> bool {
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

/// An address of the node's own.
fn node() -> IpAddr {
    IpAddr::from([172, 16, 0, 1])
}

fn v6(text: &str) -> IpAddr {
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
    let flooded = Hook { direction: Direction::Ingress, ifindex: VETH + 1, ingress_ifindex: UPLINK };
    assert_eq!(node.verdict(flooded, &udp_reply()), Outcome::Allowed);
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
    for (client, ingress_ifindex, expected) in table {
        let node = Node::new();
        node.allows.set(false);
        let client = (client, 5_000);
        node.knows_older(client, at_pod.1);
        let flows = node.flows.borrow().clone();
        assert_eq!(node.sends(&Frame::tcp(at_pod, client, flag::ACK)), Outcome::Established);
        assert_eq!(
            node.receives_from(ingress_ifindex, &Frame::tcp(client, at_pod, flag::ACK)),
            expected,
            "{client:?}"
        );
        // Another connection of the same client is a new one, and so is this one when it begins again.
        let other = (client.0, 5_001);
        for frame in [Frame::tcp(other, at_pod, flag::ACK), Frame::tcp(client, at_pod, flag::SYN)] {
            assert_ne!(node.receives_from(ingress_ifindex, &frame), Outcome::Established, "{client:?}");
        }
        assert_eq!(*node.flows.borrow(), flows, "nothing was denied or made known");
    }
}

#[test]
fn a_connection_older_than_the_agent_is_evaluated_by_where_it_comes_from_once_that_is_known() {
    let (client, at_pod) = ((neighbour(), 5_000), (pod(), 80));
    let (evaluation, reply) = (Frame::tcp(client, at_pod, flag::ACK), Frame::tcp(at_pod, client, flag::ACK));
    for (allows, expected) in [(true, Outcome::Allowed), (false, Outcome::Denied)] {
        let node = Node::new();
        node.recheck.set(true);
        node.allows.set(allows);
        node.knows_older(client, at_pod.1);
        let ingress_ifindex = || node.flows.borrow().values().next().expect("one connection").ingress_ifindex;
        // The server speaks first: the way of the client is not known yet.
        assert_eq!(node.sends(&reply), expected);
        assert_eq!(ingress_ifindex(), Flow::ANY_INGRESS);
        node.knows_older(client, at_pod.1);
        assert_eq!(node.receives_from(NEXT_VETH, &evaluation), expected);
        assert_eq!(ingress_ifindex(), if allows { NEXT_VETH } else { Flow::ANY_INGRESS });
        // The node's own connections are never evaluated by a policy.
        let client = (self::node(), 5_000);
        node.knows_older(client, at_pod.1);
        assert_eq!(node.receives_from(NODE, &Frame::tcp(client, at_pod, flag::ACK)), Outcome::OwnNode);
    }
}

/// A packet with what the kernel knows of it.
#[derive(Clone, Copy)]
struct Sent<'a> {
    bytes: &'a [u8],
    tracked: Option<Tracked>,
    has_socket: bool,
}

impl Packet for Sent<'_> {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.bytes.read(offset)
    }

    fn start<const LENGTH: usize>(&self) -> Option<impl Start> {
        self.bytes.start::<LENGTH>()
    }

    fn pull(&self) {}

    fn tracked(&self, into: &mut Tracked) -> bool {
        self.tracked.inspect(|tracked| *into = *tracked).is_some()
    }

    fn has_local_socket(&self) -> bool {
        self.has_socket
    }
}

/// As connection tracking has it, of a client whose packets are rewritten from `original` to `translated`.
fn translated(original: &Frame, translated: &Frame) -> Tracked {
    let tuple = |frame: &Frame| Tuple {
        source: frame.source.into(),
        destination: frame.destination.into(),
        protocol: u32::from(frame.protocol),
        source_port: u16::from_be_bytes([frame.payload[0], frame.payload[1]]),
        destination_port: u16::from_be_bytes([frame.payload[2], frame.payload[3]]),
    };
    Tracked { original: tuple(original), reply: tuple(translated).reversed(), is_reply: false }
}

impl Node {
    /// What becomes of a packet that comes to the pod from no interface.
    fn receives_from_nowhere(&self, frame: &Frame, tracked: Option<Tracked>, has_socket: bool) -> Outcome {
        let bytes = frame.bytes();
        let packet = Sent { bytes: &bytes, tracked, has_socket };
        let hook = Hook { direction: Direction::Ingress, ifindex: VETH, ingress_ifindex: NODE };
        decide(&packet, &mut { Scratch::EMPTY }, &hook, self)
    }
}

#[test]
fn no_ingress_interface_is_the_node_only_with_its_address_and_in_one_piece_or_with_its_socket() {
    let datagram = |from: &str| Frame::udp((v6(from), 9), (v6("fd00::1"), 53), 100);
    let part = |from: &str| datagram(from).fragments(7, 10).remove(0);
    let (own, other, spoofed) = (Outcome::OwnNode, Outcome::Denied, Outcome::Spoofed);
    // (packet, what becomes of it without a socket of the node's)
    let table = [
        (datagram("fd00:f::1"), own),
        (datagram("fe80::1"), own),
        (datagram("::"), own),
        (datagram("2001:db8::1"), other),
        // A pod's address, and no packet of it was seen at the pod's veth.
        (datagram("fd00::2"), spoofed),
        (part("fd00:f::1"), other),
        (part("fe80::1"), other),
        (part("::"), other),
        (part("2001:db8::1"), other),
        (part("fd00::2"), spoofed),
        // IPv4 parts keep the interface that their datagram came by.
        (Frame::udp((node(), 9), (pod(), 53), 100).fragments(7, 5).remove(0), own),
        (Frame::udp((server(), 9), (pod(), 53), 100).fragments(7, 5).remove(0), other),
    ];
    for (frame, expected) in table {
        for (has_socket, expected) in [(false, expected), (true, own)] {
            let node = Node::new();
            node.allows.set(false);
            assert_eq!(node.receives_from_nowhere(&frame, None, has_socket), expected, "{frame:?}");
        }
    }
}

#[test]
fn a_masqueraded_packet_without_ingress_interface_is_not_the_nodes() {
    let to_service = Frame::tcp((v6("fd00::2"), 9), (v6("fd00:96::1"), 80), flag::SYN);
    let rewritten = Frame::tcp((v6("fd00:f::1"), 9), (v6("fd00::1"), 80), flag::SYN);
    let from_elsewhere = Frame { source: v6("2001:db8::1"), ..to_service.clone() };
    for (original, expected) in [(&to_service, Outcome::Spoofed), (&from_elsewhere, Outcome::Denied)] {
        let node = Node::new();
        node.allows.set(false);
        let tracked = Some(translated(original, &rewritten));
        assert_eq!(node.receives_from_nowhere(&rewritten, tracked, false), expected);
        assert_eq!(node.receives_from_nowhere(&rewritten, None, false), Outcome::OwnNode);
    }
    // The pod's own veth has seen it.
    let node = Node::new();
    let leaves = Hook { direction: Direction::Egress, ifindex: NEXT_VETH, ingress_ifindex: NEXT_VETH };
    assert_eq!(node.verdict(leaves, &to_service), Outcome::Allowed);
    let tracked = Some(translated(&to_service, &rewritten));
    assert_eq!(node.receives_from_nowhere(&rewritten, tracked, false), Outcome::Allowed);
    assert_eq!(
        node.receives_from_nowhere(&rewritten, None, false),
        Outcome::OwnNode,
        "of its own it says nothing"
    );
}

#[test]
fn a_pods_packet_without_ingress_interface_passes_when_its_connection_was_seen_at_the_pods_veth() {
    let whole = Frame::udp((v6("fd00::2"), 9), (v6("fd00::1"), 53), 100);
    let part = whole.fragments(7, 10).remove(0);
    let leaves = Hook { direction: Direction::Egress, ifindex: NEXT_VETH, ingress_ifindex: NEXT_VETH };
    let node = Node::new();
    assert_eq!(node.receives_from_nowhere(&part, None, false), Outcome::Spoofed);
    assert_eq!(node.verdict(leaves, &whole), Outcome::Allowed);
    assert_eq!(node.receives_from_nowhere(&part, None, false), Outcome::Allowed);
    node.allows.set(false);
    assert_eq!(node.receives_from_nowhere(&part, None, false), Outcome::Established);
    // It counts as having come by that veth.
    assert_eq!(node.receives_from(NEXT_VETH, &whole), Outcome::Established);
    // Of another connection nothing was seen.
    let other = Frame::udp((v6("fd00::2"), 9), (v6("fd00::1"), 54), 100).fragments(7, 10).remove(0);
    assert_eq!(node.receives_from_nowhere(&other, None, false), Outcome::Spoofed);
}

#[test]
fn nothing_rides_on_the_entry_of_the_nodes_own_connection() {
    for from in ["fd00:f::1", "2001:db8::1"] {
        let whole = Frame::udp((v6(from), 9), (v6("fd00::1"), 53), 100);
        let part = whole.fragments(7, 10).remove(0);
        let node = Node::new();
        node.allows.set(false);
        // With its socket the node may speak in the name of others.
        assert_eq!(node.receives_from_nowhere(&whole, None, true), Outcome::OwnNode);
        assert_eq!(node.receives_from_nowhere(&part, None, false), Outcome::Denied, "from {from}");
        assert_eq!(node.receives_from_nowhere(&part, None, true), Outcome::Established, "from {from}");
        assert_eq!(node.receives_from_nowhere(&whole, None, true), Outcome::Established, "from {from}");
    }
}

#[test]
fn an_init_is_evaluated_whatever_is_known_of_its_association() {
    let sctp = |chunk| Frame::sctp((pod(), 5_000), (server(), 80), chunk);
    let reply = |chunk| Frame::sctp((server(), 80), (pod(), 5_000), chunk);
    let [init, init_ack, data, abort, shutdown_complete] = [1, 2, 0, 6, 14];
    for end in [None, Some(abort), Some(shutdown_complete)] {
        let node = Node::new();
        assert_eq!(node.sends(&sctp(init)), Outcome::Allowed);
        assert_eq!(node.receives(&reply(init_ack)), Outcome::Established);
        if let Some(end) = end {
            assert_eq!(node.receives(&reply(end)), Outcome::Established);
        }
        node.allows.set(false);
        assert_eq!(node.sends(&sctp(data)), Outcome::Established);
        assert_eq!(node.sends(&sctp(init)), Outcome::Denied);
        assert_eq!(node.receives(&reply(init)), Outcome::Denied);
        // What is over is soon forgotten.
        node.wait(100 * SECOND);
        let later = if end.is_some() { Outcome::Denied } else { Outcome::Established };
        assert_eq!(node.sends(&sctp(data)), later, "after {end:?}");
    }
}

#[test]
fn an_answer_of_dhcp_is_let_in_while_it_was_asked_for() {
    let ip = |text: &str| -> IpAddr { text.parse().expect("a literal of the test") };
    let asks = |from: &str| Frame::udp((ip(from), 68), (ip("255.255.255.255"), 67), 100);
    let answers = |to: &str| Frame::udp((server(), 67), (ip(to), 68), 100);
    let node = Node::new();
    node.allows.set(false);
    for to in ["255.255.255.255", "10.0.0.99", "10.0.0.1"] {
        assert_eq!(node.receives(&answers(to)), Outcome::Denied, "nobody has asked");
    }
    for from in ["0.0.0.0", "10.0.0.1"] {
        assert_eq!(node.sends(&asks(from)), Outcome::Dhcp);
        for to in ["255.255.255.255", "10.0.0.99", "10.0.0.1"] {
            assert_eq!(node.receives(&answers(to)), Outcome::Dhcp);
        }
        assert_eq!(node.receives(&answers("10.0.0.2")), Outcome::Denied, "another pod's address");
        let relayed = |port| Frame::udp((server(), port), (pod(), 68), 100);
        assert_eq!(node.receives(&relayed(68)), Outcome::Denied);
        node.wait(30 * SECOND + 1);
        assert_eq!(node.receives(&answers("10.0.0.1")), Outcome::Denied, "too late");
    }
    assert_eq!(node.sends(&asks("10.0.0.2")), Outcome::Spoofed);
    assert_eq!(node.sends(&Frame::udp((pod(), 68), (server(), 67), 100)), Outcome::Denied, "not to everyone");
}
