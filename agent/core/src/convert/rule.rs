//! What a rule of Calico's matches, as rules of Kubernetes say it.

use std::collections::BTreeSet;

use ipnet::IpNet;
use podgate_common::Direction;

use super::{NoEqual, selector};
use crate::{
    compiler::selected_sets,
    model::{
        CalicoEnds, Cluster, EntityMatch, IpBlock, IpFamily, LabelExpression, Name, Peer, Peers, PortRule,
        Ports, Rule, Selector, syntax::port_name,
    },
};

/// Entries of a list of a ClusterNetworkPolicy: rules, peers, networks and protocols.
pub(super) const MOST_ENTRIES: usize = 25;

/// Ingress of a NetworkPolicy in this namespace.
pub(super) fn of_network_policy(rule: &Rule, namespace: &Name, cluster: &Cluster) -> Result<Rule, NoEqual> {
    let ports = ports(&rule.ports, true)?;
    let peers = match peer(rule, Direction::Ingress)? {
        WantedPeer::Any => Peers::Any,
        WantedPeer::Pods(expression) => {
            let terms = pods(expression, cluster).map_err(|why| why.within("source.selector"))?;
            let namespaces = match terms.namespace() == Some(namespace) {
                true => None,
                false => Some(Selector::All(terms.namespaces)),
            };
            Peers::Listed(vec![Peer::Pods { namespaces, pods: Selector::All(terms.pods) }])
        }
        WantedPeer::Networks { nets, not_nets } => {
            let blocks = blocks(nets, not_nets).map_err(|why| why.within("source.notNets"))?;
            Peers::Listed(blocks.into_iter().map(Peer::Block).collect())
        }
    };
    Ok(Rule { peers, ports })
}

/// A rule of a ClusterNetworkPolicy.
pub(super) fn of_cluster_policy(
    rule: &Rule,
    direction: Direction,
    cluster: &Cluster,
) -> Result<Rule, NoEqual> {
    let end = end(direction);
    let ports = ports(&rule.ports, false)?;
    let peers = match (peer(rule, direction)?, direction) {
        (WantedPeer::Pods(expression), _) => {
            let terms = pods(expression, cluster).map_err(|why| why.within(&format!("{end}.selector")))?;
            let namespaces = Some(Selector::All(terms.namespaces));
            vec![Peer::Pods { namespaces, pods: Selector::All(terms.pods) }]
        }
        (WantedPeer::Any | WantedPeer::Networks { .. }, Direction::Ingress) => {
            let reason = "the sources of a ClusterNetworkPolicy are pods, not addresses";
            return Err(NoEqual::new(end, reason));
        }
        (WantedPeer::Any, Direction::Egress) => {
            IpFamily::ALL.map(|family| Peer::Block(family.block())).into()
        }
        (WantedPeer::Networks { nets, not_nets }, Direction::Egress) => {
            let blocks = blocks(nets, not_nets).map_err(|why| why.within(&format!("{end}.notNets")))?;
            if blocks.iter().any(|block| !block.except.is_empty()) {
                let reason = "networks of a ClusterNetworkPolicy have no exceptions";
                return Err(NoEqual::new(format!("{end}.notNets"), reason));
            }
            if blocks.len() > MOST_ENTRIES {
                let reason = format!("a rule of a ClusterNetworkPolicy has {MOST_ENTRIES} networks at most");
                return Err(NoEqual::new(format!("{end}.nets"), reason));
            }
            blocks.into_iter().map(Peer::Block).collect()
        }
    };
    Ok(Rule { peers: Peers::Listed(peers), ports })
}

/// What is wanted of the other end.
enum WantedPeer<'a> {
    Any,
    Pods(&'a LabelExpression),
    Networks { nets: Option<&'a BTreeSet<IpNet>>, not_nets: &'a BTreeSet<IpNet> },
}

const fn end(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "source",
        Direction::Egress => "destination",
    }
}

