//! Entries that the API server would refuse, and a mutation that puts one in the place of a good one.

use serde_json::Value;

/// A policy list entry that was replaced, in words.
#[derive(Clone, Debug)]
pub struct Spoiled {
    pub objects: Vec<Value>,
    pub what: String,
}

/// Replaces one entry of one rule by an invalid one. `choice` picks which; `None` when no rule has an entry.
pub fn spoil(objects: &[Value], choice: usize) -> Option<Spoiled> {
    let mut places = Vec::new();
    for (index, object) in objects.iter().enumerate() {
        if object["kind"] == "ClusterNetworkPolicy" {
            collect_cluster(&object["spec"]["ingress"], &format!("/{index}/spec/ingress"), &mut places);
            collect_cluster(&object["spec"]["egress"], &format!("/{index}/spec/egress"), &mut places);
        }
        if object["kind"] == "NetworkPolicy" {
            collect(&object["spec"]["ingress"], &format!("/{index}/spec/ingress"), &mut places);
            collect(&object["spec"]["egress"], &format!("/{index}/spec/egress"), &mut places);
        }
    }
    let (path, invalid) = places.get(choice % places.len().max(1))?;
    let text = invalid[choice / places.len() % invalid.len()];
    let mut all = Value::from(objects.to_vec());
    *all.pointer_mut(path).expect("the path was found in these objects") =
        serde_json::from_str(text).expect("the tables of invalid entries hold JSON");
    let Value::Array(objects) = all else { unreachable!("it was made from a list") };
    Some(Spoiled { objects, what: format!("{path} = {text}") })
}

pub(super) const INVALID_PEERS: &[&str] = &[
    r#"{}"#,
    r#"{"podSelector": null}"#,
    r#"{"podSelector": {}, "ipBlock": {"cidr": "0.0.0.0/0"}}"#,
    r#"{"namespaceSelector": {}, "ipBlock": {"cidr": "::/0"}}"#,
    r#"{"ipBlock": {}}"#,
    r#"{"ipBlock": {"cidr": ""}}"#,
    r#"{"ipBlock": {"cidr": "10.0.0.1"}}"#,
    r#"{"ipBlock": {"cidr": "10.0.0.0/33"}}"#,
    r#"{"ipBlock": {"cidr": "10.0.0.256/8"}}"#,
    r#"{"ipBlock": {"cidr": "fd00::/129"}}"#,
    r#"{"ipBlock": {"cidr": "everything"}}"#,
    r#"{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["192.168.0.0/16"]}}"#,
    r#"{"ipBlock": {"cidr": "10.0.0.0/16", "except": ["10.0.0.0/16"]}}"#,
    r#"{"ipBlock": {"cidr": "10.0.0.0/16", "except": ["10.0.0.0/8"]}}"#,
    r#"{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["::/1"]}}"#,
    r#"{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.1.0.0/16", "10.0.0.0"]}}"#,
    r#"{"podSelector": {"matchLabels": {"app": "bad value!"}}}"#,
    r#"{"podSelector": {"matchLabels": {"bad key!": "a"}}}"#,
    r#"{"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["-"]}]}}"#,
    r#"{"namespaceSelector": {}, "podSelector": {"matchExpressions": [{"key": "app", "operator": "Exists", "values": ["a"]}]}}"#,
];

pub(super) const INVALID_PORTS: &[&str] = &[
    r#"{"port": 0}"#,
    r#"{"port": -1}"#,
    r#"{"port": 65536}"#,
    r#"{"port": 443, "endPort": 80}"#,
    r#"{"port": 80, "endPort": 65536}"#,
    r#"{"port": 80, "endPort": 0}"#,
    r#"{"endPort": 8080}"#,
    r#"{"port": "http", "endPort": 8080}"#,
    r#"{"port": "80"}"#,
    r#"{"port": ""}"#,
    r#"{"port": "HTTP"}"#,
    r#"{"port": "a-name-of-16-char"}"#,
    r#"{"port": "web--ui"}"#,
    r#"{"protocol": "tcp", "port": 80}"#,
    r#"{"protocol": "ICMP"}"#,
    r#"{"protocol": ""}"#,
];

pub(super) const INVALID_EXPRESSIONS: &[&str] = &[
    r#"{"key": "app", "operator": "In", "values": []}"#,
    r#"{"key": "app", "operator": "NotIn"}"#,
    r#"{"key": "app", "operator": "Exists", "values": ["a"]}"#,
    r#"{"key": "app", "operator": "DoesNotExist", "values": ["a"]}"#,
    r#"{"key": "app", "operator": "Equals", "values": ["a"]}"#,
    r#"{"key": "app", "operator": "in", "values": ["a"]}"#,
    r#"{"key": "app", "values": ["a"]}"#,
    r#"{"operator": "Exists"}"#,
    r#"{"key": "", "operator": "DoesNotExist"}"#,
    r#"{"key": "bad key!", "operator": "DoesNotExist"}"#,
    r#"{"key": "app", "operator": "NotIn", "values": ["bad value!"]}"#,
    r#"{"key": "app", "operator": "In", "values": ["a", "bad value!"]}"#,
];

