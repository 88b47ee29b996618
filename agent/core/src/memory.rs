//! The kernel's side in user space: compiled tables, endpoints and flows in ordinary collections, behind the
//! same trait that the BPF programs implement over maps. Used by `matrix`, and by tests that compare with the
//! kernel.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use podgate_common::{
    Address, ClassId, Endpoint, FilteredAs, Flow, FlowKey, FlowSummary, FragmentKey, IdentityId, LinkAddress,
    Lookup, NAMES_OF_ADDRESS, NameId, PolicyId, PortPair, PortUse, Protocol, Reach, Resolver, Row, RowKey,
    RuleProtocol, Seen, ServiceEnd, ServiceId, ServiceKey, TableSetIndex, Timeout, Timeouts, TunnelPort,
};

use crate::{
    address_filter::AddressFilter,
    compiler::{CompiledTables, NamePlace, name_key},
};

mod names;

/// Tables, endpoints and flows of one node. Ids are the indexes of the compiled tables.
#[derive(Debug)]
pub struct Memory<'a> {
    tables: &'a CompiledTables,
    /// By ifindex of the pod's interface on the node.
    pub endpoints: BTreeMap<u32, Endpoint>,
    /// Whose an address is: an ifindex, `NODE` or `OTHER_NODE`.
    pub owners: BTreeMap<Address, u32>,
    /// By ifindex of ports of bridges: the link-layer address that the pod has.
    pub link_addresses: BTreeMap<u32, [u8; 6]>,
    /// Of UDP.
    pub tunnel_ports: BTreeMap<u16, TunnelPort>,
    /// Addresses and ports of services that lead to tunnels, or not ([`ServiceKey::of_no_tunnel`]).
    pub tunnel_services: BTreeSet<ServiceKey>,
    /// More of them.
    pub tunnel_filter: AddressFilter,
    /// Known connections.
    pub flows: RefCell<BTreeMap<FlowKey, Flow>>,
    /// Ports of datagrams that arrive in fragments.
    pub fragments: RefCell<BTreeMap<FragmentKey, PortPair>>,
    /// Ticks; a second has [`Memory::TICKS_PER_SECOND`].
    pub now: Cell<u32>,
    /// Of the state that was published last.
    pub revision: Cell<u32>,
    /// Whether connections meet the policies again after a change.
    pub recheck: Cell<bool>,
    /// Whether a node's masqueraded connections pass ([`podgate_common::Config`]).
    pub passes_masqueraded: Cell<bool>,
    /// Whether pods may send packets in packets to nodes.
    pub passes_encapsulation: Cell<bool>,
    /// Whether connections between pods of the node may take the short cut.
    pub has_shortcut: Cell<bool>,
    /// The veths between which they may.
    pub open_veths: RefCell<BTreeSet<u32>>,
    /// The uses of the node's own ports.
    pub host_ports: BTreeMap<(Protocol, u16), PortUse>,
    /// Where packets to services end, at a host endpoint.
    pub host_services: BTreeMap<ServiceKey, ServiceEnd>,
    /// Whether a change of host endpoints was not confirmed in time.
    pub host_change_is_over: Cell<bool>,
    /// Servers that resolve names for pods.
    pub resolvers: BTreeMap<ServiceKey, Resolver>,
    names: names::Tree,
    /// The names that addresses were learnt for, by the number of the pod's table.
    pub learnt: RefCell<BTreeMap<(u32, Address), Vec<NameId>>>,
}

impl<'a> Memory<'a> {
    /// Ticks of its clock in a second.
    pub const TICKS_PER_SECOND: u32 = 1_000;
    const TIMEOUTS: Timeouts = Timeouts::with_ticks_per_second(Self::TICKS_PER_SECOND);

