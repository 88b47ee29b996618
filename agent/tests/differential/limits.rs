//! What is beyond the limits of a namespace, or of the cluster's policies: the specification of the others
//! holds, and what is too much allows nothing.
//!
//! The naive evaluator knows no limits. It is asked about objects without the rules that are said to have no
//! room.

use podgate_testkit::{manifest::Form, naive};
use serde_json::{Value, json};

use crate::answers::{Layout, matrix_of, problems, read};

/// The pods of namespace `x` are 10.0.0.1 and so on.
const PODS: [&str; 4] = ["a", "b", "c", "d"];
const PORTS: [&str; 3] = ["TCP/80", "TCP/81", "UDP/80"];

/// A rule for a number.
type RuleOf = fn(u32) -> Value;

#[test]
fn rules_of_a_namespace_beyond_its_limits_allow_nothing_and_all_others_what_the_specification_says() {
    let block: RuleOf = |at| json!({"from": [{"ipBlock": {"cidr": foreign(at)}}]});
    let port: RuleOf = |at| json!({"ports": [{"port": 1_000 + 2 * at}]});
    let selector: RuleOf =
        |at| json!({"from": [{"podSelector": {"matchLabels": {"name": format!("none-{at}")}}}]});
    // Equal rules count as rules, and as one list.
    let equal: RuleOf = |_| json!({"from": [{"ipBlock": {"cidr": foreign(0)}}], "ports": [{"port": 7}]});
    let networks: RuleOf = |at| {
        let cidrs = (0..4_000).map(|inner| json!({"ipBlock": {"cidr": foreign(4_000 * at + inner)}}));
        json!({"from": cidrs.collect::<Vec<_>>()})
    };
    let ranges: RuleOf = |at| {
        let protocol = ["TCP", "UDP", "SCTP"][at as usize % 3];
        let ports = (0..4_000).map(|inner| json!({"port": 10_000 + 2 * inner, "protocol": protocol}));
        json!({"ports": ports.chain([json!({"port": 2 + at})]).collect::<Vec<_>>()})
    };
    for (name, rule, room) in [
        ("groups of addresses", block, 511),
        ("groups of ports", port, 511),
        ("selectors", selector, 1_024),
        ("rules", equal, 8_192),
        ("networks", networks, 4),
        ("ranges", ranges, 4),
    ] {
        let mut rules: Vec<Value> = (0..room + 2).map(rule).collect();
        let all = objects(policy(&rules));
        let picture = read(&all, Layout::File(Form::JsonList));
        let found = problems(&picture);
        let field =
            format!("NetworkPolicy x/large: spec.ingress[{room}]: this rule, and 1 more rules, do not fit");
        assert!(found.contains(&field), "{name}: {}", &found[..found.len().min(300)]);
        rules.truncate(room as usize);
        let fitting = objects(policy(&rules));
        assert_eq!(matrix_of(&picture.cluster, &PORTS), naive::matrix(&fitting, &PORTS), "{name}");
    }
}

#[test]
fn the_rule_that_would_have_let_a_pod_in_lets_it_in_up_to_the_limit_and_not_beyond() {
    for (place, fits) in [(510, true), (511, false)] {
        let mut rules: Vec<Value> =
            (0..520).map(|at| json!({"from": [{"ipBlock": {"cidr": foreign(at)}}]})).collect();
        rules[place] = json!({"from": [{"ipBlock": {"cidr": "10.0.0.2/32"}}], "ports": [{"port": 80}]});
        let all = objects(policy(&rules));
        let picture = read(&all, Layout::File(Form::JsonList));
        rules.truncate(511);
        let expected = naive::matrix(&objects(policy(&rules)), &PORTS);
        let seen = matrix_of(&picture.cluster, &PORTS);
        assert_eq!(seen, expected, "{place}");
        let without_limits = naive::matrix(&all, &PORTS);
        assert_eq!(seen == without_limits, fits, "{place}: the limit makes a difference");
    }
}

#[test]
fn rules_of_the_cluster_beyond_its_limits_accept_nothing_and_deny_everything() {
    let rule = |action: &str, cidr: String| json!({"action": action, "to": [{"networks": [cidr]}]});
    for action in ["Accept", "Deny", "Pass"] {
        let mut rules: Vec<Value> = (0..511).map(|at| rule("Accept", foreign(at))).collect();
        let all = objects(cluster_policy(&[&rules[..], &[rule(action, "10.0.0.2/32".into())]].concat()));
        let picture = read(&all, Layout::File(Form::JsonList));
        assert!(problems(&picture).contains("ClusterNetworkPolicy large: spec.egress[511]"), "{action}");
        if action != "Accept" {
            rules.push(json!({"action": "Deny", "to": [{"networks": ["0.0.0.0/0", "::/0"]}]}));
            rules.push(json!({"action": "Deny", "to": [{"namespaces": {}}]}));
        }
        let expected = naive::matrix(&objects(cluster_policy(&rules)), &PORTS);
        assert_eq!(matrix_of(&picture.cluster, &PORTS), expected, "{action}");
    }
}

