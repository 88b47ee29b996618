//! The agent's state in Prometheus' text format.
//!
//! Names are a contract: `podgate_<noun>_<unit>_total`. Labels have few values: directions, outcomes, states,
//! sources, tables, and this node's own pods and policies up to a limit; never an address.

use std::{collections::BTreeMap, fmt::Write};

use podgate_common::Direction;
use podgate_datapath::names::NameTableSizes;

use crate::{
    api::{AgentNameCounts, Evictions, Lost, NameCounts, SourceStatus, Status},
    observe::{DirectionHits, HitReport, ObserverCounts, PolicyHits},
    snapshot::UnenforcedReason,
};

pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Series of one family that name pods or policies. The rest is summed up under [`OTHERS`].
const MAX_SERIES: usize = 500;
const OTHERS: &str = "(others)";

/// What has become of events.
#[derive(Clone, Debug, Default)]
pub(super) struct Observed {
    pub(super) events: ObserverCounts,
    /// Lines of the deny log that could not be written.
    pub(super) unwritten: u64,
    /// Of the agent's tasks, by name.
    pub(super) restarts: BTreeMap<&'static str, u64>,
    /// What pods have learnt.
    pub(super) names: NameTableSizes,
    /// Pods that ask servers for names that are not believed.
    pub(super) untrusted: usize,
}

pub(super) fn text(status: &Status, hits: &HitReport, observed: &Observed) -> String {
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
        last_error,
        pins_lost,
    } = status;
    let mut text = Exposition::default();

    text.family("podgate_build_info", "gauge", "Version and node of this agent; always 1.");
    text.sample(&[("version", version), ("node", node)], 1);
    text.family("podgate_uptime_seconds", "gauge", "Time since the agent started.");
    text.sample(&[], *uptime_seconds);
    text.family("podgate_ready", "gauge", "1 once the first complete state is enforced.");
    text.sample(&[], u64::from(*ready));
    text.family("podgate_failing", "gauge", "1 while the last error persists.");
    text.sample(&[], u64::from(last_error.is_some()));

    text.family("podgate_pins_last", "gauge", "1 if enforcement continues when the agent ends.");
    text.sample(&[], u64::from(pins_lost.is_none()));

    text.family("podgate_packets_total", "counter", "Packets, by outcome.");
    for counter in counters {
        let (direction, outcome) = (counter.direction.to_string(), counter.outcome.to_string());
        text.sample(&[("direction", &direction), ("outcome", &outcome)], counter.packets);
    }
    let name = "podgate_flow_evictions_total";
    text.family(name, "counter", "Live connections that others replaced in the flow table.");
    for Evictions { state, newcomer, connections } in evictions {
        text.sample(&[("state", state), ("newcomer", newcomer)], *connections);
    }
    text.family("podgate_shortcut_packets_total", "counter", "Packets that took the short cut.");
    text.sample(&[], *shortcut_packets);
    text.family("podgate_endpoints", "gauge", "Pod interfaces on this node.");
    for (state, count) in [
        ("identified", endpoints.identified),
        ("pending", endpoints.pending),
        ("unmanaged", endpoints.unmanaged),
    ] {
        text.sample(&[("state", state)], count);
    }
    text.family("podgate_host_endpoints", "gauge", "Devices of this node with a host endpoint.");
    for (state, count) in [
        ("enforced", host_endpoints.enforced),
        ("unconfirmed", host_endpoints.unconfirmed),
        ("undone", host_endpoints.undone),
    ] {
        text.sample(&[("state", state)], count);
    }
    let name = "podgate_unenforced_pods";
    text.family(name, "gauge", "Pods of this node that should be isolated and are not.");
    for reason in UnenforcedReason::ALL.map(|reason| reason.to_string()) {
        let count = unenforced.iter().filter(|pod| pod.reason == reason).count();
        text.sample(&[("reason", &reason)], count);
    }
    text.family("podgate_long_holds_total", "counter", "Interfaces that were held for several seconds.");
    text.sample(&[], holds.long);
    let name = "podgate_expired_holds_total";
    text.family(name, "counter", "Long holds that timed out: the interface is not isolated.");
    text.sample(&[], holds.expired);
    text.family("podgate_policies", "gauge", "NetworkPolicies in force.");
    text.sample(&[], *policies);
    text.family("podgate_revision", "gauge", "Revision of the state that is published to the kernel.");
    text.sample(&[], *revision);

    let name = "podgate_programming_latency_seconds";
    text.family(name, "histogram", "Time from when a source learned of a change until it was enforced.");
    for bucket in &latency.buckets {
        let bound = seconds(bucket.milliseconds * 1_000);
        text.sample_of("_bucket", &[("le", &bound)], bucket.count);
    }
    text.sample_of("_bucket", &[("le", "+Inf")], latency.count);
    text.sample_of("_sum", &[], seconds(latency.sum_microseconds));
    text.sample_of("_count", &[], latency.count);

    text.family(
        "podgate_source_age_seconds",
        "gauge",
        "Time since a source was last known to be up to date.",
    );
    for source in sources {
        if let Some(age) = source.age_seconds {
            text.sample(&[("source", &source.name)], age);
        }
    }
    text.family("podgate_source_objects", "gauge", "Objects from a source.");
    for (source, objects) in sources.iter().map(|source| (source, source.objects)) {
        let kinds = [
            ("namespaces", objects.namespaces),
            ("nodes", objects.nodes),
            ("pods", objects.pods),
            ("policies", objects.policies),
            ("cluster_policies", objects.cluster_policies),
            ("services", objects.services),
            ("endpoint_slices", objects.endpoint_slices),
        ];
        let calico = Some(("calico_policies", objects.calico_policies)).filter(|(_, count)| *count > 0);
        for (kind, count) in kinds.into_iter().chain(calico) {
            text.sample(&[("source", &source.name), ("kind", kind)], count);
        }
    }
    text.family("podgate_source_problems", "gauge", "Invalid objects of a source.");
    for source in sources {
        text.sample(&[("source", &source.name)], source.problems.len());
    }
    let watches = |source: &SourceStatus| source.watches.clone();
    text.family("podgate_watch_restarts_total", "counter", "Failures of a watch of the API server.");
    for watch in sources.iter().flat_map(watches) {
        text.sample(&[("kind", &watch.kind)], watch.restarts);
    }
    text.family(
        "podgate_watch_age_seconds",
        "gauge",
        "Time for which a watch may have missed changes; 0 while it is up.",
    );
    for watch in sources.iter().flat_map(watches) {
        text.sample(&[("kind", &watch.kind)], watch.age_seconds);
    }

    text.family("podgate_table_entries", "gauge", "Entries in a table of the kernel.");
    for table in tables {
        text.sample(&[("table", &table.name)], table.entries);
    }
    text.family("podgate_table_capacity_entries", "gauge", "Room in a table of the kernel.");
    for table in tables {
        if let Some(capacity) = table.capacity {
            text.sample(&[("table", &table.name)], capacity);
        }
    }
    write_names(&mut text, names, (observed.names, observed.untrusted));
    write_hits(&mut text, hits);
    write_observed(&mut text, observed, lost);
    text.text
}

