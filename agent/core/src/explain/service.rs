//! A service at the far end: each backend that the client may be led to is explained as a destination of its own.
//!
//! A service is named, or the destination is an address and a port at which one answers for this client: where the client
//! is, or on the node that has the address. The name of a headless service stands for its endpoints.

use std::{collections::BTreeSet, net::IpAddr};

use podgate_common::Direction;

use super::{
    ClusterPolicyTrace, DirectionResult, EndpointRef, Explanation, PolicyTrace, Question, Unanswerable,
    Verdict, VerdictReason,
    end::{ResolvedEndpoint, node_addresses},
    to_itself,
};
use crate::{
    model::{Cluster, Frontend, Name, Proxy, Service, ServicePort},
    port_spec::{Port, PortSpec},
};

/// The label of a node that topology hints are about.
const ZONE: &str = "topology.kubernetes.io/zone";

/// A port of a service, and how the client came to it.
struct MatchedServicePort<'a> {
    service: &'a Service,
    port: &'a ServicePort,
    frontend: Frontend,
    /// The addresses and the number at which the client asks for it.
    addresses: Vec<IpAddr>,
    number: u16,
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
    let entrances = at(cluster, from.node(), &to.addresses, &question.port);
    if !entrances.is_empty() {
        let ends = ends(cluster, from.node(), &entrances.iter().collect::<Vec<_>>());
        return explain_ends(cluster, question, &from, ends, None).map(Some);
    }
    match to.node().filter(|node| to.policed().is_none() && from.node() != Some(node)) {
        Some(node) => elsewhere(cluster, question, &from, node, &to.addresses),
        None => Ok(None),
    }
}

/// A connection that ends at one of several addresses and ports.
fn explain_ends(
    cluster: &Cluster,
    question: &Question,
    from: &ResolvedEndpoint<'_>,
    ends: BTreeSet<(IpAddr, u16)>,
    number: Option<u16>,
) -> Result<Explanation, Unanswerable> {
    let has = |v6| from.addresses.iter().any(|address| address.is_ipv6() == v6);
    let ends = ends.into_iter().filter(|(address, _)| has(address.is_ipv6()));
    let backends = ends.map(|end| to_itself(cluster, &towards(question, question.from.clone(), end)));
    let backends = backends.collect::<Result<_, _>>()?;
    Ok(together_with(cluster, question, from, backends, number))
}

/// The question of another end, and of this destination.
fn towards(question: &Question, from: EndpointRef, (address, number): (IpAddr, u16)) -> Question {
    let port = PortSpec { protocol: question.port.protocol, port: Port::Number(number) };
    Question { from, to: EndpointRef::Address(address), port }
}

/// A port of a node that the client is not on: its own policies see the node's address, and the node leads it on, under
/// its own address where the backend is elsewhere.
fn elsewhere(
    cluster: &Cluster,
    question: &Question,
    from: &ResolvedEndpoint<'_>,
    node: &Name,
    addresses: &[IpAddr],
) -> Result<Option<Explanation>, Unanswerable> {
    let entrances = at(cluster, Some(node), addresses, &question.port);
    let entrances: Vec<&MatchedServicePort<'_>> = entrances.iter().collect();
    if entrances.is_empty() {
        return Ok(None);
    }
    let has = |v6| from.addresses.iter().any(|address| address.is_ipv6() == v6);
    let mut backends = vec![to_itself(cluster, question)?];
    let ends = ends(cluster, Some(node), &entrances);
    let mut reached = false;
    for end in ends.into_iter().filter(|(address, _)| has(address.is_ipv6())) {
        let behind = EndpointRef::Address(end.0);
        let is_there = ResolvedEndpoint::resolve(cluster, &behind)?.node() == Some(node);
        let own = addresses.iter().find(|own| own.is_ipv6() == end.0.is_ipv6());
        let source = match own {
            Some(own) if !is_there => EndpointRef::Address(*own),
            _ => question.from.clone(),
        };
        let mut backend = to_itself(cluster, &towards(question, source, end))?;
        backend.egress = DirectionResult::without_policies(VerdictReason::TranslatedElsewhere);
        backend.verdict = backend.ingress.verdict;
        backends.push(backend);
        reached = true;
    }
    let mut explanation = together_with(cluster, question, from, backends, None);
    if !reached {
        explanation.verdict = Verdict::Deny;
        explanation.ingress = nowhere(false);
    }
    Ok(Some(explanation))
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
    let isolated = from
        .policed()
        .is_some_and(|pod| cluster.enforced_policies_selecting(pod, Direction::Egress).next().is_some());
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
        backends: Some(backends),
        unenforced: Vec::new(),
        kernel: None,
    }
}

