//! Where the parts of a JSON text are: what is taken out of it, or put into it, leaves every other byte as it
//! was.
//!
//! In: text that a parser has found to be JSON. Out: ranges of bytes.

use std::ops::Range;

/// The members of the object at this range: their names and where their values are.
pub(super) fn members(text: &str, object: Range<usize>) -> Vec<(String, Range<usize>)> {
    let members = parts(text, object).into_iter().filter_map(|member| {
        let name = member.start..string_end(text, member.start);
        let colon = name.end + text.get(name.end..member.end)?.find(':')?;
        Some((serde_json::from_str(text.get(name)?).ok()?, trimmed(text, colon + 1..member.end)))
    });
    members.collect()
}

/// The elements of the array, or the members of the object, at this range.
pub(super) fn parts(text: &str, whole: Range<usize>) -> Vec<Range<usize>> {
    let whole = trimmed(text, whole);
    let inside = whole.start + 1..whole.end.saturating_sub(1);
    let (mut parts, mut start, mut depth) = (Vec::new(), inside.start, 0_usize);
    let mut position = inside.start;
    while position < inside.end {
        match text.as_bytes()[position] {
            b'"' => {
                position = string_end(text, position);
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                parts.push(trimmed(text, start..position));
                start = position + 1;
            }
            _ => {}
        }
        position += 1;
    }
    parts.push(trimmed(text, start..inside.end));
    parts.retain(|part| !part.is_empty());
    parts
}

/// Where the string ends that begins here.
fn string_end(text: &str, start: usize) -> usize {
    let mut position = start + 1;
    while let Some(byte) = text.as_bytes().get(position) {
        match byte {
            b'"' => return position + 1,
            b'\\' => position += 2,
            _ => position += 1,
        }
    }
    text.len()
}

/// Without the white space around it.
fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let is_space = |byte: &u8| byte.is_ascii_whitespace();
    let bytes = text.as_bytes().get(range.clone()).unwrap_or_default();
    let before = bytes.iter().take_while(|byte| is_space(byte)).count();
    let after =
        bytes.get(before..).unwrap_or_default().iter().rev().take_while(|byte| is_space(byte)).count();
    range.start + before..range.end.saturating_sub(after).max(range.start + before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_any_json_are_found() {
        let text = r#" { "a" : [ 1 , {"x": "]},\"" }, "," ] ,"b\"\u0041":{}, "c": -1.5e3 } "#;
        let found: Vec<_> = members(text, 0..text.len())
            .into_iter()
            .map(|(name, value)| (name, text[value].to_owned()))
            .collect();
        let array = r#"[ 1 , {"x": "]},\"" }, "," ]"#;
        let expected = [("a", array), ("b\"A", "{}"), ("c", "-1.5e3")];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let elements: Vec<_> = parts(array, 0..array.len()).into_iter().map(|part| &array[part]).collect();
        assert_eq!(elements, ["1", r#"{"x": "]},\"" }"#, r#"",""#]);
        for empty in ["{}", "[]", "{ }", "[\n]"] {
            assert!(parts(empty, 0..empty.len()).is_empty(), "{empty}");
        }
    }
}
