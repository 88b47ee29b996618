//! Where the agents are.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
};

use anyhow::Result;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, Error, Resource, ResourceExt as _,
    api::{ListParams, ObjectList, PartialObjectMeta},
};
use podgate_core::printable::printable;
use serde::de::DeserializeOwned;

use super::{Failure, connection::api_failure};

/// Pods of the DaemonSet.
const LABEL: &str = "app.kubernetes.io/name=podgate";
/// Their container that runs the agent.
pub(super) const CONTAINER: &str = "agent";

/// A DaemonSet for Linux runs on these.
const LINUX: &str = "kubernetes.io/os=linux";

/// Objects in one answer of the API server.
const PAGE: u32 = 500;

/// Which nodes are asked.
#[derive(Clone, Debug, Default)]
pub struct FleetQuery {
    /// In which the agents run.
    pub namespace: String,
    /// Only nodes with these labels.
    pub selector: Option<String>,
    /// Only these; empty: all.
    pub nodes: Vec<String>,
}

/// The agent of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    pub pod: String,
    /// The content of its image: agents with one image have one version.
    pub image: String,
}

/// All nodes that are asked, and how each can be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    pub nodes: BTreeMap<String, Result<Agent, Failure>>,
    /// Why it is not known which nodes lack an agent.
    pub unlisted: Option<String>,
}

/// Looks for the agents.
///
/// # Errors
///
/// When the API server does not list pods, when there is no agent at all, or when a node that was named does
/// not exist.
pub async fn find(client: &Client, query: &FleetQuery) -> Result<Fleet> {
    let FleetQuery { namespace, selector, nodes: named } = query;
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let (pods, nodes) = tokio::join!(
        all_pages(LABEL, |page| {
            let api = &api;
            async move { api.list(&page).await }
        }),
        node_names(client, selector.as_deref()),
    );
    let pods = pods.map_err(|error| api_failure(&error, &format!("list pods in namespace {namespace}")))?;
    let mut fleet = Fleet::default();
    let mut found: BTreeMap<String, (u8, Result<Agent, Failure>)> = BTreeMap::new();
    for pod in &pods {
        let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) else { continue };
        let ranked = agent(pod);
        let better = found.get(node).is_none_or(|(rank, _)| ranked.0 > *rank);
        if better {
            found.insert(printable(node).into_owned(), ranked);
        }
    }
    anyhow::ensure!(
        !found.is_empty(),
        "no pod in namespace {namespace} has the label {LABEL}: is podgate installed there? (--agent-namespace)"
    );
    fleet.nodes.extend(found.into_iter().map(|(node, (_, agent))| (node, agent)));
    match nodes {
        Ok(nodes) => {
            if selector.is_some() {
                fleet.nodes.retain(|node, _| nodes.iter().any(|(name, _)| name == node));
            }
            for (node, _) in nodes.into_iter().filter(|(_, is_linux)| *is_linux) {
                fleet.nodes.entry(node).or_insert(Err(Failure::NoAgent));
            }
        }
        Err(error) if selector.is_some() => return Err(api_failure(&error, "list nodes")),
        Err(error) => fleet.unlisted = Some(format!("{:#}", api_failure(&error, "list nodes"))),
    }
    if !named.is_empty() {
        let unknown = named.iter().find(|node| !fleet.nodes.contains_key(*node));
        if let Some(unknown) = unknown {
            anyhow::bail!("no node {} runs podgate", printable(unknown));
        }
        fleet.nodes.retain(|node, _| named.contains(node));
    }
    anyhow::ensure!(!fleet.nodes.is_empty(), "no node has the labels {}", selector.as_deref().unwrap_or("-"));
    Ok(fleet)
}

/// The agent that is on a node now.
///
/// # Errors
///
/// Why it cannot be asked.
pub async fn find_on(client: &Client, namespace: &str, node: &str) -> Result<Agent, Failure> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let on_node = ListParams::default().labels(LABEL).fields(&format!("spec.nodeName={node}"));
    let pods = api.list(&on_node).await.map_err(|error| match &error {
        Error::Api(status) if status.code == 401 => Failure::Unauthorized,
        error => Failure::Connection(format!("{:#}", api_failure(error, "list pods"))),
    })?;
    let best = pods.items.iter().map(agent).max_by_key(|(rank, _)| *rank);
    best.map_or(Err(Failure::NoAgent), |(_, agent)| agent)
}

/// How good an answer of this pod would be (while a pod is replaced, a node has two), and the agent in it.
fn agent(pod: &Pod) -> (u8, Result<Agent, Failure>) {
    let name = printable(&pod.name_any()).into_owned();
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let container = containers.iter().find(|container| container.name == CONTAINER);
    let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or("Unknown");
    let waits = container.and_then(|container| container.state.as_ref()?.waiting.as_ref()?.reason.as_deref());
    let runs = container.map_or(phase == "Running", |container| {
        container.state.as_ref().is_none_or(|state| state.running.is_some())
    });
    if phase != "Running" || !runs {
        let state = printable(waits.unwrap_or(phase)).into_owned();
        return (0, Err(Failure::NotRunning(format!("pod {name}: {state}"))));
    }
    let image = container.map(|container| match &*container.image_id {
        "" => container.image.clone(),
        id => id.to_owned(),
    });
    let is_ending = pod.meta().deletion_timestamp.is_some();
    (if is_ending { 1 } else { 2 }, Ok(Agent { pod: name, image: image.unwrap_or_default() }))
}

/// The names of nodes, and whether an agent should be on each.
async fn node_names(client: &Client, selector: Option<&str>) -> Result<Vec<(String, bool)>, Error> {
    let api: Api<Node> = Api::all(client.clone());
    let api = &api;
    let nodes =
        all_pages(selector.unwrap_or(LINUX), |page| async move { api.list_metadata(&page).await }).await?;
    let is_linux = |node: &PartialObjectMeta<Node>| {
        node.labels().get("kubernetes.io/os").is_none_or(|system| system == "linux")
    };
    Ok(nodes.iter().map(|node| (printable(&node.name_any()).into_owned(), is_linux(node))).collect())
}

/// All objects with these labels, page by page.
pub(crate) async fn all_pages<K, F>(selector: &str, list: impl Fn(ListParams) -> F) -> Result<Vec<K>, Error>
where
    K: Clone,
    F: Future<Output = Result<ObjectList<K>, Error>>,
{
    let mut page = ListParams::default().labels(selector).limit(PAGE);
    let mut all = Vec::new();
    loop {
        let list = list(page.clone()).await?;
        all.extend(list.items);
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(all),
        }
    }
}

/// `namespace/name` of each object with these labels.
///
/// # Errors
///
/// When the API server does not list them.
pub async fn labelled<K>(api: &Api<K>, selector: &str) -> Result<BTreeSet<String>>
where
    K: Clone + DeserializeOwned + Debug + Resource<DynamicType = ()>,
{
    let listed = all_pages(selector, |page| async move { api.list_metadata(&page).await }).await;
    let listed = listed.map_err(|error| api_failure(&error, &format!("list {}", K::plural(&()))))?;
    let name = |object: PartialObjectMeta<K>| {
        let namespace = object.namespace().map(|namespace| namespace + "/").unwrap_or_default();
        printable(&(namespace + &object.name_any())).into_owned()
    };
    Ok(listed.into_iter().map(name).collect())
}
