//! IPv4 (RFC 791): header with options, fragments, and what follows.

use super::{Packet, Parsed, Tuple, icmp, transport};
use crate::{Address, protocol::number};

/// The fixed fields that matter, and where the payload begins.
pub(super) struct Header {
    pub(super) tuple: Tuple,
    pub(super) payload: usize,
    /// In 8-byte units.
    fragment_offset: u16,
    more_fragments: bool,
    id: u32,
}

#[inline(always)]
pub(super) fn header(packet: &impl Packet, offset: usize) -> Option<Header> {
    let header = packet.read::<20>(offset)?;
    let length = usize::from(header[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    // A total length of 0 is what GSO leaves in packets over 64 KiB ("BIG TCP").
    if header[0] >> 4 != 4 || length < 20 || (total != 0 && total < length) {
        return None;
    }
    let [_, _, _, _, id_high, id_low, fragment_high, fragment_low, _, protocol, ..] = header;
    let fragment = u16::from_be_bytes([fragment_high, fragment_low]);
    Some(Header {
        tuple: Tuple {
            source: Address::from_v4([header[12], header[13], header[14], header[15]]),
            destination: Address::from_v4([header[16], header[17], header[18], header[19]]),
            source_port: 0,
            destination_port: 0,
            protocol,
        },
        payload: offset + length,
        fragment_offset: fragment & 0x1fff,
        more_fragments: fragment & 0x2000 != 0,
        id: u32::from(u16::from_be_bytes([id_high, id_low])),
    })
}

#[inline(always)]
pub(super) fn parse(packet: &impl Packet, offset: usize) -> Option<Parsed> {
    let Header { tuple, payload, fragment_offset, more_fragments, id } = header(packet, offset)?;
    if fragment_offset != 0 {
        return Some(Parsed::Fragment { tuple, id });
    }
    let fragment = more_fragments.then_some(id);
    if tuple.protocol == number::ICMP {
        return icmp::parse_v4(packet, payload, tuple, fragment);
    }
    let (tuple, segment) = transport(packet, payload, tuple)?;
    Some(Parsed::Flow { tuple, segment, fragment })
}
