//! Names in the decision: which replies are read for names, and what names allow.
//!
//! A pod with name rules learns from the replies of resolvers that it has asked itself. DNS is not filtered
//! here: what a reply says never decides whether it passes.

use super::{NODE, ingress::note_sender};
use crate::{
    Address, Direction, Endpoint, EndpointState, Hook, NAMES_OF_ADDRESS, NameId, Outcome, Packet,
    PolicyLookup, Protocol, Resolver, RowKey, Scratch, ServiceKey, Strata, Tables, Tuple, packet::forget,
    tables::allows,
};

/// Whether the replies of a connection that a pod opens are read for names.
#[inline(always)]
pub(super) fn asks_resolver<T: Tables>(tuple: &Tuple, endpoint: &Endpoint, tables: &T) -> bool {
    endpoint.names != 0
        && resolver(&tuple.destination, tuple.protocol, tuple.destination_port, tables) != Resolver::NONE
}

#[inline(always)]
fn resolver<T: Tables>(address: &Address, protocol: u32, port: u16, tables: &T) -> Resolver {
    match Protocol::try_from(protocol) {
        Ok(protocol) => tables.resolver(&ServiceKey::new(*address, protocol, port)),
        Err(_) => Resolver::NONE,
    }
}

/// Whether a reply that arrives at its client's veth comes from the resolver whose address it has, as far as
/// this node can tell. `from_pod` lets no other pod of the node send in its name.
///
/// Whether it is one now: a connection outlives the resolver that it was opened to, whose address may be
/// another pod's by then.
///
/// The node's own address proves nothing by itself, but no packet from elsewhere has it and has entered
/// nowhere (`origin`). Of a translated connection the kernel knows who was asked, and whose veth the answer
/// must come from.
///
/// A function of its own in the kernel too, for the stack.
#[inline(never)]
pub(super) fn is_resolvers<T: Tables>(
    packet: &impl Packet,
    scratch: &mut Scratch,
    hook: &Hook,
    tables: &T,
) -> bool {
    let Scratch { headers, tracked, .. } = scratch;
    let reply = &headers.tuple;
    let believed = resolver(&reply.source, reply.protocol, reply.source_port, tables);
    if believed == Resolver::NONE {
        return false;
    }
    match tables.owner(&reply.source) {
        Some(NODE) => return hook.ingress_ifindex == NODE,
        Some(pod) => return comes_from(pod, hook, tables),
        None => {}
    }
    if !packet.tracked(tracked) {
        return believed == Resolver::BELIEVED && !comes_from_stranger(hook, tables);
    }
    let is_answer = tracked.is_reply
        && tracked.original.destination == reply.source
        && tracked.original.destination_port == reply.source_port;
    if !is_answer {
        return false;
    }
    let backend = &tracked.reply;
    if believed != Resolver::BELIEVED
        && resolver(&backend.source, reply.protocol, backend.source_port, tables) == Resolver::NONE
    {
        return false;
    }
    match tables.owner(&backend.source) {
        Some(NODE) => hook.ingress_ifindex == NODE,
        Some(pod) => comes_from(pod, hook, tables),
        None => !comes_from_stranger(hook, tables),
    }
}

#[inline(always)]
fn comes_from<T: Tables>(pod: u32, hook: &Hook, tables: &T) -> bool {
    let from = hook.ingress_ifindex;
    from == pod || from != NODE && tables.endpoint(pod).master == from
}

/// Whether a packet comes from a veth whose pod is not known: it sends from any address that no one on this
/// node has.
#[inline(always)]
fn comes_from_stranger<T: Tables>(hook: &Hook, tables: &T) -> bool {
    tables.endpoint(hook.ingress_ifindex).state == EndpointState::Unmanaged as u32
}

