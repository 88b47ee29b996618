//! Label selectors on raw JSON (`meta/v1.LabelSelector`).

use serde_json::Value;

use super::object::items;

/// Does the selector match an object with these labels? `label` gives the value of a key.
///
/// "The result of matchLabels and matchExpressions are ANDed. An empty label selector matches all objects."
/// A selector that is not valid matches nothing, whatever its operators are.
pub(super) fn matches<'a>(selector: &Value, label: impl Fn(&str) -> Option<&'a str>) -> bool {
    is_valid(selector)
        && match_labels(selector).all(|(key, value)| label(key).is_some_and(|found| value == found))
        && items(&selector["matchExpressions"]).iter().all(|expression| holds(expression, &label))
}

/// "operator represents a key's relationship to a set of values. Valid operators are In, NotIn, Exists and
/// DoesNotExist."
fn holds<'a>(expression: &Value, label: impl Fn(&str) -> Option<&'a str>) -> bool {
    let found = expression["key"].as_str().and_then(label);
    let is_listed = |found| items(&expression["values"]).iter().any(|value| value == found);
    match expression["operator"].as_str() {
        Some("In") => found.is_some_and(is_listed),
        // "... and all resources with no labels with the key": NotIn matches when the key is absent.
        Some("NotIn") => !found.is_some_and(is_listed),
        Some("Exists") => found.is_some(),
        Some("DoesNotExist") => found.is_none(),
        _ => false,
    }
}

/// Every field, also those of its expressions, is one that the API has.
pub(super) fn has_only_known(selector: &Value) -> bool {
    has_only(selector, &["matchLabels", "matchExpressions"])
        && items(&selector["matchExpressions"])
            .iter()
            .all(|expression| has_only(expression, &["key", "operator", "values"]))
}

pub(super) fn has_only(value: &Value, fields: &[&str]) -> bool {
    value.as_object().is_none_or(|object| object.keys().all(|key| fields.contains(&key.as_str())))
}

pub(super) fn is_valid(selector: &Value) -> bool {
    selector.is_object()
        && is_missing_or(&selector["matchLabels"], Value::is_object)
        && is_missing_or(&selector["matchExpressions"], Value::is_array)
        && match_labels(selector).all(|(key, value)| is_label_key(key) && is_label_value(value))
        && items(&selector["matchExpressions"]).iter().all(is_valid_expression)
}

/// "values is an array of string values. If the operator is In or NotIn, the values array must be non-empty.
/// If the operator is Exists or DoesNotExist, the values array must be empty."
fn is_valid_expression(expression: &Value) -> bool {
    let values = items(&expression["values"]);
    let fits = match expression["operator"].as_str() {
        Some("In" | "NotIn") => !values.is_empty(),
        Some("Exists" | "DoesNotExist") => values.is_empty(),
        _ => false,
    };
    fits && is_missing_or(&expression["values"], Value::is_array)
        && expression["key"].as_str().is_some_and(is_label_key)
        && values.iter().all(is_label_value)
}

/// "Valid label keys have two segments: an optional prefix and name, separated by a slash (/). The name
/// segment is required and must be 63 characters or less, beginning and ending with an alphanumeric character
/// with dashes, underscores, dots, and alphanumerics between. ... If specified, the prefix must be a DNS
/// subdomain: a series of DNS labels separated by dots, not longer than 253 characters in total."
fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        None => is_label_word(key),
        Some((prefix, name)) => is_dns_subdomain(prefix) && is_label_word(name),
    }
}

/// "Valid label value: must be 63 characters or less (can be empty); unless empty, must begin and end with an
/// alphanumeric character; could contain dashes, underscores, dots, and alphanumerics between."
fn is_label_value(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.is_empty() || is_label_word(text))
}

fn is_label_word(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn is_dns_subdomain(text: &str) -> bool {
    let is_small = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.len() <= 253
        && text.split('.').all(|part| {
            part.starts_with(is_small)
                && part.ends_with(is_small)
                && part.chars().all(|c| is_small(c) || c == '-')
        })
}

fn match_labels(selector: &Value) -> impl Iterator<Item = (&String, &Value)> {
    selector["matchLabels"].as_object().into_iter().flatten()
}

fn is_missing_or(value: &Value, is_right: impl Fn(&Value) -> bool) -> bool {
    value.is_null() || is_right(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_keys_and_values_follow_the_label_syntax() {
        for (key, valid) in [
            ("app", true),
            ("a_B.c-9", true),
            ("example.com/app", true),
            ("kubernetes.io/metadata.name", true),
            ("", false),
            ("-app", false),
            ("app-", false),
            ("a b", false),
            ("/app", false),
            ("example.com/", false),
            ("Example.com/app", false),
            ("a/b/c", false),
        ] {
            assert_eq!(is_label_key(key), valid, "key {key:?}");
        }
        for (value, valid) in
            [("", true), ("v1.2_3", true), ("bad value", false), (".x", false), ("é", false)]
        {
            assert_eq!(is_label_value(&Value::from(value)), valid, "value {value:?}");
        }
        assert!(is_label_value(&Value::from("x".repeat(63))));
        assert!(!is_label_value(&Value::from("x".repeat(64))));
        assert!(!is_label_value(&Value::from(1)));
    }
}
