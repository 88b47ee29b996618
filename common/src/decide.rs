//! The decision: one packet at one hook.
//!
//! A connection is evaluated once on each side that is a pod of this node: the client's egress where its
//! packets leave their veth, the server's ingress where they arrive. Later packets pass on the entry in the
//! flow table. What is denied leaves no trace in it.
//!
//! A service's address is translated after `from_pod`. When only some of its backends are allowed, `from_pod`
//! defers: the backend's `to_pod` evaluates the sender's egress too, and [`decide_on_wire`] does for backends
//! elsewhere.

use crate::{
    Address, Direction, Endpoint, Flow, Headers, Hook, NODE, Outcome, Packet, PacketKind, Reach, Scratch,
    Seen, Tables, Timeout, Tuple, packet::forget, parse, scratch::SideEvaluation,
};

mod dhcp;
mod egress;
mod encapsulation;
mod established;
mod fragments;
mod host;
mod ingress;
mod link;
mod names;
mod neighbour;
mod origin;
mod related;
mod sender;
mod shortcut;
mod unread;
mod wire;

use dhcp::note_request;
pub use egress::by_egress;
use egress::egress;
pub use encapsulation::may_carry_packets;
use encapsulation::{comes_from_tunnel, leads_to_tunnel};
pub use established::{FirstLook, Passage, established_v4_fast_path, is_established};
use fragments::{recall_ports, remember_ports};
pub use host::decide_at_host;
pub use ingress::by_policy;
use ingress::{ingress, may_send};
pub use names::by_names;
pub use neighbour::is_own;
use origin::origin;
use related::related;
use sender::Sender;
use unread::{unknown, unread};
pub use wire::decide_on_wire;

/// Evaluates a packet at a pod's veth.
#[inline(always)]
pub fn decide<T: Tables>(packet: &impl Packet, scratch: &mut Scratch, hook: &Hook, tables: &T) -> Outcome {
    scratch.begin(hook);
    let kind = parse(packet, &mut scratch.headers);
    if matches!(hook.direction, Direction::Egress) && !link::is_own_source(packet, hook.ifindex, tables) {
        return Outcome::Spoofed;
    }
    if matches!(kind, PacketKind::LaterFragment) && !recall_ports(&mut scratch.headers, tables) {
        return unread(packet, &scratch.headers, hook, Outcome::Fragment, tables);
    }
    scratch.ingress_ifindex = hook.ingress_ifindex;
    if matches!(hook.direction, Direction::Ingress) && hook.ingress_ifindex == NODE {
        let stands_alone = matches!(kind, PacketKind::Related | PacketKind::Neighbour | PacketKind::Arp);
        origin(packet, scratch, stands_alone, tables);
        if forget(&scratch.ingress_ifindex) == Flow::UNKNOWN_INGRESS && forget(&scratch.claimed) != NODE {
            return Outcome::Spoofed;
        }
    }
    let hook = &Hook { ingress_ifindex: forget(&scratch.ingress_ifindex), ..*hook };
    scratch.hook.ingress_ifindex = hook.ingress_ifindex;
    match kind {
        PacketKind::Flow | PacketKind::FirstFragment | PacketKind::LaterFragment => {}
        PacketKind::Related => {
            let outcome = related(scratch, hook, tables);
            if packet.is_tagged() {
                scratch.receiver = 0;
            }
            return outcome;
        }
        PacketKind::Neighbour => match neighbour::discovery(packet, &scratch.headers, hook, tables) {
            Some(outcome) => return outcome,
            None => scratch.headers.take_for_connection(),
        },
        PacketKind::Arp => {
            return match neighbour::arp(packet, hook, tables) {
                Some(outcome) => outcome,
                None => unread(packet, &scratch.headers, hook, Outcome::Unreadable, tables),
            };
        }
        PacketKind::Unreadable => return unread(packet, &scratch.headers, hook, Outcome::Unreadable, tables),
    }
    let outcome = flow(packet, scratch, hook, tables);
    if forget(&scratch.learns) && !(outcome.passes() && names::is_resolvers(packet, scratch, hook, tables)) {
        scratch.learns = false;
    }
    // Read again: had it to be remembered, the verifier would walk once for each kind.
    if scratch.headers.is_first_fragment() && outcome.passes() {
        remember_ports(scratch, tables);
    }
    outcome
}

