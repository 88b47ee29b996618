//! `podgate cluster`, which is `kubectl podgate`: the verbs of a node for all nodes at once.
//!
//! The binary under the name `kubectl-podgate` is this command. Its options are kubectl's own. Each verb ends
//! with the line that says how many nodes answered, on stderr; exit code 4 when some did not.

mod advise;
mod endpoints;
mod explain;
mod flows;
mod lines;
mod names;
mod policies;
mod progress;
mod report;
mod rollout;
mod status;

use std::{collections::BTreeSet, ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};
use kube::{Api, Client, Resource, core::NamespaceResourceScope};
use serde::Serialize;
use serde_json::Value;

use self::progress::ProgressLine;
use super::{
    dump,
    output::{OF_CLUSTER, OF_REPORT, Offered, Output, print, print_json, say},
    policies::seconds,
};
use crate::fleet::{self, ApiTarget, Executor, Failure, Fleet, FleetQuery, FleetSurvey, TargetOptions};

/// The name under which kubectl looks for a plugin.
const PLUGIN: &str = "kubectl-podgate";

/// Some nodes did not answer, so that what was printed is not all.
const INCOMPLETE: u8 = 4;

/// Ask the agents of all nodes at once; `kubectl podgate` is this command
#[derive(Debug, Args)]
#[command(after_help = "\
Agents are asked through the API server, as by `kubectl exec`. You need to list pods, and to get and create pods/exec, \
in the namespace of the agents, and to list nodes, so that a node without an agent is noticed.

The last line, on standard error, says how many nodes answered. Exit code 4: some did not, and the output lacks \
them; 1: none did.

This binary under the name kubectl-podgate, in the search path, is this command: `kubectl podgate status`.

Example:
  podgate cluster status
  kubectl podgate endpoints -A")]
pub(super) struct ClusterOptions {
    #[command(flatten)]
    connection: ConnectionOptions,
    #[command(subcommand)]
    verb: ClusterVerb,
}

#[derive(Debug, Args)]
struct ConnectionOptions {
    /// Kubeconfig file [default: $KUBECONFIG, then ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// Namespace of the objects shown [default: that of the context]
    #[arg(short, long, global = true, value_name = "NAMESPACE", conflicts_with = "all_namespaces")]
    namespace: Option<String>,
    /// Objects of all namespaces
    #[arg(short = 'A', long, global = true)]
    all_namespaces: bool,
    /// Only objects with these labels: nodes (status, report), pods (endpoints, names), NetworkPolicies
    /// (policies)
    #[arg(short = 'l', long, global = true, value_name = "LABELS")]
    selector: Option<String>,
    /// How long each node may take to answer, for example 10s or 1m; 0 for as long as it takes
    #[arg(long, global = true, value_name = "TIME", value_parser = timeout, default_value = "10s")]
    request_timeout: TimeLimit,
    /// Only this node; may be repeated
    #[arg(long = "node", global = true, value_name = "NAME")]
    nodes: Vec<String>,
    /// Namespace in which the agents run
    #[arg(long, global = true, value_name = "NAMESPACE", default_value = "kube-system")]
    agent_namespace: String,
    // In the place of the one that every verb has.
    /// Output format
    #[arg(short, long, global = true, value_parser = Offered(&OF_CLUSTER), value_name = "FORMAT", default_value = "table")]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum ClusterVerb {
    Status(status::ClusterStatusOptions),
    Endpoints(endpoints::ClusterEndpointsOptions),
    Names(names::ClusterNamesOptions),
    Policies(policies::ClusterPoliciesOptions),
    Flows(flows::ClusterFlowsOptions),
    Explain(explain::ClusterExplainOptions),
    Rollout(rollout::ClusterRolloutOptions),
    Advise(advise::ClusterAdviseOptions),
    Report(report::ClusterReportOptions),
    Dump(ClusterDumpOptions),
}

/// Write the objects of the whole cluster that the offline verbs read, as one YAML stream
#[derive(Debug, Args)]
#[command(after_help = dump::EXAMPLES)]
struct ClusterDumpOptions {}

