//! Every default and every rule of validation, with the exact words of each fault.

mod calico;
mod cloud_policies;
mod cluster_policies;
mod egress_domains;
mod objects;
mod peers;
mod policies;
mod services;

use std::collections::BTreeSet;

use podgate_common::Protocol::{Sctp, Tcp, Udp};
use podgate_core::model::{
    IpBlock, NAMESPACE_NAME_LABEL, NamedPort, Peer, Peers, PortRule, Ports, Requirement, Rule, Selector,
};
use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;

fn decode(value: &Value) -> Contents {
    let place = ObjectLocation { origin: "a.yaml".into(), position: "document 1".into() };
    Decoder::default().decode(value, &place)
}

/// What was decoded, and the faults as `object: field: message`.
fn decoded(value: &Value) -> (Vec<Decoded>, Vec<String>) {
    let Contents { objects, faults, .. } = decode(value);
    let line = |FieldError { object, field, message }| format!("{object}: {field}: {message}");
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
        ("NetworkPolicy", json!("example.com/v1"), None),
        (
            "NetworkPolicy",
            json!("projectcalico.org/v9"),
            policy(
                "\"projectcalico.org/v9\" is not known for a Calico NetworkPolicy, only projectcalico.org/v3"
                    .into(),
            ),
        ),
        ("Node", json!("projectcalico.org/v3"), None),
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
        (
            "ClusterNetworkPolicy",
            json!("policy.networking.k8s.io/v1"),
            line(
                "ClusterNetworkPolicy",
                "a",
                "\"policy.networking.k8s.io/v1\" is not known for a ClusterNetworkPolicy, only \
                 policy.networking.k8s.io/v1beta1 and policy.networking.k8s.io/v1alpha2"
                    .into(),
            ),
        ),
        ("ClusterNetworkPolicy", json!("example.com/v1"), None),
        ("Service", json!("serving.knative.dev/v1"), None),
        ("Endpoints", json!("v1"), None),
        ("Deployment", json!("apps/v1"), None),
        ("ConfigMapList", json!("v1"), None),
        ("NetworkPolicyList", json!("example.com/v1"), None),
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
