//! A cursor over a JSON value that knows its path, and the list of what was found wrong.
//!
//! Every accessor either gives the type asked for or reports a [`FieldError`] at the exact field.
//! [`Reported`] is the proof of that: whoever holds one need not say it again, only decide what the entry is
//! worth without it.

use std::{cell::RefCell, fmt};

use serde_json::{Map, Value};

/// One thing that is wrong with an object. `object` is as in `NetworkPolicy shop/web`, `field` as in
/// `spec.ingress[0].ports[1].endPort`; empty when the fault is with the object itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldError {
    pub(crate) object: String,
    pub(crate) field: String,
    pub(crate) message: String,
}

/// The faults of one object.
#[derive(Debug)]
pub(super) struct FieldErrors {
    object: String,
    found: RefCell<Vec<FieldError>>,
}

/// A fault was reported; the entry is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "decide what the entry means when it is not understood"]
pub(super) struct Reported(());

/// A value and where it stands. `null` and absent are one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    value: &'a Value,
    step: PathStep<'a>,
    parent: Option<&'a Field<'a>>,
    faults: &'a FieldErrors,
}

/// A field that is an object, or absent.
#[derive(Clone, Copy, Debug)]
pub(super) struct JsonObject<'a> {
    field: &'a Field<'a>,
    map: Option<&'a Map<String, Value>>,
}

/// `intstr.IntOrString` of the API.
#[derive(Clone, Copy, Debug)]
pub(super) enum NumberOrText<'a> {
    Number,
    Text(&'a str),
}

/// The last step of a path.
#[derive(Clone, Copy, Debug)]
enum PathStep<'a> {
    Root,
    /// A field of the API.
    Key(&'a str),
    /// A key that the user chose, e.g. a label.
    Entry(&'a str),
    Index(usize),
}

impl FieldErrors {
    pub(super) fn new(object: String) -> Self {
        Self { object, found: RefCell::default() }
    }

    pub(super) fn into_list(self) -> Vec<FieldError> {
        self.found.into_inner()
    }
}

impl<'a> Field<'a> {
    pub(super) fn root(value: &'a Value, faults: &'a FieldErrors) -> Self {
        Self { value, step: PathStep::Root, parent: None, faults }
    }

    /// Reports a fault at this field.
    pub(super) fn fault(&self, message: impl Into<String>) -> Reported {
        let fault = FieldError {
            object: self.faults.object.clone(),
            field: self.to_string(),
            message: message.into(),
        };
        self.faults.found.borrow_mut().push(fault);
        Reported(())
    }

    /// It is absent, or an object.
    pub(super) fn may_be_object(&self) -> bool {
        self.value.is_null() || self.value.is_object()
    }

    pub(super) fn is_given(&self) -> bool {
        !self.value.is_null()
    }

    /// It is there, and neither empty text nor an empty list.
    pub(super) fn is_filled(&self) -> bool {
        match self.value {
            Value::Null => false,
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Bool(_) | Value::Number(_) | Value::Object(_) => true,
        }
    }

    pub(super) fn object(&self) -> Result<JsonObject<'_>, Reported> {
        let map = match self.value {
            Value::Null => None,
            Value::Object(map) => Some(map),
            _ => return Err(self.is_not("an object")),
        };
        Ok(JsonObject { field: self, map })
    }

    /// The elements of a list; an absent list has none.
    pub(super) fn items(&self) -> Result<impl ExactSizeIterator<Item = Field<'_>>, Reported> {
        let items = self.values()?.iter().enumerate();
        Ok(items.map(|(index, value)| self.child(PathStep::Index(index), value)))
    }

    /// The elements of a list, bare.
    pub(super) fn values(&self) -> Result<&'a [Value], Reported> {
        match self.value {
            Value::Null => Ok(&[]),
            Value::Array(values) => Ok(values),
            _ => Err(self.is_not("a list")),
        }
    }

    /// The entries of a map whose keys the user chose; an absent map has none.
    pub(super) fn entries(&self) -> Result<impl Iterator<Item = (&str, Field<'_>)>, Reported> {
        let entries = self.object()?.map.into_iter().flatten();
        Ok(entries.map(|(key, value)| (key.as_str(), self.child(PathStep::Entry(key), value))))
    }

    pub(super) fn text(&self) -> Result<Option<&'a str>, Reported> {
        match self.value {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text)),
            _ => Err(self.is_not("text")),
        }
    }

    /// Text that is there and not empty.
    pub(super) fn required_text(&self) -> Result<&'a str, Reported> {
        match self.text()? {
            None => Err(self.fault("is missing")),
            Some("") => Err(self.fault("is empty")),
            Some(text) => Ok(text),
        }
    }

    /// Text where empty means absent, as for most optional strings of the API.
    pub(super) fn optional_text(&self) -> Result<Option<&'a str>, Reported> {
        Ok(self.text()?.filter(|text| !text.is_empty()))
    }

    pub(super) fn boolean(&self) -> Result<Option<bool>, Reported> {
        match self.value {
            Value::Null => Ok(None),
            Value::Bool(value) => Ok(Some(*value)),
            // Words of YAML 1.1, which kubectl reads, are text in YAML 1.2.
            Value::String(text) if TRUE.contains(&text.as_str()) => Ok(Some(true)),
            Value::String(text) if FALSE.contains(&text.as_str()) => Ok(Some(false)),
            _ => Err(self.is_not("true or false")),
        }
    }

    pub(super) fn number_or_text(&self) -> Result<Option<NumberOrText<'a>>, Reported> {
        match self.value {
            Value::Null => Ok(None),
            Value::Number(_) => Ok(Some(NumberOrText::Number)),
            Value::String(text) => Ok(Some(NumberOrText::Text(text))),
            _ => Err(self.is_not("a number or a name")),
        }
    }

    /// A port number that is there: 1 to 65535.
    pub(super) fn port_number(&self) -> Result<u16, Reported> {
        match self.value {
            Value::Null => Err(self.fault("is missing")),
            Value::Number(number) => match number.as_u64().and_then(|number| u16::try_from(number).ok()) {
                Some(port @ 1..) => Ok(port),
                _ => Err(self.fault(format!("{number} is not a port number (1 to 65535)"))),
            },
            _ => Err(self.is_not("a number")),
        }
    }

    /// A number that is there: 0 to `greatest`.
    pub(super) fn number_to(&self, greatest: u16) -> Result<u16, Reported> {
        match self.value {
            Value::Null => Err(self.fault("is missing")),
            Value::Number(number) => match number.as_u64().and_then(|number| u16::try_from(number).ok()) {
                Some(number) if number <= greatest => Ok(number),
                _ => Err(self.fault(format!("{number} is not a number from 0 to {greatest}"))),
            },
            _ => Err(self.is_not("a number")),
        }
    }

    /// A number, whole or not.
    pub(super) fn decimal(&self) -> Result<Option<f64>, Reported> {
        match self.value {
            Value::Null => Ok(None),
            Value::Number(number) => Ok(number.as_f64()),
            _ => Err(self.is_not("a number")),
        }
    }

    /// A port number where 0 means absent, as for optional numbers of the API.
    pub(super) fn optional_port_number(&self) -> Result<Option<u16>, Reported> {
        if self.value.is_null() || self.value.as_u64() == Some(0) {
            return Ok(None);
        }
        self.port_number().map(Some)
    }

    fn child<'b>(&'b self, step: PathStep<'b>, value: &'b Value) -> Field<'b> {
        Field { value, step, parent: Some(self), faults: self.faults }
    }

    fn is_not(&self, wanted: &str) -> Reported {
        let found = match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "text",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        self.fault(format!("is {found}, not {wanted}"))
    }
}

