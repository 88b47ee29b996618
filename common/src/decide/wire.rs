//! The decision where a packet leaves the node: the egress of pods that sent to a service with a backend
//! elsewhere.
//!
//! `from_pod` has let these packets out without knowing the backend. Whatever else leaves the node passes.

use super::{
    NODE, Sender,
    encapsulation::is_tunnelled,
    enter,
    fragments::{recall_ports, remember_ports},
    is_alive, may_send, names, origin,
};
use crate::{
    Direction, Flow, Headers, Hook, Lookup, Outcome, Packet, PacketKind, Reach, Scratch, Seen, Tables,
    Tracked, Tuple, packet::forget, parse, protocol::number, scratch::SideEvaluation,
};

/// Evaluates a packet that leaves by a device of the node's; `ingress_ifindex` is where it entered the node.
///
/// `None`: nothing here is podgate's to evaluate, or it was evaluated before.
#[inline(always)]
pub fn decide_on_wire<T: Tables>(
    packet: &impl Packet,
    scratch: &mut Scratch,
    ingress_ifindex: u32,
    tables: &T,
) -> Option<Outcome> {
    let entered = tables.endpoint(ingress_ifindex);
    if entered.is_known() && !entered.is_asked(Direction::Egress) {
        return None;
    }
    scratch.begin(&Hook { direction: Direction::Egress, ifindex: ingress_ifindex, ingress_ifindex });
    let kind = parse(packet, &mut scratch.headers);
    scratch.ingress_ifindex = ingress_ifindex;
    if ingress_ifindex == NODE {
        // Others are the node's own, or of the kernel's making in another's name: without data of his.
        if !scratch.headers.is_fragment() || scratch.headers.tuple.source.is_v4() {
            return None;
        }
        origin(packet, scratch, matches!(kind, PacketKind::Related), tables);
        // A pod in whose name another sends is not hurt by being asked.
        if scratch.ingress_ifindex == Flow::UNKNOWN_INGRESS && scratch.claimed != NODE {
            scratch.ingress_ifindex = scratch.claimed;
        }
    }
    let ingress_ifindex = forget(&scratch.ingress_ifindex);
    if ingress_ifindex == NODE {
        return None;
    }
    let Scratch { hook, headers, tracked, policy_lookup, .. } = scratch;
    let readable = match kind {
        PacketKind::Flow | PacketKind::FirstFragment => true,
        PacketKind::LaterFragment => recall_ports(headers, tables),
        // Evaluated at the pod's veth by what it is.
        PacketKind::Arp | PacketKind::Neighbour => return None,
        PacketKind::Related => return related(ingress_ifindex, packet, scratch, tables),
        PacketKind::Unreadable => {
            return (entered.is_known() && entered.egress.isolates()).then_some(Outcome::Unreadable);
        }
    };
    let sender = Sender::of(&headers.tuple, ingress_ifindex, packet, tracked, tables)?;
    if sender.pod == NODE || !tables.endpoint(sender.pod).is_asked(Direction::Egress) {
        return None;
    }
    (policy_lookup.ifindex, hook.ifindex) = (sender.pod, sender.pod);
    if !readable {
        let isolated = tables.endpoint(sender.pod).egress.isolates();
        return isolated.then_some(Outcome::Fragment);
    }
    let outcome = connection(&sender, packet, scratch, tables).map(|()| {
        if forget(&scratch.evaluation.is_senders) {
            names::reconsider_sender(scratch, tables);
        }
        scratch.evaluation.enters = forget(&scratch.evaluation.outcome).passes();
        enter(scratch, tables)
    });
    if matches!(kind, PacketKind::FirstFragment) && outcome.is_none_or(Outcome::passes) {
        remember_ports(scratch, tables);
    }
    outcome
}

/// An ICMP error of an isolated pod, which it may send about connections that were evaluated: the one that it
/// speaks of may be another one since the node has translated its addresses.
#[inline(never)]
fn related<T: Tables>(
    ingress_ifindex: u32,
    packet: &impl Packet,
    scratch: &mut Scratch,
    tables: &T,
) -> Option<Outcome> {
    let Scratch {
        headers: Headers { sender: source, tuple: quoted, .. },
        tracked,
        policy_lookup,
        lookup,
        ..
    } = scratch;
    let protocol = if source.is_v4() { number::ICMP } else { number::ICMPV6 };
    let error = Tuple { source: *source, destination: quoted.source, protocol, ..Tuple::EMPTY };
    let sender = Sender::of(&error, ingress_ifindex, packet, tracked, tables)?;
    if sender.pod == NODE || !tables.endpoint(sender.pod).egress.isolates() {
        return None;
    }
    lookup.turn_to(quoted);
    let source_is_low = lookup.source_is_low();
    if tables.flow(lookup, Reach::Everywhere).is_some() {
        let flow = &lookup.flow;
        let evaluated_at = if is_from_client(flow, source_is_low) { flow.server_if } else { flow.client_if };
        if evaluated_at == sender.pod && is_alive(flow, lookup.key.protocol(), tables.now(), tables) {
            return None;
        }
    }
    // The client has sent before, to this pod: its ingress was evaluated.
    if packet.tracked(tracked) && tracked.is_reply && tracked.original.source == quoted.source {
        return None;
    }
    policy_lookup.ifindex = sender.pod;
    *quoted = error;
    Some(Outcome::Denied)
}

