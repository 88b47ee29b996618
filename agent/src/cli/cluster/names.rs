//! `podgate cluster names`: what the pods of all nodes have learnt of the names in their rules.

use std::{collections::BTreeSet, process::ExitCode};

use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use podgate_core::model::ObjectName;
use serde::Serialize;

use super::{
    super::endpoints::pod_name,
    super::names::{COLUMNS, name_row, notes},
    super::table::TextTable,
    Session,
};
use crate::{
    api::PodNames,
    fleet::{self, Answer},
};

/// Show the addresses that pods of all nodes have learnt for names in their rules
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  kubectl podgate names -n production
  kubectl podgate names production/frontend-7d9c
  kubectl podgate names -A -l app=frontend")]
pub(super) struct ClusterNamesOptions {
    /// Only this pod
    #[arg(value_name = "NAMESPACE/POD", value_parser = pod_name)]
    pod: Option<ObjectName>,
}

#[derive(Debug, Serialize)]
struct ClusterNames {
    items: Vec<NodeNames>,
}

#[derive(Debug, Serialize)]
struct NodeNames {
    node: String,
    #[serde(flatten)]
    names: PodNames,
}

impl ClusterNamesOptions {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        let wanted = self.pod.map(|pod| pod.to_string());
        let labelled: Option<BTreeSet<String>> = match &session.selector {
            Some(selector) => {
                let pods: Api<Pod> = session.api();
                Some(fleet::labelled(&pods, selector).await?)
            }
            None => None,
        };
        let fleet = session.find(&session.agents).await?;
        let is_meant = |names: &PodNames| match &wanted {
            Some(wanted) => names.pod == *wanted,
            None => session.is_meant(&names.pod, labelled.as_ref()),
        };
        let mut survey = session
            .ask(&fleet, &["names", "-o", "json"], |list| {
                let mut names: Vec<PodNames> = serde_json::from_value(list)?;
                names.retain(is_meant);
                Ok(names)
            })
            .await;
        let of_node = |Answer { node, said, .. }: Answer<Vec<PodNames>>| {
            said.into_iter().map(move |names| NodeNames { node: node.clone(), names })
        };
        let items: Vec<NodeNames> = survey.take_answers().flat_map(of_node).collect();
        if items.is_empty() {
            match &wanted {
                Some(pod) => {
                    session.note(format_args!("no agent that answered knows rules with names of pod {pod}"));
                }
                None => session.note(format_args!("no pod{} has rules with names", session.scope())),
            }
        }
        session.conclude(&survey, ClusterNames { items }, |names, _| text(names))
    }
}

fn text(ClusterNames { items }: &ClusterNames) -> String {
    let mut header = vec!["NODE"];
    header.extend(COLUMNS);
    let mut table = TextTable::with_header(&header);
    for NodeNames { node, names } in items {
        for entry in &names.entries {
            let mut row = vec![node.clone()];
            row.extend(name_row(&names.pod, entry));
            table.row(row);
        }
    }
    let notes = items.iter().flat_map(|item| notes(&item.names)).map(|note| format!("{note}\n"));
    let notes: String = notes.collect();
    let gap = if notes.is_empty() { "" } else { "\n" };
    format!("{table}{gap}{notes}")
}
