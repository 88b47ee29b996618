//! The ingress of a pod, and the egress of the pod that sent where that was not known at its own veth.

use super::{
    dhcp::{is_dhcp_reply, is_dhcp_request},
    sender::Sender,
};
use crate::{
    Address, Direction, Endpoint, Flow, Hook, Judged, NODE, Outcome, Packet, PolicyId, Scratch, Seen,
    Segment, Tables, Tuple,
    scratch::Question,
    tables::{allows, classify},
};

/// May this connection reach the pod behind this veth?
#[inline(always)]
pub(super) fn ingress<T: Tables>(
    tuple: &Tuple,
    endpoint: &Endpoint,
    packet: &impl Packet,
    scratch: &mut Scratch,
    hook: &Hook,
    tables: &T,
) -> Outcome {
    let Scratch { headers, tracked, judged, question: Question { entry, .. }, .. } = scratch;
    // The node's address alone proves nothing, nor does it that the packet has entered nowhere (`origin`).
    if entry.via == NODE {
        return Outcome::OwnNode;
    }
    if is_dhcp_reply(tuple, hook, tables) {
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
        tables.by_policy(&sender.address, tuple, endpoint, judged)
    };
    let audited = endpoint.audit_ingress;
    if audited.isolates() && outcome.passes() && !matches!(outcome, Outcome::Masqueraded) {
        let enforced = core::mem::replace(&mut judged.policy, audited);
        if tables.by_policy(&sender.address, tuple, endpoint, judged).passes() {
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
pub(super) fn may_send<T: Tables>(
    sender: &Sender,
    tuple: &Tuple,
    segment: Segment,
    entry: &mut Flow,
    judged: &mut Judged,
    tables: &T,
) -> Option<Outcome> {
    if sender.pod == NODE || is_dhcp_request(tuple, sender.pod, tables) {
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
        policy.isolates() && !tables.by_policy(&tuple.destination, tuple, endpoint, judged).passes()
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
///
/// Asked by way of [`Tables::by_policy`].
#[inline(always)]
pub fn by_policy<T: Tables>(
    peer: &Address,
    tuple: &Tuple,
    endpoint: &Endpoint,
    judged: &mut Judged,
    tables: &T,
) -> Outcome {
    let (slot, port) = (endpoint.slot, tuple.destination_port);
    let (identity, class) = classify(tables, slot, peer, tuple.protocol, port);
    (judged.identity, judged.class) = (identity, class);
    if allows(tables, slot, judged.policy, identity, class) { Outcome::Allowed } else { Outcome::Denied }
}
