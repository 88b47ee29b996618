//! Pods.

use super::{
    Kind, Table,
    Verdict::{Both, Differently, Neither, ServerRefuses},
};

pub(super) const TABLE: Table = Table {
    kind: &Kind { api_version: "v1", name: "Pod", path: "/api/v1/namespaces/default/pods" },
    rows: &[
        ("a_pod_without_addresses", Both, "spec: {containers: [{name: c, image: i}]}"),
        ("a_pod_on_a_node", Both, "spec: {nodeName: n1, containers: [{name: c, image: i}]}"),
        (
            "a_pod_with_labels",
            Both,
            "metadata: {labels: {app: web, example.org/x: ''}}\nspec: {containers: [{name: c, image: i}]}",
        ),
        (
            "a_pod_with_one_address",
            Both,
            "spec: {nodeName: n1, containers: [{name: c, image: i}]}\nstatus: {podIP: 10.244.1.2, podIPs: [{ip: 10.244.1.2}]}",
        ),
        (
            "a_pod_with_two_addresses",
            Both,
            "spec: {nodeName: n1, containers: [{name: c, image: i}]}\nstatus: {podIP: 10.244.1.3, podIPs: [{ip: 10.244.1.3}, {ip: 'fd00:244:1::3'}]}",
        ),
        (
            "a_pod_with_the_old_field_alone",
            Both,
            "spec: {nodeName: n1, containers: [{name: c, image: i}]}\nstatus: {podIP: 10.244.1.4}",
        ),
        (
            "a_pod_whose_two_fields_differ",
            Differently(
                "the server takes the old field for the truth and gives the other its value; it never returns such a pod",
            ),
            "spec: {nodeName: n1, containers: [{name: c, image: i}]}\nstatus: {podIP: 10.244.1.5, podIPs: [{ip: 10.244.1.6}]}",
        ),
        (
            "a_pod_with_an_address_that_is_none",
            Neither,
            "spec: {nodeName: n1, containers: [{name: c, image: i}]}\nstatus: {podIP: nowhere, podIPs: [{ip: nowhere}]}",
        ),
        (
            "a_pod_with_two_addresses_of_one_family",
            ServerRefuses("podgate enforces on all that a pod has"),
            "spec: {nodeName: n1, containers: [{name: c, image: i}]}\nstatus: {podIP: 10.244.1.7, podIPs: [{ip: 10.244.1.7}, {ip: 10.244.1.8}]}",
        ),
        (
            "a_pod_that_has_succeeded",
            Both,
            "spec: {nodeName: n1, containers: [{name: c, image: i}]}\nstatus: {phase: Succeeded, podIP: 10.244.1.9, podIPs: [{ip: 10.244.1.9}]}",
        ),
        (
            "a_pod_that_has_failed",
            Both,
            "spec: {nodeName: n1, containers: [{name: c, image: i}]}\nstatus: {phase: Failed}",
        ),
        (
            "a_pod_on_the_network_of_its_node",
            Both,
            "spec: {nodeName: n1, hostNetwork: true, containers: [{name: c, image: i, ports: [{name: http, containerPort: 80}]}]}\nstatus: {podIP: 10.10.0.11, podIPs: [{ip: 10.10.0.11}]}",
        ),
        (
            "a_container_port_without_protocol",
            Both,
            "spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 80}]}]}",
        ),
        (
            "a_container_port_without_name",
            Both,
            "spec: {containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}",
        ),
        (
            "one_port_name_in_two_containers",
            Both,
            "spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 80}]}, {name: d, image: i, ports: [{name: http, containerPort: 81}]}]}",
        ),
        (
            "one_port_name_twice_in_a_container",
            ServerRefuses("a name that has several numbers stands for all of them"),
            "spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 80}, {name: http, containerPort: 81}]}]}",
        ),
        (
            "ports_of_every_protocol",
            Both,
            "spec: {containers: [{name: c, image: i, ports: [{name: a, containerPort: 1, protocol: TCP}, {name: b, containerPort: 1, protocol: UDP}, {name: d, containerPort: 1, protocol: SCTP}]}]}",
        ),
        (
            "a_container_port_of_a_protocol_in_lower_case",
            Neither,
            "spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 80, protocol: tcp}]}]}",
        ),
        (
            "a_container_port_0",
            Neither,
            "spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 0}]}]}",
        ),
        (
            "a_container_port_65536",
            Neither,
            "spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 65536}]}]}",
        ),
        (
            "a_container_port_name_in_upper_case",
            Neither,
            "spec: {containers: [{name: c, image: i, ports: [{name: HTTP, containerPort: 80}]}]}",
        ),
        (
            "a_container_port_that_is_text",
            Neither,
            "spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: '80'}]}]}",
        ),
        (
            "ports_of_an_init_container_that_ends",
            Both,
            "spec: {initContainers: [{name: d, image: i, ports: [{name: early, containerPort: 80}]}], containers: [{name: c, image: i}]}",
        ),
        (
            "ports_of_an_init_container_that_goes_on",
            Both,
            "spec: {initContainers: [{name: d, image: i, restartPolicy: Always, ports: [{name: side, containerPort: 80}]}], containers: [{name: c, image: i}]}",
        ),
        (
            "a_label_that_is_a_number",
            Neither,
            "metadata: {labels: {app: 1}}\nspec: {containers: [{name: c, image: i}]}",
        ),
        (
            "a_label_that_is_null",
            Both,
            "metadata: {labels: {app: null}}\nspec: {containers: [{name: c, image: i}]}",
        ),
        (
            "a_label_with_a_blank",
            Neither,
            "metadata: {labels: {app: 'a b'}}\nspec: {containers: [{name: c, image: i}]}",
        ),
        (
            "a_label_key_with_two_slashes",
            Neither,
            "metadata: {labels: {a/b/c: d}}\nspec: {containers: [{name: c, image: i}]}",
        ),
        (
            "a_pod_name_in_upper_case",
            Neither,
            "metadata: {name: Pod}\nspec: {containers: [{name: c, image: i}]}",
        ),
        (
            "a_pod_without_containers",
            ServerRefuses("podgate reads no more of containers than their ports"),
            "spec: {containers: []}",
        ),
    ],
};
