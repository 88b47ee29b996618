//! Loads the BPF object: new programs over the maps that are pinned, or over new ones.

use std::{collections::BTreeSet, io, path::Path};

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Array, Map, MapData},
    programs::{ProgramError, SchedClassifier},
};
use podgate_common::{Config, FlowSeed, HookMark, SocketOffsets, Timeouts, Tracking, WAYS};

use super::{
    BpfMaps, DatapathReaders, FlowCounterWriter, FlowTable, KernelReads, Linked, Past, Pins, TickClock, btf,
    linked, maps,
    names::NameWriter,
    pinned_programs, random_bytes,
    readers::{CLOCK, VERDICT},
    trace::TraceTerms,
};

/// The object file of the BPF programs, as `build.rs` made it: ELF.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/podgate-ebpf"));

/// Maps that outlive the agent.
pub(super) const PINNED: [&str; 25] = [
    "ENDPOINTS",
    "OWNERS",
    "TUNNEL_PORTS",
    "TUNNEL_SERVICES",
    "LINK_ADDRESSES",
    "ADDRESSES",
    "PREFIXES",
    "PORTS",
    "LABELS",
    "NAMES",
    "PARTIAL_MESSAGES",
    "RESOLVERS",
    "ROWS",
    "SERVICES",
    "REVISION",
    "HOST_PORTS",
    "HOST_SERVICES",
    "HOST_GUARD",
    FLOWS,
    FLOW_SEED,
    FLOW_SHARES,
    "FRAGMENTS",
    "COUNTERS",
    "FLOW_COUNTERS",
    "SHARES",
];

pub(super) const FLOWS: &str = "FLOWS";
const FLOW_SHARES: &str = "FLOW_SHARES";
const FLOW_SEED: &str = "FLOW_SEED";

/// What is fixed when the programs are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatapathOptions {
    /// Connections that the flow table has room for at least, when it is not pinned yet.
    pub flows: u32,
    /// Evaluate live connections again after each change.
    pub recheck: bool,
    /// Let everything in that this node has masqueraded.
    pub masqueraded: bool,
    /// Let encapsulated packets of pods to nodes pass.
    pub encapsulation: bool,
    /// Let connections between pods of this node take the short cut.
    pub shortcut: bool,
    /// How long an address that was learnt for a name stays at least, in seconds.
    pub names_keep: u32,
    /// Serve both hooks of a veth by one program, where the kernel tells them apart: its code is in the cache
    /// when a packet comes to the second one.
    pub share: bool,
}

impl DatapathOptions {
    /// As the agent loads them without options, but for the room, and with a program for each hook.
    pub const fn with_room(flows: u32) -> Self {
        Self {
            flows,
            recheck: false,
            masqueraded: false,
            encapsulation: false,
            shortcut: false,
            names_keep: 60,
            share: false,
        }
    }
}

impl DatapathOptions {
    /// What programs are loaded with over a flow table of this size and seed.
    pub(super) fn config(&self, flow_sets: u32, flow_seed: FlowSeed) -> Result<Config> {
        let jiffies_per_second = jiffies_per_second()?;
        Ok(Config {
            timeouts: Timeouts::of_kernel(jiffies_per_second),
            recheck: u32::from(self.recheck),
            masqueraded: u32::from(self.masqueraded),
            encapsulation: u32::from(self.encapsulation),
            shortcut: u32::from(self.shortcut && !self.recheck),
            tracking: Tracking::default(),
            hook_mark: HookMark::default(),
            sockets: SocketOffsets::default(),
            flow_sets,
            flow_seed,
            reorders: u32::from(cfg!(not(target_arch = "x86_64"))),
            // Only with it aya loads the object's own type information, too.
            names: u32::from(Path::new(btf::PATH).exists()),
            names_keep: self.names_keep,
            jiffies_per_second,
        })
    }
}

