//! The decision: one packet at one hook.
//!
//! A connection is judged once on each side that is a pod of this node: the client's egress where its packets leave
//! their veth, the server's ingress where they arrive. Later packets pass on the entry in the flow table. What is
//! denied leaves no trace in it.
//!
//! A service's address is translated after `from_pod`. When only some of its backends are allowed, `from_pod` defers:
//! the backend's `to_pod` judges the sender's egress too, and [`decide_on_wire`] does for backends elsewhere.

use crate::{
    Address, Direction, Endpoint, Flow, FlowKey, Headers, Hook, IdentityId, Judged, Kind, NODE, Outcome,
    Packet, PolicyId, Protocol, RowKey, Scratch, Seen, Segment, ServiceKey, ServiceVerdict, Tables, Timeout,
    Tuple, packet::forget, parse, protocol::number, scratch::Question, tables::classify,
};

mod dhcp;
mod established;
mod fragments;
mod sender;
mod wire;

use dhcp::{is_dhcp_reply, is_dhcp_request};
pub use established::is_established;
use fragments::{recall_ports, remember_ports};
use sender::Sender;
pub use wire::decide_on_wire;

/// Judges a packet at a pod's veth.
#[inline(always)]
pub fn decide<T: Tables>(packet: &impl Packet, scratch: &mut Scratch, hook: &Hook, tables: &T) -> Outcome {
    scratch.begin(hook.ifindex, hook.direction);
    let headers = &mut scratch.headers;
    let kind = parse(packet, headers);
    match kind {
        Kind::Flow | Kind::FirstFragment => {}
        Kind::LaterFragment => {
            if !recall_ports(headers, tables) {
                return unknown(hook, Outcome::Fragment, tables);
            }
        }
        Kind::Related => return related(scratch, hook, tables),
        Kind::Neighbour => return Outcome::Neighbour,
        Kind::Unreadable => return unknown(hook, Outcome::Unreadable, tables),
    }
    let outcome = flow(packet, scratch, hook, tables);
    // Read again: had it to be remembered, the verifier would walk once for each kind.
    if scratch.headers.is_first_fragment() && outcome.passes() {
        remember_ports(&scratch.headers, tables);
    }
    outcome
}

/// A packet of a connection: passes on its entry, else the side of it that belongs to this hook is judged.
#[inline(always)]
fn flow<T: Tables>(packet: &impl Packet, scratch: &mut Scratch, hook: &Hook, tables: &T) -> Outcome {
    let Scratch { headers, lookup, question, .. } = scratch;
    let segment = headers.segment;
    let source_is_low;
    (lookup.key, source_is_low) = FlowKey::of(&headers.tuple);
    let found = tables.flow(lookup);
    // After the look-up: an entry that another CPU has just refreshed must not come from the future.
    let now = tables.now();
    let flow = &lookup.flow;
    let from_client = flow.seen.has(Seen::CLIENT_IS_LOW) == source_is_low;
    match found.filter(|_| is_alive(flow, lookup.key.protocol(), now, tables)) {
        Some(place)
            if !segment.opens()
                && was_judged_here(flow, from_client, &headers.tuple.source, hook, tables) =>
        {
            let side = if from_client { hook.direction } else { hook.direction.other() };
            // Whose address was rewritten is known from the client's packets alone.
            let recheck = tables.recheck() && (from_client || !flow.seen.has(Seen::REWRITTEN));
            if !recheck || flow.judged_in(side) == tables.epoch() {
                let seen = flow.seen.after(segment, from_client);
                if seen != flow.seen || now.wrapping_sub(flow.last) >= tables.refresh() {
                    tables.refresh_flow(place, lookup, now, seen);
                }
                return Outcome::Established;
            }
            // After a change a live connection is asked the question that opened it. Of one older than the agent, the
            // client's first packet tells where it comes from.
            let arrives = from_client && matches!(hook.direction, Direction::Ingress);
            let via = if arrives { hook.via } else { flow.via };
            question.entry = Flow { last: now, via, ..*flow };
            (question.side, question.from_client) = (side, from_client);
        }
        earlier => {
            // A packet that no entry lets pass opens a connection, in its own direction.
            question.entry = opened(source_is_low, now, hook);
            (question.side, question.from_client) = (hook.direction, true);
            // What `from_pod` has just found out of this client stays. In the other direction, what was known of
            // the server's side belongs to the past.
            if earlier.is_some() && from_client && matches!(hook.direction, Direction::Ingress) {
                question.entry.client_if = flow.client_if;
                question.entry.client_epoch = flow.client_epoch;
            }
        }
    }
    answer(packet, scratch, hook, tables)
}

