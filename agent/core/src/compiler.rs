//! The compiler: a pure function from the state of a cluster to the tables that evaluate packets.
//!
//! In: the cluster, the pods to compile for, and the rule sets that the kernel still holds. Out:
//! [`CompiledTables`]. Ids in them are indexes into this one compilation; the publisher gives them the ids
//! that the kernel sees. No I/O, no clock: the same input gives the same tables.
//!
//! The three classifications of the design, each in a file of its own:
//!
//! * addresses that no rule can distinguish, by any of their properties (`atoms`), are one identity
//!   (`identities`, `prefixes`);
//! * ports that no rule can distinguish are one class (`classes`);
//! * the policies that select a pod, in the order of their tiers, are one rule set per direction (`rules`,
//!   `steps`);
//!
//! and `rows` has one bit for each (rule set, identity, class). `services` has the verdicts on addresses
//! behind which the node chooses a backend.

mod atoms;
mod calico;
mod classes;
mod clauses;
mod covering;
mod identities;
mod incremental;
mod limits;
mod names;
mod network_sets;
mod prefixes;
mod rows;
mod rule_ports;
mod rules;
mod service_peers;
mod services;
mod shared;
mod steps;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, sync::Arc};

pub use atoms::Atom;
pub use classes::{Classes, PortSignature};
pub use clauses::{Clause, ClausePorts, Condition};
pub use identities::{Identities, Signature};
pub use incremental::{
    CompileInput, ConnectionQuery, Incremental, MatchCache, PolicyMatch, PolicySnapshot, WorkLimit,
};
pub use limits::TableLimits;
pub use names::{NamePlace, NameStratum, key as name_key, name_text};
pub use rows::Rows;
pub use rows::compile as compile_rows;
pub use rules::{RulePart, RuleSet, TierRules};
pub use services::{Backend, Services, Site};
pub use shared::Shared;
pub use steps::{Step, Steps};

pub(crate) use atoms::{NodeAtoms, PodAtoms, peer_atoms};
pub(crate) use network_sets::{NetworkSets, selected_sets};
pub(crate) use rules::{Compiler as RuleCompiler, named_ports};

use imbl::OrdMap;

use crate::model::{Cluster, ObjectName, Pod};

/// Everything that a verdict needs, for the pods that were compiled for. A copy costs nothing: the maps are
/// persistent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledTables {
    /// Which rule sets evaluate a pod; a pod that no policy selects is [`Subject::NOT_ISOLATED`].
    pub subjects: OrdMap<ObjectName, Subject>,
    /// Distinct rule sets. Index 0 stands for "no policy has a say" and is empty.
    pub rule_sets: OrdMap<usize, Arc<RuleSet>>,
    /// Those that allow nothing because they tell more apart than there is room for; see [`TableLimits`].
    pub closed: Arc<BTreeSet<usize>>,
    /// Which identity each address has.
    pub identities: Identities,
    /// Which class each port has.
    pub classes: Arc<Classes>,
    /// What each rule set allows.
    pub rows: Rows,
    /// Verdicts on addresses of services.
    pub services: Services,
    /// Names of the DNS that rules speak of. Each has an identity under the [`name_key`] of its.
    pub names: Arc<BTreeSet<NamePlace>>,
    /// The parts of the rule sets that have rules with such names, by index.
    pub strata: OrdMap<usize, Arc<[NameStratum]>>,
    /// Which tables these can be compared with by their indexes.
    pub series: Series,
}

impl Default for CompiledTables {
    /// Without any policy.
    fn default() -> Self {
        Self {
            subjects: OrdMap::new(),
            rule_sets: OrdMap::unit(0, Arc::default()),
            closed: Arc::default(),
            identities: Identities {
                signatures: OrdMap::unit(0, Arc::default()),
                addresses: OrdMap::new(),
                prefixes: Arc::default(),
            },
            classes: Arc::new(Classes::undivided()),
            rows: Rows::default(),
            services: Services::default(),
            names: Arc::default(),
            strata: OrdMap::new(),
            series: Series::default(),
        }
    }
}

