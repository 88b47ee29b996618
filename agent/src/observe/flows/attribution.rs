//! From an event to words: who talks to whom, and which policies and rules are behind the verdict.

use std::{net::IpAddr, sync::Arc};

use jiff::Timestamp;
use podgate_common::{Address, Direction, FlowEvent, Outcome, PolicyRole, RuleProtocol};
use podgate_core::{
    compiler::{ConnectionQuery, MatchCache, PolicyMatch, WorkLimit, name_text},
    model::{HostSubject, Name, Pod},
};

use super::{DecidingPolicy, DecisionEvent, NameRole, owners::AddressOwners};
use crate::{
    observe::names_of_address::{FoundNames, NamesOfAddress},
    snapshot::Context,
};

/// Finds out what events mean, and keeps what it has found out.
#[derive(Debug)]
pub(super) struct Attributor {
    owners: AddressOwners,
    matches: MatchCache,
    names: NamesOfAddress,
    /// What may still be spent.
    pub(super) work: WorkLimit,
}

impl Attributor {
    pub(super) fn new(work: WorkLimit, names: NamesOfAddress) -> Self {
        Self { owners: AddressOwners::default(), matches: MatchCache::default(), names, work }
    }

    /// Out: what a decision was, by the first of the contexts that accounts for it; `None` when the programs
    /// write no such event, or when there is no work left to find out.
    pub(super) fn attribute(
        &mut self,
        event: &FlowEvent,
        time: Timestamp,
        node: &Name,
        contexts: &[&Context],
    ) -> Option<DecisionEvent> {
        let direction = Direction::try_from(event.direction).ok()?;
        let outcome = Outcome::try_from(event.outcome).ok()?;
        let mut found: Option<Attribution<'_>> = None;
        for context in contexts {
            let attribution = self.evaluate(event, direction, outcome, context)?;
            if attribution.certain {
                found = Some(attribution);
                break;
            }
            found.get_or_insert(attribution);
        }
        let Attribution { context, pod, matches, names, certain } = found?;

        let (of, place) =
            RuleProtocol::of_packet(event.protocol.into(), event.source_port, event.destination_port);
        let has_ports = of.with_ports().is_some();
        let (own_source, own_destination) = match direction {
            Direction::Egress => (pod, None),
            Direction::Ingress => (None, pod),
        };
        let cluster = context.policy_snapshot.cluster();
        let port = |port| has_ports.then_some(port);
        let is_icmp = matches!(of, RuleProtocol::Icmp | RuleProtocol::IcmpV6);
        let is_read = (event.source_port, event.destination_port) != (0, 0);
        let source = self.owners.end(cluster, known(event.source), port(event.source_port), own_source);
        let destination =
            self.owners.end(cluster, known(event.destination), port(event.destination_port), own_destination);
        // Who leads to a pod, a service or a node needs no name.
        let is_known = destination.owner.is_some();
        let names = names.filter(|role| !(is_known && matches!(role, NameRole::Missing(_))));
        Some(DecisionEvent {
            time,
            node: node.clone(),
            direction,
            outcome,
            protocol: event.protocol,
            message: (is_icmp && is_read).then_some(place),
            source,
            destination,
            policies: behind(outcome, &matches),
            names,
            certain,
            packets: u64::from(event.packets),
            revision: event.revision,
        })
    }

