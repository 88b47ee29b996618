//! Connections that were evaluated: the flow table's keys and values, and how long an entry lives.

use crate::{
    Address, Direction, Hook, Tuple,
    address::{ByteOrder, pair, unpair},
    packet::overwrite,
    protocol::number,
};

/// Both ends of a connection, lower end first, so that one look-up serves both directions.
///
/// Words of 64 bits, in which it is compared. IPv4 needs two of them, the first and the last.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// Both addresses, IPv4 ones in the first word.
    addresses: [u64; 4],
    /// From the lowest bit on: the port of the low and of the high end, as they stand in packets, 16 bits
    /// each; the IP protocol number, 8 bits; [`Self::V4`].
    ends: u64,
}

impl FlowKey {
    pub(crate) const EMPTY: Self = Self { addresses: [0; 4], ends: 0 };

    /// The addresses are IPv4 ones.
    const V4: u64 = 1 << 40;

    /// The key of a packet, and whether its source is the low end.
    #[inline(always)]
    pub const fn of(tuple: &Tuple) -> (Self, bool) {
        let Tuple { source, destination, source_port, destination_port, protocol } = *tuple;
        let ports = [source_port.to_be(), destination_port.to_be()];
        match (source.v4_word(), destination.v4_word()) {
            (Some(from), Some(to)) => {
                let source_is_low = from < to || (from == to && ports[0] <= ports[1]);
                let ports = ports[0] as u32 | (ports[1] as u32) << 16;
                (Self::of_v4(pair(from, to), ports, protocol, source_is_low), source_is_low)
            }
            _ => {
                let source_is_low = match source.order(destination) {
                    ByteOrder::Less => true,
                    ByteOrder::Same => ports[0] <= ports[1],
                    ByteOrder::Greater => false,
                };
                let (low, high) = if source_is_low { (source, destination) } else { (destination, source) };
                let ([a, b], [c, d]) = (low.halves(), high.halves());
                (Self { addresses: [a, b, c, d], ends: ends(ports, source_is_low, protocol) }, source_is_low)
            }
        }
    }

    /// The key of an IPv4 packet, from the addresses and the ports of source and destination as they lie in
    /// it.
    #[inline(always)]
    pub(crate) const fn of_v4(addresses: u64, ports: u32, protocol: u32, source_is_low: bool) -> Self {
        let (addresses, ports) = match source_is_low {
            true => (addresses, ports),
            false => (addresses.rotate_left(32), ports.rotate_left(16)),
        };
        let ends = ports as u64 | (protocol as u64) << 32 | Self::V4;
        Self { addresses: [addresses, 0, 0, 0], ends }
    }

    /// The addresses of the low and of the high end.
    pub const fn addresses(&self) -> [Address; 2] {
        let [a, b, c, d] = self.addresses;
        if self.is_v4() {
            let [low, high] = unpair(a);
            [Address::from_v4_word(low), Address::from_v4_word(high)]
        } else {
            [Address::from_halves(a, b), Address::from_halves(c, d)]
        }
    }

    /// The ports of the low and of the high end.
    #[expect(clippy::cast_possible_truncation, reason = "parts of a word")]
    pub const fn ports(&self) -> [u16; 2] {
        [u16::from_be(self.ends as u16), u16::from_be((self.ends >> 16) as u16)]
    }

    /// IP protocol number.
    #[inline(always)]
    pub const fn protocol(&self) -> u32 {
        (self.ends >> 32 & 0xff) as u32
    }

    #[inline(always)]
    pub(crate) const fn is_v4(&self) -> bool {
        self.ends & Self::V4 != 0
    }

    #[inline(always)]
    pub(crate) const fn with_end_bit(self, bit: u64) -> Self {
        Self { ends: self.ends | bit, ..self }
    }

    #[inline(always)]
    pub(crate) const fn has_end_bit(&self, bit: u64) -> bool {
        self.ends & bit != 0
    }

    /// What it is compared by, in the order in which it lies in memory.
    #[inline(always)]
    pub(crate) const fn words(&self) -> [u64; 5] {
        let [a, b, c, d] = self.addresses;
        [a, b, c, d, self.ends]
    }
}

