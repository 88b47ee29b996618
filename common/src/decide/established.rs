//! The fast path: a packet of a connection that was evaluated.
//!
//! Nearly all packets end here, most of them in the first of two steps. Both read the packet and one entry,
//! and write nothing but two words of it: once in a while when the connection was used last, and what is new
//! of it. So they need no memory but registers. What they do not know for certain they leave to
//! [`super::decide`], which says the same of what passes here.

use super::{link, shortcut};
use crate::{
    Direction, FlowKey, FlowSummary, Hook, Packet, Reach, Seen, Segment, Tables, Timeout,
    packet::plain::{self, Plain, PlainV4},
};

/// What the first look finds of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstLook {
    Passes(Passage),
    /// It opens a connection: no entry lets it pass.
    Opens,
    Unknown,
}

/// How a packet passes on the entry of its connection, or that it is not known to.
///
/// One number, as a function that the kernel does not inline returns it in a register. From the lowest bit
/// on: whether it passes, the direction; in the upper half the veth of the pod that it is handed to, 0 when
/// it goes its usual way.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage(u64);

impl Passage {
    const NONE: Self = Self(0);
    const PASSES: u64 = 1;

    #[inline(always)]
    const fn new(direction: Direction, receiver: u32) -> Self {
        Self(Self::PASSES | (direction as u64) << 1 | (receiver as u64) << 32)
    }

    #[inline(always)]
    pub const fn passes(self) -> bool {
        self.0 != 0
    }

    #[inline(always)]
    pub const fn direction(self) -> Direction {
        if self.0 & 2 == 0 { Direction::Egress } else { Direction::Ingress }
    }

    #[inline(always)]
    pub const fn receiver(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Whether a packet passes on the entry of its connection, as the first look finds it: IPv4, and the entry
/// stands where it is looked for first.
///
/// Its code is small, to stay in the cache of instructions beside the kernel's own.
#[inline(always)]
pub fn established_v4_fast_path<T: Tables>(
    packet: &impl Packet,
    hook: impl Fn() -> Hook,
    tables: &T,
) -> FirstLook {
    if tables.recheck() {
        return FirstLook::Unknown;
    }
    let (key, source_is_low) = match plain::v4(packet) {
        PlainV4::GoesOn { key, source_is_low } => (key, source_is_low),
        PlainV4::Opens => return FirstLook::Opens,
        PlainV4::Other => return FirstLook::Unknown,
    };
    match passes(packet, (&key, source_is_low), Segment::NONE, Reach::First, hook, tables) {
        passage if passage.passes() => FirstLook::Passes(passage),
        _ => FirstLook::Unknown,
    }
}

/// The same of both families, wherever the entry stands, and of packets that add to what was seen of their
/// connection.
///
/// A function of its own in the kernel too, beside the code of the one above.
#[inline(never)]
pub fn is_established<T: Tables>(packet: &impl Packet, hook: &Hook, tables: &T) -> Passage {
    if tables.recheck() {
        return Passage::NONE;
    }
    let Some(Plain { tuple, segment }) = plain::read(packet) else { return Passage::NONE };
    if segment.opens() {
        return Passage::NONE;
    }
    let (key, source_is_low) = FlowKey::of(&tuple);
    passes(packet, (&key, source_is_low), segment, Reach::Everywhere, || *hook, tables)
}

/// How it passes.
#[inline(always)]
fn passes<T: Tables>(
    packet: &impl Packet,
    (key, source_is_low): (&FlowKey, bool),
    segment: Segment,
    reach: Reach,
    hook: impl Fn() -> Hook,
    tables: &T,
) -> Passage {
    let Some((flow, entry)) = tables.known_flow(key, reach) else { return Passage::NONE };
    let from_client = flow.is_from_client(source_is_low);
    let seen = flow.seen.after(segment, from_client);
    let is_new = seen != flow.seen;
    let hook = hook();
    // What is read for names is for the whole decision.
    let is_left = reach == Reach::First || flow.seen.has(Seen::NAMES);
    if (is_new && is_left) || !was_evaluated_here(&flow, from_client, &hook) {
        return Passage::NONE;
    }
    if shortcut::learns(flow.seen, from_client, &hook, tables) {
        return Passage::NONE;
    }
    let leaves = matches!(hook.direction, Direction::Egress);
    if leaves && !flow.seen.has(Seen::ROUTED) {
        let is_rewritten = from_client && flow.seen.has(Seen::REWRITTEN);
        if is_rewritten || !link::is_own_source(packet, hook.ifindex, tables) {
            return Passage::NONE;
        }
    }
    // After the look-up: an entry that another CPU has just refreshed must not come from the future.
    let now = tables.now();
    let age = now.wrapping_sub(flow.last);
    if is_new || age >= tables.refresh() {
        // How long it lives is known to the whole decision; all live as long as this. On the short cut they
        // stay for as long as they live: the whole decision sends them through the node.
        let is_there = tables.has_shortcut() && flow.seen.has(Seen::SHORTCUT);
        let lives = if is_there { Timeout::of(key.protocol(), flow.seen) } else { Timeout::Unreplied };
        if age > tables.timeout(lives) {
            return Passage::NONE;
        }
        tables.touch_flow(entry, now);
        if is_new {
            tables.mark_flow(entry, seen);
        }
    }
    let receiver = if leaves && tables.has_shortcut() {
        shortcut::receiver(packet, (key, from_client), segment, &flow, hook.ifindex, tables)
    } else {
        0
    };
    Passage::new(hook.direction, receiver)
}

/// [`super::was_evaluated_here`], of connections that the agent has not found.
#[inline(always)]
fn was_evaluated_here(flow: &FlowSummary, from_client: bool, hook: &Hook) -> bool {
    let leaves = matches!(hook.direction, Direction::Egress);
    let evaluated_at = if from_client == leaves { flow.client_if } else { flow.server_if };
    evaluated_at == hook.ifindex && (leaves || !from_client || flow.ingress_ifindex == hook.ingress_ifindex)
}
