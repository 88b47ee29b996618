//! ClusterNetworkPolicies: everything that policy.networking.k8s.io/v1beta1 can say, half-way also in the
//! words of v1alpha1, and, where asked for, entries that it refuses.
//!
//! Rules are short and priorities few, so that rules stand behind each other and priorities meet.

use proptest::{collection::vec, option, prelude::*, sample};
use serde_json::{Value, json};

use super::{
    Entries, NODES, PORT_NAMES, PORT_NUMBERS, pods,
    policies::{ip_block, namespace_selector, or_invalid, parsed, selector},
    set,
    spoil::{INVALID_CLUSTER_PEERS, INVALID_EGRESS_PEERS, INVALID_PROTOCOLS},
};

/// A policy that has no name yet.
#[derive(Clone, Debug)]
pub(super) struct ClusterPolicy {
    kind: &'static str,
    spec: Value,
}

/// Names are not in the order of the list; there is one BaselineAdminNetworkPolicy at most.
pub(super) fn named(policies: Vec<ClusterPolicy>) -> Vec<Value> {
    let mut has_baseline = false;
    let named = policies.into_iter().enumerate().filter_map(|(slot, ClusterPolicy { kind, spec })| {
        let is_new = kind == "ClusterNetworkPolicy";
        let is_baseline = kind == "BaselineAdminNetworkPolicy";
        if is_baseline && has_baseline {
            return None;
        }
        has_baseline |= is_baseline;
        let version = match (is_new, slot % 2) {
            (true, 0) => "v1alpha2",
            (true, _) => "v1beta1",
            (false, _) => "v1alpha1",
        };
        let name = if is_baseline { "default".into() } else { format!("cnp{}", 9 - slot) };
        Some(json!({
            "apiVersion": format!("policy.networking.k8s.io/{version}"), "kind": kind,
            "metadata": {"name": name}, "spec": spec,
        }))
    });
    named.collect()
}

pub(super) fn policy(entries: Entries) -> impl Strategy<Value = ClusterPolicy> {
    let kinds = prop_oneof![
        8 => Just("ClusterNetworkPolicy"),
        1 => Just("AdminNetworkPolicy"),
        1 => Just("BaselineAdminNetworkPolicy"),
    ];
    let tiers = sample::select(&["Admin", "Baseline"][..]);
    let priorities = prop_oneof![4 => 0..4_u16, 1 => Just(1000)];
    let spec = (tiers, priorities, subject(), rules("from", entries), rules("to", entries));
    (kinds, spec).prop_map(|(kind, (tier, priority, subject, ingress, egress))| {
        let mut spec = json!({"tier": tier, "priority": priority, "subject": subject});
        set(&mut spec, "ingress", ingress);
        set(&mut spec, "egress", egress);
        if kind != "ClusterNetworkPolicy" {
            spec = in_old_words(spec, kind == "BaselineAdminNetworkPolicy");
        }
        ClusterPolicy { kind, spec }
    })
}

pub(super) fn subject() -> impl Strategy<Value = Value> {
    let namespaces = namespace_selector(Entries::Valid);
    prop_oneof![
        1 => Just(json!({"namespaces": {}})),
        2 => namespaces.prop_map(|spaces| json!({"namespaces": spaces})),
        2 => namespaced_pods(Entries::Valid).prop_map(|pods| json!({"pods": pods})),
    ]
}

fn namespaced_pods(entries: Entries) -> impl Strategy<Value = Value> {
    (namespace_selector(entries), selector(pods::KEYS, entries))
        .prop_map(|(spaces, pods)| json!({"namespaceSelector": spaces, "podSelector": pods}))
}

fn rules(peers: &'static str, entries: Entries) -> impl Strategy<Value = Option<Value>> {
    let actions = sample::select(&["Accept", "Deny", "Pass"][..]);
    let rule = (actions, vec(peer(peers == "to", entries), 1..=2), option::of(vec(protocol(entries), 1..=3)));
    let rules = vec(rule, 0..=4).prop_map(move |rules| {
        let rules = rules.into_iter().enumerate().map(|(index, (action, who, protocols))| {
            let mut rule = json!({"name": format!("rule-{index}"), "action": action, peers: who});
            set(&mut rule, "protocols", protocols.map(Value::from));
            rule
        });
        Value::from(rules.collect::<Vec<_>>())
    });
    option::weighted(0.8, rules)
}

