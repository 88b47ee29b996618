//! ClusterNetworkPolicies (policy.networking.k8s.io/v1alpha2 and v1beta1, which have the same fields), and
//! AdminNetworkPolicies and BaselineAdminNetworkPolicies (v1alpha1), and AWS's ClusterNetworkPolicies
//! (`networking.k8s.aws/v1alpha1`), which are read as such. AWS's may pass on by name, which is not carried.
//!
//! "For Accept rules, fail closed means: treat the rule as matching no traffic. For Deny and Pass rules, fail
//! closed means: treat the rule as a Deny all rule" (`apis/v1alpha2/clusternetworkpolicy_types.go`, of a peer
//! without a known field). Every rule that is not wholly understood is treated so, also one with a field in
//! its peers or ports that is not known: forms of older and of later releases have such, and without them a
//! peer is wider. A subject with a fault selects no pod, as every selector does. A domain name that is not
//! understood matches nothing. Of other entries none are counted.

use podgate_core::model::{
    Action, ClusterNetworkPolicy, ClusterPolicyKind, ClusterPolicyName, ClusterRule, ClusterSubject,
    DomainPattern, IpBlock, Peer, Peers, Ports, Rule, Selector, Tier,
};

use super::{
    address, cluster_port,
    field::{Field, JsonObject, Reported, quoted},
    intern::NameInterner,
    peer, selector,
};

/// What differs between a version's words.
#[derive(Clone, Copy)]
struct Dialect {
    accept: &'static str,
    ports: &'static str,
    /// Its rules may pass a connection on to the next tier.
    has_pass: bool,
}

impl Dialect {
    const fn of(kind: ClusterPolicyKind) -> Self {
        match kind {
            ClusterPolicyKind::ClusterNetworkPolicy => {
                Self { accept: "Accept", ports: "protocols", has_pass: true }
            }
            ClusterPolicyKind::AdminNetworkPolicy => Self { accept: "Allow", ports: "ports", has_pass: true },
            ClusterPolicyKind::BaselineAdminNetworkPolicy => {
                Self { accept: "Allow", ports: "ports", has_pass: false }
            }
            ClusterPolicyKind::AwsClusterNetworkPolicy => {
                Self { accept: "Accept", ports: "ports", has_pass: true }
            }
        }
    }
}

/// Where its tier or priority is not understood, it stands first and all of its rules fail closed.
pub(super) fn read(
    fields: &JsonObject<'_>,
    name: ClusterPolicyName,
    audit: bool,
    names: &mut NameInterner,
) -> ClusterNetworkPolicy {
    let no_subject = ClusterSubject { namespaces: Selector::Nothing, pods: Selector::Nothing };
    let field = fields.get("spec");
    let mut policy = ClusterNetworkPolicy {
        name,
        tier: Tier::Admin,
        priority: 0,
        subject: no_subject,
        ingress: Vec::new(),
        egress: Vec::new(),
        audit,
    };
    let Ok(spec) = field.object() else { return policy };
    let known: &[_] = match policy.name.kind {
        ClusterPolicyKind::ClusterNetworkPolicy | ClusterPolicyKind::AwsClusterNetworkPolicy => {
            &["tier", "priority", "subject", "ingress", "egress"]
        }
        ClusterPolicyKind::AdminNetworkPolicy => &["priority", "subject", "ingress", "egress"],
        ClusterPolicyKind::BaselineAdminNetworkPolicy => &["subject", "ingress", "egress"],
    };
    spec.report_unknown(known);
    let place = place(&spec, policy.name.kind);
    let dialect = Dialect::of(policy.name.kind);
    if let Some(subject) = subject(&spec.get("subject"), names) {
        policy.subject = subject;
    }
    policy.ingress = rules(&spec.get("ingress"), "from", dialect, names);
    policy.egress = rules(&spec.get("egress"), "to", dialect, names);
    match place {
        Ok((tier, priority)) => {
            (policy.tier, policy.priority) = (tier, priority);
            if tier == Tier::Baseline {
                without_names(&mut policy.egress, &spec.get("egress"));
            }
        }
        Err(_reported) => {
            for rule in policy.ingress.iter_mut().chain(&mut policy.egress) {
                *rule = failed_closed(Some(rule.action));
            }
        }
    }
    policy
}

