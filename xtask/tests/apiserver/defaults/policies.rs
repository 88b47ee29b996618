//! NetworkPolicies.

use super::{
    Kind, Table,
    Verdict::{Both, Neither, PodgateCloses},
};

pub(super) const TABLE: Table = Table {
    kind: &Kind {
        api_version: "networking.k8s.io/v1",
        name: "NetworkPolicy",
        path: "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies",
    },
    rows: &[
        ("a_policy_without_spec", Both, "{}"),
        ("an_empty_spec", Both, "spec: {}"),
        ("an_empty_pod_selector", Both, "spec: {podSelector: {}}"),
        ("egress_rules_without_policy_types", Both, "spec: {podSelector: {}, egress: [{}]}"),
        ("an_empty_list_of_egress_rules_without_policy_types", Both, "spec: {podSelector: {}, egress: []}"),
        ("an_empty_list_of_policy_types", Both, "spec: {podSelector: {}, policyTypes: [], egress: [{}]}"),
        ("policy_types_null", Both, "spec: {podSelector: {}, policyTypes: null, ingress: [{}]}"),
        ("egress_alone", Both, "spec: {podSelector: {}, policyTypes: [Egress], ingress: [{}]}"),
        (
            "ingress_alone_with_egress_rules",
            Both,
            "spec: {podSelector: {}, policyTypes: [Ingress], egress: [{}]}",
        ),
        ("one_policy_type_twice", Both, "spec: {podSelector: {}, policyTypes: [Ingress, Ingress]}"),
        ("three_policy_types", Neither, "spec: {podSelector: {}, policyTypes: [Ingress, Egress, Ingress]}"),
        ("a_policy_type_in_lower_case", Neither, "spec: {podSelector: {}, policyTypes: [ingress]}"),
        ("a_rule_that_is_null", Both, "spec: {podSelector: {}, ingress: [null]}"),
        (
            "lists_of_peers_and_ports_that_are_empty",
            Both,
            "spec: {podSelector: {}, ingress: [{from: [], ports: []}]}",
        ),
        (
            "lists_of_peers_and_ports_that_are_null",
            Both,
            "spec: {podSelector: {}, egress: [{to: null, ports: null}]}",
        ),
        (
            "a_field_that_does_not_exist",
            PodgateCloses(
                "kubectl refuses it too; the field may narrow the rule, which is only known where it stands",
            ),
            "spec: {podSelector: {}, ingress: [{form: [{podSelector: {}}]}]}",
        ),
        // Ports.
        ("a_port_without_protocol", Both, "spec: {podSelector: {}, ingress: [{ports: [{port: 80}]}]}"),
        (
            "a_protocol_without_port",
            Both,
            "spec: {podSelector: {}, ingress: [{ports: [{protocol: UDP, port: null}]}]}",
        ),
        ("an_empty_port", Both, "spec: {podSelector: {}, ingress: [{ports: [{}]}]}"),
        ("a_port_of_sctp", Both, "spec: {podSelector: {}, ingress: [{ports: [{protocol: SCTP, port: 9}]}]}"),
        ("a_port_by_name", Both, "spec: {podSelector: {}, ingress: [{ports: [{port: http-alt}]}]}"),
        ("a_port_name_of_digits", Neither, "spec: {podSelector: {}, ingress: [{ports: [{port: '80'}]}]}"),
        ("a_port_name_in_upper_case", Neither, "spec: {podSelector: {}, ingress: [{ports: [{port: HTTP}]}]}"),
        (
            "a_port_name_that_is_too_long",
            Neither,
            "spec: {podSelector: {}, ingress: [{ports: [{port: a-name-of-17-byte}]}]}",
        ),
        (
            "a_port_name_with_two_hyphens",
            Neither,
            "spec: {podSelector: {}, ingress: [{ports: [{port: a--b}]}]}",
        ),
        ("an_empty_port_name", Neither, "spec: {podSelector: {}, ingress: [{ports: [{port: ''}]}]}"),
        ("port_0", Neither, "spec: {podSelector: {}, ingress: [{ports: [{port: 0}]}]}"),
        ("port_65535", Both, "spec: {podSelector: {}, ingress: [{ports: [{port: 65535}]}]}"),
        ("port_65536", Neither, "spec: {podSelector: {}, ingress: [{ports: [{port: 65536}]}]}"),
        (
            "a_port_that_is_no_whole_number",
            Neither,
            "spec: {podSelector: {}, ingress: [{ports: [{port: 80.5}]}]}",
        ),
        ("a_range_of_ports", Both, "spec: {podSelector: {}, egress: [{ports: [{port: 80, endPort: 90}]}]}"),
        (
            "a_range_of_one_port",
            Both,
            "spec: {podSelector: {}, egress: [{ports: [{port: 80, endPort: 80}]}]}",
        ),
        (
            "a_range_that_ends_before_it_begins",
            Neither,
            "spec: {podSelector: {}, egress: [{ports: [{port: 80, endPort: 79}]}]}",
        ),
        (
            "a_range_without_a_first_port",
            Neither,
            "spec: {podSelector: {}, egress: [{ports: [{endPort: 90}]}]}",
        ),
        (
            "a_range_that_begins_with_a_name",
            Neither,
            "spec: {podSelector: {}, egress: [{ports: [{port: http, endPort: 90}]}]}",
        ),
        (
            "a_range_that_ends_beyond_the_last_port",
            Neither,
            "spec: {podSelector: {}, egress: [{ports: [{port: 80, endPort: 65536}]}]}",
        ),
        (
            "a_protocol_without_ports",
            Neither,
            "spec: {podSelector: {}, ingress: [{ports: [{protocol: ICMP}]}]}",
        ),
        (
            "a_protocol_in_lower_case",
            Neither,
            "spec: {podSelector: {}, ingress: [{ports: [{protocol: tcp, port: 80}]}]}",
        ),
        (
            "a_protocol_that_is_empty",
            Neither,
            "spec: {podSelector: {}, ingress: [{ports: [{protocol: '', port: 80}]}]}",
        ),
        // Peers.
        ("an_empty_peer", Neither, "spec: {podSelector: {}, ingress: [{from: [{}]}]}"),
        ("a_peer_that_is_null", Neither, "spec: {podSelector: {}, ingress: [{from: [null]}]}"),
        (
            "a_pod_selector_beside_a_namespace_selector",
            Both,
            "spec: {podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {a: b}}, namespaceSelector: {}}]}]}",
        ),
        (
            "a_peer_of_all_namespaces",
            Both,
            "spec: {podSelector: {}, egress: [{to: [{namespaceSelector: {}}]}]}",
        ),
        (
            "a_block_beside_a_pod_selector",
            Neither,
            "spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]}",
        ),
        (
            "a_block_beside_a_null_selector",
            Both,
            "spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: null}]}]}",
        ),
        (
            "a_block_with_host_bits",
            Both,
            "spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.5/8}}]}]}",
        ),
        (
            "a_block_with_leading_zeros",
            Both,
            "spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 010.0.0.0/8}}]}]}",
        ),
        (
            "a_block_of_mapped_addresses",
            Both,
            "spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: '::ffff:10.0.0.0/104'}}]}]}",
        ),
        (
            "a_block_of_all_addresses",
            Both,
            "spec: {podSelector: {}, egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}, {ipBlock: {cidr: '::/0'}}]}]}",
        ),
        (
            "a_block_that_is_longer_than_an_address",
            Neither,
            "spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}]}",
        ),
        (
            "a_block_without_a_length",
            Neither,
            "spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.1}}]}]}",
        ),
        (
            "a_block_with_blanks",
            Neither,
            "spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: ' 10.0.0.0/8'}}]}]}",
        ),
        ("a_block_without_cidr", Neither, "spec: {podSelector: {}, ingress: [{from: [{ipBlock: {}}]}]}"),
        (
            "an_exception_inside_its_block",
            Both,
            "spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.2.0.0/16]}}]}]}",
        ),
        (
            "an_exception_with_host_bits",
            Both,
            "spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.2.3/16]}}]}]}",
        ),
        (
            "an_exception_that_is_the_block",
            Neither,
            "spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}]}",
        ),
        (
            "an_exception_outside_its_block",
            Neither,
            "spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [192.168.0.0/16]}}]}]}",
        ),
        (
            "an_exception_of_the_other_family",
            Neither,
            "spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: ['fd00::/64']}}]}]}",
        ),
        (
            "an_exception_that_is_no_block",
            Neither,
            "spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [somewhere]}}]}]}",
        ),
        // Selectors.
        (
            "every_operator",
            Both,
            "spec: {podSelector: {matchLabels: {x: z}, matchExpressions: [{key: a, operator: In, values: [b, c]}, {key: d, operator: NotIn, values: [e]}, {key: f, operator: Exists}, {key: g, operator: DoesNotExist}]}}",
        ),
        (
            "an_operator_that_does_not_exist",
            Neither,
            "spec: {podSelector: {matchExpressions: [{key: a, operator: Resembles, values: [b]}]}}",
        ),
        ("in_without_values", Neither, "spec: {podSelector: {matchExpressions: [{key: a, operator: In}]}}"),
        (
            "not_in_without_values",
            Neither,
            "spec: {podSelector: {matchExpressions: [{key: a, operator: NotIn, values: []}]}}",
        ),
        (
            "exists_with_values",
            Neither,
            "spec: {podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}",
        ),
        (
            "exists_with_an_empty_list_of_values",
            Both,
            "spec: {podSelector: {matchExpressions: [{key: a, operator: Exists, values: []}]}}",
        ),
        ("a_key_with_a_blank", Neither, "spec: {podSelector: {matchLabels: {'a b': c}}}"),
        ("a_key_with_a_prefix", Both, "spec: {podSelector: {matchLabels: {example.org/a_B.c: ''}}}"),
        ("an_empty_key", Neither, "spec: {podSelector: {matchLabels: {'': c}}}"),
        ("a_value_with_a_slash", Neither, "spec: {podSelector: {matchLabels: {a: b/c}}}"),
        (
            "a_listed_value_with_a_blank",
            Neither,
            "spec: {podSelector: {matchExpressions: [{key: a, operator: In, values: ['b c']}]}}",
        ),
        ("a_value_that_is_a_number", Neither, "spec: {podSelector: {matchLabels: {a: 1}}}"),
        ("a_value_that_is_null", Both, "spec: {podSelector: {matchLabels: {a: null}}}"),
        (
            "a_value_of_63_bytes",
            Both,
            "spec: {podSelector: {matchLabels: {a: a23456789012345678901234567890123456789012345678901234567890123}}}",
        ),
        (
            "a_value_of_64_bytes",
            Neither,
            "spec: {podSelector: {matchLabels: {a: a234567890123456789012345678901234567890123456789012345678901234}}}",
        ),
        // Names.
        ("a_policy_name_in_upper_case", Neither, "metadata: {name: Policy}"),
        ("a_policy_name_with_dots", Both, "metadata: {name: policy.with.dots}"),
        ("a_policy_without_a_name", Neither, "metadata: {name: ''}"),
    ],
};
