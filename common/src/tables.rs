//! What a decision looks up: keys and values of the compiled tables, and the trait that reads them.

use crate::{
    Address, ClassId, Endpoint, FilteredAs, Flow, FlowKey, FlowSummary, FragmentKey, HEARD_BY_NODE,
    IdentityId, LinkAddress, Lookup, NAMES_OF_ADDRESS, NameId, Outcome, PolicyId, PolicyLookup, PortPair,
    PortUse, Protocol, Reach, Resolver, RuleProtocol, Seen, ServiceEnd, ServiceId, ServiceKey, TableSetIndex,
    Timeout, Tuple, bits::bit_set, by_egress, by_names, by_policy, endpoint::is_nodes, filter_bits, is_own,
};

/// Verdict bits in one row.
pub const BITS_PER_ROW: u16 = 256;

/// Key of a verdict row: the verdicts of a policy on an identity for the classes of one block. A bit allows,
/// but in [`RowKey::of_own_node`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey {
    pub policy: PolicyId,
    pub identity: IdentityId,
    /// Class divided by [`BITS_PER_ROW`], or the mark of another sort of row.
    pub block: u32,
}

/// One bit per port class. A row that is missing has none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row(pub [u64; 4]);

impl Row {
    #[inline(always)]
    pub const fn has(&self, class: ClassId) -> bool {
        let bit = class.0 % BITS_PER_ROW;
        // No array index: the verifier then needs no bounds proof.
        let [a, b, c, d] = self.0;
        let word = match bit / 64 {
            0 => a,
            1 => b,
            2 => c,
            _ => d,
        };
        word >> (bit % 64) & 1 != 0
    }

    pub fn set(&mut self, class: ClassId) {
        let bit = class.0 % BITS_PER_ROW;
        self.0[usize::from(bit / 64)] |= 1 << (bit % 64);
    }
}

impl RowKey {
    #[inline(always)]
    pub const fn new(policy: PolicyId, identity: IdentityId, class: ClassId) -> Self {
        Self { policy, identity, block: (class.0 / BITS_PER_ROW) as u32 }
    }

    /// The key of what a policy that does not [cover the own node](PolicyId::covers_own_node) denies on
    /// addresses of the pod's own node: a set bit *denies*, and a row that is missing denies nothing. Most
    /// policies do not apply there at all.
    #[inline(always)]
    pub const fn of_own_node(policy: PolicyId, identity: IdentityId, class: ClassId) -> Self {
        Self { policy, identity, block: Self::OWN_NODE | (class.0 / BITS_PER_ROW) as u32 }
    }

    /// Services have rows of their own in the same table: no identity has a block of this number.
    #[inline(always)]
    pub const fn of_service(policy: PolicyId, service: ServiceId) -> Self {
        Self { policy, identity: IdentityId(service.0), block: u32::MAX }
    }

    /// Whether the row is one of a service.
    #[inline(always)]
    pub const fn is_of_service(&self) -> bool {
        self.block == u32::MAX
    }

    /// Which rule sets evaluate the names of a destination that a policy denies: see [`Strata`]. No class has
    /// a block of this number.
    #[inline(always)]
    pub const fn of_strata(policy: PolicyId) -> Self {
        // No constant: two of them side by side are written at once, and the stack is not aligned for it.
        Self { policy, identity: IdentityId(policy.0), block: Self::STRATA }
    }

    /// Whether the row is one of [`Strata`].
    pub const fn is_of_strata(&self) -> bool {
        self.block == Self::STRATA
    }

    const STRATA: u32 = 1 << 30;

    /// Above the blocks of all classes.
    pub const OWN_NODE: u32 = 1 << 31;
}

/// The rules with names of an egress policy, as a row of its own: parts between which no other rule decides.
///
/// A destination that the policy denies is allowed nevertheless by a part of which `names` allows one of the
/// names that it was learnt for, and `open` the destination itself: no rule before that part has denied it,
/// or passed it on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strata(pub [Stratum; Self::MOST]);

