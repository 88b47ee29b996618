//! Programs that trace: the same source as the agent's own, with a report of each step (`ebpf/src/trace.rs`).
//!
//! The command `podgate trace` loads them, over the maps of the agent: a running agent has given up
//! CAP_PERFMON, which loading them takes, for good. They are handed over by pins, which the agent removes
//! when it has opened them. Nothing holds them then but the agent and the hooks that it puts them at.
//!
//! They have maps of their own where a program works on its packet, and where it would ask for the short cut:
//! at a traced veth there is none. All others must be the agent's, else their verdicts could differ.

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::{AsFd as _, AsRawFd, OwnedFd},
    path::PathBuf,
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, Map, MapData, PerCpuArray, RingBuf},
    programs::SchedClassifier,
};
use podgate_common::{PacketTrace, TraceCounts, TraceFilter};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    Datapath, DatapathOptions, KernelReads, Pins, Program, Programs, linked, maps,
    pinned_programs::{OF_PODS, open},
    programs::{FLOWS, PINNED, classifier, flow_table_of_before, refused},
    sys,
};

/// The object file of the programs that trace, as `build.rs` made it: ELF.
pub static TRACING_OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/podgate-ebpf-trace"));

/// Maps of the agent's that it does not pin for the next one.
const LENT: [&str; 2] = ["EVENTS", "ADDRESS_FILTER"];

/// Maps that programs of a trace have of their own.
const OWN: [&str; 4] = ["SCRATCH", "WALK", "OPEN_VETHS", "EMPTY_PARTIAL_MESSAGE"];

/// What is handed over besides the programs.
const RING: &str = "TRACES";
const COUNTS: &str = "TRACE_COUNTS";

const FILTER: &str = "TRACE_FILTER";

/// What programs need to take the place of the agent's: the same maps.
#[derive(Debug)]
pub(super) struct TraceTerms {
    /// By id, maps that they have of their own.
    own: BTreeSet<u32>,
    lent: Vec<(&'static str, OwnedFd)>,
}

impl TraceTerms {
    pub(super) fn of(ebpf: &Ebpf) -> Result<Self> {
        let id = |map: &MapData| Ok(map.info().context("cannot learn the id of a map")?.id());
        let own = OWN.map(|name| id(data(ebpf, name)?)).into_iter();
        // Constants of the code: each object has its own.
        let constants = ebpf.maps().filter_map(|(name, map)| match map {
            Map::Array(map) if name.starts_with('.') => Some(id(map)),
            _ => None,
        });
        let lent = LENT.map(|name| Ok((name, maps::keep_open(data(ebpf, name)?)?)));
        Ok(Self {
            own: own.chain(constants).collect::<Result<_>>()?,
            lent: lent.into_iter().collect::<Result<_>>()?,
        })
    }

