//! Both ends of a packet.

use crate::Address;

/// One direction of a connection: what stands in the packet.
///
/// `repr(C)` without padding. Ports are in host byte order, 0 for protocols without ports. An ICMP echo
/// carries its identifier as the source port of the request and as the destination port of the reply, so that
/// a request and its reply are one connection and a request of the other side is another. Its code does not
/// count, and the identifiers 0 and 1 are one. Other messages of ICMP have their type and code there
/// ([`crate::RuleProtocol::of_packet`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    pub source: Address,
    pub destination: Address,
    pub source_port: u16,
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u32,
}

impl Tuple {
    pub(crate) const EMPTY: Self = Self {
        source: Address::UNSPECIFIED,
        destination: Address::UNSPECIFIED,
        source_port: 0,
        destination_port: 0,
        protocol: 0,
    };

    /// Makes it that of the client's packets, by the tuple of a packet.
    ///
    /// Half by half: addresses are aligned to 4 bytes, so that a copy would be made of words of 32 bits, and
    /// a load of more than one of them would wait.
    #[inline(always)]
    pub(crate) fn set_to_clients(&mut self, packet: &Self, from_client: bool) {
        let source = (packet.source.halves(), packet.source_port);
        let destination = (packet.destination.halves(), packet.destination_port);
        let ([a, b], client_port) = if from_client { source } else { destination };
        let ([c, d], server_port) = if from_client { destination } else { source };
        (self.source, self.destination) = (Address::from_halves(a, b), Address::from_halves(c, d));
        (self.source_port, self.destination_port) = (client_port, server_port);
        self.protocol = packet.protocol;
    }

    /// What the other side sends.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
        }
    }
}