/// What pods with rules that have names learn, and from what.
fn write_names(text: &mut Exposition, counts: &NameCounts, (sizes, untrusted): (NameTableSizes, usize)) {
    let NameCounts { learnt, evicted, refused, cut, unlearnt, malformed, agent } = counts;
    text.family(
        "podgate_name_addresses_total",
        "counter",
        "Addresses in replies of resolvers: learnt for a name of rules, in the place of one that counted \
         (evicted), or not to be opened by a name (refused).",
    );
    for (result, count) in [("learnt", learnt), ("evicted", evicted), ("refused", refused)] {
        text.sample(&[("result", result)], *count);
    }
    text.family(
        "podgate_name_replies_total",
        "counter",
        "Replies of resolvers that were not learnt from to the end: shortened so that the client asks over TCP \
         (cut), passed (unlearnt), or contradictory (malformed).",
    );
    for (result, count) in [("cut", cut), ("unlearnt", unlearnt), ("malformed", malformed)] {
        text.sample(&[("result", result)], *count);
    }
    let AgentNameCounts { answered, unanswered, left_out, entered, renewed } = agent;
    text.family(
        "podgate_name_questions_total",
        "counter",
        "Questions of the agent for names that are new in rules, by whether a resolver has answered, and names \
         that were not asked for (left-out).",
    );
    for (result, count) in [("answered", answered), ("unanswered", unanswered), ("left-out", left_out)] {
        text.sample(&[("result", result)], *count);
    }
    text.family(
        "podgate_name_entered_total",
        "counter",
        "Addresses that the agent has entered for pods: from answers to its questions, or again, as a \
         connection lives (renewed).",
    );
    for (result, count) in [("answered", entered), ("renewed", renewed)] {
        text.sample(&[("result", result)], *count);
    }
    text.family("podgate_name_tables", "gauge", "Pods with rules that have names.");
    text.sample(&[], sizes.tables);
    text.family("podgate_name_entries", "gauge", "Addresses that count now, in the tables of these pods.");
    text.sample(&[], sizes.live);
    text.family(
        "podgate_name_untrusted_pods",
        "gauge",
        "Pods with rules that have names, and that ask a server that is no resolver that the node believes.",
    );
    text.sample(&[], untrusted);
}

