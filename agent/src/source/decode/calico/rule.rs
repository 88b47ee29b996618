//! One rule of Calico's, and the ports and protocols that it is about.
//!
//! What is not carried or not understood closes the rule: one that allows matches nothing, one that denies or
//! passes denies whatever the rest of it matches.

use podgate_common::{Direction, Protocol};
use podgate_core::model::{
    Action, CalicoEnds, CalicoRule, IpFamily, Name, Peer, Peers, PortRule, Ports, Rule,
};

use super::{
    super::{
        field::{Field, JsonObject, NumberOrText, Reported, quoted},
        intern::NameInterner,
    },
    entity::{self, Entity, Scope},
};

const FIELDS: [&str; 10] = [
    "action",
    "metadata",
    "ipVersion",
    "protocol",
    "notProtocol",
    "icmp",
    "notICMP",
    "source",
    "destination",
    "http",
];

/// What a protocol is to the data path.
enum WantedProtocol {
    Known(Protocol),
    /// It has no ports: all of these are one.
    Other,
}

pub(super) fn read(
    field: &Field<'_>,
    namespace: Option<&Name>,
    direction: Direction,
    names: &mut NameInterner,
) -> CalicoRule {
    let Ok(object) = field.object() else { return closed(Action::Deny, CalicoEnds::default(), Ports::Any) };
    let mut is_partial = object.has_only(&FIELDS).is_err();
    let action = action(&object.get("action"));
    is_partial |= action.is_err();
    let action = action.unwrap_or(Action::Deny);
    let denies = match action {
        Action::Deny => true,
        Action::Accept | Action::Pass | Action::Log => false,
    };
    let scope = Scope { namespace, denies };
    let [source, destination] =
        ["source", "destination"].map(|end| entity::read(&object.get(end), scope, names));
    is_partial |= source.is_partial || destination.is_partial;
    let (Entity { matches: peer, .. }, Entity { matches: own, .. }) = match direction {
        Direction::Ingress => (source, destination),
        Direction::Egress => (destination, source),
    };
    let family = family(&object.get("ipVersion"));
    is_partial |= family.is_err();
    for (name, why) in NOT_CARRIED {
        let field = object.get(name);
        if field.is_given() {
            let _reported = field.fault(why);
            is_partial = true;
        }
    }
    let (ports, is_whole) = ports(&object, names);
    is_partial |= !is_whole;
    let ends = CalicoEnds { peer, own, family: family.ok().flatten() };
    if is_partial { closed(action, ends, ports) } else { rule(action, ends, ports) }
}

const NOT_CARRIED: [(&str, &str); 3] = [
    ("http", "is not carried: podgate does not look into connections"),
    ("icmp", "is not carried: podgate does not tell types of ICMP apart"),
    ("notICMP", "is not carried: podgate does not tell types of ICMP apart"),
];

fn rule(action: Action, ends: CalicoEnds, ports: Ports) -> CalicoRule {
    CalicoRule { action, matches: Rule { peers: Peers::Calico(Box::new(ends)), ports } }
}

fn closed(action: Action, ends: CalicoEnds, ports: Ports) -> CalicoRule {
    match action {
        Action::Accept | Action::Log => CalicoRule {
            action,
            matches: Rule { peers: Peers::Listed(vec![Peer::Nothing]), ports: Ports::Any },
        },
        Action::Deny | Action::Pass => rule(Action::Deny, ends, ports),
    }
}

fn action(field: &Field<'_>) -> Result<Action, Reported> {
    let text = field.required_text()?;
    let actions =
        [("Allow", Action::Accept), ("Deny", Action::Deny), ("Pass", Action::Pass), ("Log", Action::Log)];
    let found = actions.into_iter().find(|(word, _)| text.eq_ignore_ascii_case(word));
    found
        .map(|(_, action)| action)
        .ok_or_else(|| field.fault(format!("{} is not Allow, Deny, Pass or Log", quoted(text))))
}

fn family(field: &Field<'_>) -> Result<Option<IpFamily>, Reported> {
    if !field.is_given() {
        return Ok(None);
    }
    match field.number_to(6)? {
        4 => Ok(Some(IpFamily::V4)),
        6 => Ok(Some(IpFamily::V6)),
        other => Err(field.fault(format!("{other} is neither 4 nor 6"))),
    }
}

