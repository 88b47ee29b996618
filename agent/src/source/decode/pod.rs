//! Pods: where they run, their addresses, their named ports and what their node leads to them.

use std::{collections::BTreeSet, net::IpAddr};

use podgate_common::Protocol;
use podgate_core::model::{HostPort, Labels, NamedPort, ObjectName, Pod, PodAddresses, Uid};

use super::{
    Decoded, address,
    field::{Field, JsonObject, Reported},
    intern::NameInterner,
    port, syntax,
};

pub(super) fn read(
    fields: &JsonObject<'_>,
    name: ObjectName,
    labels: Labels,
    names: &mut NameInterner,
) -> Decoded {
    let (spec, status) = (fields.get("spec"), fields.get("status"));
    let status = status.object().ok();
    if status.is_some_and(|status| has_finished(&status)) {
        return Decoded::FinishedPod(name);
    }
    let addresses = status.map(|status| addresses(&status)).unwrap_or_default();
    let mut pod = Pod {
        name,
        uid: uid(fields),
        labels,
        service_account: None,
        node: None,
        addresses,
        host_network: false,
        ports: names.ports(Vec::new()),
        host_ports: Box::default(),
        host: None,
    };
    if let Ok(spec) = spec.object() {
        pod.node = spec.get("nodeName").optional_text().ok().flatten().map(|node| names.name(node));
        pod.service_account =
            spec.get("serviceAccountName").optional_text().ok().flatten().map(|account| names.name(account));
        pod.host_network = spec.get("hostNetwork").boolean().ok().flatten().unwrap_or(false);
        let (ports, host_ports) = ports(&spec, names);
        pod.ports = names.ports(ports);
        if !pod.host_network {
            pod.host_ports = host_ports.into();
        }
    }
    Decoded::Pod(pod)
}

/// The object of a static pod is a mirror that has a uid of its own (`kubetypes.ConfigMirrorAnnotationKey`).
fn uid(fields: &JsonObject<'_>) -> Option<Uid> {
    let metadata = fields.get("metadata");
    let metadata = metadata.object().ok()?;
    let annotations = metadata.get("annotations");
    let annotations = annotations.object().ok();
    let is_mirror = annotations.is_some_and(|it| matches!(it.get(MIRROR).optional_text(), Ok(Some(_))));
    let uid = metadata.get("uid").optional_text().ok().flatten().and_then(Uid::parse);
    uid.filter(|_| !is_mirror)
}

/// Of the annotations of such a mirror.
pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";

/// Its addresses may be another pod's by now. Every other phase counts, also Unknown and those to come.
fn has_finished(status: &JsonObject<'_>) -> bool {
    matches!(status.get("phase").text(), Ok(Some("Succeeded" | "Failed")))
}

/// `podIPs`; where it names none, `podIP`.
fn addresses(status: &JsonObject<'_>) -> PodAddresses {
    let mut addresses = PodAddresses::new();
    let mut push = |address: Result<IpAddr, Reported>| {
        if let Ok(address) = address
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    };
    let many = status.get("podIPs");
    let items = many.items().ok().filter(|items| items.len() > 0);
    match items {
        Some(items) => items.for_each(|item| push(item.object().and_then(|ip| address::read(&ip.get("ip"))))),
        None => {
            let single = status.get("podIP");
            if let Ok(Some(_)) = single.optional_text() {
                push(address::read(&single));
            }
        }
    }
    addresses
}

/// Of the containers that live as long as the pod: init containers only when they restart (sidecars).
fn ports(spec: &JsonObject<'_>, names: &mut NameInterner) -> (Vec<NamedPort>, Vec<HostPort>) {
    let (mut ports, mut host_ports, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (list, only_sidecars) in [("containers", false), ("initContainers", true)] {
        let field = spec.get(list);
        for container in field.items().into_iter().flatten() {
            let Ok(container) = container.object() else { continue };
            if only_sidecars && !matches!(container.get("restartPolicy").text(), Ok(Some("Always"))) {
                continue;
            }
            for item in container.get("ports").items().into_iter().flatten() {
                let Ok((port, host_port)) = container_port(&item, names) else { continue };
                ports.extend(port.filter(|port| seen.insert(port.clone())));
                host_ports.extend(host_port);
            }
        }
    }
    (ports, host_ports)
}

/// `None` for a port without a name, and without a number on the node: nothing can refer to it.
fn container_port(
    field: &Field<'_>,
    names: &mut NameInterner,
) -> Result<(Option<NamedPort>, Option<HostPort>), Reported> {
    let object = field.object()?;
    let (name_field, host_field) = (object.get("name"), object.get("hostPort"));
    let name = name_field.optional_text()?;
    let host_number = host_field.optional_port_number().ok().flatten();
    if name.is_none() && host_number.is_none() {
        return Ok((None, None));
    }
    if let Some(name) = name {
        syntax::check(&name_field, name, syntax::port_name(name))?;
    }
    let protocol: Protocol = port::protocol(&object.get("protocol"))?;
    let number = object.get("containerPort").port_number()?;
    let host_port = host_number.and_then(|host| {
        let address_field = object.get("hostIP");
        let address = match address_field.optional_text().ok()? {
            Some(_) => Some(address::read(&address_field).ok()?).filter(|address| !address.is_unspecified()),
            None => None,
        };
        Some(HostPort { address, protocol, number: host, container_number: number })
    });
    Ok((name.map(|name| NamedPort { name: names.name(name), protocol, number }), host_port))
}
