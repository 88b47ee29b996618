//! What must work before a pod has its address: DHCP (RFC 2131) and DHCPv6 (RFC 8415).
//!
//! A request is let out for what it is. It leaves a mark beside the fragments, and an answer is let in for a
//! while after it, from beyond the pods of this node. So ports alone open no pod that has not asked.

use super::NODE;
use crate::{Address, Flow, FragmentKey, Hook, PortPair, Tables, Timeout, Tuple, protocol::number};

/// A host without an address asks everyone on its link, or one whose address is to run on (RFC 2131, 4.3.2:
/// "rebinding"). DHCPv6 always speaks from the link's address. `ifindex` is the asking pod's veth.
#[inline(always)]
pub(super) fn is_dhcp_request<T: Tables>(tuple: &Tuple, ifindex: u32, tables: &T) -> bool {
    match (tuple.protocol, tuple.source_port, tuple.destination_port) {
        (number::UDP, 68, 67) if tuple.destination == BROADCAST => {
            tuple.source.is_unspecified() || tables.owner(&tuple.source) == Some(ifindex)
        }
        (number::UDP, 546, 547) => tuple.source.is_link_local_v6() && tuple.destination == DHCPV6_SERVERS,
        _ => false,
    }
}

/// An answer to everyone, to an address that no one has yet, or to this pod, which has asked. It comes from
/// no other pod of this node.
#[inline(always)]
pub(super) fn is_dhcp_reply<T: Tables>(tuple: &Tuple, hook: &Hook, tables: &T) -> bool {
    match (tuple.protocol, tuple.source_port, tuple.destination_port) {
        (number::UDP, 67, 68) if tuple.destination.is_v4() => {}
        (number::UDP, 547, 546)
            if tuple.source.is_link_local_v6() && tuple.destination.is_link_local_v6() => {}
        _ => return false,
    }
    answers(tuple, hook, tables)
}

/// A function of its own in the kernel too: nearly nothing needs it.
#[inline(never)]
fn answers<T: Tables>(tuple: &Tuple, hook: &Hook, tables: &T) -> bool {
    // Devices that are no pod's have no entry, and a veth that is held opens nothing.
    let from_beyond = hook.ingress_ifindex != NODE
        && hook.ingress_ifindex != Flow::UNKNOWN_INGRESS
        && tables.endpoint(hook.ingress_ifindex).is_pending();
    let to_another = tables.owner(&tuple.destination).is_some_and(|owner| owner != hook.ifindex);
    from_beyond && !to_another && {
        let asked = tables.fragment(&mark(tuple.destination.is_v4(), hook.ifindex));
        asked.is_some_and(|at| tables.now().wrapping_sub(ticks(at)) <= tables.timeout(Timeout::Unreplied))
    }
}

/// Remembers that the pod behind this veth has asked, and when.
#[inline(never)]
pub(super) fn note_request<T: Tables>(tuple: &Tuple, ifindex: u32, tables: &T) {
    let now = tables.now();
    #[expect(clippy::cast_possible_truncation, reason = "the halves of a word")]
    let at = PortPair { source: (now >> 16) as u16, destination: now as u16 };
    tables.put_fragment(&mark(tuple.source.is_v4(), ifindex), at, ifindex);
}

/// When a mark was made.
const fn ticks(PortPair { source, destination }: PortPair) -> u32 {
    (source as u32) << 16 | destination as u32
}

/// Stands for the requests of one veth: all pods ask with the same addresses and ports. No packet has such a
/// protocol.
#[inline(always)]
fn mark(v4: bool, ifindex: u32) -> FragmentKey {
    let (source, destination) =
        if v4 { (Address::from_v4([0; 4]), BROADCAST) } else { (Address::UNSPECIFIED, DHCPV6_SERVERS) };
    FragmentKey { source, destination, id: ifindex, protocol: FragmentKey::MARK | number::UDP }
}

/// `255.255.255.255`
const BROADCAST: Address = Address::from_v4([255; 4]);

/// `ff02::1:2`, all DHCPv6 relay agents and servers.
const DHCPV6_SERVERS: Address = Address::from_v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2]);
