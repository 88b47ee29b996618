//! What a cluster's objects say, read from their text alone: for rules that share no code with podgate.
//!
//! In: objects as the API server holds them. Out: selections, addresses, prefixes. Left out: defaults and
//! validation.

use std::net::IpAddr;

use serde_json::Value;

/// The addresses of a pod's status.
pub fn addresses(pod: &Value) -> Vec<IpAddr> {
    let status = &pod["status"];
    let several = status["podIPs"].as_array().into_iter().flatten().map(|entry| &entry["ip"]);
    let all: Vec<_> = several.filter_map(Value::as_str).map(parsed).collect();
    if all.is_empty() { status["podIP"].as_str().map(parsed).into_iter().collect() } else { all }
}

fn parsed(address: &str) -> IpAddr {
    address.parse().expect("the API server takes addresses alone")
}

/// A pod that runs, in a network namespace of its own.
pub fn is_placed(object: &Value) -> bool {
    let is_over = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    object["kind"] == "Pod" && !is_over && object["spec"]["hostNetwork"] != true
}

pub(super) fn is_kubernetes(policy: &Value) -> bool {
    policy["apiVersion"] == "networking.k8s.io/v1"
}

/// A selector that is missing selects all, as an empty one does.
pub(super) fn selects(selector: &Value, labels: &Value) -> bool {
    let wanted = selector["matchLabels"].as_object().into_iter().flatten();
    let expressions = list(&selector["matchExpressions"]).iter();
    wanted.into_iter().all(|(key, value)| labels.get(key) == Some(value))
        && expressions.into_iter().all(|expression| {
            let found = expression["key"].as_str().and_then(|key| labels.get(key));
            let is_listed = || found.is_some_and(|found| list(&expression["values"]).contains(found));
            match expression["operator"].as_str() {
                Some("In") => is_listed(),
                Some("NotIn") => !is_listed(),
                Some("Exists") => found.is_some(),
                Some("DoesNotExist") => found.is_none(),
                other => panic!("no operator: {other:?}"),
            }
        })
}

/// With the old forms: leading zeros, and IPv4 mapped into IPv6.
pub(super) fn cidr(text: &Value) -> (IpAddr, u8) {
    let (address, length) =
        text.as_str().and_then(|text| text.split_once('/')).expect("a block is ADDRESS/LENGTH");
    let length: u8 = length.parse().expect("a length");
    let without_zeros = |part: &str| part.parse::<u8>().expect("a part of an address").to_string();
    let address: IpAddr = match address.contains(':') {
        true => address.parse().expect("an address"),
        false => {
            let parts: Vec<_> = address.split('.').map(without_zeros).collect();
            parts.join(".").parse().expect("an address")
        }
    };
    match address {
        IpAddr::V6(mapped) if let Some(v4) = mapped.to_ipv4_mapped() => (v4.into(), length - 96),
        address => (address, length),
    }
}

pub(super) fn namespace(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or("default")
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
