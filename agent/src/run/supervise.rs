//! Tasks that can be started again: each is, with pauses that grow, and is counted.

use std::time::{Duration, Instant};

use crate::server::TaskRestarts;

/// Between the end of a task and its next start: each pause is twice as long as the one before, up to the
/// longest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pauses {
    first: Duration,
    longest: Duration,
}

pub(super) const PAUSES: Pauses =
    Pauses { first: Duration::from_millis(200), longest: Duration::from_secs(30) };

/// Runs a task for ever; it returns an error when it ends. `task`: its name in `podgate_task_restarts_total`.
pub(super) async fn supervise(
    task: &'static str,
    restarts: TaskRestarts,
    Pauses { first, longest }: Pauses,
    mut run: impl AsyncFnMut() -> anyhow::Error,
) {
    restarts.register(task);
    let mut pause = first;
    loop {
        let began = Instant::now();
        let error = run().await;
        if began.elapsed() > longest {
            pause = first;
        }
        restarts.count(task);
        tracing::error!(task, ?pause, error = format!("{error:#}"), "a task has ended and is restarted");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_is_restarted_after_growing_pauses_and_counted() {
        let restarts = TaskRestarts::default();
        let pauses = Pauses { first: Duration::from_millis(2), longest: Duration::from_secs(60) };
        let (starts, mut started) = tokio::sync::mpsc::unbounded_channel();
        let run = async || {
            starts.send(Instant::now()).unwrap();
            anyhow::anyhow!("broken")
        };
        let observe = async {
            let mut last = started.recv().await.unwrap();
            for pause in [2, 4, 8, 16] {
                let next = started.recv().await.unwrap();
                assert!(next - last >= Duration::from_millis(pause), "{:?} before restart", next - last);
                last = next;
            }
        };
        tokio::select! {
            () = supervise("events", restarts.clone(), pauses, run) => {}
            () = observe => {}
        }
        assert!(restarts.read()["events"] >= 4, "{restarts:?}");
    }
}
