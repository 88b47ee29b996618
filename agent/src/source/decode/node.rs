//! Nodes: the addresses of `status.addresses`.

use std::net::IpAddr;

use crate::model::Node;

use super::{
    address,
    field::{Field, Object, Reported},
};

pub(super) fn read(fields: &Object<'_>) -> Node {
    let status = fields.get("status");
    let mut addresses = Vec::new();
    if let Ok(status) = status.object()
        && let Ok(items) = status.get("addresses").items()
    {
        addresses.extend(items.filter_map(|item| address(&item).ok().flatten()));
    }
    Node { addresses }
}

/// Host and DNS names are no addresses.
fn address(field: &Field<'_>) -> Result<Option<IpAddr>, Reported> {
    let object = field.object()?;
    match object.get("type").required_text()? {
        "InternalIP" | "ExternalIP" => address::read(&object.get("address")).map(Some),
        _ => Ok(None),
    }
}
