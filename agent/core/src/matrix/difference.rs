//! What a change to a cluster opens and closes: pairs of pods, and ports.
//!
//! Pairs are compared that are in both. Pods that are in one alone are named, their pairs are not: nothing
//! was open or closed for a pod that did not exist. Pods that both clusters treat alike are looked at once,
//! so that the time is that of the different ones and of what the change does.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::Serialize;

use super::{
    MatrixScope,
    PairVerdict::{self, Allowed},
    groups::{row_verdicts, treatment_numbers},
    scope::is_in_matrix,
};
use crate::{
    compiler,
    model::{Cluster, Name, Pod},
    port_spec::PortSpec,
};

/// Its JSON form is a contract: fields are added, never renamed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Not allowed before, allowed after. By port, source and destination.
    pub opened: Vec<Pair>,
    /// Allowed before, not after.
    pub closed: Vec<Pair>,
    /// Pods that are only there after, and only before.
    pub added_pods: Vec<Name>,
    /// Pods that are in the first cluster only.
    pub removed_pods: Vec<Name>,
}

/// One port from one pod, or workload, to another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Pair {
    /// The server's port.
    pub port: PortSpec,
    /// The client: `namespace/name`.
    pub from: Name,
    /// The server: `namespace/name`.
    pub to: Name,
}

impl Difference {
    /// What is different in `after`, by pods.
    pub fn of(before: &Cluster, after: &Cluster, ports: &BTreeSet<PortSpec>, scope: &MatrixScope) -> Self {
        let mut difference = Self::of_pods_alone(before, after, scope);
        let mut both: Vec<(Name, [&Pod; 2])> = after
            .pods
            .values()
            .filter(|pod| scope.has(pod))
            .filter_map(|pod| Some((pod.name.to_string().into(), [before.pods.get(&pod.name)?, &**pod])))
            .filter(|(_, [before, _])| is_in_matrix(before))
            .collect();
        // As text: `a-b/x` comes before `a/x`.
        both.sort_by(|(one, _), (other, _)| one.cmp(other));
        let [olds, news] = [0, 1].map(|at| both.iter().map(|(_, pods)| pods[at]).collect::<Vec<&Pod>>());
        let was = compiler::compile(before, None, olds.iter().copied(), []);
        let is = compiler::compile(after, None, news.iter().copied(), []);
        let mut alike: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        let treatments = treatment_numbers(&olds, &was).into_iter().zip(treatment_numbers(&news, &is));
        for (at, treatment) in treatments.enumerate() {
            let ends = [scope.is_source(news[at]), scope.is_destination(news[at])];
            alike.entry((treatment, ends)).or_default().push(at);
        }
        let rows: Vec<([bool; 2], Vec<usize>)> =
            alike.into_iter().map(|((_, ends), places)| (ends, places)).collect();
        let verdicts = |most: usize| {
            let of = |pods: &[&Pod], tables| {
                let members =
                    rows.iter().map(|(_, places)| places.iter().take(most).map(|at| pods[*at]).collect());
                row_verdicts(tables, &members.collect::<Vec<Vec<&Pod>>>(), ports)
            };
            of(&olds, &was).into_iter().zip(of(&news, &is)).collect::<Vec<_>>()
        };
        // Between two pods, and from one to itself.
        let (others, itself) = (verdicts(2), verdicts(1));
        for ((port, (was, is)), (own_before, own)) in ports.iter().zip(&others).zip(&itself) {
            let mut changed: Vec<(usize, usize, [PairVerdict; 2])> = Vec::new();
            for (i, (_, sources)) in rows.iter().enumerate().filter(|(_, (ends, _))| ends[0]) {
                for (j, (_, destinations)) in rows.iter().enumerate().filter(|(_, (ends, _))| ends[1]) {
                    let pair = [was[i][j], is[i][j]];
                    if is_changed(pair) {
                        let all =
                            sources.iter().flat_map(|from| destinations.iter().map(move |to| (*from, *to)));
                        changed
                            .extend(all.filter(|(from, to)| from != to).map(|(from, to)| (from, to, pair)));
                    }
                    let pair = [own_before[i][i], own[i][i]];
                    if i == j && is_changed(pair) {
                        changed.extend(sources.iter().map(|pod| (*pod, *pod, pair)));
                    }
                }
            }
            changed.sort_unstable_by_key(|(from, to, _)| (*from, *to));
            for (from, to, [was, is]) in changed {
                let pair = || Pair { port: port.clone(), from: both[from].0.clone(), to: both[to].0.clone() };
                difference.note(was, is, pair);
            }
        }
        difference
    }

    /// Without pairs.
    pub(super) fn of_pods_alone(before: &Cluster, after: &Cluster, scope: &MatrixScope) -> Self {
        let only_in = |one: &Cluster, other: &Cluster| {
            let has = |pod: &Pod| other.pods.get(&pod.name).is_some_and(|pod| is_in_matrix(pod));
            let pods = one.pods.values().map(Arc::as_ref).filter(|pod| scope.has(pod) && !has(pod));
            let mut names: Vec<Name> = pods.map(|pod| pod.name.to_string().into()).collect();
            names.sort();
            names
        };
        Self { added_pods: only_in(after, before), removed_pods: only_in(before, after), ..Self::default() }
    }

    /// Notes a pair if its verdict is another one.
    pub(super) fn note(&mut self, was: PairVerdict, is: PairVerdict, pair: impl FnOnce() -> Pair) {
        match (was == Allowed, is == Allowed) {
            (false, true) => self.opened.push(pair()),
            (true, false) => self.closed.push(pair()),
            (true, true) | (false, false) => {}
        }
    }

    /// No pair is opened or closed.
    pub fn is_empty(&self) -> bool {
        self.opened.is_empty() && self.closed.is_empty()
    }
}

fn is_changed([was, is]: [PairVerdict; 2]) -> bool {
    (was == Allowed) != (is == Allowed)
}
