//! Which policies are listed, what they decide, and what those in audit mode would.

use imbl::OrdMap;

use super::*;
use crate::model::{
    Action, ClusterNetworkPolicy, ClusterPolicyKind, ClusterPolicyName, ClusterRule, ClusterSubject, Name,
    Namespace, NetworkPolicy, Requirement, Tier,
};

#[test]
fn the_pods_that_a_policy_is_for_are_named() {
    let mut own = policy("p", Some(vec![]), None);
    own.subject = Selector::All(vec![
        Requirement::In("role".into(), ["backend".into()].into()),
        Requirement::DoesNotExist("team".into()),
    ]);
    let answer = ask(&cluster(vec![own, policy("q", Some(vec![]), None)]), "x/a", "x/b", "TCP/80").unwrap();
    let selects = answer.ingress.policies.iter().map(|policy| policy.selects.to_string());
    assert_eq!(selects.collect::<Vec<_>>(), ["pods of x with role=backend and !team", "every pod of x"]);
}

#[test]
fn every_isolating_policy_is_listed_with_the_rules_that_match() {
    let frontend = || from(Peer::Pods { namespaces: None, pods: has("role", "frontend") });
    let admin = || from(Peer::Pods { namespaces: None, pods: has("role", "admin") });
    let mut other_subject = policy("other-subject", Some(vec![frontend()]), None);
    other_subject.subject = has("role", "admin");
    let mut other_namespace = policy("other-namespace", Some(vec![frontend()]), None);
    other_namespace.name.namespace = "y".into();
    let cluster = cluster(vec![
        policy("deny", Some(vec![]), None),
        policy("allow", Some(vec![admin(), frontend(), frontend()]), None),
        policy("egress-only", None, Some(vec![])),
        other_subject,
        other_namespace,
    ]);
    let answer = ask(&cluster, "y/c", "x/b", "TCP/80").unwrap();
    assert_eq!(answer.verdict, Verdict::Deny, "the peer must be of the policy's namespace");
    let answer = ask(&cluster, "x/a", "x/b", "TCP/80").unwrap();
    let listed = |side: &DirectionResult| -> Vec<(Name, Vec<usize>)> {
        side.policies.iter().map(|policy| (policy.name.clone(), policy.matched.clone())).collect()
    };
    assert_eq!(listed(&answer.ingress), [("allow".into(), vec![1, 2]), ("deny".into(), vec![])]);
    assert_eq!(listed(&answer.egress), [("egress-only".into(), vec![])]);
    let verdicts = (answer.egress.verdict, answer.ingress.verdict, answer.verdict);
    assert_eq!(verdicts, (Verdict::Deny, Verdict::Allow, Verdict::Deny), "both sides must allow");
}

