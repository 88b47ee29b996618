//! The alerts and the dashboard of `deploy/overlays/monitoring` ask for metrics that there are, by labels and
//! values that they have.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use podgate_common::{Eviction, NameCount, Outcome};
use serde_json::Value;

use crate::observe::RecordResult;

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/overlays/monitoring");

/// What the scrape adds, or Prometheus itself.
const ADDED: [&str; 3] = ["node", "job", "le"];

/// Metrics of others, which the alerts ask for, too.
const OTHERS: [&str; 3] = ["up", "container_memory_working_set_bytes", "kube_pod_container_resource_limits"];

#[test]
fn alerts_and_dashboard_ask_for_what_there_is() {
    let exposition = super::example();
    let families = families(&exposition);
    let rules = fs::read_to_string(format!("{DIRECTORY}/prometheus-rule.yaml")).expect("the alerts");
    let rules: Value = serde_saphyr::from_str(&rules).expect("YAML");
    let dashboard = fs::read_to_string(format!("{DIRECTORY}/dashboard.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    let (mut alerts, mut panels) = (Vec::new(), Vec::new());
    expressions(&rules, &mut alerts);
    expressions(&dashboard, &mut panels);
    assert!(alerts.len() >= 10 && panels.len() >= 15, "{} alerts, {} panels", alerts.len(), panels.len());
    for expression in alerts.iter().chain(&panels) {
        let selectors = selectors(expression);
        assert!(!selectors.is_empty(), "no metric in {expression}");
        for (name, labels) in selectors {
            if OTHERS.contains(&name) {
                continue;
            }
            let known = families.get(name).unwrap_or_else(|| panic!("{name} is no metric: {expression}"));
            for (label, values) in labels {
                assert!(
                    known.contains(label) || ADDED.contains(&label),
                    "{name} has no {label}: {expression}"
                );
                for value in values.split('|') {
                    assert!(is_value(label, value), "no {label} is {value}: {expression}");
                }
            }
        }
    }
}

/// The labels of each metric, those of histograms by the names of their series.
fn families(exposition: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut families: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in exposition.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            families.entry(family.split(' ').next().expect("a name")).or_default();
        } else if let Some((name, labels)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let labels = labels.split("\",").filter_map(|label| label.split_once("=\""));
            families.entry(name).or_default().extend(labels.map(|(label, _)| label));
        }
    }
    families
}

/// All that stands under `expr`.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == "expr" => found.push(text.clone()),
                    _ => expressions(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The metrics of an expression, each with the labels and values that it is chosen by.
fn selectors(expression: &str) -> Vec<(&str, Vec<(&str, &str)>)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic()) {
        let word = &rest[start..];
        let end = word.find(|c| !is_name(c)).unwrap_or(word.len());
        let (name, after) = word.split_at(end);
        rest = after;
        if !name.starts_with("podgate_") && !OTHERS.contains(&name) {
            continue;
        }
        let mut labels = Vec::new();
        if let Some(inside) = after.strip_prefix('{') {
            let (inside, after) = inside.split_once('}').expect("a closing brace");
            for matcher in inside.split(", ") {
                let (label, value) = matcher.split_once('=').expect("a label and its value");
                labels.push((label, value.trim_start_matches('~').trim_matches('"')));
            }
            rest = after;
        }
        found.push((name, labels));
    }
    found
}

/// Whether it is one of those that a label may have, as far as they are known.
fn is_value(label: &str, value: &str) -> bool {
    match label {
        "outcome" => Outcome::ALL.iter().any(|outcome| outcome.to_string() == value),
        "result" => {
            ["matched", "denied", "would-deny"].contains(&value)
                || NameCount::ALL.iter().any(|count| count.name() == value)
                || RecordResult::ALL.iter().any(|result| result.name() == value)
        }
        "state" => {
            ["enforced", "unconfirmed", "undone", "unenforced"].contains(&value)
                || Eviction::ALL.iter().any(|eviction| eviction.state() == value)
        }
        "newcomer" => Eviction::ALL.iter().any(|eviction| eviction.newcomer() == value),
        _ => label == "node" && value == "$node",
    }
}