fn place(spec: &JsonObject<'_>, kind: ClusterPolicyKind) -> Result<(Tier, u16), Reported> {
    match kind {
        ClusterPolicyKind::ClusterNetworkPolicy | ClusterPolicyKind::AwsClusterNetworkPolicy => {
            let tier = tier(&spec.get("tier"));
            let priority = priority(&spec.get("priority"));
            Ok((tier?, priority?))
        }
        ClusterPolicyKind::AdminNetworkPolicy => Ok((Tier::Admin, priority(&spec.get("priority"))?)),
        ClusterPolicyKind::BaselineAdminNetworkPolicy => Ok((Tier::Baseline, 0)),
    }
}

fn tier(field: &Field<'_>) -> Result<Tier, Reported> {
    match field.required_text()? {
        "Admin" => Ok(Tier::Admin),
        "Baseline" => Ok(Tier::Baseline),
        other => Err(field.fault(format!("{} is not Admin or Baseline", quoted(other)))),
    }
}

const GREATEST_PRIORITY: u16 = 1_000;

fn priority(field: &Field<'_>) -> Result<u16, Reported> {
    field.number_to(GREATEST_PRIORITY)
}

fn subject(field: &Field<'_>, names: &mut NameInterner) -> Option<ClusterSubject> {
    let object = field.object().ok()?;
    object.report_unknown(&["namespaces", "pods"]);
    let (namespaces, pods) = (object.get("namespaces"), object.get("pods"));
    match (namespaces.is_given(), pods.is_given()) {
        (true, false) => Some(ClusterSubject {
            namespaces: selector::read(&namespaces, names),
            pods: Selector::EVERYTHING,
        }),
        (false, true) => {
            let (namespaces, pods) = namespaced_pods(&pods, names)?;
            Some(ClusterSubject { namespaces, pods })
        }
        _ => {
            let _reported = field.fault("needs either namespaces or pods");
            None
        }
    }
}

const NAMESPACED_PODS: [&str; 2] = ["namespaceSelector", "podSelector"];

/// `pods` of a subject: the selectors of namespaces and of pods; absent ones select everything.
fn namespaced_pods(field: &Field<'_>, names: &mut NameInterner) -> Option<(Selector, Selector)> {
    let object = field.object().ok()?;
    object.report_unknown(&NAMESPACED_PODS);
    let namespaces = selector::read(&object.get("namespaceSelector"), names);
    Some((namespaces, selector::read(&object.get("podSelector"), names)))
}

/// One rule for each entry, also for the bad ones: rules are distinguished by their index.
fn rules(
    field: &Field<'_>,
    peers: &'static str,
    dialect: Dialect,
    names: &mut NameInterner,
) -> Vec<ClusterRule> {
    match field.items() {
        Ok(items) => items.map(|item| rule(&item, peers, dialect, names)).collect(),
        Err(_reported) => vec![failed_closed(None)],
    }
}

/// `None`: the action is not known either.
fn failed_closed(action: Option<Action>) -> ClusterRule {
    match action {
        Some(Action::Accept) => ClusterRule {
            action: Action::Accept,
            matches: Rule { peers: Peers::Listed(vec![Peer::Nothing]), ports: Ports::Any },
        },
        Some(Action::Deny | Action::Pass | Action::Log) | None => {
            ClusterRule { action: Action::Deny, matches: Rule { peers: Peers::Any, ports: Ports::Any } }
        }
    }
}

fn rule(field: &Field<'_>, peers: &'static str, dialect: Dialect, names: &mut NameInterner) -> ClusterRule {
    let Ok(object) = field.object() else { return failed_closed(None) };
    let only_known = object.has_only(&["name", "action", peers, dialect.ports]);
    let action = action(&object.get("action"), dialect).ok();
    let peers = listed_peers(&object.get(peers), peers, action, names);
    let ports = cluster_port::read_all(&object.get(dialect.ports), dialect.ports, names);
    match (action, peers, ports, only_known) {
        (Some(action), Some(peers), Some(ports), Ok(())) => {
            ClusterRule { action, matches: Rule { peers: Peers::Listed(peers), ports } }
        }
        (action, ..) => failed_closed(action),
    }
}

