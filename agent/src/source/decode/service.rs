//! Services: the addresses and ports that kube-proxy leads elsewhere.
//!
//! The rules are those of Kubernetes' `pkg/apis/core/validation` and `pkg/proxy/serviceport.go`. Where the
//! ports lead is said by EndpointSlices alone: selectors and `targetPort` are for the controller that writes
//! those. Session affinity and source ranges do not change which endpoints a pod can reach.

use std::{collections::HashSet, net::IpAddr};

use podgate_common::Protocol;
use podgate_core::model::{Labels, Name, ObjectName, Proxy, Service, ServicePort};

use super::{
    Decoded, address,
    field::{Field, JsonObject, Reported, quoted},
    intern::NameInterner,
    port,
};

/// What a headless service has in the place of its cluster address.
const HEADLESS: &str = "None";

/// kube-proxy lists no service that has one of these labels.
const FOREIGN_LABELS: [&str; 2] =
    ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"];

/// kube-proxy skips a service without cluster address and one that is only a name, whatever else they say.
pub(super) fn read(
    fields: &JsonObject<'_>,
    name: ObjectName,
    labels: &Labels,
    names: &mut NameInterner,
) -> Decoded {
    let (spec, status) = (fields.get("spec"), fields.get("status"));
    let Ok(spec) = spec.object() else { return Decoded::UnservedService(name) };
    let cluster_addresses = cluster_addresses(&spec);
    let is_name = matches!(spec.get("type").text(), Ok(Some("ExternalName")));
    let proxy = match cluster_addresses.is_empty() {
        _ if is_name => return Decoded::UnservedService(name),
        true if is_headless(&spec) => Proxy::Headless,
        true => return Decoded::UnservedService(name),
        false if FOREIGN_LABELS.iter().any(|label| labels.contains_key(*label)) => Proxy::Other,
        false => Proxy::KubeProxy,
    };
    let external_addresses = external_addresses(&spec, &status, &cluster_addresses);
    // If it is not known, then all endpoints: those of the node are among them.
    let internal_local = is_local(&spec.get("internalTrafficPolicy")).unwrap_or(false);
    let external_local = is_local(&spec.get("externalTrafficPolicy")).unwrap_or(false);
    let ports = ports(&spec.get("ports"), names);
    Decoded::Service(Service {
        name,
        proxy,
        cluster_addresses,
        external_addresses,
        internal_local,
        external_local,
        is_over_limit: false,
        ports,
    })
}

fn is_headless(spec: &JsonObject<'_>) -> bool {
    let (many, single) = (spec.get("clusterIPs"), spec.get("clusterIP"));
    let is_none = |field: &Field<'_>| matches!(field.optional_text(), Ok(Some(HEADLESS)));
    is_none(&single) || many.items().is_ok_and(|mut items| items.any(|item| is_none(&item)))
}

/// `clusterIPs`; where it names none, `clusterIP`.
fn cluster_addresses(spec: &JsonObject<'_>) -> Vec<IpAddr> {
    let (many, single) = (spec.get("clusterIPs"), spec.get("clusterIP"));
    let mut addresses: Vec<IpAddr> = Vec::new();
    let mut push = |field: &Field<'_>| {
        if matches!(field.optional_text(), Ok(None | Some(HEADLESS)) | Err(_)) {
            return;
        }
        let Ok(address) = address::read(field) else { return };
        match addresses.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
            true => {
                let _reported = field.fault(format!("{address} is a second address of its family"));
            }
            false => addresses.push(address),
        }
    };
    match many.items().ok().filter(|items| items.len() > 0) {
        Some(items) => items.for_each(|item| push(&item)),
        None => push(&single),
    }
    addresses
}

/// Those of a family in which the service is served.
fn external_addresses(spec: &JsonObject<'_>, status: &Field<'_>, cluster: &[IpAddr]) -> Vec<IpAddr> {
    let (mut addresses, mut known) = (Vec::new(), HashSet::new());
    let mut push = |address: IpAddr| {
        let is_served = cluster.iter().any(|other| other.is_ipv4() == address.is_ipv4());
        if is_served && known.insert(address) {
            addresses.push(address);
        }
    };
    let external = spec.get("externalIPs");
    for item in external.items().into_iter().flatten() {
        if let Ok(address) = address::read_reachable(&item) {
            push(address);
        }
    }
    if let Ok(status) = status.object()
        && let Ok(balancer) = status.get("loadBalancer").object()
    {
        for item in balancer.get("ingress").items().into_iter().flatten() {
            if let Ok(Some(address)) = load_balancer_address(&item) {
                push(address);
            }
        }
    }
    addresses
}

/// `None` for a load balancer that has a name alone, or that sends to the nodes' own addresses.
fn load_balancer_address(field: &Field<'_>) -> Result<Option<IpAddr>, Reported> {
    let object = field.object()?;
    let (ip, mode) = (object.get("ip"), object.get("ipMode"));
    if ip.optional_text()?.is_none() {
        return Ok(None);
    }
    let address = address::read(&ip)?;
    match mode.text()? {
        None | Some("VIP") => Ok(Some(address)),
        Some("Proxy") => Ok(None),
        Some(other) => Err(mode.fault(format!("{} is not VIP or Proxy", quoted(other)))),
    }
}

fn is_local(policy: &Field<'_>) -> Result<bool, Reported> {
    match policy.optional_text()? {
        None | Some("Cluster") => Ok(false),
        Some("Local") => Ok(true),
        Some(other) => Err(policy.fault(format!("{} is not Cluster or Local", quoted(other)))),
    }
}

fn ports(field: &Field<'_>, names: &mut NameInterner) -> Vec<ServicePort> {
    let mut ports = Vec::new();
    let Ok(items) = field.items() else { return ports };
    let (needs_names, mut earlier) = (items.len() > 1, EarlierPorts::default());
    for item in items {
        if let Ok(port) = service_port(&item, needs_names, &earlier, names) {
            earlier.names.insert(port.name.clone());
            earlier.numbers.insert((port.protocol, port.number));
            earlier.node_ports.extend(port.node_port.map(|number| (port.protocol, number)));
            ports.push(port);
        }
    }
    ports
}

/// What the entries before one have taken.
#[derive(Default)]
struct EarlierPorts {
    names: HashSet<Name>,
    numbers: HashSet<(Protocol, u16)>,
    node_ports: HashSet<(Protocol, u16)>,
}

/// One entry, which must differ from the earlier ones. A bad node port costs the node port alone.
fn service_port(
    field: &Field<'_>,
    needs_name: bool,
    earlier: &EarlierPorts,
    names: &mut NameInterner,
) -> Result<ServicePort, Reported> {
    let object = field.object()?;
    let name_field = object.get("name");
    let name = match needs_name {
        true => name_field.required_text()?,
        false => name_field.optional_text()?.unwrap_or_default(),
    };
    port::own_name(&name_field, name, &earlier.names)?;
    let protocol = port::protocol(&object.get("protocol"))?;
    let number_field = object.get("port");
    let number = number_field.port_number()?;
    if earlier.numbers.contains(&(protocol, number)) {
        return Err(number_field.fault(format!("{protocol} {number} is an earlier port")));
    }
    let node_field = object.get("nodePort");
    let node_port = node_field.optional_port_number().ok().flatten().filter(|number| {
        let is_taken = earlier.node_ports.contains(&(protocol, *number));
        if is_taken {
            let _reported =
                node_field.fault(format!("{protocol} {number} is the node port of an earlier port"));
        }
        !is_taken
    });
    Ok(ServicePort { name: names.name(name), protocol, number, node_port })
}
