//! ICMP (RFC 792) and ICMPv6 (RFC 4443): echoes are connections, errors speak of the packet that they quote.

use super::{Packet, Parsed, Segment, Tuple, ipv4, ipv6};
use crate::protocol::number;

/// An ICMP header, after which an error quotes the packet that caused it.
const HEADER: usize = 8;

#[inline(always)]
pub(super) fn parse_v4(
    packet: &impl Packet,
    offset: usize,
    tuple: Tuple,
    fragment: Option<u32>,
) -> Option<Parsed> {
    const ECHO_REPLY: u8 = 0;
    const ECHO_REQUEST: u8 = 8;

    let header = packet.read::<HEADER>(offset)?;
    match header[0] {
        ECHO_REQUEST => Some(echo(tuple, header, true, fragment)),
        ECHO_REPLY => Some(echo(tuple, header, false, fragment)),
        // Destination unreachable, source quench, time exceeded, parameter problem.
        3 | 4 | 11 | 12 => {
            let quoted = ipv4::header(packet, offset + HEADER)?;
            related(packet, tuple, quoted.tuple, quoted.payload, ECHO_REQUEST)
        }
        _ => Some(plain(tuple, fragment)),
    }
}

#[inline(always)]
pub(super) fn parse_v6(
    packet: &impl Packet,
    offset: usize,
    tuple: Tuple,
    fragment: Option<u32>,
) -> Option<Parsed> {
    const ECHO_REQUEST: u8 = 128;
    const ECHO_REPLY: u8 = 129;

    let header = packet.read::<HEADER>(offset)?;
    match header[0] {
        ECHO_REQUEST => Some(echo(tuple, header, true, fragment)),
        ECHO_REPLY => Some(echo(tuple, header, false, fragment)),
        // Destination unreachable, packet too big, time exceeded, parameter problem.
        1..=4 => {
            let quoted = ipv6::header(packet, offset + HEADER)?;
            related(packet, tuple, quoted.tuple, quoted.payload, ECHO_REQUEST)
        }
        // Multicast listener discovery and neighbour discovery with its router and redirect messages.
        130..=137 | 143 => Some(Parsed::Neighbour),
        _ => Some(plain(tuple, fragment)),
    }
}

#[inline(always)]
fn echo(mut tuple: Tuple, header: [u8; HEADER], request: bool, fragment: Option<u32>) -> Parsed {
    let id = u16::from_be_bytes([header[4], header[5]]);
    if request {
        tuple.source_port = id;
    } else {
        tuple.destination_port = id;
    }
    plain(tuple, fragment)
}

#[inline(always)]
fn plain(tuple: Tuple, fragment: Option<u32>) -> Parsed {
    Parsed::Flow { tuple, segment: Segment::default(), fragment }
}

/// The quoted packet has at least 8 bytes after its IP header (RFC 792): ports, or an echo's type and identifier.
#[inline(always)]
fn related(
    packet: &impl Packet,
    outer: Tuple,
    mut quoted: Tuple,
    payload: usize,
    echo_request: u8,
) -> Option<Parsed> {
    let bytes = packet.read::<8>(payload)?;
    match quoted.protocol {
        number::TCP | number::UDP | number::SCTP => {
            quoted.source_port = u16::from_be_bytes([bytes[0], bytes[1]]);
            quoted.destination_port = u16::from_be_bytes([bytes[2], bytes[3]]);
        }
        number::ICMP | number::ICMPV6 => {
            let id = u16::from_be_bytes([bytes[4], bytes[5]]);
            if bytes[0] == echo_request {
                quoted.source_port = id;
            } else {
                quoted.destination_port = id;
            }
        }
        _ => {}
    }
    Some(Parsed::Related { source: outer.source, destination: outer.destination, quoted })
}
