//! Packets as nearly all are: TCP or UDP, in one piece, without options and extension headers. Read at one
//! go, for the fast path. What is read header by header says the same.

use super::{Packet, Segment, Start, TCP_HEADER};
use crate::{Address, FlowKey, Tuple, address::unpair, protocol::number};

/// Where things stand in the frame.
mod at {
    /// Type of the frame, and version and length of the header.
    pub(super) const TYPE_AND_VERSION: usize = 12;

    pub(super) mod v4 {
        pub(in super::super) const TOTAL: usize = 16;
        pub(in super::super) const FRAGMENT: usize = 20;
        pub(in super::super) const TTL: usize = 22;
        pub(in super::super) const PROTOCOL: usize = 23;
        pub(in super::super) const ADDRESSES: usize = 26;
        pub(in super::super) const TRANSPORT: usize = 34;
    }

    pub(super) mod v6 {
        pub(in super::super) const PAYLOAD: usize = 18;
        pub(in super::super) const NEXT_HEADER: usize = 20;
        pub(in super::super) const HOP_LIMIT: usize = 21;
        pub(in super::super) const SOURCE: usize = 22;
        pub(in super::super) const DESTINATION: usize = 38;
        pub(in super::super) const TRANSPORT: usize = 54;
    }

    /// In a TCP header: its length and its flags.
    pub(super) const LENGTH_AND_FLAGS: usize = 12;
}

/// By mask and value: IPv4 with 5 words of header, and IPv6.
const IPV4: [u32; 2] = [u32::from_ne_bytes([0xff, 0xff, 0xff, 0]), u32::from_ne_bytes([0x08, 0x00, 0x45, 0])];
const IPV6: [u32; 2] = [u32::from_ne_bytes([0xff, 0xff, 0xf0, 0]), u32::from_ne_bytes([0x86, 0xdd, 0x60, 0])];
/// More fragments, or a place in the datagram.
const FRAGMENTED: u16 = 0x3fff_u16.to_be();
const IPV4_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// What is read of a plain packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plain {
    pub(crate) tuple: Tuple,
    pub(crate) segment: Segment,
}

/// Reads a plain packet; `None` when it is not plain.
#[inline(always)]
pub(crate) fn read(packet: &impl Packet) -> Option<Plain> {
    // No packet that is plain is shorter than this.
    let start = packet.start::<{ at::v4::TRANSPORT + UDP_HEADER }>()?;
    let word = start.u32::<{ at::TYPE_AND_VERSION }>();
    let is = |[mask, value]: [u32; 2]| word & mask == value;
    match (is(IPV4), is(IPV6)) {
        (true, _) => read_v4(packet, &start),
        (_, true) => read_v6(packet),
        _ => None,
    }
}

/// A plain IPv4 packet on the first look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlainV4 {
    /// Of a connection of which it says nothing new.
    GoesOn {
        key: FlowKey,
        source_is_low: bool,
    },
    Opens,
    /// Not plain, or not known here.
    Other,
}

#[inline(always)]
pub(crate) fn v4(packet: &impl Packet) -> PlainV4 {
    let Some(start) = packet.start::<{ at::v4::TRANSPORT + UDP_HEADER }>() else { return PlainV4::Other };
    let [mask, value] = IPV4;
    if start.u32::<{ at::TYPE_AND_VERSION }>() & mask != value {
        return PlainV4::Other;
    }
    let Some((protocol, segment)) = v4_headers(packet, &start) else { return PlainV4::Other };
    if !segment.goes_on() {
        return if segment.opens() { PlainV4::Opens } else { PlainV4::Other };
    }
    let addresses = start.u64::<{ at::v4::ADDRESSES }>();
    let ports = start.u32::<{ at::v4::TRANSPORT }>();
    let [from, to] = unpair(addresses);
    // The ends of one that speaks with itself are distinguished by their ports, for which there is no room
    // here.
    if from == to {
        return PlainV4::Other;
    }
    let source_is_low = from < to;
    let key = FlowKey::of_v4(addresses, ports, protocol.into(), source_is_low);
    PlainV4::GoesOn { key, source_is_low }
}

