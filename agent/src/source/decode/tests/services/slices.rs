//! EndpointSlices.

use super::*;

#[test]
fn a_slice_is_read_when_it_names_its_service_and_holds_addresses() {
    let labels =
        |labels: Value| json!({"metadata": {"name": "web-1", "namespace": "shop", "labels": labels}});
    let table = [
        (json!({}), true, None),
        (json!({"addressType": "IPv6"}), true, None),
        (json!({"addressType": "FQDN", "endpoints": [{"addresses": ["a.example"]}]}), false, None),
        (json!({"addressType": "IP"}), false, Some("addressType: \"IP\" is not IPv4, IPv6 or FQDN")),
        (json!({"addressType": null}), false, Some("addressType: is missing")),
        (json!({"addressType": 4}), false, Some("addressType: is a number, not text")),
        (labels(json!({})), false, None),
        (labels(json!({"kubernetes.io/service-name": ""})), false, None),
        (
            labels(json!({"kubernetes.io/service-name": "web", "service.kubernetes.io/headless": ""})),
            true,
            None,
        ),
        (
            labels(json!({"kubernetes.io/service-name": 1})),
            false,
            Some("metadata.labels[kubernetes.io/service-name]: is a number, not text"),
        ),
        (json!({"endpoints": "x"}), true, Some("endpoints: is text, not a list")),
        (json!({"endpoints": null, "ports": null}), true, None),
        (json!({"ports": {}}), true, Some("ports: is an object, not a list")),
    ];
    for (fields, is_read, fault) in table {
        let (slice, found) = slice(&fields);
        assert_eq!(slice.is_some(), is_read, "{fields}");
        let service = slice.map(|slice| slice.service.to_string());
        assert!(service.is_none_or(|service| service == "shop/web"), "{fields}");
        assert_eq!(found, fault.into_iter().collect::<Vec<_>>(), "{fields}");
    }
}

#[test]
fn an_endpoint_has_its_first_address_and_what_is_unknown_of_it_means_that_it_is_ready() {
    let endpoint = |ready, serving, terminating, node: Option<&str>| SliceEndpoint {
        address: [10, 0, 0, 1].into(),
        node: node.map(Name::from),
        ready,
        serving,
        terminating,
        hints: None,
    };
    let first = json!(["10.0.0.1"]);
    let table = [
        (json!({"addresses": first}), Some(endpoint(true, true, false, None)), vec![]),
        (
            json!({"addresses": ["10.0.0.1", "10.0.0.2"], "nodeName": "n1", "conditions": null}),
            Some(endpoint(true, true, false, Some("n1"))),
            vec![],
        ),
        (
            json!({"addresses": ["010.0.0.1"], "nodeName": "", "conditions": {"ready": null, "serving": null}}),
            Some(endpoint(true, true, false, None)),
            vec![],
        ),
        (
            json!({"addresses": ["::ffff:10.0.0.1"], "conditions": {"ready": false}}),
            Some(endpoint(false, true, false, None)),
            vec![],
        ),
        (
            json!({"addresses": first, "conditions": {"ready": false, "serving": true, "terminating": true}}),
            Some(endpoint(false, true, true, None)),
            vec![],
        ),
        (json!({"addresses": []}), None, vec![".addresses: is empty"]),
        (json!({}), None, vec![".addresses: is empty"]),
        (json!({"addresses": "10.0.0.1"}), None, vec![".addresses: is text, not a list"]),
        (json!({"addresses": ["10.0.0"]}), None, vec![".addresses[0]: \"10.0.0\" is not an IP address"]),
        (json!({"addresses": [null]}), None, vec![".addresses[0]: is missing"]),
        (json!({"addresses": ["fd00::1"]}), None, vec![".addresses[0]: fd00::1 is not an IPv4 address"]),
        (json!({"addresses": ["127.0.0.1"]}), None, vec![".addresses[0]: 127.0.0.1 is a loopback address"]),
        (json!({"addresses": first, "nodeName": 1}), None, vec![".nodeName: is a number, not text"]),
        (json!({"addresses": first, "conditions": []}), None, vec![".conditions: is a list, not an object"]),
        (
            json!({"addresses": first, "conditions": {"ready": "maybe"}}),
            None,
            vec![".conditions.ready: is text, not true or false"],
        ),
        (json!(3), None, vec![": is a number, not an object"]),
        (json!(null), None, vec![".addresses: is empty"]),
    ];
    let last = json!({"addresses": ["10.0.0.9"]});
    for (value, expected, faults) in table {
        let (slice, found) = slice(&json!({"endpoints": [value, last]}));
        let mut endpoints = slice.unwrap().endpoints;
        assert_eq!(endpoints.pop().map(|last| last.address), Some([10, 0, 0, 9].into()), "{value}");
        assert_eq!(endpoints, Vec::from_iter(expected), "{value}");
        let faults: Vec<_> = faults.iter().map(|fault| format!("endpoints[0]{fault}")).collect();
        assert_eq!(found, faults, "{value}");
    }
    let (slice, found) = slice(&json!({"addressType": "IPv6", "endpoints": [{"addresses": ["10.0.0.1"]}]}));
    assert_eq!(slice.unwrap().endpoints, []);
    assert_eq!(found, ["endpoints[0].addresses[0]: 10.0.0.1 is not an IPv6 address"]);
}

#[test]
fn ports_of_a_slice_have_defaults_and_names_of_their_own() {
    let port = |name: &str, protocol, number| SlicePort { name: name.into(), protocol, number };
    let table = [
        (json!([{"port": 8080}]), vec![port("", Tcp, Some(8080))], vec![]),
        (
            json!([{"name": null, "protocol": null, "port": null}, {"name": "dns", "protocol": "UDP", "port": 53}]),
            vec![port("", Tcp, None), port("dns", Udp, Some(53))],
            vec![],
        ),
        (
            json!([{"name": "a", "port": 1}, {"name": "a", "port": 2, "protocol": "UDP"}, {"port": 3}, {"port": 4}]),
            vec![port("a", Tcp, Some(1)), port("", Tcp, Some(3))],
            vec!["[1].name: \"a\" names an earlier port", "[3].name: \"\" names an earlier port"],
        ),
        (
            json!([{"port": 0}, {"port": 70000}, {"port": "80"}, {"port": 80, "protocol": "ICMP"}, {"name": "A"}, [], {"port": 9}]),
            vec![port("", Tcp, Some(9))],
            vec![
                "[0].port: 0 is not a port number (1 to 65535)",
                "[1].port: 70000 is not a port number (1 to 65535)",
                "[2].port: is text, not a number",
                "[3].protocol: \"ICMP\" is not TCP, UDP or SCTP",
                "[4].name: \"A\" is not a DNS label (a-z, 0-9 and '-', at most 63 characters)",
                "[5]: is a list, not an object",
            ],
        ),
    ];
    for (ports, expected, faults) in table {
        let (slice, found) = slice(&json!({"ports": ports}));
        assert_eq!(slice.unwrap().ports, expected, "{ports}");
        let faults: Vec<_> = faults.iter().map(|fault| format!("ports{fault}")).collect();
        assert_eq!(found, faults, "{ports}");
    }
}
