//! From bytes to what is evaluated: who talks to whom, by which protocol and ports.
//!
//! Reads an Ethernet frame through [`Packet`]. Never trusts a length: every read is bounds-checked and a
//! header that is not all there makes the packet [`PacketKind::Unreadable`], which an isolated direction
//! drops.

use crate::{Address, PartialMessage, protocol::number};

pub(crate) mod arp;
pub(crate) mod crafted;
pub(crate) mod discovery;
mod icmp;
mod ipv4;
mod ipv6;
pub(crate) mod plain;
mod segment;
#[cfg(test)]
mod tests;
mod tuple;
mod volatile;

use plain::Plain;
pub use segment::Segment;
pub use tuple::Tuple;
pub(crate) use volatile::{forget, overwrite};

/// Bytes of a packet, as its device has it: from the link header on, if packets have one there.
pub trait Packet {
    /// Bytes of the link header: an Ethernet header, or none (tunnels, PPP), where the first bits say which
    /// IP it is.
    const LINK_HEADER: usize = ETHERNET_HEADER;

    /// The `N` bytes at `offset`; `None` when the packet ends before. `N` is at least 2: the verifier learns
    /// nothing from a comparison that proves a single byte.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// The first `LENGTH` bytes, to read words from; `None` when the packet is shorter.
    fn start<const LENGTH: usize>(&self) -> Option<impl Start>;

    /// Copies the `length` bytes at `offset` to the first ones of `into`; `None` when the packet ends before,
    /// or `length` is 0 or more than there is room for.
    fn load(&self, offset: usize, length: usize, into: &mut [u8; 64]) -> Option<()>;

    /// The same of more bytes, and wherever in the packet they are; `None` also where streams are not read.
    #[inline(always)]
    fn copy(&self, offset: usize, length: usize, into: &mut [u8; PartialMessage::PART]) -> Option<()> {
        let _ = (offset, length, into);
        None
    }

    /// Makes more of the packet readable, if there is more: the kernel has large ones in pieces.
    fn pull(&self);

    /// The type by which the kernel hands the frame on. A netkit pair takes it from the sender's socket, all
    /// other devices from the link header.
    #[inline(always)]
    fn received_as(&self) -> Option<[u8; 2]> {
        self.read::<2>(Self::LINK_HEADER.checked_sub(2)?)
    }

    /// Whether it has a VLAN tag, which the kernel keeps beside the frame.
    #[inline(always)]
    fn is_tagged(&self) -> bool {
        false
    }

    /// The VLAN number of its tag; 0: it has no tag, or one that only gives a priority, which the kernel
    /// ignores.
    #[inline(always)]
    fn vlan(&self) -> u32 {
        0
    }

    /// What the kernel's connection tracking knows of the packet; false when it knows nothing, or cannot be
    /// asked.
    fn tracked(&self, into: &mut Tracked) -> bool;

    /// Whether a socket of this node's own network namespace has sent the packet. False proves nothing.
    fn has_local_socket(&self) -> bool;

    /// Whether a socket of this network namespace has the TCP connection of such an incoming packet, with its
    /// handshake completed.
    fn has_connection(&self, received: &Tuple) -> bool;
}

/// The first bytes of a packet, as many as it was asked for: words at fixed places, as they lie there.
///
/// One instruction each, where it is asked for: what compilers load early stands in the way of what is needed
/// first.
pub trait Start {
    fn u8<const AT: usize>(&self) -> u8;
    fn u16<const AT: usize>(&self) -> u16;
    fn u32<const AT: usize>(&self) -> u32;
    fn u64<const AT: usize>(&self) -> u64;
}

/// A connection as the kernel tracks it: before and after the translation of addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// What the client sent, untranslated.
    pub original: Tuple,
    /// What the server sends, untranslated: from the backend, to the client's rewritten address.
    pub reply: Tuple,
    /// The packet is one of the server's.
    pub is_reply: bool,
}

impl Tracked {
    pub(crate) const EMPTY: Self = Self { original: Tuple::EMPTY, reply: Tuple::EMPTY, is_reply: false };

    /// Whether this is about a translated packet of the client with these addresses. Encapsulation can leave
    /// a packet with what was tracked of its payload.
    #[inline(always)]
    pub fn describes(&self, packet: &Tuple) -> bool {
        !self.is_reply
            && self.original.protocol == packet.protocol
            && self.reply.destination == packet.source
            && self.reply.source == packet.destination
    }
}

