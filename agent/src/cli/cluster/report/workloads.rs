//! The workloads of a cluster, what they are called, and which may reach which.

use std::collections::{BTreeMap, BTreeSet};

use podgate_common::Direction;
use podgate_core::{
    matrix::{GroupMatrix, GroupVerdict, PortVerdicts, group_matrix},
    model::{Cluster, Pod},
    policy_walk::OrderedPolicies,
    port_spec::{Port, PortSpec},
    printable::printable,
    workload::{WorkloadId, workload_names},
};
use serde::Serialize;

use super::talk::{TalkEnd, Talks};

/// Rows and columns of the matrix.
const MOST_WORKLOADS: usize = 2_000;
/// Different rows, and pods that stand for others.
const MOST_CLASSES: usize = 4_000;
/// Cells that are written, all ports together.
const MOST_CELLS: usize = 8 << 20;
/// Of the matrix, where no one has named them.
const PORTS: usize = 4;
/// What is shown where no flow names a port.
const USUAL: [&str; 3] = ["TCP/80", "TCP/443", "UDP/53"];

#[derive(Debug, Serialize)]
pub(super) struct WorkloadRow {
    name: String,
    namespace: String,
    /// 0: it has gone, and flows remember it.
    pods: usize,
    /// Whether a policy isolates its first pod.
    ingress_isolated: bool,
    egress_isolated: bool,
}

/// Which workload may reach which.
#[derive(Debug, Serialize)]
pub(super) struct ReachMatrix {
    /// Places in the list of workloads.
    workloads: Vec<usize>,
    /// Of each of these, its row and column.
    classes: Vec<usize>,
    ports: Vec<PortRows>,
}

/// Verdicts are letters: `.` all pods connect, `X` none, `~` some, `-` no port of this name. A number before
/// a letter repeats it.
#[derive(Debug, Serialize)]
struct PortRows {
    port: PortSpec,
    rows: Vec<String>,
    /// Of each workload between its own pods.
    own: String,
}

/// All of them, with their pods.
#[derive(Debug)]
pub(super) struct Workloads<'a> {
    names: BTreeMap<WorkloadId, String>,
    pods: BTreeMap<WorkloadId, Vec<&'a Pod>>,
    isolated: BTreeMap<WorkloadId, [bool; 2]>,
}

impl<'a> Workloads<'a> {
    /// `namespace`: only workloads of it, and those that they exchange packets with.
    pub(super) fn of(talks: &Talks, cluster: Option<&'a Cluster>, namespace: Option<&str>) -> Self {
        let ends = talks.pairs.keys().chain(talks.denials.keys()).flat_map(|(from, to)| [from, to]);
        let seen = ends.filter_map(|end| match end {
            TalkEnd::Workload(workload) => Some(workload.clone()),
            TalkEnd::Service(_) | TalkEnd::Name(_) | TalkEnd::Nodes | TalkEnd::Outside => None,
        });
        let seen: BTreeSet<WorkloadId> = seen.collect();
        let mut pods: BTreeMap<WorkloadId, Vec<&Pod>> = BTreeMap::new();
        let mut isolated = BTreeMap::new();
        if let Some(cluster) = cluster {
            for pod in cluster.pods.values().filter(|pod| !pod.host_network) {
                let workload = WorkloadId::of(pod);
                let is_of = |namespace: &str| *workload.namespace == *namespace;
                if namespace.is_none_or(is_of) || seen.contains(&workload) {
                    pods.entry(workload).or_default().push(pod);
                }
            }
            let policies = OrderedPolicies::of(cluster);
            let isolates = |pod, direction| policies.for_pod(pod, direction).enforced().isolates();
            for (workload, pods) in &pods {
                let both =
                    [Direction::Ingress, Direction::Egress].map(|direction| isolates(pods[0], direction));
                isolated.insert(workload.clone(), both);
            }
        }
        let all: BTreeSet<WorkloadId> = pods.keys().cloned().chain(seen).collect();
        let names = workload_names(&all).into_iter();
        let names = names.map(|(workload, name)| (workload, printable(&name).into_owned())).collect();
        Self { names, pods, isolated }
    }

    pub(super) fn name(&self, workload: &WorkloadId) -> String {
        self.names.get(workload).cloned().unwrap_or_else(|| format!("{}/?", workload.namespace))
    }

