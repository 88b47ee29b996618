//! Every default and every rule of validation, with the exact words of each fault.

mod services;

use std::collections::BTreeSet;

use podgate_common::Protocol::{Sctp, Tcp, Udp};
use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;
use crate::model::{
    IpBlock, NAMESPACE_NAME_LABEL, NamedPort, Peer, Peers, PortRule, Ports, Requirement, Rule, Selector,
};

fn decode(value: &Value) -> Contents {
    let place = Place { origin: "a.yaml".into(), position: "document 1".into() };
    Decoder::default().decode(value, &place)
}

/// What was decoded, and the faults as `object: field: message`.
fn decoded(value: &Value) -> (Vec<Decoded>, Vec<String>) {
    let Contents { objects, faults, .. } = decode(value);
    let line = |Fault { object, field, message }| format!("{object}: {field}: {message}");
    (objects, faults.into_iter().map(line).collect())
}

/// The policy `shop/web` with this spec, and its faults as `field: message`.
fn policy(spec: &Value) -> (NetworkPolicy, Vec<String>) {
    let (objects, faults) = decoded(&json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": spec,
    }));
    let [Decoded::Policy(policy)] = objects.as_slice() else { panic!("{objects:?}") };
    let prefix = "NetworkPolicy shop/web: ";
    let strip = |fault: String| fault.strip_prefix(prefix).expect("a fault of the policy").to_owned();
    (policy.clone(), faults.into_iter().map(strip).collect())
}

fn pod(value: Value) -> (Option<Pod>, Vec<String>) {
    let mut object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "x"}});
    let Value::Object(fields) = value else { panic!("{value}") };
    object.as_object_mut().unwrap().extend(fields);
    let (objects, faults) = decoded(&object);
    let pod = match objects.as_slice() {
        [Decoded::Pod(pod)] => Some(pod.clone()),
        [Decoded::FinishedPod(_)] => None,
        other => panic!("{other:?}"),
    };
    let strip = |fault: String| fault.strip_prefix("Pod x/a: ").expect("a fault of the pod").to_owned();
    (pod, faults.into_iter().map(strip).collect())
}

