//! `podgate names`: what the pods of this node have learnt of the names in their rules.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use podgate_core::model::ObjectName;

use super::{
    endpoints::pod_name,
    output::{Format, say},
    table::TextTable,
};
use crate::{
    api::{self, LearntName, NameRules, PodNames},
    options::SOCKET,
    server::Ask,
};

/// Show the addresses that pods of this node have learnt for names in their rules
#[derive(Debug, Args)]
#[command(after_help = "\
A row is an address that counts now for one pod. NAME is the name as far as the rules of the node tell it from \
others: a name itself, or *.example.com for any name below one. RULES are the policies of the pod with the indexes of \
their egress rules that match it; where there are none, it is another pod's rules that have the name, and the address is not open. Connections \
outlive the name that let them pass.

Of all pods a long list is cut; that of one pod never is.

Example:
  podgate names production/frontend")]
pub(super) struct NamesOptions {
    /// Only this pod
    #[arg(value_name = "NAMESPACE/POD", value_parser = pod_name)]
    pod: Option<ObjectName>,
    /// Socket of the running agent
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

impl NamesOptions {
    pub(super) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let pods: Vec<PodNames> = api::ask(&self.socket, &Ask::Names { pod: self.pod })?;
        if pods.is_empty() {
            say("no pod of this node has rules with names\n");
        }
        format.print(&pods, |pods| text(pods))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// What the columns of [`name_row`] are.
pub(super) const COLUMNS: [&str; 6] = ["POD", "NAME", "ADDRESS", "LEFT", "CONNECTIONS", "RULES"];

fn text(pods: &[PodNames]) -> String {
    if pods.is_empty() {
        return String::new();
    }
    let mut table = TextTable::with_header(&COLUMNS);
    for pod in pods {
        pod.entries.iter().for_each(|entry| table.row(name_row(&pod.pod, entry)));
    }
    let has_rows = pods.iter().any(|pod| !pod.entries.is_empty());
    let table = if has_rows { table.to_string() } else { String::new() };
    let notes: String = pods.iter().flat_map(notes).map(|note| format!("{note}\n")).collect();
    let gap = if table.is_empty() || notes.is_empty() { "" } else { "\n" };
    format!("{table}{gap}{notes}")
}

/// Pod, name, address, time left, connections, and the rules that match.
pub(super) fn name_row(pod: &str, entry: &LearntName) -> [String; 6] {
    let LearntName { address, name, policies, seconds_left, connections } = entry;
    let rules = policies.iter().map(|NameRules { policy, rules }| {
        let rules: Vec<String> = rules.iter().map(usize::to_string).collect();
        format!("{policy}[{}]", rules.join(","))
    });
    let rules: Vec<String> = rules.collect();
    [
        pod.to_owned(),
        name.clone(),
        address.to_string(),
        format!("{seconds_left} s"),
        connections.to_string(),
        if rules.is_empty() { "-".into() } else { rules.join(", ") },
    ]
}

/// What the rows of a pod do not say.
pub(super) fn notes(names: &PodNames) -> Vec<String> {
    let PodNames { pod, has_rules, live, capacity, omitted, error, untrusted_resolvers, entries: _ } = names;
    let note = match (has_rules, error) {
        (false, _) => Some(format!("{pod} has no rules with names that allow anything its policies deny")),
        (true, Some(error)) => Some(format!("{pod}: {error}")),
        (true, None) if *live == 0 => Some(format!("{pod} has learnt nothing that counts now")),
        (true, None) if *omitted > 0 => {
            Some(format!("{pod}: {omitted} of {live} addresses (room for {capacity}) are left out"))
        }
        (true, None) => None,
    };
    let servers: Vec<String> = untrusted_resolvers.iter().map(ToString::to_string).collect();
    let untrusted = (!servers.is_empty()).then(|| {
        format!(
            "{pod} has asked {}, which this node does not believe: it learns nothing there",
            servers.join(", ")
        )
    });
    note.into_iter().chain(untrusted).collect()
}
