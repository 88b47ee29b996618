//! ClusterNetworkPolicies, tier by tier. Those of v1alpha1 are put into the words of v1alpha2 first.
//!
//! Quoted sentences are those of the API (`apis/v1alpha2/clusternetworkpolicy_types.go`). What the API server
//! would refuse is taken for what a newer one might store: the rule fails closed.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::{
    Connection, Direction, EndpointRef,
    cidr::Cidr,
    names::{domain_name_matches, has_learnt},
    object::{
        items, label, name_of, namespace_label, namespace_of, nodes, of_kind, port_number, port_numbers,
    },
    selector,
};

/// What one tier decides; `None`: it leaves the connection to the next tier.
pub(super) fn verdict(
    objects: &[Value],
    tier: &str,
    direction: Direction,
    pod: &Value,
    peer: EndpointRef<'_>,
    connection: &Connection<'_>,
) -> Option<bool> {
    let mut policies: Vec<Cow<'_, Value>> =
        all(objects).into_iter().filter(|policy| tier_of(policy) == tier).collect();
    // "Policies with lower priority values have higher precedence." "If two (or more) policies in the same
    // tier with the same priority could match a connection, then the implementation can apply any of the
    // matching policies": by name.
    policies.sort_by_key(|policy| {
        (place(policy).map_or(0, |(_, priority)| priority), name_of(policy).to_owned())
    });
    for policy in policies.iter().filter(|policy| selects(objects, policy, pod)) {
        let (rules, peers) = match direction {
            Direction::Ingress => (&policy["spec"]["ingress"], "from"),
            Direction::Egress => (&policy["spec"]["egress"], "to"),
        };
        // "A rule that appears at the top of the ingress rules would take the highest precedence."
        for rule in items(rules) {
            match outcome(objects, policy, rule, peers, peer, connection) {
                None => {}
                Some("Accept") => return Some(true),
                // "Skips all further ClusterNetworkPolicy rules in the current tier for the selected
                // traffic."
                Some("Pass") => return None,
                Some(_) => return Some(false),
            }
        }
    }
    None
}

/// The action of a rule that matches.
fn outcome<'a>(
    objects: &[Value],
    policy: &Value,
    rule: &'a Value,
    peers: &str,
    peer: EndpointRef<'_>,
    connection: &Connection<'_>,
) -> Option<&'a str> {
    let action = rule["action"].as_str();
    let is_understood = place(policy).is_some()
        && matches!(action, Some("Accept" | "Deny" | "Pass"))
        && !items(&rule[peers]).is_empty()
        && items(&rule[peers]).iter().all(|entry| is_peer(entry, peers, action))
        && (rule["protocols"].is_null()
            || !items(&rule["protocols"]).is_empty() && items(&rule["protocols"]).iter().all(is_protocol));
    if !is_understood {
        // "For "Accept" rules, "fail closed" means: "treat the rule as matching no traffic". For "Deny" and
        // "Pass" rules, "fail closed" means: "treat the rule as a 'Deny all' rule"."
        return (action != Some("Accept")).then_some("Deny");
    }
    // "If any element matches the source of incoming traffic then the specified action is applied."
    let is_for_peer = items(&rule[peers]).iter().any(|entry| peer_matches(objects, entry, peer, connection));
    // "If unspecified, protocol-specific attributes will not be used to match traffic."
    let is_for_port = rule["protocols"].is_null()
        || items(&rule["protocols"]).iter().any(|entry| protocol_matches(entry, connection));
    if is_for_peer && is_for_port { action } else { None }
}

/// Tier and priority; `None`: not understood.
fn place(policy: &Value) -> Option<(&str, u64)> {
    let spec = &policy["spec"];
    let tier = spec["tier"].as_str().filter(|tier| matches!(*tier, "Admin" | "Baseline"))?;
    let priority = spec["priority"].as_u64().filter(|priority| *priority <= 1000)?;
    Some((tier, priority))
}

/// One whose place is not known stands before all others.
fn tier_of(policy: &Value) -> &str {
    place(policy).map_or("Admin", |(tier, _)| tier)
}

/// "Note that host-networked pods are not included in subject selection": they are never asked about.
fn selects(objects: &[Value], policy: &Value, pod: &Value) -> bool {
    let subject = &policy["spec"]["subject"];
    match (subject["namespaces"].is_null(), subject["pods"].is_null()) {
        (false, true) => namespaces_match(objects, &subject["namespaces"], pod),
        (true, false) => pods_match(objects, &subject["pods"], pod),
        _ => false,
    }
}

