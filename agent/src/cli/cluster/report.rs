//! `podgate cluster report`: the whole cluster on one page.
//!
//! In: status, policies and flows of all agents, and the objects of the API server. Out: a page that stands
//! alone, or its data as JSON. What is not known, or left out because there is too much of it, the page says.

mod page;
mod picture;
mod talk;
mod workloads;

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
    sync::Mutex,
};

use anyhow::{bail, ensure};
use clap::Args;
use jiff::Timestamp;
use podgate_core::{model::Cluster, port_spec::PortSpec};

use self::{
    picture::{ClusterPicture, NodeStatus},
    talk::Talks,
};
use super::{
    super::{
        dump::failure,
        output::{OF_REPORT, Offered, Output, print, say},
        policies::seconds,
    },
    Session, exit_code,
    flows::record,
    lines::read_lines,
};
use crate::{api::PolicyReport, fleet::Line, source::kube::read_cluster};

/// Write one page about the whole cluster: nodes, policies, who talks to whom, who may reach whom
#[derive(Debug, Args)]
#[command(after_help = "\
The page stands alone: it loads nothing, and no script but its own runs in it. It has the nodes and their state, pods \
that are not enforced, policies with their hits and the workloads that they select, who talks to whom, denied flows \
with their policies, and which workload may reach which. A workload is the pods of a namespace with the same labels, \
but for those that differ between replicas and releases. It covers all namespaces, for which the page has a filter; with \
-n, the workloads of one and those that they talk to, with the policies of that namespace and the cluster-wide ones.

The page names pods, policies and addresses of the cluster: it is for those who may see them. You need to list all \
objects that `dump` writes, beside what other verbs need; without that, the page lacks who may reach whom, and says so.

Example:
  kubectl podgate report > report.html
  kubectl podgate report --since 24h --ports 443,TCP/8080,UDP/53 -o json")]
pub(super) struct ClusterReportOptions {
    /// Flows of the last TIME, for example 90m or 24h
    #[arg(long, value_name = "TIME", value_parser = seconds, default_value = "1h")]
    since: u64,
    /// Ports at which it is shown who may reach whom, as [PROTOCOL/]NUMBER or [PROTOCOL/]NAME [default: those
    /// that most flows have]
    #[arg(long, value_name = "PORT,...", value_delimiter = ',')]
    ports: Vec<PortSpec>,
    // In the place of those that the other verbs have.
    /// Only this namespace [default: all]
    #[arg(short, long, value_name = "NAMESPACE", conflicts_with = "all_namespaces")]
    namespace: Option<String>,
    /// Output format
    #[arg(short, long, value_parser = Offered(&OF_REPORT), value_name = "FORMAT", default_value = "html")]
    output: Output,
}

impl ClusterReportOptions {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        let Self { since, ports, namespace, output } = self;
        let namespace = namespace.or_else(|| session.named_namespace.clone());
        ensure!(
            output != Output::Html || !io::stdout().is_terminal(),
            "the report is a page: write it to a file, as in `kubectl podgate report > report.html`"
        );
        let mut agents = session.agents.clone();
        agents.selector.clone_from(&session.selector);
        let mut fleet = session.find(&agents).await?;
        let mut survey =
            session.ask(&fleet, &["status", "-o", "json"], serde_json::from_value::<NodeStatus>).await;
        let statuses = survey.take_answers().collect();
        if survey.answered == 0 {
            say(survey.conclusion());
            bail!("no node has answered; there is nothing to report");
        }
        // One that hangs is waited for once.
        fleet.nodes.retain(|node, _| !survey.failures.contains_key(node));
        let mut policies = session
            .ask(&fleet, &["policies", "-o", "json"], |report| {
                let PolicyReport { mut policies, .. } = serde_json::from_value(report)?;
                policies.retain(|status| is_shown(namespace.as_deref(), &status.policy));
                Ok(policies)
            })
            .await;
        let reports = policies.take_answers().collect();
        survey.lacks(&policies);
        let (cluster, uncertain) = match read_cluster(&session.client).await {
            Ok((cluster, problems)) => (Ok(cluster), problems.len()),
            Err(error) => (Err(format!("{:#}", failure(error))), 0),
        };
        let asked = FlowScope { since, namespace: namespace.as_deref() };
        let talks = talks(session, &mut survey, &fleet, &asked, cluster.as_ref().ok()).await;
        let made = format!("{:.0}", Timestamp::now());
        let mut picture = ClusterPicture::of(made, (since, namespace), statuses, reports, &talks);
        picture.add_workloads(&talks, cluster.as_ref().map_err(String::as_str), &ports);
        if uncertain > 0 {
            picture
                .left_out
                .push(format!("{uncertain} objects could not be read whole: see `kubectl podgate dump`"));
        }
        match output {
            Output::Html => {
                let page = page::page(&session.report(&survey, picture));
                print(|stdout| stdout.write_all(page.as_bytes()))?;
            }
            output => session.print_as(output, &session.report(&survey, picture), |_| String::new())?,
        }
        say(survey.conclusion());
        Ok(exit_code(&survey))
    }
}

/// Whether an object `namespace/name` is of the namespace; cluster-wide objects are of each.
fn is_shown(namespace: Option<&str>, name: &str) -> bool {
    let of = name.split_once('/').map(|(of, _)| of);
    namespace.is_none_or(|namespace| of.is_none_or(|of| of == namespace))
}

/// Which flows the agents are asked for.
struct FlowScope<'a> {
    /// Age in seconds.
    since: u64,
    /// The namespace of either end.
    namespace: Option<&'a str>,
}

/// Reads the flows of all nodes, and notes which do not answer.
async fn talks<T>(
    session: &Session,
    survey: &mut crate::fleet::FleetSurvey<T>,
    fleet: &crate::fleet::Fleet,
    asked: &FlowScope<'_>,
    cluster: Option<&Cluster>,
) -> Talks {
    let mut fleet = fleet.clone();
    fleet.nodes.retain(|node, _| !survey.failures.contains_key(node));
    let since = format!("--since={}s", asked.since);
    let namespace = asked.namespace.map(|namespace| format!("--namespace={namespace}"));
    let command = ["flows", "-o", "json", &since, "--end-with-stdin"].map(str::to_owned);
    let command: Vec<String> = command.into_iter().chain(namespace).collect();
    let talks = Mutex::new(Talks::default());
    let flows = read_lines(session, &fleet, &command, |node, line| {
        let mut talks = talks.lock().expect("no one panics with it");
        match line {
            Line::Printed(line) => match record(node, line) {
                Some(flow) => talks.take(&flow, cluster),
                None => talks.unreadable += 1,
            },
            Line::TooLong => talks.unreadable += 1,
            Line::Said(_) => {}
        }
    })
    .await;
    survey.lacks(&flows);
    talks.into_inner().expect("no one panics with it")
}
