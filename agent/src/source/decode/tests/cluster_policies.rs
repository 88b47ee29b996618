//! ClusterNetworkPolicies and their forerunners: what is read, and how what is not understood fails closed.

use podgate_core::model::{Action, ClusterPolicyKind, ClusterRule, DomainPattern, Tier};

use super::*;

const ACCEPT: Action = Action::Accept;

/// The ClusterNetworkPolicy `base` with this spec, and its faults as `field: message`.
fn cluster_policy(spec: &Value) -> (ClusterNetworkPolicy, Vec<String>) {
    of_kind("ClusterNetworkPolicy", "v1alpha2", spec)
}

fn of_kind(kind: &str, version: &str, spec: &Value) -> (ClusterNetworkPolicy, Vec<String>) {
    let (objects, faults) = decoded(&json!({
        "apiVersion": format!("policy.networking.k8s.io/{version}"), "kind": kind,
        "metadata": {"name": "base"}, "spec": spec,
    }));
    let [Decoded::ClusterPolicy(policy)] = objects.as_slice() else { panic!("{objects:?}") };
    let prefix = format!("{kind} base: ");
    let strip = |fault: String| fault.strip_prefix(&prefix).expect("a fault of the policy").to_owned();
    (policy.clone(), faults.into_iter().map(strip).collect())
}

/// The one rule of egress that this is read as.
fn egress(rule: &Value) -> (ClusterRule, Vec<String>) {
    let subject = json!({"namespaces": {}});
    let spec = json!({"tier": "Admin", "priority": 1, "subject": subject, "egress": [rule]});
    let (mut policy, faults) = cluster_policy(&spec);
    (policy.egress.remove(0), faults)
}

fn nothing() -> ClusterRule {
    let matches = Rule { peers: Peers::Listed(vec![Peer::Nothing]), ports: Ports::Any };
    ClusterRule { action: ACCEPT, matches }
}

fn deny_all() -> ClusterRule {
    ClusterRule { action: Action::Deny, matches: Rule { peers: Peers::Any, ports: Ports::Any } }
}

fn block(cidr: &str) -> Peer {
    Peer::Block(IpBlock { cidr: cidr.parse().unwrap(), except: BTreeSet::new() })
}

#[test]
fn every_peer_and_protocol_is_read() {
    let labels = |key: &str, value: &str| json!({"matchLabels": {key: value}});
    let is = |key: &str, value: &str| Selector::All(vec![is_in(key, &[value])]);
    let pods = |namespaces, pods| Peer::Pods { namespaces: Some(namespaces), pods };
    let peers = [
        (json!({"namespaces": {}}), vec![pods(Selector::EVERYTHING, Selector::EVERYTHING)]),
        (
            json!({"namespaces": labels("a", "b"), "pods": null}),
            vec![pods(is("a", "b"), Selector::EVERYTHING)],
        ),
        (
            json!({"pods": {"namespaceSelector": labels("a", "b"), "podSelector": labels("c", "d")}}),
            vec![pods(is("a", "b"), is("c", "d"))],
        ),
        (json!({"pods": {}}), vec![pods(Selector::EVERYTHING, Selector::EVERYTHING)]),
        (
            json!({"networks": ["010.0.0.5/24", "::ffff:10.1.0.0/112", "fd00::/8"]}),
            vec![block("10.0.0.0/24"), block("10.1.0.0/16"), block("fd00::/8")],
        ),
        (json!({"nodes": labels("a", "b")}), vec![Peer::Nodes(is("a", "b"))]),
    ];
    for (peer, read) in peers {
        let (rule, faults) = egress(&json!({"name": "r", "action": "Pass", "to": [peer]}));
        let matches = Rule { peers: Peers::Listed(read), ports: Ports::Any };
        assert_eq!((rule, faults), (ClusterRule { action: Action::Pass, matches }, vec![]), "{peer}");
    }
    let protocols = [
        (
            json!({"tcp": {"destinationPort": {"number": 80}}}),
            PortRule::Range { protocol: Tcp, first: 80, last: 80 },
        ),
        (
            json!({"udp": {"destinationPort": {"range": {"start": 1, "end": 65535}}}}),
            PortRule::Range { protocol: Udp, first: 1, last: 65535 },
        ),
        (json!({"sctp": {}}), PortRule::Protocol(Sctp)),
        (json!({"tcp": {"destinationPort": null}}), PortRule::Protocol(Tcp)),
        (json!({"destinationNamedPort": "http"}), PortRule::Named(None, "http".into())),
    ];
    for (protocol, read) in protocols {
        let (rule, faults) =
            egress(&json!({"action": "Deny", "to": [{"namespaces": {}}], "protocols": [protocol]}));
        assert_eq!((rule.matches.ports, faults), (Ports::Listed(vec![read]), vec![]), "{protocol}");
    }
}

