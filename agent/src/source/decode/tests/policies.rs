//! NetworkPolicies: defaults, and what a fault costs.

use super::*;

#[test]
fn policy_types_have_the_api_servers_defaults() {
    let both = (true, true);
    let table = [
        (json!({}), (true, false), vec![]),
        (json!({"policyTypes": []}), (true, false), vec![]),
        (json!({"policyTypes": null, "ingress": [{}]}), (true, false), vec![]),
        (json!({"egress": []}), (true, false), vec![]),
        (json!({"egress": [{}]}), both, vec![]),
        (json!({"policyTypes": ["Ingress"], "egress": [{}]}), (true, false), vec![]),
        (json!({"policyTypes": ["Egress"], "ingress": [{}]}), (false, true), vec![]),
        (json!({"policyTypes": ["Ingress", "Ingress"]}), (true, false), vec![]),
        (json!({"policyTypes": ["Egress", "Ingress"]}), both, vec![]),
        (
            json!({"policyTypes": ["Ingress", "egress"]}),
            both,
            vec!["spec.policyTypes[1]: \"egress\" is not Ingress or Egress"],
        ),
        (
            json!({"policyTypes": ["EGRESS"]}),
            (false, true),
            vec!["spec.policyTypes[0]: \"EGRESS\" is not Ingress or Egress"],
        ),
        (
            json!({"policyTypes": ["Egress", "Ingres"]}),
            both,
            vec!["spec.policyTypes[1]: \"Ingres\" is not Ingress or Egress"],
        ),
        (json!({"policyTypes": [null]}), both, vec!["spec.policyTypes[0]: is missing"]),
        (json!({"policyTypes": [1, "Egress"]}), both, vec!["spec.policyTypes[0]: is a number, not text"]),
        (json!({"policyTypes": "Ingress"}), both, vec!["spec.policyTypes: is text, not a list"]),
        (
            json!({"policyTypes": ["Egress", "Egress", "Egress"]}),
            (false, true),
            vec!["spec.policyTypes: has more than 2 entries"],
        ),
        (json!({"egress": "abc"}), both, vec!["spec.egress: is text, not a list"]),
    ];
    for (spec, isolates, faults) in table {
        let (policy, found) = policy(&spec);
        assert_eq!((policy.ingress.is_some(), policy.egress.is_some()), isolates, "{spec}");
        assert_eq!(found, faults, "{spec}");
    }
}

#[test]
fn a_policy_without_spec_isolates_the_namespace_for_ingress() {
    for spec in [json!(null), json!({})] {
        let (policy, faults) = policy(&spec);
        assert_eq!(policy.subject, Selector::EVERYTHING);
        assert_eq!((policy.ingress, policy.egress), (Some(vec![]), None));
        assert!(faults.is_empty());
    }
}

#[test]
fn a_spec_that_is_not_understood_closes_both_directions() {
    let (policy, faults) = policy(&json!(["x"]));
    assert_eq!(policy.subject, Selector::EVERYTHING);
    assert_eq!((policy.ingress, policy.egress), (Some(vec![]), Some(vec![])));
    assert_eq!(faults, ["spec: is a list, not an object"]);
}

#[test]
fn absent_and_empty_lists_of_a_rule_mean_everything() {
    let all = Rule { peers: Peers::Any, ports: Ports::Any };
    for rule in
        [json!({}), json!(null), json!({"from": [], "ports": []}), json!({"from": null, "ports": null})]
    {
        let (policy, faults) = policy(&json!({"ingress": [rule]}));
        assert_eq!(policy.ingress, Some(vec![all.clone()]), "{rule}");
        assert!(faults.is_empty(), "{rule}");
    }
    for ingress in [json!([]), json!(null)] {
        assert_eq!(policy(&json!({"ingress": ingress})).0.ingress, Some(vec![]));
    }
}

#[test]
fn rules_that_are_not_understood_match_nothing_and_keep_their_place() {
    let no_peer = Rule { peers: Peers::Listed(vec![Peer::Nothing]), ports: Ports::Any };
    let no_port = Rule { peers: Peers::Any, ports: Ports::Listed(vec![PortRule::Nothing]) };
    let all = Rule { peers: Peers::Any, ports: Ports::Any };
    let table = [
        (json!("abc"), vec![], vec!["spec.ingress: is text, not a list"]),
        (json!({}), vec![], vec!["spec.ingress: is an object, not a list"]),
        (json!([7, {}]), vec![no_peer.clone(), all], vec!["spec.ingress[0]: is a number, not an object"]),
        (
            json!([{"from": {}}]),
            vec![no_peer.clone()],
            vec!["spec.ingress[0].from: is an object, not a list"],
        ),
        (json!([{"ports": "x"}]), vec![no_port], vec!["spec.ingress[0].ports: is text, not a list"]),
        (json!([{"form": []}]), vec![no_peer], vec!["spec.ingress[0].form: is not a known field"]),
    ];
    for (ingress, rules, faults) in table {
        let (policy, found) = policy(&json!({"ingress": ingress}));
        assert_eq!(policy.ingress, Some(rules), "{ingress}");
        assert_eq!(found, faults, "{ingress}");
    }
}

