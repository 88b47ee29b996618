//! `metadata`: name, namespace, labels, and podgate's annotation.

use std::collections::BTreeMap;

use podgate_core::{
    model::{Labels, NAMESPACE_NAME_LABEL, Name, ObjectName},
    printable::printable,
};
use serde_json::Value;

use super::{
    ObjectLocation,
    field::{Field, JsonObject, Reported, quoted},
    intern::NameInterner,
    kind::{Kind, ObjectId},
    syntax,
};

pub(super) struct Metadata {
    /// `None`: not given, or not text; reported.
    pub(super) name: Option<Name>,
    /// `default` where none is given; means nothing for an object outside of namespaces.
    pub(super) namespace: Name,
    pub(super) labels: Labels,
    /// Only policies and namespaces have a mode.
    pub(super) audit: bool,
    /// The annotation has no known mode: the policy is enforced.
    pub(super) has_unknown_mode: bool,
}

/// The annotation that says how a policy, or all policies of a namespace, are meant.
pub(super) const MODE: &str = "podgate.io/mode";
const AUDIT: &str = "audit";
const ENFORCE: &str = "enforce";

/// The namespace of objects that name none, as for `kubectl`.
pub(super) const DEFAULT_NAMESPACE: &str = "default";

/// A name or a label with bad syntax is reported and used as it stands. What is not text is reported and left
/// out.
pub(super) fn read(field: &Field<'_>, kind: Kind, names: &mut NameInterner) -> Metadata {
    match field.object() {
        Ok(object) => {
            let name = name(&object.get("name"), kind).ok();
            let namespace = namespace(&object, kind).unwrap_or(DEFAULT_NAMESPACE);
            let labels = labels(&object.get("labels"), kind, name.as_ref(), names);
            let audit = if kind.info().is_policy { is_in_audit(&object) } else { Ok(false) };
            let has_unknown_mode = audit.is_err();
            let audit = audit.unwrap_or(false);
            Metadata { name, namespace: names.name(namespace), labels, audit, has_unknown_mode }
        }
        Err(_reported) => Metadata {
            name: None,
            namespace: names.name(DEFAULT_NAMESPACE),
            labels: names.labels(BTreeMap::new()),
            audit: false,
            has_unknown_mode: kind.info().is_policy,
        },
    }
}

impl Metadata {
    /// `None` without a name.
    pub(super) fn id(self, kind: Kind) -> Option<ObjectId> {
        let Self { name, namespace, labels: _, audit: _, has_unknown_mode: _ } = self;
        Some(match kind.info().is_namespaced {
            true => ObjectId::of_namespace(kind, ObjectName { namespace, name: name? }),
            false => ObjectId::of_cluster(kind, name?),
        })
    }
}

/// What to call an object in a fault, before anything of it is known to be right.
pub(super) fn label(value: &Value, kind: Kind, place: &ObjectLocation) -> String {
    let text = |pointer| value.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
    let name = text("/metadata/name").map_or_else(|| unnamed(place), |text| printable(text).into());
    let id = if kind.info().is_namespaced {
        let namespace = text("/metadata/namespace").unwrap_or(DEFAULT_NAMESPACE);
        ObjectId::of_namespace(kind, ObjectName::new(namespace, name))
    } else {
        ObjectId::of_cluster(kind, name)
    };
    id.to_string()
}

/// The name of an object that has none. No real name looks like it, and no two places give the same.
pub(super) fn unnamed(ObjectLocation { origin, position }: &ObjectLocation) -> Name {
    printable(&format!("(unnamed, {origin} {position})")).into()
}

fn name(field: &Field<'_>, kind: Kind) -> Result<Name, Reported> {
    let name = field.required_text()?;
    syntax::report(field, name, (kind.info().name_syntax)(name));
    Ok(printable(name).into())
}

fn namespace<'a>(metadata: &JsonObject<'a>, kind: Kind) -> Option<&'a str> {
    if !kind.info().is_namespaced {
        return None;
    }
    let field = metadata.get("namespace");
    let namespace = field.optional_text().ok()??;
    syntax::report(&field, namespace, syntax::dns_label(namespace));
    Some(namespace)
}

/// An annotation that is not understood means no: policies are enforced.
fn is_in_audit(metadata: &JsonObject<'_>) -> Result<bool, Reported> {
    let annotations = metadata.get("annotations");
    let field = annotations.object()?.get(MODE);
    mode(field.optional_text()?, &field)
}

/// Whether the text of the annotation says audit. A fault is reported at `field`.
pub(super) fn mode(text: Option<&str>, field: &Field<'_>) -> Result<bool, Reported> {
    match text {
        None => Ok(false),
        Some(text) if text.eq_ignore_ascii_case(ENFORCE) => Ok(false),
        Some(text) if text.eq_ignore_ascii_case(AUDIT) => Ok(true),
        Some(text) => Err(field.fault(format!("{} is neither {ENFORCE:?} nor {AUDIT:?}", quoted(text)))),
    }
}

fn labels(field: &Field<'_>, kind: Kind, name: Option<&Name>, names: &mut NameInterner) -> Labels {
    let mut labels = BTreeMap::new();
    for (key, value) in field.entries().into_iter().flatten() {
        let Ok(text) = value.text() else { continue };
        let text = text.unwrap_or_default();
        syntax::report(&value, key, syntax::label_key(key));
        syntax::report(&value, text, syntax::label_value(text));
        labels.insert(names.name(key), names.name(text));
    }
    // The API server sets it on every namespace, whatever the object says.
    if let (Kind::Namespace, Some(name)) = (kind, name) {
        labels.insert(names.name(NAMESPACE_NAME_LABEL), name.clone());
    }
    names.labels(labels)
}