#[test]
fn what_is_not_understood_of_a_rule_accepts_nothing_or_denies_everything() {
    let good = json!({"namespaces": {}});
    let peers = [
        (json!([{}]), "to[0]: needs one of namespaces, pods, networks, nodes, domainNames"),
        (
            json!([good, {"namespaces": {}, "nodes": {}}]),
            "to[1]: needs one of namespaces, pods, networks, nodes, domainNames",
        ),
        (json!([]), "to: must not be empty"),
        (json!(null), "to: must not be empty"),
        (json!("all"), "to: is text, not a list"),
        (
            json!([good, {"networks": ["10.0.0.0/8", "10.0.0.0/33"]}]),
            "to[1].networks[1]: \"10.0.0.0/33\" is not a CIDR: its prefix length is above 32",
        ),
        (json!([{"networks": []}]), "to[0].networks: must not be empty"),
        (json!([{"nodes": {"matchLabels": []}}]), "to[0].nodes.matchLabels: is a list, not an object"),
        (json!([{"pods": {"podSelector": 1}}]), "to[0].pods.podSelector: is a number, not an object"),
    ];
    let to = |(peers, fault): (Value, &str)| (json!({"to": peers}), fault.to_owned());
    let protocols = [
        (json!([]), ": must not be empty"),
        (json!([{}]), "[0]: needs one of tcp, udp, sctp, destinationNamedPort"),
        (
            json!([{"tcp": {}}, {"tcp": {}, "udp": {}}]),
            "[1]: needs one of tcp, udp, sctp, destinationNamedPort",
        ),
        (json!([{"tcp": {"destinationPort": {}}}]), "[0].tcp.destinationPort: needs either number or range"),
        (
            json!([{"tcp": {"destinationPort": {"number": 0}}}]),
            "[0].tcp.destinationPort.number: 0 is not a port number (1 to 65535)",
        ),
        (
            json!([{"udp": {"destinationPort": {"range": {"start": 9, "end": 9}}}}]),
            "[0].udp.destinationPort.range.end: 9 is not greater than start 9",
        ),
    ];
    let with_protocols = |(protocols, fault): (Value, &str)| {
        (json!({"to": [{"namespaces": {}}], "protocols": protocols}), format!("protocols{fault}"))
    };
    // The names that earlier versions of the API had for ports.
    let unknown = (json!({"to": [good], "ports": []}), "ports: is not a known field".to_owned());
    let all = peers.into_iter().map(to).chain(protocols.into_iter().map(with_protocols)).chain([unknown]);
    for (rule, fault) in all {
        for (action, expected) in [("Accept", nothing()), ("Deny", deny_all()), ("Pass", deny_all())] {
            let mut rule = rule.clone();
            rule["action"] = action.into();
            let (read, faults) = egress(&rule);
            assert_eq!(read, expected, "{rule}");
            assert_eq!(faults, [format!("spec.egress[0].{fault}")], "{rule}");
        }
    }
    let (rule, faults) = egress(&json!({"action": "Allow", "to": [good]}));
    assert_eq!(
        (rule, faults),
        (deny_all(), vec!["spec.egress[0].action: \"Allow\" is not Accept, Deny or Pass".into()])
    );
}

