//! Calico's objects: names and directions of policies in both stores, and what closes a rule.

use podgate_common::{Direction, RuleProtocol};
use podgate_core::model::{Action, CalicoRule, HostDevices, PolicyScope};

use super::*;

const V3: &str = "projectcalico.org/v3";
const V1: &str = "crd.projectcalico.org/v1";

fn object(version: &str, kind: &str, metadata: &Value, spec: &Value) -> (Vec<Decoded>, Vec<String>) {
    decoded(&json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}))
}

fn global(version: &str, metadata: &Value, spec: &Value) -> (CalicoPolicy, Vec<String>) {
    let (objects, faults) = object(version, "GlobalNetworkPolicy", metadata, spec);
    let [Decoded::CalicoPolicy(_, _, policy)] = objects.as_slice() else { panic!("{objects:?}") };
    (policy.clone(), faults)
}

/// The one rule of ingress that this is read as, and the fields of its faults.
fn rule(rule: &Value) -> (CalicoRule, Vec<String>) {
    let (policy, faults) = global(V3, &json!({"name": "a"}), &json!({"ingress": [rule]}));
    let field = |fault: String| fault.split(": ").nth(1).unwrap().to_owned();
    (policy.ingress.unwrap().remove(0), faults.into_iter().map(field).collect())
}

#[test]
fn a_policy_has_the_name_that_its_users_gave_it() {
    let kept = json!({"projectcalico.org/metadata": "{\"name\": \"web\"}"});
    for (version, metadata, tier, expected) in [
        (V3, json!({"name": "web"}), None, "web"),
        (V3, json!({"name": "default.web"}), None, "web"),
        (V1, json!({"name": "default.web"}), Some("default"), "web"),
        (V1, json!({"name": "security.web"}), Some("security"), "security.web"),
        (V1, json!({"name": "default.web"}), Some("security"), "default.web"),
        (V1, json!({"name": "default.x1", "annotations": kept}), None, "web"),
    ] {
        let (policy, faults) = global(version, &metadata, &json!({"tier": tier}));
        assert_eq!((&*policy.name.name, faults), (expected, vec![]), "{metadata}");
    }
}

#[test]
fn types_have_the_defaults_of_the_api_and_of_programs_where_it_was_not_asked() {
    let by_calico = json!({"name": "a", "annotations": {"projectcalico.org/metadata": "{}"}});
    let by_hand = json!({"name": "a"});
    let (ingress, egress) = ([Direction::Ingress], [Direction::Egress]);
    let both = Direction::ALL;
    let rule = json!([{"action": "Allow"}]);
    for (version, metadata, spec, expected) in [
        (V3, &by_hand, json!({}), &ingress[..]),
        (V3, &by_hand, json!({"egress": rule}), &egress),
        (V3, &by_hand, json!({"egress": rule, "ingress": rule}), &both),
        (V3, &by_hand, json!({"types": ["Egress"], "ingress": rule}), &egress),
        (V1, &by_hand, json!({"egress": rule}), &both),
        (V1, &by_calico, json!({"egress": rule}), &egress),
        (V3, &by_hand, json!({"types": ["Sideways"]}), &both),
    ] {
        let (policy, _) = global(version, metadata, &spec);
        let seen: Vec<Direction> =
            Direction::ALL.into_iter().filter(|direction| policy.rules(*direction).is_some()).collect();
        let expected: Vec<Direction> =
            Direction::ALL.into_iter().filter(|direction| expected.contains(direction)).collect();
        assert_eq!(seen, expected, "{version} {spec}");
    }
}

