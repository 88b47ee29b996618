//! `podgate matrix` is what the specification says, on generated clusters.

use podgate_testkit::{
    generate::{Entries, cluster, ports},
    manifest::{Form, write},
    naive,
};
use proptest::{prelude::*, sample, test_runner::TestCaseError};
use serde_json::Value;

use crate::{
    answers::{Layout, matrix_of, problems, read},
    runner::check,
};

/// Of each of the two sorts.
const CLUSTERS: u32 = 2_000;

type Sample = (Vec<Value>, Vec<&'static str>, Layout);

fn samples(entries: Entries) -> impl Strategy<Value = Sample> {
    (cluster(entries), ports(), sample::select(&Layout::ALL[..]))
}

#[test]
fn clusters_have_the_verdicts_of_the_specification() {
    check(
        CLUSTERS,
        || samples(Entries::Valid),
        |sample| {
            let picture = read(&sample.0, sample.2);
            prop_assert!(picture.problems.is_empty(), "valid objects were refused:\n{}", problems(&picture));
            agrees(sample)
        },
        describe,
    );
}

#[test]
fn clusters_with_invalid_entries_have_the_verdicts_of_what_was_understood() {
    check(CLUSTERS, || samples(Entries::SomeInvalid), agrees, describe);
}

/// Objects come as the files of a directory are read, or as an API server reports them: in any order.
#[test]
fn the_order_of_objects_changes_nothing() {
    type Shuffled = (Vec<Value>, Vec<Value>, Vec<&'static str>);
    let shuffled = || {
        let twice = cluster(Entries::Valid)
            .prop_flat_map(|objects| (Just(objects.clone()), Just(objects).prop_shuffle()));
        (twice, ports()).prop_map(|((objects, shuffled), ports)| -> Shuffled { (objects, shuffled, ports) })
    };
    check(
        CLUSTERS / 4,
        shuffled,
        |(objects, shuffled, ports)| {
            let seen = |objects| matrix_of(&read(objects, Layout::File(Form::JsonList)).cluster, ports);
            prop_assert_eq!(seen(objects), seen(shuffled));
            Ok(())
        },
        |(_, shuffled, _)| write(shuffled, Form::YamlDocuments),
    );
}

fn agrees((objects, ports, layout): &Sample) -> Result<(), TestCaseError> {
    let picture = read(objects, *layout);
    let (expected, seen) = (naive::matrix(objects, ports), matrix_of(&picture.cluster, ports));
    prop_assert!(
        seen == expected,
        "{}{}",
        differences(&expected, &seen).unwrap_or_else(|| format!("expected {expected}\nseen {seen}\n")),
        problems(&picture),
    );
    Ok(())
}

/// The pairs that differ, a line each; `None` when the matrices do not have the same form.
fn differences(expected: &Value, seen: &Value) -> Option<String> {
    let pods = expected["pods"].as_array().filter(|pods| seen["pods"].as_array() == Some(*pods))?;
    let mut lines = String::new();
    for (port, rows) in expected["ports"].as_object()? {
        for (source, row) in rows.as_object()? {
            let row = row.as_str()?;
            let other = seen["ports"][port][source].as_str().filter(|other| other.len() == row.len())?;
            for ((pod, expected), seen) in pods.iter().zip(row.chars()).zip(other.chars()) {
                if expected != seen {
                    let pod = pod.as_str()?;
                    lines.push_str(&format!("{source} {pod} {port}: expected {expected} seen {seen}\n"));
                }
            }
        }
    }
    Some(lines)
}

fn describe((objects, ports, layout): &Sample) -> String {
    format!("ports {ports:?}, read as {layout:?}\n{}", write(objects, Form::YamlDocuments))
}
