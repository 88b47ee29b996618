//! Whether a cluster has custom resources of other engines: found out once for all of their kinds.
//!
//! Without them this is one request every few seconds. `projectcalico.org/v3` may also be served by
//! Calico's own API server, which goes when Calico goes and shows what is stored elsewhere: it is read only
//! where it is a custom resource of its own.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use kube::{
    Api, Client, Error,
    api::{ApiResource, DynamicObject, GroupVersionKind},
};
use podgate_core::model::{CalicoApi, CalicoPolicyKind};
use tokio::{sync::Mutex, time::Instant};

use super::{
    decode::{CalicoKind, Kind, KindInfo},
    served::is_not_found,
};

/// What a server has of a kind of Calico's.
#[derive(Debug)]
pub(super) enum CalicoKindState {
    Absent,
    /// A custom resource definition stands for it.
    Custom,
    /// This agent may not look whether one does, as the server says.
    Forbidden(Error),
}

/// How long an answer holds: less than what is between two looks, so that all kinds learn of a group at once.
const HOLDS: Duration = Duration::from_secs(5);

/// Which API groups of other engines a server has. Clones share the findings.
///
/// A server that is starting may leave out groups when it lists them all, and policies of a missing group
/// would isolate nothing. So each kind is looked up by itself once, and by its group from then on.
#[derive(Clone, Debug, Default)]
pub(crate) struct CalicoGroups(Arc<Mutex<GroupsOfServer>>);

#[derive(Debug, Default)]
struct GroupsOfServer {
    known: Option<KnownGroups>,
    /// Kinds that were looked for by themselves.
    looked_for: BTreeSet<Kind>,
}

/// What was found, and when.
type KnownGroups = (Instant, Vec<String>);

/// Calico's, AWS's and GKE's.
pub(super) const GROUPS: [&str; 4] =
    ["projectcalico.org", "crd.projectcalico.org", "networking.k8s.aws", "networking.gke.io"];

/// Where one of these is, policies may name service accounts.
const POLICIES: [Kind; 4] = [
    Kind::Calico(CalicoApi::V1, CalicoKind::Policy(CalicoPolicyKind::GlobalNetworkPolicy)),
    Kind::Calico(CalicoApi::V1, CalicoKind::Policy(CalicoPolicyKind::NetworkPolicy)),
    Kind::Calico(CalicoApi::V3, CalicoKind::Policy(CalicoPolicyKind::GlobalNetworkPolicy)),
    Kind::Calico(CalicoApi::V3, CalicoKind::Policy(CalicoPolicyKind::NetworkPolicy)),
];

impl CalicoGroups {
    /// Whether objects of a kind of Calico's, or service accounts for its policies, may be there.
    ///
    /// # Errors
    ///
    /// When the server is away, or refuses to name its groups.
    pub(super) async fn look(&self, client: &Client, kind: Kind) -> Result<CalicoKindState, Error> {
        let groups = self.groups(client).await?;
        let is_first = self.is_first(kind).await;
        let asked: Vec<Kind> = match kind {
            Kind::Calico(..) => vec![kind],
            // They are of interest to policies alone.
            Kind::ServiceAccount => POLICIES.to_vec(),
            Kind::Namespace
            | Kind::Node
            | Kind::Pod
            | Kind::NetworkPolicy
            | Kind::ClusterPolicy(_)
            | Kind::Service
            | Kind::EndpointSlice
            | Kind::ApplicationNetworkPolicy
            | Kind::FqdnNetworkPolicy => Vec::new(),
        };
        let mut state = CalicoKindState::Absent;
        for KindInfo { plural, api_versions, .. } in asked.into_iter().map(Kind::info) {
            let group = super::decode::group(api_versions[0]);
            let is_known = groups.iter().any(|known| known == group);
            if !is_known && !is_first {
                continue;
            }
            match definition(client, plural, group).await? {
                CalicoKindState::Custom => {
                    state = CalicoKindState::Custom;
                    break;
                }
                forbidden @ CalicoKindState::Forbidden(_) if is_known => state = forbidden,
                CalicoKindState::Forbidden(_) | CalicoKindState::Absent => {}
            }
        }
        self.was_looked_for(kind).await;
        Ok(state)
    }

    /// Whether the server knows the group of a kind of AWS's or GKE's: where it does not, no one has to be
    /// allowed to list the kind.
    ///
    /// # Errors
    ///
    /// As of [`Self::look`].
    pub(super) async fn has_group_of(&self, client: &Client, kind: Kind) -> Result<bool, Error> {
        let group = super::decode::group(kind.info().api_versions[0]);
        Ok(self.groups(client).await?.iter().any(|known| known == group))
    }

    /// Whether a kind has not been looked up by itself yet.
    pub(super) async fn is_first(&self, kind: Kind) -> bool {
        !self.0.lock().await.looked_for.contains(&kind)
    }

    /// Notes that a kind was looked up by itself, and the server has answered.
    pub(super) async fn was_looked_for(&self, kind: Kind) {
        self.0.lock().await.looked_for.insert(kind);
    }

    /// One asks, the others wait for its answer.
    async fn groups(&self, client: &Client) -> Result<Vec<String>, Error> {
        let known = &mut self.0.lock().await.known;
        if let Some((at, groups)) = &*known
            && at.elapsed() < HOLDS
        {
            return Ok(groups.clone());
        }
        let served = client.list_api_groups().await?.groups.into_iter().map(|group| group.name);
        let groups: Vec<String> = served.filter(|name| GROUPS.contains(&name.as_str())).collect();
        *known = Some((Instant::now(), groups.clone()));
        Ok(groups)
    }
}

/// Whether a definition of this custom resource exists.
async fn definition(client: &Client, plural: &str, group: &str) -> Result<CalicoKindState, Error> {
    let id = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let resource = ApiResource::from_gvk_with_plural(&id, "customresourcedefinitions");
    let definitions: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    match definitions.get_metadata(&format!("{plural}.{group}")).await {
        Ok(_) => Ok(CalicoKindState::Custom),
        Err(error) if is_not_found(&error) => Ok(CalicoKindState::Absent),
        Err(Error::Api(status)) if status.code == 403 => Ok(CalicoKindState::Forbidden(Error::Api(status))),
        Err(error) => Err(error),
    }
}
