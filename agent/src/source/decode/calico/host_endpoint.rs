//! HostEndpoint: its node, its devices, and the properties that policies match.
//!
//! Each field is read by itself, and fails closed: an address or a port that is not understood is left out, a
//! profile that is not known allows nothing. Without a node or a device there is no host endpoint.

use std::net::IpAddr;

use podgate_core::model::{DEFAULT_ALLOW_PROFILE, HostDevices, HostEndpoint, Labels, Name, NamedPort};

use super::{CalicoHeader, Stored};
use crate::source::decode::{
    address,
    field::{Field, JsonObject, Reported, quoted},
    intern::NameInterner,
    port, syntax,
};

/// `None`: its node or its devices are not known.
pub(in super::super) fn read(
    fields: &JsonObject<'_>,
    header: CalicoHeader,
    names: &mut NameInterner,
) -> Option<HostEndpoint> {
    let CalicoHeader { api, namespace: _, name, labels, audit: _ } = header;
    let labels: Labels = Stored::of(fields, api, names).labels.unwrap_or(labels);
    let spec = fields.get("spec");
    let spec = spec.object().ok()?;
    spec.report_unknown(&["node", "interfaceName", "expectedIPs", "profiles", "ports"]);
    let addresses = addresses(&spec.get("expectedIPs"));
    let (ports, is_open) = (ports(&spec.get("ports"), names), is_open(&spec.get("profiles")));
    let node = spec.get("node").required_text().map(|node| names.name(node));
    let devices = devices(&spec.get("interfaceName"), &addresses, names);
    let (node, devices) = (node.ok()?, devices.ok()?);
    Some(HostEndpoint::new(name, node, devices, labels, names.ports(ports), &addresses, is_open))
}

fn devices(
    field: &Field<'_>,
    addresses: &[IpAddr],
    names: &mut NameInterner,
) -> Result<HostDevices, Reported> {
    match field.optional_text()? {
        Some("*") => Ok(HostDevices::Every),
        Some(name) => Ok(HostDevices::Named(names.name(name))),
        None if addresses.is_empty() => {
            Err(field.fault("is missing, as are expectedIPs: it is not known which device it is"))
        }
        None => Ok(HostDevices::WithAddress),
    }
}

fn addresses(field: &Field<'_>) -> Vec<IpAddr> {
    let items = field.items().into_iter().flatten();
    let mut addresses: Vec<IpAddr> = items.filter_map(|item| address::read(&item).ok()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn ports(field: &Field<'_>, names: &mut NameInterner) -> Vec<NamedPort> {
    let mut port = |item: &Field<'_>| -> Result<NamedPort, Reported> {
        let object = item.object()?;
        object.report_unknown(&["name", "protocol", "port"]);
        let (name_field, protocol_field) = (object.get("name"), object.get("protocol"));
        let name: Name = names.name(name_field.required_text()?);
        syntax::check(&name_field, &name, syntax::port_name(&name))?;
        let protocol = protocol_field.required_text()?.to_ascii_uppercase();
        let protocol = port::named_protocol(Some(&protocol))
            .ok_or_else(|| protocol_field.fault(format!("{} is not TCP, UDP or SCTP", quoted(&protocol))))?;
        Ok(NamedPort { name, protocol, number: object.get("port").port_number()? })
    };
    field.items().into_iter().flatten().filter_map(|item| port(&item).ok()).collect()
}

/// Whether a profile allows what no policy decides: Calico's own for that, or that of a namespace of
/// Kubernetes, which allows everything.
fn is_open(field: &Field<'_>) -> bool {
    let mut is_open = false;
    for item in field.items().into_iter().flatten() {
        match item.required_text() {
            Ok(name) if name == DEFAULT_ALLOW_PROFILE || name.starts_with("kns.") => is_open = true,
            Ok(name) => {
                let _reported = item.fault(format!(
                    "{} is not carried: podgate reads no Profile objects, and it allows nothing",
                    quoted(name)
                ));
            }
            Err(_reported) => {}
        }
    }
    is_open
}
