//! The rows of new rule sets for all identities, and of new identities for the rule sets that mention them.
//!
//! In: the rule sets and identities that came and went in a step. Out: the rows of the tables. Rows that stay
//! are rewritten when the classes of ports have changed.

use std::collections::HashSet;

use super::{Incremental, Mentioned, Reclassified, Settled, numbering};
use crate::compiler::rows;

impl Incremental {
    /// `reclassified`: the previous classes of ports, if these have changed.
    pub(super) fn compile_rows(
        &mut self,
        mentioned: &Mentioned,
        settled: &Settled,
        reclassified: Option<&Reclassified>,
    ) {
        let (classes, closed) = (&self.tables.classes, &self.tables.closed);
        let mut compiled = mentioned.rule_sets.clone();
        if let Some(Reclassified { classes: before, closed: closed_before }) = reclassified {
            let rows = &mut self.tables.rows;
            // The ports of closed rule sets have no classes of their own. A closed rule set denies on all
            // classes.
            for index in closed_before.symmetric_difference(closed) {
                numbering::remove_range(&mut rows.allowed, *index);
                numbering::remove_range(&mut rows.denied_on_own_node, *index);
                compiled.insert(*index);
            }
            rows.reclassify(&classes.origins(before));
        }
        let rule_sets = || rows::numbered(self.rule_sets.contents());
        let identities = || rows::numbered(&self.tables.identities.signatures);
        let is_new = |index: &usize| compiled.contains(index);
        let mut made = Vec::new();
        if !compiled.is_empty() {
            let new = rule_sets().filter(|(at, _)| is_new(at));
            made.push(rows::compile(new, identities(), classes, closed));
        }
        // A rule set that mentions no property of an identity has the same row for all such identities.
        let new = || identities().filter(|(index, _)| settled.new.contains(index));
        let properties = new().flat_map(|(_, signature)| signature);
        let mentioning: HashSet<usize> =
            properties.flat_map(|atom| self.atoms.get(atom)).flatten().copied().collect();
        let known = || rule_sets().filter(|(at, _)| !is_new(at));
        if !mentioning.is_empty() {
            let mentioning = known().filter(|(at, _)| mentioning.contains(at));
            made.push(rows::compile(mentioning, new(), classes, closed));
        }
        let others: Vec<usize> = known().map(|(at, _)| at).filter(|at| !mentioning.contains(at)).collect();
        let kept: Vec<usize> = rule_sets().map(|(index, _)| index).collect();
        let rows = &mut self.tables.rows;
        for &rule_set in others.iter().filter(|_| !settled.new.is_empty()) {
            rows.copy_default_row(rule_set, &settled.new);
        }
        for made in made {
            rows.allowed.extend(made.allowed);
            rows.denied_on_own_node.extend(made.denied_on_own_node);
            rows.covering_own_node.extend(made.covering_own_node);
        }
        for index in &mentioned.gone {
            rows.covering_own_node.remove(index);
        }
        for map in [&mut rows.allowed, &mut rows.denied_on_own_node] {
            for &index in &mentioned.gone {
                numbering::remove_range(map, index);
            }
            for &identity in &settled.gone {
                for &rule_set in &kept {
                    map.remove(&(rule_set, identity));
                }
            }
        }
    }
}
