//! Ports that no container declares.
//!
//! A port by name means nothing on a pod whose containers do not have the name. A port by number needs no
//! declaration, so it is worth a note at most, and only where every pod in question declares ports.

use std::collections::HashSet;

use podgate_common::{Direction, Protocol};

use super::{
    LintFinding, LintName,
    survey::{Survey, SurveyedPolicy, Workload},
};
use crate::model::{Name, Peer, Peers, PortRule, Ports, Rule};

/// The pods that a rule's ports are looked up on.
enum Destinations<'s, 'a> {
    /// These alone; how a sentence calls them.
    Listed(Vec<&'s Workload<'a>>, &'static str),
    /// Any pod, and what is none: a pod of any labels may have an address in a block.
    Any(&'s NamesInUse<'a>),
}

/// Names of ports that some pod has, with their protocols.
type NamesInUse<'a> = HashSet<(Protocol, &'a Name)>;

pub(super) fn find(survey: &Survey<'_>, findings: &mut Vec<LintFinding>) {
    let ports = survey.workloads.iter().flat_map(|workload| &*workload.pod.ports);
    let in_use: NamesInUse<'_> = ports.map(|port| (port.protocol, &port.name)).collect();
    for policy in &survey.policies {
        for direction in Direction::ALL {
            for (index, rule) in policy.rules(direction).into_iter().enumerate() {
                let Ports::Listed(ports) = &rule.ports else { continue };
                let destinations = destinations(survey, &in_use, policy, direction, rule);
                for (place, port) in ports.iter().enumerate() {
                    let Some((name, message)) = destinations.undeclared(port) else { continue };
                    let field =
                        format!("{}.{}[{place}]", policy.rule_field(direction, index), policy.port_list());
                    findings.push(policy.finding(field, name, message));
                }
            }
        }
    }
}

/// Ports of ingress are the selected pods' own, those of egress the peers'.
fn destinations<'s, 'a>(
    survey: &'s Survey<'a>,
    in_use: &'s NamesInUse<'a>,
    policy: &SurveyedPolicy<'_>,
    direction: Direction,
    rule: &Rule,
) -> Destinations<'s, 'a> {
    let (mut places, noun) = match (direction, &rule.peers) {
        (Direction::Ingress, _) => (policy.selected.clone(), "selected"),
        (Direction::Egress, Peers::Listed(peers)) if peers.iter().all(is_of_pods) => {
            let atoms: Vec<_> = peers.iter().filter_map(|peer| policy.atom(peer)).collect();
            (atoms.iter().flat_map(|atom| survey.holders(atom)).copied().collect(), "matching")
        }
        (Direction::Egress, Peers::Any | Peers::Listed(_) | Peers::Calico(_)) => {
            return Destinations::Any(in_use);
        }
    };
    places.sort_unstable();
    places.dedup();
    Destinations::Listed(places.into_iter().map(|place| &survey.workloads[place]).collect(), noun)
}

const fn is_of_pods(peer: &Peer) -> bool {
    match peer {
        Peer::Pods { .. } => true,
        Peer::Block(_) | Peer::Nodes(_) | Peer::Name(_) | Peer::Nothing => false,
    }
}

impl Destinations<'_, '_> {
    fn undeclared(&self, port: &PortRule) -> Option<(LintName, String)> {
        let noun = match self {
            // That they match nothing has been reported.
            Self::Listed(workloads, _) if workloads.is_empty() => return None,
            Self::Listed(_, noun) => noun,
            Self::Any(_) => "known",
        };
        match port {
            PortRule::Named(protocol, name) if !self.has_name(*protocol, name) => {
                let protocol = protocol.map_or_else(String::new, |protocol| format!("{protocol} "));
                let message = format!("no container of the {noun} pods has a {protocol}port named {name}");
                Some((LintName::UndeclaredPortName, message))
            }
            PortRule::Range { protocol, first, last }
                if self.all_declare_others(*protocol, *first, *last) =>
            {
                let numbers = if first == last { first.to_string() } else { format!("{first} to {last}") };
                let message = format!(
                    "the containers of the {noun} pods declare ports, but not {protocol}/{numbers} (they need not)"
                );
                Some((LintName::UndeclaredPortNumber, message))
            }
            PortRule::Named(..)
            | PortRule::Range { .. }
            | PortRule::Protocol(_)
            | PortRule::Number(_)
            | PortRule::Icmp { .. }
            | PortRule::Nothing => None,
        }
    }

    fn has_name(&self, protocol: Option<Protocol>, name: &Name) -> bool {
        let mut protocols =
            protocol.map_or_else(|| Protocol::ALL.to_vec(), |protocol| vec![protocol]).into_iter();
        match self {
            Self::Any(in_use) => protocols.any(|protocol| in_use.contains(&(protocol, name))),
            Self::Listed(workloads, _) => {
                let mut ports = workloads.iter().flat_map(|workload| &*workload.pod.ports);
                ports.any(|port| port.name == *name && protocols.as_slice().contains(&port.protocol))
            }
        }
    }

    fn all_declare_others(&self, protocol: Protocol, first: u16, last: u16) -> bool {
        let Self::Listed(workloads, _) = self else { return false };
        workloads.iter().all(|workload| {
            workload.container_ports.is_some_and(|ports| {
                !ports.is_empty() && ports.range((protocol, first)..=(protocol, last)).next().is_none()
            })
        })
    }
}
