//! The decision at a device of the node's own: host endpoints.
//!
//! Traffic of the node's own processes is evaluated by the rule sets of the device's host endpoint; what the
//! node forwards by those for forwarded traffic, if there are any. As everywhere, a connection is evaluated
//! once on each side: where it enters the node and where it leaves it. Its entry has a key of its own
//! ([`FlowKey::at_host`](crate::FlowKey)), and holds for all devices: packets of a connection that entered by
//! one may go by another.
//!
//! Traffic that keeps a link alive always passes: ARP, neighbour discovery, and what is not IP. So do the
//! failsafe ports, and tunnels between nodes, which carry the traffic of pods.

use super::{
    NODE,
    encapsulation::may_carry_packets,
    enter,
    fragments::{recall_ports, remember_ports},
    is_alive,
};
use crate::{
    Address, Direction, Endpoint, HEARD_BY_NODE, Headers, Hook, HostKey, OTHER_NODE, Outcome, Packet,
    PacketKind, PortUse, Protocol, Reach, Scratch, Seen, ServiceEnd, ServiceKey, Tables, TunnelPort, Tuple,
    is_nodes,
    packet::{discovery, forget},
    parse,
    protocol::number,
    scratch::SideEvaluation,
};

/// Evaluates a packet at a device of the node's own. `hook.direction` is the node's: ingress packets come in
/// by the device.
///
/// Out: `None` if the packet is not podgate's to evaluate.
#[inline(always)]
pub fn decide_at_host<T: Tables>(
    packet: &impl Packet,
    scratch: &mut Scratch,
    hook: &Hook,
    tables: &T,
) -> Option<Outcome> {
    let current = HostKey::of(hook.ifindex);
    let key = if tables.host_change_expired() { current.before() } else { current };
    // A frame of a VLAN passes the VLAN's own device as well, and is evaluated there.
    if !tables.endpoint(key.0).is_known() || packet.vlan() != 0 {
        return None;
    }
    // Flow events name the current host endpoint, whichever rule sets are enforced.
    scratch.begin(&Hook { direction: hook.direction, ifindex: current.0, ingress_ifindex: NODE });
    scratch.ingress_ifindex = hook.ingress_ifindex;
    scratch.host_key = key.0;
    let kind = parse(packet, &mut scratch.headers);
    let readable = match kind {
        PacketKind::Flow | PacketKind::FirstFragment => true,
        PacketKind::LaterFragment => recall_ports(&mut scratch.headers, tables),
        PacketKind::Arp => return None,
        PacketKind::Neighbour
            if is_local(scratch, false, tables) || discovery::has_not_been_forwarded(packet) =>
        {
            return None;
        }
        // Routers forward none: it is an ICMPv6 packet like any other.
        PacketKind::Neighbour => {
            scratch.headers.take_for_connection();
            true
        }
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
    let outcome = connection(packet, scratch, tables).then(|| enter(scratch, tables));
    if scratch.headers.is_first_fragment() && outcome.is_none_or(Outcome::passes) {
        remember_ports(scratch, tables);
    }
    outcome
}

/// Whether the kernel hands the frame to another protocol than IP. VLAN tags do not count: the kernel removes
/// a tag that only gives a priority after this hook, and IP may follow it.
#[inline(always)]
fn is_other_than_ip(packet: &impl Packet) -> bool {
    const OF_IP: [[u8; 2]; 4] = [[0x08, 0x00], [0x86, 0xdd], [0x81, 0x00], [0x88, 0xa8]];
    packet.received_as().is_some_and(|kind| !OF_IP.contains(&kind))
}

/// A packet that cannot be evaluated is dropped if policies apply to its kind of traffic.
#[inline(never)]
fn closed<T: Tables>(scratch: &mut Scratch, reason: Outcome, tables: &T) -> Option<Outcome> {
    let direction = scratch.hook.direction;
    // Ports are not known, and perhaps not even the destination.
    let is_local = scratch.headers.tuple.destination.is_unspecified() || is_local(scratch, false, tables);
    let endpoint = endpoint(scratch, is_local, tables);
    endpoint.policy(direction).isolates().then_some(reason)
}

/// An ICMP error passes if it is about a connection that is known here, or if no policy applies to traffic of
/// its kind.
#[inline(never)]
fn related<T: Tables>(packet: &impl Packet, scratch: &mut Scratch, tables: &T) -> Option<Outcome> {
    let Scratch { hook, headers: Headers { tuple: quoted, sender, .. }, lookup, .. } = scratch;
    let direction = hook.direction;
    // An incoming error quotes a packet that its receiver has sent; an outgoing one, a packet that its sender
    // has received.
    let received = match direction {
        Direction::Ingress => quoted.reversed(),
        Direction::Egress => *quoted,
    };
    let is_local = ends_here(&received, false, tables);
    lookup.turn_to(quoted);
    lookup.key = lookup.key.at_host();
    let found = tables.flow(lookup, Reach::Everywhere).is_some();
    if found && is_alive(&lookup.flow, lookup.key.protocol(), tables.now(), tables)
        || is_local && packet.has_connection(&received)
    {
        return Some(Outcome::Related);
    }
    // Of what tunnels carry there is no entry.
    let (own, other) = match direction {
        Direction::Ingress => (quoted.source, quoted.destination),
        Direction::Egress => (quoted.destination, quoted.source),
    };
    if has_owner(&own, NODE, tables) && is_node_tunnel(quoted, &other, tables) {
        return None;
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

/// The rule sets for this kind of traffic. Their key is noted for reports.
#[inline(always)]
fn endpoint<T: Tables>(scratch: &mut Scratch, is_local: bool, tables: &T) -> Endpoint {
    let key = HostKey(forget(&scratch.host_key));
    let key = if is_local { key } else { key.forwarded() };
    scratch.policy_lookup.ifindex = key.0 & !HostKey::BEFORE;
    let endpoint = tables.endpoint(key.0);
    // Without an entry no policy applies.
    if endpoint.is_known() { endpoint } else { Endpoint::UNMANAGED }
}

/// Whether the packet belongs to one of the node's own processes.
///
/// An incoming packet does if the node takes packets at its destination, and no service leads it elsewhere.
/// An outgoing packet does if it entered the node by no device, except for packets that the kernel makes in
/// the name of a pod.
#[inline(always)]
fn is_local<T: Tables>(scratch: &Scratch, has_ports: bool, tables: &T) -> bool {
    let tuple = &scratch.headers.tuple;
    match scratch.hook.direction {
        Direction::Ingress => ends_here(tuple, has_ports, tables),
        Direction::Egress => {
            let is_pods = owner_fulfils(&tuple.source, |owner| !is_nodes(owner), tables);
            forget(&scratch.ingress_ifindex) == NODE && !is_pods
        }
    }
}

/// Whether an incoming packet ends at one of the node's own processes. kube-proxy translates its destination
/// only behind this device.
#[inline(never)]
fn ends_here<T: Tables>(tuple: &Tuple, has_ports: bool, tables: &T) -> bool {
    let destination = tuple.destination;
    if destination.is_for_many() || destination.is_unspecified() {
        return true;
    }
    let (is_heard, address) = match tables.listed_owner(&destination).unwrap_or(OTHER_NODE) {
        // Whatever addresses a service claims, only its node ports count there.
        NODE => (true, destination.unspecified()),
        HEARD_BY_NODE => (true, destination),
        OTHER_NODE => (false, destination),
        _ => return false,
    };
    let key = match Protocol::try_from(tuple.protocol) {
        Ok(protocol) if has_ports => ServiceKey::new(address, protocol, tuple.destination_port),
        _ => ServiceKey::of_address(address),
    };
    match tables.host_service(&key) {
        Some(end) => matches!(end, ServiceEnd::Node),
        None => is_heard,
    }
}

#[inline(always)]
fn host_port<T: Tables>(tuple: &Tuple, tables: &T) -> PortUse {
    match Protocol::try_from(tuple.protocol) {
        Ok(protocol) => tables.host_port(protocol, tuple.destination_port),
        Err(_) => PortUse::NONE,
    }
}

/// Whether it is a packet of a tunnel between this node and `other`, another one.
#[inline(never)]
fn is_node_tunnel<T: Tables>(tuple: &Tuple, other: &Address, tables: &T) -> bool {
    let is_of_tunnel = match tuple.protocol {
        number::UDP => tables.tunnel_port(tuple.destination_port).has(TunnelPort::OF_NODES),
        protocol => may_carry_packets(protocol),
    };
    is_of_tunnel && has_owner(other, OTHER_NODE, tables)
}

#[inline(always)]
fn has_owner<T: Tables>(address: &Address, owner: u32, tables: &T) -> bool {
    owner_fulfils(address, |found| found == owner, tables)
}

/// Whether an address is listed with an owner for which this holds.
#[inline(always)]
fn owner_fulfils<T: Tables>(address: &Address, holds: impl Fn(u32) -> bool, tables: &T) -> bool {
    match tables.listed_owner(address) {
        // Read again: else the compiler compares first, also what is not there.
        Some(found) => holds(forget(&found)),
        None => false,
    }
}

/// The end of a connection that is not on this side of the device.
#[inline(always)]
const fn peer(tuple: &Tuple, direction: Direction) -> Address {
    match direction {
        Direction::Ingress => tuple.source,
        Direction::Egress => tuple.destination,
    }
}

/// Evaluates a packet of a connection. The outcome is in `evaluation`; false: there is none.
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
    // A connection that goes through the node keeps the result of where it entered.
    let goes_on = found.is_some() && from_client && matches!(direction, Direction::Egress);
    let entered = (flow.server_if, flow.server_revision);
    evaluation.entry.open(&scratch.hook, source_is_low, now);
    let entered_by = forget(&scratch.ingress_ifindex);
    if matches!(direction, Direction::Egress) && entered_by != NODE {
        // In the share of whoever has sent it, so that no pod uses up the node's own.
        evaluation.entry.client_if = entered_by;
    }
    if goes_on {
        (evaluation.entry.server_if, evaluation.entry.server_revision) = entered;
    }
    evaluate(packet, scratch, tables)
}

/// Evaluates a packet that no entry lets pass.
#[inline(never)]
fn evaluate<T: Tables>(packet: &impl Packet, scratch: &mut Scratch, tables: &T) -> bool {
    let direction = scratch.hook.direction;
    let segment = scratch.headers.segment;
    let is_local = is_local(scratch, true, tables);
    // Read before the endpoint, so that no entry is newer than its policy.
    let entry = &mut scratch.evaluation.entry;
    match direction {
        Direction::Egress => entry.client_revision = tables.revision(),
        Direction::Ingress => entry.server_revision = tables.revision(),
    }
    let endpoint = endpoint(scratch, is_local, tables);
    let asks = endpoint.is_asked(direction);
    let Scratch { headers: Headers { tuple, .. }, policy_lookup, evaluation, .. } = scratch;
    let SideEvaluation { entry, outcome, enters, is_closed, is_evaluated, .. } = evaluation;
    // An answer of a connection that is not known any more makes no entry.
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
        // The connection is older than its entry, or than the host endpoint.
        entry.seen = entry.seen.with(Seen::REPLY, true);
        *outcome = Outcome::Established;
        return true;
    }
    if !asks {
        // Its answers must pass where policies apply to the other direction, also answers to connections that
        // the node has masqueraded.
        let is_awaited = is_local
            || endpoint.is_asked(direction.other())
            || matches!(direction, Direction::Egress) && has_owner(&tuple.source, NODE, tables);
        *outcome = if is_local { Outcome::NotIsolated } else { Outcome::Established };
        return is_awaited && (is_local || !is_node_tunnel(tuple, &peer(tuple, direction), tables));
    }
    *is_closed = endpoint.policy(direction).isolates();
    let peer = peer(tuple, direction);
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
    if !verdict.passes() && is_node_tunnel(tuple, &peer, tables) {
        return false;
    }
    scratch.evaluation.enters &= verdict.passes();
    scratch.evaluation.outcome = verdict;
    true
}

/// Whether it is a packet to a failsafe port, or an answer from one over TCP. Such connections continue even
/// without room for their entries.
#[inline(always)]
fn is_failsafe<T: Tables>(tuple: &Tuple, opens: bool, direction: Direction, tables: &T) -> bool {
    host_port(tuple, tables).is_failsafe(direction)
        || tuple.protocol == number::TCP
            && !opens
            && host_port(&tuple.reversed(), tables).is_failsafe(direction.other())
}
