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
        }
    }
}
