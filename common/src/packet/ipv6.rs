//! IPv6 (RFC 8200): header, extension headers, fragments, and what follows.

use super::{Packet, Parsed, Tuple, icmp, transport};
use crate::{Address, protocol::number};

/// More extension headers than this and the packet is unreadable. Real ones have one or two.
const MAX_EXTENSION_HEADERS: usize = 6;

/// The headers of a packet down to its payload.
pub(super) struct Header {
    pub(super) tuple: Tuple,
    pub(super) payload: usize,
    /// In 8-byte units; 0 without a fragment header.
    fragment_offset: u16,
    /// The identification, when this is a fragment but not the whole datagram.
    fragment: Option<u32>,
}

#[inline(always)]
pub(super) fn header(packet: &impl Packet, offset: usize) -> Option<Header> {
    let [version, ..] = packet.read::<1>(offset)?;
    let [mut protocol] = packet.read::<1>(offset + 6)?;
    let source = Address::from_v6(packet.read::<16>(offset + 8)?);
    let destination = Address::from_v6(packet.read::<16>(offset + 24)?);
    if version >> 4 != 6 || source.is_v4() || destination.is_v4() {
        return None;
    }
    let mut payload = offset + 40;
    let mut fragment_offset = 0;
    let mut fragment = None;
    for _ in 0..MAX_EXTENSION_HEADERS {
        match protocol {
            number::HOP_BY_HOP | number::ROUTING | number::DESTINATION_OPTIONS => {
                let [next, length] = packet.read::<2>(payload)?;
                protocol = next;
                payload += (usize::from(length) + 1) * 8;
            }
            number::AUTHENTICATION => {
                let [next, length] = packet.read::<2>(payload)?;
                protocol = next;
                payload += (usize::from(length) + 2) * 4;
            }
            number::FRAGMENT => {
                let [next, _, high, low, a, b, c, d] = packet.read::<8>(payload)?;
                let field = u16::from_be_bytes([high, low]);
                fragment_offset = field >> 3;
                let id = u32::from_be_bytes([a, b, c, d]);
                // Neither offset nor more fragments: an atomic fragment (RFC 6946), a whole datagram.
                fragment = (field & 0xfff9 != 0).then_some(id);
                protocol = next;
                payload += 8;
                if fragment_offset != 0 {
                    break;
                }
            }
            _ => break,
        }
    }
    let unfinished = matches!(
        protocol,
        number::HOP_BY_HOP
            | number::ROUTING
            | number::DESTINATION_OPTIONS
            | number::AUTHENTICATION
            | number::FRAGMENT
    );
    if unfinished && fragment_offset == 0 {
        return None;
    }
    let tuple = Tuple { source, destination, source_port: 0, destination_port: 0, protocol };
    Some(Header { tuple, payload, fragment_offset, fragment })
}

#[inline(always)]
pub(super) fn parse(packet: &impl Packet, offset: usize) -> Option<Parsed> {
    let Header { tuple, payload, fragment_offset, fragment } = header(packet, offset)?;
    match fragment {
        Some(id) if fragment_offset != 0 => return Some(Parsed::Fragment { tuple, id }),
        _ => {}
    }
    if tuple.protocol == number::ICMPV6 {
        return icmp::parse_v6(packet, payload, tuple, fragment);
    }
    let (tuple, segment) = transport(packet, payload, tuple)?;
    Some(Parsed::Flow { tuple, segment, fragment })
}
