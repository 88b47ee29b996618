//! What the evaluator reads off raw objects: namespaces, labels, addresses, named ports, with the API's
//! defaults.
//!
//! A field that is `null` counts as missing, as it does for the API server.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::Value;

pub(super) fn pods(objects: &[Value]) -> impl Iterator<Item = &Value> {
    of_kind(objects, "v1", "Pod")
}

/// The pod `namespace/name`.
pub(super) fn pod<'a>(objects: &'a [Value], namespace: &str, name: &str) -> &'a Value {
    pods(objects)
        .find(|pod| namespace_of(pod) == namespace && name_of(pod) == name)
        .unwrap_or_else(|| panic!("no pod {namespace}/{name}"))
}

/// Also AWS's and GKE's of the same meaning: "FQDNNetworkPolicy works additively with Kubernetes Network
/// Policies."
pub(super) fn policies(objects: &[Value]) -> impl Iterator<Item = &Value> {
    let kinds = [
        ("networking.k8s.io/v1", "NetworkPolicy"),
        ("networking.k8s.aws/v1alpha1", "ApplicationNetworkPolicy"),
        ("networking.gke.io/v1alpha1", super::names::FQDN_POLICY),
    ];
    kinds.into_iter().flat_map(|(version, kind)| of_kind(objects, version, kind))
}

pub(super) fn services(objects: &[Value]) -> impl Iterator<Item = &Value> {
    of_kind(objects, "v1", "Service")
}

/// The service `namespace/name`.
pub(super) fn service<'a>(objects: &'a [Value], namespace: &str, name: &str) -> &'a Value {
    services(objects)
        .find(|service| namespace_of(service) == namespace && name_of(service) == name)
        .unwrap_or_else(|| panic!("no service {namespace}/{name}"))
}

pub(super) fn slices(objects: &[Value]) -> impl Iterator<Item = &Value> {
    of_kind(objects, "discovery.k8s.io/v1", "EndpointSlice")
}

pub(super) fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Without `metadata.namespace`, an object is in `default`.
pub(super) fn namespace_of(object: &Value) -> &str {
    match object["metadata"]["namespace"].as_str() {
        None | Some("") => "default",
        Some(namespace) => namespace,
    }
}

pub(super) fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"]["labels"][key].as_str()
}

/// A label of a namespace. "The Kubernetes control plane sets an immutable label kubernetes.io/metadata.name
/// on all namespaces, the value of the label is the namespace name." A namespace that no object declares has
/// that one alone.
pub(super) fn namespace_label<'a>(objects: &'a [Value], namespace: &'a str, key: &str) -> Option<&'a str> {
    if key == "kubernetes.io/metadata.name" {
        return Some(namespace);
    }
    of_kind(objects, "v1", "Namespace")
        .find(|found| name_of(found) == namespace)
        .and_then(|found| label(found, key))
}

/// A finished pod has given its addresses back. One that is being deleted still runs, one that is pending may
/// have an address already.
pub(super) fn is_alive(pod: &Value) -> bool {
    !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

pub(super) fn on_host_network(pod: &Value) -> bool {
    pod["spec"]["hostNetwork"] == true
}

pub(super) fn node_of(pod: &Value) -> Option<&str> {
    pod["spec"]["nodeName"].as_str()
}

/// `status.podIPs`; where that is missing, `status.podIP`.
pub(super) fn addresses(pod: &Value) -> Vec<IpAddr> {
    let status = &pod["status"];
    let several: Vec<_> = items(&status["podIPs"]).iter().filter_map(|entry| address(&entry["ip"])).collect();
    if several.is_empty() { address(&status["podIP"]).into_iter().collect() } else { several }
}

pub(super) fn node_addresses(objects: &[Value], name: &str) -> Vec<IpAddr> {
    nodes(objects).filter(|node| name_of(node) == name).flat_map(addresses_of_node).collect()
}

pub(super) fn nodes(objects: &[Value]) -> impl Iterator<Item = &Value> {
    of_kind(objects, "v1", "Node")
}

pub(super) fn addresses_of_node(node: &Value) -> Vec<IpAddr> {
    items(&node["status"]["addresses"]).iter().filter_map(|entry| address(&entry["address"])).collect()
}

/// The node that has this address.
pub(super) fn node_with<'a>(objects: &'a [Value], address: &IpAddr) -> Option<&'a str> {
    nodes(objects).map(name_of).find(|name| node_addresses(objects, name).contains(address))
}

/// The number of a port as it is asked for. In its place stand the type of a message of ICMP times 256, and
/// its code: `8`, `3/13`; or the number of another protocol. `None`: it is a name.
pub(crate) fn asked_number(protocol: &str, text: &str) -> Option<u16> {
    if !matches!(protocol, "ICMP" | "ICMPv6") {
        return text.parse().ok();
    }
    let (kind, code) = text.split_once('/').unwrap_or((text, "0"));
    Some(256 * kind.parse::<u16>().ok()? + code.parse::<u16>().ok()?)
}

/// The numbers behind a port name on a pod: name *and* protocol must be equal. Restartable init containers
/// ("sidecars") run beside the containers, so theirs count; those of other init containers do not.
pub(super) fn port_numbers(pod: &Value, name: &str, protocol: &str) -> BTreeSet<u16> {
    let sidecars = items(&pod["spec"]["initContainers"])
        .iter()
        .filter(|container| container["restartPolicy"] == "Always");
    items(&pod["spec"]["containers"])
        .iter()
        .chain(sidecars)
        .flat_map(|container| items(&container["ports"]))
        .filter(|port| port["name"] == name && port["protocol"].as_str().unwrap_or("TCP") == protocol)
        .filter_map(|port| port["containerPort"].as_u64())
        .map(|number| u16::try_from(number).expect("a container port is at most 65535"))
        .collect()
}

/// The elements of a list; none when it is missing.
pub(super) fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(super) fn of_kind<'a>(
    objects: &'a [Value],
    version: &str,
    kind: &str,
) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["apiVersion"] == version && object["kind"] == kind)
}

/// 1 to 65535.
pub(super) fn port_number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|number| u16::try_from(number).ok()).filter(|number| *number != 0)
}

pub(super) fn address(value: &Value) -> Option<IpAddr> {
    value.as_str()?.parse().ok()
}