/// What kind of packet it is, and so which of the [`Headers`] count.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketKind {
    /// A packet of a connection.
    Flow,
    /// A packet of a connection whose datagram goes on in other fragments.
    FirstFragment,
    /// A later fragment: the tuple has no ports.
    LaterFragment,
    /// An ICMP error: the tuple is that of the quoted packet, which the error's receiver is said to have
    /// sent.
    Related,
    /// A frame that is said to be ARP.
    Arp,
    /// A packet with an ICMPv6 type of neighbour discovery (RFC 4861) or multicast listener discovery (RFC
    /// 2710, 3810), whole or the first fragment. Whether it is one, by its form, is for [`discovery`] to say.
    Neighbour,
    /// Not IP, cut short, or a header that contradicts itself.
    Unreadable,
}

impl PacketKind {
    pub const ALL: [Self; 7] = [
        Self::Flow,
        Self::FirstFragment,
        Self::LaterFragment,
        Self::Related,
        Self::Arp,
        Self::Neighbour,
        Self::Unreadable,
    ];
}

/// What was read of a packet.
///
/// Filled in place, in the kernel in memory of a map: a BPF program has 512 bytes of stack, and of a map's
/// memory the verifier remembers nothing, so that all ways through the headers go on as one (see [`forget`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    pub tuple: Tuple,
    /// The source in the outermost IP header, also of what is not readable to its end; `::` where there is
    /// none. Plain packets have it in the tuple alone.
    pub sender: Address,
    /// Identification of the datagram that a fragment belongs to.
    pub datagram: u32,
    pub segment: Segment,
    kind: PacketKind,
    /// The packet is a part of a datagram, also an ICMP error that is.
    is_fragment: bool,
    payload: Payload,
}

impl Headers {
    pub const EMPTY: Self = Self {
        tuple: Tuple::EMPTY,
        sender: Address::UNSPECIFIED,
        datagram: 0,
        segment: Segment::NONE,
        kind: PacketKind::Unreadable,
        is_fragment: false,
        payload: Payload { offset: 0, end: 0, fragment_offset: 0, more_fragments: 0 },
    };

    #[inline(always)]
    pub(crate) fn kind(&self) -> PacketKind {
        forget(&self.kind)
    }

    #[inline(always)]
    pub(crate) fn is_first_fragment(&self) -> bool {
        matches!(forget(&self.kind), PacketKind::FirstFragment)
    }

    /// Whether the packet is a part of a datagram, the first one or another.
    #[inline(always)]
    pub(crate) fn is_fragment(&self) -> bool {
        forget(&self.is_fragment)
    }

    /// What looked like a message between neighbours is a packet of a connection like any other.
    #[inline(always)]
    pub(crate) fn take_for_connection(&mut self) {
        self.kind = if forget(&self.payload.more_fragments) == 0 {
            PacketKind::Flow
        } else {
            PacketKind::FirstFragment
        };
    }
}

/// Where an IP packet goes on after its headers, and which part of its datagram it is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Payload {
    offset: usize,
    /// Where it ends by the IP header's account; what the frame holds beyond is padding, which no receiver
    /// reads.
    end: usize,
    /// Place in the datagram in 8-byte units.
    fragment_offset: u32,
    /// 1: yes.
    more_fragments: u32,
}

const ETHERNET_HEADER: usize = 14;

/// What is read of every transport header that has ports or an identifier.
const PORTS: usize = 8;

const TCP_HEADER: usize = 20;

/// SCTP: the common header, then that of the first chunk.
const SCTP_HEADERS: usize = 16;

/// The end of a packet that does not say how long it is: GSO leaves a length of 0 over 64 KiB ("BIG TCP").
const UNKNOWN_END: usize = usize::MAX;

/// Parses a packet with the link header of its device.
#[inline(always)]
pub fn parse<P: Packet>(packet: &P, headers: &mut Headers) -> PacketKind {
    headers.is_fragment = false;
    let plain = if P::LINK_HEADER == ETHERNET_HEADER { plain::read(packet) } else { None };
    headers.kind = if let Some(Plain { tuple, segment }) = plain {
        (headers.tuple, headers.segment) = (tuple, segment);
        PacketKind::Flow
    } else {
        frame(packet, headers).unwrap_or(PacketKind::Unreadable)
    };
    forget(&headers.kind)
}

