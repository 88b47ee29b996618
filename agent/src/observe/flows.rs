//! Decisions as they happen: from the kernel's events to events that name pods, policies and rules.
//!
//! In: the kernel's events, and what evaluated packets in each revision. Out: decisions, to a short history,
//! to those who follow, to the deny log and to the export. No one who reads can make the reader of events
//! wait: who is slow loses lines, and learns how many.

mod attribution;
mod denials;
mod deny_log;
mod event;
mod export;
mod history;
mod owners;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use podgate_common::FlowEvent;
use podgate_core::{compiler::WorkLimit, model::Name};

use self::attribution::Attributor;
pub use self::{
    denials::Denials,
    deny_log::{DenyLog, DenyLogWriter, LogTarget, LostLines},
    event::{DecidingPolicy, DecisionEvent, EndOwner, EventEnd, EventVerdict, MissingName, NameRole},
    export::{ExportCounts, ExportSignal, FlowExport, QueuedDenial, RecordResult},
    history::{FlowHistory, FlowWindow, ObserverCounts, PastFlow},
    owners::AddressOwners,
};
use super::NamesOfAddress;
use crate::snapshot::Contexts;

/// Events that are attributed in a second. With more the agent would cost what it measures.
const PER_SECOND: u32 = 2_000;
/// What their attribution may take in a second, when nothing of it is known yet: some 25 ms.
const WORK_PER_SECOND: usize = 500_000;

/// Makes decisions of the kernel's events.
#[derive(Debug)]
pub struct Observer {
    node: Name,
    attributor: Attributor,
    denials: Denials,
    history: FlowHistory,
    /// The second that is running, and the events in it.
    second: (Instant, u32),
}

impl Observer {
    pub fn new(node: Name, denials: Denials, history: FlowHistory, names: NamesOfAddress) -> Self {
        Self {
            node,
            attributor: Attributor::new(WorkLimit::of(WORK_PER_SECOND), names),
            denials,
            history,
            second: (Instant::now(), 0),
        }
    }

    /// Takes events of the kernel. `contexts`: what has evaluated packets.
    pub fn observe(&mut self, events: &[FlowEvent], contexts: &Contexts) {
        let clock = FlowClock::now();
        for event in events {
            if self.is_too_much() {
                self.history.skip();
                continue;
            }
            let near = contexts.near(event.revision);
            let time = clock.wall(event.time);
            match self.attributor.attribute(event, time, &self.node, &near) {
                Some(event) => self.add(event),
                None if self.attributor.work.is_left() => {}
                None => self.history.skip(),
            }
        }
        self.report_summaries();
    }

    /// Reports the denials that have been summed up.
    pub fn report_summaries(&mut self) {
        self.denials.summarise(Instant::now());
    }

    fn add(&mut self, event: DecisionEvent) {
        if event.verdict() != EventVerdict::Allowed {
            self.denials.add(&event, Instant::now());
        }
        self.history.add(event);
    }

    fn is_too_much(&mut self) -> bool {
        let (began, events) = &mut self.second;
        if began.elapsed() >= Duration::from_secs(1) {
            (*began, *events) = (Instant::now(), 0);
            self.attributor.work = WorkLimit::of(WORK_PER_SECOND);
        }
        *events += 1;
        *events > PER_SECOND
    }
}

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub struct FlowClock {
    wall: Timestamp,
    /// Nanoseconds.
    monotonic: u64,
}

impl FlowClock {
    pub fn now() -> Self {
        Self { wall: Timestamp::now(), monotonic: podgate_datapath::monotonic() }
    }

    /// When that was, in nanoseconds of the monotonic clock.
    pub fn wall(&self, monotonic: u64) -> Timestamp {
        let age = SignedDuration::from_nanos_i128(i128::from(self.monotonic) - i128::from(monotonic));
        self.wall.checked_sub(age).unwrap_or(self.wall)
    }
}
