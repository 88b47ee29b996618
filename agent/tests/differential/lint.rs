//! Lint looks at anything without harm, and what it calls shadowed has no effect: without such rules, one by
//! one and all together, the naive evaluator gives the same verdicts.

use std::{
    collections::BTreeSet,
    fs,
    net::IpAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use podgate::source::manifests::{self, ReadOptions};
use podgate_common::Direction;
use podgate_core::{
    lint::{LintFinding, LintName, lint},
    model::{Cluster, ObjectName},
};
use podgate_testkit::{
    generate::{Entries, cluster, outside, ports},
    manifest::{Form, write},
    naive::{ResolvedEndpoint, allowed, matrix},
};
use proptest::prelude::*;
use serde_json::Value;

use crate::runner::check;

const CLUSTERS: u32 = 600;

type Sample = (Vec<Value>, Vec<&'static str>, Vec<IpAddr>);

fn samples(entries: Entries) -> impl Strategy<Value = Sample> {
    (cluster(entries), ports(), outside())
}

#[test]
fn lint_says_something_of_every_cluster_and_never_panics() {
    let named = std::sync::Mutex::new(BTreeSet::new());
    let property = |(objects, _, _): &Sample| {
        let (_, findings) = findings(objects);
        named.lock().expect("no one panics").extend(findings.iter().map(|finding| finding.name));
        Ok(())
    };
    check(CLUSTERS, || samples(Entries::SomeInvalid), property, describe);
    let named = named.into_inner().expect("no one panics");
    assert!(named.len() > 6, "the generator brings out only {named:?}");
}

#[test]
fn a_rule_that_is_called_shadowed_can_be_removed() {
    let (removed, of_cluster) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let property = |(objects, ports, addresses): &Sample| {
        let (cluster, findings) = findings(objects);
        let shadowed: Vec<RulePath> = findings
            .iter()
            .filter(|finding| finding.name == LintName::ShadowedRule)
            .filter_map(|finding| RulePath::of(finding, objects))
            .collect();
        if shadowed.is_empty() {
            return Ok(());
        }
        let objects = with_policy_types(objects, &cluster);
        let before = verdicts(&objects, ports, addresses);
        let each = shadowed.iter().map(std::slice::from_ref).take(3);
        for rules in each.chain([&shadowed[..]]) {
            let after = verdicts(&without(&objects, rules), ports, addresses);
            prop_assert!(before == after, "{rules:?} had an effect");
        }
        removed.fetch_add(shadowed.len(), Ordering::Relaxed);
        let wide = shadowed.iter().filter(|rule| objects[rule.object]["kind"] != "NetworkPolicy").count();
        of_cluster.fetch_add(wide, Ordering::Relaxed);
        Ok(())
    };
    check(CLUSTERS, || samples(Entries::SomeInvalid), property, describe);
    let (removed, of_cluster) = (removed.into_inner(), of_cluster.into_inner());
    println!("{removed} rules were removed, {of_cluster} of them of cluster-wide policies");
    assert!(removed > 50 && of_cluster > 10, "only {removed} rules, {of_cluster} of cluster-wide policies");
}

fn findings(objects: &[Value]) -> (Cluster, Vec<LintFinding>) {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), write(objects, Form::JsonList)).expect("a file");
    let (picture, written) = manifests::read_written(&[file.path().into()], ReadOptions::default());
    let findings = lint(&picture.cluster, &written.notes);
    (picture.cluster.as_ref().clone(), findings)
}

/// A rule among the objects.
#[derive(Debug)]
struct RulePath {
    object: usize,
    direction: &'static str,
    index: usize,
}

impl RulePath {
    /// `None`: of a policy without a name.
    fn of(finding: &LintFinding, objects: &[Value]) -> Option<Self> {
        let object = objects.iter().position(|object| label(object) == finding.object)?;
        let (direction, index) = finding.field.strip_prefix("spec.")?.strip_suffix(']')?.split_once('[')?;
        let direction = ["ingress", "egress"].into_iter().find(|known| *known == direction)?;
        Some(Self { object, direction, index: index.parse().ok()? })
    }
}