fn write_observed(text: &mut Exposition, observed: &Observed, lost: &Lost) {
    let Observed { events, unwritten, restarts, names: _, untrusted: _ } = observed;
    text.family("podgate_task_restarts_total", "counter", "Restarts of a task of the agent.");
    for (task, count) in restarts {
        text.sample(&[("task", task)], count);
    }
    let ObserverCounts { allowed, denied, would_deny, skipped } = events;
    let Lost { events, events_of_share, uncounted, unattributed, fragments } = lost;
    let name = "podgate_flow_events_total";
    text.family(name, "counter", "Flow events reported; one event may stand for several packets.");
    for (verdict, count) in [("allowed", allowed), ("denied", denied), ("would-deny", would_deny)] {
        text.sample(&[("verdict", verdict)], *count);
    }
    let name = "podgate_flow_events_lost_total";
    text.family(
        name,
        "counter",
        "Flow events lost: not read in time (ring), beyond the limit of a pod (pod), or not attributed (agent).",
    );
    for (place, count) in [("ring", events), ("pod", events_of_share), ("agent", skipped)] {
        text.sample(&[("where", place)], *count);
    }
    let name = "podgate_uncounted_packets_total";
    text.family(
        name,
        "counter",
        "Packets not attributed to a policy because the table of counters was full.",
    );
    text.sample(&[], *uncounted);
    let name = "podgate_unattributed_packets_total";
    text.family(
        name,
        "counter",
        "Packets not attributed to a policy because a pod exceeded its number of counters.",
    );
    text.sample(&[], *unattributed);
    let name = "podgate_fragments_limited_total";
    text.family(name, "counter", "Fragmented datagrams beyond the limit of a pod per second.");
    text.sample(&[], *fragments);
    text.family(
        "podgate_deny_log_errors_total",
        "counter",
        "Lines of the deny log that could not be written.",
    );
    text.sample(&[], *unwritten);
}

fn write_hits(text: &mut Exposition, HitReport { policies, drops, .. }: &HitReport) {
    let sums = policies.iter().flat_map(|(policy, PolicyHits { ingress, egress, .. })| {
        let sides = [(Direction::Ingress, ingress), (Direction::Egress, egress)];
        sides.into_iter().filter_map(|(direction, hits)| Some((direction, hits.as_ref()?))).flat_map(
            move |(direction, DirectionHits { rules, denied, would_deny })| {
                let matched = rules.iter().map(|rule| rule.hits).sum();
                [("matched", matched), ("denied", *denied), ("would-deny", *would_deny)]
                    .map(|(result, packets)| ((policy.to_string(), direction.name(), result), packets))
            },
        )
    });
    let name = "podgate_policy_hits_total";
    text.family(
        name,
        "counter",
        "New connections that a policy of a local pod matched, and packets that it denied.",
    );
    for ((policy, direction, result), packets) in limited(sums) {
        text.sample(&[("policy", &policy), ("direction", direction), ("result", result)], packets);
    }
    text.family("podgate_pod_drops_total", "counter", "Dropped packets of a local pod.");
    let drops = drops.iter().map(|((pod, direction, reason), packets)| {
        ((pod.to_string(), direction.name(), reason.name()), *packets)
    });
    for ((pod, direction, reason), packets) in limited(drops) {
        text.sample(&[("pod", &pod), ("direction", direction), ("reason", reason)], packets);
    }
}

/// A name that is in the cluster, and two of few.
type SeriesLabels = (String, &'static str, &'static str);

/// The first ones by name, and what is beyond the limit under one name.
fn limited(series: impl Iterator<Item = (SeriesLabels, u64)>) -> BTreeMap<SeriesLabels, u64> {
    let mut all = BTreeMap::new();
    for ((name, direction, what), packets) in series {
        let has_room = all.len() < MAX_SERIES;
        let name = if has_room { name } else { OTHERS.to_owned() };
        *all.entry((name, direction, what)).or_default() += packets;
    }
    all
}

/// Text format 0.0.4: a family is announced, then come its samples.
#[derive(Default)]
struct Exposition {
    text: String,
    name: &'static str,
}

impl Exposition {
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.name = name;
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.sample_of("", labels, value);
    }

    /// `part`: what a histogram's samples have behind the name of the family.
    fn sample_of(&mut self, part: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let name = format!("{}{part}", self.name);
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escape(value))).collect();
        match labels.is_empty() {
            true => self.write(format_args!("{name} {value}\n")),
            false => self.write(format_args!("{name}{{{}}} {value}\n", labels.join(","))),
        }
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        self.text.write_fmt(text).expect("a string takes all that is written");
    }
}

/// Microseconds as seconds, without what a float would lose or add.
fn seconds(microseconds: u64) -> String {
    format!("{}.{:06}", microseconds / 1_000_000, microseconds % 1_000_000)
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests;
