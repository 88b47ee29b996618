//! Clusters to ask about, as users write them: raw Kubernetes objects for proptest, and a large one for
//! timing.
//!
//! The alphabets are small, so that selectors hit pods, blocks overlap addresses and named ports meet
//! numbers. Values shrink towards fewer objects and towards missing fields. Everything that is omitted has an
//! API default.

mod calico;
mod cluster_policies;
mod large;
mod names;
mod plain_calico;
mod pods;
mod policies;
mod services;
mod spoil;

use std::{net::IpAddr, ops::RangeInclusive};

use proptest::{collection::vec, prelude::*, sample};
use serde_json::{Value, json};

pub use calico::with_calico;
pub use large::{large, large_cluster_policies, large_of};
pub use names::{learnt, with_cloud_names, with_names};
pub use plain_calico::with_plain_calico;
pub use spoil::spoil;

/// Whether policies may hold entries that the API server would refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entries {
    Valid,
    SomeInvalid,
}

/// A cluster: one to five namespaces (not all declared by an object), nodes, 2 to 12 pods, 0 to 8 policies, 0
/// to 5 services with their EndpointSlices, in half of them up to 4 ClusterNetworkPolicies or forerunners of
/// theirs, and objects of kinds that no verdict depends on.
pub fn cluster(entries: Entries) -> impl Strategy<Value = Vec<Value>> {
    of_pods(vec(pods::pod(), 2..=PODS), 0..=8, 0..=SERVICES, 0..=4, entries)
}

/// A cluster for places that are there already: as many pods as there are addresses, the pods at even places
/// on the first node and those at odd places on the second one, with at least one policy and one service, and
/// without ClusterNetworkPolicies: others that play it do not know them.
pub fn placed_cluster() -> impl Strategy<Value = Vec<Value>> {
    let pods = vec(pods::pod(), PODS).prop_map(pods::in_turn);
    of_pods(pods, 1..=8, 1..=SERVICES, 0..=0, Entries::Valid)
}

/// The two addresses of every pod's place, in the order of the places.
pub fn places() -> impl Iterator<Item = [IpAddr; 2]> {
    let address = |text: String| text.parse().expect("an address");
    (0..PODS).map(move |slot| [pods::ipv4(slot), pods::ipv6(slot)].map(address))
}

fn of_pods(
    pods: impl Strategy<Value = Vec<pods::Pod>>,
    policies: RangeInclusive<usize>,
    services: RangeInclusive<usize>,
    cluster_policies: RangeInclusive<usize>,
    entries: Entries,
) -> impl Strategy<Value = Vec<Value>> {
    (
        1..=NAMESPACES.len(),
        vec(proptest::option::of(namespace_labels()), NAMESPACES.len()),
        pods,
        vec(policies::policy(entries), policies),
        vec(services::service(), services),
        prop_oneof![Just(Vec::new()), vec(cluster_policies::policy(entries), cluster_policies)],
        any::<bool>(),
    )
        .prop_map(|(count, declared, pods, policies, services, cluster_policies, with_others)| {
            let spaces = NAMESPACES[..count].iter();
            let mut objects: Vec<Value> = spaces.zip(declared).filter_map(namespace).collect();
            objects.extend(NODES.iter().map(|(name, address)| node(name, address)));
            let pods = pods::place(&pods, count);
            objects.extend(services::place(&services, &pods));
            objects.extend(pods);
            objects.extend(policies.into_iter().enumerate().map(|(slot, policy)| policy.object(slot, count)));
            objects.extend(cluster_policies::named(cluster_policies));
            if with_others {
                objects.extend(others());
            }
            objects
        })
}

/// Ports to ask about. Some are named: the names are those that pods declare.
pub fn ports() -> impl Strategy<Value = Vec<&'static str>> {
    sample::subsequence(PORTS, 1..=PORTS.len())
}

/// Addresses to ask about that belong to no pod and no node.
pub fn outside() -> impl Strategy<Value = Vec<IpAddr>> {
    sample::subsequence(OUTSIDE, 1..=8)
        .prop_map(|texts| texts.into_iter().map(|text| text.parse().expect("an address")).collect())
}

