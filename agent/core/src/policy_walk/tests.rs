//! The order of a walk, and who is on it, on a small cluster.

use std::sync::Arc;

use super::*;
use crate::{
    fixtures::{cluster, policy, rule},
    model::{
        Action, Cluster, ClusterNetworkPolicy, ClusterPolicyKind, ClusterPolicyName, ClusterRule,
        ClusterSubject, NetworkPolicy, ObjectName, Peers, Ports, Selector, Tier,
    },
};

/// Answers by a list, whatever the rules say, and notes what it is asked.
struct Script<'s> {
    /// What the rules match, in the order in which they are asked.
    matched: &'s [&'s [usize]],
    asked: Vec<(String, ConnectionIndexes)>,
    policy: String,
}

impl<'a> PolicyVisitor<'a> for Script<'_> {
    const TRIES_ALL: bool = false;

    fn policy(&mut self, policy: PolicyRef<'a>) {
        self.policy = policy.name().to_string();
    }

    fn rule(&mut self, index: usize, _: &'a Rule, left: &ConnectionIndexes) -> ConnectionIndexes {
        let matched = self.matched[self.asked.len()].iter().copied().collect::<ConnectionIndexes>();
        self.asked.push((format!("{} {index}", self.policy), left.clone()));
        &matched & left
    }
}

fn of_tier(name: &str, tier: Tier, priority: u16, actions: &[Action]) -> ClusterNetworkPolicy {
    let any = || rule(Peers::Any, Ports::Any);
    ClusterNetworkPolicy {
        name: ClusterPolicyName { name: name.into(), kind: ClusterPolicyKind::ClusterNetworkPolicy },
        tier,
        priority,
        subject: ClusterSubject { namespaces: Selector::EVERYTHING, pods: Selector::EVERYTHING },
        ingress: actions.iter().map(|action| ClusterRule { action: *action, matches: any() }).collect(),
        egress: Vec::new(),
        audit: false,
    }
}

fn with_tiers(policies: Vec<NetworkPolicy>, of_tiers: Vec<ClusterNetworkPolicy>) -> Cluster {
    let mut cluster = cluster(policies);
    cluster.cluster_policies =
        of_tiers.into_iter().map(|policy| (policy.name.clone(), Arc::new(policy))).collect();
    cluster
}

fn ingress_of_a<'a>(cluster: &'a Cluster) -> PolicyWalk<'a> {
    OrderedPolicies::of(cluster).for_pod(&cluster.pods[&ObjectName::new("x", "a")], Direction::Ingress)
}

fn walked<'a>(walk: &PolicyWalk<'a>, matched: &[&[usize]]) -> (Vec<(String, ConnectionIndexes)>, Walked<'a>) {
    let mut script = Script { matched, asked: Vec::new(), policy: String::new() };
    let walked = walk.walk([0, 1, 2].into(), &mut script);
    (script.asked, walked)
}

