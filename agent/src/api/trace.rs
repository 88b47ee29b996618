//! Packets with the steps of their decisions: what `trace` is answered by.

use std::{net::IpAddr, path::PathBuf};

use podgate_common::{Direction, Outcome, TraceFilter, TracedAddresses};
use podgate_datapath::{DatapathOptions, KernelReads};
use serde::{Deserialize, Serialize};

/// The first answer: what the command must load, and for which veth. After that the command writes a line;
/// one more answer says that the trace runs, and the traced packets follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceSetup {
    /// The agent's.
    pub release: String,
    pub bpffs: PathBuf,
    pub ifindex: u32,
    pub programs: ProgramOptions,
    pub filter: TraceSelection,
}

/// The options of the agent's programs, and what these can read of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramOptions {
    #[serde(flatten, with = "DatapathFields")]
    options: DatapathOptions,
    #[serde(flatten, with = "KernelReadsFields")]
    reads: KernelReads,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "DatapathOptions")]
struct DatapathFields {
    flows: u32,
    recheck: bool,
    masqueraded: bool,
    encapsulation: bool,
    shortcut: bool,
    names_keep: u32,
    share: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "KernelReads")]
struct KernelReadsFields {
    #[serde(rename = "reads_tracking")]
    tracking: bool,
    #[serde(rename = "reads_hooks")]
    hooks: bool,
    #[serde(rename = "reads_names")]
    names: bool,
}

/// Which packets are wanted; what is not given is not asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TraceSelection {
    /// Any of these.
    pub from: Vec<IpAddr>,
    pub to: Vec<IpAddr>,
    /// The number of an IP protocol.
    pub protocol: Option<u16>,
    /// The server's.
    pub port: Option<u16>,
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TraceLine {
    Packet(Box<TracedPacket>),
    /// The last line.
    Ended(TraceSummary),
}

/// One packet at one hook of the pod's interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracedPacket {
    /// RFC 3339, UTC, with milliseconds.
    pub time: String,
    /// `egress`: the pod has sent it.
    #[serde(with = "super::direction")]
    pub direction: Direction,
    /// The host side of the pod's.
    pub interface: String,
    /// As in [`super::FlowRecord`].
    pub protocol: String,
    pub source: String,
    pub destination: String,
    /// In the order of the decision.
    pub steps: Vec<TracedStep>,
    #[serde(with = "super::outcome")]
    pub outcome: Outcome,
    pub passes: bool,
    /// The change after which it was evaluated.
    pub revision: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracedStep {
    /// `headers`, `fragment`, `flow`, `endpoint`, `owner`, `sender`, `service`, `identity`, `class`, `row`,
    /// `names`, `link-address` or `entered`; `omitted` for those that had no room.
    pub step: String,
    /// What was looked up and found, with the names that belong to its numbers.
    pub detail: String,
}

/// How a trace has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceSummary {
    /// Why.
    pub reason: String,
    /// Packets that were wanted.
    pub packets: u64,
    /// Of these, how many were shown.
    pub shown: u64,
    /// Of the others, those beyond the rate.
    pub limited: u64,
    /// And those that came faster than they were read.
    pub unread: u64,
}

impl From<(DatapathOptions, KernelReads)> for ProgramOptions {
    fn from((options, reads): (DatapathOptions, KernelReads)) -> Self {
        Self { options, reads }
    }
}

impl From<ProgramOptions> for (DatapathOptions, KernelReads) {
    fn from(ProgramOptions { options, reads }: ProgramOptions) -> Self {
        (options, reads)
    }
}

impl TraceSelection {
    /// As programs evaluate it; `None`: it names too many addresses.
    pub fn filter(&self) -> Option<TraceFilter> {
        let Self { from, to, protocol, port } = self;
        let only = |these: &[IpAddr]| match these {
            [] => Some(TracedAddresses::ANY),
            some => TracedAddresses::of(&some.iter().map(|at| (*at).into()).collect::<Vec<_>>()),
        };
        Some(TraceFilter {
            from: only(from)?,
            to: only(to)?,
            protocol: u32::from(protocol.unwrap_or(0)),
            port: port.map_or(TraceFilter::ANY_PORT, u32::from),
            ..TraceFilter::ANY
        })
    }
}
