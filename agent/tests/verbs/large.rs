//! A cluster of 5,000 pods: answers that fit a screen and a browser, in seconds of a processor.

use std::{fs, process::Command};

use serde_json::{Value, json};

use crate::podgate::directory;

const NAMESPACES: usize = 100;
const APPS: usize = 5;
const REPLICAS: usize = 10;

/// In each namespace, five applications of ten pods with a policy each: it takes connections of the one
/// before, at a port by number, and of those that monitor, at one by name.
fn objects() -> Vec<Value> {
    let namespace = |at: usize| format!("team-{at:03}");
    let app = |at: usize| format!("backend-{at}");
    let mut objects = Vec::new();
    for of in 0..NAMESPACES {
        let labels = json!({"team": (of % 7).to_string()});
        objects.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace(of), "labels": labels}}));
        for at in 0..APPS {
            let peers = json!([{"podSelector": {"matchLabels": {"app": app((at + APPS - 1) % APPS)}}}]);
            let monitors = json!([{"namespaceSelector": {"matchLabels": {"team": "3"}}}]);
            objects.push(json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"namespace": namespace(of), "name": app(at)},
                "spec": {
                    "podSelector": {"matchLabels": {"app": app(at)}},
                    "ingress": [
                        {"from": peers, "ports": [{"port": 8080}]},
                        {"from": monitors, "ports": [{"port": "metrics"}]},
                    ],
                },
            }));
            for replica in 0..REPLICAS {
                let number = (of * APPS + at) * REPLICAS + replica;
                let labels = json!({"app": app(at), "pod-template-hash": format!("{at}f")});
                objects.push(json!({
                    "apiVersion": "v1", "kind": "Pod",
                    "metadata": {"namespace": namespace(of), "name": format!("{}-{at}f-{replica:05}", app(at)), "labels": labels},
                    "spec": {"containers": [{"name": "main", "ports": [{"name": "metrics", "containerPort": 9100}]}]},
                    "status": {"phase": "Running", "podIP": format!("10.0.{}.{}", number / 250, number % 250 + 1)},
                }));
            }
        }
    }
    objects
}

/// `1m2.5s`
fn seconds(text: &str) -> f64 {
    let (minutes, seconds) = text.trim_end_matches('s').split_once('m').expect("a time of sh");
    minutes.parse::<f64>().expect("a number") * 60.0 + seconds.parse::<f64>().expect("a number")
}

#[test]
fn the_matrix_of_5000_pods_is_by_workload_and_takes_seconds() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str, items: &[Value]| {
        let path = place.path().join(name);
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        fs::write(&path, list.to_string()).expect("a new file");
        path.display().to_string()
    };
    let objects = objects();
    let cluster = file("cluster.json", &objects);
    let policy = objects.iter().find(|object| object["kind"] == "NetworkPolicy").expect("a policy");
    let mut closed = policy.clone();
    closed["spec"]["ingress"] = json!([]);
    let change = file("change.json", &[closed]);
    let answer = |line: &str, code: i32| {
        // The shell says at the end how much of a processor it took: others use the machine, too.
        let mut shell = Command::new("sh");
        shell.args(["-c", "\"$@\"; code=$?; times >&2; exit $code", "sh", env!("CARGO_BIN_EXE_podgate")]);
        shell.args(["matrix", &cluster, "--ports", "TCP/8080"]).args(line.split_whitespace());
        let output = shell.current_dir(directory()).output().expect("a shell");
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(code), "{said}");
        let took: f64 = said.lines().last().expect("times").split(' ').map(seconds).sum();
        println!("{line:?}: {took:.1} s, {} bytes", output.stdout.len());
        (String::from_utf8(output.stdout).expect("text"), took)
    };
    // Only optimised code is in a hurry.
    let is_in_time = |took: f64, limit: f64| cfg!(debug_assertions) || took < limit;

    let (table, took) = answer("", 0);
    assert!(table.starts_with("Rows: sources."), "the legend stands first");
    assert!(table.lines().count() < 510, "a row for each of 500 applications");
    assert!(table.len() < 1_000_000 && is_in_time(took, 5.0), "{} bytes in {took} s", table.len());
    let (changes, took) = answer(&format!("--diff {change}"), 3);
    let expected = "closes  TCP/8080  team-000/backend-4 ×10 -> team-000/backend-0 ×10\n0 opened, 1 closed\n";
    assert!(changes == expected && is_in_time(took, 3.0), "{took} s: {changes}");
    let (changes, took) = answer(&format!("--diff {change} --by pods"), 3);
    assert!(changes.ends_with("0 opened, 100 closed\n") && is_in_time(took, 3.0), "{took} s");
    let (page, _) = answer("-o html", 0);
    assert!(page.len() < 5_000_000, "{} bytes", page.len());
    let (table, took) = answer("--from team-007 --to team-007/backend-1-1f-00002", 0);
    assert!(
        table.contains("\n   team-007/backend-0-0f-00009  .\n   team-007/backend-1-1f-00000  X\n"),
        "{table}"
    );
    assert!(
        table.ends_with("\n\n1  team-007/backend-1-1f-00002\n") && is_in_time(took, 5.0),
        "{took} s: {table}"
    );
}