/// The entry of a connection that a packet opens at this hook.
#[inline(always)]
fn opened(source_is_low: bool, now: u32, hook: &Hook) -> Flow {
    let (client_if, server_if, via) = match hook.direction {
        Direction::Egress => (hook.ifindex, 0, 0),
        Direction::Ingress => (0, hook.ifindex, hook.via),
    };
    let seen = Seen::default().with(Seen::CLIENT_IS_LOW, source_is_low);
    Flow { client_if, server_if, via, client_epoch: 0, server_epoch: 0, last: now, seen }
}

/// Judges one side of a connection, and enters the connection when it passes.
///
/// A function of its own in the kernel too: the stack of the fast path stays small.
#[inline(never)]
fn answer<T: Tables>(packet: &impl Packet, scratch: &mut Scratch, hook: &Hook, tables: &T) -> Outcome {
    let endpoint = tables.endpoint(hook.ifindex);
    let Scratch { headers, judged, question, .. } = scratch;
    let side = question.side;
    judged.direction = side;
    let tuple = &if question.from_client { headers.tuple } else { headers.tuple.reversed() };
    let epoch = tables.epoch();
    let outcome = match side {
        Direction::Egress => {
            question.entry.client_epoch = epoch;
            egress(tuple, &endpoint, judged, &mut question.outcome, tables)
        }
        Direction::Ingress => {
            question.entry.server_epoch = epoch;
            ingress(tuple, &endpoint, packet, scratch, hook, tables)
        }
    };
    scratch.question.outcome = outcome;
    let outcome = forget(&scratch.question.outcome);
    if !outcome.passes() || matches!(outcome, Outcome::Dhcp) {
        return outcome;
    }
    if matches!(side, Direction::Ingress) && is_misdelivered(tuple, hook, tables) {
        return outcome;
    }
    let Scratch { lookup, question: Question { entry, .. }, .. } = scratch;
    entry.seen = entry.seen.with(Seen::DEFERRED, matches!(outcome, Outcome::Deferred));
    let closed = endpoint.is_closed(Direction::Egress) || endpoint.is_closed(Direction::Ingress);
    if !tables.put_flow(lookup, entry) && closed { Outcome::FlowTable } else { outcome }
}

/// May the pod behind this veth open this connection?
#[inline(always)]
fn egress<T: Tables>(
    tuple: &Tuple,
    endpoint: &Endpoint,
    judged: &mut Judged,
    enforced: &mut Outcome,
    tables: &T,
) -> Outcome {
    if is_dhcp_request(tuple) {
        return Outcome::Dhcp;
    }
    if endpoint.is_held() {
        return Outcome::Held;
    }
    if is_spoofed(&tuple.source, endpoint, judged.ifindex, tables) {
        return Outcome::Spoofed;
    }
    judged.policy = endpoint.egress;
    *enforced =
        if endpoint.egress.isolates() { by_egress(tuple, endpoint, judged, tables) } else { Outcome::Free };
    let outcome = forget(enforced);
    if !endpoint.audit_egress.isolates() || !outcome.passes() || matches!(outcome, Outcome::Deferred) {
        return outcome;
    }
    judged.policy = endpoint.audit_egress;
    match by_egress(tuple, endpoint, judged, tables) {
        Outcome::Denied => Outcome::WouldDeny,
        // Told of where the backend is known.
        Outcome::Deferred => Outcome::Deferred,
        _ => {
            judged.policy = endpoint.egress;
            outcome
        }
    }
}

