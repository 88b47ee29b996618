//! The decision: one packet at one hook.
//!
//! A connection is judged once on each side that is a pod of this node: the client's egress where its packets leave
//! their veth, the server's ingress where they arrive. Later packets pass on the entry in the flow table. What is
//! denied leaves no trace in it.

use crate::{
    Address, Direction, Endpoint, Flow, FlowKey, FragmentKey, Hook, NODE, Outcome, Packet, Parsed, Ports,
    Seen, Segment, Tables, Tuple, allowed, parse, protocol::number,
};

/// Judges a packet.
#[inline(always)]
pub fn decide<T: Tables>(packet: &impl Packet, hook: &Hook, tables: &T) -> Outcome {
    match parse(packet) {
        Parsed::Flow { tuple, segment, fragment } => {
            let outcome = flow(&tuple, segment, hook, tables);
            if let Some(id) = fragment
                && outcome.passes()
            {
                let ports = Ports { source: tuple.source_port, destination: tuple.destination_port };
                tables.put_fragment(&fragment_key(&tuple, id), ports);
            }
            outcome
        }
        Parsed::Fragment { mut tuple, id } => match tables.fragment(&fragment_key(&tuple, id)) {
            Some(ports) => {
                tuple.source_port = ports.source;
                tuple.destination_port = ports.destination;
                flow(&tuple, Segment::default(), hook, tables)
            }
            None => unknown(&tables.endpoint(hook.ifindex), hook, Outcome::Fragment),
        },
        Parsed::Related { source, destination, quoted } => {
            related(&source, &destination, &quoted, hook, tables)
        }
        Parsed::Neighbour => Outcome::Neighbour,
        Parsed::Unreadable => unknown(&tables.endpoint(hook.ifindex), hook, Outcome::Unreadable),
    }
}

/// A packet of a connection: passes on its entry, else the side of it that belongs to this hook is judged.
#[inline(always)]
fn flow<T: Tables>(tuple: &Tuple, segment: Segment, hook: &Hook, tables: &T) -> Outcome {
    let (key, source_is_low) = FlowKey::of(tuple);
    let now = tables.now();
    let known = tables.flow(&key).filter(|(flow, _)| is_alive(flow, &key, now, tables));
    let mut question = Question::new(tuple, source_is_low, hook, known.map(|(flow, _)| flow));
    if let Some((flow, entry)) = known
        && !segment.opens
    {
        let from_client = flow.seen.has(Seen::CLIENT_IS_LOW) == source_is_low;
        if was_judged_here(&flow, from_client, hook) {
            let again = Question::again(tuple, from_client, hook, flow);
            if tables.recheck() && again.judged_in() != tables.epoch() {
                question = again;
            } else {
                let seen = flow.seen.after(segment, from_client);
                if seen != flow.seen || now.wrapping_sub(flow.last) >= tables.timeouts().refresh {
                    tables.refresh_flow(entry, now, seen);
                }
                return Outcome::Established;
            }
        }
    }
    answer(question, &key, now, hook, tables)
}

/// One side of a connection that must be judged, and the entry that it gets when it passes.
struct Question {
    side: Direction,
    /// As the client sends it.
    opened: Tuple,
    entry: Flow,
}

impl Question {
    /// A packet that no entry lets pass opens a connection, in its own direction.
    #[inline(always)]
    fn new(tuple: &Tuple, source_is_low: bool, hook: &Hook, known: Option<Flow>) -> Self {
        let entry = match hook.direction {
            // What was known of the server's side belongs to the past.
            Direction::Egress => Flow { client_if: hook.ifindex, ..UNJUDGED },
            // What `from_pod` has just found out of the same client stays.
            Direction::Ingress => {
                let (client_if, client_epoch) = known
                    .filter(|flow| flow.seen.has(Seen::CLIENT_IS_LOW) == source_is_low)
                    .map_or((0, 0), |flow| (flow.client_if, flow.client_epoch));
                Flow { client_if, client_epoch, server_if: hook.ifindex, via: hook.via, ..UNJUDGED }
            }
        };
        let seen = Seen::default().with(Seen::CLIENT_IS_LOW, source_is_low);
        Self { side: hook.direction, opened: *tuple, entry: Flow { seen, ..entry } }
    }