/// One part. The default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stratum {
    /// Asked about names; [`PolicyId::NOT_ISOLATED`]: there is no such part.
    pub names: PolicyId,
    /// Asked about the destination; [`PolicyId::NOT_ISOLATED`]: nothing decides before.
    pub open: PolicyId,
}

impl Strata {
    /// What a row has room for.
    pub const MOST: usize = 4;

    /// As it stands in the table of rows.
    #[expect(clippy::cast_possible_truncation, reason = "halves of a word")]
    pub fn of(row: Row) -> Self {
        Self(row.0.map(|word| Stratum { names: PolicyId(word as u32), open: PolicyId((word >> 32) as u32) }))
    }

    /// The row to write.
    pub fn row(&self) -> Row {
        Row(self.0.map(|Stratum { names, open }| u64::from(names.0) | u64::from(open.0) << 32))
    }
}

/// What the table of tunnel ports has of a UDP port: bits.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TunnelPort(pub u8);

bit_set!(TunnelPort);

impl TunnelPort {
    /// At nodes' addresses a tunnel listens there, or a node port leads to one.
    pub const OF_NODES: Self = Self(1);
    /// Some services lead from this port of theirs to one.
    pub const OF_SERVICES: Self = Self(2);
}

/// The verdict of an egress policy on all destinations that a packet to a service may end at, one of which is
/// chosen only after the packet has left the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceVerdict {
    /// On all of them.
    Allowed,
    /// On some: to be evaluated where the backend is known.
    Deferred,
    /// On none.
    Denied,
}

impl ServiceVerdict {
    const ALLOWED: ClassId = ClassId(0);
    const DEFERRED: ClassId = ClassId(1);

    /// As it stands in the table of rows.
    #[inline(always)]
    pub const fn of(row: Row) -> Self {
        if row.has(Self::ALLOWED) {
            Self::Allowed
        } else if row.has(Self::DEFERRED) {
            Self::Deferred
        } else {
            Self::Denied
        }
    }

    /// The row to write; a denied service needs none.
    pub fn row(self) -> Option<Row> {
        let mut row = Row::default();
        match self {
            Self::Allowed => row.set(Self::ALLOWED),
            Self::Deferred => row.set(Self::DEFERRED),
            Self::Denied => return None,
        }
        Some(row)
    }
}

/// The class of every place of one [`RuleProtocol`].
#[repr(C)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortClasses(pub [ClassId; 65_536]);

/// Key of the trie of prefixes, as `BPF_MAP_TYPE_LPM_TRIE` wants it: length in bits, then the data.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrefixKey {
    /// 0 to 128; an IPv4 prefix counts the 96 bits of the mapped form too.
    pub length: u32,
    pub address: Address,
}

/// The look-ups of a decision. BPF maps in the kernel, ordinary collections in user space.
pub trait Tables {
    /// Where a connection was found, so that refreshing its entry needs no second look-up.
    type FlowHandle: Copy;
    /// The same for the fast path.
    type Entry: Copy;

    /// What is known of the veth with this ifindex.
    fn endpoint(&self, ifindex: u32) -> Endpoint;
    /// The link-layer address that the pod behind a veth was given, if the veth is a port of a bridge; or
    /// another veth's.
    fn link_address(&self, ifindex: u32) -> LinkAddress;
    /// Whose an address is, as the map of owners has it: a veth's, or one for which [`is_nodes`] holds.
    fn listed_owner(&self, address: &Address) -> Option<u32>;
    /// The veth of the pod that has this address, [`crate::NODE`] if it is the node's own, else `None`.
    #[inline(always)]
    fn owner(&self, address: &Address) -> Option<u32> {
        self.listed_owner(address).filter(|owner| *owner < HEARD_BY_NODE)
    }
    /// Whether a node takes packets at this address: this one or another.
    #[inline(always)]
    fn is_node(&self, address: &Address) -> bool {
        self.listed_owner(address).is_some_and(is_nodes)
    }
    /// What is known of a UDP port.
    fn tunnel_port(&self, port: u16) -> TunnelPort;
    /// Whether a service's address and port lead to a node's tunnel; of [`ServiceKey::of_no_tunnel`], that
    /// they do not.
    fn has_tunnel_key(&self, key: &ServiceKey) -> bool;
    fn identity(&self, table_set: TableSetIndex, address: &Address) -> IdentityId;
    fn class(&self, table_set: TableSetIndex, protocol: RuleProtocol, place: u16) -> ClassId;
    fn row(&self, table_set: TableSetIndex, key: &RowKey) -> Option<Row>;
    fn service(&self, table_set: TableSetIndex, key: &ServiceKey) -> Option<ServiceId>;
    /// A word of the filters of addresses ([`FilteredAs::first_word`]); of a number that none has, any.
    fn filter_word(&self, word: u32) -> u64;

