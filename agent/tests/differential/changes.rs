//! A change to a cluster is what the cluster would be with it, on generated clusters.

use std::{fs, path::PathBuf};

use podgate::source::manifests::{self, Change};
use podgate_core::{
    matrix::{Difference, matrix},
    model::Cluster,
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
            let [was, is] = [objects, &after].map(|objects| {
                let picture = read(objects, Layout::File(Form::JsonList));
                matrix(&picture.cluster, &ports)
            });
            let difference = Difference::between(&was, &is);
            let seen = difference.opened.iter().map(|pair| (pair, '+'));
            let seen = seen.chain(difference.closed.iter().map(|pair| (pair, '!')));
            let mut seen: Vec<String> =
                seen.map(|(pair, sign)| format!("{} {} {} {sign}", pair.port, pair.from, pair.to)).collect();
            seen.sort();
            prop_assert_eq!(seen, expected(&naive::matrix(objects, names), &naive::matrix(&after, names)));
            Ok(())
        },
        describe,
    );
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
