//! The annotation `podgate.io/egress-domains` of a NetworkPolicy: names that its pods may reach, beside its
//! egress rules. Other engines ignore it.
//!
//! `name[:port[-end]][/PROTOCOL]`, separated by commas or lines, or as a list of YAML. It is read without a
//! YAML parser: there an unquoted `*.example.com` is an alias. What is not understood matches nothing.

use podgate_common::Protocol;
use podgate_core::model::{DomainPattern, EGRESS_DOMAINS, Peer, Peers, PortRule, Ports, Rule};

use crate::source::decode::field::{Field, JsonObject, quoted};

/// As for `domainNames` of a ClusterNetworkPolicy.
const MOST: usize = 25;

/// One rule for each entry that is understood. `isolates`: the policy isolates egress, without which nothing
/// can be added to what it allows.
pub(super) fn read(object: &JsonObject<'_>, isolates: bool) -> Vec<Rule> {
    // Their faults are reported where the mode is read.
    let metadata = object.get("metadata");
    let Some(metadata) = metadata.may_be_object().then(|| metadata.object().ok()).flatten() else {
        return Vec::new();
    };
    let annotations = metadata.get("annotations");
    let Some(annotations) = annotations.may_be_object().then(|| annotations.object().ok()).flatten() else {
        return Vec::new();
    };
    let field = annotations.get(EGRESS_DOMAINS);
    let Ok(Some(text)) = field.optional_text() else { return Vec::new() };
    let rules = rules(&field, text);
    if !isolates {
        let _reported = field.fault("has no effect: the policy does not isolate egress (policyTypes)");
        return Vec::new();
    }
    rules
}

fn rules(field: &Field<'_>, text: &str) -> Vec<Rule> {
    let entries: Vec<&str> = entries(text).collect();
    if entries.len() > MOST {
        let count = entries.len();
        let _reported = field.fault(format!("has {count} entries; those from [{MOST}] on match nothing"));
    }
    let entries = entries.into_iter().take(MOST).enumerate();
    let read = entries.filter_map(|(index, text)| {
        let fault =
            |reason: &str| field.fault(format!("[{index}]: {} {reason}, matches nothing", quoted(text)));
        entry(text).map_err(fault).ok()
    });
    read.collect()
}

/// The entries, without what a list of YAML has around them.
fn entries(text: &str) -> impl Iterator<Item = &str> {
    let text = text.trim();
    let inside = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let entries = inside.split([',', '\n']).map(|entry| {
        let entry = entry.trim();
        let entry = entry.strip_prefix("- ").map_or(entry, str::trim);
        let quoted = |quote: char| entry.strip_prefix(quote)?.strip_suffix(quote);
        quoted('"').or_else(|| quoted('\'')).unwrap_or(entry).trim()
    });
    entries.filter(|entry| !entry.is_empty())
}

fn entry(text: &str) -> Result<Rule, &'static str> {
    let (rest, protocol) = match text.split_once('/') {
        Some((rest, protocol)) => (rest, Some(named_protocol(protocol)?)),
        None => (text, None),
    };
    let (name, ports) = match rest.split_once(':') {
        Some((name, ports)) => (name, Some(range(ports)?)),
        None => (rest, None),
    };
    let ports = match (ports, protocol) {
        (None, None) => Ports::Any,
        (None, Some(protocol)) => Ports::Listed(vec![PortRule::Protocol(protocol)]),
        // As in a NetworkPolicy.
        (Some((first, last)), protocol) => {
            let protocol = protocol.unwrap_or(Protocol::Tcp);
            Ports::Listed(vec![PortRule::Range { protocol, first, last }])
        }
    };
    Ok(Rule { peers: Peers::Listed(vec![Peer::Name(DomainPattern::parse(name)?)]), ports })
}

fn named_protocol(text: &str) -> Result<Protocol, &'static str> {
    let is_it = |protocol: &Protocol| protocol.to_string() == text;
    Protocol::ALL.into_iter().find(is_it).ok_or("has a protocol that is not TCP, UDP or SCTP")
}

fn range(text: &str) -> Result<(u16, u16), &'static str> {
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = is_number.then(|| text.parse().ok()).flatten();
        number.filter(|number| *number != 0).ok_or("has a port that is not 1 to 65535")
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    if first <= last { Ok((first, last)) } else { Err("has a range of ports that ends before it begins") }
}
