//! Services before the pods of the small cluster.

use std::sync::Arc;

use podgate_common::Protocol;
use serde_json::json;

use super::*;
use crate::{
    explain,
    fixtures::{cluster, has, policy, rule},
    model::{
        EndpointSlice, NetworkPolicy, ObjectName, Peer, Peers, PortRule, Ports, Proxy, Selector, Service,
        ServicePort, SliceEndpoint, SlicePort,
    },
};

/// x/web, ports http 80 -> 8080 with node port 30080 and dns UDP 53, before x/b of n1 and y/c of n2, in both
/// families; x/local, the same by IPv4 and with internalTrafficPolicy Local; x/empty, before nothing.
fn cluster_with_services(policies: Vec<NetworkPolicy>) -> Cluster {
    let mut cluster = cluster(policies);
    let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
    let service = |name: &str, own: &[&str], external: &[&str], internal_local| Service {
        name: ObjectName::new("x", name),
        cluster_addresses: addresses(own),
        external_addresses: addresses(external),
        internal_local,
        external_local: false,
        is_over_limit: false,
        proxy: Proxy::KubeProxy,
        ports: vec![
            ServicePort { name: "http".into(), protocol: Protocol::Tcp, number: 80, node_port: Some(30080) },
            ServicePort { name: "dns".into(), protocol: Protocol::Udp, number: 53, node_port: None },
        ],
    };
    let slice = |service: &str, name: &str, endpoints: [(&str, &str); 2]| EndpointSlice {
        name: ObjectName::new("x", name),
        service: ObjectName::new("x", service),
        proxy: Proxy::KubeProxy,
        ports: vec![SlicePort { name: "http".into(), protocol: Protocol::Tcp, number: Some(8080) }],
        endpoints: endpoints
            .map(|(address, node)| SliceEndpoint {
                address: address.parse().unwrap(),
                node: Some(node.into()),
                ready: true,
                serving: true,
                terminating: false,
                hints: None,
            })
            .into(),
    };
    let v4 = [("10.0.0.2", "n1"), ("10.0.0.3", "n2")];
    let mut local = service("local", &["10.96.0.2"], &["198.51.100.2"], true);
    local.ports[0].node_port = None;
    let mut empty = service("empty", &["10.96.0.3"], &[], false);
    empty.ports[0].node_port = None;
    for service in [service("web", &["10.96.0.1", "fd96::1"], &["198.51.100.1"], false), local, empty] {
        cluster.services.insert(service.name.clone(), service.into());
    }
    for slice in [
        slice("web", "web-4", v4),
        slice("web", "web-6", [("fd00::2", "n1"), ("fd00::3", "n2")]),
        slice("local", "local-4", v4),
    ] {
        cluster.slices.insert(slice.name.clone(), slice.into());
    }
    cluster
}

fn ask(cluster: &Cluster, from: &str, to: &str, port: &str) -> Result<Explanation, Unanswerable> {
    let question =
        Question { from: from.parse().unwrap(), to: to.parse().unwrap(), port: port.parse().unwrap() };
    explain::explain(cluster, &question)
}

/// `ADDRESS PORT VERDICT` of each backend.
fn backends_of(answer: &Explanation) -> Option<Vec<String>> {
    let backends = answer.backends.as_ref()?.iter();
    Some(backends.map(|backend| format!("{} {} {}", backend.to, backend.port, backend.verdict)).collect())
}

/// Egress of x/a to pods with this role on this port.
fn only_to(role: &str, first: u16) -> Vec<NetworkPolicy> {
    let peers =
        Peers::Listed(vec![Peer::Pods { namespaces: Some(Selector::EVERYTHING), pods: has("role", role) }]);
    let ports = Ports::Listed(vec![PortRule::Range { protocol: Protocol::Tcp, first, last: first }]);
    let mut policy = policy("p", None, Some(vec![rule(peers, ports)]));
    policy.subject = has("role", "frontend");
    vec![policy]
}

