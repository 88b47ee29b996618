//! The side of a node: the host endpoints that evaluate the traffic of its own processes.
//!
//! The objects do not say which device a packet takes. The host endpoint that expects the node's address
//! counts, else the one for all devices, else each of the others. Traffic between a node and its own pods
//! passes no device that has one.

use std::net::IpAddr;

use podgate_common::{Direction, Protocol};

use super::{Connection, DirectionResult, Verdict, VerdictReason};
use crate::model::{FailsafePorts, HostDevices, HostEndpoint, HostTraffic};

impl Connection<'_> {
    pub(super) fn host_side(&self, direction: Direction) -> DirectionResult {
        let free = || DirectionResult::without_policies(VerdictReason::NotAPod);
        let (own, peer) = match direction {
            Direction::Egress => (self.from, self.to),
            Direction::Ingress => (self.to, self.from),
        };
        let Some(node) = own.node() else { return free() };
        if peer.node() == Some(node) {
            return free();
        }
        let of_node = self.cluster.calico.host_endpoints().filter(|host| host.node == *node);
        let of_node: Vec<&HostEndpoint> = of_node.collect();
        let mut hosts: Vec<&HostEndpoint> = Vec::new();
        for pair in self.pairs {
            let address = if direction == Direction::Egress { pair.from } else { pair.to };
            for host in at(&of_node, address) {
                if !hosts.contains(&host) {
                    hosts.push(host);
                }
            }
        }
        if hosts.is_empty() {
            return free();
        }
        if self.is_failsafe(direction) {
            let name = hosts.first().map(|host| host.name.clone());
            let failsafe = DirectionResult::without_policies(VerdictReason::Failsafe);
            return DirectionResult { host_endpoint: name, ..failsafe };
        }
        let mut sides = hosts.iter().map(|host| self.side_of(host.end(HostTraffic::Local), direction));
        let first = sides.next().unwrap_or_else(free);
        match first.verdict {
            Verdict::Deny => first,
            Verdict::Allow => sides.find(|side| side.verdict == Verdict::Deny).unwrap_or(first),
        }
    }

    fn is_failsafe(&self, direction: Direction) -> bool {
        let failsafe = FailsafePorts::default();
        let number = self.port.protocol.number(0);
        let Ok(protocol) = Protocol::try_from(number) else { return false };
        self.numbers.iter().all(|port| failsafe.has(direction, protocol, *port))
    }
}

/// The host endpoints that may evaluate traffic of this address of their node.
fn at<'a>(hosts: &[&'a HostEndpoint], address: IpAddr) -> Vec<&'a HostEndpoint> {
    let of = |is_meant: &dyn Fn(&HostEndpoint) -> bool| -> Vec<&'a HostEndpoint> {
        hosts.iter().copied().filter(|host| is_meant(host)).collect()
    };
    let is_of_all = |host: &HostEndpoint| host.devices == HostDevices::Every;
    let expecting = of(&|host| !is_of_all(host) && host.local.addresses.contains(&address));
    if !expecting.is_empty() {
        return expecting;
    }
    let of_all = of(&is_of_all);
    if !of_all.is_empty() {
        return of_all;
    }
    of(&|host| host.local.addresses.is_empty())
}
