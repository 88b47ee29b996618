//! What a node takes another packet out of, by a naive reading of the cluster.

use std::net::IpAddr;

use podgate_common::Protocol;
use podgate_core::model::{Cluster, Name, Proxy, Service, ServicePort};

use crate::{
    neighbours::reaches_node,
    world::{TUNNEL_PORTS, World},
};

/// Whether a node may take another packet out of this one.
pub(crate) fn is_tunnelled(world: &World, protocol: u32, port: u16, destination: IpAddr) -> bool {
    if protocol == 17 && leads_to_tunnel(world, destination, port) {
        return true;
    }
    ([4, 41, 47, 115, 137].contains(&protocol) || protocol == 17 && TUNNEL_PORTS.contains(&port))
        && reaches_node(world, destination)
}

/// Whether a service at this address and UDP port has a tunnel of a node behind it.
fn leads_to_tunnel(world: &World, destination: IpAddr, port: u16) -> bool {
    let Cluster { services, slices, nodes, .. } = &world.cluster;
    let is_node = |address: &IpAddr| {
        world.node.contains(address) || nodes.values().any(|node| node.addresses.contains(address))
    };
    let has_tunnel = |service: &Service, name: &Name| {
        slices.values().any(|slice| {
            let ports = &slice.ports;
            let is_read = match service.proxy {
                Proxy::KubeProxy => slice.proxy == Proxy::KubeProxy,
                Proxy::Other => slice.proxy != Proxy::Headless,
                Proxy::Headless => true,
            };
            slice.service == service.name
                && is_read
                && slice.endpoints.iter().any(|endpoint| is_node(&endpoint.address))
                && ports.iter().any(|port| {
                    let number = port.number.is_some_and(|number| TUNNEL_PORTS.contains(&number));
                    port.name == *name && port.protocol == Protocol::Udp && number
                })
        })
    };
    let ports = |is_wanted: &dyn Fn(&Service, &ServicePort) -> bool, is_led: bool| {
        services.values().any(|service| {
            service.ports.iter().any(|port| {
                port.protocol == Protocol::Udp
                    && is_wanted(service, port)
                    && (!is_led || has_tunnel(service, &port.name))
            })
        })
    };
    let own = |service: &Service, at: &ServicePort| {
        at.number == port && service.cluster_addresses.contains(&destination)
    };
    let claimed = |service: &Service, at: &ServicePort| {
        at.number == port
            && service.proxy == Proxy::KubeProxy
            && service.external_addresses.contains(&destination)
    };
    // Any port from which some service leads to one, at the own address of a service that does.
    ports(&|service, _| service.cluster_addresses.contains(&destination), true)
        && ports(&|_, at| at.number == port, true)
        || ports(&claimed, true) && !ports(&own, false)
        || is_node(&destination) && ports(&|_, at| at.node_port == Some(port), true)
}
