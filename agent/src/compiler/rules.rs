//! Which policies select a pod. The rules of NetworkPolicies are flattened into terms: peers AND ports, nothing else. Those
//! of ClusterNetworkPolicies stay in order, as steps.
//!
//! Rule sets are content: two pods with the same policies (all replicas of a Deployment) share one, and a rule set
//! that did not change between two compilations compares equal, which is how the publisher keeps its id.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use imbl::OrdMap;
use podgate_common::Direction;

use super::{PortRange, Step, StepPort, Steps, Subject, steps};
use crate::model::{
    Cluster, ClusterNetworkPolicy, ClusterPolicyName, ClusterRule, IpBlock, Name, NamedPort, NetworkPolicy,
    ObjectName, Peer, Peers, Pod, PortRule, Ports, Rule, Selector, Tier,
};

/// A property that an address has or has not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Atom {
    /// It is a pod's, in one namespace, with such labels.
    PodsIn(Name, Selector),
    /// It is a pod's, in a namespace with such labels, with such labels of its own.
    PodsAcross { namespaces: Selector, pods: Selector },
    /// It is a pod's that has this named port.
    Port(NamedPort),
    /// It lies in this block.
    Block(IpBlock),
    /// It is one of a node with such labels.
    Node(Selector),
}

/// What has all the properties and goes to one of the ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term {
    /// Empty: every address.
    pub atoms: BTreeSet<Arc<Atom>>,
    /// `None`: everything, protocols without ports too.
    pub ports: Option<PortRange>,
}

/// What the policies that select a pod say in one direction. The default says nothing: everything is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleSet {
    /// Asked first: the first step that matches decides.
    pub admin: Steps,
    /// The NetworkPolicies' verdict on what is still open: any of the terms is allowed, all else is denied. `None`: none
    /// isolates the pod.
    pub policies: Option<BTreeSet<Term>>,
    /// Asked when no NetworkPolicy isolates the pod.
    pub baseline: Steps,
}

/// All properties that rule sets speak of, as often as they do; those of steps that several share come once.
pub(super) fn atoms<'a>(
    rule_sets: impl IntoIterator<Item = &'a Arc<RuleSet>> + Clone,
) -> impl Iterator<Item = &'a Arc<Atom>> {
    let terms = rule_sets.clone().into_iter().flat_map(|rules| &rules.policies).flatten();
    terms.flat_map(|term| &term.atoms).chain(steps::distinct(rule_sets).flat_map(Step::atoms))
}

/// All ranges of ports that rule sets speak of.
pub(super) fn ranges<'a>(
    rule_sets: impl IntoIterator<Item = &'a Arc<RuleSet>> + Clone,
) -> impl Iterator<Item = PortRange> {
    let terms = rule_sets.clone().into_iter().flat_map(|rules| &rules.policies).flatten();
    terms.filter_map(|term| term.ports).chain(steps::distinct(rule_sets).flat_map(Step::ranges))
}

pub(super) struct Compiled {
    pub(super) subjects: OrdMap<ObjectName, Subject>,
    /// Index 0 is the placeholder of "not isolated".
    pub(super) rule_sets: Vec<Arc<RuleSet>>,
}

pub(super) fn compile<'a>(cluster: &'a Cluster, subjects: impl IntoIterator<Item = &'a Pod>) -> Compiled {
    let pods = cluster.pods.values().filter(|pod| !pod.host_network);
    let mut compiler = Compiler::new(cluster, pods.flat_map(|pod| &*pod.ports).collect());
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

pub(super) struct Compiler<'a> {
    cluster: &'a Cluster,
    /// Every named port of the cluster's pods: what a named port of an egress rule can stand for.
    named_ports: BTreeSet<&'a NamedPort>,
    /// In the order in which they are asked.
    admin: Vec<&'a ClusterNetworkPolicy>,
    baseline: Vec<&'a ClusterNetworkPolicy>,
    /// Replicas ask the same question.
    by_question: HashMap<RuleSetKey<'a>, Arc<RuleSet>>,
    nothing: Arc<RuleSet>,
    /// Pods of different NetworkPolicies are mostly evaluated by the same steps.
    steps: HashMap<RuleSetKey<'a>, Steps>,
}

/// All that the rule set of a pod depends on.
#[derive(PartialEq, Eq, Hash)]
struct RuleSetKey<'a> {
    direction: Direction,
    /// The policies that isolate the pod.
    policies: Vec<&'a ObjectName>,
    /// The ClusterNetworkPolicies with rules for it.
    cluster_policies: Vec<&'a ClusterPolicyName>,
    /// The pod's own named ports; only rules of ingress speak of them.
    own_ports: &'a [NamedPort],
}

