//! Flows as they come, in the order of their times as far as a short wait allows.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    time::{Duration, Instant},
};

use tokio::sync::OwnedSemaphorePermit;

use crate::api::FlowRecord;

/// How long a flow waits for earlier ones of other nodes.
pub(super) const WINDOW: Duration = Duration::from_secs(1);

/// A flow with the places that it takes until it is printed.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) flow: FlowRecord,
    pub(super) arrived: Instant,
    pub(super) _places: [OwnedSemaphorePermit; 2],
}

#[derive(Debug, Default)]
pub(super) struct Merge {
    heap: BinaryHeap<Reverse<Box<Waiting>>>,
}

impl Merge {
    pub(super) fn push(&mut self, waiting: Box<Waiting>) {
        self.heap.push(Reverse(waiting));
    }

    /// The next one whose wait is over.
    pub(super) fn pop(&mut self, now: Instant) -> Option<FlowRecord> {
        let Reverse(first) = self.heap.peek()?;
        (now.saturating_duration_since(first.arrived) >= WINDOW).then_some(())?;
        self.heap.pop().map(|Reverse(waiting)| waiting.flow)
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        (&self.flow.time, self.arrived).cmp(&(&other.flow.time, other.arrived))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Waiting {}
