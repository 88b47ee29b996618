//! Rules without an effect of their own.

use podgate_common::Protocol::Tcp;

use super::*;
use crate::{
    fixtures::{block, from, has, named, policy, rule},
    model::{
        Action, ClusterPolicyKind, ClusterPolicyName, ClusterRule, ClusterSubject, Peers, PortRule, Ports,
        Rule, Tier,
    },
};

const NAME: LintName = LintName::ShadowedRule;

fn port(number: u16) -> PortRule {
    PortRule::Range { protocol: Tcp, first: number, last: number }
}

fn rule_of(peers: &[Peer], ports: &[PortRule]) -> Rule {
    let ports = if ports.is_empty() { Ports::Any } else { Ports::Listed(ports.to_vec()) };
    rule(Peers::Listed(peers.to_vec()), ports)
}

#[test]
fn a_rule_that_another_one_of_its_policy_covers_is_found() {
    let frontend = || in_own(has("role", "frontend"));
    let everyone = || in_own(Selector::EVERYTHING);
    let http = || PortRule::Named(Some(Tcp), "http".into());
    for (rules, expected) in [
        (vec![from(frontend()), from(everyone())], vec![0]),
        (vec![from(everyone()), from(frontend())], vec![1]),
        (vec![from(frontend()), from(in_own(has("role", "backend")))], vec![]),
        // Of two that say the same the first stays.
        (vec![from(frontend()), from(frontend()), from(frontend())], vec![1, 2]),
        (vec![rule_of(&[frontend()], &[port(80)]), from(everyone())], vec![0]),
        (vec![from(frontend()), rule_of(&[everyone()], &[port(80)])], vec![]),
        (vec![rule_of(&[frontend()], &[port(80)]), rule_of(&[frontend()], &[port(80), port(81)])], vec![0]),
        (vec![rule(Peers::Any, Ports::Any), from(block("10.0.0.0/8", &[]))], vec![1]),
        (vec![from(block("10.1.0.0/16", &[])), from(block("10.0.0.0/8", &["10.1.0.0/24"]))], vec![]),
        // Both together, but neither alone.
        (
            vec![
                rule_of(&[frontend(), block("10.0.0.0/8", &[])], &[]),
                from(frontend()),
                from(block("10.0.0.0/8", &[])),
            ],
            vec![1, 2],
        ),
        // Not on pod a, where the name stands for nothing, but on pod b.
        (vec![rule_of(&[everyone()], &[http()]), rule_of(&[everyone()], &[port(8080)])], vec![0]),
        (vec![rule_of(&[everyone()], &[port(8081)]), rule_of(&[everyone()], &[http()])], vec![]),
        // They match nothing, which is reported.
        (vec![from(Peer::Nothing), from(everyone())], vec![]),
    ] {
        let expected: Vec<String> =
            expected.iter().map(|index| format!("NetworkPolicy x/web: spec.ingress[{index}]")).collect();
        assert_eq!(places_with(vec![policy("web", Some(rules.clone()), None)], NAME), expected, "{rules:?}");
    }
}

#[test]
fn a_rule_that_another_policy_for_the_same_pods_covers_is_found() {
    let wide = || vec![from(in_own(Selector::EVERYTHING))];
    let narrow = || vec![from(in_own(has("role", "frontend")))];
    let backend = |policy: NetworkPolicy| NetworkPolicy { subject: has("role", "backend"), ..policy };
    let audit = |policy: NetworkPolicy| NetworkPolicy { audit: true, ..policy };
    let of_b = "NetworkPolicy x/b: spec.ingress[0]";
    for (policies, expected) in [
        ([policy("a", Some(wide()), None), policy("b", Some(narrow()), None)], vec![of_b]),
        ([policy("a", Some(wide()), None), backend(policy("b", Some(narrow()), None))], vec![of_b]),
        ([policy("a", Some(wide()), None), backend(policy("b", Some(wide()), None))], vec![of_b]),
        ([backend(policy("a", Some(wide()), None)), policy("b", Some(narrow()), None)], vec![]),
        ([backend(policy("a", Some(wide()), None)), backend(policy("b", Some(narrow()), None))], vec![of_b]),
        ([policy("a", Some(wide()), None), policy("b", Some(wide()), None)], vec![of_b]),
        // Another direction.
        ([policy("a", None, Some(wide())), policy("b", Some(narrow()), None)], vec![]),
        // One that only reports does not allow in the other's place.
        ([audit(policy("a", Some(wide()), None)), policy("b", Some(narrow()), None)], vec![]),
        ([policy("a", Some(wide()), None), audit(policy("b", Some(narrow()), None))], vec![of_b]),
    ] {
        assert_eq!(places_with(policies.to_vec(), NAME), expected, "{policies:?}");
    }
}

