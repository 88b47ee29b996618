//! Tables whose look-ups are recorded.

use super::{TraceStep, TracedLookup, step::FlowStep};
use crate::{
    Address, ClassId, Endpoint, FilteredAs, Flow, FlowKey, FlowSummary, FragmentKey, HEARD_BY_NODE,
    IdentityId, LinkAddress, Lookup, NAMES_OF_ADDRESS, NameId, Outcome, PolicyLookup, PortPair, PortUse,
    Protocol, Reach, Resolver, Row, RowKey, RuleProtocol, Seen, ServiceEnd, ServiceId, ServiceKey,
    TableSetIndex, Tables, Timeout, TunnelPort, Tuple,
};

/// Takes the steps of one decision after the other.
pub trait Recorder {
    fn record(&self, step: TraceStep);

    /// [`Tables::listed_owner`], recorded. This and the next ones are asked for where a program has no room
    /// left on its stack, so that the kernel's recorder has functions of its own for them.
    #[inline(always)]
    fn owner<T: Tables>(&self, tables: &T, address: &Address) -> Option<u32> {
        let listed = tables.listed_owner(address);
        let owner = listed.filter(|owner| *owner < HEARD_BY_NODE);
        self.record(TraceStep::of(&TracedLookup::Owner { address: *address, owner }));
        listed
    }

    /// [`Tables::endpoint`], recorded.
    #[inline(always)]
    fn endpoint<T: Tables>(&self, tables: &T, ifindex: u32) -> Endpoint {
        let found = tables.endpoint(ifindex);
        self.record(TraceStep::of(&TracedLookup::endpoint(ifindex, &found)));
        found
    }

    /// Records what a rule set was asked about a peer, and what it has found, when it has answered: its
    /// look-ups are made in functions of the kernel's that have no room for more on their stack.
    #[inline(always)]
    fn evaluated<T: Tables>(&self, tables: &T, evaluated: &Evaluated<'_>) {
        let record_row = |key| {
            let row = tables.row(evaluated.table_set, &key);
            self.record(TraceStep::of(&TracedLookup::row(&key, evaluated.policy_lookup.class, row.as_ref())));
        };
        evaluated.record(|step| self.record(step), record_row);
    }
}

/// What a rule set was asked.
#[derive(Clone, Copy, Debug)]
pub struct Evaluated<'a> {
    pub table_set: TableSetIndex,
    /// The other end.
    pub peer: Address,
    /// The client's.
    pub tuple: &'a Tuple,
    /// What was found.
    pub policy_lookup: &'a PolicyLookup,
    /// The destination of a connection that its pod opens may be a service's, and the node's own.
    pub is_egress: bool,
}

impl Evaluated<'_> {
    /// Hands the steps on, and the key of the row that was read last.
    #[inline(always)]
    pub fn record(&self, record: impl Fn(TraceStep), record_row: impl FnOnce(RowKey)) {
        let Self { table_set: _, peer: address, tuple, policy_lookup, is_egress } = *self;
        let PolicyLookup { policy, identity, class, is_to_node, .. } = *policy_lookup;
        let is_service = class.0 == PolicyLookup::SERVICE.0;
        let (port, protocol) = (tuple.destination_port, tuple.protocol);
        if is_egress {
            let service = is_service.then_some(ServiceId(identity.0));
            #[expect(clippy::cast_possible_truncation, reason = "IP protocol numbers have 8 bits")]
            record(TraceStep::of(&TracedLookup::Service {
                address,
                port,
                protocol: protocol as u16,
                service,
            }));
        }
        if is_service {
            return record_row(RowKey::of_service(policy, ServiceId(identity.0)));
        }
        let (protocol, place) = RuleProtocol::of_packet(protocol, tuple.source_port, port);
        record(TraceStep::of(&TracedLookup::Identity { address, identity }));
        record(TraceStep::of(&TracedLookup::Class { protocol, place, class }));
        // One key: two would stand side by side on the stack.
        let mut key = RowKey::new(policy, identity, class);
        key.block |= if is_egress && is_to_node { RowKey::OWN_NODE } else { 0 };
        record_row(key);
    }
}