/// A packet of a connection: passes on its entry, else the side of it that belongs to this hook is evaluated.
#[inline(always)]
fn flow<T: Tables>(packet: &impl Packet, scratch: &mut Scratch, hook: &Hook, tables: &T) -> Outcome {
    let Scratch { headers, lookup, evaluation, learns, .. } = scratch;
    let segment = headers.segment;
    lookup.turn_to(&headers.tuple);
    let source_is_low = lookup.source_is_low();
    // Of a connection that its pod opens, nothing counts that was known of its tuple.
    let is_opened_here = segment.opens() && matches!(hook.direction, Direction::Egress);
    let found = tables.flow(lookup, if is_opened_here { Reach::First } else { Reach::Everywhere });
    // After the look-up: an entry that another CPU has just refreshed must not come from the future.
    let now = tables.now();
    let flow = &lookup.flow;
    let from_client = flow.seen.has(Seen::CLIENT_IS_LOW) == source_is_low;
    match found.filter(|_| is_alive(flow, lookup.key.protocol(), now, tables)) {
        Some(place)
            if !segment.opens()
                && was_evaluated_here(flow, from_client, &headers.tuple.source, hook, tables) =>
        {
            let side = if from_client { hook.direction } else { hook.direction.other() };
            // Whose address was rewritten is known from the client's packets alone.
            *learns =
                matches!(hook.direction, Direction::Ingress) && !from_client && flow.seen.has(Seen::NAMES);
            let recheck = tables.recheck() && (from_client || !flow.seen.has(Seen::REWRITTEN));
            if !recheck || flow.evaluated_in(side) == tables.revision() {
                let seen = flow.seen.entered_after(segment, from_client);
                if shortcut::learns(flow.seen, from_client, hook, tables) {
                    let seen = shortcut::learned(flow, &lookup.key, segment, hook, tables);
                    let seen = seen.entered_after(segment, from_client);
                    evaluation.entry = Flow { last: now, seen, ..*flow };
                    evaluation.outcome = Outcome::Established;
                    (evaluation.enters, evaluation.is_closed) = (true, false);
                    return enter(scratch, tables);
                }
                if seen != flow.seen || now.wrapping_sub(flow.last) >= tables.refresh() {
                    tables.refresh_flow(place, lookup, now, seen);
                }
                return Outcome::Established;
            }
            // After a change a live connection is asked the question that opened it. Of one older than the
            // agent, the client's first packet tells where it comes from.
            let arrives = from_client && matches!(hook.direction, Direction::Ingress);
            let ingress_ifindex = if arrives { hook.ingress_ifindex } else { flow.ingress_ifindex };
            evaluation.entry = Flow { last: now, ingress_ifindex, ..*flow };
            (evaluation.side, evaluation.from_client) = (side, from_client);
        }
        earlier => {
            // A packet that no entry lets pass opens a connection, in its own direction.
            evaluation.entry.open(hook, source_is_low, now);
            (evaluation.side, evaluation.from_client) = (hook.direction, true);
            // What `from_pod` has just found out of this client stays. In the other direction, what was known
            // of the server's side belongs to the past.
            if earlier.is_some() && from_client && matches!(hook.direction, Direction::Ingress) {
                if flow.seen.has_egress() {
                    evaluation.entry.client_if = flow.client_if;
                    evaluation.entry.client_revision = flow.client_revision;
                    let kept = Seen::ROUTED.with(Seen::REWRITTEN, true).with(Seen::LEFT_POD, true);
                    let kept = kept.with(Seen::OWN_ADDRESS, true).with(Seen::NAMES, true);
                    let known = flow.seen.and(kept);
                    evaluation.entry.seen = evaluation.entry.seen.with(known, true);
                }
                // What it has deferred is evaluated here, by the destination that the node has left as it
                // was.
                let deferred = flow.seen.has(Seen::DEFERRED);
                evaluation.entry.seen =
                    evaluation.entry.seen.with(Seen::DEFERRED, deferred).with(Seen::UNTRANSLATED, deferred);
            }
        }
    }
    answer(packet, scratch, hook, tables);
    // Here, as the stack that functions share has no room for it below them.
    if forget(&scratch.endpoint.names) != 0 {
        names::reconsider(scratch, tables);
    }
    if forget(&scratch.evaluation.is_senders) {
        names::reconsider_sender(scratch, tables);
    }
    scratch.evaluation.outcome = prepare_entry(scratch, hook, tables);
    if tables.has_shortcut() {
        shortcut::take_back_if_translated(packet, scratch);
    }
    enter(scratch, tables)
}

