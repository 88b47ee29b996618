//! What an explanation claims of the tables in the kernel, so that they can be asked.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use podgate_common::{Direction, RuleProtocol};

use super::{AddressPair, DirectionResult, EndpointRef, Explanation, Verdict, VerdictReason};
use crate::{model::ObjectName, port_spec::Place};

/// One side's verdict on one peer and one port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExpectedVerdict {
    /// Whose policies say so.
    pub pod: ObjectName,
    /// Ingress: the pod is the server. Egress: it is the client.
    pub direction: Direction,
    /// The address of the other end.
    pub peer: IpAddr,
    /// The protocol of the connection.
    pub protocol: RuleProtocol,
    /// The server's port; its place if it is none.
    pub port: u16,
    /// Whether the policies allow it.
    pub allowed: bool,
}

impl Explanation {
    /// What policies say of each pair; not what passes for other reasons.
    pub fn expected_verdicts(&self) -> BTreeSet<ExpectedVerdict> {
        if let Some(backends) = &self.backends {
            return backends.iter().flat_map(Self::expected_verdicts).collect();
        }
        let pod = |end: &EndpointRef, behind: &Option<ObjectName>| end.pod().or(behind.as_ref()).cloned();
        let sides = [
            (Direction::Egress, &self.egress, pod(&self.from, &self.from_pod)),
            (Direction::Ingress, &self.ingress, pod(&self.to, &self.to_pod)),
        ];
        let expected_verdicts = sides.into_iter().filter_map(|(direction, side, pod)| {
            // One port alone: of several, the denied one is not known.
            let ([port], true) = (self.numbers.as_slice(), is_by_policy(side)) else { return None };
            let pod = pod.filter(|_| side.host_endpoint.is_none())?;
            // What a name opens is not in the tables that are asked.
            let is_learnt = move |pair: &&AddressPair| {
                let learnt = self.learnt.iter().flatten();
                direction == Direction::Egress && learnt.into_iter().any(|learnt| learnt.address == pair.to)
            };
            let pairs = self.pairs.iter().filter(move |pair| !is_learnt(pair));
            Some(pairs.map(move |pair| {
                let peer = if direction == Direction::Egress { pair.to } else { pair.from };
                let allowed = side.verdict == Verdict::Allow || !side.denied_peers.contains(&peer);
                let protocol = self.port.protocol;
                ExpectedVerdict { pod: pod.clone(), direction, peer, protocol, port: *port, allowed }
            }))
        });
        expected_verdicts.flatten().collect()
    }
}

const fn is_by_policy(side: &DirectionResult) -> bool {
    match side.reason {
        VerdictReason::NotIsolated
        | VerdictReason::Undecided
        | VerdictReason::RuleMatches
        | VerdictReason::NoRuleMatches
        | VerdictReason::ClusterPolicyAccepts
        | VerdictReason::ClusterPolicyDenies
        | VerdictReason::CalicoPolicyAllows
        | VerdictReason::CalicoPolicyDenies
        | VerdictReason::EndOfTier => true,
        VerdictReason::NotAPod
        | VerdictReason::Failsafe
        | VerdictReason::Profile
        | VerdictReason::NoProfile
        | VerdictReason::Itself
        | VerdictReason::OwnNode
        | VerdictReason::NoBackend
        | VerdictReason::TranslatedElsewhere
        | VerdictReason::Masqueraded => false,
    }
}

impl fmt::Display for ExpectedVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pod, direction, peer, protocol, port, allowed } = self;
        let verdict = |allowed: bool| if allowed { "allow" } else { "deny" };
        let (rules, kernel) = (verdict(*allowed), verdict(!allowed));
        write!(
            f,
            "{direction} of {pod}, {peer} {}: the rules {rules}, the tables in the kernel {kernel}",
            Place(*protocol, *port)
        )
    }
}
