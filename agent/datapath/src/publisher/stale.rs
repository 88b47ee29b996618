//! Connections that must not go on: what was let through in the name of an address that its veth no longer
//! has, or to what is now known to be a tunnel of a node.
//!
//! In: what is published, and what the kernel held of it until then. After a publication that failed, or an
//! agent that died in one, nothing says which of them were looked at: then all of them are.

use std::collections::BTreeMap;

use anyhow::Result;
use podgate_common::{
    Address, EndpointState, Flow, FlowKey, HEARD_BY_NODE, NODE, OTHER_NODE, Protocol, Seen, ServiceKey,
    TunnelPort, is_nodes, may_carry_packets,
};

use super::{EndpointEntry, Wanted};
use crate::BpfMaps;

/// What may have made connections stale.
pub(super) struct Stale<'a> {
    wanted: &'a Wanted,
    owners: &'a BTreeMap<Address, u32>,
    /// Addresses that had another owner, with that one.
    lost: BTreeMap<Address, u32>,
    /// What the maps held says nothing of which connections were looked at.
    is_unknown: bool,
    /// A tunnel is there that was not: a port, a service or a node.
    are_tunnels: bool,
}

impl<'a> Stale<'a> {
    /// Asked before the maps are written. `all`: whatever the maps hold, nothing was looked at.
    ///
    /// # Errors
    ///
    /// When the filter of addresses cannot be read.
    pub(super) fn of(
        maps: &BpfMaps,
        wanted: &'a Wanted,
        owners: &'a BTreeMap<Address, u32>,
        all: bool,
    ) -> Result<Self> {
        let (known, services) = (maps.owners.entries(), maps.tunnel_services.entries());
        // Nearly always, and found without a search for each: there may be thousands of nodes.
        let same_owners = known == owners;
        let is_lost = |(address, owner): &(&Address, &u32)| owners.get(address) != Some(*owner);
        let lost = known.iter().filter(|_| !same_owners).filter(is_lost);
        let lost = lost.map(|(address, owner)| (*address, *owner));
        // At a new link nothing was sent to yet.
        let is_new_node = |(address, owner): (&Address, &u32)| {
            is_node(Some(owner)) && !is_node(known.get(address)) && !address.is_link_local_v6()
        };
        let is_new_port = |(port, of): (&u16, &TunnelPort)| {
            let known = maps.tunnel_ports.get(*port);
            known.union(*of) != known
        };
        let are_tunnels = wanted.tunnel_ports.iter().any(is_new_port)
            || wanted.tunnel_services.iter().any(|key| !services.contains_key(key))
            || ended_exceptions(maps, wanted).next().is_some()
            || !wanted.tunnel_filter.is_empty() && !maps.filter.has_all_tunnels(&wanted.tunnel_filter)?
            || !same_owners && owners.iter().any(is_new_node);
        Ok(Self {
            wanted,
            owners,
            lost: lost.collect(),
            is_unknown: all,
            are_tunnels: (all || are_tunnels) && !maps.passes_encapsulation,
        })
    }

    pub(super) fn is_any(&self) -> bool {
        self.are_addresses() || self.are_tunnels
    }

    /// Some address may have lost its owner, or have another one.
    fn are_addresses(&self) -> bool {
        self.is_unknown || !self.lost.is_empty()
    }

    /// Whether a connection is one of them. The node's own devices let any address pass.
    pub(super) fn has(&self, key: &FlowKey, flow: &Flow) -> bool {
        !key.is_at_host()
            && (self.are_addresses() && self.is_in_anothers_name(key, flow)
                || self.are_tunnels && self.is_node_tunnel(key, flow))
    }

    /// Whether a veth stands for an address that its pod may not send from.
    fn is_in_anothers_name(&self, key: &FlowKey, flow: &Flow) -> bool {
        let [low, high] = key.addresses();
        let (client, server) = if flow.seen.has(Seen::CLIENT_IS_LOW) { (low, high) } else { (high, low) };
        let is_clients = match flow.seen.has(Seen::REWRITTEN) {
            true => self.may_stand_for(&client, flow.client_if),
            false => self.is_own(&client, flow.client_if),
        };
        !is_clients || !self.is_own(&server, flow.server_if)
    }

