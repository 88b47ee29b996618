//! Services: where a connection to one of their addresses ends, and what the policies say of each of these ends.
//!
//! A service's own address and port match nothing in a policy: what counts is the endpoint that was chosen, after the
//! translation and before any masquerading, as the rules of kube-proxy have it that stand before those of policies.
//! Quoted sentences are those of the API documentation (`core/v1/types.go`, `discovery/v1/types.go`).
//! The objects are valid ones.

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::Value;

use super::{
    Connection, Direction, ResolvedEndpoint, direction_allowed, ends, is_to_itself,
    object::{self, items, label, name_of, namespace_of, port_number},
};

/// What a client sends to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination {
    pub address: IpAddr,
    /// As the API writes it.
    pub protocol: String,
    pub port: u16,
}

/// One endpoint that the client's node may choose, and the verdicts on the connection that then comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    pub address: IpAddr,
    pub port: u16,
    /// Of the client's policies. Its own node and itself are always allowed.
    pub egress: bool,
    /// Of the endpoint's policies.
    pub ingress: bool,
}

/// A place at which a service answers.
struct Listener<'a> {
    at: Destination,
    frontend: Frontend,
    service: &'a Value,
    port: &'a Value,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Frontend {
    ClusterIp,
    External,
}

/// All that leads to an endpoint on this node.
pub fn destinations(objects: &[Value], node: &str) -> BTreeSet<Destination> {
    listeners(objects, node).map(|listener| listener.at).collect()
}

/// The endpoints that a client's node chooses from. `None` when no service answers there: such a packet is for the
/// address that stands in it, as with a node port of another node.
///
/// A client without an address of this family reaches nothing.
pub fn backends(
    objects: &[Value],
    client: &ResolvedEndpoint,
    destination: &Destination,
) -> Option<BTreeSet<Backend>> {
    let chosen = led_to(objects, node_of(objects, client), destination)?.into_iter();
    Some(
        chosen
            .map(|(address, port)| evaluate(objects, client, address, &destination.protocol, port))
            .collect(),
    )
}

/// Where a node leads what goes to an address and port: several services may claim one. "Services cluster IPs are assigned
/// by the control plane, and each is unique": it is its own service's alone.
fn led_to(objects: &[Value], node: &str, destination: &Destination) -> Option<BTreeSet<(IpAddr, u16)>> {
    let mut found: Vec<_> = listeners(objects, node).filter(|listener| listener.at == *destination).collect();
    if found.iter().any(|listener| listener.frontend == Frontend::ClusterIp) {
        found.retain(|listener| listener.frontend == Frontend::ClusterIp);
    }
    (!found.is_empty())
        .then(|| found.iter().flat_map(|listener| endpoints(objects, listener, node)).collect())
}

/// Whether a client may open a connection, whichever of the destination's addresses and of the endpoints are chosen.
/// `None` when no service answers there.
pub(super) fn allowed(
    objects: &[Value],
    client: &ResolvedEndpoint,
    to: &ResolvedEndpoint,
    protocol: &str,
    port: u16,
) -> Option<bool> {
    let addresses = match to {
        ResolvedEndpoint::Service { namespace, name } => {
            cluster_addresses(object::service(objects, namespace, name))
        }
        ResolvedEndpoint::Node(name) => object::node_addresses(objects, name),
        ResolvedEndpoint::Address(address) => vec![*address],
        // A pod's addresses are no service's.
        ResolvedEndpoint::Pod { .. } => Vec::new(),
    };
    let sources = ends(objects, client);
    if let ResolvedEndpoint::Service { namespace, name } = to {
        let service = object::service(objects, namespace, name);
        if service["spec"]["clusterIP"] == "None" {
            return Some(headless_allowed(objects, client, service, protocol, port));
        }
    }
    let answers: Vec<_> = addresses
        .iter()
        .copied()
        .filter(|address| sources.iter().any(|source| source.address.is_ipv4() == address.is_ipv4()))
        .filter_map(|address| {
            backends(objects, client, &Destination { address, protocol: protocol.into(), port })
        })
        .collect();
    if answers.is_empty() && !matches!(to, ResolvedEndpoint::Service { .. }) {
        return at_another_node(objects, client, &addresses, protocol, port);
    }
    let mut found = answers.iter().flatten().peekable();
    Some(found.peek().is_some() && found.all(|backend| backend.egress && backend.ingress))
}