    /// Looks a connection up by the key in `lookup`; its entry stands in `lookup.flow` then. `None` says that
    /// there is none if it was looked for everywhere.
    fn flow(&self, lookup: &mut Lookup, reach: Reach) -> Option<Self::FlowHandle>;
    /// The entry of a connection, read without waiting: `None` does not say that there is none.
    fn known_flow(&self, key: &FlowKey, reach: Reach) -> Option<(FlowSummary, Self::Entry)>;
    /// Notes when a connection was used last.
    fn touch_flow(&self, entry: Self::Entry, now: u32);
    /// Adds marks of what was seen of it.
    fn mark_flow(&self, entry: Self::Entry, seen: Seen);
    /// Enters a connection that was looked up, or replaces its entry. False when it cannot be entered.
    fn put_flow(&self, lookup: &Lookup, flow: &Flow) -> bool;
    /// Notes when a connection was used last, and what was seen of it: marks are added, none is taken away.
    fn refresh_flow(&self, place: Self::FlowHandle, lookup: &Lookup, now: u32, seen: Seen);

    /// How far a server is believed that resolves names for pods.
    fn resolver(&self, key: &ServiceKey) -> Resolver;
    /// Writes the names that an address was learnt for in the table of a pod's to some of the places, and
    /// [`NameId::NONE`] to the others.
    fn names(&self, table: u32, address: &Address, names: &mut [NameId; NAMES_OF_ADDRESS]);

    fn fragment(&self, key: &FragmentKey) -> Option<PortPair>;
    /// Notes a datagram in fragments, in the share of a veth.
    fn put_fragment(&self, key: &FragmentKey, ports: PortPair, charged_to: u32);

    /// Ticks ([`crate::JIFFIES_PER_TICK`]).
    fn now(&self) -> u32;
    /// Raised by one after each published change.
    fn revision(&self) -> u32;
    fn timeout(&self, of: Timeout) -> u32;
    /// Last use is written at most this often ([`crate::Timeouts::refresh`]).
    fn refresh(&self) -> u32;
    /// Whether a live connection is evaluated again after a change (`--established recheck`).
    fn recheck(&self) -> bool;
    /// Whether what this node has masqueraded passes (`--masqueraded-ingress allow`).
    fn passes_masqueraded(&self) -> bool;
    /// Whether encapsulated packets of pods to nodes pass (`--allow-encapsulation`).
    fn passes_encapsulation(&self) -> bool;
    /// Whether connections between pods of this node may take the short cut (`--shortcut local`).
    fn has_shortcut(&self) -> bool;
    /// Where packets to an address and port of a service end, at a device with a host endpoint.
    fn host_service(&self, key: &ServiceKey) -> Option<ServiceEnd>;
    /// The uses of a port of the node.
    fn host_port(&self, protocol: Protocol, port: u16) -> PortUse;
    /// Whether the deadline of a change of host endpoints has passed: the entries before it count.
    fn host_change_expired(&self) -> bool;

    /// Whether packets may go straight to and from the pod behind a veth.
    fn is_open(&self, ifindex: u32) -> bool;

    /// Hears who has sent a packet that arrives at a pod. For traces alone ([`crate::Traced`]): elsewhere no
    /// instruction is left of it.
    #[inline(always)]
    fn note_sender(&self, _address: &Address, _pod: u32, _is_rewritten: bool, _is_masqueraded: bool) {}

