//! Calico's policies and the peers of their rules that select nothing, and labels that they misspell.
//!
//! A selector looks at pods of all namespaces, and in rules at network sets, too. A label is looked at where
//! it must be there for the selector to match anything. Those of service accounts are not: few have any.

use podgate_common::Direction;

use super::{
    LintFinding, LintName,
    labels::{KnownLabels, known_labels, misspelt},
    survey::{Survey, SurveyedPolicy},
};
use crate::model::{
    EndpointLabels, LabelExpression, LabelTest, Name, NetworkSet, Peers, PolicyRef, Requirement, label_keys,
};

pub(super) fn find(survey: &Survey<'_>, findings: &mut Vec<LintFinding>) {
    if survey.cluster.calico.is_empty() {
        return;
    }
    let known = KnownEndpoints::of(survey);
    for policy in &survey.policies {
        let PolicyRef::Calico(calico) = policy.policy else { continue };
        if policy.selected.is_empty() && calico.subject != LabelExpression::NOTHING {
            let message = match &calico.name.namespace {
                Some(namespace) => format!("the policy selects no pod of namespace {namespace}"),
                None => "the policy selects no pod".to_owned(),
            };
            let field =
                if calico.name.kind.is_of_kubernetes() { "spec.podSelector" } else { "spec.selector" };
            findings.push(policy.finding(field, LintName::PolicySelectsNoPod, message));
            known.find_misspelt(policy, field, &calico.subject, findings);
        }
        for direction in Direction::ALL {
            let end = match direction {
                Direction::Ingress => "source",
                Direction::Egress => "destination",
            };
            for (index, rule) in policy.rules(direction).into_iter().enumerate() {
                let Peers::Calico(ends) = &rule.peers else { continue };
                let Some(selector) = &ends.peer.selector else { continue };
                if *selector == LabelExpression::NOTHING || known.has(selector) {
                    continue;
                }
                let field = format!("{}.{end}", policy.rule_field(direction, index));
                let message = "the peer matches no pod and no network set";
                findings.push(policy.finding(&field, LintName::PeerMatchesNoPod, message));
                known.find_misspelt(policy, &field, selector, findings);
            }
        }
    }
}

/// What selectors look at.
struct KnownEndpoints<'s, 'a> {
    survey: &'s Survey<'a>,
    sets: Vec<&'a NetworkSet>,
    of_endpoints: KnownLabels<'s>,
    of_namespaces: KnownLabels<'s>,
}

impl<'s, 'a> KnownEndpoints<'s, 'a> {
    fn of(survey: &'s Survey<'a>) -> Self {
        let sets: Vec<&NetworkSet> = survey.cluster.calico.network_sets().collect();
        let pods = survey.workloads.iter().map(|workload| &workload.pod.labels);
        let of_endpoints = known_labels(pods.chain(sets.iter().map(|set| &set.labels)));
        Self { survey, of_endpoints, of_namespaces: known_labels(survey.namespaces.values()), sets }
    }

    /// Whether it matches a pod or a network set.
    fn has(&self, selector: &LabelExpression) -> bool {
        let Survey { cluster, workloads, namespaces, .. } = self.survey;
        let mut pods = workloads.iter().map(|workload| workload.pod);
        pods.any(|pod| selector.matches(&cluster.calico.labels_of(pod, &namespaces[&pod.name.namespace])))
            || self.sets.iter().any(|set| {
                let namespace = set.namespace.as_ref().and_then(|name| namespaces.get(name));
                selector.matches(&EndpointLabels::of_set(set, namespace))
            })
    }

    fn find_misspelt(
        &self,
        policy: &SurveyedPolicy<'_>,
        field: &str,
        selector: &LabelExpression,
        findings: &mut Vec<LintFinding>,
    ) {
        for (key, test) in needed(selector) {
            let (noun, key, known) = match key.strip_prefix(label_keys::NAMESPACE_PREFIX) {
                _ if key.starts_with(label_keys::ACCOUNT_PREFIX) || is_given(key) => continue,
                Some(key) => ("namespaces", Name::from(key), &self.of_namespaces),
                None => ("pods", key.clone(), &self.of_endpoints),
            };
            let requirement = match test {
                LabelTest::Exists => Requirement::Exists(key),
                LabelTest::In(values) => Requirement::In(key, values.clone()),
                LabelTest::NotIn(_)
                | LabelTest::Contains(_)
                | LabelTest::StartsWith(_)
                | LabelTest::EndsWith(_) => continue,
            };
            if let Some(difference) = misspelt(&requirement, known) {
                let message = format!("no {noun} have {difference}");
                findings.push(policy.finding(field, LintName::MisspeltLabel, message));
            }
        }
    }
}

/// Labels without which it matches nothing.
fn needed(selector: &LabelExpression) -> Vec<(&Name, &LabelTest)> {
    match selector {
        LabelExpression::Label(key, test) => vec![(key, test)],
        LabelExpression::All(parts) => parts.iter().flat_map(needed).collect(),
        LabelExpression::Any(_) | LabelExpression::Not(_) => Vec::new(),
    }
}

/// Labels that nothing is given by its author.
fn is_given(key: &str) -> bool {
    let names = [label_keys::NAMESPACE_PREFIX, label_keys::ACCOUNT_PREFIX];
    [label_keys::NAMESPACE, label_keys::ACCOUNT, label_keys::ORCHESTRATOR].contains(&key)
        || names.into_iter().any(|prefix| key.strip_prefix(prefix) == Some(label_keys::NAME))
}