#[test]
fn what_is_not_carried_closes_its_rule_and_is_named() {
    let nothing = Rule { peers: Peers::Listed(vec![Peer::Nothing]), ports: Ports::Any };
    let named = |name: &str, namespace: &str| json!({"name": name, "namespace": namespace});
    for (part, field) in [
        (json!({"http": {"methods": ["GET"]}}), "spec.ingress[0].http"),
        (json!({"icmp": {"type": 8}}), "spec.ingress[0].icmp"),
        (json!({"protocol": "UDP", "notICMP": {"type": 8}}), "spec.ingress[0].notICMP"),
        (json!({"protocol": "ICMP", "notICMP": {}}), "spec.ingress[0].notICMP"),
        (json!({"protocol": "ICMP", "icmp": {"code": 0}}), "spec.ingress[0].icmp.code"),
        (json!({"protocol": "ICMP", "icmp": {"type": 256}}), "spec.ingress[0].icmp.type"),
        (json!({"protocol": "ICMP", "icmp": {"kind": 8}}), "spec.ingress[0].icmp.kind"),
        (json!({"protocol": 256}), "spec.ingress[0].protocol"),
        (json!({"notProtocol": "GRE"}), "spec.ingress[0].notProtocol"),
        (json!({"protocol": "TCP", "source": {"ports": [1]}}), "spec.ingress[0].source.ports"),
        (json!({"destination": {"services": {"name": "a"}}}), "spec.ingress[0].destination.services"),
        (json!({"source": {"services": {"name": "a"}}}), "spec.ingress[0].source.services.namespace"),
        (json!({"source": {"services": {"namespace": "x"}}}), "spec.ingress[0].source.services.name"),
        (json!({"source": {"services": named("A", "x")}}), "spec.ingress[0].source.services.name"),
        (json!({"source": {"services": named("a", "x.y")}}), "spec.ingress[0].source.services.namespace"),
        (
            json!({"source": {"services": named("a", "x"), "selector": "b"}}),
            "spec.ingress[0].source.selector",
        ),
        (json!({"source": {"services": named("a", "x"), "nets": ["::/0"]}}), "spec.ingress[0].source.nets"),
        (
            json!({"source": {"services": named("a", "x"), "serviceAccounts": {}}}),
            "spec.ingress[0].source.serviceAccounts",
        ),
        (json!({"source": {"services": {"name": "a", "port": 1}}}), "spec.ingress[0].source.services.port"),
        (json!({"destination": {"ports": [80]}}), "spec.ingress[0].destination.ports"),
        (json!({"source": {"selector": "a ="}}), "spec.ingress[0].source.selector"),
        (json!({"source": {"nets": ["10.0.0.0/33"]}}), "spec.ingress[0].source.nets[0]"),
        (json!({"source": {"domains": ["a"]}}), "spec.ingress[0].source.domains"),
        (json!({"ipVersion": 5}), "spec.ingress[0].ipVersion"),
        (json!({"later": true}), "spec.ingress[0].later"),
    ] {
        let with_action = |action: &str| {
            let mut value = part.clone();
            value["action"] = action.into();
            rule(&value)
        };
        let (allowing, faults) = with_action("Allow");
        assert!(faults.contains(&field.to_owned()), "{part}: {faults:?}");
        assert_eq!(allowing, CalicoRule { action: Action::Accept, matches: nothing.clone() }, "{part}");
        for action in ["Deny", "Pass"] {
            let (denying, _) = with_action(action);
            assert_eq!(denying.action, Action::Deny, "{part}");
            assert_ne!(denying.matches, nothing, "{part}");
        }
        assert_eq!(with_action("Log").0.matches, nothing, "{part}");
    }
}

#[test]
fn protocols_without_ports_are_read_by_name_and_number() {
    let icmp = |protocol, kind, code| PortRule::Icmp { protocol, kind, code };
    let (v4, v6) = (RuleProtocol::Icmp, RuleProtocol::IcmpV6);
    for (part, listed, except) in [
        (json!({"protocol": "icmp"}), Some(PortRule::Number(1)), None),
        (json!({"protocol": "58"}), Some(PortRule::Number(58)), None),
        (json!({"protocol": "UDPLite"}), Some(PortRule::Number(136)), None),
        (json!({"protocol": 6}), Some(PortRule::Protocol(Tcp)), None),
        (json!({"notProtocol": 47}), None, Some(PortRule::Number(47))),
        (json!({"protocol": "ICMP", "icmp": {}}), Some(PortRule::Number(1)), None),
        (json!({"protocol": 1, "icmp": {"type": 8}}), Some(icmp(v4, 8, None)), None),
        (
            json!({"protocol": "ICMPv6", "icmp": {"type": 1}, "notICMP": {"type": 1, "code": 4}}),
            Some(icmp(v6, 1, None)),
            Some(icmp(v6, 1, Some(4))),
        ),
    ] {
        let mut value = part.clone();
        value["action"] = "Allow".into();
        let (read, faults) = rule(&value);
        let listed = listed.map(|port| vec![port]);
        let expected = match (listed, except) {
            (Some(listed), None) => Ports::Listed(listed),
            (listed, except) => Ports::Except { listed, except: except.into_iter().collect() },
        };
        assert_eq!((read.matches.ports, faults), (expected, vec![]), "{part}");
    }
}

#[test]
fn a_policy_says_which_traffic_of_host_endpoints_it_is_for() {
    for (spec, scope) in [
        (json!({}), PolicyScope::Local),
        (json!({"applyOnForward": true}), PolicyScope::OnForward),
        (json!({"applyOnForward": false}), PolicyScope::Local),
        (json!({"preDNAT": true, "applyOnForward": true}), PolicyScope::PreDnat),
        (json!({"doNotTrack": true, "applyOnForward": true}), PolicyScope::Untracked),
    ] {
        let (policy, faults) = global(V3, &json!({"name": "a"}), &spec);
        assert_eq!((policy.scope, faults), (scope, vec![]), "{spec}");
    }
}