/// Options of all verbs that choose nothing for this one: its help does not list them, and they are refused.
#[derive(Debug, Args)]
struct NoLabels {
    #[arg(short = 'l', long, hide = true, value_name = "LABELS")]
    selector: Option<String>,
}

/// The same for nodes.
#[derive(Debug, Args)]
struct NoNodes {
    #[arg(long = "node", hide = true, value_name = "NAME")]
    nodes: Vec<String>,
}

/// `None`: none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TimeLimit(Option<Duration>);

/// A cluster, and how it is asked.
struct Session {
    client: Client,
    executor: Executor,
    /// `None`: all.
    namespace: Option<String>,
    /// The same, if it was given by name.
    named_namespace: Option<String>,
    selector: Option<String>,
    agents: FleetQuery,
    deadline: Option<Duration>,
    output: Output,
}

/// What every answer of a cluster says about itself.
#[derive(Debug, Serialize)]
struct ClusterReport<T> {
    nodes: usize,
    answered: usize,
    unanswered: Vec<UnansweredNode>,
    #[serde(flatten)]
    answer: T,
}

#[derive(Debug, Serialize)]
struct UnansweredNode {
    node: String,
    reason: String,
}

/// As the plugin of kubectl, this is `podgate cluster` with the same arguments.
pub(super) fn as_plugin(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let name = arguments.first().map(PathBuf::from);
    if name.is_some_and(|name| name.file_stem().is_some_and(|name| name == PLUGIN)) {
        arguments[0] = "podgate".into();
        arguments.insert(1, "cluster".into());
    }
    arguments
}

fn timeout(text: &str) -> Result<TimeLimit, &'static str> {
    match text {
        "0" => Ok(TimeLimit(None)),
        text => match seconds(text)? {
            0 => Ok(TimeLimit(None)),
            seconds => Ok(TimeLimit(Some(Duration::from_secs(seconds)))),
        },
    }
}

impl ClusterOptions {
    /// What its verb can print.
    pub(super) const fn outputs(&self) -> &'static [Output] {
        match self.verb {
            ClusterVerb::Report(_) => &OF_REPORT,
            ClusterVerb::Status(_)
            | ClusterVerb::Endpoints(_)
            | ClusterVerb::Names(_)
            | ClusterVerb::Policies(_)
            | ClusterVerb::Flows(_)
            | ClusterVerb::Explain(_)
            | ClusterVerb::Rollout(_)
            | ClusterVerb::Advise(_)
            | ClusterVerb::Dump(_) => &OF_CLUSTER,
        }
    }

    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let Self { connection, verb } = self;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.context("cannot start")?.block_on(async {
            let session = connection.open().await?;
            match verb {
                ClusterVerb::Status(options) => options.run(&session).await,
                ClusterVerb::Endpoints(options) => options.run(&session).await,
                ClusterVerb::Names(options) => options.run(&session).await,
                ClusterVerb::Policies(options) => options.run(&session).await,
                ClusterVerb::Flows(options) => options.run(&session).await,
                ClusterVerb::Explain(options) => options.run(&session).await,
                ClusterVerb::Rollout(options) => options.run(&session).await,
                ClusterVerb::Advise(options) => options.run(&session).await,
                ClusterVerb::Report(options) => options.run(&session).await,
                ClusterVerb::Dump(ClusterDumpOptions {}) => {
                    ensure!([Output::Table, Output::Yaml].contains(&session.output), dump::ONLY_YAML);
                    dump::write(&session.client).await
                }
            }
        })
    }
}

impl ConnectionOptions {
    async fn open(self) -> anyhow::Result<Session> {
        let Self {
            kubeconfig,
            context,
            namespace,
            all_namespaces,
            selector,
            request_timeout: TimeLimit(deadline),
            nodes,
            agent_namespace,
            output,
        } = self;
        let target = TargetOptions { kubeconfig: kubeconfig.as_deref(), context: context.as_deref() };
        let ApiTarget { client, namespace: own } = fleet::connect(target).await?;
        let executor = Executor::new(&client, &agent_namespace);
        Ok(Session {
            client,
            executor,
            named_namespace: namespace.clone(),
            namespace: (!all_namespaces).then(|| namespace.unwrap_or(own)),
            selector,
            agents: FleetQuery { namespace: agent_namespace, selector: None, nodes },
            deadline,
            output,
        })
    }
}