/// Out: also whether that is all that was written.
fn ports(object: &JsonObject<'_>, names: &mut NameInterner) -> (Ports, bool) {
    let mut is_whole = true;
    let mut protocol_of = |name| {
        let found = protocol(&object.get(name));
        is_whole &= found.is_ok();
        found.ok().flatten()
    };
    let (wanted, not_wanted) = (protocol_of("protocol"), protocol_of("notProtocol"));
    let (mut listed, mut except) = (None, Vec::new());
    let mut known = None;
    match wanted {
        None => {}
        Some(WantedProtocol::Known(protocol)) => {
            listed = Some(vec![PortRule::Protocol(protocol)]);
            known = Some(protocol);
        }
        Some(WantedProtocol::Other) => {
            let field = object.get("protocol");
            let _reported = field.fault(NOT_TOLD_APART);
            is_whole = false;
            except.extend(Protocol::ALL.map(PortRule::Protocol));
        }
    }
    match not_wanted {
        None => {}
        Some(WantedProtocol::Known(protocol)) => except.push(PortRule::Protocol(protocol)),
        Some(WantedProtocol::Other) => {
            let field = object.get("notProtocol");
            let _reported = field.fault(NOT_TOLD_APART);
            is_whole = false;
        }
    }
    let end = object.get("source");
    if let Ok(source) = end.object() {
        is_whole &= entity::client_ports(&source).is_ok();
    }
    let end = object.get("destination");
    if let Ok(destination) = end.object() {
        let [wanted, not_wanted] =
            ["ports", "notPorts"].map(|list| port_list(&destination.get(list), known, names));
        is_whole &= wanted.is_ok() && not_wanted.is_ok();
        listed = wanted.ok().flatten().or(listed);
        except.extend(not_wanted.ok().flatten().unwrap_or_default());
    }
    match (listed, except.is_empty()) {
        (None, true) => (Ports::Any, is_whole),
        (Some(listed), true) => (Ports::Listed(listed), is_whole),
        (listed, false) => (Ports::Except { listed, except }, is_whole),
    }
}

const NOT_TOLD_APART: &str = "is not carried: podgate tells only TCP, UDP and SCTP apart";

fn protocol(field: &Field<'_>) -> Result<Option<WantedProtocol>, Reported> {
    match field.number_or_text()? {
        None => Ok(None),
        Some(NumberOrText::Number) => {
            let number = u32::from(field.number_to(255)?);
            Ok(Some(Protocol::try_from(number).map_or(WantedProtocol::Other, WantedProtocol::Known)))
        }
        Some(NumberOrText::Text(text)) => {
            let known = Protocol::ALL.into_iter().find(|known| text.eq_ignore_ascii_case(&known.to_string()));
            if let Some(known) = known {
                return Ok(Some(WantedProtocol::Known(known)));
            }
            if OTHERS.into_iter().any(|other| text.eq_ignore_ascii_case(other)) {
                return Ok(Some(WantedProtocol::Other));
            }
            match text.parse::<u8>() {
                Ok(number) => Ok(Some(
                    Protocol::try_from(u32::from(number))
                        .map_or(WantedProtocol::Other, WantedProtocol::Known),
                )),
                Err(_) => Err(field.fault(format!("{} is not a protocol", quoted(text)))),
            }
        }
    }
}

const OTHERS: [&str; 3] = ["ICMP", "ICMPv6", "UDPLite"];

/// `None`: absent, or empty.
fn port_list(
    field: &Field<'_>,
    protocol: Option<Protocol>,
    names: &mut NameInterner,
) -> Result<Option<Vec<PortRule>>, Reported> {
    let items = field.items()?;
    if items.len() == 0 {
        return Ok(None);
    }
    let Some(protocol) = protocol else {
        return Err(field.fault("needs protocol: TCP, UDP or SCTP"));
    };
    let ports: Vec<Result<PortRule, Reported>> = items.map(|item| port(&item, protocol, names)).collect();
    ports.into_iter().collect::<Result<Vec<PortRule>, Reported>>().map(Some)
}

/// A number, a range as in `"80:90"`, or the name of a port.
fn port(field: &Field<'_>, protocol: Protocol, names: &mut NameInterner) -> Result<PortRule, Reported> {
    let text = match field.number_or_text()? {
        None => return Err(field.fault("is missing")),
        Some(NumberOrText::Number) => {
            let first = field.number_to(u16::MAX)?;
            return Ok(PortRule::Range { protocol, first, last: first });
        }
        Some(NumberOrText::Text(text)) => text,
    };
    let (first, last) = text.split_once(':').unwrap_or((text, text));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) if first <= last => Ok(PortRule::Range { protocol, first, last }),
        (Err(_), Err(_)) if is_name(text) => Ok(PortRule::Named(Some(protocol), names.name(text))),
        _ => Err(field.fault(format!("{} is not a port, a range of ports or a name", quoted(text)))),
    }
}

fn is_name(text: &str) -> bool {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=128).contains(&text.len())
        && text.bytes().all(is_of_name)
        && text.bytes().any(|byte| byte.is_ascii_alphabetic())
}
