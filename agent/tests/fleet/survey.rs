//! One question to all agents: who answers, who does not, and what the exit code says.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    plugin::{Finished, run},
    server::{Behaviour, NODES, PODS, Server, agent_pod, node, node_name, version},
};

const STATUS: &str = include_str!("../verbs/status.json");

fn status(node: &str) -> String {
    let mut status: Value = serde_json::from_str(STATUS).expect("JSON");
    status["node"] = node.into();
    status["last_error"] = Value::Null;
    status.to_string()
}

/// Answers every question about its version and status.
fn healthy(node: &str, _pod: &str, arguments: &[String]) -> Behaviour {
    Behaviour::Prints(match &*arguments[0] {
        "version" => version(),
        "status" => status(node),
        other => panic!("{other}"),
    })
}

fn last_line(Finished { stderr, .. }: &Finished) -> &str {
    stderr.lines().last().unwrap_or_default()
}

#[test]
fn status_of_200_nodes_takes_less_than_3_seconds_and_100_mib() {
    let server = Server::with_nodes(200, healthy);
    let done = run(&server, "status");
    assert_eq!((done.code, last_line(&done)), (Some(0), "200 of 200 nodes answered"), "{}", done.stderr);
    assert_eq!(done.stdout.lines().count(), 201, "a line for each node and the header");
    assert!(
        done.stdout.lines().nth(200).unwrap().starts_with("node-199  yes    0.1.0    1 h"),
        "{}",
        done.stdout
    );
    println!("{:?}, {} MiB", done.took, done.memory >> 20);
    assert!(done.took < Duration::from_secs(3), "{:?}", done.took);
    assert!(done.memory > 1 << 20 && done.memory < 100 << 20, "{} MiB", done.memory >> 20);
    let versions = server.objects().asked.iter().filter(|asked| asked.contains(" version ")).count();
    assert_eq!(versions, 1, "one agent for each image");
}

#[test]
fn nodes_that_do_not_answer_are_named_with_the_reason_and_the_exit_code_is_4() {
    let server = Server::with_nodes(9, |node, pod, arguments| match node {
        "node-001" => Behaviour::Hangs,
        "node-002" | "node-003" => Behaviour::Refused(403),
        "node-004" => Behaviour::Fails("warning: x\nerror: no agent answers on /run/podgate/podgate.sock\n"),
        "node-005" => Behaviour::Prints("{\"ready\": ".into()),
        "node-006" => Behaviour::Refused(500),
        _ => healthy(node, pod, arguments),
    });
    {
        let mut objects = server.objects();
        objects.lists.get_mut(NODES).unwrap().push(node("node-of-no-agent"));
        let pods = objects.lists.get_mut(PODS).unwrap();
        pods[7]["status"]["phase"] = "Pending".into();
        // While a pod is replaced, the one that is ready counts.
        let mut ending = agent_pod("node-008", "podgate-old", "sha256:a");
        ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        pods.push(ending);
    }
    let done = run(&server, "status --request-timeout 2s");
    assert_eq!(done.code, Some(4), "{}", done.stderr);
    let expected = "\
node-of-no-agent: no agent runs there
node-007: its agent is not running: pod podgate-node-007: Pending
2 nodes (node-002, node-003): you may not get and create pods/exec in namespace kube-system (403)
node-006: the API server answers 500
node-001: no answer within 2 s
node-004: its agent says: no agent answers on /run/podgate/podgate.sock
node-005: its answer cannot be read: EOF while parsing a value at line 1 column 10
2 of 10 nodes answered
";
    assert_eq!(done.stderr, expected);
    let nodes: Vec<&str> = done.stdout.lines().skip(1).filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(nodes, ["node-000", "node-008"]);
    assert!(!server.objects().asked.iter().any(|asked| asked.contains("podgate-old")));
    let json = run(&server, "status --request-timeout 2s -o json");
    let report: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&report["nodes"], &report["answered"]), (&json!(10), &json!(2)));
    assert_eq!(report["unanswered"].as_array().unwrap().len(), 8);
    assert_eq!(report["items"][1]["status"]["revision"], json!(12), "the whole status of the node");
    let yaml = run(&server, "status --request-timeout 2s -o yaml").stdout;
    let report_again: Value = serde_saphyr::from_str(&yaml).unwrap();
    assert_eq!(report_again, report);
}

#[test]
fn no_answer_at_all_is_a_failure() {
    let server = Server::with_nodes(3, |_, _, _| Behaviour::Refused(401));
    let done = run(&server, "status");
    let reason = "3 nodes (node-000, node-001, node-002): the API server does not accept your credentials (401): log in \
                  again\n0 of 3 nodes answered\n";
    assert_eq!((done.code, &*done.stderr), (Some(1), reason));
}