/// The first one's tables; the second one takes what is looked up in them.
#[derive(Clone, Copy, Debug)]
pub struct Traced<T, R>(pub T, pub R);

impl<T: Tables, R: Recorder> Tables for Traced<T, R> {
    type FlowHandle = T::FlowHandle;
    type Entry = T::Entry;

    #[inline(always)]
    fn endpoint(&self, ifindex: u32) -> Endpoint {
        self.1.endpoint(&self.0, ifindex)
    }

    #[inline(always)]
    fn link_address(&self, ifindex: u32) -> LinkAddress {
        let found = self.0.link_address(ifindex);
        self.1.record(TraceStep::of(&TracedLookup::LinkAddress { ifindex, is_bound: found.is_of(ifindex) }));
        found
    }

    #[inline(always)]
    fn listed_owner(&self, address: &Address) -> Option<u32> {
        self.1.owner(&self.0, address)
    }

    #[inline(always)]
    fn is_node(&self, address: &Address) -> bool {
        self.0.is_node(address)
    }

    #[inline(always)]
    fn tunnel_port(&self, port: u16) -> TunnelPort {
        self.0.tunnel_port(port)
    }

    #[inline(always)]
    fn has_tunnel_key(&self, key: &ServiceKey) -> bool {
        self.0.has_tunnel_key(key)
    }

    #[inline(always)]
    fn identity(&self, table_set: TableSetIndex, address: &Address) -> IdentityId {
        self.0.identity(table_set, address)
    }

    #[inline(always)]
    fn class(&self, table_set: TableSetIndex, protocol: RuleProtocol, place: u16) -> ClassId {
        self.0.class(table_set, protocol, place)
    }

    #[inline(always)]
    fn row(&self, table_set: TableSetIndex, key: &RowKey) -> Option<Row> {
        self.0.row(table_set, key)
    }

    #[inline(always)]
    fn service(&self, table_set: TableSetIndex, key: &ServiceKey) -> Option<ServiceId> {
        self.0.service(table_set, key)
    }

    #[inline(always)]
    fn filter_word(&self, word: u32) -> u64 {
        self.0.filter_word(word)
    }

    #[inline(always)]
    fn flow(&self, lookup: &mut Lookup, reach: Reach) -> Option<T::FlowHandle> {
        let found = self.0.flow(lookup, reach);
        let Flow { client_if, server_if, seen, last, .. } = lookup.flow;
        let entry = found.is_some().then_some(FlowStep { client_if, server_if, seen, last });
        self.1.record(TraceStep::of(&TracedLookup::Flow { entry }));
        found
    }

    #[inline(always)]
    fn known_flow(&self, key: &FlowKey, reach: Reach) -> Option<(FlowSummary, T::Entry)> {
        self.0.known_flow(key, reach)
    }

    #[inline(always)]
    fn touch_flow(&self, entry: T::Entry, now: u32) {
        self.0.touch_flow(entry, now);
    }

    #[inline(always)]
    fn mark_flow(&self, entry: T::Entry, seen: Seen) {
        self.0.mark_flow(entry, seen);
    }

    #[inline(always)]
    fn put_flow(&self, lookup: &Lookup, flow: &Flow) -> bool {
        let is_entered = self.0.put_flow(lookup, flow);
        let Flow { client_if, server_if, .. } = *flow;
        self.1.record(TraceStep::of(&TracedLookup::Entered { is_entered, client_if, server_if }));
        is_entered
    }

    #[inline(always)]
    fn refresh_flow(&self, place: T::FlowHandle, lookup: &Lookup, now: u32, seen: Seen) {
        self.0.refresh_flow(place, lookup, now, seen);
    }

    #[inline(always)]
    fn resolver(&self, key: &ServiceKey) -> Resolver {
        self.0.resolver(key)
    }