fn label(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
    match kind.as_str() {
        "NetworkPolicy" => format!("{kind} {}/{name}", namespace(object)),
        _ => format!("{kind} {name}"),
    }
}

fn namespace(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().filter(|name| !name.is_empty()).unwrap_or("default")
}

/// What rules there are no longer says which directions a policy isolates.
fn with_policy_types(objects: &[Value], cluster: &Cluster) -> Vec<Value> {
    let mut objects = objects.to_vec();
    for object in &mut objects {
        let is_ours = object["kind"] == "NetworkPolicy" && object["apiVersion"] == "networking.k8s.io/v1";
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let name = ObjectName::new(namespace(object), name);
        let Some(policy) = cluster.policies.get(&name).filter(|_| is_ours && object["spec"].is_object())
        else {
            continue;
        };
        let types = [(Direction::Ingress, "Ingress"), (Direction::Egress, "Egress")];
        let types = types.into_iter().filter(|(direction, _)| policy.rules(*direction).is_some());
        object["spec"]["policyTypes"] = types.map(|(_, word)| Value::from(word)).collect();
    }
    objects
}

fn without(objects: &[Value], rules: &[RulePath]) -> Vec<Value> {
    let mut objects = objects.to_vec();
    let mut rules: Vec<&RulePath> = rules.iter().collect();
    // The last one first, so that the others keep their places.
    rules.sort_by_key(|rule| std::cmp::Reverse(rule.index));
    for RulePath { object, direction, index } in rules {
        let list = objects[*object]["spec"][direction].as_array_mut().expect("the list with the rule");
        list.remove(*index);
    }
    objects
}

/// Between all pods, and between pods and addresses outside.
fn verdicts(objects: &[Value], ports: &[&str], addresses: &[IpAddr]) -> (Value, Vec<bool>) {
    let pods = matrix(objects, &[]);
    let pods = pods["pods"].as_array().expect("the form of the matrix").iter().filter_map(Value::as_str);
    let ends = pods.filter_map(|pod| pod.split_once('/')).flat_map(|(namespace, name)| {
        let pod = ResolvedEndpoint::Pod { namespace: namespace.into(), name: name.into() };
        addresses.iter().map(move |address| (pod.clone(), ResolvedEndpoint::Address(*address)))
    });
    let outside = ends.flat_map(|(pod, other)| {
        [("TCP", 80), ("UDP", 53)].map(|(protocol, port)| {
            let is_allowed = |from, to| allowed(objects, from, to, protocol, port);
            [is_allowed(&pod, &other), is_allowed(&other, &pod)]
        })
    });
    (matrix(objects, ports), outside.flatten().collect())
}

fn describe((objects, ports, _): &Sample) -> String {
    format!("ports {ports:?}\n{}", write(objects, Form::YamlDocuments))
}

/// Only optimised code is in a hurry.
#[cfg(not(debug_assertions))]
#[test]
fn lint_of_5000_pods_and_2000_policies_takes_less_than_five_seconds() {
    use std::time::{Duration, Instant};

    use crate::answers::{Layout, read};
    use podgate_core::lint::ObjectNotes;
    use podgate_testkit::generate::large_of;

    const LIMIT: Duration = Duration::from_secs(5);
    let picture = read(&large_of(5_000, 2_000), Layout::File(Form::JsonList));
    // The machine may be busy with other tests: the best of three counts.
    let best = (0..3).map(|_| {
        let start = Instant::now();
        assert!(!lint(&picture.cluster, &ObjectNotes::default()).is_empty());
        start.elapsed()
    });
    let best = best.min().expect("three runs");
    assert_eq!((picture.cluster.pods.len(), picture.cluster.policies.len()), (5_000, 2_000));
    println!("{best:?} for 5,000 pods and 2,000 policies");
    assert!(best < LIMIT, "{best:?}");
}
