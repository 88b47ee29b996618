//! Packets as nearly all are: TCP or UDP, in one piece, without options and extension headers. Read at one go, for the
//! fast path. What is read header by header says the same.

use core::mem::transmute;

use super::{Packet, Segment, TCP_HEADER};
use crate::{Address, Tuple, protocol::number};

/// Ethernet, IPv4 and what is needed of the transport header, as they lie in the packet.
#[repr(C, packed)]
struct PlainV4 {
    ethernet: [u8; 14],
    version_length: u8,
    service: u8,
    total: u16,
    id: u16,
    fragment: u16,
    time_to_live: u8,
    protocol: u8,
    checksum: u16,
    source: u32,
    destination: u32,
    transport: Transport,
}

/// The same with IPv6.
#[repr(C, packed)]
struct PlainV6 {
    ethernet: [u8; 14],
    version_class: u8,
    flow_label: [u8; 3],
    payload: u16,
    next_header: u8,
    hop_limit: u8,
    source: [u64; 2],
    destination: [u64; 2],
    transport: Transport,
}

/// Of UDP, all but the ports is something else.
#[repr(C, packed)]
struct Transport {
    source_port: u16,
    destination_port: u16,
    numbers: [u8; 8],
    data_offset: u8,
    flags: u8,
}

const IPV4: u16 = 0x0800_u16.to_be();
const IPV6: u16 = 0x86dd_u16.to_be();
/// Version 4, five words of header.
const WITHOUT_OPTIONS: u8 = 0x45;
/// More fragments, or a place in the datagram.
const FRAGMENTED: u16 = 0x3fff_u16.to_be();
const IPV4_HEADER: u16 = 20;
const UDP_HEADER: u16 = 8;

/// What is read of a plain packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plain {
    pub(crate) tuple: Tuple,
    pub(crate) segment: Segment,
}

/// What a plain packet can be.
pub(crate) enum Family {
    V4,
    V6,
}

/// Which of the two it has to be read as.
#[inline(always)]
pub(crate) fn family(packet: &impl Packet) -> Option<Family> {
    match u16::from_ne_bytes(packet.read::<2>(12)?) {
        IPV4 => Some(Family::V4),
        IPV6 => Some(Family::V6),
        _ => None,
    }
}

#[inline(always)]
pub(crate) fn v4(packet: &impl Packet) -> Option<Plain> {
    const SIZE: usize = size_of::<PlainV4>();
    // SAFETY: bytes; every pattern is valid.
    let plain: PlainV4 = unsafe { transmute(packet.read::<SIZE>(0)?) };
    let is_whole = plain.fragment & FRAGMENTED == 0;
    if plain.version_length != WITHOUT_OPTIONS || !is_whole {
        return None;
    }
    let payload = u16::from_be(plain.total).checked_sub(IPV4_HEADER)?;
    let (source, destination) =
        (Address::from_v4_word(plain.source), Address::from_v4_word(plain.destination));
    transport(plain.protocol, payload, source, destination, &plain.transport)
}

#[inline(always)]
pub(crate) fn v6(packet: &impl Packet) -> Option<Plain> {
    const SIZE: usize = size_of::<PlainV6>();
    // SAFETY: as above.
    let plain: PlainV6 = unsafe { transmute(packet.read::<SIZE>(0)?) };
    let address = |[upper, lower]: [u64; 2]| Address::from_halves(upper, lower);
    let (source, destination) = (address(plain.source), address(plain.destination));
    if plain.version_class >> 4 != 6 || source.is_v4() || destination.is_v4() {
        return None;
    }
    transport(plain.next_header, u16::from_be(plain.payload), source, destination, &plain.transport)
}

#[inline(always)]
fn transport(
    protocol: u8,
    payload: u16,
    source: Address,
    destination: Address,
    transport: &Transport,
) -> Option<Plain> {
    let protocol = u32::from(protocol);
    let segment = match protocol {
        number::TCP if usize::from(payload) >= TCP_HEADER && transport.data_offset >> 4 >= 5 => {
            Segment::with_flags(transport.flags)
        }
        number::UDP if payload >= UDP_HEADER => Segment::NONE,
        _ => return None,
    };
    let tuple = Tuple {
        source,
        destination,
        source_port: u16::from_be(transport.source_port),
        destination_port: u16::from_be(transport.destination_port),
        protocol,
    };
    Some(Plain { tuple, segment })
}
