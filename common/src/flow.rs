//! Connections that were judged: the flow table's keys and values, and how long an entry lives.

use crate::{Address, Segment, Tuple, protocol::number};

/// Both ends of a connection, lower end first, so that one look-up serves both directions.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    pub low: Address,
    pub high: Address,
    pub low_port: u16,
    pub high_port: u16,
    /// IP protocol number.
    pub protocol: u32,
}

impl FlowKey {
    /// The key of a packet, and whether its source is the low end.
    #[inline(always)]
    pub fn of(tuple: &Tuple) -> (Self, bool) {
        let Tuple { source, destination, source_port, destination_port, protocol } = *tuple;
        let source_is_low = (source, source_port) <= (destination, destination_port);
        let key = if source_is_low {
            Self {
                low: source,
                high: destination,
                low_port: source_port,
                high_port: destination_port,
                protocol,
            }
        } else {
            Self {
                low: destination,
                high: source,
                low_port: destination_port,
                high_port: source_port,
                protocol,
            }
        };
        (key, source_is_low)
    }
}

/// What is known of a connection. All fields are one word, so that none is ever read half written.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The veth at which the client's egress was judged; 0: it was not (the client is not a pod of this node).
    pub client_if: u32,
    /// The veth at which the server's ingress was judged; 0: it was not.
    pub server_if: u32,
    /// Where the client's packets came from when the server's ingress was judged (`skb->ingress_ifindex`).
    pub via: u32,
    /// The epoch in which each side was judged.
    pub client_epoch: u32,
    pub server_epoch: u32,
    /// Last use, in ticks of the kernel (jiffies, lower half).
    pub last: u32,
    /// [`Seen`] bits.
    pub seen: Seen,
}

/// What was seen of a connection.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen(pub u32);

impl Seen {
    /// The client is the low end of the key.
    pub const CLIENT_IS_LOW: Self = Self(1);
    /// The server answered.
    pub const REPLY: Self = Self(2);
    pub const CLIENT_FIN: Self = Self(4);
    pub const SERVER_FIN: Self = Self(8);
    pub const RST: Self = Self(16);

    #[inline(always)]
    #[must_use]
    pub const fn with(self, other: Self, when: bool) -> Self {
        if when { Self(self.0 | other.0) } else { self }
    }

    /// After one more packet of the connection.
    #[inline(always)]
    #[must_use]
    pub const fn after(self, segment: Segment, from_client: bool) -> Self {
        self.with(Self::REPLY, !from_client)
            .with(Self::CLIENT_FIN, segment.fin && from_client)
            .with(Self::SERVER_FIN, segment.fin && !from_client)
            .with(Self::RST, segment.rst)
    }

    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
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
    /// Anything but TCP without a reply yet, and ICMP.
    pub unreplied: u32,
    /// Last use is written at most this often, so that packets of one connection do not fight for a cache line.
    pub refresh: u32,
}

impl Timeouts {
    /// The time-outs of netfilter's connection tracking (`net.netfilter.nf_conntrack_*_timeout*`).
    pub const fn with_ticks_per_second(hz: u32) -> Self {
        Self { tcp: 432_000 * hz, tcp_half: 120 * hz, stream: 120 * hz, unreplied: 30 * hz, refresh: hz }
    }

    #[inline(always)]
    pub const fn of(&self, protocol: u32, seen: Seen) -> u32 {
        let replied = seen.has(Seen::REPLY);
        let closed = seen.has(Seen::RST) || (seen.has(Seen::CLIENT_FIN) && seen.has(Seen::SERVER_FIN));
        if protocol == number::TCP {
            if replied && !closed { self.tcp } else { self.tcp_half }
        } else if replied && protocol != number::ICMP && protocol != number::ICMPV6 {
            self.stream
        } else {
            self.unreplied
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

/// Value of the table of fragments.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    pub source: u16,
    pub destination: u16,
}