#[test]
fn each_rule_is_asked_about_what_those_before_it_have_left() {
    let rules = || Some(vec![rule(Peers::Any, Ports::Any); 2]);
    let tiers = || {
        vec![
            of_tier("base", Tier::Baseline, 0, &[Action::Deny]),
            of_tier("second", Tier::Admin, 7, &[Action::Accept]),
            of_tier("first", Tier::Admin, 3, &[Action::Pass, Action::Deny]),
            of_tier("without-rules", Tier::Admin, 1, &[]),
        ]
    };
    let asked =
        |rule: &str, left: &[usize]| (rule.to_owned(), left.iter().copied().collect::<ConnectionIndexes>());
    let before = [
        asked("ClusterNetworkPolicy first 0", &[0, 1, 2]),
        asked("ClusterNetworkPolicy first 1", &[1, 2]),
        asked("ClusterNetworkPolicy second 0", &[1, 2]),
    ];

    // What passes is left to NetworkPolicies, and these have the last word.
    let isolated = with_tiers(vec![policy("p", rules(), None)], tiers());
    let (order, found) = walked(&ingress_of_a(&isolated), &[&[0], &[0], &[1], &[0], &[0, 2]]);
    assert_eq!(order[..3], before);
    assert_eq!(order[3..], [asked("x/p 0", &[0, 2]), asked("x/p 1", &[0, 2])]);
    let decision = &found.decision;
    assert_eq!((&decision.accepted, &decision.isolated), (&[0, 1, 2].into(), &[].into()));
    let decided = |found: &Walked<'_>, connection| -> Vec<(String, bool)> {
        let policies = found.policies.iter();
        let decided = policies.filter_map(|policy| {
            let accepts = policy.decided(Direction::Ingress, connection)?;
            Some((policy.policy.name().to_string(), accepts))
        });
        decided.collect()
    };
    assert_eq!(decided(&found, 1), [("ClusterNetworkPolicy second".to_owned(), true)]);
    assert_eq!(decided(&found, 2), [("x/p".to_owned(), true)]);

    // Without them the tier Baseline is asked.
    let (isolating_others, egress_only) = (Vec::new(), vec![policy("p", None, rules())]);
    for policies in [isolating_others, egress_only] {
        let open = with_tiers(policies, tiers());
        let (order, found) = walked(&ingress_of_a(&open), &[&[0], &[0], &[1], &[2]]);
        assert_eq!(order[..3], before);
        assert_eq!(order[3..], [asked("ClusterNetworkPolicy base 0", &[0, 2])]);
        assert_eq!((&found.decision.denied, &found.decision.left), (&[2].into(), &[0].into()));
        assert_eq!(decided(&found, 2), [("ClusterNetworkPolicy base".to_owned(), false)]);
    }
}

#[test]
fn what_no_network_policy_allows_is_isolated_and_no_later_tier_is_asked() {
    let rules = Some(vec![rule(Peers::Any, Ports::Any)]);
    let base = of_tier("base", Tier::Baseline, 0, &[Action::Accept]);
    let isolated = with_tiers(vec![policy("p", rules, None)], vec![base]);
    let walk = ingress_of_a(&isolated);
    let (order, found) = walked(&walk, &[&[1]]);
    assert_eq!(order, [("x/p 0".to_owned(), [0, 1, 2].into())]);
    assert_eq!((&found.decision.isolated, found.decision.allowed()), (&[0, 2].into(), [1].into()));
    assert_eq!(
        (&found.policies[0].dropped_at_end, found.policies[0].end),
        (&[0, 2].into(), TierEnd::Isolate)
    );
    assert_eq!((walk.isolates(), walk.deciding().len()), (true, 1));
}

#[test]
fn nothing_is_asked_that_is_settled() {
    let admin = of_tier("all", Tier::Admin, 0, &[Action::Accept, Action::Deny]);
    let settled = with_tiers(vec![policy("p", Some(vec![]), None)], vec![admin]);
    let (order, found) = walked(&ingress_of_a(&settled), &[&[0, 1, 2]]);
    assert_eq!(order, [("ClusterNetworkPolicy all 0".to_owned(), [0, 1, 2].into())]);
    assert_eq!(found.policies.len(), 1);
    assert_eq!(found.policies[0].hits, [[0, 1, 2].into(), [].into()]);
}

#[test]
fn those_in_audit_mode_are_on_the_walk_until_only_what_is_enforced_is_asked_for() {
    let audited = NetworkPolicy { audit: true, ..policy("audited", Some(vec![]), None) };
    let base = of_tier("base", Tier::Baseline, 0, &[Action::Deny]);
    let of_tiers =
        vec![ClusterNetworkPolicy { audit: true, ..of_tier("a", Tier::Admin, 0, &[Action::Deny]) }, base];
    let cluster = with_tiers(vec![audited], of_tiers);
    let walk = ingress_of_a(&cluster);
    let names = |walk: &PolicyWalk<'_>| -> Vec<String> {
        walk.policies().map(|policy| policy.name().to_string()).collect()
    };
    assert_eq!(names(&walk), ["ClusterNetworkPolicy a", "x/audited", "ClusterNetworkPolicy base"]);
    assert_eq!((walk.has_audit(), walk.isolates(), walk.deciding().len()), (true, true, 2));
    let enforced = walk.enforced();
    assert_eq!(names(&enforced), ["ClusterNetworkPolicy base"]);
    assert_eq!((enforced.has_audit(), enforced.isolates(), enforced.deciding().len()), (false, false, 1));
}

mod calico;
