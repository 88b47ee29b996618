//! Crafted Ethernet frames for tests and fuzzers: well-formed ones, and those that only an attacker sends.
//!
//! Transport checksums stay 0: nothing here looks at them. Compiled with the feature `frames` alone, never
//! for the kernel.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::{vec, vec::Vec};

use crate::protocol::number;

pub mod dns;
mod neighbours;

pub use crate::packet::crafted::BareIp;
pub use neighbours::{MAC, arp, link_layer, listeners, neighbour, solicited_node};

/// TCP flags.
pub mod flag {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
}

/// An address and a port.
pub type SocketEndpoint = (IpAddr, u16);

/// An IP packet in an Ethernet frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// IP protocol number of the payload.
    pub protocol: u8,
    /// Transport header and data.
    pub payload: Vec<u8>,
    /// 4-byte words of IPv4 options; 0 to 10.
    pub options: u8,
    /// IPv6 extension headers, first one first.
    pub extensions: Vec<Extension>,
    /// IPv4: which part of a datagram it is.
    pub fragment: Option<Fragment>,
    /// What stands in the length field of the IP header, when it is not the truth.
    pub claimed_length: Option<u16>,
    pub hop_limit: u8,
}

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// IPv4 has room for the lower half.
    pub id: u32,
    /// In 8-byte units.
    pub offset: u16,
    pub more: bool,
}

/// An IPv6 extension header. The number is its length field: 8-byte units (4-byte units less one in the
/// authentication header) after the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    HopByHop(u8),
    /// A hop-by-hop header of 8 bytes with this one option (RFC 2711).
    RouterAlert,
    Routing(u8),
    Destination(u8),
    Authentication(u8),
    Fragment(Fragment),
}

impl Frame {
    /// A packet of any protocol.
    pub fn ip(source: IpAddr, destination: IpAddr, protocol: u32, payload: Vec<u8>) -> Self {
        Self {
            source,
            destination,
            protocol: u8::try_from(protocol).expect("IP protocol numbers have 8 bits"),
            payload,
            options: 0,
            extensions: Vec::new(),
            fragment: None,
            claimed_length: None,
            hop_limit: 64,
        }
    }

    /// A TCP segment without data.
    pub fn tcp(from: SocketEndpoint, to: SocketEndpoint, flags: u8) -> Self {
        let mut header = vec![0; 20];
        header[..2].copy_from_slice(&from.1.to_be_bytes());
        header[2..4].copy_from_slice(&to.1.to_be_bytes());
        header[12] = 5 << 4;
        header[13] = flags;
        Self::ip(from.0, to.0, number::TCP, header)
    }

    /// A UDP datagram with some bytes of data.
    pub fn udp(from: SocketEndpoint, to: SocketEndpoint, data: usize) -> Self {
        let length = u16::try_from(8 + data).expect("a datagram has less than 64 KiB");
        let mut header = [from.1.to_be_bytes(), to.1.to_be_bytes(), length.to_be_bytes(), [0; 2]].concat();
        header.resize(8 + data, 0x5a);
        Self::ip(from.0, to.0, number::UDP, header)
    }

    /// An SCTP packet with one chunk of this type (1: INIT, 2: INIT ACK).
    pub fn sctp(from: SocketEndpoint, to: SocketEndpoint, chunk: u8) -> Self {
        let mut packet = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
        packet.resize(12, 0);
        packet.extend([chunk, 0, 0, 20]);
        packet.resize(32, 0);
        Self::ip(from.0, to.0, number::SCTP, packet)
    }

    /// An echo request of the family's ICMP.
    pub fn echo_request(source: IpAddr, destination: IpAddr, id: u16) -> Self {
        Self::icmp(source, destination, if source.is_ipv4() { 8 } else { 128 }, id)
    }

    pub fn echo_reply(source: IpAddr, destination: IpAddr, id: u16) -> Self {
        Self::icmp(source, destination, if source.is_ipv4() { 0 } else { 129 }, id)
    }

