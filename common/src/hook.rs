//! Where a packet is judged.

use core::fmt;

/// The direction as its pod sees it.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Leaves the pod: program `from_pod`, TC ingress of the host side of its veth.
    Egress = 0,
    /// Arrives at the pod: program `to_pod`, TC egress of the host side of its veth.
    Ingress = 1,
}

impl Direction {
    pub const ALL: [Self; 2] = [Self::Egress, Self::Ingress];

    #[inline(always)]
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Egress => Self::Ingress,
            Self::Ingress => Self::Egress,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        })
    }
}

/// One run of a program on one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    pub direction: Direction,
    /// The host side of the pod's veth (`skb->ifindex`).
    pub ifindex: u32,
    /// Where the packet entered this node (`skb->ingress_ifindex`); 0: the node's own stack made it.
    pub via: u32,
}
