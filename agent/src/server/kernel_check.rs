//! Asks the agent's loop, which owns the kernel's tables, whether these say what an explanation says.

use std::time::Duration;

use podgate_core::explain::{ExpectedVerdict, Explanation, KernelCheck};
use tokio::{
    sync::{mpsc, oneshot},
    time,
};

/// An agent that is busy compiling answers later.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the loop is asked.
#[derive(Debug)]
pub struct KernelCheckRequest {
    pub expected_verdicts: Vec<ExpectedVerdict>,
    pub reply: oneshot::Sender<KernelCheckReply>,
}

/// What it answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelCheckReply {
    /// When it was asked.
    pub revision: u32,
    /// For each of them whether the tables allow it; `None`: the pod is not behind a veth of this node.
    pub allowed: Vec<Option<bool>>,
}

/// Compares an explanation of a revision with the kernel; `None`: it could not be asked, or was of another
/// revision then.
pub(super) async fn check(
    asked: &mpsc::Sender<KernelCheckRequest>,
    explanation: &Explanation,
    revision: u32,
) -> Option<KernelCheck> {
    let expected_verdicts: Vec<ExpectedVerdict> = explanation.expected_verdicts().into_iter().collect();
    let (reply, answer) = oneshot::channel();
    asked.try_send(KernelCheckRequest { expected_verdicts: expected_verdicts.clone(), reply }).ok()?;
    let kernel_reply = time::timeout(PATIENCE, answer).await.ok()?.ok()?;
    if kernel_reply.revision != revision {
        return None;
    }
    let known =
        || expected_verdicts.iter().zip(&kernel_reply.allowed).filter(|(_, allowed)| allowed.is_some());
    let disagreements =
        known().filter(|(expected_verdict, allowed)| **allowed != Some(expected_verdict.allowed));
    Some(KernelCheck {
        asked: known().count(),
        disagreements: disagreements.map(|(expected_verdict, _)| expected_verdict.to_string()).collect(),
    })
}