    /// A message of the family's ICMP; `id` stands where an echo has its identifier.
    pub fn icmp(source: IpAddr, destination: IpAddr, kind: u8, id: u16) -> Self {
        let [high, low] = id.to_be_bytes();
        let mut message = vec![kind, 0, 0, 0, high, low, 0, 1];
        message.resize(32, 0x5a);
        let protocol = if source.is_ipv4() { number::ICMP } else { number::ICMPV6 };
        Self::ip(source, destination, protocol, message)
    }

    /// "Port unreachable" about a packet, to the one who sent it. Quotes no more than a router does (RFC
    /// 1812, 4.3.2.3).
    pub fn unreachable(by: IpAddr, quoted: &Self) -> Self {
        let mut error = Self::icmp(by, quoted.source, if by.is_ipv4() { 3 } else { 1 }, 0);
        error.payload.truncate(8);
        error.payload.extend(quoted.bytes()[ETHERNET_HEADER..].iter().take(548));
        error
    }

    /// What the other side would send: addresses, ports and the two kinds of echo change places, and an INIT
    /// is acknowledged.
    #[must_use]
    pub fn reversed(&self) -> Self {
        let mut answer = Self { source: self.destination, destination: self.source, ..self.clone() };
        let has_ports = matches!(u32::from(self.protocol), number::TCP | number::UDP | number::SCTP);
        match answer.payload.get_mut(..4) {
            Some(ports) if has_ports => ports.rotate_left(2),
            Some([kind, ..]) => {
                *kind = match (u32::from(self.protocol), *kind) {
                    (number::ICMP, 8) => 0,
                    (number::ICMP, 0) => 8,
                    (number::ICMPV6, 128) => 129,
                    (number::ICMPV6, 129) => 128,
                    (_, kind) => kind,
                }
            }
            _ => {}
        }
        if let (number::SCTP, Some(chunk @ 1)) = (u32::from(self.protocol), answer.payload.get_mut(12)) {
            *chunk = 2;
        }
        answer
    }

    /// The packet with an 802.1Q tag before it.
    pub fn in_vlan(&self) -> Vec<u8> {
        let bytes = self.bytes();
        [&bytes[..12], &[0x81, 0, 0, 7], &bytes[12..]].concat()
    }

    #[must_use]
    pub fn with_options(self, words: u8) -> Self {
        Self { options: words, ..self }
    }

    #[must_use]
    pub fn with_extensions(self, extensions: &[Extension]) -> Self {
        Self { extensions: extensions.to_vec(), ..self }
    }

    /// Marks the packet as a part of a datagram, whatever it holds.
    #[must_use]
    pub fn as_fragment(mut self, fragment: Fragment) -> Self {
        if self.source.is_ipv4() {
            self.fragment = Some(fragment);
        } else {
            self.extensions.push(Extension::Fragment(fragment));
        }
        self
    }

    /// The datagram in parts of so many 8-byte units, first one first.
    pub fn fragments(&self, id: u32, units: u16) -> Vec<Self> {
        let size = 8 * usize::from(units);
        let last = self.payload.len().div_ceil(size) - 1;
        let parts = self.payload.chunks(size).zip(0_u16..);
        parts
            .map(|(part, at)| {
                let part = Self { payload: part.to_vec(), ..self.clone() };
                part.as_fragment(Fragment { id, offset: at * units, more: usize::from(at) < last })
            })
            .collect()
    }

    #[must_use]
    pub fn with_hop_limit(self, hop_limit: u8) -> Self {
        Self { hop_limit, ..self }
    }

    #[must_use]
    pub fn with_claimed_length(self, length: u16) -> Self {
        Self { claimed_length: Some(length), ..self }
    }