/// What runs at a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// What a pod sends; TC ingress of the host side of its veth.
    FromPod,
    /// What a pod receives; TC egress there.
    ToPod,
    /// What leaves the node; TC egress of its other devices.
    ToWire,
    /// The same of devices whose packets have no link header.
    ToTunnel,
    /// Incoming packets of a device with a host endpoint; at its TC ingress.
    FromNetdev,
    /// Outgoing packets of such a device; at its TC egress.
    ToNetdev,
    /// [`Self::FromNetdev`] for devices whose packets have no link header.
    FromBareNetdev,
    /// [`Self::ToNetdev`] for devices whose packets have no link header.
    ToBareNetdev,
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::FromPod,
        Self::ToPod,
        Self::ToWire,
        Self::ToTunnel,
        Self::FromNetdev,
        Self::ToNetdev,
        Self::FromBareNetdev,
        Self::ToBareNetdev,
    ];

    /// Whether it is attached to the TC ingress hook of the device, else to TC egress.
    pub(super) const fn is_at_ingress(self) -> bool {
        match self {
            Self::FromPod | Self::FromNetdev | Self::FromBareNetdev => true,
            Self::ToPod | Self::ToWire | Self::ToTunnel | Self::ToNetdev | Self::ToBareNetdev => false,
        }
    }

    /// Whether it evaluates host endpoints: another program of ours may be at the same hook.
    pub(super) const fn is_of_host(self) -> bool {
        match self {
            Self::FromNetdev | Self::ToNetdev | Self::FromBareNetdev | Self::ToBareNetdev => true,
            Self::FromPod | Self::ToPod | Self::ToWire | Self::ToTunnel => false,
        }
    }

    /// Its name in pins and in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FromPod => "from_pod",
            Self::ToPod => "to_pod",
            Self::ToWire => "to_wire",
            Self::ToTunnel => "to_tunnel",
            Self::FromNetdev => "from_netdev",
            Self::ToNetdev => "to_netdev",
            Self::FromBareNetdev => "from_bare_netdev",
            Self::ToBareNetdev => "to_bare_netdev",
        }
    }

    /// Its name in the object.
    pub(super) const fn function(self, is_shared: bool) -> &'static str {
        match self {
            Self::FromPod | Self::ToPod if is_shared => "at_pod",
            _ => self.name(),
        }
    }
}

/// Loaded programs, and the maps that the agent writes. Those who only read have [`DatapathReaders`].
#[expect(missing_debug_implementations, reason = "aya's arrays have none")]
pub struct Datapath {
    ebpf: Ebpf,
    /// One program serves both hooks of a pod's veth.
    shares: bool,
    /// What they can read of the kernel.
    pub reads: KernelReads,
    /// The maps that the agent writes.
    pub maps: BpfMaps,
    /// Removes flow counters that are in no use.
    pub flow_counters: FlowCounterWriter,
    /// Enters addresses of names into the tables of pods.
    pub names: NameWriter,
    /// The clock of the entries in the flow table.
    pub clock: TickClock,
    /// Where the connections are that agents before this one have let pass.
    pub past: Past,
    /// Ifindexes at which nothing has passed before this agent came, though no one has counted connections.
    pub held: BTreeSet<u32>,
    /// Which programs of a trace may take the place of these.
    pub(super) trace_terms: TraceTerms,
}

impl Datapath {
    /// Loads the programs. With `pins`, pinned maps are taken over and new ones are pinned.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map or a program ([`RejectedProgram`]).
    pub fn load(pins: Option<&Pins>, options: DatapathOptions) -> Result<(Self, DatapathReaders)> {
        let paths = pins.map(Pins::maps);
        let (flow_sets, flow_seed) = match &paths {
            Some(directory) => flow_table_of_before(directory)?,
            None => (None, None),
        };
        let is_fresh = flow_sets.is_none();
        let flow_sets = flow_sets.unwrap_or(options.flows.div_ceil(WAYS));
        let flow_seed = flow_seed.map_or_else(random_seed, Ok)?;
        let config = options.config(flow_sets, flow_seed)?;
        let Config { timeouts, jiffies_per_second, .. } = config;
        let Linked { object, reads } = linked(OBJECT, config)?;
        if !reads.tracking {
            tracing::warn!("connection tracking cannot be read: masqueraded connections count as the node's");
        }
        let mut loader = EbpfLoader::new();
        loader.map_max_entries(FLOWS, flow_sets);
        for name in PINNED {
            if let Some(directory) = &paths {
                loader.map_pin_path(name, directory.join(name));
            }
        }
        let mut ebpf = loader.load(&object).map_err(|error| match error {
            EbpfError::MapError(error) => anyhow!("cannot make the maps: {error:#}"),
            other => anyhow!("cannot read the BPF object: {other:#}"),
        })?;
        let shares = reads.hooks && options.share;
        let functions = Program::ALL.map(|program| program.function(shares));
        for name in BTreeSet::from(functions).into_iter().chain([CLOCK, VERDICT, NameWriter::PROGRAM]) {
            classifier(&mut ebpf, name)?.load().map_err(|error| refused(name, error))?;
        }
        let trace_terms = TraceTerms::of(&ebpf)?;
        let mut seed: Array<_, FlowSeed> = maps::take(&mut ebpf, FLOW_SEED)?;
        seed.set(0, flow_seed, 0).context("cannot keep the seed of the flow table")?;
        let [flows, flow_shares] = [FLOWS, FLOW_SHARES].map(|name| maps::descriptor(&ebpf, name));
        let flows = FlowTable::new(flows?, flow_shares?, flow_sets, flow_seed, timeouts)?;
        let clock = TickClock::new(&mut ebpf, jiffies_per_second)?;
        let maps = BpfMaps::new(&mut ebpf, flows, options.encapsulation)?;
        let readers = DatapathReaders::new(&mut ebpf, &maps, clock.clone())?;
        let flow_counters = FlowCounterWriter::new(&mut ebpf)?;
        let names = maps.names.writer(&mut ebpf)?;
        let layouts = pins.map(Pins::other_layouts).transpose()?.unwrap_or_default();
        let past = Past::of(is_fresh, &layouts);
        let held = pins.map(pinned_programs::take_held).transpose()?.unwrap_or_default();
        let datapath =
            Self { ebpf, shares, reads, maps, flow_counters, names, clock, past, held, trace_terms };
        Ok((datapath, readers))
    }

