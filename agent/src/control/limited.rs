//! Pods of whose policies a limit of the node, or something that its kernel lacks, leaves out a part.

use std::collections::BTreeSet;

use podgate_common::Strata;
use podgate_core::{compiler::Subject, model::ObjectName};

use super::Reconciler;
use crate::{endpoints::InterfaceState, snapshot::PodLimit};

impl Reconciler {
    /// Each with what is left out.
    pub fn limited(&self) -> BTreeSet<(ObjectName, PodLimit)> {
        let tables = self.compiler.tables();
        if tables.closed.is_empty() && tables.strata.is_empty() {
            return BTreeSet::new();
        }
        let has = |subject: &Subject, which: &dyn Fn(&usize) -> bool| subject.rule_sets().iter().any(which);
        let mut limited = BTreeSet::new();
        for (pod, subject) in &tables.subjects {
            let mut add = |limit| limited.insert((pod.clone(), limit));
            if has(subject, &|rule_set| tables.closed.contains(rule_set)) {
                add(PodLimit::Closed);
            }
            if !self.datapath.reads.names && has(subject, &|rule_set| tables.strata.contains_key(rule_set)) {
                add(PodLimit::NamesUnsupported);
            }
            let parts = |rule_set: &usize| tables.strata.get(rule_set).map_or(0, |parts| parts.len());
            if has(subject, &|rule_set| parts(rule_set) > Strata::MOST) {
                add(PodLimit::NamesInManyParts);
            }
        }
        let without_table = &self.datapath.maps.names.without_table;
        for veth in without_table.iter().filter_map(|ifindex| self.endpoints.veths.get(ifindex)) {
            if let InterfaceState::Identified { pod, .. } = &veth.state {
                limited.insert((pod.clone(), PodLimit::NamesWithoutTable));
            }
        }
        limited
    }
}