#[test]
fn cluster_policies_are_listed_in_the_order_in_which_they_are_asked_with_the_rule_that_decides() {
    let all = || {
        Peers::Listed(vec![Peer::Pods { namespaces: Some(Selector::EVERYTHING), pods: Selector::EVERYTHING }])
    };
    let only = |protocol| Ports::Listed(vec![PortRule::Protocol(protocol)]);
    let rule = |action, ports| ClusterRule { action, matches: Rule { peers: all(), ports } };
    let named = |name: &str, tier, priority, ingress| {
        let name = ClusterPolicyName { name: name.into(), kind: ClusterPolicyKind::ClusterNetworkPolicy };
        let subject = ClusterSubject { namespaces: Selector::EVERYTHING, pods: Selector::EVERYTHING };
        let egress = Vec::new();
        (
            name.clone(),
            Arc::new(ClusterNetworkPolicy { name, tier, priority, subject, ingress, egress, audit: false }),
        )
    };
    let mut cluster = cluster(vec![policy("deny", Some(vec![]), None)]);
    cluster.cluster_policies = OrdMap::from(vec![
        named("a", Tier::Baseline, 0, vec![rule(Action::Accept, Ports::Any)]),
        named("b", Tier::Admin, 9, vec![rule(Action::Deny, Ports::Any)]),
        named(
            "c",
            Tier::Admin,
            1,
            vec![rule(Action::Accept, only(Protocol::Tcp)), rule(Action::Pass, only(Protocol::Udp))],
        ),
    ]);
    let names = |side: &DirectionResult| -> String {
        side.cluster_policies.iter().map(|policy| &*policy.name).collect::<Vec<_>>().join(" ")
    };
    let decided = |side: &DirectionResult| -> Vec<Vec<usize>> {
        side.cluster_policies.iter().map(|policy| policy.decided.clone()).collect()
    };
    // (from, to, port, reason of ingress, rules that decide)
    let table = [
        ("x/a", "x/b", "TCP/80", VerdictReason::ClusterPolicyAccepts, [vec![0], vec![], vec![]]),
        ("x/a", "x/b", "UDP/80", VerdictReason::NoRuleMatches, [vec![], vec![], vec![]]),
        ("x/a", "x/b", "SCTP/80", VerdictReason::ClusterPolicyDenies, [vec![], vec![0], vec![]]),
        ("x/a", "y/c", "UDP/80", VerdictReason::ClusterPolicyAccepts, [vec![], vec![], vec![0]]),
        ("192.0.2.1", "y/c", "TCP/80", VerdictReason::Undecided, [vec![], vec![], vec![]]),
        ("node/n1", "x/b", "SCTP/80", VerdictReason::OwnNode, [vec![], vec![], vec![]]),
    ];
    for (from, to, port, reason, rules) in table {
        let answer = ask(&cluster, from, to, port).unwrap();
        assert_eq!(answer.ingress.reason, reason, "{from} {to} {port}");
        assert_eq!(names(&answer.ingress), "c b a", "{from} {to} {port}");
        assert_eq!(decided(&answer.ingress), rules, "{from} {to} {port}");
        assert_eq!(answer.egress.cluster_policies, [], "{from} {to} {port}");
    }
    let answer = ask(&cluster, "x/a", "y/c", "SCTP/80").unwrap();
    let form = serde_json::to_value(&answer.ingress.cluster_policies[1]).unwrap();
    let expected = serde_json::json!({
        "kind": "ClusterNetworkPolicy", "name": "b", "tier": "Admin", "priority": 9,
        "selects": "every pod", "matched": [0], "decided": [0],
        "rules": [{
            "action": "Deny", "rule": 0, "matched": true, "why_not": [],
            "peers": [{"entry": "from[0]", "matched": true, "why": ["wants a pod, x/a is one"]}],
            "ports": [{"entry": "ports", "matched": true, "why": ["names none, so every port matches"]}],
        }],
    });
    assert_eq!(form, expected);
}

#[test]
fn what_is_in_audit_mode_decides_nothing_and_says_what_it_would() {
    let strict = NetworkPolicy { audit: true, ..policy("strict", Some(vec![]), None) };
    let open = policy("open", Some(vec![rule(Peers::Any, Ports::Any)]), None);
    let answer = |cluster: &Cluster| ask(cluster, "x/a", "x/b", "TCP/80").unwrap();
    let verdicts = |answer: &Explanation| {
        (answer.verdict, answer.ingress.isolated, answer.ingress.audit.as_ref().map(|audit| audit.verdict))
    };
    let alone = cluster(vec![strict.clone()]);
    assert_eq!(verdicts(&answer(&alone)), (Verdict::Allow, false, Some(Verdict::Deny)));
    // Beside one that allows, it would take nothing away.
    let both = cluster(vec![strict.clone(), open.clone()]);
    assert_eq!(verdicts(&answer(&both)), (Verdict::Allow, true, Some(Verdict::Allow)));
    // It opens nothing that another isolates.
    let closed = cluster(vec![policy("closed", Some(vec![]), None), NetworkPolicy { audit: true, ..open }]);
    assert_eq!(verdicts(&answer(&closed)), (Verdict::Deny, true, Some(Verdict::Allow)));
    let enforced = cluster(vec![policy("strict", Some(vec![]), None)]);
    assert_eq!(verdicts(&answer(&enforced)), (Verdict::Deny, true, None));
    let mut whole_namespace = cluster(vec![policy("strict", Some(vec![]), None)]);
    let namespace = Namespace { labels: whole_namespace.namespace_labels(&"x".into()), audit: true };
    whole_namespace.namespaces.insert("x".into(), namespace.into());
    assert_eq!(verdicts(&answer(&whole_namespace)), (Verdict::Allow, false, Some(Verdict::Deny)));
}
