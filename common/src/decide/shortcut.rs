//! The short cut: packets of a connection between two pods of this node go from the sender's veth straight to
//! the receiver's end of its own, past the node's routing and netfilter.
//!
//! Only the programs of both ends can say that a connection may take it. Both must have evaluated it under
//! one tuple, in both directions: then nothing on the way translates it. `from_pod` notes in the entry that
//! it has evaluated it, `to_pod` at the server that the client's first packet has come straight from the
//! client's veth, and `to_pod` at the client the same of the first answer. Less proves nothing: `to_pod`
//! enters `client_if` for what was sent to a service, and what comes from the client's veth under this tuple
//! may have been translated, while the client sends to the server itself as well. Its answers are translated
//! back then.
//!
//! # It is left for good
//!
//! Connection tracking forgets what goes past it, and translates the next connection into a tuple that it
//! takes for free: from one port of a client to the server itself, and to a service of which that is a
//! backend. So a packet that comes through the node to either end ends the short cut for its connection. TCP
//! has one more reason: connection tracking picks up what comes through the node, and keeps it for days
//! unless it sees how it ends.
//!
//! # TCP and connection tracking
//!
//! Connection tracking must see a handshake whole or not at all. SYN and SYN/ACK go through the node, so all
//! its rules decide on each new connection; with the client's answer to the SYN/ACK both directions leave it,
//! or never. Its entry then waits for that answer, and ends by itself after a minute. A connection that comes
//! back is picked up as it is (`nf_conntrack_tcp_loose`), also before that minute is over
//! (`nf_conntrack_tcp_be_liberal`); the agent requires both.

use crate::{
    Direction, Flow, FlowKey, FlowSummary, Hook, Packet, Scratch, Seen, Segment, Tables, packet::plain,
    protocol::number, scratch::SideEvaluation,
};

/// The veth of the pod that a packet of an established connection may be handed to; 0: none, it goes its
/// usual way.
#[inline(always)]
pub(super) fn receiver<T: Tables>(
    packet: &impl Packet,
    (key, from_client): (&FlowKey, bool),
    segment: Segment,
    flow: &FlowSummary,
    ifindex: u32,
    tables: &T,
) -> u32 {
    let to = if from_client { flow.server_if } else { flow.client_if };
    // The sender gets an ICMP error of one that may not go on.
    let may_go_on =
        flow.seen.has(Seen::SHORTCUT) && !segment.syn() && plain::hop_limit(packet, key.is_v4()) > 1;
    if may_go_on && !packet.is_tagged() && are_open(ifindex, to, tables) { to } else { 0 }
}

/// The same of an ICMP error about a packet that went this way: connection tracking knows nothing of it.
#[inline(always)]
pub(super) fn receiver_of_error<T: Tables>(
    flow: &Flow,
    quoted_from_client: bool,
    ifindex: u32,
    tables: &T,
) -> u32 {
    let to = if quoted_from_client { flow.client_if } else { flow.server_if };
    let has_taken_it = tables.has_shortcut() && flow.seen.has(Seen::SHORTCUT);
    if has_taken_it && are_open(ifindex, to, tables) { to } else { 0 }
}

/// Takes back that a connection was opened directly where connection tracking, if it can be asked, says that
/// the packet was sent to another address.
///
/// A function of its own in the kernel too, as its stack does not come on top of that of [`super::answer`].
#[inline(never)]
pub(super) fn take_back_if_translated(packet: &impl Packet, scratch: &mut Scratch) {
    let Scratch { headers, tracked, evaluation: SideEvaluation { entry, .. }, .. } = scratch;
    if entry.seen.has(Seen::OPENED_DIRECTLY) && packet.tracked(tracked) && tracked.original != headers.tuple {
        entry.seen = entry.seen.without(Seen::OPENED_DIRECTLY);
    }
}

/// What is known of a connection that a client's packet has just opened at its server's veth.
#[inline(always)]
pub(super) fn at_server<T: Tables>(entry: &Flow, key: &FlowKey, segment: Segment, tables: &T) -> Seen {
    let is_direct = entry.seen.has(Seen::LEFT_POD)
        && entry.client_if != 0
        && entry.client_if == entry.ingress_ifindex
        && entry.seen.has_egress()
        && !entry.seen.has(Seen::REWRITTEN);
    if !is_direct || !are_open(entry.client_if, entry.server_if, tables) {
        return Seen::default();
    }
    let opens = match key.protocol() {
        number::TCP => segment.opens(),
        number::UDP => true,
        _ => false,
    };
    Seen::default().with(Seen::OPENED_DIRECTLY, opens)
}

/// Whether a packet that the node brings says something of the short cut: the first one of the server's at
/// its client's veth, and any of a connection that takes it.
#[inline(always)]
pub(super) fn learns<T: Tables>(seen: Seen, from_client: bool, hook: &Hook, tables: &T) -> bool {
    tables.has_shortcut()
        && matches!(hook.direction, Direction::Ingress)
        && (seen.has(Seen::SHORTCUT) || !from_client && !seen.has(Seen::ANSWERED))
}

/// What is known of its connection then.
#[inline(always)]
pub(super) fn learned<T: Tables>(
    flow: &Flow,
    key: &FlowKey,
    segment: Segment,
    hook: &Hook,
    tables: &T,
) -> Seen {
    if flow.seen.has(Seen::SHORTCUT) {
        // A SYN/ACK that is sent again has not left it.
        return if segment.syn() { flow.seen } else { flow.seen.without(Seen::SHORTCUT) };
    }
    let is_direct = flow.seen.has(Seen::OPENED_DIRECTLY)
        && !flow.seen.has(Seen::NAMES)
        && flow.server_if != 0
        && flow.server_if == hook.ingress_ifindex
        && !flow.seen.has(Seen::REWRITTEN)
        && (segment.syn() || key.protocol() == number::UDP)
        && are_open(flow.client_if, flow.server_if, tables);
    flow.seen.with(Seen::ANSWERED, true).with(Seen::SHORTCUT, is_direct)
}

/// Both directions, or none.
#[inline(always)]
fn are_open<T: Tables>(one: u32, other: u32, tables: &T) -> bool {
    tables.is_open(one) && tables.is_open(other)
}
