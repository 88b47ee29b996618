//! One NetworkPolicy: whom it selects, what it isolates, what its rules allow.
//!
//! A policy that the API server would refuse loses only what is wrong with it: an entry of `from`, `to` or
//! `ports` that is not valid matches nothing, and so allows nothing; the policy still isolates.

use serde_json::Value;

use super::{
    Connection, Direction, EndpointRef,
    cidr::Cidr,
    names::{FQDN_POLICY, domain_name_matches, fqdn_rule_allows, has_learnt},
    object::{items, label, namespace_label, namespace_of, port_number, port_numbers},
    selector,
};

/// "podSelector selects the pods to which this NetworkPolicy object applies. ... An empty selector matches
/// all pods in the policy's namespace. ... This field is optional. If it is not specified, it defaults to an
/// empty selector."
pub(super) fn selects(policy: &Value, pod: &Value) -> bool {
    let subjects = &policy["spec"]["podSelector"];
    namespace_of(policy) == namespace_of(pod)
        && (subjects.is_null() || selector::matches(subjects, |key| label(pod, key)))
}

/// Whether the policy isolates the pods that it selects. "policyTypes is a list of rule types that the
/// NetworkPolicy relates to. Valid options are ["Ingress"], ["Egress"], or ["Ingress", "Egress"]." The
/// letters' case does not matter; of another word it is not known what was meant, and the policy isolates
/// both ways.
pub(super) fn isolates(policy: &Value, direction: Direction) -> bool {
    let spec = &policy["spec"];
    // "FQDNNetworkPolicy has no effect on the allowed ingress traffic."
    if policy["kind"] == FQDN_POLICY {
        return direction == Direction::Egress;
    }
    let types = items(&spec["policyTypes"]);
    if !types.is_empty() {
        let other = match direction {
            Direction::Ingress => "egress",
            Direction::Egress => "ingress",
        };
        return types.iter().any(|listed| listed.as_str().is_none_or(|word| word.to_lowercase() != other));
    }
    // "If this field is not specified, it will default based on the existence of ingress or egress rules;
    // policies that contain an egress section are assumed to affect egress, and all policies (whether or not
    // they contain an ingress section) are assumed to affect ingress."
    match direction {
        Direction::Ingress => true,
        Direction::Egress => !items(&spec["egress"]).is_empty(),
    }
}

/// "If this field is empty then this NetworkPolicy does not allow any traffic (and serves solely to ensure
/// that the pods it selects are isolated by default)."
pub(super) fn rules(policy: &Value, direction: Direction) -> &[Value] {
    items(match direction {
        Direction::Ingress => &policy["spec"]["ingress"],
        Direction::Egress => &policy["spec"]["egress"],
    })
}

/// "The traffic must match both ports and from." (for egress: "both ports and to")
pub(super) fn rule_allows(
    objects: &[Value],
    policy_namespace: &str,
    rule: &Value,
    direction: Direction,
    peer: EndpointRef<'_>,
    connection: &Connection<'_>,
) -> bool {
    if !rule["matches"].is_null() {
        return fqdn_rule_allows(objects, rule, peer.address, connection);
    }
    let peers = match direction {
        Direction::Ingress => &rule["from"],
        Direction::Egress => &rule["to"],
    };
    any_or_unrestricted(peers, |entry| peer_matches(objects, policy_namespace, entry, peer, connection))
        && any_or_unrestricted(&rule["ports"], |entry| port_matches(entry, connection))
}

/// "Items in this list are combined using a logical OR operation. If this field is empty or missing, this
/// rule matches all sources (traffic not restricted by source). If this field is present and contains at
/// least one item, this rule allows traffic only if the traffic matches at least one item in the from list."
/// The same for `to` and `ports`.
fn any_or_unrestricted(list: &Value, matches: impl Fn(&Value) -> bool) -> bool {
    let is_missing_or_empty = list.is_null() || list.as_array().is_some_and(Vec::is_empty);
    is_missing_or_empty || items(list).iter().any(matches)
}

