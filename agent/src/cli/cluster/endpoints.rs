//! `podgate cluster endpoints`: the pods of all nodes as their agents see them.

use std::process::ExitCode;

use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use podgate_core::model::ObjectName;
use serde::Serialize;

use super::{
    super::endpoints::{endpoint_row, pod_name, unenforced_notes},
    super::table::TextTable,
    Session,
};
use crate::{
    api::EndpointStatus,
    fleet::{self, Answer},
};

/// Show the pods of all nodes: interface, addresses, and the policies that isolate them
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  kubectl podgate endpoints -n production
  kubectl podgate endpoints production/frontend-7d9c
  kubectl podgate endpoints -A -l app=frontend")]
pub(super) struct ClusterEndpointsOptions {
    /// Only this pod
    #[arg(value_name = "NAMESPACE/POD", value_parser = pod_name)]
    pod: Option<ObjectName>,
}

#[derive(Debug, Serialize)]
struct ClusterEndpoints {
    items: Vec<NodeEndpoint>,
}

#[derive(Debug, Serialize)]
struct NodeEndpoint {
    node: String,
    #[serde(flatten)]
    endpoint: EndpointStatus,
}

impl ClusterEndpointsOptions {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        let wanted = self.pod.map(|pod| pod.to_string());
        let labelled = match &session.selector {
            Some(selector) => {
                let pods: Api<Pod> = session.api();
                Some(fleet::labelled(&pods, selector).await?)
            }
            None => None,
        };
        let fleet = session.find(&session.agents).await?;
        // Veths whose pod is not known yet belong to no namespace.
        let is_meant = |endpoint: &EndpointStatus| match (&endpoint.pod, &wanted) {
            (pod, Some(wanted)) => pod.as_ref() == Some(wanted),
            (Some(pod), None) => session.is_meant(pod, labelled.as_ref()),
            (None, None) => session.namespace.is_none() && labelled.is_none(),
        };
        let mut survey = session
            .ask(&fleet, &["endpoints", "-o", "json"], |list| {
                let mut endpoints: Vec<EndpointStatus> = serde_json::from_value(list)?;
                endpoints.retain(is_meant);
                Ok(endpoints)
            })
            .await;
        let of_node = |Answer { node, said, .. }: Answer<Vec<EndpointStatus>>| {
            said.into_iter().map(move |endpoint| NodeEndpoint { node: node.clone(), endpoint })
        };
        let items: Vec<NodeEndpoint> = survey.take_answers().flat_map(of_node).collect();
        if items.is_empty() {
            match &wanted {
                Some(pod) => {
                    session.note(format_args!("no agent that answered knows an interface of pod {pod}"));
                }
                None => session.note(format_args!("no pod{} is known", session.scope())),
            }
        }
        session.conclude(&survey, ClusterEndpoints { items }, text)
    }
}

fn text(ClusterEndpoints { items }: &ClusterEndpoints, is_wide: bool) -> String {
    let mut header = vec!["NODE", "POD", "STATE", "ADDRESSES", "INGRESS", "EGRESS"];
    if is_wide {
        header.extend(["INTERFACE", "REVISION"]);
    }
    let mut table = TextTable::with_header(&header);
    for NodeEndpoint { node, endpoint } in items {
        let [pod, interface, state, addresses, ingress, egress, revision] = endpoint_row(endpoint);
        let mut row = vec![node.clone(), pod, state, addresses, ingress, egress];
        if is_wide {
            row.extend([interface, revision]);
        }
        table.row(row);
    }
    let notes = unenforced_notes(items.iter().map(|item| &item.endpoint));
    let gap = if notes.is_empty() { "" } else { "\n" };
    format!("{table}{gap}{notes}")
}
