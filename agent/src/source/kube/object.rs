//! An object as the API server sends it: any JSON value at all, so that none can stop a watch.

use kube::{
    Resource,
    api::{ApiResource, ObjectMeta},
    core::GroupVersionKind,
};
use podgate_core::model::ObjectName;
use serde::{Deserialize, Deserializer, de::DeserializeSeed as _};
use serde_json::Value;
use std::borrow::Cow;

use super::{
    decode::{Kind, ObjectId},
    shape,
};

/// The value, and what the watch itself must know of it.
#[derive(Clone, Debug)]
pub(super) struct ApiObject {
    pub(super) value: Value,
    meta: ObjectMeta,
}

/// A pod, of which far less is kept than of other objects.
#[derive(Clone, Debug)]
pub(super) struct PodObject(pub(super) ApiObject);

impl ApiObject {
    /// `None`: it has no name.
    pub(super) fn id(&self, kind: Kind) -> Option<ObjectId> {
        let name = self.meta.name.as_deref()?.into();
        Some(match &self.meta.namespace {
            Some(namespace) if kind.info().is_namespaced => {
                ObjectId::of_namespace(kind, ObjectName { namespace: namespace.as_str().into(), name })
            }
            _ => ObjectId::of_cluster(kind, name),
        })
    }

    /// What tells this version of it from others: resourceVersion and generation.
    pub(super) fn revision(&self) -> (Option<&str>, Option<i64>) {
        (self.meta.resource_version.as_deref(), self.meta.generation)
    }

    pub(super) fn uid(&self) -> Option<String> {
        self.meta.uid.clone()
    }
}

impl<'de> Deserialize<'de> for ApiObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        shape::OBJECT.deserialize(deserializer).map(Self::from)
    }
}

impl<'de> Deserialize<'de> for PodObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        shape::POD.deserialize(deserializer).map(|value| Self(value.into()))
    }
}

impl From<PodObject> for ApiObject {
    fn from(PodObject(object): PodObject) -> Self {
        object
    }
}

impl From<Value> for ApiObject {
    fn from(value: Value) -> Self {
        let text = |field| value.get("metadata")?.get(field)?.as_str().map(ToOwned::to_owned);
        let meta = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            uid: text("uid"),
            resource_version: text("resourceVersion"),
            generation: value.pointer("/metadata/generation").and_then(Value::as_i64),
            ..ObjectMeta::default()
        };
        Self { value, meta }
    }
}

/// Where objects of a kind are found, at one of its versions.
pub(super) fn resource(kind: Kind, api_version: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let id = GroupVersionKind::gvk(group, version, kind.info().name);
    ApiResource::from_gvk_with_plural(&id, kind.info().plural)
}

impl Resource for ApiObject {
    type DynamicType = ApiResource;
    type Scope = kube::core::DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

impl Resource for PodObject {
    type DynamicType = ApiResource;
    type Scope = kube::core::DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        ApiObject::kind(resource)
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        ApiObject::group(resource)
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        ApiObject::version(resource)
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        ApiObject::plural(resource)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn any_value_is_an_object_and_has_an_id_when_it_has_a_name() {
        for (value, expected) in [
            (json!({"metadata": {"name": "web", "namespace": "shop"}}), Some("Pod shop/web")),
            (json!({"metadata": {"name": "web"}, "spec": 7}), Some("Pod web")),
            (json!({"metadata": {"name": 7, "namespace": []}}), None),
            (json!({"metadata": "web"}), None),
            (json!([1, 2]), None),
            (json!(null), None),
        ] {
            let object: ApiObject = serde_json::from_value(value.clone()).unwrap();
            let id = object.id(Kind::Pod).map(|id| id.to_string());
            assert_eq!(id.as_deref(), expected, "{value}");
            assert_eq!(object.value, value);
        }
    }

    #[test]
    fn kinds_are_found_under_the_paths_of_the_api() {
        for (kind, path) in [
            (Kind::Pod, "/api/v1/pods"),
            (Kind::NetworkPolicy, "/apis/networking.k8s.io/v1/networkpolicies"),
            (Kind::EndpointSlice, "/apis/discovery.k8s.io/v1/endpointslices"),
        ] {
            assert_eq!(ApiObject::url_path(&resource(kind, kind.info().api_versions[0]), None), path);
        }
    }
}
