//! The page of a whole cluster: its data, and what a browser shows of it.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    browser::{self, write},
    plugin::{Finished, run},
    server::{Behaviour, Server, node_name, version},
};

/// Text that would run as code, were it ever taken for more than text.
const HOSTILE: &str = "</script><img src=x onerror=window.hacked=1>";

/// A cluster of so many workloads in so many namespaces, with two pods each.
#[derive(Clone, Copy)]
struct Crowd {
    workloads: usize,
    namespaces: usize,
}

impl Crowd {
    fn namespace(self, workload: usize) -> String {
        format!("ns-{:02}", workload % self.namespaces)
    }

    /// The one before it in its namespace, whom alone its policy lets in.
    fn friend(self, workload: usize) -> usize {
        (workload + self.workloads - self.namespaces) % self.workloads
    }

    fn pods(self) -> Vec<Value> {
        let pod = |workload: usize, replica: usize| {
            let number = 2 * workload + replica;
            json!({
                "metadata": {
                    "name": format!("w{workload:04}-{replica}"), "namespace": self.namespace(workload),
                    "labels": {"app": format!("w{workload:04}"), "pod-template-hash": replica.to_string()},
                },
                "spec": {"nodeName": node_name(number % 3), "containers": []},
                "status": {"phase": "Running", "podIP": format!("10.{}.{}.1", number / 250, number % 250)},
            })
        };
        (0..self.workloads).flat_map(|workload| [0, 1].map(|replica| pod(workload, replica))).collect()
    }

    fn policies(self) -> Vec<Value> {
        let policy = |workload: usize| {
            let labels = |workload: usize| json!({"matchLabels": {"app": format!("w{workload:04}")}});
            json!({
                "metadata": {"name": format!("p{workload:04}"), "namespace": self.namespace(workload)},
                "spec": {"podSelector": labels(workload), "ingress": [{
                    "from": [{"podSelector": labels(self.friend(workload))}], "ports": [{"port": 80}],
                }]},
            })
        };
        (0..self.workloads).map(policy).collect()
    }

    /// What the agent of a node says that its policies have done.
    fn report(self, node: usize) -> Value {
        let policy = |workload: usize| {
            let pods: Vec<String> = [0, 1]
                .into_iter()
                .filter(|replica| (2 * workload + replica) % 3 == node)
                .map(|replica| format!("{}/w{workload:04}-{replica}", self.namespace(workload)))
                .collect();
            json!({
                "policy": format!("{}/p{workload:04}", self.namespace(workload)), "mode": "enforce", "pods": pods,
                "ingress": {"rules": [{"rule": 0, "hits": 3, "idle_seconds": 5}], "denied": 2, "would_deny": 0},
                "egress": null,
            })
        };
        let policies: Vec<Value> = (0..self.workloads).map(policy).collect();
        json!({"counted_seconds": 9, "policies": policies})
    }

    /// Each workload is let in by the next one, and denied by the one after that.
    fn flows(self) -> String {
        let end = |workload: usize, port: u16| {
            let labels = json!({"app": format!("w{workload:04}"), "pod-template-hash": "0"});
            let pod = format!("{}/w{workload:04}-0", self.namespace(workload));
            json!({"address": "10.0.0.1", "port": port, "pod": pod, "labels": labels})
        };
        let flow = |from: Value, to: Value, verdict: &str, reason: &str, policies: Value| {
            let line = json!({
                "time": "2026-01-02T03:04:05.000Z", "node": "n", "direction": "ingress", "verdict": verdict,
                "reason": reason, "protocol": "TCP", "source": from, "destination": to, "policies": policies,
                "certain": true, "packets": 2, "revision": 3,
            });
            format!("{line}\n")
        };
        let mut lines = String::new();
        for workload in 0..self.workloads {
            let [next, after] = [1, 2].map(|steps| (workload + steps * self.namespaces) % self.workloads);
            let policy = |workload: usize, rules: Value| json!([{"policy": format!("{}/p{workload:04}", self.namespace(workload)), "rules": rules}]);
            lines +=
                &flow(end(workload, 4000), end(next, 80), "allowed", "allowed", policy(next, json!([0])));
            lines += &flow(end(workload, 4000), end(after, 80), "denied", "denied", policy(after, json!([])));
        }
        let hostile = json!({"address": "10.0.0.9", "port": 1, "pod": format!("ns-00/{HOSTILE}"), "labels": {"app": HOSTILE}});
        let outside = json!({"address": "203.0.113.9", "port": 443});
        let policy = json!([{"policy": format!("ns-00/{HOSTILE}"), "rules": []}]);
        lines += &flow(hostile, outside.clone(), "denied", "denied", policy);
        lines += &flow(outside, end(0, 80), "would-deny", "would-deny", json!([]));
        lines
    }

