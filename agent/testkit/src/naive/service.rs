//! Services: where a connection to one of their addresses ends, and what the policies say of each of these
//! ends.
//!
//! A service's own address and port match nothing in a policy: what counts is the endpoint that was chosen,
//! after the translation and before any masquerading, as the rules of kube-proxy have it that stand before
//! those of policies. Quoted sentences are those of the API documentation (`core/v1/types.go`,
//! `discovery/v1/types.go`). The objects are valid ones.

mod ports;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::Value;

use self::ports::{addresses_of, at_another_node, at_host_port, node_behind};
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

/// The endpoints that a client's node chooses from. `None` when no service answers there: such a packet is
/// for the address that stands in it, as with a node port of another node.
///
/// A client without an address of this family reaches nothing.
pub fn backends(
    objects: &[Value],
    client: &ResolvedEndpoint,
    destination: &Destination,
) -> Option<BTreeSet<Backend>> {
    let node = node_of(objects, client);
    let listeners = listeners_at(objects, node, destination);
    if listeners.is_empty() {
        return None;
    }
    let to = |client: &ResolvedEndpoint, (address, port): (IpAddr, u16)| {
        evaluate(objects, client, address, &destination.protocol, port)
    };
    let is_pod = matches!(client, ResolvedEndpoint::Pod { namespace, name }
        if !object::on_host_network(object::pod(objects, namespace, name)));
    let own = addresses_of(objects, node);
    let mut found = BTreeSet::new();
    for listener in &listeners {
        for end in endpoints(objects, listener, node) {
            let mut backend = to(client, end);
            // What comes by an external address or a node port goes on under an address of the node, so that
            // replies come back through it.
            let is_masqueraded = is_pod && listener.is_external() && !listener.is_local();
            if is_masqueraded && node_behind(objects, end.0) != Some(node) {
                let own = own.iter().find(|own| own.is_ipv4() == end.0.is_ipv4());
                backend.ingress = own.is_none_or(|own| to(&ResolvedEndpoint::Address(*own), end).ingress);
            }
            found.insert(backend);
        }
        // Nothing could stop what is delivered to the client's own node: what is forbidden there is stopped
        // before, whether or not the packet would have come there.
        let usable = usable_endpoints(objects, listener, node).into_iter();
        let untranslated = Some((destination.address, destination.port)).filter(|_| {
            listener.is_external() && port_number(&listener.port["port"]) == Some(destination.port)
        });
        let perhaps = usable.chain(untranslated).filter(|(address, _)| own.contains(address));
        found.extend(perhaps.map(|end| to(client, end)).filter(|backend| !backend.egress));
    }
    Some(found)
}

impl Listener<'_> {
    /// By kube-proxy's rules for external addresses.
    fn is_external(&self) -> bool {
        self.frontend == Frontend::External && !is_foreign(self.service)
    }

    /// ""Local" preserves the source IP of the traffic by routing only to endpoints on the same node as the
    /// traffic was received on (dropping the traffic if there are no local endpoints)."
    fn is_local(&self) -> bool {
        self.is_external() && self.service["spec"]["externalTrafficPolicy"] == "Local"
    }
}

/// What answers at an address and port of a node: several services may claim one. "Services cluster IPs are
/// assigned by the control plane, and each is unique": it is its own service's alone.
fn listeners_at<'a>(objects: &'a [Value], node: &'a str, destination: &Destination) -> Vec<Listener<'a>> {
    let mut found: Vec<_> = listeners(objects, node).filter(|listener| listener.at == *destination).collect();
    if found.iter().any(|listener| listener.frontend == Frontend::ClusterIp) {
        found.retain(|listener| listener.frontend == Frontend::ClusterIp);
    }
    found
}

/// Whether a client may open a connection, whichever of the destination's addresses and of the endpoints are
/// chosen. `None` when no service answers there.
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
        return at_another_node(objects, client, &addresses, protocol, port)
            .or_else(|| at_host_port(objects, client, &addresses, protocol, port));
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
        // "The port on each node on which this service is exposed". The client's packets to another node
        // leave before they are translated.
        for address in object::node_addresses(objects, node) {
            listen(Frontend::External, address, &port["nodePort"]);
        }
    }
    found
}

