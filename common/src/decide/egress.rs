//! The egress of a pod: what it opens, judged where it leaves its veth.

use super::{dhcp::is_dhcp_request, is_spoofed};
use crate::{
    Endpoint, IdentityId, Judged, NODE, Outcome, Protocol, RowKey, ServiceKey, ServiceVerdict, Tables, Tuple,
    packet::forget, tables::classify,
};

/// May the pod behind this veth open this connection?
#[inline(always)]
pub(super) fn egress<T: Tables>(
    tuple: &Tuple,
    endpoint: &Endpoint,
    judged: &mut Judged,
    enforced: &mut Outcome,
    tables: &T,
) -> Outcome {
    if is_dhcp_request(tuple, judged.ifindex, tables) {
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