fn peer_matches(
    objects: &[Value],
    policy_namespace: &str,
    entry: &Value,
    peer: EndpointRef<'_>,
    connection: &Connection<'_>,
) -> bool {
    // Of AWS's policies: "This field is mutually exclusive with PodSelector, NamespaceSelector, and IPBlock."
    if !entry["domainNames"].is_null() {
        return items(&entry["domainNames"]).iter().filter_map(Value::as_str).any(|pattern| {
            has_learnt(objects, peer.address, connection, |name| domain_name_matches(pattern, name))
        });
    }
    let [pods, namespaces, block] =
        ["podSelector", "namespaceSelector", "ipBlock"].map(|field| &entry[field]);
    match (pods.is_null(), namespaces.is_null(), block.is_null()) {
        // "must specify a peer" (validation).
        (true, true, true) => false,
        // An address of a pod or of a node counts like any other.
        (true, true, false) => block_contains(block, peer),
        // "If this field is set then neither of the other fields can be."
        (_, _, false) => false,
        // "Otherwise it selects the pods matching podSelector in the policy's own namespace."
        (false, true, true) => peer.pod.is_some_and(|pod| {
            namespace_of(pod) == policy_namespace && selector::matches(pods, |key| label(pod, key))
        }),
        // "Otherwise it selects all pods in the namespaces selected by namespaceSelector."
        (true, false, true) => peer.pod.is_some_and(|pod| namespace_matches(objects, namespaces, pod)),
        // "If namespaceSelector is also set, then the NetworkPolicyPeer as a whole selects the pods matching
        // podSelector in the Namespaces selected by NamespaceSelector."
        (false, false, true) => peer.pod.is_some_and(|pod| {
            namespace_matches(objects, namespaces, pod) && selector::matches(pods, |key| label(pod, key))
        }),
    }
}

/// "namespaceSelector selects namespaces using cluster-scoped labels. This field follows standard label
/// selector semantics; if present but empty, it selects all namespaces."
fn namespace_matches(objects: &[Value], namespaces: &Value, pod: &Value) -> bool {
    selector::matches(namespaces, |key| namespace_label(objects, namespace_of(pod), key))
}

/// "except is a slice of CIDRs that should not be included within an IPBlock. ... Except values will be
/// rejected if they are outside the cidr range." A rejected one makes the whole entry match nothing: without
/// it, it would allow more than was meant.
fn block_contains(block: &Value, peer: EndpointRef<'_>) -> bool {
    let Some(cidr) = block["cidr"].as_str().and_then(Cidr::parse) else { return false };
    let excepts = items(&block["except"]).iter().map(|entry| entry.as_str().and_then(Cidr::parse));
    let Some(excepts) = excepts.collect::<Option<Vec<_>>>() else { return false };
    excepts.iter().all(|except| cidr.contains_strictly(*except))
        && cidr.contains(peer.address)
        && !excepts.iter().any(|except| except.contains(peer.address))
}

fn port_matches(entry: &Value, connection: &Connection<'_>) -> bool {
    // "protocol represents the protocol (TCP, UDP, or SCTP) which traffic must match. If not specified, this
    // field defaults to TCP."
    let protocol = match &entry["protocol"] {
        Value::Null => "TCP",
        Value::String(name) if matches!(name.as_str(), "TCP" | "UDP" | "SCTP") => name,
        _ => return false,
    };
    if !entry.is_object() || protocol != connection.protocol {
        return false;
    }
    let end_port = &entry["endPort"];
    match &entry["port"] {
        // "If this field is not provided, this matches all port names and numbers." And of endPort: "This
        // field cannot be defined if the port field is not defined or if the port field is defined as a named
        // (string) port."
        Value::Null => end_port.is_null(),
        Value::String(name) => {
            end_port.is_null()
                && is_port_name(name)
                && connection
                    .destination
                    .pod
                    .is_some_and(|pod| port_numbers(pod, name, protocol).contains(&connection.port))
        }
        // "endPort indicates that the range of ports from port to endPort if set, inclusive, should be
        // allowed by the policy. ... The endPort must be equal or greater than port."
        first => {
            let last = if end_port.is_null() { first } else { end_port };
            match (port_number(first), port_number(last)) {
                (Some(first), Some(last)) => first <= last && (first..=last).contains(&connection.port),
                _ => false,
            }
        }
    }
}

/// "must be no more than 15 characters, must contain only alphanumeric characters (a-z, 0-9), and hyphens
/// (-), must contain at least one letter (a-z), must not contain consecutive hyphens, nor begin or end with
/// one" (validation).
fn is_port_name(name: &str) -> bool {
    name.len() <= 15
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && name.contains(|c: char| c.is_ascii_lowercase())
        && !name.contains("--")
        && !name.starts_with('-')
        && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_names_are_service_names() {
        for (name, valid) in [
            ("http", true),
            ("a", true),
            ("8080-tcp", true),
            ("fifteen-letters", true),
            ("sixteen--letters", false),
            ("sixteen-letters-", false),
            ("", false),
            ("80", false),
            ("HTTP", false),
            ("a_b", false),
            ("-a", false),
            ("a-", false),
            ("a--b", false),
        ] {
            assert_eq!(is_port_name(name), valid, "{name:?}");
        }
    }
}
