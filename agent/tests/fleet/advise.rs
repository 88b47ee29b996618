//! Policies for what the agents of all nodes have seen.

use serde_json::{Value, json};

use crate::{
    plugin::run,
    server::{Behaviour, NODES, Server, version},
};

fn pod(name: &str, node: &str, address: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": name}},
        "spec": {"nodeName": node, "containers": []},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    })
}

fn flow(direction: &str, from: &str, to: &str, port: u16) -> String {
    let end =
        |name: &str, port: u16| json!({"address": "10.0.0.1", "port": port, "pod": format!("shop/{name}")});
    let line = json!({
        "time": "2026-01-01T00:00:00.000Z", "node": "n", "direction": direction, "verdict": "allowed",
        "reason": "not-isolated", "protocol": "TCP", "source": end(from, 40_000), "destination": end(to, port),
        "policies": [], "certain": true, "packets": 1, "revision": 3,
    });
    format!("{line}\n")
}

fn denied(flow: &str) -> String {
    flow.replace("\"allowed\"", "\"denied\"").replace("\"not-isolated\"", "\"denied\"")
}

/// Two nodes that have seen both ends of a connection, and of one that the second has denied; and one that
/// does not answer.
fn server() -> Server {
    let server = Server::with_nodes(3, |node, _, arguments| match (node, &*arguments[0]) {
        (_, "version") => Behaviour::Prints(version()),
        ("node-000", _) => {
            let flows = flow("egress", "web", "db", 5432) + &flow("egress", "web", "db", 22);
            Behaviour::Prints(flows + "no JSON\n")
        }
        ("node-001", _) => {
            Behaviour::Prints(flow("ingress", "web", "db", 5432) + &denied(&flow("ingress", "web", "db", 22)))
        }
        _ => Behaviour::Fails("error: no agent answers\n"),
    });
    let mut objects = server.objects();
    let pods = [
        pod("web", "node-000", "10.0.0.1"),
        pod("db", "node-001", "10.0.1.1"),
        pod("far", "node-002", "10.0.2.1"),
    ];
    let lists = [
        ("/api/v1/namespaces", vec![json!({"metadata": {"name": "shop"}})]),
        ("/api/v1/pods", pods.to_vec()),
        ("/api/v1/services", vec![]),
        ("/apis/discovery.k8s.io/v1/endpointslices", vec![]),
        ("/apis/networking.k8s.io/v1/networkpolicies", vec![]),
    ];
    objects.lists.extend(lists.map(|(path, items)| (path.to_owned(), items)));
    assert!(objects.lists.contains_key(NODES));
    drop(objects);
    server
}

#[test]
fn flows_of_all_nodes_become_policies_and_a_silent_node_is_named() {
    let done = run(&server(), "advise --enforce");
    assert_eq!(done.code, Some(4), "{}", done.stderr);
    let documents: Vec<&str> = done.stdout.split("---\n").filter(|text| !text.is_empty()).collect();
    let [db, web] = &documents[..] else { panic!("{}\n{}", done.stdout, done.stderr) };
    assert!(db.contains("name: advised-db") && db.contains("port: 5432"), "{db}");
    assert!(!done.stdout.contains("port: 22"), "what the other end denied is not advised: {}", done.stdout);
    assert!(web.contains("name: advised-web") && web.contains("egress:\n  - ports:"), "{web}");
    for said in [
        "2 policies, enforced; 1 kinds of connections that were seen are allowed, 0 denied",
        "no policy shop/advised-far: it has pods on nodes whose flows are missing",
        "1 lines could not be read",
        "node-002: its agent says: no agent answers",
        "2 of 3 nodes answered",
    ] {
        assert!(done.stderr.contains(said), "no {said:?} in {}", done.stderr);
    }
}

#[test]
fn without_an_answer_or_the_rights_there_is_no_policy() {
    let server = Server::with_nodes(1, |_, _, _| Behaviour::Refused(403));
    let done = run(&server, "advise");
    assert_eq!((done.code, &*done.stdout), (Some(1), ""));
    let server = self::server();
    server.objects().refused.insert("/api/v1/pods".into(), 403);
    let done = run(&server, "advise");
    assert_eq!((done.code, &*done.stdout), (Some(1), ""));
    assert!(done.stderr.contains("list pods"), "{}", done.stderr);
}
