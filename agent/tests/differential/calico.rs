//! Calico's policies among those of Kubernetes: the compiled tables and `explain` say what Calico's documents
//! say, rule by rule.

use std::{collections::BTreeMap, sync::Arc};

use podgate_common::{Direction, Protocol};
use podgate_core::{
    compiler::{CompileInput, ConnectionQuery, Incremental, MatchCache, PolicyMatch, WorkLimit},
    explain::VerdictReason,
    model::{CalicoPolicyName, Cluster, ObjectName, Pod, PolicyName},
};
use podgate_testkit::{
    generate::{Entries, cluster, ports, with_calico},
    manifest::{Form, write},
    naive,
    question::Question,
};
use proptest::{prelude::*, sample, test_runner::TestCaseError};
use serde_json::Value;

use crate::{
    answers::{Layout, explained, matrix_of, read},
    attribution::side,
    runner::check,
};

const CLUSTERS: u32 = 2_000;

type Sample = (Vec<Value>, Vec<&'static str>, Layout);

fn samples(entries: Entries) -> impl Strategy<Value = Sample> {
    (with_calico(cluster(entries)), ports(), sample::select(&Layout::ALL[..]))
}

#[test]
fn clusters_with_policies_of_calico_have_the_verdicts_of_its_documents() {
    check(CLUSTERS, || samples(Entries::Valid), agrees, describe);
}

#[test]
fn invalid_entries_of_other_policies_change_nothing_of_that() {
    check(CLUSTERS / 4, || samples(Entries::SomeInvalid), agrees, describe);
}

#[test]
fn explain_says_what_the_tables_say_of_policies_of_calico() {
    check(CLUSTERS / 8, || samples(Entries::Valid), is_explained, describe);
}

/// What flows and hits are credited to: the policies that `explain` has decide, and their rules.
#[test]
fn what_is_credited_to_policies_of_calico_is_what_decides() {
    check(CLUSTERS / 8, || samples(Entries::Valid), is_credited, describe);
}

fn is_credited((objects, _, layout): &Sample) -> Result<(), TestCaseError> {
    let cluster = Cluster::clone(&read(objects, *layout).cluster);
    let subjects: BTreeMap<ObjectName, Arc<Pod>> =
        cluster.pods.iter().map(|(name, pod)| (name.clone(), pod.clone())).collect();
    let mut compiler = Incremental::default();
    compiler.compile(&CompileInput { cluster: &cluster, site: None, subjects: &subjects, retained: &[] });
    let snapshot = compiler.policy_snapshot();
    let mut cache = MatchCache::default();
    for pod in subjects.values().filter(|pod| !pod.host_network && !pod.addresses.is_empty()) {
        for peer in subjects.values().filter(|peer| peer.name != pod.name) {
            for (direction, peer) in
                Direction::ALL.into_iter().flat_map(|at| peer.addresses.iter().map(move |peer| (at, *peer)))
            {
                let query = ConnectionQuery {
                    pod,
                    direction,
                    peer,
                    protocol: Protocol::Tcp.into(),
                    port: 80,
                    is_service: false,
                    names: &[],
                };
                let Some(side) = side(&cluster, pod, direction, peer, 80)? else { continue };
                let mut work = WorkLimit::of(usize::MAX);
                let matches = snapshot.matches(&query, &mut cache, &mut work).expect("there is work left");
                for policy in side.calico_policies.iter().filter(|policy| !policy.decided.is_empty()) {
                    let (namespace, name, kind) =
                        (policy.namespace.clone(), policy.name.clone(), policy.kind);
                    let name = PolicyName::Calico(CalicoPolicyName { namespace, name, kind });
                    let found = matches.iter().find(|matches| matches.policy == name);
                    let has_all =
                        |found: &PolicyMatch| policy.decided.iter().all(|rule| found.matched.contains(rule));
                    prop_assert!(found.is_some_and(has_all), "{}: {:?} {:?}", name, matches, side);
                }
                let of_calico = || matches.iter().filter(|it| matches!(it.policy, PolicyName::Calico(_)));
                let is_accounted_for = match side.reason {
                    VerdictReason::CalicoPolicyAllows => of_calico().any(|it| it.allows),
                    VerdictReason::CalicoPolicyDenies => {
                        of_calico().any(|it| it.denies && !it.matched.is_empty())
                    }
                    VerdictReason::EndOfTier => {
                        of_calico().any(|it| it.denies && it.isolates) && !matches.iter().any(|it| it.allows)
                    }
                    _ => true,
                };
                prop_assert!(is_accounted_for, "{:?} {:?}", matches, side);
            }
        }
    }
    Ok(())
}

fn agrees((objects, ports, layout): &Sample) -> Result<(), TestCaseError> {
    let picture = read(objects, *layout);
    let (expected, seen) = (naive::matrix(objects, ports), matrix_of(&picture.cluster, ports));
    prop_assert_eq!(seen, expected);
    Ok(())
}

fn is_explained((objects, ports, layout): &Sample) -> Result<(), TestCaseError> {
    let picture = read(objects, *layout);
    let matrix = matrix_of(&picture.cluster, ports);
    let pods: Vec<&str> = matrix["pods"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for port in ports {
        for from in &pods {
            let row = matrix["ports"][port][from].as_str().expect("the form of the matrix");
            for (to, seen) in pods.iter().zip(row.chars()).filter(|(_, seen)| *seen != '-') {
                // Questions of the testkit have numbers alone.
                let Ok(question) = format!("{from} {to} {port}").parse::<Question>() else { continue };
                prop_assert_eq!(explained(&picture.cluster, &question), seen == '.', "{}", question);
            }
        }
    }
    Ok(())
}

fn describe((objects, ports, layout): &Sample) -> String {
    format!("ports {ports:?}, read as {layout:?}\n{}", write(objects, Form::YamlDocuments))
}
