//! The decision at a device of the node's own: host endpoints.
//!
//! Traffic of the node's own processes is evaluated by the rule sets of the device's host endpoint; what the
//! node forwards by those for forwarded traffic, if there are any. As everywhere, a connection is evaluated
//! once on each side: where it enters the node and where it leaves it. Its entry has a key of its own
//! ([`FlowKey::at_host`](crate::FlowKey)), and holds for all devices: packets of a connection that entered by
//! one may go by another.
//!
//! What keeps a link alive always passes: ARP, discovery of neighbours, and what is not IP. So do the
//! failsafe ports, and tunnels between nodes, which carry the traffic of pods.

use super::{
    NODE,
    encapsulation::may_carry_packets,
    enter,
    fragments::{recall_ports, remember_ports},
    is_alive,
};
use crate::{
    Direction, Endpoint, Headers, Hook, HostKey, Outcome, Packet, PacketKind, PortUse, Protocol, Reach,
    Scratch, Seen, Tables, TunnelPort, Tuple, packet::forget, parse, protocol::number,
    scratch::SideEvaluation,
};

/// Evaluates a packet at a device of the node's own. `hook.direction` is as the node sees it: ingress is what
/// comes in by the device.
///
/// `None`: nothing here is podgate's to evaluate.
#[inline(always)]
pub fn decide_at_host<T: Tables>(
    packet: &impl Packet,
    scratch: &mut Scratch,
    hook: &Hook,
    tables: &T,
) -> Option<Outcome> {
    let current = HostKey::of(hook.ifindex);
    let key = if tables.is_host_change_over() { current.before() } else { current };
    // A frame of a VLAN belongs to a device of that VLAN, at which it comes by once more.
    if !tables.endpoint(key.0).is_known() || packet.vlan() != 0 {
        return None;
    }
    // Flows tell of the host endpoint as it is now, whichever rule sets count.
    scratch.begin(&Hook { direction: hook.direction, ifindex: current.0, ingress_ifindex: NODE });
    scratch.ingress_ifindex = hook.ingress_ifindex;
    scratch.host_key = key.0;
    let kind = parse(packet, &mut scratch.headers);
    let readable = match kind {
        PacketKind::Flow | PacketKind::FirstFragment => true,
        PacketKind::LaterFragment => recall_ports(&mut scratch.headers, tables),
        PacketKind::Arp | PacketKind::Neighbour => return None,
        PacketKind::Related => return related(packet, scratch, tables),
        PacketKind::Unreadable => {
            if is_other_than_ip(packet) {
                return None;
            }
            return closed(scratch, Outcome::Unreadable, tables);
        }
    };
    if !readable {
        return closed(scratch, Outcome::Fragment, tables);
    }
    if !connection(packet, scratch, tables) {
        return None;
    }
    let outcome = enter(scratch, tables);
    if scratch.headers.is_first_fragment() && outcome.passes() {
        remember_ports(scratch, tables);
    }
    Some(outcome)
}

/// Whether the kernel hands the frame to another protocol than IP. A tag below one that gives a priority
/// alone is taken off behind this hook, and IP may lie below it.
#[inline(always)]
fn is_other_than_ip(packet: &impl Packet) -> bool {
    const OF_IP: [[u8; 2]; 4] = [[0x08, 0x00], [0x86, 0xdd], [0x81, 0x00], [0x88, 0xa8]];
    packet.received_as().is_some_and(|kind| !OF_IP.contains(&kind))
}

/// What cannot be evaluated: dropped if policies are asked about its sort of traffic.
#[inline(never)]
fn closed<T: Tables>(scratch: &mut Scratch, reason: Outcome, tables: &T) -> Option<Outcome> {
    let direction = scratch.hook.direction;
    // Ports were not read, and perhaps not even whom it is for.
    let is_local = scratch.headers.tuple.destination.is_unspecified() || is_local(scratch, false, tables);
    let endpoint = endpoint(scratch, is_local, tables);
    endpoint.policy(direction).isolates().then_some(reason)
}

