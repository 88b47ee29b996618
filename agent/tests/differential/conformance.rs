//! Conformance cases: files that hold a cluster and the verdicts that it must have, derived by hand.
//!
//! A file is named after the first item of the semantics checklist that it covers. Its first document, of
//! kind `Expect`, lists connections that are allowed and denied; the others are the cluster. A report of a
//! wrong verdict becomes one more file.

use std::{fs, path::Path};

use podgate_testkit::{manifest, naive::ResolvedEndpoint, question::Question};
use serde_json::Value;

use crate::answers::{explained, matrix_of, problems, read_text};

struct Case {
    name: String,
    text: String,
    objects: Vec<Value>,
    expected: Vec<(Question, bool)>,
    /// How many faults are to be reported.
    problems: u64,
}

fn cases() -> Vec<Case> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance");
    let mut cases: Vec<Case> = fs::read_dir(&directory)
        .expect("the directory of conformance cases")
        .map(|entry| read(&entry.expect("an entry of the directory").path()))
        .collect();
    cases.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(cases.len() >= 25, "only {} cases in {}", cases.len(), directory.display());
    cases
}

fn read(path: &Path) -> Case {
    let name = path.file_name().expect("a file").to_string_lossy().into_owned();
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"));
    let documents = manifest::read(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let (expect, objects) = documents.split_first().expect("a document");
    assert_eq!(expect["kind"], "Expect", "{name}: the first document");
    let questions = |field: &str, is_allowed: bool| {
        let list = expect[field].as_array().cloned().unwrap_or_default();
        list.into_iter().map(move |text| {
            let text = text.as_str().expect("a question is text").to_string();
            (text.parse::<Question>().unwrap_or_else(|error| panic!("{error}")), is_allowed)
        })
    };
    let expected: Vec<_> = questions("allow", true).chain(questions("deny", false)).collect();
    assert!(!expected.is_empty(), "{name} expects nothing");
    let problems = expect["problems"].as_u64().unwrap_or(0);
    Case { objects: manifest::flatten(objects), name, text, expected, problems }
}

#[test]
fn the_specification_gives_the_expected_verdicts() {
    for case in cases() {
        for (question, expected) in &case.expected {
            assert_eq!(question.is_allowed(&case.objects), *expected, "{}: {question}", case.name);
        }
    }
}

#[test]
fn podgate_gives_the_expected_verdicts() {
    for case in cases() {
        let picture = read_text(&case.text);
        assert_eq!(picture.problems.len() as u64, case.problems, "{}:\n{}", case.name, problems(&picture));
        for (question, expected) in &case.expected {
            assert_eq!(explained(&picture.cluster, question), *expected, "{}: explain {question}", case.name);
            if let Some(seen) = in_matrix(&matrix_of(&picture.cluster, &[&question.words()[2]]), question) {
                assert_eq!(seen, *expected, "{}: matrix {question}", case.name);
            }
        }
    }
}

/// `None` when it is not about two pods of the matrix.
fn in_matrix(matrix: &Value, question: &Question) -> Option<bool> {
    let (ResolvedEndpoint::Pod { .. }, ResolvedEndpoint::Pod { .. }) = (&question.from, &question.to) else {
        return None;
    };
    let [from, to, port] = question.words();
    let column = matrix["pods"].as_array()?.iter().position(|pod| pod == to.as_str())?;
    Some(matrix["ports"][&port][&from].as_str()?.chars().nth(column)? == '.')
}
