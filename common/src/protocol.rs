//! Transport protocols that have ports, and the IP protocol numbers that the parser knows.

use core::fmt;

/// A protocol that a NetworkPolicy can name. The value is its IP protocol number.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp = 6,
    Udp = 17,
    Sctp = 132,
}

impl Protocol {
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// Its place in the port table.
    pub const fn index(self) -> u32 {
        match self {
            Self::Tcp => 0,
            Self::Udp => 1,
            Self::Sctp => 2,
        }
    }
}

impl TryFrom<u32> for Protocol {
    type Error = u32;

    #[inline(always)]
    fn try_from(number: u32) -> Result<Self, u32> {
        match number {
            6 => Ok(Self::Tcp),
            17 => Ok(Self::Udp),
            132 => Ok(Self::Sctp),
            other => Err(other),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// A protocol as rules distinguish it. Each has 65,536 places in the table of classes: ports, messages of
/// ICMP, or numbers of protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleProtocol {
    Tcp,
    Udp,
    Sctp,
    /// A place is a type times 256, and a code.
    Icmp,
    IcmpV6,
    /// All others: a place is the protocol's number.
    Other,
}

/// In place of a port: the other side's answer has the message's place there.
const ANSWERED: u16 = u16::MAX;
/// Between types of ICMP.
const TYPE: u16 = 1 << 8;

impl RuleProtocol {
    pub const ALL: [Self; 6] = [Self::Tcp, Self::Udp, Self::Sctp, Self::Icmp, Self::IcmpV6, Self::Other];

    /// Its place in the table of classes.
    pub const fn index(self) -> u32 {
        match self {
            Self::Tcp => Protocol::Tcp.index(),
            Self::Udp => Protocol::Udp.index(),
            Self::Sctp => Protocol::Sctp.index(),
            Self::Icmp => 3,
            Self::IcmpV6 => 4,
            Self::Other => 5,
        }
    }

    /// As a protocol with ports; `None`: it has none.
    pub const fn with_ports(self) -> Option<Protocol> {
        match self {
            Self::Tcp => Some(Protocol::Tcp),
            Self::Udp => Some(Protocol::Udp),
            Self::Sctp => Some(Protocol::Sctp),
            Self::Icmp | Self::IcmpV6 | Self::Other => None,
        }
    }

    /// The IP protocol number of what has this place.
    pub const fn number(self, place: u16) -> u32 {
        match self {
            Self::Tcp => number::TCP,
            Self::Udp => number::UDP,
            Self::Sctp => number::SCTP,
            Self::Icmp => number::ICMP,
            Self::IcmpV6 => number::ICMPV6,
            Self::Other => place as u32,
        }
    }

    /// What rules say of packets of an IP protocol, and the place of those with these ports as a
    /// [`Tuple`](crate::Tuple) has them.
    #[inline(always)]
    pub const fn of_packet(protocol: u32, source_port: u16, destination_port: u16) -> (Self, u16) {
        match protocol {
            number::TCP => (Self::Tcp, destination_port),
            number::UDP => (Self::Udp, destination_port),
            number::SCTP => (Self::Sctp, destination_port),
            other => Self::of_portless(other, source_port, destination_port),
        }
    }

    /// The same, of one that has no ports.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "IP protocol numbers have 8 bits")]
    pub(crate) const fn of_portless(protocol: u32, source_port: u16, destination_port: u16) -> (Self, u16) {
        let (of, echo_request) = match protocol {
            number::ICMP => (Self::Icmp, icmp::ECHO_REQUEST_V4),
            number::ICMPV6 => (Self::IcmpV6, icmp::ECHO_REQUEST_V6),
            other => return (Self::Other, other as u16),
        };
        let echo_reply = if matches!(of, Self::Icmp) { icmp::ECHO_REPLY_V4 } else { icmp::ECHO_REPLY_V6 };
        let place = match (source_port, destination_port) {
            (message, other) if message == other => message,
            (_, 0) => echo_request as u16 * TYPE,
            (0, _) => echo_reply as u16 * TYPE,
            (message, ANSWERED) => message,
            (_, message) => message.wrapping_add(TYPE),
        };
        (of, place)
    }
}

impl From<Protocol> for RuleProtocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
            Protocol::Sctp => Self::Sctp,
        }
    }
}

impl PartialEq<RuleProtocol> for Protocol {
    fn eq(&self, other: &RuleProtocol) -> bool {
        other.with_ports() == Some(*self)
    }
}

impl fmt::Display for RuleProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
            Self::Icmp => "ICMP",
            Self::IcmpV6 => "ICMPv6",
            Self::Other => "IP",
        })
    }
}

