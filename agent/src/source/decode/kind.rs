//! Which objects are ours: by `kind` and `apiVersion`.
//!
//! Kinds and API groups that are not ours are ignored in silence. One of our kinds in an API group that holds
//! it, or once held it, but at a version that is not read, is a fault: its author meant us.

mod calico;
mod info;
mod object_id;

use std::fmt;

use podgate_core::model::{CalicoApi, ClusterPolicyKind, NetworkPolicyKind, ObjectName};
use serde_json::Value;

pub(crate) use calico::CalicoKind;
pub(crate) use object_id::ObjectId;

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
    /// Calico's, in one of its stores.
    Calico(CalicoApi, CalicoKind),
    /// Only policies of Calico's look at its labels.
    ServiceAccount,
    /// AWS's form of a NetworkPolicy.
    ApplicationNetworkPolicy,
    /// GKE's.
    FqdnNetworkPolicy,
}

pub(super) enum Recognised {
    Object(Kind),
    /// A list, with the kind that its items have when they do not say it.
    List(Option<Kind>),
    Foreign,
}

/// What the decoder, the watches and the Events need to know about a kind.
pub(crate) struct KindInfo {
    pub(crate) name: &'static str,
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
    if Kind::named(name).next().is_some() {
        return Ok(ours(name, &api_version)?.map_or(Recognised::Foreign, Recognised::Object));
    }
    Ok(match name.strip_suffix("List") {
        Some("") => Recognised::List(None),
        Some(item) if Kind::named(item).next().is_some() => {
            ours(item, &api_version)?.map_or(Recognised::Foreign, |ours| Recognised::List(Some(ours)))
        }
        Some(_) | None => Recognised::Foreign,
    })
}

/// The kind of this name at this version; `None`: it is another's.
fn ours(name: &str, api_version: &Field<'_>) -> Result<Option<Kind>, Reported> {
    let text = api_version.required_text()?;
    let knows = |kind: &Kind| kind.info().api_versions.contains(&text);
    if let Some(kind) = Kind::named(name).find(knows) {
        return Ok(Some(kind));
    }
    let is_of_group =
        |kind: &Kind| kind.info().api_versions.iter().any(|version| group(version) == group(text));
    // One of our kinds at an unknown version of a group of ours is a mistake. Calico has other kinds of the
    // same names as Kubernetes.
    let of_group = Kind::named(name).find(is_of_group);
    let meant = of_group.or_else(|| {
        let mut kinds = Kind::ALL.into_iter().filter(|kind| !kind.is_of_another_engine());
        let is_our_group = group(text) == FORMER_GROUP || kinds.any(|kind| is_of_group(&kind));
        Kind::named(name).next().filter(|kind| is_our_group && !matches!(kind, Kind::Calico(..)))
    });
    let Some(kind) = meant else { return Ok(None) };
    let known = kind.info().api_versions.join(" and ");
    Err(api_version.fault(format!("{} is not known for a {kind}, only {known}", quoted(text))))
}

/// The part of an API version before the slash; the core group has none.
pub(crate) fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _version)| group)
}

impl Kind {
    pub(crate) const ALL: [Self; 31] = [
        Self::Namespace,
        Self::Node,
        Self::Pod,
        Self::NetworkPolicy,
        Self::ClusterPolicy(ClusterPolicyKind::ClusterNetworkPolicy),
        Self::ClusterPolicy(ClusterPolicyKind::AdminNetworkPolicy),
        Self::ClusterPolicy(ClusterPolicyKind::BaselineAdminNetworkPolicy),
        Self::ClusterPolicy(ClusterPolicyKind::AwsClusterNetworkPolicy),
        Self::ApplicationNetworkPolicy,
        Self::FqdnNetworkPolicy,
        Self::Service,
        Self::EndpointSlice,
        Self::ServiceAccount,
        Self::Calico(CalicoApi::V3, CalicoKind::ALL[0]),
        Self::Calico(CalicoApi::V3, CalicoKind::ALL[1]),
        Self::Calico(CalicoApi::V3, CalicoKind::ALL[2]),
        Self::Calico(CalicoApi::V3, CalicoKind::ALL[3]),
        Self::Calico(CalicoApi::V3, CalicoKind::ALL[4]),
        Self::Calico(CalicoApi::V3, CalicoKind::ALL[5]),
        Self::Calico(CalicoApi::V3, CalicoKind::ALL[6]),
        Self::Calico(CalicoApi::V3, CalicoKind::ALL[7]),
        Self::Calico(CalicoApi::V3, CalicoKind::ALL[8]),
        Self::Calico(CalicoApi::V1, CalicoKind::ALL[0]),
        Self::Calico(CalicoApi::V1, CalicoKind::ALL[1]),
        Self::Calico(CalicoApi::V1, CalicoKind::ALL[2]),
        Self::Calico(CalicoApi::V1, CalicoKind::ALL[3]),
        Self::Calico(CalicoApi::V1, CalicoKind::ALL[4]),
        Self::Calico(CalicoApi::V1, CalicoKind::ALL[5]),
        Self::Calico(CalicoApi::V1, CalicoKind::ALL[6]),
        Self::Calico(CalicoApi::V1, CalicoKind::ALL[7]),
        Self::Calico(CalicoApi::V1, CalicoKind::ALL[8]),
    ];