#[test]
fn a_host_endpoint_is_of_a_node_and_of_devices() {
    let read = |version, metadata: &Value, spec: &Value| {
        let (objects, faults) = object(version, "HostEndpoint", metadata, spec);
        let host = objects.into_iter().next().map(|object| match object {
            Decoded::HostEndpoint(_, host) => host,
            other => panic!("{other:?}"),
        });
        (host, faults)
    };
    let name = json!({"name": "h", "labels": {"own": "x"}});
    for (spec, devices) in [
        (json!({"node": "n1", "interfaceName": "*"}), HostDevices::Every),
        (json!({"node": "n1", "interfaceName": "eth0"}), HostDevices::Named("eth0".into())),
        (json!({"node": "n1", "expectedIPs": ["10.0.0.1"]}), HostDevices::WithAddress),
    ] {
        let (host, faults) = read(V3, &name, &spec);
        assert_eq!((host.map(|host| host.devices), faults), (Some(devices), vec![]), "{spec}");
    }
    for spec in [json!({"interfaceName": "*"}), json!({"node": "n1"}), json!([])] {
        let (host, faults) = read(V3, &name, &spec);
        assert!(host.is_none() && !faults.is_empty(), "{spec}");
    }
    let spec = json!({
        "node": "n1", "interfaceName": "eth0", "expectedIPs": ["fd00::1", "no", "10.0.0.1"],
        "profiles": ["mine", "projectcalico-default-allow"],
        "ports": [{"name": "web", "protocol": "TCP", "port": 80}, {"name": "bad", "protocol": "TCP", "port": 0}],
    });
    let kept = json!({"projectcalico.org/metadata": "{\"labels\": {\"role\": \"db\"}}"});
    let stored = json!({"name": "h", "labels": {"own": "x"}, "annotations": kept});
    let (host, faults) = read(V1, &stored, &spec);
    let host = host.expect("it is one");
    for end in [&host.local, &host.forwarded] {
        assert_eq!((end.addresses.len(), end.ports.len(), end.labels.len()), (2, 1, 1));
        assert!(end.labels.contains_key("role") && end.host.as_ref().is_some_and(|host| host.is_open));
    }
    assert_eq!(faults.len(), 3, "an address, a profile and a port: {faults:?}");
}

#[test]
fn labels_of_a_stored_network_set_are_those_of_its_annotation() {
    let kept = json!({"projectcalico.org/metadata": "{\"labels\": {\"role\": \"db\"}}"});
    let metadata = json!({"name": "a", "labels": {"own": "x"}, "annotations": kept});
    for (version, expected) in [(V3, "own"), (V1, "role")] {
        let spec = json!({"nets": ["10.0.0.5", "fd00::/8", "no"]});
        let (objects, faults) = object(version, "GlobalNetworkSet", &metadata, &spec);
        let [Decoded::NetworkSet(_, _, set)] = objects.as_slice() else { panic!("{objects:?}") };
        assert_eq!(set.labels.keys().map(|key| &**key).collect::<Vec<_>>(), [expected]);
        assert_eq!(set.nets.len(), 2);
        assert_eq!(faults, ["GlobalNetworkSet a: spec.nets[2]: \"no\" is not an IP address"]);
    }
}

#[test]
fn what_no_server_has_looked_at_counts_only_with_the_syntax_of_names_and_labels() {
    let forged = json!({"name": "\u{1b}[2J", "labels": {"a b": "x", "role": "y\n", "ok": "z"}});
    let kept = json!({"projectcalico.org/metadata": forged.to_string()});
    let metadata = json!({"name": "a", "annotations": kept});
    let (policy, faults) = global(V1, &metadata, &json!({}));
    assert_eq!((&*policy.name.name, faults.len()), ("a", 3), "{faults:?}");
    let (objects, faults) = object(V1, "GlobalNetworkSet", &metadata, &json!({}));
    let [Decoded::NetworkSet(_, _, set)] = objects.as_slice() else { panic!("{objects:?}") };
    assert_eq!(set.labels.keys().map(|key| &**key).collect::<Vec<_>>(), ["ok"]);
    assert_eq!(faults.len(), 3, "{faults:?}");
    let (policy, faults) = global(V3, &json!({"name": "a"}), &json!({"tier": "\u{1b}[2J"}));
    assert_eq!((&*policy.tier, faults.len()), ("(not understood)", 1), "{faults:?}");
}

#[test]
fn the_mode_that_users_write_is_where_calico_keeps_it() {
    for (mode, expected, problems) in [("audit", true, 0), ("enforce", false, 0), ("odd", false, 1)] {
        let kept = json!({"annotations": {"podgate.io/mode": mode}}).to_string();
        let metadata = json!({"name": "a", "annotations": {"projectcalico.org/metadata": kept}});
        let (policy, faults) = global(V1, &metadata, &json!({}));
        assert_eq!((policy.audit, faults.len()), (expected, problems), "{mode}");
    }
}