/// An ICMP error passes when it speaks of a connection that is known here. So does one about a connection of
/// others that none is asked about.
#[inline(never)]
fn related<T: Tables>(packet: &impl Packet, scratch: &mut Scratch, tables: &T) -> Option<Outcome> {
    let Scratch { hook, headers: Headers { tuple: quoted, sender, .. }, lookup, .. } = scratch;
    let direction = hook.direction;
    // What comes in speaks of what its receiver has sent; what goes out, of what its sender has got.
    let received = match direction {
        Direction::Ingress => quoted.reversed(),
        Direction::Egress => *quoted,
    };
    let is_local = tables.owner(&received.destination) == Some(NODE);
    lookup.turn_to(quoted);
    lookup.key = lookup.key.at_host();
    let found = tables.flow(lookup, Reach::Everywhere).is_some();
    if found && is_alive(&lookup.flow, lookup.key.protocol(), tables.now(), tables)
        || is_local && packet.has_connection(&received)
    {
        return Some(Outcome::Related);
    }
    *quoted = Tuple {
        source: *sender,
        destination: quoted.source,
        protocol: if sender.is_v4() { number::ICMP } else { number::ICMPV6 },
        ..Tuple::EMPTY
    };
    let endpoint = endpoint(scratch, is_local, tables);
    endpoint.policy(direction).isolates().then_some(Outcome::Denied)
}

/// The rule sets for one sort of traffic. Where they are noted, reports find them.
#[inline(always)]
fn endpoint<T: Tables>(scratch: &mut Scratch, is_local: bool, tables: &T) -> Endpoint {
    let key = HostKey(forget(&scratch.host_key));
    let key = if is_local { key } else { key.forwarded() };
    scratch.policy_lookup.ifindex = key.0 & !HostKey::BEFORE;
    let endpoint = tables.endpoint(key.0);
    // Without an entry none is asked.
    if endpoint.is_known() { endpoint } else { Endpoint { state: 1, ..Endpoint::PENDING } }
}

/// Whether the packet is one of the node's own processes.
///
/// What comes in is when the node itself has its destination, or all on the link have; a node port leads
/// elsewhere. What goes out is when it has entered at no device, but for what the kernel makes in the name of
/// a pod.
#[inline(always)]
fn is_local<T: Tables>(scratch: &Scratch, has_ports: bool, tables: &T) -> bool {
    let tuple = &scratch.headers.tuple;
    match scratch.hook.direction {
        Direction::Ingress => {
            let is_own = tuple.destination.is_for_many() || tables.owner(&tuple.destination) == Some(NODE);
            is_own && !(has_ports && host_port(tuple, tables).has(PortUse::OF_SERVICE))
        }
        Direction::Egress => {
            forget(&scratch.ingress_ifindex) == NODE
                && tables.owner(&tuple.source).is_none_or(|owner| owner == NODE)
        }
    }
}

#[inline(always)]
fn host_port<T: Tables>(tuple: &Tuple, tables: &T) -> PortUse {
    match Protocol::try_from(tuple.protocol) {
        Ok(protocol) => tables.host_port(protocol, tuple.destination_port),
        Err(_) => PortUse::NONE,
    }
}

/// A tunnel's packet between this node and another one.
#[inline(never)]
fn is_tunnels<T: Tables>(scratch: &Scratch, tables: &T) -> bool {
    let Tuple { source, destination, protocol, destination_port, .. } = scratch.headers.tuple;
    let other = match scratch.hook.direction {
        Direction::Ingress => source,
        Direction::Egress => destination,
    };
    let is_of_tunnel = match protocol {
        number::UDP => tables.tunnel_port(destination_port).has(TunnelPort::OF_NODES),
        _ => may_carry_packets(protocol),
    };
    is_of_tunnel && tables.is_node(&other) && tables.owner(&other) != Some(NODE)
}

/// A packet of a connection. What comes of it stands in the evaluation then; false: nothing.
#[inline(never)]
fn connection<T: Tables>(packet: &impl Packet, scratch: &mut Scratch, tables: &T) -> bool {
    let direction = scratch.hook.direction;
    let Scratch { headers, lookup, evaluation, .. } = scratch;
    let segment = headers.segment;
    lookup.turn_to(&headers.tuple);
    lookup.key = lookup.key.at_host();
    let source_is_low = lookup.source_is_low();
    let found = tables.flow(lookup, Reach::Everywhere);
    let now = tables.now();
    let flow = &lookup.flow;
    let found = found.filter(|_| is_alive(flow, lookup.key.protocol(), now, tables));
    let from_client = flow.seen.has(Seen::CLIENT_IS_LOW) == source_is_low;
    evaluation.enters = false;
    evaluation.is_closed = false;
    evaluation.is_evaluated = found.is_some();
    evaluation.from_client = true;
    evaluation.side = direction;
    if let Some(place) = found
        && !segment.opens()
    {
        let side = if from_client { direction } else { direction.other() };
        let evaluated_at = match side {
            Direction::Egress => flow.client_if,
            Direction::Ingress => flow.server_if,
        };
        let is_stale = tables.recheck() && from_client && flow.evaluated_in(side) != tables.revision();
        if evaluated_at != 0 && !is_stale {
            let seen = flow.seen.entered_after(segment, from_client);
            if seen != flow.seen || now.wrapping_sub(flow.last) >= tables.refresh() {
                tables.refresh_flow(place, lookup, now, seen);
            }
            evaluation.outcome = Outcome::Established;
            return true;
        }
    }
    // Of a connection that goes through the node, what was found where it entered stays.
    let goes_on = found.is_some() && from_client && matches!(direction, Direction::Egress);
    let entered = (flow.server_if, flow.server_revision);
    evaluation.entry.open(&scratch.hook, source_is_low, now);
    if goes_on {
        (evaluation.entry.server_if, evaluation.entry.server_revision) = entered;
    }
    evaluate(packet, scratch, tables)
}

