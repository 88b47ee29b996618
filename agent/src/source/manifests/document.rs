//! The text of a file into documents, each a JSON value.
//!
//! In: bytes. Out: one result for each document that is not empty; a bad document does not spoil its
//! neighbours. Text that is JSON throughout is read as JSON, which is much faster; everything else as YAML. A
//! key that appears twice makes a document unreadable: whichever counted, one of its readers would be
//! surprised. Hostile text ends in an error: nesting, aliases and what they expand to have limits.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

use crate::source::decode::ObjectLines;

/// One document of a file.
#[derive(Debug)]
pub(super) struct YamlDocument {
    /// Where it is, as in `document 2 (line 14)`.
    pub(super) position: String,
    pub(super) lines: ObjectLines,
    /// The error says what is wrong and at which line.
    pub(super) value: Result<Value, String>,
}

/// How deep lists and objects may nest. Pods need about 20, the schemas of custom resources 40. A debug build
/// of the reader takes 16 to 32 KB of stack a level, and threads have 2 MB.
const DEPTH: usize = 64;

/// What aliases may expand to, in bytes of text, when the document itself is shorter than that.
const EXPANDED_BYTES: usize = 16 << 20;

/// What anchors may hold and aliases expand to, in scalars, lists and objects; more where the text is longer
/// than that many times [`BYTES_AN_EVENT`]. Memory is then in proportion to the text, as without aliases.
const EXPANDED_EVENTS: usize = 100_000;
const BYTES_AN_EVENT: usize = 4;

/// The byte order mark. Tools of Windows begin a text with it, also one that is pasted behind others.
const MARK: char = '\u{feff}';

/// How much is found out about lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineDetail {
    Documents,
    /// Also of items of lists, which takes a second look at the text.
    Items,
}

/// Reads all documents of a file. `Err`: the file is not text.
pub(super) fn read(bytes: &[u8], detail: LineDetail) -> Result<Vec<YamlDocument>, String> {
    let text = text(bytes)?;
    let text = text.strip_prefix(MARK).unwrap_or(&text);
    Ok(json(text, detail).unwrap_or_else(|| yaml(text, detail)))
}

/// UTF-8, or UTF-16 that begins with a byte order mark.
fn text(bytes: &[u8]) -> Result<Cow<'_, str>, String> {
    let read: fn([u8; 2]) -> u16 = match bytes {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        _ => {
            return std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|error| {
                let line = 1 + count_lines(&bytes[..error.valid_up_to()]);
                format!("is not UTF-8 at line {line}")
            });
        }
    };
    let mut text = String::with_capacity(bytes.len());
    let (units, rest) = bytes.as_chunks::<2>();
    let characters = char::decode_utf16(units.iter().map(|unit| read(*unit))).map(Result::ok);
    let half = (!rest.is_empty()).then_some(None);
    for character in characters.chain(half) {
        match character {
            Some(character) => text.push(character),
            None => return Err(format!("is not UTF-16 at line {}", 1 + count_lines(text.as_bytes()))),
        }
    }
    Ok(Cow::Owned(text))
}

/// `None`: not JSON throughout, or with a fault that the YAML reader describes better.
fn json(text: &str, detail: LineDetail) -> Option<Vec<YamlDocument>> {
    if !text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    // No text of JSON holds a line break, so at the start of a line a mark stands between values.
    let marked = format!("\n{MARK}");
    let text = &*match text.contains(&marked) {
        true => Cow::Owned(text.replace(&marked, "\n")),
        false => Cow::Borrowed(text),
    };
    let mut documents = Vec::new();
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Strict>();
    let (mut end, mut line) = (0, 1);
    while let Some(value) = stream.next() {
        let Strict(value) = value.ok()?;
        let document = &text[end..stream.byte_offset()];
        let blank = document.len() - document.trim_start().len();
        let starts_at = line + count_lines(&document.as_bytes()[..blank]);
        // A text of JSON is one of YAML.
        let lines = lines(&document[blank..], &value, starts_at, starts_at - 1, detail);
        documents.push(YamlDocument {
            position: position(documents.len(), starts_at),
            lines,
            value: Ok(value),
        });
        line += count_lines(document.as_bytes());
        end = stream.byte_offset();
    }
    Some(documents)
}

fn yaml(text: &str, detail: LineDetail) -> Vec<YamlDocument> {
    let mut documents = Vec::new();
    for Chunk { text, lines_before } in chunks(text) {
        let Some(empty_lines) = text.lines().position(|line| !is_empty(line)) else { continue };
        let value = yaml_document(&without_marks(text), lines_before);
        if !matches!(value, Ok(Value::Null)) {
            let line = 1 + lines_before + empty_lines;
            let lines = match &value {
                Ok(value) => lines(text, value, line, lines_before, detail),
                Err(_) => ObjectLines::at(line),
            };
            documents.push(YamlDocument { position: position(documents.len(), line), lines, value });
        }
    }
    documents
}

/// Takes away the marks that stand before the content of a document: further on, they are text.
fn without_marks(text: &str) -> Cow<'_, str> {
    if !text.contains(MARK) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    let mut in_head = true;
    for line in text.split_inclusive('\n') {
        let unmarked = if in_head { line.strip_prefix(MARK).unwrap_or(line) } else { line };
        clean.push_str(unmarked);
        in_head &= is_empty(unmarked);
    }
    Cow::Owned(clean)
}

