//! `podgate rollout`: which version of each policy this node enforces, and since when.

use std::{path::PathBuf, process::ExitCode};

use anyhow::bail;
use clap::Args;

use super::{output::Format, table::TextTable};
use crate::{
    api::{self, EnforcedObject, PolicyRollout, RolloutReport},
    options::SOCKET,
    server::Ask,
};

/// Show which version of each policy this node enforces, and since when
#[derive(Debug, Args)]
#[command(after_help = "\
VERSION is the resourceVersion of the object that is enforced, LATENCY the time from its watch event until it was, or \
from the list that the agent begins with: after a restart of the agent SINCE and LATENCY are of that. \
Policies that select no pod of this node are listed, too. Policies of manifests have no version.

`kubectl podgate rollout status` waits until all nodes enforce a policy.

Example:
  podgate rollout production/api
  podgate rollout \"ClusterNetworkPolicy base\" -o json")]
pub(super) struct RolloutOptions {
    /// Only this policy; for a cluster-wide policy, its kind and name
    #[arg(value_name = "NAMESPACE/NAME")]
    policy: Option<String>,
    /// Socket of the running agent
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

impl RolloutOptions {
    pub(super) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let ask = Ask::Rollout { policy: self.policy.clone() };
        let report: RolloutReport = api::ask(&self.socket, &ask)?;
        if let (Some(policy), [], Format::Table) = (&self.policy, &*report.policies, format) {
            bail!("the agent of this node enforces no policy {policy}");
        }
        format.print(&report, text)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn text(RolloutReport { policies, .. }: &RolloutReport) -> String {
    let mut table = TextTable::with_header(&[
        "POLICY",
        "VERSION",
        "GENERATION",
        "SINCE",
        "LATENCY",
        "PODS",
        "UNENFORCED",
    ]);
    let mut notes = String::new();
    for PolicyRollout { policy, object, pods, unenforced } in policies {
        let [version, generation, since, latency] = match object {
            None => ["-"; 4].map(str::to_owned),
            Some(EnforcedObject { uid: _, resource_version, generation, since, latency_microseconds }) => [
                resource_version.clone().unwrap_or_else(|| "-".into()),
                generation.map_or_else(|| "-".into(), |generation| generation.to_string()),
                since.clone(),
                milliseconds(*latency_microseconds),
            ],
        };
        let counts = [pods.to_string(), unenforced.len().to_string()];
        table.row([vec![policy.clone(), version, generation, since, latency], counts.into()].concat());
        notes.extend(
            unenforced.iter().map(|pod| format!("{policy}: {} is not enforced: {}\n", pod.pod, pod.reason)),
        );
    }
    let gap = if notes.is_empty() { "" } else { "\n" };
    format!("{table}{gap}{notes}")
}

/// As in `41 ms`.
pub(super) fn milliseconds(microseconds: u64) -> String {
    format!("{} ms", microseconds.div_ceil(1_000))
}
