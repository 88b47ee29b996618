//! `podgate cluster rollout status`: waits until all nodes enforce a policy as it is now.
//!
//! In: the policy's object as the API server has it, and what each agent says that it enforces. Out: on how
//! many of the nodes with selected pods it is enforced, and what keeps the others. A node counts when its
//! agent enforces that version, or a later one, on every pod of the node that the policy selects.

mod node_state;
mod target;

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::ensure;
use clap::{Args, Subcommand};
use serde::Serialize;

use self::{node_state::NodeState, target::Target};
use super::{
    super::{output::say, rollout::milliseconds},
    Session, TimeLimit, timeout,
};
use crate::{
    api::RolloutReport,
    fleet::{Fleet, names},
};

/// Between two questions to the nodes that are not done.
const PAUSE: Duration = Duration::from_millis(500);

/// Wait until all nodes enforce a policy
#[derive(Debug, Args)]
pub(super) struct ClusterRolloutOptions {
    #[command(subcommand)]
    verb: RolloutVerb,
}

#[derive(Debug, Subcommand)]
enum RolloutVerb {
    Status(RolloutStatusOptions),
}

/// Wait until all nodes enforce a policy as it is now
#[derive(Debug, Args)]
#[command(after_help = "\
A node counts when its agent enforces this version of the policy, or a later one, on each pod of the node that the \
policy selects. A node whose agent does not answer never counts: it may have such pods. Kinds: netpol, and cnp, anp \
and banp for the cluster-wide ones. Where both Kubernetes' and AWS's ClusterNetworkPolicy have a policy of that name, \
the group chooses, as in clusternetworkpolicy.networking.k8s.aws/base.

Exit code 1: it is not enforced everywhere when the time is up; the nodes are named with the reason.

Example:
  kubectl podgate rollout status netpol/api -n production
  kubectl podgate rollout status cnp/base --timeout 30s
  kubectl podgate rollout status --all -A")]
pub(super) struct RolloutStatusOptions {
    /// The policy
    #[arg(value_name = "KIND/NAME", required_unless_present = "all", conflicts_with = "all")]
    policy: Option<String>,
    /// All NetworkPolicies of the namespace; with -A of all namespaces, and the cluster-wide policies
    #[arg(long)]
    all: bool,
    /// How long to wait, for example 30s or 5m; 0 for as long as it takes
    #[arg(long, value_name = "TIME", value_parser = timeout, default_value = "5m")]
    timeout: TimeLimit,
}

/// How far one policy has come.
#[derive(Debug, Serialize)]
struct PolicyProgress {
    policy: String,
    /// On every node.
    enforced: bool,
    /// Nodes that enforce it on pods that it selects.
    enforced_nodes: usize,
    /// Those, and all that have such pods or may have some.
    selecting_nodes: usize,
    nodes: usize,
    pods: usize,
    slowest: Option<Slowest>,
    waiting: Vec<WaitingNode>,
}

#[derive(Debug, Serialize)]
struct Slowest {
    node: String,
    latency_microseconds: u64,
}

#[derive(Debug, Serialize)]
struct WaitingNode {
    node: String,
    reason: String,
}

/// What is known of each node, for each policy that is waited for.
type States = BTreeMap<String, Vec<NodeState>>;

impl ClusterRolloutOptions {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        match self.verb {
            RolloutVerb::Status(options) => options.run(session).await,
        }
    }
}