/// Where a document begins, and the items of a list. `lines_before`: those before the text.
fn lines(text: &str, value: &Value, own: usize, lines_before: usize, detail: LineDetail) -> ObjectLines {
    let has_items = detail == LineDetail::Items && value.get("items").is_some_and(Value::is_array);
    let listed = has_items.then(|| serde_saphyr::from_str_with_options(text, yaml_options(text)).ok());
    let Some(ListedItems { items: Some(items) }) = listed.flatten() else { return ObjectLines::at(own) };
    let items = items.into_iter().map(|item| item_lines(item, lines_before)).collect();
    ObjectLines { own, items }
}

fn item_lines(item: Spanned<ListedItems>, lines_before: usize) -> ObjectLines {
    let line = usize::try_from(item.referenced.line()).unwrap_or(usize::MAX);
    let items = item.value.items.into_iter().flatten();
    ObjectLines {
        own: line.saturating_add(lines_before),
        items: items.map(|item| item_lines(item, lines_before)).collect(),
    }
}

/// A list, of which only the places of its items matter.
#[derive(Deserialize)]
struct ListedItems {
    items: Option<Vec<Spanned<ListedItems>>>,
}

fn position(before: usize, line: usize) -> String {
    format!("document {} (line {line})", before + 1)
}

fn yaml_document(text: &str, lines_before: usize) -> Result<Value, String> {
    serde_saphyr::from_str_with_options(text, yaml_options(text)).map(|Strict(value)| value).map_err(
        |error| {
            error.render_with_options(serde_saphyr::render_options! {
                formatter: &serde_saphyr::UserMessageFormatter,
                snippets: serde_saphyr::SnippetMode::Off,
                line_offset: u64::try_from(lines_before).unwrap_or(u64::MAX),
            })
        },
    )
}

/// How one document is read.
fn yaml_options(text: &str) -> serde_saphyr::Options {
    let expanded_events = EXPANDED_EVENTS.max(text.len() / BYTES_AN_EVENT);
    serde_saphyr::options! {
        with_snippet: false,
        // No one reads them, and a block may begin with any number of them.
        emit_comments: false,
        // As in YAML 1.2: `y` and `no` are text, and names of namespaces.
        strict_booleans: true,
        // Neither octal, as YAML 1.1 has it, nor decimal, as YAML 1.2 has it: text, which no port is.
        leading_zero_numbers_as_strings: true,
        non_finite_float_policy: serde_saphyr::options::NonFiniteFloatPolicy::AsString,
        budget: serde_saphyr::budget! {
            max_documents: 1,
            max_depth: DEPTH,
            // What the text itself holds is bounded by its length.
            max_events: usize::MAX,
            max_nodes: usize::MAX,
            max_total_scalar_bytes: EXPANDED_BYTES.max(text.len().saturating_mul(2)),
            max_recorded_anchor_events: expanded_events,
            // Tools that write one alias for each equal list have few anchors; what counts is what they
            // expand to.
            max_aliases: usize::MAX,
            max_anchors: usize::MAX,
            max_merge_keys: usize::MAX,
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: expanded_events },
    }
}

/// The text of one YAML document.
struct Chunk<'a> {
    text: &'a str,
    lines_before: usize,
}

/// Cuts at the lines that begin or end a document. Such a line means the same wherever it stands (YAML 1.2,
/// 9.1.2: no scalar may hold one), so that a document can be cut out without understanding those before it.
/// Directives thereby make a document of their own, an empty one: nothing that Kubernetes reads has any use
/// for them.
fn chunks(text: &str) -> impl Iterator<Item = Chunk<'_>> {
    let mut rest = text;
    let mut lines_before = 0;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (mut bytes, mut lines) = (0, 0);
        for line in rest.split_inclusive('\n') {
            if is_start(line) && lines > 0 {
                break;
            }
            bytes += line.len();
            lines += 1;
            if is_end(line) {
                break;
            }
        }
        let (chunk, after) = rest.split_at(bytes);
        let chunk = Chunk { text: chunk, lines_before };
        rest = after;
        lines_before += lines;
        Some(chunk)
    })
}

fn is_start(line: &str) -> bool {
    is_marker(line, "---")
}

fn is_end(line: &str) -> bool {
    is_marker(line, "...")
}

fn is_marker(line: &str, marker: &str) -> bool {
    let line = line.strip_prefix(MARK).unwrap_or(line);
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// A marker without content behind it, a directive, a comment or a blank line.
fn is_empty(line: &str) -> bool {
    let line = line.strip_prefix(MARK).unwrap_or(line);
    let text = line.trim();
    matches!(text, "" | "---" | "...") || text.starts_with('#') || line.starts_with('%')
}

fn count_lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

/// A [`Value`] without keys that appear twice and without numbers that JSON does not have. (`Value` itself
/// would take the last of two keys, and `null` for infinity: absent, and an absent port means every port.)
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = access.next_element()? {
            items.push(item);
        }
        Ok(items.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key {key:?} appears twice")));
            }
            let Strict(value) = access.next_value()?;
            map.insert(key, value);
        }
        Ok(map.into())
    }
}
