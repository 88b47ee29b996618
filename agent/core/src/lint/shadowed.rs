//! Rules without an effect of their own, because another rule says the same or more: for NetworkPolicies any
//! other one for the same pods, for cluster-wide policies and for Calico's an earlier one of their tier.
//!
//! "More" is what the rules say ([`Clause::covers`]), not whom they happen to match now, so that a finding
//! holds whatever pods come. Of rules that say the same the first is left alone: all rules that are found can
//! be removed together.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    rc::Rc,
};

use podgate_common::Direction;

use super::{
    LintFinding, LintName,
    survey::{Survey, SurveyedPolicy},
};
use crate::{
    compiler::{Clause, RuleCompiler, named_ports},
    model::{
        Action, LabelExpression, Name, NamedPort, Peers, Pod, PolicyRef, PortRule, Ports, Rule, Selector,
        Tier,
    },
    policy_walk::OrderedPolicies,
};

pub(super) fn find(survey: &Survey<'_>, findings: &mut Vec<LintFinding>) {
    let ports = named_ports(survey.cluster);
    let compiler = RuleCompiler::new(survey.cluster, &ports);
    let mut clauses = Clauses { survey, compiler, known: HashMap::new() };
    for others in by_subject(survey) {
        let RivalPolicies { of_subject, of_all_pods } = others;
        for direction in Direction::ALL {
            for policy in of_subject.iter().copied() {
                clauses.find_among(policy, &of_subject, &of_all_pods, direction, findings);
            }
        }
    }
    for policies in in_order(survey) {
        for direction in Direction::ALL {
            for (place, policy) in policies.iter().copied().enumerate() {
                clauses.find_after(policy, &policies[..place], direction, findings);
            }
        }
    }
}

/// NetworkPolicies of one namespace, by their places, in the order of their names.
struct RivalPolicies {
    /// With the same subject.
    of_subject: Vec<usize>,
    /// For all pods of the namespace; none where the subject is that.
    of_all_pods: Vec<usize>,
}

fn by_subject(survey: &Survey<'_>) -> Vec<RivalPolicies> {
    let mut by_subject: BTreeMap<(&Name, &Selector), Vec<usize>> = BTreeMap::new();
    for (place, policy) in survey.policies.iter().enumerate() {
        if let PolicyRef::Namespaced(policy) = policy.policy {
            by_subject.entry((&policy.name.namespace, &policy.subject)).or_default().push(place);
        }
    }
    let everything = Selector::EVERYTHING;
    let rivals = by_subject.iter().map(|((namespace, subject), of_subject)| {
        let of_all = by_subject.get(&(*namespace, &everything)).filter(|_| **subject != everything);
        RivalPolicies { of_subject: of_subject.clone(), of_all_pods: of_all.cloned().unwrap_or_default() }
    });
    rivals.collect()
}

/// The policies of each tier, by their places, the first to be asked first: the cluster-wide ones, and
/// Calico's.
fn in_order(survey: &Survey<'_>) -> Vec<Vec<usize>> {
    let places: HashMap<_, usize> =
        survey.policies.iter().enumerate().map(|(at, it)| (it.policy.name(), at)).collect();
    let of_cluster = Tier::ALL.map(|tier| {
        let ordered = survey.cluster.by_precedence(tier).into_iter();
        ordered.map(|policy| places[&PolicyRef::Cluster(policy).name()]).collect()
    });
    let of_calico = OrderedPolicies::of(survey.cluster).of_calico().into_iter().map(|policies| {
        // The rules of those of Kubernetes have no order.
        let ordered = policies.into_iter().filter(|policy| !policy.name.kind.is_of_kubernetes());
        ordered.map(|policy| places[&PolicyRef::Calico(policy).name()]).collect()
    });
    of_cluster.into_iter().chain(of_calico).collect()
}

/// Rules as the compiler reads them.
struct Clauses<'s, 'a> {
    survey: &'s Survey<'a>,
    compiler: RuleCompiler<'s>,
    known: HashMap<ClauseKey<'s>, Rc<Clause>>,
}