fn is_in(key: &str, values: &[&str]) -> Requirement {
    Requirement::In(key.into(), values.iter().map(|value| Name::from(*value)).collect())
}

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
            (true, false),
            vec!["spec.policyTypes[1]: \"egress\" is not Ingress or Egress"],
        ),
        (
            json!({"policyTypes": ["egress"]}),
            both,
            vec!["spec.policyTypes[0]: \"egress\" is not Ingress or Egress"],
        ),
        (json!({"policyTypes": [null]}), both, vec!["spec.policyTypes[0]: is missing"]),
        (
            json!({"policyTypes": [1, "Egress"]}),
            (false, true),
            vec!["spec.policyTypes[0]: is a number, not text"],
        ),
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
    let nobody = Rule { peers: Peers::Listed(vec![Peer::Nothing]), ports: Ports::Any };
    let no_port = Rule { peers: Peers::Any, ports: Ports::Listed(vec![PortRule::Nothing]) };
    let all = Rule { peers: Peers::Any, ports: Ports::Any };
    let table = [
        (json!("abc"), vec![], vec!["spec.ingress: is text, not a list"]),
        (json!({}), vec![], vec!["spec.ingress: is an object, not a list"]),
        (
            json!([7, {}]),
            vec![nobody.clone(), all.clone()],
            vec!["spec.ingress[0]: is a number, not an object"],
        ),
        (json!([{"from": {}}]), vec![nobody], vec!["spec.ingress[0].from: is an object, not a list"]),
        (json!([{"ports": "x"}]), vec![no_port], vec!["spec.ingress[0].ports: is text, not a list"]),
        (json!([{"form": []}]), vec![all], vec!["spec.ingress[0].form: is not a known field"]),
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
        (json!({"port": "http", "protocol": null}), PortRule::Named(Tcp, "http".into()), vec![]),
        (json!({"port": 80, "prot": "UDP"}), range(Tcp, 80, 80), vec![".prot: is not a known field"]),
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
fn peers_are_and_or_by_their_shape_and_a_bad_one_matches_nothing() {
    let everything = || Selector::EVERYTHING;
    let web = || Selector::All(vec![is_in("app", &["web"])]);
    let pods = |namespaces, pods| Peer::Pods { namespaces, pods };
    let block = |cidr: &str, except: &[&str]| {
        let except = except.iter().map(|net| net.parse().unwrap()).collect();
        Peer::Block(IpBlock { cidr: cidr.parse().unwrap(), except })
    };
    let labels = json!({"matchLabels": {"app": "web"}});
    let table = [
        (json!({"podSelector": {}}), pods(None, everything()), vec![]),
        (json!({"namespaceSelector": {}}), pods(Some(everything()), everything()), vec![]),
        (json!({"namespaceSelector": labels, "podSelector": {}}), pods(Some(web()), everything()), vec![]),
        (json!({"namespaceSelector": {}, "podSelector": labels}), pods(Some(everything()), web()), vec![]),
        (json!({"podSelector": labels, "ipBlock": null}), pods(None, web()), vec![]),
        (json!({"podSelector": {}, "x": 1}), pods(None, everything()), vec![".x: is not a known field"]),
        (json!({"ipBlock": {"cidr": "10.0.0.0/8"}}), block("10.0.0.0/8", &[]), vec![]),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "10.0.0.0/9", "10.1.0.0/16"]}}),
            block("10.0.0.0/8", &["10.1.0.0/16", "10.0.0.0/9"]),
            vec![],
        ),
        (
            json!({"ipBlock": {"cidr": "010.0.0.7/08", "except": ["::ffff:10.1.2.3/120"]}}),
            block("10.0.0.0/8", &["10.1.2.0/24"]),
            vec![],
        ),
        (json!({}), Peer::Nothing, vec![": needs a podSelector, a namespaceSelector or an ipBlock"]),
        (
            json!({"nodeSelector": {}}),
            Peer::Nothing,
            vec![
                ".nodeSelector: is not a known field",
                ": needs a podSelector, a namespaceSelector or an ipBlock",
            ],
        ),
        (
            json!({"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}),
            Peer::Nothing,
            vec![": ipBlock must not stand beside a selector"],
        ),
        (json!("web"), Peer::Nothing, vec![": is text, not an object"]),
        (
            json!({"podSelector": "web"}),
            pods(None, Selector::Nothing),
            vec![".podSelector: is text, not an object"],
        ),
        (
            json!({"podSelector": {}, "namespaceSelector": []}),
            pods(Some(Selector::Nothing), everything()),
            vec![".namespaceSelector: is a list, not an object"],
        ),
        (json!({"ipBlock": "10.0.0.0/8"}), Peer::Nothing, vec![".ipBlock: is text, not an object"]),
        (json!({"ipBlock": {}}), Peer::Nothing, vec![".ipBlock.cidr: is missing"]),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0/33", "expect": []}}),
            Peer::Nothing,
            vec![
                ".ipBlock.expect: is not a known field",
                ".ipBlock.cidr: \"10.0.0.0/33\" is not a CIDR: its prefix length is above 32",
            ],
        ),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": "10.1.0.0/16"}}),
            Peer::Nothing,
            vec![".ipBlock.except: is text, not a list"],
        ),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": [null, "10.1.0.0"]}}),
            Peer::Nothing,
            vec![
                ".ipBlock.except[0]: is missing",
                ".ipBlock.except[1]: \"10.1.0.0\" is not a CIDR: it has no prefix length",
            ],
        ),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/9", "11.0.0.0/16"]}}),
            Peer::Nothing,
            vec![".ipBlock.except[1]: 11.0.0.0/16 is not inside 10.0.0.0/8"],
        ),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8", "0.0.0.0/0", "fd00::/64"]}}),
            Peer::Nothing,
            vec![
                ".ipBlock.except[0]: 10.0.0.0/8 is not smaller than 10.0.0.0/8",
                ".ipBlock.except[1]: 0.0.0.0/0 is not smaller than 10.0.0.0/8",
                ".ipBlock.except[2]: fd00::/64 is not inside 10.0.0.0/8",
            ],
        ),
    ];
    for (peer, expected, faults) in table {
        for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
            let rule = Map::from_iter([(peers.to_owned(), json!([{"podSelector": {}}, peer]))]);
            let spec = Map::from_iter([(rules.to_owned(), json!([rule]))]);
            let (policy, found) = policy(&spec.into());
            let expected = Peers::Listed(vec![pods(None, everything()), expected.clone()]);
            let decoded = if rules == "ingress" { policy.ingress } else { policy.egress };
            assert_eq!(decoded, Some(vec![Rule { peers: expected, ports: Ports::Any }]), "{peer}");
            let faults: Vec<_> =
                faults.iter().map(|fault| format!("spec.{rules}[0].{peers}[1]{fault}")).collect();
            assert_eq!(found, faults, "{peer}");
        }
    }
}