/// "Namespaces is used to select pods via namespace selectors."
fn namespaces_match(objects: &[Value], namespaces: &Value, pod: &Value) -> bool {
    selector::matches(namespaces, |key| namespace_label(objects, namespace_of(pod), key))
}

/// "Pods is used to select pods via namespace AND pod selectors." "If empty, it selects all".
fn pods_match(objects: &[Value], pods: &Value, pod: &Value) -> bool {
    namespaces_match(objects, &or_empty(&pods["namespaceSelector"]), pod)
        && selector::matches(&or_empty(&pods["podSelector"]), |key| label(pod, key))
}

fn or_empty(selector: &Value) -> Value {
    if selector.is_null() { json!({}) } else { selector.clone() }
}

/// "Exactly one of the fields must be set for a given peer". One that is not known here is of another
/// release, and may narrow the peer.
fn is_peer(entry: &Value, list: &str, action: Option<&str>) -> bool {
    let fields: &[&str] = match list {
        "from" => &["namespaces", "pods"],
        _ => &["namespaces", "pods", "networks", "nodes", "domainNames"],
    };
    if !selector::has_only(entry, fields) {
        return false;
    }
    let mut given = fields.iter().filter(|field| !entry[**field].is_null());
    let (Some(field), None) = (given.next(), given.next()) else { return false };
    let value = &entry[*field];
    match *field {
        "namespaces" | "nodes" => is_selector(value),
        "pods" => {
            value.is_object()
                && selector::has_only(value, &["namespaceSelector", "podSelector"])
                && is_selector(&or_empty(&value["namespaceSelector"]))
                && is_selector(&or_empty(&value["podSelector"]))
        }
        "networks" => {
            !items(value).is_empty()
                && items(value).iter().all(|cidr| cidr.as_str().and_then(Cidr::parse).is_some())
        }
        // "DomainNames is only supported for Accept rules."
        _ => action == Some("Accept"),
    }
}

fn is_selector(value: &Value) -> bool {
    selector::is_valid(value) && selector::has_only_known(value)
}

fn peer_matches(
    objects: &[Value],
    entry: &Value,
    peer: EndpointRef<'_>,
    connection: &Connection<'_>,
) -> bool {
    let [namespaces, pods, networks, node_labels] =
        ["namespaces", "pods", "networks", "nodes"].map(|field| &entry[field]);
    // "Note that host-networked pods are not included in this type of peer."
    if !namespaces.is_null() {
        return peer.pod.is_some_and(|pod| namespaces_match(objects, namespaces, pod));
    }
    if !pods.is_null() {
        return peer.pod.is_some_and(|pod| pods_match(objects, pods, pod));
    }
    // "Cluster-internal traffic will be checked against the rule as well."
    if !networks.is_null() {
        let mut blocks = items(networks).iter().filter_map(|cidr| cidr.as_str().and_then(Cidr::parse));
        return blocks.any(|cidr| cidr.contains(peer.address));
    }
    // "It selects the nodeIPs as the peer type by matching on the IPs present in the node.Status.Addresses
    // field."
    if !node_labels.is_null() {
        return nodes(objects).any(|node| {
            selector::matches(node_labels, |key| label(node, key))
                && super::object::addresses_of_node(node).contains(&peer.address)
        });
    }
    // The addresses that the pod itself has learnt for such a name.
    items(&entry["domainNames"]).iter().filter_map(Value::as_str).any(|pattern| {
        has_learnt(objects, peer.address, connection, |name| domain_name_matches(pattern, name))
    })
}

/// "Exactly one field must be set."
fn is_protocol(entry: &Value) -> bool {
    if !selector::has_only(entry, &["tcp", "udp", "sctp", "destinationNamedPort"]) {
        return false;
    }
    let given: Vec<_> = ["tcp", "udp", "sctp"].iter().filter(|field| !entry[**field].is_null()).collect();
    let name = entry["destinationNamedPort"].as_str().filter(|name| !name.is_empty());
    match (&given[..], name) {
        ([], Some(_)) => true,
        ([field], None) => {
            let port = &entry[**field]["destinationPort"];
            let is_object = entry[**field].is_object();
            let is_known = selector::has_only(&entry[**field], &["destinationPort"])
                && selector::has_only(port, &["number", "range"])
                && selector::has_only(&port["range"], &["start", "end"]);
            match (port["number"].is_null(), port["range"].is_null()) {
                _ if !is_known => false,
                _ if port.is_null() => is_object,
                (false, true) => port_number(&port["number"]).is_some(),
                (true, false) => range(&port["range"]).is_some(),
                _ => false,
            }
        }
        _ => false,
    }
}

