//! `podgate status`: how the agent of this node is doing.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::{output::Format, table::TextTable};
use crate::options::SOCKET;
use crate::{
    api::{
        self, AgentNameCounts, ExportRequests, ExportStatus, HostCounts, Latency, Lost, NameCounts, Status,
    },
    observe::RecordResult,
    server::Ask,
};

/// Show the state of this node's agent
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  podgate status -o json")]
pub(super) struct StatusOptions {
    /// Socket of the running agent
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

impl StatusOptions {
    pub(super) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let status: Status = api::ask(&self.socket, &Ask::Status)?;
        format.print(&status, text)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn text(status: &Status) -> String {
    let Status {
        ready,
        node,
        version,
        uptime_seconds,
        sources,
        endpoints,
        host_endpoints,
        unenforced,
        holds,
        policies,
        revision,
        latency,
        tables,
        counters,
        evictions,
        lost,
        shortcut_packets,
        names,
        export,
        last_error,
        pins_lost,
    } = status;
    let mut facts = TextTable::default();
    let mut fact = |name: &str, value: String| facts.row([name.into(), value]);
    let is_ready = match (ready, unenforced.len()) {
        (true, 0) => "yes".into(),
        (false, 0) => "no, the first full picture is not enforced yet".into(),
        (true, pods) => format!("yes, degraded: {pods} pods that should be isolated are not"),
        (false, pods) => format!("no, {pods} pods that should be isolated are not"),
    };
    fact("ready", is_ready);
    fact("node", node.clone());
    fact("version", version.clone());
    fact("uptime", format!("{uptime_seconds} s"));
    fact(
        "endpoints",
        format!(
            "{} identified, {} pending, {} unmanaged",
            endpoints.identified, endpoints.pending, endpoints.unmanaged
        ),
    );
    if *host_endpoints != HostCounts::default() {
        let HostCounts { enforced, unconfirmed, undone, unenforced } = host_endpoints;
        let text = format!(
            "{enforced} enforced, {unconfirmed} unconfirmed, {undone} undone, {unenforced} not enforced"
        );
        fact("host endpoints", text);
    }
    if holds.long > 0 {
        fact("long holds", format!("{}, {} ended without an answer", holds.long, holds.expired));
    }
    fact("policies", policies.to_string());
    fact("revision", revision.to_string());
    fact("latency", within(latency));
    let evicted = evictions.iter().map(|of| format!("{} {} ({})", of.connections, of.state, of.newcomer));
    fact("evicted", evicted.collect::<Vec<_>>().join(", "));
    if *shortcut_packets > 0 {
        fact("short cut", format!("{shortcut_packets} packets"));
    }
    if *names != NameCounts::default() {
        let NameCounts { learnt, evicted, refused, cut, unlearnt, malformed, agent: _ } = names;
        fact(
            "names",
            format!(
                "{learnt} addresses learnt, {evicted} evicted, {refused} refused; {cut} replies cut, {unlearnt} not learnt, {malformed} malformed"
            ),
        );
    }
    if names.agent != AgentNameCounts::default() {
        let AgentNameCounts { answered, unanswered, left_out, entered, renewed } = names.agent;
        fact(
            "new names",
            format!(
                "{answered} questions answered, {unanswered} not, {left_out} names left out; {entered} addresses entered, {renewed} renewed"
            ),
        );
    }
    let Lost { events, events_of_share, uncounted, unattributed, fragments } = lost;
    fact(
        "lost",
        format!(
            "{} events, {uncounted} packets uncounted, {unattributed} unattributed, {fragments} fragmented datagrams",
            events + events_of_share
        ),
    );
    if let Some(export) = export {
        fact("export", exported(export));
    }
    fact("last error", last_error.clone().unwrap_or_else(|| "none".into()));
    if let Some(reason) = pins_lost {
        fact("pins", reason.clone());
    }

    let mut of_sources = TextTable::with_header(&[
        "SOURCE",
        "KIND",
        "AGE",
        "NAMESPACES",
        "NODES",
        "PODS",
        "POLICIES",
        "SERVICES",
        "SLICES",
        "PROBLEMS",
    ]);
    for source in sources {
        of_sources.row([
            source.name.clone(),
            source.kind.clone(),
            source.age_seconds.map_or_else(|| "never".into(), |age| format!("{age} s")),
            source.objects.namespaces.to_string(),
            source.objects.nodes.to_string(),
            source.objects.pods.to_string(),
            source.objects.policies.to_string(),
            source.objects.services.to_string(),
            source.objects.endpoint_slices.to_string(),
            source.problems.len().to_string(),
        ]);
    }
    let watched = sources.iter().any(|source| !source.watches.is_empty());
    let mut of_watches = TextTable::with_header(&["WATCH", "LISTED", "AGE", "RESTARTS", "ERROR"]);
    for watch in sources.iter().flat_map(|source| &source.watches) {
        of_watches.row([
            watch.kind.clone(),
            if watch.listed { "yes" } else { "no" }.into(),
            format!("{} s", watch.age_seconds),
            watch.restarts.to_string(),
            watch.error.clone().unwrap_or_else(|| "-".into()),
        ]);
    }
    let of_watches = if watched { format!("\n{of_watches}") } else { String::new() };
    let mut of_tables = TextTable::with_header(&["TABLE", "ENTRIES", "CAPACITY"]);
    for table in tables {
        of_tables.row([
            table.name.clone(),
            table.entries.to_string(),
            table.capacity.map_or_else(|| "-".into(), |capacity| capacity.to_string()),
        ]);
    }
    let mut of_counters = TextTable::with_header(&["DIRECTION", "OUTCOME", "PACKETS"]);
    for counter in counters.iter().filter(|counter| counter.packets > 0) {
        of_counters.row([
            counter.direction.to_string(),
            counter.outcome.to_string(),
            counter.packets.to_string(),
        ]);
    }
    let problems: String =
        sources.iter().flat_map(|source| &source.problems).map(|problem| format!("{problem}\n")).collect();
    let problems = if problems.is_empty() { problems } else { format!("\n{problems}") };
    let unenforced: String = unenforced.iter().map(|pod| format!("{pod}\n")).collect();
    let unenforced = if unenforced.is_empty() { unenforced } else { format!("\n{unenforced}") };
    format!("{facts}{unenforced}\n{of_sources}{problems}{of_watches}\n{of_tables}\n{of_counters}")
}

/// The results of the export, and its last error.
fn exported(export: &ExportStatus) -> String {
    let ExportStatus { collector, records, waiting, requests } = export;
    let taken = records.get(RecordResult::Exported.name()).unwrap_or(&0);
    let mut text = format!("{taken} records to {collector}, {} lost, {waiting} waiting", export.lost());
    for ExportRequests { signal, succeeded: _, failed, error } in requests {
        if let Some(error) = error {
            text += &format!("; {signal}: {failed} requests failed, the last one: {error}");
        }
    }
    text
}

/// Half of all changes, and all of them, as the bounds of the buckets tell it.
fn within(latency: &Latency) -> String {
    match latency.count {
        0 => "-".into(),
        count => {
            format!(
                "at most {} for half of {count} changes, {} for all",
                bound(latency, 1),
                bound(latency, 2)
            )
        }
    }
}

/// How long so many halves of all changes took at most.
pub(super) fn bound(latency: &Latency, halves: u64) -> String {
    let bucket = latency.buckets.iter().find(|bucket| bucket.count * 2 >= latency.count * halves);
    bucket.map_or_else(|| "longer than measured".into(), |bucket| format!("{} ms", bucket.milliseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_aligned_and_leaves_out_counters_that_never_moved() {
        assert_eq!(
            text(&Status::example()),
            "\
ready           yes
node            n1
version         0.1.0
uptime          60 s
endpoints       2 identified, 1 pending, 0 unmanaged
host endpoints  1 enforced, 0 unconfirmed, 1 undone, 0 not enforced
policies        3
revision        7
latency         at most 50 ms for half of 3 changes, longer than measured for all
evicted         4 half-open (same-pod)
lost            7 events, 0 packets uncounted, 0 unattributed, 0 fragmented datagrams
last error      none

SOURCE     KIND       AGE  NAMESPACES  NODES  PODS  POLICIES  SERVICES  SLICES  PROBLEMS
manifests  manifests  5 s  1           2      3     4         5         6       1

a.yaml: NetworkPolicy x/p: spec.ingress[0]: bad

WATCH  LISTED  AGE  RESTARTS  ERROR
Pod    yes     9 s  2         refused

TABLE  ENTRIES  CAPACITY
flows  10       262144

DIRECTION  OUTCOME  PACKETS
egress     denied   12
"
        );
    }
}
