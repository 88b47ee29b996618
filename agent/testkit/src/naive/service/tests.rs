//! Where services lead and what is allowed there, derived by hand from the semantics checklist.

use serde_json::json;

use super::*;
use crate::manifest;

/// x/client and x/q on n1, x/r on n2, w on the host network of n1; services of x: web, with ports 80 -> 8080
/// and a node port, for q and r; host, for w; ext, outside. Policies are added, each `SPEC` of namespace x.
fn world(policies: &[&str]) -> Vec<Value> {
    let pod = |name: &str, node: &str, address: &str, host: bool| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "x", "name": name, "labels": {"app": name}},
            "spec": {"nodeName": node, "hostNetwork": host},
            "status": {"phase": "Running", "podIPs": [{"ip": address}]},
        })
    };
    let node = |name: &str, address: &str| {
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "status": {"addresses": [{"type": "InternalIP", "address": address}]},
        })
    };
    let service = |name: &str, spec: Value| {
        let metadata = json!({"namespace": "x", "name": name});
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    };
    let slice = |service: &str, port: u16, endpoints: Value| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"namespace": "x", "name": service, "labels": {"kubernetes.io/service-name": service}},
            "ports": [{"port": port}], "endpoints": endpoints,
        })
    };
    let policies = policies.iter().enumerate().map(|(index, spec)| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "x", "name": format!("np{index}")},
            "spec": manifest::read(spec).expect("a spec")[0],
        })
    });
    let web = json!({
        "clusterIP": "10.96.0.1", "externalIPs": ["198.51.100.1"],
        "ports": [{"port": 80, "targetPort": 8080, "nodePort": 30080}],
    });
    let local = json!({
        "clusterIP": "10.96.0.2", "externalIPs": ["198.51.100.2"], "internalTrafficPolicy": "Local",
        "ports": [{"port": 80}],
    });
    let both =
        json!([{"addresses": ["10.0.0.2"], "nodeName": "n1"}, {"addresses": ["10.0.1.1"], "nodeName": "n2"}]);
    let objects = [
        node("n1", "10.10.0.1"),
        node("n2", "10.10.0.2"),
        pod("client", "n1", "10.0.0.1", false),
        pod("q", "n1", "10.0.0.2", false),
        pod("r", "n2", "10.0.1.1", false),
        pod("w", "n1", "10.10.0.1", true),
        service("web", web),
        slice("web", 8080, both.clone()),
        service("local", local),
        slice("local", 8080, both),
        service("host", json!({"clusterIP": "10.96.0.3", "ports": [{"port": 443}]})),
        slice("host", 6443, json!([{"addresses": ["10.10.0.1"]}, {"addresses": ["10.10.0.2"]}])),
        service("ext", json!({"clusterIP": "10.96.0.4", "ports": [{"port": 80}]})),
        slice("ext", 80, json!([{"addresses": ["203.0.113.9"]}])),
        service("own", json!({"clusterIP": "10.96.0.5", "ports": [{"port": 80}]})),
        slice("own", 80, json!([{"addresses": ["10.0.0.1"]}])),
        service("empty", json!({"clusterIP": "10.96.0.6", "ports": [{"port": 80}]})),
    ];
    objects.into_iter().chain(policies).collect()
}

/// What x/client finds at `address port`: `ADDRESS PORT`, with `!egress` and `!ingress` where it is denied.
fn found(objects: &[Value], to: &str) -> Option<Vec<String>> {
    let (address, port) = to.split_once(' ').expect("ADDRESS PORT");
    let destination = Destination {
        address: address.parse().unwrap(),
        protocol: "TCP".into(),
        port: port.parse().unwrap(),
    };
    let client = ResolvedEndpoint::Pod { namespace: "x".into(), name: "client".into() };
    let words = |Backend { address, port, egress, ingress }: Backend| {
        let denied = |allowed, side| if allowed { "" } else { side };
        format!("{address} {port}{}{}", denied(egress, " !egress"), denied(ingress, " !ingress"))
    };
    Some(backends(objects, &client, &destination)?.into_iter().map(words).collect())
}

struct Case {
    /// With the numbers of the checklist.
    why: &'static str,
    policies: &'static [&'static str],
    to: &'static str,
    found: Option<&'static [&'static str]>,
}

const TO_Q: &str = "{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: q}}}], ports: [{port: 8080}]}]}";
const NOTHING: &str = "{podSelector: {matchLabels: {app: client}}, policyTypes: [Ingress, Egress]}";
const BOTH: &[&str] = &["10.0.0.2 8080", "10.0.1.1 8080"];
const Q_ALONE: &[&str] = &["10.0.0.2 8080", "10.0.1.1 8080 !egress"];
const NEITHER: &[&str] = &["10.0.0.2 8080 !egress", "10.0.1.1 8080 !egress"];