#[test]
fn ports_have_defaults_and_a_bad_one_matches_nothing() {
    let range = |protocol, first, last| PortRule::Range { protocol, first, last };
    let table = [
        (json!({}), PortRule::Protocol(Tcp), vec![]),
        (json!(null), PortRule::Protocol(Tcp), vec![]),
        (json!({"protocol": "UDP"}), PortRule::Protocol(Udp), vec![]),
        (json!({"protocol": "SCTP", "port": 1}), range(Sctp, 1, 1), vec![]),
        (json!({"port": 65535}), range(Tcp, 65535, 65535), vec![]),
        (json!({"port": 80, "endPort": 80}), range(Tcp, 80, 80), vec![]),
        (json!({"port": 80, "endPort": 90}), range(Tcp, 80, 90), vec![]),
        (json!({"port": "http", "protocol": null}), PortRule::Named(Some(Tcp), "http".into()), vec![]),
        (json!({"port": 80, "prot": "UDP"}), PortRule::Nothing, vec![".prot: is not a known field"]),
        (json!({"protocol": "tcp"}), PortRule::Nothing, vec![".protocol: \"tcp\" is not TCP, UDP or SCTP"]),
        (json!({"protocol": ""}), PortRule::Nothing, vec![".protocol: \"\" is not TCP, UDP or SCTP"]),
        (json!({"protocol": 6}), PortRule::Nothing, vec![".protocol: is a number, not text"]),
        (json!({"port": 0}), PortRule::Nothing, vec![".port: 0 is not a port number (1 to 65535)"]),
        (json!({"port": 65536}), PortRule::Nothing, vec![".port: 65536 is not a port number (1 to 65535)"]),
        (json!({"port": -1}), PortRule::Nothing, vec![".port: -1 is not a port number (1 to 65535)"]),
        (json!({"port": 1.5}), PortRule::Nothing, vec![".port: 1.5 is not a port number (1 to 65535)"]),
        (json!({"port": [80]}), PortRule::Nothing, vec![".port: is a list, not a number or a name"]),
        (json!({"port": true}), PortRule::Nothing, vec![".port: is a boolean, not a number or a name"]),
        (
            json!({"port": "80"}),
            PortRule::Nothing,
            vec![".port: \"80\" is not a port name: it has no letter"],
        ),
        (
            json!({"port": "Http"}),
            PortRule::Nothing,
            vec![".port: \"Http\" is not a port name: only a-z, 0-9 and '-' are allowed"],
        ),
        (
            json!({"port": "a--b"}),
            PortRule::Nothing,
            vec![".port: \"a--b\" is not a port name: '-' must stand single between letters or digits"],
        ),
        (
            json!({"port": "sixteen-letters-"}),
            PortRule::Nothing,
            vec![".port: \"sixteen-letters-\" is not a port name: it is longer than 15 characters"],
        ),
        (json!({"port": 80, "endPort": 79}), PortRule::Nothing, vec![".endPort: 79 is less than port 80"]),
        (
            json!({"port": 80, "endPort": 65536}),
            PortRule::Nothing,
            vec![".endPort: 65536 is not a port number (1 to 65535)"],
        ),
        (json!({"port": 80, "endPort": "90"}), PortRule::Nothing, vec![".endPort: is text, not a number"]),
        (json!({"endPort": 80}), PortRule::Nothing, vec![".endPort: needs a port"]),
        (
            json!({"port": "http", "endPort": 80}),
            PortRule::Nothing,
            vec![".endPort: needs a port that is a number"],
        ),
        (
            json!({"protocol": "ICMP", "port": 0, "endPort": 0}),
            PortRule::Nothing,
            vec![
                ".protocol: \"ICMP\" is not TCP, UDP or SCTP",
                ".port: 0 is not a port number (1 to 65535)",
                ".endPort: 0 is not a port number (1 to 65535)",
            ],
        ),
        (json!("http"), PortRule::Nothing, vec![": is text, not an object"]),
    ];
    for (port, expected, faults) in table {
        let (policy, found) = policy(&json!({"ingress": [{"ports": [port, {"port": 443}]}]}));
        let expected = Ports::Listed(vec![expected, range(Tcp, 443, 443)]);
        assert_eq!(policy.ingress, Some(vec![Rule { peers: Peers::Any, ports: expected }]), "{port}");
        let faults: Vec<_> = faults.iter().map(|fault| format!("spec.ingress[0].ports[0]{fault}")).collect();
        assert_eq!(found, faults, "{port}");
    }
}

#[test]
fn the_mode_is_audit_only_where_it_says_so() {
    let table = [
        (json!({}), false, None),
        (json!({"podgate.io/mode": "audit"}), true, None),
        (json!({"podgate.io/mode": "enforce"}), false, None),
        (json!({"podgate.io/mode": "Audit"}), true, None),
        (json!({"podgate.io/mode": "ENFORCE"}), false, None),
        (json!({"podgate.io/mode": "Audti"}), false, Some("\"Audti\" is neither \"enforce\" nor \"audit\"")),
        (json!({"podgate.io/mode": true}), false, Some("is a boolean, not text")),
        (json!({"other": "audit"}), false, None),
    ];
    for (annotations, audit, fault) in table {
        let metadata = json!({"name": "a", "annotations": annotations});
        for (version, kind) in [
            ("networking.k8s.io/v1", "NetworkPolicy"),
            ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy"),
            ("v1", "Namespace"),
        ] {
            let (objects, faults) =
                decoded(&json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": {}}));
            let seen = match objects.as_slice() {
                [Decoded::Policy(policy)] => policy.audit,
                [Decoded::ClusterPolicy(policy)] => policy.audit,
                [Decoded::Namespace(_, namespace)] => namespace.audit,
                other => panic!("{other:?}"),
            };
            assert_eq!(seen, audit, "{kind} {annotations}");
            if let Some(fault) = fault {
                let reported = faults.iter().any(|line| {
                    line.contains("metadata.annotations") && line.contains(fault) && line.contains(kind)
                });
                assert!(reported, "{kind} {annotations}: {faults:?}");
            }
        }
    }
}
