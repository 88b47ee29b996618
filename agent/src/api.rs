//! What goes over the agent's unix socket: one request in one line of JSON, one response in one line.
//!
//! Used by the server side in `server`, which says what can be asked, and by the verbs that ask. Types here
//! are the JSON forms of `status` and `endpoints` too: fields are added, never renamed.

mod client;
mod counters;
mod export;
mod flows;
mod hosts;
mod latency;
mod names;
mod policies;
mod rollout;
mod state;
mod trace;
mod unenforced;

use std::net::IpAddr;

pub use client::{ask, follow, follow_after, try_ask};
pub use counters::{AgentNameCounts, Counter, Evictions, KernelCounters, Lost, NameCounts};
pub use export::{ExportRequests, ExportStatus};
pub use flows::{
    FlowEnd, FlowFilter, FlowLine, FlowPolicy, FlowRecord, FlowVerdict, icmp_message, protocol_name,
    protocol_number,
};
pub use hosts::HostCounts;
pub use latency::{Bucket, Latency};
pub use names::{LearntName, NameRules, PodNames};
use podgate_common::{Direction, Outcome};
pub use policies::{Hits, Mode, PolicyReport, PolicyStatus, RuleHits};
pub use rollout::{EnforcedObject, PolicyRollout, RolloutReport, UnguardedPod};
use serde::{Deserialize, Serialize};
pub use state::ReportedState;
pub use trace::{
    ProgramOptions, TraceLine, TraceSelection, TraceSetup, TraceSummary, TracedPacket, TracedStep,
};
pub use unenforced::{Holds, UnenforcedPod};

/// Raised with every change that an older side would misread.
pub const PROTOCOL: u32 = 3;

/// What every request and every response has, of whatever protocol. It is read first, so that one of another
/// protocol is distinguished from one that is broken.
#[derive(Clone, Debug, Deserialize)]
pub struct PeerVersion {
    pub version: u32,
    #[serde(default)]
    pub podgate: String,
}

/// This program.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");

impl PeerVersion {
    /// One line that says what to do, unless both speak the same protocol. `role`: who the speaker is, as in
    /// `the agent`.
    ///
    /// # Errors
    ///
    /// With that line.
    pub fn check(&self, role: &str) -> Result<(), String> {
        let Self { version, podgate } = self;
        if *version == PROTOCOL {
            return Ok(());
        }
        let release = if podgate.is_empty() { String::new() } else { format!(" (podgate {podgate})") };
        Err(format!(
            "{role} speaks protocol {version}{release}, this side protocol {PROTOCOL} (podgate {RELEASE}): ask with the \
             agent's own binary, as in `kubectl exec` into its pod"
        ))
    }
}

/// No request is longer, in bytes. The objects of a change are the longest part: this has room for a hundred
/// large policies.
pub const LONGEST_REQUEST: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request<A> {
    pub version: u32,
    /// The release that asks; empty before there was a second protocol.
    #[serde(default)]
    pub podgate: String,
    #[serde(flatten)]
    pub ask: A,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response<T> {
    pub version: u32,
    /// The release that answers; likewise.
    #[serde(default)]
    pub podgate: String,
    #[serde(flatten)]
    pub answer: Reply<T>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply<T> {
    Ok(T),
    /// One line.
    Error(String),
}

/// How an agent is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The first full picture of every source is enforced.
    pub ready: bool,
    pub node: String,
    /// Of the agent.
    pub version: String,
    pub uptime_seconds: u64,
    pub sources: Vec<SourceStatus>,
    pub endpoints: EndpointCounts,
    #[serde(default, skip_serializing_if = "HostCounts::is_empty")]
    pub host_endpoints: HostCounts,
    /// Pods that should be isolated and are not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unenforced: Vec<UnenforcedPod>,
    #[serde(default, skip_serializing_if = "Holds::is_none")]
    pub holds: Holds,
    pub policies: usize,
    /// Raised by one after each published change.
    pub revision: u32,
    /// From a source to the kernel.
    #[serde(default)]
    pub latency: Latency,
    pub tables: Vec<TableFill>,
    /// Packets since the tables were made, by direction and outcome.
    pub counters: Vec<Counter>,
    /// Live connections that had to leave the flow table since it was made.
    #[serde(default)]
    pub evictions: Vec<Evictions>,
    /// What was not counted, reported or remembered.
    #[serde(default)]
    pub lost: Lost,
    /// Packets between pods of this node that took the short cut.
    #[serde(default)]
    pub shortcut_packets: u64,
    /// What became of the replies of resolvers, once there were any.
    #[serde(default, skip_serializing_if = "NameCounts::is_none")]
    pub names: NameCounts,
    /// To a collector, if the agent has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<ExportStatus>,
    /// The last thing that failed and was not put right since.
    pub last_error: Option<String>,
    /// Why enforcement ends with the agent, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pins_lost: Option<String>,
}

/// Where the agent learns of objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    pub name: String,
    pub kind: String,
    /// Since the source was last known to be up to date; `None`: it has not given a full picture yet.
    pub age_seconds: Option<u64>,
    pub objects: ObjectCounts,
    /// Objects that are not in order, one line each.
    pub problems: Vec<String>,
    /// Of an API server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watches: Vec<WatchStatus>,
}

