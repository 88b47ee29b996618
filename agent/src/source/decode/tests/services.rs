//! Services and EndpointSlices: what kube-proxy serves, and the exact words of each fault.

mod slices;

use podgate_common::Protocol;
use podgate_core::model::{Hints, Proxy, ServicePort, SliceEndpoint, SlicePort};

use super::*;

/// As `kubectl get -o yaml` prints one, with every field that matters and many that do not.
pub(super) fn full_service() -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
    "metadata": {"name": "web", "namespace": "shop", "labels": {"a": "1"}, "resourceVersion": "7"},
    "spec": {
        "type": "LoadBalancer", "selector": {"app": "web"}, "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
        "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd96::1"],
        "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack",
        "externalIPs": ["198.51.100.1"], "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 30999, "loadBalancerSourceRanges": ["0.0.0.0/0"],
        "ports": [
            {"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http", "nodePort": 30080},
            {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 5353},
        ],
    },
    "status": {"loadBalancer": {"ingress": [
        {"ip": "203.0.113.1", "ipMode": "VIP", "ports": []}, {"hostname": "web.example"},
    ]}}})
}

pub(super) fn full_slice() -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
    "metadata": {
        "name": "web-x7k2p", "namespace": "shop",
        "labels": {
            "kubernetes.io/service-name": "web",
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        },
    },
    "ports": [{"name": "http", "protocol": "TCP", "port": 8080, "appProtocol": "http"}],
    "endpoints": [{
        "addresses": ["10.0.0.1"], "nodeName": "n1", "zone": "a", "hostname": "web-0",
        "conditions": {"ready": true, "serving": true, "terminating": false},
        "targetRef": {"kind": "Pod", "name": "web-0", "namespace": "shop"},
        "hints": {"forZones": [{"name": "a"}]},
    }]})
}

/// `None`: kube-proxy serves nothing. Faults as `field: message`.
fn service(spec: &Value, status: &Value) -> (Option<Service>, Vec<String>) {
    let (objects, faults) = decoded(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
        "spec": spec, "status": status,
    }));
    let service = match objects.as_slice() {
        [Decoded::Service(service)] => Some(service.clone()),
        [Decoded::UnservedService(name)] if name.to_string() == "shop/web" => None,
        other => panic!("{other:?}"),
    };
    let strip = |fault: String| fault.strip_prefix("Service shop/web: ").expect("a fault of it").to_owned();
    (service, faults.into_iter().map(strip).collect())
}

/// A slice of shop/web with these fields over those of an empty one.
fn slice(fields: &Value) -> (Option<EndpointSlice>, Vec<String>) {
    let mut object = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
    });
    let Value::Object(fields) = fields else { panic!("{fields}") };
    object.as_object_mut().unwrap().extend(fields.clone());
    let (objects, faults) = decoded(&object);
    let slice = match objects.as_slice() {
        [Decoded::Slice(slice)] => Some(slice.clone()),
        [Decoded::UnservedSlice(name)] if name.to_string() == "shop/web-1" => None,
        other => panic!("{other:?}"),
    };
    let strip =
        |fault: String| fault.strip_prefix("EndpointSlice shop/web-1: ").expect("a fault of it").to_owned();
    (slice, faults.into_iter().map(strip).collect())
}

fn addresses(texts: &[&str]) -> Vec<std::net::IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn port(name: &str, protocol: Protocol, number: u16, node_port: Option<u16>) -> ServicePort {
    ServicePort { name: name.into(), protocol, number, node_port }
}

