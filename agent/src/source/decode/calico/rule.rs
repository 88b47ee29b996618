//! One rule of Calico's, and the ports and protocols that it is about.
//!
//! What is not carried or not understood closes the rule: one that allows matches nothing, one that denies or
//! passes denies whatever the rest of it matches.

use podgate_common::{Direction, Protocol, RuleProtocol};
use podgate_core::model::{
    Action, CalicoEnds, CalicoRule, IpFamily, Name, Peer, Peers, PortRule, Ports, Rule,
};

use super::{
    super::{
        field::{Field, JsonObject, NumberOrText, Reported, quoted},
        intern::NameInterner,
    },
    entity::{self, Entity, RuleEnd, Scope},
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

/// A protocol that a rule names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WantedProtocol {
    WithPorts(Protocol),
    Number(u8),
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
    let (peer, own) = match direction {
        Direction::Ingress => ("source", "destination"),
        Direction::Egress => ("destination", "source"),
    };
    let [peer, own] = [(peer, RuleEnd::Peer), (own, RuleEnd::Own)]
        .map(|(field, end)| entity::read(&object.get(field), end, scope, names));
    is_partial |= peer.is_partial || own.is_partial;
    let (Entity { matches: peer, .. }, Entity { matches: own, .. }) = (peer, own);
    let family = family(&object.get("ipVersion"));
    is_partial |= family.is_err();
    let http = object.get("http");
    if http.is_given() {
        let _reported = http.fault(NO_HTTP);
        is_partial = true;
    }
    let (ports, is_whole) = ports(&object, names);
    is_partial |= !is_whole;
    let ends = CalicoEnds { peer, own, family: family.ok().flatten() };
    if is_partial { closed(action, ends, ports) } else { rule(action, ends, ports) }
}

const NO_HTTP: &str = "is not carried: podgate does not look into connections";

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
    let mut listed = wanted.map(|wanted| vec![wanted.rule()]);
    let mut except: Vec<PortRule> = not_wanted.map(WantedProtocol::rule).into_iter().collect();
    let [messages, not_messages] = ["icmp", "notICMP"].map(|name| icmp(&object.get(name), wanted));
    is_whole &= messages.is_ok() && not_messages.is_ok();
    if let Ok(Some(Messages::Of(messages))) = messages {
        listed = Some(vec![messages]);
    }
    match not_messages {
        Ok(Some(Messages::Of(messages))) => except.push(messages),
        Ok(Some(Messages::All)) => {
            let _reported = object.get("notICMP").fault("is without a type: it would leave nothing");
            is_whole = false;
        }
        Ok(None) | Err(_) => {}
    }
    let with_ports = wanted.and_then(WantedProtocol::with_ports);
    let end = object.get("source");
    if let Ok(source) = end.object() {
        is_whole &= entity::client_ports(&source).is_ok();
    }
    let end = object.get("destination");
    if let Ok(destination) = end.object() {
        let [wanted, not_wanted] =
            ["ports", "notPorts"].map(|list| port_list(&destination.get(list), with_ports, names));
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

impl WantedProtocol {
    fn of(number: u8) -> Self {
        Protocol::try_from(u32::from(number)).map_or(Self::Number(number), Self::WithPorts)
    }

    const fn rule(self) -> PortRule {
        match self {
            Self::WithPorts(protocol) => PortRule::Protocol(protocol),
            Self::Number(number) => PortRule::Number(number),
        }
    }

    const fn with_ports(self) -> Option<Protocol> {
        match self {
            Self::WithPorts(protocol) => Some(protocol),
            Self::Number(_) => None,
        }
    }
}

fn protocol(field: &Field<'_>) -> Result<Option<WantedProtocol>, Reported> {
    let text = match field.number_or_text()? {
        None => return Ok(None),
        Some(NumberOrText::Number) => {
            let number = field.number_to(u8::MAX.into())?;
            return Ok(u8::try_from(number).ok().map(WantedProtocol::of));
        }
        Some(NumberOrText::Text(text)) => text,
    };
    let named = PROTOCOLS.into_iter().find(|(name, _)| text.eq_ignore_ascii_case(name));
    let number = named.map(|(_, number)| number).or_else(|| text.parse().ok());
    number
        .map(|number| Some(WantedProtocol::of(number)))
        .ok_or_else(|| field.fault(format!("{} is not a protocol", quoted(text))))
}

/// Those that have a name in the API.
const PROTOCOLS: [(&str, u8); 6] =
    [("TCP", 6), ("UDP", 17), ("SCTP", 132), ("ICMP", ICMP), ("ICMPv6", ICMP_V6), ("UDPLite", 136)];
const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;

/// What `icmp` or `notICMP` speaks of.
enum Messages {
    /// Without a type.
    All,
    Of(PortRule),
}

/// `None`: absent. `protocol`: the rule's.
fn icmp(field: &Field<'_>, protocol: Option<WantedProtocol>) -> Result<Option<Messages>, Reported> {
    if !field.is_given() {
        return Ok(None);
    }
    let object = field.object()?;
    object.has_only(&["type", "code"])?;
    let protocol = match protocol {
        Some(WantedProtocol::Number(ICMP)) => RuleProtocol::Icmp,
        Some(WantedProtocol::Number(ICMP_V6)) => RuleProtocol::IcmpV6,
        Some(WantedProtocol::Number(_) | WantedProtocol::WithPorts(_)) | None => {
            return Err(field.fault("needs protocol: ICMP or ICMPv6"));
        }
    };
    let byte = |name: &str| {
        let field = object.get(name);
        let number = field.is_given().then(|| field.number_to(u8::MAX.into())).transpose()?;
        Ok(number.and_then(|number| u8::try_from(number).ok()))
    };
    match (byte("type")?, byte("code")?) {
        (Some(kind), code) => Ok(Some(Messages::Of(PortRule::Icmp { protocol, kind, code }))),
        (None, None) => Ok(Some(Messages::All)),
        (None, Some(_)) => Err(object.get("code").fault("needs a type")),
    }
}

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