/// Header by header. A function of its own in the kernel too: what is plain goes past it.
#[inline(never)]
fn frame<P: Packet>(packet: &P, headers: &mut Headers) -> Option<PacketKind> {
    packet.pull();
    headers.segment = Segment::NONE;
    headers.sender = Address::UNSPECIFIED;
    headers.tuple = Tuple::EMPTY;
    let (icmp, is_read) = match network(packet)? {
        NetworkProtocol::V4 => (icmp::IpVersion::V4, ipv4::header(packet, P::LINK_HEADER, headers)),
        NetworkProtocol::V6 => (icmp::IpVersion::V6, ipv6::header(packet, P::LINK_HEADER, headers)),
        NetworkProtocol::Arp => return Some(PacketKind::Arp),
    };
    headers.sender = forget(&headers.tuple.source);
    is_read?;
    let Payload { offset, end, fragment_offset, more_fragments } = forget(&headers.payload);
    let protocol = forget(&headers.tuple.protocol);
    headers.is_fragment = fragment_offset != 0 || more_fragments != 0;
    if offset > end || (fragment_offset == 1 && matches!(protocol, number::TCP | number::SCTP)) {
        // A second fragment must not lay other TCP flags over those that were evaluated (RFC 3128), nor
        // another chunk.
        return None;
    }
    if fragment_offset != 0 {
        return Some(PacketKind::LaterFragment);
    }
    if protocol == icmp.protocol() {
        if offset + PORTS > end {
            return None;
        }
        let [kind, code] = packet.read::<2>(offset)?;
        match icmp.class(kind) {
            icmp::Class::Error => return icmp::error(packet, offset, icmp, headers),
            icmp::Class::Neighbour => {
                let (source, destination) = icmp.ports(kind, code);
                headers.tuple.source_port = source;
                headers.tuple.destination_port = destination;
                return Some(PacketKind::Neighbour);
            }
            icmp::Class::Other => {}
        }
    }
    transport(packet, offset, end, icmp, headers)?;
    Some(if more_fragments != 0 { PacketKind::FirstFragment } else { PacketKind::Flow })
}

/// What follows the link header.
enum NetworkProtocol {
    V4,
    V6,
    Arp,
}

#[inline(always)]
fn network<P: Packet>(packet: &P) -> Option<NetworkProtocol> {
    if P::LINK_HEADER == 0 {
        let [version, _] = packet.read::<2>(0)?;
        return match version >> 4 {
            4 => Some(NetworkProtocol::V4),
            6 => Some(NetworkProtocol::V6),
            _ => None,
        };
    }
    match packet.read::<2>(P::LINK_HEADER - 2)? {
        [0x08, 0x00] => Some(NetworkProtocol::V4),
        [0x86, 0xdd] => Some(NetworkProtocol::V6),
        [0x08, 0x06] => Some(NetworkProtocol::Arp),
        _ => None,
    }
}

/// Ports, and TCP flags or the first SCTP chunk, at `offset`, after the IP headers. `None` when they are not
/// all there.
///
/// A tiny first fragment that hides the TCP flags (RFC 1858) or the chunk is refused: all of the header is
/// needed.
#[inline(always)]
fn transport(
    packet: &impl Packet,
    offset: usize,
    end: usize,
    icmp: icmp::IpVersion,
    headers: &mut Headers,
) -> Option<()> {
    if headers.tuple.protocol == number::TCP {
        let [data_offset, flags] = packet.read::<2>(offset + 12)?;
        if data_offset >> 4 < 5 || offset + TCP_HEADER > end {
            return None;
        }
        headers.segment = Segment::with_flags(flags);
    } else if headers.tuple.protocol == number::SCTP {
        if offset + SCTP_HEADERS > end {
            return None;
        }
        let [chunk, _, _, _] = packet.read::<4>(offset + SCTP_HEADERS - 4)?;
        headers.segment = Segment::with_first_chunk(chunk);
    }
    ports(packet, offset, end, icmp, &mut headers.tuple)
}

/// The first bytes of a transport header: ports, or what stands for them in a message of ICMP ([`Tuple`]).
#[inline(always)]
fn ports(
    packet: &impl Packet,
    offset: usize,
    end: usize,
    icmp: icmp::IpVersion,
    tuple: &mut Tuple,
) -> Option<()> {
    let protocol = tuple.protocol;
    let has_ports = matches!(protocol, number::TCP | number::UDP | number::SCTP);
    if !has_ports && protocol != icmp.protocol() {
        return Some(());
    }
    if offset + PORTS > end {
        return None;
    }
    let [a, b, c, d, e, f, ..] = packet.read::<PORTS>(offset)?;
    if has_ports {
        tuple.source_port = u16::from_be_bytes([a, b]);
        tuple.destination_port = u16::from_be_bytes([c, d]);
    } else {
        // Any but 0, so that one can be distinguished from the other.
        let id = u16::from_be_bytes([e, f]).max(1);
        (tuple.source_port, tuple.destination_port) = if a == icmp.echo_request() {
            (id, 0)
        } else if a == icmp.echo_reply() {
            (0, id)
        } else {
            icmp.ports(a, b)
        };
    }
    Some(())
}
