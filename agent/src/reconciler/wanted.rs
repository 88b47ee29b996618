//! What the kernel shall know of the node's veths, and of whom addresses and tunnels are.

use std::net::IpAddr;

use ipnet::IpNet;
use podgate_common::{EndpointState, NODE, OTHER_NODE};
use podgate_core::{
    compiler::{CompiledTables, Subject},
    model::Cluster,
};
use podgate_datapath::{
    network::Network,
    publisher::{EndpointEntry, Wanted},
};

use crate::endpoints::{Endpoints, InterfaceState};

/// Where nodes listen for VXLAN (IANA's port and the one that Linux has by default) and for Geneve: other
/// nodes may have devices that this one has not.
const TUNNEL_PORTS: [u16; 3] = [4_789, 8_472, 6_081];

/// Addresses of one pod that the kernel knows: no pod takes the room of others in its table.
const MOST_ADDRESSES: usize = 64;

pub(super) fn wanted(
    endpoints: &Endpoints,
    tables: &CompiledTables,
    cluster: &Cluster,
    network: &Network,
) -> Wanted {
    let mut wanted = Wanted::default();
    let nodes = cluster.nodes.values().flat_map(|node| &node.addresses).copied();
    wanted.owners.extend(nodes.chain(heard_by_node(network)).map(|address| (address, OTHER_NODE)));
    wanted.owners.extend(endpoints.own_addresses.iter().map(|address| (*address, NODE)));
    for veth in endpoints.veths.values() {
        let (state, subject) = match &veth.state {
            InterfaceState::Identified { pod, addresses, .. } => {
                let own = addresses.iter().take(MOST_ADDRESSES).map(|address| (*address, veth.ifindex));
                wanted.owners.extend(own);
                (
                    EndpointState::Identified,
                    tables.subjects.get(pod).copied().unwrap_or(Subject::NOT_ISOLATED),
                )
            }
            InterfaceState::Pending => (EndpointState::Pending, Subject::NOT_ISOLATED),
            InterfaceState::Unmanaged => (EndpointState::Unmanaged, Subject::NOT_ISOLATED),
        };
        // Of frames that are routed no one learns where their source is.
        if let Some(address) = veth.link_address.filter(|_| veth.master != 0) {
            wanted.link_addresses.insert(veth.ifindex, address);
        }
        wanted.endpoints.insert(veth.ifindex, EndpointEntry { state, subject, master: veth.master });
    }
    wanted.tunnel_ports.extend(TUNNEL_PORTS);
    wanted.tunnel_ports.extend(network.links.values().filter_map(|link| link.tunnel_port));
    wanted
}

/// Addresses that are not the node's own and that its sockets hear all the same: broadcasts on its links, of
/// which Linux takes the first address for one, too (`fib_add_ifaddr` in net/ipv4/fib_frontend.c), and all
/// that are on a link at all.
fn heard_by_node(network: &Network) -> impl Iterator<Item = IpAddr> {
    let on_links = network.links.values().flat_map(|link| &link.addresses);
    on_links.flat_map(|net| {
        let broadcasts = match net {
            IpNet::V4(net) if net.prefix_len() < 31 => [Some(net.broadcast()), Some(net.network())],
            _ => [None, None],
        };
        broadcasts.into_iter().flatten().map(IpAddr::V4).chain([net.addr()])
    })
}
