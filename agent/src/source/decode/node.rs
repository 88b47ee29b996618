//! Nodes: labels, and the addresses of `status.addresses`.

use std::net::IpAddr;

use podgate_core::model::{Labels, Node};

use super::{
    address,
    field::{Field, JsonObject, Reported},
};

pub(super) fn read(fields: &JsonObject<'_>, labels: Labels) -> Node {
    let status = fields.get("status");
    let mut addresses: Vec<IpAddr> = Vec::new();
    if let Ok(status) = status.object()
        && let Ok(items) = status.get("addresses").items()
    {
        for address in items.filter_map(|item| address(&item).ok().flatten()) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    Node { labels, addresses }
}

/// Host and DNS names are no addresses, unless they are written as one.
fn address(field: &Field<'_>) -> Result<Option<IpAddr>, Reported> {
    let object = field.object()?;
    match object.get("type").required_text()? {
        "InternalIP" | "ExternalIP" => address::read(&object.get("address")).map(Some),
        _ => Ok(object.get("address").text()?.and_then(address::parse)),
    }
}