fn peer(of_egress: bool, entries: Entries) -> BoxedStrategy<Value> {
    let of_pods = prop_oneof![
        1 => Just(json!({"namespaces": {}})),
        3 => namespace_selector(entries).prop_map(|spaces| json!({"namespaces": spaces})),
        4 => namespaced_pods(entries).prop_map(|pods| json!({"pods": pods})),
    ];
    if !of_egress {
        return or_invalid(entries, of_pods, sample::select(INVALID_CLUSTER_PEERS).prop_map(parsed));
    }
    let cidrs = ip_block().prop_map(|block| block["cidr"].clone());
    let all = Just(json!({"networks": ["0.0.0.0/0", "::/0"]}));
    let networks = vec(cidrs, 1..=2).prop_map(|cidrs| json!({"networks": cidrs}));
    let by_name = sample::select(NODES)
        .prop_map(|(name, _)| json!({"nodes": {"matchLabels": {"kubernetes.io/hostname": name}}}));
    let nodes = prop_oneof![
        1 => Just(json!({"nodes": {}})),
        1 => by_name,
        1 => selector(&["team"], entries).prop_map(|labels| json!({"nodes": labels})),
    ];
    let valid = prop_oneof![8 => of_pods, 1 => all, 4 => networks, 2 => nodes];
    or_invalid(entries, valid, sample::select(INVALID_EGRESS_PEERS).prop_map(parsed))
}

pub(super) fn protocol(entries: Entries) -> BoxedStrategy<Value> {
    let number = || sample::select(PORT_NUMBERS);
    let port = prop_oneof![
        1 => Just(None),
        4 => number().prop_map(|port| Some(json!({"number": port}))),
        3 => (number(), number()).prop_map(|(one, other)| match one == other {
            true => Some(json!({"number": one})),
            false => Some(json!({"range": {"start": one.min(other), "end": one.max(other)}})),
        }),
    ];
    let of_protocol = (sample::select(&["tcp", "udp", "sctp"][..]), port).prop_map(|(protocol, port)| {
        let mut attributes = json!({});
        set(&mut attributes, "destinationPort", port);
        json!({protocol: attributes})
    });
    let named = sample::select(PORT_NAMES).prop_map(|name| json!({"destinationNamedPort": name}));
    let valid = prop_oneof![4 => of_protocol, 1 => named];
    or_invalid(entries, valid, sample::select(INVALID_PROTOCOLS).prop_map(parsed))
}

/// v1alpha1 has no tier, `Allow` in place of `Accept`, and `ports`, which cannot say "all ports of a
/// protocol".
fn in_old_words(mut spec: Value, is_baseline: bool) -> Value {
    let fields = spec.as_object_mut().expect("a spec is an object");
    fields.remove("tier");
    if is_baseline {
        fields.remove("priority");
    }
    for direction in ["ingress", "egress"] {
        for rule in spec[direction].as_array_mut().into_iter().flatten() {
            rule["action"] = match rule["action"].as_str() {
                Some("Accept") => "Allow".into(),
                Some("Pass") if is_baseline => "Deny".into(),
                _ => rule["action"].clone(),
            };
            let protocols = rule.as_object_mut().expect("a rule is an object").remove("protocols");
            let ports = protocols.map(|protocols| {
                let protocols = protocols.as_array().expect("a list").iter();
                protocols.map(in_old_port).collect::<Value>()
            });
            set(rule, "ports", ports);
        }
    }
    spec
}

fn in_old_port(protocol: &Value) -> Value {
    let name = &protocol["destinationNamedPort"];
    if !name.is_null() {
        return json!({"namedPort": name});
    }
    let (protocol, attributes) = protocol
        .as_object()
        .and_then(|fields| fields.iter().next())
        .map_or(("TCP".into(), Value::Null), |(name, value)| (name.to_uppercase(), value.clone()));
    let port = &attributes["destinationPort"];
    match &port["range"] {
        Value::Null if port.is_null() => {
            json!({"portRange": {"protocol": protocol, "start": 1, "end": 65535}})
        }
        Value::Null => json!({"portNumber": {"protocol": protocol, "port": port["number"]}}),
        range => {
            json!({"portRange": {"protocol": protocol, "start": range["start"], "end": range["end"]}})
        }
    }
}
