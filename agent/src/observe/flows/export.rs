//! The bounded queue of denials for a collector, and the counts of what became of them.
//!
//! The reader of events puts them in and never waits: when a slow or unreachable collector leaves no room,
//! they are lost and counted.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{DecisionEvent, NameRole};

/// Bytes of denials in the queue, including those that are being sent: several thousand common ones.
const ROOM: usize = 4 << 20;
/// Largest size of a policy's name in bytes: kind, namespace and name.
const LONGEST_POLICY: usize = 400;

/// The sending end of the queue.
#[derive(Debug)]
pub struct FlowExport {
    queue: mpsc::UnboundedSender<QueuedDenial>,
    room: Arc<Semaphore>,
    counts: ExportCounts,
}

/// A denial in the queue. Its room is free again when it is dropped.
#[derive(Debug)]
pub struct QueuedDenial {
    pub event: DecisionEvent,
    /// The bytes that it takes of the queue.
    pub bytes: usize,
    _room: OwnedSemaphorePermit,
}

/// Counters of the export. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct ExportCounts(Arc<ExportTotals>);

#[derive(Debug, Default)]
struct ExportTotals {
    exported: AtomicU64,
    no_room: AtomicU64,
    refused: AtomicU64,
    expired: AtomicU64,
    waiting: AtomicU64,
    logs: RequestTotals,
    metrics: RequestTotals,
}

#[derive(Debug, Default)]
struct RequestTotals {
    succeeded: AtomicU64,
    failed: AtomicU64,
    /// The error of the last request, if it failed.
    error: Mutex<Option<String>>,
}

/// The result of exporting a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordResult {
    /// The collector has taken it.
    Exported,
    /// Lost: the queue had no room.
    NoRoom,
    /// Lost: the collector has refused it.
    Refused,
    /// Lost: the collector has not taken it for too long.
    Expired,
}

/// The kinds of exported data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportSignal {
    /// Records of denials.
    Logs,
    Metrics,
}

impl RecordResult {
    pub const ALL: [Self; 4] = [Self::Exported, Self::NoRoom, Self::Refused, Self::Expired];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Exported => "exported",
            Self::NoRoom => "no-room",
            Self::Refused => "refused",
            Self::Expired => "expired",
        }
    }
}

impl ExportSignal {
    pub const ALL: [Self; 2] = [Self::Logs, Self::Metrics];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Metrics => "metrics",
        }
    }
}

impl FlowExport {
    /// A queue, and its other end.
    pub fn new(counts: ExportCounts) -> (Self, mpsc::UnboundedReceiver<QueuedDenial>) {
        let (queue, waiting) = mpsc::unbounded_channel();
        (Self { queue, room: Arc::new(Semaphore::new(ROOM)), counts }, waiting)
    }

    pub(super) fn take(&self, event: &DecisionEvent) {
        let bytes = bytes(event);
        let room =
            u32::try_from(bytes).ok().and_then(|room| self.room.clone().try_acquire_many_owned(room).ok());
        // Counted before it is sent: the receiver may take it at once.
        self.counts.take(1);
        let queued = room.map(|room| QueuedDenial { event: event.clone(), bytes, _room: room });
        if queued.is_none_or(|queued| self.queue.send(queued).is_err()) {
            self.counts.record(RecordResult::NoRoom, 1);
        }
    }
}

/// The approximate size of an event: pods are shared, but may be kept alive by it alone.
fn bytes(event: &DecisionEvent) -> usize {
    let ends = [&event.source, &event.destination].into_iter().filter_map(|end| end.pod());
    let labels = ends.flat_map(|pod| pod.labels.iter()).map(|(key, value)| 64 + key.len() + value.len());
    let policies = event.policies.iter().map(|of| LONGEST_POLICY + size_of_val(&*of.rules));
    let (names, _, _) = NameRole::in_words(event.names.as_ref());
    let names = names.iter().map(|name| size_of::<String>() + name.len());
    size_of::<QueuedDenial>() + labels.sum::<usize>() + policies.sum::<usize>() + names.sum::<usize>()
}

impl ExportCounts {
    /// Notes that there are more records.
    pub fn take(&self, records: u64) {
        self.0.waiting.fetch_add(records, Ordering::Relaxed);
    }

