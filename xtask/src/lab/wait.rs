//! Waiting for a condition, with a deadline, and for threads. The only place of the lab that lets time pass.

use std::{
    env,
    panic::resume_unwind,
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How long to rest between two looks.
const REST: Duration = Duration::from_millis(5);

/// A whole number in the environment: deadlines are so many times as far away, on a machine that is slow
/// because it is emulated.
pub(crate) const PATIENCE: &str = "PODGATE_PATIENCE";

/// Calls `look` until it gives a value. Fails with `what` when that takes longer than `limit`, at once when
/// `look` fails.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let times = env::var(PATIENCE).ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    let limit = limit.saturating_mul(times);
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("not within {limit:?}: {what}");
        }
        thread::sleep(REST);
    }
}

/// What a thread returns; its panic goes on here.
pub fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_with_the_condition_or_the_deadline() {
        let mut looks = 0;
        let found = until("three looks", Duration::from_secs(10), || {
            looks += 1;
            Ok((looks == 3).then_some("found"))
        });
        assert_eq!(found.expect("the third look finds it"), "found");
        let error =
            until::<()>("a miracle", Duration::from_millis(20), || Ok(None)).expect_err("nothing comes");
        assert_eq!(error.to_string(), "not within 20ms: a miracle");
    }
}
