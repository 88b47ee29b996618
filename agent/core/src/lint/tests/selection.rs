//! Policies and peers that select nothing, and misspelt labels.

use super::*;
use crate::{
    fixtures::{block, from, has, policy},
    model::{
        Action, ClusterPolicyKind, ClusterPolicyName, ClusterRule, ClusterSubject, Peers, Ports, Requirement,
        Rule, Tier,
    },
};

fn selecting(subject: Selector) -> NetworkPolicy {
    NetworkPolicy { subject, ..policy("web", Some(Vec::new()), None) }
}

#[test]
fn a_policy_that_selects_no_pod_is_found() {
    let role = |value| has("role", value);
    let is_not = Selector::All(vec![Requirement::NotIn("role".into(), ["frontend".into()].into())]);
    for (subject, is_found) in [
        (role("nothing"), true),
        (role("backend"), false),
        (Selector::EVERYTHING, false),
        (is_not, false),
        // In another namespace.
        (has("tier", "gold"), true),
        // Reported when it was read.
        (Selector::Nothing, false),
    ] {
        let found = places_with(vec![selecting(subject.clone())], LintName::PolicySelectsNoPod);
        let expected: &[&str] = if is_found { &["NetworkPolicy x/web: spec.podSelector"] } else { &[] };
        assert_eq!(found, expected, "{subject:?}");
    }
}

#[test]
fn pods_on_the_host_network_are_not_selected() {
    let mut cluster = cluster(vec![selecting(has("role", "backend"))]);
    let (name, b) = cluster.pods.iter().find(|(name, _)| &*name.name == "b").unwrap();
    let (name, mut b) = (name.clone(), b.clone());
    Arc::make_mut(&mut b).host_network = true;
    cluster.pods.insert(name, b);
    let found = places(&cluster, &ObjectNotes::default(), LintName::PolicySelectsNoPod);
    assert_eq!(found, ["NetworkPolicy x/web: spec.podSelector"]);
}

#[test]
fn a_peer_that_matches_no_pod_is_found_where_it_stands() {
    let purpose = |value| has("purpose", value);
    for (peer, field) in [
        (in_own(has("role", "backend")), None),
        (in_own(has("tier", "gold")), Some("podSelector")),
        (across(Selector::EVERYTHING, has("tier", "gold")), None),
        (across(Selector::EVERYTHING, has("tier", "silver")), Some("podSelector")),
        (across(purpose("test"), has("role", "backend")), Some("podSelector")),
        (across(purpose("production"), has("role", "backend")), Some("namespaceSelector")),
        (across(has("kubernetes.io/metadata.name", "x"), Selector::EVERYTHING), None),
        (block("192.0.2.0/24", &[]), None),
        (in_own(Selector::Nothing), None),
        (Peer::Nothing, None),
    ] {
        let rules = vec![from(block("10.0.0.0/8", &[])), from(peer.clone())];
        for (policy, list) in [
            (policy("web", Some(rules.clone()), None), "ingress[1].from[0]"),
            (policy("web", None, Some(rules)), "egress[1].to[0]"),
        ] {
            let found = places_with(vec![policy], LintName::PeerMatchesNoPod);
            let expected = field.map(|field| format!("NetworkPolicy x/web: spec.{list}.{field}"));
            assert_eq!(found, Vec::from_iter(expected), "{peer:?}");
        }
    }
}

fn cluster_policy(subject: (Selector, Selector), peers: Vec<Peer>) -> ClusterNetworkPolicy {
    let matches = Rule { peers: Peers::Listed(peers), ports: Ports::Any };
    ClusterNetworkPolicy {
        name: ClusterPolicyName { name: "base".into(), kind: ClusterPolicyKind::ClusterNetworkPolicy },
        tier: Tier::Admin,
        priority: 1,
        subject: ClusterSubject { namespaces: subject.0, pods: subject.1 },
        ingress: Vec::new(),
        egress: vec![ClusterRule { action: Action::Deny, matches }],
        audit: false,
    }
}

#[test]
fn cluster_wide_policies_and_their_peers_are_looked_at_too() {
    let everything = || Selector::EVERYTHING;
    let subject = "ClusterNetworkPolicy base: spec.subject";
    let to = |field: &str| format!("ClusterNetworkPolicy base: spec.egress[0].{field}");
    let all = || (everything(), everything());
    for (policy, name, expected) in [
        (cluster_policy(all(), vec![]), LintName::PolicySelectsNoPod, None),
        (
            cluster_policy((has("team", "a"), everything()), vec![]),
            LintName::PolicySelectsNoPod,
            Some(subject.to_owned()),
        ),
        (
            cluster_policy((everything(), has("role", "x")), vec![]),
            LintName::PolicySelectsNoPod,
            Some(subject.to_owned()),
        ),
        (
            cluster_policy(
                all(),
                vec![across(everything(), everything()), across(has("a", "b"), everything())],
            ),
            LintName::PeerMatchesNoPod,
            Some(to("to[1]")),
        ),
        // A list of networks is one entry.
        (
            cluster_policy(
                all(),
                vec![block("10.0.0.0/8", &[]), block("11.0.0.0/8", &[]), across(has("a", "b"), everything())],
            ),
            LintName::PeerMatchesNoPod,
            Some(to("to")),
        ),
        (cluster_policy(all(), vec![Peer::Nodes(everything())]), LintName::PeerMatchesNoNode, None),
        (
            cluster_policy(all(), vec![Peer::Nodes(has("zone", "a"))]),
            LintName::PeerMatchesNoNode,
            Some(to("to[0]")),
        ),
    ] {
        let found = places(&with_cluster_policies(vec![policy.clone()]), &ObjectNotes::default(), name);
        assert_eq!(found, Vec::from_iter(expected), "{policy:?}");
    }
}

#[test]
fn a_label_one_edit_away_is_named_where_a_selector_matches_nothing() {
    let exists = |key: &str| Selector::All(vec![Requirement::Exists(key.into())]);
    for (subject, expected) in [
        (has("role", "frontned"), Some("no pods have role=frontned, but some have role=frontend")),
        (has("rol", "frontend"), Some("no pods have the label rol, but some have role")),
        (exists("roles"), Some("no pods have the label roles, but some have role")),
        (has("role", "front"), None),
        (has("team", "frontend"), None),
        // It matches.
        (has("role", "frontend"), None),
        // Pods of other namespaces are not meant.
        (has("tier", "gol"), None),
    ] {
        let findings = lint(&cluster(vec![selecting(subject.clone())]), &ObjectNotes::default());
        let found = findings.into_iter().find(|finding| finding.name == LintName::MisspeltLabel);
        assert_eq!(found.map(|it| it.message), expected.map(str::to_owned), "{subject:?}");
    }
    let namespaces = from(across(has("purpose", "tests"), Selector::EVERYTHING));
    let found = places_with(vec![policy("web", Some(vec![namespaces]), None)], LintName::MisspeltLabel);
    assert_eq!(found, ["NetworkPolicy x/web: spec.ingress[0].from[0].namespaceSelector"]);
}
