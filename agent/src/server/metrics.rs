//! The agent's state as metrics. `exposition` writes them in Prometheus' text format, and the export to a
//! collector reads the same ones.
//!
//! Names are a contract: `podgate_<noun>_<unit>_total`. Labels have few values: directions, outcomes, states,
//! sources, tables, and this node's own pods and policies up to a limit; never an address.

mod exposition;
mod family;

use std::collections::BTreeMap;

use podgate_common::Direction;
use podgate_datapath::names::NameTableSizes;

use crate::{
    api::{AgentNameCounts, Evictions, ExportRequests, ExportStatus, Lost, NameCounts, SourceStatus, Status},
    observe::{DirectionHits, HitReport, ObserverCounts, PolicyHits},
    snapshot::UnenforcedReason,
};

pub(super) use self::exposition::{CONTENT_TYPE, text};
use self::family::Families;
pub use self::family::{FamilyKind, FamilyValue, LatencyBuckets, MetricFamily, Sample};

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

pub(super) fn families(status: &Status, hits: &HitReport, observed: &Observed) -> Vec<MetricFamily> {
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
    let mut families = Families::default();

    families.family("podgate_build_info", FamilyKind::Gauge, "Version and node of this agent; always 1.");
    families.sample(&[("version", version), ("node", node)], 1);
    families.family("podgate_uptime_seconds", FamilyKind::Gauge, "Time since the agent started.");
    families.sample(&[], *uptime_seconds);
    families.family("podgate_ready", FamilyKind::Gauge, "1 once the first complete state is enforced.");
    families.sample(&[], u64::from(*ready));
    families.family("podgate_failing", FamilyKind::Gauge, "1 while the last error persists.");
    families.sample(&[], u64::from(last_error.is_some()));

    families.family(
        "podgate_pins_last",
        FamilyKind::Gauge,
        "1 if enforcement continues when the agent ends.",
    );
    families.sample(&[], u64::from(pins_lost.is_none()));

    families.family("podgate_packets_total", FamilyKind::Counter, "Packets, by outcome.");
    for counter in counters {
        let (direction, outcome) = (counter.direction.to_string(), counter.outcome.to_string());
        families.sample(&[("direction", &direction), ("outcome", &outcome)], counter.packets);
    }
    let name = "podgate_flow_evictions_total";
    families.family(name, FamilyKind::Counter, "Live connections that others replaced in the flow table.");
    for Evictions { state, newcomer, connections } in evictions {
        families.sample(&[("state", state), ("newcomer", newcomer)], *connections);
    }
    families.family(
        "podgate_shortcut_packets_total",
        FamilyKind::Counter,
        "Packets that took the short cut.",
    );
    families.sample(&[], *shortcut_packets);
    families.family("podgate_endpoints", FamilyKind::Gauge, "Pod interfaces on this node.");
    for (state, count) in [
        ("identified", endpoints.identified),
        ("pending", endpoints.pending),
        ("unmanaged", endpoints.unmanaged),
    ] {
        families.sample(&[("state", state)], count);
    }
    let name = "podgate_host_endpoints";
    families.family(name, FamilyKind::Gauge, "Devices of this node with a host endpoint.");
    for (state, count) in [
        ("enforced", host_endpoints.enforced),
        ("unconfirmed", host_endpoints.unconfirmed),
        ("undone", host_endpoints.undone),
        ("unenforced", host_endpoints.unenforced),
    ] {
        families.sample(&[("state", state)], count);
    }
    let name = "podgate_unenforced_pods";
    families.family(name, FamilyKind::Gauge, "Pods of this node that should be isolated and are not.");
    for reason in UnenforcedReason::ALL.map(|reason| reason.to_string()) {
        let count = unenforced.iter().filter(|pod| pod.reason == reason).count();
        families.sample(&[("reason", &reason)], count);
    }
    families.family(
        "podgate_long_holds_total",
        FamilyKind::Counter,
        "Interfaces that were held for several seconds.",
    );
    families.sample(&[], holds.long);
    let name = "podgate_expired_holds_total";
    families.family(name, FamilyKind::Counter, "Long holds that timed out: the interface is not isolated.");
    families.sample(&[], holds.expired);
    families.family("podgate_policies", FamilyKind::Gauge, "NetworkPolicies in force.");
    families.sample(&[], *policies);
    families.family(
        "podgate_revision",
        FamilyKind::Gauge,
        "Revision of the state that is published to the kernel.",
    );
    families.sample(&[], *revision);

    let name = "podgate_programming_latency_seconds";
    families.family(
        name,
        FamilyKind::Histogram,
        "Time from when a source learned of a change until it was enforced.",
    );
    families.latency(latency);

    families.family(
        "podgate_source_age_seconds",
        FamilyKind::Gauge,
        "Time since a source was last known to be up to date.",
    );
    for source in sources {
        if let Some(age) = source.age_seconds {
            families.sample(&[("source", &source.name)], age);
        }
    }
    families.family("podgate_source_objects", FamilyKind::Gauge, "Objects from a source.");
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
            families.sample(&[("source", &source.name), ("kind", kind)], count);
        }
    }
    families.family("podgate_source_problems", FamilyKind::Gauge, "Invalid objects of a source.");
    for source in sources {
        families.sample(&[("source", &source.name)], source.problems.len());
    }
    let watches = |source: &SourceStatus| source.watches.clone();
    families.family(
        "podgate_watch_restarts_total",
        FamilyKind::Counter,
        "Failures of a watch of the API server.",
    );
    for watch in sources.iter().flat_map(watches) {
        families.sample(&[("kind", &watch.kind)], watch.restarts);
    }
    families.family(
        "podgate_watch_age_seconds",
        FamilyKind::Gauge,
        "Time for which a watch may have missed changes; 0 while it is up.",
    );
    for watch in sources.iter().flat_map(watches) {
        families.sample(&[("kind", &watch.kind)], watch.age_seconds);
    }

    families.family("podgate_table_entries", FamilyKind::Gauge, "Entries in a table of the kernel.");
    for table in tables {
        families.sample(&[("table", &table.name)], table.entries);
    }
    families.family("podgate_table_capacity_entries", FamilyKind::Gauge, "Room in a table of the kernel.");
    for table in tables {
        if let Some(capacity) = table.capacity {
            families.sample(&[("table", &table.name)], capacity);
        }
    }
    add_names(&mut families, names, (observed.names, observed.untrusted));
    add_hits(&mut families, hits);
    add_observed(&mut families, observed, lost);
    add_export(&mut families, export.as_ref());
    families.all()
}

