//! What the policies say of a packet, by the naive reading, with the backends that a service may lead it to.

use std::{collections::BTreeSet, net::IpAddr};

use podgate_common::{Direction, Hook, Protocol, RuleProtocol, Tuple};
use podgate_core::model::{Cluster, Pod, Service, ServicePort};

use super::Witness;
use crate::{
    naive::{self, Query},
    world::Learnt,
};

/// What policies say of one side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PolicyVerdict {
    /// None has a say.
    NotIsolated,
    Allowed,
    /// Some of the service's backends are allowed.
    Deferred,
    Denied,
}

impl Witness<'_> {
    /// What the policies of a cluster say of a pod's side. `rule_set` is what its egress was compiled to.
    pub(super) fn policy_verdict(
        &self,
        cluster: &Cluster,
        rule_set: usize,
        pod: &Pod,
        hook: Hook,
        tuple: &Tuple,
    ) -> PolicyVerdict {
        let egress = hook.direction == Direction::Egress;
        let query = |protocol: RuleProtocol, peer: IpAddr, port| {
            let own_node = egress && self.world.node.contains(&peer);
            Query { subject: pod, direction: hook.direction, peer, protocol, port, own_node, learnt: &[] }
        };
        // No backend of a service is open by a name.
        let allows_by = |protocol, peer, port| naive::allows(cluster, query(protocol, peer, port));
        let (protocol, place) = place(tuple);
        let allows = |peer, port| allows_by(protocol, peer, port);
        if !naive::isolates(cluster, pod, hook.direction) {
            return PolicyVerdict::NotIsolated;
        }
        if egress && pod.addresses.contains(&tuple.destination.into()) {
            return PolicyVerdict::Allowed;
        }
        let to_node = egress && self.world.node.contains(&tuple.destination.into());
        let ends = self.ends(tuple).filter(|_| egress);
        let is_node_port = ends.as_ref().is_some_and(|(_, is_node_port)| *is_node_port);
        // Nothing sees what is delivered to the node, translated or not.
        if to_node && !is_node_port && !allows(tuple.destination.into(), place) {
            return PolicyVerdict::Denied;
        }
        if egress && let Some(of_node) = self.ends_over_limit(tuple, is_node_port) {
            // Anything may be behind such an address, at any port.
            let is_allowed = |(protocol, address, port)| allows_by(Protocol::into(protocol), address, port);
            let is_deferred = of_node.into_iter().all(is_allowed);
            return if is_deferred { PolicyVerdict::Deferred } else { PolicyVerdict::Denied };
        }
        let Some((backends, _)) = ends else {
            let peer =
                if egress { tuple.destination.into() } else { self.source(hook.ingress_ifindex, tuple) };
            let query = Query { learnt: &self.world.learnt, ..query(protocol, peer, place) };
            let allowed = naive::allows(cluster, query);
            if allowed && !allows(peer, place) {
                self.opened_by_names.set(self.opened_by_names.get() + 1);
            }
            return if allowed { PolicyVerdict::Allowed } else { PolicyVerdict::Denied };
        };
        let is_allowed = |&(address, port): &(IpAddr, u16)| allows(address, port);
        // What is delivered to the node is evaluated nowhere else: one that is denied there denies all.
        let is_denied_node =
            |backend: &(IpAddr, u16)| self.world.node.contains(&backend.0) && !is_allowed(backend);
        // Or the pod itself, which is met only by who is.
        let may_be_met =
            |backend: &(IpAddr, u16)| is_allowed(backend) || self.may_be_itself(rule_set, &backend.0);
        if !backends.is_empty() && backends.iter().all(is_allowed) {
            PolicyVerdict::Allowed
        } else if !backends.iter().any(is_denied_node) && backends.iter().any(may_be_met) {
            PolicyVerdict::Deferred
        } else {
            PolicyVerdict::Denied
        }
    }

    /// Where a packet to a service may end, if it goes to one: addresses and ports; and whether it goes to a
    /// node port.
    fn ends(&self, tuple: &Tuple) -> Option<(BTreeSet<(IpAddr, u16)>, bool)> {
        let protocol = Protocol::try_from(tuple.protocol).ok()?;
        let (destination, port): (IpAddr, _) = (tuple.destination.into(), tuple.destination_port);
        let to_node = self.world.node.contains(&destination);
        let at = |is_there: &dyn Fn(&Service) -> bool, number: &dyn Fn(&ServicePort) -> Option<u16>| {
            let services = self.world.cluster.services.values().filter(|service| is_there(service));
            let services = services.filter(|service| {
                let [first] = &service.ports[..] else { panic!("every service of the test has one port") };
                first.protocol == protocol && number(first) == Some(port)
            });
            services.map(|service| self.endpoints(service, destination.is_ipv4())).collect::<Vec<_>>()
        };
        let number = |port: &ServicePort| Some(port.number);
        let listed = |service: &Service, addresses: &[IpAddr]| {
            !service.is_over_limit && addresses.contains(&destination)
        };
        let owners = at(&|service| listed(service, &service.cluster_addresses), &number);
        let others = at(&|service| listed(service, &service.external_addresses), &number);
        let node_ports = match to_node && owners.is_empty() && others.is_empty() {
            true => at(&|_| true, &|port| port.node_port),
            false => Vec::new(),
        };
        // Without endpoints it is a port of the node's like any other.
        let node_ports: Vec<_> = node_ports.into_iter().filter(|backends| !backends.is_empty()).collect();
        if owners.is_empty() && others.is_empty() && node_ports.is_empty() {
            return None;
        }
        // Who claims another's cluster address does not close it by a backend that is the node.
        let counts = |(address, _): &&(IpAddr, u16)| owners.is_empty() || !self.world.node.contains(address);
        let untranslated =
            !others.is_empty() || to_node && !owners.is_empty() || owners.iter().any(BTreeSet::is_empty);
        let own = owners.iter().chain(&node_ports).flatten();
        let mut ends: BTreeSet<_> = own.chain(others.iter().flatten().filter(counts)).copied().collect();
        ends.extend(untranslated.then_some((destination, port)));
        Some((ends, !node_ports.is_empty()))
    }

    /// The node's own ports among what may be behind an address that some service over the limit has; `None`
    /// if none has it. A node port stands for all addresses of the node's.
    fn ends_over_limit(&self, tuple: &Tuple, is_node_port: bool) -> Option<Vec<(Protocol, IpAddr, u16)>> {
        let protocol = Protocol::try_from(tuple.protocol).ok()?;
        let destination: IpAddr = tuple.destination.into();
        let is_v4 = destination.is_ipv4();
        let services = || self.world.cluster.services.values().map(|service| &**service);
        let has = |service: &Service, address: &IpAddr| {
            service.cluster_addresses.contains(address) || service.external_addresses.contains(address)
        };
        let is_in_filter =
            |address: &IpAddr| services().any(|service| service.is_over_limit && has(service, address));
        let is_claimed = match is_node_port {
            true => self.world.node.iter().any(|own| own.is_ipv4() == is_v4 && is_in_filter(own)),
            false => is_in_filter(&destination),
        };
        if !is_claimed {
            return None;
        }
        let is_here = |service: &Service, addresses: &[IpAddr]| {
            let [port] = &service.ports[..] else { panic!("every service of the test has one port") };
            let number = if is_node_port { port.node_port } else { Some(port.number) };
            (port.protocol, number) == (protocol, Some(tuple.destination_port))
                && (is_node_port || !service.is_over_limit && addresses.contains(&destination))
        };
        // Who claims another's cluster address does not close it by a backend that is the node.
        let owners: Vec<_> =
            services().filter(|it| !is_node_port && is_here(it, &it.cluster_addresses)).collect();
        let listed: Vec<_> = match owners.is_empty() {
            true => services().filter(|it| is_here(it, &it.external_addresses)).collect(),
            false => owners.clone(),
        };
        let over_limit = services().filter(|it| owners.is_empty() && it.is_over_limit);
        let of_family = |service, v4| {
            let ends = self.endpoints(service, v4).into_iter();
            ends.map(|(address, port)| (service.ports[0].protocol, address, port)).collect::<Vec<_>>()
        };
        let ends = over_limit
            .flat_map(|service| [true, false].map(|v4| of_family(service, v4)))
            .chain(listed.into_iter().map(|service| of_family(service, is_v4)));
        Some(ends.flatten().filter(|(_, address, _)| self.world.node.contains(address)).collect())
    }

    fn endpoints(&self, service: &Service, v4: bool) -> BTreeSet<(IpAddr, u16)> {
        let slices = self.world.cluster.slices.values().filter(|slice| slice.service == service.name);
        let endpoints = slices.flat_map(|slice| {
            let port = slice.ports[0].number.expect("every slice of the test has one");
            slice.endpoints.iter().map(move |endpoint| (endpoint.address, port))
        });
        endpoints.filter(|(address, _)| address.is_ipv4() == v4).collect()
    }

    /// Whether a backend is a pod of this node under the same rules: then the compiled tables cannot tell it
    /// from the sender, which always reaches itself.
    fn may_be_itself(&self, rule_set: usize, backend: &IpAddr) -> bool {
        let mut known = self.world.subjects().filter(|pod| pod.addresses.contains(backend));
        known.next().is_some_and(|pod| self.tables.subjects[&pod.name].of_egress().contains(&rule_set))
    }
}

/// What rules say of a packet's protocol, and its port or what stands for it.
const fn place(tuple: &Tuple) -> (RuleProtocol, u16) {
    RuleProtocol::of_packet(tuple.protocol, tuple.source_port, tuple.destination_port)
}

/// Whether the policies of a cluster allow a pod to send this.
pub(super) fn may_send(cluster: &Cluster, learnt: &[Learnt], pod: &Pod, tuple: &Tuple) -> bool {
    let ((protocol, port), peer) = (place(tuple), tuple.destination.into());
    // What the node keeps for itself is evaluated where it leaves the pod.
    let (direction, own_node) = (Direction::Egress, false);
    naive::allows(cluster, Query { subject: pod, direction, peer, protocol, port, own_node, learnt })
}
