//! Packets in packets, from a pod to a node: what a node's tunnel device takes out of them is in no pod's
//! name.
//!
//! VXLAN, Geneve, IP in IP, GRE and their like say who sent the inner packet and prove nothing. A device that
//! listens takes them from anyone, pods too, and what is in them goes on past every program at a pod's veth.
//! A service may lead to such a device, whose translation no program sees where the node is its own.

use crate::{Address, FilteredAs, Headers, ServiceKey, Tables, TunnelPort, Tuple, protocol::number};

/// Whether the node that the packet goes to may take another one out of it.
///
/// A function of its own in the kernel too: for nearly all packets the answer is in the first comparisons.
#[inline(never)]
pub(super) fn is_tunnelled<T: Tables>(protocol: u32, port: u16, destination: &Address, tables: &T) -> bool {
    let reaches_tunnel = match protocol {
        number::IPV4 | number::IPV6 | number::GRE | number::L2TP | number::MPLS => {
            reaches_node(destination, tables)
        }
        number::UDP => reaches_udp_tunnel(port, destination, tables),
        _ => return false,
    };
    reaches_tunnel && !tables.passes_encapsulation()
}

/// Whether the client of a connection may be a tunnel of a node: nothing goes back to it for what came.
#[inline(always)]
pub(super) fn comes_from_tunnel<T: Tables>(tuple: &Tuple, tables: &T) -> bool {
    may_carry_packets(tuple.protocol)
        && is_tunnelled(tuple.protocol, tuple.source_port, &tuple.source, tables)
}

/// The same of its server.
#[inline(always)]
pub(super) fn leads_to_tunnel<T: Tables>(tuple: &Tuple, tables: &T) -> bool {
    may_carry_packets(tuple.protocol)
        && is_tunnelled(tuple.protocol, tuple.destination_port, &tuple.destination, tables)
}

/// Protocols in which tunnels carry other packets.
pub const fn may_carry_packets(protocol: u32) -> bool {
    matches!(protocol, number::IPV4 | number::IPV6 | number::GRE | number::L2TP | number::MPLS | number::UDP)
}

#[inline(always)]
fn reaches_udp_tunnel<T: Tables>(port: u16, destination: &Address, tables: &T) -> bool {
    let known = tables.tunnel_port(port);
    known.has(TunnelPort::OF_NODES) && reaches_node(destination, tables)
        || known.has(TunnelPort::OF_SERVICES)
            && (ServiceKey::of_tunnel(*destination, port).iter().any(|key| tables.has_tunnel_key(key))
                || tables.is_filtered(FilteredAs::Tunnel, destination)
                    && !tables.has_tunnel_key(&ServiceKey::of_no_tunnel(*destination, port)))
}

/// The same of a packet that cannot be read to its end: receivers read on behind more headers than are read
/// here.
#[inline(always)]
pub(super) fn may_be_tunnelled<T: Tables>(headers: &Headers, tables: &T) -> bool {
    headers.sender != Address::UNSPECIFIED
        && reaches_node(&headers.tuple.destination, tables)
        && !tables.passes_encapsulation()
}

/// A device of a node listens at all its addresses, and hears what is sent to all hosts of a link.
#[inline(always)]
fn reaches_node<T: Tables>(destination: &Address, tables: &T) -> bool {
    destination.is_for_many() || tables.is_node(destination)
}