#[test]
fn a_service_and_its_slice_are_read_as_the_api_server_prints_them() {
    let (objects, faults) =
        decoded(&json!({"apiVersion": "v1", "kind": "List", "items": [full_service(), full_slice()]}));
    let name = ObjectName::new("shop", "web");
    let service = Service {
        name: name.clone(),
        cluster_addresses: addresses(&["10.96.0.1", "fd96::1"]),
        external_addresses: addresses(&["198.51.100.1", "203.0.113.1"]),
        internal_local: false,
        external_local: true,
        is_over_limit: false,
        proxy: Proxy::KubeProxy,
        ports: vec![port("http", Tcp, 80, Some(30080)), port("dns", Udp, 53, None)],
    };
    let slice = EndpointSlice {
        name: ObjectName::new("shop", "web-x7k2p"),
        service: name,
        proxy: Proxy::KubeProxy,
        ports: vec![SlicePort { name: "http".into(), protocol: Tcp, number: Some(8080) }],
        endpoints: vec![SliceEndpoint {
            address: [10, 0, 0, 1].into(),
            node: Some("n1".into()),
            ready: true,
            serving: true,
            terminating: false,
            hints: Some(Box::new(Hints { zones: vec!["a".into()], nodes: vec![] })),
        }],
    };
    assert_eq!(objects, [Decoded::Service(service), Decoded::Slice(slice)]);
    assert_eq!(faults, [""; 0]);
}