    /// A live connection after a change: the same question as when it was opened.
    #[inline(always)]
    fn again(tuple: &Tuple, from_client: bool, hook: &Hook, entry: Flow) -> Self {
        let (side, opened) = match (hook.direction, from_client) {
            (side, true) => (side, *tuple),
            (Direction::Egress, false) => (Direction::Ingress, tuple.reversed()),
            (Direction::Ingress, false) => (Direction::Egress, tuple.reversed()),
        };
        Self { side, opened, entry }
    }

    #[inline(always)]
    const fn judged_in(&self) -> u32 {
        match self.side {
            Direction::Egress => self.entry.client_epoch,
            Direction::Ingress => self.entry.server_epoch,
        }
    }
}

/// Judges one side of a connection, and enters the connection when it passes.
#[inline(always)]
fn answer<T: Tables>(question: Question, key: &FlowKey, now: u32, hook: &Hook, tables: &T) -> Outcome {
    let Question { side, opened, mut entry } = question;
    let endpoint = tables.endpoint(hook.ifindex);
    let outcome = match side {
        Direction::Egress => egress(&opened, &endpoint, hook.ifindex, tables),
        Direction::Ingress => ingress(&opened, &endpoint, hook.ifindex, entry.via, tables),
    };
    if !outcome.passes() || matches!(outcome, Outcome::Dhcp) {
        return outcome;
    }
    match side {
        Direction::Egress => entry.client_epoch = tables.epoch(),
        Direction::Ingress => entry.server_epoch = tables.epoch(),
    }
    entry.last = now;
    let closed = endpoint.is_closed(Direction::Egress) || endpoint.is_closed(Direction::Ingress);
    if !tables.put_flow(key, &entry) && closed { Outcome::FlowTable } else { outcome }
}

/// May the pod behind this veth open this connection?
#[inline(always)]
fn egress<T: Tables>(tuple: &Tuple, endpoint: &Endpoint, ifindex: u32, tables: &T) -> Outcome {
    if is_dhcp_request(tuple) {
        return Outcome::Dhcp;
    }
    if endpoint.is_held() {
        return Outcome::Held;
    }
    if is_spoofed(&tuple.source, endpoint, ifindex, tables) {
        return Outcome::Spoofed;
    }
    if !endpoint.egress.isolates() {
        return Outcome::Free;
    }
    match tables.owner(&tuple.destination) {
        Some(NODE) => return Outcome::OwnNode,
        Some(owner) if owner == ifindex => return Outcome::Itself,
        _ => {}
    }
    by_policy(&tuple.destination, tuple, endpoint, Direction::Egress, tables)
}

/// May this connection reach the pod behind this veth?
#[inline(always)]
fn ingress<T: Tables>(tuple: &Tuple, endpoint: &Endpoint, ifindex: u32, via: u32, tables: &T) -> Outcome {
    // The node's address alone proves nothing: only what its own stack made has no ingress interface.
    if via == NODE {
        return Outcome::OwnNode;
    }
    if is_dhcp_reply(tuple) && tables.owner(&tuple.destination).is_none() {
        return Outcome::Dhcp;
    }
    if endpoint.is_held() {
        return Outcome::Held;
    }
    if let Some(owner) = tables.owner(&tuple.source)
        && owner != NODE
        && owner != via
        && tables.endpoint(owner).master != via
    {
        return Outcome::Spoofed;
    }
    if via == ifindex {
        return Outcome::Itself;
    }
    if !endpoint.ingress.isolates() {
        return Outcome::Free;
    }
    by_policy(&tuple.source, tuple, endpoint, Direction::Ingress, tables)
}

#[inline(always)]
fn by_policy<T: Tables>(
    peer: &Address,
    tuple: &Tuple,
    endpoint: &Endpoint,
    direction: Direction,
    tables: &T,
) -> Outcome {
    let policy = endpoint.policy(direction);
    if allowed(tables, endpoint.slot, policy, peer, tuple.protocol, tuple.destination_port) {
        Outcome::Allowed
    } else {
        Outcome::Denied
    }
}

