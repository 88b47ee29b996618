//! Neighbour discovery (RFC 4861) and multicast listener discovery (RFC 2710, 3810) by their form: nothing
//! but such a message may pass as one.
//!
//! In: an ICMPv6 packet of one of their types. Out: the type, the address that it speaks of, and whether the
//! packet is what such a message must be. Whether its addresses may be there is not decided here.

use super::{ETHERNET_HEADER, Headers, Packet, Payload, forget};
use crate::{Address, Direction};

/// Types of messages (RFC 4861, 4; RFC 2710, 3; RFC 3810, 5.2).
pub(crate) mod kind {
    pub(crate) const LISTENER_QUERY: u8 = 130;
    pub(crate) const LISTENER_REPORT: u8 = 131;
    pub(crate) const LISTENER_DONE: u8 = 132;
    pub(crate) const ROUTER_SOLICITATION: u8 = 133;
    pub(crate) const ROUTER_ADVERTISEMENT: u8 = 134;
    pub(crate) const SOLICITATION: u8 = 135;
    pub(crate) const ADVERTISEMENT: u8 = 136;
    pub(crate) const REDIRECT: u8 = 137;
    pub(crate) const LISTENER_REPORT_V2: u8 = 143;
}

/// Places in the frame, and in the IPv6 header.
const SOURCE_MAC: usize = 6;
const LENGTH_TO_HOP_LIMIT: usize = 4;
/// The greatest hop limit.
const ON_LINK: u8 = 255;
const PLAIN: usize = ETHERNET_HEADER + 40;
/// As the header after IPv6's own.
const HOP_BY_HOP: u8 = 0;
/// After a hop-by-hop header with a router alert, which listener discovery must have.
const ALERTED: usize = PLAIN + 8;

/// Options of a router's messages. Those of hosts have two at the most: a link-layer address and a nonce.
const MAX_OPTIONS: usize = 10;
const HOST_OPTIONS: usize = 2 * 8;
/// Groups in one report. A pod listens to a few: one for each of its addresses, and what it has joined.
const MAX_GROUPS: usize = 8;

/// The options of hosts: link-layer addresses of the sender and of the target, a nonce (RFC 3971, as RFC 7527
/// uses it).
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
const NONCE: u8 = 14;

/// What is read of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: u8,
    /// The target of a solicitation or advertisement; `::` where it is not all there, or the type has none.
    pub(crate) target: Address,
    /// A message by the rules of its protocol, and nothing besides.
    pub(crate) is_whole: bool,
}

/// Reads what is of one of the types. `direction`: what a pod sends must speak for the device that it comes
/// from.
#[inline(always)]
pub(crate) fn read(packet: &impl Packet, headers: &Headers, direction: Direction) -> Option<Message> {
    let Payload { offset, end, fragment_offset: _, more_fragments } = forget(&headers.payload);
    let [kind, code] = packet.read::<2>(offset)?;
    let target = match kind {
        kind::SOLICITATION | kind::ADVERTISEMENT => packet.read::<16>(offset + 8).map(Address::from_v6),
        _ => None,
    };
    let message = Message { kind, target: target.unwrap_or(Address::UNSPECIFIED), is_whole: false };
    let hop_limit = hop_limit(packet)?;
    // All there, and nothing behind it in the frame. (Two bytes are the least that can be read.) As places
    // that the compiler does not know: it would compare the end alone, of which the verifier of Linux 6.12
    // concludes nothing about what lies before it.
    let is_alone = more_fragments == 0
        && packet.read::<2>(forget(&end.wrapping_sub(2))).is_some()
        && packet.read::<2>(forget(&end.wrapping_sub(1))).is_none();
    if code != 0 || !is_alone || end < offset {
        return Some(message);
    }
    let length = end - offset;
    let is_whole = match kind {
        kind::LISTENER_QUERY | kind::LISTENER_REPORT | kind::LISTENER_DONE | kind::LISTENER_REPORT_V2 => {
            hop_limit == 1
                && offset == ALERTED
                && has_router_alert(packet)
                && is_listeners(packet, kind, offset, length)
        }
        _ => {
            let options = match kind {
                kind::ROUTER_SOLICITATION => 8,
                kind::ROUTER_ADVERTISEMENT => 16,
                kind::REDIRECT => 40,
                _ => 24,
            };
            hop_limit == 255
                && offset == PLAIN
                && length >= options
                && has_options(packet, kind, offset + options, end, direction)
        }
    };
    Some(Message { is_whole, ..message })
}

/// Of an IPv6 packet.
#[inline(always)]
pub(crate) fn hop_limit<P: Packet>(packet: &P) -> Option<u8> {
    let [_, _, _, hop_limit] = packet.read::<4>(P::LINK_HEADER + LENGTH_TO_HOP_LIMIT)?;
    Some(hop_limit)
}

/// Whether an IPv6 packet comes from this link: with any other hop limit, receivers take no neighbour
/// discovery (RFC 4861, 3.1).
#[inline(always)]
pub(crate) fn has_not_been_forwarded(packet: &impl Packet) -> bool {
    hop_limit(packet) == Some(ON_LINK)
}

/// Padded by one option or by two (RFC 2711, RFC 8200, 4.2). Other headers may have the same bytes.
#[inline(always)]
fn has_router_alert(packet: &impl Packet) -> bool {
    let Some([_, _, HOP_BY_HOP, _]) = packet.read::<4>(ETHERNET_HEADER + LENGTH_TO_HOP_LIMIT) else {
        return false;
    };
    // As a place that the compiler does not know: what it concludes about the packet's length the verifier
    // does not.
    matches!(packet.read::<8>(forget(&PLAIN)), Some([58, 0, 5, 2, 0, 0, 0 | 1, 0]))
}

/// No sources: what a host that wants all of a group says.
#[inline(always)]
fn is_listeners(packet: &impl Packet, kind: u8, offset: usize, length: usize) -> bool {
    match kind {
        kind::LISTENER_QUERY => length == 24 || length == 28,
        kind::LISTENER_REPORT_V2 => {
            let Some([high, low]) = packet.read::<2>(offset + 6) else { return false };
            let groups = usize::from(u16::from_be_bytes([high, low]));
            groups <= MAX_GROUPS && length == 8 + 20 * groups
        }
        _ => length == 24,
    }
}

/// Whether nothing but options stands from `at` to `end`.
#[inline(always)]
fn has_options(packet: &impl Packet, kind: u8, mut at: usize, end: usize, direction: Direction) -> bool {
    let is_routers = matches!(kind, kind::ROUTER_ADVERTISEMENT | kind::REDIRECT);
    if !is_routers && end - at > HOST_OPTIONS {
        return false;
    }
    for _ in 0..MAX_OPTIONS {
        if at >= end {
            break;
        }
        let Some([option, units]) = packet.read::<2>(at) else { return false };
        let is_fit = match option {
            _ if is_routers => units != 0,
            SOURCE_LINK_LAYER | TARGET_LINK_LAYER => {
                let is_own = || packet.read::<6>(at + 2) == packet.read::<6>(SOURCE_MAC);
                units == 1 && (matches!(direction, Direction::Ingress) || is_own())
            }
            NONCE => units == 1,
            _ => false,
        };
        if !is_fit {
            return false;
        }
        at = forget(&(at + usize::from(units) * 8));
    }
    at == end
}