    /// With these tables, and neither endpoints nor connections.
    pub fn new(tables: &'a CompiledTables) -> Self {
        Self {
            tables,
            endpoints: BTreeMap::new(),
            owners: BTreeMap::new(),
            link_addresses: BTreeMap::new(),
            tunnel_ports: BTreeMap::new(),
            tunnel_services: BTreeSet::new(),
            tunnel_filter: AddressFilter::default(),
            flows: RefCell::default(),
            fragments: RefCell::default(),
            now: Cell::new(0),
            revision: Cell::new(0),
            recheck: Cell::new(false),
            passes_masqueraded: Cell::new(false),
            passes_encapsulation: Cell::new(false),
            has_shortcut: Cell::new(false),
            open_veths: RefCell::default(),
            host_ports: BTreeMap::new(),
            host_services: BTreeMap::new(),
            host_change_is_over: Cell::new(false),
            resolvers: BTreeMap::new(),
            names: names::Tree::new(&tables.names),
            learnt: RefCell::default(),
        }
    }

    /// What a name that rules speak of is called here. These tables alone know it by this id.
    pub fn name_id(&self, place: &NamePlace) -> Option<NameId> {
        self.names.id(place)
    }

    /// The name of an id.
    pub fn name_place(&self, id: NameId) -> Option<&NamePlace> {
        self.names.place(&id.as_key())
    }

    /// Whether a rule set, by its index in the compiled tables, allows this peer and port. 0 allows
    /// everything.
    pub fn allowed(
        &self,
        rule_set: usize,
        peer: IpAddr,
        protocol: impl Into<RuleProtocol>,
        port: u16,
    ) -> bool {
        // The own node counts as any other here.
        let (policy, protocol) = (id_of(rule_set, false), protocol.into().number(port));
        !policy.isolates()
            || podgate_common::allowed(self, TableSetIndex(0), policy, &peer.into(), protocol, port)
    }
}

/// The id of a rule set of these tables in this memory.
pub fn policy_id(tables: &CompiledTables, rule_set: usize) -> PolicyId {
    id_of(rule_set, tables.rows.covering_own_node.contains(&rule_set))
}

fn id_of(rule_set: usize, covers_own_node: bool) -> PolicyId {
    let number = u32::try_from(rule_set).expect("a compilation has fewer than 2^31 rule sets");
    PolicyId::new(number, covers_own_node)
}