    /// [`by_policy`]: where the tables are the kernel's, in a function that its verifier checks once.
    fn by_policy(
        &self,
        peer: &Address,
        tuple: &Tuple,
        endpoint: &Endpoint,
        policy_lookup: &mut PolicyLookup,
    ) -> Outcome
    where
        Self: Sized,
    {
        by_policy(peer, tuple, endpoint, policy_lookup, self)
    }

    /// [`by_names`], in the same way: of the destination of the connection in the memory of this run.
    fn by_names(&self, tuple: &Tuple, endpoint: &Endpoint, policy_lookup: &mut PolicyLookup) -> bool
    where
        Self: Sized,
    {
        by_names(&tuple.destination, endpoint, policy_lookup, &mut [NameId::NONE; NAMES_OF_ADDRESS], self)
    }

    /// [`is_own`], in the same way.
    fn is_own(&self, address: &Address, endpoint: &Endpoint, ifindex: u32) -> bool
    where
        Self: Sized,
    {
        is_own(address, endpoint, ifindex, self)
    }

    /// [`is_filtered`], in the same way.
    fn is_filtered(&self, kind: FilteredAs, address: &Address) -> bool
    where
        Self: Sized,
    {
        is_filtered(kind, address, self)
    }

    /// [`by_egress`], in the same way: of the connection in the memory of this run ([`crate::Scratch`]).
    fn by_egress(&self, tuple: &Tuple, endpoint: &Endpoint, policy_lookup: &mut PolicyLookup) -> Outcome
    where
        Self: Sized,
    {
        by_egress(tuple, endpoint, policy_lookup, self)
    }
}

/// The verdict of one policy: identity x port class -> one bit.
///
/// `protocol` is an IP protocol number, `place` that of the port or the message of ICMP.
#[inline(always)]
pub fn allowed(
    tables: &impl Tables,
    table_set: TableSetIndex,
    policy: PolicyId,
    peer: &Address,
    protocol: u32,
    place: u16,
) -> bool {
    // A message of which both ports are its place.
    let (identity, class) = classify(tables, table_set, peer, protocol, [place, place]);
    allows(tables, table_set, policy, identity, class)
}

/// Whether an address may be one of those in the filter. It is none of them if not. One that no service can
/// have is not asked for: whoever may create a Service could make the filter take it for one.
///
/// Asked by way of [`Tables::is_filtered`].
#[inline(always)]
pub fn is_filtered(kind: FilteredAs, address: &Address, tables: &impl Tables) -> bool {
    address.may_be_a_services()
        && filter_bits(address).all(|bit| tables.filter_word(kind.first_word() + bit.word) & bit.mask != 0)
}

/// The bit of a policy for an identity and a class.
#[inline(always)]
pub(crate) fn allows(
    tables: &impl Tables,
    table_set: TableSetIndex,
    policy: PolicyId,
    identity: IdentityId,
    class: ClassId,
) -> bool {
    tables.row(table_set, &RowKey::new(policy, identity, class)).is_some_and(|row| row.has(class))
}

/// What an address and a port are to the rules. Ports: of the source and of the destination.
#[inline(always)]
pub(crate) fn classify(
    tables: &impl Tables,
    table_set: TableSetIndex,
    peer: &Address,
    protocol: u32,
    [source_port, destination_port]: [u16; 2],
) -> (IdentityId, ClassId) {
    let identity = tables.identity(table_set, peer);
    let class = match Protocol::try_from(protocol) {
        Ok(protocol) => tables.class(table_set, protocol.into(), destination_port),
        Err(other) => class_without_ports(tables, table_set, other, source_port, destination_port),
    };
    (identity, class)
}

/// A function of its own in the kernel too: nearly all packets have ports, and find their class without it.
#[inline(never)]
fn class_without_ports<T: Tables>(
    tables: &T,
    table_set: TableSetIndex,
    protocol: u32,
    source_port: u16,
    destination_port: u16,
) -> ClassId {
    let (of, place) = RuleProtocol::of_portless(protocol, source_port, destination_port);
    tables.class(table_set, of, place)
}
