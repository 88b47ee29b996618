//! The tables of a node whose clock and room a test sets.

use core::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use super::*;
use crate::{
    ClassId, EndpointState, FlowSummary, FragmentKey, HEARD_BY_NODE, HostKey, IdentityId, LinkAddress,
    Lookup, NAMES_OF_ADDRESS, NameId, OTHER_NODE, PolicyId, PortPair, PortUse, Protocol, Reach, Resolver,
    Row, RowKey, RuleProtocol, ServiceEnd, ServiceId, ServiceKey, TableSetIndex, Timeouts, TunnelPort,
    protocol::number,
};

/// A node with one pod behind [`VETH`], isolated both ways; `allows` is its policy.
pub(super) struct Node {
    pub(super) allows: Cell<bool>,
    pub(super) flows: RefCell<BTreeMap<FlowKey, Flow>>,
    pub(super) fragments: RefCell<BTreeMap<FragmentKey, PortPair>>,
    pub(super) now: Cell<u32>,
    /// Ticks that pass with each look-up of a connection, with the entry refreshed by another CPU after that.
    pub(super) busy: Cell<u32>,
    pub(super) full: Cell<bool>,
    pub(super) recheck: Cell<bool>,
    pub(super) revision: Cell<u32>,
    /// The agent publishes this revision in the moment after an endpoint was read.
    pub(super) next_revision: Cell<Option<u32>>,
    /// It is not known any more which pod is behind [`VETH`], nor whose its address is.
    pub(super) lost: Cell<bool>,
    /// So often it was asked whose an address is.
    pub(super) owners_asked_for: Cell<u32>,
    /// There is a short cut, and it is open everywhere.
    pub(super) has_shortcut: Cell<bool>,
    pub(super) host_ports: RefCell<BTreeMap<u16, PortUse>>,
    pub(super) host_services: RefCell<BTreeMap<ServiceKey, ServiceEnd>>,
    /// A change of host endpoints was not confirmed in time.
    pub(super) host_change_expired: Cell<bool>,
    /// Host endpoints, by their keys.
    pub(super) hosts: RefCell<BTreeMap<u32, Endpoint>>,
}

impl Node {
    pub(super) fn new() -> Self {
        Self {
            allows: Cell::new(true),
            flows: RefCell::default(),
            fragments: RefCell::default(),
            now: Cell::new(u32::MAX - 10 * SECOND),
            busy: Cell::new(0),
            full: Cell::new(false),
            recheck: Cell::new(false),
            revision: Cell::new(1),
            next_revision: Cell::default(),
            lost: Cell::new(false),
            owners_asked_for: Cell::default(),
            has_shortcut: Cell::new(false),
            host_ports: RefCell::default(),
            host_services: RefCell::default(),
            host_change_expired: Cell::new(false),
            hosts: RefCell::default(),
        }
    }

    pub(super) fn sends(&self, frame: &Frame) -> Outcome {
        self.verdict(Hook { direction: Direction::Egress, ifindex: VETH, ingress_ifindex: 0 }, frame)
    }

    pub(super) fn receives(&self, frame: &Frame) -> Outcome {
        self.receives_from(UPLINK, frame)
    }

    pub(super) fn receives_from(&self, ingress_ifindex: u32, frame: &Frame) -> Outcome {
        self.verdict(Hook { direction: Direction::Ingress, ifindex: VETH, ingress_ifindex }, frame)
    }

    /// Enters a connection that is older than the agent, of which the pod is the server.
    pub(super) fn knows_older(&self, client: (IpAddr, u16), port: u16) {
        let ((source, source_port), protocol) = (client, number::TCP);
        let (source, destination) = (source.into(), pod().into());
        let tuple = Tuple { source, destination, source_port, destination_port: port, protocol };
        let (key, source_is_low) = FlowKey::of(&tuple);
        let seen = Seen::REPLY.with(Seen::CLIENT_IS_LOW, source_is_low);
        let (ingress_ifindex, last) = (Flow::ANY_INGRESS, self.now.get());
        let flow = Flow { server_if: VETH, ingress_ifindex, last, seen, ..Flow::EMPTY };
        self.flows.borrow_mut().insert(key, flow);
    }

    pub(super) fn verdict(&self, hook: Hook, frame: &Frame) -> Outcome {
        let bytes = frame.bytes();
        let packet = bytes.as_slice();
        let first_look = established_v4_fast_path(&packet, || hook, self);
        let at_once = passage(is_established(&packet, &hook, self));
        // A program that serves both hooks takes a packet that the node sends back for one of the pod's.
        let sent_back = Hook { direction: Direction::Egress, ..hook };
        let taken_for_another = passage(is_established(&packet, &sent_back, self))
            .filter(|_| hook.ingress_ifindex == hook.ifindex);
        let outcome = decide(&packet, &mut { Scratch::EMPTY }, &hook, self);
        let passes = "the fast path lets pass what is";
        assert!(at_once.is_none() || outcome == Outcome::Established, "{passes} {outcome:?}");
        match first_look {
            FirstLook::Passes(direction) => {
                assert_eq!(Some(direction.direction()), at_once, "on the first look {passes} not");
            }
            FirstLook::Opens => {
                assert_eq!(at_once, None, "on the first look a packet opens what is established");
            }
            FirstLook::Unknown => {}
        }
        assert!(taken_for_another.is_none() || outcome.passes(), "{passes} {outcome:?}");
        outcome
    }

