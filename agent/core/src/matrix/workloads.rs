//! The matrix by workload: pods of one workload that the tables treat alike have one row.
//!
//! Each verdict holds for every pair of different pods of two rows: where pods of a workload are treated
//! differently, it has several rows. A row of one pod reaches itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Difference, Matrix, MatrixScope, Pair, VerdictRow,
    groups::{TreatmentVerdicts, row_verdicts, treatment_numbers},
    scope::is_in_matrix,
};
use crate::{
    compiler,
    model::{Cluster, Name, ObjectName, Pod},
    port_spec::PortSpec,
    printable::printable,
    workload::{WorkloadId, workload_names},
};

/// A matrix whose rows and columns are workloads.
#[derive(Clone, Debug)]
pub struct WorkloadMatrix<'a> {
    /// Names are those of workloads with the number of pods, as in `shop/backend ×3`.
    pub matrix: Matrix,
    /// By the name of its row, its pods; at least one.
    pub pods: BTreeMap<Name, Vec<&'a Pod>>,
}

/// Computes the matrix of the workloads whose pods are meant.
pub fn workload_matrix<'a>(
    cluster: &'a Cluster,
    ports: &BTreeSet<PortSpec>,
    scope: &MatrixScope,
) -> WorkloadMatrix<'a> {
    let pods = meant(cluster, scope);
    let tables = compiler::compile(cluster, None, pods.iter().copied(), []);
    let numbers = treatment_numbers(&pods, &tables);
    let rows = rows(&pods, scope, |at| (numbers[at], None));
    let verdicts = row_verdicts(&tables, &members(&rows), ports);
    WorkloadMatrix::of(&rows, ports, &verdicts)
}

/// What a change opens and closes between workloads, and the matrix with the change. Pods that only one of
/// the clusters treats alike are different rows.
pub fn workload_difference<'a>(
    before: &'a Cluster,
    after: &'a Cluster,
    ports: &BTreeSet<PortSpec>,
    scope: &MatrixScope,
) -> (WorkloadMatrix<'a>, Difference) {
    let pods = meant(after, scope);
    let old = |name: &ObjectName| before.pods.get(name).map(Arc::as_ref).filter(|pod| is_in_matrix(pod));
    let olds: Vec<&Pod> = pods.iter().filter_map(|pod| old(&pod.name)).collect();
    let was = compiler::compile(before, None, olds.iter().copied(), []);
    let is = compiler::compile(after, None, pods.iter().copied(), []);
    let names = olds.iter().map(|pod| &pod.name);
    let numbers_before: BTreeMap<_, _> = names.zip(treatment_numbers(&olds, &was)).collect();
    let numbers = treatment_numbers(&pods, &is);
    let rows = rows(&pods, scope, |at| (numbers[at], numbers_before.get(&pods[at].name).copied()));
    let verdicts = row_verdicts(&is, &members(&rows), ports);

    // Those of pods that were there.
    let both: Vec<usize> = (0..rows.len()).filter(|at| old(&rows[*at].pods[0].name).is_some()).collect();
    let members_before =
        both.iter().map(|at| rows[*at].pods.iter().filter_map(|pod| old(&pod.name)).collect());
    let verdicts_before = row_verdicts(&was, &members_before.collect::<Vec<_>>(), ports);
    let mut difference = Difference::of_pods_alone(before, after, scope);
    for ((port, was), is) in ports.iter().zip(&verdicts_before).zip(&verdicts) {
        for (was, from) in was.iter().zip(&both).filter(|(_, from)| rows[**from].is_source) {
            for (was, to) in was.iter().zip(&both).filter(|(_, to)| rows[**to].is_destination) {
                let pair = || Pair {
                    port: port.clone(),
                    from: rows[*from].name.clone(),
                    to: rows[*to].name.clone(),
                };
                difference.note(*was, is[*from][*to], pair);
            }
        }
    }
    (WorkloadMatrix::of(&rows, ports, &verdicts), difference)
}

fn meant<'a>(cluster: &'a Cluster, scope: &MatrixScope) -> Vec<&'a Pod> {
    cluster.pods.values().map(Arc::as_ref).filter(|pod| scope.has(pod)).collect()
}

/// Pods of one workload that are treated alike.
struct MatrixRow<'a> {
    name: Name,
    /// At least one.
    pods: Vec<&'a Pod>,
    is_source: bool,
    is_destination: bool,
}

