//! What one end of a connection says: each rule of its policies is tried on each address and port in
//! question, also where it is settled before.

use std::{collections::BTreeSet, net::IpAddr};

use podgate_common::Direction;

use super::{
    CalicoPolicyTrace, ClusterPolicyTrace, ClusterRuleTrace, Connection, DirectionResult, PolicyTrace,
    RuleTrace, Verdict, VerdictReason, Wording,
    explanation::RuleEvaluation,
    peers::{self, OtherEnd, SelectedPods},
    ports,
};
use crate::{
    model::{Action, ClusterNetworkPolicy, Name, NetworkPolicy, Pod, PolicyRef, Rule},
    policy_walk::{ConnectionIndexes, OrderedPolicies, PolicyVisitor, PolicyWalk, Walked},
};

/// One peer address and one port number, as one end evaluates them.
#[derive(Clone, Copy)]
struct Case {
    peer: IpAddr,
    number: u16,
}

impl Connection<'_> {
    pub(super) fn side(&self, direction: Direction) -> DirectionResult {
        let own = if direction == Direction::Egress { self.from } else { self.to };
        let Some(pod) = own.policed() else {
            return self.host_side(direction);
        };
        self.side_of(pod, direction)
    }

    /// The side of a pod, or of a host endpoint.
    pub(super) fn side_of(&self, pod: &Pod, direction: Direction) -> DirectionResult {
        let policies = OrderedPolicies::of(self.cluster);
        let walk = policies.for_pod(pod, direction);
        let audited = || Box::new(self.side_by(pod, &walk.as_if_enforced(), direction));
        let audit = policies.is_any_in_audit(pod).then(audited);
        DirectionResult { audit, ..self.side_by(pod, &walk.enforced(), direction) }
    }

    fn side_by(&self, pod: &Pod, walk: &PolicyWalk<'_>, direction: Direction) -> DirectionResult {
        let peer = match direction {
            Direction::Egress => self.to,
            Direction::Ingress => self.from,
        };
        let cases = self.cases(direction);
        let is_own_node = pod.host.is_none() && peer.is_own_node(pod, direction);
        // The peers of ingress are pods, and the node's own traffic always passes.
        let is_always_let_in = is_own_node && direction == Direction::Ingress;
        let open = (0..cases.len()).filter(|_| !is_always_let_in).collect();
        let mut tracer =
            Tracer { connection: self, own: pod, direction, cases: &cases, policy: None, traces: Vec::new() };
        let walked = walk.walk(open, &mut tracer);
        let (mut policies, mut cluster_policies, mut calico_policies) = (Vec::new(), Vec::new(), Vec::new());
        for (policy, rules) in walked.policies.iter().zip(tracer.traces) {
            match policy.policy {
                PolicyRef::Namespaced(policy) => policies.push(policy_trace(policy, rules)),
                PolicyRef::Cluster(of_tier) => {
                    cluster_policies.push(cluster_policy_trace(of_tier, direction, &policy.hits, rules));
                }
                PolicyRef::Calico(of_tier) => {
                    calico_policies.push(CalicoPolicyTrace::of(of_tier, direction, policy, rules));
                }
            }
        }
        let isolated = walk.isolates();
        let has_ordered = !cluster_policies.is_empty() || !calico_policies.is_empty();
        let otherwise = match (isolated, !has_ordered) {
            (true, _) if is_own_node => VerdictReason::OwnNode,
            (true, _) if pod.host.is_some() => VerdictReason::NoProfile,
            (true, _) => VerdictReason::NoRuleMatches,
            (false, true) => VerdictReason::NotIsolated,
            (false, false) if pod.host.is_some() => VerdictReason::Profile,
            (false, false) => VerdictReason::Undecided,
        };
        let reasons: Vec<VerdictReason> =
            (0..cases.len()).map(|case| reason(case, &walked, direction, otherwise)).collect();
        let is_denied = |reason: &VerdictReason| reason.verdict() == Verdict::Deny;
        let reason = if peer.policed().is_some_and(|peer| peer.name == pod.name) {
            VerdictReason::Itself
        } else if otherwise == VerdictReason::NotIsolated {
            VerdictReason::NotIsolated
        } else if is_always_let_in {
            VerdictReason::OwnNode
        } else {
            let telling = reasons.iter().copied().find(is_denied).or_else(|| reasons.first().copied());
            telling.unwrap_or(otherwise)
        };
        let denied = cases.iter().zip(&reasons).filter(|(_, reason)| is_denied(reason));
        let denied = denied.map(|(case, _)| case.peer).collect();
        DirectionResult {
            isolated,
            host_endpoint: pod.host.is_some().then(|| pod.name.name.clone()),
            verdict: reason.verdict(),
            reason,
            note: peer.note(pod, direction).map(Wording::Meaning),
            denied_peers: if is_denied(&reason) { denied } else { BTreeSet::new() },
            policies,
            cluster_policies,
            calico_policies,
            audit: None,
        }
    }

    fn cases(&self, direction: Direction) -> Vec<Case> {
        let peers: BTreeSet<IpAddr> = self
            .pairs
            .iter()
            .map(|pair| match direction {
                Direction::Egress => pair.to,
                Direction::Ingress => pair.from,
            })
            .collect();
        let numbers = |peer| self.numbers.iter().map(move |number| Case { peer, number: *number });
        peers.into_iter().flat_map(numbers).collect()
    }

    /// Tries a rule on one case. `namespace` is its policy's.
    fn attempt(
        &self,
        namespace: Option<&Name>,
        rule: &Rule,
        (own, direction): (&Pod, Direction),
        case: Case,
    ) -> RuleEvaluation {
        let peer = match direction {
            Direction::Egress => self.to,
            Direction::Ingress => self.from,
        };
        let other = OtherEnd {
            resolved: peer,
            address: case.peer,
            port: (self.port.protocol, case.number),
            name: peer.asked_name(self.learnt, case.peer).filter(|_| direction == Direction::Egress),
        };
        let peers = peers::entries(self.cluster, namespace, &rule.peers, direction, own, &other);
        let ports = ports::entries(&rule.ports, self.port, case.number, self.to);
        let mut misses = peers::misses(&rule.peers, &peers);
        misses.extend(ports::miss(&rule.ports, self.port, case.number, self.to));
        RuleEvaluation { peers, ports, misses }
    }
}

