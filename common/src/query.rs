//! A question to the tables alone: what would they say? Nothing is entered, counted or reported.

use crate::{Address, Direction, RuleProtocol, Tables, allowed};

/// What is asked, as the packet of a test run carries it behind its Ethernet header.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerdictQuery {
    /// The veth of the pod whose side is in question.
    pub ifindex: u32,
    /// A [`Direction`].
    pub direction: u32,
    pub peer: Address,
    /// IP protocol number.
    pub protocol: u32,
    /// Of the server; its place if it is none ([`RuleProtocol`]).
    pub port: u32,
}

/// What the tables say.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelVerdict {
    /// The pod behind the veth is not known.
    Unknown = 0,
    Denied = 1,
    Allowed = 2,
}

impl VerdictQuery {
    pub const SIZE: usize = size_of::<Self>();

    /// Where it begins in the packet: behind an Ethernet header.
    pub const OFFSET: usize = 14;

    pub const fn new(
        ifindex: u32,
        direction: Direction,
        peer: Address,
        protocol: RuleProtocol,
        place: u16,
    ) -> Self {
        let number = protocol.number(place);
        Self { ifindex, direction: direction as u32, peer, protocol: number, port: place as u32 }
    }

    /// What the policies of the pod say, without what passes or is dropped for other reasons.
    #[inline(always)]
    pub fn answer(&self, tables: &impl Tables) -> KernelVerdict {
        let endpoint = tables.endpoint(self.ifindex);
        let direction =
            if self.direction == Direction::Egress as u32 { Direction::Egress } else { Direction::Ingress };
        let policy = endpoint.policy(direction);
        #[expect(clippy::cast_possible_truncation, reason = "it was made of a port")]
        let port = self.port as u16;
        if !endpoint.is_known() {
            KernelVerdict::Unknown
        } else if !policy.isolates()
            || allowed(tables, endpoint.table_set, policy, &self.peer, self.protocol, port)
        {
            KernelVerdict::Allowed
        } else {
            KernelVerdict::Denied
        }
    }
}

impl KernelVerdict {
    const ALL: [Self; 3] = [Self::Unknown, Self::Denied, Self::Allowed];
}

impl TryFrom<u32> for KernelVerdict {
    type Error = u32;

    fn try_from(number: u32) -> Result<Self, u32> {
        Self::ALL.into_iter().find(|said| *said as u32 == number).ok_or(number)
    }
}
