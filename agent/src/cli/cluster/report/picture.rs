//! What the page shows, as its script reads it and as `-o json` writes it. Its JSON is a contract.

use std::collections::BTreeMap;

use podgate_core::{model::Cluster, port_spec::PortSpec, printable::printable, workload::WorkloadId};
use serde::Serialize;

use super::{
    super::policies::{PolicySum, sums},
    is_shown,
    talk::{Denial, DeniedKind, Talk, TalkEnd, Talks},
    workloads::{ReachMatrix, WorkloadRow, Workloads},
};
use crate::{
    api::{PolicyStatus, UnenforcedPod},
    fleet::Answer,
};

pub(super) use super::super::status::NodeSummary as NodeStatus;

/// Workloads that are named of one policy.
const SELECTED: usize = 20;
/// Nodes that are named of those that enforce a policy in one way.
const NODES: usize = 8;
/// Rows of policies.
const MOST_POLICIES: usize = 5_000;
/// Rows of unenforced pods.
const MOST_UNENFORCED: usize = 2_000;

#[derive(Debug, Serialize)]
pub(super) struct ClusterPicture {
    version: &'static str,
    /// RFC 3339, UTC.
    made: String,
    /// How far back flows go.
    since_seconds: u64,
    /// If set, only objects of this namespace are shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    node_states: Vec<NodeRow>,
    unenforced: Vec<UnenforcedRow>,
    policies: Vec<PolicyRow>,
    workloads: Vec<WorkloadRow>,
    talks: Vec<TalkRow>,
    denied: Vec<DenialRow>,
    /// Which workload may reach which; `None`: see `left_out`.
    matrix: Option<ReachMatrix>,
    /// What is not shown and why, one line each.
    pub(super) left_out: Vec<String>,
}

#[derive(Debug, Serialize)]
struct NodeRow {
    node: String,
    pod: String,
    ready: bool,
    version: String,
    uptime_seconds: u64,
    pods: usize,
    pending: usize,
    unmanaged: usize,
    unenforced: usize,
    policies: usize,
    revision: u32,
    problems: usize,
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct UnenforcedRow {
    node: String,
    #[serde(flatten)]
    pod: UnenforcedPod,
}

#[derive(Debug, Serialize)]
struct PolicyRow {
    #[serde(flatten)]
    sum: PolicySum,
    /// Workloads, or pods whose workload is not known, with the number of pods.
    selected: Vec<(String, usize)>,
    /// How many more there are.
    more_selected: usize,
}

/// An end is the name of a workload, or as in `service shop/web`.
#[derive(Debug, Serialize)]
struct TalkRow {
    from: String,
    to: String,
    port: Option<String>,
    /// New connections.
    allowed: u64,
    /// Packets.
    denied: u64,
    would_deny: u64,
    last: String,
}

#[derive(Debug, Serialize)]
struct DenialRow {
    from: String,
    to: String,
    port: Option<String>,
    direction: &'static str,
    verdict: String,
    reason: String,
    policies: Vec<String>,
    packets: u64,
    first: String,
    last: String,
    addresses: Vec<String>,
    nodes: Vec<String>,
}

impl ClusterPicture {
    pub(super) fn of(
        made: String,
        (since_seconds, namespace): (u64, Option<String>),
        statuses: Vec<Answer<NodeStatus>>,
        reports: Vec<Answer<Vec<PolicyStatus>>>,
        talks: &Talks,
    ) -> Self {
        let mut picture = Self {
            version: env!("CARGO_PKG_VERSION"),
            made,
            since_seconds,
            namespace,
            node_states: Vec::new(),
            unenforced: Vec::new(),
            policies: Vec::new(),
            workloads: Vec::new(),
            talks: Vec::new(),
            denied: Vec::new(),
            matrix: None,
            left_out: Vec::new(),
        };
        for answer in statuses {
            picture.add_node(answer);
        }
        if let Some(namespace) = &picture.namespace {
            picture.left_out.push(format!("all but namespace {} (-n)", printable(namespace)));
        }
        picture.shorten("pods that are not enforced", MOST_UNENFORCED, |picture| &mut picture.unenforced);
        let mut selected: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for status in reports.iter().flat_map(|answer| &answer.said) {
            selected.entry(status.policy.clone()).or_default().extend(status.pods.iter().cloned());
        }
        let row = |mut sum: PolicySum| {
            sum.differences.values_mut().for_each(some_of);
            let pods = selected.remove(&sum.policy).unwrap_or_default();
            PolicyRow { sum, selected: pods.into_iter().map(|pod| (pod, 1)).collect(), more_selected: 0 }
        };
        picture.policies = sums(reports.into_iter()).into_iter().map(row).collect();
        picture.shorten("policies", MOST_POLICIES, |picture| &mut picture.policies);
        let Talks { left_out, unreadable, .. } = talks;
        for (count, what) in [
            (left_out, "flows beyond the pairs that have room"),
            (unreadable, "lines of flows that could not be read"),
        ] {
            if *count > 0 {
                picture.left_out.push(format!("{count} {what}"));
            }
        }
        picture
    }

