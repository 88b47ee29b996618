//! Each reason that `explain` can give, on a small cluster.

use std::sync::Arc;

use imbl::OrdMap;
use podgate_common::Protocol;

use super::*;
use crate::{
    fixtures::{block, cluster, from, has, policy, port, rule},
    model::{
        Action, ClusterNetworkPolicy, ClusterPolicyKind, ClusterPolicyName, ClusterRule, ClusterSubject,
        Name, Namespace, ObjectName, Peer, Peers, PortRule, Ports, Requirement, Selector, Tier,
    },
};

fn ask(cluster: &Cluster, from: &str, to: &str, port: &str) -> Result<Explanation, Unanswerable> {
    let end = |text: &str| text.parse().unwrap();
    explain(cluster, &Question { from: end(from), to: end(to), port: port.parse().unwrap() })
}

#[test]
fn a_rule_that_does_not_match_says_why() {
    let pods = |namespaces: Option<Selector>, pods: Selector| from(Peer::Pods { namespaces, pods });
    let tcp = |first, last| PortRule::Range { protocol: Protocol::Tcp, first, last };
    let all_of = |requirement: Requirement| pods(None, Selector::All(vec![requirement]));
    let everywhere = || Some(Selector::EVERYTHING);
    for (source, rule, why_not) in [
        (
            "x/a",
            pods(None, has("role", "admin")),
            "from[0] wants role=admin on the pod, x/a has role=frontend",
        ),
        ("x/a", pods(None, has("team", "blue")), "from[0] wants team=blue on the pod, x/a has no team"),
        (
            "x/a",
            all_of(Requirement::In("role".into(), ["a".into(), "b".into()].into())),
            "from[0] wants role in (a, b) on the pod, x/a has role=frontend",
        ),
        (
            "x/a",
            all_of(Requirement::NotIn("role".into(), ["frontend".into()].into())),
            "from[0] wants role notin (frontend) on the pod, x/a has role=frontend",
        ),
        ("x/a", all_of(Requirement::Exists("k".into())), "from[0] wants k on the pod, x/a has no k"),
        (
            "x/a",
            all_of(Requirement::DoesNotExist("role".into())),
            "from[0] wants !role on the pod, x/a has role=frontend",
        ),
        (
            "x/a",
            pods(None, Selector::Nothing),
            "from[0] wants labels that were not understood on the pod, x/a has none of them",
        ),
        ("y/c", pods(None, Selector::EVERYTHING), "from[0] wants a pod of namespace x, y/c is in y"),
        (
            "y/c",
            pods(Some(has("purpose", "prod")), Selector::EVERYTHING),
            "from[0] wants purpose=prod on the namespace, y has purpose=test",
        ),
        (
            "x/a",
            pods(Some(has("purpose", "prod")), Selector::EVERYTHING),
            "from[0] wants purpose=prod on the namespace, x has no purpose",
        ),
        ("203.0.113.9", pods(everywhere(), Selector::EVERYTHING), "from[0] wants a pod, 203.0.113.9 is none"),
        ("node/n2", pods(everywhere(), Selector::EVERYTHING), "from[0] wants a pod, node/n2 is none"),
        ("10.0.0.1", from(block("10.9.0.0/16", &[])), "from[0] wants 10.9.0.0/16, 10.0.0.1 is outside"),
        (
            "10.0.0.1",
            from(block("10.0.0.0/16", &["10.0.0.0/30", "10.0.7.0/24"])),
            "from[0] wants 10.0.0.0/16 except 10.0.0.0/30, 10.0.0.1 is in the except",
        ),
        ("x/a", from(Peer::Nothing), "from[0] was not understood, matches nothing"),
        ("x/a", rule(Peers::Listed(vec![]), Ports::Any), "from has no entry that was understood"),
        ("x/a", port(tcp(443, 443)), "ports wants TCP/443, not TCP/80"),
        ("x/a", port(tcp(81, 90)), "ports wants TCP/81-90, not TCP/80"),
        ("x/a", port(PortRule::Protocol(Protocol::Udp)), "ports wants any UDP, not TCP/80"),
        (
            "x/a",
            port(PortRule::Named(Some(Protocol::Tcp), "http".into())),
            "ports wants TCP/http (8080), not TCP/80",
        ),
        (
            "x/a",
            port(PortRule::Named(Some(Protocol::Udp), "http".into())),
            "ports wants UDP/http (x/b has none), not TCP/80",
        ),
        ("x/a", port(PortRule::Nothing), "ports wants an entry that was not understood, not TCP/80"),
        (
            "x/a",
            rule(Peers::Any, Ports::Listed(vec![])),
            "ports wants no port that was understood, not TCP/80",
        ),
    ] {
        let cluster = cluster(vec![policy("p", Some(vec![rule]), None)]);
        let answer = ask(&cluster, source, "x/b", "TCP/80").unwrap();
        let trace = &answer.ingress.policies[0];
        assert_eq!(trace.rules[0].why_not, [why_not], "{source}");
        assert!(!trace.rules[0].matched && trace.matched.is_empty(), "{why_not}");
        assert_eq!(
            (answer.verdict, answer.ingress.reason),
            (Verdict::Deny, VerdictReason::NoRuleMatches),
            "{why_not}"
        );
    }
}

