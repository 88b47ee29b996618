//! A small cluster and the parts of its policies, for tests of this crate and of those above it.

#![expect(clippy::unwrap_used, reason = "a test's own text is well-formed")]

use std::{net::IpAddr, sync::Arc};

use imbl::OrdMap;
use podgate_common::Protocol;

use crate::model::{
    Cluster, ClusterNetworkPolicy, ClusterPolicyKind, ClusterPolicyName, ClusterRule, ClusterSubject,
    IpBlock, Labels, Name, NamedPort, Namespace, NetworkPolicy, Node, ObjectName, Peer, Peers, Pod, PortRule,
    Ports, Requirement, Rule, Selector, SliceEndpoint, Tier,
};

/// Labels of key and value.
pub fn labels(labels: &[(&str, &str)]) -> Labels {
    Arc::new(labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect())
}

/// Selects what has this label.
pub fn has(key: &str, value: &str) -> Selector {
    Selector::All(vec![Requirement::In(key.into(), [value.into()].into())])
}

/// A pod by `namespace/name`, on a node.
pub fn pod(name: &str, node: &str, addresses: &[&str], own: &[(&str, &str)]) -> Pod {
    let (namespace, name) = name.split_once('/').unwrap();
    Pod {
        name: ObjectName::new(namespace, name),
        labels: labels(own),
        node: Some(node.into()),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        uid: None,
        service_account: None,
        host_network: false,
        host_ports: Box::default(),
        host: None,
        ports: Arc::default(),
    }
}

/// A cluster-wide policy of the tier Admin that all pods have.
pub fn admin_policy(name: &str, egress: Vec<ClusterRule>) -> ClusterNetworkPolicy {
    ClusterNetworkPolicy {
        name: ClusterPolicyName { name: name.into(), kind: ClusterPolicyKind::ClusterNetworkPolicy },
        tier: Tier::Admin,
        priority: 0,
        subject: ClusterSubject { namespaces: Selector::EVERYTHING, pods: Selector::EVERYTHING },
        ingress: Vec::new(),
        egress,
        audit: false,
    }
}

/// An endpoint that takes connections.
pub const fn ready(address: IpAddr) -> SliceEndpoint {
    SliceEndpoint { address, node: None, ready: true, serving: true, terminating: false, hints: None }
}

/// A named TCP port.
pub fn named(name: &str, number: u16) -> NamedPort {
    NamedPort { name: name.into(), protocol: Protocol::Tcp, number }
}

/// Pods a and b in x and c in y, all of both families; w on the host network of n1; v4 and v6 of one family
/// each.
pub fn cluster(policies: Vec<NetworkPolicy>) -> Cluster {
    let mut b = pod("x/b", "n1", &["10.0.0.2", "fd00::2"], &[("role", "backend")]);
    b.ports = [named("http", 8080), named("many", 1), named("many", 2)].into();
    let mut host = pod("x/w", "n1", &["192.168.0.1"], &[("role", "frontend")]);
    host.host_network = true;
    let pods = [
        pod("x/a", "n1", &["10.0.0.1", "fd00::1"], &[("role", "frontend")]),
        b,
        pod("y/c", "n2", &["10.0.0.3", "fd00::3"], &[("role", "frontend"), ("tier", "gold")]),
        host,
        pod("y/v4", "n2", &["10.0.0.4"], &[]),
        pod("y/v6", "n2", &["fd00::6"], &[]),
        pod("y/pending", "n2", &[], &[]),
    ];
    let namespace = Namespace { labels: labels(&[("purpose", "test")]), audit: false };
    let node = |addresses: &[&str]| {
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        Arc::new(Node { labels: labels(&[]), addresses })
    };
    Cluster {
        namespaces: OrdMap::unit("y".into(), namespace.into()),
        pods: pods.into_iter().map(|pod| (pod.name.clone(), Arc::new(pod))).collect(),
        policies: policies.into_iter().map(|policy| (policy.name.clone(), Arc::new(policy))).collect(),
        nodes: OrdMap::from(vec![
            (Name::from("n1"), node(&["192.168.0.1", "fd01::1"])),
            (Name::from("n2"), node(&["192.168.0.2", "fd01::2"])),
        ]),
        ..Cluster::default()
    }
}

/// A policy of namespace x that selects every pod there.
pub fn policy(name: &str, ingress: Option<Vec<Rule>>, egress: Option<Vec<Rule>>) -> NetworkPolicy {
    NetworkPolicy {
        name: ObjectName::new("x", name),
        subject: Selector::EVERYTHING,
        ingress,
        egress,
        audit: false,
    }
}

/// A rule of a policy.
pub fn rule(peers: Peers, ports: Ports) -> Rule {
    Rule { peers, ports }
}

/// A rule for one peer, on any port.
pub fn from(peer: Peer) -> Rule {
    rule(Peers::Listed(vec![peer]), Ports::Any)
}

/// A peer: a block of addresses without the exceptions.
pub fn block(cidr: &str, except: &[&str]) -> Peer {
    let except = except.iter().map(|net| net.parse().unwrap()).collect();
    Peer::Block(IpBlock { cidr: cidr.parse().unwrap(), except })
}

/// A rule for any peer, on one port.
pub fn port(port: PortRule) -> Rule {
    rule(Peers::Any, Ports::Listed(vec![port]))
}
