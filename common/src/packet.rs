//! From bytes to what is judged: who talks to whom, by which protocol and ports.
//!
//! Reads an Ethernet frame through [`Packet`]. Never trusts a length: every read is bounds-checked and a header that
//! is not all there makes the packet [`Parsed::Unreadable`], which an isolated direction drops.

use crate::{Address, protocol::number};

mod icmp;
mod ipv4;
mod ipv6;

/// Bytes of a packet, from the Ethernet header on.
pub trait Packet {
    /// The `N` bytes at `offset`; `None` when the packet ends before.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

/// One direction of a connection: what stands in the packet.
///
/// Ports are in host byte order, 0 for protocols without ports. An ICMP echo carries its identifier as the source
/// port of the request and as the destination port of the reply, so that a request and its reply are one connection
/// and a request of the other side is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    pub source: Address,
    pub destination: Address,
    pub source_port: u16,
    pub destination_port: u16,
    pub protocol: u8,
}

impl Tuple {
    /// What the other side sends.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
        }
    }
}

/// What a TCP segment says about the state of its connection. All false for other protocols.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// SYN without ACK: opens a connection, whatever is known of the tuple.
    pub opens: bool,
    pub fin: bool,
    pub rst: bool,
}

/// A parsed packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A packet of a connection. `fragment`: the datagram's identification when this is its first fragment.
    Flow { tuple: Tuple, segment: Segment, fragment: Option<u32> },
    /// A later fragment: `tuple` has no ports.
    Fragment { tuple: Tuple, id: u32 },
    /// An ICMP error sent to `destination` about `quoted`, a packet that `destination` is said to have sent.
    Related { source: Address, destination: Address, quoted: Tuple },
    /// ARP, neighbour discovery (RFC 4861), multicast listener discovery (RFC 2710, 3810): never filtered.
    Neighbour,
    /// Not IP, cut short, or a header that contradicts itself.
    Unreadable,
}

const ETHERNET_HEADER: usize = 14;

/// Parses an Ethernet frame.
#[inline(always)]
pub fn parse(packet: &impl Packet) -> Parsed {
    let parsed = match packet.read::<2>(ETHERNET_HEADER - 2) {
        Some([0x08, 0x00]) => ipv4::parse(packet, ETHERNET_HEADER),
        Some([0x86, 0xdd]) => ipv6::parse(packet, ETHERNET_HEADER),
        Some([0x08, 0x06]) => Some(Parsed::Neighbour),
        _ => None,
    };
    parsed.unwrap_or(Parsed::Unreadable)
}

/// Ports and TCP flags at `offset`, after the IP headers. `None` when they are not all there.
///
/// A tiny first fragment that hides the TCP flags (RFC 1858) is refused: all of the fields are needed.
#[inline(always)]
fn transport(packet: &impl Packet, offset: usize, mut tuple: Tuple) -> Option<(Tuple, Segment)> {
    let mut segment = Segment::default();
    match tuple.protocol {
        number::TCP => {
            let header = packet.read::<14>(offset)?;
            let (data_offset, flags) = (header[12] >> 4, header[13]);
            if data_offset < 5 {
                return None;
            }
            let (fin, syn, rst, ack) = (flags & 1, flags & 2, flags & 4, flags & 16);
            segment = Segment { opens: syn != 0 && ack == 0, fin: fin != 0, rst: rst != 0 };
            tuple.source_port = u16::from_be_bytes([header[0], header[1]]);
            tuple.destination_port = u16::from_be_bytes([header[2], header[3]]);
        }
        number::UDP | number::SCTP => {
            // All 8 bytes of a UDP header, or ports and verification tag of SCTP.
            let header = packet.read::<8>(offset)?;
            tuple.source_port = u16::from_be_bytes([header[0], header[1]]);
            tuple.destination_port = u16::from_be_bytes([header[2], header[3]]);
        }
        _ => {}
    }
    Some((tuple, segment))
}