    /// What the tables of a context say; `None`: there is no work left.
    fn evaluate<'a>(
        &mut self,
        event: &FlowEvent,
        direction: Direction,
        outcome: Outcome,
        context: &'a Context,
    ) -> Option<Attribution<'a>> {
        let pod = context.pods.get(&event.ifindex);
        let mut matches: Arc<[PolicyMatch]> = [].into();
        let mut role = None;
        if let (Some(pod), true) = (pod, outcome.is_by_policy()) {
            let peer = IpAddr::from(match direction {
                Direction::Egress => event.destination,
                Direction::Ingress => event.source,
            });
            let (protocol, port) =
                RuleProtocol::of_packet(event.protocol.into(), event.source_port, event.destination_port);
            let is_service = direction == Direction::Egress
                && outcome != Outcome::DeniedBackend
                && context.policy_snapshot.is_service(peer, protocol, port);
            let mut met = ConnectionQuery { pod, direction, peer, protocol, port, is_service, names: &[] };
            matches = context.policy_snapshot.matches(&met, &mut self.matches, &mut self.work)?;
            // Names are asked about what is denied without them.
            let is_asked = match outcome.policies() {
                PolicyRole::Allow => !agrees(outcome, pod, &matches),
                PolicyRole::Deny => true,
                PolicyRole::WouldDeny | PolicyRole::NotIsolating | PolicyRole::NotAsked => false,
            };
            let FoundNames { names, has_live, missing } = match is_asked {
                true => self.names.find(context, event.ifindex, direction, peer),
                false => FoundNames::default(),
            };
            if outcome.policies() == PolicyRole::Deny {
                role = missing.map(NameRole::Missing);
            }
            if !names.is_empty() {
                met.names = &names;
                let by_names = context.policy_snapshot.matches(&met, &mut self.matches, &mut self.work)?;
                let texts = || names.iter().map(name_text).collect();
                match (outcome.passes(), agrees(Outcome::Allowed, pod, &by_names)) {
                    (true, true) => (matches, role) = (by_names, Some(NameRole::Allowed(texts()))),
                    // Learnt since it was denied.
                    (false, true) if has_live => {}
                    (false, true) => role = Some(NameRole::Expired(texts())),
                    (_, false) => {}
                }
            }
        }
        let agrees = pod.is_some_and(|pod| agrees(outcome, pod, &matches));
        let certain = !outcome.is_by_policy() || agrees;
        Some(Attribution { context, pod, matches, names: role, certain })
    }
}

struct Attribution<'a> {
    context: &'a Context,
    pod: Option<&'a Arc<Pod>>,
    matches: Arc<[PolicyMatch]>,
    names: Option<NameRole>,
    certain: bool,
}

/// Whether the policies that were evaluated account for an outcome at a pod or a host endpoint.
fn agrees(outcome: Outcome, pod: &Pod, matches: &[PolicyMatch]) -> bool {
    let enforced = || matches.iter().filter(|matches| !matches.audit);
    let has_matched = enforced().any(|matches| !matches.matched.is_empty());
    let is_closed = pod.host.as_deref().is_some_and(HostSubject::denies_undecided);
    let isolates = is_closed || enforced().any(|matches| matches.isolates);
    match outcome.policies() {
        PolicyRole::Deny => isolates && !enforced().any(is_open) || has_matched && !isolates,
        PolicyRole::Allow => has_matched || !isolates,
        PolicyRole::NotIsolating => !isolates,
        PolicyRole::WouldDeny => matches.iter().any(|matches| matches.audit),
        PolicyRole::NotAsked => true,
    }
}

/// A policy that isolates, with a rule that matches.
fn is_open(matches: &PolicyMatch) -> bool {
    matches.isolates && matches.allows
}

/// The policies to name.
fn behind(outcome: Outcome, matches: &[PolicyMatch]) -> Vec<DecidingPolicy> {
    let is_denying = |matches: &PolicyMatch| matches.denies;
    let is_named = |matches: &&PolicyMatch| match outcome.policies() {
        PolicyRole::WouldDeny => matches.audit && is_denying(matches),
        PolicyRole::Deny => !matches.audit && is_denying(matches),
        PolicyRole::Allow | PolicyRole::NotIsolating | PolicyRole::NotAsked => {
            !matches.audit && !matches.matched.is_empty()
        }
    };
    let named = matches.iter().filter(is_named);
    named
        .map(|matches| DecidingPolicy {
            policy: matches.policy.clone(),
            rules: matches.matched.iter().copied().collect(),
        })
        .collect()
}

fn known(address: Address) -> Option<IpAddr> {
    (!address.is_unspecified()).then(|| address.into())
}