    /// A program, loaded.
    ///
    /// # Errors
    ///
    /// Never; the object has them all.
    pub fn program(&mut self, program: Program) -> Result<&mut SchedClassifier> {
        classifier(&mut self.ebpf, program.function(self.shares))
    }
}

/// Size and seed of a pinned flow table; a seed of zeros is of an agent that got no further.
pub(super) fn flow_table_of_before(directory: &Path) -> Result<(Option<u32>, Option<FlowSeed>)> {
    let open = |name: &str| {
        let path = directory.join(name);
        let exists = path.try_exists().with_context(|| format!("cannot look for {}", path.display()))?;
        let map = exists.then(|| MapData::from_pin(&path)).transpose();
        map.with_context(|| format!("cannot open {}", path.display()))
    };
    let size = |map: MapData| map.info().map(|info| info.max_entries());
    let sets = open(FLOWS)?.map(size).transpose().context("cannot learn the size of the flow table")?;
    let seed = match open(FLOW_SEED)? {
        Some(map) => {
            let seed = Array::<_, FlowSeed>::try_from(Map::Array(map)).context("the flow table's seed")?;
            Some(seed.get(&0, 0).context("cannot read the flow table's seed")?)
        }
        None => None,
    };
    Ok((sets, seed.filter(|seed| *seed != FlowSeed::default())))
}

fn random_seed() -> Result<FlowSeed> {
    let bytes: [u8; size_of::<FlowSeed>()] =
        random_bytes().context("cannot choose a seed for the flow table")?;
    let (words, _) = bytes.as_chunks();
    let mut seed = FlowSeed::default();
    for (word, bytes) in seed.0.iter_mut().zip(words) {
        *word = u32::from_ne_bytes(*bytes) & Config::MAX_WORD;
    }
    Ok(seed)
}

pub(super) fn classifier<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut SchedClassifier> {
    let program = ebpf.program_mut(name).with_context(|| format!("the BPF object has no program {name}"))?;
    program.try_into().with_context(|| format!("program {name} is no TC classifier"))
}

/// The kernel does not take a program.
#[derive(Debug, thiserror::Error)]
#[error("the kernel refused program {program}: {reason} (its verifier says why)")]
pub struct RejectedProgram {
    /// The program's name.
    pub program: String,
    /// What the kernel answered.
    pub reason: io::Error,
    /// All of it: its last lines say what the verifier did not like, the others how it got there.
    pub verifier_log: String,
}

pub(super) fn refused(name: &str, error: ProgramError) -> anyhow::Error {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let (program, verifier_log) = (name.to_owned(), verifier_log.to_string());
            RejectedProgram { program, reason: io_error, verifier_log }.into()
        }
        other => anyhow!("cannot load program {name}: {other:#}"),
    }
}

/// The kernel's tick rate: the coarse clocks advance once a tick (`kernel/time/posix-timers.c`).
fn jiffies_per_second() -> Result<u32> {
    let mut resolution = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: room for the answer.
    if unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut resolution) } != 0 {
        return Err(io::Error::last_os_error()).context("cannot learn the kernel's tick rate");
    }
    let nanoseconds = u32::try_from(resolution.tv_nsec).unwrap_or(0);
    (nanoseconds > 0)
        .then(|| (1_000_000_000 + nanoseconds / 2) / nanoseconds)
        .context("the kernel's coarse clock has no resolution")
}
