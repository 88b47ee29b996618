//! Lint: likely mistakes in policies.
//!
//! In: a cluster, and what its objects say beside it. Out: findings, each about one field of one object. One
//! file has one family of them; what rules and selectors mean is asked of the compiler. Where the objects
//! hold no pod at all, nothing is said of pods. Left out: what was wrong with objects when they were read.

mod calico;
mod dns;
mod finding;
mod ignored;
mod isolation;
mod labels;
mod ports;
mod selection;
mod shadowed;
mod survey;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub use finding::{LintFinding, LintName, Severity};
use podgate_common::{Direction, Protocol};

use crate::{
    model::{Cluster, ObjectName},
    name_check::PodDns,
};
use survey::Survey;

/// What objects say beside what a cluster keeps of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectNotes {
    /// Directions in which a NetworkPolicy has rules, or an empty list of them, that its `policyTypes` leave
    /// out.
    pub left_out: BTreeMap<ObjectName, BTreeSet<Direction>>,
    /// Ports that the containers of a pod declare, with a name or without.
    pub container_ports: BTreeMap<ObjectName, Arc<BTreeSet<(Protocol, u16)>>>,
    /// What pods say of the resolvers that they ask, of those that say anything but `ClusterFirst`.
    pub dns: BTreeMap<ObjectName, PodDns>,
    /// Names of findings that an object does not want to hear of, by the object as in `NetworkPolicy
    /// shop/web`.
    pub ignored: BTreeMap<String, Vec<String>>,
}

impl ObjectNotes {
    /// Whether an object, as in `NetworkPolicy shop/web`, does not want to hear of such findings.
    pub fn ignores(&self, object: &str, name: LintName) -> bool {
        let ignored = self.ignored.get(object);
        ignored.is_some_and(|names| names.iter().any(|ignored| ignored == name.as_str()))
    }
}

/// Findings about a cluster, in the order of their objects and fields, without those that objects want to be
/// ignored.
pub fn lint(cluster: &Cluster, notes: &ObjectNotes) -> Vec<LintFinding> {
    let mut findings = Vec::new();
    let survey = Survey::new(cluster, notes);
    if !cluster.pods.is_empty() {
        let empty = selection::find(&survey, &mut findings);
        calico::find(&survey, &mut findings);
        labels::find(&survey, &empty, &mut findings);
        ports::find(&survey, &mut findings);
        dns::find(&survey, &mut findings);
    }
    shadowed::find(&survey, &mut findings);
    isolation::find(&survey, &mut findings);
    ignored::find(notes, &mut findings);
    findings.retain(|finding| !notes.ignores(&finding.object, finding.name));
    findings.sort();
    findings
}