fn named<'a>(service: &'a Service, question: &Question) -> Result<MatchedServicePort<'a>, Unanswerable> {
    let is_asked = |port: &&ServicePort| {
        port.protocol == question.port.protocol
            && match &question.port.port {
                Port::Number(number) => port.number == *number,
                Port::Name(name) => port.name == *name,
            }
    };
    let port = service.ports.iter().find(is_asked).ok_or_else(|| Unanswerable::NoServicePort {
        to: question.to.clone(),
        port: question.port.clone(),
    })?;
    Ok(MatchedServicePort {
        service,
        port,
        frontend: Frontend::Cluster,
        addresses: service.cluster_addresses.clone(),
        number: port.number,
    })
}

/// The services that answer at these addresses for a client of `node`. An address may be claimed by several; but a cluster
/// address is its own service's.
fn at<'a>(
    cluster: &'a Cluster,
    node: Option<&Name>,
    addresses: &[IpAddr],
    asked: &PortSpec,
) -> Vec<MatchedServicePort<'a>> {
    let Port::Number(number) = asked.port else { return Vec::new() };
    let own = node.map(|node| node_addresses(cluster, node)).unwrap_or_default();
    let entrances = |frontend,
                     is_there: &dyn Fn(&Service, &ServicePort, &IpAddr) -> bool|
     -> Vec<MatchedServicePort<'a>> {
        let services = cluster.services.values().filter(|service| service.proxy != Proxy::Headless);
        let ports = services.flat_map(|service| service.ports.iter().map(move |port| (&**service, port)));
        let ports = ports.filter(|(_, port)| port.protocol == asked.protocol);
        let found = ports.filter_map(|(service, port)| {
            let is_served =
                |address: &&IpAddr| service.has_family(address.is_ipv6()) && is_there(service, port, address);
            let addresses: Vec<IpAddr> = addresses.iter().filter(is_served).copied().collect();
            (!addresses.is_empty()).then_some(MatchedServicePort {
                service,
                port,
                frontend,
                addresses,
                number,
            })
        });
        found.collect()
    };
    let found = entrances(Frontend::Cluster, &|service, port, address| {
        service.cluster_addresses.contains(address) && port.number == number
    });
    if !found.is_empty() {
        return found;
    }
    entrances(Frontend::External, &|service, port, address| {
        service.external_addresses.contains(address) && port.number == number
            || own.contains(address) && port.node_port == Some(number)
    })
}

/// Where connections of clients of `node` end. Where the client's node is not known, it comes from outside, by an external
/// address. What another proxy than kube-proxy does with the address is not known, so it is one of the ends.
fn ends(
    cluster: &Cluster,
    node: Option<&Name>,
    entrances: &[&MatchedServicePort<'_>],
) -> BTreeSet<(IpAddr, u16)> {
    let slices = cluster.slices_by_service();
    let zone = node.and_then(|node| cluster.nodes.get(node)?.labels.get(ZONE));
    let outside = Name::from("");
    let mut ends = BTreeSet::new();
    for MatchedServicePort { service, port, frontend, addresses, number } in entrances {
        let (frontend, node) = node.map_or((Frontend::External, &outside), |node| (*frontend, node));
        for v6 in [false, true].into_iter().filter(|v6| addresses.iter().any(|at| at.is_ipv6() == *v6)) {
            ends.extend(match service.proxy {
                Proxy::KubeProxy => slices.preferred(service, port, frontend, v6, node, zone),
                Proxy::Other | Proxy::Headless => slices.all(service, port, v6),
            });
        }
        if service.proxy == Proxy::Other {
            ends.extend(addresses.iter().map(|address| (*address, *number)));
        }
    }
    ends
}

/// Nothing is translated: a number is the endpoints' own, a name has the number that they give it.
fn headless(cluster: &Cluster, service: &Service, question: &Question) -> BTreeSet<(IpAddr, u16)> {
    let slices = cluster.slices_by_service();
    let mut ends = BTreeSet::new();
    for (endpoint, ports) in slices.headless(service) {
        match &question.port.port {
            Port::Number(number) => ends.extend([(endpoint.address, *number)]),
            Port::Name(name) => {
                let ports = ports.iter().filter(|port| port.name == *name);
                let ports = ports.filter(|port| port.protocol == question.port.protocol);
                ends.extend(ports.filter_map(|port| Some((endpoint.address, port.number?))));
            }
        }
    }
    ends
}

/// What one end says of all backends; the first denial gives the reason.
fn together<'a>(sides: impl Iterator<Item = &'a DirectionResult>) -> Option<DirectionResult> {
    let mut all = sides.cloned().reduce(|mut all, side| {
        let DirectionResult {
            isolated,
            verdict,
            reason,
            note,
            denied_peers,
            policies,
            cluster_policies,
            audit,
        } = side;
        all.isolated |= isolated;
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

#[cfg(test)]
mod tests;