#[test]
fn a_host_network_pod_is_no_peer_of_a_selector() {
    let rules = vec![from(Peer::Pods { namespaces: Some(Selector::EVERYTHING), pods: Selector::EVERYTHING })];
    let mut cluster = cluster(vec![policy("p", Some(rules), None)]);
    let elsewhere = Arc::make_mut(cluster.pods.get_mut(&ObjectName::new("x", "b")).unwrap());
    elsewhere.node = Some("n2".into());
    let answer = ask(&cluster, "x/w", "x/b", "TCP/80").unwrap();
    let why_not = "from[0] wants a pod, x/w is on the host network and counts as its node";
    assert_eq!(answer.ingress.policies[0].rules[0].why_not, [why_not]);
}

#[test]
fn both_misses_of_a_rule_are_named() {
    let peers = Peers::Listed(vec![block("10.9.0.0/16", &[]), Peer::Nothing]);
    let ports = Ports::Listed(vec![PortRule::Protocol(Protocol::Udp)]);
    let cluster = cluster(vec![policy("p", None, Some(vec![rule(peers, ports)]))]);
    let answer = ask(&cluster, "x/a", "10.0.0.3", "TCP/80").unwrap();
    assert_eq!(
        answer.egress.policies[0].rules[0].why_not,
        [
            "to[0] wants 10.9.0.0/16, 10.0.0.3 is outside",
            "to[1] was not understood, matches nothing",
            "ports wants any UDP, not TCP/80"
        ]
    );
}

#[test]
fn an_entry_that_matches_says_what_it_wants_and_what_was_found() {
    let pods = |namespaces: Option<Selector>, pods: Selector| from(Peer::Pods { namespaces, pods });
    let all_of = |requirements: Vec<Requirement>| pods(None, Selector::All(requirements));
    let everywhere = || Some(Selector::EVERYTHING);
    let tcp = |first, last| PortRule::Range { protocol: Protocol::Tcp, first, last };
    for (source, rule, why) in [
        ("x/a", pods(None, Selector::EVERYTHING), "from[0] wants a pod of namespace x, x/a is one"),
        ("y/c", pods(everywhere(), Selector::EVERYTHING), "from[0] wants a pod, y/c is one"),
        ("10.0.0.3", pods(everywhere(), Selector::EVERYTHING), "from[0] wants a pod, y/c is one"),
        (
            "x/a",
            pods(None, has("role", "frontend")),
            "from[0] wants role=frontend on the pod, x/a has role=frontend",
        ),
        (
            "x/a",
            all_of(vec![
                Requirement::In("role".into(), ["a".into(), "frontend".into()].into()),
                Requirement::DoesNotExist("team".into()),
            ]),
            "from[0] wants role in (a, frontend) and !team on the pod, x/a has role=frontend and no team",
        ),
        (
            "y/c",
            pods(Some(has("purpose", "test")), has("tier", "gold")),
            "from[0] wants purpose=test on the namespace, y has purpose=test; \
             wants tier=gold on the pod, y/c has tier=gold",
        ),
        ("10.0.0.1", from(block("10.0.0.0/16", &[])), "from[0] wants 10.0.0.0/16, 10.0.0.1 is inside"),
        (
            "10.0.0.1",
            from(block("10.0.0.0/16", &["10.0.7.0/24"])),
            "from[0] wants 10.0.0.0/16, 10.0.0.1 is inside and in no except",
        ),
        ("node/n2", from(block("0.0.0.0/0", &[])), "from[0] wants 0.0.0.0/0, 192.168.0.2 is inside"),
        ("x/a", port(tcp(80, 90)), "ports[0] wants TCP/80-90, TCP/80 is asked for"),
        ("x/a", port(PortRule::Protocol(Protocol::Tcp)), "ports[0] wants any TCP, TCP/80 is asked for"),
    ] {
        let cluster = cluster(vec![policy("p", Some(vec![rule]), None)]);
        let answer = ask(&cluster, source, "x/b", "TCP/80").unwrap();
        let trace = &answer.ingress.policies[0].rules[0];
        let matched = trace.peers.iter().chain(&trace.ports).filter(|entry| entry.matched);
        let lines: Vec<String> =
            matched.flat_map(|entry| entry.why.iter().map(|why| format!("{} {why}", entry.entry))).collect();
        assert!(lines.iter().any(|line| line == why), "{why}: {lines:?}");
    }
}

