//! One decision that the programs have reported, with the pods and policies behind it.

use std::{collections::BTreeSet, fmt, net::IpAddr, sync::Arc};

use jiff::Timestamp;
use podgate_common::{Direction, Outcome, PolicyRole};
use podgate_core::model::{Name, ObjectName, Pod, PolicyName};
use serde::{Deserialize, Serialize};

/// A decision on one side of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionEvent {
    pub time: Timestamp,
    pub node: Name,
    /// Whose side was evaluated: egress the source's, ingress the destination's.
    pub direction: Direction,
    pub outcome: Outcome,
    /// The number of the IP protocol.
    pub protocol: u16,
    /// Of a message of ICMP type times 256, and code. An echo's code is not known, and given as 0.
    pub message: Option<u16>,
    pub source: EventEnd,
    pub destination: EventEnd,
    /// Allowed: those with rules that match. Denied, or would be: those that isolate and have none, or that
    /// deny.
    pub policies: Vec<DecidingPolicy>,
    /// What names that the pod has learnt the destination for have to do with it.
    pub names: Option<NameRole>,
    /// False: these policies do not account for the outcome; they changed at that moment.
    pub certain: bool,
    /// How many packets like this one it stands for.
    pub packets: u64,
    /// The change after which it was evaluated.
    pub revision: u32,
}

/// How names come into a decision. Each is a name as far as rules tell it from others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NameRole {
    /// A rule about one of these has allowed it.
    Allowed(BTreeSet<String>),
    /// A rule about one of these would have, but the pod looked it up too long ago.
    Expired(BTreeSet<String>),
    /// The pod has rules about names, and has learnt the address for none.
    Missing(MissingName),
}

/// Why a pod has learnt an address for no name, as far as that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MissingName {
    /// No reply to it has had the address.
    NameUnlearnt,
    /// The same, and it asks a server that is not believed.
    ResolverUntrusted,
}

impl fmt::Display for MissingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NameUnlearnt => "name-unlearnt",
            Self::ResolverUntrusted => "resolver-untrusted",
        })
    }
}

impl NameRole {
    /// The names, whether they had ended, and why there are none; nothing where names had no part.
    pub fn in_words(role: Option<&Self>) -> (Vec<String>, bool, Option<MissingName>) {
        match role {
            None => (Vec::new(), false, None),
            Some(Self::Allowed(names)) => (names.iter().cloned().collect(), false, None),
            Some(Self::Expired(names)) => (names.iter().cloned().collect(), true, None),
            Some(Self::Missing(missing)) => (Vec::new(), false, Some(*missing)),
        }
    }

    /// The reverse.
    pub fn of_words(names: Vec<String>, expired: bool, missing: Option<MissingName>) -> Option<Self> {
        let names: BTreeSet<String> = names.into_iter().collect();
        match (names.is_empty(), expired) {
            (true, _) => missing.map(Self::Missing),
            (false, false) => Some(Self::Allowed(names)),
            (false, true) => Some(Self::Expired(names)),
        }
    }
}

/// One end of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventEnd {
    /// `None`: could not be read.
    pub address: Option<IpAddr>,
    /// `None`: the protocol has none.
    pub port: Option<u16>,
    /// `None`: none that is known.
    pub owner: Option<EndOwner>,
}

/// Whose an end is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndOwner {
    Pod(Arc<Pod>),
    /// Whose address this is.
    Service(ObjectName),
    /// Whose own address this is.
    Node(Name),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DecidingPolicy {
    pub policy: PolicyName,
    /// Indexes of the rules that match.
    pub rules: Vec<usize>,
}

/// What became of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventVerdict {
    Allowed,
    Denied,
    /// A policy in audit mode would have denied it; it has passed.
    WouldDeny,
}

impl DecisionEvent {
    pub fn verdict(&self) -> EventVerdict {
        EventVerdict::of(self.outcome)
    }
}

impl EventVerdict {
    pub fn of(outcome: Outcome) -> Self {
        match outcome.policies() {
            PolicyRole::WouldDeny => Self::WouldDeny,
            PolicyRole::NotAsked | PolicyRole::NotIsolating | PolicyRole::Allow | PolicyRole::Deny => {
                if outcome.passes() {
                    Self::Allowed
                } else {
                    Self::Denied
                }
            }
        }
    }
}

impl EventEnd {
    pub fn pod(&self) -> Option<&Arc<Pod>> {
        match &self.owner {
            Some(EndOwner::Pod(pod)) => Some(pod),
            Some(EndOwner::Service(_) | EndOwner::Node(_)) | None => None,
        }
    }
}

#[cfg(test)]
impl DecisionEvent {
    /// From pod x/a to x/b, denied.
    pub(crate) fn example() -> Self {
        let cluster = podgate_core::fixtures::cluster(vec![]);
        let end = |pod: &str, port| {
            let pod = &cluster.pods[&ObjectName::new("x", pod)];
            EventEnd {
                address: pod.addresses.first().copied(),
                port: Some(port),
                owner: Some(EndOwner::Pod(pod.clone())),
            }
        };
        Self {
            time: "2026-01-02T03:04:05.678Z".parse().unwrap(),
            node: "n1".into(),
            direction: Direction::Ingress,
            outcome: Outcome::Denied,
            protocol: 6,
            message: None,
            source: end("a", 40_000),
            destination: end("b", 80),
            policies: vec![DecidingPolicy {
                policy: PolicyName::Namespaced(ObjectName::new("x", "p")),
                rules: vec![],
            }],
            names: None,
            certain: true,
            packets: 1,
            revision: 7,
        }
    }
}