fn peer(rule: &Rule, direction: Direction) -> Result<WantedPeer<'_>, NoEqual> {
    let ends = match &rule.peers {
        Peers::Any => return Ok(WantedPeer::Any),
        Peers::Listed(_) => return Err(NoEqual::new("", "was not wholly understood")),
        Peers::Calico(ends) => ends,
    };
    let CalicoEnds { peer, own, family } = &**ends;
    if family.is_some() {
        return Err(NoEqual::new("ipVersion", "rules of Kubernetes are about both versions"));
    }
    if !own.is_any() {
        let own_end = match direction {
            Direction::Ingress => "destination",
            Direction::Egress => "source",
        };
        return Err(NoEqual::new(own_end, "rules of Kubernetes want nothing of the pod itself"));
    }
    let EntityMatch { selector, not_selector, nets, not_nets, service } = peer;
    let end = end(direction);
    if not_selector.is_some() {
        return Err(NoEqual::new(format!("{end}.notSelector"), "rules of Kubernetes exclude no pods"));
    }
    if service.is_some() {
        return Err(NoEqual::new(format!("{end}.services"), "rules of Kubernetes do not name Services"));
    }
    let has_nets = nets.is_some() || !not_nets.is_empty();
    match selector {
        None if has_nets => Ok(WantedPeer::Networks { nets: nets.as_ref(), not_nets }),
        None => Ok(WantedPeer::Any),
        Some(_) if has_nets => {
            let reason = "a peer of Kubernetes is a selector or a network, not both";
            Err(NoEqual::new(format!("{end}.selector"), reason))
        }
        Some(selector) => Ok(WantedPeer::Pods(selector)),
    }
}

/// Pods alone, and no network set.
fn pods(expression: &LabelExpression, cluster: &Cluster) -> Result<selector::PodTerms, NoEqual> {
    if selected_sets(expression, cluster).next().is_some() {
        return Err(NoEqual::new("", format!("{expression} also matches a network set")));
    }
    selector::terms(expression)
}

/// Networks with what is left out of each. At least one address is in them.
fn blocks(nets: Option<&BTreeSet<IpNet>>, not_nets: &BTreeSet<IpNet>) -> Result<Vec<IpBlock>, NoEqual> {
    let all = || IpFamily::ALL.map(|family| family.block().cidr).into();
    let nets: BTreeSet<IpNet> = nets.cloned().unwrap_or_else(all);
    let left = nets.into_iter().filter(|net| !not_nets.iter().any(|not| not.contains(net)));
    let block = |cidr: IpNet| {
        let except = not_nets.iter().filter(|not| cidr.contains(*not)).copied().collect();
        IpBlock { cidr, except }
    };
    let blocks: Vec<IpBlock> = left.map(block).collect();
    if blocks.is_empty() { Err(NoEqual::new("", "leaves no address")) } else { Ok(blocks) }
}

/// `has_names`: names of ports have a protocol there, as here.
fn ports(ports: &Ports, has_names: bool) -> Result<Ports, NoEqual> {
    let listed = match ports {
        Ports::Any => return Ok(Ports::Any),
        Ports::Listed(ports) => ports,
        Ports::Except { .. } => {
            let reason = "rules of Kubernetes exclude no ports, protocols or messages";
            return Err(NoEqual::new("destination.notPorts", reason));
        }
    };
    if listed.len() > MOST_ENTRIES && !has_names {
        let reason = format!("a rule of a ClusterNetworkPolicy has {MOST_ENTRIES} ports at most");
        return Err(NoEqual::new("destination.ports", reason));
    }
    for port in listed {
        match port {
            PortRule::Protocol(_) if has_names => {}
            PortRule::Protocol(_) => {
                let reason = "a ClusterNetworkPolicy names ports, not a protocol alone";
                return Err(NoEqual::new("protocol", reason));
            }
            PortRule::Range { first, .. } if *first > 0 => {}
            PortRule::Range { .. } => {
                return Err(NoEqual::new("destination.ports", "0 is no port of a rule of Kubernetes"));
            }
            PortRule::Named(Some(_), name) if has_names && port_name(name).is_ok() => {}
            PortRule::Named(..) => {
                let reason = "this name of a port has no equal: there it is of any protocol, or is not valid";
                return Err(NoEqual::new("destination.ports", reason));
            }
            PortRule::Number(_) | PortRule::Icmp { .. } => {
                let reason = "rules of Kubernetes are about TCP, UDP and SCTP";
                return Err(NoEqual::new("protocol", reason));
            }
            PortRule::Nothing => return Err(NoEqual::new("destination.ports", "was not wholly understood")),
        }
    }
    Ok(Ports::Listed(listed.clone()))
}