/// Its name stands for the addresses of its ready endpoints, and nothing is translated.
fn headless_allowed(
    objects: &[Value],
    client: &ResolvedEndpoint,
    service: &Value,
    protocol: &str,
    port: u16,
) -> bool {
    let endpoints = slices_of(objects, service).flat_map(|slice| items(&slice["endpoints"]));
    let addresses = endpoints.filter(|endpoint| is_ready(endpoint)).filter_map(address_of);
    let sources = ends(objects, client);
    let mut found = addresses
        .filter(|address| sources.iter().any(|source| source.address.is_ipv4() == address.is_ipv4()))
        .map(|address| evaluate(objects, client, address, protocol, port))
        .peekable();
    found.peek().is_some() && found.all(|backend| backend.egress && backend.ingress)
}

/// A node port of a node that the client is not on: the client's policies see the node's address. The node leads it on, and
/// to an endpoint that is not its own under its own address, so that replies come back through it.
fn at_another_node(
    objects: &[Value],
    client: &ResolvedEndpoint,
    addresses: &[IpAddr],
    protocol: &str,
    port: u16,
) -> Option<bool> {
    let node = addresses.iter().find_map(|address| object::node_with(objects, address))?;
    if node == node_of(objects, client) {
        return None;
    }
    let sources = ends(objects, client);
    let mut is_served = false;
    let mut backends = Vec::new();
    for &address in addresses {
        let destination = Destination { address, protocol: protocol.into(), port };
        let Some(chosen) = led_to(objects, node, &destination) else { continue };
        is_served = true;
        if !sources.iter().any(|source| source.address.is_ipv4() == address.is_ipv4()) {
            continue;
        }
        for (end, number) in chosen {
            let pod = object::pods(objects).find(|pod| {
                object::is_alive(pod)
                    && !object::on_host_network(pod)
                    && object::addresses(pod).contains(&end)
            });
            let its_node = pod.map_or_else(|| object::node_with(objects, &end), object::node_of);
            let source =
                if its_node == Some(node) { client.clone() } else { ResolvedEndpoint::Address(address) };
            backends.push(evaluate(objects, &source, end, protocol, number).ingress);
        }
    }
    let towards_node = || {
        addresses.iter().all(|address| {
            let of_family = sources.iter().any(|source| source.address.is_ipv4() == address.is_ipv4());
            !of_family || evaluate(objects, client, *address, protocol, port).egress
        })
    };
    is_served.then(|| towards_node() && !backends.is_empty() && backends.iter().all(|allowed| *allowed))
}

/// Empty when it has none, or none that is known.
fn node_of<'a>(objects: &'a [Value], client: &'a ResolvedEndpoint) -> &'a str {
    match client {
        ResolvedEndpoint::Pod { namespace, name } => {
            object::node_of(object::pod(objects, namespace, name)).unwrap_or_default()
        }
        ResolvedEndpoint::Node(name) => name,
        ResolvedEndpoint::Service { .. } | ResolvedEndpoint::Address(_) => "",
    }
}

fn evaluate(
    objects: &[Value],
    client: &ResolvedEndpoint,
    address: IpAddr,
    protocol: &str,
    port: u16,
) -> Backend {
    let endpoint = ResolvedEndpoint::Address(address);
    let mut destination = ends(objects, &endpoint)[0];
    destination.node = object::node_with(objects, &address);
    let sources = ends(objects, client);
    let sources: Vec<_> =
        sources.into_iter().filter(|source| source.address.is_ipv4() == address.is_ipv4()).collect();
    let is_allowed = |direction| {
        !sources.is_empty()
            && sources.iter().all(|source| {
                let connection = Connection { source: *source, destination, protocol, port };
                is_to_itself(&connection) || direction_allowed(objects, direction, &connection)
            })
    };
    let (egress, ingress) = (is_allowed(Direction::Egress), is_allowed(Direction::Ingress));
    Backend { address, port, egress, ingress }
}

