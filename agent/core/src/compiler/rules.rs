//! Which policies select a pod, tier by tier. A rule is a clause: peers AND ports, never multiplied out.
//! Those of NetworkPolicies are a set, all others stay in order, as steps.
//!
//! Rule sets are content: two pods with the same policies (all replicas of a Deployment) share one, and a
//! rule set that did not change between two compilations compares equal, which is how the publisher keeps its
//! id.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use imbl::OrdMap;
use podgate_common::Direction;

use super::{
    Atom, Clause, ClausePorts, Condition, NetworkSets, Shared, Step, Steps, Subject, atoms::peer_atoms,
    calico, service_peers::ServicePeers, steps,
};
use crate::{
    model::{Action, Cluster, Name, NamedPort, ObjectName, Peers, Pod, PolicyRef, PortSet, Ports, Rule},
    policy_walk::{OrderedPolicies, PolicyGroup, PolicyWalk, TierEnd},
};

/// What the policies that select a pod say in one direction. The default says nothing: everything is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleSet {
    /// In the order in which they are asked. None follows one that leaves nothing.
    pub tiers: Vec<TierRules>,
}

/// What the policies of one tier say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TierRules {
    /// In the order in which they are asked.
    pub parts: Vec<RulePart>,
    /// What becomes of what no rule matches.
    pub end: TierEnd,
}

/// Rules of a tier that are asked together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RulePart {
    /// The first step that matches decides.
    Steps(Steps),
    /// What any of the clauses matches is accepted: those of NetworkPolicies.
    AnyOf(BTreeSet<Shared<Clause>>),
}

impl RulePart {
    /// Whether it is no step. That none is allowed is something.
    fn is_nothing(&self) -> bool {
        match self {
            Self::Steps(steps) => steps.is_empty(),
            Self::AnyOf(_) => false,
        }
    }
}

impl RuleSet {
    fn parts(&self) -> impl Iterator<Item = &RulePart> {
        self.tiers.iter().flat_map(|tier| &tier.parts)
    }

    /// Whether all its verdicts hold for the pod's own node, too: some of its tiers may deny something there,
    /// and none of them only isolates, which leaves the own node open.
    ///
    /// Addresses of the own node then need no rows of their own. Without this, a rule set that denies the
    /// rest would need one more row for each identity.
    pub fn covers_own_node(&self) -> bool {
        self.tiers.iter().all(|tier| tier.end != TierEnd::Isolate) && self.may_deny_own_node()
    }

    /// Whether it may deny any connection with the pod's own node.
    pub(super) fn may_deny_own_node(&self) -> bool {
        let denies = |steps: &Steps| steps.list().iter().any(|step| step.action == Action::Deny);
        self.tiers.iter().any(|tier| tier.end == TierEnd::Deny) || self.steps().any(denies)
    }

    /// Its lists of steps.
    pub(super) fn steps(&self) -> impl Iterator<Item = &Steps> {
        self.parts().filter_map(|part| match part {
            RulePart::Steps(steps) => Some(steps),
            RulePart::AnyOf(_) => None,
        })
    }

    /// The clauses of which no order counts.
    pub(super) fn unordered(&self) -> impl Iterator<Item = &Shared<Clause>> {
        let sets = self.parts().filter_map(|part| match part {
            RulePart::Steps(_) => None,
            RulePart::AnyOf(clauses) => Some(clauses),
        });
        sets.flatten()
    }

    /// All its clauses.
    pub(super) fn clauses(&self) -> impl Iterator<Item = &Shared<Clause>> {
        self.parts().flat_map(|part| {
            let (steps, clauses) = match part {
                RulePart::Steps(steps) => (steps.list(), None),
                RulePart::AnyOf(clauses) => (&[][..], Some(clauses)),
            };
            steps.iter().map(|step| &step.clause).chain(clauses.into_iter().flatten())
        })
    }
}

/// All properties that rule sets speak of, as often as they do; those of steps that several share come once.
pub(super) fn atoms<'a>(
    rule_sets: impl IntoIterator<Item = &'a Arc<RuleSet>> + Clone,
) -> impl Iterator<Item = &'a Shared<Atom>> {
    clauses(rule_sets).flat_map(|clause| clause.atoms())
}