    fn server(self) -> Server {
        self.server_but(|_, _| None)
    }

    /// `agents`: what some do otherwise, by the number of the node and the verb.
    fn server_but(self, agents: impl Fn(usize, &str) -> Option<Behaviour> + Send + Sync + 'static) -> Server {
        let server = Server::with_nodes(4, move |node, _, arguments| {
            let number: usize = node.trim_start_matches("node-").parse().expect("the number of a node");
            if let Some(behaviour) = agents(number, &arguments[0]) {
                return behaviour;
            }
            Behaviour::Prints(match (&*arguments[0], number) {
                ("version", _) => version(),
                (_, 3) => return Behaviour::Refused(500),
                ("status", _) => json!({
                    "ready": number != 1, "version": "0.1.0", "uptime_seconds": 3600, "policies": self.workloads,
                    "endpoints": {"identified": 7, "pending": 0, "unmanaged": 0}, "revision": 5,
                    "last_error": (number == 1).then_some(HOSTILE),
                    "unenforced": if number == 1 { json!([{
                        "pod": "ns-00/odd", "reason": "macvlan", "detail": HOSTILE, "age_seconds": 90,
                    }]) } else { json!([]) },
                })
                .to_string(),
                ("policies", _) => self.report(number).to_string(),
                ("flows", 0) => self.flows(),
                ("flows", _) => String::new(),
                (other, _) => panic!("{other}"),
            })
        });
        let namespaces = (0..self.namespaces).map(|at| json!({"metadata": {"name": format!("ns-{at:02}")}}));
        let mut objects = server.objects();
        objects.lists.extend([
            ("/api/v1/namespaces".to_owned(), namespaces.collect()),
            ("/api/v1/pods".to_owned(), self.pods()),
            ("/api/v1/services".to_owned(), vec![]),
            ("/apis/discovery.k8s.io/v1/endpointslices".to_owned(), vec![]),
            ("/apis/networking.k8s.io/v1/networkpolicies".to_owned(), self.policies()),
        ]);
        drop(objects);
        server
    }
}

fn json_of(done: &Finished) -> Value {
    serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {}", done.stderr))
}