impl RolloutStatusOptions {
    async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        let Self { policy, all: _, timeout: TimeLimit(limit) } = self;
        let started = Instant::now();
        let targets = match &policy {
            Some(policy) => vec![Target::get(session, policy).await?],
            None => Target::list(session).await?,
        };
        ensure!(!targets.is_empty(), "there is no policy{}", session.scope());
        let mut states = States::new();
        let shows_progress = io::stderr().is_terminal();
        loop {
            let fleet = session.find(&session.agents).await?;
            ask(session, fleet, &targets, &mut states).await;
            let waiting = states.values().filter(|states| !states.iter().all(NodeState::is_done)).count();
            let is_over = limit.is_some_and(|limit| started.elapsed() >= limit);
            if waiting == 0 || is_over {
                break;
            }
            if shows_progress {
                say(format_args!("\rwaiting for {waiting} of {} nodes\x1b[K", states.len()));
            }
            let left = limit.map(|limit| limit.saturating_sub(started.elapsed()));
            tokio::time::sleep(left.map_or(PAUSE, |left| left.min(PAUSE))).await;
        }
        if shows_progress {
            say("\r\x1b[K");
        }
        let progress: Vec<PolicyProgress> =
            targets.iter().enumerate().map(|(index, target)| progress(target, index, &states)).collect();
        // It says itself what it lacks.
        session.print_as(session.output, &progress, |progress| text(progress, policy.is_some()))?;
        let late = progress.iter().filter(|policy| !policy.enforced).count();
        ensure!(
            late == 0,
            "{late} of {} policies not enforced everywhere after {} s",
            progress.len(),
            started.elapsed().as_secs()
        );
        Ok(ExitCode::SUCCESS)
    }
}

/// Asks the nodes that are not done.
async fn ask(session: &Session, mut fleet: Fleet, targets: &[Target], states: &mut States) {
    states.retain(|node, _| fleet.nodes.contains_key(node));
    fleet
        .nodes
        .retain(|node, _| states.get(node).is_none_or(|states| !states.iter().all(NodeState::is_done)));
    let mut command = vec!["rollout"];
    if let [target] = targets {
        command.push(&target.policy);
    }
    command.extend(["-o", "json"]);
    let mut survey = session
        .ask(&fleet, &command, |report| {
            let report: RolloutReport = serde_json::from_value(report)?;
            Ok(NodeState::of_all(&report, targets))
        })
        .await;
    for answer in survey.take_answers() {
        states.insert(answer.node, answer.said);
    }
    for (node, failure) in &survey.failures {
        let state = NodeState::Waiting { pods: None, reason: failure.to_string() };
        states.insert(node.clone(), vec![state; targets.len()]);
    }
}

fn progress(target: &Target, index: usize, states: &States) -> PolicyProgress {
    let mut progress = PolicyProgress {
        policy: target.policy.clone(),
        enforced: true,
        enforced_nodes: 0,
        selecting_nodes: 0,
        nodes: states.len(),
        pods: 0,
        slowest: None,
        waiting: Vec::new(),
    };
    for (node, states) in states {
        match &states[index] {
            NodeState::Done { pods, latency_microseconds } => {
                if *pods > 0 {
                    progress.enforced_nodes += 1;
                    progress.selecting_nodes += 1;
                    progress.pods += pods;
                }
                let is_slower = |slowest: &Slowest| *latency_microseconds > slowest.latency_microseconds;
                if *pods > 0 && progress.slowest.as_ref().is_none_or(is_slower) {
                    let latency_microseconds = *latency_microseconds;
                    progress.slowest = Some(Slowest { node: node.clone(), latency_microseconds });
                }
            }
            NodeState::Waiting { pods, reason } => {
                progress.enforced = false;
                progress.selecting_nodes += 1;
                progress.pods += pods.unwrap_or(0);
                progress.waiting.push(WaitingNode { node: node.clone(), reason: reason.clone() });
            }
        }
    }
    progress
}

fn text(policies: &[PolicyProgress], is_one: bool) -> String {
    let mut text = String::new();
    for policy in policies {
        let PolicyProgress {
            policy, enforced_nodes, selecting_nodes, nodes, pods: _, slowest, waiting, ..
        } = policy;
        let name = if is_one { String::new() } else { format!("{policy}: ") };
        let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for WaitingNode { node, reason } in waiting {
            by_reason.entry(reason).or_default().push(node);
        }
        for (reason, nodes) in by_reason {
            text += &format!("{name}{}: {reason}\n", names(&nodes));
        }
        if *selecting_nodes == 0 {
            text += &format!("{name}enforced on {nodes} of {nodes} nodes; none has pods that it selects\n");
            continue;
        }
        text +=
            &format!("{name}enforced on {enforced_nodes} of {selecting_nodes} nodes that have selected pods");
        if let Some(Slowest { node, latency_microseconds }) = slowest {
            text += &format!(", slowest {} ({node})", milliseconds(*latency_microseconds));
        }
        text.push('\n');
    }
    text
}
