//! What must work before a pod has its address: DHCP (RFC 2131) and DHCPv6 (RFC 8415).

use crate::{Address, Tuple, protocol::number};

/// A host without an address asks for one: DHCP (RFC 2131) from `0.0.0.0` to everyone, DHCPv6 (RFC 8415) from its link.
#[inline(always)]
pub(super) fn is_dhcp_request(tuple: &Tuple) -> bool {
    match (tuple.protocol, tuple.source_port, tuple.destination_port) {
        (number::UDP, 68, 67) => tuple.source.is_unspecified() && tuple.destination == BROADCAST,
        (number::UDP, 546, 547) => tuple.source.is_link_local_v6() && tuple.destination == DHCPV6_SERVERS,
        _ => false,
    }
}

/// The answer, to everyone or to an address that no pod has yet.
#[inline(always)]
pub(super) fn is_dhcp_reply(tuple: &Tuple) -> bool {
    match (tuple.protocol, tuple.source_port, tuple.destination_port) {
        (number::UDP, 67, 68) => true,
        (number::UDP, 547, 546) => tuple.source.is_link_local_v6() && tuple.destination.is_link_local_v6(),
        _ => false,
    }
}

/// `255.255.255.255`
const BROADCAST: Address = Address::from_v4([255; 4]);

/// `ff02::1:2`, all DHCPv6 relay agents and servers.
const DHCPV6_SERVERS: Address = Address::from_v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2]);
