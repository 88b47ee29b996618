//! EndpointSlices: the addresses and ports behind a service.
//!
//! The rules are those of Kubernetes' `pkg/apis/discovery/{v1/defaults,validation/validation}.go`, and what
//! kube-proxy takes an absent condition for. Zones are left out: hints are made of them.

use std::{collections::HashSet, net::IpAddr};

use podgate_core::model::{EndpointSlice, Hints, Labels, Name, ObjectName, Proxy, SliceEndpoint, SlicePort};

use super::{
    Decoded, address,
    field::{Field, JsonObject, Reported, quoted},
    intern::NameInterner,
    port,
};

const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// On the slices of services that have no cluster address, and of those of another proxy, which the
/// controller gives all labels of their service: kube-proxy reads neither.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
const PROXY_LABEL: &str = "service.kubernetes.io/service-proxy-name";

/// `addressType`, where the addresses are IP addresses.
#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

pub(super) fn read(
    fields: &JsonObject<'_>,
    name: ObjectName,
    labels: &Labels,
    names: &mut NameInterner,
) -> Decoded {
    let service = labels.get(SERVICE_LABEL).filter(|service| !service.is_empty());
    let family = family(&fields.get("addressType"));
    let (Some(service), Ok(Some(family))) = (service, family) else { return Decoded::UnservedSlice(name) };
    let proxy = match (labels.contains_key(HEADLESS_LABEL), labels.contains_key(PROXY_LABEL)) {
        (true, _) => Proxy::Headless,
        (false, true) => Proxy::Other,
        (false, false) => Proxy::KubeProxy,
    };
    let service = ObjectName { namespace: name.namespace.clone(), name: service.clone() };
    let (ports, endpoints) = (fields.get("ports"), fields.get("endpoints"));
    let endpoints = endpoints.items().into_iter().flatten();
    let endpoints = endpoints.filter_map(|item| endpoint(&item, family, names).ok()).collect();
    Decoded::Slice(EndpointSlice { name, service, proxy, ports: slice_ports(&ports, names), endpoints })
}

/// `None` for names, which kube-proxy does not read.
fn family(field: &Field<'_>) -> Result<Option<Family>, Reported> {
    match field.required_text()? {
        "IPv4" => Ok(Some(Family::V4)),
        "IPv6" => Ok(Some(Family::V6)),
        "FQDN" => Ok(None),
        other => Err(field.fault(format!("{} is not IPv4, IPv6 or FQDN", quoted(other)))),
    }
}

/// Unknown means ready, serving and staying.
fn endpoint(field: &Field<'_>, family: Family, names: &mut NameInterner) -> Result<SliceEndpoint, Reported> {
    let object = field.object()?;
    let addresses = object.get("addresses");
    let Some(first) = addresses.items()?.next() else { return Err(addresses.fault("is empty")) };
    let address = address::read_reachable(&first)?;
    match (family, address) {
        (Family::V4, IpAddr::V4(_)) | (Family::V6, IpAddr::V6(_)) => {}
        (Family::V4, _) => return Err(first.fault(format!("{address} is not an IPv4 address"))),
        (Family::V6, _) => return Err(first.fault(format!("{address} is not an IPv6 address"))),
    }
    let node = object.get("nodeName").optional_text()?.map(|node| names.name(node));
    let conditions = object.get("conditions");
    let conditions = conditions.object()?;
    let condition = |name, absent| conditions.get(name).boolean().map(|value| value.unwrap_or(absent));
    Ok(SliceEndpoint {
        address,
        node,
        ready: condition("ready", true)?,
        serving: condition("serving", true)?,
        terminating: condition("terminating", false)?,
        hints: hints(&object.get("hints"), names),
    })
}

/// Hints only narrow a choice: one that cannot be read is none.
fn hints(field: &Field<'_>, names: &mut NameInterner) -> Option<Box<Hints>> {
    let object = field.object().ok()?;
    let mut listed = |name: &'static str| -> Vec<Name> {
        let field = object.get(name);
        let items = field.items().into_iter().flatten();
        let found = items.filter_map(|item| {
            let item = item.object().ok()?;
            let name = item.get("name");
            name.optional_text().ok().flatten().map(|name| names.name(name))
        });
        found.collect()
    };
    let hints = Hints { zones: listed("forZones"), nodes: listed("forNodes") };
    (hints != Hints::default()).then(|| hints.into())
}

fn slice_ports(field: &Field<'_>, names: &mut NameInterner) -> Vec<SlicePort> {
    let (mut ports, mut earlier) = (Vec::new(), HashSet::new());
    for item in field.items().into_iter().flatten() {
        if let Ok(port) = slice_port(&item, &earlier, names) {
            earlier.insert(port.name.clone());
            ports.push(port);
        }
    }
    ports
}

/// One entry; its name must differ from the earlier ones'.
fn slice_port(
    field: &Field<'_>,
    earlier: &HashSet<Name>,
    names: &mut NameInterner,
) -> Result<SlicePort, Reported> {
    let object = field.object()?;
    let name_field = object.get("name");
    let name = name_field.text()?.unwrap_or_default();
    port::own_name(&name_field, name, earlier)?;
    let protocol = port::protocol(&object.get("protocol"))?;
    let number_field = object.get("port");
    let number = number_field.is_given().then(|| number_field.port_number()).transpose()?;
    Ok(SlicePort { name: names.name(name), protocol, number })
}
