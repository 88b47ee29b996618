//! Label selectors.
//!
//! A selector with any fault selects nothing, also where `NotIn` stands: what was meant is not known, and the
//! part that was understood may be wider than the whole.

use podgate_core::model::{LabelValues, Name, Requirement, Selector};

use super::{
    field::{Field, JsonObject, Reported, quoted},
    intern::NameInterner,
    syntax,
};

/// An absent selector counts as `{}`.
pub(super) fn read(field: &Field<'_>, names: &mut NameInterner) -> Selector {
    match requirements(field, Unknown::IsDropped, names) {
        Ok(requirements) => Selector::All(requirements),
        Err(_reported) => Selector::Nothing,
    }
}

/// As [`read`], but a field that is not known is a fault: later versions of the API may have it.
pub(super) fn read_whole(field: &Field<'_>, names: &mut NameInterner) -> Result<Selector, Reported> {
    requirements(field, Unknown::IsAFault, names).map(Selector::All)
}

/// What fields that are not known do to a selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unknown {
    /// The API server drops them.
    IsDropped,
    IsAFault,
}

impl Unknown {
    fn check(self, object: &JsonObject<'_>, known: &[&str]) -> Result<(), Reported> {
        match (self, object.has_only(known)) {
            (Self::IsDropped, _) => Ok(()),
            (Self::IsAFault, known) => known,
        }
    }
}

const FIELDS: [&str; 2] = ["matchLabels", "matchExpressions"];
const EXPRESSION: [&str; 3] = ["key", "operator", "values"];

/// Looks at every part, so that every fault is reported, before it gives up.
fn requirements(
    field: &Field<'_>,
    unknown: Unknown,
    names: &mut NameInterner,
) -> Result<Vec<Requirement>, Reported> {
    let object = field.object()?;
    let known = unknown.check(&object, &FIELDS);
    let labels = match_labels(&object.get("matchLabels"), names);
    let expressions = match_expressions(&object.get("matchExpressions"), unknown, names);
    known?;
    let mut requirements = labels?;
    requirements.extend(expressions?);
    Ok(requirements)
}

fn match_labels(field: &Field<'_>, names: &mut NameInterner) -> Result<Vec<Requirement>, Reported> {
    let each: Vec<_> = field
        .entries()?
        .map(|(key, value)| {
            let checked = syntax::check(&value, key, syntax::label_key(key));
            let text = label_value(&value, names);
            checked?;
            Ok(Requirement::In(names.name(key), [text?].into()))
        })
        .collect();
    each.into_iter().collect()
}

fn match_expressions(
    field: &Field<'_>,
    unknown: Unknown,
    names: &mut NameInterner,
) -> Result<Vec<Requirement>, Reported> {
    let each: Vec<_> = field.items()?.map(|item| requirement(&item, unknown, names)).collect();
    each.into_iter().collect()
}

fn requirement(
    field: &Field<'_>,
    unknown: Unknown,
    names: &mut NameInterner,
) -> Result<Requirement, Reported> {
    let object = field.object()?;
    let known = unknown.check(&object, &EXPRESSION);
    let key = key(&object.get("key"), names);
    let operator = object.get("operator");
    let requirement = match operator.required_text()? {
        "In" => Requirement::In(key?, values(&object, names)?),
        "NotIn" => Requirement::NotIn(key?, values(&object, names)?),
        "Exists" => {
            no_values(&object)?;
            Requirement::Exists(key?)
        }
        "DoesNotExist" => {
            no_values(&object)?;
            Requirement::DoesNotExist(key?)
        }
        other => {
            let message = format!("{} is not In, NotIn, Exists or DoesNotExist", quoted(other));
            return Err(operator.fault(message));
        }
    };
    known.map(|()| requirement)
}

fn key(field: &Field<'_>, names: &mut NameInterner) -> Result<Name, Reported> {
    let key = field.required_text()?;
    syntax::check(field, key, syntax::label_key(key))?;
    Ok(names.name(key))
}

fn values(requirement: &JsonObject<'_>, names: &mut NameInterner) -> Result<LabelValues, Reported> {
    let field = requirement.get("values");
    let each: Vec<_> = field.items()?.map(|item| label_value(&item, names)).collect();
    if each.is_empty() {
        return Err(field.fault("must not be empty with In or NotIn"));
    }
    each.into_iter().collect()
}

fn no_values(requirement: &JsonObject<'_>) -> Result<(), Reported> {
    let field = requirement.get("values");
    if field.items()?.len() > 0 {
        return Err(field.fault("must be empty with Exists or DoesNotExist"));
    }
    Ok(())
}

/// `null` in place of a string is the empty string, as for the API server.
fn label_value(field: &Field<'_>, names: &mut NameInterner) -> Result<Name, Reported> {
    let text = field.text()?.unwrap_or_default();
    syntax::check(field, text, syntax::label_value(text))?;
    Ok(names.name(text))
}
