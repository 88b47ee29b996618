//! Policies of Calico's that mostly say what policies of Kubernetes can say, and little that these cannot.

use proptest::{collection::vec, option, prelude::*, sample};
use serde_json::{Value, json};

use super::{
    LABEL_VALUES, NAMESPACES, PORT_NAMES, PORT_NUMBERS,
    calico::{Form, Object, form, net, network_set, policy},
    set,
};

/// A cluster with such policies: at least one.
pub fn with_plain_calico(cluster: impl Strategy<Value = Vec<Value>>) -> impl Strategy<Value = Vec<Value>> {
    let tier = (sample::select(&[500.0, 2_000_000.0][..]), prop::bool::weighted(0.9), form());
    let policies = prop_oneof![
        3 => vec(default_policy(), 1..=4),
        3 => vec(tier_policy(), 1..=3),
        3 => (vec(default_policy(), 1..=3), vec(tier_policy(), 1..=2))
            .prop_map(|(of_default, of_tier)| [of_default, of_tier].concat()),
        1 => (vec(default_policy(), 1..=3), vec(policy(), 1..=1))
            .prop_map(|(of_default, any)| [of_default, any].concat()),
    ];
    let sets = option::weighted(0.3, network_set());
    // Other policies of the cluster are mostly in the way.
    (cluster, policies, tier, sets, prop::bool::weighted(0.3)).prop_map(
        |(mut objects, policies, (order, passes, form), set, keeps_cluster_policies)| {
            if !keeps_cluster_policies {
                objects.retain(|object| !object["apiVersion"].as_str().is_some_and(is_of_cluster_policies));
            }
            let action = if passes { "Pass" } else { "Deny" };
            let spec = json!({"order": order, "defaultAction": action});
            objects
                .push(Object { kind: "Tier", namespace: None, labels: None, form, spec }.object(TIER.into()));
            objects.extend(set.map(|set| set.object("set".into())));
            let policies = policies.into_iter().enumerate();
            objects.extend(policies.map(|(slot, policy)| policy.object(format!("p{}", 9 - slot))));
            objects
        },
    )
}

const TIER: &str = "security";

fn is_of_cluster_policies(version: &str) -> bool {
    version.starts_with("policy.networking.k8s.io/")
}

/// In a namespace, and allowing for ingress, but for a few.
fn default_policy() -> impl Strategy<Value = Object> {
    let order = option::weighted(0.8, sample::select(&[1.0, 10.5, 1_000.0, 1_500.0][..]));
    let action = prop_oneof![24 => Just("Allow"), 1 => sample::select(&["Deny", "Pass", "Log"][..])];
    let types = prop_oneof![12 => Just(json!(["Ingress"])), 1 => Just(json!(["Ingress", "Egress"]))];
    let rules = vec(rule(action, "source"), 0..=3);
    (sample::select(NAMESPACES), order, selector(), types, rules, stored()).prop_map(
        |(namespace, order, selector, types, rules, form)| {
            let mut spec = json!({"selector": selector, "types": types, "ingress": rules});
            set(&mut spec, "order", order.map(Value::from));
            Object { kind: "NetworkPolicy", namespace: Some(namespace), labels: None, form, spec }
        },
    )
}

/// In the other tier.
fn tier_policy() -> impl Strategy<Value = Object> {
    let action = || prop_oneof![12 => sample::select(&["Allow", "Deny", "Pass"][..]), 1 => Just("Log")];
    let order = option::weighted(0.8, sample::select(&[1.0, 10.5, 10.5, 1_500.0][..]));
    let rules = (
        option::of(vec(rule(action(), "source"), 1..=2)),
        option::of(vec(rule(action(), "destination"), 1..=3)),
    );
    let namespaces = option::weighted(0.3, plain_expression(&["team", "kubernetes.io/metadata.name"]));
    (option::weighted(0.3, sample::select(NAMESPACES)), order, selector(), namespaces, rules, stored())
        .prop_map(|(namespace, order, selector, namespaces, (ingress, egress), form)| {
            let mut spec = json!({"tier": TIER, "selector": selector});
            set(&mut spec, "order", order.map(Value::from));
            set(&mut spec, "namespaceSelector", namespaces.filter(|_| namespace.is_none()).map(Value::from));
            set(&mut spec, "ingress", ingress.map(Value::from));
            set(&mut spec, "egress", egress.map(Value::from));
            let kind = if namespace.is_some() { "NetworkPolicy" } else { "GlobalNetworkPolicy" };
            Object { kind, namespace, labels: None, form, spec }
        })
}

