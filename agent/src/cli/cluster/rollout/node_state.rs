//! Whether one node enforces a policy as it is now.

use super::target::Target;
use crate::api::{EnforcedObject, PolicyRollout, RolloutReport, UnguardedPod};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NodeState {
    Done {
        pods: usize,
        latency_microseconds: u64,
    },
    /// `pods`: those that it selects there, if that is known.
    Waiting {
        pods: Option<usize>,
        reason: String,
    },
}

impl NodeState {
    pub(super) const fn is_done(&self) -> bool {
        match self {
            Self::Done { .. } => true,
            Self::Waiting { .. } => false,
        }
    }

    /// One for each of the policies.
    pub(super) fn of_all(report: &RolloutReport, targets: &[Target]) -> Vec<Self> {
        let policies: std::collections::BTreeMap<&str, &PolicyRollout> =
            report.policies.iter().map(|policy| (&*policy.policy, policy)).collect();
        targets
            .iter()
            .map(|target| Self::of(report, policies.get(&*target.policy).copied(), target))
            .collect()
    }

    fn of(report: &RolloutReport, policy: Option<&PolicyRollout>, target: &Target) -> Self {
        let error = report.last_error.as_ref().map(|error| format!(" (its last error: {error})"));
        let waits = |pods: Option<usize>, reason: String| Self::Waiting {
            pods,
            reason: reason + error.as_deref().unwrap_or_default(),
        };
        if !report.ready {
            return waits(None, "its agent has not enforced a first full picture yet".into());
        }
        let Some(PolicyRollout { policy: _, object, pods, unenforced }) = policy else {
            return waits(None, "it does not enforce the policy yet".into());
        };
        let Some(EnforcedObject { uid, resource_version, latency_microseconds, .. }) = object else {
            return waits(Some(*pods), "its agent reads manifests, which have no versions".into());
        };
        if *uid != target.uid {
            return waits(Some(*pods), "it enforces an earlier policy of this name".into());
        }
        if !is_reached(resource_version.as_deref(), target.resource_version.as_deref()) {
            let [enforced, wanted] = [resource_version, &target.resource_version]
                .map(|version| version.as_deref().unwrap_or("-").to_owned());
            return waits(Some(*pods), format!("it enforces version {enforced}, not {wanted} yet"));
        }
        if let [UnguardedPod { pod, reason }, others @ ..] = &unenforced[..] {
            let others =
                if others.is_empty() { String::new() } else { format!(", and {} more", others.len()) };
            return waits(Some(*pods), format!("not enforced on pod {pod} ({reason}){others}"));
        }
        Self::Done { pods: *pods, latency_microseconds: *latency_microseconds }
    }
}

/// Versions of one object are numbers that grow; a server with others is asked for the very same.
fn is_reached(enforced: Option<&str>, wanted: Option<&str>) -> bool {
    let number = |version: Option<&str>| version.and_then(|version| version.parse::<u128>().ok());
    match (number(enforced), number(wanted)) {
        (Some(enforced), Some(wanted)) => enforced >= wanted,
        (Some(_) | None, _) => enforced == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_version_counts_and_one_that_is_no_number_must_be_the_same() {
        for (enforced, wanted, expected) in [
            ("9", "10", false),
            ("10", "10", true),
            ("11", "10", true),
            ("a", "a", true),
            ("b", "a", false),
            ("11", "a", false),
        ] {
            assert_eq!(is_reached(Some(enforced), Some(wanted)), expected, "{enforced} {wanted}");
        }
        assert!(!is_reached(None, Some("1")));
    }
}