#[test]
fn the_data_has_nodes_policies_talks_denials_and_the_matrix() {
    let server = Crowd { workloads: 5, namespaces: 1 }.server();
    let done = run(&server, "report -o json --ports 80,UDP/53");
    let said = "node-003: the API server answers 500\n3 of 4 nodes answered\n";
    assert_eq!((done.code, &*done.stderr), (Some(4), said));
    let report = json_of(&done);
    assert_eq!(
        (&report["nodes"], &report["answered"], &report["left_out"]),
        (&json!(4), &json!(3), &json!([]))
    );
    assert_eq!(report["node_states"][1]["ready"], json!(false));
    assert_eq!(report["unenforced"][0]["reason"], json!("macvlan"));
    let policy = &report["policies"][0];
    assert_eq!((&policy["policy"], &policy["pods"]), (&json!("ns-00/p0000"), &json!(2)));
    assert_eq!(policy["selected"], json!([["ns-00/w0000", 2]]), "both replicas are one workload");
    assert_eq!(policy["ingress"]["rules"][0]["hits"], json!(9), "the sum of three nodes");
    let names: Vec<&str> =
        report["workloads"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(&names[1..], ["ns-00/w0000", "ns-00/w0001", "ns-00/w0002", "ns-00/w0003", "ns-00/w0004"]);
    let talk = |from: &str, to: &str| {
        let talks = report["talks"].as_array().unwrap();
        talks
            .iter()
            .find(|talk| talk["from"] == from && talk["to"] == to)
            .unwrap_or_else(|| panic!("{report}"))
    };
    let allowed = talk("ns-00/w0000", "ns-00/w0001");
    assert_eq!(
        [&allowed["port"], &allowed["allowed"], &allowed["denied"]],
        [&json!("TCP/80"), &json!(2), &json!(0)]
    );
    assert_eq!(talk("outside the cluster", "ns-00/w0000")["would_deny"], json!(2));
    let denied = report["denied"].as_array().unwrap();
    assert_eq!(denied.len(), 7);
    let one = denied.iter().find(|row| row["from"] == "ns-00/w0000").unwrap();
    assert_eq!((&one["to"], &one["policies"]), (&json!("ns-00/w0002"), &json!(["ns-00/p0002"])));
    // Each reaches the one after it, and what is no one's policy is closed.
    let matrix = &report["matrix"];
    assert_eq!(matrix["workloads"], json!([1, 2, 3, 4, 5]));
    let rows = |port: usize| matrix["ports"][port]["rows"].as_array().unwrap().clone();
    assert_eq!(matrix["ports"][0]["port"], json!("TCP/80"));
    assert_eq!(rows(0)[0], json!("X.3X"));
    assert_eq!(rows(1)[0], json!("5X"));
    assert_eq!(matrix["ports"][0]["own"], json!("X".repeat(5)), "no pod is let in by its own replica");
    let since =
        server.objects().asked.iter().filter(|asked| asked.contains("flows -o json --since=3600s")).count();
    assert_eq!(since, 3);
}

#[test]
fn a_namespace_that_is_named_is_all_that_is_shown() {
    let crowd = Crowd { workloads: 6, namespaces: 2 };
    for line in ["report -n ns-01 -o json", "-n ns-01 report -o json"] {
        let server = crowd.server();
        let report = json_of(&run(&server, line));
        assert_eq!(report["namespace"], json!("ns-01"));
        assert_eq!(report["left_out"][0], json!("all but namespace ns-01 (-n)"));
        let names = |rows: &str, field: &str| -> Vec<String> {
            let rows = report[rows].as_array().unwrap().iter();
            rows.map(|row| row[field].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names("policies", "policy"), ["ns-01/p0001", "ns-01/p0003", "ns-01/p0005"]);
        assert_eq!(report["unenforced"], json!([]), "that pod is of another one");
        assert_eq!(report["node_states"][1]["unenforced"], json!(1));
        // The agents choose the flows. These ones show all, so that workloads of the other namespace are
        // seen to talk to some of this one.
        let asked =
            server.objects().asked.iter().filter(|asked| asked.ends_with("--namespace=ns-01")).count();
        assert_eq!(asked, 3);
        assert!(names("workloads", "name").contains(&"ns-01/w0001".to_owned()));
    }
    let report = json_of(&run(&crowd.server(), "report -o json"));
    assert_eq!((&report["namespace"], report["policies"].as_array().unwrap().len()), (&Value::Null, 6));
    assert_eq!(run(&crowd.server(), "report -n ns-01 -A -o json").code, Some(2));
}

#[test]
fn without_the_right_to_list_objects_the_page_says_what_it_lacks() {
    let server = Crowd { workloads: 5, namespaces: 1 }.server();
    server.objects().refused.insert("/apis/networking.k8s.io/v1/networkpolicies".into(), 403);
    let report = json_of(&run(&server, "report -o json"));
    assert_eq!(report["matrix"], Value::Null);
    let left_out = report["left_out"][0].as_str().unwrap();
    assert!(left_out.starts_with("who may reach whom: you may not list networkpolicies (403)"), "{left_out}");
    assert_eq!(report["talks"].as_array().unwrap().len(), 12, "flows name their workloads themselves");
    let silent = Server::with_nodes(2, |_, _, _| Behaviour::Refused(500));
    let done = run(&silent, "report");
    assert_eq!((done.code, &*done.stdout), (Some(1), ""));
    assert!(
        done.stderr.ends_with("error: no node has answered; there is nothing to report\n"),
        "{}",
        done.stderr
    );
    let done = run(&server, "report -o table");
    assert_eq!(done.code, Some(2), "{}", done.stderr);
    for format in ["json", "yaml"] {
        let before = run(&server, &format!("-o {format} report"));
        let after = run(&server, &format!("report -o {format}"));
        let start = |text: &str| text.lines().take(3).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(start(&before.stdout), start(&after.stdout), "{format}");
    }
}

#[test]
fn a_node_that_answers_one_question_alone_has_not_answered() {
    let refuses =
        |number: usize, verb: &str| (number == 2 && verb == "flows").then_some(Behaviour::Refused(500));
    let done = run(&Crowd { workloads: 5, namespaces: 1 }.server_but(refuses), "report -o json");
    let said = "2 nodes (node-002, node-003): the API server answers 500\n2 of 4 nodes answered\n";
    assert_eq!((done.code, &*done.stderr), (Some(4), said));
    let report = json_of(&done);
    assert_eq!(report["node_states"].as_array().unwrap().len(), 3, "what it said is shown");
    assert_eq!(report["policies"][0]["ingress"]["rules"][0]["hits"], json!(9));
}

#[test]
fn the_page_stands_alone_and_is_usable_at_every_size() {
    let place = browser::place("report");
    for (workloads, namespaces, most) in [(5, 1, 80 << 10), (100, 2, 250 << 10), (2_000, 20, 5 << 20)] {
        let done = run(&Crowd { workloads, namespaces }.server(), "report");
        assert_eq!(done.code, Some(4), "{}", done.stderr);
        println!(
            "{workloads} workloads: {} KiB, {:?}, {} MiB",
            done.stdout.len() >> 10,
            done.took,
            done.memory >> 20
        );
        assert!(done.stdout.len() < most, "{workloads} workloads: {} bytes", done.stdout.len());
        write(&place.join(format!("{workloads}.html")), &done.stdout);
    }
    browser::run(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fleet/report.mjs"), &place);
}
