//! The policy that is waited for, as the API server has it.

use anyhow::{Context as _, bail, ensure};
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DynamicObject, PartialObjectMeta},
};
use podgate_core::{
    model::{ClusterPolicyKind, ObjectName},
    printable::printable,
};

use super::super::Session;
use crate::{
    fleet::{all_pages, api_failure},
    source::{
        Kind, group,
        kube::{CalicoGroups, Served, look},
    },
};

/// One version of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// As agents name it.
    pub(super) policy: String,
    pub(super) uid: Option<String>,
    pub(super) resource_version: Option<String>,
}

/// The kinds by kubectl's names. One name may stand for kinds of several API groups.
const KINDS: [(Kind, &[&str]); 7] = [
    (Kind::NetworkPolicy, &["netpol", "networkpolicy", "networkpolicies"]),
    (Kind::ApplicationNetworkPolicy, &["applicationnetworkpolicy", "applicationnetworkpolicies"]),
    (Kind::FqdnNetworkPolicy, &["fqdnnp", "fqdnnetworkpolicy", "fqdnnetworkpolicies"]),
    (
        Kind::ClusterPolicy(ClusterPolicyKind::ClusterNetworkPolicy),
        &["cnp", "clusternetworkpolicy", "clusternetworkpolicies"],
    ),
    (
        Kind::ClusterPolicy(ClusterPolicyKind::AdminNetworkPolicy),
        &["anp", "adminnetworkpolicy", "adminnetworkpolicies"],
    ),
    (
        Kind::ClusterPolicy(ClusterPolicyKind::BaselineAdminNetworkPolicy),
        &["banp", "baselineadminnetworkpolicy", "baselineadminnetworkpolicies"],
    ),
    (
        Kind::ClusterPolicy(ClusterPolicyKind::AwsClusterNetworkPolicy),
        &["cnp", "clusternetworkpolicy", "clusternetworkpolicies"],
    ),
];

impl Target {
    /// `text`: as in `netpol/api`.
    pub(super) async fn get(session: &Session, text: &str) -> anyhow::Result<Self> {
        let (kind, name) =
            text.split_once('/')
                .filter(|(_, name)| !name.is_empty() && !name.contains('/'))
                .with_context(|| format!("{}: a policy is KIND/NAME, as in netpol/api", printable(text)))?;
        let kinds = kinds(kind)?;
        let (mut found, mut failure) = (Vec::new(), None);
        for kind in &kinds {
            match Self::of_kind(session, *kind, name).await {
                Ok(target) => found.extend(target),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match (found.len(), failure) {
            (0, Some(failure)) => Err(failure),
            (2.., _) => bail!(
                "{} is a policy of several kinds: choose one by its group, as in {}/{}",
                printable(text),
                kinds
                    .iter()
                    .map(|kind| full_name(*kind))
                    .collect::<Vec<_>>()
                    .join(&format!("/{} or ", printable(name))),
                printable(name)
            ),
            (_, _) => {
                found.pop().with_context(|| format!("the API server does not know the kind {}", kinds[0]))
            }
        }
    }

    /// `None`: the server does not have the kind.
    async fn of_kind(session: &Session, kind: Kind, name: &str) -> anyhow::Result<Option<Self>> {
        let Some(resource) = resource(session, kind).await? else { return Ok(None) };
        let is_namespaced = kind.info().is_namespaced;
        let api: Api<DynamicObject> = match &session.namespace {
            Some(namespace) if is_namespaced => {
                Api::namespaced_with(session.client.clone(), namespace, &resource)
            }
            None if is_namespaced => bail!("-A does not say which policy is meant; name its namespace by -n"),
            Some(_) | None => Api::all_with(session.client.clone(), &resource),
        };
        let object = api.get_metadata(name).await;
        let object =
            object.map_err(|error| api_failure(&error, &format!("get {kind} {}", printable(name))))?;
        Ok(Some(Self::of(kind, &object)))
    }

    /// All policies of the namespaces that are shown.
    pub(super) async fn list(session: &Session) -> anyhow::Result<Vec<Self>> {
        let mut targets = Vec::new();
        for (kind, _) in KINDS {
            let is_namespaced = kind.info().is_namespaced;
            if !is_namespaced && session.namespace.is_some() {
                continue;
            }
            let Some(resource) = resource(session, kind).await? else { continue };
            let api: Api<DynamicObject> = match &session.namespace {
                Some(namespace) => Api::namespaced_with(session.client.clone(), namespace, &resource),
                None => Api::all_with(session.client.clone(), &resource),
            };
            let api = &api;
            let selector = session.selector.as_deref().unwrap_or_default();
            let listed = all_pages(selector, |page| async move { api.list_metadata(&page).await }).await;
            let listed = listed.map_err(|error| api_failure(&error, &format!("list {}", resource.plural)))?;
            targets.extend(listed.iter().map(|object| Self::of(kind, object)));
        }
        Ok(targets)
    }

    fn of(kind: Kind, object: &PartialObjectMeta<DynamicObject>) -> Self {
        let name = object.name_any();
        let policy = match object.namespace() {
            Some(namespace) => kind.policy_name(ObjectName::new(namespace, name)).to_string(),
            None => format!("{kind} {name}"),
        };
        Self {
            policy: printable(&policy).into_owned(),
            uid: object.uid(),
            resource_version: object.resource_version(),
        }
    }
}

/// The kinds that a name stands for; as in kubectl, a group after it chooses one.
fn kinds(text: &str) -> anyhow::Result<Vec<Kind>> {
    let (word, given) = text.split_once('.').map_or((text, None), |(word, given)| (word, Some(given)));
    let is_named = |words: &[&str]| words.iter().any(|known| known.eq_ignore_ascii_case(word));
    let is_of = |kind: &Kind| {
        let mut versions = kind.info().api_versions.iter();
        given.is_none_or(|given| {
            versions.any(|version| given == group(version) || given == version_and_group(version))
        })
    };
    let named = KINDS.iter().filter(|(_, words)| is_named(words)).map(|(kind, _)| *kind);
    let kinds: Vec<Kind> = named.filter(is_of).collect();
    ensure!(!kinds.is_empty(), "{}: a kind is netpol, cnp, anp or banp", printable(text));
    Ok(kinds)
}

/// As in `v1.networking.k8s.io`.
fn version_and_group(api_version: &str) -> String {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    format!("{version}.{group}")
}

/// As in `networkpolicy.networking.k8s.io`.
fn full_name(kind: Kind) -> String {
    let info = kind.info();
    let group = info.api_versions.first().map_or("", |version| group(version));
    format!("{}.{group}", info.name.to_lowercase())
}

/// `None`: the server does not have the kind.
async fn resource(session: &Session, kind: Kind) -> anyhow::Result<Option<ApiResource>> {
    let served = look(&session.client, kind, &CalicoGroups::default()).await;
    match served.map_err(|error| api_failure(&error, &format!("list {kind}")))? {
        Served::At(resource) => Ok(Some(resource)),
        Served::Nowhere => Ok(None),
        Served::Forbidden(error) => Err(api_failure(&error, &format!("list {kind}"))),
        Served::Unknown(versions) => {
            bail!(
                "the API server has {kind} only at versions that this program does not know: {}",
                versions.join(", ")
            )
        }
    }
}