#[test]
fn each_entry_of_a_rule_is_evaluated_whatever_the_others_say() {
    let frontend = Peer::Pods { namespaces: None, pods: has("role", "frontend") };
    let peers = Peers::Listed(vec![Peer::Nothing, frontend, block("10.0.0.0/30", &[])]);
    let udp = PortRule::Protocol(Protocol::Udp);
    let http = PortRule::Named(None, "http".into());
    let ports = Ports::Listed(vec![udp, http, PortRule::Nothing]);
    let cluster = cluster(vec![policy("p", Some(vec![rule(peers, ports)]), None)]);
    let answer = ask(&cluster, "x/a", "x/b", "TCP/8080").unwrap();
    assert_eq!(answer.verdict, Verdict::Allow);
    let trace = &answer.ingress.policies[0].rules[0];
    let lines = |entries: &[EntryTrace]| -> Vec<String> {
        let line =
            |entry: &EntryTrace| format!("{} {}: {}", entry.entry, entry.matched, entry.why.join(" | "));
        entries.iter().map(line).collect()
    };
    assert_eq!(
        lines(&trace.peers),
        [
            "from[0] false: was not understood, matches nothing",
            "from[1] true: wants role=frontend on the pod, x/a has role=frontend",
            // By IPv4; the miss of the other address does not count beside it.
            "from[2] true: wants 10.0.0.0/30, 10.0.0.1 is inside",
        ]
    );
    assert_eq!(
        lines(&trace.ports),
        [
            "ports[0] false: wants any UDP, not TCP/8080",
            "ports[1] true: wants a port named http (8080), TCP/8080 is asked for",
            "ports[2] false: was not understood, matches nothing",
        ]
    );
}