#[test]
fn policies_of_different_namespaces_say_nothing_about_each_other() {
    let rules = || Some(vec![from(across(Selector::EVERYTHING, Selector::EVERYTHING))]);
    let other = NetworkPolicy { name: ObjectName::new("y", "a"), ..policy("a", rules(), None) };
    assert_eq!(places_with(vec![policy("b", rules(), None), other], NAME), [""; 0]);
}

#[test]
fn names_are_compared_by_what_they_stand_for_on_every_pod() {
    let rules = vec![
        rule_of(&[in_own(Selector::EVERYTHING)], &[PortRule::Named(Some(Tcp), "http".into())]),
        rule_of(&[in_own(Selector::EVERYTHING)], &[port(8080)]),
    ];
    let mut cluster = cluster(vec![policy("web", Some(rules), None)]);
    assert_eq!(places(&cluster, &ObjectNotes::default(), NAME), ["NetworkPolicy x/web: spec.ingress[0]"]);
    let mut other = crate::fixtures::pod("x/other", "n1", &["10.0.0.9"], &[]);
    other.ports = [named("http", 9090)].into();
    cluster.pods.insert(other.name.clone(), other.into());
    assert_eq!(places(&cluster, &ObjectNotes::default(), NAME), [""; 0]);
}

fn cluster_policy(
    name: &str,
    priority: u16,
    namespaces: Selector,
    rules: &[(Action, Selector)],
) -> ClusterNetworkPolicy {
    let rules = rules.iter().map(|(action, namespaces)| ClusterRule {
        action: *action,
        matches: from(across(namespaces.clone(), Selector::EVERYTHING)),
    });
    ClusterNetworkPolicy {
        name: ClusterPolicyName { name: name.into(), kind: ClusterPolicyKind::ClusterNetworkPolicy },
        tier: Tier::Admin,
        priority,
        subject: ClusterSubject { namespaces, pods: Selector::EVERYTHING },
        ingress: rules.collect(),
        egress: Vec::new(),
        audit: false,
    }
}

#[test]
fn a_rule_of_a_cluster_wide_policy_after_one_that_decides_everything_is_found() {
    use Action::{Accept, Deny, Pass};
    let all = || Selector::EVERYTHING;
    let test = || has("purpose", "test");
    let later = |index: usize, name: &str| format!("ClusterNetworkPolicy {name}: spec.ingress[{index}]");
    let first = |rules: &[(Action, Selector)]| cluster_policy("first", 1, all(), rules);
    for (policies, expected) in [
        (vec![first(&[(Accept, all()), (Deny, test())])], vec![later(1, "first")]),
        (vec![first(&[(Pass, all()), (Deny, test())])], vec![later(1, "first")]),
        // The later one still decides about the others.
        (vec![first(&[(Accept, test()), (Deny, all())])], vec![]),
        (
            vec![first(&[(Deny, all())]), cluster_policy("next", 2, test(), &[(Accept, test())])],
            vec![later(0, "next")],
        ),
        (
            vec![
                cluster_policy("first", 1, test(), &[(Deny, all())]),
                cluster_policy("next", 2, all(), &[(Accept, test())]),
            ],
            vec![],
        ),
        // The lower number comes first.
        (
            vec![
                cluster_policy("first", 3, all(), &[(Deny, all())]),
                cluster_policy("next", 2, test(), &[(Accept, test())]),
            ],
            vec![],
        ),
        (
            vec![
                ClusterNetworkPolicy { tier: Tier::Baseline, ..first(&[(Deny, all())]) },
                cluster_policy("next", 2, test(), &[(Accept, test())]),
            ],
            vec![],
        ),
        (
            vec![
                ClusterNetworkPolicy { audit: true, ..first(&[(Deny, all())]) },
                cluster_policy("next", 2, test(), &[(Accept, test())]),
            ],
            vec![],
        ),
    ] {
        let cluster = with_cluster_policies(policies.clone());
        assert_eq!(places(&cluster, &ObjectNotes::default(), NAME), expected, "{policies:?}");
    }
}
