//! A service at the far end: each backend that the client may be led to is explained as a destination of its own.
//!
//! A service is named, or the destination is an address and a port at which one answers for this client.

use std::{collections::BTreeSet, net::IpAddr};

use podgate_common::Direction;

use super::{
    ClusterPolicyTrace, End, Explanation, PolicyTrace, Question, Reason, Side, Unanswerable, Verdict,
    end::{Party, node_addresses},
    to_itself,
};
use crate::{
    model::{Cluster, Front, Name, ObjectName, Proxy, Service, ServicePort},
    port_spec::{Port, PortSpec},
};

/// A port of a service, and how the client came to it.
struct Entrance<'a> {
    service: &'a Service,
    port: &'a ServicePort,
    front: Front,
    /// Which of its families the question is about.
    families: Families,
}

#[derive(Clone, Copy)]
struct Families {
    v4: bool,
    v6: bool,
}

/// `None` when no service answers at the destination.
pub(super) fn explain(cluster: &Cluster, question: &Question) -> Result<Option<Explanation>, Unanswerable> {
    let from = Party::resolve(cluster, &question.from)?;
    let entrance = match &question.to {
        End::Service(name) => Some(named(cluster, name, question)?),
        End::Pod(_) | End::Node(_) | End::Address(_) => {
            let to = Party::resolve(cluster, &question.to)?;
            at(cluster, from.node(), &to.addresses, &question.port)
        }
    };
    let Some(entrance) = entrance else { return Ok(None) };
    let backends = backends(cluster, &from, &entrance).into_iter().map(|(address, number)| {
        let port = PortSpec { protocol: question.port.protocol, port: Port::Number(number) };
        to_itself(cluster, &Question { from: question.from.clone(), to: End::Address(address), port })
    });
    let backends: Vec<Explanation> = backends.collect::<Result<_, _>>()?;
    let allowed = !backends.is_empty() && backends.iter().all(|backend| backend.verdict == Verdict::Allow);
    let isolated =
        from.policed().is_some_and(|pod| cluster.isolating(pod, Direction::Egress).next().is_some());
    Ok(Some(Explanation {
        verdict: Verdict::from_allowed(allowed),
        from: question.from.clone(),
        to: question.to.clone(),
        port: question.port.clone(),
        numbers: match question.port.port {
            Port::Number(number) => vec![number],
            Port::Name(_) => vec![entrance.port.number],
        },
        from_pod: from.behind_address(),
        to_pod: None,
        pairs: backends.iter().flat_map(|backend| &backend.pairs).copied().collect(),
        egress: together(backends.iter().map(|backend| &backend.egress)).unwrap_or_else(|| nowhere(isolated)),
        ingress: together(backends.iter().map(|backend| &backend.ingress)).unwrap_or_else(|| nowhere(false)),
        backends: Some(backends),
        unenforced: Vec::new(),
        kernel: None,
    }))
}

fn named<'a>(
    cluster: &'a Cluster,
    name: &ObjectName,
    question: &Question,
) -> Result<Entrance<'a>, Unanswerable> {
    let service = cluster.services.get(name).filter(|service| service.proxy != Proxy::Headless);
    let service = service.ok_or_else(|| Unanswerable::NoSuchService(name.clone()))?;
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
    let families = Families { v4: service.has_family(false), v6: service.has_family(true) };
    Ok(Entrance { service, port, front: Front::Cluster, families })
}

/// The service that answers at these addresses for a client of `node`.
fn at<'a>(
    cluster: &'a Cluster,
    node: Option<&Name>,
    addresses: &[IpAddr],
    asked: &PortSpec,
) -> Option<Entrance<'a>> {
    let Port::Number(number) = asked.port else { return None };
    let own = node.map(|node| node_addresses(cluster, node)).unwrap_or_default();
    let front = |service: &Service, port: &ServicePort, address: &IpAddr| {
        if service.cluster_addresses.contains(address) && port.number == number {
            Some(Front::Cluster)
        } else if service.external_addresses.contains(address) && port.number == number
            || own.contains(address) && port.node_port == Some(number)
        {
            Some(Front::External)
        } else {
            None
        }
    };
    cluster.services.values().find_map(|service| {
        let ports = service.ports.iter().filter(|port| port.protocol == asked.protocol);
        ports.into_iter().find_map(|port| {
            let has = |v6| addresses.iter().any(|address| address.is_ipv6() == v6) && service.has_family(v6);
            let families = Families { v4: has(false), v6: has(true) };
            let front = addresses.iter().find_map(|address| front(service, port, address))?;
            (families.v4 || families.v6).then_some(Entrance { service, port, front, families })
        })
    })
}

/// Of the families that the client has. One whose node is not known comes from outside, by an external address.
fn backends(cluster: &Cluster, from: &Party<'_>, entrance: &Entrance<'_>) -> BTreeSet<(IpAddr, u16)> {
    let Entrance { service, port, front, families } = entrance;
    let (front, node) = match from.node() {
        Some(node) => (*front, node.clone()),
        None => (Front::External, Name::from("")),
    };
    let has = |v6| from.addresses.iter().any(|address| address.is_ipv6() == v6);
    let families = [(false, families.v4), (true, families.v6)].into_iter();
    let families = families.filter(|(v6, is_asked)| *is_asked && has(*v6));
    let slices = cluster.slices_by_service();
    families.flat_map(|(v6, _)| slices.backends(service, port, front, v6, &node)).collect()
}

/// What one end says of all backends; the first denial gives the reason.
fn together<'a>(sides: impl Iterator<Item = &'a Side>) -> Option<Side> {
    let mut all = sides.cloned().reduce(|mut all, side| {
        let Side { isolated, verdict, reason, note, denied_peers, policies, cluster_policies, audit } = side;
        all.isolated |= isolated;
        if all.verdict == Verdict::Allow && verdict == Verdict::Deny {
            (all.verdict, all.reason) = (verdict, reason);
        }
        let worse = |audit: &Side| audit.verdict == Verdict::Deny;
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

/// The backends of a service may be judged by different ones.
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

fn nowhere(isolated: bool) -> Side {
    Side { isolated, ..Side::without_policies(Reason::NoBackend) }
}

#[cfg(test)]
mod tests;
