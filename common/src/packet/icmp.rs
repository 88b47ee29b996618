//! ICMP (RFC 792) and ICMPv6 (RFC 4443): errors speak of the packet that they quote.

use super::{Headers, Kind, Packet, forget, ipv4, ipv6, ports};
use crate::protocol::number;

pub(super) const ECHO_REQUEST_V4: u8 = 8;
pub(super) const ECHO_REQUEST_V6: u8 = 128;

/// Bytes before the quoted packet.
const HEADER: usize = 8;

pub(super) enum Class {
    Error,
    /// Neighbour discovery with its router messages, multicast listener discovery.
    Neighbour,
    Other,
}

#[inline(always)]
pub(super) fn class(kind: u8, protocol: u32) -> Class {
    match (protocol, kind) {
        // Destination unreachable, source quench, time exceeded, parameter problem.
        (number::ICMP, 3 | 4 | 11 | 12) => Class::Error,
        // Destination unreachable, packet too big, time exceeded, parameter problem.
        (number::ICMPV6, 1..=4) => Class::Error,
        (number::ICMPV6, 130..=137 | 143) => Class::Neighbour,
        _ => Class::Other,
    }
}

#[inline(always)]
pub(super) fn is_echo_reply(kind: u8, protocol: u32) -> bool {
    matches!((protocol, kind), (number::ICMP, 0) | (number::ICMPV6, 129))
}

/// Replaces the tuple by that of the quoted packet, of which at least 8 bytes after the IP header are there.
///
/// An error that goes to somebody else than the quoted packet's sender is unreadable: it speaks of nothing of his.
#[inline(always)]
pub(super) fn error(packet: &impl Packet, offset: usize, headers: &mut Headers) -> Option<Kind> {
    headers.sender = headers.tuple.source;
    let receiver = headers.tuple.destination;
    let echo_request = match headers.tuple.protocol {
        number::ICMP => {
            ipv4::header(packet, offset + HEADER, headers)?;
            ECHO_REQUEST_V4
        }
        _ => {
            ipv6::header(packet, offset + HEADER, headers)?;
            ECHO_REQUEST_V6
        }
    };
    let payload = forget(&headers.payload);
    if payload.fragment_offset != 0 || headers.tuple.source != receiver {
        return None;
    }
    ports(packet, payload.offset, echo_request, &mut headers.tuple)?;
    Some(Kind::Related)
}
