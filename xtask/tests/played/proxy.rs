//! kube-proxy's part on a node: where services lead.
//!
//! In: the objects. Out: each place where a service answers with its endpoints, by the specification's
//! choice. In the place of chance the client's port decides between the endpoints, so that each connection
//! has one right answer. Left out: session affinity.

use std::net::{IpAddr, SocketAddr};

use podgate_testkit::naive::{Destination, ResolvedEndpoint, backends, destinations};
use serde_json::Value;
use xtask::lab::{Choice, Frontend, Masquerade, Proxy};

use crate::cluster::{NODES, node_addresses};

/// A place where a service answers.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) at: Destination,
    pub(crate) frontend: Frontend,
}

/// The networks of the generator.
pub(crate) const PROXY: Proxy<'_> = Proxy {
    pods: ["10.0.0.0/15", "fd00::/64"],
    services: &["10.96.0.0/24", "fd96::/64", "198.51.100.0/24", "2001:db8:1::/64"],
    choice: Choice::ByClientPort,
};

/// All that a node's clients may use.
pub(crate) fn ways(objects: &[Value], node: &str) -> Vec<Way> {
    let client = ResolvedEndpoint::Node(node.to_owned());
    let ways = destinations(objects, node).into_iter().map(|at| {
        let found = backends(objects, &client, &at).expect("a service answers there");
        let backends = found.iter().map(|backend| SocketAddr::new(backend.address, backend.port)).collect();
        let hides_pods = !is_cluster_address(objects, &at) && !keeps_clients(objects, &at);
        let masquerade = if hides_pods { Masquerade::All } else { Masquerade::AllButPods };
        let Destination { address, protocol, port } = at.clone();
        Way { at, frontend: Frontend { address, protocol, port, masquerade, backends } }
    });
    ways.filter(|way| way.at.protocol != "SCTP").collect()
}

/// Whether a service answers there by its own address. Any other service that claims the address is passed
/// over, in whichever network the address lies.
fn is_cluster_address(objects: &[Value], at: &Destination) -> bool {
    objects.iter().filter(|object| object["kind"] == "Service").any(|service| {
        let spec = &service["spec"];
        let several = spec["clusterIPs"].as_array().into_iter().flatten();
        let is_own = several
            .chain([&spec["clusterIP"]])
            .filter_map(|address| address.as_str()?.parse::<IpAddr>().ok())
            .any(|address| address == at.address);
        let is_served = |port: &Value| {
            port["port"] == at.port && port["protocol"].as_str().unwrap_or("TCP") == at.protocol
        };
        is_own && spec["ports"].as_array().into_iter().flatten().any(is_served)
    })
}

/// `externalTrafficPolicy: Local`: the service that answers there is not to hide its clients.
fn keeps_clients(objects: &[Value], at: &Destination) -> bool {
    let is_node = (0..NODES.len()).any(|node| node_addresses(node).contains(&at.address));
    let names = |list: &Value, field: Option<&str>| {
        let entries = list.as_array().into_iter().flatten();
        let texts = entries.filter_map(|entry| field.map_or(entry, |field| &entry[field]).as_str());
        texts.map(|text| text.parse::<IpAddr>().expect("an address")).any(|address| address == at.address)
    };
    objects.iter().filter(|object| object["kind"] == "Service").any(|service| {
        let answers = |port: &Value| port[if is_node { "nodePort" } else { "port" }] == at.port;
        let has_port = service["spec"]["ports"].as_array().into_iter().flatten().any(answers);
        let is_there = is_node
            || names(&service["spec"]["externalIPs"], None)
            || names(&service["status"]["loadBalancer"]["ingress"], Some("ip"));
        has_port && is_there && service["spec"]["externalTrafficPolicy"] == "Local"
    })
}