#[test]
fn selectors_keep_their_requirements_and_a_bad_one_selects_nothing() {
    let not_in = |key: &str, values: &[&str]| {
        Requirement::NotIn(key.into(), values.iter().map(|value| Name::from(*value)).collect::<BTreeSet<_>>())
    };
    let good = [
        (json!({}), vec![]),
        (json!(null), vec![]),
        (json!({"matchLabels": null, "matchExpressions": []}), vec![]),
        (json!({"matchLabels": {"b": "2", "a": "1"}}), vec![is_in("a", &["1"]), is_in("b", &["2"])]),
        (json!({"matchLabels": {"k8s.io/a": ""}}), vec![is_in("k8s.io/a", &[""])]),
        (json!({"matchLabels": {"a": null}}), vec![is_in("a", &[""])]),
        (
            json!({"matchLabels": {"a": "1"}, "matchExpressions": [
                {"key": "b", "operator": "In", "values": ["y", "x", "y"]},
                {"key": "c", "operator": "NotIn", "values": [""]},
                {"key": "d", "operator": "Exists"},
                {"key": "e", "operator": "DoesNotExist", "values": []},
            ]}),
            vec![
                is_in("a", &["1"]),
                is_in("b", &["x", "y"]),
                not_in("c", &[""]),
                Requirement::Exists("d".into()),
                Requirement::DoesNotExist("e".into()),
            ],
        ),
    ];
    for (selector, requirements) in good {
        let (policy, faults) = policy(&json!({"podSelector": selector}));
        assert_eq!((policy.subject, faults), (Selector::All(requirements), vec![]), "{selector}");
    }
    let bad_key = "is not a label key (letters, digits, '-', '_' and '.', 1 to 63 characters)";
    let bad_value = "is not a label value (letters, digits, '-', '_' and '.', at most 63 characters)";
    let expression = |key: &str, operator: &str, values: Value| json!({"matchExpressions": [{"key": "a", "operator": "Exists"}, {"key": key, "operator": operator, "values": values}]});
    let bad = [
        (json!([]), vec![": is a list, not an object".to_owned()]),
        (json!({"matchLabels": "x"}), vec![".matchLabels: is text, not an object".into()]),
        (json!({"matchLabels": {"a": 1, "b": "x"}}), vec![".matchLabels[a]: is a number, not text".into()]),
        (
            json!({"matchLabels": {"a b": "c d"}}),
            vec![
                format!(".matchLabels[a b]: \"a b\" {bad_key}"),
                format!(".matchLabels[a b]: \"c d\" {bad_value}"),
            ],
        ),
        (json!({"matchExpressions": {}}), vec![".matchExpressions: is an object, not a list".into()]),
        (json!({"matchExpressions": ["x"]}), vec![".matchExpressions[0]: is text, not an object".into()]),
        (
            json!({"matchExpressions": [{}]}),
            vec![
                ".matchExpressions[0].key: is missing".into(),
                ".matchExpressions[0].operator: is missing".into(),
            ],
        ),
        (
            expression("a b", "Exists", json!(null)),
            vec![format!(".matchExpressions[1].key: \"a b\" {bad_key}")],
        ),
        (
            expression("b", "exists", json!(null)),
            vec![".matchExpressions[1].operator: \"exists\" is not In, NotIn, Exists or DoesNotExist".into()],
        ),
        (
            expression("b", "In", json!(null)),
            vec![".matchExpressions[1].values: must not be empty with In or NotIn".into()],
        ),
        (
            expression("b", "NotIn", json!([])),
            vec![".matchExpressions[1].values: must not be empty with In or NotIn".into()],
        ),
        (
            expression("b", "NotIn", json!(["x", "c d"])),
            vec![format!(".matchExpressions[1].values[1]: \"c d\" {bad_value}")],
        ),
        (expression("b", "In", json!("x")), vec![".matchExpressions[1].values: is text, not a list".into()]),
        (
            expression("b", "Exists", json!(["x"])),
            vec![".matchExpressions[1].values: must be empty with Exists or DoesNotExist".into()],
        ),
        (
            expression("b", "DoesNotExist", json!(["x"])),
            vec![".matchExpressions[1].values: must be empty with Exists or DoesNotExist".into()],
        ),
    ];
    for (selector, faults) in bad {
        let (policy, found) = policy(&json!({"podSelector": selector}));
        assert_eq!(policy.subject, Selector::Nothing, "{selector}");
        let faults: Vec<_> = faults.iter().map(|fault| format!("spec.podSelector{fault}")).collect();
        assert_eq!(found, faults, "{selector}");
    }
}

