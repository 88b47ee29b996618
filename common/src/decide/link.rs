//! Whether a frame comes from the link-layer address of the pod that sends it.
//!
//! Asked of every frame that leaves a pod's veth, also on the fast path: a bridge learns from each of them.
//! Only the agent can know the address, from whoever has given it to the pod; a pod may change the one of its
//! interface, and then sends nothing.

use crate::{LinkAddress, Packet, Start as _, Tables};

/// Where the source stands in an Ethernet header.
const SOURCE: usize = 6;

/// Whether a pod may send this frame, as far as its link-layer source goes: any where the pod's address is
/// not known, or of no account because no bridge learns it.
#[inline(always)]
pub(super) fn is_own_source<T: Tables>(packet: &impl Packet, ifindex: u32, tables: &T) -> bool {
    let bound = tables.link_address(ifindex);
    if !bound.is_of(ifindex) {
        return true;
    }
    // The next two bytes are the type, which every frame has.
    let source = packet.start::<{ SOURCE + 8 }>().map(|start| u64::from_le(start.u64::<SOURCE>()));
    source.is_some_and(|source| LinkAddress::of_frame(ifindex, source) == bound)
}
