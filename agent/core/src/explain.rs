//! Why a connection is allowed or denied: the policies of both ends, rule by rule.
//!
//! In: a cluster and a question (who, to whom, which port). Out: an [`Explanation`], the same for people and
//! machines. It reads the model, not the compiled tables, because only the model still knows policies and
//! rules. What only packets show is left out: which backend of a service is chosen, masquerading, and
//! connections that were evaluated before.

mod end;
mod expected_verdicts;
mod explanation;
mod peers;
mod ports;
mod service;
mod tiers;

use std::{collections::BTreeSet, net::IpAddr};

pub use end::{BadEndpointRef, EndpointRef, Unanswerable};
pub use expected_verdicts::ExpectedVerdict;
pub use explanation::{
    AddressPair, ClusterPolicyTrace, ClusterRuleTrace, DirectionResult, EntryTrace, Explanation, KernelCheck,
    PolicyTrace, RuleTrace, Verdict, VerdictReason,
};
use podgate_common::Direction;

use crate::{
    model::{Cluster, Name, NetworkPolicy, Rule, Tier},
    port_spec::PortSpec,
};
use end::ResolvedEndpoint;
use explanation::RuleEvaluation;

/// May `from` open a connection to `port` of `to`?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The client.
    pub from: EndpointRef,
    /// The server.
    pub to: EndpointRef,
    /// The server's port.
    pub port: PortSpec,
}

/// Answers a question: allowed when the egress of the source *and* the ingress of the destination allow it.
///
/// Several addresses: all pairs of one family must be allowed. A port name with several numbers: all of them.
/// Where a service answers: all backends that it may lead to, of which there must be one.
///
/// # Errors
///
/// When an end is unknown or has no address, and when the destination has no port of this name.
pub fn explain(cluster: &Cluster, question: &Question) -> Result<Explanation, Unanswerable> {
    match service::explain(cluster, question)? {
        Some(explanation) => Ok(explanation),
        None => to_itself(cluster, question),
    }
}

/// The addresses of the destination are where the connection ends.
fn to_itself(cluster: &Cluster, question: &Question) -> Result<Explanation, Unanswerable> {
    let from = ResolvedEndpoint::resolve(cluster, &question.from)?;
    let to = ResolvedEndpoint::resolve(cluster, &question.to)?;
    let numbers = question.port.numbers(to.container());
    if numbers.is_empty() {
        return Err(Unanswerable::NoSuchPort { to: question.to.clone(), port: question.port.clone() });
    }
    let pairs = pairs(&from.addresses, &to.addresses);
    let connection =
        Connection { cluster, port: &question.port, numbers: &numbers, from: &from, to: &to, pairs: &pairs };
    let egress = connection.side(Direction::Egress);
    let ingress = connection.side(Direction::Ingress);
    let allowed = !pairs.is_empty() && egress.verdict == Verdict::Allow && ingress.verdict == Verdict::Allow;
    Ok(Explanation {
        verdict: Verdict::from_allowed(allowed),
        from: question.from.clone(),
        to: question.to.clone(),
        port: question.port.clone(),
        numbers: numbers.iter().copied().collect(),
        from_pod: from.pod_of_address(),
        to_pod: to.pod_of_address(),
        pairs,
        egress,
        ingress,
        backends: None,
        uncertain_because: Vec::new(),
        unenforced: Vec::new(),
        kernel: None,
    })
}

/// One side of the answer about two pods, with other names in its words: pages that show many answers share
/// those that differ in names alone. `None`: the pods share no address family.
///
/// # Errors
///
/// As [`explain`].
pub fn explain_side(
    cluster: &Cluster,
    question: &Question,
    direction: Direction,
    [from_name, to_name]: [&str; 2],
) -> Result<Option<DirectionResult>, Unanswerable> {
    let from = ResolvedEndpoint::resolve(cluster, &question.from)?.shown_as(from_name);
    let to = ResolvedEndpoint::resolve(cluster, &question.to)?.shown_as(to_name);
    let numbers = question.port.numbers(to.container());
    if numbers.is_empty() {
        return Err(Unanswerable::NoSuchPort { to: question.to.clone(), port: question.port.clone() });
    }
    let pairs = pairs(&from.addresses, &to.addresses);
    let connection =
        Connection { cluster, port: &question.port, numbers: &numbers, from: &from, to: &to, pairs: &pairs };
    Ok((!pairs.is_empty()).then(|| connection.side(direction)))
}

/// An IPv4 address never talks to an IPv6 address.
fn pairs(from: &[IpAddr], to: &[IpAddr]) -> Vec<AddressPair> {
    let all = from.iter().flat_map(|from| to.iter().map(|to| AddressPair { from: *from, to: *to }));
    all.filter(|pair| pair.from.is_ipv4() == pair.to.is_ipv4()).collect()
}

/// What is asked, with both ends known.
struct Connection<'a> {
    cluster: &'a Cluster,
    port: &'a PortSpec,
    numbers: &'a BTreeSet<u16>,
    from: &'a ResolvedEndpoint<'a>,
    to: &'a ResolvedEndpoint<'a>,
    pairs: &'a [AddressPair],
}

/// One peer address and one port number, as one end evaluates them.
#[derive(Clone, Copy)]
struct Case {
    peer: IpAddr,
    number: u16,
}

