//! Which objects are ours: by `kind` and `apiVersion`.
//!
//! Kinds and API groups that are not ours are ignored in silence. One of our kinds in an API group that holds
//! it, or once held it, but at a version that is not read, is a fault: its author meant us.

use std::fmt;

use podgate_core::model::{ClusterPolicyKind, Name, ObjectName};
use serde_json::Value;

use super::{
    field::{Field, Reported, quoted},
    syntax::{self, Syntax},
};

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

/// What the decoder, the watches and the Events need to know about a kind.
pub(crate) struct KindInfo {
    pub(super) name: &'static str,
    /// As the paths of the API server and the rules of a ClusterRole write it.
    pub(crate) plural: &'static str,
    /// The versions that are read, the newest first. All of one kind have the same fields.
    pub(crate) api_versions: &'static [&'static str],
    pub(crate) is_namespaced: bool,
    /// Some kinds' names have no dots.
    pub(super) name_syntax: fn(&str) -> Syntax,
    /// The object says what is enforced: it has a mode, and its author gets Events.
    pub(crate) is_policy: bool,
    /// Its definition is installed by an administrator, or is not.
    pub(crate) is_custom: bool,
}

/// The API group that NetworkPolicies were in before `networking.k8s.io`.
const FORMER_GROUP: &str = "extensions";

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
    let known = kind.info().api_versions;
    if known.contains(&text) {
        return Ok(true);
    }
    if is_our_group(group(text)) {
        let message = format!("{} is not known for a {kind}, only {}", quoted(text), known.join(" and "));
        return Err(api_version.fault(message));
    }
    Ok(false)
}

/// One of our kinds at an unknown version of such a group is a mistake.
fn is_our_group(name: &str) -> bool {
    let versions = Kind::ALL.into_iter().flat_map(|kind| kind.info().api_versions);
    name == FORMER_GROUP || versions.into_iter().any(|version| group(version) == name)
}

/// The part of an API version before the slash; the core group has none.
pub(crate) fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _version)| group)
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
        Self::ALL.into_iter().find(|kind| kind.info().name == name)
    }

    pub(crate) const fn info(self) -> KindInfo {
        match self {
            Self::Namespace => KindInfo {
                name: "Namespace",
                plural: "namespaces",
                api_versions: &["v1"],
                is_namespaced: false,
                name_syntax: syntax::dns_label,
                is_policy: true,
                is_custom: false,
            },
            Self::Node => KindInfo {
                name: "Node",
                plural: "nodes",
                api_versions: &["v1"],
                is_namespaced: false,
                name_syntax: syntax::dns_subdomain,
                is_policy: false,
                is_custom: false,
            },
            Self::Pod => KindInfo {
                name: "Pod",
                plural: "pods",
                api_versions: &["v1"],
                is_namespaced: true,
                name_syntax: syntax::dns_subdomain,
                is_policy: false,
                is_custom: false,
            },
            Self::NetworkPolicy => KindInfo {
                name: "NetworkPolicy",
                plural: "networkpolicies",
                api_versions: &["networking.k8s.io/v1"],
                is_namespaced: true,
                name_syntax: syntax::dns_subdomain,
                is_policy: true,
                is_custom: false,
            },
            Self::ClusterPolicy(kind) => cluster_policy(kind),
            Self::Service => KindInfo {
                name: "Service",
                plural: "services",
                api_versions: &["v1"],
                is_namespaced: true,
                name_syntax: syntax::dns_label,
                is_policy: false,
                is_custom: false,
            },
            Self::EndpointSlice => KindInfo {
                name: "EndpointSlice",
                plural: "endpointslices",
                api_versions: &["discovery.k8s.io/v1"],
                is_namespaced: true,
                name_syntax: syntax::dns_subdomain,
                is_policy: false,
                is_custom: false,
            },
        }
    }
}

const fn cluster_policy(kind: ClusterPolicyKind) -> KindInfo {
    let (name, plural, api_versions): (_, _, &[_]) = match kind {
        ClusterPolicyKind::ClusterNetworkPolicy => (
            "ClusterNetworkPolicy",
            "clusternetworkpolicies",
            &["policy.networking.k8s.io/v1beta1", "policy.networking.k8s.io/v1alpha2"],
        ),
        ClusterPolicyKind::AdminNetworkPolicy => {
            ("AdminNetworkPolicy", "adminnetworkpolicies", &["policy.networking.k8s.io/v1alpha1"])
        }
        ClusterPolicyKind::BaselineAdminNetworkPolicy => (
            "BaselineAdminNetworkPolicy",
            "baselineadminnetworkpolicies",
            &["policy.networking.k8s.io/v1alpha1"],
        ),
    };
    KindInfo {
        name,
        plural,
        api_versions,
        is_namespaced: false,
        name_syntax: syntax::dns_subdomain,
        is_policy: true,
        is_custom: true,
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.info().name)
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_is_found_by_its_name() {
        for kind in Kind::ALL {
            assert_eq!(Kind::named(kind.info().name), Some(kind));
        }
    }

    #[test]
    fn the_cluster_role_grants_the_watch_of_every_kind_and_of_nothing_else() {
        let watched: BTreeSet<(String, String)> = Kind::ALL
            .into_iter()
            .map(Kind::info)
            .flat_map(|KindInfo { plural, api_versions, .. }| {
                api_versions.iter().map(move |version| (group(version).to_owned(), plural.to_owned()))
            })
            .collect();
        let role = include_str!("../../../../deploy/base/cluster-role.yaml");
        let role = role.split("\n---\n").next().expect("a document");
        let role: Value = serde_saphyr::from_str(role).expect("the role is YAML");
        let texts = |rule: &Value, field: &str| -> Vec<String> {
            let list = rule[field].as_array().expect("a list");
            list.iter().map(|text| text.as_str().expect("text").to_owned()).collect()
        };
        let mut granted = BTreeSet::new();
        for rule in role["rules"].as_array().expect("rules") {
            let verbs = texts(rule, "verbs");
            if verbs == ["create", "patch"] {
                assert_eq!(texts(rule, "resources"), ["events"]);
                continue;
            }
            assert_eq!(verbs, ["list", "watch"]);
            for group in texts(rule, "apiGroups") {
                granted.extend(texts(rule, "resources").into_iter().map(|plural| (group.clone(), plural)));
            }
        }
        assert_eq!(granted, watched);
    }
}
