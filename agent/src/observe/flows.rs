//! Decisions as they happen: from the kernel's events to events that name pods, policies and rules.
//!
//! In: the kernel's events, and what evaluated packets in each revision. Out: decisions, to a short history,
//! to those who follow, and to the deny log. No one who reads can make the reader of events wait: who is slow
//! loses lines, and learns how many.

mod attribution;
mod deny_log;
mod event;
mod owners;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use podgate_common::FlowEvent;
use podgate_core::{compiler::WorkLimit, model::Name};
use tokio::sync::broadcast;

use self::attribution::Attributor;
pub use self::{
    deny_log::{DenyLog, DenyLogWriter, LogTarget, LostLines},
    event::{DecidingPolicy, DecisionEvent, EndOwner, EventEnd, EventVerdict, NameRole},
};
use super::NamesOfAddress;
use crate::snapshot::Contexts;

/// Decisions that are kept for who asks later.
const HISTORY: usize = 4_096;
/// Decisions that a follower may be behind.
const BEHIND: usize = 1_024;
/// Events that are attributed in a second. With more the agent would cost what it measures.
const PER_SECOND: u32 = 2_000;
/// What their attribution may take in a second, when nothing of it is known yet: some 25 ms.
const WORK_PER_SECOND: usize = 500_000;

/// Makes decisions of the kernel's events.
#[derive(Debug)]
pub struct Observer {
    node: Name,
    attributor: Attributor,
    deny_log: Option<DenyLog>,
    history: FlowHistory,
    /// The second that is running, and the events in it.
    second: (Instant, u32),
}

/// The last decisions, and those to come. Copies share them; nothing but memory is used while they are
/// locked.
#[derive(Clone, Debug)]
pub struct FlowHistory(Arc<Mutex<LastDecisions>>);

#[derive(Debug)]
struct LastDecisions {
    events: VecDeque<Arc<DecisionEvent>>,
    live: broadcast::Sender<Arc<DecisionEvent>>,
    counts: ObserverCounts,
}

/// What has become of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObserverCounts {
    pub allowed: u64,
    pub denied: u64,
    pub would_deny: u64,
    /// Not attributed: there were too many.
    pub skipped: u64,
}

impl Observer {
    pub fn new(node: Name, deny_log: Option<DenyLog>, history: FlowHistory, names: NamesOfAddress) -> Self {
        Self {
            node,
            attributor: Attributor::new(WorkLimit::of(WORK_PER_SECOND), names),
            deny_log,
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
        self.log_summaries();
    }

    /// Hands over what the deny log has summed up.
    pub fn log_summaries(&mut self) {
        if let Some(log) = &mut self.deny_log {
            log.summarise(Instant::now());
        }
    }

    fn add(&mut self, event: DecisionEvent) {
        if let Some(log) = self.deny_log.as_mut().filter(|_| event.verdict() != EventVerdict::Allowed) {
            log.add(&event, Instant::now());
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

impl Default for FlowHistory {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(LastDecisions {
            events: VecDeque::new(),
            live: broadcast::Sender::new(BEHIND),
            counts: ObserverCounts::default(),
        })))
    }
}

impl FlowHistory {
    pub(crate) fn add(&self, event: DecisionEvent) {
        let mut last = self.lock();
        *match event.verdict() {
            EventVerdict::Allowed => &mut last.counts.allowed,
            EventVerdict::Denied => &mut last.counts.denied,
            EventVerdict::WouldDeny => &mut last.counts.would_deny,
        } += 1;
        let event = Arc::new(event);
        if last.events.len() == HISTORY {
            last.events.pop_front();
        }
        last.events.push_back(event.clone());
        // No one may be there.
        let _ = last.live.send(event);
    }

    fn skip(&self) {
        self.lock().counts.skipped += 1;
    }

    /// Decisions of the past, the oldest first, and those to come: none is missed in between.
    pub fn follow(
        &self,
        since: Option<Duration>,
    ) -> (Vec<Arc<DecisionEvent>>, broadcast::Receiver<Arc<DecisionEvent>>) {
        let since = since.and_then(|since| SignedDuration::try_from(since).ok());
        let oldest = since.and_then(|since| Timestamp::now().checked_sub(since).ok());
        let last = self.lock();
        let is_asked = |event: &&Arc<DecisionEvent>| oldest.is_none_or(|oldest| event.time >= oldest);
        (last.events.iter().filter(is_asked).cloned().collect(), last.live.subscribe())
    }

    pub fn counts(&self) -> ObserverCounts {
        self.lock().counts
    }

    /// A panic while it is locked leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, LastDecisions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Both clocks at one moment.
struct FlowClock {
    wall: Timestamp,
    /// Nanoseconds.
    monotonic: u64,
}

impl FlowClock {
    fn now() -> Self {
        Self { wall: Timestamp::now(), monotonic: podgate_datapath::monotonic() }
    }

    fn wall(&self, monotonic: u64) -> Timestamp {
        let age = SignedDuration::from_nanos_i128(i128::from(self.monotonic) - i128::from(monotonic));
        self.wall.checked_sub(age).unwrap_or(self.wall)
    }
}
