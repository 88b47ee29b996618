//! Asks the agent's loop, which owns the kernel's tables, whether these say what an explanation says.

use std::time::Duration;

use tokio::{
    sync::{mpsc, oneshot},
    time,
};

use crate::explain::{Claim, Explanation, KernelCheck};

/// An agent that is busy compiling answers later.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the loop is asked.
#[derive(Debug)]
pub struct Inquiry {
    pub claims: Vec<Claim>,
    pub reply: oneshot::Sender<Testimony>,
}

/// What it answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Testimony {
    /// When it was asked.
    pub epoch: u32,
    /// For each claim whether the tables allow it; `None`: the pod is not behind a veth of this node.
    pub allowed: Vec<Option<bool>>,
}

/// Compares an explanation of an epoch with the kernel; `None`: it could not be asked, or was of another epoch then.
pub(super) async fn check(
    asked: &mpsc::Sender<Inquiry>,
    explanation: &Explanation,
    epoch: u32,
) -> Option<KernelCheck> {
    let claims: Vec<Claim> = explanation.claims().into_iter().collect();
    let (reply, answer) = oneshot::channel();
    asked.try_send(Inquiry { claims: claims.clone(), reply }).ok()?;
    let testimony = time::timeout(PATIENCE, answer).await.ok()?.ok()?;
    if testimony.epoch != epoch {
        return None;
    }
    let known = || claims.iter().zip(&testimony.allowed).filter(|(_, allowed)| allowed.is_some());
    let disagreements = known().filter(|(claim, allowed)| **allowed != Some(claim.allowed));
    Some(KernelCheck {
        asked: known().count(),
        disagreements: disagreements.map(|(claim, _)| claim.to_string()).collect(),
    })
}