/// What pods with rules that have names learn, and from what.
fn add_names(families: &mut Families, counts: &NameCounts, (sizes, untrusted): (NameTableSizes, usize)) {
    let NameCounts { learnt, evicted, refused, cut, unlearnt, malformed, agent } = counts;
    families.family(
        "podgate_name_addresses_total",
        FamilyKind::Counter,
        "Addresses in replies of resolvers: learnt for a name of rules, in the place of one that counted \
         (evicted), or not to be opened by a name (refused).",
    );
    for (result, count) in [("learnt", learnt), ("evicted", evicted), ("refused", refused)] {
        families.sample(&[("result", result)], *count);
    }
    families.family(
        "podgate_name_replies_total",
        FamilyKind::Counter,
        "Replies of resolvers that were not learnt from to the end: shortened so that the client asks over TCP \
         (cut), passed (unlearnt), or contradictory (malformed).",
    );
    for (result, count) in [("cut", cut), ("unlearnt", unlearnt), ("malformed", malformed)] {
        families.sample(&[("result", result)], *count);
    }
    let AgentNameCounts { answered, unanswered, left_out, entered, renewed } = agent;
    families.family(
        "podgate_name_questions_total",
        FamilyKind::Counter,
        "Questions of the agent for names that are new in rules, by whether a resolver has answered, and names \
         that were not asked for (left-out).",
    );
    for (result, count) in [("answered", answered), ("unanswered", unanswered), ("left-out", left_out)] {
        families.sample(&[("result", result)], *count);
    }
    families.family(
        "podgate_name_entered_total",
        FamilyKind::Counter,
        "Addresses that the agent has entered for pods: from answers to its questions, or again, as a \
         connection lives (renewed).",
    );
    for (result, count) in [("answered", entered), ("renewed", renewed)] {
        families.sample(&[("result", result)], *count);
    }
    families.family("podgate_name_tables", FamilyKind::Gauge, "Pods with rules that have names.");
    families.sample(&[], sizes.tables);
    families.family(
        "podgate_name_entries",
        FamilyKind::Gauge,
        "Addresses that count now, in the tables of these pods.",
    );
    families.sample(&[], sizes.live);
    families.family(
        "podgate_name_untrusted_pods",
        FamilyKind::Gauge,
        "Pods with rules that have names, and that ask a server that is no resolver that the node believes.",
    );
    families.sample(&[], untrusted);
}

