//! What neighbours say to each other, as hosts send it: ARP, neighbour discovery, multicast listener
//! discovery.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::{vec, vec::Vec};

use super::{Extension, Frame, ethernet};
use crate::protocol::number;

/// The link-layer address that all frames come from.
pub const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// An ARP frame without padding (1: request, 2: reply).
pub fn arp(operation: u8, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet([0x08, 0x06]);
    frame.extend([0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend(MAC);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

/// A message of neighbour discovery; `body` is what comes after the checksum.
pub fn neighbour(source: IpAddr, destination: IpAddr, kind: u8, body: &[u8]) -> Frame {
    let message = [&[kind, 0, 0, 0], body].concat();
    Frame::ip(source, destination, number::ICMPV6, message).with_hop_limit(255)
}

/// A message of multicast listener discovery, behind a router alert.
pub fn listeners(source: IpAddr, destination: IpAddr, kind: u8, body: &[u8]) -> Frame {
    neighbour(source, destination, kind, body).with_hop_limit(1).with_extensions(&[Extension::RouterAlert])
}

/// A link-layer address as an option (1: of the sender, 2: of the target).
pub fn link_layer(option: u8, mac: [u8; 6]) -> Vec<u8> {
    [&[option, 1], &mac[..]].concat()
}

/// Where a host is asked for its link-layer address.
pub fn solicited_node(target: IpAddr) -> IpAddr {
    let IpAddr::V6(target) = target else { panic!("{target} is asked for by ARP") };
    let [.., a, b, c] = target.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]).into()
}

impl Frame {
    /// Asks for the link-layer address of `target`; from `::`, whether any host has that address.
    pub fn solicitation(source: IpAddr, destination: IpAddr, target: IpAddr) -> Self {
        let mut body = spoken_of(target);
        if !source.is_unspecified() {
            body.extend(link_layer(1, MAC));
        }
        neighbour(source, destination, 135, &body)
    }

    /// Says which link-layer address `target` has.
    pub fn advertisement(source: IpAddr, destination: IpAddr, target: IpAddr) -> Self {
        let mut body = spoken_of(target);
        body.extend(link_layer(2, MAC));
        neighbour(source, destination, 136, &body)
    }

    /// Which groups a host listens to (RFC 3810).
    pub fn listener_report(source: IpAddr, groups: &[Ipv6Addr]) -> Self {
        let destination = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16).into();
        let count = u8::try_from(groups.len()).expect("a test's report is short");
        let mut body = vec![0, 0, 0, count];
        for group in groups {
            // From now on all of it.
            body.extend([4, 0, 0, 0]);
            body.extend(group.octets());
        }
        listeners(source, destination, 143, &body)
    }
}

/// Reserved bits, then the target.
fn spoken_of(target: IpAddr) -> Vec<u8> {
    let IpAddr::V6(target) = target else { panic!("{target} is spoken of by ARP") };
    [&[0; 4], &target.octets()[..]].concat()
}
