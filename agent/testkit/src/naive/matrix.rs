//! Who reaches whom: the JSON of `podgate matrix`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{
    every_pair_allowed,
    object::{self, addresses, is_alive, name_of, namespace_of, on_host_network, port_numbers},
    pod_ends,
};

/// All pods that have an address and are not finished, without those on the host network.
/// A port is `PROTOCOL/NUMBER` or `PROTOCOL/NAME`; a name is looked up on each destination.
pub fn matrix(objects: &[Value], ports: &[&str]) -> Value {
    let pods: BTreeMap<String, &Value> = object::pods(objects)
        .filter(|pod| is_alive(pod) && !on_host_network(pod) && !addresses(pod).is_empty())
        .map(|pod| (format!("{}/{}", namespace_of(pod), name_of(pod)), pod))
        .collect();
    let tables: Map<String, Value> = ports
        .iter()
        .map(|port| {
            let (protocol, port_text) = port.split_once('/').expect("a port is written PROTOCOL/PORT");
            let rows: Map<String, Value> = pods
                .iter()
                .map(|(name, source)| {
                    let row: String =
                        pods.values().map(|to| cell(objects, source, to, protocol, port_text)).collect();
                    (name.clone(), row.into())
                })
                .collect();
            (String::from(*port), rows.into())
        })
        .collect();
    json!({"pods": pods.keys().collect::<Vec<_>>(), "ports": tables})
}

fn cell(objects: &[Value], source: &Value, destination: &Value, protocol: &str, port: &str) -> char {
    let numbers = match object::asked_number(protocol, port) {
        Some(number) => BTreeSet::from([number]),
        None => port_numbers(destination, port, protocol),
    };
    if numbers.is_empty() {
        return '-';
    }
    let sources = pod_ends(source);
    let destinations = pod_ends(destination);
    let is_open =
        numbers.into_iter().all(|port| every_pair_allowed(objects, &sources, &destinations, protocol, port));
    if is_open { '.' } else { 'X' }
}
