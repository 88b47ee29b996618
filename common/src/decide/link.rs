//! What a frame says of itself: whether it comes from the link-layer address of the pod that sends it, and
//! whether it is what the kernel takes it for.
//!
//! The first is asked of every frame that leaves a pod's veth, also on the fast path: a bridge learns from
//! each of them. Only the agent can know the address, from whoever has given it to the pod; a pod may change
//! the one of its interface, and then sends nothing.

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

/// Whether the kernel takes a frame for IP whose link header says otherwise, so that no source was read of
/// it. Only a pod behind netkit can send one: the kernel believes its socket (`netkit_xmit` in
/// drivers/net/netkit.c).
#[inline(always)]
pub(super) fn is_misnamed<P: Packet>(packet: &P) -> bool {
    let received_as = packet.received_as();
    matches!(received_as, Some([0x08, 0x00] | [0x86, 0xdd]))
        && packet.read::<2>(P::LINK_HEADER - 2) != received_as
}