/// A packet that no entry lets pass.
#[inline(never)]
fn evaluate<T: Tables>(packet: &impl Packet, scratch: &mut Scratch, tables: &T) -> bool {
    let direction = scratch.hook.direction;
    let segment = scratch.headers.segment;
    let is_local = is_local(scratch, true, tables);
    // Before the endpoint: what is entered under a revision was evaluated by nothing older.
    let entry = &mut scratch.evaluation.entry;
    match direction {
        Direction::Egress => entry.client_revision = tables.revision(),
        Direction::Ingress => entry.server_revision = tables.revision(),
    }
    let endpoint = endpoint(scratch, is_local, tables);
    let asks = endpoint.is_asked(direction);
    let Scratch { headers: Headers { tuple, .. }, policy_lookup, evaluation, .. } = scratch;
    let SideEvaluation { entry, outcome, enters, is_closed, is_evaluated, .. } = evaluation;
    // An answer to what is not known any more makes no entry.
    *enters = !segment.answers();
    if is_local && is_failsafe(tuple, segment.opens(), direction, tables) {
        *outcome = Outcome::Failsafe;
        return true;
    }
    if is_local && tuple.protocol == number::TCP && !segment.syn() && !forget(is_evaluated) && {
        let received = match direction {
            Direction::Ingress => *tuple,
            Direction::Egress => tuple.reversed(),
        };
        packet.has_connection(&received)
    } {
        // Older than its entry, or than the host endpoint.
        entry.seen = entry.seen.with(Seen::REPLY, true);
        *outcome = Outcome::Established;
        return true;
    }
    if !asks {
        // Answers to it will have to pass where policies are asked about that way, also those to what the
        // node has masqueraded.
        let is_awaited = is_local
            || endpoint.is_asked(direction.other())
            || matches!(direction, Direction::Egress) && tables.owner(&tuple.source) == Some(NODE);
        *outcome = if is_local { Outcome::NotIsolated } else { Outcome::Established };
        return is_awaited && (is_local || !is_tunnels(scratch, tables));
    }
    *is_closed = endpoint.policy(direction).isolates();
    let peer = match direction {
        Direction::Ingress => tuple.source,
        Direction::Egress => tuple.destination,
    };
    policy_lookup.direction = direction;
    policy_lookup.policy = endpoint.policy(direction);
    let mut verdict = if endpoint.policy(direction).isolates() {
        tables.by_policy(&peer, tuple, &endpoint, policy_lookup)
    } else {
        Outcome::NotIsolated
    };
    let audited = match direction {
        Direction::Ingress => endpoint.audit_ingress,
        Direction::Egress => endpoint.audit_egress,
    };
    if audited.isolates() && verdict.passes() {
        let enforced = core::mem::replace(&mut policy_lookup.policy, audited);
        if tables.by_policy(&peer, tuple, &endpoint, policy_lookup).passes() {
            policy_lookup.policy = enforced;
        } else {
            verdict = Outcome::WouldDeny;
        }
    }
    if !verdict.passes() && is_tunnels(scratch, tables) {
        return false;
    }
    scratch.evaluation.enters &= verdict.passes();
    scratch.evaluation.outcome = verdict;
    true
}

/// A connection to a failsafe port, or an answer from one over TCP: so they go on when there is no room for
/// their entries.
#[inline(always)]
fn is_failsafe<T: Tables>(tuple: &Tuple, opens: bool, direction: Direction, tables: &T) -> bool {
    host_port(tuple, tables).is_failsafe(direction)
        || tuple.protocol == number::TCP
            && !opens
            && host_port(&tuple.reversed(), tables).is_failsafe(direction.other())
}
