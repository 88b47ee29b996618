//! Entries of `ports` in a policy's rule, and what ports have in common wherever they stand.

use std::collections::HashSet;

use podgate_common::Protocol;
use podgate_core::model::{Name, PortRule};

use super::{
    field::{Field, JsonObject, NumberOrText, Reported, quoted},
    intern::NameInterner,
    syntax,
};

/// `port` and `endPort` of an entry.
enum Span {
    All,
    Numbers { first: u16, last: u16 },
    Named(Name),
}

/// An entry with any fault matches nothing.
pub(super) fn read(field: &Field<'_>, names: &mut NameInterner) -> PortRule {
    rule(field, names).unwrap_or(PortRule::Nothing)
}

/// TCP when absent.
pub(super) fn protocol(field: &Field<'_>) -> Result<Protocol, Reported> {
    let name = field.text()?;
    named_protocol(name)
        .ok_or_else(|| field.fault(format!("{} is not TCP, UDP or SCTP", quoted(name.unwrap_or_default()))))
}

/// `None`: no protocol has this name.
pub(super) fn named_protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

/// The name of a port of a service or of its endpoints, empty if it has none: no two ports of one object
/// share theirs. `earlier`: those of the ports before it.
pub(super) fn own_name(field: &Field<'_>, name: &str, earlier: &HashSet<Name>) -> Result<(), Reported> {
    if !name.is_empty() {
        syntax::check(field, name, syntax::dns_label(name))?;
    }
    match earlier.contains(name) {
        true => Err(field.fault(format!("{} names an earlier port", quoted(name)))),
        false => Ok(()),
    }
}

/// Looks at every field, so that every fault is reported, before it gives up.
fn rule(field: &Field<'_>, names: &mut NameInterner) -> Result<PortRule, Reported> {
    let object = field.object()?;
    let only_known = object.has_only(&["protocol", "port", "endPort"]);
    let protocol = protocol(&object.get("protocol"));
    let span = span(&object, names);
    let protocol = protocol?;
    only_known?;
    Ok(match span? {
        Span::All => PortRule::Protocol(protocol),
        Span::Numbers { first, last } => PortRule::Range { protocol, first, last },
        Span::Named(name) => PortRule::Named(Some(protocol), name),
    })
}

fn span(object: &JsonObject<'_>, names: &mut NameInterner) -> Result<Span, Reported> {
    let start = start(&object.get("port"), names);
    let field = object.get("endPort");
    if !field.is_given() {
        return start;
    }
    let last = field.port_number();
    match start? {
        Span::All => Err(field.fault("needs a port")),
        Span::Named(_) => Err(field.fault("needs a port that is a number")),
        Span::Numbers { first, .. } => match last? {
            last if last < first => Err(field.fault(format!("{last} is less than port {first}"))),
            last => Ok(Span::Numbers { first, last }),
        },
    }
}

fn start(field: &Field<'_>, names: &mut NameInterner) -> Result<Span, Reported> {
    Ok(match field.number_or_text()? {
        None => Span::All,
        Some(NumberOrText::Number) => {
            let first = field.port_number()?;
            Span::Numbers { first, last: first }
        }
        Some(NumberOrText::Text(name)) => {
            syntax::check(field, name, syntax::port_name(name))?;
            Span::Named(names.name(name))
        }
    })
}
