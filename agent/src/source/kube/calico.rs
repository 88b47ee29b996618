//! Whether a cluster has Calico's custom resources: found out once for all kinds of Calico's.
//!
//! Without Calico this is one request every few seconds. `projectcalico.org/v3` may also be served by
//! Calico's own API server, which goes when Calico goes and shows what is stored elsewhere: it is read only
//! where it is a custom resource of its own.

use std::{sync::Arc, time::Duration};

use kube::{
    Api, Client, Error,
    api::{ApiResource, DynamicObject, GroupVersionKind},
};
use tokio::{sync::Mutex, time::Instant};

use super::{
    decode::{Kind, KindInfo},
    served::is_not_found,
};

/// How long an answer holds: less than what is between two looks, so that all kinds learn of a group at once.
const HOLDS: Duration = Duration::from_secs(5);

/// Which of Calico's groups a server knows. Clones share what was found out.
#[derive(Clone, Debug, Default)]
pub(crate) struct CalicoGroups(Arc<Mutex<Option<KnownGroups>>>);

/// What was found, and when.
type KnownGroups = (Instant, Vec<String>);

const GROUPS: [&str; 2] = ["projectcalico.org", "crd.projectcalico.org"];

impl CalicoGroups {
    /// Whether objects of a kind of Calico's, or service accounts for its policies, may be there.
    ///
    /// # Errors
    ///
    /// When the server is away, or refuses to say.
    pub(super) async fn may_serve(&self, client: &Client, kind: Kind) -> Result<bool, Error> {
        let groups = self.groups(client).await?;
        let KindInfo { plural, api_versions, .. } = kind.info();
        match kind {
            Kind::ServiceAccount => Ok(!groups.is_empty()),
            Kind::Calico(..) => {
                let group = super::decode::group(api_versions[0]);
                Ok(groups.iter().any(|known| known == group) && is_custom(client, plural, group).await?)
            }
            Kind::Namespace
            | Kind::Node
            | Kind::Pod
            | Kind::NetworkPolicy
            | Kind::ClusterPolicy(_)
            | Kind::Service
            | Kind::EndpointSlice => Ok(true),
        }
    }

    /// One asks, the others wait for its answer.
    async fn groups(&self, client: &Client) -> Result<Vec<String>, Error> {
        let mut known = self.0.lock().await;
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
async fn is_custom(client: &Client, plural: &str, group: &str) -> Result<bool, Error> {
    let id = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let resource = ApiResource::from_gvk_with_plural(&id, "customresourcedefinitions");
    let definitions: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    match definitions.get_metadata(&format!("{plural}.{group}")).await {
        Ok(_) => Ok(true),
        Err(error) if is_not_found(&error) => Ok(false),
        Err(error) => Err(error),
    }
}