#[inline(always)]
const fn ends([source, destination]: [u16; 2], source_is_low: bool, protocol: u32) -> u64 {
    let (low, high) = if source_is_low { (source, destination) } else { (destination, source) };
    low as u64 | (high as u64) << 16 | (protocol as u64) << 32
}

/// What is known of a connection. All fields are one word, so that none is ever read half written.
///
/// Aligned and ordered as the table has it, to be copied in words of 64 bits.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The veth at which the client's egress was evaluated; 0: it was not (the client is not a pod of this
    /// node).
    pub client_if: u32,
    /// The veth at which the server's ingress was evaluated; 0: it was not.
    pub server_if: u32,
    /// Where the client's packets came from when the server's ingress was evaluated (`skb->ingress_ifindex`),
    /// or [`Flow::ANY_INGRESS`], or [`Flow::UNKNOWN_INGRESS`]; 0: the node is the client.
    pub ingress_ifindex: u32,
    /// The revision in which each side was evaluated.
    pub client_revision: u32,
    pub server_revision: u32,
    /// [`Seen`] bits.
    pub seen: Seen,
    /// Last use, in ticks ([`JIFFIES_PER_TICK`]).
    pub last: u32,
}

/// The flow table's clock counts the kernel's ticks (`jiffies`) in units of this many, a power of two.
///
/// So its 32 bits last for more than two years at 1,000 jiffies a second. Counted singly they last for 50
/// days: an entry that no one has removed for so long, because no agent runs, would look young again.
pub const JIFFIES_PER_TICK: u32 = 16;

/// How many seconds a number of ticks is.
pub const fn seconds_of_ticks(ticks: u32, jiffies_per_second: u32) -> u64 {
    let second = if jiffies_per_second == 0 { 1 } else { jiffies_per_second };
    ticks as u64 * JIFFIES_PER_TICK as u64 / second as u64
}

impl Flow {
    /// Nothing was evaluated, at no veth.
    pub const EMPTY: Self = Self {
        client_if: 0,
        server_if: 0,
        ingress_ifindex: 0,
        client_revision: 0,
        server_revision: 0,
        last: 0,
        seen: Seen(0),
    };

    /// `ingress_ifindex` of a connection that is older than the agent: the server's socket names the client,
    /// but not the interface that its packets come from. No interface has this index.
    pub const ANY_INGRESS: u32 = u32::MAX;

    /// `ingress_ifindex` of a packet that entered the node at no interface, though the node is not its
    /// sender: the kernel has made it of parts of another's datagram or in another's name. No interface has
    /// this index.
    pub const UNKNOWN_INGRESS: u32 = u32::MAX - 1;

    /// Makes it the entry of a connection that a packet opens at this hook.
    #[inline(always)]
    pub(crate) fn open(&mut self, hook: &Hook, source_is_low: bool, now: u32) {
        let ends = match hook.direction {
            Direction::Egress => (hook.ifindex, 0, 0),
            Direction::Ingress => (0, hook.ifindex, hook.ingress_ifindex),
        };
        let Self { client_if, server_if, ingress_ifindex, client_revision, server_revision, last, seen } =
            self;
        (*client_if, *server_if) = (ends.0, ends.1);
        overwrite(ingress_ifindex, ends.2);
        overwrite(client_revision, 0);
        overwrite(server_revision, 0);
        (*last, *seen) = (now, Seen::default().with(Seen::CLIENT_IS_LOW, source_is_low));
    }

    /// As much of it as the fast path reads.
    pub const fn known(&self) -> FlowSummary {
        let Self { client_if, server_if, ingress_ifindex, seen, last, .. } = *self;
        FlowSummary { client_if, server_if, ingress_ifindex, seen, last }
    }

    /// In whose share of the table it is, a veth: its client's, or its server's where the client is no pod of
    /// this node.
    ///
    /// So whoever opens connections pays for them. Only over UDP can a client whose entry is gone let its
    /// server pay, by answers that look like a connection of the server's.
    #[inline(always)]
    pub const fn charged_to(&self) -> u32 {
        if self.client_if != 0 { self.client_if } else { self.server_if }
    }

    /// The revision in which one side was evaluated.
    #[inline(always)]
    pub const fn evaluated_in(&self, side: Direction) -> u32 {
        match side {
            Direction::Egress => self.client_revision,
            Direction::Ingress => self.server_revision,
        }
    }
}