/// What a policy says of a connection that its pod opens.
///
/// A function of its own in the kernel too: it is asked once more for policies in audit mode.
#[inline(never)]
fn by_egress<T: Tables>(tuple: &Tuple, endpoint: &Endpoint, judged: &mut Judged, tables: &T) -> Outcome {
    // Two booleans: a number that is not there when the address has no owner would be kept all the same, and the
    // verifier refuses to see it stored.
    let (to_node, to_itself) = match tables.owner(&tuple.destination) {
        Some(owner) => (owner == NODE, owner == judged.ifindex),
        None => (false, false),
    };
    if to_itself {
        return Outcome::Itself;
    }
    if let Some(verdict) = service(tuple, to_node, endpoint, judged, tables) {
        return match verdict {
            ServiceVerdict::Allowed => Outcome::Allowed,
            ServiceVerdict::Deferred => Outcome::Deferred,
            ServiceVerdict::Denied => Outcome::Denied,
        };
    }
    let (slot, policy) = (endpoint.slot, judged.policy);
    let (identity, class) =
        classify(tables, slot, &tuple.destination, tuple.protocol, tuple.destination_port);
    (judged.identity, judged.class) = (identity, class);
    // Asked again: had it to be remembered, the verifier would walk over all of this twice.
    let to_node = tables.owner(&tuple.destination) == Some(NODE);
    let key = match to_node {
        true => RowKey::of_own_node(policy, identity, class),
        false => RowKey::new(policy, identity, class),
    };
    let has_bit = tables.row(slot, &key).is_some_and(|row| row.has(class));
    match (has_bit, to_node) {
        (true, false) => Outcome::Allowed,
        (false, true) => Outcome::OwnNode,
        (false, false) | (true, true) => Outcome::Denied,
    }
}

/// The verdict on a service's address and port, for which the node will choose a backend only later. A port of the
/// node's own addresses may be one, too: a node port, which stands in the table under the unspecified address.
#[inline(always)]
fn service<T: Tables>(
    tuple: &Tuple,
    to_node: bool,
    endpoint: &Endpoint,
    judged: &mut Judged,
    tables: &T,
) -> Option<ServiceVerdict> {
    let protocol = Protocol::try_from(tuple.protocol).ok()?;
    let mut key = ServiceKey::new(tuple.destination, protocol, tuple.destination_port);
    let mut service = tables.service(endpoint.slot, &key);
    if service.is_none() && to_node {
        key.address = tuple.destination.unspecified();
        service = tables.service(endpoint.slot, &key);
    }
    let service = service?;
    (judged.identity, judged.class) = (IdentityId(service.0), Judged::SERVICE);
    let row = tables.row(endpoint.slot, &RowKey::of_service(judged.policy, service));
    Some(ServiceVerdict::of(row.unwrap_or_default()))
}

/// May this connection reach the pod behind this veth?
#[inline(always)]
fn ingress<T: Tables>(
    tuple: &Tuple,
    endpoint: &Endpoint,
    packet: &impl Packet,
    scratch: &mut Scratch,
    hook: &Hook,
    tables: &T,
) -> Outcome {
    let Scratch { headers, tracked, judged, question: Question { entry, .. }, .. } = scratch;
    // The node's address alone proves nothing: only what its own stack made has no ingress interface.
    if entry.via == NODE {
        return Outcome::OwnNode;
    }
    if is_dhcp_reply(tuple) && tables.owner(&tuple.destination).is_none() {
        return Outcome::Dhcp;
    }
    if endpoint.is_held() {
        return Outcome::Held;
    }
    let Some(sender) = Sender::of(tuple, entry.via, packet, tracked, tables) else {
        return Outcome::Spoofed;
    };
    if entry.via == hook.ifindex || sender.pod == hook.ifindex {
        return Outcome::Itself;
    }
    entry.seen = entry.seen.with(Seen::REWRITTEN, sender.address != tuple.source);
    judged.policy = endpoint.ingress;
    let mut outcome = if !endpoint.ingress.isolates() {
        Outcome::Free
    } else if sender.masqueraded && tables.passes_masqueraded() {
        Outcome::Masqueraded
    } else {
        by_policy(&sender.address, tuple, endpoint, judged, tables)
    };
    let audited = endpoint.audit_ingress;
    if audited.isolates() && outcome.passes() && !matches!(outcome, Outcome::Masqueraded) {
        let enforced = core::mem::replace(&mut judged.policy, audited);
        if by_policy(&sender.address, tuple, endpoint, judged, tables).passes() {
            judged.policy = enforced;
        } else {
            outcome = Outcome::WouldDeny;
        }
    }
    if !outcome.passes() {
        return outcome;
    }
    may_send(&sender, tuple, headers.segment, entry, judged, tables).unwrap_or(outcome)
}

