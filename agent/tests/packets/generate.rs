//! Random clusters and packets. Few hosts, ports and blocks, so that packets meet rules and each other.

mod clusters;
mod neighbours;
mod packets;

pub(crate) use clusters::{clusters, worlds};
pub(crate) use packets::{At, least_length, steps};

/// Ports that rules name, and their neighbours. 8080 and 8081 are named ports.
pub(crate) const PORTS: [u16; 12] = [0, 22, 53, 79, 80, 81, 100, 8080, 8081, 9000, 40_000, 65_535];

/// Addresses in and around the blocks, of no one that the world knows.
pub(crate) const STRANGERS: [&str; 10] = [
    "10.1.0.3",
    "10.1.0.4",
    "10.255.0.1",
    "192.0.2.2",
    "203.0.113.9",
    "fd00:1::3",
    "fd00:3::1",
    "2001:db8::2",
    "2001:dead::1",
    "e000::1",
];
