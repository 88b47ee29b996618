//! `podgate cluster advise`: NetworkPolicies for what all nodes have seen.
//!
//! In: the flows of all agents, and the objects of the API server. Out: policies as YAML. Workloads with pods
//! on nodes that did not answer get none.

use std::{process::ExitCode, sync::Mutex};

use anyhow::{bail, ensure};
use clap::Args;
use podgate_core::{advise::AdviceScope, model::Name};

use super::{
    super::{
        advise::{ONLY_YAML, SeenFlows},
        dump::failure,
        output::{Output, print, say},
        policies::seconds,
    },
    NoLabels, Session, exit_code,
    flows::record,
    lines::read_lines,
};
use crate::{fleet::Line, source::kube::read_cluster};

/// Write NetworkPolicies that allow the connections that were seen on all nodes, and nothing else
#[derive(Debug, Args)]
#[command(after_help = "\
As `podgate advise`, with the flows that all agents remember and the objects of the cluster. A workload with pods on a \
node that did not answer gets no policy. Policies are for the namespace; -A writes those of all.

You need to list all objects that `dump` writes, beside what other verbs need.

Example:
  kubectl podgate advise -n shop --since 24h > advised.yaml")]
pub(super) struct ClusterAdviseOptions {
    /// Only flows of the last TIME, for example 90m or 24h
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    since: Option<u64>,
    /// Write policies that deny at once, not only report
    #[arg(long)]
    enforce: bool,
    #[command(flatten)]
    no_labels: NoLabels,
}

impl ClusterAdviseOptions {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        let Self { since, enforce, no_labels } = self;
        ensure!([Output::Table, Output::Yaml].contains(&session.output), ONLY_YAML);
        let has_labels = session.selector.is_some() || no_labels.selector.is_some();
        ensure!(!has_labels, "-l does not select policies; see -n");
        let (cluster, problems) = read_cluster(&session.client).await.map_err(failure)?;
        problems.iter().for_each(|problem| say(format_args!("{problem}\n")));
        let fleet = session.find(&session.agents).await?;
        let command = ["flows", "-o", "json", "--end-with-stdin"].map(str::to_owned);
        let seen = Mutex::new(SeenFlows::since(since));
        let survey = read_lines(session, &fleet, &command, |node, line| {
            let mut seen = seen.lock().expect("no one panics with it");
            match line {
                Line::Printed(line) => match record(node, line) {
                    Some(flow) if seen.take(&flow).is_ok() => {}
                    Some(_) | None => seen.unreadable += 1,
                },
                Line::TooLong => seen.unreadable += 1,
                Line::Said(_) => {}
            }
        })
        .await;
        if survey.answered == 0 {
            say(survey.conclusion());
            bail!("no node has answered; no policy is written");
        }
        let scope = AdviceScope {
            namespace: session.namespace.as_deref().map(Name::from),
            unseen_nodes: survey.failures.keys().map(Name::from).collect(),
        };
        let seen = seen.into_inner().expect("no one panics with it");
        let text = seen.advise(&cluster, &scope, enforce)?;
        print(|stdout| stdout.write_all(text.as_bytes()))?;
        say(survey.conclusion());
        Ok(exit_code(&survey))
    }
}
