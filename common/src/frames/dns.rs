//! Replies of resolvers (RFC 1035, 4.1).

use core::net::IpAddr;
use std::{vec, vec::Vec};

use super::{Frame, SocketEndpoint};

/// A name as it stands in messages.
///
/// # Panics
///
/// When a label has more than 255 bytes.
pub fn labels(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let mut bytes: Vec<u8> = labels
        .flat_map(|label| [&[u8::try_from(label.len()).expect("a label")], label.as_bytes()].concat())
        .collect();
    bytes.push(0);
    bytes
}

/// A reply to a question for addresses of one family.
///
/// # Panics
///
/// When there are more than 65,535 addresses.
pub fn reply(name: &str, addresses: &[IpAddr]) -> Vec<u8> {
    let kind = if addresses.first().is_some_and(IpAddr::is_ipv6) { 28 } else { 1 };
    let [high, low] = u16::try_from(addresses.len()).expect("few").to_be_bytes();
    let mut bytes = vec![0x12, 0x34, 0x81, 0x80, 0, 1, high, low, 0, 0, 0, 0];
    bytes.extend(labels(name));
    bytes.extend([0, kind, 0, 1]);
    for address in addresses {
        let data = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        bytes.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 30, 0]);
        bytes.push(u8::try_from(data.len()).expect("an address"));
        bytes.extend(data);
    }
    bytes
}

/// A message over UDP.
pub fn datagram(from: SocketEndpoint, to: SocketEndpoint, message: &[u8]) -> Frame {
    let mut frame = Frame::udp(from, to, message.len());
    frame.payload[8..].copy_from_slice(message);
    frame
}