/// Of `from`, where networks and nodes are no peers.
pub(super) const INVALID_CLUSTER_PEERS: &[&str] = &[
    r#"{}"#,
    r#"{"services": {}}"#,
    r#"{"namespaces": null}"#,
    r#"{"namespaces": {}, "pods": {"namespaceSelector": {}, "podSelector": {}}}"#,
    r#"{"pods": []}"#,
    r#"{"networks": ["0.0.0.0/0"]}"#,
    r#"{"nodes": {}}"#,
    r#"{"namespaces": {"matchLabels": {"team": "bad value!"}}}"#,
    r#"{"pods": {"namespaceSelector": {}, "podSelector": {"matchExpressions": [{"key": "app", "operator": "In"}]}}}"#,
    r#"{"pods": {"namespaceSelector": {"matchLabels": {"-": "a"}}, "podSelector": {}}}"#,
    r#"{"namespaces": {}, "zones": {}}"#,
    r#"{"namespaces": {"namespaceSelector": {}}}"#,
    r#"{"namespaces": {"sameLabels": ["team"]}}"#,
    r#"{"pods": {"namespaces": {"namespaceSelector": {}}, "podSelector": {}}}"#,
    r#"{"pods": {"podSelector": {"matchExpressions": [{"key": "app", "operator": "Exists", "from": "v2"}]}}}"#,
];

pub(super) const INVALID_EGRESS_PEERS: &[&str] = &[
    r#"{}"#,
    r#"{"services": {}}"#,
    r#"{"namespaces": {}, "networks": ["0.0.0.0/0"]}"#,
    r#"{"networks": []}"#,
    r#"{"networks": ["10.0.0.0/8", "10.0.0.1"]}"#,
    r#"{"networks": ["10.0.0.0/33"]}"#,
    r#"{"networks": "0.0.0.0/0"}"#,
    r#"{"nodes": {"matchLabels": {"team": "bad value!"}}}"#,
    r#"{"domainNames": ["*.example.com"]}"#,
    r#"{"networks": ["0.0.0.0/0"], "except": ["10.0.0.0/8"]}"#,
    r#"{"nodes": {"notLabels": {"zone": "east"}}}"#,
    r#"{"pods": {"namespaceSelector": {}, "podSelector": {"matchExpressions": [{"key": "app", "operator": "In"}]}}}"#,
];

pub(super) const INVALID_PROTOCOLS: &[&str] = &[
    r#"{}"#,
    r#"{"icmp": {}}"#,
    r#"{"tcp": {}, "udp": {}}"#,
    r#"{"tcp": {}, "destinationNamedPort": "http"}"#,
    r#"{"destinationNamedPort": ""}"#,
    r#"{"tcp": []}"#,
    r#"{"tcp": {"destinationPort": {}}}"#,
    r#"{"tcp": {"destinationPort": {"number": 0}}}"#,
    r#"{"udp": {"destinationPort": {"number": 65536}}}"#,
    r#"{"udp": {"destinationPort": {"number": "dns"}}}"#,
    r#"{"tcp": {"destinationPort": {"number": 80, "range": {"start": 1, "end": 2}}}}"#,
    r#"{"sctp": {"destinationPort": {"range": {"start": 80, "end": 80}}}}"#,
    r#"{"tcp": {"destinationPort": {"range": {"start": 443, "end": 80}}}}"#,
    r#"{"tcp": {"destinationPort": {"range": {"start": 80}}}}"#,
    r#"{"tcp": {"sourcePort": {"number": 80}}}"#,
    r#"{"tcp": {"destinationPort": {"number": 80, "not": true}}}"#,
    r#"{"tcp": {}, "icmp": null}"#,
];

type Place = (String, &'static [&'static str]);

/// The paths of all entries in these rules, each with the invalid entries that may stand there.
fn collect(rules: &Value, path: &str, places: &mut Vec<Place>) {
    for (index, rule) in rules.as_array().into_iter().flatten().enumerate() {
        for (list, invalid) in [("from", INVALID_PEERS), ("to", INVALID_PEERS), ("ports", INVALID_PORTS)] {
            for (entry, value) in rule[list].as_array().into_iter().flatten().enumerate() {
                let path = format!("{path}/{index}/{list}/{entry}");
                for selector in ["podSelector", "namespaceSelector"] {
                    let expressions = value[selector]["matchExpressions"].as_array().map_or(0, Vec::len);
                    places.extend((0..expressions).map(|expression| {
                        (format!("{path}/{selector}/matchExpressions/{expression}"), INVALID_EXPRESSIONS)
                    }));
                }
                places.push((path, invalid));
            }
        }
    }
}

fn collect_cluster(rules: &Value, path: &str, places: &mut Vec<Place>) {
    let lists =
        [("from", INVALID_CLUSTER_PEERS), ("to", INVALID_EGRESS_PEERS), ("protocols", INVALID_PROTOCOLS)];
    for (index, rule) in rules.as_array().into_iter().flatten().enumerate() {
        for (list, invalid) in lists {
            let entries = rule[list].as_array().map_or(0, Vec::len);
            places.extend((0..entries).map(|entry| (format!("{path}/{index}/{list}/{entry}"), invalid)));
        }
    }
}
