//! The port that a question is about: `PROTOCOL/NUMBER` or `PROTOCOL/NAME`, as users write it. Without a
//! protocol it is TCP's, as in a NetworkPolicy. In its place may stand a message of ICMP (`ICMP/TYPE` or
//! `ICMP/TYPE/CODE`, and the same with `ICMPv6`) or another protocol (`IP/NUMBER`).
//!
//! In: text of the command line or of a request. Out: the numbers that it stands for on a destination. What a
//! rule says of ports is another thing and lives in the model.

use std::{collections::BTreeSet, fmt, str::FromStr};

use podgate_common::RuleProtocol;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::model::{IpFamily, Name, Pod, syntax::port_name};

/// A port, by number or by the name that a container gives it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PortSpec {
    /// The protocol.
    pub protocol: RuleProtocol,
    /// The port.
    pub port: Port,
}

/// A port, by number or by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// 1 to 65535; of a protocol without ports the place of what is asked about ([`RuleProtocol`]).
    Number(u16),
    /// Resolved on each destination.
    Name(Name),
}

/// Text that names no port.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadPort {
    /// There is none.
    #[error(
        "a port is a number or a name, with its protocol before it unless that is TCP: 80, http or UDP/dns"
    )]
    Empty,
    /// The protocol is unknown.
    #[error("the protocol is TCP, UDP, SCTP, ICMP, ICMPv6 or IP, not {0:?}")]
    Protocol(String),
    /// The number is no port.
    #[error("a port number is 1 to 65535, not {0}")]
    Number(String),
    /// No message of ICMP.
    #[error("a message of ICMP is its type, 0 to 255, or type and code as in ICMP/3/1: not {0}")]
    Message(String),
    /// No other protocol.
    #[error("IP/NUMBER is for protocols other than TCP, UDP, SCTP, ICMP and ICMPv6: not {0}")]
    OtherProtocol(String),
    /// The name cannot be one of a port.
    #[error("a port name has 1 to 15 of a-z, 0-9 and single inner dashes, and a letter: not {0:?}")]
    Name(String),
}

impl PortSpec {
    /// A port by its number.
    pub fn number(protocol: impl Into<RuleProtocol>, number: u16) -> Self {
        Self { protocol: protocol.into(), port: Port::Number(number) }
    }

    /// The version of IP that it is of; `None`: both.
    pub const fn family(&self) -> Option<IpFamily> {
        match self.protocol {
            RuleProtocol::Icmp => Some(IpFamily::V4),
            RuleProtocol::IcmpV6 => Some(IpFamily::V6),
            RuleProtocol::Tcp | RuleProtocol::Udp | RuleProtocol::Sctp | RuleProtocol::Other => None,
        }
    }

    /// What it stands for on this destination, `None` where only a pod could say; empty: it has no such name.
    pub fn numbers(&self, destination: Option<&Pod>) -> BTreeSet<u16> {
        match &self.port {
            Port::Number(number) => BTreeSet::from([*number]),
            Port::Name(name) => destination
                .into_iter()
                .flat_map(|pod| &*pod.ports)
                .filter(|port| port.protocol == self.protocol && port.name == *name)
                .map(|port| port.number)
                .collect(),
        }
    }
}

impl FromStr for PortSpec {
    type Err = BadPort;

    fn from_str(text: &str) -> Result<Self, BadPort> {
        let (protocol, port) = match text.split_once('/') {
            Some((protocol, port)) => (read_protocol(protocol)?, port),
            None => (RuleProtocol::Tcp, text),
        };
        if port.is_empty() {
            return Err(BadPort::Empty);
        }
        let number = match protocol {
            RuleProtocol::Tcp | RuleProtocol::Udp | RuleProtocol::Sctp => None,
            RuleProtocol::Icmp | RuleProtocol::IcmpV6 => Some(message(port)?),
            RuleProtocol::Other => Some(other_protocol(port)?),
        };
        if let Some(number) = number {
            return Ok(Self { protocol, port: Port::Number(number) });
        }
        let port = if port.bytes().all(|byte| byte.is_ascii_digit()) {
            match port.parse() {
                Ok(number) if number > 0 => Port::Number(number),
                _ => return Err(BadPort::Number(port.into())),
            }
        } else if port_name(port).is_ok() {
            Port::Name(port.into())
        } else {
            return Err(BadPort::Name(port.into()));
        };
        Ok(Self { protocol, port })
    }
}

