//! The ports of a rule, for a pod: what numbers and names stand for.
//!
//! In: entries of a list of ports, and the pod that they belong to. Out: the numbers that count for every
//! peer, and those that only peers with a named port have.

use std::collections::BTreeMap;

use podgate_common::Protocol;

use super::{Atom, ClausePorts, RuleCompiler, Shared};
use crate::model::{NamedPort, Pod, PortRange, PortRule, PortSet};

impl RuleCompiler<'_> {
    /// `subject`: the pod itself where the ports are its own.
    pub(super) fn clause_ports(&self, ports: &[PortRule], subject: Option<&Pod>) -> ClausePorts {
        let mut numbers = Vec::new();
        let mut named = BTreeMap::new();
        for port in ports {
            self.each_range(port, subject, |range, name| match name {
                Some(name) => {
                    let only: PortSet = [range].into_iter().collect();
                    named.insert(Shared::new(Atom::Port(name.clone())), Shared::new(only));
                }
                None => numbers.push(range),
            });
        }
        ClausePorts { numbers: Shared::new(numbers.into_iter().collect()), named }
    }

    /// The ranges that an entry stands for, each with the named port that the peer must have.
    fn each_range(
        &self,
        port: &PortRule,
        subject: Option<&Pod>,
        mut add: impl FnMut(PortRange, Option<&NamedPort>),
    ) {
        match port {
            PortRule::Protocol(_)
            | PortRule::Range { .. }
            | PortRule::Number(_)
            | PortRule::Icmp { .. }
            | PortRule::Nothing => {
                if let Some(range) = port.range() {
                    add(range, None);
                }
            }
            PortRule::Named(protocol, name) => {
                let stands_for = |port: &&NamedPort| {
                    port.name == *name && protocol.is_none_or(|protocol| port.protocol == protocol)
                };
                match subject {
                    // The port belongs to the destination: the subject itself ...
                    Some(pod) => {
                        pod.ports.iter().filter(stands_for).for_each(|port| add(port.into(), None));
                    }
                    // ... or the peer, which must have the name with this very number.
                    None => {
                        let first = NamedPort { name: name.clone(), protocol: Protocol::ALL[0], number: 0 };
                        let ports = self.named_ports.range(first..).map(|(port, _)| port);
                        let ports = ports.take_while(|port| port.name == *name).filter(stands_for);
                        ports.for_each(|port| add(port.into(), Some(port)));
                    }
                }
            }
        }
    }
}