/// "start must be less than end".
fn range(range: &Value) -> Option<(u16, u16)> {
    let (start, end) = (port_number(&range["start"])?, port_number(&range["end"])?);
    (start < end).then_some((start, end))
}

fn protocol_matches(entry: &Value, connection: &Connection<'_>) -> bool {
    if let Some(name) = entry["destinationNamedPort"].as_str().filter(|name| !name.is_empty()) {
        // "Selects a destination port on a pod based on the ContainerPort name": with the protocol that
        // stands there.
        let pod = connection.destination.pod;
        return pod
            .is_some_and(|pod| port_numbers(pod, name, connection.protocol).contains(&connection.port));
    }
    let field = connection.protocol.to_lowercase();
    let of_protocol = &entry[&field];
    let port = &of_protocol["destinationPort"];
    if of_protocol.is_null() {
        return false;
    }
    match (port_number(&port["number"]), range(&port["range"])) {
        (Some(number), _) => number == connection.port,
        (None, Some((first, last))) => (first..=last).contains(&connection.port),
        (None, None) => port.is_null(),
    }
}

/// All of them, as v1alpha2 and v1beta1 write them.
fn all(objects: &[Value]) -> Vec<Cow<'_, Value>> {
    let own = ["policy.networking.k8s.io/v1alpha2", "policy.networking.k8s.io/v1beta1"];
    let own = own.into_iter().flat_map(|version| of_kind(objects, version, "ClusterNetworkPolicy"));
    let own = own.map(Cow::Borrowed);
    let older = "policy.networking.k8s.io/v1alpha1";
    let admin = of_kind(objects, older, "AdminNetworkPolicy").map(|policy| {
        let mut policy = in_new_words(policy);
        policy["spec"]["tier"] = "Admin".into();
        Cow::Owned(policy)
    });
    let baseline = of_kind(objects, older, "BaselineAdminNetworkPolicy").map(|policy| {
        let mut policy = in_new_words(policy);
        policy["spec"]["tier"] = "Baseline".into();
        policy["spec"]["priority"] = 0.into();
        Cow::Owned(policy)
    });
    // AWS's have tier and priority of their own, and list ports in the older way.
    let aws = of_kind(objects, "networking.k8s.aws/v1alpha1", "ClusterNetworkPolicy");
    own.chain(admin).chain(baseline).chain(aws.map(in_new_words).map(Cow::Owned)).collect()
}

fn in_new_words(policy: &Value) -> Value {
    let mut policy = policy.clone();
    for direction in ["ingress", "egress"] {
        for rule in policy["spec"][direction].as_array_mut().into_iter().flatten() {
            if rule["action"] == "Allow" {
                rule["action"] = "Accept".into();
            }
            let ports = rule["ports"].take();
            rule["protocols"] = match &ports {
                Value::Array(entries) => entries.iter().map(in_new_port).collect(),
                other => other.clone(),
            };
        }
    }
    policy
}

fn in_new_port(entry: &Value) -> Value {
    let of = |entry: &Value, port: Value| {
        let protocol = entry["protocol"].as_str().unwrap_or("TCP").to_lowercase();
        Value::Object(Map::from_iter([(protocol, json!({"destinationPort": port}))]))
    };
    let [number, range, name] = ["portNumber", "portRange", "namedPort"].map(|field| &entry[field]);
    let is_known = selector::has_only(entry, &["portNumber", "portRange", "namedPort"])
        && selector::has_only(number, &["protocol", "port"])
        && selector::has_only(range, &["protocol", "start", "end"]);
    if !is_known {
        return json!({});
    }
    match (number.is_null(), range.is_null(), name.is_null()) {
        (false, true, true) => of(number, json!({"number": number["port"]})),
        (true, false, true) => of(range, json!({"range": {"start": range["start"], "end": range["end"]}})),
        (true, true, false) => json!({"destinationNamedPort": name}),
        _ => json!({}),
    }
}