/// Type, and code 0 unless another is given.
fn message(text: &str) -> Result<u16, BadPort> {
    let (kind, code) = text.split_once('/').unwrap_or((text, "0"));
    match (kind.parse(), code.parse()) {
        (Ok(kind), Ok(code)) => Ok(u16::from_be_bytes([kind, code])),
        _ => Err(BadPort::Message(text.into())),
    }
}

fn other_protocol(text: &str) -> Result<u16, BadPort> {
    let number = text.parse::<u8>().ok().map(|number| RuleProtocol::of_packet(number.into(), 0, 0));
    match number {
        Some((RuleProtocol::Other, place)) => Ok(place),
        _ => Err(BadPort::OtherProtocol(text.into())),
    }
}

fn read_protocol(text: &str) -> Result<RuleProtocol, BadPort> {
    let mut known = RuleProtocol::ALL.into_iter();
    let found = known.find(|protocol| protocol.to_string().eq_ignore_ascii_case(text));
    found.ok_or_else(|| BadPort::Protocol(text.into()))
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.port {
            Port::Number(number) => Place(self.protocol, *number).fmt(f),
            Port::Name(name) => write!(f, "{}/{name}", self.protocol),
        }
    }
}

/// A place of a protocol, as it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Place(pub RuleProtocol, pub u16);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(protocol, place) = self;
        match protocol {
            RuleProtocol::Icmp | RuleProtocol::IcmpV6 => match place.to_be_bytes() {
                [kind, 0] => write!(f, "{protocol}/{kind}"),
                [kind, code] => write!(f, "{protocol}/{kind}/{code}"),
            },
            RuleProtocol::Tcp | RuleProtocol::Udp | RuleProtocol::Sctp | RuleProtocol::Other => {
                write!(f, "{protocol}/{place}")
            }
        }
    }
}

impl From<PortSpec> for String {
    fn from(port: PortSpec) -> Self {
        port.to_string()
    }
}

impl TryFrom<String> for PortSpec {
    type Error = BadPort;

    fn try_from(text: String) -> Result<Self, BadPort> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_read_and_printed_in_its_canonical_form() {
        for (text, printed) in [
            ("TCP/80", "TCP/80"),
            ("udp/53", "UDP/53"),
            ("SCTP/65535", "SCTP/65535"),
            ("TCP/http", "TCP/http"),
            ("TCP/8080-x", "TCP/8080-x"),
            ("TCP/0080", "TCP/80"),
            ("8080", "TCP/8080"),
            ("http", "TCP/http"),
            ("icmp/8", "ICMP/8"),
            ("ICMP/8/0", "ICMP/8"),
            ("ICMP/3/13", "ICMP/3/13"),
            ("ICMPv6/128", "ICMPv6/128"),
            ("ip/47", "IP/47"),
        ] {
            assert_eq!(text.parse::<PortSpec>().map(|port| port.to_string()), Ok(printed.into()), "{text}");
        }
    }

    #[test]
    fn a_wrong_port_says_what_is_wrong_with_it() {
        for (text, wrong) in [
            ("", BadPort::Empty),
            ("TCP/", BadPort::Empty),
            ("0", BadPort::Number("0".into())),
            ("80/TCP", BadPort::Protocol("80".into())),
            ("ICMP/", BadPort::Empty),
            ("ICMP/echo", BadPort::Message("echo".into())),
            ("ICMP/256", BadPort::Message("256".into())),
            ("ICMPv6/1/2/3", BadPort::Message("1/2/3".into())),
            ("IP/6", BadPort::OtherProtocol("6".into())),
            ("IP/1", BadPort::OtherProtocol("1".into())),
            ("IP/gre", BadPort::OtherProtocol("gre".into())),
            ("IGMP/1", BadPort::Protocol("IGMP".into())),
            ("TCP/0", BadPort::Number("0".into())),
            ("TCP/65536", BadPort::Number("65536".into())),
            ("TCP/-1", BadPort::Name("-1".into())),
            ("TCP/80-90", BadPort::Name("80-90".into())),
            ("TCP/a--b", BadPort::Name("a--b".into())),
            ("TCP/HTTP", BadPort::Name("HTTP".into())),
            ("TCP/sixteen-letters1", BadPort::Name("sixteen-letters1".into())),
        ] {
            assert_eq!(text.parse::<PortSpec>(), Err(wrong), "{text}");
        }
    }
}