    /// Notes the result of records.
    pub fn record(&self, result: RecordResult, records: u64) {
        self.of(result).fetch_add(records, Ordering::Relaxed);
        self.0.waiting.fetch_sub(records, Ordering::Relaxed);
    }

    /// Notes the result of a request to the collector.
    pub fn request(&self, signal: ExportSignal, outcome: Result<(), String>) {
        let RequestTotals { succeeded, failed, error } = self.of_signal(signal);
        if outcome.is_ok() { succeeded } else { failed }.fetch_add(1, Ordering::Relaxed);
        *error.lock().unwrap_or_else(PoisonError::into_inner) = outcome.err();
    }

    pub fn records(&self, result: RecordResult) -> u64 {
        self.of(result).load(Ordering::Relaxed)
    }

    /// Requests that succeeded, and those that failed.
    pub fn requests(&self, signal: ExportSignal) -> (u64, u64) {
        let RequestTotals { succeeded, failed, error: _ } = self.of_signal(signal);
        (succeeded.load(Ordering::Relaxed), failed.load(Ordering::Relaxed))
    }

    /// The error of the last request, if it failed.
    pub fn error(&self, signal: ExportSignal) -> Option<String> {
        self.of_signal(signal).error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records in the queue, and those that are being sent.
    pub fn waiting(&self) -> u64 {
        self.0.waiting.load(Ordering::Relaxed)
    }

    fn of(&self, result: RecordResult) -> &AtomicU64 {
        match result {
            RecordResult::Exported => &self.0.exported,
            RecordResult::NoRoom => &self.0.no_room,
            RecordResult::Refused => &self.0.refused,
            RecordResult::Expired => &self.0.expired,
        }
    }

    fn of_signal(&self, signal: ExportSignal) -> &RequestTotals {
        match signal {
            ExportSignal::Logs => &self.0.logs,
            ExportSignal::Metrics => &self.0.metrics,
        }
    }
}

#[cfg(test)]
mod tests {
    use podgate_core::model::{ObjectName, PolicyName};

    use super::*;
    use crate::observe::DecidingPolicy;

    #[test]
    fn records_that_have_no_room_are_lost_and_counted() {
        let counts = ExportCounts::default();
        let (export, mut queue) = FlowExport::new(counts.clone());
        let fit = ROOM / bytes(&DecisionEvent::example());
        assert!(fit > 1_000, "{fit}");
        for _ in 0..fit + 7 {
            export.take(&DecisionEvent::example());
        }
        assert_eq!((counts.records(RecordResult::NoRoom), counts.waiting()), (7, fit as u64));
        assert_eq!(queue.try_recv().unwrap().event, DecisionEvent::example());
        counts.record(RecordResult::Exported, 1);
        export.take(&DecisionEvent::example());
        assert_eq!(
            (counts.records(RecordResult::NoRoom), counts.waiting()),
            (7, fit as u64),
            "there was room"
        );
        drop(queue);
        export.take(&DecisionEvent::example());
        assert_eq!(counts.records(RecordResult::NoRoom), 8, "without a reader, too");
    }

    #[test]
    fn an_event_takes_room_for_all_of_its_policies() {
        let policy = DecidingPolicy {
            policy: PolicyName::Namespaced(ObjectName::new("x", "p")),
            rules: vec![0; 1_000],
        };
        let event = DecisionEvent { policies: vec![policy; 1_000], ..DecisionEvent::example() };
        let (export, mut queue) = FlowExport::new(ExportCounts::default());
        export.take(&event);
        assert!(queue.try_recv().is_err(), "it is larger than the queue");
    }

    #[test]
    fn the_error_of_a_signal_stays_until_the_same_signal_succeeds() {
        let counts = ExportCounts::default();
        counts.request(ExportSignal::Logs, Err("refused".into()));
        counts.request(ExportSignal::Metrics, Ok(()));
        assert_eq!(counts.error(ExportSignal::Logs).as_deref(), Some("refused"));
        counts.request(ExportSignal::Logs, Ok(()));
        assert_eq!(counts.error(ExportSignal::Logs), None);
        assert_eq!(ExportSignal::ALL.map(|signal| counts.requests(signal)), [(1, 1), (1, 0)]);
    }
}