/// Asks names about what a pod's policies have denied: those that are enforced, those in audit mode, or both.
///
/// A function of its own in the kernel too, after which the verifier knows nothing of it.
#[inline(never)]
pub(super) fn reconsider<T: Tables>(scratch: &mut Scratch, tables: &T) {
    let Scratch { evaluation, endpoint, enforced, policy_lookup, connection, .. } = scratch;
    if !matches!(evaluation.side, Direction::Egress) {
        return;
    }
    let by_names = |policy_lookup: &mut PolicyLookup| tables.by_names(connection, endpoint, policy_lookup);
    if forget(&evaluation.outcome) == Outcome::Denied && by_names(policy_lookup) {
        evaluation.outcome = Outcome::Allowed;
        *enforced = Outcome::Allowed;
        if endpoint.audit_egress.isolates() {
            let allowed = policy_lookup.identity;
            policy_lookup.policy = endpoint.audit_egress;
            evaluation.outcome = match tables.by_egress(connection, endpoint, policy_lookup) {
                Outcome::Denied => Outcome::WouldDeny,
                _ => Outcome::Allowed,
            };
            if forget(&evaluation.outcome) == Outcome::Allowed {
                (policy_lookup.policy, policy_lookup.identity) = (endpoint.egress, allowed);
            }
        }
    }
    if forget(&evaluation.outcome) == Outcome::WouldDeny && by_names(policy_lookup) {
        policy_lookup.policy = endpoint.egress;
        evaluation.outcome = forget(enforced);
    }
}

/// The same of what a packet's sender may send, where that is evaluated behind its veth: `policy_lookup` has
/// what its policies deny, and `sender_lookup` what those of the receiver say.
///
/// A function of its own in the kernel too, as above.
#[inline(never)]
pub(super) fn reconsider_sender<T: Tables>(scratch: &mut Scratch, tables: &T) {
    // Read before the sender's endpoint, as when a side is evaluated.
    let revision = tables.revision();
    load_sender(scratch, tables);
    let Scratch { evaluation, enforced, policy_lookup, sender_lookup, connection, sender, .. } = scratch;
    if forget(&sender.names) == 0 {
        return;
    }
    let by_names = |policy_lookup: &mut PolicyLookup| tables.by_names(connection, sender, policy_lookup);
    if forget(&evaluation.outcome) == Outcome::DeniedBackend {
        if !by_names(policy_lookup) {
            return;
        }
        evaluation.outcome = Outcome::Allowed;
        if sender.audit_egress.isolates() {
            policy_lookup.policy = sender.audit_egress;
            let destination = &connection.destination;
            if !tables.by_policy(destination, connection, sender, policy_lookup).passes() {
                evaluation.outcome = Outcome::WouldDeny;
            }
        }
    }
    if forget(&evaluation.outcome) == Outcome::WouldDeny && by_names(policy_lookup) {
        evaluation.outcome = Outcome::Allowed;
    }
    note_sender(&mut evaluation.entry, forget(&policy_lookup.ifindex), revision);
    if forget(&evaluation.outcome) == Outcome::Allowed {
        evaluation.outcome = forget(enforced);
        core::mem::swap(policy_lookup, sender_lookup);
    }
}

/// In a function of its own, so that what it needs of the stack does not stand below what is asked next.
#[inline(never)]
fn load_sender<T: Tables>(scratch: &mut Scratch, tables: &T) {
    scratch.sender = tables.endpoint(scratch.policy_lookup.ifindex);
}

/// Whether a name that a destination was learnt for allows what the policy of `policy_lookup` denies by the
/// address. Identity and class of the destination stand there; when a name allows it, the name takes the
/// identity's place ([`PolicyLookup::of_name`]).
///
/// Whoever has a name chooses its addresses: those of nodes are not opened by it. Those of services are
/// evaluated before.
///
/// Asked by way of [`Tables::by_names`].
#[inline(always)]
pub fn by_names<T: Tables>(
    destination: &Address,
    endpoint: &Endpoint,
    policy_lookup: &mut PolicyLookup,
    names: &mut [NameId; NAMES_OF_ADDRESS],
    tables: &T,
) -> bool {
    let (table_set, policy) = (endpoint.table_set, policy_lookup.policy);
    let Some(strata) = tables.row(table_set, &RowKey::of_strata(policy)) else { return false };
    if tables.is_node(destination) {
        return false;
    }
    tables.names(endpoint.names, destination, names);
    let (identity, class) = (policy_lookup.identity, policy_lookup.class);
    for name in names {
        let name = forget(name);
        if name.is_none() {
            continue;
        }
        let of_name = tables.identity(table_set, &name.as_key());
        for stratum in Strata::of(strata).0 {
            if !stratum.names.isolates() || !allows(tables, table_set, stratum.names, of_name, class) {
                continue;
            }
            if !stratum.open.isolates() || allows(tables, table_set, stratum.open, identity, class) {
                policy_lookup.identity = PolicyLookup::of_name(of_name);
                return true;
            }
        }
    }
    false
}
