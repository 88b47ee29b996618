//! The compiler in small steps: a change between two snapshots of the cluster costs only what depends on it.
//!
//! In: snapshots, one after the other. Out: the very tables that [`compile`](super::compile) makes of each,
//! but for their indexes, which keep their meaning from step to step. What a step costs is what it changes:
//!
//! * a pod: the claims on its addresses (`claims`), and the services that these are behind (`frontends`);
//! * a policy: the rule sets of the local pods that it selects, and what its own peers mention;
//! * a namespace: its pods. An EndpointSlice: its service.
//!
//! Some changes are rare, and take a walk: over the nodes when one of them changes, over all pods for a peer
//! of all namespaces or a named port of egress that no rule mentioned before, over rows and services for a
//! range of ports that none did, over the addresses in a block. The first step starts from an empty cluster.

mod answer_versions;
mod attribution;
mod changes;
mod claims;
mod division;
mod frontends;
mod match_cache;
mod mentioned;
mod named_ports;
mod names;
mod numbering;
mod properties;
mod slices;
mod verdict_rows;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

pub use self::attribution::{ConnectionQuery, PolicyMatch, PolicySnapshot};
pub use self::match_cache::{MatchCache, WorkLimit};
use self::{
    answer_versions::{AnswerVersions, StepChanges},
    changes::SnapshotChanges,
    claims::{AddressProperties, Settled},
    frontends::Frontends,
    mentioned::{Mentioned, Reclassified, count, discount, mention, unmention},
    numbering::Numbering,
    properties::{Properties, pods_in},
};
use super::{
    Atom, Clause, CompiledTables, NamePlace, RuleSet, Services, Shared, Signature, Site, Subject,
    TableLimits,
    atoms::{Holder, NodeAtoms, PodAtoms},
    limits, rules, services,
};
use crate::model::{Cluster, NamedPort, ObjectName, Pod, PortSet};

/// What to compile; see [`compile`](super::compile).
#[derive(Clone, Copy, Debug)]
pub struct CompileInput<'a> {
    /// The whole cluster.
    pub cluster: &'a Cluster,
    /// The node and its addresses; without it there are no services in the tables.
    pub site: Option<Site<'a>>,
    /// The pods to compile for.
    pub subjects: &'a BTreeMap<ObjectName, Arc<Pod>>,
    /// Rule sets that some packet may still meet.
    pub retained: &'a [Arc<RuleSet>],
}

/// Compiles a sequence of snapshots. It owns all that was derived from the last one.
#[derive(Debug)]
pub struct Incremental {
    limits: TableLimits,
    found: limits::Found,
    cluster: Cluster,
    subjects: BTreeMap<ObjectName, Arc<Pod>>,
    /// The named ports of all pods but those on the host network, and how many have each.
    named_ports: Arc<BTreeMap<NamedPort, usize>>,
    rule_sets: Numbering<RuleSet>,
    /// The rule sets that the tables hold: those of the subjects, and those that were retained.
    in_use: BTreeSet<usize>,
    retained: BTreeSet<usize>,
    /// How often the rule sets in use mention each.
    clauses: HashMap<Shared<Clause>, usize>,
    /// Which of them do, ascending.
    atoms: BTreeMap<Shared<Atom>, Vec<usize>>,
    port_sets: BTreeMap<Shared<PortSet>, usize>,
    pod_atoms: PodAtoms,
    node_atoms: NodeAtoms,
    /// What rules say of names.
    names: BTreeMap<NamePlace, Arc<Signature>>,
    /// The rule sets in use that say nothing of them.
    nameless: BTreeSet<usize>,
    claims: AddressProperties,
    frontends: Frontends,
    tables: CompiledTables,
    reconsidered: BTreeSet<ObjectName>,
    versions: AnswerVersions,
}

impl Default for Incremental {
    fn default() -> Self {
        Self::within(TableLimits::NODE)
    }
}

impl Incremental {
    /// For a node with these limits.
    pub fn within(limits: TableLimits) -> Self {
        Self {
            limits,
            found: limits::Found::default(),
            cluster: Cluster::default(),
            subjects: BTreeMap::new(),
            named_ports: Arc::default(),
            rule_sets: Numbering::default(),
            in_use: BTreeSet::new(),
            retained: BTreeSet::new(),
            clauses: HashMap::new(),
            atoms: BTreeMap::new(),
            port_sets: BTreeMap::new(),
            pod_atoms: PodAtoms::default(),
            node_atoms: NodeAtoms::default(),
            names: BTreeMap::new(),
            nameless: BTreeSet::new(),
            claims: AddressProperties::default(),
            frontends: Frontends::default(),
            tables: CompiledTables::default(),
            reconsidered: BTreeSet::new(),
            versions: AnswerVersions::default(),
        }
    }

