//! Packets in packets, from a pod to a node: what a node's tunnel device takes out of them is in no pod's
//! name.
//!
//! VXLAN, Geneve, IP in IP, GRE and their like say who sent the inner packet and prove nothing. A device that
//! listens takes them from anybody, pods too, and what is in them goes on past every program at a pod's veth.

use crate::{Address, Headers, Tables, Tuple, protocol::number};

/// Whether the node that the packet goes to may take another one out of it.
///
/// A function of its own in the kernel too: for nearly all packets the answer is in the first comparisons.
#[inline(never)]
pub(super) fn is_tunnelled<T: Tables>(tuple: &Tuple, tables: &T) -> bool {
    let is_encapsulation = match tuple.protocol {
        number::IPV4 | number::IPV6 | number::GRE | number::L2TP | number::MPLS => true,
        number::UDP => tables.is_tunnel_port(tuple.destination_port),
        _ => return false,
    };
    is_encapsulation && reaches_node(&tuple.destination, tables) && !tables.passes_encapsulation()
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
