//! `protocols` of a ClusterNetworkPolicy's rule, and `ports` of its forerunners'.

use podgate_common::Protocol;
use podgate_core::model::{PortRule, Ports};

use super::{
    field::{Field, JsonObject, Reported},
    intern::NameInterner,
    port,
};

/// What the protocols are called in `protocols`.
const PROTOCOLS: [(&str, Protocol); 3] =
    [("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("sctp", Protocol::Sctp)];

/// `list` is what the field is called. `None`: not wholly understood; every fault is reported before.
pub(super) fn read_all(field: &Field<'_>, list: &str, names: &mut NameInterner) -> Option<Ports> {
    if !field.is_given() {
        return Some(Ports::Any);
    }
    let items = field.items().ok()?;
    if items.len() == 0 {
        let _reported = field.fault("must not be empty");
        return None;
    }
    let read = if list == "protocols" { protocol } else { port };
    let each: Vec<_> = items.map(|item| read(&item, names)).collect();
    each.into_iter().collect::<Result<_, _>>().ok().map(Ports::Listed)
}

/// Of ClusterNetworkPolicies. `tcp: {}` can not be stored, and is what it says: any port of TCP.
fn protocol(field: &Field<'_>, names: &mut NameInterner) -> Result<PortRule, Reported> {
    const NAMED: &str = "destinationNamedPort";
    let object = field.object()?;
    object.has_only(&["tcp", "udp", "sctp", NAMED])?;
    let given = PROTOCOLS.iter().filter(|(name, _)| object.get(name).is_given());
    let given: Vec<_> = given.collect();
    let named = object.get(NAMED);
    match (&given[..], named.optional_text()?) {
        ([(name, protocol)], None) => of_protocol(&object.get(name), *protocol),
        ([], Some(name)) => Ok(PortRule::Named(None, names.name(name))),
        _ => Err(field.fault("needs one of tcp, udp, sctp, destinationNamedPort")),
    }
}

fn of_protocol(field: &Field<'_>, protocol: Protocol) -> Result<PortRule, Reported> {
    let object = field.object()?;
    object.has_only(&["destinationPort"])?;
    let port = object.get("destinationPort");
    if !port.is_given() {
        return Ok(PortRule::Protocol(protocol));
    }
    let port_object = port.object()?;
    port_object.has_only(&["number", "range"])?;
    let (number, range) = (port_object.get("number"), port_object.get("range"));
    match (number.is_given(), range.is_given()) {
        (true, false) => single(&number, protocol),
        (false, true) => {
            let range_object = range.object()?;
            range_object.has_only(&["start", "end"])?;
            span(&range_object, protocol)
        }
        _ => Err(port.fault("needs either number or range")),
    }
}

/// Of their forerunners.
fn port(field: &Field<'_>, names: &mut NameInterner) -> Result<PortRule, Reported> {
    let object = field.object()?;
    object.has_only(&["portNumber", "portRange", "namedPort"])?;
    let (number, range) = (object.get("portNumber"), object.get("portRange"));
    let named = object.get("namedPort");
    match (number.is_given(), range.is_given(), named.optional_text()?) {
        (true, false, None) => {
            let number = number.object()?;
            number.has_only(&["protocol", "port"])?;
            let protocol = port::protocol(&number.get("protocol"))?;
            single(&number.get("port"), protocol)
        }
        (false, true, None) => {
            let range = range.object()?;
            range.has_only(&["protocol", "start", "end"])?;
            let protocol = port::protocol(&range.get("protocol"))?;
            span(&range, protocol)
        }
        (false, false, Some(name)) => Ok(PortRule::Named(None, names.name(name))),
        _ => Err(field.fault("needs one of portNumber, portRange, namedPort")),
    }
}

fn single(number: &Field<'_>, protocol: Protocol) -> Result<PortRule, Reported> {
    let first = number.port_number()?;
    Ok(PortRule::Range { protocol, first, last: first })
}

/// "start must be less than end."
fn span(range: &JsonObject<'_>, protocol: Protocol) -> Result<PortRule, Reported> {
    let (start, end) = (range.get("start").port_number(), range.get("end").port_number());
    let (first, last) = (start?, end?);
    match first < last {
        true => Ok(PortRule::Range { protocol, first, last }),
        false => Err(range.get("end").fault(format!("{last} is not greater than start {first}"))),
    }
}
