//! Decisions as they happen: the lines of `flows` and of the deny log.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use podgate_common::{Direction, Outcome, Protocol};
use serde::{Deserialize, Serialize};

use crate::observe::{
    DecidingPolicy, DecisionEvent, EndOwner, EventEnd, EventVerdict, MissingName, NameRole,
};

/// One decision on one side of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRecord {
    /// RFC 3339, UTC, with milliseconds. Of the last packet that it stands for.
    pub time: String,
    /// The same of the first one, if that is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
    pub node: String,
    /// Whose side was evaluated: `egress` the source's, `ingress` the destination's.
    #[serde(with = "super::direction")]
    pub direction: Direction,
    pub verdict: FlowVerdict,
    /// Why; as in the counters of packets.
    #[serde(with = "super::outcome")]
    pub reason: Outcome,
    /// `TCP`, `UDP`, `SCTP`, `ICMP`, `ICMPv6`, or the number of another one.
    pub protocol: String,
    /// The type of a message of ICMP, or type and code as in `3/1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    pub source: FlowEnd,
    pub destination: FlowEnd,
    /// Allowed: those with rules that match. Denied, or would be: those that isolate and have none, or that
    /// deny.
    pub policies: Vec<FlowPolicy>,
    /// Of egress that a rule about a name has allowed, or would have: the names that the pod has learnt the
    /// destination for, as far as rules tell them from others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// It was denied since these names had ended: the pod looked them up too long ago.
    #[serde(default, skip_serializing_if = "is_false")]
    pub name_expired: bool,
    /// It was denied, and leads to none that is known; the pod has rules about names, and has learnt the
    /// address for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_missing: Option<MissingName>,
    /// False: the policies that are named do not account for the verdict; they changed at that moment.
    pub certain: bool,
    /// How many packets like this one it stands for.
    pub packets: u64,
    /// The change after which it was evaluated.
    pub revision: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowVerdict {
    Allowed,
    Denied,
    /// A policy in audit mode would have denied it; it has passed.
    WouldDeny,
}

/// One end of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FlowEnd {
    /// `None`: could not be read.
    pub address: Option<IpAddr>,
    /// `None`: the protocol has none.
    pub port: Option<u16>,
    /// `namespace/name`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// `namespace/name`, of a service whose address this is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Whose own address this is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The pod's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FlowPolicy {
    /// `namespace/name`, or as in `ClusterNetworkPolicy base`.
    pub policy: String,
    /// Indexes of the rules that match.
    pub rules: Vec<usize>,
}

/// Which flows are asked for; what is not given is not asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FlowFilter {
    /// Only what was denied, or would have been.
    pub denied: bool,
    /// `namespace/name` of either end.
    pub pod: Option<String>,
    /// Of either end.
    pub namespace: Option<String>,
    /// Of the destination.
    pub port: Option<u16>,
    pub protocol: Option<String>,
    /// As in [`FlowRecord::message`].
    pub message: Option<String>,
}

/// One line after the answer to `flows`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowLine {
    FlowRecord(Box<FlowRecord>),
    /// So many flows came faster than they were read.
    Lost(u64),
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_false(value: &bool) -> bool {
    !*value
}

impl From<&DecisionEvent> for FlowRecord {
    fn from(event: &DecisionEvent) -> Self {
        let DecisionEvent {
            time,
            node,
            direction,
            outcome,
            protocol,
            message,
            source,
            destination,
            policies,
            names,
            certain,
            packets,
            revision,
        } = event;
        let (names, name_expired, name_missing) = NameRole::in_words(names.as_ref());
        Self {
            time: format!("{time:.3}"),
            first: None,
            node: node.to_string(),
            direction: *direction,
            verdict: event.verdict().into(),
            reason: *outcome,
            protocol: protocol_name(*protocol),
            message: message.map(icmp_message),
            source: source.into(),
            destination: destination.into(),
            policies: policies.iter().map(FlowPolicy::from).collect(),
            names,
            name_expired,
            name_missing,
            certain: *certain,
            packets: *packets,
            revision: *revision,
        }
    }
}

impl From<&DecidingPolicy> for FlowPolicy {
    fn from(DecidingPolicy { policy, rules }: &DecidingPolicy) -> Self {
        Self { policy: policy.to_string(), rules: rules.clone() }
    }
}

impl From<&EventEnd> for FlowEnd {
    fn from(EventEnd { address, port, owner }: &EventEnd) -> Self {
        let mut end = Self { address: *address, port: *port, ..Self::default() };
        match owner {
            Some(EndOwner::Pod(pod)) => {
                let labels = pod.labels.iter().map(|(key, value)| (key.to_string(), value.to_string()));
                end.labels = labels.collect();
                end.pod = Some(pod.name.to_string());
            }
            Some(EndOwner::Service(name)) => end.service = Some(name.to_string()),
            Some(EndOwner::Node(name)) => end.node = Some(name.to_string()),
            None => {}
        }
        end
    }
}

impl From<EventVerdict> for FlowVerdict {
    fn from(verdict: EventVerdict) -> Self {
        match verdict {
            EventVerdict::Allowed => Self::Allowed,
            EventVerdict::Denied => Self::Denied,
            EventVerdict::WouldDeny => Self::WouldDeny,
        }
    }
}

impl fmt::Display for FlowVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::WouldDeny => "would-deny",
        })
    }
}

impl FlowFilter {
    pub fn matches(&self, flow: &FlowRecord) -> bool {
        let Self { denied, pod, namespace, port, protocol, message } = self;
        let ends = [&flow.source, &flow.destination];
        let names =
            || ends.into_iter().flat_map(|end| end.pod.iter().chain(&end.service)).map(String::as_str);
        (!denied || flow.verdict != FlowVerdict::Allowed)
            && pod.as_ref().is_none_or(|pod| ends.into_iter().any(|end| end.pod.as_ref() == Some(pod)))
            && namespace.as_ref().is_none_or(|namespace| {
                names().any(|name| name.split_once('/').is_some_and(|(of, _)| of == namespace))
            })
            && port.is_none_or(|port| flow.destination.port == Some(port))
            && protocol.as_ref().is_none_or(|protocol| *protocol == flow.protocol)
            && message.as_ref().is_none_or(|message| flow.message.as_ref() == Some(message))
    }
}

/// A message of ICMP: its type, and its code unless that is 0.
pub fn icmp_message(message: u16) -> String {
    match message.to_be_bytes() {
        [kind, 0] => kind.to_string(),
        [kind, code] => format!("{kind}/{code}"),
    }
}

/// The name of an IP protocol.
pub fn protocol_name(number: u16) -> String {
    match Protocol::try_from(u32::from(number)) {
        Ok(protocol) => protocol.to_string(),
        Err(1) => "ICMP".into(),
        Err(58) => "ICMPv6".into(),
        Err(other) => other.to_string(),
    }
}

/// The number of an IP protocol, by its name as above; `None`: it is none.
pub fn protocol_number(name: &str) -> Option<u16> {
    let known = [1, 6, 17, 58, 132].into_iter().find(|number| protocol_name(*number) == name);
    known.or_else(|| name.parse().ok())
}
