//! GKE's FQDNNetworkPolicies (`networking.gke.io/v1alpha1`): they isolate egress as a NetworkPolicy does, and
//! allow names alone. "FQDNNetworkPolicy works additively with Kubernetes Network Policies."
//!
//! A `*` stands for one label here, and may be the first label alone: patterns with one elsewhere, or in a
//! part of a label, have no equal, match nothing and are reported. Whatever of a policy is not understood
//! allows nothing, and the policy isolates all the same.

use podgate_common::Protocol;
use podgate_core::model::{DomainPattern, NetworkPolicy, ObjectName, Peer, Peers, PortRule, Ports, Rule};

use super::{
    field::{Field, JsonObject, Reported, quoted},
    intern::NameInterner,
    peer, port, selector,
};

pub(super) fn read(
    fields: &JsonObject<'_>,
    name: ObjectName,
    audit: bool,
    names: &mut NameInterner,
) -> NetworkPolicy {
    let spec = fields.get("spec");
    let mut policy = NetworkPolicy {
        name,
        subject: podgate_core::model::Selector::EVERYTHING,
        ingress: None,
        egress: Some(Vec::new()),
        audit,
    };
    // One that is no object may have meant anything: it isolates every pod of the namespace.
    let Ok(spec) = spec.object() else { return policy };
    spec.report_unknown(&["podSelector", "egress"]);
    policy.subject = selector::read(&spec.get("podSelector"), names);
    if let Ok(items) = spec.get("egress").items() {
        // One rule for each entry, also for the bad ones: rules are distinguished by their index.
        policy.egress = Some(items.map(|item| rule(&item)).collect());
    }
    policy
}

fn rule(field: &Field<'_>) -> Rule {
    let no_peer = Rule { peers: Peers::Listed(vec![Peer::Nothing]), ports: Ports::Any };
    let Ok(object) = field.object() else { return no_peer };
    let only_known = object.has_only(&["matches", "ports"]);
    let matches = object.get("matches");
    let peers = match matches.items() {
        // "Matches may not be missing or empty".
        Ok(items) if items.len() == 0 => {
            let _reported = matches.fault("must not be empty");
            return no_peer;
        }
        Ok(items) => Peers::Listed(items.map(|item| name(&item).unwrap_or(Peer::Nothing)).collect()),
        Err(_reported) => return no_peer,
    };
    let ports = ports(&object.get("ports"));
    if only_known.is_ok() { Rule { peers, ports } } else { no_peer }
}

/// "Exactly one of the sub-fields of FQDNNetworkPolicyMatch must be set."
fn name(field: &Field<'_>) -> Result<Peer, Reported> {
    let object = field.object()?;
    object.has_only(&["name", "pattern"])?;
    let (name, pattern) = (object.get("name"), object.get("pattern"));
    match (name.is_given(), pattern.is_given()) {
        (true, false) => {
            // A star is no wildcard here, and no letter of a name.
            let parse = |text: &str| match text.contains('*') {
                true => Err("is no name"),
                false => DomainPattern::parse(text),
            };
            Ok(peer::name(&name, parse))
        }
        (false, true) => Ok(peer::name(&pattern, DomainPattern::parse_one_label)),
        _ => Err(field.fault("needs either name or pattern")),
    }
}

/// "If ports is missing or empty, all ports and protocols are allowed." An entry that is not understood
/// matches nothing.
fn ports(field: &Field<'_>) -> Ports {
    let Ok(items) = field.items() else { return Ports::Listed(vec![PortRule::Nothing]) };
    if items.len() == 0 {
        return Ports::Any;
    }
    let mut listed = Vec::new();
    for item in items {
        match entry(&item) {
            Ok(Some(rules)) => listed.extend(rules),
            Ok(None) => return Ports::Any,
            Err(_reported) => listed.push(PortRule::Nothing),
        }
    }
    Ports::Listed(listed)
}

/// `None`: every port of every protocol.
fn entry(field: &Field<'_>) -> Result<Option<Vec<PortRule>>, Reported> {
    let object = field.object()?;
    object.has_only(&["protocol", "port"])?;
    let protocol = object.get("protocol");
    let port = object.get("port");
    let protocols = match protocol.optional_text()? {
        None | Some("" | "ALL") => Protocol::ALL.to_vec(),
        Some(name) => match port::named_protocol(Some(name)) {
            Some(named @ (Protocol::Tcp | Protocol::Udp)) => vec![named],
            Some(_) | None => return Err(protocol.fault(format!("{} is not TCP, UDP or ALL", quoted(name)))),
        },
    };
    if port.is_given() {
        let number = port.port_number()?;
        let range = |protocol| PortRule::Range { protocol, first: number, last: number };
        return Ok(Some(protocols.into_iter().map(range).collect()));
    }
    let is_every = protocols.len() > 1;
    Ok((!is_every).then(|| protocols.into_iter().map(PortRule::Protocol).collect()))
}