#[test]
fn a_service_leads_to_the_backends_that_its_client_may_be_given() {
    let both: &[&str] = &["10.0.0.2 TCP/8080 allow", "10.0.0.3 TCP/8080 allow"];
    let six: &[&str] = &["fd00::2 TCP/8080 allow", "fd00::3 TCP/8080 allow"];
    let all: &[&str] = &[both[0], both[1], six[0], six[1]];
    let table: [(&str, &str, &str, Option<&[&str]>); 20] = [
        ("x/a", "x/svc:web", "TCP/80", Some(all)),
        ("x/a", "x/svc:web", "TCP/http", Some(all)),
        ("y/v4", "x/svc:web", "TCP/80", Some(both)),
        ("y/v6", "x/svc:web", "TCP/80", Some(six)),
        ("y/v6", "x/svc:local", "TCP/80", Some(&[])),
        ("x/a", "x/svc:local", "TCP/80", Some(&both[..1])),
        ("y/v4", "x/svc:local", "TCP/80", Some(&both[1..])),
        // Outside no one knows which node it comes to.
        ("203.0.113.9", "x/svc:local", "TCP/80", Some(both)),
        ("x/a", "x/svc:empty", "TCP/80", Some(&[])),
        ("x/a", "x/svc:web", "UDP/53", Some(&[])),
        ("x/a", "10.96.0.1", "TCP/80", Some(both)),
        ("x/a", "fd96::1", "TCP/80", Some(six)),
        ("x/a", "10.96.0.2", "TCP/80", Some(&both[..1])),
        // x/a's node masquerades it on the way to another one: y/c has two entries, one for each side.
        ("x/a", "198.51.100.2", "TCP/80", Some(&[both[0], both[1], both[1]])),
        ("x/a", "192.168.0.1", "TCP/30080", Some(&[both[0], both[1], both[1]])),
        ("x/a", "node/n1", "TCP/30080", Some(&[both[0], both[1], both[1], six[0], six[1], six[1]])),
        ("x/a", "10.96.0.1", "TCP/81", None),
        ("x/a", "10.96.0.1", "UDP/80", None),
        ("x/a", "x/b", "TCP/8080", None),
        ("node/n1", "10.96.0.2", "TCP/80", Some(&both[..1])),
    ];
    let cluster = cluster_with_services(vec![]);
    for (from, to, port, expected) in table {
        let answer = ask(&cluster, from, to, port).unwrap();
        let seen = backends_of(&answer);
        let seen: Option<Vec<&str>> = seen.as_ref().map(|list| list.iter().map(String::as_str).collect());
        assert_eq!(seen.as_deref(), expected, "{from} {to} {port}");
        let allowed = expected.is_none_or(|backends| !backends.is_empty());
        assert_eq!(answer.verdict, Verdict::from_allowed(allowed), "{from} {to} {port}");
        let reason = if allowed { VerdictReason::NotIsolated } else { VerdictReason::NoBackend };
        assert!(
            answer.egress.reason == reason || answer.egress.reason == VerdictReason::NotAPod,
            "{from} {to} {port}"
        );
    }
}

#[test]
fn a_node_port_of_another_node_is_evaluated_there_and_leads_on_under_its_address() {
    let answer =
        |policies, from| ask(&cluster_with_services(policies), from, "node/n2", "TCP/30080").unwrap();
    let open = answer(vec![], "x/a");
    assert_eq!(open.verdict, Verdict::Allow);
    let backends = open.backends.unwrap();
    let ends: Vec<String> = backends.iter().map(|it| format!("{} {} {}", it.from, it.to, it.port)).collect();
    // x/b is on n1, y/c on n2 itself.
    let expected = ["x/a node/n2 TCP/30080", "192.168.0.2 10.0.0.2 TCP/8080", "x/a 10.0.0.3 TCP/8080"];
    assert_eq!(ends.iter().filter(|end| !end.contains("fd00")).collect::<Vec<_>>(), expected);
    assert!(backends[1..].iter().all(|it| it.egress.reason == VerdictReason::TranslatedElsewhere));
    // Egress to the backends alone does not reach the node.
    let closed = answer(only_to("backend", 8080), "x/a");
    assert_eq!((closed.verdict, closed.egress.reason), (Verdict::Deny, VerdictReason::NoRuleMatches));
}

#[test]
fn all_backends_must_be_allowed_at_their_own_port() {
    for (role, port, verdict, backends) in [
        ("backend", 8080, Verdict::Deny, ["10.0.0.2 TCP/8080 allow", "10.0.0.3 TCP/8080 deny"]),
        ("backend", 80, Verdict::Deny, ["10.0.0.2 TCP/8080 deny", "10.0.0.3 TCP/8080 deny"]),
    ] {
        let cluster = cluster_with_services(only_to(role, port));
        let answer = ask(&cluster, "x/a", "10.96.0.1", "TCP/80").unwrap();
        assert_eq!(answer.verdict, verdict, "{role} {port}");
        assert_eq!(backends_of(&answer).unwrap(), backends, "{role} {port}");
        assert_eq!((answer.egress.isolated, answer.egress.reason), (true, VerdictReason::NoRuleMatches));
        let answer = ask(&cluster, "x/a", "x/svc:local", "TCP/80").unwrap();
        assert_eq!(answer.verdict, Verdict::from_allowed(port == 8080), "only x/b is behind it");
    }
}