    #[inline(always)]
    fn names(&self, table: u32, address: &Address, names: &mut [NameId; NAMES_OF_ADDRESS]) {
        self.0.names(table, address, names);
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<PortPair> {
        let ports = self.0.fragment(key);
        // Marks of other things stand beside them.
        if key.protocol & FragmentKey::MARK == 0 {
            self.1.record(TraceStep::of(&TracedLookup::Fragment { ports }));
        }
        ports
    }

    #[inline(always)]
    fn put_fragment(&self, key: &FragmentKey, ports: PortPair, charged_to: u32) {
        self.0.put_fragment(key, ports, charged_to);
    }

    #[inline(always)]
    fn now(&self) -> u32 {
        self.0.now()
    }

    #[inline(always)]
    fn revision(&self) -> u32 {
        self.0.revision()
    }

    #[inline(always)]
    fn timeout(&self, of: Timeout) -> u32 {
        self.0.timeout(of)
    }

    #[inline(always)]
    fn refresh(&self) -> u32 {
        self.0.refresh()
    }

    #[inline(always)]
    fn recheck(&self) -> bool {
        self.0.recheck()
    }

    #[inline(always)]
    fn passes_masqueraded(&self) -> bool {
        self.0.passes_masqueraded()
    }

    #[inline(always)]
    fn passes_encapsulation(&self) -> bool {
        self.0.passes_encapsulation()
    }

    #[inline(always)]
    fn has_shortcut(&self) -> bool {
        self.0.has_shortcut()
    }

    #[inline(always)]
    fn host_service(&self, key: &ServiceKey) -> Option<ServiceEnd> {
        self.0.host_service(key)
    }

    #[inline(always)]
    fn host_port(&self, protocol: Protocol, port: u16) -> PortUse {
        self.0.host_port(protocol, port)
    }

    #[inline(always)]
    fn host_change_expired(&self) -> bool {
        self.0.host_change_expired()
    }

    #[inline(always)]
    fn is_open(&self, ifindex: u32) -> bool {
        self.0.is_open(ifindex)
    }

    #[inline(always)]
    fn note_sender(&self, address: &Address, pod: u32, is_rewritten: bool, is_masqueraded: bool) {
        self.1.record(TraceStep::of(&TracedLookup::Sender {
            address: *address,
            pod,
            is_rewritten,
            is_masqueraded,
        }));
    }

    #[inline(always)]
    fn by_policy(
        &self,
        peer: &Address,
        tuple: &Tuple,
        endpoint: &Endpoint,
        policy_lookup: &mut PolicyLookup,
    ) -> Outcome {
        let outcome = self.0.by_policy(peer, tuple, endpoint, policy_lookup);
        let (table_set, peer) = (endpoint.table_set, *peer);
        self.1.evaluated(&self.0, &Evaluated { table_set, peer, tuple, policy_lookup, is_egress: false });
        outcome
    }

    #[inline(always)]
    fn by_names(&self, tuple: &Tuple, endpoint: &Endpoint, policy_lookup: &mut PolicyLookup) -> bool {
        // As one step: the rules of each name and part would be many.
        let is_allowed = self.0.by_names(tuple, endpoint, policy_lookup);
        self.1.record(TraceStep::of(&TracedLookup::Names { address: tuple.destination, is_allowed }));
        is_allowed
    }

    #[inline(always)]
    fn is_own(&self, address: &Address, endpoint: &Endpoint, ifindex: u32) -> bool {
        let is_own = self.0.is_own(address, endpoint, ifindex);
        // What it has found, which says who has the address otherwise.
        let _ = self.1.owner(&self.0, address);
        is_own
    }

    #[inline(always)]
    fn is_filtered(&self, kind: FilteredAs, address: &Address) -> bool {
        self.0.is_filtered(kind, address)
    }

    #[inline(always)]
    fn by_egress(&self, tuple: &Tuple, endpoint: &Endpoint, policy_lookup: &mut PolicyLookup) -> Outcome {
        let outcome = self.0.by_egress(tuple, endpoint, policy_lookup);
        let (table_set, peer) = (endpoint.table_set, tuple.destination);
        if outcome as u8 != Outcome::OwnAddress as u8 {
            self.1.evaluated(&self.0, &Evaluated { table_set, peer, tuple, policy_lookup, is_egress: true });
        }
        outcome
    }
}