#[test]
fn networks_are_no_peers_of_ingress() {
    let rule = json!({"action": "Accept", "from": [{"networks": ["0.0.0.0/0"]}]});
    let (policy, faults) = cluster_policy(
        &json!({"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "ingress": [rule]}),
    );
    assert_eq!(policy.ingress, [nothing()]);
    let expected = [
        "spec.ingress[0].from[0].networks: is not a known field",
        "spec.ingress[0].from[0]: needs one of namespaces, pods",
    ];
    assert_eq!(faults, expected);
}

#[test]
fn names_of_domains_are_peers_of_rules_that_accept() {
    let peers = json!([{"domainNames": ["*.Example.com", "a.test."]}, {"networks": ["10.0.0.0/8"]}]);
    let (rule, faults) = egress(&json!({"action": "Accept", "to": peers}));
    let name = |text: &str| Peer::Name(DomainPattern::parse(text).unwrap());
    let expected = vec![name("*.example.com"), name("a.test"), block("10.0.0.0/8")];
    assert_eq!((rule.matches.peers, faults), (Peers::Listed(expected), vec![]));
    for action in ["Deny", "Pass"] {
        let (rule, faults) = egress(&json!({"action": action, "to": peers}));
        assert_eq!(rule, deny_all());
        assert_eq!(faults, ["spec.egress[0].to[0].domainNames: is only for rules that accept"]);
    }
}

#[test]
fn a_name_that_is_none_matches_nothing_and_leaves_others_alone() {
    let peers = json!([{"domainNames": ["a.*.test", "a.test", "x y"]}]);
    let (rule, faults) = egress(&json!({"action": "Accept", "to": peers}));
    let name = Peer::Name(DomainPattern::parse("a.test").unwrap());
    assert_eq!(rule.matches.peers, Peers::Listed(vec![Peer::Nothing, name, Peer::Nothing]));
    let expected = [
        "spec.egress[0].to[0].domainNames[0]: \"a.*.test\" has a * elsewhere than as its first label, matches nothing",
        "spec.egress[0].to[0].domainNames[2]: \"x y\" has a label that is not 1 to 63 letters, digits, - or _, \
         matches nothing",
    ];
    assert_eq!(faults, expected);
    for names in [json!([]), json!(vec!["a.test"; 26])] {
        let (rule, faults) = egress(&json!({"action": "Accept", "to": [{"domainNames": names}]}));
        assert_eq!(rule, nothing());
        assert_eq!(faults, ["spec.egress[0].to[0].domainNames: must have 1 to 25 entries"]);
    }
}

#[test]
fn names_of_domains_are_for_the_tier_admin() {
    let rule = json!({"action": "Accept", "to": [{"domainNames": ["a.test"]}]});
    let (policy, faults) = cluster_policy(
        &json!({"tier": "Baseline", "priority": 1, "subject": {"namespaces": {}}, "egress": [rule]}),
    );
    assert_eq!(policy.egress, [nothing()]);
    assert_eq!(faults, ["spec.egress: [0]: domainNames are for the tier Admin, match nothing"]);
}

#[test]
fn a_subject_with_a_fault_selects_no_pod() {
    let selects = |policy: &ClusterNetworkPolicy| {
        let subject = &policy.subject;
        (subject.namespaces != Selector::Nothing, subject.pods != Selector::Nothing)
    };
    let table = [
        (json!({"namespaces": {}}), (true, true), vec![]),
        (json!({"pods": {}}), (true, true), vec![]),
        (json!({}), (false, false), vec!["spec.subject: needs either namespaces or pods"]),
        (json!(null), (false, false), vec!["spec.subject: needs either namespaces or pods"]),
        (
            json!({"namespaces": {}, "pods": {}}),
            (false, false),
            vec!["spec.subject: needs either namespaces or pods"],
        ),
        (
            json!({"pods": {"podSelector": []}}),
            (true, false),
            vec!["spec.subject.pods.podSelector: is a list, not an object"],
        ),
    ];
    for (subject, expected, faults) in table {
        let (policy, found) = cluster_policy(&json!({"tier": "Baseline", "priority": 0, "subject": subject}));
        assert_eq!(
            (selects(&policy), found.as_slice()),
            (expected, &faults.iter().map(|fault| (*fault).to_owned()).collect::<Vec<_>>()[..]),
            "{subject}"
        );
    }
}

#[test]
fn a_tier_or_priority_with_a_fault_stands_first_and_fails_closed() {
    let rules =
        json!([{"action": "Accept", "to": [{"nodes": {}}]}, {"action": "Pass", "to": [{"nodes": {}}]}]);
    let table = [
        (json!({"tier": "Baseline", "priority": 1000}), None),
        (json!({"tier": "admin", "priority": 9}), Some("spec.tier: \"admin\" is not Admin or Baseline")),
        (json!({"priority": 9}), Some("spec.tier: is missing")),
        (json!({"tier": "Baseline"}), Some("spec.priority: is missing")),
        (
            json!({"tier": "Baseline", "priority": 1001}),
            Some("spec.priority: 1001 is not a number from 0 to 1000"),
        ),
        (
            json!({"tier": "Baseline", "priority": -1}),
            Some("spec.priority: -1 is not a number from 0 to 1000"),
        ),
    ];
    for (mut spec, fault) in table {
        spec["subject"] = json!({"namespaces": {}});
        spec["egress"] = rules.clone();
        let (policy, faults) = cluster_policy(&spec);
        assert_eq!(faults, fault.into_iter().collect::<Vec<_>>(), "{spec}");
        match fault {
            None => assert_eq!((policy.tier, policy.priority), (Tier::Baseline, 1000)),
            Some(_) => {
                assert_eq!((policy.tier, policy.priority), (Tier::Admin, 0), "{spec}");
                assert_eq!(policy.egress, [nothing(), deny_all()], "{spec}");
            }
        }
    }
}

#[test]
fn the_forerunners_say_the_same_in_other_words() {
    let peers = json!([{"namespaces": {}}]);
    let ports = json!([
        {"portNumber": {"port": 80}},
        {"portRange": {"protocol": "UDP", "start": 1, "end": 9}},
        {"namedPort": "http"},
    ]);
    let read = Ports::Listed(vec![
        PortRule::Range { protocol: Tcp, first: 80, last: 80 },
        PortRule::Range { protocol: Udp, first: 1, last: 9 },
        PortRule::Named(None, "http".into()),
    ]);
    let rules =
        json!([{"action": "Allow", "from": peers, "ports": ports}, {"action": "Pass", "from": peers}]);
    let spec = json!({"priority": 7, "subject": {"namespaces": {}}, "ingress": rules});
    let (policy, faults) = of_kind("AdminNetworkPolicy", "v1alpha1", &spec);
    assert_eq!(faults, Vec::<String>::new());
    assert_eq!(policy.name.kind, ClusterPolicyKind::AdminNetworkPolicy);
    assert_eq!((policy.tier, policy.priority), (Tier::Admin, 7));
    assert_eq!((policy.ingress[0].action, &policy.ingress[0].matches.ports), (ACCEPT, &read));
    assert_eq!(policy.ingress[1].action, Action::Pass);

    let (policy, faults) = of_kind("BaselineAdminNetworkPolicy", "v1alpha1", &spec);
    let expected =
        ["spec.priority: is not a known field", "spec.ingress[1].action: \"Pass\" is not Allow or Deny"];
    assert_eq!(faults, expected);
    assert_eq!((policy.tier, policy.priority), (Tier::Baseline, 0));
    assert_eq!(policy.ingress[1], deny_all());
}

#[test]
fn an_unnamed_policy_holds() {
    let spec = json!({"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}});
    let (objects, faults) = decoded(&json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "spec": spec,
    }));
    assert!(matches!(objects.as_slice(), [Decoded::ClusterPolicy(_)]), "{objects:?}");
    assert_eq!(faults, ["ClusterNetworkPolicy (unnamed, a.yaml document 1): metadata.name: is missing"]);
}