/// A packet of a connection that an isolated pod of this node takes part in. What comes of it stands in the
/// evaluation then; `None`: nothing, it was evaluated before.
#[inline(never)]
fn connection<T: Tables>(
    sender: &Sender,
    packet: &impl Packet,
    scratch: &mut Scratch,
    tables: &T,
) -> Option<()> {
    let Scratch {
        headers,
        tracked,
        policy_lookup,
        sender_lookup,
        lookup,
        original,
        evaluation,
        enforced,
        connection,
        ..
    } = scratch;
    let SideEvaluation { entry, is_evaluated, is_senders, outcome, is_closed, .. } = evaluation;
    lookup.turn_to(&headers.tuple);
    let source_is_low = lookup.source_is_low();
    let found = tables.flow(lookup, Reach::Everywhere);
    let now = tables.now();
    let flow = &lookup.flow;
    if let Some(place) = found.filter(|_| is_alive(flow, lookup.key.protocol(), now, tables)) {
        let side = if is_from_client(flow, source_is_low) { Direction::Egress } else { Direction::Ingress };
        let evaluated_at = match side {
            Direction::Egress => flow.client_if,
            Direction::Ingress => flow.server_if,
        };
        let stale = headers.segment.opens() || tables.recheck();
        let is_evaluated = matches!(side, Direction::Ingress) || flow.seen.has_egress();
        if evaluated_at == sender.pod
            && is_evaluated
            && (!stale || flow.evaluated_in(side) == tables.revision())
        {
            if now.wrapping_sub(flow.last) >= tables.refresh() {
                tables.refresh_flow(place, lookup, now, flow.seen);
            }
            return None;
        }
    }
    // The entry of `from_pod`, when the node has not translated what was deferred there. Else no reply comes
    // this way: the entry lives as one that was replied to.
    let is_deferred = found.is_some() && is_from_client(flow, source_is_low) && flow.seen.has(Seen::DEFERRED);
    let seen = match is_deferred {
        true => flow.seen.with(Seen::UNTRANSLATED, true).without(Seen::OWN_ADDRESS),
        false => Seen::REPLY.with(Seen::CLIENT_IS_LOW, source_is_low),
    };
    let seen =
        if sender.is_rewritten { seen.without(Seen::ROUTED).with(Seen::REWRITTEN, true) } else { seen };
    *entry = Flow { last: now, seen, ..Flow::EMPTY };
    *is_evaluated = was_evaluated_at_veth(sender, packet, headers, tracked, original, now, tables);
    let isolated = tables.endpoint(sender.pod).egress.isolates();
    *outcome = if isolated { Outcome::Allowed } else { Outcome::NotIsolated };
    let to_tunnel = is_tunnelled(
        headers.tuple.protocol,
        headers.tuple.destination_port,
        &headers.tuple.destination,
        tables,
    );
    if to_tunnel {
        *outcome = Outcome::Encapsulated;
    } else if forget(is_evaluated) {
        entry.client_if = sender.pod;
        entry.client_revision = tables.revision();
    } else if let Some(against) =
        may_send(sender, &headers.tuple, headers.segment, entry, (policy_lookup, sender_lookup), tables)
    {
        (*enforced, *is_senders) = (forget(outcome), true);
        *connection = headers.tuple;
        *outcome = against;
    }
    *is_closed = isolated;
    Some(())
}

/// Whether the connection, before its addresses were rewritten, was evaluated by `from_pod` alone.
#[inline(always)]
fn was_evaluated_at_veth<T: Tables>(
    sender: &Sender,
    packet: &impl Packet,
    headers: &Headers,
    tracked: &mut Tracked,
    original: &mut Lookup,
    now: u32,
    tables: &T,
) -> bool {
    let tuple = &headers.tuple;
    if !packet.tracked(tracked) {
        // Under a rewritten address it may be a reply. A TCP connection whose first packet was dropped here
        // has no other.
        return sender.is_rewritten && tuple.protocol == number::TCP && !headers.segment.opens();
    }
    if tracked.is_reply {
        // The client has sent before, to this pod: its ingress was evaluated.
        return tracked.original.destination == tuple.source && tracked.original.source == tuple.destination;
    }
    if !tracked.describes(tuple) {
        return false;
    }
    // A service's backend is the same for as long as a TCP connection lives; without a handshake nothing
    // holds it, and what `from_pod` has found of the one before says nothing of this one.
    let goes_on = tuple.protocol == number::TCP && !headers.segment.opens();
    if tracked.original.destination != tuple.destination && !goes_on {
        return false;
    }
    original.turn_to(&tracked.original);
    let source_is_low = original.source_is_low();
    if tables.flow(original, Reach::Everywhere).is_none() {
        return false;
    }
    let flow = &original.flow;
    is_from_client(flow, source_is_low)
        && flow.client_if == sender.pod
        && !flow.seen.has(Seen::DEFERRED)
        && is_alive(flow, original.key.protocol(), now, tables)
}

#[inline(always)]
fn is_from_client(flow: &Flow, source_is_low: bool) -> bool {
    flow.seen.has(Seen::CLIENT_IS_LOW) == source_is_low
}