    /// Goes on to another snapshot.
    pub fn compile(&mut self, step: &CompileInput<'_>) -> &CompiledTables {
        self.advance(step);
        &self.tables
    }

    /// What the last step made.
    pub const fn tables(&self) -> &CompiledTables {
        &self.tables
    }

    /// The subjects that the last step looked at: for all others, the same policies have a say as before.
    pub const fn reconsidered(&self) -> &BTreeSet<ObjectName> {
        &self.reconsidered
    }

    fn advance(&mut self, step: &CompileInput<'_>) {
        let (old, new) = (self.cluster.clone(), step.cluster);
        let changes = SnapshotChanges::between(&old, new);
        let renamed = self.count_named_ports(&changes);
        self.evaluate_subjects(step, &changes, renamed);
        let mentioned = self.use_rule_sets(step);

        let reclassified = self.divide(&mentioned);
        self.claim(&old, new, &changes, &mentioned, reclassified.as_ref());
        let settled = self.claims.settle();
        self.forget_closed_strata();
        self.tables.identities = self.claims.identities();
        self.compile_rows(&mentioned, &settled, reclassified.as_ref());
        self.tables.rule_sets = self.rule_sets.contents().clone();
        self.serve(step, &changes, &settled, reclassified.as_ref());
        self.cluster = new.clone();
        self.subjects.clone_from(step.subjects);
        let (policies, reclassified) = (changes.has_policies() || renamed, reclassified.is_some());
        let (subjects, reconsidered) = (step.subjects, &self.reconsidered);
        self.versions.advance(&StepChanges { subjects, reconsidered, policies, reclassified });
    }

    /// Finds the rule sets of those subjects of which the policies may say something else than before.
    fn evaluate_subjects(&mut self, step: &CompileInput<'_>, changes: &SnapshotChanges<'_>, renamed: bool) {
        let all = renamed || changes.cluster_policies || changes.calico_for_all;
        let by_namespace = !step.cluster.cluster_policies.is_empty() || !step.cluster.calico.is_empty();
        let is_dirty = |name: &ObjectName, pod: &Arc<Pod>| {
            all || self.subjects.get(name) != Some(pod)
                || by_namespace && changes.namespaces.contains(&name.namespace)
                || changes.modes.contains(&name.namespace)
                || changes.policies.iter().any(|policy| policy.selects(pod))
                || changes.has_calico_policy_for(pod, step.cluster)
        };
        let dirty = step.subjects.iter().filter(|(name, pod)| is_dirty(name, pod));
        let dirty: Vec<_> = dirty.map(|(name, pod)| (name.clone(), pod)).collect();
        for name in self.subjects.keys().filter(|name| !step.subjects.contains_key(name)) {
            self.tables.subjects.remove(name);
        }
        self.reconsidered.clear();
        if dirty.is_empty() {
            return;
        }
        let compiler = rules::Compiler::new(step.cluster, &self.named_ports);
        let mut compiler = compiler.sharing(&self.clauses);
        for (name, pod) in dirty {
            if pod.host_network {
                self.tables.subjects.remove(&name);
            } else {
                let subject = compiler.subject(pod, |rule_set| self.rule_sets.number(&rule_set));
                self.tables.subjects.insert(name.clone(), subject);
            }
            self.reconsidered.insert(name);
        }
    }

    /// Counts what the rule sets in use mention. Out: what is mentioned now and was not before, or the other
    /// way round.
    fn use_rule_sets(&mut self, step: &CompileInput<'_>) -> Mentioned {
        let by_pointer: HashMap<*const RuleSet, usize> =
            self.rule_sets.contents().iter().map(|(index, rules)| (Arc::as_ptr(rules), *index)).collect();
        let subjects = self.tables.subjects.values();
        let mut in_use: BTreeSet<usize> = subjects.flat_map(Subject::rule_sets).collect();
        self.retained.clear();
        for rule_set in step.retained {
            // Mostly it is one that came from here.
            let known = by_pointer.get(&Arc::as_ptr(rule_set)).copied();
            self.retained.insert(known.unwrap_or_else(|| self.rule_sets.number(rule_set)));
        }
        in_use.extend(&self.retained);
        in_use.insert(0);
        self.use_strata(&mut in_use);
        let mut mentioned = Mentioned::default();
        let contents = self.rule_sets.contents();
        for index in in_use.difference(&self.in_use) {
            let rule_set = [&contents[index]];
            for clause in contents[index].unordered() {
                *self.clauses.entry(clause.clone()).or_default() += 1;
            }
            for atom in rules::atoms(rule_set) {
                if mention(&mut self.atoms, atom, *index) {
                    mentioned.toggle_atom(atom);
                }
            }
            for set in rules::port_sets(rule_set) {
                if count(&mut self.port_sets, set) {
                    mentioned.toggle_port_set(set);
                }
            }
            mentioned.rule_sets.insert(*index);
        }
        for index in self.in_use.difference(&in_use) {
            let rule_set = [&contents[index]];
            for clause in contents[index].unordered() {
                if self.clauses.get_mut(clause).is_some_and(|uses| {
                    *uses -= 1;
                    *uses == 0
                }) {
                    self.clauses.remove(clause);
                }
            }
            for atom in rules::atoms(rule_set) {
                if unmention(&mut self.atoms, atom, *index) {
                    mentioned.toggle_atom(atom);
                }
            }
            for set in rules::port_sets(rule_set) {
                if discount(&mut self.port_sets, set) {
                    mentioned.toggle_port_set(set);
                }
            }
            mentioned.gone.insert(*index);
        }
        // Also those that were numbered and that no subject has.
        let unused: Vec<usize> = contents.keys().filter(|index| !in_use.contains(index)).copied().collect();
        for index in unused {
            self.rule_sets.remove(index);
        }
        self.in_use = in_use;
        mentioned
    }

