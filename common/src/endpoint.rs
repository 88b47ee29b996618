//! What is known of one veth.

use crate::{Address, Direction, PolicyId, TableSetIndex};

/// The owner of an address that is the node's own, and `ingress_ifindex` of a packet that the node's own
/// stack made.
pub const NODE: u32 = 0;

/// In the map of owners: an address of other nodes. No one's, to packets.
pub const OTHER_NODE: u32 = u32::MAX;

/// In the map of owners: an address at which this node's stack takes packets and that is not the node's own,
/// as broadcasts of its links and the services' addresses that kube-proxy gives a device. No one's, to
/// packets.
pub const HEARD_BY_NODE: u32 = u32::MAX - 1;

/// Whether an address with this owner is one at which a node takes packets: this one or another.
#[inline(always)]
pub const fn is_nodes(owner: u32) -> bool {
    matches!(owner, NODE | HEARD_BY_NODE | OTHER_NODE)
}

/// How far the agent knows the pod behind a veth.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// Not known yet, and a pod that could be isolated may be behind it: nothing new passes.
    Pending = 0,
    /// Not known, and no pod that could be isolated can be behind it: everything passes.
    Unmanaged = 1,
    /// Its pod and addresses are known: evaluated.
    Identified = 2,
}

/// Value of the map of endpoints; the key is the ifindex of the veth's host side.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The pod's first address of each family, unspecified if none: who it is when the node rewrites its
    /// address. The map of owners says the same of them.
    pub v4: Address,
    pub v6: Address,
    /// An [`EndpointState`]; what is none counts as `Pending`.
    pub state: u32,
    /// Which table set evaluates it.
    pub table_set: TableSetIndex,
    pub ingress: PolicyId,
    pub egress: PolicyId,
    /// With the policies in audit mode as if they were enforced; [`PolicyId::NOT_ISOLATED`] when there are
    /// none.
    pub audit_ingress: PolicyId,
    pub audit_egress: PolicyId,
    /// The bridge that the veth is a port of, 0 if none: packets that the bridge routed carry it in
    /// `ingress_ifindex`.
    pub master: u32,
    /// 0 or [`Endpoint::HAS_FILTER`]. Words of the stack must be aligned, says the verifier: so must
    /// be the addresses, and all of it.
    pub flags: u32,
    /// The number of its table of learnt names; 0: none, its egress has no rules with names.
    pub names: u32,
    /// Always 0: the words of the stack are of 64 bits.
    pub zero: u32,
}

impl Endpoint {
    /// Among the services of its table set are some whose addresses stand in the filter
    /// ([`crate::ServiceKey::FILTERED`]): rarely any, so no one else pays for that look-up.
    pub const HAS_FILTER: u32 = 1;

    /// What counts for a veth without an entry.
    pub const PENDING: Self = Self {
        v4: Address::UNSPECIFIED,
        v6: Address::UNSPECIFIED,
        state: EndpointState::Pending as u32,
        table_set: TableSetIndex(0),
        ingress: PolicyId::NOT_ISOLATED,
        egress: PolicyId::NOT_ISOLATED,
        audit_ingress: PolicyId::NOT_ISOLATED,
        audit_egress: PolicyId::NOT_ISOLATED,
        master: 0,
        flags: 0,
        names: 0,
        zero: 0,
    };

    /// One at which everything passes.
    pub const UNMANAGED: Self = Self { state: EndpointState::Unmanaged as u32, ..Self::PENDING };

    /// How far its pod is known.
    pub const fn known_state(&self) -> EndpointState {
        match (self.is_known(), self.is_pending()) {
            (true, _) => EndpointState::Identified,
            (false, true) => EndpointState::Pending,
            (false, false) => EndpointState::Unmanaged,
        }
    }

    /// Whether addresses of services stand in the filter.
    #[inline(always)]
    pub const fn has_filter(&self) -> bool {
        self.flags & Self::HAS_FILTER != 0
    }

    #[inline(always)]
    pub const fn is_known(&self) -> bool {
        self.state == EndpointState::Identified as u32
    }

    #[inline(always)]
    pub const fn is_pending(&self) -> bool {
        self.state != EndpointState::Identified as u32 && self.state != EndpointState::Unmanaged as u32
    }

    /// Whether an address is one of these two of the pod's. It may have others.
    #[inline(always)]
    pub fn has(&self, address: &Address) -> bool {
        // Without jumps: the verifier would walk on once for each.
        let differs = address.difference(self.v4) & address.difference(self.v6);
        differs < address.difference(Address::UNSPECIFIED)
    }

    /// Whether it is known that the veth is no port of a bridge.
    #[inline(always)]
    pub const fn is_routed(&self) -> bool {
        self.master == 0 && !self.is_pending()
    }

    #[inline(always)]
    pub const fn policy(&self, direction: Direction) -> PolicyId {
        match direction {
            Direction::Egress => self.egress,
            Direction::Ingress => self.ingress,
        }
    }

    /// Whether any policy is asked in this direction, be it only in audit mode.
    #[inline(always)]
    pub const fn is_asked(&self, direction: Direction) -> bool {
        let audited = match direction {
            Direction::Egress => self.audit_egress,
            Direction::Ingress => self.audit_ingress,
        };
        self.policy(direction).isolates() || audited.isolates()
    }

    /// Whether what is not understood must be dropped in this direction.
    #[inline(always)]
    pub const fn is_closed(&self, direction: Direction) -> bool {
        self.is_pending() || self.policy(direction).isolates()
    }
}
