//! Where a packet comes from that has no ingress interface.
//!
//! What the node's own stack makes has none. That alone proves nothing: the kernel also makes new packets of
//! what others have sent. When connection tracking has put an IPv6 datagram together, routed or bridged, the
//! kernel may divide it again into parts without one (`ip6_frag_next`). Whole packets are made in others'
//! names by REJECT and by SYNPROXY.

use super::NODE;
use crate::{Flow, Packet, Reach, Scratch, Tables, Timeout, Tuple, packet::forget};

/// Finds out where a packet without an ingress interface has entered the node: `scratch.ingress_ifindex` is
/// then [`NODE`] when the node itself has sent it, a pod's veth when that has just seen it, and
/// [`Flow::UNKNOWN_INGRESS`] when nothing proves anything. In `scratch.claimed` stands the veth of the pod in
/// whose name it was sent, [`NODE`] if in no pod's, or if the kernel has made all of it: that is an answer,
/// and passes as one or not at all.
///
/// A part of an IPv6 datagram is the node's only when a socket of the node has sent it, for hosts outside can
/// send parts in the node's name. Of a whole packet the source tells, as it was before the node has rewritten
/// it. A pod's veth has seen a packet when the connection, before its addresses were rewritten, was in use
/// there.
///
/// `stands_alone`: an ICMP error or a message between neighbours, which belongs to no connection of its
/// sender's.
#[inline(never)]
pub(super) fn origin<T: Tables>(packet: &impl Packet, scratch: &mut Scratch, stands_alone: bool, tables: &T) {
    let Scratch { headers, tracked, original, ingress_ifindex, claimed, .. } = scratch;
    let is_translated = !stands_alone
        && packet.tracked(tracked)
        && tracked.describes(&headers.tuple)
        && !is_same(&tracked.original, &headers.tuple);
    // As it was sent. In memory that the verifier does not remember, as what follows.
    let sent = &mut tracked.original;
    if !is_translated {
        *sent = headers.tuple;
    }
    if stands_alone {
        sent.source = headers.sender;
    }
    let owner = tables.owner(&sent.source);
    *claimed = owner.unwrap_or(NODE);
    let is_named = owner == Some(NODE) || sent.source.is_link_local_v6() || sent.source.is_unspecified();
    let is_whole = sent.source.is_v4() || !headers.is_fragment();
    *ingress_ifindex = if is_named && is_whole { NODE } else { Flow::UNKNOWN_INGRESS };
    let pod = forget(claimed);
    if is_whole && !is_translated {
        *claimed = NODE;
    }
    if forget(ingress_ifindex) != NODE && packet.has_local_socket() {
        *ingress_ifindex = NODE;
    }
    if forget(ingress_ifindex) == NODE || pod == NODE || stands_alone {
        return;
    }
    original.turn_to(sent);
    if tables.flow(original, Reach::Everywhere).is_none() {
        return;
    }
    let flow = &original.flow;
    let was_there = flow.client_if == pod || flow.server_if == pod;
    if was_there && tables.now().wrapping_sub(flow.last) <= tables.timeout(Timeout::Unreplied) {
        *ingress_ifindex = pod;
    }
}

/// Their source ports are the same, or say nothing, as those of protocols without ports.
#[inline(always)]
fn is_same(original: &Tuple, packet: &Tuple) -> bool {
    original.source == packet.source
        && original.destination == packet.destination
        && original.destination_port == packet.destination_port
}
