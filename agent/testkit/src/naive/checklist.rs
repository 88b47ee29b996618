//! The evaluator's verdicts, derived by hand from the semantics checklist, whose numbers stand at each case.
//!
//! All cases share one small world; each adds policies, written `NAMESPACE: SPEC`, and says what is then open
//! and what is blocked.

mod matrix;
mod places;
mod pods;
mod selection;

use serde_json::{Value, json};

use crate::{manifest, question::Question};

struct Case {
    items: &'static [u16],
    why: &'static str,
    policies: &'static [&'static str],
    open: &'static [&'static str],
    blocked: &'static [&'static str],
}

/// x/a, x/b, x/c and y/a, y/b with labels `app`; z/a in a namespace that no object declares; nodes n1 (x) and
/// n2 (y, z).
fn world() -> Vec<Value> {
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x", "labels": {"team": "red"}}}),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "y", "labels": {"team": "blue"}}}),
        node("n1", "10.10.0.1"),
        node("n2", "10.10.0.2"),
        pod("x", "a", "n1", json!({"app": "a", "tier": "web"}), &["10.0.0.1", "fd00::1"], http(8080)),
        pod("x", "b", "n1", json!({"app": "b", "tier": ""}), &["10.0.0.2", "fd00::2"], http(9090)),
        pod("x", "c", "n1", json!({}), &["10.0.0.3", "fd00::3"], json!([])),
        pod("y", "a", "n2", json!({"app": "a"}), &["10.0.1.1", "fd00:1::1"], http(8081)),
        pod("y", "b", "n2", json!({"app": "b"}), &["10.0.1.2", "fd00:1::2"], json!([])),
        pod("z", "a", "n2", json!({"app": "a"}), &["10.0.2.1"], json!([])),
    ]
}

fn pod(namespace: &str, name: &str, node: &str, labels: Value, addresses: &[&str], ports: Value) -> Value {
    let ips: Vec<Value> = addresses.iter().map(|address| json!({"ip": address})).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": labels},
        "spec": {"nodeName": node, "containers": [{"name": "main", "ports": ports}]},
        "status": {"phase": "Running", "podIP": addresses[0], "podIPs": ips},
    })
}

fn http(number: u16) -> Value {
    json!([
        {"name": "http", "containerPort": number},
        {"name": "dns", "containerPort": 53, "protocol": "UDP"},
        {"containerPort": 7000},
    ])
}

fn node(name: &str, address: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "status": {"addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": address}]},
    })
}

#[test]
fn every_case_has_the_verdicts_of_the_checklist() {
    for Case { items, why, policies, open, blocked } in selection::CASES.iter().chain(places::CASES) {
        let mut objects = world();
        objects.extend(policies.iter().enumerate().map(|(index, text)| policy(index, text)));
        let expected = open.iter().map(|text| (text, true)).chain(blocked.iter().map(|text| (text, false)));
        for (text, expected) in expected {
            let question: Question = text.parse().unwrap();
            assert_eq!(question.is_allowed(&objects), expected, "{items:?} {why}: {question}");
        }
    }
}

fn policy(index: usize, text: &str) -> Value {
    let (namespace, spec) = text.split_once(": ").expect("a policy is written NAMESPACE: SPEC");
    let spec = manifest::read(spec).unwrap_or_else(|error| panic!("{spec}: {error}")).remove(0);
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": format!("p{index}")}, "spec": spec,
    })
}