fn action(field: &Field<'_>, dialect: Dialect) -> Result<Action, Reported> {
    match field.required_text()? {
        text if text == dialect.accept => Ok(Action::Accept),
        "Deny" => Ok(Action::Deny),
        "Pass" if dialect.has_pass => Ok(Action::Pass),
        other => {
            let pass = if dialect.has_pass { ", Deny or Pass" } else { " or Deny" };
            Err(field.fault(format!("{} is not {}{pass}", quoted(other), dialect.accept)))
        }
    }
}

/// Looks at every entry, so that every fault is reported, before it gives up.
fn listed_peers(
    field: &Field<'_>,
    list: &str,
    action: Option<Action>,
    names: &mut NameInterner,
) -> Option<Vec<Peer>> {
    let items = field.items().ok()?;
    if items.len() == 0 {
        let _reported = field.fault("must not be empty");
        return None;
    }
    let each: Vec<_> = items.map(|item| peers_of(&item, list == "to", action, names)).collect();
    Some(each.into_iter().collect::<Option<Vec<_>>>()?.concat())
}

fn peers_of(
    field: &Field<'_>,
    of_egress: bool,
    action: Option<Action>,
    names: &mut NameInterner,
) -> Option<Vec<Peer>> {
    const KNOWN: [&str; 5] = ["namespaces", "pods", "networks", "nodes", "domainNames"];
    let known = if of_egress { &KNOWN[..] } else { &KNOWN[..2] };
    let object = field.object().ok()?;
    let only_known = object.has_only(known);
    let mut given = known.iter().filter(|name| object.get(name).is_given());
    let (Some(name), None) = (given.next(), given.next()) else {
        let _reported = field.fault(format!("needs one of {}", known.join(", ")));
        return None;
    };
    let entry = object.get(name);
    let peers = match *name {
        "namespaces" => selector::read_whole(&entry, names)
            .ok()
            .map(|namespaces| vec![Peer::Pods { namespaces: Some(namespaces), pods: Selector::EVERYTHING }]),
        "pods" => pods(&entry, names).ok().map(|pods| vec![pods]),
        "nodes" => selector::read_whole(&entry, names).ok().map(|nodes| vec![Peer::Nodes(nodes)]),
        "networks" => networks(&entry),
        _ => domain_names(&entry, action),
    };
    peers.filter(|_| only_known.is_ok())
}

/// Looks at both selectors before it gives up.
fn pods(field: &Field<'_>, names: &mut NameInterner) -> Result<Peer, Reported> {
    let object = field.object()?;
    let only_known = object.has_only(&NAMESPACED_PODS);
    let namespaces = selector::read_whole(&object.get("namespaceSelector"), names);
    let pods = selector::read_whole(&object.get("podSelector"), names);
    only_known?;
    Ok(Peer::Pods { namespaces: Some(namespaces?), pods: pods? })
}

fn networks(field: &Field<'_>) -> Option<Vec<Peer>> {
    let items = field.items().ok()?;
    if items.len() == 0 {
        let _reported = field.fault("must not be empty");
        return None;
    }
    let block = |cidr| Peer::Block(IpBlock { cidr, except: [].into() });
    let each: Vec<_> = items.map(|item| address::read_cidr(&item).map(block)).collect();
    each.into_iter().collect::<Result<_, _>>().ok()
}

/// "DomainNames is only supported for Accept rules", and has at most 25 entries. A name that is not
/// understood matches nothing: less is accepted.
fn domain_names(field: &Field<'_>, action: Option<Action>) -> Option<Vec<Peer>> {
    const MOST: usize = 25;
    let items = field.items().ok()?;
    if action != Some(Action::Accept) {
        let _reported = field.fault("is only for rules that accept");
        return None;
    }
    if items.len() == 0 || items.len() > MOST {
        let _reported = field.fault(format!("must have 1 to {MOST} entries"));
        return None;
    }
    Some(items.map(|item| peer::name(&item, DomainPattern::parse)).collect())
}

/// "DomainNames is only supported in the Admin tier": elsewhere they match nothing.
fn without_names(rules: &mut [ClusterRule], field: &Field<'_>) {
    for (at, rule) in rules.iter_mut().enumerate() {
        let Peers::Listed(peers) = &mut rule.matches.peers else { continue };
        for peer in peers.iter_mut().filter(|peer| matches!(peer, Peer::Name(_))) {
            let _reported = field.fault(format!("[{at}]: domainNames are for the tier Admin, match nothing"));
            *peer = Peer::Nothing;
        }
    }
}