/// Messages of ICMP (RFC 792, RFC 950) and ICMPv6 (RFC 4443, RFC 4620, RFC 6275).
pub(crate) mod icmp {
    pub(crate) const ECHO_REQUEST_V4: u8 = 8;
    pub(crate) const ECHO_REPLY_V4: u8 = 0;
    pub(crate) const ECHO_REQUEST_V6: u8 = 128;
    pub(crate) const ECHO_REPLY_V6: u8 = 129;
    /// Requests for a timestamp, for information, for an address mask. The answer's type is the next one.
    const fn is_request(is_v4: bool, kind: u8) -> bool {
        // In ICMPv6: queries for information of a node, requests for the address of a home agent.
        if is_v4 { matches!(kind, 13 | 15 | 17) } else { matches!(kind, 139 | 144) }
    }

    /// The ports of a message that is no echo, as a [`Tuple`](crate::Tuple) has them. Different messages are
    /// different connections, and a request and its answer are one. No echo has such ports: one of its own
    /// is 0.
    #[inline(always)]
    pub(crate) const fn ports(is_v4: bool, kind: u8, code: u8) -> (u16, u16) {
        let message = u16::from_be_bytes([kind, code]);
        if is_request(is_v4, kind) {
            (message, super::ANSWERED)
        } else if is_request(is_v4, kind.wrapping_sub(1)) {
            (super::ANSWERED, message - super::TYPE)
        } else {
            (message, message)
        }
    }
}

/// IP protocol numbers (IANA) beside those of [`Protocol`].
pub(crate) mod number {
    pub(crate) const HOP_BY_HOP: u32 = 0;
    pub(crate) const ICMP: u32 = 1;
    pub(crate) const IPV4: u32 = 4;
    pub(crate) const TCP: u32 = 6;
    pub(crate) const UDP: u32 = 17;
    pub(crate) const IPV6: u32 = 41;
    pub(crate) const ROUTING: u32 = 43;
    pub(crate) const FRAGMENT: u32 = 44;
    pub(crate) const GRE: u32 = 47;
    pub(crate) const AUTHENTICATION: u32 = 51;
    pub(crate) const ICMPV6: u32 = 58;
    pub(crate) const DESTINATION_OPTIONS: u32 = 60;
    pub(crate) const L2TP: u32 = 115;
    pub(crate) const SCTP: u32 = 132;
    pub(crate) const MPLS: u32 = 137;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_three_protocols_with_ports_have_a_place_in_the_port_table() {
        for number in 0..1_000 {
            let expected = match number {
                number::TCP => Ok(Protocol::Tcp),
                number::UDP => Ok(Protocol::Udp),
                number::SCTP => Ok(Protocol::Sctp),
                other => Err(other),
            };
            assert_eq!(Protocol::try_from(number), expected);
        }
        for (place, protocol) in (0..).zip(Protocol::ALL) {
            assert_eq!(protocol.index(), place);
            assert_eq!(Protocol::try_from(protocol as u32), Ok(protocol));
            assert_eq!(RuleProtocol::from(protocol).with_ports(), Some(protocol));
        }
        for (place, protocol) in (0..).zip(RuleProtocol::ALL) {
            assert_eq!(protocol.index(), place);
        }
    }

    #[test]
    fn messages_of_icmp_have_ports_of_their_own_and_are_found_by_them() {
        for is_v4 in [true, false] {
            let of = if is_v4 { RuleProtocol::Icmp } else { RuleProtocol::IcmpV6 };
            let mut known = std::collections::HashMap::new();
            for message in 0..=u16::MAX {
                let [kind, code] = message.to_be_bytes();
                let (source, destination) = icmp::ports(is_v4, kind, code);
                assert_eq!(RuleProtocol::of_packet(of.number(0), source, destination), (of, message));
                assert_eq!(known.insert((source, destination), message), None, "{message:#x}");
                assert!((source == 0) == (destination == 0), "an echo's");
            }
            let echo =
                |source, destination| RuleProtocol::of_packet(of.number(0), source, destination).1 >> 8;
            let (request, reply) = if is_v4 { (8, 0) } else { (128, 129) };
            for id in 1..=u16::MAX {
                assert_eq!((echo(id, 0), echo(0, id)), (request, reply));
            }
            let (there, back) = if is_v4 { (13, 14) } else { (139, 140) };
            let (source, destination) = icmp::ports(is_v4, there, 7);
            assert_eq!(icmp::ports(is_v4, back, 7), (destination, source), "they are one connection");
        }
        assert_eq!(RuleProtocol::of_packet(47, 0, 0), (RuleProtocol::Other, 47));
        assert_eq!(RuleProtocol::of_packet(17, 9, 53), (RuleProtocol::Udp, 53));
    }
}