/// Not by hand: such objects have other directions.
fn stored() -> impl Strategy<Value = Form> {
    prop_oneof![Just(Form::V3), Just(Form::Stored)]
}

fn rule(action: impl Strategy<Value = &'static str>, end: &'static str) -> impl Strategy<Value = Value> {
    let protocol = || sample::select(vec![json!("TCP"), json!("UDP"), json!("SCTP"), json!(6)]);
    let port = prop_oneof![
        6 => sample::select(PORT_NUMBERS).prop_map(Value::from),
        2 => (sample::select(PORT_NUMBERS), sample::select(PORT_NUMBERS))
            .prop_map(|(one, other)| format!("{}:{}", one.min(other), one.max(other)).into()),
        1 => sample::select(PORT_NAMES).prop_map(Value::from),
    ];
    let ports = option::of((protocol(), option::of(vec(port, 1..=2))));
    (action, peer(end), ports).prop_map(move |(action, peer, ports)| {
        let mut rule = json!({"action": action});
        set(&mut rule, end, peer);
        if let Some((protocol, listed)) = ports {
            rule["protocol"] = protocol;
            if let Some(listed) = listed {
                if rule["destination"].is_null() {
                    rule["destination"] = json!({});
                }
                rule["destination"]["ports"] = listed.into();
            }
        }
        rule
    })
}

/// Of ingress mostly pods: the sources of a ClusterNetworkPolicy are.
fn peer(end: &'static str) -> impl Strategy<Value = Option<Value>> {
    let by_label = || selector().prop_map(|selector| json!({"selector": selector}));
    let across = (selector(), plain_expression(&["team", "env"]))
        .prop_map(|(selector, spaces)| json!({"selector": selector, "namespaceSelector": spaces}));
    let nets = (vec(net(), 1..=2), option::weighted(0.2, vec(net(), 1..=2))).prop_map(|(nets, not)| {
        let mut entity = json!({"nets": nets});
        set(&mut entity, "notNets", not.map(Value::from));
        entity
    });
    let not_nets = vec(net(), 1..=2).prop_map(|nets| json!({"notNets": nets}));
    let networks = if end == "source" { 2 } else { 6 };
    prop_oneof![
        6 => by_label().prop_map(Some),
        4 => across.prop_map(Some),
        networks => nets.prop_map(Some),
        1 => not_nets.prop_map(Some),
        1 => Just(None),
    ]
}

fn selector() -> impl Strategy<Value = String> {
    plain_expression(&["app", "role", "example.com/tier"])
}

/// Requirements that must all hold.
fn plain_expression(keys: &'static [&'static str]) -> impl Strategy<Value = String> {
    let value = || sample::select(LABEL_VALUES).prop_map(|value| format!("'{value}'"));
    let list = move || vec(value(), 1..=2).prop_map(|values| format!("{{{}}}", values.join(", ")));
    let key = move || sample::select(keys);
    let requirement = prop_oneof![
        4 => (key(), value()).prop_map(|(key, value)| format!("{key} == {value}")),
        2 => (key(), value()).prop_map(|(key, value)| format!("{key} != {value}")),
        1 => key().prop_map(|key| format!("has({key})")),
        1 => key().prop_map(|key| format!("!has({key})")),
        1 => (key(), list()).prop_map(|(key, list)| format!("{key} in {list}")),
        1 => (key(), list()).prop_map(|(key, list)| format!("{key} not in {list}")),
        1 => (key(), list()).prop_map(|(key, list)| format!("!({key} in {list})")),
    ];
    prop_oneof![
        2 => Just("all()".to_owned()),
        6 => vec(requirement, 1..=2).prop_map(|parts| parts.join(" && ")),
    ]
}
