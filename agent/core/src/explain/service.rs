//! A service at the far end: each backend that the client may be led to is explained as a destination of its
//! own.
//!
//! A service is named, or the destination is an address and a port at which one answers for this client:
//! where the client is, or on the node that has the address. The name of a headless service stands for its
//! endpoints.

mod ends;

use std::{collections::BTreeSet, fmt, net::IpAddr};

use podgate_common::Direction;

use self::ends::{End, MatchedServicePort, Way, at, ends, headless, host_port_ends, local_ends, named};
use super::{
    ClusterPolicyTrace, DirectionResult, EndpointRef, Explanation, PolicyTrace, Question, Unanswerable,
    Verdict, VerdictReason, Wording, calico,
    end::{ResolvedEndpoint, node_addresses},
    to_itself,
};
use crate::{
    model::{Cluster, Name, ObjectName, Proxy},
    policy_walk::OrderedPolicies,
    port_spec::{Port, PortSpec},
};

/// What decides an answer and is not in the objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uncertainty {
    /// The address of a client's node, which a backend sees in place of the client's own.
    AddressOfNode {
        /// The backend.
        backend: IpAddr,
        /// The client.
        from: EndpointRef,
    },
    /// Which endpoints of a service a node leads pods of other nodes to.
    EndpointsForPods {
        /// The node.
        node: Name,
        /// The service.
        service: ObjectName,
    },
    /// Which node a client outside comes to.
    NodeOfClient,
}

/// `None` when no service answers at the destination.
pub(super) fn explain(cluster: &Cluster, question: &Question) -> Result<Option<Explanation>, Unanswerable> {
    let from = ResolvedEndpoint::resolve(cluster, &question.from)?;
    if let EndpointRef::Service(name) = &question.to {
        let service = cluster.services.get(name).ok_or_else(|| Unanswerable::NoSuchService(name.clone()))?;
        let number = |port: u16| match question.port.port {
            Port::Number(number) => number,
            Port::Name(_) => port,
        };
        if service.proxy == Proxy::Headless {
            let ends = headless(cluster, service, question);
            return explain_ends(cluster, question, &from, ends, None).map(Some);
        }
        let matched_port = named(service, question)?;
        let ends = ends(cluster, from.node(), &[&matched_port]);
        return explain_ends(cluster, question, &from, ends, Some(number(matched_port.port.number)))
            .map(Some);
    }
    let to = ResolvedEndpoint::resolve(cluster, &question.to)?;
    let ports_of_services = at(cluster, from.node(), &to.addresses, &question.port);
    if !ports_of_services.is_empty() {
        let ends = ends(cluster, from.node(), &ports_of_services.iter().collect::<Vec<_>>());
        let mut explanation = explain_ends(cluster, question, &from, ends, None)?;
        explanation.uncertain_because.extend(unknown_node(&from, &ports_of_services, &explanation));
        return Ok(Some(explanation));
    }
    let Some(node) = to.node().filter(|_| to.policed().is_none()) else { return Ok(None) };
    if from.node() != Some(node)
        && let Some(explanation) = elsewhere(cluster, question, &from, node, &to.addresses)?
    {
        return Ok(Some(explanation));
    }
    host_port(cluster, question, &from, node, &to.addresses)
}

/// A connection that ends at one of several addresses and ports.
fn explain_ends(
    cluster: &Cluster,
    question: &Question,
    from: &ResolvedEndpoint<'_>,
    ends: BTreeSet<End>,
    number: Option<u16>,
) -> Result<Explanation, Unanswerable> {
    let has = |v6| from.addresses.iter().any(|address| address.is_ipv6() == v6);
    let (mut backends, mut uncertain) = (Vec::new(), Vec::new());
    for End { address, number, way } in ends.into_iter().filter(|end| has(end.address.is_ipv6())) {
        let end = (address, number);
        let mut backend = to_itself(cluster, &towards(question, question.from.clone(), end))?;
        if way == Way::Masqueraded
            && let Some(node) = from.node().filter(|_| from.policed().is_some())
            && ResolvedEndpoint::resolve(cluster, &EndpointRef::Address(address))?.node() != Some(node)
        {
            let own = node_addresses(cluster, node);
            backend.ingress = DirectionResult::without_policies(VerdictReason::Masqueraded);
            backend.verdict = backend.egress.verdict;
            match own.into_iter().find(|own| own.is_ipv6() == address.is_ipv6()) {
                Some(own) => backends.push(translated(cluster, question, EndpointRef::Address(own), end)?),
                None => uncertain.push(Wording::Meaning(Uncertainty::AddressOfNode {
                    backend: address,
                    from: question.from.clone(),
                })),
            }
        }
        if way != Way::PassedOver || backend.egress.verdict == Verdict::Deny {
            backends.push(backend);
        }
    }
    let mut explanation = together_with(cluster, question, from, backends, number);
    explanation.uncertain_because = uncertain;
    Ok(explanation)
}

