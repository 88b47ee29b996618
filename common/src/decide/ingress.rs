//! The ingress of a pod, and the egress of the pod that sent where that was not known at its own veth.

use super::{
    dhcp::{is_dhcp_reply, is_dhcp_request},
    sender::Sender,
};
use crate::{
    Address, Direction, Endpoint, Flow, Hook, NODE, Outcome, Packet, PolicyId, PolicyLookup, Scratch, Seen,
    Segment, Tables, Tuple,
    scratch::SideEvaluation,
    tables::{allows, classify},
};

/// May this connection reach the pod behind this veth?
#[inline(always)]
pub(super) fn ingress<T: Tables>(
    endpoint: &Endpoint,
    packet: &impl Packet,
    scratch: &mut Scratch,
    hook: &Hook,
    tables: &T,
) -> Outcome {
    let Scratch {
        headers,
        tracked,
        policy_lookup,
        sender_lookup,
        enforced,
        evaluation: SideEvaluation { entry, is_senders, .. },
        connection: tuple,
        ..
    } = scratch;
    // The node's address alone proves nothing, nor does it that the packet has entered nowhere (`origin`).
    if entry.ingress_ifindex == NODE {
        return Outcome::OwnNode;
    }
    if is_dhcp_reply(tuple, hook, tables) {
        return Outcome::Dhcp;
    }
    if endpoint.is_pending() {
        return Outcome::Pending;
    }
    let sender = match Sender::known(tuple, entry, tables) {
        Some(sender) => sender,
        None => match Sender::of(tuple, entry.ingress_ifindex, packet, tracked, tables) {
            Some(sender) => sender,
            None => return Outcome::Spoofed,
        },
    };
    tables.note_sender(&sender.address, sender.pod, sender.is_rewritten, sender.masqueraded);
    entry.seen = entry.seen.with(Seen::REWRITTEN, sender.is_rewritten);
    if entry.ingress_ifindex == hook.ifindex || sender.pod == hook.ifindex {
        return Outcome::OwnAddress;
    }
    policy_lookup.policy = endpoint.ingress;
    let mut outcome = if !endpoint.ingress.isolates() {
        Outcome::NotIsolated
    } else if sender.masqueraded && tables.passes_masqueraded() {
        Outcome::Masqueraded
    } else {
        tables.by_policy(&sender.address, tuple, endpoint, policy_lookup)
    };
    let audited = endpoint.audit_ingress;
    if audited.isolates() && outcome.passes() && !matches!(outcome, Outcome::Masqueraded) {
        let enforced = core::mem::replace(&mut policy_lookup.policy, audited);
        if tables.by_policy(&sender.address, tuple, endpoint, policy_lookup).passes() {
            policy_lookup.policy = enforced;
        } else {
            outcome = Outcome::WouldDeny;
        }
    }
    if !outcome.passes() {
        return outcome;
    }
    *enforced = outcome;
    match may_send(&sender, tuple, headers.segment, entry, (policy_lookup, sender_lookup), tables) {
        Some(against) => {
            *is_senders = true;
            against
        }
        None => outcome,
    }
}

/// What the egress of a local pod has against what it sent, where that could not be evaluated at its own
/// veth: the service's address was all that was known there. Then the entry says so, if the packet passes.
#[inline(always)]
pub(super) fn may_send<T: Tables>(
    sender: &Sender,
    tuple: &Tuple,
    segment: Segment,
    entry: &mut Flow,
    (policy_lookup, sender_lookup): (&mut PolicyLookup, &mut PolicyLookup),
    tables: &T,
) -> Option<Outcome> {
    if sender.pod == NODE || is_dhcp_request(tuple, sender.pod, tables) {
        return None;
    }
    let revision = tables.revision();
    let stale = entry.client_revision != revision && (segment.opens() || tables.recheck());
    if entry.client_if == sender.pod && !stale {
        return None;
    }
    let endpoint = tables.endpoint(sender.pod);
    let mut outcome = None;
    if endpoint.is_asked(Direction::Egress) {
        (sender_lookup.ifindex, sender_lookup.direction) = (sender.pod, Direction::Egress);
        outcome = against_backend(tuple, &endpoint, sender_lookup, tables);
        if outcome.is_some() {
            core::mem::swap(policy_lookup, sender_lookup);
        }
    }
    if outcome.is_none_or(Outcome::passes) {
        note_sender(entry, sender.pod, revision);
    }
    outcome
}

/// Notes that the sender's egress was evaluated behind its veth.
#[inline(always)]
pub(super) fn note_sender(entry: &mut Flow, pod: u32, revision: u32) {
    entry.client_if = pod;
    entry.client_revision = revision;
    entry.seen = entry.seen.without(Seen::OWN_ADDRESS);
}

/// What a pod's egress has against a service's backend.
#[inline(never)]
fn against_backend<T: Tables>(
    tuple: &Tuple,
    endpoint: &Endpoint,
    policy_lookup: &mut PolicyLookup,
    tables: &T,
) -> Option<Outcome> {
    let denies = |policy_lookup: &mut PolicyLookup, policy: PolicyId| {
        policy_lookup.policy = policy;
        policy.isolates() && !tables.by_policy(&tuple.destination, tuple, endpoint, policy_lookup).passes()
    };
    if denies(policy_lookup, endpoint.egress) {
        Some(Outcome::DeniedBackend)
    } else if denies(policy_lookup, endpoint.audit_egress) {
        Some(Outcome::WouldDeny)
    } else {
        None
    }
}

/// What the policy of `policy_lookup` says of a peer; what the peer and the port are to it is noted there.
///
/// Asked by way of [`Tables::by_policy`].
#[inline(always)]
pub fn by_policy<T: Tables>(
    peer: &Address,
    tuple: &Tuple,
    endpoint: &Endpoint,
    policy_lookup: &mut PolicyLookup,
    tables: &T,
) -> Outcome {
    let (table_set, ports) = (endpoint.table_set, [tuple.source_port, tuple.destination_port]);
    let (identity, class) = classify(tables, table_set, peer, tuple.protocol, ports);
    (policy_lookup.identity, policy_lookup.class) = (identity, class);
    if allows(tables, table_set, policy_lookup.policy, identity, class) {
        Outcome::Allowed
    } else {
        Outcome::Denied
    }
}
