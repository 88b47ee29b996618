//! Items 6, 38 to 51, 86, 87, 186: what depends on the pods, not on the policies.

use super::*;

const DENY_ALL_BUT_B: &str =
    "x: {podSelector: {matchLabels: {app: a}}, ingress: [{from: [{podSelector: {matchLabels: {app: b}}}]}]}";

fn is_open(objects: &[Value], question: &str) -> bool {
    question.parse::<Question>().unwrap().is_allowed(objects)
}

fn find<'a>(objects: &'a mut [Value], namespace: &str, name: &str) -> &'a mut Value {
    objects
        .iter_mut()
        .find(|object| object["metadata"]["namespace"] == namespace && object["metadata"]["name"] == name)
        .unwrap()
}

#[test]
fn labels_of_pods_and_namespaces_decide_36_37_38() {
    let mut objects = world();
    objects.push(policy(0, DENY_ALL_BUT_B));
    assert!(!is_open(&objects, "x/c x/a TCP/80"));
    find(&mut objects, "x", "c")["metadata"]["labels"] = json!({"app": "b"});
    assert!(is_open(&objects, "x/c x/a TCP/80"), "the peer got the label");
    find(&mut objects, "x", "a")["metadata"]["labels"] = json!({"app": "q"});
    assert!(is_open(&objects, "y/a x/a TCP/80"), "the subject lost the label");
}

#[test]
fn a_finished_pod_is_no_peer_and_its_address_is_the_next_pods_44_51() {
    for (phase, counts) in
        [("Succeeded", false), ("Failed", false), ("Pending", true), ("Unknown", true), ("Running", true)]
    {
        let mut objects = world();
        objects.push(policy(0, DENY_ALL_BUT_B));
        find(&mut objects, "x", "b")["status"]["phase"] = phase.into();
        assert_eq!(is_open(&objects, "10.0.0.2 x/a TCP/80"), counts, "{phase}");
    }
    let mut objects = world();
    objects.push(policy(0, DENY_ALL_BUT_B));
    find(&mut objects, "x", "b")["status"]["phase"] = "Failed".into();
    objects.push(pod("x", "new", "n1", json!({}), &["10.0.0.2"], json!([])));
    assert!(!is_open(&objects, "10.0.0.2 x/a TCP/80"), "the address is that of x/new");
}

#[test]
fn a_terminating_pod_stays_subject_and_peer_45() {
    let mut objects = world();
    objects.push(policy(0, DENY_ALL_BUT_B));
    for name in ["a", "b"] {
        find(&mut objects, "x", name)["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    }
    assert!(is_open(&objects, "x/b x/a TCP/80"));
    assert!(!is_open(&objects, "x/c x/a TCP/80"));
}

#[test]
fn a_host_network_pod_is_neither_subject_nor_selected_peer_48() {
    let mut objects = world();
    let mut host = pod("x", "host", "n2", json!({"app": "b"}), &["10.10.0.2"], json!([]));
    host["spec"]["hostNetwork"] = true.into();
    objects.push(host);
    objects.push(policy(0, DENY_ALL_BUT_B));
    objects.push(policy(
        1,
        "x: {podSelector: {matchLabels: {app: b}}, policyTypes: [Ingress, Egress], egress: [{}]}",
    ));
    assert!(is_open(&objects, "x/b x/a TCP/80"));
    assert!(!is_open(&objects, "x/host x/a TCP/80"), "its labels do not count");
    assert!(is_open(&objects, "y/a x/host TCP/80"), "it is not isolated");
    find(&mut objects, "x", "host")["spec"]["nodeName"] = "n1".into();
    assert!(is_open(&objects, "x/host x/a TCP/80"), "it is on the own node of x/a");
}

#[test]
fn named_ports_of_sidecars_and_several_containers_count_86_87() {
    let mut objects = world();
    objects.push(policy(0, "x: {ingress: [{ports: [{port: http}]}]}"));
    let spec = &mut find(&mut objects, "x", "c")["spec"];
    spec["containers"] = json!([
        {"name": "one", "ports": [{"name": "http", "containerPort": 1}]},
        {"name": "two", "ports": [{"name": "http", "containerPort": 2, "protocol": "TCP"}]},
    ]);
    spec["initContainers"] = json!([
        {"name": "sidecar", "restartPolicy": "Always", "ports": [{"name": "http", "containerPort": 3}]},
        {"name": "init", "ports": [{"name": "http", "containerPort": 4}]},
    ]);
    for (port, open) in [(1, true), (2, true), (3, true), (4, false)] {
        assert_eq!(is_open(&objects, &format!("y/a x/c TCP/{port}")), open, "port {port}");
    }
}

#[test]
fn every_namespace_has_its_own_name_label_whatever_its_object_says_34() {
    let mut objects = world();
    objects[0]["metadata"]["labels"]["kubernetes.io/metadata.name"] = "y".into();
    let only_y =
        "z: {ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: y}}}]}]}";
    objects.push(policy(0, only_y));
    assert!(!is_open(&objects, "x/a z/a TCP/80"));
    assert!(is_open(&objects, "y/a z/a TCP/80"));
}

#[test]
fn a_pod_has_all_of_its_pod_ips_or_else_its_pod_ip_186() {
    let mut objects = world();
    objects.push(policy(0, "x: {ingress: [{from: [{ipBlock: {cidr: 10.0.1.0/24}}]}]}"));
    assert!(!is_open(&objects, "y/a x/a TCP/80"), "its IPv6 address is not in the block");
    find(&mut objects, "y", "a")["status"] = json!({"podIP": "10.0.1.1"});
    assert!(is_open(&objects, "y/a x/a TCP/80"));
}
