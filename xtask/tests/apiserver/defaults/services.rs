//! Services. They name their addresses and node ports: what the server would pick, no manifest can know.

use super::{
    Kind, Table,
    Verdict::{Both, Neither, ServerRefuses},
};

pub(super) const TABLE: Table = Table {
    kind: &Kind { api_version: "v1", name: "Service", path: "/api/v1/namespaces/default/services" },
    rows: &[
        ("a_service_port_without_protocol", Both, "spec: {clusterIP: 10.96.0.21, ports: [{port: 80}]}"),
        (
            "a_service_with_named_ports",
            Both,
            "spec: {clusterIP: 10.96.0.22, ports: [{name: a, port: 80, targetPort: web}, {name: b, protocol: UDP, port: 53}]}",
        ),
        (
            "a_service_of_both_families",
            Both,
            "spec: {clusterIP: 10.96.0.23, clusterIPs: [10.96.0.23, 'fd00:96::23'], ipFamilyPolicy: RequireDualStack, ports: [{port: 80}]}",
        ),
        ("a_service_of_the_other_family", Both, "spec: {clusterIP: 'fd00:96::24', ports: [{port: 80}]}"),
        ("a_service_without_an_address_of_its_own", Both, "spec: {clusterIP: None, ports: [{port: 80}]}"),
        ("a_service_without_ports_or_address", Both, "spec: {clusterIP: None}"),
        ("a_service_that_is_another_name", Both, "spec: {type: ExternalName, externalName: example.org}"),
        (
            "a_node_port",
            Both,
            "spec: {type: NodePort, clusterIP: 10.96.0.25, ports: [{port: 80, nodePort: 30025}]}",
        ),
        (
            "a_load_balancer",
            Both,
            "spec: {type: LoadBalancer, clusterIP: 10.96.0.26, ports: [{port: 80, nodePort: 30026}]}\nstatus: {loadBalancer: {ingress: [{ip: 192.0.2.26}]}}",
        ),
        (
            "a_load_balancer_that_forwards",
            Both,
            "spec: {type: LoadBalancer, clusterIP: 10.96.0.27, ports: [{port: 80, nodePort: 30027}]}\nstatus: {loadBalancer: {ingress: [{ip: 192.0.2.27, ipMode: Proxy}]}}",
        ),
        (
            "a_load_balancer_with_a_name",
            Both,
            "spec: {type: LoadBalancer, clusterIP: 10.96.0.28, ports: [{port: 80, nodePort: 30028}]}\nstatus: {loadBalancer: {ingress: [{hostname: lb.example.org}]}}",
        ),
        (
            "a_load_balancer_without_node_ports",
            Both,
            "spec: {type: LoadBalancer, allocateLoadBalancerNodePorts: false, clusterIP: 10.96.0.29, ports: [{port: 80}]}",
        ),
        (
            "external_addresses",
            Both,
            "spec: {clusterIP: 10.96.0.30, externalIPs: [192.0.2.30], ports: [{port: 80}]}",
        ),
        (
            "traffic_that_stays_on_its_node",
            Both,
            "spec: {clusterIP: 10.96.0.31, internalTrafficPolicy: Local, ports: [{port: 80}]}",
        ),
        (
            "external_traffic_that_stays_on_its_node",
            Both,
            "spec: {type: NodePort, externalTrafficPolicy: Local, clusterIP: 10.96.0.32, ports: [{port: 80, nodePort: 30032}]}",
        ),
        (
            "a_service_with_a_selector",
            Both,
            "spec: {clusterIP: 10.96.0.33, selector: {app: web}, sessionAffinity: ClientIP, ports: [{port: 80}]}",
        ),
        ("a_service_port_0", Neither, "spec: {clusterIP: 10.96.0.34, ports: [{port: 0}]}"),
        ("a_service_port_65536", Neither, "spec: {clusterIP: 10.96.0.34, ports: [{port: 65536}]}"),
        (
            "a_service_port_of_no_protocol",
            Neither,
            "spec: {clusterIP: 10.96.0.34, ports: [{port: 80, protocol: ICMP}]}",
        ),
        (
            "a_service_port_name_in_upper_case",
            Neither,
            "spec: {clusterIP: 10.96.0.34, ports: [{name: HTTP, port: 80}]}",
        ),
        (
            "two_service_ports_without_names",
            Neither,
            "spec: {clusterIP: 10.96.0.34, ports: [{port: 80}, {port: 81}]}",
        ),
        ("a_service_address_that_is_none", Neither, "spec: {clusterIP: nowhere, ports: [{port: 80}]}"),
        (
            "an_external_address_that_is_none",
            Neither,
            "spec: {clusterIP: 10.96.0.34, externalIPs: [nowhere], ports: [{port: 80}]}",
        ),
        (
            "a_traffic_policy_that_does_not_exist",
            Neither,
            "spec: {clusterIP: 10.96.0.34, internalTrafficPolicy: local, ports: [{port: 80}]}",
        ),
        (
            "a_service_type_that_does_not_exist",
            ServerRefuses("podgate asks only whether it is ExternalName"),
            "spec: {type: Cluster, clusterIP: 10.96.0.34, ports: [{port: 80}]}",
        ),
    ],
};