#[test]
fn a_long_text_is_cut_in_a_message() {
    let (_, faults) = policy(&json!({"policyTypes": ["é".repeat(10_000)]}));
    assert_eq!(faults, [format!("spec.policyTypes[0]: \"{}\"... is not Ingress or Egress", "é".repeat(80))]);
}

#[test]
fn unknown_fields_of_a_spec_are_reported_and_others_are_not() {
    let (_, faults) = policy(&json!({"podselector": {}, "ingress": [{"to": []}]}));
    assert_eq!(
        faults,
        ["spec.podselector: is not a known field", "spec.ingress[0].to: is not a known field"]
    );
    let (_, faults) = pod(json!({"x": 1, "spec": {"y": 2}, "status": {"z": 3}}));
    assert!(faults.is_empty());
}

#[test]
fn a_policy_without_a_usable_name_is_kept_under_one_of_its_own() {
    let unnamed = "(unnamed, a.yaml document 1)";
    let dns = "is not a DNS name (a-z, 0-9, '-' and '.', at most 253 characters)";
    let table = [
        (json!(null), "default", unnamed, vec!["metadata.name: is missing".to_owned()]),
        (json!({"namespace": "x"}), "x", unnamed, vec!["metadata.name: is missing".into()]),
        (json!({"name": ""}), "default", unnamed, vec!["metadata.name: is empty".into()]),
        (json!({"name": 5}), "default", unnamed, vec!["metadata.name: is a number, not text".into()]),
        (json!({"name": "a b"}), "default", "a b", vec![format!("metadata.name: \"a b\" {dns}")]),
        (json!("x"), "default", unnamed, vec!["metadata: is text, not an object".into()]),
        (json!({"name": "a", "namespace": ""}), "default", "a", vec![]),
        (
            json!({"name": "a", "namespace": 5}),
            "default",
            "a",
            vec!["metadata.namespace: is a number, not text".into()],
        ),
        (
            json!({"name": "a", "namespace": "A"}),
            "A",
            "a",
            vec![
                "metadata.namespace: \"A\" is not a DNS label (a-z, 0-9 and '-', at most 63 characters)"
                    .into(),
            ],
        ),
    ];
    for (metadata, namespace, name, faults) in table {
        let (objects, found) = decoded(
            &json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata}),
        );
        let [Decoded::Policy(policy)] = objects.as_slice() else { panic!("{objects:?}") };
        assert_eq!(policy.name, ObjectName::new(namespace, name), "{metadata}");
        let faults: Vec<_> =
            faults.iter().map(|fault| format!("NetworkPolicy {namespace}/{name}: {fault}")).collect();
        assert_eq!(found, faults, "{metadata}");
    }
}