fn listeners<'a>(objects: &'a [Value], node: &'a str) -> impl Iterator<Item = Listener<'a>> {
    object::services(objects).flat_map(move |service| listeners_of(objects, service, node))
}

fn listeners_of<'a>(objects: &[Value], service: &'a Value, node: &str) -> Vec<Listener<'a>> {
    let own = cluster_addresses(service);
    let mut found = Vec::new();
    for port in items(&service["spec"]["ports"]) {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let mut listen = |frontend, address: IpAddr, number: &Value| {
            // A service is one of the families of its cluster IPs.
            let is_served = own.iter().any(|own| own.is_ipv4() == address.is_ipv4());
            if let Some(number) = port_number(number).filter(|_| is_served) {
                let at = Destination { address, protocol: protocol.into(), port: number };
                found.push(Listener { at, frontend, service, port });
            }
        };
        own.iter().for_each(|address| listen(Frontend::ClusterIp, *address, &port["port"]));
        for address in external_addresses(service) {
            listen(Frontend::External, address, &port["port"]);
        }
        // "The port on each node on which this service is exposed". The client's packets to another node leave before
        // they are translated.
        for address in object::node_addresses(objects, node) {
            listen(Frontend::External, address, &port["nodePort"]);
        }
    }
    found
}

/// ""None" can be specified for headless services when proxying is not required." "ExternalName means a service consists
/// of only a reference to an external name."
fn cluster_addresses(service: &Value) -> Vec<IpAddr> {
    let spec = &service["spec"];
    if spec["type"] == "ExternalName" {
        return Vec::new();
    }
    let several = items(&spec["clusterIPs"]);
    let written = if several.is_empty() { std::slice::from_ref(&spec["clusterIP"]) } else { several };
    written.iter().filter_map(object::address).collect()
}

/// "externalIPs is a list of IP addresses for which nodes in the cluster will also accept traffic for this service."
/// And of a load balancer's address: "Setting this to "VIP" indicates that traffic is delivered to the node with the
/// destination set to the load-balancer's IP and port. Setting this to "Proxy" indicates that traffic is delivered to
/// the node or pod with the destination set to the node's IP".
fn external_addresses(service: &Value) -> Vec<IpAddr> {
    let balancers = items(&service["status"]["loadBalancer"]["ingress"]).iter();
    let balancers = balancers.filter(|entry| entry["ipMode"] != "Proxy").map(|entry| &entry["ip"]);
    items(&service["spec"]["externalIPs"]).iter().chain(balancers).filter_map(object::address).collect()
}