    /// The frame as it is on the wire, from the Ethernet header on.
    ///
    /// # Panics
    ///
    /// When source and destination are of two families, or the packet is larger than 64 KiB.
    pub fn bytes(&self) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => self.v4(source, destination),
            (IpAddr::V6(source), IpAddr::V6(destination)) => self.v6(source, destination),
            _ => panic!("{} and {} are of two families", self.source, self.destination),
        }
    }

    fn v4(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
        let header = 20 + 4 * self.options;
        let truth = length(usize::from(header) + self.payload.len());
        let [total_high, total_low] = self.claimed_length.unwrap_or(truth).to_be_bytes();
        let (id, field) =
            self.fragment.map_or((0, 0), |part| (part.id, part.offset & 0x1fff | u16::from(part.more) << 13));
        let ([.., id_high, id_low], [field_high, field_low]) = (id.to_be_bytes(), field.to_be_bytes());
        let mut ip =
            vec![0x40 + header / 4, 0, total_high, total_low, id_high, id_low, field_high, field_low];
        ip.extend([self.hop_limit, self.protocol, 0, 0]);
        ip.extend(source.octets());
        ip.extend(destination.octets());
        // "No operation".
        ip.resize(usize::from(header), 1);
        let checksum = checksum(&ip);
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        [ethernet([0x08, 0x00]), ip, self.payload.clone()].concat()
    }

    fn v6(&self, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
        let after = self.extensions.iter().skip(1).map(|extension| extension.number());
        let next_headers = after.chain([self.protocol]);
        let chain: Vec<u8> = self
            .extensions
            .iter()
            .zip(next_headers)
            .flat_map(|(extension, next)| extension.bytes(next))
            .collect();
        let first = self.extensions.first().map_or(self.protocol, |extension| extension.number());
        let truth = length(chain.len() + self.payload.len());
        let [length_high, length_low] = self.claimed_length.unwrap_or(truth).to_be_bytes();
        let mut ip = vec![0x60, 0, 0, 0, length_high, length_low, first, self.hop_limit];
        ip.extend(source.octets());
        ip.extend(destination.octets());
        [ethernet([0x86, 0xdd]), ip, chain, self.payload.clone()].concat()
    }
}

impl Extension {
    fn number(self) -> u8 {
        let number = match self {
            Self::HopByHop(_) | Self::RouterAlert => number::HOP_BY_HOP,
            Self::Routing(_) => number::ROUTING,
            Self::Destination(_) => number::DESTINATION_OPTIONS,
            Self::Authentication(_) => number::AUTHENTICATION,
            Self::Fragment(_) => number::FRAGMENT,
        };
        u8::try_from(number).expect("IP protocol numbers have 8 bits")
    }

    fn bytes(self, next: u8) -> Vec<u8> {
        let (length, size) = match self {
            Self::HopByHop(length) | Self::Destination(length) => {
                // One option of padding over all of it.
                let size = 8 * (usize::from(length) + 1);
                let mut bytes = vec![next, length, 1, u8::try_from(size - 4).unwrap_or(u8::MAX)];
                bytes.resize(size, 0);
                return bytes;
            }
            Self::RouterAlert => return vec![next, 0, 5, 2, 0, 0, 1, 0],
            Self::Routing(length) => (length, 8 * (usize::from(length) + 1)),
            Self::Authentication(length) => (length, 4 * (usize::from(length) + 2)),
            Self::Fragment(Fragment { id, offset, more }) => {
                let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
                return [&[next, 0, high, low], &id.to_be_bytes()[..]].concat();
            }
        };
        let mut bytes = vec![next, length];
        bytes.resize(size, 0);
        bytes
    }
}

const ETHERNET_HEADER: usize = 14;

/// Header with two addresses of local administration.
fn ethernet(kind: [u8; 2]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 1], &MAC[..], &kind[..]].concat()
}

fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).expect("a packet has less than 64 KiB")
}

/// The internet checksum (RFC 1071).
fn checksum(header: &[u8]) -> u16 {
    let (words, _) = header.as_chunks();
    words.iter().fold(u16::MAX, |rest, word| {
        let (sum, carry) = (!rest).overflowing_add(u16::from_be_bytes(*word));
        !(sum + u16::from(carry))
    })
}
