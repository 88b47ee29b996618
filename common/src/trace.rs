//! What a trace shows of packets: the look-ups of each decision in their order, and what they have found.
//!
//! [`Traced`] stands between [`crate::decide`] and its tables, and hands what is looked up to a [`Recorder`].
//! The decision knows nothing of it but for [`crate::Tables::note_sender`], which is empty everywhere else:
//! other programs have no instruction for traces, and a traced packet gets the verdict of the same code.

use crate::{Address, Hook, Outcome, PacketKind, Rate, Scratch, Segment, Tuple};

mod step;
mod traced;

pub use step::{FlowStep, TraceStep, TracedLookup};
pub use traced::{Evaluated, Recorder, Traced};

/// Look-ups that are kept of one packet. Most packets need twenty; names take the most.
pub const TRACE_STEPS: usize = 64;

/// Bytes of the ring of traced packets: about 120 of them, of which a reader that is not away takes each
/// within milliseconds.
pub const TRACE_BYTES: usize = 1 << 18;

/// One traced packet, as the ring buffer carries it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketTrace {
    /// Of the monotonic clock, in nanoseconds.
    pub time: u64,
    /// The host side of the pod's veth.
    pub ifindex: u32,
    /// Where the packet entered the node; 0: nowhere.
    pub ingress_ifindex: u32,
    /// The revision when it was evaluated.
    pub revision: u32,
    /// The tick then, as in the entries of the flow table.
    pub now: u32,
    /// What was read of it, untranslated as the hook sees it; of an ICMP error, the packet that it quotes.
    pub tuple: Tuple,
    /// The source in the outermost IP header; `::` where none could be read.
    pub sender: Address,
    /// A [`crate::Direction`].
    pub direction: u8,
    /// An [`Outcome`].
    pub outcome: u8,
    /// A [`PacketKind`].
    pub kind: u8,
    pub segment: Segment,
    /// The class that was looked up last.
    class: u16,
    /// Steps in use.
    count: u16,
    /// Steps for which there was no room.
    pub omitted: u32,
    zero: u32,
    steps: [TraceStep; TRACE_STEPS],
}

impl PacketTrace {
    /// Forgets the packet before.
    #[inline(always)]
    pub fn begin(&mut self) {
        (self.class, self.count, self.omitted) = (0, 0, 0);
    }

    /// Keeps one more step.
    #[inline(always)]
    pub fn add(&mut self, step: TraceStep) {
        if let Some(class) = step.class() {
            self.class = class;
        }
        match self.steps.get_mut(usize::from(self.count)) {
            Some(place) => {
                *place = step;
                self.count += 1;
            }
            None => self.omitted = self.omitted.saturating_add(1),
        }
    }

    /// The class that was looked up last.
    #[inline(always)]
    pub const fn class(&self) -> u16 {
        self.class
    }

    /// Notes what the packet was, and what became of it.
    #[inline(always)]
    pub fn conclude(&mut self, scratch: &Scratch, outcome: Outcome) {
        let Hook { direction, ifindex, ingress_ifindex } = scratch.hook;
        (self.ifindex, self.ingress_ifindex) = (ifindex, ingress_ifindex);
        self.tuple = scratch.headers.tuple;
        let kind = scratch.headers.kind();
        self.kind = kind as u8;
        // Of a plain packet, only the tuple was read.
        self.sender = match kind {
            PacketKind::Related | PacketKind::Arp | PacketKind::Unreadable => scratch.headers.sender,
            PacketKind::Flow
            | PacketKind::FirstFragment
            | PacketKind::LaterFragment
            | PacketKind::Neighbour => scratch.headers.tuple.source,
        };
        self.segment = scratch.headers.segment;
        (self.direction, self.outcome, self.zero) = (direction as u8, outcome as u8, 0);
    }

    /// The look-ups in their order; `None` in place of what no program writes.
    pub fn steps(&self) -> impl Iterator<Item = Option<TracedLookup>> {
        self.steps.iter().take(usize::from(self.count)).map(TraceStep::read)
    }

    /// What kind of packet it was; `None`: no program writes that.
    pub fn packet_kind(&self) -> Option<PacketKind> {
        PacketKind::ALL.into_iter().find(|kind| *kind as u8 == self.kind)
    }
}

/// Which packets of a pod are traced.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceFilter {
    /// Of the client, as far as the packet's own direction says; replies match as well.
    pub from: TracedAddresses,
    pub to: TracedAddresses,
    /// IP protocol number; 0: any.
    pub protocol: u32,
    /// The server's; [`Self::ANY_PORT`].
    pub port: u32,
    /// Packets of each second and CPU that are traced.
    pub per_second: u32,
    pub zero: u32,
}

/// Some addresses, or all.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracedAddresses {
    /// With fewer, one of them stands in several places.
    addresses: [Address; Self::MOST],
    /// 1: whatever the address is.
    any: u64,
}

impl TracedAddresses {
    /// How many can be named.
    pub const MOST: usize = 8;

    pub const ANY: Self = Self { addresses: [Address::UNSPECIFIED; Self::MOST], any: 1 };

    /// These and no others; `None`: there are none, or too many.
    pub fn of(these: &[Address]) -> Option<Self> {
        if these.len() > Self::MOST {
            return None;
        }
        let mut addresses = [*these.first()?; Self::MOST];
        for (place, address) in addresses.iter_mut().zip(these) {
            *place = *address;
        }
        Some(Self { addresses, any: 0 })
    }

    /// Whether an address is one of them.
    #[inline(always)]
    pub fn has(&self, address: Address) -> bool {
        self.any != 0 || self.addresses.iter().any(|one| address.difference(*one) == 0)
    }
}

impl TraceFilter {
    /// In place of a port.
    pub const ANY_PORT: u32 = u32::MAX;

    /// So many packets a second are shown of each CPU: more than anyone reads, and few enough that neither
    /// the agent nor a terminal falls behind.
    pub const PER_SECOND: u32 = 128;

    pub const ANY: Self = Self {
        from: TracedAddresses::ANY,
        to: TracedAddresses::ANY,
        protocol: 0,
        port: Self::ANY_PORT,
        per_second: Self::PER_SECOND,
        zero: 0,
    };

    /// Whether a packet is wanted, by what was read of it. `is_from` and `is_to` say whether an address is in
    /// [`Self::from`] and [`Self::to`]: in the kernel in a function that its verifier checks once.
    #[inline(always)]
    pub fn matches(
        &self,
        tuple: &Tuple,
        is_from: impl Fn(Address) -> bool,
        is_to: impl Fn(Address) -> bool,
    ) -> bool {
        let is_way = |client, server, port| {
            (self.port == Self::ANY_PORT || self.port == u32::from(port)) && is_from(client) && is_to(server)
        };
        let is_protocol = self.protocol == 0 || self.protocol == tuple.protocol;
        is_protocol
            && (is_way(tuple.source, tuple.destination, tuple.destination_port)
                || is_way(tuple.destination, tuple.source, tuple.source_port))
    }
}

/// What a trace has counted on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceCounts {
    /// Packets that the filter has let through.
    pub matched: u64,
    /// Of these, those beyond [`TraceFilter::per_second`].
    pub limited: u64,
    /// Of these, those for which the ring buffer had no room.
    pub unread: u64,
    pub rate: Rate,
}

#[cfg(test)]
mod tests;
