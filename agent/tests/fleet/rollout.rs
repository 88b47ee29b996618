//! `rollout status`: when a policy counts as enforced, and what is said of nodes where it is not.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    plugin::{finish, run, start},
    server::{Behaviour, NODES, Server, node, version},
};

const POLICY: &str = "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies/web";
const POLICIES: &str = "/apis/networking.k8s.io/v1/networkpolicies";
const CLUSTER: &str = "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies";

fn metadata(name: &str, version: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "shop", "uid": "u-1", "resourceVersion": version, "generation": 2}})
}

/// What a node says of `shop/web`.
fn report(version: &str, pods: usize, latency: u64, unenforced: &Value) -> Value {
    json!({"node": "n", "version": "0.1.0", "ready": true, "revision": 3, "last_error": null, "policies": [
        {"policy": "shop/web", "pods": pods, "unenforced": unenforced, "object": {
            "uid": "u-1", "resource_version": version, "generation": 2, "since": "2026-01-01T00:00:00.000Z",
            "latency_microseconds": latency}},
    ]})
}

fn server(nodes: usize, answer: impl Fn(&str, &[String]) -> Behaviour + Send + Sync + 'static) -> Server {
    let server = Server::with_nodes(nodes, move |node, _, arguments| match &*arguments[0] {
        "version" => Behaviour::Prints(version()),
        "rollout" => answer(node, arguments),
        other => panic!("{other}"),
    });
    server.objects().raw.insert(POLICY.into(), metadata("web", "57"));
    server
}

#[test]
fn a_policy_that_is_enforced_everywhere_is_done_and_the_slowest_node_is_named() {
    let server = server(200, |node, arguments| {
        assert_eq!(arguments[1], "shop/web", "only this policy is asked for");
        let (pods, latency) = match node {
            "node-017" => (2, 40_001),
            // Nothing there has to be enforced.
            "node-018" => (0, 99_000),
            _ => (1, 3_000),
        };
        Behaviour::Prints(report("57", pods, latency, &json!([])).to_string())
    });
    let done = run(&server, "rollout status netpol/web");
    let expected = "enforced on 199 of 199 nodes that have selected pods, slowest 41 ms (node-017)\n";
    assert_eq!((done.code, &*done.stdout, &*done.stderr), (Some(0), expected, ""));
}

#[test]
fn it_waits_for_the_last_node_and_ends_within_a_second_of_it() {
    let asked = Arc::new(AtomicUsize::new(0));
    let (server, released) = {
        let (asked, released) = (asked.clone(), Arc::new(AtomicUsize::new(0)));
        let is_released = released.clone();
        let server = server(3, move |node, _| {
            let version = match node {
                "node-001" => {
                    asked.fetch_add(1, Ordering::SeqCst);
                    if is_released.load(Ordering::SeqCst) == 0 { "9" } else { "58" }
                }
                _ => "57",
            };
            Behaviour::Prints(report(version, 1, 5_000, &json!([])).to_string())
        });
        (server, released)
    };
    let started = Instant::now();
    let child = start(&server, "rollout status netpol/web --timeout 60s");
    while asked.load(Ordering::SeqCst) < 3 {
        assert!(started.elapsed() < Duration::from_secs(30), "it asks again");
        thread::sleep(Duration::from_millis(10));
    }
    released.store(1, Ordering::SeqCst);
    let enforced = Instant::now();
    let done = finish(child, started);
    assert!(enforced.elapsed() < Duration::from_secs(1), "{:?}", enforced.elapsed());
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let of = |node: &str| server.objects().asked.iter().filter(|asked| asked.contains(node)).count();
    assert!(of("node-000 rollout") == 1 && of("node-001 rollout") >= 3, "a node that is done is left alone");
}

#[test]
fn nodes_that_do_not_enforce_it_are_named_with_the_reason() {
    let unguarded =
        json!([{"pod": "shop/a", "reason": "macvlan: its device"}, {"pod": "shop/b", "reason": "x"}]);
    let server = server(8, move |node, _| {
        let mut report = match node {
            "node-001" => report("56", 1, 1, &json!([])),
            "node-002" => report("57", 2, 1, &unguarded),
            "node-003" => {
                json!({"node": "n", "version": "1", "ready": true, "revision": 1, "last_error": "no memory",
                                 "policies": []})
            }
            "node-004" => return Behaviour::Hangs,
            "node-005" => report("57", 1, 1, &json!([])),
            "node-006" => report("57", 1, 1, &json!([])),
            "node-007" => {
                return Behaviour::Fails(
                    "error: unrecognized subcommand 'rollout'\n\nUsage: podgate\n\nFor more\n",
                );
            }
            _ => report("57", 1, 1_000, &json!([])),
        };
        match node {
            "node-005" => report["policies"][0]["object"]["uid"] = "u-0".into(),
            "node-006" => report["ready"] = false.into(),
            _ => {}
        }
        Behaviour::Prints(report.to_string())
    });
    server.objects().lists.get_mut(NODES).unwrap().push(node("node-x"));
    let done = run(&server, "rollout status netpol/web --timeout 2s --request-timeout 1s");
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    let expected = "\
node-006: its agent has not enforced a first full picture yet
node-007: its agent says: unrecognized subcommand 'rollout'
node-005: it enforces an earlier policy of this name
node-001: it enforces version 56, not 57 yet
node-003: it does not enforce the policy yet (its last error: no memory)
node-x: no agent runs there
node-004: no answer within 1 s
node-002: not enforced on pod shop/a (macvlan: its device), and 1 more
enforced on 1 of 9 nodes that have selected pods, slowest 1 ms (node-000)
";
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&done.stdout), sorted(expected));
    assert!(
        done.stderr.starts_with("error: 1 of 1 policies not enforced everywhere after "),
        "{}",
        done.stderr
    );
    let json = run(&server, "rollout status netpol/web --timeout 1s --request-timeout 1s -o json").stdout;
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&report[0]["enforced"], report[0]["waiting"].as_array().unwrap().len()), (&json!(false), 8));
}

