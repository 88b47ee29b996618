//! What is reported of hits: of the policies that select pods of this node, and the drops of these pods.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use podgate_common::{Direction, Outcome};
use podgate_core::{
    model::{Cluster, ObjectName, Pod, PolicyName},
    policy_walk::OrderedPolicies,
};

use super::{HitCounts, rules};

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HitReport {
    /// For how long.
    pub counted: Duration,
    pub policies: BTreeMap<PolicyName, PolicyHits>,
    /// Dropped packets of the pods that are there.
    pub drops: BTreeMap<(ObjectName, Direction, Outcome), u64>,
}

/// What a policy has done on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyHits {
    /// It is in audit mode for a pod of this node.
    pub audit: bool,
    /// The local pods that it selects.
    pub pods: Vec<ObjectName>,
    /// `None`: it says nothing of this direction.
    pub ingress: Option<DirectionHits>,
    pub egress: Option<DirectionHits>,
}

/// The same in one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectionHits {
    pub rules: Vec<RuleCount>,
    /// Packets that were dropped because no rule of it, nor of another policy, allows them.
    pub denied: u64,
    /// The same of a policy in audit mode: they have passed.
    pub would_deny: u64,
}

/// What one rule has matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleCount {
    /// New connections; of a rule that denies, packets.
    pub hits: u64,
    /// For how long nothing has matched it; `None`: nothing ever has.
    pub idle: Option<Duration>,
}

impl HitCounts {
    /// All policies that select one of these pods, with what they have done, and all drops.
    pub fn report<'a>(
        &self,
        cluster: &Cluster,
        pods: impl IntoIterator<Item = &'a Arc<Pod>>,
        now: SystemTime,
    ) -> HitReport {
        let mut found: BTreeMap<PolicyName, PolicyHits> = BTreeMap::new();
        let policies = OrderedPolicies::of(cluster);
        for pod in pods {
            for direction in Direction::ALL {
                let walk = policies.for_pod(pod, direction);
                for of_walk in walk.policies() {
                    let policy = of_walk.name();
                    let hits = found.entry(policy.clone()).or_insert_with(|| PolicyHits {
                        audit: walk.audits(of_walk),
                        ..PolicyHits::default()
                    });
                    if !hits.pods.contains(&pod.name) {
                        hits.pods.push(pod.name.clone());
                    }
                    let side = match direction {
                        Direction::Ingress => &mut hits.ingress,
                        Direction::Egress => &mut hits.egress,
                    };
                    side.get_or_insert_with(|| self.hits(cluster, &policy, direction, now));
                }
            }
        }
        HitReport { counted: between(self.began, now), policies: found, drops: self.drops.clone() }
    }

    fn hits(
        &self,
        cluster: &Cluster,
        policy: &PolicyName,
        direction: Direction,
        now: SystemTime,
    ) -> DirectionHits {
        let rules = rules(cluster, policy);
        let counts = self.policies.get(&(policy.clone(), direction));
        let counts = counts.filter(|counts| counts.of.says_the_same(&rules, direction));
        let rules = (0..rules.len(direction)).map(|rule| {
            let (hits, last) = counts.and_then(|counts| counts.rules.get(&rule)).copied().unwrap_or_default();
            RuleCount { hits, idle: last.map(|last| between(last, now)) }
        });
        DirectionHits {
            rules: rules.collect(),
            denied: counts.map_or(0, |counts| counts.denied),
            would_deny: counts.map_or(0, |counts| counts.would_deny),
        }
    }
}

/// Clocks are set back at times.
fn between(since: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(since).unwrap_or_default()
}

#[cfg(test)]
impl HitReport {
    /// One policy with three rules, of one pod.
    pub(crate) fn example() -> Self {
        let rule = |hits, idle: Option<u64>| RuleCount { hits, idle: idle.map(Duration::from_secs) };
        let rules = vec![rule(12, Some(3)), rule(0, None), rule(3, Some(90_000))];
        let hits = PolicyHits {
            pods: vec![ObjectName::new("x", "a")],
            ingress: Some(DirectionHits { rules, denied: 5, would_deny: 0 }),
            ..PolicyHits::default()
        };
        let policies = BTreeMap::from([(PolicyName::Namespaced(ObjectName::new("x", "p")), hits)]);
        Self { counted: Duration::from_secs(9), policies, drops: BTreeMap::new() }
    }
}
