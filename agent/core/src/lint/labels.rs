//! Labels that are misspelt: a selector that matches nothing asks for a key or a value that does not exist,
//! while another one exists that differs by one letter.
//!
//! One letter more, less or another, or two neighbours swapped (a Damerau-Levenshtein distance of 1). Names
//! that differ in a digit are numbered, not misspelt: `tier-1` and `tier-2`. What has no two letters in
//! common is not compared.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    LintFinding, LintName,
    selection::{EmptySelector, SelectedFrom},
    survey::Survey,
};
use crate::model::{Labels, Name, Requirement, Selector};

/// The values of each key.
pub(super) type KnownLabels<'a> = BTreeMap<&'a Name, BTreeSet<&'a Name>>;

pub(super) fn find<'a>(
    survey: &'a Survey<'a>,
    selectors: &[EmptySelector<'a>],
    findings: &mut Vec<LintFinding>,
) {
    let mut known: HashMap<SelectedFrom<'a>, KnownLabels<'a>> = HashMap::new();
    for EmptySelector { object, field, selector, among } in selectors {
        let Selector::All(requirements) = selector else { continue };
        let known = known.entry(*among).or_insert_with(|| labels_of(survey, *among));
        for requirement in requirements {
            if let Some(difference) = misspelt(requirement, known) {
                findings.push(LintFinding {
                    object: object.clone(),
                    field: field.clone(),
                    name: LintName::MisspeltLabel,
                    message: format!("no {} have {difference}", among.noun()),
                });
            }
        }
    }
}

fn labels_of<'a>(survey: &'a Survey<'a>, among: SelectedFrom<'a>) -> KnownLabels<'a> {
    let labels: Vec<&'a Labels> = match among {
        SelectedFrom::PodsIn(namespace) => {
            let pods = survey.workloads.iter().map(|workload| workload.pod);
            pods.filter(|pod| pod.name.namespace == *namespace).map(|pod| &pod.labels).collect()
        }
        SelectedFrom::PodsAcross(namespaces) => {
            let pods = survey.workloads.iter().map(|workload| workload.pod);
            let is_meant = |namespace: &Name| {
                survey.namespaces.get(namespace).is_some_and(|labels| namespaces.matches(labels))
            };
            pods.filter(|pod| is_meant(&pod.name.namespace)).map(|pod| &pod.labels).collect()
        }
        SelectedFrom::Namespaces => survey.namespaces.values().collect(),
        SelectedFrom::Nodes => survey.cluster.nodes.values().map(|node| &node.labels).collect(),
    };
    known_labels(labels)
}

pub(super) fn known_labels<'a>(labels: impl IntoIterator<Item = &'a Labels>) -> KnownLabels<'a> {
    let mut known = KnownLabels::new();
    for (key, value) in labels.into_iter().flat_map(|labels| labels.iter()) {
        known.entry(key).or_default().insert(value);
    }
    known
}

/// What is asked for, and what was most likely meant.
pub(super) fn misspelt(requirement: &Requirement, known: &KnownLabels<'_>) -> Option<String> {
    let (key, values) = match requirement {
        Requirement::In(key, values) => (key, Some(values)),
        Requirement::Exists(key) => (key, None),
        Requirement::NotIn(..) | Requirement::DoesNotExist(_) => return None,
    };
    let Some(known_values) = known.get(key) else {
        let meant = known.keys().find(|other| is_misspelt(key, other))?;
        return Some(format!("the label {key}, but some have {meant}"));
    };
    let values = values?;
    if values.iter().any(|value| known_values.contains(value)) {
        return None;
    }
    let meant = |value: &Name| known_values.iter().find(|other| is_misspelt(value, other)).copied();
    let (value, meant) = values.iter().find_map(|value| Some((value, meant(value)?)))?;
    Some(format!("{key}={value}, but some have {key}={meant}"))
}

/// Whether one edit makes one of the other, and it is no edit of a number.
fn is_misspelt(one: &str, other: &str) -> bool {
    if one.len().abs_diff(other.len()) > char::MAX.len_utf8() {
        return false;
    }
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let alike = |(one, other): &(&char, &char)| one == other;
    let before = one.iter().zip(&other).take_while(alike).count();
    let (one, other) = (&one[before..], &other[before..]);
    let after = one.iter().rev().zip(other.iter().rev()).take_while(alike).count();
    let (one, other) = (&one[..one.len() - after], &other[..other.len() - after]);
    let is_one_edit = match (one, other) {
        ([_], []) | ([], [_]) | ([_], [_]) => true,
        ([a, b], [c, d]) => (a, b) == (d, c),
        _ => false,
    };
    is_one_edit && before + after >= 2 && !one.iter().chain(other).all(char::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_edit_apart_is_misspelt_and_numbers_are_not() {
        for (one, other, expected) in [
            ("frontend", "frontned", true),
            ("frontend", "fronted", true),
            ("frontend", "frontendd", true),
            ("frontend", "frontent", true),
            ("frontend", "frontend", false),
            ("frontend", "fontned", false),
            ("app", "ap", true),
            ("db", "dc", false),
            ("tier-1", "tier-2", false),
            ("tier-1", "tier-12", false),
            ("tier-1", "tier1", true),
            ("grün", "grun", true),
            ("", "a", false),
            ("abcd", "badc", false),
        ] {
            assert_eq!(is_misspelt(one, other), expected, "{one} {other}");
            assert_eq!(is_misspelt(other, one), expected, "{other} {one}");
        }
    }
}
