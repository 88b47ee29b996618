//! What is fixed when the programs are loaded, and the sizes of maps that do not depend on the cluster.

use crate::{Direction, Entered, FlowSeed, Outcome, Share, Timeouts};

/// What the agent writes into the programs' code before it loads them: a constant costs no memory access.
///
/// Words of 31 bits at the most, for constants of BPF instructions are signed ones.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    pub timeouts: Timeouts,
    /// 1: live connections are evaluated again after each change.
    pub recheck: u32,
    /// 1: what this node has masqueraded passes.
    pub masqueraded: u32,
    /// 1: encapsulated packets of pods to nodes pass.
    pub encapsulation: u32,
    /// 1: connections between pods of this node may take the short cut.
    pub shortcut: u32,
    pub tracking: Tracking,
    pub hook_mark: HookMark,
    pub sockets: SocketOffsets,
    /// Sets of the flow table.
    pub flow_sets: u32,
    pub flow_seed: FlowSeed,
    /// 1: the processor reorders loads and stores (all but x86), and the flow table needs barriers.
    pub reorders: u32,
    /// 1: replies of resolvers are read for names. Without the object's type information the kernel's
    /// verifier has too much to check.
    pub names: u32,
    /// How long a learnt address stays at least, in seconds.
    pub names_keep: u32,
    pub jiffies_per_second: u32,
}

impl Config {
    pub const WORDS: usize = size_of::<Self>() / 4;

    /// Word n stands in the code as [`Self::PLACEHOLDER`] + 4 n, as a number that is moved to a register.
    pub const fn words(&self) -> [u32; Self::WORDS] {
        // SAFETY: it consists of words.
        unsafe { core::mem::transmute(*self) }
    }

    /// Of all bits that a word may have.
    pub const MAX_WORD: u32 = u32::MAX >> 1;

    /// No other number in the programs is near it.
    pub const PLACEHOLDER: u32 = 0x5047_1000;
}

/// Where the kernel notes at which hook of a device a packet is (`sk_buff.tc_at_ingress`), by its own type
/// information.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HookMark {
    /// Offset in bytes.
    pub byte: u32,
    /// The bit of this byte that says that it is TC ingress; 0: cannot be read.
    pub mask: u32,
}

/// Where the kernel keeps whose socket has sent a packet, by its own type information. All are offsets in
/// bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketOffsets {
    /// Of `sk_buff.sk`; 0: cannot be read.
    pub socket: u32,
    /// Of the network namespace in `sock`.
    pub socket_namespace: u32,
    /// Of `sk_buff.dev`.
    pub device: u32,
    /// Of the network namespace in `net_device`.
    pub device_namespace: u32,
}

/// Where the kernel keeps what connection tracking knows of a packet, by its own type information.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tracking {
    /// Id of the type `struct nf_conn`; 0: cannot be read.
    pub connection_type: u32,
    /// Offset in bytes of `sk_buff._nfct`.
    pub connection: u32,
    /// Offset in bytes of `nf_conn.tuplehash`.
    pub tuples: u32,
}

/// Numbers of kernel functions in the programs as they are built, for the loader to replace. No helper has
/// them.
pub mod kernel_function {
    /// `bpf_cast_to_kern_ctx`
    pub const CAST_TO_KERN_CTX: usize = 0x5047_0001;
    /// `bpf_rdonly_cast`
    pub const RDONLY_CAST: usize = 0x5047_0002;
}

/// Veths of one node. Memory is taken as they come, but for 16 bytes each; a bridge has 1,024 ports at the
/// most.
pub const MAX_ENDPOINTS: usize = 16_384;

/// Addresses of this node and its pods: a few for each veth.
pub const MAX_OWNERS: usize = 65_536;

/// Addresses and ports of services that lead to tunnels: rarely any. Those beyond half of it stand in the
/// filter of addresses.
pub const MAX_TUNNEL_SERVICES: usize = 8_192;

/// Addresses and ports of services whose end is known to programs at devices with host endpoints.
pub const MAX_HOST_SERVICES: usize = 65_536;

/// Labels of names of rules, each once below the one to its right.
pub const MAX_LABELS: usize = 65_536;
/// What rules may have of them: while a tree is replaced, the old and the new one stand in the map, and one
/// entry is the counter of numbers.
pub const MAX_LABELS_OF_RULES: usize = MAX_LABELS / 2 - 1;

/// Addresses, ports and protocols of resolvers.
pub const MAX_RESOLVERS: usize = 4_096;

/// Pods of a node with name rules; the first table has the number 1.
pub const MAX_NAME_TABLES: usize = 1_024;