/// One watch of an API server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchStatus {
    /// As in `NetworkPolicy`.
    pub kind: String,
    /// Its first list has come to its end.
    pub listed: bool,
    /// For how long changes may have been missed; 0 while it is up.
    pub age_seconds: u64,
    /// Times that it failed.
    pub restarts: u64,
    /// What failed last, until it is up again.
    pub error: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ObjectCounts {
    pub namespaces: usize,
    pub nodes: usize,
    pub pods: usize,
    pub policies: usize,
    pub cluster_policies: usize,
    /// Policies of Calico's.
    #[serde(skip_serializing_if = "is_none")]
    pub calico_policies: usize,
    /// Those that lead somewhere.
    pub services: usize,
    pub endpoint_slices: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_none(count: &usize) -> bool {
    *count == 0
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointCounts {
    pub identified: usize,
    pub pending: usize,
    pub unmanaged: usize,
}

/// How full a table of the kernel is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableFill {
    pub name: String,
    /// Of connections, those too that have ended: they stay until their place is needed.
    pub entries: u64,
    /// `None`: it grows as needed.
    pub capacity: Option<u64>,
}

/// A veth of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// `namespace/name`, once it is known.
    pub pod: Option<String>,
    /// The host side.
    pub interface: String,
    pub ifindex: u32,
    pub addresses: Vec<IpAddr>,
    pub state: ReportedState,
    pub ingress: Isolation,
    pub egress: Isolation,
    /// Since when it is evaluated as it is.
    pub revision: u32,
    /// Why its pod is not enforced though it should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unenforced: Option<String>,
    /// Whether packets take the short cut, where the agent was asked to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shortcut: Option<ShortcutStatus>,
}

/// Whether packets to and from a pod may take the short cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShortcutStatus {
    pub open: bool,
    /// What is in the way otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    pub isolated: bool,
    /// `namespace/name` of each policy that isolates it.
    pub policies: Vec<String>,
    /// Each ClusterNetworkPolicy with rules for it, as in `ClusterNetworkPolicy base`.
    #[serde(default)]
    pub cluster_policies: Vec<String>,
    /// Each policy of Calico's, as in `GlobalNetworkPolicy base`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calico_policies: Vec<String>,
    /// Those of both kinds in audit mode, which only tell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audit: Vec<String>,
}

/// Names of a fixed list of kernel values, as they are printed everywhere else.
macro_rules! by_name {
    ($module:ident, $type:ty) => {
        mod $module {
            use serde::{Deserialize, Deserializer, Serializer, de::Error};

            use super::*;

            pub(super) fn serialize<S: Serializer>(value: &$type, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(value)
            }

            pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                let name = String::deserialize(deserializer)?;
                let known = <$type>::ALL.into_iter().find(|value| value.to_string() == name);
                known.ok_or_else(|| D::Error::custom(format!("unknown {} {name:?}", stringify!($module))))
            }
        }
    };
}

by_name!(direction, Direction);
by_name!(outcome, Outcome);

#[cfg(test)]
impl Status {
    pub(crate) fn example() -> Self {
        Self {
            ready: true,
            node: "n1".into(),
            version: "0.1.0".into(),
            uptime_seconds: 60,
            sources: vec![SourceStatus {
                name: "manifests".into(),
                kind: "manifests".into(),
                age_seconds: Some(5),
                objects: ObjectCounts {
                    namespaces: 1,
                    nodes: 2,
                    pods: 3,
                    policies: 4,
                    cluster_policies: 1,
                    calico_policies: 0,
                    services: 5,
                    endpoint_slices: 6,
                },
                problems: vec!["a.yaml: NetworkPolicy x/p: spec.ingress[0]: bad".into()],
                watches: vec![WatchStatus {
                    kind: "Pod".into(),
                    listed: true,
                    age_seconds: 9,
                    restarts: 2,
                    error: Some("refused".into()),
                }],
            }],
            endpoints: EndpointCounts { identified: 2, pending: 1, unmanaged: 0 },
            host_endpoints: HostCounts { enforced: 1, unconfirmed: 0, undone: 1, unenforced: 0 },
            unenforced: Vec::new(),
            holds: Holds::default(),
            policies: 3,
            revision: 7,
            latency: Latency {
                buckets: vec![Bucket { milliseconds: 50, count: 2 }],
                count: 3,
                sum_microseconds: 70_500,
            },
            tables: vec![TableFill { name: "flows".into(), entries: 10, capacity: Some(262_144) }],
            counters: vec![
                Counter { direction: Direction::Egress, outcome: Outcome::Denied, packets: 12 },
                Counter { direction: Direction::Ingress, outcome: Outcome::OwnNode, packets: 0 },
            ],
            evictions: vec![Evictions {
                state: "half-open".into(),
                newcomer: "same-pod".into(),
                connections: 4,
            }],
            lost: Lost { events_of_share: 7, ..Lost::default() },
            shortcut_packets: 0,
            names: NameCounts::default(),
            export: None,
            last_error: None,
            pins_lost: None,
        }
    }
}

#[cfg(test)]
impl EndpointStatus {
    pub(crate) fn example() -> Self {
        Self {
            pod: Some("x/a".into()),
            interface: "veth1".into(),
            ifindex: 3,
            addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            state: ReportedState::Identified,
            ingress: Isolation {
                isolated: true,
                policies: vec!["x/p".into(), "x/q".into()],
                cluster_policies: vec!["ClusterNetworkPolicy base".into()],
                calico_policies: vec![],
                audit: vec![],
            },
            egress: Isolation::default(),
            revision: 7,
            unenforced: None,
            shortcut: None,
        }
    }
}

#[cfg(test)]
mod tests;