    /// Renews the claims of pods and nodes that changed, or of which rules speak otherwise than before.
    fn claim<'a>(
        &mut self,
        old: &'a Cluster,
        new: &'a Cluster,
        changes: &SnapshotChanges<'a>,
        mentioned: &Mentioned,
        reclassified: Option<&Reclassified>,
    ) {
        let mut dirty = changes.pods.clone();
        let mut add = |pod: &'a Arc<Pod>| {
            dirty.entry(&pod.name).or_insert((Some(pod), Some(pod)));
        };
        changes.namespaces.iter().flat_map(|name| pods_in(new, name)).for_each(&mut add);
        let before = if mentioned.is_any_of(Holder::Pods) {
            // At the start every pod is new.
            if !old.pods.is_empty() || old.calico.host_subjects().next().is_some() {
                let changed = PodAtoms::new(&mentioned.atoms);
                changed.mentioned(new).for_each(&mut add);
            }
            let now = PodAtoms::new(self.atoms.keys());
            Some(std::mem::replace(&mut self.pod_atoms, now))
        } else {
            None
        };
        let mut properties_before = Properties::new(before.as_ref().unwrap_or(&self.pod_atoms), old);
        let mut properties = Properties::new(&self.pod_atoms, new);
        for (before, after) in dirty.into_values() {
            let had = before.and_then(|pod| properties_before.of(pod));
            let has = after.and_then(|pod| properties.of(pod));
            if had == has && before.map(|pod| &pod.addresses) == after.map(|pod| &pod.addresses) {
                continue;
            }
            self.claims.replace(before.zip(had.as_ref()), after.zip(has.as_ref()));
        }
        self.claim_names(mentioned, reclassified);
        if changes.nodes || mentioned.is_any_of(Holder::Nodes) {
            for (node, had) in self.node_atoms.mentioned(old) {
                node.addresses.iter().for_each(|at| self.claims.release(*at, &Arc::new(had.clone())));
            }
            self.node_atoms = NodeAtoms::new(self.atoms.keys());
            for (node, has) in self.node_atoms.mentioned(new) {
                let has = Arc::new(has);
                node.addresses.iter().for_each(|at| self.claims.claim(*at, &has));
            }
        }
    }

    /// `before`: what was known of ports until now, if they are distinguished otherwise.
    fn serve(
        &mut self,
        step: &CompileInput<'_>,
        changes: &SnapshotChanges<'_>,
        settled: &Settled,
        before: Option<&Reclassified>,
    ) {
        let retained = self.retained.iter().copied();
        let isolating_sets = services::isolating_sets(
            step.subjects.values().map(Arc::as_ref),
            &self.tables.subjects,
            retained,
        );
        let Some(site) = step.site.filter(|_| !isolating_sets.is_empty()) else {
            self.frontends.clear();
            self.tables.services = Services::default();
            return;
        };
        let local = services::local(step.subjects.values().map(Arc::as_ref), &self.tables.subjects);
        let CompiledTables { identities, classes, rows, closed, .. } = &self.tables;
        let reopened = before.map(|before| &*before.closed ^ &**closed).unwrap_or_default();
        let view = services::View { site, local: &local, identities, classes, rows };
        let work = frontends::FrontendChanges {
            new: step.cluster,
            services: &changes.services,
            slices: &changes.slices,
            moves: &settled.moves,
            blocks: &settled.blocks,
            classes: before.map(|before| &*before.classes),
            reopened: &reopened,
        };
        self.tables.services = self.frontends.update(&work, &view, &isolating_sets);
    }
}
