//! What is not understood never opens anything: an entry replaced by an invalid one allows a subset of
//! before.

use podgate_testkit::{
    generate::{Entries, cluster, ports, spoil},
    manifest::{Form, write},
    naive,
};
use proptest::{prelude::*, test_runner::TestCaseError};
use serde_json::Value;

use crate::{
    answers::{Layout, matrix_of, read},
    runner::check,
};

const CLUSTERS: u32 = 500;

type Sample = (Vec<Value>, Vec<&'static str>, usize);

fn samples() -> impl Strategy<Value = Sample> {
    (cluster(Entries::Valid), ports(), 0..1_000_000_usize)
}

#[test]
fn an_entry_that_becomes_invalid_never_widens_by_the_specification() {
    check(CLUSTERS, samples, |sample| narrows(sample, naive::matrix), describe);
}

#[test]
fn an_entry_that_becomes_invalid_never_widens_and_is_reported() {
    check(CLUSTERS, samples, narrows_in_podgate, describe);
}

fn narrows_in_podgate(sample: &Sample) -> Result<(), TestCaseError> {
    let (objects, _, choice) = sample;
    if let Some(spoiled) = spoil(objects, *choice) {
        let picture = read(&spoiled.objects, Layout::File(Form::JsonList));
        prop_assert!(!picture.problems.is_empty(), "not reported: {}", spoiled.what);
    }
    narrows(sample, |objects, ports| matrix_of(&read(objects, Layout::File(Form::YamlFlow)).cluster, ports))
}

fn narrows(
    (objects, ports, choice): &Sample,
    matrix: impl Fn(&[Value], &[&str]) -> Value,
) -> Result<(), TestCaseError> {
    let Some(spoiled) = spoil(objects, *choice) else { return Ok(()) };
    let (before, after) = (matrix(objects, ports), matrix(&spoiled.objects, ports));
    prop_assert_eq!(&before["pods"], &after["pods"]);
    for (port, rows) in after["ports"].as_object().expect("the form of the matrix") {
        for (source, row) in rows.as_object().expect("the form of the matrix") {
            let was = before["ports"][port][source].as_str().expect("the form of the matrix");
            let is = row.as_str().expect("the form of the matrix");
            let widened = was.chars().zip(is.chars()).any(|(was, is)| was != is && is != 'X');
            prop_assert!(!widened, "{port} from {source} was {was}, is {is} with {}", spoiled.what);
        }
    }
    Ok(())
}

fn describe((objects, _, _): &Sample) -> String {
    write(objects, Form::YamlDocuments)
}
