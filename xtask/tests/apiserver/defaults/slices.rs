//! EndpointSlices.

use super::{
    Kind, Table,
    Verdict::{Both, Neither, PodgateRefuses},
};

pub(super) const TABLE: Table = Table {
    kind: &Kind {
        api_version: "discovery.k8s.io/v1",
        name: "EndpointSlice",
        path: "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
    },
    rows: &[
        (
            "a_slice_port_without_protocol_or_name",
            Both,
            "metadata: {labels: {kubernetes.io/service-name: s}}\naddressType: IPv4\nports: [{port: 80}]\nendpoints: [{addresses: [10.244.1.2]}]",
        ),
        (
            "a_slice_port_without_number",
            Both,
            "metadata: {labels: {kubernetes.io/service-name: s}}\naddressType: IPv4\nports: [{name: a}]\nendpoints: [{addresses: [10.244.1.2]}]",
        ),
        (
            "a_slice_without_ports",
            Both,
            "metadata: {labels: {kubernetes.io/service-name: s}}\naddressType: IPv4\nendpoints: [{addresses: [10.244.1.2]}]",
        ),
        (
            "conditions_of_every_value",
            Both,
            "metadata: {labels: {kubernetes.io/service-name: s}}\naddressType: IPv4\nports: [{port: 80}]\nendpoints: [{addresses: [10.244.1.2], conditions: {ready: false}}, {addresses: [10.244.1.3], conditions: {ready: false, serving: true, terminating: true}}, {addresses: [10.244.1.4], conditions: {ready: null}}, {addresses: [10.244.1.5], conditions: {serving: false}}]",
        ),
        (
            "an_endpoint_with_node_and_two_addresses",
            Both,
            "metadata: {labels: {kubernetes.io/service-name: s}}\naddressType: IPv4\nports: [{port: 80}]\nendpoints: [{addresses: [10.244.1.2, 10.244.1.3], nodeName: n1}]",
        ),
        (
            "a_slice_of_the_other_family",
            Both,
            "metadata: {labels: {kubernetes.io/service-name: s}}\naddressType: IPv6\nports: [{port: 80}]\nendpoints: [{addresses: ['fd00:244:1::2']}]",
        ),
        (
            "a_slice_of_names",
            Both,
            "metadata: {labels: {kubernetes.io/service-name: s}}\naddressType: FQDN\nports: [{port: 80}]\nendpoints: [{addresses: [example.org]}]",
        ),
        (
            "a_slice_of_no_service",
            Both,
            "addressType: IPv4\nports: [{port: 80}]\nendpoints: [{addresses: [10.244.1.2]}]",
        ),
        (
            "a_slice_without_endpoints",
            Both,
            "metadata: {labels: {kubernetes.io/service-name: s}}\naddressType: IPv4\nports: [{port: 80}]\nendpoints: []",
        ),
        (
            "endpoints_that_are_null",
            Both,
            "metadata: {labels: {kubernetes.io/service-name: s}}\naddressType: IPv4\nendpoints: null",
        ),
        (
            "a_slice_without_address_type",
            Neither,
            "metadata: {labels: {kubernetes.io/service-name: s}}\nports: [{port: 80}]\nendpoints: [{addresses: [10.244.1.2]}]",
        ),
        (
            "an_address_type_that_does_not_exist",
            Neither,
            "metadata: {labels: {kubernetes.io/service-name: s}}\naddressType: ipv4\nports: [{port: 80}]\nendpoints: [{addresses: [10.244.1.2]}]",
        ),
        (
            "an_endpoint_without_addresses",
            Neither,
            "metadata: {labels: {kubernetes.io/service-name: s}}\naddressType: IPv4\nports: [{port: 80}]\nendpoints: [{addresses: []}]",
        ),
        (
            "an_address_of_the_wrong_family",
            Neither,
            "metadata: {labels: {kubernetes.io/service-name: s}}\naddressType: IPv4\nports: [{port: 80}]\nendpoints: [{addresses: ['fd00:244:1::2']}]",
        ),
        (
            "an_endpoint_address_that_is_none",
            Neither,
            "metadata: {labels: {kubernetes.io/service-name: s}}\naddressType: IPv4\nports: [{port: 80}]\nendpoints: [{addresses: [nowhere]}]",
        ),
        (
            "an_endpoint_on_loopback",
            Neither,
            "metadata: {labels: {kubernetes.io/service-name: s}}\naddressType: IPv4\nports: [{port: 80}]\nendpoints: [{addresses: [127.0.0.1]}]",
        ),
        (
            "a_slice_port_of_no_protocol",
            Neither,
            "metadata: {labels: {kubernetes.io/service-name: s}}\naddressType: IPv4\nports: [{port: 80, protocol: ICMP}]\nendpoints: [{addresses: [10.244.1.2]}]",
        ),
        (
            "a_slice_port_0",
            PodgateRefuses("the server does not look at the number, and nobody can be led there"),
            "metadata: {labels: {kubernetes.io/service-name: s}}\naddressType: IPv4\nports: [{port: 0}]\nendpoints: [{addresses: [10.244.1.2]}]",
        ),
        (
            "a_slice_port_65536",
            PodgateRefuses("the server does not look at the number, and nobody can be led there"),
            "metadata: {labels: {kubernetes.io/service-name: s}}\naddressType: IPv4\nports: [{port: 65536}]\nendpoints: [{addresses: [10.244.1.2]}]",
        ),
        (
            "a_condition_that_is_text",
            Neither,
            "metadata: {labels: {kubernetes.io/service-name: s}}\naddressType: IPv4\nports: [{port: 80}]\nendpoints: [{addresses: [10.244.1.2], conditions: {ready: 'true'}}]",
        ),
    ],
};
