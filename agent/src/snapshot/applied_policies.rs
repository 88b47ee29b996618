//! Which policies have a say in a pod's connections in one direction, and what changes when others do.

use std::{collections::HashSet, fmt, hash::Hash, sync::Arc};

use podgate_common::Direction;
use podgate_core::{
    model::{
        CalicoPolicy, CalicoPolicyName, CalicoRule, ClusterNetworkPolicy, ClusterPolicyName, ClusterRule,
        NetworkPolicy, ObjectName, Pod, PolicyRef, Rule,
    },
    policy_walk::OrderedPolicies,
};

/// The policies that have a say in one direction.
#[derive(Clone, Debug, Default)]
pub struct AppliedPolicies {
    /// Those that isolate.
    pub policies: Vec<Arc<NetworkPolicy>>,
    /// Those with rules, in the order in which they are asked.
    pub cluster_policies: Vec<Arc<ClusterNetworkPolicy>>,
    /// Those of Calico's, in the order in which they are asked.
    pub calico_policies: Vec<Arc<CalicoPolicy>>,
    /// Whether what none of their rules matches is denied.
    pub isolates: bool,
    /// The names of those in audit mode, which only tell.
    pub audit: Vec<String>,
}

/// How the rules of one policy for a pod have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PolicyChange {
    pub(crate) policy: String,
    pub(crate) added: usize,
    pub(crate) removed: usize,
}

impl AppliedPolicies {
    pub(crate) fn of(policies: &OrderedPolicies<'_>, pod: &Pod, direction: Direction) -> Self {
        let cluster = policies.cluster();
        let walk = policies.for_pod(pod, direction);
        let mut applied = Self { isolates: walk.enforced().isolates(), ..Self::default() };
        for policy in walk.policies() {
            match policy {
                policy if walk.audits(policy) => applied.audit.push(policy.name().to_string()),
                PolicyRef::Namespaced(policy) => {
                    applied.policies.extend(cluster.policies.get(&policy.name).cloned());
                }
                PolicyRef::Cluster(policy) => {
                    applied.cluster_policies.extend(cluster.cluster_policies.get(&policy.name).cloned());
                }
                PolicyRef::Calico(policy) => applied.calico_policies.push(policy.clone()),
            }
        }
        applied
    }

    /// What became of each policy: one that has no say any more has lost all its rules, one that has not had
    /// any has won all. Policies that say the same as before are left out.
    pub(crate) fn changes(&self, now: &Self, direction: Direction) -> Vec<PolicyChange> {
        let before = (self.rules(direction), self.cluster_rules(direction), self.calico_rules(direction));
        let now = (now.rules(direction), now.cluster_rules(direction), now.calico_rules(direction));
        let mut changes = changes(&before.0, &now.0);
        changes.extend(self::changes(&before.1, &now.1));
        changes.extend(self::changes(&before.2, &now.2));
        changes
    }

    fn rules(&self, direction: Direction) -> Vec<(&ObjectName, &[Rule])> {
        self.policies
            .iter()
            .map(|policy| (&policy.name, policy.rules(direction).unwrap_or_default()))
            .collect()
    }

    fn calico_rules(&self, direction: Direction) -> Vec<(&CalicoPolicyName, &[CalicoRule])> {
        let policies = self.calico_policies.iter();
        policies.map(|policy| (&policy.name, policy.rules(direction).unwrap_or_default())).collect()
    }

    fn cluster_rules(&self, direction: Direction) -> Vec<(&ClusterPolicyName, &[ClusterRule])> {
        self.cluster_policies.iter().map(|policy| (&policy.name, policy.rules(direction))).collect()
    }
}

/// Names for a log line.
impl fmt::Display for AppliedPolicies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policies, cluster_policies, calico_policies, isolates: _, audit } = self;
        let names = policies.iter().map(|policy| policy.name.to_string());
        let names = names.chain(cluster_policies.iter().map(|policy| policy.name.to_string()));
        let names: Vec<_> =
            names.chain(calico_policies.iter().map(|policy| policy.name.to_string())).collect();
        f.write_str(if names.is_empty() { "free" } else { "" })?;
        f.write_str(&names.join(","))?;
        if audit.is_empty() { Ok(()) } else { write!(f, " (in audit mode: {})", audit.join(",")) }
    }
}

fn changes<N: PartialEq + fmt::Display, R: Eq + Hash>(
    before: &[(N, &[R])],
    now: &[(N, &[R])],
) -> Vec<PolicyChange> {
    let find =
        |all: &[(N, &[R])], name: &N| -> Option<usize> { all.iter().position(|(other, _)| other == name) };
    let missing = |these: &[R], those: &[R]| {
        let those: HashSet<&R> = those.iter().collect();
        these.iter().filter(|rule| !those.contains(rule)).count()
    };
    let mut changes = Vec::new();
    for (name, rules) in now {
        let known = find(before, name).map(|place| before[place].1);
        let had = known.unwrap_or_default();
        // Mostly it is the same policy, and its rules are not looked at.
        if !known.is_some_and(|known| std::ptr::eq(known, *rules) || known == *rules) {
            let (added, removed) = (missing(rules, had), missing(had, rules));
            changes.push(PolicyChange { policy: name.to_string(), added, removed });
        }
    }
    for (name, rules) in before.iter().filter(|(name, _)| find(now, name).is_none()) {
        changes.push(PolicyChange { policy: name.to_string(), added: 0, removed: rules.len() });
    }
    changes
}

#[cfg(test)]
mod tests {
    use podgate_common::Protocol;

    use super::*;
    use podgate_core::model::{Peers, PortRule, Ports, Selector};

    fn applied_policies(policies: &[(&str, &[u16])]) -> AppliedPolicies {
        let rule = |port: &u16| Rule {
            peers: Peers::Any,
            ports: Ports::Listed(vec![PortRule::Range {
                protocol: Protocol::Tcp,
                first: *port,
                last: *port,
            }]),
        };
        let policies = policies.iter().map(|(name, ports)| NetworkPolicy {
            name: ObjectName::new("x", *name),
            subject: Selector::EVERYTHING,
            ingress: Some(ports.iter().map(rule).collect()),
            egress: None,
            audit: false,
        });
        AppliedPolicies { policies: policies.map(Arc::new).collect(), ..AppliedPolicies::default() }
    }

    #[test]
    fn rules_that_are_added_and_removed_are_counted_for_each_policy() {
        let before = applied_policies(&[("gone", &[1, 2]), ("same", &[3]), ("edited", &[4, 5, 6])]);
        let now =
            applied_policies(&[("new", &[7]), ("same", &[3]), ("edited", &[4, 8, 9, 10]), ("deny", &[])]);
        let found: Vec<_> = before
            .changes(&now, Direction::Ingress)
            .into_iter()
            .map(|PolicyChange { policy, added, removed }| format!("{policy} +{added} -{removed}"))
            .collect();
        assert_eq!(found, ["x/new +1 -0", "x/edited +3 -2", "x/deny +0 -0", "x/gone +0 -2"]);
        assert_eq!(now.changes(&now, Direction::Ingress), []);
    }
}
