//! What policies do for each pod of the fixtures' cluster.

use std::sync::Arc;

use super::*;
use crate::{
    fixtures::{cluster, has, policy},
    model::{
        Action, ClusterNetworkPolicy, ClusterPolicyKind, ClusterPolicyName, ClusterRule, ClusterSubject,
        NetworkPolicy, Peers, Ports, Rule, Selector, Tier,
    },
};

fn of(cluster: &Cluster, pod: &str) -> (&'static str, &'static str) {
    let coverage = coverage(cluster);
    let x = coverage.namespaces.iter().find(|namespace| &*namespace.name == "x").unwrap();
    let pod = x.pods.iter().find(|covered| &*covered.name == pod).unwrap();
    (pod.ingress.word(), pod.egress.word())
}

#[test]
fn a_pod_is_isolated_by_enforced_policies_per_direction() {
    let nothing = || Some(Vec::new());
    let audit = |name| NetworkPolicy { audit: true, ..policy(name, nothing(), None) };
    let backend = NetworkPolicy { subject: has("role", "backend"), ..policy("p", nothing(), None) };
    for (policies, expected) in [
        (vec![], ("none", "none")),
        (vec![policy("p", nothing(), None)], ("isolated", "none")),
        (vec![policy("p", None, nothing())], ("none", "isolated")),
        (vec![audit("p")], ("audit-only", "none")),
        (vec![audit("p"), policy("q", nothing(), None)], ("isolated", "none")),
        (vec![backend], ("none", "none")),
    ] {
        assert_eq!(of(&cluster(policies.clone()), "a"), expected, "{policies:?}");
    }
}

#[test]
fn a_cluster_wide_policy_covers_and_does_not_isolate() {
    let matches = Rule { peers: Peers::Any, ports: Ports::Any };
    let wide = ClusterNetworkPolicy {
        name: ClusterPolicyName { name: "base".into(), kind: ClusterPolicyKind::ClusterNetworkPolicy },
        tier: Tier::Admin,
        priority: 1,
        subject: ClusterSubject { namespaces: Selector::EVERYTHING, pods: Selector::EVERYTHING },
        ingress: vec![ClusterRule { action: Action::Deny, matches }],
        egress: Vec::new(),
        audit: false,
    };
    let mut cluster = cluster(vec![NetworkPolicy { audit: true, ..policy("p", Some(Vec::new()), None) }]);
    cluster.cluster_policies.insert(wide.name.clone(), Arc::new(wide));
    assert_eq!(of(&cluster, "a"), ("cluster-wide", "none"));
}

#[test]
fn pods_are_counted_without_those_on_the_host_network() {
    let coverage = coverage(&cluster(vec![policy("p", Some(Vec::new()), None)]));
    let counts = |isolated, none| CoverageCounts { isolated, none, ..CoverageCounts::default() };
    assert_eq!((coverage.ingress, coverage.egress), (counts(2, 4), counts(0, 6)));
    let names: Vec<&str> = coverage.namespaces.iter().map(|namespace| &*namespace.name).collect();
    assert_eq!(names, ["x", "y"]);
    let of_x = coverage.of_namespace("x");
    assert_eq!((of_x.ingress, of_x.namespaces.len()), (counts(2, 0), 1));
}

#[test]
fn a_percentage_is_met_or_not() {
    for (isolated, none, percent, expected) in [
        (1, 1, 50, true),
        (1, 1, 51, false),
        (1, 2, 34, false),
        (1, 2, 33, true),
        (0, 0, 100, true),
        (0, 3, 0, true),
        (3, 0, 100, true),
    ] {
        let counts = CoverageCounts { isolated, none, ..CoverageCounts::default() };
        assert_eq!(counts.has_isolated(percent), expected, "{counts:?} {percent}");
    }
}
