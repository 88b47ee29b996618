//! Namespaces and Nodes.

use super::{
    Kind, Table,
    Verdict::{Both, Neither, ServerRefuses},
};

pub(super) const NAMESPACES: Table = Table {
    kind: &Kind { api_version: "v1", name: "Namespace", path: "/api/v1/namespaces" },
    rows: &[
        ("a_namespace_without_labels", Both, "{}"),
        ("a_namespace_with_labels", Both, "metadata: {labels: {purpose: test}}"),
        (
            "a_namespace_that_is_labelled_as_another",
            Both,
            "metadata: {labels: {kubernetes.io/metadata.name: other}}",
        ),
        ("a_namespace_with_null_labels", Both, "metadata: {labels: null}"),
        ("a_namespace_with_dots", Neither, "metadata: {name: a.b}"),
        ("a_namespace_in_upper_case", Neither, "metadata: {name: Space}"),
        (
            "a_namespace_name_of_64_bytes",
            Neither,
            "metadata: {name: a234567890123456789012345678901234567890123456789012345678901234}",
        ),
        ("a_namespace_with_a_bad_label", Neither, "metadata: {labels: {purpose: '-'}}"),
    ],
};

pub(super) const NODES: Table = Table {
    kind: &Kind { api_version: "v1", name: "Node", path: "/api/v1/nodes" },
    rows: &[
        ("a_node_without_addresses", Both, "{}"),
        (
            "a_node_with_dots",
            Both,
            "metadata: {name: node.example.org}\nspec: {podCIDR: 10.244.9.0/24, podCIDRs: [10.244.9.0/24]}",
        ),
        (
            "a_node_with_addresses",
            Both,
            "status: {addresses: [{type: InternalIP, address: 10.10.0.11}, {type: InternalIP, address: 'fd00:10::11'}, {type: ExternalIP, address: 192.0.2.11}, {type: Hostname, address: n1}]}",
        ),
        (
            "a_node_whose_address_is_a_name",
            Both,
            "status: {addresses: [{type: Hostname, address: 10.10.0.12}, {type: InternalDNS, address: n.example.org}]}",
        ),
        (
            "a_node_with_one_address_twice",
            Both,
            "status: {addresses: [{type: InternalIP, address: 10.10.0.13}, {type: ExternalIP, address: 10.10.0.13}]}",
        ),
        ("a_node_in_upper_case", Neither, "metadata: {name: Node}"),
        (
            "a_node_with_a_bad_pod_network",
            ServerRefuses("podgate does not read it"),
            "spec: {podCIDR: somewhere, podCIDRs: [somewhere]}",
        ),
    ],
};
