//! Pods that are open because nothing says otherwise: namespaces without a default deny, and rules of a
//! direction that their policy does not isolate.
//!
//! A default deny is a policy, not in audit mode, that is for every pod of the namespace, also for those to
//! come, and does not allow everything; or a cluster-wide one that denies all pods.

use std::collections::{BTreeMap, HashSet};

use podgate_common::Direction;

use super::{
    LintFinding, LintName,
    survey::{Survey, SurveyedPolicy, Workload, count_of_pods},
};
use crate::{
    model::{Action, Labels, Name, Peer, Peers, PolicyRef, Ports, Rule, Selector},
    policy_walk::{OrderedPolicies, TierEnd},
};

pub(super) fn find(survey: &Survey<'_>, findings: &mut Vec<LintFinding>) {
    for direction in Direction::ALL {
        no_default_deny(survey, direction, findings);
    }
    rules_outside_policy_types(survey, findings);
}

fn no_default_deny(survey: &Survey<'_>, direction: Direction, findings: &mut Vec<LintFinding>) {
    let isolating = survey.policies.iter().filter(|policy| isolates(policy, direction));
    let of_calico = isolated_by_calico(survey, direction);
    let isolated: HashSet<usize> =
        isolating.flat_map(|policy| policy.selected.iter().copied()).chain(of_calico.clone()).collect();
    // Whether a policy of Calico's is for pods to come, too, is not looked at.
    let left: HashSet<&Name> = (0..survey.workloads.len())
        .filter(|place| !of_calico.contains(place))
        .map(|place| &survey.workloads[place].pod.name.namespace)
        .collect();
    // Pods, and those of them that are open.
    let mut counts: BTreeMap<&Name, (usize, usize)> = BTreeMap::new();
    for (place, workload) in survey.workloads.iter().enumerate() {
        let (all, open) = counts.entry(&workload.pod.name.namespace).or_default();
        *all += workload.pods;
        *open += if isolated.contains(&place) { 0 } else { workload.pods };
    }
    let denied: HashSet<&Name> = survey
        .policies
        .iter()
        .filter(|policy| isolates(policy, direction) && is_default_deny(policy, direction))
        .filter_map(|policy| policy.policy.namespace())
        .collect();
    let of_cluster: Vec<&SurveyedPolicy<'_>> =
        survey.policies.iter().filter(|policy| denies_all_pods(policy, direction)).collect();
    let name = match direction {
        Direction::Ingress => LintName::NoDefaultDenyIngress,
        Direction::Egress => LintName::NoDefaultDenyEgress,
    };
    for (namespace, (all, open)) in counts {
        let labels = &survey.namespaces[namespace];
        if denied.contains(namespace)
            || !left.contains(namespace)
            || of_cluster.iter().any(|policy| is_for(policy, labels))
        {
            continue;
        }
        let message = format!(
            "no policy isolates every pod of the namespace for {}; open now: {open} of {}",
            direction.name(),
            count_of_pods(all)
        );
        findings.push(LintFinding {
            object: format!("Namespace {namespace}"),
            field: String::new(),
            name,
            message,
        });
    }
}

/// The workloads that a tier with a policy of Calico's denies what no rule matches, by their places.
fn isolated_by_calico(survey: &Survey<'_>, direction: Direction) -> HashSet<usize> {
    if survey.cluster.calico.is_empty() {
        return HashSet::new();
    }
    let policies = OrderedPolicies::of(survey.cluster);
    let is_isolated = |workload: &Workload<'_>| {
        let walk = policies.for_pod(workload.pod, direction).enforced();
        walk.deciding().iter().any(|tier| tier.end() == TierEnd::Deny)
    };
    let workloads = survey.workloads.iter().enumerate();
    workloads.filter(|(_, workload)| is_isolated(workload)).map(|(place, _)| place).collect()
}

/// A NetworkPolicy that is enforced and isolates the pods that it selects.
fn isolates(policy: &SurveyedPolicy<'_>, direction: Direction) -> bool {
    match policy.policy {
        PolicyRef::Namespaced(namespaced) => !policy.audit && namespaced.rules(direction).is_some(),
        PolicyRef::Cluster(_) | PolicyRef::Calico(_) => false,
    }
}

fn is_default_deny(policy: &SurveyedPolicy<'_>, direction: Direction) -> bool {
    let allows_all = |rule: &&Rule| rule.peers == Peers::Any && rule.ports == Ports::Any;
    match policy.policy {
        PolicyRef::Namespaced(namespaced) => {
            namespaced.subject.covers(&Selector::EVERYTHING)
                && !policy.rules(direction).iter().any(allows_all)
        }
        PolicyRef::Cluster(_) | PolicyRef::Calico(_) => false,
    }
}

fn denies_all_pods(policy: &SurveyedPolicy<'_>, direction: Direction) -> bool {
    let PolicyRef::Cluster(cluster_wide) = policy.policy else { return false };
    let is_every_pod = |peer: &Peer| match peer {
        Peer::Pods { namespaces: Some(namespaces), pods } => {
            [namespaces, pods].into_iter().all(|selector| selector.covers(&Selector::EVERYTHING))
        }
        Peer::Pods { namespaces: None, .. } | Peer::Block(_) | Peer::Nodes(_) => false,
        Peer::Name(_) | Peer::Nothing => false,
    };
    !policy.audit
        && cluster_wide.subject.pods.covers(&Selector::EVERYTHING)
        && cluster_wide.rules(direction).iter().any(|rule| {
            let is_of_all = match &rule.matches.peers {
                Peers::Any => true,
                Peers::Listed(peers) => peers.iter().any(is_every_pod),
                Peers::Calico(_) => false,
            };
            rule.action == Action::Deny && rule.matches.ports == Ports::Any && is_of_all
        })
}

/// Whether a cluster-wide policy is for a namespace with these labels.
fn is_for(policy: &SurveyedPolicy<'_>, labels: &Labels) -> bool {
    match policy.policy {
        PolicyRef::Cluster(policy) => policy.subject.namespaces.matches(labels),
        PolicyRef::Namespaced(_) | PolicyRef::Calico(_) => false,
    }
}

fn rules_outside_policy_types(survey: &Survey<'_>, findings: &mut Vec<LintFinding>) {
    for (policy, directions) in &survey.notes.left_out {
        for direction in directions {
            let word = match direction {
                Direction::Ingress => "Ingress",
                Direction::Egress => "Egress",
            };
            findings.push(LintFinding {
                object: format!("NetworkPolicy {policy}"),
                field: format!("spec.{}", direction.name()),
                name: LintName::RulesOutsidePolicyTypes,
                message: format!("it has no effect, because policyTypes does not name {word}"),
            });
        }
    }
}