#[test]
fn credentials_that_are_refused_are_one_clear_error() {
    let server = Server::with_nodes(1, healthy);
    for (code, expected) in [
        (401, "error: the API server does not accept your credentials (401): log in again\n"),
        (403, "error: you may not list pods in namespace kube-system (403): it \\u{1b}[31mis so\n"),
    ] {
        server.objects().refused.insert(PODS.into(), code);
        let done = run(&server, "status");
        assert_eq!((done.code, &*done.stderr, &*done.stdout), (Some(1), expected, ""));
    }
}

#[test]
fn an_agent_of_another_version_is_named_and_its_answer_is_used_where_it_can_be_read() {
    let server = Server::with_nodes(4, |node, pod, arguments| match (node, &*arguments[0]) {
        ("node-000" | "node-001", "version") => Behaviour::Prints(json!({"version": "9.0"}).to_string()),
        ("node-000", _) => Behaviour::Prints(
            json!({"ready": true, "version": "9.0", "counters": [{"outcome": "unheard-of"}], "new": {}})
                .to_string(),
        ),
        ("node-001", _) => Behaviour::Prints(json!({"ready": "surely"}).to_string()),
        _ => healthy(node, pod, arguments),
    });
    for index in 0..2 {
        let pod = agent_pod(&node_name(index), &format!("podgate-{}", node_name(index)), "sha256:b");
        server.objects().lists.get_mut(PODS).unwrap()[index] = pod;
    }
    let done = run(&server, "status");
    let expected = "\
podgate 9.0 runs on 2 nodes (node-000, node-001), this is podgate 0.1.0
node-001: its agent is podgate 9.0, whose answer cannot be read: invalid type: string \"surely\", expected a boolean
3 of 4 nodes answered
";
    assert_eq!((done.code, &*done.stderr), (Some(4), expected));
    assert!(done.stdout.lines().nth(1).unwrap().starts_with("node-000  yes    9.0"), "{}", done.stdout);
}

#[test]
fn nodes_that_cannot_be_listed_are_said_to_be_unknown() {
    let server = Server::with_nodes(1, healthy);
    server.objects().refused.insert(NODES.into(), 403);
    let done = run(&server, "status");
    assert_eq!(done.code, Some(0));
    let expected = "nodes without an agent are not known: you may not list nodes (403): it \\u{1b}[31mis so\n\
                    1 of 1 nodes answered\n";
    assert_eq!(done.stderr, expected);
    let done = run(&server, "status -l zone=a");
    assert_eq!((done.code, &*done.stdout), (Some(1), ""), "who asks for labels gets those nodes or an error");
}

#[test]
fn names_of_objects_cannot_steer_the_terminal() {
    let endpoints = json!([{
        "pod": "shop/a\u{1b}[2J\u{202e}", "interface": "veth1\r\n", "ifindex": 3, "addresses": [],
        "state": "identified", "ingress": {"isolated": false, "policies": []},
        "egress": {"isolated": false, "policies": []}, "revision": 1,
    }]);
    let server = Server::with_nodes(2, move |node, _, arguments| match (node, &*arguments[0]) {
        (_, "version") => Behaviour::Prints(json!({"version": "\u{1b}[31m"}).to_string()),
        ("node-000", _) => Behaviour::Prints(endpoints.to_string()),
        _ => Behaviour::Fails("error: \u{1b}]0;title\u{7}\n"),
    });
    for format in ["table", "wide", "json", "yaml"] {
        let done = run(&server, &format!("endpoints -A -o {format}"));
        let text = done.stdout + &done.stderr;
        assert!(text.contains("1 of 2 nodes answered"), "{text}");
        let obeyed = |character: char| character.is_control() && character != '\n' || character == '\u{202e}';
        assert!(!text.contains(obeyed), "{text:?}");
    }
}

#[test]
fn an_answer_without_end_is_refused() {
    let line = "x".repeat(1 << 20);
    let server = Server::with_nodes(2, move |node, pod, arguments| match (node, &*arguments[0]) {
        ("node-001", "status") => {
            Behaviour::Floods { line: line.clone(), every: Duration::from_millis(1), lines: 10_000 }
        }
        _ => healthy(node, pod, arguments),
    });
    let done = run(&server, "status");
    assert_eq!((done.code, last_line(&done)), (Some(4), "1 of 2 nodes answered"), "{}", done.stderr);
    assert!(done.stderr.contains("node-001: its answer is longer than 8 MiB"), "{}", done.stderr);
    assert!(done.memory < 100 << 20, "{} MiB", done.memory >> 20);
}