impl Connection<'_> {
    fn side(&self, direction: Direction) -> DirectionResult {
        let own = if direction == Direction::Egress { self.from } else { self.to };
        let whole = own.policed().and_then(|pod| self.cluster.with_audit_enforced(pod));
        let audit = whole.map(|whole| Connection { cluster: &whole, ..*self }.enforced_side(direction));
        DirectionResult { audit: audit.map(Box::new), ..self.enforced_side(direction) }
    }

    fn enforced_side(&self, direction: Direction) -> DirectionResult {
        let (own, peer) = match direction {
            Direction::Egress => (self.from, self.to),
            Direction::Ingress => (self.to, self.from),
        };
        let cases = self.cases(direction);
        let Some(pod) = own.policed() else {
            return DirectionResult::without_policies(VerdictReason::NotAPod);
        };
        let enforced_policies_selecting: Vec<&NetworkPolicy> =
            self.cluster.enforced_policies_selecting(pod, direction).collect();
        let evaluated: Vec<(PolicyTrace, Vec<bool>)> =
            enforced_policies_selecting.iter().map(|policy| self.policy(policy, direction, &cases)).collect();
        let isolated = !enforced_policies_selecting.is_empty();
        let is_own_node = peer.is_own_node(pod, direction);
        // The peers of ingress are pods, and the node's own traffic always passes.
        let is_always_let_in = is_own_node && direction == Direction::Ingress;
        let admin = self.tier(pod, Tier::Admin, direction, &cases, |_| !is_always_let_in);
        let settled_by_policies = |case: usize| match isolated {
            true if is_own_node => Some(VerdictReason::OwnNode),
            true if evaluated.iter().any(|(_, allowed)| allowed[case]) => Some(VerdictReason::RuleMatches),
            true => Some(VerdictReason::NoRuleMatches),
            false => None,
        };
        let baseline = self.tier(pod, Tier::Baseline, direction, &cases, |case| {
            !is_always_let_in && admin.settled[case].is_none() && !isolated
        });
        let has_no_say = admin.traces.is_empty() && baseline.traces.is_empty();
        let open = if has_no_say { VerdictReason::NotIsolated } else { VerdictReason::Undecided };
        let reasons: Vec<VerdictReason> = (0..cases.len())
            .map(|case| {
                let settled = admin.settled[case].or_else(|| settled_by_policies(case));
                settled.or(baseline.settled[case]).unwrap_or(open)
            })
            .collect();
        let is_denied = |reason: &VerdictReason| reason.verdict() == Verdict::Deny;
        let reason = if peer.policed().is_some_and(|peer| peer.name == pod.name) {
            VerdictReason::Itself
        } else if !isolated && has_no_say {
            VerdictReason::NotIsolated
        } else if is_always_let_in {
            VerdictReason::OwnNode
        } else {
            let telling = reasons.iter().copied().find(is_denied).or_else(|| reasons.first().copied());
            telling.unwrap_or(match isolated {
                true if is_own_node => VerdictReason::OwnNode,
                true => VerdictReason::NoRuleMatches,
                false => open,
            })
        };
        let denied = cases.iter().zip(&reasons).filter(|(_, reason)| is_denied(reason));
        let denied = denied.map(|(case, _)| case.peer).collect();
        DirectionResult {
            isolated,
            verdict: reason.verdict(),
            reason,
            note: peer.note(pod, direction),
            denied_peers: if is_denied(&reason) { denied } else { BTreeSet::new() },
            policies: evaluated.into_iter().map(|(trace, _)| trace).collect(),
            cluster_policies: admin.traces.into_iter().chain(baseline.traces).collect(),
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

    /// How each rule of a policy answers, and which cases the policy allows.
    fn policy(
        &self,
        policy: &NetworkPolicy,
        direction: Direction,
        cases: &[Case],
    ) -> (PolicyTrace, Vec<bool>) {
        let rules = policy.rules(direction).unwrap_or_default();
        let mut allowed = vec![false; cases.len()];
        let mut traces = Vec::with_capacity(rules.len());
        for (index, rule) in rules.iter().enumerate() {
            let mut trace = RuleTrace::of(index);
            for (case, allowed) in cases.iter().zip(&mut allowed) {
                *allowed |= trace.add(self.attempt(Some(&policy.name.namespace), rule, direction, *case));
            }
            traces.push(trace);
        }
        let matched = traces.iter().filter(|trace| trace.matched).map(|trace| trace.rule).collect();
        let trace = PolicyTrace {
            namespace: policy.name.namespace.clone(),
            name: policy.name.name.clone(),
            selects: peers::selected(policy),
            matched,
            rules: traces,
        };
        (trace, allowed)
    }

    /// Tries a rule on one case. `namespace` is its policy's.
    fn attempt(
        &self,
        namespace: Option<&Name>,
        rule: &Rule,
        direction: Direction,
        case: Case,
    ) -> RuleEvaluation {
        let peer = match direction {
            Direction::Egress => self.to,
            Direction::Ingress => self.from,
        };
        let peers = peers::entries(self.cluster, namespace, &rule.peers, direction, peer, case.peer);
        let ports = ports::entries(&rule.ports, self.port, case.number, self.to);
        let mut misses = peers::misses(&peers);
        misses.extend(ports::miss(&rule.ports, self.port, case.number, self.to));
        RuleEvaluation { peers, ports, misses }
    }
}

#[cfg(test)]
mod tests;
