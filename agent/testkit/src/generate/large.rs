//! A cluster for timing: 500 policies, 300 distinct ports, 500 CIDRs, as many pods as asked for.
//!
//! Plain arithmetic, no chance: the same objects each time.

use serde_json::{Value, json};

const POLICIES: usize = 500;
const DISTINCT_PORTS: usize = 300;
const CIDRS: usize = 500;
const NAMESPACES: usize = 20;
const APPS: usize = 25;

/// As much as the API lets ClusterNetworkPolicies say, with so many of them: 25 rules a direction, each with
/// 25 peers of 25 networks and 25 protocols.
pub fn large_cluster_policies(policies: usize) -> Vec<Value> {
    (0..policies).map(cluster_policy).collect()
}

/// How many of anything a list of these policies may hold.
const MOST: usize = 25;

fn cluster_policy(number: usize) -> Value {
    let rules = |list: &str| -> Value { (0..MOST).map(|index| cluster_rule(number, index, list)).collect() };
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": format!("wide-{number}")},
        "spec": {
            "tier": if number % 4 == 3 { "Baseline" } else { "Admin" }, "priority": number % 1001,
            "subject": {"namespaces": {}}, "ingress": rules("from"), "egress": rules("to"),
        },
    })
}

fn cluster_rule(number: usize, index: usize, list: &str) -> Value {
    let peers = (0..MOST).map(|peer| match (list, peer % 3) {
        ("to", 0) => {
            let cidr = |at: usize| format!("10.{}.{peer}.0/{}", index % 2, 16 + (at + number) % 16);
            json!({"networks": (0..MOST).map(cidr).collect::<Vec<_>>()})
        }
        (_, 1) => json!({"namespaces": {"matchLabels": {"team": format!("team-{}", (index + peer) % 9)}}}),
        _ => json!({"pods": {
            "namespaceSelector": {"matchLabels": {"team": format!("team-{}", index % 5)}},
            "podSelector": {"matchLabels": {"app": format!("app-{}", (index + peer) % (2 * APPS))}},
        }}),
    });
    let protocols = (0..MOST).map(|at| match at % 3 {
        0 => json!({"tcp": {"destinationPort": {"number": 1000 + index * MOST + at}}}),
        1 => {
            let start = 1000 + index * 10 + at;
            json!({"udp": {"destinationPort": {"range": {"start": start, "end": start + 40}}}})
        }
        _ => json!({"destinationNamedPort": if at % 2 == 0 { "http" } else { "dns" }}),
    });
    let action = ["Pass", "Accept", "Deny"][(index + number) % 3];
    json!({"action": action, list: peers.collect::<Vec<_>>(), "protocols": protocols.collect::<Vec<_>>()})
}

/// Every policy has ingress and egress, selectors, one CIDR of its own with an except, a port, a range and a
/// name.
pub fn large(pods: usize) -> Vec<Value> {
    large_of(pods, POLICIES)
}

/// The same with so many policies.
pub fn large_of(pods: usize, policies: usize) -> Vec<Value> {
    let namespaces = (0..NAMESPACES).map(|index| {
        let labels = json!({"team": format!("team-{}", index % 5)});
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": format!("ns-{index}"), "labels": labels}})
    });
    namespaces.chain((0..pods).map(pod)).chain((0..policies).map(policy)).collect()
}

fn pod(index: usize) -> Value {
    let v4 = format!("10.{}.{}.{}", index >> 16, index >> 8 & 0xff, index & 0xff);
    let v6 = format!("fd00::{index:x}");
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": format!("ns-{}", index % NAMESPACES), "name": format!("pod-{index}"),
            "labels": {"app": format!("app-{}", index % APPS), "tier": format!("tier-{}", index % 3)},
        },
        "spec": {
            "nodeName": format!("node-{}", index % 10),
            "containers": [{"name": "main", "ports": [{"name": "http", "containerPort": 8000 + index % 7}]}],
        },
        "status": {"phase": "Running", "podIP": v4, "podIPs": [{"ip": v4}, {"ip": v6}]},
    })
}

fn policy(index: usize) -> Value {
    let port = 1000 + index % DISTINCT_PORTS;
    let block = index % CIDRS;
    let length = 20 + block % 9;
    let cidr = format!("10.{}.{}.0/{length}", block / 250, block % 250);
    let except = format!("10.{}.{}.{}/32", block / 250, block % 250, index % 8);
    let peers = json!([
        {"ipBlock": {"cidr": cidr, "except": [except]}},
        {"namespaceSelector": {"matchLabels": {"team": format!("team-{}", index % 5)}}},
        {"podSelector": {"matchExpressions": [
            {"key": "app", "operator": "In", "values": [format!("app-{}", index % APPS), format!("app-{}", (index + 7) % APPS)]},
        ]}},
    ]);
    let ports = json!([
        {"port": port},
        {"port": port, "endPort": port + index % 5, "protocol": "UDP"},
        {"port": "http"},
    ]);
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": format!("ns-{}", index % NAMESPACES), "name": format!("policy-{index}")},
        "spec": {
            "podSelector": {"matchLabels": {"app": format!("app-{}", index / NAMESPACES % APPS)}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": peers, "ports": ports}],
            "egress": [{"to": peers, "ports": ports}],
        },
    })
}