/// Enters a connection that passes and has no entry yet, or another one.
///
/// After the functions that evaluate it have returned, as the kernel has 512 bytes of stack for all that call
/// one another.
#[inline(always)]
fn enter<T: Tables>(scratch: &Scratch, tables: &T) -> Outcome {
    let Scratch { lookup, evaluation: SideEvaluation { entry, outcome, enters, is_closed, .. }, .. } =
        scratch;
    if forget(enters) && !tables.put_flow(lookup, entry) && forget(is_closed) {
        return Outcome::FlowTable;
    }
    forget(outcome)
}

/// Evaluates one side of a connection. The outcome stands in the evaluation then.
///
/// A function of its own in the kernel too: the stack of the fast path stays small.
#[inline(never)]
fn answer<T: Tables>(packet: &impl Packet, scratch: &mut Scratch, hook: &Hook, tables: &T) {
    let Scratch { headers, policy_lookup, evaluation, connection, enforced, .. } = scratch;
    let side = evaluation.side;
    // Read before the endpoint, so that no entry is newer than its policy: an entry under an older revision
    // is only evaluated once more.
    match side {
        Direction::Egress => evaluation.entry.client_revision = tables.revision(),
        Direction::Ingress => evaluation.entry.server_revision = tables.revision(),
    }
    let endpoint = tables.endpoint(hook.ifindex);
    policy_lookup.direction = side;
    evaluation.enters = false;
    connection.set_to_clients(&headers.tuple, evaluation.from_client);
    let outcome = match side {
        Direction::Egress => {
            // Of a pod that is known, no other address passes.
            let seen = evaluation.entry.seen.without(Seen::UNTRANSLATED).without(Seen::OWN_ADDRESS);
            let seen = seen.with(Seen::OWN_ADDRESS, endpoint.is_known());
            let asks = evaluation.from_client && names::asks_resolver(connection, &endpoint, tables);
            evaluation.entry.seen = seen.with(Seen::NAMES, asks);
            egress(connection, &endpoint, policy_lookup, enforced, tables)
        }
        Direction::Ingress => ingress(&endpoint, packet, scratch, hook, tables),
    };
    scratch.evaluation.outcome = outcome;
    scratch.endpoint = endpoint;
}

/// Says whether a connection that was evaluated is to be entered.
///
/// A function of its own in the kernel too, as above.
#[inline(never)]
fn prepare_entry<T: Tables>(scratch: &mut Scratch, hook: &Hook, tables: &T) -> Outcome {
    let (endpoint, side) = (scratch.endpoint, scratch.evaluation.side);
    let outcome = forget(&scratch.evaluation.outcome);
    if matches!(outcome, Outcome::Dhcp) && matches!(side, Direction::Egress) {
        note_request(&scratch.headers.tuple, hook.ifindex, tables);
    }
    if !outcome.passes() || matches!(outcome, Outcome::Dhcp) {
        return outcome;
    }
    // An answer to a connection that is not known any more. It would count towards the share of the pod that
    // answers, so that a client whose own share is used up could use up its server's.
    if scratch.evaluation.from_client && scratch.headers.segment.answers() {
        return outcome;
    }
    if matches!(side, Direction::Ingress) {
        let tuple = &scratch.connection;
        // Nor does a node that sends a tunnel's packet to a pod open the way back.
        if is_misdelivered(tuple, &endpoint, hook, tables) || comes_from_tunnel(tuple, tables) {
            return outcome;
        }
        // Who claims the address of a pod for a tunnel takes no answer from it. Its client's next packet may
        // go there instead: it does not pass as one to the pod.
        if leads_to_tunnel(tuple, tables) {
            if !endpoint.is_known() {
                return outcome;
            }
            let entry = &mut scratch.evaluation.entry;
            entry.seen = entry.seen.with(Seen::REWRITTEN, true);
        }
    }
    let Scratch { headers: Headers { segment, .. }, lookup, evaluation, .. } = scratch;
    let SideEvaluation { entry, enters, is_closed, from_client, .. } = evaluation;
    // One that is not known may have any address, also one that others have: many, or all on the link.
    let arrives = matches!(hook.direction, Direction::Ingress) && *from_client && endpoint.is_known();
    let leaves = matches!(hook.direction, Direction::Egress) && *from_client;
    entry.seen = entry.seen.with(Seen::LEFT_POD, leaves);
    entry.seen = entry.seen.with(Seen::DEFERRED, matches!(outcome, Outcome::Deferred));
    let other_if = if matches!(side, Direction::Egress) { entry.server_if } else { entry.client_if };
    let is_routed = endpoint.is_routed()
        && (other_if == 0 || entry.seen.has(Seen::ROUTED))
        && !entry.seen.has(Seen::REWRITTEN);
    entry.seen = entry.seen.without(Seen::ROUTED).with(Seen::ROUTED, is_routed);
    if arrives && tables.has_shortcut() {
        entry.seen = entry.seen.with(shortcut::at_server(entry, &lookup.key, *segment, tables), true);
    }
    *is_closed = endpoint.is_closed(Direction::Egress) || endpoint.is_closed(Direction::Ingress);
    *enters = true;
    outcome
}

