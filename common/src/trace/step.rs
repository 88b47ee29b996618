//! One look-up of a decision.

use crate::{
    Address, ClassId, Endpoint, IdentityId, PolicyId, PortPair, Row, RowKey, RuleProtocol, Seen, ServiceId,
};

/// A look-up, and what it has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TracedLookup {
    /// Of a fragment of a datagram: the ports, if its first fragment has passed.
    Fragment { ports: Option<PortPair> },
    /// Whether the pod behind a veth has one link-layer address that its frames must come from.
    LinkAddress { ifindex: u32, is_bound: bool },
    /// The entry of the connection.
    Flow { entry: Option<FlowStep> },
    /// What is known of a veth.
    Endpoint { ifindex: u32, state: u32, ingress: PolicyId, egress: PolicyId, audit: [PolicyId; 2] },
    /// The veth whose pod has an address, [`crate::NODE`] if the node has it.
    Owner { address: Address, owner: Option<u32> },
    /// Who sent a packet that arrives at a pod, before the node has rewritten its source.
    Sender { address: Address, pod: u32, is_rewritten: bool, is_masqueraded: bool },
    /// The service at an address and port; of the unspecified address, a node port, or all in the filter.
    Service { address: Address, port: u16, protocol: u16, service: Option<ServiceId> },
    /// What an address is to the rules.
    Identity { address: Address, identity: IdentityId },
    /// What a port, or a message of ICMP, is to the rules.
    Class { protocol: RuleProtocol, place: u16, class: ClassId },
    /// What a rule set says of an identity and a class.
    Row { key: RowKey, class: ClassId, is_there: bool, has_bit: bool },
    /// Whether a name that the pod has learnt an address for allows what the address does not.
    Names { address: Address, is_allowed: bool },
    /// The connection gets an entry, if there is room.
    Entered { is_entered: bool, client_if: u32, server_if: u32 },
}

/// What the flow table has of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowStep {
    pub client_if: u32,
    pub server_if: u32,
    pub seen: Seen,
    /// Last use, in ticks.
    pub last: u32,
}

impl TracedLookup {
    #[inline(always)]
    pub const fn endpoint(ifindex: u32, found: &Endpoint) -> Self {
        let Endpoint { state, ingress, egress, audit_ingress, audit_egress, .. } = *found;
        Self::Endpoint { ifindex, state, ingress, egress, audit: [audit_ingress, audit_egress] }
    }

    /// What a row says of the class that was looked up before it.
    #[inline(always)]
    pub fn row(key: &RowKey, class: ClassId, row: Option<&Row>) -> Self {
        // Of a service's row, the first bit says that all backends are allowed.
        let class = if key.is_of_service() { ClassId::NONE } else { class };
        let has_bit = row.is_some_and(|row| row.has(class));
        Self::Row { key: *key, class, is_there: row.is_some(), has_bit }
    }
}

/// A step as programs write it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceStep {
    /// What the words mean.
    pub kind: u64,
    pub words: [u64; 3],
}

mod kind {
    pub(super) const FRAGMENT: u64 = 1;
    pub(super) const LINK_ADDRESS: u64 = 2;
    pub(super) const FLOW: u64 = 3;
    pub(super) const NO_FLOW: u64 = 4;
    pub(super) const ENDPOINT: u64 = 5;
    pub(super) const OWNER: u64 = 6;
    pub(super) const SENDER: u64 = 7;
    pub(super) const SERVICE: u64 = 8;
    pub(super) const IDENTITY: u64 = 9;
    pub(super) const CLASS: u64 = 10;
    pub(super) const ROW: u64 = 11;
    pub(super) const NAMES: u64 = 12;
    pub(super) const ENTERED: u64 = 13;
}

/// Marks that stand above a number of 32 bits.
const FIRST: u64 = 1 << 32;
const SECOND: u64 = 1 << 33;

