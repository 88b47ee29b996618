//! What each of a rule's ports says of a number, and why none matches.

use std::collections::BTreeSet;

use podgate_common::Protocol;

use super::{EntryTrace, end::ResolvedEndpoint};
use crate::{
    model::{Pod, PortRule, Ports},
    port_spec::{Port, PortSpec},
};

/// One for each port of the rule; a single one for the list when there are none.
pub(super) fn entries(
    ports: &Ports,
    asked: &PortSpec,
    number: u16,
    to: &ResolvedEndpoint<'_>,
) -> Vec<EntryTrace> {
    let ports = match ports {
        Ports::Any => return vec![EntryTrace::of("ports", Ok("names none, so every port matches".into()))],
        Ports::Listed(ports) if ports.is_empty() => {
            return vec![EntryTrace::of("ports", Err("has no entry that was understood".into()))];
        }
        Ports::Listed(ports) => ports,
    };
    let outcome = |port: &PortRule| {
        let (wanted, asked_words) = (words(port, to), words_of_question(asked, number));
        match (port, matches(port, asked, number, to.policed())) {
            (PortRule::Nothing, _) => Err("was not understood, matches nothing".into()),
            (_, true) if wanted == asked_words => Ok(format!("wants {wanted}, as asked")),
            (_, true) => Ok(format!("wants {wanted}, {asked_words} is asked for")),
            (_, false) => Err(format!("wants {wanted}, not {asked_words}")),
        }
    };
    let ports = ports.iter().enumerate();
    ports.map(|(index, port)| EntryTrace::of(format!("ports[{index}]"), outcome(port))).collect()
}

/// `None` when a port of the rule matches, or when the rule names none.
pub(super) fn miss(
    ports: &Ports,
    asked: &PortSpec,
    number: u16,
    to: &ResolvedEndpoint<'_>,
) -> Option<String> {
    let Ports::Listed(ports) = ports else { return None };
    let destination = to.policed();
    if ports.iter().any(|port| matches(port, asked, number, destination)) {
        return None;
    }
    let listed: Vec<String> = ports.iter().map(|port| words(port, to)).collect();
    let listed = if listed.is_empty() { "no port that was understood".into() } else { listed.join(", ") };
    Some(format!("ports wants {listed}, not {}", words_of_question(asked, number)))
}

fn words_of_question(asked: &PortSpec, number: u16) -> String {
    match &asked.port {
        Port::Number(_) => asked.to_string(),
        Port::Name(_) => format!("{asked} ({number})"),
    }
}

fn matches(port: &PortRule, asked: &PortSpec, number: u16, destination: Option<&Pod>) -> bool {
    match port {
        PortRule::Protocol(protocol) => *protocol == asked.protocol,
        PortRule::Range { protocol, first, last } => {
            *protocol == asked.protocol && (*first..=*last).contains(&number)
        }
        PortRule::Named(protocol, name) => {
            let named = PortSpec { protocol: asked.protocol, port: Port::Name(name.clone()) };
            protocol.is_none_or(|protocol| protocol == asked.protocol)
                && named.numbers(destination).contains(&number)
        }
        PortRule::Nothing => false,
    }
}

fn words(port: &PortRule, to: &ResolvedEndpoint<'_>) -> String {
    let destination = to.policed();
    match port {
        PortRule::Protocol(protocol) => format!("any {protocol}"),
        PortRule::Range { protocol, first, last } if first == last => format!("{protocol}/{first}"),
        PortRule::Range { protocol, first, last } => format!("{protocol}/{first}-{last}"),
        PortRule::Named(protocol, name) => {
            let of = |protocol| PortSpec { protocol, port: Port::Name(name.clone()) };
            let (named, found) = match protocol {
                Some(protocol) => (of(*protocol).to_string(), of(*protocol).numbers(destination)),
                None => {
                    let each = Protocol::ALL.into_iter().map(|protocol| of(protocol).numbers(destination));
                    (format!("a port named {name}"), each.flatten().collect())
                }
            };
            match (destination, numbers(&found)) {
                (None, _) => format!("{named} (only pods have named ports)"),
                (Some(_), None) => format!("{named} ({} has none)", to.shown),
                (Some(_), Some(numbers)) => format!("{named} ({numbers})"),
            }
        }
        PortRule::Nothing => "an entry that was not understood".into(),
    }
}

fn numbers(numbers: &BTreeSet<u16>) -> Option<String> {
    let numbers: Vec<String> = numbers.iter().map(u16::to_string).collect();
    (!numbers.is_empty()).then(|| numbers.join(", "))
}