/// All sets of ports that rule sets speak of, in the same way.
pub(super) fn port_sets<'a>(
    rule_sets: impl IntoIterator<Item = &'a Arc<RuleSet>> + Clone,
) -> impl Iterator<Item = &'a Shared<PortSet>> {
    clauses(rule_sets).flat_map(|clause| clause.port_sets())
}

fn clauses<'a>(
    rule_sets: impl IntoIterator<Item = &'a Arc<RuleSet>> + Clone,
) -> impl Iterator<Item = &'a Shared<Clause>> {
    let unordered = rule_sets.clone().into_iter().flat_map(|rule_set| rule_set.unordered());
    unordered.chain(steps::distinct(rule_sets).map(|step| &step.clause))
}

pub(super) struct Compiled {
    pub(super) subjects: OrdMap<ObjectName, Subject>,
    /// Index 0 is the placeholder of "not isolated".
    pub(super) rule_sets: Vec<Arc<RuleSet>>,
}

pub(super) fn compile<'a>(cluster: &'a Cluster, subjects: impl IntoIterator<Item = &'a Pod>) -> Compiled {
    let named_ports = named_ports(cluster);
    let mut compiler = Compiler::new(cluster, &named_ports);
    let mut rule_sets = vec![Arc::default()];
    let mut by_content: HashMap<Arc<RuleSet>, usize> = HashMap::from([(Arc::default(), 0)]);
    let mut intern = |rule_set: Arc<RuleSet>| {
        *by_content.entry(rule_set).or_insert_with_key(|rule_set| {
            rule_sets.push(rule_set.clone());
            rule_sets.len() - 1
        })
    };
    let subjects = subjects
        .into_iter()
        .filter(|pod| !pod.host_network)
        .map(|pod| (pod.name.clone(), compiler.subject(pod, &mut intern)));
    let subjects = subjects.collect();
    Compiled { subjects, rule_sets }
}

/// Every named port of the cluster's pods, but for those on the host network.
pub(crate) fn named_ports(cluster: &Cluster) -> BTreeMap<NamedPort, usize> {
    let ends = cluster.pods.values().chain(cluster.calico.host_subjects());
    let pods = ends.filter(|pod| !pod.host_network);
    pods.flat_map(|pod| &*pod.ports).map(|port| (port.clone(), 1)).collect()
}

pub(crate) struct Compiler<'a> {
    policies: OrderedPolicies<'a>,
    network_sets: NetworkSets<'a>,
    services: ServicePeers<'a>,
    /// Every named port of the cluster's pods: what a named port of an egress rule can stand for.
    pub(super) named_ports: &'a BTreeMap<NamedPort, usize>,
    /// Replicas ask the same question.
    by_question: HashMap<RuleSetKey<'a>, Arc<RuleSet>>,
    nothing: Arc<RuleSet>,
    /// Pods of different NetworkPolicies are mostly evaluated by the same steps.
    steps: HashMap<RuleSetKey<'a>, Steps>,
    /// Clauses of rule sets that are in use, and those made here: rule sets that say the same share them.
    in_use: Option<&'a HashMap<Shared<Clause>, usize>>,
    made: HashSet<Shared<Clause>>,
}

/// All that the rule set of a pod depends on.
#[derive(PartialEq, Eq, Hash)]
struct RuleSetKey<'a> {
    direction: Direction,
    /// The policies that may decide, in their order, by their places in the memory of the one cluster.
    policies: Vec<usize>,
    /// The pod's own named ports; only rules of ingress speak of them.
    own_ports: &'a [NamedPort],
    /// The pod itself where a rule of Calico's may want something of it.
    pod: Option<&'a ObjectName>,
}

impl<'a> RuleSetKey<'a> {
    fn of<'w>(
        policies: impl IntoIterator<Item = &'w PolicyRef<'a>>,
        direction: Direction,
        pod: &'a Pod,
    ) -> Self
    where
        'a: 'w,
    {
        let own_ports: &[NamedPort] = match direction {
            Direction::Ingress => &pod.ports,
            Direction::Egress => &[],
        };
        let (mut places, mut wants_own) = (Vec::new(), false);
        for policy in policies {
            places.push(policy.place());
            wants_own |= policy.wants_own_end(direction);
        }
        Self { direction, policies: places, own_ports, pod: wants_own.then_some(&pod.name) }
    }
}

