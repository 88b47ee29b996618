//! What the agent has done for names, counted.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// The counters. Copies share them.
#[derive(Clone, Debug, Default)]
pub struct NameWork(Arc<WorkCounters>);

#[derive(Debug, Default)]
struct WorkCounters {
    answered: AtomicU64,
    unanswered: AtomicU64,
    left_out: AtomicU64,
    entered: AtomicU64,
    renewed: AtomicU64,
}

/// What they say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameWorkCounts {
    /// Questions that a resolver has answered.
    pub answered: u64,
    /// Those that none has.
    pub unanswered: u64,
    /// Names that were not asked for, as their namespace had too many.
    pub left_out: u64,
    /// Addresses that were entered into tables of pods.
    pub entered: u64,
    /// Addresses that count for longer, as a connection to them lives.
    pub renewed: u64,
}

impl NameWork {
    pub fn read(&self) -> NameWorkCounts {
        let WorkCounters { answered, unanswered, left_out, entered, renewed } = &*self.0;
        let [answered, unanswered, left_out, entered, renewed] =
            [answered, unanswered, left_out, entered, renewed].map(|count| count.load(Ordering::Relaxed));
        NameWorkCounts { answered, unanswered, left_out, entered, renewed }
    }

    pub(super) fn answer(&self) {
        add(&self.0.answered, 1);
    }

    pub(super) fn fail(&self) {
        add(&self.0.unanswered, 1);
    }

    pub(super) fn leave_out(&self, names: usize) {
        add(&self.0.left_out, names);
    }

    pub(super) fn enter(&self, addresses: usize) {
        add(&self.0.entered, addresses);
    }

    pub(super) fn renew(&self, addresses: usize) {
        add(&self.0.renewed, addresses);
    }
}

fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
}
