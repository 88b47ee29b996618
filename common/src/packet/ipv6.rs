//! IPv6 (RFC 8200): header, extension headers, and fragments.

use super::{Headers, Packet, Payload, UNKNOWN_END, forget};
use crate::{Address, protocol::number};

const HEADER: usize = 40;

/// More extension headers than this and the packet is unreadable. Real ones have one or two.
const MAX_EXTENSION_HEADERS: usize = 6;

/// Reads the headers at `offset` into `headers`; the ports are not known yet.
#[inline(always)]
pub(super) fn header(packet: &impl Packet, offset: usize, headers: &mut Headers) -> Option<()> {
    let [version, _, _, _, length_high, length_low, protocol, _] = packet.read::<8>(offset)?;
    let length = usize::from(u16::from_be_bytes([length_high, length_low]));
    headers.tuple.source = Address::from_v6(packet.read::<16>(offset + 8)?);
    headers.tuple.destination = Address::from_v6(packet.read::<16>(offset + 24)?);
    headers.tuple.source_port = 0;
    headers.tuple.destination_port = 0;
    headers.tuple.protocol = u32::from(protocol);
    headers.payload = Payload {
        offset: offset + HEADER,
        end: if length == 0 { UNKNOWN_END } else { offset + HEADER + length },
        fragment_offset: 0,
        more_fragments: 0,
    };
    if version >> 4 != 6 || headers.tuple.source.is_v4() || headers.tuple.destination.is_v4() {
        return None;
    }
    for _ in 0..MAX_EXTENSION_HEADERS {
        if headers.payload.fragment_offset != 0 || !is_extension(headers.tuple.protocol) {
            return Some(());
        }
        extension(packet, headers)?;
    }
    (headers.payload.fragment_offset != 0 || !is_extension(headers.tuple.protocol)).then_some(())
}

/// Steps over one extension header.
#[inline(always)]
fn extension(packet: &impl Packet, headers: &mut Headers) -> Option<()> {
    let offset = forget(&headers.payload.offset);
    let protocol = forget(&headers.tuple.protocol);
    let [next, length, high, low] = packet.read::<4>(offset)?;
    let size = match protocol {
        number::FRAGMENT => {
            // Offset 0 and no more fragments is a whole datagram, an atomic fragment (RFC 6946).
            let field = u32::from(u16::from_be_bytes([high, low]));
            headers.payload.fragment_offset = field >> 3;
            // A second such header takes nothing back of what the first one says.
            headers.payload.more_fragments |= field & 1;
            headers.datagram = u32::from_be_bytes(packet.read::<4>(offset + 4)?);
            8
        }
        // The authentication header counts in 4-byte units, and leaves two of them out (RFC 4302).
        number::AUTHENTICATION => (usize::from(length) + 2) * 4,
        _ => (usize::from(length) + 1) * 8,
    };
    headers.payload.offset = offset + size;
    headers.tuple.protocol = u32::from(next);
    Some(())
}

#[inline(always)]
fn is_extension(protocol: u32) -> bool {
    matches!(
        protocol,
        number::HOP_BY_HOP
            | number::ROUTING
            | number::FRAGMENT
            | number::AUTHENTICATION
            | number::DESTINATION_OPTIONS
    )
}
