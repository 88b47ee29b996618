//! How the watches are doing: read by whoever asks, at any time.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::decode::Kind;

/// How long a watch that failed must be silent to count as up again: several times the longest pause between
/// two attempts, and an attempt that fails is not silent.
const RECOVERED: Duration = Duration::from_secs(40);

/// The health of all watches. Clones share it.
#[derive(Clone, Debug)]
pub struct Health(Arc<Mutex<BTreeMap<Kind, KindHealth>>>);

/// One watch, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchHealth {
    /// As in `NetworkPolicy`.
    pub kind: String,
    /// Its first list has come to its end.
    pub listed: bool,
    /// For how long changes may have been missed; zero while it is up.
    pub age: Duration,
    /// Times that it failed.
    pub restarts: u64,
    /// The last thing that failed, until it is up again.
    pub error: Option<String>,
}

#[derive(Clone, Debug)]
struct KindHealth {
    listed: bool,
    /// The server does not know it.
    absent: bool,
    restarts: u64,
    failing: Option<Failing>,
}

#[derive(Clone, Debug)]
struct Failing {
    since: Instant,
    last: Instant,
    error: String,
}

impl Health {
    pub(super) fn new() -> Self {
        let state = KindHealth { listed: false, absent: false, restarts: 0, failing: None };
        Self(Arc::new(Mutex::new(Kind::ALL.into_iter().map(|kind| (kind, state.clone())).collect())))
    }

    /// Every watch, in the order of their kinds.
    pub fn read(&self) -> Vec<WatchHealth> {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> Vec<WatchHealth> {
        let states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Of kinds of other engines nothing is said where there are none.
        let shown = states.iter().filter(|(kind, state)| !(kind.is_of_another_engine() && state.absent));
        let watches = shown.map(|(kind, KindHealth { listed, absent: _, restarts, failing })| {
            let failing = failing.as_ref().filter(|failing| now.duration_since(failing.last) < RECOVERED);
            WatchHealth {
                kind: kind.name_of_watch(),
                listed: *listed,
                age: failing.map_or(Duration::ZERO, |failing| now.duration_since(failing.since)),
                restarts: *restarts,
                error: failing.map(|failing| failing.error.clone()),
            }
        });
        watches.collect()
    }

    /// It has brought something.
    pub(super) fn up(&self, kind: Kind) {
        self.of(kind, |state| (state.failing, state.absent) = (None, false));
    }

    /// There is nothing to watch.
    pub(super) fn absent(&self, kind: Kind) {
        self.of(kind, |state| (state.failing, state.absent) = (None, true));
    }

    pub(super) fn listed(&self, kind: Kind) {
        self.of(kind, |state| state.listed = true);
    }

    pub(super) fn failed(&self, kind: Kind, error: String) {
        self.failed_at(kind, error, Instant::now());
    }

    fn failed_at(&self, kind: Kind, error: String, now: Instant) {
        self.of(kind, |state| {
            let before = state.failing.take().filter(|before| now.duration_since(before.last) < RECOVERED);
            let since = before.map_or(now, |before| before.since);
            state.failing = Some(Failing { since, last: now, error });
            state.restarts += 1;
        });
    }

    fn of(&self, kind: Kind, change: impl FnOnce(&mut KindHealth)) {
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = states.get_mut(&kind) {
            change(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pods(health: &Health, now: Instant) -> (u64, u64, Option<String>) {
        let watch = health.at(now).into_iter().find(|watch| watch.kind == "Pod").unwrap();
        (watch.age.as_secs(), watch.restarts, watch.error)
    }

    #[test]
    fn a_watch_is_as_old_as_its_first_failure_in_a_row() {
        let health = Health::new();
        let start = Instant::now();
        assert_eq!(pods(&health, start), (0, 0, None));
        health.failed_at(Kind::Pod, "refused".into(), start);
        health.failed_at(Kind::Pod, "reset".into(), start + 10 * SECOND);
        assert_eq!(pods(&health, start + 12 * SECOND), (12, 2, Some("reset".into())));
        health.up(Kind::Pod);
        assert_eq!(pods(&health, start + 13 * SECOND), (0, 2, None));
    }

    #[test]
    fn a_watch_that_fails_no_more_is_up_though_it_has_nothing_to_tell() {
        let health = Health::new();
        let start = Instant::now();
        health.failed_at(Kind::Pod, "refused".into(), start);
        assert_eq!(pods(&health, start + RECOVERED), (0, 1, None));
        health.failed_at(Kind::Pod, "refused".into(), start + 2 * RECOVERED);
        assert_eq!(pods(&health, start + 2 * RECOVERED + SECOND), (1, 2, Some("refused".into())));
    }
}