/// The question of another end, and of this destination.
fn towards(question: &Question, from: EndpointRef, (address, number): (IpAddr, u16)) -> Question {
    let port = PortSpec { protocol: question.port.protocol, port: Port::Number(number) };
    Question { from, to: EndpointRef::Address(address), port }
}

/// A port of a node that the client is not on: its own policies see the node's address, and the node leads it
/// on, under its own address where the backend is elsewhere.
fn elsewhere(
    cluster: &Cluster,
    question: &Question,
    from: &ResolvedEndpoint<'_>,
    node: &Name,
    addresses: &[IpAddr],
) -> Result<Option<Explanation>, Unanswerable> {
    let ports_of_services = at(cluster, Some(node), addresses, &question.port);
    if ports_of_services.is_empty() {
        return Ok(None);
    }
    let has = |v6| from.addresses.iter().any(|address| address.is_ipv6() == v6);
    let mut backends = vec![to_itself(cluster, question)?];
    let (mut reached, mut uncertain) = (false, Vec::new());
    for matched_port in &ports_of_services {
        let local = matched_port.is_local().then(|| local_ends(cluster, node, matched_port));
        let all = ends(cluster, Some(node), &[matched_port]).into_iter();
        let mut all: BTreeSet<(IpAddr, u16)> =
            all.filter(|end| end.way != Way::PassedOver).map(|end| (end.address, end.number)).collect();
        let of_family = |ends: &BTreeSet<(IpAddr, u16)>| ends.iter().any(|end| has(end.0.is_ipv6()));
        reached |= of_family(local.as_ref().unwrap_or(&all));
        if let Some(local) = &local {
            if from.policed().is_some() && all != *local {
                let (node, service) = (node.clone(), matched_port.service.name.clone());
                uncertain.push(Uncertainty::EndpointsForPods { node, service });
            }
            if from.policed().is_none() {
                all.clear();
            }
            all.extend(local);
        }
        for end in all.into_iter().filter(|end| has(end.0.is_ipv6())) {
            let behind = EndpointRef::Address(end.0);
            let is_there = ResolvedEndpoint::resolve(cluster, &behind)?.node() == Some(node);
            let own = addresses.iter().find(|own| own.is_ipv6() == end.0.is_ipv6());
            let source = match own {
                Some(own) if !is_there && local.is_none() => EndpointRef::Address(*own),
                _ => question.from.clone(),
            };
            backends.push(translated(cluster, question, source, end)?);
        }
    }
    let mut explanation = together_with(cluster, question, from, backends, None);
    if !reached {
        explanation.verdict = Verdict::Deny;
        explanation.ingress = nowhere(false);
    }
    // In the order of their words.
    uncertain.sort_by_cached_key(ToString::to_string);
    uncertain.dedup();
    explanation.uncertain_because.extend(uncertain.into_iter().map(Wording::Meaning));
    Ok(Some(explanation))
}

/// A host port: the client's policies see the node's address, and the pod behind it sees the client.
fn host_port(
    cluster: &Cluster,
    question: &Question,
    from: &ResolvedEndpoint<'_>,
    node: &Name,
    addresses: &[IpAddr],
) -> Result<Option<Explanation>, Unanswerable> {
    let ends = host_port_ends(cluster, node, addresses, &question.port);
    if ends.is_empty() {
        return Ok(None);
    }
    let has = |v6| from.addresses.iter().any(|address| address.is_ipv6() == v6);
    let mut backends = vec![to_itself(cluster, question)?];
    for end in ends.into_iter().filter(|(address, _)| has(address.is_ipv6())) {
        backends.push(translated(cluster, question, question.from.clone(), end)?);
    }
    Ok(Some(together_with(cluster, question, from, backends, None)))
}

/// What the end of a connection says that the client knows by another address, which its own policies are
/// asked about.
fn translated(
    cluster: &Cluster,
    question: &Question,
    source: EndpointRef,
    end: (IpAddr, u16),
) -> Result<Explanation, Unanswerable> {
    let mut backend = to_itself(cluster, &towards(question, source, end))?;
    backend.egress = DirectionResult::without_policies(VerdictReason::TranslatedElsewhere);
    backend.verdict = backend.ingress.verdict;
    Ok(backend)
}

/// All of them must be allowed, and there must be one.
fn together_with(
    cluster: &Cluster,
    question: &Question,
    from: &ResolvedEndpoint<'_>,
    backends: Vec<Explanation>,
    number: Option<u16>,
) -> Explanation {
    let allowed = !backends.is_empty() && backends.iter().all(|backend| backend.verdict == Verdict::Allow);
    let policies = OrderedPolicies::of(cluster);
    let isolates = |pod| policies.for_pod(pod, Direction::Egress).enforced().isolates();
    let isolated = from.policed().is_some_and(isolates);
    let mut numbers: Vec<u16> = match (&question.port.port, number) {
        (_, Some(number)) | (&Port::Number(number), None) => vec![number],
        (Port::Name(_), None) => backends.iter().flat_map(|backend| &backend.numbers).copied().collect(),
    };
    numbers.sort_unstable();
    numbers.dedup();
    Explanation {
        verdict: Verdict::from_allowed(allowed),
        from: question.from.clone(),
        to: question.to.clone(),
        port: question.port.clone(),
        numbers,
        from_pod: from.pod_of_address(),
        to_pod: None,
        pairs: backends.iter().flat_map(|backend| &backend.pairs).copied().collect(),
        egress: together(backends.iter().map(|backend| &backend.egress)).unwrap_or_else(|| nowhere(isolated)),
        ingress: together(backends.iter().map(|backend| &backend.ingress)).unwrap_or_else(|| nowhere(false)),
        uncertain_because: Vec::new(),
        backends: Some(backends),
        unenforced: Vec::new(),
        learnt: None,
        kernel: None,
    }
}