/// In tables of one series an index never changes what it stands for: they can be compared by their indexes.
/// It tells where tables come from, not what they say, so any two are equal.
#[derive(Clone, Debug, Default)]
pub struct Series(Arc<()>);

impl Series {
    /// Whether both are the same series.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl PartialEq for Series {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Series {}

/// The rule sets of one pod, as indexes into [`CompiledTables::rule_sets`]. 0: no policy has a say in this
/// direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Enforced, for connections to the pod.
    pub ingress: usize,
    /// Enforced, for connections from the pod.
    pub egress: usize,
    /// With the policies in audit mode as if they were enforced; 0 when there are none.
    pub audit_ingress: usize,
    /// As `audit_ingress`, for connections from the pod.
    pub audit_egress: usize,
}

impl Subject {
    /// Of a pod that no policy selects.
    pub const NOT_ISOLATED: Self = Self { ingress: 0, egress: 0, audit_ingress: 0, audit_egress: 0 };

    /// All its rule sets.
    pub const fn rule_sets(&self) -> [usize; 4] {
        [self.ingress, self.egress, self.audit_ingress, self.audit_egress]
    }

    /// Those of its egress.
    pub const fn of_egress(&self) -> [usize; 2] {
        [self.egress, self.audit_egress]
    }
}

/// Compiles the policies that select `subjects`.
///
/// `retained` are rule sets that some packet may still be evaluated by: identities and classes stay fine
/// enough for them, so that while a change is published old rule sets answer right for new identities.
/// Without a `site` there are no services in the tables.
pub fn compile<'a>(
    cluster: &'a Cluster,
    site: Option<Site<'_>>,
    subjects: impl IntoIterator<Item = &'a Pod>,
    retained: impl IntoIterator<Item = Arc<RuleSet>>,
) -> CompiledTables {
    compile_within(&TableLimits::NODE, cluster, site, subjects, retained)
}

/// The same, for a node with other limits.
pub fn compile_within<'a>(
    limits: &TableLimits,
    cluster: &'a Cluster,
    site: Option<Site<'_>>,
    subjects: impl IntoIterator<Item = &'a Pod>,
    retained: impl IntoIterator<Item = Arc<RuleSet>>,
) -> CompiledTables {
    let pods: Vec<&Pod> = subjects.into_iter().collect();
    let rules::Compiled { subjects, mut rule_sets } = rules::compile(cluster, pods.iter().copied());
    let retained = retained.into_iter().map(|rule_set| {
        rule_sets.iter().position(|known| *known == rule_set).unwrap_or_else(|| {
            rule_sets.push(rule_set);
            rule_sets.len() - 1
        })
    });
    let retained: Vec<usize> = retained.collect();
    let isolating_sets = services::isolating_sets(pods.iter().copied(), &subjects, retained);
    let strata = names::numbered(&mut rule_sets);
    let (limits::Groups { classes, prefixes }, closed) =
        limits::groups_of(rule_sets.iter().enumerate(), limits, &mut limits::Found::default());
    let strata = strata.into_iter().filter(|(place, _)| !closed.contains(place)).collect();
    let (identities, names) = identities::compile(cluster, &rule_sets, &closed, prefixes);
    let classes = Arc::new(classes);
    let rule_sets: OrdMap<usize, Arc<RuleSet>> = rule_sets.into_iter().enumerate().collect();
    let signatures = rows::numbered(&identities.signatures);
    let rows = rows::compile(rows::numbered(&rule_sets), signatures, &classes, &closed);
    let services = site.map(|site| {
        let (identities, classes, rows) = (&identities, &classes, &rows);
        let local = services::local(pods.iter().copied(), &subjects);
        let view = services::View { site, local: &local, identities, classes, rows };
        services::compile(cluster, &view, &isolating_sets)
    });
    let services = services.unwrap_or_default();
    let (closed, series) = (Arc::new(closed), Series::default());
    CompiledTables { subjects, rule_sets, closed, identities, classes, rows, services, names, strata, series }
}