impl<'a> Compiler<'a> {
    /// `named_ports`: all that the cluster's pods have, but for those on the host network.
    pub(crate) fn new(cluster: &'a Cluster, named_ports: &'a BTreeMap<NamedPort, usize>) -> Self {
        Self {
            policies: OrderedPolicies::of(cluster),
            network_sets: NetworkSets::of(cluster),
            services: ServicePeers::of(cluster),
            named_ports,
            by_question: HashMap::new(),
            nothing: Arc::default(),
            steps: HashMap::new(),
            in_use: None,
            made: HashSet::new(),
        }
    }

    /// With the clauses of rule sets that are in use.
    pub(super) fn sharing(self, in_use: &'a HashMap<Shared<Clause>, usize>) -> Self {
        Self { in_use: Some(in_use), ..self }
    }

    /// The rule sets of a pod; `number` gives each its index.
    pub(super) fn subject(&mut self, pod: &'a Pod, mut number: impl FnMut(Arc<RuleSet>) -> usize) -> Subject {
        let [(ingress, audit_ingress), (egress, audit_egress)] =
            [Direction::Ingress, Direction::Egress].map(|direction| {
                let (enforced, audited) = self.rule_sets(pod, direction);
                (number(enforced), number(audited))
            });
        Subject { ingress, egress, audit_ingress, audit_egress }
    }

    /// What the policies say of a pod in a direction, and what they would say were those in audit mode
    /// enforced: nothing when there are none.
    fn rule_sets(&mut self, pod: &'a Pod, direction: Direction) -> (Arc<RuleSet>, Arc<RuleSet>) {
        let walk = self.policies.for_pod(pod, direction);
        let enforced = self.rule_set(pod, direction, &walk.enforced());
        let audited = if walk.has_audit() {
            self.rule_set(pod, direction, &walk.as_if_enforced())
        } else {
            self.nothing.clone()
        };
        (enforced, audited)
    }

    /// What policies say of a pod in a direction; nothing at all if none has a say.
    fn rule_set(&mut self, pod: &'a Pod, direction: Direction, walk: &PolicyWalk<'a>) -> Arc<RuleSet> {
        let tiers = walk.deciding();
        if tiers.is_empty() && walk.end() == TierEnd::Pass {
            return self.nothing.clone();
        }
        let mut question = RuleSetKey::of(tiers.iter().flat_map(|tier| tier.policies()), direction, pod);
        if pod.host.is_some() {
            // Its profile decides how its tiers end, so no pod shares its rule set.
            question.pod = Some(&pod.name);
        }
        if let Some(known) = self.by_question.get(&question) {
            return known.clone();
        }
        let tiers = tiers.iter().map(|tier| {
            let parts = tier.groups().map(|group| self.part(group, direction, pod));
            TierRules { parts: parts.filter(|part| !part.is_nothing()).collect(), end: tier.end() }
        });
        let end = TierRules { parts: Vec::new(), end: walk.end() };
        let tiers = tiers.chain([end]).filter(|tier| !tier.parts.is_empty() || tier.end != TierEnd::Pass);
        let rule_set = Arc::new(RuleSet { tiers: tiers.collect() });
        self.by_question.insert(question, rule_set.clone());
        rule_set
    }

    fn part(&mut self, group: PolicyGroup<'_, 'a>, direction: Direction, pod: &'a Pod) -> RulePart {
        match group {
            PolicyGroup::InOrder(policies) => RulePart::Steps(self.steps(policies, direction, pod)),
            PolicyGroup::AnyOf(policies) => {
                let mut clauses = BTreeSet::new();
                for policy in policies {
                    let rules = policy.rules(direction).into_iter();
                    let of_policy =
                        rules.map(|rule| self.clause_for(rule, policy.namespace(), pod, direction));
                    let of_policy: Vec<Clause> = of_policy.filter(Clause::can_match).collect();
                    clauses.extend(of_policy.into_iter().map(|clause| self.share(clause)));
                }
                RulePart::AnyOf(clauses)
            }
        }
    }

