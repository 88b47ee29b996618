//! The lab's address plan: every interface has one IPv4 and one IPv6 address that end in the same number.
//!
//! | where | IPv4 | IPv6 |
//! |---|---|---|
//! | the wire: node N, outside hosts | 10.10.0.10+N, 10.10.0.100+ | fd00:10::10+N, fd00:10::100+ |
//! | pods of node N | 10.244.N.0/24 | fd00:244:N::/64 |
//! | services | 10.96.0.0/24 | fd00:96::/64 |

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Result, bail};

use super::{FIRST_NODE, FIRST_OUTSIDE};

/// The two addresses of one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

impl Addresses {
    /// Member `number` of the wire.
    pub(crate) fn on_wire(number: u8) -> Self {
        Self {
            v4: Ipv4Addr::new(10, 10, 0, number),
            v6: Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, hex_as_decimal(number)),
        }
    }

    /// Node `number` of a lab, from 1.
    pub fn of_node(number: u8) -> Self {
        Self::on_wire(FIRST_NODE - 1 + number)
    }

    /// Outside host `number` of a lab, from 0.
    pub fn of_outside(number: u8) -> Self {
        Self::on_wire(FIRST_OUTSIDE + number)
    }

    /// Pod `number` of the node `node`; number 1 is the gateway of a bridge.
    pub(super) fn of_pod(node: u8, number: u8) -> Self {
        Self {
            v4: Ipv4Addr::new(10, 244, node, number),
            v6: Ipv6Addr::new(0xfd00, 0x244, hex_as_decimal(node), 0, 0, 0, 0, hex_as_decimal(number)),
        }
    }

    /// Service `number`.
    pub(super) fn of_service(number: u8) -> Self {
        Self {
            v4: Ipv4Addr::new(10, 96, 0, number),
            v6: Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, hex_as_decimal(number)),
        }
    }

    /// One of each family.
    pub fn of(both: [IpAddr; 2]) -> Result<Self> {
        match both {
            [IpAddr::V4(v4), IpAddr::V6(v6)] => Ok(Self { v4, v6 }),
            other => bail!("not one address of each family: {other:?}"),
        }
    }

    pub fn both(self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    /// `ip` lines that give a device these addresses, with networks of their own.
    pub fn on(self, device: &str) -> String {
        format!("addr add {}/32 dev {device}\naddr add {}/128 dev {device} nodad\n", self.v4, self.v6)
    }

    /// The same in networks of 24 and 64 bits.
    pub(super) fn in_network(self, device: &str) -> String {
        format!("addr add {}/24 dev {device}\naddr add {}/64 dev {device} nodad\n", self.v4, self.v6)
    }

    /// `ip` lines that lead to these addresses.
    pub fn via(self, gateway: Self) -> String {
        format!("route add {} via {}\nroute add {} via {}\n", self.v4, gateway.v4, self.v6, gateway.v6)
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.v4, self.v6)
    }
}

/// `podCIDRs` of a node.
pub(crate) fn pod_networks(node: u8) -> [String; 2] {
    [format!("10.244.{node}.0/24"), format!("fd00:244:{node}::/64")]
}

/// A fixed link-layer address, so that neighbours can be written down instead of looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mac([u8; 6]);

impl Mac {
    /// The pod's end of its veth.
    pub(super) fn of_pod(node: u8, number: u8) -> Self {
        Self::new(0, node, number)
    }

    /// The node's end of a pod's veth.
    pub(super) fn of_host(node: u8, number: u8) -> Self {
        Self::new(1, node, number)
    }

    /// A member of the wire.
    pub(super) fn of_member(number: u8) -> Self {
        Self::new(2, 0, number)
    }

    /// The wire's end of a member's link.
    pub(super) fn of_port(number: u8) -> Self {
        Self::new(3, 0, number)
    }

    fn new(side: u8, node: u8, number: u8) -> Self {
        // 0x02: locally administered, unicast.
        Self([0x02, 0x90, side, 0, node, number])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// 42 becomes 0x42, so that the printed IPv6 address ends in the digits of the IPv4 address.
fn hex_as_decimal(number: u8) -> u16 {
    let [hundreds, tens, ones] = [number / 100, number / 10 % 10, number % 10].map(u16::from);
    hundreds << 8 | tens << 4 | ones
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_addresses_of_an_interface_end_in_the_same_digits() {
        assert_eq!(Addresses::on_wire(11).to_string(), "10.10.0.11, fd00:10::11");
        assert_eq!(Addresses::on_wire(100).to_string(), "10.10.0.100, fd00:10::100");
        assert_eq!(Addresses::of_pod(2, 37).to_string(), "10.244.2.37, fd00:244:2::37");
    }
}
