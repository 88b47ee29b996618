//! The fast path: a packet of a connection that was evaluated.
//!
//! Nearly all packets end here, most of them in the first of two steps. Both read the packet and one entry,
//! and write nothing but two words of it: once in a while when the connection was used last, and what is new
//! of it. So they need no memory but registers. What they do not know for certain they leave to
//! [`super::decide`], which says the same of what passes here.

use super::link;
use crate::{
    Direction, FlowKey, FlowSummary, Hook, Packet, Reach, Seen, Segment, Tables, Timeout,
    packet::plain::{self, Plain},
};

/// The direction in which a packet passes on the entry of its connection, as the first look finds it:
/// IPv4, and the entry stands where it is looked for first.
///
/// Its code is small, to stay in the cache of instructions beside the kernel's own.
#[inline(always)]
pub fn established_v4_fast_path<T: Tables>(
    packet: &impl Packet,
    hook: impl Fn() -> Hook,
    tables: &T,
) -> Option<Direction> {
    if tables.recheck() {
        return None;
    }
    let (key, source_is_low) = plain::v4_that_goes_on(packet)?;
    passes(packet, (&key, source_is_low), Segment::NONE, Reach::First, hook, tables)
}

/// The same of both families, wherever the entry stands, and of packets that add to what was seen of their
/// connection.
///
/// A function of its own in the kernel too, beside the code of the one above.
#[inline(never)]
pub fn is_established<T: Tables>(packet: &impl Packet, hook: &Hook, tables: &T) -> Option<Direction> {
    if tables.recheck() {
        return None;
    }
    let Plain { tuple, segment } = plain::read(packet)?;
    if segment.opens() {
        return None;
    }
    let (key, source_is_low) = FlowKey::of(&tuple);
    passes(packet, (&key, source_is_low), segment, Reach::Everywhere, || *hook, tables)
}

/// The direction in which it passes.
#[inline(always)]
fn passes<T: Tables>(
    packet: &impl Packet,
    (key, source_is_low): (&FlowKey, bool),
    segment: Segment,
    reach: Reach,
    hook: impl Fn() -> Hook,
    tables: &T,
) -> Option<Direction> {
    let (flow, entry) = tables.known_flow(key, reach)?;
    let from_client = flow.is_from_client(source_is_low);
    let seen = flow.seen.after(segment, from_client);
    let is_new = seen != flow.seen;
    let hook = hook();
    if (is_new && reach == Reach::First) || !was_evaluated_here(&flow, from_client, &hook) {
        return None;
    }
    let leaves = matches!(hook.direction, Direction::Egress);
    if leaves && !flow.seen.has(Seen::ROUTED) && !link::is_own_source(packet, hook.ifindex, tables) {
        return None;
    }
    // After the look-up: an entry that another CPU has just refreshed must not come from the future.
    let now = tables.now();
    let age = now.wrapping_sub(flow.last);
    if is_new || age >= tables.refresh() {
        // How long it lives is known to the whole decision; all live as long as this.
        if age > tables.timeout(Timeout::Unreplied) {
            return None;
        }
        tables.touch_flow(entry, now);
        if is_new {
            tables.mark_flow(entry, seen);
        }
    }
    Some(hook.direction)
}

/// [`super::was_evaluated_here`], of connections that the agent has not found.
#[inline(always)]
fn was_evaluated_here(flow: &FlowSummary, from_client: bool, hook: &Hook) -> bool {
    let leaves = matches!(hook.direction, Direction::Egress);
    let evaluated_at = if from_client == leaves { flow.client_if } else { flow.server_if };
    evaluated_at == hook.ifindex && (leaves || !from_client || flow.ingress_ifindex == hook.ingress_ifindex)
}
