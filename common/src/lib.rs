//! What the kernel programs and user space share: the types in the BPF maps, the packet parser and the one
//! decision function.
//!
//! Everything here is `no_std` and pure. [`decide`] is generic over two small traits, [`Packet`] (bytes) and
//! [`Tables`] (lookups); the BPF programs, the unit tests, the packet tests and `podgate explain` all run
//! this very code. Nothing here knows Kubernetes: rules were compiled away in user space.
//!
//! Types that stand in a map are `repr(C)` without padding. [`LAYOUT_VERSION`] names their shape: it is part
//! of the pin directory's name, so that two versions never read each other's maps.
#![no_std]

#[cfg(any(test, feature = "frames"))]
extern crate std;

/// Major and minor number of the oldest kernel, one with long-term support, on which podgate is tested. What
/// the programs call is older: atomic operations that fetch came with 5.12, for arm64's just-in-time compiler
/// with 5.18 (`arch/arm64/net/bpf_jit_comp.c`).
pub const OLDEST_KERNEL: (u32, u32) = if cfg!(target_arch = "aarch64") { (5, 18) } else { (5, 15) };

mod address;
mod address_filter;
mod bits;
mod config;
mod decide;
mod endpoint;
mod event;
mod flow;
mod flow_table;
#[cfg(any(test, feature = "frames"))]
pub mod frames;
mod hook;
mod host;
mod ids;
mod layout;
mod link_address;
#[cfg(test)]
mod loom_barriers;
mod names;
mod open_veth;
mod outcome;
mod packet;
mod protocol;
mod query;
mod scratch;
mod service_key;
mod share;
mod tables;
mod trace;
#[cfg(feature = "user")]
mod user;

pub use address::{Address, AddressKey};
pub use address_filter::{FILTER_WORDS, FilterBit, FilteredAs, filter_bits};
pub use config::{
    COUNTERS, Config, EVENT_BYTES, Eviction, HookMark, MAX_ENDPOINTS, MAX_FLOW_COUNTERS, MAX_FRAGMENTS,
    MAX_HOST_SERVICES, MAX_LABELS, MAX_LABELS_OF_RULES, MAX_NAME_TABLES, MAX_OWNERS, MAX_RESOLVERS,
    MAX_TUNNEL_SERVICES, NameCount, SHORTCUT_COUNTER, SocketOffsets, Tracking, Unreported, counter,
    kernel_function,
};
pub use decide::{
    FirstLook, Passage, by_egress, by_names, by_policy, decide, decide_at_host, decide_on_wire,
    established_v4_fast_path, is_established, is_own, may_carry_packets,
};
pub use endpoint::{Endpoint, EndpointState, HEARD_BY_NODE, NODE, OTHER_NODE, is_nodes};
pub use event::{FlowCounter, FlowCounterKey, FlowEvent, PolicyLookup};
pub use flow::{
    Flow, FlowKey, FlowSummary, FragmentKey, JIFFIES_PER_TICK, PortPair, Seen, Timeout, Timeouts,
    seconds_of_ticks,
};
#[cfg(any(test, feature = "user"))]
pub use flow_table::HostAtomic;
pub use flow_table::{
    Atomic, Entered, EntryHandle, FlowSeed, FlowSet, FlowShare, FlowShares, Holder, Lookup, Reach,
    ReplacementRule, Seed, SharedSet, Spot, WAYS,
};
pub use hook::{Direction, Hook};
pub use host::{HostGuard, HostKey, PortUse, ServiceEnd};
pub use ids::{ClassId, IdentityId, PolicyId, ServiceId, TableSetIndex};
pub use link_address::LinkAddress;
pub use names::{
    Label, LabelKey, Learnt, MAX_LIFETIME, MAX_PATTERN_LABELS, MAX_STEPS, MessageProgress, NAMES_OF_ADDRESS,
    NameEntry, NameId, NameNode, NameSet, NameSpots, NameTables, Next, Opened, PartialMessage, Resolver,
    SharedNameSet, SharedPartial, Stream, TRIES_TO_ENTER, Transport, WAYS_OF_NAMES, Walk, may_be_opened,
};
pub use open_veth::OpenVeth;
pub use outcome::{Outcome, PolicyRole};
pub use packet::{Headers, Packet, PacketKind, Segment, Start, Tracked, Tuple, parse};
pub use protocol::{Protocol, RuleProtocol};
pub use query::{KernelVerdict, NameAnswer, NameRequest, VerdictQuery};
pub use scratch::Scratch;
pub use service_key::ServiceKey;
pub use share::{Rate, Share};
pub use tables::{
    BITS_PER_ROW, PortClasses, PrefixKey, Row, RowKey, ServiceVerdict, Strata, Stratum, Tables, TunnelPort,
    allowed, is_filtered,
};

pub use trace::{
    Evaluated, FlowStep, PacketTrace, Recorder, TRACE_BYTES, TRACE_STEPS, TraceCounts, TraceFilter,
    TraceStep, Traced, TracedAddresses, TracedLookup,
};

/// The shape of every map. Raise it with any change to a type or a map in this crate.
pub const LAYOUT_VERSION: u32 = 14;

/// The first layout whose flow table reads as this one does: an agent with other maps takes its connections
/// over. Make it [`LAYOUT_VERSION`] with any change to `FlowKey`, `Flow`, `Seen` or `FlowSet` by which an
/// older entry would say something else.
pub const FIRST_LAYOUT_OF_FLOWS: u32 = 9;
