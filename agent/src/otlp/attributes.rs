//! OpenTelemetry attributes, and the syntax of its variables.

use anyhow::{Context as _, Result, ensure};
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value,
};
use percent_encoding::percent_decode_str;

pub(super) fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), key_strindex: 0 }
}

pub(super) fn text(value: impl Into<String>) -> Value {
    Value::StringValue(value.into())
}

/// Converts a JSON value. `null` becomes a value without content.
pub(super) fn of_json(json: serde_json::Value) -> AnyValue {
    use serde_json::Value::{Array, Bool, Null, Number, Object, String};
    let value = match json {
        Null => None,
        Bool(value) => Some(Value::BoolValue(value)),
        Number(number) => Some(match number.as_i64() {
            Some(number) => Value::IntValue(number),
            None => Value::StringValue(number.to_string()),
        }),
        String(text) => Some(Value::StringValue(text)),
        Array(values) => Some(list(values.into_iter().map(of_json).collect())),
        Object(fields) => {
            let fields = fields.into_iter().map(|(key, value)| KeyValue {
                key,
                value: Some(of_json(value)),
                key_strindex: 0,
            });
            Some(Value::KvlistValue(KeyValueList { values: fields.collect() }))
        }
    };
    AnyValue { value }
}

pub(super) const fn list(values: Vec<AnyValue>) -> Value {
    Value::ArrayValue(ArrayValue { values })
}

/// `name=value,name=value`, with `%` as in URLs (OpenTelemetry, "Environment Variable Specification").
///
/// # Errors
///
/// When a part is not `name=value`.
pub(super) fn pairs(text: &str) -> Result<Vec<(String, String)>> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let pair = |part: &str| {
        let (name, value) = part.split_once('=').context("a part is not NAME=VALUE")?;
        let name = name.trim();
        ensure!(!name.is_empty(), "a part has no name");
        let value = percent_decode_str(value.trim()).decode_utf8();
        Ok((name.to_owned(), value.with_context(|| format!("{name} is not UTF-8"))?.into_owned()))
    };
    parts.map(pair).collect()
}
