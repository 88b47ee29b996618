//! What is known of one veth.

use crate::{Address, Direction, PolicyId, TableSetIndex};

/// The owner of an address that is the node's own, and `ingress_ifindex` of a packet that the node's own
/// stack made.
pub const NODE: u32 = 0;

/// In the map of owners: an address of other nodes, or one to which every node of a link listens. No one's,
/// to packets.
pub const OTHER_NODE: u32 = u32::MAX;

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
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
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
    /// The pod's first address of each family, unspecified if none: who it is when the node rewrites its
    /// address.
    pub v4: Address,
    pub v6: Address,
}

impl Endpoint {
    /// What counts for a veth without an entry.
    pub const PENDING: Self = Self {
        state: EndpointState::Pending as u32,
        table_set: TableSetIndex(0),
        ingress: PolicyId::NOT_ISOLATED,
        egress: PolicyId::NOT_ISOLATED,
        audit_ingress: PolicyId::NOT_ISOLATED,
        audit_egress: PolicyId::NOT_ISOLATED,
        master: 0,
        v4: Address::UNSPECIFIED,
        v6: Address::UNSPECIFIED,
    };

    /// How far its pod is known.
    pub const fn known_state(&self) -> EndpointState {
        match (self.is_known(), self.is_pending()) {
            (true, _) => EndpointState::Identified,
            (false, true) => EndpointState::Pending,
            (false, false) => EndpointState::Unmanaged,
        }
    }

    #[inline(always)]
    pub const fn is_known(&self) -> bool {
        self.state == EndpointState::Identified as u32
    }

    #[inline(always)]
    pub const fn is_pending(&self) -> bool {
        self.state != EndpointState::Identified as u32 && self.state != EndpointState::Unmanaged as u32
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