    /// Checks that a program uses each map of the agent's, but for these.
    fn check(own_maps: &BTreeSet<u32>, own: &SchedClassifier, tracing: &SchedClassifier) -> Result<()> {
        let maps = |program: &SchedClassifier| {
            let descriptor = program.fd().context("a program is not loaded")?;
            sys::map_ids(descriptor.as_fd()).context("cannot learn which maps a program uses")
        };
        let (wanted, used) = (maps(own)?, maps(tracing)?);
        let missing = wanted.difference(&used).filter(|id| !own_maps.contains(id)).count();
        ensure!(
            missing == 0 && !used.is_empty(),
            "a program that traces lacks {missing} maps of this agent's"
        );
        Ok(())
    }
}

/// Programs for a pod's interface that trace.
#[derive(Debug)]
pub struct TracingPrograms {
    from_pod: SchedClassifier,
    to_pod: SchedClassifier,
}

impl TracingPrograms {
    pub(super) fn ids(&self) -> Result<Vec<u32>> {
        let id = |program: &SchedClassifier| Ok(program.info().context("cannot learn a program's id")?.id());
        [&self.from_pod, &self.to_pod].into_iter().map(id).collect()
    }
}

impl Programs for TracingPrograms {
    fn program(&mut self, program: Program) -> Result<&mut SchedClassifier> {
        match program {
            Program::FromPod => Ok(&mut self.from_pod),
            Program::ToPod => Ok(&mut self.to_pod),
            Program::ToWire
            | Program::ToTunnel
            | Program::FromNetdev
            | Program::ToNetdev
            | Program::FromBareNetdev
            | Program::ToBareNetdev => anyhow::bail!("{} does not trace", program.name()),
        }
    }
}

/// Where what is handed over for a veth stands, by the name of a program or map.
fn pin(pins: &Pins, ifindex: u32, name: &str) -> PathBuf {
    pins.traces().join(format!("{ifindex}-{name}"))
}

/// Loads programs that trace a pod's packets, and leaves them to the agent.
///
/// `options` are the agent's, and so is what its programs can read of the kernel: with less, verdicts could
/// differ.
///
/// # Errors
///
/// When there is no agent of this layout, this process sees the kernel otherwise than the agent, or the
/// kernel refuses a map or a program: CAP_PERFMON may be missing. Then nothing is left.
pub fn hand_over_tracing(
    pins: &Pins,
    ifindex: u32,
    (options, reads): (DatapathOptions, KernelReads),
    filter: &TraceFilter,
) -> Result<()> {
    let done = load_tracing(pins, ifindex, (options, reads), filter);
    if done.is_err() {
        forget_tracing(pins, ifindex)?;
    }
    done
}

fn load_tracing(
    pins: &Pins,
    ifindex: u32,
    (options, reads): (DatapathOptions, KernelReads),
    filter: &TraceFilter,
) -> Result<()> {
    let directory = pins.maps();
    let (flow_sets, flow_seed) = flow_table_of_before(&directory)?;
    let flow_sets = flow_sets.context("no agent has made a flow table")?;
    let flow_seed = flow_seed.context("no agent has chosen the flow table's seed")?;
    let linked = linked(TRACING_OBJECT, options.config(flow_sets, flow_seed)?)?;
    ensure!(
        linked.reads == reads,
        "this process sees other type information of the kernel than the agent: trace in the agent's pod, or on the node"
    );

    let mut loader = EbpfLoader::new();
    loader.map_max_entries(FLOWS, flow_sets);
    let shared = PINNED.map(|name| (name, directory.join(name)));
    let lent = LENT.map(|name| (name, pins.traces().join(name)));
    for (name, path) in shared.into_iter().chain(lent) {
        // One that is not there would be made.
        ensure!(path.exists(), "{} is not there", path.display());
        loader.map_pin_path(name, path);
    }
    let mut ebpf = loader.load(&linked.object).context("cannot read the tracing object")?;
    let mut wanted: Array<_, TraceFilter> = maps::take(&mut ebpf, FILTER)?;
    wanted.set(0, *filter, 0).context("cannot write the filter")?;
    let shares = reads.hooks && options.share;
    for program in OF_PODS {
        let function = program.function(shares);
        let loaded = classifier(&mut ebpf, function)?;
        if loaded.fd().is_err() {
            loaded.load().map_err(|error| refused(function, error))?;
        }
        let path = pin(pins, ifindex, program.name());
        loaded.pin(&path).with_context(|| format!("cannot pin {}", path.display()))?;
    }
    for name in [RING, COUNTS] {
        let path = pin(pins, ifindex, name);
        data(&ebpf, name)?.pin(&path).with_context(|| format!("cannot pin {}", path.display()))?;
    }
    Ok(())
}

impl Datapath {
    /// Pins the maps that programs of a trace share with these beside the pinned ones.
    pub(super) fn lend_maps(&self, pins: &Pins) -> Result<()> {
        let directory = pins.traces();
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        for (name, map) in &self.trace_terms.lent {
            let path = directory.join(name);
            sys::pin(map, &path).with_context(|| format!("cannot pin {}", path.display()))?;
        }
        Ok(())
    }

    /// Takes what was handed over for a veth. Whatever becomes of it, no pin is left.
    ///
    /// # Errors
    ///
    /// When something is missing, or a program uses other maps than these programs.
    pub fn take_tracing(&mut self, pins: &Pins, ifindex: u32) -> Result<(TracingPrograms, TraceReader)> {
        let taken = self.open_tracing(pins, ifindex);
        forget_tracing(pins, ifindex)?;
        taken
    }

