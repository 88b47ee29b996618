//! Since when veths and pods are known: who can be behind a veth that no one claims.
//!
//! In: what is there, what was remembered before, and the time. Out: the same with the new ones in it. A
//! pod's veth is made after its object: the kubelet acts on what the API server has. So an older veth is not
//! that pod's, and one that no one has claimed for long belongs to a container that is no pod.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use podgate_common::EndpointState;
use podgate_core::model::ObjectName;

use super::{Candidate, Evidence};

/// How long a new veth is held for pods that have none. CNI plug-ins take some seconds, the kubelet some more
/// until a pod's status has its addresses.
pub const LONGEST_HOLD: Duration = Duration::from_secs(60);

/// What must be remembered from one look to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// By ifindex and generation: when a veth was seen first; `None`: before this agent came.
    veths: BTreeMap<(u32, u32), Option<Instant>>,
    /// When a pod of this node was known first.
    pods: BTreeMap<ObjectName, Instant>,
    /// The first look.
    start: Option<Instant>,
    /// Ifindexes of veths that an earlier agent knew the pods of.
    of_pods: BTreeSet<u32>,
}

impl History {
    /// What an earlier agent has left: how it evaluated the veths, by ifindex. One that it held may still be
    /// a pod's that this agent will know; one that it did not hold was there before.
    pub fn of_earlier_agent(veths: impl IntoIterator<Item = (u32, EndpointState)>) -> Self {
        let mut history = Self::default();
        for (ifindex, state) in veths {
            match state {
                EndpointState::Identified => {
                    history.of_pods.insert(ifindex);
                }
                EndpointState::Unmanaged => {
                    history.veths.insert((ifindex, 0), None);
                }
                EndpointState::Pending => {}
            }
        }
        history
    }

    pub(super) fn with(&self, evidence: &Evidence<'_>, candidates: &[Candidate<'_>], now: Instant) -> Self {
        let veths = candidates.iter().map(|candidate| {
            let key = key(candidate);
            (key, self.veths.get(&key).copied().unwrap_or(Some(now)))
        });
        let pods = evidence.local_pods().map(|pod| {
            let since = self.pods.get(&pod.name).copied().unwrap_or(now);
            (pod.name.clone(), since)
        });
        let present = |ifindex: &&u32| evidence.network.links.contains_key(*ifindex);
        Self {
            veths: veths.collect(),
            pods: pods.collect(),
            start: self.start.or(Some(now)),
            of_pods: self.of_pods.iter().filter(present).copied().collect(),
        }
    }

    /// Until when a veth can be held for a pod that has none; `None`: it cannot be that pod's.
    pub(super) fn hold(&self, candidate: &Candidate<'_>, pod: &ObjectName, now: Instant) -> Option<Instant> {
        let seen = self.veths.get(&key(candidate)).copied().flatten()?;
        let known = self.pods.get(pod)?;
        let until = seen + LONGEST_HOLD;
        (*known <= seen && now < until).then_some(until)
    }

    /// Whether this veth was there before anything that the agent has seen come.
    pub(super) fn was_first(&self, candidate: &Candidate<'_>) -> bool {
        match self.veths.get(&key(candidate)) {
            Some(None) => true,
            Some(seen) => *seen == self.start,
            None => false,
        }
    }

    /// Whether this very device was there at the look before.
    pub(super) fn knows(&self, candidate: &Candidate<'_>) -> bool {
        self.veths.contains_key(&key(candidate))
    }

    /// Whether an earlier agent knew a pod behind it.
    pub(super) fn was_a_pods(&self, candidate: &Candidate<'_>) -> bool {
        candidate.link.generation == 0 && self.of_pods.contains(&candidate.ifindex)
    }
}

fn key(candidate: &Candidate<'_>) -> (u32, u32) {
    (candidate.ifindex, candidate.link.generation)
}
