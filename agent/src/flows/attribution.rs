//! From an event to words: who talks to whom, and which policies and rules are behind the verdict.

use std::{net::IpAddr, sync::Arc};

use jiff::Timestamp;
use podgate_common::{Address, Direction, FlowEvent, Outcome, Protocol};

use super::{Context, owners::Owners};
use crate::{
    api::{Flow, FlowPolicy, FlowVerdict, protocol_name},
    compiler::{Asked, Met, PolicyName},
    model::Pod,
};

/// Out: what a decision was; `None` when the event is none that the programs write.
pub(super) fn attribute(
    event: &FlowEvent,
    time: Timestamp,
    node: &str,
    contexts: &[&Context],
    owners: &mut Owners,
) -> Option<Flow> {
    let direction = Direction::try_from(event.direction).ok()?;
    let outcome = Outcome::try_from(event.outcome).ok()?;
    let judged = contexts.iter().map(|context| judge(event, direction, outcome, context));
    let judged: Vec<Judged<'_>> = judged.collect();
    // Mostly the first.
    let place = judged.iter().position(|judged| judged.certain);
    let Judged { context, pod, asked, certain } = judged.into_iter().nth(place.unwrap_or(0))?;

    let has_ports = Protocol::try_from(u32::from(event.protocol)).is_ok();
    let port = |port| has_ports.then_some(port);
    let (own_source, own_destination) = match direction {
        Direction::Egress => (pod, None),
        Direction::Ingress => (None, pod),
    };
    let cluster = context.judgement.cluster();
    let source = owners.end(cluster, known(event.source), port(event.source_port), own_source);
    let destination =
        owners.end(cluster, known(event.destination), port(event.destination_port), own_destination);
    Some(Flow {
        time: format!("{time:.3}"),
        node: node.to_owned(),
        direction,
        verdict: FlowVerdict::of(outcome),
        reason: outcome,
        protocol: protocol_name(event.protocol),
        source,
        destination,
        policies: behind(outcome, &asked),
        certain,
        packets: u64::from(event.packets),
        epoch: event.epoch,
    })
}

struct Judged<'a> {
    context: &'a Context,
    pod: Option<&'a Arc<Pod>>,
    asked: Vec<Asked>,
    certain: bool,
}

/// What the tables of a context say.
fn judge<'a>(event: &FlowEvent, direction: Direction, outcome: Outcome, context: &'a Context) -> Judged<'a> {
    let pod = context.pods.get(&event.ifindex);
    let mut asked = Vec::new();
    if let (Some(pod), true) = (pod, is_by_policy(outcome)) {
        let peer = IpAddr::from(match direction {
            Direction::Egress => event.destination,
            Direction::Ingress => event.source,
        });
        let protocol = Protocol::try_from(u32::from(event.protocol)).ok();
        let port = event.destination_port;
        let is_service = direction == Direction::Egress
            && outcome != Outcome::DeniedBackend
            && context.judgement.is_service(peer, protocol, port);
        asked = context.judgement.asked(&Met { pod, direction, peer, protocol, port, is_service });
    }
    let certain = !is_by_policy(outcome) || pod.is_some() && agrees(outcome, &asked);
    Judged { context, pod, asked, certain }
}

/// Whether policies were asked.
const fn is_by_policy(outcome: Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Allowed
            | Outcome::Free
            | Outcome::Deferred
            | Outcome::WouldDeny
            | Outcome::Denied
            | Outcome::DeniedBackend
    )
}

/// Whether policies that were asked account for an outcome.
fn agrees(outcome: Outcome, asked: &[Asked]) -> bool {
    let enforced = || asked.iter().filter(|asked| !asked.audit);
    let has_matched = enforced().any(|asked| !asked.matched.is_empty());
    let isolates = enforced().any(|asked| matches!(asked.policy, PolicyName::Namespaced(_)));
    match outcome {
        Outcome::Denied | Outcome::DeniedBackend => {
            isolates && !enforced().any(is_open) || has_matched && !isolates
        }
        Outcome::Allowed | Outcome::Deferred => has_matched || !isolates,
        Outcome::Free => !isolates,
        Outcome::WouldDeny => asked.iter().any(|asked| asked.audit),
        _ => true,
    }
}

/// A NetworkPolicy with a rule that matches.
fn is_open(asked: &Asked) -> bool {
    matches!(asked.policy, PolicyName::Namespaced(_)) && !asked.matched.is_empty()
}

/// The policies to name.
fn behind(outcome: Outcome, asked: &[Asked]) -> Vec<FlowPolicy> {
    let is_cluster = |asked: &Asked| matches!(asked.policy, PolicyName::Cluster(_));
    let is_named = |asked: &&Asked| match outcome {
        Outcome::WouldDeny => asked.audit && (is_cluster(asked) || asked.matched.is_empty()),
        Outcome::Denied | Outcome::DeniedBackend => {
            !asked.audit && (is_cluster(asked) || asked.matched.is_empty())
        }
        _ => !asked.audit && !asked.matched.is_empty(),
    };
    let named = asked.iter().filter(is_named);
    named
        .map(|asked| FlowPolicy {
            policy: asked.policy.to_string(),
            rules: asked.matched.iter().copied().collect(),
        })
        .collect()
}

fn known(address: Address) -> Option<IpAddr> {
    (!address.is_unspecified()).then(|| address.into())
}