    fn open_tracing(&mut self, pins: &Pins, ifindex: u32) -> Result<(TracingPrograms, TraceReader)> {
        let at = |name| pin(pins, ifindex, name);
        let [from_pod, to_pod] = OF_PODS.map(|program| open(&at(program.name())));
        let programs = TracingPrograms { from_pod: from_pod?, to_pod: to_pod? };
        for (program, tracing) in OF_PODS.into_iter().zip([&programs.from_pod, &programs.to_pod]) {
            let own_maps = self.trace_terms.own.clone();
            TraceTerms::check(&own_maps, self.program(program)?, tracing)?;
        }
        let map =
            |name| MapData::from_pin(at(name)).with_context(|| format!("no map {name} was handed over"));
        let ring = RingBuf::try_from(Map::RingBuf(map(RING)?)).context("no ring was handed over")?;
        let counts =
            PerCpuArray::try_from(Map::PerCpuArray(map(COUNTS)?)).context("no counts were handed over")?;
        Ok((programs, TraceReader { ring, counts }))
    }
}

/// Removes what was handed over for a veth and not taken.
///
/// # Errors
///
/// When a pin cannot be removed.
pub fn forget_tracing(pins: &Pins, ifindex: u32) -> Result<()> {
    for name in OF_PODS.map(Program::name).into_iter().chain([RING, COUNTS]) {
        let path = pin(pins, ifindex, name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// What programs of one trace report. There is one reader.
#[expect(missing_debug_implementations, reason = "aya's ring buffers have none")]
pub struct TraceReader {
    ring: RingBuf<MapData>,
    counts: PerCpuArray<MapData, TraceCounts>,
}

/// The same, waited for. Needs a tokio runtime.
#[expect(missing_debug_implementations, reason = "aya's ring buffers have none")]
pub struct TraceStream(AsyncFd<TraceReader>);

impl TraceReader {
    /// The next packet, if there is one.
    pub fn take(&mut self) -> Option<PacketTrace> {
        // The programs write nothing else.
        self.ring.next().and_then(|bytes| PacketTrace::from_bytes(&bytes))
    }

    /// What all CPUs have counted: packets that were wanted, and of these those beyond the rate, and those
    /// for which the ring had no room.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn counts(&self) -> Result<[u64; 3]> {
        let cpus = self.counts.get(&0, 0).context("cannot read what a trace has counted")?;
        Ok(cpus.iter().fold([0; 3], |[matched, limited, unread], cpu| {
            [matched + cpu.matched, limited + cpu.limited, unread + cpu.unread]
        }))
    }
}

impl AsRawFd for TraceReader {
    fn as_raw_fd(&self) -> i32 {
        self.ring.as_raw_fd()
    }
}

impl TraceStream {
    /// # Errors
    ///
    /// When the ring cannot be waited for.
    pub fn new(reader: TraceReader) -> Result<Self> {
        // SAFETY: the reader owns its descriptor, never replaces it, and is owned by the AsyncFd until both
        // are dropped.
        let reader = unsafe { AsyncFd::register_with_interest(reader, Interest::READABLE) };
        reader.map(Self).map_err(|error| error.into_parts().1).context("cannot wait for packets")
    }

    /// Waits for the next packet. None is lost when the wait is given up.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be waited for any more.
    pub async fn next(&mut self) -> Result<PacketTrace> {
        loop {
            let mut ready = self.0.readable_mut().await.context("cannot wait for packets")?;
            match ready.get_inner_mut().take() {
                Some(packet) => return Ok(packet),
                None => ready.clear_ready(),
            }
        }
    }

    /// What was counted.
    pub fn reader(&self) -> &TraceReader {
        self.0.get_ref()
    }
}

/// A map of the object, whatever its type.
fn data<'a>(ebpf: &'a Ebpf, name: &str) -> Result<&'a MapData> {
    match ebpf.map(name) {
        Some(Map::Array(map) | Map::PerCpuArray(map) | Map::RingBuf(map)) => Ok(map),
        _ => anyhow::bail!("the BPF object has no map {name}"),
    }
}