#[test]
fn other_objects_without_a_name_are_left_out() {
    let table = [
        ("v1", "Namespace", ""),
        ("v1", "Node", ""),
        ("v1", "Pod", "default/"),
        ("v1", "Service", "default/"),
        ("discovery.k8s.io/v1", "EndpointSlice", "default/"),
    ];
    for (version, kind, namespace) in table {
        let (objects, faults) = decoded(&json!({"apiVersion": version, "kind": kind, "addressType": "IPv4"}));
        assert_eq!(objects, [], "{kind}");
        let line = format!("{kind} {namespace}(unnamed, a.yaml document 1): metadata.name: is missing");
        assert_eq!(faults, [line]);
    }
}

#[test]
fn a_namespace_always_has_its_name_label() {
    let label = NAMESPACE_NAME_LABEL;
    let table = [
        (json!({"name": "x"}), vec![(label, "x")], vec![]),
        (json!({"name": "x", "labels": {"a": "1", label: "y"}}), vec![("a", "1"), (label, "x")], vec![]),
        (json!({"name": "x", "labels": {"a": null}}), vec![("a", ""), (label, "x")], vec![]),
        (
            json!({"name": "x", "labels": {"a": 1}}),
            vec![(label, "x")],
            vec!["Namespace x: metadata.labels[a]: is a number, not text"],
        ),
        (
            json!({"name": "x", "labels": "a"}),
            vec![(label, "x")],
            vec!["Namespace x: metadata.labels: is text, not an object"],
        ),
    ];
    for (metadata, labels, faults) in table {
        let (objects, found) =
            decoded(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}));
        let [Decoded::Namespace(name, namespace)] = objects.as_slice() else { panic!("{objects:?}") };
        assert_eq!(&**name, "x");
        let found_labels: Vec<_> = namespace.labels.iter().map(|(key, value)| (&**key, &**value)).collect();
        assert_eq!(
            (found_labels, found),
            (labels, faults.into_iter().map(str::to_owned).collect()),
            "{metadata}"
        );
    }
}

#[test]
fn a_pod_has_the_addresses_of_its_status() {
    let table = [
        (json!({}), vec![], vec![]),
        (json!({"podIP": "10.0.0.1"}), vec!["10.0.0.1"], vec![]),
        (json!({"podIP": ""}), vec![], vec![]),
        (json!({"podIP": "10.0.0.1", "podIPs": []}), vec!["10.0.0.1"], vec![]),
        (
            json!({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}, {"ip": "fd00::1"}]}),
            vec!["10.0.0.1", "fd00::1"],
            vec![],
        ),
        (json!({"podIPs": [{"ip": "::ffff:10.0.0.1"}, {"ip": "010.0.0.1"}]}), vec!["10.0.0.1"], vec![]),
        (json!({"podIP": "10.0.0"}), vec![], vec!["status.podIP: \"10.0.0\" is not an IP address"]),
        (
            json!({"podIPs": [{"ip": "x"}, {}, "y", {"ip": "10.0.0.2"}]}),
            vec!["10.0.0.2"],
            vec![
                "status.podIPs[0].ip: \"x\" is not an IP address",
                "status.podIPs[1].ip: is missing",
                "status.podIPs[2]: is text, not an object",
            ],
        ),
        (
            json!({"podIPs": "10.0.0.2", "podIP": "10.0.0.1"}),
            vec!["10.0.0.1"],
            vec!["status.podIPs: is text, not a list"],
        ),
    ];
    for (status, addresses, faults) in table {
        let (pod, found) = pod(json!({"status": status}));
        let addresses: Vec<std::net::IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(pod.unwrap().addresses, addresses, "{status}");
        assert_eq!(found, faults, "{status}");
    }
}

