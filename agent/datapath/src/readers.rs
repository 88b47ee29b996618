//! What the agent reads of the programs and their maps: counters, events, how full tables are, and what the
//! compiled tables say. None of these can write to a table that the programs read.
//!
//! [`Datapath`](super::Datapath) is the other half: what the agent writes.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use anyhow::{Context as _, Result, anyhow};
use aya::{Ebpf, programs::SchedClassifier};
use podgate_common::{KernelVerdict, VerdictQuery};

use super::{BpfMaps, Counters, EventRing, FlowCounterReader, ProgramTables, names::NameReader, sys};

/// The handles of those who only read.
#[expect(missing_debug_implementations, reason = "aya's arrays have none")]
pub struct DatapathReaders {
    /// Counters of packets, by outcome.
    pub counters: Arc<Counters>,
    /// The tables that programs fill, and how full they are.
    pub tables: Arc<ProgramTables>,
    /// New connections and dropped packets, by what no rule can distinguish.
    pub flow_counters: FlowCounterReader,
    /// What the compiled tables say.
    pub verdicts: VerdictReader,
    /// The clock of the entries in the flow table.
    pub clock: TickClock,
    /// Single decisions.
    pub events: EventRing,
    /// What pods have learnt of names.
    pub names: NameReader,
}

/// Asks the compiled tables in the kernel. Copies share the program that answers.
#[derive(Clone, Debug)]
pub struct VerdictReader(Arc<OwnedFd>);

/// The ticks that the programs note. Copies share the program that reads them.
#[derive(Clone, Debug)]
pub struct TickClock {
    program: Arc<OwnedFd>,
    /// Of which one tick has [`podgate_common::JIFFIES_PER_TICK`].
    pub jiffies_per_second: u32,
}

impl DatapathReaders {
    pub(super) fn new(ebpf: &mut Ebpf, maps: &BpfMaps, clock: TickClock) -> Result<Self> {
        Ok(Self {
            names: maps.names.reader(clock.clone(), maps.flows.seed()),
            tables: Arc::new(ProgramTables::new(ebpf, maps.flows.reader()?)?),
            flow_counters: FlowCounterReader::new(ebpf)?,
            verdicts: VerdictReader(program(ebpf, VERDICT)?),
            clock,
            counters: Arc::new(Counters::new(ebpf)?),
            events: EventRing::new(ebpf)?,
        })
    }
}

impl VerdictReader {
    /// What the tables in the kernel say to a question. While they are written, it may be what they said
    /// before.
    ///
    /// # Errors
    ///
    /// When the kernel does not run the program that answers.
    pub fn ask(&self, query: &VerdictQuery) -> Result<KernelVerdict> {
        let answer = sys::test_run(&self.0, &query.packet()).context("cannot ask the tables")?;
        KernelVerdict::try_from(answer).map_err(|answer| anyhow!("the tables' answer {answer} is none"))
    }
}

impl TickClock {
    pub(super) fn new(ebpf: &mut Ebpf, jiffies_per_second: u32) -> Result<Self> {
        Ok(Self { program: program(ebpf, CLOCK)?, jiffies_per_second })
    }

    /// The tick that it is, as entries of the flow table have it.
    ///
    /// # Errors
    ///
    /// When the kernel does not run the program that reads it.
    pub fn now(&self) -> Result<u32> {
        // A packet that the program does not look at, but the kernel wants one (`bpf_prog_test_run_skb`).
        sys::test_run(&self.program, &[0; 64]).context("cannot read the kernel's ticks")
    }
}

/// The program that says what the tables say.
pub(super) const VERDICT: &str = "verdict";

/// The program that returns the kernel's ticks.
pub(super) const CLOCK: &str = "ticks";

pub(super) fn program(ebpf: &mut Ebpf, name: &str) -> Result<Arc<OwnedFd>> {
    let program: &mut SchedClassifier = super::programs::classifier(ebpf, name)?;
    let descriptor = program.fd().with_context(|| format!("program {name} is not loaded"))?;
    let descriptor = descriptor.as_fd().try_clone_to_owned();
    Ok(Arc::new(descriptor.with_context(|| format!("cannot keep program {name} open"))?))
}