    fn add_node(&mut self, Answer { node, pod, said }: Answer<NodeStatus>) {
        let NodeStatus {
            ready,
            version,
            uptime_seconds,
            sources,
            endpoints,
            unenforced,
            policies,
            revision,
            latency: _,
            last_error,
            pins_lost,
        } = said;
        self.node_states.push(NodeRow {
            node: node.clone(),
            pod,
            ready,
            version,
            uptime_seconds,
            pods: endpoints.identified,
            pending: endpoints.pending,
            unmanaged: endpoints.unmanaged,
            unenforced: unenforced.len(),
            policies,
            revision,
            problems: sources.iter().map(|source| source.problems.len()).sum(),
            error: last_error.or(pins_lost),
        });
        let namespace = self.namespace.as_deref();
        let shown = unenforced.into_iter().filter(|pod| is_shown(namespace, &pod.pod));
        self.unenforced.extend(shown.map(|pod| UnenforcedRow { node: node.clone(), pod }));
    }

    fn shorten<T>(&mut self, what: &str, most: usize, list: impl Fn(&mut Self) -> &mut Vec<T>) {
        let rows = list(self);
        if let Some(more @ 1..) = rows.len().checked_sub(most) {
            rows.truncate(most);
            self.left_out.push(format!("{more} more {what}"));
        }
    }

    /// Names workloads, and computes which may reach which. `cluster`: or why it is not known.
    pub(super) fn add_workloads(
        &mut self,
        talks: &Talks,
        cluster: Result<&Cluster, &str>,
        ports: &[PortSpec],
    ) {
        let workloads = Workloads::of(talks, cluster.ok(), self.namespace.as_deref());
        let name = |end: &TalkEnd| match end {
            TalkEnd::Workload(workload) => workloads.name(workload),
            TalkEnd::Service(service) => format!("service {service}"),
            TalkEnd::Name(name) => format!("name {name}"),
            TalkEnd::Nodes => "nodes of the cluster".into(),
            TalkEnd::Outside => "outside the cluster".into(),
        };
        for ((from, to), ports) in &talks.pairs {
            let row = |(port, talk): (&Option<String>, &Talk)| TalkRow {
                from: name(from),
                to: name(to),
                port: port.clone(),
                allowed: talk.allowed(),
                denied: talk.denied,
                would_deny: talk.would_deny,
                last: talk.last.clone(),
            };
            self.talks.extend(ports.iter().map(row));
        }
        for ((from, to), denials) in &talks.denials {
            for (key, denial) in denials {
                let DeniedKind { port, direction, verdict, reason, policies } = key.clone();
                let Denial { packets, first, last, addresses, nodes } = denial;
                self.denied.push(DenialRow {
                    from: name(from),
                    to: name(to),
                    port,
                    direction,
                    verdict,
                    reason,
                    policies,
                    packets: *packets,
                    first: first.clone(),
                    last: last.clone(),
                    addresses: addresses.iter().map(ToString::to_string).collect(),
                    nodes: nodes.iter().cloned().collect(),
                });
            }
        }
        // The newest first.
        self.denied.sort_by(|one, other| other.last.cmp(&one.last));
        for policy in &mut self.policies {
            let mut counts: BTreeMap<String, usize> = BTreeMap::new();
            for (pod, count) in std::mem::take(&mut policy.selected) {
                let workload = cluster.ok().and_then(|cluster| workload_of(cluster, &pod));
                *counts.entry(workload.map_or(pod, |workload| workloads.name(&workload))).or_default() +=
                    count;
            }
            policy.more_selected = counts.len().saturating_sub(SELECTED);
            policy.selected = counts.into_iter().take(SELECTED).collect();
        }
        match cluster {
            Ok(cluster) => match workloads.matrix(cluster, talks, ports) {
                Ok((matrix, notes)) => {
                    self.matrix = Some(matrix);
                    self.left_out.extend(notes);
                }
                Err(why) => self.left_out.push(format!("who may reach whom: {why}")),
            },
            Err(why) => self.left_out.push(format!("who may reach whom: {why}")),
        }
        self.workloads = workloads.rows();
    }
}

/// The first nodes, and how many more there are.
fn some_of(nodes: &mut Vec<String>) {
    if let Some(more @ 1..) = nodes.len().checked_sub(NODES) {
        nodes.truncate(NODES);
        nodes.push(format!("and {more} more"));
    }
}

fn workload_of(cluster: &Cluster, pod: &str) -> Option<WorkloadId> {
    let (namespace, name) = pod.split_once('/')?;
    cluster.pods.get(&podgate_core::model::ObjectName::new(namespace, name)).map(|pod| WorkloadId::of(pod))
}