    /// In the order of their names.
    fn sorted(&self) -> Vec<(&String, &WorkloadId)> {
        let mut sorted: Vec<_> = self.names.iter().map(|(workload, name)| (name, workload)).collect();
        sorted.sort();
        sorted
    }

    pub(super) fn rows(&self) -> Vec<WorkloadRow> {
        let row = |(name, workload): (&String, &WorkloadId)| {
            let [ingress_isolated, egress_isolated] =
                self.isolated.get(workload).copied().unwrap_or_default();
            WorkloadRow {
                name: name.clone(),
                namespace: printable(&workload.namespace).into_owned(),
                pods: self.pods.get(workload).map_or(0, Vec::len),
                ingress_isolated,
                egress_isolated,
            }
        };
        self.sorted().into_iter().map(row).collect()
    }

    /// With what it lacks, one line each.
    pub(super) fn matrix(
        &self,
        cluster: &Cluster,
        talks: &Talks,
        ports: &[PortSpec],
    ) -> Result<(ReachMatrix, Vec<String>), String> {
        let mut notes = Vec::new();
        let sorted = self.sorted();
        let has_pods = |(place, (_, workload)): (usize, &(&String, &WorkloadId))| {
            self.pods.get(*workload).map(|pods| (place, pods.clone()))
        };
        let mut groups: Vec<(usize, Vec<&Pod>)> = sorted.iter().enumerate().filter_map(has_pods).collect();
        if let Some(more @ 1..) = groups.len().checked_sub(MOST_WORKLOADS) {
            // Those with the most pods stay, in the order of their names.
            groups.sort_by_key(|(place, pods)| (std::cmp::Reverse(pods.len()), *place));
            groups.truncate(MOST_WORKLOADS);
            groups.sort_by_key(|(place, _)| *place);
            notes.push(format!("who may reach whom: {more} smaller workloads"));
        }
        let wanted: BTreeSet<PortSpec> =
            if ports.is_empty() { common_ports(talks) } else { ports.iter().cloned().collect() };
        let (workloads, pods): (Vec<usize>, Vec<Vec<&Pod>>) = groups.into_iter().unzip();
        let matrix = group_matrix(cluster, &wanted, &pods, MOST_CLASSES);
        let GroupMatrix { classes, ports } = matrix
            .ok_or_else(|| format!("policies treat more than {MOST_CLASSES} kinds of pods differently"))?;
        let (mut cells, mut rows) = (0, Vec::new());
        for (port, PortVerdicts { classes, own }) in ports {
            let written = PortRows {
                rows: classes.iter().map(|row| repeated(row)).collect(),
                own: own.iter().map(|verdict| verdict.character()).collect(),
                port,
            };
            cells += written.rows.iter().map(String::len).sum::<usize>();
            if cells > MOST_CELLS {
                notes.push(format!("who may reach whom at {}: too much to show", written.port));
                continue;
            }
            rows.push(written);
        }
        Ok((ReachMatrix { workloads, classes, ports: rows }, notes))
    }
}

/// As in `12X.3X`.
fn repeated(row: &[GroupVerdict]) -> String {
    let mut text = String::new();
    for run in row.chunk_by(|one, other| one == other) {
        if run.len() > 1 {
            text += &run.len().to_string();
        }
        text.push(run[0].character());
    }
    text
}

/// Those that most pairs of workloads have used.
fn common_ports(talks: &Talks) -> BTreeSet<PortSpec> {
    let mut counts: BTreeMap<PortSpec, usize> = BTreeMap::new();
    for port in talks.pairs.values().flat_map(BTreeMap::keys).flatten() {
        if let Ok(port) = port.parse::<PortSpec>()
            && let Port::Number(_) = port.port
        {
            *counts.entry(port).or_default() += 1;
        }
    }
    let mut counts: Vec<(PortSpec, usize)> = counts.into_iter().collect();
    counts.sort_by(|(one, uses), (other, used)| used.cmp(uses).then_with(|| one.cmp(other)));
    if counts.is_empty() {
        return USUAL.into_iter().filter_map(|port| port.parse().ok()).collect();
    }
    counts.into_iter().take(PORTS).map(|(port, _)| port).collect()
}
