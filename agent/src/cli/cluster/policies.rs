//! `podgate cluster policies`: what the policies of all nodes' pods have done, and where nodes differ.
//!
//! In: each agent's report. Out: for each policy the sums, and what one node says otherwise than another.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
};

use clap::Args;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Api;
use serde::Serialize;

use super::{
    super::{policies::ago, table::TextTable},
    Session,
};
use crate::{
    api::{Hits, Mode, PolicyReport, PolicyStatus, RuleHits},
    fleet::{self, Answer, names},
};

/// Show the policies of all nodes' pods: hits of each rule, denied packets, and where nodes differ
#[derive(Debug, Args)]
#[command(after_help = "\
NODES counts the nodes with pods that the policy selects; PODS and HITS are sums. Cluster-wide policies are shown with \
every namespace. A line below the table names each policy that nodes enforce in different ways: another mode, number \
of rules or version. While a change spreads that is normal; if it lasts, look at the agents of the nodes it names.

Example:
  kubectl podgate policies -n production
  kubectl podgate policies production/api -o json")]
pub(super) struct ClusterPoliciesOptions {
    /// Only this policy; for a cluster-wide policy, its name
    #[arg(value_name = "NAMESPACE/NAME")]
    policy: Option<String>,
}

#[derive(Debug, Serialize)]
struct ClusterPolicies {
    items: Vec<PolicySum>,
}

/// One policy on all nodes.
#[derive(Debug, Default, Serialize)]
pub(super) struct PolicySum {
    pub(super) policy: String,
    /// Nodes with pods that it selects.
    selecting_nodes: usize,
    pods: usize,
    mode: Mode,
    ingress: Option<Hits>,
    egress: Option<Hits>,
    /// What nodes say otherwise than others, as in `enforce, 2 ingress rules`, with their names; empty when
    /// all say the same.
    pub(super) differences: BTreeMap<String, Vec<String>>,
}

impl ClusterPoliciesOptions {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        let labelled = match &session.selector {
            Some(selector) => {
                let policies: Api<NetworkPolicy> = session.api();
                Some(fleet::labelled(&policies, selector).await?)
            }
            None => None,
        };
        let wanted = self.policy;
        let is_meant = |policy: &str| match &wanted {
            Some(wanted) => {
                policy == wanted || policy.split_once(' ').is_some_and(|(_, bare)| bare == wanted)
            }
            None => session.is_meant(policy, labelled.as_ref()),
        };
        let fleet = session.find(&session.agents).await?;
        let mut survey = session
            .ask(&fleet, &["policies", "-o", "json"], |report| {
                let PolicyReport { mut policies, .. } = serde_json::from_value(report)?;
                policies.retain(|policy| is_meant(&policy.policy));
                Ok(policies)
            })
            .await;
        let items = sums(survey.take_answers());
        if items.is_empty() {
            match &wanted {
                Some(policy) => {
                    session.note(format_args!("no policy {policy} selects a pod of a node that answered"));
                }
                None => session.note(format_args!("no policy{} selects a pod", session.scope())),
            }
        }
        session.conclude(&survey, ClusterPolicies { items }, text)
    }
}

pub(super) fn sums(answers: impl Iterator<Item = Answer<Vec<PolicyStatus>>>) -> Vec<PolicySum> {
    let mut sums: BTreeMap<String, PolicySum> = BTreeMap::new();
    for Answer { node, said, .. } in answers {
        for PolicyStatus { policy, mode, object, pods, ingress, egress } in said {
            let mut form = form(mode, ingress.as_ref(), egress.as_ref());
            if let Some(version) = object.and_then(|object| object.resource_version) {
                form += &format!(", version {version}");
            }
            let sum = sums.entry(policy.clone()).or_default();
            sum.policy = policy;
            sum.selecting_nodes += 1;
            sum.pods += pods.len();
            // Something is enforced wherever one node enforces it.
            sum.mode = if sum.selecting_nodes == 1 { mode } else { sum.mode.min(mode) };
            add(&mut sum.ingress, ingress);
            add(&mut sum.egress, egress);
            sum.differences.entry(form).or_default().push(node.clone());
        }
    }
    for sum in sums.values_mut() {
        if sum.differences.len() < 2 {
            sum.differences.clear();
        }
    }
    sums.into_values().collect()
}

/// What should be the same on all nodes.
fn form(mode: Mode, ingress: Option<&Hits>, egress: Option<&Hits>) -> String {
    let mut form = match mode {
        Mode::Enforce => "enforce",
        Mode::Audit => "audit",
    }
    .to_owned();
    for (direction, hits) in [("ingress", ingress), ("egress", egress)] {
        if let Some(Hits { rules, .. }) = hits {
            form += &format!(", {} {direction} rules", rules.len());
        }
    }
    form
}

fn add(sum: &mut Option<Hits>, hits: Option<Hits>) {
    let Some(Hits { rules, denied, would_deny }) = hits else { return };
    let sum = sum.get_or_insert_default();
    sum.denied = sum.denied.saturating_add(denied);
    sum.would_deny = sum.would_deny.saturating_add(would_deny);
    for RuleHits { rule, hits, idle_seconds } in rules {
        match sum.rules.iter_mut().find(|known| known.rule == rule) {
            Some(known) => {
                known.hits = known.hits.saturating_add(hits);
                known.idle_seconds = known.idle_seconds.into_iter().chain(idle_seconds).min();
            }
            None => sum.rules.push(RuleHits { rule, hits, idle_seconds }),
        }
    }
    sum.rules.sort_by_key(|rule| rule.rule);
}

fn text(ClusterPolicies { items }: &ClusterPolicies, is_wide: bool) -> String {
    let mut header = vec!["POLICY", "MODE", "NODES", "PODS", "DIRECTION", "RULE", "HITS"];
    header.extend(is_wide.then_some("LAST"));
    let mut table = TextTable::with_header(&header);
    let mut notes = String::new();
    for PolicySum { policy, selecting_nodes, pods, mode, ingress, egress, differences } in items {
        let (verb, word) = match mode {
            Mode::Enforce => ("denied", "enforce"),
            Mode::Audit => ("would deny", "audit"),
        };
        let modes: BTreeSet<&str> = differences.keys().filter_map(|form| form.split(',').next()).collect();
        let word = if modes.len() > 1 { "differs" } else { word };
        for (direction, hits) in [("ingress", ingress), ("egress", egress)] {
            let Some(Hits { rules, denied, would_deny }) = hits else { continue };
            let mut row = |rule: String, hits: u64, last: Option<u64>| {
                let mut row = vec![
                    policy.clone(),
                    word.into(),
                    selecting_nodes.to_string(),
                    pods.to_string(),
                    direction.into(),
                    rule,
                    hits.to_string(),
                ];
                let last = || last.map_or_else(|| "-".into(), |idle| format!("{} ago", ago(idle)));
                row.extend(is_wide.then(last));
                table.row(row);
            };
            for RuleHits { rule, hits, idle_seconds } in rules {
                row(rule.to_string(), *hits, *idle_seconds);
            }
            if *denied + *would_deny > 0 || rules.is_empty() {
                row(verb.into(), denied + would_deny, None);
            }
        }
        for (form, nodes) in differences {
            notes += &format!("{policy} differs: {form} on {}\n", names(nodes));
        }
    }
    let gap = if notes.is_empty() { "" } else { "\n" };
    format!("{table}{gap}{notes}")
}
