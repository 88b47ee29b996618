//! Who sent a packet that reaches a pod or leaves the node: as FORWARD sees it, before the node rewrites the
//! source.

use super::NODE;
use crate::{Address, Flow, Packet, Seen, Tables, Tracked, Tuple};

pub(super) struct Sender {
    /// Before any translation by this node.
    pub(super) address: Address,
    /// The veth of the pod of this node that sent it; [`NODE`]: no pod of this node did.
    pub(super) pod: u32,
    /// The packet has another address, which the node has put in place of this one.
    pub(super) is_rewritten: bool,
    /// The node has put its own address in place of a foreign one.
    pub(super) masqueraded: bool,
}

impl Sender {
    /// The same as [`Self::of`], without a look-up: the pod that has opened the connection, as `from_pod` has
    /// just found its address to be its own, and the packet comes from its veth.
    #[inline(always)]
    pub(super) fn known<T: Tables>(tuple: &Tuple, entry: &Flow, tables: &T) -> Option<Self> {
        let is_clients = entry.seen.has(Seen::OWN_ADDRESS)
            && entry.client_if == entry.ingress_ifindex
            && entry.client_revision == tables.revision();
        is_clients.then_some(Self {
            address: tuple.source,
            pod: entry.client_if,
            is_rewritten: false,
            masqueraded: false,
        })
    }

    /// `ingress_ifindex` is where the packet entered the node. `None`: the source is the address of a pod,
    /// or one of the node on the link, and someone else sent it.
    #[inline(always)]
    pub(super) fn of<T: Tables>(
        tuple: &Tuple,
        ingress_ifindex: u32,
        packet: &impl Packet,
        tracked: &mut Tracked,
        tables: &T,
    ) -> Option<Self> {
        let owner = tables.owner(&tuple.source);
        if let Some(pod) = owner
            && pod != NODE
        {
            let known = ingress_ifindex == Flow::ANY_INGRESS
                || pod == ingress_ifindex
                || tables.endpoint(pod).master == ingress_ifindex;
            return known.then_some(Self {
                address: tuple.source,
                pod,
                is_rewritten: false,
                masqueraded: false,
            });
        }
        // `from_pod` lets only a pod's own addresses out, so here the node has rewritten it. Link-local ones
        // stay, and those of the node are the node's.
        let entered = tables.endpoint(ingress_ifindex);
        if entered.is_known() {
            let own = if tuple.source.is_v4() { entered.v4 } else { entered.v6 };
            let is_rewritten = !tuple.source.is_link_local_v6();
            if !is_rewritten && owner.is_some() {
                return None;
            }
            let address = if is_rewritten && !own.is_unspecified() { own } else { tuple.source };
            return Some(Self { address, pod: ingress_ifindex, is_rewritten, masqueraded: false });
        }
        let readable = packet.tracked(tracked);
        if readable && tracked.describes(tuple) && tracked.original.source != tuple.source {
            let address = tracked.original.source;
            // Behind a bridge, which is what the packet came through when it was routed.
            let pod = tables
                .owner(&address)
                .filter(|pod| *pod != NODE && tables.endpoint(*pod).master == ingress_ifindex)
                .unwrap_or(NODE);
            return Some(Self { address, pod, is_rewritten: true, masqueraded: pod == NODE });
        }
        // Without connection tracking to ask, this is all that is known. No IPv4 packet from elsewhere gets
        // through the routing with an address of the node's own as its source; in IPv6 nothing is in its way.
        let masqueraded = owner == Some(NODE) && !readable && tuple.source.is_v4();
        Some(Self { address: tuple.source, pod: NODE, is_rewritten: masqueraded, masqueraded })
    }
}
