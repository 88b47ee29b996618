//! Whether the tables in the kernel say what an explanation says.
//!
//! In: an explanation, snapshots, and a handle that asks the tables. Out: where they disagree. Tables that a
//! pass is changing are asked again: what they say then is neither of this revision nor of the next.

use std::sync::Arc;

use anyhow::Result;
use podgate_common::{KernelVerdict, VerdictQuery};
use podgate_core::explain::{ExpectedVerdict, Explanation, KernelCheck};
use tokio::{sync::watch, task};

use crate::snapshot::Snapshot;

/// Asks the tables in the kernel.
pub type AskTables = Arc<dyn Fn(&VerdictQuery) -> Result<KernelVerdict> + Send + Sync>;

/// Compares an explanation of a revision with the kernel; `None`: it could not be asked, or was of another
/// revision then. Waits while passes change the tables, and asks from a thread for what blocks.
pub async fn check_tables(
    ask: &AskTables,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    explanation: &Explanation,
    revision: u32,
) -> Option<KernelCheck> {
    let expected: Arc<[ExpectedVerdict]> = explanation.expected_verdicts().into_iter().collect();
    loop {
        let before = snapshots.wait_for(|snapshot| !snapshot.is_changing).await.ok()?.clone();
        if before.progress.revision != revision {
            return None;
        }
        let (ask, asked_of, questions) = (ask.clone(), before.clone(), expected.clone());
        let ask_all = move || -> Vec<Option<bool>> {
            questions.iter().map(|expected| verdict(&ask, &asked_of, expected)).collect()
        };
        let answers = task::spawn_blocking(ask_all).await.expect("who asks does not panic");
        if !Arc::ptr_eq(&before, &snapshots.borrow()) {
            continue;
        }
        let known = || expected.iter().zip(&answers).filter(|(_, allowed)| allowed.is_some());
        let disagreements = known().filter(|(expected, allowed)| **allowed != Some(expected.allowed));
        return Some(KernelCheck {
            asked: known().count(),
            disagreements: disagreements.map(|(expected, _)| expected.to_string()).collect(),
        });
    }
}

/// What the tables say; `None`: the pod is not known behind a veth of this node, or the kernel does not
/// answer.
fn verdict(ask: &AskTables, snapshot: &Snapshot, expected: &ExpectedVerdict) -> Option<bool> {
    let ExpectedVerdict { pod, direction, peer, protocol, port, allowed: _ } = expected;
    let veth = snapshot.interface_of(pod)?;
    let query = VerdictQuery::new(veth.ifindex, *direction, (*peer).into(), *protocol, *port);
    match ask(&query).inspect_err(|error| tracing::warn!("{error:#}")).ok()? {
        KernelVerdict::Unknown => None,
        KernelVerdict::Denied => Some(false),
        KernelVerdict::Allowed => Some(true),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use podgate_core::explain::{Question, explain};

    use super::*;

    fn explanation(snapshot: &Snapshot) -> Explanation {
        let [from, to] = ["x/a", "x/b"].map(|end| end.parse().unwrap());
        explain(&snapshot.cluster, &Question { from, to, port: "TCP/80".parse().unwrap() }).unwrap()
    }

    #[tokio::test]
    async fn tables_that_a_pass_has_changed_meanwhile_are_asked_again_when_it_is_over() {
        let snapshot = Snapshot::example(true);
        let explanation = explanation(&snapshot);
        let (state, snapshots) = watch::channel(Arc::new(snapshot));
        let state = Arc::new(state);
        let asked = Arc::new(AtomicUsize::new(0));
        let (sender, count) = (state.clone(), asked.clone());
        // As long as the pass writes, the tables say something else.
        let ask: AskTables = Arc::new(move |_| {
            if count.fetch_add(1, Ordering::Relaxed) == 0 {
                sender.send_modify(|state| Arc::make_mut(state).is_changing = true);
            }
            let is_changing = sender.borrow().is_changing;
            Ok(if is_changing { KernelVerdict::Denied } else { KernelVerdict::Allowed })
        });
        let over = async {
            while asked.load(Ordering::Relaxed) < 2 {
                task::yield_now().await;
            }
            state.send_modify(|state| Arc::make_mut(state).is_changing = false);
        };
        let (check, ()) = tokio::join!(check_tables(&ask, snapshots.clone(), &explanation, 7), over);
        let check = check.expect("the revision is the same");
        assert_eq!((check.asked, check.disagreements.len()), (2, 0), "{:?}", check.disagreements);
        assert_eq!(asked.load(Ordering::Relaxed), 4, "both families twice, and not while the pass writes");
        // An explanation of another revision is compared with nothing.
        assert!(check_tables(&ask, snapshots, &explanation, 6).await.is_none());
    }
}
