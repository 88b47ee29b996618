//! The answer of `explain`. Its JSON form is a contract: fields are added, never renamed.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::{
    EndpointRef, VerdictReason, Wording,
    calico::CalicoPolicyTrace,
    end::OwnNodeAddress,
    findings::{EntryFinding, EntryName, Miss, TriedEntry},
    name::KnownAddress,
    peers::SelectedPods,
    service::Uncertainty,
};
use crate::{
    model::{Action, ClusterPolicyKind, Name, ObjectName, Tier},
    port_spec::PortSpec,
};

/// The whole answer. Its JSON is a contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Whether the connection is allowed.
    pub verdict: Verdict,
    /// The client, as it was asked about.
    pub from: EndpointRef,
    /// The server, as it was asked about.
    pub to: EndpointRef,
    /// The server's port.
    pub port: PortSpec,
    /// What `port` stands for on the destination; of a service, its own number.
    pub numbers: Vec<u16>,
    /// The pod whose address `from` is, when it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_pod: Option<ObjectName>,
    /// The pod at that address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_pod: Option<ObjectName>,
    /// The addresses that were evaluated; empty: the ends share no address family and cannot talk.
    pub pairs: Vec<AddressPair>,
    /// The source's side.
    pub egress: DirectionResult,
    /// The destination's side.
    pub ingress: DirectionResult,
    /// When a service answers at the destination: each backend that it may lead to. `pairs` and both sides
    /// are then those of all backends together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backends: Option<Vec<Explanation>>,
    /// Why it may be otherwise: what decides it is not in the objects. One line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uncertain_because: Vec<Wording<Uncertainty>>,
    /// Of a running agent: the pods in question that should be isolated and are not, one line each. What
    /// policies say of these is not what happens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unenforced: Vec<String>,
    /// Of a running agent, where the client has rules with names: the addresses in question, or those of the
    /// name in question, that it has learnt and that count now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learnt: Option<Vec<KnownAddress>>,
    /// Of a running agent: whether the tables in the kernel say the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<KernelCheck>,
}

impl Explanation {
    /// Of a name, whose addresses are not known: those in their place are no part of the answer.
    pub(super) fn forget_addresses(&mut self) {
        self.pairs.clear();
        self.egress.denied_peers.clear();
    }

    /// The pods at both ends, and behind a service: `namespace/name`.
    pub fn pods(&self) -> BTreeSet<String> {
        let ends = [(&self.from, &self.from_pod), (&self.to, &self.to_pod)];
        let pods = ends.into_iter().filter_map(|(end, behind)| end.pod().or(behind.as_ref()));
        let pods = pods.map(ToString::to_string);
        pods.chain(self.backends.iter().flatten().flat_map(Self::pods)).collect()
    }
}

/// The kernel's own answer, beside that of the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelCheck {
    /// Verdicts of pods on this node that were compared.
    pub asked: usize,
    /// One line for each that differs: a fault of podgate's.
    pub disagreements: Vec<String>,
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every policy that has a say lets it pass.
    Allow,
    /// Some side denies it.
    Deny,
}

/// One pair of addresses of the two ends, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPair {
    /// The client's address.
    pub from: IpAddr,
    /// The server's address.
    pub to: IpAddr,
}

/// What one end says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectionResult {
    /// Whether a NetworkPolicy selects the pod in this direction.
    pub isolated: bool,
    /// The host endpoint that has these policies, where this end is a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_endpoint: Option<Name>,
    /// What this side says.
    pub verdict: Verdict,
    /// Why.
    pub reason: VerdictReason,
    /// What the question cannot tell and a packet would.
    pub note: Option<Wording<OwnNodeAddress>>,
    /// Addresses of the other end that no rule allows.
    pub denied_peers: BTreeSet<IpAddr>,
    /// Every policy that isolates this end in this direction.
    pub policies: Vec<PolicyTrace>,
    /// Every ClusterNetworkPolicy with rules for this end in this direction, in the order in which they are
    /// asked.
    #[serde(default)]
    pub cluster_policies: Vec<ClusterPolicyTrace>,
    /// Every policy of Calico's for this end in this direction, in the order in which they are asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calico_policies: Vec<CalicoPolicyTrace>,
    /// What it would say were the policies in audit mode enforced; `None`: there are none for this end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Box<DirectionResult>>,
}

/// One policy and what its rules say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyTrace {
    /// The policy's namespace.
    pub namespace: Name,
    /// The policy's name.
    pub name: Name,
    /// The pods that it is for, as in `pods of x with role=backend`.
    #[serde(default)]
    pub selects: Wording<SelectedPods>,
    /// Indexes of the rules that match at least one of the addresses and ports in question.
    pub matched: Vec<usize>,
    /// Its rules of this direction, in their order.
    pub rules: Vec<RuleTrace>,
}

