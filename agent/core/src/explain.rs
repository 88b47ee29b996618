//! Why a connection is allowed or denied: the policies of both ends, rule by rule.
//!
//! In: a cluster and a question (who, to whom, which port). Out: an [`Explanation`], the same for people and
//! machines. It reads the model, not the compiled tables, because only the model still knows policies and
//! rules. What only packets show is left out: which backend of a service is chosen, masquerading, and
//! connections that were evaluated before.

mod calico;
mod end;
mod expected_verdicts;
mod explanation;
mod findings;
mod host;
mod name;
mod peers;
mod ports;
mod reason;
mod service;
mod service_peer;
mod side;
mod wording;

use std::{collections::BTreeSet, net::IpAddr};

pub use calico::{CalicoPolicyTrace, LabelWish, NetworkWish};
pub use end::{BadEndpointRef, EndpointRef, OwnNodeAddress, Unanswerable};
pub use expected_verdicts::ExpectedVerdict;
pub use explanation::{
    AddressPair, ClusterPolicyTrace, ClusterRuleTrace, DirectionResult, EntryTrace, Explanation, KernelCheck,
    PolicyTrace, RuleTrace, Verdict,
};
pub use findings::{EntryFinding, EntryName, Miss, RuleList};
pub(crate) use name::addresses as unlisted_addresses;
pub use name::{KnownAddress, LearntNames, NameFinding, ShownAddress};
pub use peers::{BlockPlace, LabelFinding, LabelsOf, PeerFinding, SelectedPods};
use podgate_common::Direction;
pub use ports::{AskedPort, NamedPortFinding, PortFinding, WantedPort};
pub use reason::VerdictReason;
pub use service::Uncertainty;
pub use service_peer::{EndpointPlace, ServiceWish};
pub use wording::Wording;

use crate::{
    model::{Cluster, IpFamily},
    port_spec::PortSpec,
};
use end::ResolvedEndpoint;

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
    explain_with(cluster, question, &LearntNames::default())
}

/// The same, where it is known what the client has learnt.
///
/// # Errors
///
/// As [`explain`].
pub fn explain_with(
    cluster: &Cluster,
    question: &Question,
    learnt: &LearntNames,
) -> Result<Explanation, Unanswerable> {
    if let EndpointRef::Name(_) = question.from {
        return Err(Unanswerable::FromName(question.from.clone()));
    }
    if let EndpointRef::Name(_) = question.to {
        let mut explanation = by_address(cluster, question, learnt)?;
        explanation.forget_addresses();
        return Ok(explanation);
    }
    match service::explain(cluster, question)? {
        Some(explanation) => Ok(explanation),
        None => by_address(cluster, question, learnt),
    }
}

/// The addresses of the destination are where the connection ends.
fn to_itself(cluster: &Cluster, question: &Question) -> Result<Explanation, Unanswerable> {
    by_address(cluster, question, &LearntNames::default())
}

fn by_address(
    cluster: &Cluster,
    question: &Question,
    learnt: &LearntNames,
) -> Result<Explanation, Unanswerable> {
    let from = ResolvedEndpoint::resolve(cluster, &question.from)?;
    let to = ResolvedEndpoint::resolve(cluster, &question.to)?;
    let numbers = question.port.numbers(to.container());
    if numbers.is_empty() {
        return Err(Unanswerable::NoSuchPort { to: question.to.clone(), port: question.port.clone() });
    }
    let pairs = pairs(&from.addresses, &to.addresses, question.port.family());
    let connection = Connection {
        cluster,
        port: &question.port,
        numbers: &numbers,
        from: &from,
        to: &to,
        pairs: &pairs,
        learnt,
    };
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
        learnt: None,
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
    let pairs = pairs(&from.addresses, &to.addresses, question.port.family());
    let (port, learnt) = (&question.port, &LearntNames::default());
    let connection =
        Connection { cluster, port, numbers: &numbers, from: &from, to: &to, pairs: &pairs, learnt };
    Ok((!pairs.is_empty()).then(|| connection.side(direction)))
}

/// An IPv4 address never talks to an IPv6 address, and each has an ICMP of its own.
fn pairs(from: &[IpAddr], to: &[IpAddr], family: Option<IpFamily>) -> Vec<AddressPair> {
    let is_of_family = |address: &&IpAddr| family.is_none_or(|family| family == IpFamily::of(address));
    let all = from
        .iter()
        .filter(is_of_family)
        .flat_map(|from| to.iter().map(|to| AddressPair { from: *from, to: *to }));
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
    learnt: &'a LearntNames,
}

#[cfg(test)]
mod tests;
