//! `podgate cluster flows`: decisions on all nodes, merged by time.
//!
//! In: the lines of each agent's `flows -o json`. Out: one list, with the node of each. Memory is bounded
//! however much the nodes send: of the past the newest flows are kept, of what comes each node has a share of
//! what may wait. What does not fit is counted and said.

mod live;
mod merge;
mod past;

use std::{process::ExitCode, time::Duration};

use anyhow::{bail, ensure};
use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};
use podgate_core::printable::make_printable;

use super::{
    super::{
        flows::{FlowSelection, PortFilter, Printer},
        output::{Format, Output},
    },
    Session,
};
use crate::api::FlowRecord;

/// Of the past, without `--last`.
const NEWEST: usize = 10_000;

/// For what the API server says of one pod.
const PATIENCE: Duration = Duration::from_secs(10);

/// Show new connections and drops on all nodes, merged by time
#[derive(Debug, Args)]
#[command(after_help = "\
Flows are those of the namespace, by either end; -A shows all. They are in the order of the times that the nodes' \
clocks say; with --follow, those that arrive within one second of each other are. Each agent keeps the \
kinds of flows of its node, across restarts, with the times of their first and last packets.

--follow goes on when an agent is replaced or away, and says how long a node was not seen. What nodes send faster \
than it is shown is left out and counted, on standard error.

Example:
  kubectl podgate flows --denied --since 15m -A
  kubectl podgate flows --follow --denied -n production -o json")]
pub(super) struct ClusterFlowsOptions {
    #[command(flatten)]
    selection: FlowSelection,
    /// Only the newest N of all nodes' flows that match [default: 10000]
    #[arg(long, value_name = "N", conflicts_with = "follow")]
    last: Option<usize>,
}

impl ClusterFlowsOptions {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        let format = match session.output {
            Output::Table | Output::Wide => Format::Table,
            Output::Json => Format::Json,
            Output::Yaml | Output::Csv | Output::Html => {
                bail!("flows are printed as a table or, with -o json, as one object in each line")
            }
        };
        ensure!(session.selector.is_none(), "-l does not select flows; see --pod and -n");
        let absent = match &self.selection.pod {
            Some(pod) if !may_exist(session, pod).await => Some(pod.clone()),
            Some(_) | None => None,
        };
        let absent = absent.map(|pod| format!("no pod {pod}: the API server does not have it"));
        let (command, last) = (self.command(session), self.last.unwrap_or(NEWEST));
        let fleet = session.find(&session.agents).await?;
        let width = fleet.nodes.keys().map(|node| node.chars().count()).max().unwrap_or(0);
        let printer = Printer::new(format, self.selection.colours.on_stdout(), Some(width));
        if !self.selection.follow {
            return past::show(session, &fleet, &command, (last, absent), printer).await;
        }
        match absent {
            Some(error) => bail!(error),
            None => live::follow(session, &fleet, &command, printer).await,
        }
    }

    /// What is run beside each agent.
    fn command(&self, session: &Session) -> Vec<String> {
        let Self { selection: FlowSelection { follow, denied, pod, port, since, until, colours: _ }, last } =
            self;
        let mut command = vec!["flows", "-o", "json"].into_iter().map(str::to_owned).collect::<Vec<_>>();
        let mut option = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                command.push(format!("{name}={value}"));
            }
        };
        option("--pod", pod.clone());
        option("--port", port.as_ref().map(PortFilter::to_string));
        option("--since", since.map(|since| format!("{since}s")));
        option("--until", until.map(|until| format!("{until}s")));
        option("--last", last.map(|last| last.to_string()));
        option("--namespace", session.namespace.clone().filter(|_| pod.is_none()));
        command.extend(denied.then(|| "--denied".to_owned()));
        command.extend(follow.then(|| "--follow".to_owned()));
        command.push("--end-with-stdin".to_owned());
        command
    }
}

/// False: the API server says that there is no such pod. Who may not ask it learns that there are no flows.
async fn may_exist(session: &Session, pod: &str) -> bool {
    let Some((namespace, name)) = pod.split_once('/') else { return true };
    let pods: Api<Pod> = Api::namespaced(session.client.clone(), namespace);
    let only = ListParams::default().fields(&format!("metadata.name={name}"));
    let found = tokio::time::timeout(PATIENCE, pods.list_metadata(&only)).await;
    !matches!(found, Ok(Ok(found)) if found.items.is_empty())
}

/// A line of an agent. `None`: this program does not know such lines.
pub(super) fn record(node: &str, line: &[u8]) -> Option<FlowRecord> {
    let mut value = serde_json::from_slice(line).ok()?;
    make_printable(&mut value);
    let mut flow: FlowRecord = serde_json::from_value(value).ok()?;
    node.clone_into(&mut flow.node);
    Some(flow)
}
