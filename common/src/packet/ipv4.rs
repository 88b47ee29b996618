//! IPv4 (RFC 791): header with options, and fragments.

use super::{Headers, Packet, Payload};
use crate::Address;

/// Reads the header at `offset` into `headers`; the ports are not known yet.
#[inline(always)]
pub(super) fn header(packet: &impl Packet, offset: usize, headers: &mut Headers) -> Option<()> {
    let [version_length, _, total_high, total_low, id_high, id_low, fragment_high, fragment_low] =
        packet.read::<8>(offset)?;
    let length = usize::from(version_length & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([total_high, total_low]));
    // A total length of 0 is what GSO leaves in packets over 64 KiB ("BIG TCP").
    if version_length >> 4 != 4 || length < 20 || (total != 0 && total < length) {
        return None;
    }
    let [_, protocol] = packet.read::<2>(offset + 8)?;
    headers.tuple.source = Address::from_v4(packet.read::<4>(offset + 12)?);
    headers.tuple.destination = Address::from_v4(packet.read::<4>(offset + 16)?);
    headers.tuple.source_port = 0;
    headers.tuple.destination_port = 0;
    headers.tuple.protocol = u32::from(protocol);
    headers.datagram = u32::from(u16::from_be_bytes([id_high, id_low]));
    let fragment = u32::from(u16::from_be_bytes([fragment_high, fragment_low]));
    headers.payload = Payload {
        offset: offset + length,
        fragment_offset: fragment & 0x1fff,
        more_fragments: fragment >> 13 & 1,
    };
    Some(())
}