/// A pod sends from an address that is not its own. Link-local addresses reach no one but the node and the
/// link. A pod that is not known yet may send from any address that no one else is known to have.
#[inline(always)]
fn is_spoofed<T: Tables>(source: &Address, endpoint: &Endpoint, ifindex: u32, tables: &T) -> bool {
    // Nearly always, and without a call.
    !endpoint.has(source) && !tables.is_own(source, endpoint, ifindex)
}

/// Another pod's address arrives from elsewhere than that pod's veth or the bridge that it is a port of.
#[inline(never)]
fn is_forged<T: Tables>(source: &Address, ingress_ifindex: u32, tables: &T) -> bool {
    tables.owner(source).is_some_and(|owner| {
        owner != NODE && owner != ingress_ifindex && tables.endpoint(owner).master != ingress_ifindex
    })
}

/// A frame for another host, as a bridge floods it to all its ports, or for many. This pod must neither take
/// the entry of another one over nor get a connection in the name of an address that it may not send from.
#[inline(always)]
fn is_misdelivered<T: Tables>(tuple: &Tuple, endpoint: &Endpoint, hook: &Hook, tables: &T) -> bool {
    is_spoofed(&tuple.destination, endpoint, hook.ifindex, tables)
}

/// Whether this hook's side of the connection was evaluated, for packets that come the way this one came.
///
/// A server's connection that is older than the agent takes its client's packets from anywhere
/// ([`Flow::ANY_INGRESS`]), which lets no one speak for that client who could not before: `from_pod` has
/// stopped a known pod that sends from an address which is not its own, a held veth opens nothing, and a
/// pod's address must still come from that pod. What is left are hosts beyond the uplink, which are never
/// distinguished, and pods that no policy can apply to.
#[inline(always)]
fn was_evaluated_here<T: Tables>(
    flow: &Flow,
    from_client: bool,
    source: &Address,
    hook: &Hook,
    tables: &T,
) -> bool {
    match (hook.direction, from_client) {
        // The client's packets get a rewritten source behind its veth: with one they are no longer its own.
        (Direction::Egress, true) => flow.client_if == hook.ifindex && !flow.seen.has(Seen::REWRITTEN),
        (Direction::Ingress, false) => flow.client_if == hook.ifindex,
        (Direction::Egress, false) => flow.server_if == hook.ifindex,
        (Direction::Ingress, true) => {
            flow.server_if == hook.ifindex && comes_the_same_way(flow, source, hook.ingress_ifindex, tables)
        }
    }
}

/// Whether a client's packet comes from where the connection's packets came from when it was evaluated.
///
/// A pod's may come directly and by its bridge. Where it is unknown, a packet in no one's name belongs to any
/// connection but the node's, and one in the node's to what was evaluated as such.
#[inline(always)]
fn comes_the_same_way<T: Tables>(flow: &Flow, source: &Address, ingress_ifindex: u32, tables: &T) -> bool {
    if flow.ingress_ifindex == ingress_ifindex || ingress_ifindex != NODE && flow.client_if == ingress_ifindex
    {
        return true;
    }
    if ingress_ifindex == Flow::UNKNOWN_INGRESS {
        return flow.ingress_ifindex != NODE && tables.owner(source).is_none();
    }
    flow.ingress_ifindex == Flow::ANY_INGRESS && !is_forged(source, ingress_ifindex, tables)
}

#[inline(always)]
fn is_alive<T: Tables>(flow: &Flow, protocol: u32, now: u32, tables: &T) -> bool {
    let age = now.wrapping_sub(flow.last);
    // Nearly always the first.
    age <= tables.timeout(Timeout::Unreplied) || age <= tables.timeout(Timeout::of(protocol, flow.seen))
}

#[cfg(test)]
mod tests;
