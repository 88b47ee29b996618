//! Parts of policies.

use std::{collections::BTreeSet, sync::Arc};

use podgate_common::Protocol;
use podgate_core::model::{IpBlock, Labels, Peer, Peers, PortRule, Ports, Requirement, Rule, Selector};

use super::Host;

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    Arc::new(pairs.iter().map(|&(key, value)| (key.into(), value.into())).collect())
}

/// Pods with this label `app`.
pub(crate) fn app(name: &str) -> Selector {
    Selector::All(vec![Requirement::In("app".into(), [name.into()].into())])
}

pub(crate) fn allow(peers: Peers, ports: Ports) -> Rule {
    Rule { peers, ports }
}

/// Pods of the policy's own namespace with the label of this one.
pub(crate) fn pods_like(pod: Host) -> Peers {
    Peers::Listed(vec![Peer::Pods { namespaces: None, pods: app(pod.app()) }])
}

pub(crate) fn all_pods() -> Peers {
    Peers::Listed(vec![Peer::Pods { namespaces: Some(Selector::EVERYTHING), pods: Selector::EVERYTHING }])
}

pub(crate) fn block(cidr: &str, except: &[&str]) -> Peers {
    let net = |text: &str| text.parse().expect("a literal of the test");
    let except: BTreeSet<_> = except.iter().map(|text| net(text)).collect();
    Peers::Listed(vec![Peer::Block(IpBlock { cidr: net(cidr), except })])
}

pub(crate) fn port(protocol: Protocol, number: u16) -> Ports {
    range(protocol, number, number)
}

pub(crate) fn range(protocol: Protocol, first: u16, last: u16) -> Ports {
    Ports::Listed(vec![PortRule::Range { protocol, first, last }])
}

pub(crate) fn every_port_of(protocol: Protocol) -> Ports {
    Ports::Listed(vec![PortRule::Protocol(protocol)])
}

pub(crate) fn named(protocol: Protocol, name: &str) -> Ports {
    Ports::Listed(vec![PortRule::Named(Some(protocol), name.into())])
}