#[test]
fn all_policies_of_all_namespaces_are_waited_for_with_the_cluster_wide_ones() {
    let server = server(3, |_, arguments| {
        assert_eq!(arguments[1], "-o", "all policies are asked for at once");
        let mut report = report("57", 1, 1_000, &json!([]));
        let mut base = report["policies"][0].clone();
        base["policy"] = "ClusterNetworkPolicy base".into();
        base["pods"] = 0.into();
        report["policies"].as_array_mut().unwrap().push(base);
        Behaviour::Prints(report.to_string())
    });
    let mut base = metadata("base", "7");
    base["metadata"].as_object_mut().unwrap().remove("namespace");
    server.objects().lists.insert(POLICIES.into(), vec![metadata("web", "57")]);
    server.objects().lists.insert(CLUSTER.into(), vec![base]);
    let done = run(&server, "rollout status --all -A");
    let expected = "\
shop/web: enforced on 3 of 3 nodes that have selected pods, slowest 1 ms (node-000)
ClusterNetworkPolicy base: enforced on 3 of 3 nodes; none has pods that it selects
";
    assert_eq!((done.code, &*done.stdout), (Some(0), expected), "{}", done.stderr);
}

const AWS: &str = "/apis/networking.k8s.aws/v1alpha1/clusternetworkpolicies";

/// A server that knows AWS's kinds, too. Of `base` there is one at each of these paths.
fn server_of_aws(paths: &[&str]) -> Server {
    let server = server(2, |_, arguments| {
        let mut report = report("57", 1, 1_000, &json!([]));
        report["policies"][0]["policy"] = arguments[1].clone().into();
        Behaviour::Prints(report.to_string())
    });
    let versions = json!([{"groupVersion": "networking.k8s.aws/v1alpha1", "version": "v1alpha1"}]);
    let group = json!({"name": "networking.k8s.aws", "versions": versions, "preferredVersion": versions[0]});
    let groups = json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]});
    server.objects().raw.insert("/apis".into(), groups);
    for path in [AWS, CLUSTER] {
        server.objects().lists.insert(path.into(), vec![]);
    }
    for path in paths {
        let mut base = metadata("base", "57");
        base["metadata"].as_object_mut().expect("it is one").remove("namespace");
        server.objects().raw.insert(format!("{path}/base"), base);
    }
    server
}

#[test]
fn a_kind_that_two_api_groups_have_is_found_where_the_policy_is_or_by_its_group() {
    let enforced = "enforced on 2 of 2 nodes that have selected pods, slowest 1 ms (node-000)\n";
    for (paths, line, asked) in [
        (&[AWS][..], "cnp/base", "AWS ClusterNetworkPolicy base"),
        (&[CLUSTER], "cnp/base", "ClusterNetworkPolicy base"),
        (&[AWS, CLUSTER], "cnp.networking.k8s.aws/base", "AWS ClusterNetworkPolicy base"),
        (
            &[AWS, CLUSTER],
            "clusternetworkpolicies.v1alpha1.networking.k8s.aws/base",
            "AWS ClusterNetworkPolicy base",
        ),
        (&[AWS, CLUSTER], "cnp.policy.networking.k8s.io/base", "ClusterNetworkPolicy base"),
    ] {
        let server = server_of_aws(paths);
        let done = run(&server, &format!("rollout status {line}"));
        assert_eq!((done.code, &*done.stdout), (Some(0), enforced), "{line}: {}", done.stderr);
        let all = &server.objects().asked;
        assert!(all.iter().any(|all| all.contains(&format!(" rollout {asked} "))), "{line}: {all:?}");
    }
    for (paths, line, complaint) in [
        (
            &[AWS, CLUSTER][..],
            "cnp/base",
            "error: cnp/base is a policy of several kinds: choose one by its group, as in \
             clusternetworkpolicy.policy.networking.k8s.io/base or clusternetworkpolicy.networking.k8s.aws/base",
        ),
        (&[CLUSTER], "cnp.networking.k8s.aws/base", "error: cannot get AWS ClusterNetworkPolicy base"),
        (&[CLUSTER], "cnp.example.com/base", "error: cnp.example.com: a kind is"),
    ] {
        let done = run(&server_of_aws(paths), &format!("rollout status {line}"));
        assert_eq!(done.code, Some(1), "{line}");
        assert!(done.stderr.contains(complaint), "{line}: {}", done.stderr);
    }
}

#[test]
fn a_policy_that_is_not_there_is_an_error() {
    let server = server(1, |_, _| Behaviour::Hangs);
    for (line, code, message) in [
        ("rollout status netpol/nope", 1, "error: cannot get NetworkPolicy nope: the API server answers 404"),
        ("rollout status deploy/web", 1, "error: deploy: a kind is netpol, cnp, anp or banp"),
        ("rollout status web", 1, "error: web: a policy is KIND/NAME, as in netpol/api"),
        ("rollout status cnp/base", 1, "error: the API server does not know the kind ClusterNetworkPolicy"),
        ("rollout status netpol/web -A", 1, "error: -A does not say which policy is meant"),
        ("rollout status", 2, "error: the following required arguments were not provided"),
        ("rollout status netpol/web --all", 2, "cannot be used with"),
    ] {
        let done = run(&server, line);
        assert_eq!(done.code, Some(code), "{line}: {}", done.stderr);
        assert!(done.stderr.contains(message), "{line}: {}", done.stderr);
    }
}
