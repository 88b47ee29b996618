//! Manifests: objects written to text in the forms that users and `kubectl` write, and YAML read back.
//!
//! The writer is our own, so that a reader is not tested against the library that it uses itself.

use std::fmt::Write;

use serde_json::{Value, json};

/// How objects are written into one text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Block style, a document each, with comments and empty documents between.
    YamlDocuments,
    /// One document: what `kubectl get ... -o yaml` prints.
    YamlList,
    /// Flow style: each document is JSON, which is YAML too.
    YamlFlow,
    /// What `kubectl get ... -o json` prints.
    JsonList,
    /// Lists beside single objects, and lists in a list.
    Mixed,
}

impl Form {
    pub const ALL: [Self; 5] =
        [Self::YamlDocuments, Self::YamlList, Self::YamlFlow, Self::JsonList, Self::Mixed];
}

pub fn write(objects: &[Value], form: Form) -> String {
    match form {
        Form::YamlDocuments => {
            let documents: Vec<String> = objects.iter().map(yaml).collect();
            format!("# Objects: {}\n---\n---\n{}\n---\n# the end\n", objects.len(), documents.join("\n---\n"))
        }
        Form::YamlList => yaml(&list(objects)),
        Form::YamlFlow => objects.iter().map(|object| format!("---\n{object}\n...\n")).collect(),
        Form::JsonList => format!("{:#}\n", list(objects)),
        Form::Mixed => {
            let (first, rest) = objects.split_at(objects.len() / 2);
            let (second, third) = rest.split_at(rest.len() / 2);
            let documents: Vec<String> =
                first.iter().chain([&list(second), &list(&[list(third)])]).map(yaml).collect();
            documents.join("\n---\n")
        }
    }
}

/// The documents of a YAML text. Words such as `y` and `no` are strings, as in YAML 1.2.
pub fn read(text: &str) -> Result<Vec<Value>, String> {
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| error.to_string())
}

/// The objects of documents, with those of every `List`.
pub fn flatten(documents: &[Value]) -> Vec<Value> {
    let objects =
        documents.iter().filter(|document| !document.is_null()).flat_map(|document| match document["items"]
            .as_array()
        {
            Some(items) => flatten(items),
            None => vec![document.clone()],
        });
    objects.collect()
}

fn list(objects: &[Value]) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": objects, "metadata": {"resourceVersion": ""}})
}

/// A value in block style.
fn yaml(value: &Value) -> String {
    let mut text = String::new();
    block(value, 0, &mut text);
    text
}

fn block(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, field) in fields {
                write!(text, "{:indent$}{}:", "", scalar(key)).expect("a String takes all text");
                nested(field, indent + 2, text);
            }
        }
        // Lists stand at the indent of their key, as `kubectl` writes them.
        Value::Array(items) if !items.is_empty() => {
            let indent = indent.saturating_sub(2);
            for item in items {
                write!(text, "{:indent$}-", "").expect("a String takes all text");
                match item {
                    Value::Object(fields) if !fields.is_empty() => {
                        let mut inner = String::new();
                        block(item, indent + 2, &mut inner);
                        text.push(' ');
                        text.push_str(inner.trim_start());
                    }
                    // No list of a list in block style: Kubernetes has none.
                    Value::Array(_) => writeln!(text, " {item}").expect("a String takes all text"),
                    _ => nested(item, indent + 2, text),
                }
            }
        }
        _ => nested(value, indent, text),
    }
}

/// What follows `key:` or `-`.
fn nested(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            text.push('\n');
            block(value, indent, text);
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            block(value, indent, text);
        }
        // A key without a value is null.
        Value::Null => text.push('\n'),
        Value::String(word) => writeln!(text, " {}", scalar(word)).expect("a String takes all text"),
        _ => writeln!(text, " {value}").expect("a String takes all text"),
    }
}

/// A string: plain where that is safe, in single quotes where it has no control characters, else as JSON.
fn scalar(word: &str) -> String {
    let is_plain = word.starts_with(|c: char| c.is_ascii_alphabetic())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
        && !RESERVED.contains(&word.to_ascii_lowercase().as_str());
    if is_plain {
        word.into()
    } else if word.chars().any(char::is_control) {
        Value::from(word).to_string()
    } else {
        format!("'{}'", word.replace('\'', "''"))
    }
}

/// Words that most readers take for a boolean or for null. Not `y` and `n`: other tools write these plain.
const RESERVED: [&str; 7] = ["true", "false", "yes", "no", "on", "off", "null"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_holds_the_same_objects() {
        let objects = vec![
            json!({"kind": "A", "empty": {}, "none": null, "list": [], "number": 8080, "yes": true}),
            json!({"kind": "B", "words": ["no", "y", "", "a: b", "it's", "line\nbreak", "::/0", "010.0.0.0/8", "80"]}),
            json!({"kind": "C", "nested": [{"a": [{"b": 1, "c": {"d": [1, [2, 3], {}]}}]}, null, {}]}),
            json!({"kind": "D", "key with space": {"kubernetes.io/name": "x"}}),
        ];
        for form in Form::ALL {
            let text = write(&objects, form);
            let documents = read(&text).unwrap_or_else(|error| panic!("{form:?}: {error}\n{text}"));
            assert_eq!(flatten(&documents), objects, "{form:?}\n{text}");
        }
    }
}
