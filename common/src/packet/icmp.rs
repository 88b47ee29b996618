//! ICMP (RFC 792) and ICMPv6 (RFC 4443): errors speak of the packet that they quote.
//!
//! Each belongs to its own version of IP: ICMPv6 in an IPv4 packet is a protocol like any other, and so the
//! reverse.

use super::{Headers, Packet, PacketKind, forget, ipv4, ipv6, ports};
use crate::{
    Address,
    protocol::{icmp as message, number},
};

/// Bytes before the quoted packet.
const HEADER: usize = 8;

/// The version of IP that a packet came by.
#[derive(Clone, Copy)]
pub(super) enum IpVersion {
    V4,
    V6,
}

pub(super) enum Class {
    Error,
    /// Neighbour discovery with its router messages, multicast listener discovery.
    Neighbour,
    Other,
}

impl IpVersion {
    #[inline(always)]
    pub(super) const fn protocol(self) -> u32 {
        match self {
            Self::V4 => number::ICMP,
            Self::V6 => number::ICMPV6,
        }
    }

    #[inline(always)]
    pub(super) const fn echo_request(self) -> u8 {
        match self {
            Self::V4 => message::ECHO_REQUEST_V4,
            Self::V6 => message::ECHO_REQUEST_V6,
        }
    }

    #[inline(always)]
    pub(super) const fn echo_reply(self) -> u8 {
        match self {
            Self::V4 => message::ECHO_REPLY_V4,
            Self::V6 => message::ECHO_REPLY_V6,
        }
    }

    /// The ports of a message that is no echo.
    #[inline(always)]
    pub(super) const fn ports(self, kind: u8, code: u8) -> (u16, u16) {
        message::ports(matches!(self, Self::V4), kind, code)
    }

    #[inline(always)]
    pub(super) const fn class(self, kind: u8) -> Class {
        match (self, kind) {
            // Destination unreachable, source quench, time exceeded, parameter problem.
            (Self::V4, 3 | 4 | 11 | 12) => Class::Error,
            // Destination unreachable, packet too big, time exceeded, parameter problem.
            (Self::V6, 1..=4) => Class::Error,
            (Self::V6, 130..=137 | 143) => Class::Neighbour,
            _ => Class::Other,
        }
    }
}

/// Replaces the tuple by that of the quoted packet, of which at least 8 bytes after the IP header are there.
///
/// An error that goes to another than the quoted packet's sender is unreadable: it speaks of nothing of
/// his.
#[inline(always)]
pub(super) fn error(
    packet: &impl Packet,
    offset: usize,
    version: IpVersion,
    headers: &mut Headers,
) -> Option<PacketKind> {
    let receiver = headers.tuple.destination;
    let kind = quoted(packet, offset, version, receiver, headers);
    if kind.is_none() {
        headers.tuple.destination = receiver;
    }
    kind
}

#[inline(always)]
fn quoted(
    packet: &impl Packet,
    offset: usize,
    version: IpVersion,
    receiver: Address,
    headers: &mut Headers,
) -> Option<PacketKind> {
    match version {
        IpVersion::V4 => ipv4::header(packet, offset + HEADER, headers)?,
        IpVersion::V6 => ipv6::header(packet, offset + HEADER, headers)?,
    }
    let payload = forget(&headers.payload);
    if payload.fragment_offset != 0 || headers.tuple.source != receiver {
        return None;
    }
    ports(packet, payload.offset, payload.end, version, &mut headers.tuple)?;
    Some(PacketKind::Related)
}
