//! ClusterNetworkPolicies with names of the DNS among rules that deny and pass on, and what pods have learnt.

use std::net::IpAddr;

use proptest::{collection::vec, option, prelude::*, sample};
use serde_json::{Value, json};

use super::{
    Entries, OUTSIDE,
    cluster_policies::{protocol, subject},
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

/// Names, each with an address outside of the cluster that a resolver has said that it has.
pub fn learnt() -> impl Strategy<Value = Vec<(&'static str, IpAddr)>> {
    let address = sample::select(OUTSIDE).prop_map(|text| text.parse().expect("an address"));
    vec((sample::select(NAMES), address), 0..=6)
}

fn policy() -> impl Strategy<Value = Value> {
    let names = sample::subsequence(PATTERNS, 1..=2).prop_map(|names| json!({"domainNames": names}));
    let network = || sample::select(BLOCKS).prop_map(|block| json!({"networks": [block]}));
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
