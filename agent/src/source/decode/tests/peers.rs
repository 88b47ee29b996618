//! Peers and their selectors.

use super::*;

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
        (json!({"podSelector": {}, "x": 1}), Peer::Nothing, vec![".x: is not a known field"]),
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
        (
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "excpet": ["10.1.0.0/16"]}}),
            Peer::Nothing,
            vec![".ipBlock.excpet: is not a known field"],
        ),
        (
            json!({"podSelector": {}, "namespaceSelectr": {}}),
            Peer::Nothing,
            vec![".namespaceSelectr: is not a known field"],
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
        Requirement::NotIn(key.into(), values.iter().map(|value| Name::from(*value)).collect())
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
