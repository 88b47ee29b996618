//! The JSON forms of the interface, letter by letter.

use serde_json::json;

use super::*;

#[test]
fn responses_have_a_fixed_form() {
    for (answer, form) in [
        (Reply::Ok(1), json!({"version": 3, "podgate": "0.9", "ok": 1})),
        (Reply::Error("why".into()), json!({"version": 3, "podgate": "0.9", "error": "why"})),
    ] {
        let response = Response { version: PROTOCOL, podgate: "0.9".into(), answer };
        assert_eq!(serde_json::to_value(&response).unwrap(), form);
        assert_eq!(serde_json::from_value::<Response<u32>>(form).unwrap(), response);
    }
}

#[test]
fn status_and_endpoints_have_a_fixed_form() {
    let status = json!({
        "ready": true, "node": "n1", "version": "0.1.0", "uptime_seconds": 60,
        "sources": [{
            "name": "manifests", "kind": "manifests", "age_seconds": 5,
            "objects": {
                "namespaces": 1, "nodes": 2, "pods": 3, "policies": 4, "cluster_policies": 1, "services": 5, "endpoint_slices": 6,
            },
            "problems": ["a.yaml: NetworkPolicy x/p: spec.ingress[0]: bad"],
            "watches": [
                {"kind": "Pod", "listed": true, "age_seconds": 9, "restarts": 2, "error": "refused"},
            ],
        }],
        "endpoints": {"identified": 2, "pending": 1, "unmanaged": 0},
        "host_endpoints": {"enforced": 1, "unconfirmed": 0, "undone": 1, "unenforced": 0},
        "policies": 3, "revision": 7,
        "latency": {"buckets": [{"milliseconds": 50, "count": 2}], "count": 3, "sum_microseconds": 70500},
        "tables": [{"name": "flows", "entries": 10, "capacity": 262144}],
        "counters": [
            {"direction": "egress", "outcome": "denied", "packets": 12},
            {"direction": "ingress", "outcome": "own-node", "packets": 0},
        ],
        "evictions": [{"state": "half-open", "newcomer": "same-pod", "connections": 4}],
        "lost": {
            "events": 0, "events_of_share": 7, "uncounted": 0, "unattributed": 0, "fragments": 0,
        },
        "shortcut_packets": 0,
        "last_error": null,
    });
    assert_eq!(serde_json::to_value(Status::example()).unwrap(), status);
    assert_eq!(serde_json::from_value::<Status>(status).unwrap(), Status::example());
    let endpoint = json!({
        "pod": "x/a", "interface": "veth1", "ifindex": 3, "addresses": ["10.0.0.1", "fd00::1"],
        "state": "identified",
        "ingress": {
            "isolated": true, "policies": ["x/p", "x/q"], "cluster_policies": ["ClusterNetworkPolicy base"],
        },
        "egress": {"isolated": false, "policies": [], "cluster_policies": []}, "revision": 7,
    });
    assert_eq!(serde_json::to_value(EndpointStatus::example()).unwrap(), endpoint);
    assert_eq!(serde_json::from_value::<EndpointStatus>(endpoint).unwrap(), EndpointStatus::example());
}