    /// Whether it is of interest only where Calico's custom resources are.
    pub(crate) fn is_of_calico(self) -> bool {
        self.of_calico().is_some() || self == Self::ServiceAccount
    }

    /// Whether only those who use another engine have its definition: without it, nothing is said of it.
    pub(crate) fn is_of_another_engine(self) -> bool {
        self.is_of_calico() || self.is_of_cloud()
    }

    /// Whether it is one of AWS's or GKE's.
    pub(crate) const fn is_of_cloud(self) -> bool {
        match self {
            Self::ClusterPolicy(ClusterPolicyKind::AwsClusterNetworkPolicy)
            | Self::ApplicationNetworkPolicy
            | Self::FqdnNetworkPolicy => true,
            Self::ClusterPolicy(
                ClusterPolicyKind::ClusterNetworkPolicy
                | ClusterPolicyKind::AdminNetworkPolicy
                | ClusterPolicyKind::BaselineAdminNetworkPolicy,
            )
            | Self::Namespace
            | Self::Node
            | Self::Pod
            | Self::NetworkPolicy
            | Self::Service
            | Self::EndpointSlice
            | Self::Calico(..)
            | Self::ServiceAccount => false,
        }
    }

    /// What an object of this kind is called as a policy of its namespace.
    pub(crate) fn policy_name(self, object: ObjectName) -> ObjectName {
        match self.of_network_policy() {
            Some(kind) => kind.policy_name(object),
            None => object,
        }
    }

    pub(super) const fn of_policy(kind: NetworkPolicyKind) -> Self {
        match kind {
            NetworkPolicyKind::NetworkPolicy => Self::NetworkPolicy,
            NetworkPolicyKind::ApplicationNetworkPolicy => Self::ApplicationNetworkPolicy,
            NetworkPolicyKind::FqdnNetworkPolicy => Self::FqdnNetworkPolicy,
        }
    }

    /// Of a policy with the meaning of a NetworkPolicy: which one it is.
    pub(super) const fn of_network_policy(self) -> Option<NetworkPolicyKind> {
        match self {
            Self::NetworkPolicy => Some(NetworkPolicyKind::NetworkPolicy),
            Self::ApplicationNetworkPolicy => Some(NetworkPolicyKind::ApplicationNetworkPolicy),
            Self::FqdnNetworkPolicy => Some(NetworkPolicyKind::FqdnNetworkPolicy),
            Self::Namespace
            | Self::Node
            | Self::Pod
            | Self::ClusterPolicy(_)
            | Self::Service
            | Self::EndpointSlice
            | Self::Calico(..)
            | Self::ServiceAccount => None,
        }
    }

    /// Which of Calico's kinds it is; `None`: one of Kubernetes'.
    const fn of_calico(self) -> Option<CalicoKind> {
        match self {
            Self::Calico(_, kind) => Some(kind),
            Self::Namespace
            | Self::Node
            | Self::Pod
            | Self::NetworkPolicy
            | Self::ClusterPolicy(_)
            | Self::Service
            | Self::EndpointSlice
            | Self::ServiceAccount
            | Self::ApplicationNetworkPolicy
            | Self::FqdnNetworkPolicy => None,
        }
    }

    /// What its watch is called: no two share a name.
    pub(crate) fn name_of_watch(self) -> String {
        let KindInfo { name, api_versions, .. } = self.info();
        if self.of_calico().is_some() || self.is_of_cloud() {
            format!("{name}.{}", group(api_versions[0]))
        } else {
            name.to_owned()
        }
    }

    /// What an object says that it is, whether or not podgate reads its version.
    pub(super) fn claimed(value: &Value) -> Option<Self> {
        let name = value.get("kind").and_then(Value::as_str)?;
        let version = value.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        let of_version = Self::named(name).find(|kind| kind.info().api_versions.contains(&version));
        // Only their version distinguishes objects of Calico's from others.
        of_version.or_else(|| Self::named(name).find(|kind| !matches!(kind, Self::Calico(..))))
    }

    /// Kinds of different groups may have the same name.
    pub(crate) fn named(name: &str) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |kind| kind.info().name == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::ClusterPolicy(kind) = self {
            return kind.fmt(f);
        }
        match self.of_calico() {
            Some(CalicoKind::Policy(kind)) => kind.fmt(f),
            Some(
                CalicoKind::Tier
                | CalicoKind::NetworkSet
                | CalicoKind::GlobalNetworkSet
                | CalicoKind::HostEndpoint,
            )
            | None => f.write_str(self.info().name),
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
            assert!(Kind::named(kind.info().name).any(|named| named == kind), "{kind}");
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
            if verbs == ["get"] {
                assert_eq!(texts(rule, "resources"), ["customresourcedefinitions"]);
                let names: BTreeSet<String> = texts(rule, "resourceNames").into_iter().collect();
                let custom = Kind::ALL.into_iter().filter(|kind| matches!(kind, Kind::Calico(..)));
                let custom = custom.map(Kind::info);
                let custom = custom.map(|info| format!("{}.{}", info.plural, group(info.api_versions[0])));
                assert_eq!(names, custom.collect());
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
