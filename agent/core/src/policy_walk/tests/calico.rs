//! Calico's tiers and policies in the one list.

use super::*;
use crate::model::{
    CalicoPolicy, CalicoPolicyKind, CalicoPolicyName, CalicoRule, CalicoTier, LabelExpression, PolicyScope,
    TierOrder,
};

fn order(number: f64) -> TierOrder {
    TierOrder::of(number).unwrap()
}

fn calico(kind: CalicoPolicyKind, name: &str, tier: &str, at: f64, actions: &[Action]) -> CalicoPolicy {
    let namespace = match kind {
        CalicoPolicyKind::GlobalNetworkPolicy | CalicoPolicyKind::StagedGlobalNetworkPolicy => None,
        CalicoPolicyKind::NetworkPolicy
        | CalicoPolicyKind::StagedNetworkPolicy
        | CalicoPolicyKind::StagedKubernetesNetworkPolicy => Some("x".into()),
    };
    let matches = || rule(Peers::Any, Ports::Any);
    CalicoPolicy {
        name: CalicoPolicyName { namespace, name: name.into(), kind },
        tier: tier.into(),
        order: order(at),
        subject: LabelExpression::EVERYTHING,
        ingress: Some(
            actions.iter().map(|action| CalicoRule { action: *action, matches: matches() }).collect(),
        ),
        egress: None,
        audit: kind.is_staged(),
        removes: false,
        scope: PolicyScope::Local,
    }
}

fn with_calico(mut cluster: Cluster, tiers: &[(&str, f64, bool)], policies: Vec<CalicoPolicy>) -> Cluster {
    for (name, at, passes_rest) in tiers {
        let tier = CalicoTier { order: order(*at), passes_rest: *passes_rest };
        cluster.calico.v3.tiers.insert((*name).into(), Arc::new(tier));
    }
    for policy in policies {
        cluster.calico.v3.policies.insert(policy.name.clone(), Arc::new(policy));
    }
    cluster
}

fn global(name: &str, tier: &str, at: f64, actions: &[Action]) -> CalicoPolicy {
    calico(CalicoPolicyKind::GlobalNetworkPolicy, name, tier, at, actions)
}

fn names(walk: &PolicyWalk<'_>) -> Vec<String> {
    walk.policies().map(|policy| policy.name().to_string()).collect()
}

#[test]
fn tiers_come_by_their_order_and_network_policies_stand_in_the_tier_default() {
    let tiers = vec![
        of_tier("base", Tier::Baseline, 0, &[Action::Deny]),
        of_tier("admin", Tier::Admin, 0, &[Action::Pass]),
    ];
    let policies = vec![
        global("late", "default", 1_500.0, &[]),
        global("same", "default", 1_000.0, &[]),
        global("unordered", "default", f64::INFINITY, &[]),
        calico(CalicoPolicyKind::NetworkPolicy, "own", "default", 10.0, &[]),
        global("first", "security", 1.0, &[]),
        global("last", "platform", 1.0, &[]),
        global("lost", "missing", 1.0, &[]),
    ];
    let declared = [("security", 500.0, true), ("platform", 20_000_000.0, true)];
    let cluster = with_calico(with_tiers(vec![policy("p", Some(vec![]), None)], tiers), &declared, policies);
    let expected = [
        "GlobalNetworkPolicy first",
        "ClusterNetworkPolicy admin",
        "Calico NetworkPolicy x/own",
        "GlobalNetworkPolicy same",
        "x/p",
        "GlobalNetworkPolicy late",
        "GlobalNetworkPolicy unordered",
        "ClusterNetworkPolicy base",
        "GlobalNetworkPolicy last",
        "GlobalNetworkPolicy lost",
    ];
    assert_eq!(names(&ingress_of_a(&cluster)), expected);
    // None is asked after one that leaves nothing.
    let tiers: Vec<&str> = ingress_of_a(&cluster).deciding().iter().map(WalkTier::name).collect();
    assert_eq!(tiers, ["security", "kube-admin", "default"]);
}

#[test]
fn the_end_of_a_tier_denies_unless_its_default_is_to_pass() {
    for (passes, expected) in [(false, [0].into()), (true, ConnectionIndexes::from([0, 1, 2]))] {
        let policies = vec![global("some", "security", 1.0, &[Action::Accept, Action::Log])];
        let cluster = with_calico(with_tiers(vec![], vec![]), &[("security", 1.0, passes)], policies);
        let (_, found) = walked(&ingress_of_a(&cluster), &[&[0], &[1]]);
        assert_eq!(found.decision.allowed(), expected);
        assert_eq!(found.policies[0].hits, [[0].into(), [1].into()], "what is logged goes on");
        let end = if passes { TierEnd::Pass } else { TierEnd::Deny };
        assert_eq!(found.policies[0].end, end);
    }
}

#[test]
fn what_is_staged_is_asked_in_the_place_of_what_it_replaces() {
    let mut removal = calico(CalicoPolicyKind::StagedKubernetesNetworkPolicy, "p", "default", 1_000.0, &[]);
    removal.removes = true;
    let policies = vec![
        global("edited", "default", 1.0, &[]),
        calico(CalicoPolicyKind::StagedGlobalNetworkPolicy, "edited", "default", 2_000.0, &[]),
        removal,
    ];
    let cluster = with_calico(with_tiers(vec![policy("p", Some(vec![]), None)], vec![]), &[], policies);
    let walk = ingress_of_a(&cluster);
    assert!(walk.has_audit());
    assert_eq!(names(&walk.enforced()), ["GlobalNetworkPolicy edited", "x/p"]);
    assert_eq!(names(&walk.as_if_enforced()), ["StagedGlobalNetworkPolicy edited"]);
}

#[test]
fn of_both_stores_that_of_v3_counts() {
    let mut cluster = with_calico(with_tiers(vec![], vec![]), &[], vec![global("a", "default", 1.0, &[])]);
    let mut stored = global("a", "default", 5.0, &[Action::Deny]);
    let raw = CalicoPolicyName { name: "default.a".into(), ..stored.name.clone() };
    cluster.calico.v1.policies.insert(raw, Arc::new(stored.clone()));
    stored.name.name = "b".into();
    cluster.calico.v1.policies.insert(stored.name.clone(), Arc::new(stored.clone()));
    let walk = ingress_of_a(&cluster);
    assert_eq!(names(&walk), ["GlobalNetworkPolicy a", "GlobalNetworkPolicy b"]);
    assert_eq!(
        cluster
            .calico
            .policy(
                &walk
                    .policies()
                    .next()
                    .map(|first| match first {
                        PolicyRef::Calico(policy) => policy.name.clone(),
                        PolicyRef::Namespaced(_) | PolicyRef::Cluster(_) => panic!("of Calico"),
                    })
                    .unwrap()
            )
            .unwrap()
            .order,
        order(1.0)
    );
}

#[test]
fn a_policy_of_a_namespace_is_for_its_pods_alone_in_every_tier() {
    for tier in ["default", "kube-admin", "security", "missing"] {
        let own = calico(CalicoPolicyKind::NetworkPolicy, "own", tier, -1.0, &[Action::Accept]);
        let mut others = own.clone();
        others.name = CalicoPolicyName { namespace: Some("y".into()), ..others.name };
        let policies = vec![own, others, global("all", tier, -2.0, &[Action::Pass])];
        let cluster = with_calico(with_tiers(vec![], vec![]), &[("security", 1.0, false)], policies);
        let expected = ["GlobalNetworkPolicy all", "Calico NetworkPolicy x/own"];
        assert_eq!(names(&ingress_of_a(&cluster)), expected, "{tier}");
    }
}
