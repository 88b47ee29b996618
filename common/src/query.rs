//! A question to the tables alone: what would they say? Nothing is entered, counted or told.

use crate::{Address, Direction, Protocol, Tables, allowed};

/// What is asked, as the packet of a test run carries it behind its Ethernet header.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// The veth of the pod whose side is in question.
    pub ifindex: u32,
    /// A [`Direction`].
    pub direction: u32,
    pub peer: Address,
    /// IP protocol number.
    pub protocol: u32,
    /// Of the server.
    pub port: u32,
}

/// What the tables say.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// The pod behind the veth is not known.
    Unknown = 0,
    Denied = 1,
    Allowed = 2,
}

impl Query {
    pub const SIZE: usize = size_of::<Self>();

    /// Where it begins in the packet: behind an Ethernet header.
    pub const OFFSET: usize = 14;

    pub const fn new(
        ifindex: u32,
        direction: Direction,
        peer: Address,
        protocol: Protocol,
        port: u16,
    ) -> Self {
        Self { ifindex, direction: direction as u32, peer, protocol: protocol as u32, port: port as u32 }
    }

    /// What the policies of the pod say, without what passes or is dropped for other reasons.
    #[inline(always)]
    pub fn answer(&self, tables: &impl Tables) -> Said {
        let endpoint = tables.endpoint(self.ifindex);
        let direction =
            if self.direction == Direction::Egress as u32 { Direction::Egress } else { Direction::Ingress };
        let policy = endpoint.policy(direction);
        #[expect(clippy::cast_possible_truncation, reason = "it was made of a port")]
        let port = self.port as u16;
        if !endpoint.is_known() {
            Said::Unknown
        } else if !policy.isolates()
            || allowed(tables, endpoint.slot, policy, &self.peer, self.protocol, port)
        {
            Said::Allowed
        } else {
            Said::Denied
        }
    }
}

impl Said {
    const ALL: [Self; 3] = [Self::Unknown, Self::Denied, Self::Allowed];
}

impl TryFrom<u32> for Said {
    type Error = u32;

    fn try_from(number: u32) -> Result<Self, u32> {
        Self::ALL.into_iter().find(|said| *said as u32 == number).ok_or(number)
    }
}