/// An ICMP error passes when it speaks of a connection that was judged here, to the one who sent the quoted packet.
#[inline(always)]
fn related<T: Tables>(
    source: &Address,
    destination: &Address,
    quoted: &Tuple,
    hook: &Hook,
    tables: &T,
) -> Outcome {
    let (key, source_is_low) = FlowKey::of(quoted);
    let known = *destination == quoted.source
        && tables.flow(&key).is_some_and(|(flow, _)| {
            let quoted_from_client = flow.seen.has(Seen::CLIENT_IS_LOW) == source_is_low;
            // The error goes to the quoted sender's side, and leaves from the other side.
            let client_side = match hook.direction {
                Direction::Ingress => quoted_from_client,
                Direction::Egress => !quoted_from_client,
            };
            let judged = if client_side { flow.client_if } else { flow.server_if };
            judged == hook.ifindex && is_alive(&flow, &key, tables.now(), tables)
        });
    let endpoint = tables.endpoint(hook.ifindex);
    match hook.direction {
        Direction::Egress if is_spoofed(source, &endpoint, hook.ifindex, tables) => Outcome::Spoofed,
        Direction::Ingress if hook.via == NODE => Outcome::OwnNode,
        _ if known => Outcome::Related,
        _ => unknown(&endpoint, hook, Outcome::Denied),
    }
}

/// What cannot be judged: dropped for an isolated direction, passed for a free one.
#[inline(always)]
fn unknown(endpoint: &Endpoint, hook: &Hook, reason: Outcome) -> Outcome {
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

const UNJUDGED: Flow =
    Flow { client_if: 0, server_if: 0, via: 0, client_epoch: 0, server_epoch: 0, last: 0, seen: Seen(0) };

/// Whether this hook's side of the connection was judged, for packets that come the way this one came.
#[inline(always)]
fn was_judged_here(flow: &Flow, from_client: bool, hook: &Hook) -> bool {
    match (hook.direction, from_client) {
        (Direction::Egress, true) | (Direction::Ingress, false) => flow.client_if == hook.ifindex,
        (Direction::Egress, false) => flow.server_if == hook.ifindex,
        (Direction::Ingress, true) => flow.server_if == hook.ifindex && flow.via == hook.via,
    }
}

#[inline(always)]
fn is_alive<T: Tables>(flow: &Flow, key: &FlowKey, now: u32, tables: &T) -> bool {
    now.wrapping_sub(flow.last) <= tables.timeouts().of(key.protocol, flow.seen)
}

#[inline(always)]
fn fragment_key(tuple: &Tuple, id: u32) -> FragmentKey {
    FragmentKey {
        source: tuple.source,
        destination: tuple.destination,
        id,
        protocol: u32::from(tuple.protocol),
    }
}

/// A host without an address asks for one: DHCP (RFC 2131) from `0.0.0.0`, DHCPv6 (RFC 8415) from its link.
#[inline(always)]
fn is_dhcp_request(tuple: &Tuple) -> bool {
    match (tuple.protocol, tuple.source_port, tuple.destination_port) {
        (number::UDP, 68, 67) => tuple.source.is_unspecified(),
        (number::UDP, 546, 547) => tuple.source.is_link_local_v6() && tuple.destination == DHCPV6_SERVERS,
        _ => false,
    }
}

/// The answer, to everyone or to an address that no pod has yet.
#[inline(always)]
fn is_dhcp_reply(tuple: &Tuple) -> bool {
    match (tuple.protocol, tuple.source_port, tuple.destination_port) {
        (number::UDP, 67, 68) => true,
        (number::UDP, 547, 546) => tuple.source.is_link_local_v6() && tuple.destination.is_link_local_v6(),
        _ => false,
    }
}

/// `ff02::1:2`, all DHCPv6 relay agents and servers.
const DHCPV6_SERVERS: Address = Address::from_v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2]);