#[test]
fn only_succeeded_and_failed_pods_are_left_out() {
    let table = [
        (json!("Succeeded"), false),
        (json!("Failed"), false),
        (json!("Running"), true),
        (json!("Pending"), true),
        (json!("Unknown"), true),
        (json!("failed"), true),
        (json!(null), true),
        (json!(["Failed"]), true),
    ];
    for (phase, counts) in table {
        assert_eq!(pod(json!({"status": {"phase": phase}})).0.is_some(), counts, "{phase}");
    }
    let terminating =
        json!({"metadata": {"name": "a", "namespace": "x", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
    assert!(pod(terminating).0.is_some());
}

#[test]
fn a_pod_has_the_named_ports_of_containers_that_live_as_long() {
    let ports = |ports: Value| json!([{"name": "c", "ports": ports}]);
    let port = |name: &str, protocol, number| NamedPort { name: name.into(), protocol, number };
    let table = [
        (json!({}), vec![], vec![]),
        (
            json!({"containers": ports(json!([
                {"name": "http", "containerPort": 80},
                {"name": "http", "containerPort": 80},
                {"name": "http", "containerPort": 8080},
                {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                {"containerPort": 9},
                {"name": "", "containerPort": 0},
            ]))}),
            vec![port("http", Tcp, 80), port("http", Tcp, 8080), port("dns", Udp, 53)],
            vec![],
        ),
        (
            json!({"initContainers": [
                {"ports": [{"name": "once", "containerPort": 1}]},
                {"restartPolicy": "Always", "ports": [{"name": "sidecar", "containerPort": 2}]},
                {"restartPolicy": "Never", "ports": [{"name": "never", "containerPort": 3}]},
            ]}),
            vec![port("sidecar", Tcp, 2)],
            vec![],
        ),
        (
            json!({"containers": ports(json!([
                {"name": "80", "containerPort": 80},
                {"name": "a", "containerPort": 0},
                {"name": "b"},
                {"name": "c", "containerPort": 80, "protocol": "tcp"},
                {"name": "d", "containerPort": 80},
                7,
            ]))}),
            vec![port("d", Tcp, 80)],
            vec![
                "[0].ports[0].name: \"80\" is not a port name: it has no letter",
                "[0].ports[1].containerPort: 0 is not a port number (1 to 65535)",
                "[0].ports[2].containerPort: is missing",
                "[0].ports[3].protocol: \"tcp\" is not TCP, UDP or SCTP",
                "[0].ports[5]: is a number, not an object",
            ],
        ),
        (json!({"containers": "c"}), vec![], vec![": is text, not a list"]),
        (json!({"containers": ["c"]}), vec![], vec!["[0]: is text, not an object"]),
    ];
    for (spec, ports, faults) in table {
        let (pod, found) = pod(json!({"spec": spec}));
        assert_eq!(pod.unwrap().ports, ports, "{spec}");
        let faults: Vec<_> = faults.iter().map(|fault| format!("spec.containers{fault}")).collect();
        assert_eq!(found, faults, "{spec}");
    }
}

#[test]
fn a_pod_knows_its_node_and_whether_it_shares_its_network() {
    let table = [
        (json!({}), None, false, vec![]),
        (json!({"nodeName": ""}), None, false, vec![]),
        (json!({"nodeName": "n1", "hostNetwork": true}), Some("n1"), true, vec![]),
        (
            json!({"nodeName": 1, "hostNetwork": "yes"}),
            None,
            false,
            vec!["spec.nodeName: is a number, not text", "spec.hostNetwork: is text, not true or false"],
        ),
        (json!("x"), None, false, vec!["spec: is text, not an object"]),
    ];
    for (spec, node, host_network, faults) in table {
        let (pod, found) = pod(json!({"spec": spec}));
        let pod = pod.unwrap();
        assert_eq!((pod.node.as_deref(), pod.host_network), (node, host_network), "{spec}");
        assert_eq!(found, faults, "{spec}");
    }
}

#[test]
fn a_node_has_its_internal_and_external_addresses() {
    let (objects, faults) =
        decoded(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "status": {
            "addresses": [
                {"type": "InternalIP", "address": "10.0.0.1"},
                {"type": "ExternalIP", "address": "fd00::1"},
                {"type": "Hostname", "address": "n1"},
                {"type": "InternalDNS", "address": "n1.example"},
                {"type": "InternalIP", "address": "n1"},
                {"address": "10.0.0.2"},
            ],
        }}));
    let addresses = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
    assert_eq!(objects, [Decoded::Node("n1".into(), Node { addresses })]);
    let expected = [
        "Node n1: status.addresses[4].address: \"n1\" is not an IP address",
        "Node n1: status.addresses[5].type: is missing",
    ];
    assert_eq!(faults, expected);
}

#[test]
fn our_kinds_at_unknown_versions_are_faults_and_other_groups_are_not() {
    let only = "is not known for a NetworkPolicy, only networking.k8s.io/v1";
    let line =
        |kind: &str, name: &str, message: String| Some(format!("{kind} {name}: apiVersion: {message}"));
    let policy = |message| line("NetworkPolicy", "default/a", message);
    let table = [
        ("NetworkPolicy", json!("networking.k8s.io/v9"), policy(format!("\"networking.k8s.io/v9\" {only}"))),
        ("NetworkPolicy", json!("extensions/v1beta1"), policy(format!("\"extensions/v1beta1\" {only}"))),
        ("NetworkPolicy", json!("v1"), policy(format!("\"v1\" {only}"))),
        ("NetworkPolicy", json!(null), policy("is missing".into())),
        ("NetworkPolicy", json!(1), policy("is a number, not text".into())),
        ("Pod", json!("v2"), line("Pod", "default/a", "\"v2\" is not known for a Pod, only v1".into())),
        ("NetworkPolicy", json!("crd.projectcalico.org/v1"), None),
        ("Node", json!("example.com/v1"), None),
        (
            "EndpointSlice",
            json!("discovery.k8s.io/v1beta1"),
            line(
                "EndpointSlice",
                "default/a",
                "\"discovery.k8s.io/v1beta1\" is not known for a EndpointSlice, only discovery.k8s.io/v1"
                    .into(),
            ),
        ),
        ("Service", json!("serving.knative.dev/v1"), None),
        ("Endpoints", json!("v1"), None),
        ("Deployment", json!("apps/v1"), None),
        ("ConfigMapList", json!("v1"), None),
        ("NetworkPolicyList", json!("crd.projectcalico.org/v1"), None),
    ];
    for (kind, api_version, fault) in table {
        let object =
            json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}, "items": [{}]});
        let contents = decode(&object);
        assert_eq!(contents.objects, [], "{object}");
        assert_eq!(contents.incomplete, fault.is_some(), "{object}");
        assert_eq!(decoded(&object).1, fault.into_iter().collect::<Vec<_>>(), "{object}");
    }
}