    /// The same of a client that the node may have rewritten: it stands under another address by right, but
    /// not under another pod's, nor under one that was its own.
    fn may_stand_for(&self, address: &Address, veth: u32) -> bool {
        let is_others = |owner: u32| owner != veth && !is_node(Some(&owner));
        veth == NODE
            || self.wanted.endpoints.contains_key(&veth)
                && self.lost.get(address) != Some(&veth)
                && !self.owners.get(address).is_some_and(|it| is_others(*it))
    }

    /// As the programs ask it of a packet that leaves a veth. A veth that is gone has no address.
    fn is_own(&self, address: &Address, veth: u32) -> bool {
        let is_own = |endpoint: &EndpointEntry| match self.owners.get(address) {
            Some(&(OTHER_NODE | HEARD_BY_NODE)) | None => {
                endpoint.state != EndpointState::Identified || address.is_link_local_v6()
            }
            Some(owner) => *owner == veth,
        };
        veth == NODE || self.wanted.endpoints.get(&veth).is_some_and(is_own)
    }

    fn is_node_tunnel(&self, key: &FlowKey, flow: &Flow) -> bool {
        let Wanted { tunnel_ports, tunnel_services, tunnel_filter, .. } = self.wanted;
        let is_udp = key.protocol() == Protocol::Udp as u32;
        // A pod that has the packets is no tunnel, whoever claims its address. Only its client must not send
        // there from a veth of this node.
        let is_clients_way = flow.client_if != NODE && !flow.seen.has(Seen::REWRITTEN);
        let has_arrived = |address| self.owners.get(&address) == Some(&flow.server_if) && !is_clients_way;
        may_carry_packets(key.protocol())
            && key.addresses().into_iter().zip(key.ports()).any(|(address, port)| {
                if flow.server_if != NODE && has_arrived(address) {
                    return false;
                }
                let of_services = tunnel_ports.get(&port).is_some_and(|of| of.has(TunnelPort::OF_SERVICES));
                let listens = tunnel_ports.get(&port).is_some_and(|of| of.has(TunnelPort::OF_NODES));
                is_node(self.owners.get(&address)) && (listens || !is_udp)
                    || is_udp
                        && (ServiceKey::of_tunnel(address, port)
                            .iter()
                            .any(|key| tunnel_services.contains(key))
                            || of_services
                                && tunnel_filter.may_have(address.into())
                                && !tunnel_services.contains(&ServiceKey::of_no_tunnel(address, port)))
            })
    }
}

/// Puts the services that lead to tunnels beside those that did until now. What leads to none no more does so
/// no longer.
pub(super) fn put_tunnel_services(maps: &mut BpfMaps, wanted: &Wanted) -> Result<BTreeMap<ServiceKey, u32>> {
    let ended: Vec<ServiceKey> = ended_exceptions(maps, wanted).collect();
    ended.iter().try_for_each(|key| maps.tunnel_services.remove(key))?;
    let services = wanted.tunnel_services.iter().map(|key| (*key, 1)).collect();
    maps.tunnel_services.put_all(&services)?;
    Ok(services)
}

/// What led to no tunnel until now, and is still in the filter of what does.
fn ended_exceptions(maps: &BpfMaps, wanted: &Wanted) -> impl Iterator<Item = ServiceKey> {
    let held = maps.tunnel_services.entries().keys();
    let ended = held.filter(|key| **key == ServiceKey::of_no_tunnel(key.address, key.port));
    let ended = ended.filter(|key| !wanted.tunnel_services.contains(key));
    ended.filter(|key| wanted.tunnel_filter.may_have(key.address.into())).copied()
}

fn is_node(owner: Option<&u32>) -> bool {
    owner.is_some_and(|owner| is_nodes(*owner))
}
