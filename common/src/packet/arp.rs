//! ARP (RFC 826) for IPv4 over Ethernet: who speaks, and whether the frame holds anything besides.

use super::Packet;
use crate::{Address, Direction};

/// A frame is that long without padding.
const LENGTH: usize = 42;
/// The least that a network card sends (IEEE 802.3, without the check sequence): shorter frames are padded.
const PADDED: usize = 60;

/// Places in the frame.
const FORMAT: usize = 14;
const SOURCE_MAC: usize = 6;
const SENDER_MAC: usize = 22;
const SENDER: usize = 28;

/// What is read of an ARP frame.
pub(crate) struct Arp {
    /// Whose address the frame binds to a link-layer address; of what no receiver would take for that,
    /// `0.0.0.0`.
    pub(crate) sender: Address,
    /// A request or reply and nothing else.
    pub(crate) is_whole: bool,
}

/// Reads a frame that is said to be ARP; `direction`: a pod's own stack pads nothing, and speaks for its own
/// device alone.
#[inline(always)]
pub(crate) fn read(packet: &impl Packet, direction: Direction) -> Option<Arp> {
    let [hardware @ .., hardware_length, protocol_length, operation_high, operation] =
        packet.read::<8>(FORMAT)?;
    // Linux takes other types of hardware and protocol for these (`arp_rcv`, `arp_process` in
    // net/ipv4/arp.c), but not other lengths.
    if hardware_length != 6 || protocol_length != 4 {
        return Some(Arp { sender: Address::from_v4([0; 4]), is_whole: false });
    }
    let sender = Address::from_v4(packet.read::<4>(SENDER)?);
    let is_request = operation == 1;
    let is_known = hardware == [0, 1, 8, 0] && operation_high == 0 && (is_request || operation == 2);
    // A probe asks in no one's name (RFC 5227).
    let has_sender = is_request || !sender.is_unspecified();
    let length = match direction {
        Direction::Egress => LENGTH,
        Direction::Ingress => PADDED,
    };
    // Two bytes are the least that can be read: the first one is the last of the frame.
    let is_all = packet.read::<2>(LENGTH - 2).is_some() && packet.read::<2>(length - 1).is_none();
    let is_own_device = matches!(direction, Direction::Ingress)
        || packet.read::<6>(SENDER_MAC)? == packet.read::<6>(SOURCE_MAC)?;
    Some(Arp { sender, is_whole: is_known && has_sender && is_all && is_own_device })
}
