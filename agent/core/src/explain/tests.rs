//! Each reason that `explain` can give, on a small cluster.

use std::sync::Arc;

use podgate_common::Protocol;

use super::*;
use crate::{
    fixtures::{block, cluster, from, has, policy, port, rule},
    model::{ObjectName, Peer, Peers, PortRule, Ports, Rule, Selector},
};

mod names;
mod policies;
mod rules;

fn ask(cluster: &Cluster, from: &str, to: &str, port: &str) -> Result<Explanation, Unanswerable> {
    let end = |text: &str| text.parse().unwrap();
    explain(cluster, &Question { from: end(from), to: end(to), port: port.parse().unwrap() })
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
    assert!(note.to_string().contains("--from node/n1"), "{note}");
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
            "peers": [{"entry": "from", "matched": true, "why": ["names none, so every peer matches"]}],
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
