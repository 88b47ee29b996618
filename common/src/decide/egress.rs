//! The egress of a pod: what it opens, evaluated where it leaves its veth.

use super::{dhcp::is_dhcp_request, encapsulation::is_tunnelled, is_spoofed};
use crate::{
    Address, Endpoint, FilteredAs, IdentityId, NODE, Outcome, PolicyLookup, Protocol, RowKey, ServiceKey,
    ServiceVerdict, Tables, Tuple, packet::forget, tables::classify,
};

/// May the pod behind this veth open this connection?
#[inline(always)]
pub(super) fn egress<T: Tables>(
    tuple: &Tuple,
    endpoint: &Endpoint,
    policy_lookup: &mut PolicyLookup,
    enforced: &mut Outcome,
    tables: &T,
) -> Outcome {
    if is_dhcp_request(tuple, policy_lookup.ifindex, tables) {
        return Outcome::Dhcp;
    }
    if endpoint.is_pending() {
        return Outcome::Pending;
    }
    if is_spoofed(&tuple.source, endpoint, policy_lookup.ifindex, tables) {
        return Outcome::Spoofed;
    }
    if is_tunnelled(tuple.protocol, tuple.destination_port, &tuple.destination, tables) {
        return Outcome::Encapsulated;
    }
    policy_lookup.policy = endpoint.egress;
    *enforced = if endpoint.egress.isolates() {
        tables.by_egress(tuple, endpoint, policy_lookup)
    } else {
        Outcome::NotIsolated
    };
    let outcome = forget(enforced);
    if !endpoint.audit_egress.isolates() || !outcome.passes() || matches!(outcome, Outcome::Deferred) {
        return outcome;
    }
    policy_lookup.policy = endpoint.audit_egress;
    match tables.by_egress(tuple, endpoint, policy_lookup) {
        Outcome::Denied => Outcome::WouldDeny,
        // Reported where the backend is known.
        Outcome::Deferred => Outcome::Deferred,
        _ => {
            policy_lookup.policy = endpoint.egress;
            outcome
        }
    }
}

/// What a policy says of a connection that its pod opens.
///
/// Asked by way of [`Tables::by_egress`].
#[inline(always)]
pub fn by_egress<T: Tables>(
    tuple: &Tuple,
    endpoint: &Endpoint,
    policy_lookup: &mut PolicyLookup,
    tables: &T,
) -> Outcome {
    // Two booleans: a number that is not there when the address has no owner would be kept all the same, and
    // the verifier refuses to see it stored.
    let (to_node, to_itself) = match tables.listed_owner(&tuple.destination) {
        Some(owner) => (owner == NODE, owner == policy_lookup.ifindex),
        None => (false, false),
    };
    policy_lookup.is_to_node = to_node;
    if to_itself {
        return Outcome::OwnAddress;
    }
    let frontend = frontend(tuple, to_node, endpoint, tables);
    // What the node has itself and does not translate is delivered to it, where no hook sees it: that is
    // asked first.
    let is_certain = !to_node || frontend.is_unspecified();
    if is_certain && let Some(verdict) = service(tuple, frontend, endpoint, policy_lookup, tables) {
        return by_verdict(verdict);
    }
    let (table_set, policy) = (endpoint.table_set, policy_lookup.policy);
    let ports = [tuple.source_port, tuple.destination_port];
    let (identity, class) = classify(tables, table_set, &tuple.destination, tuple.protocol, ports);
    (policy_lookup.identity, policy_lookup.class) = (identity, class);
    // Read again: had it to be remembered, the verifier would walk over all of this twice.
    let to_node = forget(&policy_lookup.is_to_node);
    // Whether a set bit means deny, not allow.
    let is_reversed = to_node && !policy.covers_own_node();
    let key = match is_reversed {
        true => RowKey::of_own_node(policy, identity, class),
        false => RowKey::new(policy, identity, class),
    };
    let has_bit = tables.row(table_set, &key).is_some_and(|row| row.has(class));
    match (has_bit != is_reversed, to_node) {
        (false, _) => Outcome::Denied,
        (true, false) => Outcome::Allowed,
        (true, true) => match service(tuple, tuple.destination, endpoint, policy_lookup, tables) {
            Some(verdict) => by_verdict(verdict),
            None => Outcome::OwnNode,
        },
    }
}

/// The address under which a service may stand in the table: a port of the node's own addresses may be a node
/// port, which stands under the unspecified address.
#[inline(always)]
fn frontend<T: Tables>(tuple: &Tuple, to_node: bool, endpoint: &Endpoint, tables: &T) -> Address {
    let Ok(protocol) = Protocol::try_from(tuple.protocol) else { return tuple.destination };
    let exact = ServiceKey::new(tuple.destination, protocol, tuple.destination_port);
    if to_node && tables.service(endpoint.table_set, &exact).is_none() {
        tuple.destination.unspecified()
    } else {
        tuple.destination
    }
}

#[inline(always)]
const fn by_verdict(verdict: ServiceVerdict) -> Outcome {
    match verdict {
        ServiceVerdict::Allowed => Outcome::Allowed,
        ServiceVerdict::Deferred => Outcome::Deferred,
        ServiceVerdict::Denied => Outcome::Denied,
    }
}

/// The verdict on a service's address and port, for which the node will choose a backend only later.
#[inline(always)]
fn service<T: Tables>(
    tuple: &Tuple,
    address: Address,
    endpoint: &Endpoint,
    policy_lookup: &mut PolicyLookup,
    tables: &T,
) -> Option<ServiceVerdict> {
    let protocol = Protocol::try_from(tuple.protocol).ok()?;
    // One key, and one only: the stack has no room for two.
    let mut key = ServiceKey::new(address, protocol, tuple.destination_port);
    let mut service = tables.service(endpoint.table_set, &key);
    // A node port that is none is perhaps the node's: what its own row says comes first.
    if service.is_none()
        && endpoint.has_filter()
        && !address.is_unspecified()
        && tables.is_filtered(FilteredAs::Service, &tuple.destination)
    {
        key = ServiceKey::FILTERED;
        service = tables.service(endpoint.table_set, &key);
    }
    let service = service?;
    (policy_lookup.identity, policy_lookup.class) = (IdentityId(service.0), PolicyLookup::SERVICE);
    let row = tables.row(endpoint.table_set, &RowKey::of_service(policy_lookup.policy, service));
    Some(ServiceVerdict::of(row.unwrap_or_default()))
}