const CASES: &[Case] = &[
    Case { why: "95: without a policy all is open", policies: &[], to: "10.96.0.1 80", found: Some(BOTH) },
    Case {
        why: "89, 94, 96: the pod behind it and its port count",
        policies: &[TO_Q],
        to: "10.96.0.1 80",
        found: Some(Q_ALONE),
    },
    Case {
        why: "102: external addresses lead there too",
        policies: &[TO_Q],
        to: "198.51.100.1 80",
        found: Some(Q_ALONE),
    },
    Case {
        why: "109: so do node ports of the own node",
        policies: &[TO_Q],
        to: "10.10.0.1 30080",
        found: Some(Q_ALONE),
    },
    Case {
        why: "110: those of another node are ports of its address",
        policies: &[TO_Q],
        to: "10.10.0.2 30080",
        found: None,
    },
    Case {
        why: "89: the service's own port matches nothing",
        policies: &[
            "{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress], egress: [{ports: [{port: 80}]}]}",
        ],
        to: "10.96.0.1 80",
        found: Some(NEITHER),
    },
    Case {
        why: "62: nor does its address",
        policies: &[
            "{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.96.0.0/12}}]}]}",
        ],
        to: "10.96.0.1 80",
        found: Some(NEITHER),
    },
    Case {
        why: "61: the pod's address does",
        policies: &[
            "{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.1.1/32}}]}]}",
        ],
        to: "10.96.0.1 80",
        found: Some(&["10.0.0.2 8080 !egress", "10.0.1.1 8080"]),
    },
    Case {
        why: "97: the endpoint sees the client",
        policies: &[
            "{podSelector: {matchLabels: {app: q}}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]}",
            "{podSelector: {matchLabels: {app: r}}}",
        ],
        to: "10.96.0.1 80",
        found: Some(&["10.0.0.2 8080", "10.0.1.1 8080 !ingress"]),
    },
    Case {
        why: "107, 108: the own node is open, another node is an address like others",
        policies: &[NOTHING],
        to: "10.96.0.3 443",
        found: Some(&["10.10.0.1 6443", "10.10.0.2 6443 !egress"]),
    },
    Case {
        why: "103: it reaches itself",
        policies: &[NOTHING],
        to: "10.96.0.5 80",
        found: Some(&["10.0.0.1 80"]),
    },
    Case {
        why: "endpoints may be outside",
        policies: &[NOTHING],
        to: "10.96.0.4 80",
        found: Some(&["203.0.113.9 80 !egress"]),
    },
    Case {
        why: "... and be allowed there",
        policies: &[
            "{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 203.0.113.0/24}}]}]}",
        ],
        to: "10.96.0.4 80",
        found: Some(&["203.0.113.9 80"]),
    },
    Case { why: "without endpoints it leads nowhere", policies: &[], to: "10.96.0.6 80", found: Some(&[]) },
    Case {
        why: "Local keeps clients on the node",
        policies: &[],
        to: "10.96.0.2 80",
        found: Some(&["10.0.0.2 8080"]),
    },
    Case { why: "... at the cluster address", policies: &[], to: "198.51.100.2 80", found: Some(BOTH) },
    Case { why: "another port is no service", policies: &[], to: "10.96.0.1 81", found: None },
    Case { why: "nor is the endpoint's", policies: &[], to: "10.96.0.1 8080", found: None },
    Case { why: "nor is a node port there", policies: &[], to: "10.96.0.1 30080", found: None },
    Case { why: "nor is a pod's address", policies: &[], to: "10.0.0.2 8080", found: None },
];

#[test]
fn a_connection_to_a_service_is_evaluated_where_it_ends() {
    for Case { why, policies, to, found: expected } in CASES {
        let seen = found(&world(policies), to);
        let seen: Option<Vec<&str>> = seen.as_ref().map(|list| list.iter().map(String::as_str).collect());
        assert_eq!(seen.as_deref(), *expected, "{why}: {to}");
    }
}

#[test]
fn ready_endpoints_come_first_and_leaving_ones_step_in() {
    let ready = json!({"ready": true, "serving": true, "terminating": false});
    let unready = json!({"ready": false, "serving": false, "terminating": false});
    let leaving = json!({"ready": false, "serving": true, "terminating": true});
    let gone = json!({"ready": false, "serving": false, "terminating": true});
    let table: [(&Value, &Value, &[&str]); 7] = [
        (&ready, &ready, &["10.0.0.2 8080", "10.0.1.1 8080"]),
        (&ready, &unready, &["10.0.0.2 8080"]),
        (&ready, &leaving, &["10.0.0.2 8080"]),
        (&unready, &leaving, &["10.0.1.1 8080"]),
        (&leaving, &leaving, &["10.0.0.2 8080", "10.0.1.1 8080"]),
        (&gone, &unready, &[]),
        (&Value::Null, &gone, &["10.0.0.2 8080"]),
    ];
    for (first, second, expected) in table {
        let mut objects = world(&[]);
        let is_web =
            |object: &&mut Value| object["kind"] == "EndpointSlice" && object["metadata"]["name"] == "web";
        let slice = objects.iter_mut().find(is_web).expect("the slice of web");
        slice["endpoints"][0]["conditions"] = first.clone();
        slice["endpoints"][1]["conditions"] = second.clone();
        assert_eq!(
            found(&objects, "10.96.0.1 80").as_deref(),
            Some(&expected.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>()[..]),
            "{first} {second}"
        );
    }
}

#[test]
fn a_node_has_a_service_for_each_address_port_and_own_node_port() {
    let words = |node| {
        let all = destinations(&world(&[]), node).into_iter();
        all.map(|Destination { address, protocol, port }| format!("{address} {protocol} {port}"))
            .collect::<Vec<_>>()
    };
    let expected = [
        "10.10.0.1 TCP 30080",
        "10.96.0.1 TCP 80",
        "10.96.0.2 TCP 80",
        "10.96.0.3 TCP 443",
        "10.96.0.4 TCP 80",
        "10.96.0.5 TCP 80",
        "10.96.0.6 TCP 80",
        "198.51.100.1 TCP 80",
        "198.51.100.2 TCP 80",
    ];
    assert_eq!(words("n1"), expected);
    assert_eq!(words("n2")[0], "10.10.0.2 TCP 30080");
    assert_eq!(words("n3").len(), expected.len() - 1);
}
