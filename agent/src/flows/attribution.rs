//! From an event to words: who talks to whom, and which policies and rules are behind the verdict.

use std::{net::IpAddr, sync::Arc};

use jiff::Timestamp;
use podgate_common::{Address, Direction, FlowEvent, Outcome, Protocol};
use podgate_core::{
    compiler::{ConnectionQuery, PolicyMatch, PolicyName, WorkLimit},
    model::Pod,
};

use super::{Context, owners::AddressOwners};
use crate::api::{FlowPolicy, FlowRecord, FlowVerdict, protocol_name};

/// Out: what a decision was; `None` when the event is none that the programs write, or when there is no work
/// left to find out.
pub(super) fn attribute(
    event: &FlowEvent,
    time: Timestamp,
    node: &str,
    contexts: &[&Context],
    owners: &mut AddressOwners,
    work: &mut WorkLimit,
) -> Option<FlowRecord> {
    let direction = Direction::try_from(event.direction).ok()?;
    let outcome = Outcome::try_from(event.outcome).ok()?;
    let attributions = contexts.iter().map(|context| evaluate(event, direction, outcome, context, work));
    let attributions: Vec<Attribution<'_>> = attributions.collect::<Option<_>>()?;
    // Mostly the first.
    let place = attributions.iter().position(|attributions| attributions.certain);
    let Attribution { context, pod, matches, certain } = attributions.into_iter().nth(place.unwrap_or(0))?;

    let has_ports = Protocol::try_from(u32::from(event.protocol)).is_ok();
    let port = |port| has_ports.then_some(port);
    let (own_source, own_destination) = match direction {
        Direction::Egress => (pod, None),
        Direction::Ingress => (None, pod),
    };
    let cluster = context.policy_snapshot.cluster();
    let source = owners.end(cluster, known(event.source), port(event.source_port), own_source);
    let destination =
        owners.end(cluster, known(event.destination), port(event.destination_port), own_destination);
    Some(FlowRecord {
        time: format!("{time:.3}"),
        node: node.to_owned(),
        direction,
        verdict: FlowVerdict::of(outcome),
        reason: outcome,
        protocol: protocol_name(event.protocol),
        source,
        destination,
        policies: behind(outcome, &matches),
        certain,
        packets: u64::from(event.packets),
        revision: event.revision,
    })
}

struct Attribution<'a> {
    context: &'a Context,
    pod: Option<&'a Arc<Pod>>,
    matches: Arc<[PolicyMatch]>,
    certain: bool,
}

/// What the tables of a context say; `None`: there is no work left.
fn evaluate<'a>(
    event: &FlowEvent,
    direction: Direction,
    outcome: Outcome,
    context: &'a Context,
    work: &mut WorkLimit,
) -> Option<Attribution<'a>> {
    let pod = context.pods.get(&event.ifindex);
    let mut matches: Arc<[PolicyMatch]> = [].into();
    if let (Some(pod), true) = (pod, is_by_policy(outcome)) {
        let peer = IpAddr::from(match direction {
            Direction::Egress => event.destination,
            Direction::Ingress => event.source,
        });
        let protocol = Protocol::try_from(u32::from(event.protocol)).ok();
        let port = event.destination_port;
        let is_service = direction == Direction::Egress
            && outcome != Outcome::DeniedBackend
            && context.policy_snapshot.is_service(peer, protocol, port);
        let met = ConnectionQuery { pod, direction, peer, protocol, port, is_service };
        matches = context.policy_snapshot.matches(&met, work)?;
    }
    let certain = !is_by_policy(outcome) || pod.is_some() && agrees(outcome, &matches);
    Some(Attribution { context, pod, matches, certain })
}

/// Whether policies were asked.
const fn is_by_policy(outcome: Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Allowed
            | Outcome::NotIsolated
            | Outcome::Deferred
            | Outcome::WouldDeny
            | Outcome::Denied
            | Outcome::DeniedBackend
    )
}

/// Whether policies that were asked account for an outcome.
fn agrees(outcome: Outcome, matches: &[PolicyMatch]) -> bool {
    let enforced = || matches.iter().filter(|matches| !matches.audit);
    let has_matched = enforced().any(|matches| !matches.matched.is_empty());
    let isolates = enforced().any(|matches| matches!(matches.policy, PolicyName::Namespaced(_)));
    match outcome {
        Outcome::Denied | Outcome::DeniedBackend => {
            isolates && !enforced().any(is_open) || has_matched && !isolates
        }
        Outcome::Allowed | Outcome::Deferred => has_matched || !isolates,
        Outcome::NotIsolated => !isolates,
        Outcome::WouldDeny => matches.iter().any(|matches| matches.audit),
        _ => true,
    }
}

/// A NetworkPolicy with a rule that matches.
fn is_open(matches: &PolicyMatch) -> bool {
    matches!(matches.policy, PolicyName::Namespaced(_)) && !matches.matched.is_empty()
}

/// The policies to name.
fn behind(outcome: Outcome, matches: &[PolicyMatch]) -> Vec<FlowPolicy> {
    let is_cluster = |matches: &PolicyMatch| matches!(matches.policy, PolicyName::Cluster(_));
    let is_named = |matches: &&PolicyMatch| match outcome {
        Outcome::WouldDeny => matches.audit && (is_cluster(matches) || matches.matched.is_empty()),
        Outcome::Denied | Outcome::DeniedBackend => {
            !matches.audit && (is_cluster(matches) || matches.matched.is_empty())
        }
        _ => !matches.audit && !matches.matched.is_empty(),
    };
    let named = matches.iter().filter(is_named);
    named
        .map(|matches| FlowPolicy {
            policy: matches.policy.to_string(),
            rules: matches.matched.iter().copied().collect(),
        })
        .collect()
}

fn known(address: Address) -> Option<IpAddr> {
    (!address.is_unspecified()).then(|| address.into())
}
