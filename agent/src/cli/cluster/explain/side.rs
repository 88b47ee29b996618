//! One side of a connection: what its policies say, who enforces them, and what happens there.

use podgate_common::Direction;
use podgate_core::explain::{DirectionResult, Explanation, Verdict};
use serde::Serialize;

/// One side, and who enforces it.
#[derive(Debug, Serialize)]
pub(super) struct SideReport {
    /// `None`: the end is no pod that policies select.
    pub(super) pod: Option<String>,
    pub(super) node: Option<String>,
    pub(super) enforcement: SideEnforcement,
    /// Why it is not `enforced`.
    pub(super) because: Option<String>,
    /// What happens on this side; `None`: it is not known.
    pub(super) verdict: Option<Verdict>,
    /// What policies say; `None`: no agent has answered.
    pub(super) policies: Option<DirectionResult>,
    /// The node whose agent says so, where it is another one than that of the pod.
    pub(super) quoted_from: Option<String>,
    /// What agents say differently.
    pub(super) notes: Vec<String>,
}

/// Whether what policies say of a side is what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum SideEnforcement {
    Enforced,
    NotEnforced,
    /// On another leg of the connection.
    Elsewhere,
    /// The agent does not answer; what it last enforced is in force.
    Unknown,
}

impl SideReport {
    pub(super) const fn not_enforced(pod: Option<String>, node: Option<String>, because: String) -> Self {
        Self {
            pod,
            node,
            enforcement: SideEnforcement::NotEnforced,
            because: Some(because),
            verdict: Some(Verdict::Allow),
            policies: None,
            quoted_from: None,
            notes: Vec::new(),
        }
    }

    pub(super) fn unknown(
        pod: Option<String>,
        node: Option<String>,
        because: String,
        quoted: Option<(Direction, &Explanation)>,
    ) -> Self {
        let policies = quoted.map(|(direction, quoted)| side_of(quoted, direction).clone());
        Self {
            pod,
            node,
            enforcement: SideEnforcement::Unknown,
            because: Some(because),
            verdict: policies.as_ref().map(|policies| policies.verdict),
            policies,
            quoted_from: None,
            notes: Vec::new(),
        }
    }
}

pub(super) const fn side_of(explanation: &Explanation, direction: Direction) -> &DirectionResult {
    match direction {
        Direction::Egress => &explanation.egress,
        Direction::Ingress => &explanation.ingress,
    }
}