#[test]
fn lists_are_opened_however_deep() {
    let namespace = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let bare = |name: &str| json!({"metadata": {"name": name}});
    let list = |kind: &str, items: Value| json!({"apiVersion": "v1", "kind": kind, "items": items});
    let value = list(
        "List",
        json!([
            namespace("a"),
            list("List", json!([namespace("b")])),
            list("NamespaceList", json!([bare("c"), namespace("d")])),
            list("ConfigMapList", json!([bare("no")])),
            list("List", json!(null)),
        ]),
    );
    let (objects, faults) = decoded(&value);
    let names: Vec<_> = objects.iter().map(|object| object.id().to_string()).collect();
    assert_eq!(names, ["Namespace a", "Namespace b", "Namespace c", "Namespace d"]);
    assert!(faults.is_empty());
}

#[test]
fn what_is_no_object_is_named_by_its_place() {
    let table = [
        (json!("x"), "document 1: : is text, not an object"),
        (json!([]), "document 1: : is a list, not an object"),
        (json!({"apiVersion": "v1"}), "document 1: kind: is missing"),
        (json!({"apiVersion": "v1", "kind": 3}), "document 1: kind: is a number, not text"),
        (
            json!({"apiVersion": "v1", "kind": "List", "items": 3}),
            "document 1: items: is a number, not a list",
        ),
        (
            json!({"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "List", "items": ["x"]}]}),
            "document 1 items[0] items[0]: : is text, not an object",
        ),
    ];
    for (value, fault) in table {
        let contents = decode(&value);
        assert!(contents.incomplete, "{value}");
        assert_eq!(decoded(&value).1, [fault], "{value}");
    }
}

#[test]
fn equal_label_sets_of_different_pods_are_one() {
    let pod = |name: &str| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}}});
    let (objects, _) = decoded(&json!({"apiVersion": "v1", "kind": "List", "items": [pod("a"), pod("b")]}));
    let [Decoded::Pod(a), Decoded::Pod(b)] = objects.as_slice() else { panic!("{objects:?}") };
    assert!(std::sync::Arc::ptr_eq(&a.labels, &b.labels));
}

