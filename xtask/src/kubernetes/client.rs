//! A client of the API server inside its network: for tests that write more than `kubectl` can, or look
//! closer.
//!
//! In: a kubeconfig, a place, objects as JSON. Out: answers; many requests are on their way at the same time.

use std::path::Path;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

use crate::lab::Place;

/// Requests at once. The server handles some hundreds; more only wait in it.
const AT_ONCE: usize = 64;

/// Runs `task` with a client inside `place`.
pub(crate) fn run<T: Send, F: Future<Output = Result<T>>>(
    place: &Place,
    kubeconfig: &Path,
    task: impl FnOnce(Client) -> F + Send,
) -> Result<T> {
    // Sockets belong to the network namespace of the thread that makes them: the runtime has no other thread.
    place.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.context("making a runtime")?.block_on(async {
            let client = connect(kubeconfig).await.context("making a client")?;
            task(client).await
        })
    })
}

async fn connect(kubeconfig: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Creates all objects, and gives those that have one their status, which the server takes by a request of
/// its own.
pub(super) async fn create_all(client: &Client, objects: &[Value]) -> Result<()> {
    stream::iter(objects).map(|object| create(client, object)).buffer_unordered(AT_ONCE).try_collect().await
}

async fn create(client: &Client, object: &Value) -> Result<()> {
    let name = name(object)?;
    let api = api_of(client, object)?;
    let body: DynamicObject = serde_json::from_value(object.clone()).context("an object as JSON")?;
    let what = || format!("{} {name}", object["kind"]);
    api.create(&PostParams::default(), &body).await.with_context(|| format!("creating {}", what()))?;
    if let Some(status) = object.get("status") {
        let patch = Patch::Merge(json!({"status": status}));
        api.patch_status(name, &PatchParams::default(), &patch)
            .await
            .with_context(|| format!("the status of {}", what()))?;
    }
    Ok(())
}

/// Creates or changes objects one after the other, as `kubectl apply --server-side` does, and gives them
/// their status.
pub(super) async fn apply_all(client: &Client, objects: &[Value]) -> Result<()> {
    let owner = PatchParams::apply("xtask").force();
    for object in objects {
        let (api, name) = (api_of(client, object)?, name(object)?);
        let what = || format!("{} {name}", object["kind"]);
        // Its schema has one address of a kind in the status of a node: those of two families cannot be
        // applied.
        let mut body = object.clone();
        body.as_object_mut().map(|fields| fields.remove("status"));
        api.patch(name, &owner, &Patch::Apply(body)).await.with_context(what)?;
        if let Some(status) = object.get("status") {
            let patch = Patch::Merge(json!({"status": status}));
            api.patch_status(name, &PatchParams::default(), &patch).await.with_context(what)?;
        }
    }
    Ok(())
}

pub(super) async fn delete_all(client: &Client, objects: &[Value]) -> Result<()> {
    for object in objects {
        let name = name(object)?;
        let now = DeleteParams::default().grace_period(0);
        let deleted = api_of(client, object)?.delete(name, &now).await;
        deleted.with_context(|| format!("deleting {} {name}", object["kind"]))?;
    }
    Ok(())
}

fn name(object: &Value) -> Result<&str> {
    object["metadata"]["name"].as_str().context("an object has metadata.name")
}

/// Where objects of this kind are, in the object's namespace if it has one.
pub(super) fn api_of(client: &Client, object: &Value) -> Result<Api<DynamicObject>> {
    let field = |name: &str| object[name].as_str().with_context(|| format!("an object has {name}"));
    let version = field("apiVersion")?;
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, field("kind")?));
    Ok(match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    })
}