impl Session {
    /// Looks for the agents that are asked.
    async fn find(&self, agents: &FleetQuery) -> anyhow::Result<Fleet> {
        let find = fleet::find(&self.client, agents);
        let Some(deadline) = self.deadline else { return find.await };
        let late = || format!("the API server does not answer within {} s", deadline.as_secs());
        tokio::time::timeout(deadline, find).await.with_context(late)?
    }

    /// Runs a command of the node beside every agent.
    async fn ask<T>(
        &self,
        fleet: &Fleet,
        arguments: &[&str],
        read: impl Fn(Value) -> serde_json::Result<T>,
    ) -> FleetSurvey<T> {
        let progress = ProgressLine::of(fleet.nodes.len());
        let report = |done, total| progress.show(done, total);
        let survey = fleet::ask(&self.executor, fleet, arguments, self.deadline, read, report).await;
        progress.clear();
        survey
    }

    /// Objects of the namespaces that are shown.
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// Which objects are shown, as the end of a noun phrase.
    fn scope(&self) -> String {
        let namespace = self.namespace.as_ref();
        let of = namespace.map(|namespace| format!(" in namespace {namespace} (-A for all)"));
        let labels = self.selector.as_ref().map(|labels| format!(" with the labels {labels}"));
        of.unwrap_or_default() + &labels.unwrap_or_default()
    }

    fn note(&self, text: std::fmt::Arguments<'_>) {
        say(format_args!("{text}\n"));
    }

    /// Whether `namespace/name`, or the name of an object of the cluster, is to be shown.
    fn is_meant(&self, name: &str, labelled: Option<&BTreeSet<String>>) -> bool {
        let namespace = name.split_once('/').map(|(namespace, _)| namespace);
        let is_in = match (&self.namespace, namespace) {
            (Some(meant), Some(namespace)) => meant == namespace,
            (Some(_) | None, None) | (None, Some(_)) => true,
        };
        is_in && labelled.is_none_or(|labelled| labelled.contains(name))
    }

    /// Prints what was learned, then what it lacks.
    fn conclude<A, T: Serialize>(
        &self,
        survey: &FleetSurvey<A>,
        answer: T,
        text: impl FnOnce(&T, bool) -> String,
    ) -> anyhow::Result<ExitCode> {
        self.print_as(self.output, &self.report(survey, answer), |report| {
            text(&report.answer, self.output == Output::Wide)
        })?;
        say(survey.conclusion());
        Ok(exit_code(survey))
    }

    /// An answer with what it lacks.
    fn report<A, T>(&self, survey: &FleetSurvey<A>, answer: T) -> ClusterReport<T> {
        let unanswered = |(node, failure): (&String, &Failure)| UnansweredNode {
            node: node.clone(),
            reason: failure.to_string(),
        };
        ClusterReport {
            nodes: survey.total(),
            answered: survey.answered,
            unanswered: survey.failures.iter().map(unanswered).collect(),
            answer,
        }
    }

    fn print_as<T: Serialize>(
        &self,
        output: Output,
        data: &T,
        text: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        match output {
            Output::Json => print_json(data),
            Output::Yaml => {
                let yaml = serde_saphyr::to_string(data).context("cannot print")?;
                print(|stdout| stdout.write_all(yaml.as_bytes()))
            }
            Output::Table | Output::Wide | Output::Csv | Output::Html => {
                let text = text(data);
                print(|stdout| stdout.write_all(text.as_bytes()))
            }
        }
    }
}

fn exit_code<T>(survey: &FleetSurvey<T>) -> ExitCode {
    match (survey.answered, survey.failures.len()) {
        (_, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::FAILURE,
        (_, _) => INCOMPLETE.into(),
    }
}

#[cfg(test)]
mod tests;