#[test]
fn policies_are_summed_and_nodes_that_differ_are_named() {
    let report = |rules: usize, mode: &str| {
        let rules: Vec<Value> = (0..rules)
            .map(|rule| json!({"rule": rule, "hits": 10 + rule, "idle_seconds": 60 * (rule + 1)}))
            .collect();
        let version = if rules.len() == 1 { "6" } else { "7" };
        json!({"counted_seconds": 9, "policies": [
            {"policy": "shop/web", "mode": mode, "pods": ["shop/a", "shop/b"], "egress": null,
             "ingress": {"rules": rules, "denied": 3, "would_deny": 0}},
            {"policy": "other/x", "mode": "enforce", "pods": [], "ingress": null,
             "egress": {"rules": [], "denied": 0, "would_deny": 0}},
            {"policy": "ClusterNetworkPolicy base", "mode": "enforce", "pods": ["shop/a"], "egress": null,
             "object": {"uid": "u", "resource_version": version, "generation": 1, "since": "-", "latency_microseconds": 1},
             "ingress": {"rules": [], "denied": 0, "would_deny": 0}},
        ]})
        .to_string()
    };
    let server = Server::with_nodes(4, move |node, _, arguments| {
        Behaviour::Prints(match (&*arguments[0], node) {
            ("version", _) => version(),
            (_, "node-002") => report(1, "enforce"),
            (_, "node-003") => report(2, "audit"),
            _ => report(2, "enforce"),
        })
    });
    let done = run(&server, "policies");
    let expected = "\
POLICY                     MODE     NODES  PODS  DIRECTION  RULE    HITS
ClusterNetworkPolicy base  enforce  4      4     ingress    denied  0
shop/web                   differs  4      8     ingress    0       40
shop/web                   differs  4      8     ingress    1       33
shop/web                   differs  4      8     ingress    denied  12

ClusterNetworkPolicy base differs: enforce, 0 ingress rules, version 6 on node-002
ClusterNetworkPolicy base differs: enforce, 0 ingress rules, version 7 on 3 nodes (node-000, node-001, node-003)
shop/web differs: audit, 2 ingress rules on node-003
shop/web differs: enforce, 1 ingress rules on node-002
shop/web differs: enforce, 2 ingress rules on 2 nodes (node-000, node-001)
";
    assert_eq!((done.code, &*done.stdout), (Some(0), expected), "{}", done.stderr);
    let all = run(&server, "policies -A").stdout;
    assert!(all.contains("other/x"), "{all}");
    let one = run(&server, "policies other/x -o json").stdout;
    let one: Value = serde_json::from_str(&one).unwrap();
    assert_eq!((one["items"].as_array().unwrap().len(), &one["items"][0]["selecting_nodes"]), (1, &json!(4)));
    let path = "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies";
    let labelled = json!({"metadata": {"name": "web", "namespace": "shop", "labels": {"tier": "a"}}});
    server.objects().lists.insert(path.into(), vec![labelled]);
    let done = run(&server, "policies -l tier=a");
    assert!(done.stdout.contains("shop/web") && !done.stdout.contains("base"), "{}", done.stdout);
    let done = run(&server, "policies -l tier=b");
    assert!(
        done.stderr
            .starts_with("no policy in namespace shop (-A for all) with the labels tier=b selects a pod\n")
    );
}

#[test]
fn options_are_those_of_kubectl_and_mistakes_are_named() {
    let server = Server::with_nodes(2, healthy);
    for line in ["status --context other", "--node node-001 status", "status --request-timeout 0 -A"] {
        assert_eq!(run(&server, line).code, Some(0), "{line}");
    }
    for (line, code, message) in [
        ("status --context nope", 1, "nope"),
        ("status --kubeconfig /does/not/exist", 1, "/does/not/exist"),
        ("status --node node-7", 1, "error: no node node-7 runs podgate"),
        ("status --request-timeout soon", 2, "--request-timeout"),
        ("status -n x -A", 2, "cannot be used with"),
        ("status -o html", 2, "html is an output of `podgate matrix` and `podgate cluster report` alone"),
        ("status -o xml", 2, "table, wide, json, yaml"),
        ("status --agent-namespace empty", 1, "you may not"),
    ] {
        server.objects().refused.insert("/api/v1/namespaces/empty/pods".into(), 403);
        let done = run(&server, line);
        assert_eq!(done.code, Some(code), "{line}: {}", done.stderr);
        assert!(done.stderr.contains(message), "{line}: {}", done.stderr);
    }
}
