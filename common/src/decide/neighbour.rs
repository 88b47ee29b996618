//! What hosts of one link say to each other: ARP, neighbour discovery, multicast listener discovery.
//!
//! No policy is asked about it, so nothing may pass as such a message but what it must be: whole and alone in
//! its frame, on the link, in the name of its sender. In another's name nothing passes at all; whatever else
//! is not as it should be is an ICMPv6 packet like any other.

use super::is_forged;
use crate::{
    Address, Direction, Endpoint, Headers, Hook, NODE, Outcome, Packet, Tables,
    packet::{
        arp,
        discovery::{self, Message, kind},
    },
};

/// An ICMPv6 packet of one of their types. `None`: it is evaluated by policy.
///
/// A function of its own in the kernel too: neighbours speak rarely.
#[inline(never)]
pub(super) fn discovery<T: Tables>(
    packet: &impl Packet,
    headers: &Headers,
    hook: &Hook,
    tables: &T,
) -> Option<Outcome> {
    let message = discovery::read(packet, headers, hook.direction)?;
    match hook.direction {
        Direction::Egress => {
            let endpoint = tables.endpoint(hook.ifindex);
            let is_own = |address: &Address| tables.is_own(address, &endpoint, hook.ifindex);
            let is_in_anothers_name = match message.kind {
                // No pod is a router of its link.
                kind::ROUTER_ADVERTISEMENT | kind::REDIRECT => true,
                kind::ADVERTISEMENT => !is_own(&message.target),
                _ => false,
            };
            if is_in_anothers_name {
                return Some(Outcome::Spoofed);
            }
            let passes = message.is_whole
                && is_addressed(&message, headers, &endpoint, tables)
                && (headers.tuple.source.is_unspecified() || is_own(&headers.tuple.source));
            passes.then_some(Outcome::Neighbour)
        }
        Direction::Ingress if hook.ingress_ifindex == NODE => message.is_whole.then_some(Outcome::Neighbour),
        Direction::Ingress => {
            if message.kind == kind::ADVERTISEMENT
                && speaks_for_another(&message.target, hook.ingress_ifindex, tables)
            {
                return Some(Outcome::Spoofed);
            }
            let source = &headers.tuple.source;
            let has_source = match message.kind {
                kind::ROUTER_SOLICITATION | kind::SOLICITATION | kind::ADVERTISEMENT => {
                    source.is_link_local_v6()
                        || source.is_unspecified() && is_solicited(&message, headers)
                        || !source.is_unspecified()
                            && !speaks_for_another(source, hook.ingress_ifindex, tables)
                }
                kind::ROUTER_ADVERTISEMENT | kind::REDIRECT | kind::LISTENER_QUERY => {
                    source.is_link_local_v6()
                }
                // What hosts tell routers of the groups that they listen to; other hosts need not hear it.
                _ => false,
            };
            (message.is_whole && has_source).then_some(Outcome::Neighbour)
        }
    }
}

/// A frame that is said to be ARP. `None`: it is none, and cannot be read as anything else.
#[inline(never)]
pub(super) fn arp<T: Tables>(packet: &impl Packet, hook: &Hook, tables: &T) -> Option<Outcome> {
    // Else the compiler has the caller read where the packet begins and ends, and hands over what the
    // verifier does not take.
    packet.pull();
    let arp = arp::read(packet, hook.direction)?;
    let is_probe = arp.sender.is_unspecified();
    let is_in_anothers_name = !is_probe
        && match hook.direction {
            Direction::Egress => !tables.is_own(&arp.sender, &tables.endpoint(hook.ifindex), hook.ifindex),
            Direction::Ingress => {
                hook.ingress_ifindex != NODE && speaks_for_another(&arp.sender, hook.ingress_ifindex, tables)
            }
        };
    if is_in_anothers_name {
        return Some(Outcome::Spoofed);
    }
    arp.is_whole.then_some(Outcome::Neighbour)
}

/// An address that the pod behind a veth may speak for: its own, or one of the link that no one else is known
/// to have. Of a pod that is not known yet, any that no one else is known to have.
///
/// Asked by way of [`Tables::is_own`].
#[inline(always)]
pub fn is_own<T: Tables>(address: &Address, endpoint: &Endpoint, ifindex: u32, tables: &T) -> bool {
    // Nearly always, and without a look-up.
    if endpoint.has(address) {
        return true;
    }
    match tables.owner(address) {
        Some(owner) => owner == ifindex,
        None => !endpoint.is_known() || address.is_link_local_v6(),
    }
}

/// The address of the node or of a pod, on what comes from elsewhere.
#[inline(always)]
fn speaks_for_another<T: Tables>(address: &Address, ingress_ifindex: u32, tables: &T) -> bool {
    !address.is_link_local_v6()
        && (tables.owner(address) == Some(NODE) || is_forged(address, ingress_ifindex, tables))
}

/// Whether a message of a pod goes where such a message goes, and no further than the link.
#[inline(always)]
fn is_addressed<T: Tables>(message: &Message, headers: &Headers, endpoint: &Endpoint, tables: &T) -> bool {
    let (source, destination) = (&headers.tuple.source, &headers.tuple.destination);
    let has_source = !source.is_unspecified();
    match message.kind {
        kind::ROUTER_SOLICITATION => *destination == ALL_ROUTERS,
        kind::SOLICITATION => {
            is_solicited(message, headers)
                || has_source
                    && *destination == message.target
                    && is_on_link(source, destination, endpoint, tables)
        }
        kind::ADVERTISEMENT => {
            has_source && (*destination == ALL_NODES || is_on_link(source, destination, endpoint, tables))
        }
        // To the group; by its hop limit it goes no further.
        kind::LISTENER_REPORT => is_listener(source) && destination.is_multicast_v6(),
        kind::LISTENER_DONE => is_listener(source) && *destination == ALL_ROUTERS,
        kind::LISTENER_REPORT_V2 => is_listener(source) && *destination == LISTENER_ROUTERS,
        // Queries, and whatever routers say.
        _ => false,
    }
}

/// RFC 3590: from `::` while the address is not known to be unique.
#[inline(always)]
const fn is_listener(source: &Address) -> bool {
    source.is_link_local_v6() || source.is_unspecified()
}

/// To the multicast address of the target (RFC 4291, 2.7.1), as one asks whose link-layer address is not
/// known.
#[inline(always)]
fn is_solicited(message: &Message, headers: &Headers) -> bool {
    message.kind == kind::SOLICITATION && headers.tuple.destination == message.target.solicited_node()
}

/// Whether a destination is on the pod's link beyond doubt, where no router takes the packet further: the
/// node, and on a bridge the other pods and whatever is under the same 64 bits.
#[inline(always)]
fn is_on_link<T: Tables>(source: &Address, destination: &Address, endpoint: &Endpoint, tables: &T) -> bool {
    if destination.is_link_local_v6() {
        return true;
    }
    match tables.owner(destination) {
        Some(owner) => owner == NODE || endpoint.master != 0,
        None => endpoint.master != 0 && source.has_prefix_of(*destination),
    }
}

/// `ff02::1`
const ALL_NODES: Address = Address::from_v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
/// `ff02::2`
const ALL_ROUTERS: Address = Address::from_v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
/// `ff02::16`
const LISTENER_ROUTERS: Address = Address::from_v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x16]);
