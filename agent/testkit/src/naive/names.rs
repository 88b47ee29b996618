//! Names of the DNS: what pods have learnt, and the rules of AWS's and GKE's policies that speak of names.
//!
//! Quoted sentences are those of the definitions of ClusterNetworkPolicy and ApplicationNetworkPolicy, and of
//! GKE's FQDNNetworkPolicy.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{
    Connection,
    object::{items, name_of, namespace_of, of_kind, port_number},
};

/// The kind of what a pod has learnt, and its version: among the objects, and not Kubernetes'.
const LEARNT: &str = "learnt";

/// For the objects: a resolver has answered this pod that a name has an address.
pub fn learnt(pod: &str, name: &str, address: IpAddr) -> Value {
    json!({
        "apiVersion": LEARNT, "kind": LEARNT, "pod": pod, "name": name, "address": address.to_string(),
    })
}

/// Whether the client has learnt the address for a name that is meant.
pub(super) fn has_learnt(
    objects: &[Value],
    address: IpAddr,
    connection: &Connection<'_>,
    is_meant: impl Fn(&str) -> bool,
) -> bool {
    let Some(pod) = connection.source.pod.filter(|_| !is_special(address)) else { return false };
    of_kind(objects, LEARNT, LEARNT).any(|learnt| {
        learnt["pod"] == format!("{}/{}", namespace_of(pod), name_of(pod))
            && learnt["address"] == address.to_string()
            && learnt["name"].as_str().is_some_and(&is_meant)
    })
}

/// Addresses to which no name leads: unspecified, loopback, link-local, multicast and reserved ones.
fn is_special(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, ..] = v4.octets();
            first == 0 || v4.is_loopback() || v4.is_link_local() || first >= 224
        }
        IpAddr::V6(v6) => {
            let first = v6.segments()[0];
            v6.segments()[..4] == [0; 4] || v6.is_multicast() || (0xfe80..=0xfeff).contains(&first)
        }
    }
}

/// "'*', the wildcard specifier, matches one or more entire labels." Upper case is lower case, and a dot at
/// the end says nothing.
pub(super) fn domain_name_matches(pattern: &str, name: &str) -> bool {
    let pattern = pattern.to_ascii_lowercase();
    let pattern = pattern.strip_suffix('.').unwrap_or(&pattern);
    match pattern.strip_prefix('*') {
        Some(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
        None => pattern == name,
    }
}

/// The kind of GKE's policies.
pub(super) const FQDN_POLICY: &str = "FQDNNetworkPolicy";

/// "The exact L4 endpoints are constructed as a cross-product between the matches and ports lists."
pub(super) fn fqdn_rule_allows(
    objects: &[Value],
    rule: &Value,
    address: IpAddr,
    connection: &Connection<'_>,
) -> bool {
    let is_named = items(&rule["matches"]).iter().any(|entry| {
        has_learnt(objects, address, connection, |name| match (&entry["name"], &entry["pattern"]) {
            (Value::String(wanted), Value::Null) => domain_name_matches(wanted, name),
            (Value::Null, Value::String(pattern)) => pattern_matches(pattern, name),
            // "Exactly one of the sub-fields of FQDNNetworkPolicyMatch must be set."
            _ => false,
        })
    });
    // "If ports is missing or empty, all ports and protocols are allowed."
    let ports = items(&rule["ports"]);
    is_named && (ports.is_empty() || ports.iter().any(|entry| fqdn_port_matches(entry, connection)))
}

/// "`*.google.com` matches subdomains of google.com at that level": one label.
fn pattern_matches(pattern: &str, name: &str) -> bool {
    let before = name.split_once('.').map(|(_, behind)| format!("*.{behind}"));
    let pattern = pattern.to_ascii_lowercase();
    pattern == name || before.is_some_and(|before| before == pattern)
}

/// "If Protocol is missing or empty, it defaults to allowing all protocols." "If Port is missing or empty, it
/// matches all ports."
fn fqdn_port_matches(entry: &Value, connection: &Connection<'_>) -> bool {
    let is_any = matches!(entry["protocol"].as_str(), None | Some("ALL"));
    let is_port = entry["port"].is_null() || port_number(&entry["port"]) == Some(connection.port);
    let has_ports = matches!(connection.protocol, "TCP" | "UDP" | "SCTP");
    let is_whole = is_any && entry["port"].is_null();
    is_whole || has_ports && is_port && (is_any || entry["protocol"] == connection.protocol)
}