/// Notes how each rule answers.
struct Tracer<'t, 'c> {
    connection: &'t Connection<'c>,
    own: &'t Pod,
    direction: Direction,
    cases: &'t [Case],
    /// At hand.
    policy: Option<PolicyRef<'t>>,
    /// By policy.
    traces: Vec<Vec<RuleTrace>>,
}

impl<'t> PolicyVisitor<'t> for Tracer<'t, '_> {
    const TRIES_ALL: bool = true;

    fn policy(&mut self, policy: PolicyRef<'t>) {
        self.policy = Some(policy);
        self.traces.push(Vec::new());
    }

    fn rule(&mut self, index: usize, rule: &'t Rule, left: &ConnectionIndexes) -> ConnectionIndexes {
        let annotation = self.policy.and_then(|policy| policy.annotation(self.direction, index));
        let mut trace = RuleTrace::of(index, annotation.map(Name::from));
        let namespace = self.policy.and_then(PolicyRef::namespace);
        let attempt = |case| self.connection.attempt(namespace, rule, (self.own, self.direction), case);
        let cases = self.cases.iter().enumerate();
        let matched: ConnectionIndexes =
            cases.filter(|(_, case)| trace.add(attempt(**case))).map(|(place, _)| place).collect();
        self.traces.last_mut().expect("a rule comes after its policy").push(trace);
        &matched & left
    }
}

fn policy_trace(policy: &NetworkPolicy, rules: Vec<RuleTrace>) -> PolicyTrace {
    PolicyTrace {
        namespace: policy.name.namespace.clone(),
        name: policy.name.name.clone(),
        selects: Wording::Meaning(SelectedPods::Of(policy.name.namespace.clone(), policy.subject.clone())),
        matched: matched(&rules),
        rules,
    }
}

fn cluster_policy_trace(
    policy: &ClusterNetworkPolicy,
    direction: Direction,
    hits: &[ConnectionIndexes],
    rules: Vec<RuleTrace>,
) -> ClusterPolicyTrace {
    let actions = policy.rules(direction).iter().map(|rule| rule.action);
    let decides = |action| match action {
        Action::Accept | Action::Deny => true,
        Action::Pass | Action::Log => false,
    };
    let decided = actions.clone().zip(hits).enumerate();
    let decided = decided.filter(|(_, (action, hits))| decides(*action) && !hits.is_empty());
    ClusterPolicyTrace {
        kind: policy.name.kind,
        name: policy.name.name.clone(),
        tier: policy.tier,
        priority: policy.priority,
        selects: Wording::Meaning(SelectedPods::Across(policy.subject.clone())),
        matched: matched(&rules),
        decided: decided.map(|(rule, _)| rule).collect(),
        rules: actions.zip(rules).map(|(action, trace)| ClusterRuleTrace { action, trace }).collect(),
    }
}

fn matched(rules: &[RuleTrace]) -> Vec<usize> {
    rules.iter().filter(|trace| trace.matched).map(|trace| trace.rule).collect()
}

/// `otherwise`: where no rule decides.
fn reason(case: usize, walked: &Walked<'_>, direction: Direction, otherwise: VerdictReason) -> VerdictReason {
    let mut decided = walked.policies.iter().filter_map(|it| Some((it.policy, it.decided(direction, case)?)));
    let is_dropped = walked.policies.iter().any(|policy| policy.dropped_at_end.contains(&case));
    match decided.next() {
        None if is_dropped && walked.decision.denied.contains(&case) => VerdictReason::EndOfTier,
        // A rule that passes has left it, and no later tier decides.
        None if walked.decision.left.contains(&case)
            && ![VerdictReason::NotIsolated, VerdictReason::Profile].contains(&otherwise) =>
        {
            VerdictReason::Undecided
        }
        None => otherwise,
        Some((PolicyRef::Namespaced(_), _)) if otherwise == VerdictReason::OwnNode => otherwise,
        Some((PolicyRef::Namespaced(_), _)) => VerdictReason::RuleMatches,
        Some((PolicyRef::Cluster(_), accepts)) => match accepts {
            true => VerdictReason::ClusterPolicyAccepts,
            false => VerdictReason::ClusterPolicyDenies,
        },
        Some((PolicyRef::Calico(_), accepts)) => match accepts {
            true => VerdictReason::CalicoPolicyAllows,
            false => VerdictReason::CalicoPolicyDenies,
        },
    }
}
