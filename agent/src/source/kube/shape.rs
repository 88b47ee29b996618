//! Objects trimmed while they are read: what no verdict depends on is skipped in the text and never stored.
//!
//! In: JSON. Out: a value with the fields that are kept. A pod of a megabyte is mostly environment variables
//! and arguments of its containers; every object has `managedFields`. What is kept is kept as it is, right or
//! wrong: `decode` evaluates it.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

use super::decode::{MIRROR, STORED_METADATA};

/// What is kept of a value.
#[derive(Debug)]
pub(super) enum Keep {
    All,
    /// Of an object, these fields.
    Only(&'static [(&'static str, Keep)]),
    /// Of an object, these fields in part, and all others.
    With(&'static [(&'static str, Keep)]),
    /// Of annotations, those that podgate may have a word about, and what marks a mirror of a static pod.
    Annotations,
    /// Of each item of a list.
    Items(&'static Keep),
    Nothing,
}

/// Of any object.
pub(super) const OBJECT: Keep = Keep::With(&[("metadata", METADATA)]);

/// Of a pod.
pub(super) const POD: Keep = Keep::Only(&[
    ("apiVersion", Keep::All),
    ("kind", Keep::All),
    ("metadata", METADATA),
    (
        "spec",
        Keep::Only(&[
            ("nodeName", Keep::All),
            ("serviceAccountName", Keep::All),
            ("hostNetwork", Keep::All),
            // Of resolvers, for `check --names` and who reads a dump.
            ("dnsPolicy", Keep::All),
            ("dnsConfig", Keep::Only(&[("nameservers", Keep::All)])),
            ("containers", CONTAINERS),
            ("initContainers", CONTAINERS),
        ]),
    ),
    ("status", Keep::Only(&[("phase", Keep::All), ("podIP", Keep::All), ("podIPs", Keep::All)])),
]);

const METADATA: Keep = Keep::With(&[("managedFields", Keep::Nothing), ("annotations", Keep::Annotations)]);
const CONTAINERS: Keep = Keep::Items(&Keep::Only(&[("ports", Keep::All), ("restartPolicy", Keep::All)]));

const ALL: Keep = Keep::All;
const NOTHING: Keep = Keep::Nothing;

impl Keep {
    /// What is kept of a field.
    fn field(&self, name: &str) -> &Self {
        let find = |fields: &'static [(&str, Self)], other: &'static Self| {
            fields.iter().find(|(field, _)| *field == name).map_or(other, |(_, keep)| keep)
        };
        match self {
            Self::Only(fields) => find(fields, &NOTHING),
            Self::With(fields) => find(fields, &ALL),
            Self::Annotations
                if name == MIRROR
                    || name == STORED_METADATA
                    || name.to_ascii_lowercase().contains("podgate") =>
            {
                &ALL
            }
            Self::Annotations | Self::Nothing => &NOTHING,
            Self::All | Self::Items(_) => &ALL,
        }
    }
}

impl<'de> DeserializeSeed<'de> for &Keep {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self {
            Keep::All => Value::deserialize(deserializer),
            Keep::Nothing => IgnoredAny::deserialize(deserializer).map(|_| Value::Null),
            Keep::Only(_) | Keep::With(_) | Keep::Annotations | Keep::Items(_) => {
                deserializer.deserialize_any(Trimming { keep: self, lifetime: PhantomData })
            }
        }
    }
}

struct Trimming<'k, 'de> {
    keep: &'k Keep,
    lifetime: PhantomData<&'de ()>,
}

impl<'de> Visitor<'de> for Trimming<'_, 'de> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut kept = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            match self.keep.field(&name) {
                Keep::Nothing => {
                    access.next_value::<IgnoredAny>()?;
                }
                keep => {
                    let value = access.next_value_seed(keep)?;
                    kept.insert(name, value);
                }
            }
        }
        Ok(Value::Object(kept))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let keep = if let Keep::Items(keep) = self.keep { keep } else { &ALL };
        let mut kept = Vec::new();
        while let Some(value) = access.next_element_seed(keep)? {
            kept.push(value);
        }
        Ok(Value::Array(kept))
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

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn trimmed(keep: &Keep, value: &Value) -> Value {
        keep.deserialize(&mut serde_json::Deserializer::from_str(&value.to_string())).unwrap()
    }

    #[test]
    fn a_pod_keeps_what_its_verdicts_depend_on() {
        let pod = json!({
            "metadata": {
                "name": "a", "labels": {"app": "web"}, "managedFields": [{"manager": "x"}],
                "annotations": {"podgate.io/mode": "audit", "Podgate.io/Mode": 7, MIRROR: "f", "large": "x"},
            },
            "spec": {
                "nodeName": "n1", "hostNetwork": true, "volumes": [1], "affinity": {"a": 1},
                "containers": [{"name": "c", "env": [1], "ports": [{"name": "http", "containerPort": 80}]}, 7],
                "initContainers": "no list",
            },
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], "conditions": [1]},
        });
        let kept = json!({
            "metadata": {
                "name": "a", "labels": {"app": "web"},
                "annotations": {"podgate.io/mode": "audit", "Podgate.io/Mode": 7, MIRROR: "f"},
            },
            "spec": {
                "nodeName": "n1", "hostNetwork": true,
                "containers": [{"ports": [{"name": "http", "containerPort": 80}]}, 7],
                "initContainers": "no list",
            },
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]},
        });
        assert_eq!(trimmed(&POD, &pod), kept);
    }

    #[test]
    fn of_any_other_object_everything_is_kept_but_bookkeeping() {
        let policy = json!({
            "metadata": {"name": "a", "managedFields": {"x": 1}, "annotations": null},
            "spec": {"podSelector": {}, "unknown": [1.5, -1, "x", null, false]},
        });
        let mut kept = policy.clone();
        kept["metadata"].as_object_mut().unwrap().remove("managedFields");
        assert_eq!(trimmed(&OBJECT, &policy), kept);
        for other in [json!([1, {"metadata": 7}]), json!(null), json!("text"), json!({"metadata": [7]})] {
            assert_eq!(trimmed(&OBJECT, &other), other);
        }
    }
}