/// What the egress of a local pod has against what it sent, where that could not be judged at its own veth: the
/// service's address was all that was known there. Then the entry says so, if the packet passes.
#[inline(always)]
fn may_send<T: Tables>(
    sender: &Sender,
    tuple: &Tuple,
    segment: Segment,
    entry: &mut Flow,
    judged: &mut Judged,
    tables: &T,
) -> Option<Outcome> {
    if sender.pod == NODE || is_dhcp_request(tuple) {
        return None;
    }
    let epoch = tables.epoch();
    let stale = entry.client_epoch != epoch && (segment.opens() || tables.recheck());
    if entry.client_if == sender.pod && !stale {
        return None;
    }
    let endpoint = tables.endpoint(sender.pod);
    let mut outcome = None;
    if endpoint.is_asked(Direction::Egress) {
        let receiver = *judged;
        (judged.ifindex, judged.direction) = (sender.pod, Direction::Egress);
        outcome = against_backend(tuple, &endpoint, judged, tables);
        if outcome.is_none() {
            *judged = receiver;
        }
    }
    if outcome.is_none_or(Outcome::passes) {
        entry.client_if = sender.pod;
        entry.client_epoch = epoch;
    }
    outcome
}

/// What a pod's egress has against a service's backend.
#[inline(never)]
fn against_backend<T: Tables>(
    tuple: &Tuple,
    endpoint: &Endpoint,
    judged: &mut Judged,
    tables: &T,
) -> Option<Outcome> {
    let denies = |judged: &mut Judged, policy: PolicyId| {
        judged.policy = policy;
        policy.isolates() && !by_policy(&tuple.destination, tuple, endpoint, judged, tables).passes()
    };
    if denies(judged, endpoint.egress) {
        Some(Outcome::DeniedBackend)
    } else if denies(judged, endpoint.audit_egress) {
        Some(Outcome::WouldDeny)
    } else {
        None
    }
}

/// What the policy of `judged` says of a peer; what the peer and the port are to it is noted there.
#[inline(never)]
fn by_policy<T: Tables>(
    peer: &Address,
    tuple: &Tuple,
    endpoint: &Endpoint,
    judged: &mut Judged,
    tables: &T,
) -> Outcome {
    let (slot, port) = (endpoint.slot, tuple.destination_port);
    let (identity, class) = classify(tables, slot, peer, tuple.protocol, port);
    (judged.identity, judged.class) = (identity, class);
    match tables.row(slot, &RowKey::new(judged.policy, identity, class)) {
        Some(row) if row.has(class) => Outcome::Allowed,
        _ => Outcome::Denied,
    }
}