#[test]
fn the_pods_that_a_policy_is_for_are_named() {
    let mut own = policy("p", Some(vec![]), None);
    own.subject = Selector::All(vec![
        Requirement::In("role".into(), ["backend".into()].into()),
        Requirement::DoesNotExist("team".into()),
    ]);
    let answer = ask(&cluster(vec![own, policy("q", Some(vec![]), None)]), "x/a", "x/b", "TCP/80").unwrap();
    let selects: Vec<&str> = answer.ingress.policies.iter().map(|policy| &*policy.selects).collect();
    assert_eq!(selects, ["pods of x with role=backend and !team", "every pod of x"]);
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
fn what_always_passes_passes_under_deny_all() {
    let deny = || vec![policy("deny", Some(vec![]), Some(vec![]))];
    for (from, to, egress, ingress) in [
        ("x/b", "x/b", VerdictReason::Itself, VerdictReason::Itself),
        ("x/b", "10.0.0.2", VerdictReason::Itself, VerdictReason::Itself),
        ("node/n1", "x/b", VerdictReason::NotAPod, VerdictReason::OwnNode),
        ("x/w", "x/b", VerdictReason::NotAPod, VerdictReason::OwnNode),
        ("node/n2", "x/b", VerdictReason::NotAPod, VerdictReason::NoRuleMatches),
        ("192.168.0.1", "x/b", VerdictReason::NotAPod, VerdictReason::NoRuleMatches),
        ("x/b", "node/n1", VerdictReason::OwnNode, VerdictReason::NotAPod),
        ("x/b", "x/w", VerdictReason::OwnNode, VerdictReason::NotAPod),
        ("x/b", "192.168.0.1", VerdictReason::OwnNode, VerdictReason::NotAPod),
        ("x/b", "192.168.0.2", VerdictReason::NoRuleMatches, VerdictReason::NotAPod),
        ("x/b", "node/n2", VerdictReason::NoRuleMatches, VerdictReason::NotAPod),
        ("y/c", "x/b", VerdictReason::NotIsolated, VerdictReason::NoRuleMatches),
        ("x/b", "y/c", VerdictReason::NoRuleMatches, VerdictReason::NotIsolated),
        ("203.0.113.9", "192.168.0.1", VerdictReason::NotAPod, VerdictReason::NotAPod),
        ("x/w", "y/c", VerdictReason::NotAPod, VerdictReason::NotIsolated),
    ] {
        let answer = ask(&cluster(deny()), from, to, "TCP/80").unwrap();
        assert_eq!((answer.egress.reason, answer.ingress.reason), (egress, ingress), "{from} to {to}");
        let denied = egress == VerdictReason::NoRuleMatches || ingress == VerdictReason::NoRuleMatches;
        assert_eq!(answer.verdict, Verdict::from_allowed(!denied), "{from} to {to}");
    }
}

#[test]
fn the_address_of_the_own_node_comes_with_a_note() {
    let cluster = cluster(vec![policy("deny", Some(vec![]), None)]);
    let note = ask(&cluster, "192.168.0.1", "x/b", "TCP/80").unwrap().ingress.note.unwrap();
    assert!(note.contains("--from node/n1"), "{note}");
    assert_eq!(ask(&cluster, "192.168.0.2", "x/b", "TCP/80").unwrap().ingress.note, None);
}

#[test]
fn all_pairs_of_one_family_must_be_allowed() {
    let v4 = || from(block("10.0.0.0/8", &[]));
    let v6 = || from(block("fd00::/16", &[]));
    for (rules, source, verdict, denied, matched) in [
        (vec![v4()], "x/a", Verdict::Deny, vec!["fd00::1"], vec![0]),
        (vec![v6()], "x/a", Verdict::Deny, vec!["10.0.0.1"], vec![0]),
        (vec![v4(), v6()], "x/a", Verdict::Allow, vec![], vec![0, 1]),
        // Only the family that both ends have is in question.
        (vec![v4()], "y/v4", Verdict::Allow, vec![], vec![0]),
        (vec![v4()], "10.0.0.1", Verdict::Allow, vec![], vec![0]),
        (vec![], "y/v6", Verdict::Deny, vec!["fd00::6"], vec![]),
    ] {
        let cluster = cluster(vec![policy("p", Some(rules), None)]);
        let answer = ask(&cluster, source, "x/b", "TCP/80").unwrap();
        assert_eq!(answer.verdict, verdict, "{source} {matched:?}");
        let denied: BTreeSet<IpAddr> = denied.into_iter().map(|address| address.parse().unwrap()).collect();
        assert_eq!(answer.ingress.denied_peers, denied, "{source} {matched:?}");
        assert_eq!(answer.ingress.policies[0].matched, matched, "{source}");
    }
}

#[test]
fn ends_without_a_common_family_cannot_talk() {
    let answer = ask(&cluster(vec![]), "y/v4", "y/v6", "TCP/80").unwrap();
    assert_eq!((answer.verdict, answer.pairs.len()), (Verdict::Deny, 0));
}

#[test]
fn a_port_name_stands_for_all_its_numbers() {
    let only = |number| port(PortRule::Range { protocol: Protocol::Tcp, first: number, last: number });
    for (rules, verdict) in [
        (vec![only(1)], Verdict::Deny),
        (vec![only(1), only(2)], Verdict::Allow),
        (vec![port(PortRule::Named(Some(Protocol::Tcp), "many".into()))], Verdict::Allow),
        (vec![port(PortRule::Named(Some(Protocol::Udp), "many".into()))], Verdict::Deny),
    ] {
        let answer = ask(&cluster(vec![policy("p", Some(rules), None)]), "x/a", "x/b", "TCP/many").unwrap();
        assert_eq!((answer.verdict, answer.numbers), (verdict, vec![1, 2]));
    }
}

#[test]
fn a_named_port_of_an_egress_rule_is_the_destinations() {
    let rules = vec![port(PortRule::Named(Some(Protocol::Tcp), "http".into()))];
    let cluster = cluster(vec![policy("p", None, Some(rules))]);
    for (to, number, why_not) in [
        ("x/b", "TCP/8080", None),
        ("x/b", "TCP/80", Some("ports wants TCP/http (8080), not TCP/80")),
        ("y/c", "TCP/8080", Some("ports wants TCP/http (y/c has none), not TCP/8080")),
        ("203.0.113.9", "TCP/8080", Some("ports wants TCP/http (only pods have named ports), not TCP/8080")),
    ] {
        let answer = ask(&cluster, "x/a", to, number).unwrap();
        assert_eq!(answer.egress.policies[0].rules[0].why_not.first().map(String::as_str), why_not, "{to}");
    }
}

#[test]
fn a_question_that_has_no_answer_says_why() {
    for (from, to, port, message) in [
        ("x/nobody", "x/b", "TCP/80", "no pod x/nobody: it does not exist, or it has finished"),
        ("x/a", "node/n9", "TCP/80", "no node n9: no Node object has this name, and no pod runs there"),
        ("x/a", "y/pending", "TCP/80", "y/pending has no address yet"),
        ("x/a", "y/c", "TCP/http", "y/c has no container port TCP/http"),
        ("x/a", "203.0.113.9", "TCP/http", "203.0.113.9 has no container port TCP/http"),
        (
            "x/svc:web",
            "x/a",
            "TCP/80",
            "x/svc:web: a service opens no connections, ask about the pods behind it",
        ),
        (
            "x/a",
            "x/svc:web",
            "TCP/80",
            "no service x/web: it does not exist, or it is only a name for something elsewhere",
        ),
    ] {
        assert_eq!(ask(&cluster(vec![]), from, to, port).unwrap_err().to_string(), message);
    }
}

#[test]
fn an_end_is_read_and_printed_in_its_canonical_form() {
    for (text, printed) in [
        ("x/a", Some("x/a")),
        ("x/svc:a", Some("x/svc:a")),
        ("node/n1", Some("node/n1")),
        ("10.0.0.1", Some("10.0.0.1")),
        ("::ffff:10.0.0.1", Some("10.0.0.1")),
        ("FD00::0001", Some("fd00::1")),
        ("a", None),
        ("", None),
        ("x/", None),
        ("/a", None),
        ("x/svc:", None),
        ("x/a/b", None),
        ("10.0.0.0/8", None),
        ("X/a", None),
        ("-x/a", None),
        ("x/-a", None),
        ("x/a..b", None),
        ("x/svc:a.b", None),
    ] {
        let end = text.parse::<EndpointRef>();
        assert_eq!(end.ok().map(|end| end.to_string()).as_deref(), printed, "{text}");
    }
}

#[test]
fn the_json_form_has_the_fields_of_the_contract() {
    let cluster = cluster(vec![policy("p", Some(vec![port(PortRule::Protocol(Protocol::Udp))]), None)]);
    let json = serde_json::to_value(ask(&cluster, "y/v4", "x/b", "TCP/80").unwrap()).unwrap();
    let side = |isolated, verdict, reason, denied: &[&str], policies: serde_json::Value| {
        serde_json::json!({"isolated": isolated, "verdict": verdict, "reason": reason, "note": null,
            "denied_peers": denied, "policies": policies, "cluster_policies": []})
    };
    let policies = serde_json::json!([{
        "namespace": "x", "name": "p", "selects": "every pod of x", "matched": [],
        "rules": [{
            "rule": 0, "matched": false, "why_not": ["ports wants any UDP, not TCP/80"],
            "peers": [{"entry": "from", "matched": true, "why": ["names nobody, so everybody matches"]}],
            "ports": [{"entry": "ports[0]", "matched": false, "why": ["wants any UDP, not TCP/80"]}],
        }],
    }]);
    let expected = serde_json::json!({
        "verdict": "deny", "from": "y/v4", "to": "x/b", "port": "TCP/80", "numbers": [80],
        "pairs": [{"from": "10.0.0.4", "to": "10.0.0.2"}],
        "egress": side(false, "allow", "not-isolated", &[], serde_json::json!([])),
        "ingress": side(true, "deny", "no-rule-matches", &["10.0.0.4"], policies),
    });
    assert_eq!(json, expected);
    let read: Explanation = serde_json::from_value(json).unwrap();
    assert_eq!(read, ask(&cluster, "y/v4", "x/b", "TCP/80").unwrap());
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