/// A rule, and the ports that its names stand for.
#[derive(PartialEq, Eq, Hash)]
struct ClauseKey<'s> {
    policy: usize,
    direction: Direction,
    rule: usize,
    ports: &'s [NamedPort],
}

/// A rule by its place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct RulePlace {
    policy: usize,
    rule: usize,
}

impl<'s, 'a> Clauses<'s, 'a> {
    /// Rules of a NetworkPolicy that another rule covers.
    fn find_among(
        &mut self,
        policy: usize,
        of_subject: &[usize],
        of_all_pods: &[usize],
        direction: Direction,
        findings: &mut Vec<LintFinding>,
    ) {
        self.find_in(policy, direction, findings, |clauses, place, pods| {
            let wider = clauses.places(of_all_pods, direction);
            let same = clauses.places(of_subject, direction).into_iter().filter(|other| *other != place);
            let mut others =
                same.map(|other| (other, other < place)).chain(wider.into_iter().map(|other| (other, true)));
            let covering = others.find(|(other, is_first)| {
                clauses.may_stand_for(other.policy, policy)
                    && clauses.covers(*other, place, direction, pods)
                    && (*is_first || !clauses.covers(place, *other, direction, pods))
            });
            let (other, _) = covering?;
            let by = clauses.name(other, place, direction);
            Some(format!("{by} allows everything that the rule allows"))
        });
    }

    /// Rules of a policy with an order that are never asked.
    fn find_after(
        &mut self,
        policy: usize,
        earlier: &[usize],
        direction: Direction,
        findings: &mut Vec<LintFinding>,
    ) {
        let survey = self.survey;
        let selects_all_of =
            |other: &usize| covers_subject(&survey.policies[*other], &survey.policies[policy]);
        let earlier: Vec<usize> = earlier.iter().copied().filter(selects_all_of).collect();
        self.find_in(policy, direction, findings, |clauses, place, pods| {
            let own = clauses.places(&[policy], direction).into_iter().filter(|own| own.rule < place.rule);
            let others: Vec<RulePlace> = clauses.places(&earlier, direction).into_iter().chain(own).collect();
            let other = others.into_iter().find(|other| {
                clauses.may_stand_for(other.policy, policy) && clauses.covers(*other, place, direction, pods)
            })?;
            let by = clauses.name(other, place, direction);
            Some(format!("{by} decides everything that the rule matches, before it"))
        });
    }

