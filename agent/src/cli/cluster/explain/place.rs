//! Where the ends of a connection are, as the API server has them.
//!
//! Objects are looked for by their names in a list: who may list pods needs no further right.

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Error,
    api::{ListParams, ObjectList},
};
use podgate_core::{model::ObjectName, printable::printable};

use super::super::Session;
use crate::fleet::api_failure;

/// Where a pod is, which says who enforces its policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PodPlace {
    /// With a network of its own.
    OnNode(String),
    /// No policy selects it. `None`: it is on no node yet.
    HostNetwork(Option<String>),
    Unscheduled,
    Finished,
}

impl PodPlace {
    /// `None`: there is no such pod.
    pub(super) async fn find(session: &Session, name: &ObjectName) -> anyhow::Result<Option<Self>> {
        let api: Api<Pod> = Api::namespaced(session.client.clone(), &name.namespace);
        let what = format!("list pods in namespace {}", name.namespace);
        let pods = within(session, &what, api.list(&named(&name.name))).await?;
        Ok(pods.items.first().map(Self::of))
    }

    fn of(pod: &Pod) -> Self {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let spec = pod.spec.as_ref();
        let node = spec.and_then(|spec| spec.node_name.as_deref());
        let node = node.map(|node| printable(node).into_owned());
        match (phase, spec.and_then(|spec| spec.host_network), node) {
            (Some("Succeeded" | "Failed"), ..) => Self::Finished,
            (_, Some(true), node) => Self::HostNetwork(node),
            (_, _, Some(node)) => Self::OnNode(node),
            (_, _, None) => Self::Unscheduled,
        }
    }
}

pub(super) async fn node_exists(session: &Session, name: &str) -> anyhow::Result<bool> {
    let api: Api<Node> = Api::all(session.client.clone());
    let nodes = within(session, "list nodes", api.list_metadata(&named(name))).await?;
    Ok(!nodes.items.is_empty())
}

fn named(name: &str) -> ListParams {
    ListParams::default().fields(&format!("metadata.name={name}"))
}

async fn within<K: Clone>(
    session: &Session,
    what: &str,
    list: impl Future<Output = Result<ObjectList<K>, Error>>,
) -> anyhow::Result<ObjectList<K>> {
    let listed = match session.deadline {
        None => list.await,
        Some(deadline) => tokio::time::timeout(deadline, list).await.with_context(|| {
            format!("cannot {what}: the API server does not answer within {} s", deadline.as_secs())
        })?,
    };
    listed.map_err(|error| api_failure(&error, what))
}
