//! Generated objects in the forms that Calico takes.
//!
//! In: objects of the oracle's generator, which also makes objects that Calico's client library refuses or
//! that its agent cannot read. Out: the same without those parts, so that whole policies are compared and not
//! left out. Objects that are refused all the same are left out later.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value, json};

pub(crate) fn prepared(object: Value) -> Value {
    let mut object = plain(object);
    if object["apiVersion"].as_str().is_some_and(|version| version.contains("projectcalico.org")) {
        for (list, own_end) in [("ingress", "destination"), ("egress", "source")] {
            let rules = object["spec"].get_mut(list).and_then(Value::as_array_mut);
            for rule in rules.into_iter().flatten().filter_map(Value::as_object_mut) {
                without_contradictions(rule, own_end);
                of_one_family(rule);
            }
        }
        // Only what is in no namespace would match, and no pod is.
        if object["spec"]["namespaceSelector"].as_str().is_some_and(|text| text.contains("global()")) {
            object["spec"]["namespaceSelector"] = json!("all()");
        }
    }
    object
}

/// Policies of one order that contradict each other: two of Calico's, of which one is in the namespace of the
/// first pod, or one of Calico's and those of Kubernetes. Those of the generator hardly ever do.
pub(crate) fn ties(objects: &[Value], number: u32) -> Vec<Value> {
    let policy = |kind: &str, name: &str, order: u16, action: &str| {
        json!({
            "apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name},
            "spec": {"order": order, "types": ["Ingress"], "ingress": [{"action": action}]},
        })
    };
    match number % 5 {
        0 => {
            let pod = objects.iter().find(|object| object["kind"] == "Pod");
            let namespace = pod.map_or(&Value::Null, |pod| &pod["metadata"]["namespace"]);
            let mut own = policy("NetworkPolicy", "tie-1", 7, "Allow");
            own["metadata"]["namespace"] = json!(namespace.as_str().unwrap_or("default"));
            vec![policy("GlobalNetworkPolicy", "tie-2", 7, "Deny"), own]
        }
        1 => {
            // Calico's library would begin the name with the tier, and so before all of Kubernetes'.
            let mut by_hand = policy("GlobalNetworkPolicy", "z-tie", 1_000, "Deny");
            by_hand["apiVersion"] = json!("crd.projectcalico.org/v1");
            vec![by_hand]
        }
        _ => Vec::new(),
    }
}

/// Blocks with leading zeros, or of IPv4 in IPv6, in the form of today. Go cannot read the first; Calico's
/// agent then takes a rule of a NetworkPolicy for one without any block, and ends at such a network set.
fn plain(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(plain_block(&text).unwrap_or(text)),
        Value::Array(items) => items.into_iter().map(plain).collect(),
        Value::Object(fields) => fields.into_iter().map(|(key, value)| (key, plain(value))).collect(),
        other => other,
    }
}

fn plain_block(text: &str) -> Option<String> {
    let (address, length) = text.split_once('/')?;
    let length: u8 = length.parse().ok()?;
    if let Some(IpAddr::V6(address)) = address.contains(':').then(|| address.parse().ok()).flatten() {
        return Some(format!("{}/{}", address.to_ipv4_mapped()?, length.checked_sub(96)?));
    }
    let parts: Option<Vec<String>> =
        address.split('.').map(|part| Some(part.parse::<u8>().ok()?.to_string())).collect();
    let parts = parts.filter(|parts| parts.len() == 4)?;
    Some(format!("{}/{length}", parts.join(".")))
}

/// A Service is an end of its own, not the pod behind it; messages are of ICMP; and conditions on HTTP, which
/// Calico leaves to another program, are tested only in podgate's own tests.
fn without_contradictions(rule: &mut Map<String, Value>, own_end: &str) {
    let is_icmp = rule.get("protocol").is_some_and(|protocol| family_of(protocol).is_some());
    for field in ["icmp", "notICMP"].into_iter().filter(|_| !is_icmp).chain(["http"]) {
        rule.remove(field);
    }
    for end in ["source", "destination"] {
        let Some(fields) = rule.get_mut(end).and_then(Value::as_object_mut) else { continue };
        if end == own_end {
            fields.remove("services");
        }
        if fields.contains_key("services") {
            fields.retain(|field, _| field == "services");
        }
    }
}

/// Of a protocol that is a version of ICMP.
fn family_of(protocol: &Value) -> Option<u64> {
    match (protocol.as_str(), protocol.as_u64()) {
        (Some("ICMP"), _) | (_, Some(1)) => Some(4),
        (Some("ICMPv6"), _) | (_, Some(58)) => Some(6),
        _ => None,
    }
}

/// Calico takes a rule with networks of one family alone, that of its ICMP or of `ipVersion`; and none that
/// excludes everything.
fn of_one_family(rule: &mut Map<String, Value>) {
    let of_protocol = rule.get("protocol").and_then(family_of);
    if let Some(family) = of_protocol {
        rule.insert("ipVersion".into(), json!(family));
        // By its number it has no messages.
        rule.insert("protocol".into(), json!(if family == 4 { "ICMP" } else { "ICMPv6" }));
    }
    let mut family = rule.get("ipVersion").and_then(Value::as_u64);
    for end in ["source", "destination"] {
        for list in ["nets", "notNets"] {
            let nets = rule.get_mut(end).and_then(|end| end.get_mut(list)).and_then(Value::as_array_mut);
            let Some(nets) = nets else { continue };
            nets.iter_mut().for_each(|net| *net = json!(network(net.as_str().unwrap_or_default())));
            nets.retain(|net| {
                let text = net.as_str().unwrap_or_default();
                let of_net = if text.contains(':') { 6 } else { 4 };
                let is_everything = list == "notNets" && text.ends_with("/0");
                !is_everything && *family.get_or_insert(of_net) == of_net
            });
        }
    }
}

/// The network without the bits of a host, and with its length.
fn network(text: &str) -> String {
    let (address, length) =
        text.split_once('/').unwrap_or((text, if text.contains(':') { "128" } else { "32" }));
    let length: u32 = length.parse().expect("the generator writes lengths");
    match address.parse().expect("the generator writes addresses") {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            format!("{}/{length}", Ipv4Addr::from_bits(address.to_bits() & mask))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            format!("{}/{length}", Ipv6Addr::from_bits(address.to_bits() & mask))
        }
    }
}