impl<'a> Compiler<'a> {
    /// `named_ports`: all that the cluster's pods have, but for those on the host network.
    pub(super) fn new(cluster: &'a Cluster, named_ports: BTreeSet<&'a NamedPort>) -> Self {
        Self {
            cluster,
            named_ports,
            admin: cluster.by_precedence(Tier::Admin),
            baseline: cluster.by_precedence(Tier::Baseline),
            by_question: HashMap::new(),
            nothing: Arc::default(),
            steps: HashMap::new(),
        }
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

    /// What the policies say of a pod in a direction, and what they would say were those in audit mode enforced: nothing
    /// when there are none.
    fn rule_sets(&mut self, pod: &'a Pod, direction: Direction) -> (Arc<RuleSet>, Arc<RuleSet>) {
        let whole_namespace = self.cluster.is_in_audit(&pod.name.namespace);
        let policies: Vec<&NetworkPolicy> = self.cluster.policies_selecting(pod, direction).collect();
        let admin = self.policies_selecting(&self.admin, pod, direction);
        let baseline = self.policies_selecting(&self.baseline, pod, direction);
        let enforced = {
            let policies =
                policies.iter().copied().filter(|policy| !whole_namespace && !policy.audit).collect();
            let of_tier = |tier: &[&'a ClusterNetworkPolicy]| -> Vec<&'a ClusterNetworkPolicy> {
                tier.iter().copied().filter(|policy| !policy.audit).collect()
            };
            self.rule_set(pod, direction, policies, of_tier(&admin), of_tier(&baseline))
        };
        let is_any_audited = policies.iter().any(|policy| whole_namespace || policy.audit)
            || admin.iter().chain(&baseline).any(|policy| policy.audit);
        let audited = if is_any_audited {
            self.rule_set(pod, direction, policies, admin, baseline)
        } else {
            self.nothing.clone()
        };
        (enforced, audited)
    }

    /// What policies say of a pod in a direction; nothing at all if none has a say.
    fn rule_set(
        &mut self,
        pod: &'a Pod,
        direction: Direction,
        policies: Vec<&'a NetworkPolicy>,
        admin: Vec<&'a ClusterNetworkPolicy>,
        baseline: Vec<&'a ClusterNetworkPolicy>,
    ) -> Arc<RuleSet> {
        // "NetworkPolicy always makes a final decision for selected pods": on all but what their own node may do.
        let baseline = if policies.is_empty() { baseline } else { Vec::new() };
        if policies.is_empty() && admin.is_empty() && baseline.is_empty() {
            return self.nothing.clone();
        }
        let ingress = matches!(direction, Direction::Ingress);
        let question = RuleSetKey {
            direction,
            policies: policies.iter().map(|policy| &policy.name).collect(),
            cluster_policies: admin.iter().chain(&baseline).map(|policy| &policy.name).collect(),
            own_ports: if ingress { &pod.ports } else { &[] },
        };
        if let Some(known) = self.by_question.get(&question) {
            return known.clone();
        }
        let subject = ingress.then_some(pod);
        let mut terms = BTreeSet::new();
        for policy in &policies {
            for rule in policy.rules(direction).into_iter().flatten() {
                self.add_terms(rule, &policy.name.namespace, subject, &mut terms);
            }
        }
        let rule_set = RuleSet {
            admin: self.steps(&admin, direction, pod),
            policies: (!policies.is_empty()).then_some(terms),
            baseline: self.steps(&baseline, direction, pod),
        };
        let rule_set = Arc::new(rule_set);
        self.by_question.insert(question, rule_set.clone());
        rule_set
    }

    /// The ClusterNetworkPolicies with rules for a pod: of the tiers Admin and Baseline, each in its order.
    pub(super) fn tiers_of(
        &self,
        pod: &Pod,
        direction: Direction,
    ) -> (Vec<&'a ClusterNetworkPolicy>, Vec<&'a ClusterNetworkPolicy>) {
        (
            self.policies_selecting(&self.admin, pod, direction),
            self.policies_selecting(&self.baseline, pod, direction),
        )
    }

    /// A rule of one of them, for a pod.
    pub(super) fn step_of(&self, rule: &ClusterRule, pod: &Pod, direction: Direction) -> Step {
        self.step(rule, matches!(direction, Direction::Ingress).then_some(pod))
    }

    /// A rule of a NetworkPolicy, for a pod.
    pub(super) fn terms_of(
        &self,
        rule: &Rule,
        namespace: &Name,
        pod: &Pod,
        direction: Direction,
    ) -> BTreeSet<Term> {
        let mut terms = BTreeSet::new();
        self.add_terms(rule, namespace, matches!(direction, Direction::Ingress).then_some(pod), &mut terms);
        terms
    }

    /// Those with rules for a pod, in their order.
    fn policies_selecting(
        &self,
        policies: &[&'a ClusterNetworkPolicy],
        pod: &Pod,
        direction: Direction,
    ) -> Vec<&'a ClusterNetworkPolicy> {
        if policies.is_empty() {
            return Vec::new();
        }
        let namespace = self.cluster.namespace_labels(&pod.name.namespace);
        let policies_selecting = policies.iter().copied();
        policies_selecting
            .filter(|policy| !policy.rules(direction).is_empty() && policy.selects(pod, &namespace))
            .collect()
    }

    /// The rules in order; those that can match nothing decide nothing.
    fn steps(&mut self, policies: &[&'a ClusterNetworkPolicy], direction: Direction, pod: &'a Pod) -> Steps {
        let ingress = matches!(direction, Direction::Ingress);
        let question = RuleSetKey {
            direction,
            policies: Vec::new(),
            cluster_policies: policies.iter().map(|policy| &policy.name).collect(),
            own_ports: if ingress { &pod.ports } else { &[] },
        };
        if let Some(known) = self.steps.get(&question) {
            return known.clone();
        }
        let rules = policies.iter().flat_map(|policy| policy.rules(direction));
        let steps = rules.map(|rule| self.step(rule, ingress.then_some(pod)));
        let steps: Steps = steps.filter(Step::can_match).collect();
        self.steps.insert(question, steps.clone());
        steps
    }

    fn step(&self, ClusterRule { action, matches }: &ClusterRule, subject: Option<&Pod>) -> Step {
        let peers = match &matches.peers {
            Peers::Any => None,
            Peers::Listed(peers) => Some(peers.iter().filter_map(|peer| peer_atom(peer, None)).collect()),
        };
        let ports = match &matches.ports {
            Ports::Any => None,
            Ports::Listed(ports) => {
                Some(ports.iter().flat_map(|port| self.step_ports(port, subject)).collect())
            }
        };
        Step { action: *action, peers, ports }
    }

    fn step_ports(&self, port: &PortRule, subject: Option<&Pod>) -> Vec<StepPort> {
        let mut ports = Vec::new();
        self.each_range(port, subject, |range, named| {
            let named = named.map(|port| Arc::new(Atom::Port(port.clone())));
            ports.push(StepPort { range, named });
        });
        ports
    }

    /// The terms of one rule. `namespace` is its policy's; `subject` is given for ingress, where a named port is the
    /// subject's own.
    fn add_terms(&self, rule: &Rule, namespace: &Name, subject: Option<&Pod>, terms: &mut BTreeSet<Term>) {
        let peers: Vec<BTreeSet<Arc<Atom>>> = match &rule.peers {
            Peers::Any => vec![BTreeSet::new()],
            Peers::Listed(peers) => {
                let atoms = peers.iter().filter_map(|peer| peer_atom(peer, Some(namespace)));
                atoms.map(|atom| BTreeSet::from([atom])).collect()
            }
        };
        for atoms in peers {
            match &rule.ports {
                Ports::Any => {
                    terms.insert(Term { atoms, ports: None });
                }
                Ports::Listed(ports) => {
                    for port in ports {
                        self.each_range(port, subject, |range, named| {
                            let named = named.map(|port| Arc::new(Atom::Port(port.clone())));
                            let atoms = atoms.iter().cloned().chain(named).collect();
                            terms.insert(Term { atoms, ports: Some(range) });
                        });
                    }
                }
            }
        }
    }

    /// The ranges that an entry stands for, each with the named port that the peer must have.
    fn each_range(
        &self,
        port: &PortRule,
        subject: Option<&Pod>,
        mut add: impl FnMut(PortRange, Option<&NamedPort>),
    ) {
        match port {
            PortRule::Protocol(protocol) => add(PortRange::all(*protocol), None),
            PortRule::Range { protocol, first, last } => add(PortRange::new(*protocol, *first, *last), None),
            PortRule::Named(protocol, name) => {
                let stands_for = |port: &&NamedPort| {
                    port.name == *name && protocol.is_none_or(|protocol| port.protocol == protocol)
                };
                match subject {
                    // The port belongs to the destination: the subject itself ...
                    Some(pod) => {
                        pod.ports.iter().filter(stands_for).for_each(|port| add(port.into(), None));
                    }
                    // ... or the peer, which must have the name with this very number.
                    None => {
                        let ports = self.named_ports.iter().copied().filter(stands_for);
                        ports.for_each(|port| add(port.into(), Some(port)));
                    }
                }
            }
            PortRule::Nothing => {}
        }
    }
}

/// `None`: the peer was not understood and matches nothing, or means a namespace that its policy does not have.
fn peer_atom(peer: &Peer, namespace: Option<&Name>) -> Option<Arc<Atom>> {
    let atom = match peer {
        Peer::Pods { namespaces: None, pods } => Atom::PodsIn(namespace?.clone(), pods.clone()),
        Peer::Pods { namespaces: Some(namespaces), pods } => {
            Atom::PodsAcross { namespaces: namespaces.clone(), pods: pods.clone() }
        }
        Peer::Block(block) => Atom::Block(block.clone()),
        Peer::Nodes(nodes) => Atom::Node(nodes.clone()),
        Peer::Nothing => return None,
    };
    Some(Arc::new(atom))
}
