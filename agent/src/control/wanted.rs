//! What the kernel must know: the veths of the node, the owner of each address, and tunnels.

use std::net::IpAddr;

use ipnet::IpNet;
use podgate_common::EndpointState;
use podgate_core::{
    compiler::{CompiledTables, Subject},
    model::Cluster,
};
use podgate_datapath::{
    network::Network,
    publisher::{EndpointEntry, Wanted},
};

use super::nodes::Nodes;
use crate::endpoints::{Endpoints, InterfaceState};

/// Addresses of one pod that the kernel knows: no pod takes the room of others in its table.
const MOST_ADDRESSES: usize = 64;

pub(super) fn wanted(
    endpoints: &Endpoints,
    tables: &CompiledTables,
    cluster: &Cluster,
    network: &Network,
    nodes: &mut Nodes,
) -> Wanted {
    let ports = network.links.values().filter_map(|link| link.tunnel_port);
    nodes.find(cluster, &endpoints.own_addresses, heard_by_node(network).collect(), ports);
    let mut wanted = nodes.wanted();
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
    wanted
}

/// Addresses that are not the node's own and that its sockets hear all the same: broadcasts on its links, of
/// which Linux takes the first address for one, too (`fib_add_ifaddr` in net/ipv4/fib_frontend.c), the
/// address of all routers of a link (RFC 4291, 2.6.1), and all that are on a link at all.
pub(super) fn heard_by_node(network: &Network) -> impl Iterator<Item = IpAddr> {
    let on_links = network.links.values().flat_map(|link| &link.addresses);
    on_links.flat_map(|net| {
        let broadcasts = match net {
            IpNet::V4(net) if net.prefix_len() < 31 => {
                [Some(net.broadcast().into()), Some(net.network().into())]
            }
            IpNet::V6(net) if net.prefix_len() < 127 => [Some(net.network().into()), None],
            IpNet::V4(_) | IpNet::V6(_) => [None, None],
        };
        broadcasts.into_iter().flatten().chain([net.addr()])
    })
}
