//! Who reaches whom: every pair of pods and every port in question, computed through the compiled tables.
//!
//! In: a cluster and ports. Out: a [`Matrix`], whose JSON form is a contract. It reads the very rows that the
//! kernel reads. Pods on the host network, nodes and the outside are left out; `explain` knows them.
//!
//! Several addresses: all pairs of one family must be allowed; pods that share no family cannot talk. A port
//! name with several numbers on one pod: all of them must be allowed.

mod difference;
mod groups;
mod names;
mod scope;
mod verdict;
mod workloads;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub use difference::{Difference, Pair};
pub use groups::{GroupMatrix, GroupVerdict, PortVerdicts, group_matrix};
pub use names::{NameMatrix, name_matrix};
use podgate_common::{BITS_PER_ROW, ClassId, Row};
pub use scope::{MatrixScope, PodGroup};
use serde::Serialize;
pub use verdict::{PairVerdict, UnknownVerdict, VerdictRow};
pub use workloads::{WorkloadMatrix, workload_difference, workload_matrix};

use crate::{
    compiler::{self, CompiledTables, Subject},
    model::{Cluster, IpFamily, Name, Pod},
    port_spec::PortSpec,
};

/// Verdicts of pods on pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Matrix {
    /// The destinations: `namespace/name`, sorted.
    pub pods: Vec<Name>,
    /// For each port the row of each source.
    pub ports: BTreeMap<PortSpec, BTreeMap<Name, VerdictRow>>,
}

/// Computes the matrix of all pods that have an address.
pub fn matrix(cluster: &Cluster, ports: &BTreeSet<PortSpec>) -> Matrix {
    matrix_within(cluster, ports, &MatrixScope::default())
}

/// The same of those that are meant.
pub fn matrix_within(cluster: &Cluster, ports: &BTreeSet<PortSpec>, scope: &MatrixScope) -> Matrix {
    let pods = || cluster.pods.values().map(Arc::as_ref).filter(|pod| scope.has(pod));
    let tables = compiler::compile(cluster, None, pods(), []);
    let all: Vec<PodTables> = pods().map(|pod| PodTables::new(pod, &tables)).collect();
    let sorted = |is_meant: &dyn Fn(&Pod) -> bool| {
        let mut pods: Vec<PodTables> = all.iter().filter(|it| is_meant(it.pod)).cloned().collect();
        // As text: `a-b/x` comes before `a/x`.
        pods.sort_by(|one, other| one.name.cmp(&other.name));
        pods
    };
    let sources = sorted(&|pod| scope.is_source(pod));
    let pods = sorted(&|pod| scope.is_destination(pod));
    let columns: Vec<PortColumns> = ports.iter().map(|port| PortColumns::new(port, &pods, &tables)).collect();

    let mut rows: Vec<BTreeMap<Name, VerdictRow>> = vec![BTreeMap::new(); ports.len()];
    let mut reach = ReachableClasses::new(&tables, &pods);
    let families: BTreeSet<Option<IpFamily>> = ports.iter().map(PortSpec::family).collect();
    for source in &sources {
        for family in &families {
            reach.from(source, *family);
            let of_family = ports.iter().zip(&columns).zip(&mut rows);
            for ((_, columns), rows) in of_family.filter(|((port, _), _)| port.family() == *family) {
                let row = (0..pods.len()).map(|at| columns.verdict(at, &reach)).collect();
                rows.insert(source.name.clone(), VerdictRow(row));
            }
        }
    }
    Matrix {
        pods: pods.iter().map(|pod| pod.name.clone()).collect(),
        ports: ports.iter().cloned().zip(rows).collect(),
    }
}

/// What the tables say of one pod.
#[derive(Clone)]
struct PodTables<'a> {
    name: Name,
    pod: &'a Pod,
    rules: Subject,
    addresses: Vec<Identity>,
}

#[derive(Clone, Copy)]
struct Identity {
    family: IpFamily,
    identity: usize,
}

impl<'a> PodTables<'a> {
    fn new(pod: &'a Pod, tables: &CompiledTables) -> Self {
        let identity = |address: &std::net::IpAddr| Identity {
            family: IpFamily::of(address),
            identity: tables.identities.identity(*address),
        };
        Self {
            name: pod.name.to_string().into(),
            pod,
            rules: tables.subjects.get(&pod.name).copied().unwrap_or(Subject::NOT_ISOLATED),
            addresses: pod.addresses.iter().map(identity).collect(),
        }
    }
}

/// The port classes that one source reaches on each pod.
struct ReachableClasses<'a> {
    tables: &'a CompiledTables,
    pods: &'a [PodTables<'a>],
    /// For each identity the rule sets that allow it something, with their rows.
    allowing: Vec<Vec<(usize, &'a [Row])>>,
    /// Rows of one pod: as many as classes need.
    blocks: usize,
    /// Rows of all pods, one after the other.
    rows: Vec<Row>,
}

