//! IPv4 packets that are sent whole, so that one socket can speak for many flows.
//!
//! In: addresses and ports. Out: bytes. The kernel fills in the checksum of the IP header and its
//! identification (raw(7)). Left out: receiving them.

use std::net::Ipv4Addr;

/// Bytes of an IPv4 header without options.
const IP: usize = 20;
const UDP: u8 = 17;
const TCP: u8 = 6;
/// A UDP header and one byte.
const UDP_PACKET: usize = IP + 9;
const TCP_PACKET: usize = IP + 20;

/// A datagram of one byte, from a port that is set later. It has no checksum, as RFC 768 allows.
pub(super) fn udp(from: Ipv4Addr, to: Ipv4Addr, port: u16) -> [u8; UDP_PACKET] {
    let mut packet = with_header(from, to, UDP);
    packet[IP + 2..IP + 4].copy_from_slice(&port.to_be_bytes());
    packet[IP + 5] = 9;
    packet
}

/// Replaces the source port of a datagram.
pub(super) fn set_source(packet: &mut [u8; UDP_PACKET], port: u16) {
    packet[IP..IP + 2].copy_from_slice(&port.to_be_bytes());
}

/// The first packet of a TCP connection.
pub(super) fn syn(from: Ipv4Addr, to: Ipv4Addr, source: u16, destination: u16) -> [u8; TCP_PACKET] {
    let mut packet: [u8; TCP_PACKET] = with_header(from, to, TCP);
    packet[IP..IP + 2].copy_from_slice(&source.to_be_bytes());
    packet[IP + 2..IP + 4].copy_from_slice(&destination.to_be_bytes());
    // The header's length in words, the flag SYN, a window.
    packet[IP + 12..IP + 16].copy_from_slice(&[5 << 4, 0x02, 0xff, 0xff]);
    let checksum = tcp_checksum(from, to, &packet[IP..]);
    packet[IP + 16..IP + 18].copy_from_slice(&checksum.to_be_bytes());
    packet
}

fn with_header<const N: usize>(from: Ipv4Addr, to: Ipv4Addr, protocol: u8) -> [u8; N] {
    let mut packet = [0; N];
    let length = u16::try_from(N).expect("a short packet");
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[8] = 64;
    packet[9] = protocol;
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&to.octets());
    packet
}

/// Over the pseudo header and the segment (RFC 9293, 3.1). Connection tracking calls a wrong one invalid.
fn tcp_checksum(from: Ipv4Addr, to: Ipv4Addr, segment: &[u8]) -> u16 {
    let length = u16::try_from(segment.len()).expect("a short segment");
    let pseudo = [from.octets(), to.octets(), [0, TCP, length.to_be_bytes()[0], length.to_be_bytes()[1]]];
    let words = pseudo.as_flattened().chunks(2).chain(segment.chunks(2));
    let sum = words.fold(0_u32, |sum, word| {
        sum + u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]))
    });
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).expect("folded to 16 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 11);
    const TO: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 12);

    #[test]
    fn a_segment_with_its_checksum_sums_up_to_nothing() {
        for source in [1_024, 40_000, 65_535] {
            let packet = syn(FROM, TO, source, 8_001);
            assert_eq!(tcp_checksum(FROM, TO, &packet[IP..]), 0, "{source}");
        }
    }

    #[test]
    fn a_datagram_says_its_lengths_and_ports() {
        let mut packet = udp(FROM, TO, 8_000);
        set_source(&mut packet, 1_025);
        assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
        assert_eq!(packet[IP..IP + 8], [4, 1, 0x1f, 0x40, 0, 9, 0, 0]);
    }
}