fn add_observed(families: &mut Families, observed: &Observed, lost: &Lost) {
    let Observed { events, unwritten, restarts, names: _, untrusted: _ } = observed;
    families.family("podgate_task_restarts_total", FamilyKind::Counter, "Restarts of a task of the agent.");
    for (task, count) in restarts {
        families.sample(&[("task", task)], *count);
    }
    let ObserverCounts { allowed, denied, would_deny, skipped } = events;
    let Lost { events, events_of_share, uncounted, unattributed, fragments } = lost;
    let name = "podgate_flow_events_total";
    families.family(
        name,
        FamilyKind::Counter,
        "Flow events reported; one event may stand for several packets.",
    );
    for (verdict, count) in [("allowed", allowed), ("denied", denied), ("would-deny", would_deny)] {
        families.sample(&[("verdict", verdict)], *count);
    }
    let name = "podgate_flow_events_lost_total";
    families.family(
        name,
        FamilyKind::Counter,
        "Flow events lost: not read in time (ring), beyond the limit of a pod (pod), or not attributed (agent).",
    );
    for (place, count) in [("ring", events), ("pod", events_of_share), ("agent", skipped)] {
        families.sample(&[("where", place)], *count);
    }
    let name = "podgate_uncounted_packets_total";
    families.family(
        name,
        FamilyKind::Counter,
        "Packets not attributed to a policy because the table of counters was full.",
    );
    families.sample(&[], *uncounted);
    let name = "podgate_unattributed_packets_total";
    families.family(
        name,
        FamilyKind::Counter,
        "Packets not attributed to a policy because a pod exceeded its number of counters.",
    );
    families.sample(&[], *unattributed);
    let name = "podgate_fragments_limited_total";
    families.family(name, FamilyKind::Counter, "Fragmented datagrams beyond the limit of a pod per second.");
    families.sample(&[], *fragments);
    families.family(
        "podgate_deny_log_errors_total",
        FamilyKind::Counter,
        "Lines of the deny log that could not be written.",
    );
    families.sample(&[], *unwritten);
}

/// Metrics of the export. Without a collector, there are no samples.
fn add_export(families: &mut Families, export: Option<&ExportStatus>) {
    let export = || export.into_iter();
    families.family(
        "podgate_otlp_records_total",
        FamilyKind::Counter,
        "Records of denied packets for the collector: taken by it (exported), or lost because the queue was \
         full (no-room), it refused them (refused) or did not take them for minutes (expired).",
    );
    for (result, count) in export().flat_map(|export| &export.records) {
        families.sample(&[("result", result)], *count);
    }
    let name = "podgate_otlp_waiting_records";
    families.family(name, FamilyKind::Gauge, "Records that the collector has not taken yet.");
    for ExportStatus { waiting, .. } in export() {
        families.sample(&[], *waiting);
    }
    let name = "podgate_otlp_requests_total";
    families.family(name, FamilyKind::Counter, "Requests to the collector; those that fail come again.");
    for ExportRequests { signal, succeeded, failed, .. } in export().flat_map(|export| &export.requests) {
        for (result, count) in [("succeeded", succeeded), ("failed", failed)] {
            families.sample(&[("signal", signal), ("result", result)], *count);
        }
    }
}

fn add_hits(families: &mut Families, HitReport { policies, drops, .. }: &HitReport) {
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
    families.family(
        name,
        FamilyKind::Counter,
        "New connections that a policy of a local pod matched, and packets that it denied.",
    );
    for ((policy, direction, result), packets) in limited(sums) {
        families.sample(&[("policy", &policy), ("direction", direction), ("result", result)], packets);
    }
    families.family("podgate_pod_drops_total", FamilyKind::Counter, "Dropped packets of a local pod.");
    let drops = drops.iter().map(|((pod, direction, reason), packets)| {
        ((pod.to_string(), direction.name(), reason.name()), *packets)
    });
    for ((pod, direction, reason), packets) in limited(drops) {
        families.sample(&[("pod", &pod), ("direction", direction), ("reason", reason)], packets);
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

#[cfg(test)]
mod tests;
