//! The matrix as one page that stands alone: style, script and data in one file, nothing is fetched.
//!
//! In: a cluster with its matrix, and what differs from another one. Out: HTML. Why a cell is as it is has
//! been worked out before and is laid out when somebody looks. A cluster has far more pairs than reasons:
//! sides are explained once for all pods that the same policies evaluate, without the names of the pair, and
//! equal lines stand once.

mod reasons;

use std::collections::{BTreeMap, BTreeSet};

use podgate_common::Direction;
use serde::Serialize;

use podgate_core::{
    matrix::{Difference, Matrix, PairVerdict, VerdictRow},
    model::{Cluster, Name, Pod},
    port_spec::PortSpec,
};
use reasons::{ReasonRow, Reasons};

use crate::cli::page::StandalonePage;

const PAGE: StandalonePage = StandalonePage {
    html: include_str!("page/page.html"),
    style: concat!(include_str!("../page/colours.css"), include_str!("page/page.css")),
    script: concat!(include_str!("../page/elements.js"), include_str!("page/page.js")),
};

/// Characters of rows in place of those of the matrix, where a change has opened or closed a pair.
const OPENED: char = '+';
const CLOSED: char = '!';

/// What the script reads.
#[derive(Serialize)]
struct Data<'a> {
    version: &'static str,
    is_difference: bool,
    pods: Vec<PodData<'a>>,
    ports: Vec<PortData<'a>>,
    /// What [`ReasonRow`]s refer to: lists of indexes of `lines`.
    texts: &'a [Vec<usize>],
    lines: &'a [String],
}

#[derive(Serialize)]
struct PodData<'a> {
    /// Of the row: of a pod, or of a workload.
    name: &'a Name,
    /// Up to two of its pods, as they are named to `podgate explain`.
    pods: Vec<String>,
    namespace: &'a Name,
    labels: &'a BTreeMap<Name, Name>,
    addresses: Vec<String>,
    /// Of the rows in `egress` and `ingress` of each port.
    egress: usize,
    ingress: usize,
}

#[derive(Serialize)]
struct PortData<'a> {
    port: &'a PortSpec,
    /// By source, a character for each destination.
    rows: Vec<String>,
    /// By group of sources, a text for each destination.
    egress: Vec<ReasonRow>,
    /// By group of destinations, a text for each source.
    ingress: Vec<ReasonRow>,
}

/// `rows`: the pods of each row of the matrix, of which the first stands for all. `difference`: what a change
/// does, after which the cluster is as it is.
pub(super) fn page(
    cluster: &Cluster,
    rows: &BTreeMap<Name, Vec<&Pod>>,
    matrix: &Matrix,
    difference: Option<&Difference>,
) -> String {
    let members: Vec<&[&Pod]> = matrix.pods.iter().map(|row| &rows[row][..]).collect();
    let pods: Vec<&Pod> = members.iter().map(|pods| pods[0]).collect();
    let mut reasons = Reasons::new(cluster, &pods);
    let changed = difference.map(ChangedPairs::of);
    let ports = matrix.ports.iter().map(|(port, rows)| PortData {
        port,
        rows: rows
            .iter()
            .map(|(from, row)| marked(row, &matrix.pods, port, from, changed.as_ref()))
            .collect(),
        egress: reasons.rows(Direction::Egress, port),
        ingress: reasons.rows(Direction::Ingress, port),
    });
    let ports = ports.collect();
    let groups = |direction| reasons.groups(direction).to_vec();
    let (egress, ingress) = (groups(Direction::Egress), groups(Direction::Ingress));
    let pods = members.iter().zip(&matrix.pods).zip(egress.into_iter().zip(ingress));
    let pods = pods.map(|((members, name), (egress, ingress))| (members[0], members, name, egress, ingress));
    let pods = pods.map(|(pod, members, name, egress, ingress)| PodData {
        name,
        pods: members.iter().take(2).map(|pod| pod.name.to_string()).collect(),
        namespace: &pod.name.namespace,
        labels: &pod.labels,
        addresses: match members.len() {
            1 => pod.addresses.iter().map(ToString::to_string).collect(),
            count => vec![format!("{count} pods")],
        },
        egress,
        ingress,
    });
    let data = Data {
        version: env!("CARGO_PKG_VERSION"),
        is_difference: difference.is_some(),
        pods: pods.collect(),
        ports,
        texts: reasons.texts(),
        lines: reasons.lines(),
    };
    PAGE.with(&data)
}

/// The pairs of a difference, to be found by their names.
struct ChangedPairs<'a> {
    opened: BTreeSet<(&'a PortSpec, &'a Name, &'a Name)>,
    closed: BTreeSet<(&'a PortSpec, &'a Name, &'a Name)>,
}

impl<'a> ChangedPairs<'a> {
    fn of(difference: &'a Difference) -> Self {
        let pairs = |pairs: &'a [podgate_core::matrix::Pair]| {
            pairs.iter().map(|pair| (&pair.port, &pair.from, &pair.to)).collect()
        };
        Self { opened: pairs(&difference.opened), closed: pairs(&difference.closed) }
    }
}

fn marked(
    row: &VerdictRow,
    pods: &[Name],
    port: &PortSpec,
    from: &Name,
    changed: Option<&ChangedPairs<'_>>,
) -> String {
    let Some(ChangedPairs { opened, closed }) = changed else { return row.to_string() };
    let mark = |(to, verdict): (&Name, &PairVerdict)| match (port, from, to) {
        pair if opened.contains(&pair) => OPENED,
        pair if closed.contains(&pair) => CLOSED,
        _ => verdict.character(),
    };
    pods.iter().zip(&row.0).map(mark).collect()
}