    pub(super) fn wait(&self, ticks: u32) {
        self.now.set(self.now.get().wrapping_add(ticks));
    }
}

impl Tables for Node {
    type FlowHandle = ();
    type Entry = FlowKey;

    fn endpoint(&self, ifindex: u32) -> Endpoint {
        if let Some(revision) = self.next_revision.take() {
            self.revision.set(revision);
        }
        if HostKey::is_host(ifindex) {
            return self.hosts.borrow().get(&ifindex).copied().unwrap_or(Endpoint::PENDING);
        }
        if ifindex == FREE {
            return Endpoint { state: EndpointState::Identified as u32, ..Endpoint::PENDING };
        }
        if ![VETH, NEXT_VETH].contains(&ifindex) {
            return Endpoint::PENDING;
        }
        if ifindex == VETH && self.lost.get() {
            return Endpoint { state: EndpointState::Unmanaged as u32, ..Endpoint::PENDING };
        }
        Endpoint {
            v4: if ifindex == VETH { pod().into() } else { neighbour().into() },
            state: EndpointState::Identified as u32,
            ingress: PolicyId(1),
            egress: PolicyId(1),
            ..Endpoint::PENDING
        }
    }

    fn listed_owner(&self, address: &Address) -> Option<u32> {
        self.owners_asked_for.set(self.owners_asked_for.get() + 1);
        if self.lost.get() && *address == pod().into() {
            return None;
        }
        let owners = [
            (pod(), VETH),
            (neighbour(), NEXT_VETH),
            (node(), NODE),
            (ip("fd00::1"), VETH),
            (ip("fd00::2"), NEXT_VETH),
            (ip("fd00:f::1"), NODE),
            (ip("172.16.0.2"), OTHER_NODE),
            (ip("172.16.0.255"), HEARD_BY_NODE),
            (ip("10.96.0.9"), HEARD_BY_NODE),
        ];
        owners.into_iter().find(|(owned, _)| *address == (*owned).into()).map(|(_, owner)| owner)
    }

    fn link_address(&self, _: u32) -> LinkAddress {
        LinkAddress::NONE
    }

    fn tunnel_port(&self, port: u16) -> TunnelPort {
        let listens = !self.hosts.borrow().is_empty() && port == 4_789;
        if listens { TunnelPort::OF_NODES } else { TunnelPort::NONE }
    }

    fn has_tunnel_key(&self, _: &ServiceKey) -> bool {
        false
    }

    fn identity(&self, _: TableSetIndex, _: &Address) -> IdentityId {
        IdentityId::NONE
    }

    fn class(&self, _: TableSetIndex, _: RuleProtocol, _: u16) -> ClassId {
        ClassId::NONE
    }

    fn row(&self, _: TableSetIndex, _: &RowKey) -> Option<Row> {
        self.allows.get().then_some(Row([1, 0, 0, 0]))
    }

    fn service(&self, _: TableSetIndex, _: &ServiceKey) -> Option<ServiceId> {
        None
    }

    fn filter_word(&self, _: u32) -> u64 {
        0
    }

    /// As if no entry stood where it is looked for first.
    fn flow(&self, lookup: &mut Lookup, reach: Reach) -> Option<()> {
        self.wait(self.busy.get());
        lookup.flow = *self.flows.borrow().get(&lookup.key).filter(|_| reach == Reach::Everywhere)?;
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

    fn resolver(&self, _: &ServiceKey) -> Resolver {
        Resolver::NONE
    }

    fn names(&self, _: u32, _: &Address, _: &mut [NameId; NAMES_OF_ADDRESS]) {}

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
        self.revision.get()
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

    fn has_shortcut(&self) -> bool {
        self.has_shortcut.get()
    }

    fn host_service(&self, key: &ServiceKey) -> Option<ServiceEnd> {
        self.host_services.borrow().get(key).copied()
    }

    fn host_port(&self, _: Protocol, port: u16) -> PortUse {
        self.host_ports.borrow().get(&port).copied().unwrap_or_default()
    }

    fn host_change_expired(&self) -> bool {
        self.host_change_expired.get()
    }

    fn is_open(&self, _: u32) -> bool {
        self.has_shortcut.get()
    }
}

/// The direction in which a packet passes on its entry, if it does.
fn passage(passage: Passage) -> Option<Direction> {
    passage.passes().then(|| passage.direction())
}
