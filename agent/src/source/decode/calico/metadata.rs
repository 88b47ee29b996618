//! The metadata that Calico keeps of an object in its own store.
//!
//! In `crd.projectcalico.org/v1` labels and, since 3.30, the name of an object stand as JSON in an
//! annotation, as do the annotations that users write: the object's own labels are only those that Calico
//! itself needs. Objects that people write there by hand have no such annotation, and mean what they say.
//!
//! No API server has looked at what stands in it: a name or a label with bad syntax does not count.

use std::collections::BTreeMap;

use podgate_core::model::{CalicoApi, Labels, Name};
use serde_json::Value;

use super::super::{field::JsonObject, intern::NameInterner, metadata, syntax};
use crate::source::decode::STORED_METADATA;

/// What the annotation says.
#[derive(Default)]
pub(in super::super) struct Stored {
    /// The name that the object has for Calico's users.
    pub(super) name: Option<Name>,
    pub(super) labels: Option<Labels>,
    /// Of a policy: its users put it into audit mode.
    pub(super) audit: bool,
    /// It is in Calico's store, and Calico has not put it there: nothing is filled in.
    pub(super) is_written_by_hand: bool,
}

impl Stored {
    /// One that is no JSON of an object is reported, and counts as absent.
    pub(super) fn of(fields: &JsonObject<'_>, api: CalicoApi, names: &mut NameInterner) -> Self {
        match api {
            CalicoApi::V3 => return Self::default(),
            CalicoApi::V1 => {}
        }
        let by_hand = Self { is_written_by_hand: true, ..Self::default() };
        let metadata = fields.get("metadata");
        let Ok(metadata) = metadata.object() else { return by_hand };
        let annotations = metadata.get("annotations");
        let Ok(annotations) = annotations.object() else { return by_hand };
        let field = annotations.get(STORED_METADATA);
        let Ok(Some(text)) = field.optional_text() else { return by_hand };
        let Ok(Value::Object(kept)) = serde_json::from_str::<Value>(text) else {
            let _reported = field.fault("is not the JSON of an object's metadata");
            return by_hand;
        };
        let name = kept.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
        let name = name.filter(|name| syntax::check(&field, name, syntax::dns_subdomain(name)).is_ok());
        let mut labels = BTreeMap::new();
        for (key, value) in kept.get("labels").and_then(Value::as_object).into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            let is_label = syntax::check(&field, key, syntax::label_key(key)).is_ok()
                && syntax::check(&field, value, syntax::label_value(value)).is_ok();
            if is_label {
                labels.insert(names.name(key), names.name(value));
            }
        }
        let mode = kept.get("annotations").and_then(|annotations| annotations.get(metadata::MODE));
        Self {
            name: name.map(|name| names.name(name)),
            labels: Some(names.labels(labels)),
            audit: metadata::mode(mode.and_then(Value::as_str), &field).unwrap_or(false),
            is_written_by_hand: false,
        }
    }
}
