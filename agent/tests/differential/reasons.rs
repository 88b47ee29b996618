//! What `explain` names is what decides, on generated clusters: its verdicts are those of the specification
//! and of the matrix, a denial names the policies that isolate, and the rules that it names are the ones that
//! open.

use std::{collections::BTreeSet, sync::Arc};

use podgate_common::Direction;
use podgate_core::{
    explain::{DirectionResult, Explanation, Question, Unanswerable, Verdict, VerdictReason, explain},
    model::{Action, Cluster, ClusterPolicyName, NetworkPolicy, ObjectName, Rule},
};
use podgate_testkit::{
    generate::{Entries, cluster, ports},
    manifest::{Form, write},
    naive,
};
use proptest::{prelude::*, test_runner::TestCaseError};
use serde_json::Value;

use crate::{
    answers::{Layout, matrix_of, read},
    runner::check,
};

const CLUSTERS: u32 = 400;

type Sample = (Vec<Value>, Vec<&'static str>);

#[test]
fn explain_names_what_decides() {
    check(CLUSTERS, || (cluster(Entries::SomeInvalid), ports()), names_what_decides, describe);
}

fn names_what_decides((objects, ports): &Sample) -> Result<(), TestCaseError> {
    let picture = read(objects, Layout::File(Form::JsonList));
    let expected = naive::matrix(objects, ports);
    prop_assert_eq!(&matrix_of(&picture.cluster, ports), &expected);
    let pods: Vec<&str> =
        expected["pods"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for port in ports {
        for from in &pods {
            let row = expected["ports"][port][from].as_str().expect("the form of the matrix");
            for (to, expected) in pods.iter().zip(row.chars()) {
                let question = format!("{from} {to} {port}");
                match ask(&picture.cluster, from, to, port) {
                    Err(Unanswerable::NoSuchPort { .. }) => prop_assert_eq!(expected, '-', "{}", question),
                    Err(error) => prop_assert!(false, "{question}: {error}"),
                    Ok(answer) => {
                        let seen = if answer.verdict == Verdict::Allow { '.' } else { 'X' };
                        prop_assert_eq!(seen, expected, "{}", question);
                        has_reasons(&picture.cluster, &answer, &question)?;
                    }
                }
            }
        }
    }
    Ok(())
}

fn ask(cluster: &Cluster, from: &str, to: &str, port: &str) -> Result<Explanation, Unanswerable> {
    let end = |text: &str| text.parse().expect("a pod of the generator");
    let port = port.parse().expect("a port of the generator");
    explain(cluster, &Question { from: end(from), to: end(to), port })
}

fn has_reasons(cluster: &Cluster, answer: &Explanation, question: &str) -> Result<(), TestCaseError> {
    let sides = [(Direction::Egress, &answer.egress), (Direction::Ingress, &answer.ingress)];
    if answer.verdict == Verdict::Deny && !answer.pairs.is_empty() {
        let named = sides.iter().any(|(_, side)| match side.reason {
            VerdictReason::NoRuleMatches => !side.policies.is_empty(),
            VerdictReason::ClusterPolicyDenies => decided(side, Action::Deny),
            _ => false,
        });
        prop_assert!(named, "{question} is denied by nothing that is named: {answer:?}");
    }
    for (direction, side) in sides {
        let opened = match side.reason {
            VerdictReason::RuleMatches => side.policies.iter().any(|policy| !policy.matched.is_empty()),
            VerdictReason::ClusterPolicyAccepts => decided(side, Action::Accept),
            _ => continue,
        };
        prop_assert!(opened, "{direction} of {question} is allowed by no rule that is named");
        if !side.isolated {
            continue;
        }
        let again = |cluster: &Cluster| {
            let [from, to, port] = [answer.from.to_string(), answer.to.to_string(), answer.port.to_string()];
            let answer = ask(cluster, &from, &to, &port).expect("pods and ports are as they were");
            if direction == Direction::Egress { answer.egress.verdict } else { answer.ingress.verdict }
        };
        let without = |named| keeping(cluster, side, direction, named);
        prop_assert_eq!(
            again(&without(false)),
            Verdict::Deny,
            "{} of {} without what opens it",
            direction,
            question
        );
        prop_assert_eq!(
            again(&without(true)),
            Verdict::Allow,
            "{} of {} without the others",
            direction,
            question
        );
    }
    Ok(())
}

fn decided(side: &DirectionResult, action: Action) -> bool {
    let mut policies = side.cluster_policies.iter();
    policies.any(|policy| policy.decided.iter().any(|index| policy.rules[*index].action == action))
}

/// The cluster with only the rules that open a side (`named`), or with all rules but these. Of a
/// ClusterNetworkPolicy only rules that accept open.
fn keeping(cluster: &Cluster, side: &DirectionResult, direction: Direction, named: bool) -> Cluster {
    let mut cluster = cluster.clone();
    for policy in &side.policies {
        let name = ObjectName::new(policy.namespace.clone(), policy.name.clone());
        let held = cluster.policies.get_mut(&name).expect("a policy that is named exists");
        let held: &mut NetworkPolicy = Arc::make_mut(held);
        let rules: &mut Option<Vec<Rule>> = match direction {
            Direction::Egress => &mut held.egress,
            Direction::Ingress => &mut held.ingress,
        };
        let rules = rules.as_mut().expect("it isolates in this direction");
        let matched: BTreeSet<usize> = policy.matched.iter().copied().collect();
        retain(rules, |index, _| matched.contains(&index) == named);
    }
    for policy in &side.cluster_policies {
        let name = ClusterPolicyName { name: policy.name.clone(), kind: policy.kind };
        let held = cluster.cluster_policies.get_mut(&name).expect("a policy that is named exists");
        let held = Arc::make_mut(held);
        let rules = match direction {
            Direction::Egress => &mut held.egress,
            Direction::Ingress => &mut held.ingress,
        };
        let matched: BTreeSet<usize> = policy.matched.iter().copied().collect();
        retain(rules, |index, rule| rule.action != Action::Accept || matched.contains(&index) == named);
    }
    cluster
}

fn retain<T>(items: &mut Vec<T>, keep: impl Fn(usize, &T) -> bool) {
    let mut index = 0;
    items.retain(|item| {
        index += 1;
        keep(index - 1, item)
    });
}

fn describe((objects, ports): &Sample) -> String {
    format!("ports {ports:?}\n{}", write(objects, Form::YamlDocuments))
}
