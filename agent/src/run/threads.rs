//! The agent's threads, each with a runtime of its own, so that none keeps another waiting.
//!
//! A thread that ends, with an error or by a panic, is the end of the agent: it exits with an error, the
//! kubelet starts it again, and what is pinned goes on enforcing. What can be done again without that is left
//! to `supervise`.

use std::{
    sync::mpsc as blocking,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use tokio::{
    runtime::Runtime,
    sync::{mpsc, watch},
};

/// How long a thread may take to end in order; a pass that runs is not waited for longer, and its end changes
/// nothing. Less than `terminationGracePeriodSeconds` in deploy/base.
const END: Duration = Duration::from_secs(2);

/// Those that run.
#[derive(Debug)]
pub(super) struct Threads {
    stop: watch::Sender<bool>,
    end: mpsc::UnboundedSender<anyhow::Error>,
    ended: mpsc::UnboundedReceiver<anyhow::Error>,
    /// A receiver for each thread; its sender goes when the thread has ended in order.
    running: Vec<blocking::Receiver<()>>,
}

impl Threads {
    pub(super) fn new() -> Self {
        let (end, ended) = mpsc::unbounded_channel();
        Self { stop: watch::Sender::new(false), end, ended, running: Vec::new() }
    }

    /// Runs what `start` makes on a thread of that name, until the threads are stopped.
    pub(super) fn spawn<F>(
        &mut self,
        name: &'static str,
        start: impl FnOnce() -> F + Send + 'static,
    ) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        let mut stop = self.stop.subscribe();
        let end = ThreadEnd { thread: name, to: self.end.clone(), reason: "it panicked".to_owned() };
        let (alive, running) = blocking::channel();
        let work = move || {
            let mut end = end;
            let _alive: blocking::Sender<()> = alive;
            let ended = super::runtime().and_then(|runtime| {
                let ended = runtime.block_on(async {
                    tokio::select! {
                        ended = start() => ended,
                        _ = stop.wait_for(|stop| *stop) => Ok(()),
                    }
                });
                // Without waiting for what blocks: no one needs it any more.
                Runtime::shutdown_background(runtime);
                ended
            });
            end.reason =
                ended.map_or_else(|error| format!("{error:#}"), |()| "nothing is left to do".to_owned());
        };
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(work)
            .with_context(|| format!("cannot start the thread {name}"))?;
        self.running.push(running);
        Ok(())
    }

    /// Waits for a thread to end; none should.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        self.ended.recv().await.expect("a sender lives in self")
    }

    /// Asks all threads to end, and waits a moment for them.
    pub(super) fn stop(self) {
        self.stop.send_replace(true);
        let deadline = Instant::now() + END;
        for running in self.running {
            // The end of a thread disconnects it.
            let _ = running.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        }
    }
}

/// Tells that a thread has ended, also when it panics.
struct ThreadEnd {
    thread: &'static str,
    to: mpsc::UnboundedSender<anyhow::Error>,
    reason: String,
}

impl Drop for ThreadEnd {
    fn drop(&mut self) {
        // No one listens any more when the agent ends.
        let _ = self.to.send(anyhow!("the thread {} has ended: {}", self.thread, self.reason));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end_of(start: impl FnOnce() -> Result<()> + Send + 'static) -> String {
        let mut threads = Threads::new();
        threads.spawn("other", std::future::pending::<Result<()>>).unwrap();
        threads.spawn("test", || async { start() }).unwrap();
        let ended = super::super::runtime().unwrap().block_on(threads.ended());
        threads.stop();
        ended.to_string()
    }

    #[test]
    fn a_thread_that_ends_is_reported_with_its_name_and_reason() {
        assert_eq!(end_of(|| Err(anyhow!("disk full"))), "the thread test has ended: disk full");
        assert_eq!(end_of(|| panic!("expected by the test")), "the thread test has ended: it panicked");
        assert_eq!(end_of(|| Ok(())), "the thread test has ended: nothing is left to do");
    }

    #[test]
    fn stop_does_not_wait_for_a_thread_that_blocks() {
        let (release, blocks) = blocking::channel::<()>();
        let (started, start) = blocking::channel();
        let mut threads = Threads::new();
        let block = move || async move {
            started.send(()).unwrap();
            let _ = blocks.recv();
            Ok(())
        };
        threads.spawn("blocks", block).unwrap();
        start.recv().unwrap();
        let began = Instant::now();
        threads.stop();
        assert!(began.elapsed() < 10 * END);
        drop(release);
    }
}
