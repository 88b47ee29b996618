//! A change to a cluster is what the cluster would be with it, on generated clusters.

use std::{fs, path::PathBuf};

use podgate::source::manifests::{self, Change};
use podgate_core::{
    matrix::{
        Difference, MatrixScope, Pair, PodGroup, WorkloadMatrix, matrix, matrix_within, workload_difference,
        workload_matrix,
    },
    model::{Cluster, Name},
};
use podgate_testkit::{
    generate::{Entries, cluster, ports},
    manifest::{Form, write},
    naive,
};
use proptest::{prelude::*, test_runner::TestCaseError};
use serde_json::{Value, json};

use crate::{
    answers::{Layout, read},
    runner::check,
};

const CLUSTERS: u32 = 400;

/// The objects of a cluster, and those of a change to it.
type Sample = (Vec<Value>, Vec<Value>, Vec<&'static str>);

fn samples() -> impl Strategy<Value = Sample> {
    (cluster(Entries::SomeInvalid), cluster(Entries::SomeInvalid), ports())
}

#[test]
fn a_changed_cluster_is_that_of_both_files() {
    check(
        CLUSTERS,
        samples,
        |(objects, more, _)| {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let paths: Vec<PathBuf> = ["a.yaml", "b.yaml"].map(|name| directory.path().join(name)).into();
            for (path, objects) in paths.iter().zip([objects, more]) {
                fs::write(path, write(objects, Form::YamlDocuments)).expect("a temporary file");
            }
            let mut changed = Cluster::clone(&manifests::read(&paths[..1]).cluster);
            apply(&paths[1..], &mut changed)?;
            prop_assert_eq!(&changed, &*manifests::read(&paths).cluster);
            Ok(())
        },
        describe,
    );
}

#[test]
fn what_is_added_and_removed_again_leaves_the_cluster_as_it_was() {
    check(
        CLUSTERS,
        samples,
        |(objects, more, _)| {
            let before = Cluster::clone(&read(objects, Layout::File(Form::JsonList)).cluster);
            // One that takes the place of another would not leave it behind: only policies of new names.
            let policies = more.iter().filter(|object| object["kind"] == "NetworkPolicy").map(|object| {
                let mut object = object.clone();
                let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                object["metadata"]["name"] = json!(format!("{name}-new"));
                object
            });
            let policies: Vec<Value> = policies.collect();
            let removals = policies.iter().cloned().map(|mut policy| {
                policy["$patch"] = json!("delete");
                policy
            });
            let directory = tempfile::tempdir().expect("a temporary directory");
            let path = directory.path().join("change.json");
            let all: Vec<Value> = policies.iter().cloned().chain(removals).collect();
            fs::write(&path, write(&all, Form::JsonList)).expect("a temporary file");
            let mut changed = before.clone();
            apply(&[path], &mut changed)?;
            prop_assert_eq!(changed, before);
            Ok(())
        },
        describe,
    );
}

/// The pairs that a change opens and closes are those of which the specification says so.
#[test]
fn a_difference_is_that_of_the_specification() {
    check(
        CLUSTERS,
        samples,
        |(objects, more, names)| {
            let policies = more.iter().filter(|object| object["kind"] == "NetworkPolicy");
            let after: Vec<Value> = objects
                .iter()
                .filter(|object| !policies.clone().any(|policy| id(policy) == id(object)))
                .chain(policies.clone())
                .cloned()
                .collect();
            let ports = names.iter().map(|port| port.parse().expect("a port of the generator")).collect();
            let [was, is] =
                [objects, &after].map(|objects| read(objects, Layout::File(Form::JsonList)).cluster);
            let scope = MatrixScope::default();
            let difference = Difference::of(&was, &is, &ports, &scope);
            let expected = expected(&naive::matrix(objects, names), &naive::matrix(&after, names));
            prop_assert_eq!(lines(&difference, |name| vec![name.to_string()]), &expected[..]);
            prop_assert!(difference.opened.is_sorted() && difference.closed.is_sorted());

            // By workload it says the same, but for what a pod of many reaches of itself.
            let (workloads, difference) = workload_difference(&was, &is, &ports, &scope);
            let pods = |row: &Name| -> Vec<String> {
                workloads.pods[row].iter().map(|pod| pod.name.to_string()).collect()
            };
            let is_of_one = |line: &String| {
                let [_, from, to, _] = line.split(' ').collect::<Vec<_>>()[..] else {
                    unreachable!("four words")
                };
                from != to
                    || workloads.pods.values().any(|pods| pods.len() == 1 && pods[0].name.to_string() == from)
            };
            let expected: Vec<String> = expected.into_iter().filter(is_of_one).collect();
            prop_assert_eq!(lines(&difference, pods), expected);
            Ok(())
        },
        describe,
    );
}

/// A row of the matrix by workload holds for each pair of different pods.
#[test]
fn the_matrix_of_workloads_says_what_that_of_pods_says() {
    check(
        CLUSTERS,
        samples,
        |(objects, _, names)| {
            let ports = names.iter().map(|port| port.parse().expect("a port of the generator")).collect();
            let cluster = read(objects, Layout::File(Form::JsonList)).cluster;
            let by_pod = matrix(&cluster, &ports);
            let WorkloadMatrix { matrix, pods } = workload_matrix(&cluster, &ports, &MatrixScope::default());
            prop_assert_eq!(pods.values().map(Vec::len).sum::<usize>(), by_pod.pods.len());
            for (port, rows) in &matrix.ports {
                for (from, row) in rows {
                    for (to, verdict) in matrix.pods.iter().zip(&row.0) {
                        let pairs =
                            pods[from].iter().flat_map(|from| pods[to].iter().map(move |to| (from, to)));
                        let is_single = pods[from].len() == 1;
                        for (one, other) in pairs.filter(|(one, other)| one.name != other.name || is_single) {
                            let place = by_pod.pods.iter().position(|pod| **pod == *other.name.to_string());
                            let expected = by_pod.ports[port][&Name::from(one.name.to_string())].0
                                [place.expect("a pod")];
                            prop_assert_eq!(*verdict, expected, "{}: {} -> {}", port, one.name, other.name);
                        }
                    }
                }
            }
            Ok(())
        },
        describe,
    );
}

/// What is narrowed is a part of the whole.
#[test]
fn a_narrowed_matrix_is_a_part_of_the_whole() {
    check(
        CLUSTERS,
        samples,
        |(objects, _, names)| {
            let ports = names.iter().map(|port| port.parse().expect("a port of the generator")).collect();
            let cluster = read(objects, Layout::File(Form::JsonList)).cluster;
            let whole = matrix(&cluster, &ports);
            let Some(first) = cluster.pods.values().next() else { return Ok(()) };
            let scope = MatrixScope {
                namespace: Some(first.name.namespace.clone()),
                labels: first
                    .labels
                    .iter()
                    .take(1)
                    .map(|(key, value)| (key.clone(), Some(value.clone())))
                    .collect(),
                to: [PodGroup::Pod(first.name.clone())].into(),
                ..MatrixScope::default()
            };
            let is_source = |pod: &Name| {
                cluster.pods.values().any(|found| {
                    let has = scope.labels.iter().all(|(key, value)| found.labels.get(key) == value.as_ref());
                    *found.name.to_string() == **pod && found.name.namespace == first.name.namespace && has
                })
            };
            let mut expected = whole.clone();
            expected.pods.retain(|pod| **pod == *first.name.to_string());
            for rows in expected.ports.values_mut() {
                rows.retain(|pod, _| is_source(pod));
                for row in rows.values_mut() {
                    let cells = whole.pods.iter().zip(std::mem::take(&mut row.0));
                    row.0 =
                        cells.filter(|(pod, _)| expected.pods.contains(pod)).map(|(_, cell)| cell).collect();
                }
            }
            prop_assert_eq!(matrix_within(&cluster, &ports, &scope), expected);
            Ok(())
        },
        describe,
    );
}

/// `pods`: of a row.
fn lines(difference: &Difference, pods: impl Fn(&Name) -> Vec<String>) -> Vec<String> {
    let Difference { opened, closed, .. } = difference;
    let pairs = opened.iter().map(|pair| (pair, '+')).chain(closed.iter().map(|pair| (pair, '!')));
    let mut lines = Vec::new();
    for (Pair { port, from, to }, sign) in pairs {
        let is_single = from == to && pods(from).len() == 1;
        for from in pods(from) {
            let to = pods(to).into_iter().filter(|to| *to != from || is_single);
            lines.extend(to.map(|to| format!("{port} {from} {to} {sign}")));
        }
    }
    lines.sort();
    lines
}

/// Both clusters have the same pods.
fn expected(before: &Value, after: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let pods: Vec<&str> = after["pods"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (port, rows) in after["ports"].as_object().expect("the form of the matrix") {
        for (from, row) in rows.as_object().expect("the form of the matrix") {
            let was = before["ports"][port][from].as_str().expect("the form of the matrix");
            let is = row.as_str().expect("the form of the matrix");
            for (to, cell) in pods.iter().zip(was.chars().zip(is.chars())) {
                let sign = match cell {
                    ('.', '.') => continue,
                    ('.', _) => '!',
                    (_, '.') => '+',
                    _ => continue,
                };
                lines.push(format!("{port} {from} {to} {sign}"));
            }
        }
    }
    lines.sort();
    lines
}

fn id(object: &Value) -> (Option<&str>, &str, Option<&str>) {
    let metadata = &object["metadata"];
    (object["kind"].as_str(), metadata["namespace"].as_str().unwrap_or("default"), metadata["name"].as_str())
}

fn apply(paths: &[PathBuf], cluster: &mut Cluster) -> Result<(), TestCaseError> {
    let (change, _) = Change::read(paths).map_err(|error| TestCaseError::fail(error.to_string()))?;
    change.apply(cluster).map_err(|error| TestCaseError::fail(error.to_string()))
}

fn describe((objects, more, ports): &Sample) -> String {
    let [objects, more] = [objects, more].map(|objects| write(objects, Form::YamlDocuments));
    format!("ports {ports:?}\n{objects}\n# the change\n{more}")
}
