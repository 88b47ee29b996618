//! Why the entries of a rule match and do not match.

use super::*;
use crate::model::Requirement;

/// Pods of the policy's namespace.
fn pods(pods: Selector) -> Rule {
    from(Peer::Pods { namespaces: None, pods })
}

fn all_of<const N: usize>(requirements: [Requirement; N]) -> Rule {
    pods(Selector::All(requirements.into()))
}

/// Pods of these namespaces.
fn pods_in(namespaces: Selector, pods: Selector) -> Rule {
    from(Peer::Pods { namespaces: Some(namespaces), pods })
}

fn every_pod() -> Rule {
    pods_in(Selector::EVERYTHING, Selector::EVERYTHING)
}

fn tcp(first: u16, last: u16) -> Rule {
    port(PortRule::Range { protocol: Protocol::Tcp, first, last })
}

fn any(protocol: Protocol) -> Rule {
    port(PortRule::Protocol(protocol))
}

fn named(protocol: Protocol) -> Rule {
    port(PortRule::Named(Some(protocol), "http".into()))
}

/// How ingress to x/b by TCP 80 is explained, which this rule alone may allow.
fn ingress(source: &str, rule: Rule) -> (Verdict, DirectionResult) {
    let answer = ask(&cluster(vec![policy("p", Some(vec![rule]), None)]), source, "x/b", "TCP/80").unwrap();
    (answer.verdict, answer.ingress)
}

#[test]
fn a_rule_that_does_not_match_says_why() {
    let a_or_b = all_of([Requirement::In("role".into(), ["a".into(), "b".into()].into())]);
    let not_frontend = all_of([Requirement::NotIn("role".into(), ["frontend".into()].into())]);
    let with_key = all_of([Requirement::Exists("k".into())]);
    let without_role = all_of([Requirement::DoesNotExist("role".into())]);
    let of_prod = || pods_in(has("purpose", "prod"), Selector::EVERYTHING);
    let no_port = rule(Peers::Any, Ports::Listed(vec![]));
    for (source, rule, why_not) in [
        ("x/a", pods(has("role", "admin")), "from[0] wants role=admin on the pod, x/a has role=frontend"),
        ("x/a", pods(has("team", "blue")), "from[0] wants team=blue on the pod, x/a has no team"),
        ("x/a", a_or_b, "from[0] wants role in (a, b) on the pod, x/a has role=frontend"),
        ("x/a", not_frontend, "from[0] wants role notin (frontend) on the pod, x/a has role=frontend"),
        ("x/a", with_key, "from[0] wants k on the pod, x/a has no k"),
        ("x/a", without_role, "from[0] wants !role on the pod, x/a has role=frontend"),
        (
            "x/a",
            pods(Selector::Nothing),
            "from[0] wants labels that were not understood on the pod, x/a has none of them",
        ),
        ("y/c", pods(Selector::EVERYTHING), "from[0] wants a pod of namespace x, y/c is in y"),
        ("y/c", of_prod(), "from[0] wants purpose=prod on the namespace, y has purpose=test"),
        ("x/a", of_prod(), "from[0] wants purpose=prod on the namespace, x has no purpose"),
        ("203.0.113.9", every_pod(), "from[0] wants a pod, 203.0.113.9 is none"),
        ("node/n2", every_pod(), "from[0] wants a pod, node/n2 is none"),
        ("10.0.0.1", from(block("10.9.0.0/16", &[])), "from[0] wants 10.9.0.0/16, 10.0.0.1 is outside"),
        (
            "10.0.0.1",
            from(block("10.0.0.0/16", &["10.0.0.0/30", "10.0.7.0/24"])),
            "from[0] wants 10.0.0.0/16 except 10.0.0.0/30, 10.0.0.1 is in the except",
        ),
        ("x/a", from(Peer::Nothing), "from[0] was not understood, matches nothing"),
        ("x/a", rule(Peers::Listed(vec![]), Ports::Any), "from has no entry that was understood"),
        ("x/a", tcp(443, 443), "ports wants TCP/443, not TCP/80"),
        ("x/a", tcp(81, 90), "ports wants TCP/81-90, not TCP/80"),
        ("x/a", any(Protocol::Udp), "ports wants any UDP, not TCP/80"),
        ("x/a", named(Protocol::Tcp), "ports wants TCP/http (8080), not TCP/80"),
        ("x/a", named(Protocol::Udp), "ports wants UDP/http (x/b has none), not TCP/80"),
        ("x/a", port(PortRule::Nothing), "ports wants an entry that was not understood, not TCP/80"),
        ("x/a", no_port, "ports wants no port that was understood, not TCP/80"),
    ] {
        let (verdict, ingress) = ingress(source, rule);
        let trace = &ingress.policies[0];
        assert_eq!(trace.rules[0].why_not, [why_not.into()], "{source}");
        assert!(!trace.rules[0].matched && trace.matched.is_empty(), "{why_not}");
        assert_eq!((verdict, ingress.reason), (Verdict::Deny, VerdictReason::NoRuleMatches), "{why_not}");
    }
}