/// Datagrams in fragments that are in flight at a time: as many as two veths may begin in a second. Each
/// takes 112 bytes from the start, and the next fragment follows within milliseconds.
pub const MAX_FRAGMENTS: usize = 2 * Share::FRAGMENTS as usize;

/// What is alike on this node: the shares of 128 veths, of which most take little. Memory is taken as they
/// come.
pub const MAX_FLOW_COUNTERS: usize = 128 * Share::FLOW_COUNTERS as usize;

/// Bytes of the ring of events: 3,640 of them. An agent that is not away reads them within a few
/// milliseconds.
pub const EVENT_BYTES: usize = 1 << 18;

/// How many counters there are.
pub const COUNTERS: usize = NameCount::Malformed as usize + 1;

const PER_DIRECTION: u32 = 32;

/// The counter of an outcome.
#[inline(always)]
pub const fn counter(direction: Direction, outcome: Outcome) -> u32 {
    direction as u32 * PER_DIRECTION + outcome as u32
}

/// Connections that had to leave the flow table while they lived: the number of their counter.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// Never answered, for a connection of the same pod.
    OwnHalfOpen = 2 * PER_DIRECTION,
    /// Answered, for a connection of the same pod: it has more of them than its share.
    OwnEstablished,
    /// Never answered, for a connection of another pod.
    HalfOpen,
    /// Answered, for a connection of another pod: the table is too small.
    Established,
}

impl Eviction {
    pub const ALL: [Self; 4] = [Self::OwnHalfOpen, Self::OwnEstablished, Self::HalfOpen, Self::Established];

    /// What it was, in metrics.
    pub const fn state(self) -> &'static str {
        match self {
            Self::OwnHalfOpen | Self::HalfOpen => "half-open",
            Self::OwnEstablished | Self::Established => "established",
        }
    }

    /// Whose connection took its place, in metrics.
    pub const fn newcomer(self) -> &'static str {
        match self {
            Self::OwnHalfOpen | Self::OwnEstablished => "same-pod",
            Self::HalfOpen | Self::Established => "other-pod",
        }
    }

    #[inline(always)]
    pub const fn of(entered: Entered) -> Option<Self> {
        match entered {
            Entered::Alone | Entered::Refused => None,
            Entered::Instead { established: false, same_pod: true } => Some(Self::OwnHalfOpen),
            Entered::Instead { established: true, same_pod: true } => Some(Self::OwnEstablished),
            Entered::Instead { established: false, same_pod: false } => Some(Self::HalfOpen),
            Entered::Instead { established: true, same_pod: false } => Some(Self::Established),
        }
    }
}

/// What the programs could not report or remember: the number of its counter.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreported {
    /// An event, for the ring buffer was full: the agent is slower, or away.
    Event = Eviction::Established as u32 + 1,
    /// An event beyond its veth's share. The next one tells how many packets there were.
    EventOfShare,
    /// A packet that is in no flow counter, for their map was full.
    FlowCounter,
    /// A packet that is counted, but of whose peer and port nothing is, for its veth has its share of flow
    /// counters.
    CounterOfShare,
    /// A datagram in fragments beyond its veth's share: an isolated pod gets or sends no more of it than the
    /// first one.
    Fragment,
}

/// The counter of packets that took the short cut.
pub const SHORTCUT_COUNTER: u32 = Unreported::Fragment as u32 + 1;

/// What became of replies of resolvers to pods with name rules: the number of its counter.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameCount {
    /// Addresses that were learnt, or are known for longer.
    Learnt = SHORTCUT_COUNTER + 1,
    /// Live entries that another address took the place of.
    Evicted,
    /// Addresses that no name may open.
    Refused,
    /// Replies for a name of rules that were cut, so that the client asks again over TCP.
    Cut,
    /// Replies for a name of rules that could not be learnt from to the end.
    Unlearnt,
    /// Messages that contradict themselves.
    Malformed,
}

impl NameCount {
    pub const ALL: [Self; 6] =
        [Self::Learnt, Self::Evicted, Self::Refused, Self::Cut, Self::Unlearnt, Self::Malformed];

    /// In metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Learnt => "learnt",
            Self::Evicted => "evicted",
            Self::Refused => "refused",
            Self::Cut => "cut",
            Self::Unlearnt => "unlearnt",
            Self::Malformed => "malformed",
        }
    }
}

impl Unreported {
    pub const ALL: [Self; 5] =
        [Self::Event, Self::EventOfShare, Self::FlowCounter, Self::CounterOfShare, Self::Fragment];
}
