//! Ports of nodes: node ports of nodes that the client is not on, and host ports of pods.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::Value;

use super::{
    Destination, ResolvedEndpoint, endpoints, ends, evaluate, listeners_at, node_of,
    object::{self, items, port_number},
    those_of,
};

/// A node port of a node that the client is not on: the client's policies see the node's address. The node
/// leads it on, and to an endpoint that is not its own under its own address, so that replies come back
/// through it.
pub(super) fn at_another_node(
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
    let has_family = |address: &IpAddr| sources.iter().any(|it| it.address.is_ipv4() == address.is_ipv4());
    let is_pod = matches!(client, ResolvedEndpoint::Pod { namespace, name }
        if !object::on_host_network(object::pod(objects, namespace, name)));
    let (mut is_served, mut is_reached) = (false, false);
    let mut backends = Vec::new();
    for &address in addresses {
        let destination = Destination { address, protocol: protocol.into(), port };
        let found = listeners_at(objects, node, &destination);
        is_served |= !found.is_empty();
        for listener in found.iter().filter(|_| has_family(&address)) {
            let all = endpoints(objects, listener, node);
            let here = those_of(objects, listener, Some(node));
            is_reached |= if listener.is_local() { !here.is_empty() } else { !all.is_empty() };
            // Whether the node takes pods of other nodes for clients outside is the proxy's set-up: both must
            // be allowed.
            let chosen: BTreeSet<_> = match (listener.is_local(), is_pod) {
                (true, false) => here,
                (true, true) => here.union(&all).copied().collect(),
                (false, _) => all,
            };
            for (end, number) in chosen {
                let keeps = listener.is_local() || node_behind(objects, end) == Some(node);
                let source = if keeps { client.clone() } else { ResolvedEndpoint::Address(address) };
                backends.push(evaluate(objects, &source, end, protocol, number).ingress);
            }
        }
    }
    is_served.then(|| {
        let is_sent = may_send(objects, client, addresses, protocol, port);
        is_sent && is_reached && backends.iter().all(|allowed| *allowed)
    })
}

/// "hostPort: Number of port to expose on the host": the client's policies see the node, those of the pod the
/// client.
pub(super) fn at_host_port(
    objects: &[Value],
    client: &ResolvedEndpoint,
    addresses: &[IpAddr],
    protocol: &str,
    port: u16,
) -> Option<bool> {
    let node = addresses.iter().find_map(|address| object::node_with(objects, address))?;
    let pods = object::pods(objects).filter(|pod| object::is_alive(pod) && !object::on_host_network(pod));
    let mut behind = Vec::new();
    for pod in pods.filter(|pod| object::node_of(pod) == Some(node)) {
        let sidecars = items(&pod["spec"]["initContainers"]).iter();
        let sidecars = sidecars.filter(|container| container["restartPolicy"] == "Always");
        let containers = items(&pod["spec"]["containers"]).iter().chain(sidecars);
        for listed in containers.flat_map(|container| items(&container["ports"])) {
            let at = object::address(&listed["hostIP"]).filter(|address| !address.is_unspecified());
            let is_asked =
                listed["hostPort"] == port && listed["protocol"].as_str().unwrap_or("TCP") == protocol;
            let Some(number) = port_number(&listed["containerPort"]).filter(|_| is_asked) else { continue };
            for address in addresses.iter().filter(|address| at.is_none_or(|at| at == **address)) {
                let own = object::addresses(pod).into_iter();
                behind.extend(own.filter(|own| own.is_ipv4() == address.is_ipv4()).map(|own| (own, number)));
            }
        }
    }
    let sources = ends(objects, client);
    let mut reached =
        behind.iter().filter(|(end, _)| sources.iter().any(|it| it.address.is_ipv4() == end.is_ipv4()));
    (!behind.is_empty()).then(|| {
        may_send(objects, client, addresses, protocol, port)
            && reached.all(|(end, number)| evaluate(objects, client, *end, protocol, *number).ingress)
    })
}

/// Whether a client's own policies let it send to the addresses themselves.
fn may_send(
    objects: &[Value],
    client: &ResolvedEndpoint,
    addresses: &[IpAddr],
    protocol: &str,
    port: u16,
) -> bool {
    let sources = ends(objects, client);
    addresses.iter().all(|address| {
        let of_family = sources.iter().any(|source| source.address.is_ipv4() == address.is_ipv4());
        !of_family || evaluate(objects, client, *address, protocol, port).egress
    })
}

/// Of its object, else of the pods on its network.
pub(super) fn addresses_of(objects: &[Value], node: &str) -> Vec<IpAddr> {
    let own = object::node_addresses(objects, node);
    let pods = object::pods(objects).filter(|pod| object::is_alive(pod) && object::on_host_network(pod));
    let mut pods = pods.filter(|pod| object::node_of(pod) == Some(node)).map(object::addresses);
    match own.is_empty() {
        true => pods.find(|addresses| !addresses.is_empty()).unwrap_or_default(),
        false => own,
    }
}

/// The node of the pod, or of its own, that has an address.
pub(super) fn node_behind(objects: &[Value], address: IpAddr) -> Option<&str> {
    let pod = object::pods(objects).find(|pod| {
        object::is_alive(pod) && !object::on_host_network(pod) && object::addresses(pod).contains(&address)
    });
    pod.map_or_else(|| object::node_with(objects, &address), object::node_of)
}