const NOTHING: Row = Row([0; 4]);
const EVERYTHING: Row = Row([u64::MAX; 4]);

impl<'a> ReachableClasses<'a> {
    fn new(tables: &'a CompiledTables, pods: &'a [PodTables<'a>]) -> Self {
        let blocks = tables.classes.signatures.len().div_ceil(usize::from(BITS_PER_ROW));
        let mut allowing = vec![Vec::new(); tables.identities.signatures.len()];
        for ((rule_set, identity), row) in &tables.rows.allowed {
            allowing[*identity].push((*rule_set, &row[..]));
        }
        Self { tables, pods, allowing, blocks, rows: vec![NOTHING; blocks * pods.len()] }
    }

    /// `family`: of the addresses that count; `None`: both.
    fn from(&mut self, source: &PodTables<'_>, family: Option<IpFamily>) {
        let is_meant = |identity: &&Identity| family.is_none_or(|family| identity.family == family);
        // Once for each source, so that a pair of pods costs no look-up.
        let egress = self.by_identity(source.rules.egress);
        let ingress: Vec<(IpFamily, Vec<&[Row]>)> = source
            .addresses
            .iter()
            .filter(is_meant)
            .map(|from| (from.family, self.by_rule_set(from.identity)))
            .collect();
        for (rows, destination) in self.rows.chunks_exact_mut(self.blocks).zip(self.pods) {
            rows.fill(EVERYTHING);
            if source.name == destination.name {
                if ingress.is_empty() {
                    rows.fill(NOTHING);
                }
                continue;
            }
            let mut can_talk = false;
            for (family, ingress) in &ingress {
                for to in destination.addresses.iter().filter(|to| to.family == *family) {
                    can_talk = true;
                    if source.rules.egress != Subject::NOT_ISOLATED.egress {
                        intersect(rows, egress[to.identity]);
                    }
                    if destination.rules.ingress != Subject::NOT_ISOLATED.ingress {
                        intersect(rows, ingress[destination.rules.ingress]);
                    }
                }
            }
            if !can_talk {
                rows.fill(NOTHING);
            }
        }
    }

    /// What a rule set allows, for each identity.
    fn by_identity(&self, rule_set: usize) -> Vec<&'a [Row]> {
        let mut rows = vec![&[][..]; self.allowing.len()];
        for ((_, identity), row) in self.tables.rows.allowed.range((rule_set, 0)..(rule_set + 1, 0)) {
            rows[*identity] = row;
        }
        rows
    }

    /// What each rule set allows, for one identity.
    fn by_rule_set(&self, identity: usize) -> Vec<&'a [Row]> {
        let mut rows = vec![&[][..]; self.tables.rule_sets.len()];
        for (rule_set, row) in &self.allowing[identity] {
            rows[*rule_set] = row;
        }
        rows
    }

    fn allows(&self, destination: usize, class: ClassId) -> bool {
        let block = usize::from(class.0 / BITS_PER_ROW);
        self.rows[destination * self.blocks + block].has(class)
    }
}

/// Leaves what is allowed too. A row that is missing allows nothing.
fn intersect(rows: &mut [Row], allowed: &[Row]) {
    for (block, row) in rows.iter_mut().enumerate() {
        let allowed = allowed.get(block).unwrap_or(&NOTHING);
        for (word, allowed) in row.0.iter_mut().zip(allowed.0) {
            *word &= allowed;
        }
    }
}

/// What a port means on each destination.
enum PortColumns {
    Same(ClassId),
    /// By name: the classes of the numbers that each pod gives it.
    Each(Vec<Vec<ClassId>>),
}

impl PortColumns {
    fn new(port: &PortSpec, pods: &[PodTables<'_>], tables: &CompiledTables) -> Self {
        let class = |number: u16| {
            let class = tables.classes.class(port.protocol, number);
            ClassId(u16::try_from(class).expect("the compiler refuses more classes than an id has room for"))
        };
        match port.port {
            crate::port_spec::Port::Number(number) => Self::Same(class(number)),
            crate::port_spec::Port::Name(_) => Self::Each(
                pods.iter().map(|pod| port.numbers(Some(pod.pod)).into_iter().map(class).collect()).collect(),
            ),
        }
    }

    fn verdict(&self, destination: usize, reach: &ReachableClasses<'_>) -> PairVerdict {
        let classes = match self {
            Self::Same(class) => std::slice::from_ref(class),
            Self::Each(classes) => &classes[destination][..],
        };
        if classes.is_empty() {
            PairVerdict::NoPort
        } else if classes.iter().all(|class| reach.allows(destination, *class)) {
            PairVerdict::Allowed
        } else {
            PairVerdict::Denied
        }
    }
}

#[cfg(test)]
mod tests;