/// ""None" can be specified for headless services when proxying is not required." "ExternalName means a
/// service consists of only a reference to an external name."
fn cluster_addresses(service: &Value) -> Vec<IpAddr> {
    let spec = &service["spec"];
    if spec["type"] == "ExternalName" {
        return Vec::new();
    }
    let several = items(&spec["clusterIPs"]);
    let written = if several.is_empty() { std::slice::from_ref(&spec["clusterIP"]) } else { several };
    written.iter().filter_map(object::address).collect()
}

/// "externalIPs is a list of IP addresses for which nodes in the cluster will also accept traffic for this
/// service." And of a load balancer's address: "Setting this to "VIP" indicates that traffic is delivered to
/// the node with the destination set to the load-balancer's IP and port. Setting this to "Proxy" indicates
/// that traffic is delivered to the node or pod with the destination set to the node's IP".
fn external_addresses(service: &Value) -> Vec<IpAddr> {
    let balancers = items(&service["status"]["loadBalancer"]["ingress"]).iter();
    let balancers = balancers.filter(|entry| entry["ipMode"] != "Proxy").map(|entry| &entry["ip"]);
    items(&service["spec"]["externalIPs"]).iter().chain(balancers).filter_map(object::address).collect()
}

/// "Note that traffic sent to an External IP or LoadBalancer IP from within the cluster will always get
/// "Cluster" semantics": externalTrafficPolicy is for other clients.
fn endpoints(objects: &[Value], listener: &Listener<'_>, node: &str) -> BTreeSet<(IpAddr, u16)> {
    let is_local_alone = is_local_alone(listener);
    let candidates = candidates(objects, listener, is_local_alone.then_some(node));
    // No one knows which endpoints another proxy chooses, and whether it is there.
    if is_foreign(listener.service) {
        let all = candidates.iter().map(|(_, address, number)| (*address, *number));
        return all.chain([(listener.at.address, listener.at.port)]).collect();
    }
    // "hints describes how this endpoint is to be consumed": those for the client's node, else those for its
    // zone, when all ready ones have such hints and some is for the client.
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
    usable_endpoints(objects, listener, node)
}

/// The same, whatever hints say.
fn usable_endpoints(objects: &[Value], listener: &Listener<'_>, node: &str) -> BTreeSet<(IpAddr, u16)> {
    let only = is_local_alone(listener).then_some(node);
    if is_foreign(listener.service) { BTreeSet::new() } else { those_of(objects, listener, only) }
}

/// "internalTrafficPolicy describes how nodes distribute service traffic they receive on the ClusterIP. If
/// set to "Local", the proxy will assume that pods only want to talk to endpoints of the service on the same
/// node as the pod, dropping the traffic if there are no local endpoints."
fn is_local_alone(listener: &Listener<'_>) -> bool {
    !is_foreign(listener.service)
        && listener.frontend == Frontend::ClusterIp
        && listener.service["spec"]["internalTrafficPolicy"] == "Local"
}

/// Those that are used, of one node alone or of all. KEP-1669: endpoints that are serving and terminating are
/// for when no endpoint is ready.
fn those_of(objects: &[Value], listener: &Listener<'_>, only: Option<&str>) -> BTreeSet<(IpAddr, u16)> {
    let candidates = candidates(objects, listener, only);
    let those = |is_usable: fn(&Value) -> bool| -> BTreeSet<_> {
        let usable = candidates.iter().filter(|(endpoint, _, _)| is_usable(endpoint));
        usable.map(|(_, address, number)| (*address, *number)).collect()
    };
    let ready = those(is_ready);
    if ready.is_empty() { those(is_leaving) } else { ready }
}

/// All endpoints of a listener's port, with their addresses and numbers.
fn candidates<'a>(
    objects: &'a [Value],
    listener: &Listener<'a>,
    only: Option<&str>,
) -> Vec<(&'a Value, IpAddr, u16)> {
    let all = slices_of(objects, listener.service).flat_map(|slice| {
        let numbers = numbers(slice, listener.port);
        let endpoints = items(&slice["endpoints"]).iter();
        endpoints.flat_map(move |endpoint| numbers.clone().into_iter().map(move |number| (endpoint, number)))
    });
    all.filter(|(endpoint, _)| only.is_none_or(|node| endpoint["nodeName"] == node))
        .filter_map(|(endpoint, number)| Some((endpoint, address_of(endpoint)?, number)))
        .filter(|(_, address, _)| address.is_ipv4() == listener.at.address.is_ipv4())
        .collect()
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

/// kube-proxy takes the first: "these are all assumed to be fungible and clients may choose to only use the
/// first element."
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