    /// `covered_by` says in a sentence what covers a rule.
    fn find_in(
        &mut self,
        policy: usize,
        direction: Direction,
        findings: &mut Vec<LintFinding>,
        mut covered_by: impl FnMut(&mut Self, RulePlace, &[&'s Pod]) -> Option<String>,
    ) {
        let survey = self.survey;
        let surveyed = &survey.policies[policy];
        let pods = self.representatives(surveyed, direction);
        for (rule, written) in surveyed.rules(direction).into_iter().enumerate() {
            let place = RulePlace { policy, rule };
            if !is_comparable(written) {
                continue;
            }
            let can_match = pods.iter().any(|pod| self.clause(place, direction, pod).can_match());
            if can_match && let Some(message) = covered_by(self, place, &pods) {
                let field = surveyed.rule_field(direction, rule);
                findings.push(surveyed.finding(field, LintName::ShadowedRule, message));
            }
        }
    }

    /// Selected pods that rules of the direction can tell apart: by the names of their ports.
    fn representatives(&self, policy: &SurveyedPolicy<'_>, direction: Direction) -> Vec<&'s Pod> {
        let pods = policy.selected.iter().map(|place| self.survey.workloads[*place].pod);
        if direction == Direction::Egress || !policy.rules(direction).into_iter().any(has_named_port) {
            return pods.take(1).collect();
        }
        let mut seen: BTreeSet<&[NamedPort]> = BTreeSet::new();
        pods.filter(|pod| seen.insert(&pod.ports)).collect()
    }

    /// The rules that decide something.
    fn places(&self, policies: &[usize], direction: Direction) -> Vec<RulePlace> {
        let of_policy = policies.iter().flat_map(|policy| {
            let of = self.survey.policies[*policy].policy;
            let rules = of.rules(direction).into_iter().zip(of.actions(direction)).enumerate();
            let deciding = rules.filter(|(_, (rule, action))| *action != Action::Log && is_comparable(rule));
            deciding.map(|(rule, _)| RulePlace { policy: *policy, rule })
        });
        of_policy.collect()
    }

    /// A policy in audit mode does not stand for one that is enforced.
    fn may_stand_for(&self, other: usize, policy: usize) -> bool {
        !self.survey.policies[other].audit || self.survey.policies[policy].audit
    }

    fn covers(&mut self, wide: RulePlace, narrow: RulePlace, direction: Direction, pods: &[&'s Pod]) -> bool {
        pods.iter().all(|pod| {
            let (wide, narrow) = (self.clause(wide, direction, pod), self.clause(narrow, direction, pod));
            wide.covers(&narrow)
        })
    }

    fn clause(&mut self, place: RulePlace, direction: Direction, pod: &'s Pod) -> Rc<Clause> {
        let RulePlace { policy, rule } = place;
        let policy_ref = self.survey.policies[policy].policy;
        let written = policy_ref.rules(direction)[rule];
        let ports: &[NamedPort] = if has_named_port(written) { &pod.ports } else { &[] };
        let key = ClauseKey { policy, direction, rule, ports };
        let compiler = &self.compiler;
        let made = || Rc::new(compiler.clause_for(written, policy_ref.namespace(), pod, direction));
        self.known.entry(key).or_insert_with(made).clone()
    }

    fn name(&self, rule: RulePlace, seen_from: RulePlace, direction: Direction) -> String {
        let field = self.survey.policies[rule.policy].rule_field(direction, rule.rule);
        match rule.policy == seen_from.policy {
            true => field,
            false => format!("{field} of {}", self.survey.policies[rule.policy].object()),
        }
    }
}

/// Whether a policy of a tier is for every pod that the other one is for.
fn covers_subject(wide: &SurveyedPolicy<'_>, narrow: &SurveyedPolicy<'_>) -> bool {
    match (wide.policy, narrow.policy) {
        (PolicyRef::Cluster(wide), PolicyRef::Cluster(narrow)) => {
            wide.subject.namespaces.covers(&narrow.subject.namespaces)
                && wide.subject.pods.covers(&narrow.subject.pods)
        }
        (PolicyRef::Calico(wide), PolicyRef::Calico(narrow)) => {
            // Of expressions only the same is known to match the same.
            [&narrow.subject, &LabelExpression::EVERYTHING].contains(&&wide.subject)
                && (wide.name.namespace.is_none() || wide.name.namespace == narrow.name.namespace)
        }
        (PolicyRef::Namespaced(_), _)
        | (PolicyRef::Cluster(_), PolicyRef::Namespaced(_) | PolicyRef::Calico(_))
        | (PolicyRef::Calico(_), PolicyRef::Namespaced(_) | PolicyRef::Cluster(_)) => false,
    }
}

/// Whether a rule says the same of every pod that its policy selects, and whatever a Service leads to.
fn is_comparable(rule: &Rule) -> bool {
    match &rule.peers {
        Peers::Any | Peers::Listed(_) => true,
        Peers::Calico(ends) => ends.own.is_any() && ends.family.is_none() && rule.service().is_none(),
    }
}

fn has_named_port(rule: &Rule) -> bool {
    match &rule.ports {
        Ports::Any => false,
        Ports::Listed(ports) => ports.iter().any(|port| matches!(port, PortRule::Named(..))),
        // A name among either list may stand for other ports on another pod.
        Ports::Except { .. } => true,
    }
}