/// "Note that traffic sent to an External IP or LoadBalancer IP from within the cluster will always get "Cluster"
/// semantics": externalTrafficPolicy is for other clients.
fn endpoints(objects: &[Value], listener: &Listener<'_>, node: &str) -> BTreeSet<(IpAddr, u16)> {
    // "internalTrafficPolicy describes how nodes distribute service traffic they receive on the ClusterIP. If set to
    // "Local", the proxy will assume that pods only want to talk to endpoints of the service on the same node as the
    // pod, dropping the traffic if there are no local endpoints."
    let is_local_alone = !is_foreign(listener.service)
        && listener.frontend == Frontend::ClusterIp
        && listener.service["spec"]["internalTrafficPolicy"] == "Local";
    let all = slices_of(objects, listener.service).flat_map(|slice| {
        let numbers = numbers(slice, listener.port);
        let endpoints = items(&slice["endpoints"]).iter();
        endpoints.flat_map(move |endpoint| numbers.clone().into_iter().map(move |number| (endpoint, number)))
    });
    let candidates: Vec<_> = all
        .filter(|(endpoint, _)| !is_local_alone || endpoint["nodeName"] == node)
        .filter_map(|(endpoint, number)| Some((endpoint, address_of(endpoint)?, number)))
        .filter(|(_, address, _)| address.is_ipv4() == listener.at.address.is_ipv4())
        .collect();
    let those = |is_usable: fn(&Value) -> bool| -> BTreeSet<_> {
        let usable = candidates.iter().filter(|(endpoint, _, _)| is_usable(endpoint));
        usable.map(|(_, address, number)| (*address, *number)).collect()
    };
    // Nobody knows which endpoints another proxy chooses, and whether it is there.
    if is_foreign(listener.service) {
        return those(|_| true).into_iter().chain([(listener.at.address, listener.at.port)]).collect();
    }
    // "hints describes how this endpoint is to be consumed": those for the client's node, else those for its zone, when all
    // ready ones have such hints and some is for the client.
    let zone = object::nodes(objects)
        .find(|object| name_of(object) == node)
        .and_then(|node| label(node, "topology.kubernetes.io/zone"));
    for (list, here) in [("forNodes", Some(node)), ("forZones", zone)] {
        let ready: Vec<_> = candidates.iter().filter(|(endpoint, ..)| is_ready(endpoint)).collect();
        let hints = |endpoint: &Value| -> Vec<String> {
            let names = items(&endpoint["hints"][list]).iter();
            names.filter_map(|hint| hint["name"].as_str().map(ToOwned::to_owned)).collect()
        };
        let all_hinted = ready.iter().all(|(endpoint, ..)| !hints(endpoint).is_empty());
        let for_here = |endpoint: &Value| hints(endpoint).iter().any(|name| Some(&**name) == here);
        let chosen: BTreeSet<_> = ready
            .iter()
            .filter(|(endpoint, ..)| for_here(endpoint))
            .map(|(_, address, number)| (*address, *number))
            .collect();
        if !is_local_alone && all_hinted && !chosen.is_empty() {
            return chosen;
        }
    }
    // KEP-1669: endpoints that are serving and terminating are for when no endpoint is ready.
    let ready = those(is_ready);
    if ready.is_empty() { those(is_leaving) } else { ready }
}

/// "service.kubernetes.io/service-proxy-name": kube-proxy leaves it to another one.
fn is_foreign(service: &Value) -> bool {
    label(service, "service.kubernetes.io/service-proxy-name").is_some()
}

fn slices_of<'a>(objects: &'a [Value], service: &'a Value) -> impl Iterator<Item = &'a Value> {
    object::slices(objects).filter(move |slice| {
        namespace_of(slice) == namespace_of(service)
            && label(slice, "kubernetes.io/service-name") == Some(name_of(service))
            && matches!(slice["addressType"].as_str(), Some("IPv4" | "IPv6"))
    })
}

/// "If the EndpointSlice is derived from a Kubernetes service, this corresponds to the Service.ports[].name."
fn numbers(slice: &Value, service_port: &Value) -> Vec<u16> {
    let text = |port: &Value, field: &str, default: &str| port[field].as_str().unwrap_or(default).to_owned();
    let is_it = |port: &&Value| {
        text(port, "name", "") == text(service_port, "name", "")
            && text(port, "protocol", "TCP") == text(service_port, "protocol", "TCP")
    };
    items(&slice["ports"]).iter().filter(is_it).filter_map(|port| port_number(&port["port"])).collect()
}

/// kube-proxy takes the first: "these are all assumed to be fungible and clients may choose to only use the first
/// element."
fn address_of(endpoint: &Value) -> Option<IpAddr> {
    items(&endpoint["addresses"]).first().and_then(object::address)
}

/// "A nil value should be interpreted as "true"."
fn is_ready(endpoint: &Value) -> bool {
    endpoint["conditions"]["ready"] != false
}

/// Of serving: "a nil value should be interpreted as "true""; of terminating: "as "false"".
fn is_leaving(endpoint: &Value) -> bool {
    endpoint["conditions"]["serving"] != false && endpoint["conditions"]["terminating"] == true
}
