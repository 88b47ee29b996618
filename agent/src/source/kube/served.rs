//! At which version an API server serves a kind.
//!
//! Kinds of Kubernetes itself have one. Those of custom resource definitions may be served at several, at
//! none, or only at versions that are not known here: the last is no reason to think that there are no such
//! objects.

use kube::{
    Api, Client, Error,
    api::{ApiResource, ListParams},
};

use super::{
    calico::{CalicoGroups, CalicoKindState},
    decode::{Kind, KindInfo},
    object::{self, ApiObject},
};

#[derive(Debug)]
pub(crate) enum Served {
    /// Here its objects are listed and watched.
    At(ApiResource),
    /// The server does not know the kind: there are no objects.
    Nowhere,
    /// Only at these versions, which are not known here.
    Unknown(Vec<String>),
    /// A kind of another engine of which this agent may not look whether the server knows it, or that it may
    /// not list, as the server says.
    Forbidden(Error),
}

/// Asks the server. A version is asked for itself: while a server starts it may leave some out where it names
/// them all.
///
/// # Errors
///
/// When the server is away, or refuses to say.
pub(crate) async fn look(client: &Client, kind: Kind, calico: &CalicoGroups) -> Result<Served, Error> {
    let KindInfo { api_versions: versions, is_custom, .. } = kind.info();
    if kind.is_of_calico() {
        match calico.look(client, kind).await? {
            CalicoKindState::Custom => {}
            CalicoKindState::Absent => return Ok(Served::Nowhere),
            CalicoKindState::Forbidden(error) => return Ok(Served::Forbidden(error)),
        }
    }
    if kind.is_of_cloud() {
        if !calico.is_first(kind).await && !calico.has_group_of(client, kind).await? {
            return Ok(Served::Nowhere);
        }
        let served = look_at_versions(client, kind).await?;
        calico.was_looked_for(kind).await;
        // Where there is no such kind, no one has to be allowed to list it.
        return match served {
            Served::Forbidden(_) if !calico.has_group_of(client, kind).await? => Ok(Served::Nowhere),
            served => Ok(served),
        };
    }
    if !is_custom {
        return Ok(Served::At(object::resource(kind, versions[0])));
    }
    look_at_versions(client, kind).await
}

async fn look_at_versions(client: &Client, kind: Kind) -> Result<Served, Error> {
    let versions = kind.info().api_versions;
    for version in versions {
        let resource = object::resource(kind, version);
        let one = ListParams::default().limit(1);
        match Api::<ApiObject>::all_with(client.clone(), &resource).list(&one).await {
            Ok(_) => return Ok(Served::At(resource)),
            Err(error) if is_not_found(&error) => {}
            // An agent that is newer than its ClusterRole enforces all the rest.
            Err(Error::Api(status)) if kind.is_of_cloud() && status.code == 403 => {
                return Ok(Served::Forbidden(Error::Api(status)));
            }
            Err(error) => return Err(error),
        }
    }
    let resource = object::resource(kind, versions[0]);
    let groups = client.list_api_groups().await?.groups.into_iter();
    let others = groups.filter(|group| group.name == resource.group).flat_map(|group| group.versions);
    let mut unknown = Vec::new();
    for version in others.map(|version| version.group_version) {
        match client.list_api_group_resources(&version).await {
            Ok(list) if list.resources.iter().any(|served| served.name == resource.plural) => {
                unknown.push(version);
            }
            Ok(_) => {}
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(if unknown.is_empty() { Served::Nowhere } else { Served::Unknown(unknown) })
}

/// The server has no such resource.
pub(super) fn is_not_found(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 404)
}