#[test]
fn a_service_has_the_cluster_addresses_of_its_spec_and_without_one_it_is_not_served() {
    let table = [
        (json!({"clusterIP": "10.96.0.1"}), vec!["10.96.0.1"], vec![]),
        (json!({"clusterIP": "10.96.0.1", "clusterIPs": []}), vec!["10.96.0.1"], vec![]),
        (json!({"clusterIP": "10.96.0.1", "clusterIPs": null}), vec!["10.96.0.1"], vec![]),
        (
            json!({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd96::1"]}),
            vec!["10.96.0.1", "fd96::1"],
            vec![],
        ),
        (json!({"clusterIPs": ["fd96::1"]}), vec!["fd96::1"], vec![]),
        (json!({"clusterIP": "::ffff:10.96.0.1"}), vec!["10.96.0.1"], vec![]),
        (json!({}), vec![], vec![]),
        (json!(null), vec![], vec![]),
        (json!({"clusterIP": ""}), vec![], vec![]),
        (json!({"clusterIP": "None"}), vec![], vec![]),
        (json!({"clusterIP": "None", "clusterIPs": ["None"]}), vec![], vec![]),
        // Nothing leads to the external address either: kube-proxy skips the service.
        (json!({"clusterIP": "None", "externalIPs": ["198.51.100.1"]}), vec![], vec![]),
        (json!({"type": "ExternalName", "externalName": "example.com"}), vec![], vec![]),
        (json!({"type": "ExternalName", "clusterIP": "10.96.0.1"}), vec![], vec![]),
        (
            json!({"type": 1, "clusterIP": "10.96.0.1"}),
            vec!["10.96.0.1"],
            vec!["spec.type: is a number, not text"],
        ),
        (
            json!({"clusterIPs": ["10.96.0.1", "10.96.0.2", "x", 3, null]}),
            vec!["10.96.0.1"],
            vec![
                "spec.clusterIPs[1]: 10.96.0.2 is a second address of its family",
                "spec.clusterIPs[2]: \"x\" is not an IP address",
                "spec.clusterIPs[3]: is a number, not text",
            ],
        ),
        (json!({"clusterIP": "10.96"}), vec![], vec!["spec.clusterIP: \"10.96\" is not an IP address"]),
        (
            json!({"clusterIPs": "10.96.0.1", "clusterIP": "10.96.0.1"}),
            vec!["10.96.0.1"],
            vec!["spec.clusterIPs: is text, not a list"],
        ),
        (json!("x"), vec![], vec!["spec: is text, not an object"]),
    ];
    for (spec, expected, faults) in table {
        let (service, found) = service(&spec, &json!(null));
        let seen = service.map(|service| service.cluster_addresses).unwrap_or_default();
        assert_eq!(seen, addresses(&expected), "{spec}");
        assert_eq!(found, faults, "{spec}");
    }
}

#[test]
fn external_addresses_are_those_that_kube_proxy_answers_for_in_the_services_families() {
    let ingress = |ingress: Value| json!({"loadBalancer": {"ingress": ingress}});
    let table = [
        (json!([]), json!(null), vec![], vec![]),
        (json!(null), json!({}), vec![], vec![]),
        (json!(["198.51.100.1", "198.51.100.1"]), json!({"loadBalancer": {}}), vec!["198.51.100.1"], vec![]),
        (json!(["2001:db8::1"]), ingress(json!([{"ip": "2001:db8::2"}])), vec![], vec![]),
        (
            json!(["198.51.100.1"]),
            ingress(json!([
                {"ip": "203.0.113.1"},
                {"ip": "203.0.113.2", "ipMode": "VIP"},
                {"ip": "203.0.113.3", "ipMode": "Proxy"},
                {"ip": "203.0.113.4", "ipMode": null},
                {"ip": "198.51.100.1"},
                {"hostname": "lb.example"},
                {"ip": "", "hostname": "lb.example", "ipMode": "VIP"},
            ])),
            vec!["198.51.100.1", "203.0.113.1", "203.0.113.2", "203.0.113.4"],
            vec![],
        ),
        (
            json!(["127.0.0.1", "169.254.169.254", "0.0.0.0", "x", null, 7, "198.51.100.9"]),
            json!(null),
            vec!["198.51.100.9"],
            vec![
                "spec.externalIPs[0]: 127.0.0.1 is a loopback address",
                "spec.externalIPs[1]: 169.254.169.254 is a link-local address",
                "spec.externalIPs[2]: 0.0.0.0 is the unspecified address",
                "spec.externalIPs[3]: \"x\" is not an IP address",
                "spec.externalIPs[4]: is missing",
                "spec.externalIPs[5]: is a number, not text",
            ],
        ),
        (
            json!("198.51.100.1"),
            ingress(
                json!([{"ip": "x"}, {"ip": 1}, "y", {"ip": "203.0.113.1", "ipMode": "vip"}, {"ip": "203.0.113.2"}]),
            ),
            vec!["203.0.113.2"],
            vec![
                "spec.externalIPs: is text, not a list",
                "status.loadBalancer.ingress[0].ip: \"x\" is not an IP address",
                "status.loadBalancer.ingress[1].ip: is a number, not text",
                "status.loadBalancer.ingress[2]: is text, not an object",
                "status.loadBalancer.ingress[3].ipMode: \"vip\" is not VIP or Proxy",
            ],
        ),
        (json!([]), json!("x"), vec![], vec!["status: is text, not an object"]),
        (
            json!([]),
            json!({"loadBalancer": []}),
            vec![],
            vec!["status.loadBalancer: is a list, not an object"],
        ),
        (
            json!([]),
            ingress(json!({})),
            vec![],
            vec!["status.loadBalancer.ingress: is an object, not a list"],
        ),
    ];
    for (external, status, expected, faults) in table {
        let (service, found) = service(&json!({"clusterIP": "10.96.0.1", "externalIPs": external}), &status);
        assert_eq!(service.unwrap().external_addresses, addresses(&expected), "{external} {status}");
        assert_eq!(found, faults, "{external} {status}");
    }
}

#[test]
fn an_internal_traffic_policy_that_is_not_understood_means_all_endpoints() {
    let table = [
        (json!(null), false, None),
        (json!("Cluster"), false, None),
        (json!("Local"), true, None),
        (json!("local"), false, Some("spec.internalTrafficPolicy: \"local\" is not Cluster or Local")),
        (json!(true), false, Some("spec.internalTrafficPolicy: is a boolean, not text")),
    ];
    for (policy, local, fault) in table {
        let (external, _) =
            service(&json!({"clusterIP": "10.96.0.1", "externalTrafficPolicy": policy}), &json!(null));
        assert_eq!(external.unwrap().external_local, local, "{policy}");
        let (service, found) =
            service(&json!({"clusterIP": "10.96.0.1", "internalTrafficPolicy": policy}), &json!(null));
        assert_eq!(service.unwrap().internal_local, local, "{policy}");
        assert_eq!(found, fault.into_iter().collect::<Vec<_>>(), "{policy}");
    }
}

#[test]
fn ports_of_a_service_differ_and_a_bad_one_loses_itself_alone() {
    let dns = "is not a DNS label (a-z, 0-9 and '-', at most 63 characters)";
    let table = [
        (json!(null), vec![], vec![]),
        (json!([]), vec![], vec![]),
        (json!([{"port": 80}]), vec![port("", Tcp, 80, None)], vec![]),
        (
            json!([{"port": 80, "name": null, "protocol": null, "nodePort": null}]),
            vec![port("", Tcp, 80, None)],
            vec![],
        ),
        (json!([{"port": 80, "name": "", "nodePort": 0}]), vec![port("", Tcp, 80, None)], vec![]),
        // Longer than a container port's name may be, and without a letter: a service's is a DNS label.
        (
            json!([{"port": 80, "name": "sixteen-letters-a"}]),
            vec![port("sixteen-letters-a", Tcp, 80, None)],
            vec![],
        ),
        (json!([{"port": 80, "name": "80"}]), vec![port("80", Tcp, 80, None)], vec![]),
        // targetPort is not ours to read.
        (
            json!([{"port": 65535, "protocol": "SCTP", "targetPort": []}]),
            vec![port("", Sctp, 65535, None)],
            vec![],
        ),
        (
            json!([
                {"name": "a", "port": 53, "protocol": "UDP", "nodePort": 30053},
                {"name": "b", "port": 53, "protocol": "TCP", "nodePort": 30053},
            ]),
            vec![port("a", Udp, 53, Some(30053)), port("b", Tcp, 53, Some(30053))],
            vec![],
        ),
        (
            json!([{"port": 80}, {"name": "b", "port": 81}, {"name": "", "port": 82}]),
            vec![port("b", Tcp, 81, None)],
            vec!["[0].name: is missing".to_owned(), "[2].name: is empty".into()],
        ),
        (
            json!([{"name": "a", "port": 80}, {"name": "a", "port": 81}, {"name": "c", "port": 80}]),
            vec![port("a", Tcp, 80, None)],
            vec![
                "[1].name: \"a\" names an earlier port".into(),
                "[2].port: TCP 80 is an earlier port".into(),
            ],
        ),
        (
            json!([
                {"name": "a", "port": 80, "nodePort": 30080},
                {"name": "b", "port": 81, "nodePort": 30080},
                {"name": "c", "port": 82, "nodePort": 65536},
                {"name": "d", "port": 83, "nodePort": "30083"},
                {"name": "e", "port": 84, "nodePort": -1},
            ]),
            vec![
                port("a", Tcp, 80, Some(30080)),
                port("b", Tcp, 81, None),
                port("c", Tcp, 82, None),
                port("d", Tcp, 83, None),
                port("e", Tcp, 84, None),
            ],
            vec![
                "[1].nodePort: TCP 30080 is the node port of an earlier port".into(),
                "[2].nodePort: 65536 is not a port number (1 to 65535)".into(),
                "[3].nodePort: is text, not a number".into(),
                "[4].nodePort: -1 is not a port number (1 to 65535)".into(),
            ],
        ),
        (
            json!([
                {"name": "a", "port": 0}, {"name": "b", "port": 65536}, {"name": "c", "port": "80"}, {"name": "d"},
                {"name": "e", "port": 80, "protocol": "tcp"}, {"name": "F", "port": 80}, {"name": 7, "port": 80},
                "x", null, {"name": "z", "port": 80},
            ]),
            vec![port("z", Tcp, 80, None)],
            vec![
                "[0].port: 0 is not a port number (1 to 65535)".into(),
                "[1].port: 65536 is not a port number (1 to 65535)".into(),
                "[2].port: is text, not a number".into(),
                "[3].port: is missing".into(),
                "[4].protocol: \"tcp\" is not TCP, UDP or SCTP".into(),
                format!("[5].name: \"F\" {dns}"),
                "[6].name: is a number, not text".into(),
                "[7]: is text, not an object".into(),
                "[8].name: is missing".into(),
            ],
        ),
        (json!({}), vec![], vec![": is an object, not a list".into()]),
    ];
    for (ports, expected, faults) in table {
        let (service, found) = service(&json!({"clusterIP": "10.96.0.1", "ports": ports}), &json!(null));
        assert_eq!(service.unwrap().ports, expected, "{ports}");
        let faults: Vec<_> = faults.iter().map(|fault| format!("spec.ports{fault}")).collect();
        assert_eq!(found, faults, "{ports}");
    }
}
