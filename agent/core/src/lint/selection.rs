//! Policies and peers that select nothing.
//!
//! Out beside the findings: the selectors that match nothing, for the search for misspelt labels. A selector
//! that was not understood has been reported already.

use super::{
    LintFinding, LintName,
    survey::{Survey, SurveyedPolicy},
};
use crate::model::{Name, Peer, PolicyRef, Selector};

/// A selector that matches nothing of what it looks at.
pub(super) struct EmptySelector<'a> {
    pub(super) object: String,
    pub(super) field: String,
    pub(super) selector: &'a Selector,
    pub(super) among: SelectedFrom<'a>,
}

/// What a selector looks at.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum SelectedFrom<'a> {
    PodsIn(&'a Name),
    /// Of namespaces with such labels.
    PodsAcross(&'a Selector),
    Namespaces,
    Nodes,
}

pub(super) fn find<'a>(survey: &Survey<'a>, findings: &mut Vec<LintFinding>) -> Vec<EmptySelector<'a>> {
    let mut empty = Vec::new();
    for policy in &survey.policies {
        if policy.selected.is_empty() {
            subject(survey, policy, findings, &mut empty);
        }
        for (field, peer) in policy.peers() {
            self::peer(survey, policy, &field, peer, findings, &mut empty);
        }
    }
    empty
}

fn subject<'a>(
    survey: &Survey<'a>,
    policy: &SurveyedPolicy<'a>,
    findings: &mut Vec<LintFinding>,
    empty: &mut Vec<EmptySelector<'a>>,
) {
    let mut report = |field: &str, message: String, selector, among| {
        findings.push(policy.finding(field, LintName::PolicySelectsNoPod, message));
        empty.push(EmptySelector { object: policy.object(), field: field.into(), selector, among });
    };
    match policy.policy {
        PolicyRef::Namespaced(policy) if policy.subject != Selector::Nothing => {
            let namespace = &policy.name.namespace;
            let message = format!("the policy selects no pod of namespace {namespace}");
            report("spec.podSelector", message, &policy.subject, SelectedFrom::PodsIn(namespace));
        }
        PolicyRef::Cluster(policy) => {
            let (namespaces, pods) = (&policy.subject.namespaces, &policy.subject.pods);
            if *namespaces == Selector::Nothing || *pods == Selector::Nothing {
                return;
            }
            let (message, selector, among) = match selects_namespace(survey, namespaces) {
                false => ("the policy selects no namespace", namespaces, SelectedFrom::Namespaces),
                true => {
                    let among = SelectedFrom::PodsAcross(namespaces);
                    ("the policy selects no pod of the namespaces that it selects", pods, among)
                }
            };
            report("spec.subject", message.into(), selector, among);
        }
        PolicyRef::Namespaced(_) | PolicyRef::Calico(_) => {}
    }
}

fn peer<'a>(
    survey: &Survey<'a>,
    policy: &SurveyedPolicy<'a>,
    field: &str,
    peer: &'a Peer,
    findings: &mut Vec<LintFinding>,
    empty: &mut Vec<EmptySelector<'a>>,
) {
    let Some(atom) = policy.atom(peer) else { return };
    let is_namespaced = matches!(policy.policy, PolicyRef::Namespaced(_));
    // How a cluster-wide policy writes it differs between versions.
    let part = |name: &str| if is_namespaced { format!("{field}.{name}") } else { field.to_owned() };
    let (name, field, message, selector, among) = match peer {
        Peer::Pods { namespaces, pods } if survey.holders(&atom).is_empty() => {
            if [Some(pods), namespaces.as_ref()].contains(&Some(&Selector::Nothing)) {
                return;
            }
            let name = LintName::PeerMatchesNoPod;
            match (namespaces, policy.policy.namespace()) {
                (Some(namespaces), _) if !selects_namespace(survey, namespaces) => {
                    let message = "the peer matches no namespace".to_owned();
                    (name, part("namespaceSelector"), message, namespaces, SelectedFrom::Namespaces)
                }
                (Some(namespaces), _) => {
                    let message = "the peer matches no pod of the namespaces that it selects".to_owned();
                    let field =
                        if *pods == Selector::EVERYTHING { "namespaceSelector" } else { "podSelector" };
                    (name, part(field), message, pods, SelectedFrom::PodsAcross(namespaces))
                }
                (None, Some(namespace)) => {
                    let message = format!("the peer matches no pod of namespace {namespace}");
                    (name, part("podSelector"), message, pods, SelectedFrom::PodsIn(namespace))
                }
                (None, None) => return,
            }
        }
        Peer::Nodes(nodes) if *nodes != Selector::Nothing && !survey.is_of_node(&atom) => {
            if survey.cluster.nodes.is_empty() {
                return;
            }
            let message = "the peer matches no node".to_owned();
            (LintName::PeerMatchesNoNode, field.to_owned(), message, nodes, SelectedFrom::Nodes)
        }
        Peer::Pods { .. } | Peer::Nodes(_) | Peer::Block(_) | Peer::Name(_) | Peer::Nothing => return,
    };
    findings.push(policy.finding(&field, name, message));
    empty.push(EmptySelector { object: policy.object(), field, selector, among });
}

fn selects_namespace(survey: &Survey<'_>, namespaces: &Selector) -> bool {
    survey.namespaces.values().any(|labels| namespaces.matches(labels))
}

impl SelectedFrom<'_> {
    /// The things as a sentence names them.
    pub(super) const fn noun(self) -> &'static str {
        match self {
            Self::PodsIn(_) | Self::PodsAcross(_) => "pods",
            Self::Namespaces => "namespaces",
            Self::Nodes => "nodes",
        }
    }
}