/// A policy, a pod, a service and its slice that use every field.
fn full_documents() -> [Value; 4] {
    let selector = json!({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "In", "values": ["x"]}]});
    let ports = json!([{"protocol": "TCP", "port": 80, "endPort": 90}, {"port": "http"}]);
    let peers = json!([
        {"podSelector": selector, "namespaceSelector": selector},
        {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
    ]);
    [
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "web", "namespace": "shop", "labels": {"a": "1"}},
        "spec": {
            "podSelector": selector,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": peers, "ports": ports}],
            "egress": [{"to": peers, "ports": ports}],
        }}),
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web", "namespace": "shop", "labels": {"a": "1"}},
            "spec": {"nodeName": "n1", "hostNetwork": false, "containers": [{"ports": [{"name": "http", "containerPort": 80}]}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]}}),
        services::full_service(),
        services::full_slice(),
    ]
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0_i64..70_000).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        "[0-9a-f:./]{0,12}".prop_map(Value::from),
        prop::sample::select(vec!["Ingress", "Egress", "In", "NotIn", "Exists", "UDP", "http", ""])
            .prop_map(Value::from),
    ];
    let key = prop::sample::select(vec![
        "podSelector",
        "ipBlock",
        "cidr",
        "port",
        "matchLabels",
        "values",
        "x",
        "",
    ]);
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.clone().prop_map(str::to_owned), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Replaces the value that the `choice`th step of a walk through the document finds.
fn mutate(value: &mut Value, choice: &mut usize, replacement: &Value) {
    if *choice == 0 {
        value.clone_from(replacement);
    }
    *choice = choice.wrapping_sub(1);
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| mutate(item, choice, replacement)),
        Value::Object(map) => map.values_mut().for_each(|item| mutate(item, choice, replacement)),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_mutated_policy_is_still_there_and_isolates(
        mutations in prop::collection::vec((1_usize..60, any_json()), 1..4),
    ) {
        let [document, ..] = full_documents();
        let mut mutated = document.clone();
        for (choice, replacement) in mutations {
            mutate(&mut mutated, &mut { choice }, &replacement);
        }
        for key in ["apiVersion", "kind"] {
            mutated[key].clone_from(&document[key]);
        }
        let Contents { objects, incomplete, .. } = decode(&mutated);
        prop_assert!(!incomplete);
        let [Decoded::Policy(policy)] = objects.as_slice() else { panic!("{objects:?}") };
        prop_assert!(policy.ingress.is_some() || policy.egress.is_some());
    }

    #[test]
    fn no_json_value_makes_the_decoder_panic(
        mutations in prop::collection::vec((0_usize..60, any_json()), 0..4),
    ) {
        for mut document in full_documents() {
            for (choice, replacement) in &mutations {
                mutate(&mut document, &mut { *choice }, replacement);
            }
            decode(&document);
        }
    }
}