/// A network that no pod is in.
fn foreign(at: u32) -> String {
    format!("172.{}.{}.{}/32", 16 + (at >> 15), (at >> 7) & 0xff, (2 * at) & 0xff)
}

fn policy(rules: &[Value]) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "x", "name": "large"},
        "spec": {"podSelector": {"matchLabels": {"name": "a"}}, "policyTypes": ["Ingress"], "ingress": rules},
    })
}

fn cluster_policy(rules: &[Value]) -> Value {
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "large"},
        "spec": {
            "tier": "Admin", "priority": 1, "egress": rules,
            "subject": {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"name": "a"}}}},
        },
    })
}

/// Pods, a small policy that isolates pod b, and this one.
fn objects(policy: Value) -> Vec<Value> {
    let mut small = self::policy(&[]);
    small["metadata"]["name"] = "small".into();
    small["spec"]["podSelector"] = json!({"matchLabels": {"name": "b"}});
    let mut objects =
        vec![policy, small, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}})];
    objects.extend(PODS.iter().zip(1..).map(|(name, last)| {
        let address = format!("10.0.0.{last}");
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "x", "name": name, "labels": {"name": name}},
            "spec": {"nodeName": "n1", "containers": [{"name": "c"}]},
            "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
        })
    }));
    objects
}

/// One of them that denies, or passes on, denies everything.
#[test]
fn rules_that_name_a_service_with_too_many_endpoints_fail_closed_and_no_others() {
    const ROOM: u32 = 16_384;
    let slices = |service: &str, count: u32, first: u32| -> Vec<Value> {
        let addresses: Vec<u32> = (first..first + count).collect();
        let slice = |(place, addresses): (usize, &[u32])| {
            let at = |at: &u32| std::net::Ipv4Addr::from(0x0b00_0000 + at).to_string();
            let endpoints = addresses.iter().map(|it| json!({"addresses": [at(it)]}));
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": format!("{service}-{place}"), "namespace": "x",
                             "labels": {"kubernetes.io/service-name": service}},
                "ports": [{"port": 80}], "endpoints": endpoints.collect::<Vec<_>>(),
            })
        };
        addresses.chunks(1_000).enumerate().map(slice).collect()
    };
    let pod_c = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "c", "namespace": "x", "labels": {"kubernetes.io/service-name": "c"}},
        "ports": [{"port": 80}], "endpoints": [{"addresses": ["10.0.0.3"]}],
    });
    let rule = |action: &str, service: &str| json!({"action": action, "destination": {"services": {"name": service}}});
    let policy = |name: &str, rules: Vec<Value>| {
        let selector = format!("name == '{name}'");
        json!({
            "apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": "x"},
            "spec": {"selector": selector, "types": ["Egress"], "egress": rules},
        })
    };
    for (count, fits) in [(ROOM - 1, true), (ROOM, false), (100_000, false)] {
        let mut all = objects(policy("a", vec![rule("Allow", "large"), rule("Allow", "c")]));
        all.push(policy("b", vec![rule("Pass", "large"), json!({"action": "Allow"})]));
        // So many rules that name it cost no more.
        all.push(policy("d", vec![rule("Allow", "large"); 1_000]));
        all.push(pod_c.clone());
        all.extend(slices("large", count, 0));
        let picture = read(&all, Layout::File(Form::JsonList));
        let found = problems(&picture);
        assert_eq!(found.is_empty(), fits, "{count}: {}", &found[..found.len().min(300)]);
        for (name, rules) in [("a", ""), ("b", ""), ("d", ", and 999 more rules,")] {
            let of = format!("Calico NetworkPolicy x/{name}: spec.egress[0]: this rule{rules} do");
            assert_eq!(found.contains(&of), !fits, "{count} {name}: {}", &found[..found.len().min(600)]);
        }
        let matrix = matrix_of(&picture.cluster, &["TCP/80", "TCP/81"]);
        let row =
            |port: &str, from: &str| matrix["ports"][port][from].as_str().unwrap_or_default().to_owned();
        let open = |port: &str, from: &str| -> Vec<usize> {
            row(port, from).match_indices('.').map(|(place, _)| place).collect()
        };
        // Pods in their order: itself always.
        assert_eq!((open("TCP/80", "x/a"), open("TCP/81", "x/a")), (vec![0, 2], vec![0]), "{count}");
        let of_b = if fits { vec![0, 1, 2, 3] } else { vec![1] };
        assert_eq!(open("TCP/80", "x/b"), of_b, "{count}");
    }
}
