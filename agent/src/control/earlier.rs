//! What an earlier agent has left in force, and which pictures may take its place.

use anyhow::Result;
use podgate_datapath::Pins;

use crate::source::{ClusterSnapshot, InForce};

/// What was in force when this agent started, and the cluster whose policies are in force by now.
#[derive(Debug)]
pub(crate) struct Earlier {
    holds_programs: bool,
    cluster_id: Option<String>,
}

impl Earlier {
    /// To be read before anything is attached.
    pub(crate) fn of(pins: &Pins) -> Result<Self> {
        Ok(Self { holds_programs: pins.hold_programs()?, cluster_id: pins.cluster_id()? })
    }

    /// Why a picture must not be enforced; `None`: it may be. After this agent's first picture the pins hold
    /// nothing of an earlier agent that a later picture could lack.
    pub(super) fn refusal(&self, picture: &ClusterSnapshot, is_enforcing: bool) -> Option<String> {
        let is_pinned = self.holds_programs && !is_enforcing;
        picture.refusal(InForce { is_pinned, cluster_id: self.cluster_id.as_deref() })
    }

    /// Remembers beyond this agent's end which cluster's policies are in force.
    pub(super) fn note_cluster(&mut self, enforced: Option<&ClusterSnapshot>, pins: &Pins) {
        let Some(id) = enforced.and_then(|picture| picture.cluster_id.as_ref()) else { return };
        if self.cluster_id.as_ref() != Some(id) {
            match pins.note_cluster_id(id) {
                Ok(()) => self.cluster_id = Some(id.clone()),
                Err(error) => tracing::warn!("cannot remember which cluster this is: {error:#}"),
            }
        }
    }
}