#[test]
fn both_sides_are_those_of_all_backends_together() {
    let mut of_y = policy("in-y", Some(vec![]), None);
    of_y.name.namespace = "y".into();
    let mut policies = only_to("backend", 8080);
    policies.extend([of_y, policy("in-x", Some(vec![rule(Peers::Any, Ports::Any)]), None)]);
    let answer = ask(&cluster_with_services(policies), "x/a", "10.96.0.1", "TCP/80").unwrap();
    let json = serde_json::to_value(&answer).unwrap();
    let entry = |entry: &str, why: &str| json!([{"entry": entry, "matched": true, "why": [why]}]);
    let trace = |why_not: &[&str], peers: serde_json::Value, ports: serde_json::Value| json!([{"rule": 0, "matched": true, "why_not": why_not, "peers": peers, "ports": ports}]);
    let to_backend = trace(
        &["to[0] wants role=backend on the pod, y/c has role=frontend"],
        entry("to[0]", "wants role=backend on the pod, x/b has role=backend"),
        entry("ports[0]", "wants TCP/8080, as asked"),
    );
    let anything = trace(
        &[],
        entry("from", "names none, so every peer matches"),
        entry("ports", "names none, so every port matches"),
    );
    assert_eq!(
        json["egress"],
        json!({
            "isolated": true, "verdict": "deny", "reason": "no-rule-matches", "note": null,
            "denied_peers": ["10.0.0.3"],
            "policies": [{
                "namespace": "x", "name": "p", "selects": "pods of x with role=frontend", "matched": [0],
                "rules": to_backend,
            }],
            "cluster_policies": [],
        })
    );
    assert_eq!(
        json["ingress"],
        json!({
            "isolated": true, "verdict": "deny", "reason": "no-rule-matches", "note": null,
            "denied_peers": ["10.0.0.1"],
            "policies": [
                {
                    "namespace": "x", "name": "in-x", "selects": "every pod of x", "matched": [0],
                    "rules": anything,
                },
                {"namespace": "y", "name": "in-y", "selects": "every pod of y", "matched": [], "rules": []},
            ],
            "cluster_policies": [],
        })
    );
    assert_eq!((&json["numbers"], &json["to"]), (&json!([80]), &json!("10.96.0.1")));
    assert_eq!(
        json["pairs"],
        json!([{"from": "10.0.0.1", "to": "10.0.0.2"}, {"from": "10.0.0.1", "to": "10.0.0.3"}])
    );
    assert_eq!(json["backends"].as_array().map(Vec::len), Some(2));
    assert!(json["backends"][0].get("backends").is_none());
    assert_eq!(
        (&json["backends"][0]["to"], &json["backends"][0]["to_pod"]),
        (&json!("10.0.0.2"), &json!("x/b"))
    );
    assert_eq!(serde_json::from_value::<Explanation>(json).unwrap(), answer);
}

#[test]
fn what_is_no_service_or_no_port_of_it_is_said() {
    let cluster = cluster_with_services(vec![]);
    for (to, port, message) in [
        ("x/svc:web", "TCP/8080", "x/svc:web has no port TCP/8080"),
        ("x/svc:web", "TCP/dns", "x/svc:web has no port TCP/dns"),
        (
            "y/svc:web",
            "TCP/80",
            "no service y/web: it does not exist, or it is only a name for something elsewhere",
        ),
    ] {
        assert_eq!(ask(&cluster, "x/a", to, port).unwrap_err().to_string(), message);
    }
}

#[test]
fn what_the_objects_do_not_decide_is_said() {
    let isolated = || vec![policy("in-x", Some(vec![rule(Peers::Any, Ports::Any)]), None)];
    let reasons = |policies: Vec<NetworkPolicy>, external_local: bool, from: &str, to: &str, port: &str| {
        let mut cluster = cluster_with_services(policies);
        let web = cluster.services.get_mut(&ObjectName::new("x", "web")).unwrap();
        Arc::make_mut(web).external_local = external_local;
        ask(&cluster, from, to, port).unwrap().uncertain_because
    };
    // Which node a client outside comes to, and under whose address it goes on, matters to a pod that is
    // isolated.
    let outside = |policies, local| reasons(policies, local, "203.0.113.9", "198.51.100.1", "TCP/80");
    assert_eq!(outside(vec![], false), []);
    assert_eq!(outside(isolated(), true), []);
    assert_eq!(outside(isolated(), false), [Wording::Meaning(Uncertainty::NodeOfClient)]);
    // Whether a node takes pods of other nodes for clients outside.
    let other_node = |local, from| reasons(vec![], local, from, "node/n2", "TCP/30080");
    assert_eq!(other_node(false, "x/a"), []);
    assert_eq!(other_node(true, "203.0.113.9"), []);
    let (node, service) = ("n2".into(), ObjectName::new("x", "web"));
    let expected = Wording::Meaning(Uncertainty::EndpointsForPods { node, service });
    assert_eq!(other_node(true, "x/a"), [expected]);
}
