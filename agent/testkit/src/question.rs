//! A question about a connection, in words: `FROM TO PROTOCOL/PORT`, for example `x/a y/b TCP/80`.
//!
//! FROM and TO are written as on podgate's command line: `namespace/pod`, `namespace/svc:NAME`, `node/NAME`
//! or an address.

use std::{fmt, str::FromStr};

use serde_json::Value;

use super::naive::{ResolvedEndpoint, allowed, asked_number};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub from: ResolvedEndpoint,
    pub to: ResolvedEndpoint,
    /// `TCP`, `UDP`, `SCTP`; `ICMP`, `ICMPv6`; `IP` for any other protocol.
    pub protocol: String,
    /// Or type times 256, and code; or the number of the protocol.
    pub port: u16,
}

impl Question {
    /// FROM, TO and PROTOCOL/PORT.
    pub fn words(&self) -> [String; 3] {
        let port = match (&*self.protocol, self.port.to_be_bytes()) {
            ("ICMP" | "ICMPv6", [kind, 0]) => format!("{}/{kind}", self.protocol),
            ("ICMP" | "ICMPv6", [kind, code]) => format!("{}/{kind}/{code}", self.protocol),
            _ => format!("{}/{}", self.protocol, self.port),
        };
        [words(&self.from), words(&self.to), port]
    }

    /// The naive evaluator's answer.
    pub fn is_allowed(&self, objects: &[Value]) -> bool {
        allowed(objects, &self.from, &self.to, &self.protocol, self.port)
    }
}

impl FromStr for Question {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [from, to, port] = words[..] else { return Err(format!("not FROM TO PROTOCOL/PORT: {text:?}")) };
        let (protocol, port) = port.split_once('/').unwrap_or((port, "0"));
        let port = asked_number(protocol, port).ok_or_else(|| format!("no port number in {text:?}"))?;
        Ok(Self { from: party(from)?, to: party(to)?, protocol: protocol.into(), port })
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().join(" "))
    }
}

fn words(party: &ResolvedEndpoint) -> String {
    match party {
        ResolvedEndpoint::Pod { namespace, name } => format!("{namespace}/{name}"),
        ResolvedEndpoint::Service { namespace, name } => format!("{namespace}/svc:{name}"),
        ResolvedEndpoint::Node(name) => format!("node/{name}"),
        ResolvedEndpoint::Address(address) => address.to_string(),
    }
}

fn party(text: &str) -> Result<ResolvedEndpoint, String> {
    if let Ok(address) = text.parse() {
        return Ok(ResolvedEndpoint::Address(address));
    }
    match text.split_once('/') {
        Some(("node", name)) => Ok(ResolvedEndpoint::Node(name.into())),
        Some((namespace, name)) if name.starts_with("svc:") => {
            Ok(ResolvedEndpoint::Service { namespace: namespace.into(), name: name["svc:".len()..].into() })
        }
        Some((namespace, name)) => {
            Ok(ResolvedEndpoint::Pod { namespace: namespace.into(), name: name.into() })
        }
        None => Err(format!("neither a pod nor a node nor an address: {text:?}")),
    }
}