/// The path from the object, as `kubectl` prints it.
impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below_root = self.parent.filter(|parent| !matches!(parent.step, PathStep::Root));
        if let Some(parent) = below_root {
            parent.fmt(f)?;
        }
        match self.step {
            PathStep::Root => Ok(()),
            PathStep::Key(key) if below_root.is_some() => write!(f, ".{key}"),
            PathStep::Key(key) => f.write_str(key),
            PathStep::Entry(key) => write!(f, "[{key}]"),
            PathStep::Index(index) => write!(f, "[{index}]"),
        }
    }
}

impl<'a> JsonObject<'a> {
    pub(super) fn get(&self, key: &'a str) -> Field<'a> {
        let value = self.map.and_then(|map| map.get(key)).unwrap_or(&Value::Null);
        self.field.child(PathStep::Key(key), value)
    }

    /// Reports fields that the API does not have, in objects where such a field cannot make a rule narrower.
    /// They have no effect, but most are misspelt.
    pub(super) fn report_unknown(&self, known: &[&str]) {
        let _reported = self.has_only(known);
    }

    /// Reports fields that are not known, where one may say something that narrows the rest.
    pub(super) fn has_only(&self, known: &[&str]) -> Result<(), Reported> {
        let unknown = self.map.into_iter().flat_map(Map::keys).filter(|key| !known.contains(&key.as_str()));
        let each = unknown
            .map(|key| Err(self.field.child(PathStep::Key(key), &Value::Null).fault("is not a known field")));
        each.collect::<Vec<_>>().into_iter().collect()
    }
}

/// Booleans of YAML 1.1 (<https://yaml.org/type/bool.html>) beside those of 1.2.
const TRUE: [&str; 8] = ["y", "Y", "yes", "Yes", "YES", "on", "On", "ON"];
const FALSE: [&str; 8] = ["n", "N", "no", "No", "NO", "off", "Off", "OFF"];

/// How much of a user's text an error message repeats, in characters.
const QUOTED_LENGTH: usize = 80;

/// A user's text for an error message: quoted, escaped, and cut when it is long.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_LENGTH) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}
