//! Which objects are ours: by `kind` and `apiVersion`.
//!
//! Kinds and API groups that are not ours are ignored in silence. One of our kinds in an API group that holds
//! it, or once held it, but at a version that is not read, is a fault: its author meant us.

use std::fmt;

use serde_json::Value;

use crate::model::{ClusterPolicyKind, Name, ObjectName};

use super::field::{Field, Reported, quoted};

/// A kind that podgate reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Namespace,
    Node,
    Pod,
    NetworkPolicy,
    ClusterPolicy(ClusterPolicyKind),
    Service,
    EndpointSlice,
}

/// What tells two objects apart; printed as in `NetworkPolicy shop/web`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectId {
    pub(super) kind: Kind,
    pub(super) namespace: Option<Name>,
    pub(super) name: Name,
}

pub(super) enum Recognised {
    Object(Kind),
    /// A list, with the kind that its items have when they do not say it.
    List(Option<Kind>),
    Foreign,
}

/// API groups in which one of our kinds at an unknown version is a mistake.
const OUR_GROUPS: [&str; 5] =
    ["", "networking.k8s.io", "extensions", "discovery.k8s.io", "policy.networking.k8s.io"];

pub(super) fn recognise(root: &Field<'_>, listed: Option<Kind>) -> Result<Recognised, Reported> {
    let object = root.object()?;
    let kind = object.get("kind");
    let api_version = object.get("apiVersion");
    if let (Some(listed), false) = (listed, kind.is_given()) {
        return Ok(Recognised::Object(listed));
    }
    let name = kind.required_text()?;
    if let Some(ours) = Kind::named(name) {
        return Ok(match is_ours(ours, &api_version)? {
            true => Recognised::Object(ours),
            false => Recognised::Foreign,
        });
    }
    Ok(match name.strip_suffix("List") {
        Some("") => Recognised::List(None),
        Some(item) => match Kind::named(item) {
            Some(ours) if is_ours(ours, &api_version)? => Recognised::List(Some(ours)),
            _ => Recognised::Foreign,
        },
        None => Recognised::Foreign,
    })
}

fn is_ours(kind: Kind, api_version: &Field<'_>) -> Result<bool, Reported> {
    let text = api_version.required_text()?;
    if kind.api_versions().contains(&text) {
        return Ok(true);
    }
    let group = text.split_once('/').map_or("", |(group, _version)| group);
    if OUR_GROUPS.contains(&group) {
        let known = kind.api_versions().join(" and ");
        let message = format!("{} is not known for a {kind}, only {known}", quoted(text));
        return Err(api_version.fault(message));
    }
    Ok(false)
}

impl Kind {
    pub(crate) const ALL: [Self; 9] = [
        Self::Namespace,
        Self::Node,
        Self::Pod,
        Self::NetworkPolicy,
        Self::ClusterPolicy(ClusterPolicyKind::ClusterNetworkPolicy),
        Self::ClusterPolicy(ClusterPolicyKind::AdminNetworkPolicy),
        Self::ClusterPolicy(ClusterPolicyKind::BaselineAdminNetworkPolicy),
        Self::Service,
        Self::EndpointSlice,
    ];

    /// What an object says that it is, whether or not podgate reads its version.
    pub(super) fn claimed(value: &Value) -> Option<Self> {
        value.get("kind").and_then(Value::as_str).and_then(Self::named)
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "Namespace" => Self::Namespace,
            "Node" => Self::Node,
            "Pod" => Self::Pod,
            "NetworkPolicy" => Self::NetworkPolicy,
            "ClusterNetworkPolicy" => Self::ClusterPolicy(ClusterPolicyKind::ClusterNetworkPolicy),
            "AdminNetworkPolicy" => Self::ClusterPolicy(ClusterPolicyKind::AdminNetworkPolicy),
            "BaselineAdminNetworkPolicy" => {
                Self::ClusterPolicy(ClusterPolicyKind::BaselineAdminNetworkPolicy)
            }
            "Service" => Self::Service,
            "EndpointSlice" => Self::EndpointSlice,
            _ => return None,
        })
    }

    pub(crate) fn is_namespaced(self) -> bool {
        matches!(self, Self::Pod | Self::NetworkPolicy | Self::Service | Self::EndpointSlice)
    }

    /// The versions that are read, the newest first. All of one kind have the same fields.
    pub(crate) const fn api_versions(self) -> &'static [&'static str] {
        match self {
            Self::Namespace | Self::Node | Self::Pod | Self::Service => &["v1"],
            Self::NetworkPolicy => &["networking.k8s.io/v1"],
            Self::ClusterPolicy(ClusterPolicyKind::ClusterNetworkPolicy) => {
                &["policy.networking.k8s.io/v1beta1", "policy.networking.k8s.io/v1alpha2"]
            }
            Self::ClusterPolicy(_) => &["policy.networking.k8s.io/v1alpha1"],
            Self::EndpointSlice => &["discovery.k8s.io/v1"],
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ClusterPolicy(kind) => return kind.fmt(f),
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
        })
    }
}

impl ObjectId {
    pub(crate) fn of_cluster(kind: Kind, name: Name) -> Self {
        Self { kind, namespace: None, name }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn namespace(&self) -> Option<&Name> {
        self.namespace.as_ref()
    }

    pub(crate) fn name(&self) -> &Name {
        &self.name
    }

    pub(crate) fn of_namespace(kind: Kind, ObjectName { namespace, name }: ObjectName) -> Self {
        Self { kind, namespace: Some(namespace), name }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name } = self;
        match namespace {
            Some(namespace) => write!(f, "{kind} {namespace}/{name}"),
            None => write!(f, "{kind} {name}"),
        }
    }
}