/// How many routers a plain packet may still pass, this one included.
#[inline(always)]
pub(crate) fn hop_limit(packet: &impl Packet, is_v4: bool) -> u8 {
    let Some(start) = packet.start::<{ at::v4::TRANSPORT }>() else { return 0 };
    if is_v4 { start.u8::<{ at::v4::TTL }>() } else { start.u8::<{ at::v6::HOP_LIMIT }>() }
}

#[inline(always)]
fn read_v4(packet: &impl Packet, start: &impl Start) -> Option<Plain> {
    let (protocol, segment) = v4_headers(packet, start)?;
    let [source, destination] =
        [start.u32::<{ at::v4::ADDRESSES }>(), start.u32::<{ at::v4::ADDRESSES + 4 }>()]
            .map(Address::from_v4_word);
    let ports =
        [start.u16::<{ at::v4::TRANSPORT }>(), start.u16::<{ at::v4::TRANSPORT + 2 }>()].map(u16::from_be);
    Some(Plain { tuple: tuple(protocol, source, destination, ports), segment })
}

/// Protocol number, and what a TCP segment says.
#[inline(always)]
fn v4_headers(packet: &impl Packet, start: &impl Start) -> Option<(u8, Segment)> {
    if start.u16::<{ at::v4::FRAGMENT }>() & FRAGMENTED != 0 {
        return None;
    }
    let protocol = start.u8::<{ at::v4::PROTOCOL }>();
    let length = usize::from(u16::from_be(start.u16::<{ at::v4::TOTAL }>()));
    let flags = || {
        let more = packet.start::<{ at::v4::TRANSPORT + at::LENGTH_AND_FLAGS + 2 }>()?;
        Some(more.u16::<{ at::v4::TRANSPORT + at::LENGTH_AND_FLAGS }>())
    };
    let segment = segment(protocol, length, IPV4_HEADER, flags)?;
    Some((protocol, segment))
}

#[inline(always)]
fn read_v6(packet: &impl Packet) -> Option<Plain> {
    let start = packet.start::<{ at::v6::TRANSPORT + UDP_HEADER }>()?;
    let address = |[upper, lower]: [u64; 2]| Address::from_halves(upper, lower);
    let source = address([start.u64::<{ at::v6::SOURCE }>(), start.u64::<{ at::v6::SOURCE + 8 }>()]);
    let destination =
        address([start.u64::<{ at::v6::DESTINATION }>(), start.u64::<{ at::v6::DESTINATION + 8 }>()]);
    if source.is_v4() || destination.is_v4() {
        return None;
    }
    let protocol = start.u8::<{ at::v6::NEXT_HEADER }>();
    let length = usize::from(u16::from_be(start.u16::<{ at::v6::PAYLOAD }>()));
    let flags = || {
        let more = packet.start::<{ at::v6::TRANSPORT + at::LENGTH_AND_FLAGS + 2 }>()?;
        Some(more.u16::<{ at::v6::TRANSPORT + at::LENGTH_AND_FLAGS }>())
    };
    let segment = segment(protocol, length, 0, flags)?;
    let ports =
        [start.u16::<{ at::v6::TRANSPORT }>(), start.u16::<{ at::v6::TRANSPORT + 2 }>()].map(u16::from_be);
    Some(Plain { tuple: tuple(protocol, source, destination, ports), segment })
}

/// `None` when the transport header is none of TCP or UDP, or is not all there by the account of the IP
/// header, whose `length` counts from so many bytes `before` it.
#[inline(always)]
fn segment(
    protocol: u8,
    length: usize,
    before: usize,
    length_and_flags: impl Fn() -> Option<u16>,
) -> Option<Segment> {
    match u32::from(protocol) {
        number::TCP if length >= before + TCP_HEADER => {
            let [data_offset, flags] = length_and_flags()?.to_ne_bytes();
            (data_offset >> 4 >= 5).then_some(Segment::with_flags(flags))
        }
        number::UDP if length >= before + UDP_HEADER => Some(Segment::NONE),
        _ => None,
    }
}

#[inline(always)]
fn tuple(
    protocol: u8,
    source: Address,
    destination: Address,
    [source_port, destination_port]: [u16; 2],
) -> Tuple {
    Tuple { source, destination, source_port, destination_port, protocol: u32::from(protocol) }
}