#[inline(always)]
const fn two(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

#[inline(always)]
const fn mark(of: u64, is_set: bool) -> u64 {
    if is_set { of } else { 0 }
}

#[expect(clippy::cast_possible_truncation, reason = "a half of the word")]
const fn low(word: u64) -> u32 {
    word as u32
}

const fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

#[expect(clippy::cast_possible_truncation, reason = "a quarter of the word")]
const fn quarter(word: u64, number: u32) -> u16 {
    (word >> (16 * number)) as u16
}

impl TraceStep {
    /// The class, if one was looked up.
    #[inline(always)]
    pub(super) const fn class(&self) -> Option<u16> {
        if self.kind == kind::CLASS { Some(quarter(self.words[1], 0)) } else { None }
    }

    #[inline(always)]
    pub fn of(step: &TracedLookup) -> Self {
        let of_address = |kind, address: Address, word| {
            let [upper, lower] = address.halves();
            (kind, [upper, lower, word])
        };
        let (kind, words) = match *step {
            TracedLookup::Fragment { ports } => {
                let pair = ports.unwrap_or(PortPair { source: 0, destination: 0 });
                let ports_word = u64::from(pair.source) | u64::from(pair.destination) << 16;
                (kind::FRAGMENT, [ports_word | mark(FIRST, ports.is_some()), 0, 0])
            }
            TracedLookup::LinkAddress { ifindex, is_bound } => {
                (kind::LINK_ADDRESS, [u64::from(ifindex) | mark(FIRST, is_bound), 0, 0])
            }
            TracedLookup::Flow { entry: Some(FlowStep { client_if, server_if, seen, last }) } => {
                (kind::FLOW, [two(client_if, server_if), u64::from(seen.0), u64::from(last)])
            }
            TracedLookup::Flow { entry: None } => (kind::NO_FLOW, [0; 3]),
            TracedLookup::Endpoint {
                ifindex,
                state,
                ingress,
                egress,
                audit: [audit_ingress, audit_egress],
            } => (
                kind::ENDPOINT,
                [two(ifindex, state), two(ingress.0, egress.0), two(audit_ingress.0, audit_egress.0)],
            ),
            TracedLookup::Owner { address, owner } => {
                let owner_word = u64::from(owner.unwrap_or(0)) | mark(FIRST, owner.is_some());
                of_address(kind::OWNER, address, owner_word)
            }
            TracedLookup::Sender { address, pod, is_rewritten, is_masqueraded } => {
                let marks = mark(FIRST, is_rewritten) | mark(SECOND, is_masqueraded);
                of_address(kind::SENDER, address, u64::from(pod) | marks)
            }
            TracedLookup::Service { address, port, protocol, service } => {
                // No protocol needs the highest bit.
                let found = mark(1 << 31, service.is_some());
                let number = u64::from(service.unwrap_or(ServiceId(0)).0) << 32;
                let word = u64::from(port) | u64::from(protocol & 0x7fff) << 16 | found | number;
                of_address(kind::SERVICE, address, word)
            }
            TracedLookup::Identity { address, identity } => {
                of_address(kind::IDENTITY, address, u64::from(identity.0))
            }
            TracedLookup::Class { protocol, place, class } => {
                (kind::CLASS, [u64::from(protocol.index()) | u64::from(place) << 32, u64::from(class.0), 0])
            }
            TracedLookup::Row { key: RowKey { policy, identity, block }, class, is_there, has_bit } => (
                kind::ROW,
                [
                    two(policy.0, identity.0),
                    u64::from(block) | mark(FIRST, is_there) | mark(SECOND, has_bit),
                    u64::from(class.0),
                ],
            ),
            TracedLookup::Names { address, is_allowed } => {
                of_address(kind::NAMES, address, mark(FIRST, is_allowed))
            }
            TracedLookup::Entered { is_entered, client_if, server_if } => {
                (kind::ENTERED, [two(client_if, server_if), mark(FIRST, is_entered), 0])
            }
        };
        Self { kind, words }
    }

    /// What it says; `None`: no program writes that.
    pub fn read(&self) -> Option<TracedLookup> {
        let [a, b, c] = self.words;
        let address = Address::from_halves(a, b);
        Some(match self.kind {
            kind::FRAGMENT => {
                let pair = PortPair { source: quarter(a, 0), destination: quarter(a, 1) };
                TracedLookup::Fragment { ports: (a & FIRST != 0).then_some(pair) }
            }
            kind::LINK_ADDRESS => TracedLookup::LinkAddress { ifindex: low(a), is_bound: a & FIRST != 0 },
            kind::FLOW => {
                let (client_if, server_if) = (low(a), high(a));
                let (seen, last) = (Seen(low(b)), low(c));
                TracedLookup::Flow { entry: Some(FlowStep { client_if, server_if, seen, last }) }
            }
            kind::NO_FLOW => TracedLookup::Flow { entry: None },
            kind::ENDPOINT => TracedLookup::Endpoint {
                ifindex: low(a),
                state: high(a),
                ingress: PolicyId(low(b)),
                egress: PolicyId(high(b)),
                audit: [PolicyId(low(c)), PolicyId(high(c))],
            },
            kind::OWNER => TracedLookup::Owner { address, owner: (c & FIRST != 0).then_some(low(c)) },
            kind::SENDER => TracedLookup::Sender {
                address,
                pod: low(c),
                is_rewritten: c & FIRST != 0,
                is_masqueraded: c & SECOND != 0,
            },
            kind::SERVICE => TracedLookup::Service {
                address,
                port: quarter(c, 0),
                protocol: quarter(c, 1) & 0x7fff,
                service: (c & 1 << 31 != 0).then_some(ServiceId(high(c))),
            },
            kind::IDENTITY => TracedLookup::Identity { address, identity: IdentityId(low(c)) },
            kind::CLASS => TracedLookup::Class {
                protocol: RuleProtocol::ALL.into_iter().find(|of| of.index() == low(a))?,
                place: quarter(a, 2),
                class: ClassId(quarter(b, 0)),
            },
            kind::ROW => TracedLookup::Row {
                key: RowKey { policy: PolicyId(low(a)), identity: IdentityId(high(a)), block: low(b) },
                class: ClassId(quarter(c, 0)),
                is_there: b & FIRST != 0,
                has_bit: b & SECOND != 0,
            },
            kind::NAMES => TracedLookup::Names { address, is_allowed: c & FIRST != 0 },
            kind::ENTERED => {
                TracedLookup::Entered { is_entered: b & FIRST != 0, client_if: low(a), server_if: high(a) }
            }
            _ => return None,
        })
    }
}