/// As much of a [`Flow`] as the fast path reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowSummary {
    pub client_if: u32,
    pub server_if: u32,
    pub ingress_ifindex: u32,
    pub seen: Seen,
    pub last: u32,
}

impl FlowSummary {
    /// Whether a packet is one of the client's, by whether its source is the low end.
    #[inline(always)]
    pub(crate) const fn is_from_client(&self, source_is_low: bool) -> bool {
        (self.seen.0 ^ source_is_low as u32) & Seen::CLIENT_IS_LOW.0 == 0
    }
}

/// How long a connection without packets lives, in ticks. The agent fills it in for the kernel's tick rate.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// Replied TCP.
    pub tcp: u32,
    /// TCP without a reply yet, or closed by both sides or by RST.
    pub tcp_half: u32,
    /// Replied UDP and every other protocol.
    pub stream: u32,
    /// Anything but TCP without a reply yet, ICMP, and SCTP that was aborted or shut down.
    pub unreplied: u32,
    /// Last use is written at most this often, so that packets of one connection do not fight for a cache
    /// line.
    pub refresh: u32,
}

impl Timeouts {
    /// The time-outs of netfilter's connection tracking (`net.netfilter.nf_conntrack_*_timeout*`).
    pub const fn with_ticks_per_second(hz: u32) -> Self {
        Self { tcp: 432_000 * hz, tcp_half: 120 * hz, stream: 120 * hz, unreplied: 30 * hz, refresh: hz }
    }

    /// In ticks of a kernel with so many jiffies a second, 32 at the least.
    pub const fn of_kernel(jiffies_per_second: u32) -> Self {
        let Self { tcp, tcp_half, stream, unreplied, refresh } =
            Self::with_ticks_per_second(jiffies_per_second);
        Self {
            tcp: tcp / JIFFIES_PER_TICK,
            tcp_half: tcp_half / JIFFIES_PER_TICK,
            stream: stream / JIFFIES_PER_TICK,
            unreplied: unreplied / JIFFIES_PER_TICK,
            refresh: refresh / JIFFIES_PER_TICK,
        }
    }

    /// How long an entry was idle. One that another processor has used after the clock was read was not.
    #[inline(always)]
    pub const fn idle(&self, last: u32, now: u32) -> u32 {
        let age = now.wrapping_sub(last);
        if age.wrapping_neg() <= self.refresh { 0 } else { age }
    }

    #[inline(always)]
    pub const fn of(&self, protocol: u32, seen: Seen) -> u32 {
        self.get(Timeout::of(protocol, seen))
    }

    #[inline(always)]
    pub const fn get(&self, of: Timeout) -> u32 {
        match of {
            Timeout::Tcp => self.tcp,
            Timeout::TcpHalf => self.tcp_half,
            Timeout::Stream => self.stream,
            Timeout::Unreplied => self.unreplied,
        }
    }
}

/// Which of the [`Timeouts`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    Tcp,
    TcpHalf,
    Stream,
    /// The shortest.
    Unreplied,
}

impl Timeout {
    #[inline(always)]
    pub const fn of(protocol: u32, seen: Seen) -> Self {
        let replied = seen.is_replied();
        if protocol == number::TCP {
            if replied && !seen.is_closed() { Self::Tcp } else { Self::TcpHalf }
        } else if replied && !seen.is_closed() && protocol != number::ICMP && protocol != number::ICMPV6 {
            Self::Stream
        } else {
            Self::Unreplied
        }
    }
}

/// A datagram in fragments: the key under which the first one leaves its ports.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FragmentKey {
    pub source: Address,
    pub destination: Address,
    pub id: u32,
    /// IP protocol number.
    pub protocol: u32,
}

impl FragmentKey {
    /// In `protocol`: no datagram, but a mark of something else that was seen lately. Its value is when: the
    /// upper half of the ticks, and the lower half.
    pub const MARK: u32 = 1 << 9;
}

/// Value of the table of fragments.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortPair {
    pub source: u16,
    pub destination: u16,
}

mod seen;
#[cfg(test)]
mod tests;

pub use seen::Seen;
