//! What the agent asks of programs that are attached nowhere, by test runs: what the tables would say, where
//! nothing is entered, counted or reported; and to enter an address into the table of a pod's names.

use crate::{Address, Direction, Learnt, NameId, NameTables, RuleProtocol, Tables, allowed, may_be_opened};

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

/// An address that a name has, for the table of one pod.
///
/// Aligned so that its address is read in words of 64 bits, also on the stack of a program.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameRequest {
    /// The veth of the pod.
    pub ifindex: u32,
    /// The number of its table.
    pub table: u32,
    pub address: Address,
    pub name: NameId,
    /// For how long it counts.
    pub seconds: u32,
}

/// What became of it.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameAnswer {
    /// The table is that pod's no more.
    Gone = 0,
    /// No name may open the address.
    Refused,
    /// It counts, for as long as it was asked or longer.
    Entered,
    /// Others were writing all the time.
    Busy,
}

impl NameRequest {
    pub const SIZE: usize = size_of::<Self>();

    /// Enters it by what replies are learnt by, under the same conditions.
    ///
    /// The pod may have gone since the agent looked, and its table may be another pod's now: what stands in
    /// the table of endpoints counts.
    #[inline(always)]
    pub fn answer<T: Tables + NameTables>(&self, tables: &T) -> NameAnswer {
        if self.table == 0 || tables.endpoint(self.ifindex).names != self.table {
            return NameAnswer::Gone;
        }
        if !may_be_opened(&self.address) {
            return NameAnswer::Refused;
        }
        match tables.learn(self.table, &self.address, self.name, self.seconds) {
            Some(Learnt::New | Learnt::Longer | Learnt::Instead) => NameAnswer::Entered,
            None => NameAnswer::Busy,
        }
    }
}

impl NameAnswer {
    const ALL: [Self; 4] = [Self::Gone, Self::Refused, Self::Entered, Self::Busy];
}

impl TryFrom<u32> for NameAnswer {
    type Error = u32;

    fn try_from(number: u32) -> Result<Self, u32> {
        Self::ALL.into_iter().find(|answer| *answer as u32 == number).ok_or(number)
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