#[test]
fn a_host_network_pod_is_no_peer_of_a_selector() {
    let mut cluster = cluster(vec![policy("p", Some(vec![every_pod()]), None)]);
    let elsewhere = Arc::make_mut(cluster.pods.get_mut(&ObjectName::new("x", "b")).unwrap());
    elsewhere.node = Some("n2".into());
    let answer = ask(&cluster, "x/w", "x/b", "TCP/80").unwrap();
    let why_not = "from[0] wants a pod, x/w is on the host network and counts as its node";
    assert_eq!(answer.ingress.policies[0].rules[0].why_not, [why_not.into()]);
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
            "to[0] wants 10.9.0.0/16, 10.0.0.3 is outside".into(),
            "to[1] was not understood, matches nothing".into(),
            "ports wants any UDP, not TCP/80".into()
        ]
    );
}

#[test]
fn an_entry_that_matches_says_what_it_wants_and_what_was_found() {
    let frontend_of_no_team = all_of([
        Requirement::In("role".into(), ["a".into(), "frontend".into()].into()),
        Requirement::DoesNotExist("team".into()),
    ]);
    for (source, rule, why) in [
        ("x/a", pods(Selector::EVERYTHING), "from[0] wants a pod of namespace x, x/a is one"),
        ("y/c", every_pod(), "from[0] wants a pod, y/c is one"),
        ("10.0.0.3", every_pod(), "from[0] wants a pod, y/c is one"),
        (
            "x/a",
            pods(has("role", "frontend")),
            "from[0] wants role=frontend on the pod, x/a has role=frontend",
        ),
        (
            "x/a",
            frontend_of_no_team,
            "from[0] wants role in (a, frontend) and !team on the pod, x/a has role=frontend and no team",
        ),
        (
            "y/c",
            pods_in(has("purpose", "test"), has("tier", "gold")),
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
        ("x/a", tcp(80, 90), "ports[0] wants TCP/80-90, TCP/80 is asked for"),
        ("x/a", any(Protocol::Tcp), "ports[0] wants any TCP, TCP/80 is asked for"),
    ] {
        let trace = &ingress(source, rule).1.policies[0].rules[0];
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
        let line = |entry: &EntryTrace| {
            let why: Vec<String> = entry.why.iter().map(ToString::to_string).collect();
            format!("{} {}: {}", entry.entry, entry.matched, why.join(" | "))
        };
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
fn a_named_port_of_an_egress_rule_is_the_destinations() {
    let cluster = cluster(vec![policy("p", None, Some(vec![named(Protocol::Tcp)]))]);
    for (to, number, why_not) in [
        ("x/b", "TCP/8080", None),
        ("x/b", "TCP/80", Some("ports wants TCP/http (8080), not TCP/80")),
        ("y/c", "TCP/8080", Some("ports wants TCP/http (y/c has none), not TCP/8080")),
        ("203.0.113.9", "TCP/8080", Some("ports wants TCP/http (only pods have named ports), not TCP/8080")),
    ] {
        let answer = ask(&cluster, "x/a", to, number).unwrap();
        assert_eq!(
            answer.egress.policies[0].rules[0].why_not.first().map(ToString::to_string).as_deref(),
            why_not,
            "{to}"
        );
    }
}