/// How many pods a cluster has at most: each has its own place in the address plan.
const PODS: usize = 12;
/// The same holds for services.
const SERVICES: usize = 5;
/// `red-1` sorts before `red/`: names are compared as whole strings. Some YAML readers take `y` for a
/// boolean.
const NAMESPACES: &[&str] = &["default", "red", "red-1", "y", "blue"];
const NODES: &[(&str, &str)] = &[("n1", "10.10.0.1"), ("n2", "10.10.0.2")];
const LABEL_VALUES: &[&str] = &["a", "b", "c", ""];
/// No one's addresses: around the pods' ranges, beside single pods, far away.
const OUTSIDE: &[&str] = &[
    "203.0.113.9",
    "2001:db8::9",
    "10.0.0.0",
    "10.0.0.16",
    "10.0.0.255",
    "10.0.1.0",
    "10.0.1.255",
    "10.0.2.0",
    "10.1.0.0",
    "10.1.0.12",
    "10.1.1.14",
    "10.1.255.255",
    "10.2.0.0",
    "9.255.255.255",
    "11.0.0.0",
    "127.255.255.255",
    "128.0.0.0",
    "255.255.255.255",
    "0.0.0.0",
    "::",
    "::1",
    "fcff:ffff::",
    "fd00::",
    "fd00::ff",
    "fd00::1:0:0",
    "fd00::1:0:0:0",
    "fd00:0:0:0:1:1:0:e",
    "fd00:1::",
    "fd01::",
    "7fff::",
    "8000::",
    "ffff::",
];
const NAMESPACE_KEYS: &[&str] = &["team", "env"];
const PORT_NAMES: &[&str] = &["http", "dns", "web"];
const PORT_NUMBERS: &[u16] = &[80, 53, 81, 443, 8080, 1, 65535];
const PROTOCOLS: &[&str] = &["TCP", "UDP", "SCTP"];
const PORTS: &[&str] = &[
    "TCP/80",
    "UDP/53",
    "TCP/http",
    "ICMP/8",
    "ICMPv6/128",
    "IP/47",
    "ICMP/3/1",
    "SCTP/80",
    "TCP/81",
    "UDP/80",
    "UDP/dns",
    "TCP/443",
    "TCP/8080",
    "SCTP/9000",
    "TCP/web",
    "TCP/1",
    "TCP/65535",
    "SCTP/http",
];

fn namespace_labels() -> impl Strategy<Value = Value> {
    labels(NAMESPACE_KEYS)
}

/// An object of labels: each key is there or not.
fn labels(keys: &'static [&'static str]) -> impl Strategy<Value = Value> {
    vec(proptest::option::of(sample::select(LABEL_VALUES)), keys.len()).prop_map(|values| {
        keys.iter().zip(values).filter_map(|(key, value)| Some((String::from(*key), json!(value?)))).collect()
    })
}

/// A namespace object; the API server's name label is not written, users do not write it either.
fn namespace((name, labels): (&&str, Option<Value>)) -> Option<Value> {
    let mut object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let labels = labels?;
    if labels != json!({}) {
        object["metadata"]["labels"] = labels;
    }
    Some(object)
}

fn node(name: &str, address: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"team": LABEL_VALUES[usize::from(name == "n2")], "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone(name)}},
        "status": {"addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": address}]},
    })
}

/// Each node is in one of its own.
fn zone(node: &str) -> String {
    format!("zone-of-{node}")
}

/// Objects that must not change any verdict: other kinds, and a namesake of another API group.
fn others() -> [Value; 3] {
    let deny_all = json!({"selector": "all()", "types": ["Ingress", "Egress"]});
    [
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"key": "value"}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 2}}),
        json!({
            "apiVersion": "example.com/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "deny-all"}, "spec": deny_all,
        }),
    ]
}

/// Sets a field, unless the value is `None`: the field is then missing.
fn set(object: &mut Value, field: &str, value: Option<Value>) {
    if let Some(value) = value {
        object[field] = value;
    }
}

/// A field that is missing, `null` or there. The first two mean the same to the API server.
fn optional(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Option<Value>> {
    prop_oneof![4 => Just(None), 1 => Just(Some(Value::Null)), 12 => value.prop_map(Some)]
}

#[cfg(test)]
mod tests;
