//! Packets that cannot be read to their end, or evaluated.

use super::{encapsulation::may_be_tunnelled, is_forged, is_spoofed, link};
use crate::{Address, Direction, Headers, Hook, NODE, Outcome, Packet, Tables, packet::discovery::hop_limit};

/// What cannot be read to its end. Its source can be, nearly always: it is no way around the check of
/// sources.
#[inline(never)]
pub(super) fn unread<T: Tables>(
    packet: &impl Packet,
    headers: &Headers,
    hook: &Hook,
    reason: Outcome,
    tables: &T,
) -> Outcome {
    let sender = &headers.sender;
    let is_spoofed = match hook.direction {
        _ if *sender == Address::UNSPECIFIED => false,
        Direction::Egress => is_spoofed(sender, &tables.endpoint(hook.ifindex), hook.ifindex, tables),
        Direction::Ingress => hook.ingress_ifindex != NODE && is_forged(sender, hook.ingress_ifindex, tables),
    };
    if is_spoofed {
        return Outcome::Spoofed;
    }
    if matches!(hook.direction, Direction::Egress)
        && matches!(reason, Outcome::Unreadable)
        && (may_be_neighbours(packet, headers)
            || may_be_tunnelled(headers, tables)
            || link::is_misnamed(packet))
    {
        return Outcome::Unreadable;
    }
    unknown(hook, reason, tables)
}

/// The same of a message between neighbours. Only these, and what must not come from elsewhere, has this hop
/// limit (RFC 5082).
#[inline(always)]
fn may_be_neighbours(packet: &impl Packet, headers: &Headers) -> bool {
    let is_v6 = headers.sender != Address::UNSPECIFIED && !headers.sender.is_v4();
    is_v6 && hop_limit(packet) == Some(255)
}

/// What cannot be evaluated: dropped for an isolated direction, passed for a free one.
///
/// A function of its own in the kernel too, as all that calls helpers: none is called on the fast path.
#[inline(never)]
pub(super) fn unknown<T: Tables>(hook: &Hook, reason: Outcome, tables: &T) -> Outcome {
    let endpoint = tables.endpoint(hook.ifindex);
    if endpoint.is_pending() {
        Outcome::Pending
    } else if endpoint.is_closed(hook.direction) {
        reason
    } else {
        Outcome::Unparsed
    }
}
