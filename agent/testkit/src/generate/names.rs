//! Policies with names of the DNS: of the cluster, among rules that deny and pass on, AWS's and GKE's; and
//! what pods have learnt.

use std::{collections::BTreeMap, net::IpAddr};

use proptest::{collection::vec, option, prelude::*, sample};
use serde_json::{Value, json};

use super::{
    Entries, NAMESPACES, OUTSIDE,
    cluster_policies::{protocol, subject},
    pods,
    policies::selector,
    set,
};

/// Of servers; rules have some of them.
const NAMES: &[&str] = &["api.example.com", "x.example.com", "a.b.example.com", "example.com", "other.test"];
const PATTERNS: &[&str] = &[
    "api.example.com",
    "API.Example.com.",
    "*.example.com",
    "*.b.example.com",
    "example.com",
    "*.com",
    "x.test",
];
/// Around addresses outside of the cluster.
const BLOCKS: &[&str] =
    &["203.0.113.0/24", "203.0.113.9/32", "10.0.0.0/8", "0.0.0.0/0", "::/0", "2001:db8::/32"];

/// These objects, and one to three policies with rules that name names.
pub fn with_names(objects: impl Strategy<Value = Vec<Value>>) -> impl Strategy<Value = Vec<Value>> {
    (objects, vec(policy(), 1..=3)).prop_map(|(mut objects, policies)| {
        objects.extend(policies.into_iter().enumerate().map(|(slot, spec)| {
            json!({
                "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
                "metadata": {"name": format!("names{slot}")}, "spec": spec,
            })
        }));
        objects
    })
}

/// These objects, and some policies of AWS's and GKE's with names, which isolate pods as NetworkPolicies do.
pub fn with_cloud_names(objects: impl Strategy<Value = Vec<Value>>) -> impl Strategy<Value = Vec<Value>> {
    let policies = vec(prop_oneof![aws_cluster_policy(), application_policy(), fqdn_policy()], 1..=3);
    (objects, policies).prop_map(|(mut objects, policies)| {
        let mut count = BTreeMap::<String, usize>::new();
        objects.extend(policies.into_iter().map(|mut policy| {
            // Names of NetworkPolicies, too: kinds are apart.
            let slot = count.entry(policy["kind"].to_string()).or_default();
            policy["metadata"]["name"] = format!("np{slot}").into();
            *slot += 1;
            policy
        }));
        objects
    })
}

fn aws_cluster_policy() -> impl Strategy<Value = Value> {
    let names = sample::subsequence(PATTERNS, 1..=2).prop_map(|names| json!({"domainNames": names}));
    let to = vec(prop_oneof![3 => names, 1 => network()], 1..=2);
    let ports = option::of(
        sample::select(&[80_u16, 443][..])
            .prop_map(|port| json!([{"portNumber": {"protocol": "TCP", "port": port}}])),
    );
    let accept = (to, ports).prop_map(|(to, ports)| {
        let mut rule = json!({"action": "Accept", "to": to});
        set(&mut rule, "ports", ports);
        rule
    });
    let deny = network().prop_map(|network| json!({"action": "Deny", "to": [network]}));
    let rules = vec(prop_oneof![2 => accept, 1 => deny], 1..=3);
    (0..4_u16, subject(), rules).prop_map(|(priority, subject, egress)| {
        let spec = json!({"tier": "Admin", "priority": priority, "subject": subject, "egress": egress});
        json!({"apiVersion": "networking.k8s.aws/v1alpha1", "kind": "ClusterNetworkPolicy",
            "metadata": {}, "spec": spec})
    })
}

fn application_policy() -> impl Strategy<Value = Value> {
    let names = sample::subsequence(PATTERNS, 1..=2).prop_map(|names| json!({"domainNames": names}));
    let block = sample::select(BLOCKS).prop_map(|block| json!({"ipBlock": {"cidr": block}}));
    let ports = option::of(sample::select(&[80_u16, 443][..]).prop_map(|port| json!([{"port": port}])));
    let rule = (vec(prop_oneof![3 => names, 1 => block], 1..=2), ports).prop_map(|(to, ports)| {
        let mut rule = json!({"to": to});
        set(&mut rule, "ports", ports);
        rule
    });
    (sample::select(NAMESPACES), selector(pods::KEYS, Entries::Valid), vec(rule, 1..=2)).prop_map(
        |(namespace, pods, egress)| {
            json!({"apiVersion": "networking.k8s.aws/v1alpha1", "kind": "ApplicationNetworkPolicy",
            "metadata": {"namespace": namespace},
            "spec": {"podSelector": pods, "policyTypes": ["Egress"], "egress": egress}})
        },
    )
}

fn fqdn_policy() -> impl Strategy<Value = Value> {
    let patterns =
        ["*.example.com", "*.Example.com", "*.b.example.com", "*.com", "*.*.example.com", "a*.test"];
    let entry = prop_oneof![
        sample::select(NAMES).prop_map(|name| json!({"name": name})),
        sample::select(patterns.to_vec()).prop_map(|pattern| json!({"pattern": pattern})),
    ];
    let port = (
        option::of(sample::select(&["TCP", "UDP", "ALL"][..])),
        option::of(sample::select(&[80_u16, 443][..])),
    );
    let port = port.prop_map(|(protocol, port)| {
        let mut entry = json!({});
        set(&mut entry, "protocol", protocol.map(Value::from));
        set(&mut entry, "port", port.map(Value::from));
        entry
    });
    let rule = (vec(entry, 1..=2), option::of(vec(port, 1..=2))).prop_map(|(matches, ports)| {
        let mut rule = json!({"matches": matches});
        set(&mut rule, "ports", ports.map(Value::from));
        rule
    });
    (sample::select(NAMESPACES), selector(pods::KEYS, Entries::Valid), vec(rule, 1..=2)).prop_map(
        |(namespace, pods, egress)| {
            json!({"apiVersion": "networking.gke.io/v1alpha1", "kind": "FQDNNetworkPolicy",
            "metadata": {"namespace": namespace}, "spec": {"podSelector": pods, "egress": egress}})
        },
    )
}

fn network() -> impl Strategy<Value = Value> {
    sample::select(BLOCKS).prop_map(|block| json!({"networks": [block]}))
}

/// Names, each with an address outside of the cluster that a resolver has said that it has.
pub fn learnt() -> impl Strategy<Value = Vec<(&'static str, IpAddr)>> {
    let address = sample::select(OUTSIDE).prop_map(|text| text.parse().expect("an address"));
    vec((sample::select(NAMES), address), 0..=6)
}

fn policy() -> impl Strategy<Value = Value> {
    let names = sample::subsequence(PATTERNS, 1..=2).prop_map(|names| json!({"domainNames": names}));
    let actions = sample::select(&["Accept", "Deny", "Pass"][..]);
    let rule = prop_oneof![
        4 => vec(prop_oneof![4 => names, 1 => network()], 1..=2).prop_map(|to| json!({"action": "Accept", "to": to})),
        3 => (actions, network()).prop_map(|(action, to)| json!({"action": action, "to": [to]})),
    ];
    let rule = (rule, option::weighted(0.4, vec(protocol(Entries::Valid), 1..=2)));
    let rule = rule.prop_map(|(mut rule, protocols)| {
        set(&mut rule, "protocols", protocols.map(Value::from));
        rule
    });
    (0..4_u16, subject(), vec(rule, 1..=5)).prop_map(|(priority, subject, egress)| {
        json!({"tier": "Admin", "priority": priority, "subject": subject, "egress": egress})
    })
}
