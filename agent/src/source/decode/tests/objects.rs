//! Names, namespaces, pods and nodes.

use std::sync::Arc;

use podgate_core::model::{HostPort, PodAddresses, Uid};

use super::*;

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
        let addresses: PodAddresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
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
        assert_eq!(*pod.unwrap().ports, ports, "{spec}");
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
        (json!({"hostNetwork": "yes"}), None, true, vec![]),
        (json!({"hostNetwork": "On"}), None, true, vec![]),
        (json!({"hostNetwork": "NO"}), None, false, vec![]),
        (
            json!({"nodeName": 1, "hostNetwork": "yea"}),
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
fn a_pod_has_the_uid_that_the_kubelet_knows_it_by() {
    const UID: &str = "0a1b2c3d-0000-4000-8000-00000000000f";
    for (metadata, expected) in [
        (json!({"name": "a", "uid": UID}), Uid::parse(UID)),
        (json!({"name": "a", "uid": "0A1B2C3D000040008000_00000000000f"}), None),
        (json!({"name": "a", "uid": "0a1b2c3d00004000800000000000000f"}), Uid::parse(UID)),
        (json!({"name": "a", "uid": UID, "annotations": {"kubernetes.io/config.mirror": "f"}}), None),
        (json!({"name": "a", "uid": UID, "annotations": {"other": "f"}}), Uid::parse(UID)),
        (json!({"name": "a"}), None),
    ] {
        let (objects, _) = decoded(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata}));
        let Some(Decoded::Pod(pod)) = objects.into_iter().next() else { panic!("{metadata}") };
        assert_eq!(pod.uid, expected, "{metadata}");
    }
    assert!(Uid::parse(UID).is_some());
}

#[test]
fn a_node_has_its_labels_and_every_address_of_its_status() {
    let (objects, faults) = decoded(&json!({"apiVersion": "v1", "kind": "Node",
    "metadata": {"name": "n1", "labels": {"role": "edge"}},
    "status": {"addresses": [
        {"type": "InternalIP", "address": "10.0.0.1"},
        {"type": "ExternalIP", "address": "fd00::1"},
        {"type": "Hostname", "address": "n1"},
        {"type": "Hostname", "address": "10.0.0.1"},
        {"type": "ExternalDNS", "address": "10.0.0.9"},
        {"type": "InternalDNS", "address": "n1.example"},
        {"type": "InternalIP", "address": "n1"},
        {"address": "10.0.0.2"},
    ]}}));
    let addresses = ["10.0.0.1", "fd00::1", "10.0.0.9"].map(|text| text.parse().unwrap()).to_vec();
    let labels = Arc::new([("role".into(), "edge".into())].into());
    assert_eq!(objects, [Decoded::Node("n1".into(), Node { labels, addresses })]);
    let expected = [
        "Node n1: status.addresses[6].address: \"n1\" is not an IP address",
        "Node n1: status.addresses[7].type: is missing",
    ];
    assert_eq!(faults, expected);
}

#[test]
fn host_ports_lead_to_ports_of_pods_that_have_a_network_of_their_own() {
    let port = |value: &Value, spec: &Value| {
        let mut spec = spec.clone();
        spec["containers"] = json!([{"name": "c", "ports": [value]}]);
        let (pod, faults) = pod(json!({"spec": spec}));
        (pod.unwrap().host_ports.into_vec(), faults)
    };
    let found = |address: Option<&str>, protocol, number| {
        let address = address.map(|address| address.parse().unwrap());
        vec![HostPort { address, protocol, number, container_number: 80 }]
    };
    let own = json!({});
    for (value, spec, expected, fault) in [
        (json!({"containerPort": 80, "hostPort": 8080}), &own, found(None, Tcp, 8080), None),
        (
            json!({"containerPort": 80, "hostPort": 53, "protocol": "UDP", "hostIP": "10.0.0.9"}),
            &own,
            found(Some("10.0.0.9"), Udp, 53),
            None,
        ),
        (
            json!({"name": "http", "containerPort": 80, "hostPort": 8080, "hostIP": "::"}),
            &own,
            found(None, Tcp, 8080),
            None,
        ),
        (json!({"containerPort": 80, "hostPort": 0}), &own, vec![], None),
        (json!({"containerPort": 80, "hostPort": 80}), &json!({"hostNetwork": true}), vec![], None),
        (
            json!({"containerPort": 80, "hostPort": 70_000}),
            &own,
            vec![],
            Some("spec.containers[0].ports[0].hostPort: 70000 is not a port number (1 to 65535)"),
        ),
    ] {
        assert_eq!(port(&value, spec), (expected, fault.into_iter().map(str::to_owned).collect()), "{value}");
    }
}
