//! The policy that is waited for, as the API server has it.

use anyhow::{Context as _, bail};
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
        Kind,
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

/// What kubectl calls the kinds.
const KINDS: [(Kind, &[&str]); 6] = [
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
];

impl Target {
    /// `text`: as in `netpol/api`.
    pub(super) async fn get(session: &Session, text: &str) -> anyhow::Result<Self> {
        let (kind, name) =
            text.split_once('/')
                .filter(|(_, name)| !name.is_empty() && !name.contains('/'))
                .with_context(|| format!("{}: a policy is KIND/NAME, as in netpol/api", printable(text)))?;
        let kind = kind.split_once('.').map_or(kind, |(kind, _)| kind);
        let known = KINDS.iter().find(|(_, words)| words.iter().any(|word| word.eq_ignore_ascii_case(kind)));
        let Some((kind, _)) = known else {
            bail!("{}: a kind is netpol, cnp, anp or banp", printable(kind));
        };
        let Some(resource) = resource(session, *kind).await? else {
            bail!("the API server does not know the kind {kind}");
        };
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
        Ok(Self::of(*kind, &object))
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
