//! Namespaces without a default deny, and rules of directions that are not isolated.

use super::*;
use crate::{
    fixtures::{from, has, labels, policy, rule},
    model::{
        Action, ClusterPolicyKind, ClusterPolicyName, ClusterRule, ClusterSubject, Namespace, Peers, Ports,
        Rule, Tier,
    },
};

#[test]
fn a_namespace_whose_pods_no_policy_isolates_all_is_found() {
    let nothing = || Some(Vec::new());
    let open = || Some(vec![rule(Peers::Any, Ports::Any)]);
    let some = || Some(vec![from(in_own(has("role", "frontend")))]);
    let of_some = NetworkPolicy { subject: has("role", "backend"), ..policy("web", nothing(), nothing()) };
    let audit = NetworkPolicy { audit: true, ..policy("web", nothing(), nothing()) };
    for (policies, ingress, egress) in [
        (vec![], true, true),
        (vec![policy("web", nothing(), None)], false, true),
        (vec![policy("web", None, nothing())], true, false),
        (vec![policy("web", some(), some())], false, false),
        (vec![policy("web", open(), nothing())], true, false),
        (vec![of_some], true, true),
        (vec![audit], true, true),
    ] {
        let of_x = |name| {
            let found = places_with(policies.clone(), name);
            assert!(found.contains(&"Namespace y: ".to_owned()), "no policy is in it");
            found.contains(&"Namespace x: ".to_owned())
        };
        let found = (of_x(LintName::NoDefaultDenyIngress), of_x(LintName::NoDefaultDenyEgress));
        assert_eq!(found, (ingress, egress), "{policies:?}");
    }
}

#[test]
fn a_namespace_in_audit_mode_denies_nothing() {
    let mut cluster = cluster(vec![policy("web", Some(Vec::new()), None)]);
    let namespace = Namespace { labels: labels(&[]), audit: true };
    cluster.namespaces.insert("x".into(), namespace.into());
    let found = places(&cluster, &ObjectNotes::default(), LintName::NoDefaultDenyIngress);
    assert_eq!(found, ["Namespace x: ", "Namespace y: "]);
}

#[test]
fn a_cluster_wide_denial_of_all_pods_is_a_default_deny() {
    let all = || across(Selector::EVERYTHING, Selector::EVERYTHING);
    let deny = |peer: Peer, action: Action, subject: Selector| ClusterNetworkPolicy {
        name: ClusterPolicyName { name: "base".into(), kind: ClusterPolicyKind::ClusterNetworkPolicy },
        tier: Tier::Baseline,
        priority: 1,
        subject: ClusterSubject { namespaces: subject, pods: Selector::EVERYTHING },
        ingress: vec![ClusterRule {
            action,
            matches: Rule { peers: Peers::Listed(vec![peer]), ports: Ports::Any },
        }],
        egress: Vec::new(),
        audit: false,
    };
    let (x, y) = ("Namespace x: ", "Namespace y: ");
    for (policy, expected) in [
        (deny(all(), Action::Deny, Selector::EVERYTHING), vec![]),
        (deny(all(), Action::Accept, Selector::EVERYTHING), vec![x, y]),
        (deny(across(has("a", "b"), Selector::EVERYTHING), Action::Deny, Selector::EVERYTHING), vec![x, y]),
        (deny(all(), Action::Deny, has("purpose", "test")), vec![x]),
    ] {
        let cluster = with_cluster_policies(vec![policy.clone()]);
        let found = places(&cluster, &ObjectNotes::default(), LintName::NoDefaultDenyIngress);
        assert_eq!(found, expected, "{policy:?}");
    }
}

#[test]
fn rules_that_policy_types_leave_out_are_found() {
    let cluster = cluster(vec![policy("web", Some(Vec::new()), None)]);
    let left_out = |directions: &[Direction]| ObjectNotes {
        left_out: [(ObjectName::new("x", "web"), directions.iter().copied().collect())].into(),
        ..ObjectNotes::default()
    };
    let name = LintName::RulesOutsidePolicyTypes;
    assert_eq!(places(&cluster, &left_out(&[]), name), [""; 0]);
    let found = places(&cluster, &left_out(&[Direction::Egress]), name);
    assert_eq!(found, ["NetworkPolicy x/web: spec.egress"]);
}
