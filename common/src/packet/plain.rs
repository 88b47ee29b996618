//! Packets as nearly all are: TCP or UDP, in one piece, without options and extension headers. Read at one go, for the
//! fast path. What is read header by header says the same.

use core::mem::{offset_of, transmute};

use super::{Packet, Segment, TCP_HEADER};
use crate::{Address, Tuple, protocol::number};

/// Ethernet, IPv4 and the ports, as they lie in the packet.
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

/// What UDP has, too.
#[repr(C, packed)]
struct Transport {
    source_port: u16,
    destination_port: u16,
    rest: u32,
}

/// Where a TCP header has its length and its flags.
const LENGTH_AND_FLAGS: usize = 12;

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

/// Reads a plain packet; `None` when it is not plain.
#[inline(always)]
pub(super) fn read(packet: &impl Packet) -> Option<Plain> {
    match family(packet)? {
        Family::V4 => v4(packet),
        Family::V6 => v6(packet),
    }
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
    let flags = || packet.read::<2>(offset_of!(PlainV4, transport) + LENGTH_AND_FLAGS);
    let segment = segment(plain.protocol, payload, flags)?;
    Some(Plain { tuple: tuple(plain.protocol, source, destination, &plain.transport), segment })
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
    let flags = || packet.read::<2>(offset_of!(PlainV6, transport) + LENGTH_AND_FLAGS);
    let segment = segment(plain.next_header, u16::from_be(plain.payload), flags)?;
    Some(Plain { tuple: tuple(plain.next_header, source, destination, &plain.transport), segment })
}

/// `None` when the transport header is none of TCP or UDP, or is not all there.
#[inline(always)]
fn segment(protocol: u8, payload: u16, flags: impl Fn() -> Option<[u8; 2]>) -> Option<Segment> {
    match u32::from(protocol) {
        number::TCP if usize::from(payload) >= TCP_HEADER => {
            let [data_offset, flags] = flags()?;
            (data_offset >> 4 >= 5).then_some(Segment::with_flags(flags))
        }
        number::UDP if payload >= UDP_HEADER => Some(Segment::NONE),
        _ => None,
    }
}

#[inline(always)]
fn tuple(protocol: u8, source: Address, destination: Address, transport: &Transport) -> Tuple {
    Tuple {
        source,
        destination,
        source_port: u16::from_be(transport.source_port),
        destination_port: u16::from_be(transport.destination_port),
        protocol: u32::from(protocol),
    }
}