impl podgate_common::Tables for Memory<'_> {
    type FlowHandle = ();
    type Entry = FlowKey;

    fn endpoint(&self, ifindex: u32) -> Endpoint {
        let endpoint = self.endpoints.get(&ifindex).copied().unwrap_or(Endpoint::PENDING);
        Endpoint { flags: self.tables.services.endpoint_flags(), ..endpoint }
    }

    fn link_address(&self, ifindex: u32) -> LinkAddress {
        let address = self.link_addresses.get(&ifindex);
        address.map_or(LinkAddress::NONE, |address| LinkAddress::new(ifindex, *address))
    }

    fn listed_owner(&self, address: &Address) -> Option<u32> {
        self.owners.get(address).copied()
    }

    fn tunnel_port(&self, port: u16) -> TunnelPort {
        self.tunnel_ports.get(&port).copied().unwrap_or(TunnelPort::NONE)
    }

    fn has_tunnel_key(&self, key: &ServiceKey) -> bool {
        self.tunnel_services.contains(key)
    }

    fn identity(&self, _: TableSetIndex, address: &Address) -> IdentityId {
        let address = self.names.place(address).map_or_else(|| (*address).into(), name_key);
        let identity = self.tables.identities.identity(address);
        IdentityId(u32::try_from(identity).expect("a compilation has fewer than 2^32 identities"))
    }

    fn class(&self, _: TableSetIndex, protocol: RuleProtocol, place: u16) -> ClassId {
        let class = self.tables.classes.class(protocol, place);
        ClassId(u16::try_from(class).expect("the compiler refuses more classes than an id has room for"))
    }

    fn row(&self, _: TableSetIndex, key: &RowKey) -> Option<Row> {
        let (policy, identity) = (key.policy.number() as usize, key.identity.0 as usize);
        if *key == RowKey::of_strata(key.policy) {
            let strata = self.tables.strata.get(&policy)?;
            return Some(names::strata_row(strata, |part| policy_id(self.tables, part)));
        }
        if *key == RowKey::of_service(key.policy, ServiceId(key.identity.0)) {
            return self.tables.services.verdicts.get(&(policy, identity))?.row();
        }
        match key.block.checked_sub(RowKey::OWN_NODE) {
            Some(block) => self.tables.rows.own_node_row(policy, identity, block as usize),
            None => self.tables.rows.row(policy, identity, key.block as usize),
        }
    }

    fn service(&self, _: TableSetIndex, key: &ServiceKey) -> Option<ServiceId> {
        let place = *self.tables.services.frontends.get(key)?;
        Some(ServiceId(u32::try_from(place).expect("a cluster has fewer than 2^32 services")))
    }

    fn filter_word(&self, word: u32) -> u64 {
        match word.checked_sub(FilteredAs::Tunnel.first_word()) {
            Some(word) => self.tunnel_filter.word(word),
            None => self.tables.services.filter.word(word),
        }
    }

    fn flow(&self, lookup: &mut Lookup, _: Reach) -> Option<()> {
        lookup.flow = *self.flows.borrow().get(&lookup.key)?;
        Some(())
    }

    fn known_flow(&self, key: &FlowKey, _: Reach) -> Option<(FlowSummary, FlowKey)> {
        self.flows.borrow().get(key).map(|flow| (flow.known(), *key))
    }

    fn touch_flow(&self, entry: FlowKey, now: u32) {
        if let Some(flow) = self.flows.borrow_mut().get_mut(&entry) {
            flow.last = now;
        }
    }

    fn mark_flow(&self, entry: FlowKey, seen: Seen) {
        if let Some(flow) = self.flows.borrow_mut().get_mut(&entry) {
            flow.seen = seen;
        }
    }

    fn put_flow(&self, lookup: &Lookup, flow: &Flow) -> bool {
        self.flows.borrow_mut().insert(lookup.key, *flow);
        true
    }

    fn refresh_flow(&self, (): (), lookup: &Lookup, now: u32, seen: Seen) {
        if let Some(flow) = self.flows.borrow_mut().get_mut(&lookup.key) {
            flow.last = now;
            flow.seen = seen;
        }
    }

    fn resolver(&self, key: &ServiceKey) -> Resolver {
        self.resolvers.get(key).copied().unwrap_or_default()
    }

    fn names(&self, table: u32, address: &Address, names: &mut [NameId; NAMES_OF_ADDRESS]) {
        let learnt = self.learnt.borrow();
        let mut known = learnt.get(&(table, *address)).into_iter().flatten();
        names.fill_with(|| known.next().copied().unwrap_or_default());
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
        self.revision.get()
    }

    fn timeout(&self, of: Timeout) -> u32 {
        Self::TIMEOUTS.get(of)
    }

    fn refresh(&self) -> u32 {
        Self::TIMEOUTS.refresh
    }

    fn recheck(&self) -> bool {
        self.recheck.get()
    }

    fn passes_masqueraded(&self) -> bool {
        self.passes_masqueraded.get()
    }

    fn passes_encapsulation(&self) -> bool {
        self.passes_encapsulation.get()
    }

    fn has_shortcut(&self) -> bool {
        self.has_shortcut.get()
    }

    fn host_service(&self, key: &ServiceKey) -> Option<ServiceEnd> {
        self.host_services.get(key).copied()
    }

    fn host_port(&self, protocol: Protocol, port: u16) -> PortUse {
        self.host_ports.get(&(protocol, port)).copied().unwrap_or_default()
    }

    fn host_change_expired(&self) -> bool {
        self.host_change_is_over.get()
    }

    fn is_open(&self, ifindex: u32) -> bool {
        self.open_veths.borrow().contains(&ifindex)
    }
}
