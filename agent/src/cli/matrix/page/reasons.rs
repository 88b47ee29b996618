//! Why each pair of a matrix is as it is, each line and each text once.
//!
//! One side of a pair depends on its own pod only by the policies that evaluate it, its address families and,
//! as a destination, its named ports. Pods that are equal in these are a group, and one of them answers for
//! all.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

use podgate_common::Direction;
use podgate_core::{
    explain::{EndpointRef, Question, explain_side},
    model::{Cluster, Pod, PolicyName, PolicyRef},
    policy_walk::OrderedPolicies,
    port_spec::PortSpec,
};
use serde::Serialize;

use crate::cli::explain::side_lines;

/// Names in texts: the script puts those of the pair in their place.
const FROM: &str = "\u{1}";
const TO: &str = "\u{2}";

/// For each pod at the other end its text; a single number when all have the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum ReasonRow {
    Same(usize),
    Each(Vec<usize>),
}

pub(super) struct Reasons<'a> {
    cluster: &'a Cluster,
    pods: &'a [&'a Pod],
    egress: ReasonGroups<'a>,
    ingress: ReasonGroups<'a>,
    lines: Numbered<String>,
    texts: Numbered<Vec<usize>>,
}

#[derive(Default)]
struct ReasonGroups<'a> {
    /// By pod.
    of: Vec<usize>,
    /// By group.
    members: Vec<Vec<&'a Pod>>,
}

/// Different values, numbered in the order in which they came.
struct Numbered<T> {
    numbers: HashMap<T, usize>,
    values: Vec<T>,
}

impl<'a> Reasons<'a> {
    pub(super) fn new(cluster: &'a Cluster, pods: &'a [&'a Pod]) -> Self {
        let groups = |direction| ReasonGroups::new(cluster, pods, direction);
        let (egress, ingress) = (groups(Direction::Egress), groups(Direction::Ingress));
        Self { cluster, pods, egress, ingress, lines: Numbered::new(), texts: Numbered::new() }
    }

    /// The group of each pod.
    pub(super) fn groups(&self, direction: Direction) -> &[usize] {
        &self.of(direction).of
    }

    pub(super) fn lines(&self) -> &[String] {
        &self.lines.values
    }

    pub(super) fn texts(&self) -> &[Vec<usize>] {
        &self.texts.values
    }

    /// One for each group.
    pub(super) fn rows(&mut self, direction: Direction, port: &PortSpec) -> Vec<ReasonRow> {
        let groups = self.of(direction).members.clone();
        groups.iter().map(|members| self.row(direction, members, port)).collect()
    }

    fn row(&mut self, direction: Direction, members: &[&Pod], port: &PortSpec) -> ReasonRow {
        let texts = self.pods.iter().map(|peer| {
            // A pod and itself are no pair that others are like.
            let own = members.iter().find(|own| own.name != peer.name).unwrap_or(peer);
            self.text(direction, own, peer, port)
        });
        let texts: Vec<usize> = texts.collect();
        match texts.first() {
            Some(first) if texts.iter().all(|text| text == first) => ReasonRow::Same(*first),
            _ => ReasonRow::Each(texts),
        }
    }

    /// A pod alone in its group gets a text about itself too; no one asks for it.
    fn text(&mut self, direction: Direction, own: &Pod, peer: &Pod, port: &PortSpec) -> usize {
        let end = |pod: &Pod| EndpointRef::Pod(pod.name.clone());
        let (from, to) = match direction {
            Direction::Egress => (end(own), end(peer)),
            Direction::Ingress => (end(peer), end(own)),
        };
        let question = Question { from, to, port: port.clone() };
        let lines = match explain_side(self.cluster, &question, direction, [FROM, TO]) {
            Ok(Some(side)) => side_lines(&direction.to_string(), &side),
            Ok(None) => vec!["no address family in common".to_owned()],
            Err(error) => vec![error.to_string()],
        };
        let lines = lines.into_iter().map(|line| self.lines.number(line)).collect();
        self.texts.number(lines)
    }

    const fn of(&self, direction: Direction) -> &ReasonGroups<'a> {
        match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        }
    }
}

impl<'a> ReasonGroups<'a> {
    fn new(cluster: &'a Cluster, pods: &[&'a Pod], direction: Direction) -> Self {
        let mut groups = Self::default();
        let policies = OrderedPolicies::of(cluster);
        let mut known = BTreeMap::new();
        for pod in pods {
            // Those in audit mode, too: they have their lines.
            let walk = policies.for_pod(pod, direction);
            let names: Vec<PolicyName> = walk.policies().map(PolicyRef::name).collect();
            let families =
                [true, false].map(|v4| pod.addresses.iter().any(|address| address.is_ipv4() == v4));
            let ports = (direction == Direction::Ingress).then_some(&pod.ports);
            let group = *known.entry((names, families, ports)).or_insert_with(|| {
                groups.members.push(Vec::new());
                groups.members.len() - 1
            });
            groups.members[group].push(pod);
            groups.of.push(group);
        }
        groups
    }
}

impl<T: Clone + Eq + Hash> Numbered<T> {
    fn new() -> Self {
        Self { numbers: HashMap::new(), values: Vec::new() }
    }

    fn number(&mut self, value: T) -> usize {
        *self.numbers.entry(value).or_insert_with_key(|value| {
            self.values.push(value.clone());
            self.values.len() - 1
        })
    }
}
