//! Decisions as they happen: from the kernel's events to lines that name pods, policies and rules.
//!
//! In: events, and what evaluated packets in each revision. Out: flows, to a short history, to those who
//! follow, and to the deny log. Nothing here can change a verdict, and no one who reads can make it wait: who
//! is slow loses lines, and learns how many.

mod attribution;
mod deny_log;
mod owners;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use podgate_common::FlowEvent;
use podgate_core::{
    compiler::{PolicySnapshot, WorkLimit},
    model::{Name, Pod},
};
use tokio::sync::broadcast;

pub use self::deny_log::{DenyLog, LogTarget};
use self::owners::AddressOwners;
use crate::api::{FlowFilter, FlowRecord, FlowVerdict};

/// Flows that are kept for who asks later.
const HISTORY: usize = 4_096;
/// Flows that a follower may be behind.
const BEHIND: usize = 1_024;
/// An event comes within milliseconds of the change after which it was evaluated.
const CONTEXTS: usize = 32;
/// Events that are attributed in a second. With more the agent would cost what it measures.
const PER_SECOND: u32 = 2_000;
/// What their attribution may take in a second, when nothing of it is known yet: some 25 ms.
const WORK_PER_SECOND: usize = 500_000;

/// What evaluated packets in a revision.
#[derive(Clone, Debug)]
pub struct Context {
    pub revision: u32,
    pub policy_snapshot: PolicySnapshot,
    /// The pods behind veths.
    pub pods: Arc<BTreeMap<u32, Arc<Pod>>>,
}

/// Makes flows of events.
#[derive(Debug)]
pub struct Observer {
    node: Name,
    /// The oldest first.
    contexts: VecDeque<Context>,
    owners: AddressOwners,
    history: VecDeque<Arc<FlowRecord>>,
    live: broadcast::Sender<Arc<FlowRecord>>,
    deny_log: Option<DenyLog>,
    counts: ObserverCounts,
    /// The second that is running, and the events in it.
    second: (Instant, u32),
    /// What may be spent on attribution until it is over.
    work: WorkLimit,
}

/// Shared by the agent's loop, the reader of events and the servers.
pub type SharedObserver = Arc<Mutex<Observer>>;

/// What has become of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObserverCounts {
    pub allowed: u64,
    pub denied: u64,
    pub would_deny: u64,
    /// Not attributed: there were too many.
    pub skipped: u64,
    /// Lines of the deny log that could not be written.
    pub unwritten: u64,
}

impl Observer {
    pub fn new(node: Name, deny_log: Option<DenyLog>) -> Self {
        Self {
            node,
            contexts: VecDeque::new(),
            owners: AddressOwners::default(),
            history: VecDeque::new(),
            live: broadcast::Sender::new(BEHIND),
            deny_log,
            counts: ObserverCounts::default(),
            second: (Instant::now(), 0),
            work: WorkLimit::of(WORK_PER_SECOND),
        }
    }

    /// From now on packets are evaluated so.
    pub fn evaluated_by(&mut self, context: Context) {
        if self.contexts.back().is_some_and(|last| last.revision == context.revision) {
            self.contexts.pop_back();
        }
        self.contexts.push_back(context);
        if self.contexts.len() > CONTEXTS {
            self.contexts.pop_front();
        }
    }

    /// Takes events of the kernel.
    pub fn observe(&mut self, events: &[FlowEvent]) {
        let clock = FlowClock::now();
        for event in events {
            if self.is_too_much() {
                self.counts.skipped += 1;
                continue;
            }
            let contexts = contexts(&self.contexts, event.revision);
            let time = clock.wall(event.time);
            let Self { node, owners, work, .. } = self;
            match attribution::attribute(event, time, node, &contexts, owners, work) {
                Some(flow) => self.add(flow),
                None => self.counts.skipped += u64::from(!self.work.is_left()),
            }
        }
        self.log_summaries();
    }

    /// Writes what the deny log has summed up.
    pub fn log_summaries(&mut self) {
        if let Some(log) = &mut self.deny_log {
            log.summarise(Instant::now());
            self.counts.unwritten = log.unwritten();
        }
    }

    /// Takes a flow that needs no attribution any more.
    pub fn add(&mut self, flow: FlowRecord) {
        *match flow.verdict {
            FlowVerdict::Allowed => &mut self.counts.allowed,
            FlowVerdict::Denied => &mut self.counts.denied,
            FlowVerdict::WouldDeny => &mut self.counts.would_deny,
        } += 1;
        if let Some(log) = self.deny_log.as_mut().filter(|_| flow.verdict != FlowVerdict::Allowed) {
            log.add(&flow, Instant::now());
        }
        let flow = Arc::new(flow);
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(flow.clone());
        // No one may be there.
        let _ = self.live.send(flow);
    }

    fn is_too_much(&mut self) -> bool {
        let (began, events) = &mut self.second;
        if began.elapsed() >= Duration::from_secs(1) {
            (*began, *events) = (Instant::now(), 0);
            self.work = WorkLimit::of(WORK_PER_SECOND);
        }
        *events += 1;
        *events > PER_SECOND
    }

    /// Flows of the past that are asked for, the oldest first, and those to come: none is missed in between.
    pub fn follow(
        &self,
        filter: &FlowFilter,
        since: Option<Duration>,
        last: Option<usize>,
    ) -> (Vec<Arc<FlowRecord>>, broadcast::Receiver<Arc<FlowRecord>>) {
        let since = since.and_then(|since| SignedDuration::try_from(since).ok());
        let oldest = since.and_then(|since| Timestamp::now().checked_sub(since).ok());
        // The same form, so that the order of texts is that of times.
        let oldest = oldest.map(|oldest| format!("{oldest:.3}"));
        let is_asked = |flow: &&Arc<FlowRecord>| {
            filter.matches(flow) && oldest.as_ref().is_none_or(|oldest| flow.time >= *oldest)
        };
        let mut found: Vec<_> = self.history.iter().filter(is_asked).cloned().collect();
        if let Some(last) = last {
            found.drain(..found.len().saturating_sub(last));
        }
        (found, self.live.subscribe())
    }

    pub const fn counts(&self) -> ObserverCounts {
        self.counts
    }
}

/// A panic elsewhere leaves nothing half done that matters here.
pub fn lock(observer: &SharedObserver) -> std::sync::MutexGuard<'_, Observer> {
    observer.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What may have evaluated a packet of this revision. A pod is switched to new policies a moment before the
/// revision is raised, and a program that had begun before may end after it.
fn contexts(contexts: &VecDeque<Context>, revision: u32) -> Vec<&Context> {
    let place = contexts.iter().rposition(|context| context.revision <= revision).unwrap_or(0);
    let near = [Some(place), place.checked_add(1), place.checked_sub(1)];
    near.into_iter().flatten().filter_map(|place| contexts.get(place)).collect()
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