/// An ICMP error passes when it speaks of a connection that was judged here, to the one who sent the quoted packet.
#[inline(never)]
fn related<T: Tables>(scratch: &mut Scratch, hook: &Hook, tables: &T) -> Outcome {
    let Scratch { headers: Headers { sender, tuple: quoted, .. }, lookup, .. } = scratch;
    let endpoint = tables.endpoint(hook.ifindex);
    match hook.direction {
        Direction::Egress if is_spoofed(sender, &endpoint, hook.ifindex, tables) => return Outcome::Spoofed,
        Direction::Ingress if hook.via == NODE => return Outcome::OwnNode,
        _ => {}
    }
    let source_is_low;
    (lookup.key, source_is_low) = FlowKey::of(quoted);
    if tables.flow(lookup).is_some() {
        let flow = &lookup.flow;
        let quoted_from_client = flow.seen.has(Seen::CLIENT_IS_LOW) == source_is_low;
        // The error goes to the quoted sender's side, and leaves from the other side.
        let client_side = quoted_from_client == matches!(hook.direction, Direction::Ingress);
        let judged = if client_side { flow.client_if } else { flow.server_if };
        if judged == hook.ifindex && is_alive(flow, lookup.key.protocol(), tables.now(), tables) {
            return Outcome::Related;
        }
    }
    let outcome = unknown(hook, Outcome::Denied, tables);
    *quoted = Tuple {
        source: *sender,
        destination: quoted.source,
        protocol: if sender.is_v4() { number::ICMP } else { number::ICMPV6 },
        ..Tuple::EMPTY
    };
    outcome
}

/// What cannot be judged: dropped for an isolated direction, passed for a free one.
///
/// A function of its own in the kernel too, as all that calls helpers: none is called on the fast path.
#[inline(never)]
fn unknown<T: Tables>(hook: &Hook, reason: Outcome, tables: &T) -> Outcome {
    let endpoint = tables.endpoint(hook.ifindex);
    if endpoint.is_held() {
        Outcome::Held
    } else if endpoint.is_closed(hook.direction) {
        reason
    } else {
        Outcome::UnreadFree
    }
}

/// A pod sends from an address that is not its own. Link-local addresses reach nobody but the node and the link.
#[inline(always)]
fn is_spoofed<T: Tables>(source: &Address, endpoint: &Endpoint, ifindex: u32, tables: &T) -> bool {
    endpoint.is_known() && !source.is_link_local_v6() && tables.owner(source) != Some(ifindex)
}

/// Another pod's address arrives from elsewhere than that pod's veth or the bridge that it is a port of.
#[inline(never)]
fn is_forged<T: Tables>(source: &Address, via: u32, tables: &T) -> bool {
    tables
        .owner(source)
        .is_some_and(|owner| owner != NODE && owner != via && tables.endpoint(owner).master != via)
}

/// A frame for another pod of this node, as a bridge floods it to all its ports. This pod drops it by itself, and must
/// neither take the entry of the other one over nor get a connection in the other one's name.
#[inline(always)]
fn is_misdelivered<T: Tables>(tuple: &Tuple, hook: &Hook, tables: &T) -> bool {
    tables.owner(&tuple.destination).is_some_and(|owner| owner != hook.ifindex)
}

/// Whether this hook's side of the connection was judged, for packets that come the way this one came.
///
/// A server's connection that is older than the agent takes its client's packets from anywhere ([`Flow::ANY_VIA`]), which
/// lets nobody speak for that client who could not before: `from_pod` has stopped a known pod that sends from an address
/// which is not its own, a held veth opens nothing, and a pod's address must still come from that pod. What is left are
/// hosts beyond the uplink, which are never told apart, and pods that no policy can apply to.
#[inline(always)]
fn was_judged_here<T: Tables>(
    flow: &Flow,
    from_client: bool,
    source: &Address,
    hook: &Hook,
    tables: &T,
) -> bool {
    match (hook.direction, from_client) {
        (Direction::Egress, true) | (Direction::Ingress, false) => flow.client_if == hook.ifindex,
        (Direction::Egress, false) => flow.server_if == hook.ifindex,
        (Direction::Ingress, true) => {
            flow.server_if == hook.ifindex
                && (flow.via == hook.via || flow.via == Flow::ANY_VIA && !is_forged(source, hook.via, tables))
        }
    }
}

#[inline(always)]
fn is_alive<T: Tables>(flow: &Flow, protocol: u32, now: u32, tables: &T) -> bool {
    let age = now.wrapping_sub(flow.last);
    // Nearly always the first.
    age <= tables.timeout(Timeout::Unreplied) || age <= tables.timeout(Timeout::of(protocol, flow.seen))
}

#[cfg(test)]
mod tests;
