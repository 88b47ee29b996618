//! The text of answers that have everything in them.

use podgate_core::{
    explain::{AddressPair, ClusterRuleTrace, VerdictReason},
    model::{Action, ClusterPolicyKind, Tier},
};

use super::*;

fn trace(rule: usize, why_not: &[&str]) -> RuleTrace {
    let why_not: Vec<Wording<_>> = why_not.iter().map(|line| Wording::from(*line)).collect();
    let entry =
        |entry: &str, matched, why: &str| EntryTrace { entry: entry.into(), matched, why: vec![why.into()] };
    let peers = vec![entry("from[0]", false, "is not shown"), entry("from[1]", true, "wants c, it has c")];
    let ports = vec![entry("ports", why_not.is_empty(), "names none")];
    RuleTrace { rule, annotation: None, matched: why_not.is_empty(), why_not, peers, ports }
}

#[test]
fn the_text_shows_the_verdict_first_then_each_side_rule_by_rule() {
    let policy = |name: &str, rules: Vec<RuleTrace>| PolicyTrace {
        namespace: "x".into(),
        name: name.into(),
        selects: "every pod of x".into(),
        matched: rules.iter().filter(|rule| rule.matched).map(|rule| rule.rule).collect(),
        rules,
    };
    let free = DirectionResult {
        isolated: false,
        host_endpoint: None,
        verdict: Verdict::Allow,
        reason: VerdictReason::NotIsolated,
        note: None,
        denied_peers: [].into(),
        policies: vec![],
        cluster_policies: vec![],
        calico_policies: vec![],
        audit: None,
    };
    let many = ["1", "2", "3", "4", "5", "6", "7", "8"];
    let answer = Explanation {
        verdict: Verdict::Deny,
        from: "x/a".parse().unwrap(),
        to: "x/b".parse().unwrap(),
        port: "TCP/http".parse().unwrap(),
        numbers: vec![80, 8080],
        from_pod: None,
        to_pod: None,
        pairs: vec![AddressPair { from: [10, 0, 0, 1].into(), to: [10, 0, 0, 2].into() }],
        egress: free.clone(),
        ingress: DirectionResult {
            isolated: true,
            host_endpoint: None,
            verdict: Verdict::Deny,
            reason: VerdictReason::NoRuleMatches,
            note: Some("look".into()),
            denied_peers: [[10, 0, 0, 1].into()].into(),
            policies: vec![
                policy("deny", vec![]),
                policy("p", vec![trace(0, &["from[0] wants a"]), trace(1, &[]), trace(2, &many)]),
            ],
            calico_policies: vec![],
            cluster_policies: vec![ClusterPolicyTrace {
                kind: ClusterPolicyKind::ClusterNetworkPolicy,
                name: "base".into(),
                tier: Tier::Admin,
                priority: 7,
                selects: "every pod".into(),
                matched: vec![1, 2],
                decided: vec![2],
                rules: [Action::Accept, Action::Pass, Action::Deny]
                    .into_iter()
                    .enumerate()
                    .map(|(rule, action)| ClusterRuleTrace {
                        action,
                        trace: trace(rule, if rule == 0 { &["from[0] wants b"] } else { &[] }),
                    })
                    .collect(),
            }],
            audit: Some(Box::new(DirectionResult {
                verdict: Verdict::Deny,
                reason: VerdictReason::NoRuleMatches,
                policies: vec![policy("deny", vec![]), policy("strict", vec![])],
                ..free
            })),
        },
        backends: None,
        uncertain_because: Vec::new(),
        unenforced: Vec::new(),
        learnt: None,
        kernel: None,
    };
    assert_eq!(
        text(&answer),
        "\
deny: x/a -> x/b TCP/http
  TCP/http is 80, 8080 there
  10.0.0.1 -> 10.0.0.2

egress of x/a: allow (not isolated, no policy selects it for this direction)

ingress of x/b: deny (isolated, no rule matches)
  note: look
  nothing allows 10.0.0.1
  ClusterNetworkPolicy base (Admin, priority 7), for every pod
    ingress[0] Accept does not match
      ✓ from[1] wants c, it has c
      ✗ from[0] wants b
    ingress[1] Pass matches
      ✓ from[1] wants c, it has c
      ✓ ports names none
    ingress[2] Deny decides
      ✓ from[1] wants c, it has c
      ✓ ports names none
  x/deny, for every pod of x: no rules, allows nothing
  x/p, for every pod of x
    ingress[0] does not match
      ✓ from[1] wants c, it has c
      ✗ from[0] wants a
    ingress[1] matches
      ✓ from[1] wants c, it has c
      ✓ ports names none
    ingress[2] does not match
      ✓ from[1] wants c, it has c
      ✗ 1
      ✗ 2
      ✗ 3
      ✗ 4
      ✗ 5
      ✗ 6
      and 2 more, see -o json
  with what is in audit mode: deny (isolated, no rule matches)
    x/strict, for every pod of x: no rules, allows nothing
"
    );
}

#[test]
fn the_text_of_a_service_has_each_of_its_backends() {
    let free = |reason: VerdictReason| DirectionResult {
        isolated: false,
        host_endpoint: None,
        verdict: reason.verdict(),
        reason,
        note: None,
        denied_peers: [].into(),
        policies: vec![],
        cluster_policies: vec![],
        calico_policies: vec![],
        audit: None,
    };
    let answer = |to: &str, port: &str, egress: VerdictReason, pairs, backends| Explanation {
        verdict: egress.verdict(),
        from: "x/a".parse().unwrap(),
        to: to.parse().unwrap(),
        port: port.parse().unwrap(),
        numbers: vec![80],
        from_pod: None,
        to_pod: to.starts_with("192.0.2.2").then(|| ObjectName::new("x", "b")),
        pairs,
        egress: free(egress),
        ingress: free(VerdictReason::NotAPod),
        backends,
        uncertain_because: Vec::new(),
        unenforced: Vec::new(),
        learnt: None,
        kernel: None,
    };
    let pair = |to: [u8; 4]| vec![AddressPair { from: [10, 0, 0, 1].into(), to: to.into() }];
    let one = answer("192.0.2.1", "TCP/80", VerdictReason::NoRuleMatches, pair([192, 0, 2, 1]), None);
    let other = answer("192.0.2.2", "TCP/80", VerdictReason::NotIsolated, pair([192, 0, 2, 2]), None);
    let both = answer("x/svc:web", "TCP/http", VerdictReason::NoRuleMatches, vec![], Some(vec![one, other]));
    assert_eq!(
        text(&both),
        "\
deny: x/a -> x/svc:web TCP/http
  allowed to 1 of 2 backends

deny: x/a -> 192.0.2.1 TCP/80
  10.0.0.1 -> 192.0.2.1

egress of x/a: deny (isolated, no rule matches)

ingress of 192.0.2.1: allow (not a pod with a network of its own, so no policy selects it)

allow: x/a -> 192.0.2.2 (x/b) TCP/80
  10.0.0.1 -> 192.0.2.2

egress of x/a: allow (not isolated, no policy selects it for this direction)

ingress of 192.0.2.2 (x/b): allow (not a pod with a network of its own, so no policy selects it)
"
    );
    let none = answer("x/svc:web", "TCP/80", VerdictReason::NoBackend, vec![], Some(vec![]));
    assert_eq!(
        text(&none),
        "\
deny: x/a -> x/svc:web TCP/80

egress of x/a: deny (the service leads nowhere from there)

ingress of x/svc:web: allow (not a pod with a network of its own, so no policy selects it)
"
    );
}
