//! The namespace of objects that name none, when the user has said which it is: `kubectl apply -n`.

use serde_json::{Map, Value};

use crate::source::decode::Kind;

/// Writes it into every object of a document that is of a namespace and names none, also into those of lists.
pub(super) fn fill(value: &mut Value, namespace: &str) {
    fill_as(value, None, namespace);
}

/// `listed`: what the items of a typed list are, when they do not say it themselves.
fn fill_as(value: &mut Value, listed: Option<Kind>, namespace: &str) {
    let Some(object) = value.as_object_mut() else { return };
    let name = object.get("kind").and_then(Value::as_str);
    // Kinds of the same name are all of them in namespaces.
    let kind = name.map_or(listed, |name| Kind::named(name).next());
    let is_namespaced = kind.is_some_and(|kind| kind.info().is_namespaced);
    if let Some(item) = name.and_then(|name| name.strip_suffix("List")) {
        let listed = Kind::named(item).next();
        for item in object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
            fill_as(item, listed, namespace);
        }
    } else if is_namespaced {
        let metadata = object.entry("metadata").or_insert(Value::Null);
        if metadata.is_null() {
            *metadata = Value::Object(Map::new());
        }
        let Some(metadata) = metadata.as_object_mut() else { return };
        let given = metadata.entry("namespace").or_insert(Value::Null);
        if given.is_null() || given == "" {
            *given = namespace.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_of_a_namespace_that_name_none_get_it() {
        let pod = |metadata: Value| json!({"kind": "Pod", "metadata": metadata});
        let table = [
            (pod(json!({"name": "a"})), pod(json!({"name": "a", "namespace": "x"}))),
            (pod(json!({"namespace": ""})), pod(json!({"namespace": "x"}))),
            (pod(json!({"namespace": "y"})), pod(json!({"namespace": "y"}))),
            (pod(Value::Null), pod(json!({"namespace": "x"}))),
            (json!({"kind": "Pod", "metadata": 1}), json!({"kind": "Pod", "metadata": 1})),
            (json!({"kind": "Node"}), json!({"kind": "Node"})),
            (json!({"kind": "Deployment"}), json!({"kind": "Deployment"})),
            (
                json!({"kind": "List", "items": [{"kind": "Service"}, {"kind": "PodList", "items": [{}]}]}),
                json!({"kind": "List", "items": [
                    {"kind": "Service", "metadata": {"namespace": "x"}},
                    {"kind": "PodList", "items": [{"metadata": {"namespace": "x"}}]},
                ]}),
            ),
            (json!([]), json!([])),
        ];
        for (mut value, expected) in table {
            fill(&mut value, "x");
            assert_eq!(value, expected);
        }
    }
}
