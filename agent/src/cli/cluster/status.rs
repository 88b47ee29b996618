//! `podgate cluster status`: how the agent of each node is doing.

use std::process::ExitCode;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    super::{policies::ago, status::bound, table::TextTable},
    Session,
};
use crate::{
    api::{EndpointCounts, Latency, UnenforcedPod},
    fleet::Answer,
};

/// Show the state of the agent of each node
#[derive(Debug, Args)]
#[command(after_help = "\
PODS counts the pods that are identified, PENDING those that wait for their pod to be known, UNENFORCED those that \
should be isolated and are not. -o wide adds the agent's pod, the age of what it knows, the time within which all \
changes were enforced, and the number of its problems; -o json has the whole status of \
each node.

Example:
  kubectl podgate status
  kubectl podgate status -l node-role.kubernetes.io/worker -o wide")]
pub(super) struct ClusterStatusOptions {}

#[derive(Debug, Serialize)]
struct ClusterStatus {
    items: Vec<NodeItem>,
}

#[derive(Debug, Serialize)]
struct NodeItem {
    node: String,
    pod: String,
    /// As the agent said it, also what this program does not know.
    status: Value,
    #[serde(skip)]
    summary: NodeSummary,
}

/// The part of [`crate::api::Status`] that is shown. An agent of another version may lack any of it.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct NodeSummary {
    pub(super) ready: bool,
    pub(super) version: String,
    pub(super) uptime_seconds: u64,
    pub(super) sources: Vec<SourceSummary>,
    pub(super) endpoints: EndpointCounts,
    pub(super) unenforced: Vec<UnenforcedPod>,
    pub(super) policies: usize,
    pub(super) revision: u32,
    pub(super) latency: Latency,
    pub(super) last_error: Option<String>,
    pub(super) pins_lost: Option<String>,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct SourceSummary {
    pub(super) age_seconds: Option<u64>,
    pub(super) problems: Vec<String>,
}

impl ClusterStatusOptions {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        let Self {} = self;
        let mut agents = session.agents.clone();
        agents.selector.clone_from(&session.selector);
        let fleet = session.find(&agents).await?;
        let mut survey = session
            .ask(&fleet, &["status", "-o", "json"], |status| {
                NodeSummary::deserialize(&status).map(|summary| (status, summary))
            })
            .await;
        let item = |Answer { node, pod, said: (status, summary) }| NodeItem { node, pod, status, summary };
        let items = survey.take_answers().map(item).collect();
        session.conclude(&survey, ClusterStatus { items }, text)
    }
}

fn text(ClusterStatus { items }: &ClusterStatus, is_wide: bool) -> String {
    let mut header = vec![
        "NODE",
        "READY",
        "VERSION",
        "UPTIME",
        "PODS",
        "PENDING",
        "UNENFORCED",
        "POLICIES",
        "REVISION",
        "ERROR",
    ];
    if is_wide {
        header.extend(["AGENT", "UNMANAGED", "SOURCE AGE", "LATENCY", "PROBLEMS"]);
    }
    let mut table = TextTable::with_header(&header);
    let mut notes = String::new();
    for NodeItem { node, pod, summary, .. } in items {
        let NodeSummary {
            ready,
            version,
            uptime_seconds,
            sources,
            endpoints: EndpointCounts { identified, pending, unmanaged },
            unenforced,
            policies,
            revision,
            latency,
            last_error,
            pins_lost,
        } = summary;
        let mut row = vec![
            node.clone(),
            if *ready { "yes" } else { "no" }.into(),
            version.clone(),
            ago(*uptime_seconds),
            identified.to_string(),
            pending.to_string(),
            unenforced.len().to_string(),
            policies.to_string(),
            revision.to_string(),
            last_error.as_ref().or(pins_lost.as_ref()).cloned().unwrap_or_else(|| "-".into()),
        ];
        if is_wide {
            let age = sources.iter().filter_map(|source| source.age_seconds).max();
            let problems: usize = sources.iter().map(|source| source.problems.len()).sum();
            row.extend([
                pod.clone(),
                unmanaged.to_string(),
                age.map_or_else(|| "never".into(), |age| format!("{age} s")),
                if latency.count == 0 { "-".into() } else { bound(latency, 2) },
                problems.to_string(),
            ]);
        }
        table.row(row);
        notes.extend(unenforced.iter().map(|pod| format!("{node}: {pod}\n")));
    }
    let gap = if notes.is_empty() { "" } else { "\n" };
    format!("{table}{gap}{notes}")
}
