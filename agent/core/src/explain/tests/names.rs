//! Names of the DNS as destinations, and addresses that the client has learnt for one.

use super::*;
use crate::{
    fixtures::admin_policy,
    model::{Action, ClusterRule, DomainPattern, EGRESS_DOMAINS},
};

fn name(pattern: &str) -> Peers {
    Peers::Listed(vec![Peer::Name(DomainPattern::parse(pattern).unwrap())])
}

fn https() -> Ports {
    Ports::Listed(vec![PortRule::Range { protocol: Protocol::Tcp, first: 443, last: 443 }])
}

/// A cluster-wide policy of the tier Admin with these egress rules, for all pods.
fn with_admin(mut cluster: Cluster, rules: Vec<(Action, Peers)>) -> Cluster {
    let rule = |(action, peers)| ClusterRule { action, matches: Rule { peers, ports: Ports::Any } };
    let policy = admin_policy("admin", rules.into_iter().map(rule).collect());
    cluster.cluster_policies.insert(policy.name.clone(), Arc::new(policy));
    cluster
}

#[test]
fn the_rule_of_a_name_matches_it_and_is_named_with_its_annotation() {
    let rules = vec![from(block("10.0.0.0/8", &[])), rule(name("*.example.com"), https())];
    let cluster = cluster(vec![policy("web", None, Some(rules))]);
    for (to, port, verdict) in [
        ("name:api.example.com", "TCP/443", Verdict::Allow),
        ("name:A.B.Example.COM.", "TCP/443", Verdict::Allow),
        ("name:api.example.com", "TCP/80", Verdict::Deny),
        ("name:example.com", "TCP/443", Verdict::Deny),
    ] {
        let answer = ask(&cluster, "x/a", to, port).unwrap();
        assert_eq!(answer.verdict, verdict, "{to} {port}");
        assert!(answer.pairs.is_empty() && answer.egress.denied_peers.is_empty(), "{to}: no made-up address");
        assert!(answer.expected_verdicts().is_empty());
        let [of_web] = &answer.egress.policies[..] else { panic!("{answer:?}") };
        assert_eq!(of_web.rules[0].annotation, None);
        assert_eq!(of_web.rules[1].annotation.as_deref(), Some(EGRESS_DOMAINS));
        assert!(!of_web.rules[0].matched);
    }
    let answer = ask(&cluster, "x/a", "name:example.com", "TCP/443").unwrap();
    let misses: Vec<String> =
        answer.egress.policies[0].rules.iter().map(|it| it.why_not[0].to_string()).collect();
    assert_eq!(
        misses,
        [
            "to[0] wants 10.0.0.0/8, an address of example.com is outside",
            "to[0] wants an address that the pod has learnt for *.example.com, not for example.com",
        ]
    );
}

#[test]
fn what_decides_before_a_name_wins_and_what_is_for_all_addresses_is_for_its_own() {
    let all = || Peers::Listed(vec![block("0.0.0.0/0", &[]), block("::/0", &[])]);
    let documentation = Peers::Listed(vec![block("203.0.113.0/24", &[])]);
    for (rules, verdict) in [
        (vec![(Action::Accept, name("a.test")), (Action::Deny, all())], Verdict::Allow),
        (vec![(Action::Deny, all()), (Action::Accept, name("a.test"))], Verdict::Deny),
        (vec![(Action::Accept, name("b.test")), (Action::Deny, all())], Verdict::Deny),
        // Blocks with addresses that could be the name's own are not asked for.
        (vec![(Action::Deny, documentation), (Action::Accept, name("a.test"))], Verdict::Allow),
    ] {
        let cluster = with_admin(cluster(vec![]), rules.clone());
        assert_eq!(ask(&cluster, "x/a", "name:a.test", "TCP/80").unwrap().verdict, verdict, "{rules:?}");
    }
}

#[test]
fn a_name_is_no_source_and_no_pattern_is_a_name() {
    let cluster = cluster(vec![]);
    let error = ask(&cluster, "name:a.test", "x/a", "TCP/80").unwrap_err();
    assert_eq!(error.to_string(), "name:a.test: a name opens no connections, ask about a pod or an address");
    for text in ["name:", "name:*.test", "name:a..test"] {
        assert!(text.parse::<EndpointRef>().is_err(), "{text}");
    }
}

#[test]
fn an_address_is_allowed_by_the_names_that_it_was_learnt_for() {
    let cluster = cluster(vec![policy("web", None, Some(vec![rule(name("*.example.com"), Ports::Any)]))]);
    let place = |name: &str, left| (name.split('.').map(|label| label.as_bytes().into()).collect(), left);
    let address: IpAddr = "198.51.100.7".parse().unwrap();
    for (learnt, verdict) in [
        (None, Verdict::Deny),
        (Some(place("example.com", 1)), Verdict::Allow),
        (Some(place("example.com", 0)), Verdict::Deny),
        (Some(place("api.example.com", 0)), Verdict::Allow),
        (Some(place("other.test", 0)), Verdict::Deny),
    ] {
        let names = learnt.clone().map(|name| (address, [name].into()));
        let question = Question {
            from: "x/a".parse().unwrap(),
            to: EndpointRef::Address(address),
            port: "TCP/80".parse().unwrap(),
        };
        let answer = explain_with(&cluster, &question, &LearntNames(names.into_iter().collect())).unwrap();
        assert_eq!(answer.verdict, verdict, "{learnt:?}");
    }
    // No name opens a node.
    let names = LearntNames([("192.168.0.2".parse().unwrap(), [place("example.com", 1)].into())].into());
    let question = Question {
        from: "x/a".parse().unwrap(),
        to: "192.168.0.2".parse().unwrap(),
        port: "TCP/80".parse().unwrap(),
    };
    assert_eq!(explain_with(&cluster, &question, &names).unwrap().verdict, Verdict::Deny);
}

#[test]
fn what_is_known_of_a_name_is_what_stands_under_its_longest_part() {
    let place = |name: &str, left| -> crate::compiler::NamePlace {
        (name.split('.').map(|label| label.as_bytes().into()).collect(), left)
    };
    let learnt = |last: u8, place| (IpAddr::from([198, 51, 100, last]), place, 9);
    let learnt = [
        learnt(1, place("example.com", 1)),
        learnt(2, place("example.com", 2)),
        learnt(3, place("api.example.com", 0)),
        learnt(4, place("other.test", 0)),
    ];
    let patterns = ["*.example.com", "www.example.com"].map(|text| DomainPattern::parse(text).unwrap());
    for (name, expected) in [
        ("x.example.com", &["198.51.100.1 *.example.com"][..]),
        ("a.b.example.com", &["198.51.100.2 *.example.com"]),
        ("api.example.com", &["198.51.100.3 api.example.com"]),
        // It has a place of its own, where nothing was learnt.
        ("www.example.com", &[]),
        ("test", &[]),
    ] {
        let name: crate::model::DomainName = crate::model::DomainName::parse(name).unwrap();
        let known = KnownAddress::of(&name, &learnt, &patterns);
        let known: Vec<String> = known.iter().map(|it| format!("{} {}", it.address, it.name)).collect();
        assert_eq!(known, expected, "{name}");
    }
}
