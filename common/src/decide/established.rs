//! The fast path: a packet of a connection of which nothing new is seen.
//!
//! Nearly all packets end here. It reads the packet and one entry, and writes nothing but, once in a while, when the
//! connection was used last; so it needs no memory but registers. What it does not know for certain it leaves to [`super::decide`], which says the same of what passes here.

use crate::{
    Direction, Flow, FlowKey, Hook, Packet, Seen, Tables, Timeout,
    packet::plain::{self, Family, Plain},
};

/// Whether a packet passes on the entry of its connection, as it is there.
#[inline(always)]
pub fn is_established<T: Tables>(packet: &impl Packet, hook: &Hook, tables: &T) -> bool {
    if tables.recheck() {
        return false;
    }
    // Each family is compiled by itself: of IPv4 addresses most is known beforehand.
    match plain::family(packet) {
        Some(Family::V4) => match plain::v4(packet) {
            Some(plain) => passes(&plain, hook, tables),
            None => false,
        },
        Some(Family::V6) => match plain::v6(packet) {
            Some(plain) => passes(&plain, hook, tables),
            None => false,
        },
        None => false,
    }
}

#[inline(always)]
fn passes<T: Tables>(plain: &Plain, hook: &Hook, tables: &T) -> bool {
    if !plain.segment.goes_on() {
        return false;
    }
    let (key, source_is_low) = FlowKey::of(&plain.tuple);
    let Some((flow, entry)) = tables.known_flow(&key) else { return false };
    let from_client = flow.seen.has(Seen::CLIENT_IS_LOW) == source_is_low;
    let is_noted = from_client || flow.seen.has(Seen::REPLY);
    if !is_noted || !was_judged_here(&flow, from_client, hook) {
        return false;
    }
    // After the look-up: an entry that another CPU has just refreshed must not come from the future.
    let now = tables.now();
    let age = now.wrapping_sub(flow.last);
    if age >= tables.refresh() {
        // How long it lives is known to the whole decision; all live as long as this.
        if age > tables.timeout(Timeout::Unreplied) {
            return false;
        }
        tables.touch_flow(entry, now);
    }
    true
}

/// [`super::was_judged_here`], of connections that the agent has not found.
#[inline(always)]
fn was_judged_here(flow: &Flow, from_client: bool, hook: &Hook) -> bool {
    match (hook.direction, from_client) {
        (Direction::Egress, true) | (Direction::Ingress, false) => flow.client_if == hook.ifindex,
        (Direction::Egress, false) => flow.server_if == hook.ifindex,
        (Direction::Ingress, true) => flow.server_if == hook.ifindex && flow.via == hook.via,
    }
}
