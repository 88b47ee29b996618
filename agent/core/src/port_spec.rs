//! The port that a question is about: `PROTOCOL/NUMBER` or `PROTOCOL/NAME`, as users write it. Without a
//! protocol it is TCP's, as in a NetworkPolicy.
//!
//! In: text of the command line or of a request. Out: the numbers that it stands for on a destination. What a
//! rule says of ports is another thing and lives in the model.

use std::{collections::BTreeSet, fmt, str::FromStr};

use podgate_common::Protocol;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::model::{Name, Pod, syntax::port_name};

/// A port, by number or by the name that a container gives it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PortSpec {
    /// The protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: Port,
}

/// A port, by number or by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// 1 to 65535.
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
    #[error("the protocol is TCP, UDP or SCTP, not {0:?}")]
    Protocol(String),
    /// The number is no port.
    #[error("a port number is 1 to 65535, not {0}")]
    Number(String),
    /// The name cannot be one of a port.
    #[error("a port name has 1 to 15 of a-z, 0-9 and single inner dashes, and a letter: not {0:?}")]
    Name(String),
}

impl PortSpec {
    /// A port by its number.
    pub const fn number(protocol: Protocol, number: u16) -> Self {
        Self { protocol, port: Port::Number(number) }
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
            None => (Protocol::Tcp, text),
        };
        if port.is_empty() {
            return Err(BadPort::Empty);
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

fn read_protocol(text: &str) -> Result<Protocol, BadPort> {
    let mut known = Protocol::ALL.into_iter();
    let found = known.find(|protocol| protocol.to_string().eq_ignore_ascii_case(text));
    found.ok_or_else(|| BadPort::Protocol(text.into()))
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.port {
            Port::Number(number) => write!(f, "{}/{number}", self.protocol),
            Port::Name(name) => write!(f, "{}/{name}", self.protocol),
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
            ("ICMP/8", BadPort::Protocol("ICMP".into())),
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