/// Sorted by their names. `treatment`: of the pod at a place.
fn rows<'a>(
    pods: &[&'a Pod],
    scope: &MatrixScope,
    treatment: impl Fn(usize) -> (usize, Option<usize>),
) -> Vec<MatrixRow<'a>> {
    let mut workloads: BTreeMap<WorkloadId, BTreeMap<_, Vec<&Pod>>> = BTreeMap::new();
    for (at, pod) in pods.iter().enumerate() {
        let ends = [scope.is_source(pod), scope.is_destination(pod)];
        let of_workload = workloads.entry(WorkloadId::of(pod)).or_default();
        of_workload.entry((treatment(at), ends)).or_default().push(*pod);
    }
    let names = workload_names(&workloads.keys().cloned().collect());
    let mut rows = Vec::new();
    for (workload, parts) in workloads {
        let is_whole = parts.len() == 1;
        for (part, ((_, [is_source, is_destination]), pods)) in (1..).zip(parts) {
            let part = if is_whole { String::new() } else { format!(" ({part})") };
            let count = if pods.len() == 1 { String::new() } else { format!(" ×{}", pods.len()) };
            let name = Name::from(format!("{}{part}{count}", printable(&names[&workload])));
            rows.push(MatrixRow { name, pods, is_source, is_destination });
        }
    }
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    rows
}

fn members<'a>(rows: &[MatrixRow<'a>]) -> Vec<Vec<&'a Pod>> {
    rows.iter().map(|row| row.pods.clone()).collect()
}

impl<'a> WorkloadMatrix<'a> {
    fn of(rows: &[MatrixRow<'a>], ports: &BTreeSet<PortSpec>, verdicts: &[TreatmentVerdicts]) -> Self {
        let sources = |verdicts: &TreatmentVerdicts| {
            let of_rows = rows.iter().zip(verdicts).filter(|(row, _)| row.is_source);
            let row = |(row, verdicts): (&MatrixRow<'_>, &Vec<_>)| {
                let meant = rows.iter().zip(verdicts).filter(|(row, _)| row.is_destination);
                (row.name.clone(), VerdictRow(meant.map(|(_, verdict)| *verdict).collect()))
            };
            of_rows.map(row).collect()
        };
        let destinations = rows.iter().filter(|row| row.is_destination);
        Self {
            matrix: Matrix {
                pods: destinations.map(|row| row.name.clone()).collect(),
                ports: ports.iter().cloned().zip(verdicts.iter().map(sources)).collect(),
            },
            pods: rows.iter().map(|row| (row.name.clone(), row.pods.clone())).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixtures::{cluster, has, labels, policy},
        matrix::PodGroup,
    };

    #[test]
    fn pods_of_a_workload_that_are_treated_differently_have_rows_of_their_own() {
        let mut closed = policy("p", Some(vec![]), None);
        closed.subject = has("version", "b");
        let mut cluster = cluster(vec![closed]);
        let some = cluster.pods.values().next().expect("a pod").clone();
        cluster.pods.clear();
        for (at, release) in [(1, "a"), (2, "a"), (3, "b"), (4, "b"), (5, "c")] {
            let mut pod = Pod::clone(&some);
            pod.name = ObjectName::new("x", format!("web-{at}"));
            pod.addresses = [std::net::IpAddr::from([10, 0, 0, at])].into();
            // Releases are one workload.
            pod.labels = labels(&[("app", "web"), ("version", release)]);
            cluster.pods.insert(pod.name.clone(), pod.into());
        }
        let ports: BTreeSet<PortSpec> = ["TCP/80".parse().expect("a port")].into();
        let WorkloadMatrix { matrix, pods } = workload_matrix(&cluster, &ports, &MatrixScope::default());
        assert_eq!(matrix.pods, ["x/web (1) ×3", "x/web (2) ×2"]);
        assert_eq!(pods.values().map(Vec::len).collect::<Vec<_>>(), [3, 2]);
        let rows: Vec<String> =
            matrix.ports.values().flat_map(|rows| rows.values().map(ToString::to_string)).collect();
        assert_eq!(rows, [".X", ".X"], "pods of the second do not reach each other");

        let one = MatrixScope {
            from: [PodGroup::Namespace("x".into())].into(),
            to: [PodGroup::Pod(ObjectName::new("x", "web-5"))].into(),
            ..MatrixScope::default()
        };
        let WorkloadMatrix { matrix, .. } = workload_matrix(&cluster, &ports, &one);
        assert_eq!(matrix.pods, ["x/web (2)"], "it has a row of its own, as it alone is a destination");
    }
}
