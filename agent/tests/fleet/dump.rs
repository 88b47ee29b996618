//! `dump`: what it writes is what the offline verbs need, or no YAML at all.

use std::{fs, process::Command};

use serde_json::{Value, json};

use crate::{
    plugin::run,
    server::{Behaviour, NODES, Server, node},
};

/// A cluster of two pods and two policies.
fn server() -> Server {
    let server = Server::with_nodes(1, |_, _, _| Behaviour::Hangs);
    let pod = |name: &str, address: &str| {
        json!({"metadata": {"name": name, "namespace": "shop", "labels": {"app": name}, "managedFields": [{"manager": "x"}]},
               "spec": {"nodeName": "node-000", "containers": [{"name": "c", "env": [{"name": "TOKEN", "value": "secret"}]}]},
               "status": {"phase": "Running", "podIP": address}})
    };
    let policy = json!({"metadata": {"name": "web", "namespace": "shop"},
                        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"]}});
    let cluster_policy = json!({"metadata": {"name": "base"}, "spec": {
        "tier": "Admin", "priority": 1, "subject": {"namespaces": {}},
        "ingress": [{"action": "Accept", "from": [{"namespaces": {}}]}]}});
    let namespace = json!({"metadata": {"name": "shop", "uid": "u: 7", "labels": {"odd": "\u{1b}[31m"}, "annotations": {"note": "a: 'b'\n- c"}}});
    let mut objects = server.objects();
    objects.lists.insert(NODES.into(), vec![node("node-000")]);
    for (path, items) in [
        ("/api/v1/namespaces", vec![namespace]),
        ("/api/v1/pods", vec![pod("web", "10.0.0.1"), pod("client", "10.0.0.2")]),
        ("/api/v1/services", vec![]),
        ("/apis/discovery.k8s.io/v1/endpointslices", vec![]),
        ("/apis/networking.k8s.io/v1/networkpolicies", vec![policy]),
        ("/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies", vec![cluster_policy]),
    ] {
        objects.lists.insert(path.into(), items);
    }
    drop(objects);
    server
}

fn matrix(dump: &str) -> (Option<i32>, Value) {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().expect("a file");
    fs::write(&file, dump).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_podgate"));
    command.args(["matrix", "--ports", "TCP/80", "-o", "json", "--manifests"]).arg(file.path());
    let output = command.output().expect("podgate");
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
}

#[test]
fn the_offline_verbs_read_it_and_cluster_wide_policies_count() {
    let server = server();
    let done = run(&server, "dump");
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let head: Vec<&str> = done.stdout.lines().take_while(|line| line.starts_with('#')).collect();
    assert!(head.contains(&"# ClusterNetworkPolicy: policy.networking.k8s.io/v1alpha2"), "{head:?}");
    assert!(head.contains(&"# AdminNetworkPolicy: the API server does not have this kind"), "{head:?}");
    assert!(!done.stdout.contains("secret") && !done.stdout.contains("managedFields"), "{}", done.stdout);
    assert!(done.stderr.contains("1 NetworkPolicy") && done.stderr.contains("2 Pod"), "{}", done.stderr);
    assert!(!done.stdout.contains('\u{1b}') && done.stdout.contains("odd: "), "{}", done.stdout);
    assert_eq!(run(&server, "dump -o json").code, Some(1));
    let (code, answer) = matrix(&done.stdout);
    assert_eq!(
        (code, &answer["ports"]["TCP/80"]),
        (Some(0), &json!({"shop/client": "..", "shop/web": ".."}))
    );
    // Without the cluster-wide policy, the other one denies.
    let without: Vec<&str> =
        done.stdout.split("---\n").filter(|document| !document.contains("name: base")).collect();
    let (_, answer) = matrix(&without.join("---\n"));
    assert_eq!(answer["ports"]["TCP/80"]["shop/client"], json!(".X"));
    let mut alone = Command::new(env!("CARGO_BIN_EXE_podgate"));
    alone.arg("dump").arg("--kubeconfig").arg(server.kubeconfig.path());
    assert_eq!(
        String::from_utf8(alone.output().unwrap().stdout).unwrap(),
        done.stdout,
        "also without kubectl"
    );
}

#[test]
fn a_dump_that_cannot_be_complete_is_not_taken_for_one() {
    let server = server();
    server.objects().refused.insert("/api/v1/services".into(), 403);
    let done = run(&server, "dump");
    assert_eq!((done.code, &*done.stdout), (Some(1), ""), "nothing before all kinds are known to be listed");
    assert!(done.stderr.starts_with("error: you may not list services (403)"), "{}", done.stderr);
    server.objects().refused.clear();
    server.objects().fails_after.insert("/api/v1/services".into(), 1);
    let done = run(&server, "dump");
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stdout.contains("kind: Namespace"), "{}", done.stdout);
    let (code, _) = matrix(&done.stdout);
    assert_eq!(code, Some(1), "{}", done.stdout);
}
