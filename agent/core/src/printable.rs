//! Text of others that is shown to people: what a terminal would obey is escaped.
//!
//! In: names as objects and agents have them. Out: the same without control characters, and without those
//! that turn the direction of writing, so that nothing looks like something else.

use std::borrow::Cow;

use serde_json::Value;

fn is_obeyed(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A name as it is kept.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, is_obeyed)
}

/// All strings of an answer, in place. A message may have several lines.
pub fn make_printable(value: &mut Value) {
    let escape = |text: &str| escaped(text, |it| is_obeyed(it) && !matches!(it, '\n' | '\t')).into_owned();
    match value {
        Value::String(text) => *text = escape(text),
        Value::Array(items) => items.iter_mut().for_each(make_printable),
        Value::Object(fields) => {
            let fields_before = std::mem::take(fields);
            for (key, mut value) in fields_before {
                make_printable(&mut value);
                fields.insert(escape(&key), value);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn escaped(text: &str, is_bad: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_bad) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match is_bad(character) {
            true => escaped.extend(character.escape_default()),
            false => escaped.push(character),
        }
    }
    escaped.into()
}