/// How one rule was evaluated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleTrace {
    /// Its index in the policy's `ingress` or `egress`.
    pub rule: usize,
    /// The annotation that it stands in, behind the rules of `egress`; `None`: it is one of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotation: Option<Name>,
    /// Whether it allows the connection.
    pub matched: bool,
    /// What did not match. Not empty beside `matched` when the rule matches only some of the addresses.
    pub why_not: Vec<Wording<Miss>>,
    /// Each entry of `from` or `to`, whatever the others say; a single one when there is no such list.
    #[serde(default)]
    pub peers: Vec<EntryTrace>,
    /// Each entry of `ports`; likewise.
    #[serde(default)]
    pub ports: Vec<EntryTrace>,
}

/// What one entry of a rule says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryTrace {
    /// As in `from[0]`; without an index for the list itself.
    pub entry: Wording<EntryName>,
    /// It matches at least one of the addresses and ports in question.
    pub matched: bool,
    /// What it wants and what was found, of those that match if any does. A line for each that reads
    /// differently.
    pub why: Vec<Wording<EntryFinding>>,
}

/// One ClusterNetworkPolicy and what its rules say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterPolicyTrace {
    /// The kind of the object.
    pub kind: ClusterPolicyKind,
    /// The policy's name.
    pub name: Name,
    /// Where it stands among the policies.
    pub tier: Tier,
    /// Within the tier; the lowest comes first.
    pub priority: u16,
    /// As in `pods with role=backend of namespaces with team=a`.
    #[serde(default)]
    pub selects: Wording<SelectedPods>,
    /// Indexes of the rules that match at least one of the addresses and ports in question.
    pub matched: Vec<usize>,
    /// Those among them that settle it for at least one: no rule before them has matched, and they do not
    /// pass.
    pub decided: Vec<usize>,
    /// Its rules of this direction, up to the one that decides.
    pub rules: Vec<ClusterRuleTrace>,
}

/// How one rule of a cluster-wide policy was evaluated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRuleTrace {
    /// What the rule does with what matches.
    pub action: Action,
    /// Whether it matches, and why.
    #[serde(flatten)]
    pub trace: RuleTrace,
}

/// What a rule says of one address and one port.
pub(super) struct RuleEvaluation {
    pub(super) peers: Vec<TriedEntry>,
    pub(super) ports: Vec<TriedEntry>,
    /// Why the rule does not match; empty: it does.
    pub(super) misses: Vec<Miss>,
}

impl Verdict {
    /// `Allow` if allowed, else `Deny`.
    pub const fn from_allowed(allowed: bool) -> Self {
        if allowed { Self::Allow } else { Self::Deny }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

impl DirectionResult {
    /// Where no policy is asked, or none could be.
    pub(super) const fn without_policies(reason: VerdictReason) -> Self {
        Self {
            isolated: false,
            host_endpoint: None,
            verdict: reason.verdict(),
            reason,
            note: None,
            denied_peers: BTreeSet::new(),
            policies: Vec::new(),
            cluster_policies: Vec::new(),
            calico_policies: Vec::new(),
            audit: None,
        }
    }
}

impl RuleTrace {
    /// A rule that was not tried yet.
    pub(super) const fn of(rule: usize, annotation: Option<Name>) -> Self {
        Self { rule, annotation, matched: false, why_not: Vec::new(), peers: Vec::new(), ports: Vec::new() }
    }

    /// Notes the outcome of one trial, which matched when nothing is amiss. True: it did.
    pub(super) fn add(&mut self, RuleEvaluation { peers, ports, misses }: RuleEvaluation) -> bool {
        let matched = misses.is_empty();
        let traces = |entries: Vec<TriedEntry>| entries.into_iter().map(EntryTrace::of).collect();
        let why_not = misses.into_iter().map(Wording::Meaning).collect();
        let (peers, ports) = (traces(peers), traces(ports));
        self.merge(Self { rule: self.rule, annotation: None, matched, why_not, peers, ports });
        matched
    }

    /// Notes what the same rule says of something else.
    pub(super) fn merge(&mut self, other: Self) {
        let Self { rule: _, annotation: _, matched, why_not, peers, ports } = other;
        self.matched |= matched;
        extend(&mut self.why_not, why_not);
        for (known, more) in [(&mut self.peers, peers), (&mut self.ports, ports)] {
            if known.is_empty() {
                *known = more;
            } else {
                known.iter_mut().zip(more).for_each(|(known, more)| known.merge(more));
            }
        }
    }
}

impl EntryTrace {
    fn of(TriedEntry { entry, found }: TriedEntry) -> Self {
        let matched = found.is_ok();
        let (Ok(why) | Err(why)) = found;
        Self { entry: Wording::Meaning(entry), matched, why: vec![Wording::Meaning(why)] }
    }

    fn merge(&mut self, other: Self) {
        match (self.matched, other.matched) {
            (false, true) => *self = other,
            (true, false) => {}
            (false, false) | (true, true) => extend(&mut self.why, other.why),
        }
    }
}

/// Adds the lines that are not there yet.
fn extend<T: PartialEq>(lines: &mut Vec<T>, more: Vec<T>) {
    for line in more {
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
}
