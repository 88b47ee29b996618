//! Kubernetes Events on pods of this node, where their owners look: `kubectl describe pod`.
//!
//! In: pods that should be isolated and are not, or whose policies a limit closes, and why. Out: one Event
//! for each. As with policies, nothing waits for it.

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::{
    Api, Client,
    api::ListParams,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use podgate_core::{
    model::{Name, ObjectName},
    printable::printable,
};
use tokio::sync::mpsc;

use super::events::CONTROLLER;

const ACTION: &str = "Enforce";

/// Pods that wait to be written about; beyond that they stand in the log and in `podgate status` alone.
const WAITING: usize = 256;

/// What to write of one pod.
#[derive(Debug)]
pub struct PodWarning {
    pub pod: ObjectName,
    pub reason: &'static str,
    pub note: String,
}

/// Writes Events for as long as the sender lives. `node`: where this agent runs.
pub fn warn_pods(client: Client, node: &Name) -> mpsc::Sender<PodWarning> {
    let (sender, mut warnings) = mpsc::channel::<PodWarning>(WAITING);
    let reporter = Reporter { controller: CONTROLLER.into(), instance: Some(node.to_string()) };
    let recorder = Recorder::new(client.clone(), reporter);
    tokio::spawn(async move {
        while let Some(warning) = warnings.recv().await {
            if let Err(error) = publish(&client, &recorder, &warning).await {
                tracing::warn!(pod = %warning.pod, error = format!("{error:#}"), "cannot write an Event");
            }
        }
    });
    sender
}

async fn publish(client: &Client, recorder: &Recorder, warning: &PodWarning) -> anyhow::Result<()> {
    let PodWarning { pod, reason, note } = warning;
    // `kubectl describe` looks for Events by the uid. Pods may be listed, not got one by one.
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace);
    let named = ListParams::default().fields(&format!("metadata.name={}", pod.name));
    let found = api.list_metadata(&named).await.context("cannot look for the pod")?;
    let uid = found.items.into_iter().next().and_then(|pod| pod.metadata.uid);
    let event = Event {
        type_: EventType::Warning,
        reason: (*reason).into(),
        note: Some(printable(note).into_owned()),
        action: ACTION.into(),
        secondary: None,
    };
    let regarding = ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: Some(pod.namespace.to_string()),
        name: Some(pod.name.to_string()),
        uid,
        ..Default::default()
    };
    recorder.publish(&event, &regarding).await.context("cannot write it")
}
