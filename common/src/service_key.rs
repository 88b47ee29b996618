//! Under what a service stands in the tables.

use crate::{Address, Protocol};

/// What is behind a service's address and port, or a node port (then the address is the unspecified one).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    pub address: Address,
    pub port: u16,
    /// IP protocol number.
    pub protocol: u16,
}

impl ServiceKey {
    #[inline(always)]
    pub const fn new(address: Address, protocol: Protocol, port: u16) -> Self {
        Self { address, port, protocol: protocol as u16 }
    }

    /// The two keys under which a service that leads to a tunnel may stand: an address that it claims with
    /// the port, its own one with all.
    #[inline(always)]
    pub const fn of_tunnel(address: Address, port: u16) -> [Self; 2] {
        [Self::new(address, Protocol::Udp, port), Self::of_all_ports(address)]
    }

    /// An address and UDP port that lead to no tunnel, whatever the filter says: a service's own.
    #[inline(always)]
    pub const fn of_no_tunnel(address: Address, port: u16) -> Self {
        Self { address, port, protocol: 0 }
    }

    /// All UDP ports of a service's address.
    #[inline(always)]
    pub const fn of_all_ports(address: Address) -> Self {
        Self::new(address, Protocol::Udp, 0)
    }

    /// All ports of a service's address, of all protocols.
    #[inline(always)]
    pub const fn of_address(address: Address) -> Self {
        Self { address, port: 0, protocol: 0 }
    }

    /// Any port of any address in the filter: where the services stand that are over the limit of their
    /// namespace. What is listed counts first.
    pub const FILTERED: Self = Self::of_address(Address::UNSPECIFIED);

    /// Whether it is [`Self::FILTERED`].
    pub const fn is_filtered(&self) -> bool {
        self.protocol == 0
    }
}
