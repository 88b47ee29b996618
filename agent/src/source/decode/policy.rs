//! NetworkPolicies: defaults and validation of networking.k8s.io/v1.
//!
//! The rules are those of Kubernetes' `pkg/apis/networking/{v1/defaults,validation/validation}.go`. Whatever
//! of a policy is not understood allows nothing, and the policy isolates all the same. Only a `podSelector`
//! with a fault selects no pod, as every selector does: which pods were meant is not known.
//!
//! AWS's ApplicationNetworkPolicies (`networking.k8s.aws/v1alpha1`) are the same, but that a peer of an
//! egress rule may be a list of names.

mod egress_domains;

use podgate_core::model::{NetworkPolicy, ObjectName, Peer, Peers, PortRule, Ports, Rule, Selector};

use super::{
    field::{Field, JsonObject, Reported, quoted},
    intern::NameInterner,
    peer, port, selector,
};

/// Which directions a policy isolates.
struct Isolates {
    ingress: bool,
    egress: bool,
}

/// An absent `spec` is `{}`, as for the API server: it isolates every pod of the namespace for ingress.
/// One that is no object may have meant anything: it isolates them all both ways and allows nothing.
pub(super) fn read(
    fields: &JsonObject<'_>,
    name: ObjectName,
    audit: bool,
    names: &mut NameInterner,
) -> NetworkPolicy {
    let mut policy = read_with(fields, name, audit, &KNOWN, PeerForm::Plain, names);
    let named = egress_domains::read(fields, policy.egress.is_some());
    policy.egress.iter_mut().for_each(|egress| egress.extend(named.iter().cloned()));
    policy
}

const KNOWN: [&str; 4] = ["podSelector", "policyTypes", "ingress", "egress"];

/// What an entry of `to` may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PeerForm {
    Plain,
    /// Also names of the DNS.
    WithNames,
}

/// An ApplicationNetworkPolicy of AWS's.
pub(super) fn read_with_names(
    fields: &JsonObject<'_>,
    name: ObjectName,
    audit: bool,
    names: &mut NameInterner,
) -> NetworkPolicy {
    read_with(fields, name, audit, &KNOWN, PeerForm::WithNames, names)
}

/// A policy of Calico's that says the same, and what becomes of it.
pub(super) fn read_staged(
    fields: &JsonObject<'_>,
    name: ObjectName,
    names: &mut NameInterner,
) -> NetworkPolicy {
    let known = ["podSelector", "policyTypes", "ingress", "egress", "stagedAction"];
    read_with(fields, name, true, &known, PeerForm::Plain, names)
}

fn read_with(
    fields: &JsonObject<'_>,
    name: ObjectName,
    audit: bool,
    known: &[&str],
    to: PeerForm,
    names: &mut NameInterner,
) -> NetworkPolicy {
    let field = fields.get("spec");
    let Ok(spec) = field.object() else {
        let nothing = Some(Vec::new());
        return NetworkPolicy {
            name,
            subject: Selector::EVERYTHING,
            ingress: nothing.clone(),
            egress: nothing,
            audit,
        };
    };
    spec.report_unknown(known);
    let subject = selector::read(&spec.get("podSelector"), names);
    let ingress = rules(&spec.get("ingress"), "from", PeerForm::Plain, names);
    let egress = rules(&spec.get("egress"), "to", to, names);
    // Egress rules that are not understood are still a word about egress.
    let speaks_of_egress = egress.as_ref().map_or(true, |rules| !rules.is_empty());
    let isolates = isolates(&spec.get("policyTypes"), speaks_of_egress);
    NetworkPolicy {
        name,
        subject,
        ingress: isolates.ingress.then(|| ingress.unwrap_or_default()),
        egress: isolates.egress.then(|| egress.unwrap_or_default()),
        audit,
    }
}

/// What `policyTypes` can mean. Upper and lower case do not count, and an unknown word may stand for either
/// direction.
fn isolates(field: &Field<'_>, speaks_of_egress: bool) -> Isolates {
    let Ok(items) = field.items() else { return Isolates { ingress: true, egress: true } };
    if items.len() == 0 {
        return Isolates { ingress: true, egress: speaks_of_egress };
    }
    if items.len() > 2 {
        let _reported = field.fault("has more than 2 entries");
    }
    let mut isolates = Isolates { ingress: false, egress: false };
    for item in items {
        let text = item.required_text().unwrap_or_default();
        if !matches!(text, "" | "Ingress" | "Egress") {
            let _reported = item.fault(format!("{} is not Ingress or Egress", quoted(text)));
        }
        match (text.eq_ignore_ascii_case("ingress"), text.eq_ignore_ascii_case("egress")) {
            (true, _) => isolates.ingress = true,
            (_, true) => isolates.egress = true,
            (false, false) => isolates = Isolates { ingress: true, egress: true },
        }
    }
    isolates
}

/// One rule for each entry, also for the bad ones: rules are distinguished by their index.
fn rules(
    field: &Field<'_>,
    peers: &'static str,
    form: PeerForm,
    names: &mut NameInterner,
) -> Result<Vec<Rule>, Reported> {
    Ok(field.items()?.map(|item| rule(&item, peers, form, names)).collect())
}

fn rule(field: &Field<'_>, peers: &'static str, form: PeerForm, names: &mut NameInterner) -> Rule {
    let no_peer = Peers::Listed(vec![Peer::Nothing]);
    let Ok(object) = field.object() else { return Rule { peers: no_peer, ports: Ports::Any } };
    let only_known = object.has_only(&[peers, "ports"]);
    let peers = match object.get(peers).items() {
        Ok(items) if items.len() == 0 => Peers::Any,
        Ok(items) => {
            let peers = items.map(|item| match form {
                PeerForm::Plain => vec![peer::read(&item, names)],
                PeerForm::WithNames => peer::read_with_names(&item, names),
            });
            Peers::Listed(peers.flatten().collect())
        }
        Err(_reported) => no_peer.clone(),
    };
    let peers = if only_known.is_ok() { peers } else { no_peer };
    let ports = match object.get("ports").items() {
        Ok(items) if items.len() == 0 => Ports::Any,
        Ok(items) => Ports::Listed(items.map(|item| port::read(&item, names)).collect()),
        Err(_reported) => Ports::Listed(vec![PortRule::Nothing]),
    };
    Rule { peers, ports }
}