    /// Those with a say for a pod in a direction.
    pub(super) fn walk(&self, pod: &Pod, direction: Direction) -> PolicyWalk<'a> {
        self.policies.for_pod(pod, direction)
    }

    /// The clause of a rule that allows, for a pod; `namespace` is that of the rule's policy.
    pub(crate) fn clause_for(
        &self,
        rule: &Rule,
        namespace: Option<&Name>,
        pod: &Pod,
        direction: Direction,
    ) -> Clause {
        self.clause_of(rule, Action::Accept, namespace, pod, direction)
    }

    /// The same for any action: it decides how to read conditions that are not known to match.
    pub(super) fn clause_of(
        &self,
        rule: &Rule,
        action: Action,
        namespace: Option<&Name>,
        pod: &Pod,
        direction: Direction,
    ) -> Clause {
        let denies = action == Action::Deny;
        // A named port of ingress is the pod's own.
        let subject = matches!(direction, Direction::Ingress).then_some(pod);
        let (mut peers, mut conditions) = match &rule.peers {
            Peers::Any => (None, Vec::new()),
            Peers::Listed(peers) => (Some(peer_atoms(peers, namespace)), Vec::new()),
            Peers::Calico(ends) => {
                let calico::EndConditions { peers, conditions } =
                    calico::EndConditions::of(ends, pod, denies, &self.network_sets);
                (peers, conditions)
            }
        };
        let (mut ports, mut except_ports) = match &rule.ports {
            Ports::Any => (None, None),
            Ports::Listed(ports) => (Some(self.clause_ports(ports, subject)), None),
            Ports::Except { listed, except } => {
                let ports = listed.as_ref().map(|ports| self.clause_ports(ports, subject));
                let except = Some(self.clause_ports(except, subject)).filter(ClausePorts::has_any);
                (ports, except)
            }
        };
        if pod.is_of_forwarded() && direction == Direction::Ingress && rule.has_named_port() {
            // The destination, which has the named port, is not known for forwarded traffic.
            (ports, except_ports) = ((!denies).then(|| self.clause_ports(&[], None)), None);
        }
        if let Some(service) = rule.service() {
            let atoms = self.services.atoms(service);
            match direction {
                // The client's port is any.
                Direction::Ingress => match &mut peers {
                    None => peers = Some(atoms.addresses().clone()),
                    Some(_) => conditions.push(Condition::AnyOf(atoms.addresses().clone())),
                },
                Direction::Egress => {
                    ports = Some(atoms.ports(ports.as_ref().map(|ports| &*ports.numbers)));
                }
            }
        }
        Clause { peers, ports, conditions, except_ports }
    }

    /// The rules in order; those that can match nothing decide nothing.
    fn steps(&mut self, policies: &[PolicyRef<'a>], direction: Direction, pod: &'a Pod) -> Steps {
        let question = RuleSetKey::of(policies, direction, pod);
        if let Some(known) = self.steps.get(&question) {
            return known.clone();
        }
        let rules = policies.iter().flat_map(|policy| {
            let (rules, actions) = (policy.rules(direction), policy.actions(direction));
            actions.into_iter().zip(rules).map(|(action, rule)| (action, rule, policy.namespace()))
        });
        let steps = rules.map(|(action, rule, namespace)| {
            let clause = self.clause_of(rule, action, namespace, pod, direction);
            Step { action, clause: Shared::new(clause) }
        });
        let steps: Steps = steps.filter(Step::can_decide).collect();
        self.steps.insert(question, steps.clone());
        steps
    }

    fn share(&mut self, clause: Clause) -> Shared<Clause> {
        let clause = Shared::new(clause);
        let in_use = self.in_use.and_then(|in_use| in_use.get_key_value(&clause)).map(|(known, _)| known);
        if let Some(known) = in_use.or_else(|| self.made.get(&clause)) {
            return known.clone();
        }
        self.made.insert(clause.clone());
        clause
    }
}