/// A client outside comes to whichever node the network leads it to, which hands it on under its own address.
fn unknown_node(
    from: &ResolvedEndpoint<'_>,
    ports_of_services: &[MatchedServicePort<'_>],
    explanation: &Explanation,
) -> Option<Wording<Uncertainty>> {
    let is_masqueraded = ports_of_services
        .iter()
        .any(|matched_port| matched_port.service.proxy == Proxy::KubeProxy && !matched_port.is_local());
    let is_uncertain = from.node().is_none() && is_masqueraded && explanation.ingress.isolated;
    is_uncertain.then_some(Wording::Meaning(Uncertainty::NodeOfClient))
}

/// What one end says of all backends; the first denial gives the reason.
fn together<'a>(sides: impl Iterator<Item = &'a DirectionResult>) -> Option<DirectionResult> {
    let mut all = sides.cloned().reduce(|mut all, side| {
        let DirectionResult {
            isolated,
            host_endpoint,
            verdict,
            reason,
            note,
            denied_peers,
            policies,
            cluster_policies,
            calico_policies,
            audit,
        } = side;
        all.isolated |= isolated;
        all.host_endpoint = all.host_endpoint.or(host_endpoint);
        if all.verdict == Verdict::Allow && verdict == Verdict::Deny {
            (all.verdict, all.reason) = (verdict, reason);
        }
        let worse = |audit: &DirectionResult| audit.verdict == Verdict::Deny;
        if all.audit.is_none() || audit.as_deref().is_some_and(worse) {
            all.audit = audit.or(all.audit.take());
        }
        all.note = all.note.or(note);
        all.denied_peers.extend(denied_peers);
        policies.into_iter().for_each(|policy| add(&mut all.policies, policy));
        add_cluster_policies(&mut all.cluster_policies, cluster_policies);
        calico::add_policies(&mut all.calico_policies, calico_policies);
        all
    })?;
    all.policies.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
    Some(all)
}

/// A rule matches when it matches for some backend, as it does for some address.
fn add(policies: &mut Vec<PolicyTrace>, policy: PolicyTrace) {
    let is_it = |known: &&mut PolicyTrace| known.namespace == policy.namespace && known.name == policy.name;
    let Some(known) = policies.iter_mut().find(is_it) else {
        policies.push(policy);
        return;
    };
    known.rules.iter_mut().zip(policy.rules).for_each(|(known, rule)| known.merge(rule));
    known.matched = known.rules.iter().filter(|rule| rule.matched).map(|rule| rule.rule).collect();
}

/// The backends of a service may be evaluated by different ones.
fn add_cluster_policies(known: &mut Vec<ClusterPolicyTrace>, more: Vec<ClusterPolicyTrace>) {
    let is_same = |one: &ClusterPolicyTrace, other: &ClusterPolicyTrace| {
        one.kind == other.kind && one.name == other.name
    };
    for policy in more {
        let Some(known) = known.iter_mut().find(|known| is_same(known, &policy)) else {
            known.push(policy);
            continue;
        };
        for (list, more) in [(&mut known.matched, policy.matched), (&mut known.decided, policy.decided)] {
            list.extend(more);
            list.sort_unstable();
            list.dedup();
        }
        for (known, rule) in known.rules.iter_mut().zip(policy.rules) {
            known.trace.merge(rule.trace);
        }
    }
    known.sort_by(|one, other| {
        let place = |policy: &ClusterPolicyTrace| (policy.tier, policy.priority);
        place(one).cmp(&place(other)).then_with(|| (&one.name, one.kind).cmp(&(&other.name, other.kind)))
    });
}

fn nowhere(isolated: bool) -> DirectionResult {
    DirectionResult { isolated, ..DirectionResult::without_policies(VerdictReason::NoBackend) }
}

impl fmt::Display for Uncertainty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddressOfNode { backend, from } => write!(
                f,
                "{backend} sees an address of the node of {from}, which is not known, in its place"
            ),
            Self::EndpointsForPods { node, service } => write!(
                f,
                "whether {node} leads pods of other nodes to all endpoints of {service}, or to its own alone as it \
                 leads clients outside (externalTrafficPolicy: Local), depends on the set-up of its proxy"
            ),
            Self::NodeOfClient => f.write_str(
                "which node such a client comes to is not known: a backend on another one sees the address of that \
                 node (externalTrafficPolicy: Cluster)",
            ),
        }
    }
}

#[cfg(test)]
mod tests;
