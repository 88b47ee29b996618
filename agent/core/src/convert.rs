//! Policies of Calico's as policies of Kubernetes, where these say exactly the same.
//!
//! In: a cluster, and the objects in it that were not wholly understood. Out: NetworkPolicies and
//! ClusterNetworkPolicies that may take the place of policies of Calico's, together, and no verdict is
//! another one; and of each other object why there is no such policy. In doubt there is none.
//!
//! * A NetworkPolicy of Calico's in the tier default that only allows, for ingress, is a NetworkPolicy, if
//!   its place among those that deny or pass on is the same there. For egress it is not: a pod always reaches
//!   its own node with a NetworkPolicy.
//! * The policies of the one tier before the tier default, or after it, are ClusterNetworkPolicies, all of
//!   them or none, if the tier passes on what they leave.

mod rule;
mod selector;
mod tier;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use podgate_common::Direction;
use serde::Serialize;

use crate::model::{
    ADMIN_TIER, Action, BASELINE_TIER, CalicoPolicy, CalicoPolicyKind, CalicoPolicyName, Cluster,
    ClusterNetworkPolicy, DEFAULT_TIER, EnforcedName, Labels, NETWORK_POLICY_ORDER, Name, NetworkPolicy,
    ObjectName, Peers, Pod, PolicyScope, Rule, Selector, TierOrder,
};

/// What takes the place of policies of Calico's.
#[derive(Clone, Debug, Default)]
pub struct Conversion {
    /// In the place of policies in the tier default.
    pub network_policies: Vec<NetworkPolicy>,
    /// In the place of policies in another tier.
    pub cluster_policies: Vec<ClusterNetworkPolicy>,
    /// The policies whose place these take.
    pub converted: Vec<Arc<CalicoPolicy>>,
    /// Everything else of Calico's, in the order of the kinds and names.
    pub left_out: Vec<LeftOut>,
}

/// An object that has no equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LeftOut {
    /// As in `GlobalNetworkPolicy base`.
    pub object: String,
    /// The first field of which there is no equal; empty: the object itself.
    pub field: String,
    /// Why.
    pub reason: String,
}

/// A field without an equal.
#[derive(Clone, Debug)]
struct NoEqual {
    field: String,
    reason: String,
}

impl NoEqual {
    fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }

    /// The field stands in this one.
    fn within(self, outer: &str) -> Self {
        let field = if self.field.is_empty() { outer.to_owned() } else { format!("{outer}.{}", self.field) };
        Self { field, ..self }
    }
}

/// Converts what can be. `faulty`: objects that were not wholly understood, by what they are called, each
/// with the field and what is wrong with it.
pub fn convert(cluster: &Cluster, faulty: &BTreeMap<String, (String, String)>) -> Conversion {
    let mut conversion = Conversion::default();
    let mut of_tiers: BTreeMap<&Name, Vec<&Arc<CalicoPolicy>>> = BTreeMap::new();
    let stored = stored_names(cluster);
    let staged: BTreeSet<EnforcedName> =
        cluster.calico.policies().filter_map(|policy| policy.name.enforced()).collect();
    let fault_of = |policy: &Arc<CalicoPolicy>| {
        let objects = stored.get(&policy.name).map_or(&[][..], Vec::as_slice);
        if let Some((field, message)) = objects.iter().find_map(|name| faulty.get(name)) {
            return Some(NoEqual::new(field, format!("was not wholly understood: {message}")));
        }
        if objects.len() > 1 {
            return Some(NoEqual::new(
                "metadata.name",
                "another object of this name would count in its place",
            ));
        }
        if let Some(why) = of_hosts(policy, cluster) {
            return Some(why);
        }
        let is_staged = staged.contains(&EnforcedName::Calico(policy.name.clone()));
        is_staged.then(|| NoEqual::new("", "a staged policy shows what would be in its place"))
    };
    for policy in cluster.calico.policies() {
        let is_known = [ADMIN_TIER.0, BASELINE_TIER.0].contains(&policy.tier.as_str());
        if policy.tier.as_str() != DEFAULT_TIER.0 && !is_known {
            of_tiers.entry(&policy.tier).or_default().push(policy);
            continue;
        }
        let found = match fault_of(policy) {
            Some(fault) => Err(fault),
            None if is_known => Err(NoEqual::new("spec.tier", "this tier is that of ClusterNetworkPolicies")),
            None => network_policy(policy, cluster),
        };
        match found {
            Ok(converted) => {
                conversion.network_policies.push(converted);
                conversion.converted.push(policy.clone());
            }
            Err(why) => conversion.leave_out(policy.name.to_string(), why),
        }
    }
    tier::convert(cluster, of_tiers, &fault_of, &mut conversion);
    for (name, _) in cluster.calico.v3.network_sets.iter().chain(&cluster.calico.v1.network_sets) {
        let object = match &name.0 {
            Some(namespace) => format!("NetworkSet {namespace}/{}", name.1),
            None => format!("GlobalNetworkSet {}", name.1),
        };
        let reason = "Kubernetes has no such object: its networks stand in each rule";
        conversion.leave_out(object, NoEqual::new("", reason));
    }
    for host in cluster.calico.host_endpoints() {
        let reason = "Kubernetes has no such object: no policy of its own is about nodes";
        conversion.leave_out(format!("HostEndpoint {}", host.name), NoEqual::new("", reason));
    }
    conversion.left_out.sort();
    conversion.left_out.dedup();
    conversion
}

impl Conversion {
    fn leave_out(&mut self, object: String, NoEqual { field, reason }: NoEqual) {
        self.left_out.push(LeftOut { object, field, reason });
    }
}

/// The fields that make a policy apply to host endpoints, too.
fn of_hosts(policy: &CalicoPolicy, cluster: &Cluster) -> Option<NoEqual> {
    let field = match policy.scope {
        PolicyScope::Local => None,
        PolicyScope::OnForward => Some("spec.applyOnForward"),
        PolicyScope::PreDnat => Some("spec.preDNAT"),
        PolicyScope::Untracked => Some("spec.doNotTrack"),
    };
    if let Some(field) = field {
        return Some(NoEqual::new(field, "is about host endpoints"));
    }
    let (calico, none) = (&cluster.calico, Labels::default());
    let selects = |end: &Arc<Pod>| policy.selects(end, &calico.labels_of(end, &none));
    if calico.host_subjects().any(selects) {
        return Some(NoEqual::new("spec.selector", "selects host endpoints, too"));
    }
    let rules = policy.ingress.iter().chain(&policy.egress).flatten();
    let mut selectors = rules.flat_map(|rule| match &rule.matches.peers {
        Peers::Calico(ends) => ends.peer.selectors().collect(),
        Peers::Any | Peers::Listed(_) => Vec::new(),
    });
    let is_met = selectors.any(|selector| {
        let mut hosts = calico.host_subjects().filter(|end| !end.addresses.is_empty());
        hosts.any(|end| selector.matches(&calico.labels_of(end, &none)))
    });
    is_met.then(|| NoEqual::new("spec", "a rule of it matches nodes by the labels of their host endpoints"))
}

/// What the objects of policies are called: Calico's store may put the tier before the name.
fn stored_names(cluster: &Cluster) -> BTreeMap<&CalicoPolicyName, Vec<String>> {
    let mut names: BTreeMap<&CalicoPolicyName, Vec<String>> = BTreeMap::new();
    for store in [&cluster.calico.v3, &cluster.calico.v1] {
        for (object, policy) in &store.policies {
            names.entry(&policy.name).or_default().push(object.to_string());
        }
    }
    names
}

/// A policy in the tier default.
fn network_policy(policy: &CalicoPolicy, cluster: &Cluster) -> Result<NetworkPolicy, NoEqual> {
    let namespace = namespace_of(policy, cluster)?;
    let Some(namespace) = namespace else {
        let reason = "a NetworkPolicy is of one namespace, and ClusterNetworkPolicies are in other tiers";
        return Err(NoEqual::new("", reason));
    };
    if policy.egress.is_some() {
        let reason = "a NetworkPolicy always lets a pod reach its own node, this policy does not";
        return Err(NoEqual::new("spec.egress", reason));
    }
    let pods = selector::terms(&policy.subject).map_err(|why| why.within("spec.selector"))?;
    let selector::PodTerms { namespaces, pods } = pods;
    if !namespaces.is_empty() {
        let reason = "a NetworkPolicy does not look at the labels of its namespace";
        return Err(NoEqual::new("spec.selector", reason));
    }
    let rules = policy.ingress.iter().flatten().enumerate().map(|(index, rule)| {
        let allows = match rule.action {
            Action::Accept => Ok(()),
            Action::Deny | Action::Pass | Action::Log => {
                Err(NoEqual::new("action", "a NetworkPolicy only allows"))
            }
        };
        let matches = allows.and_then(|()| rule::of_network_policy(&rule.matches, namespace, cluster));
        matches.map_err(|why| why.within(&format!("spec.ingress[{index}]")))
    });
    let ingress: Vec<Rule> = rules.collect::<Result<_, _>>()?;
    in_same_place(policy, cluster)?;
    let name = ObjectName::new(namespace.clone(), policy.name.name.clone());
    if cluster.policies.contains_key(&name) {
        return Err(NoEqual::new("metadata.name", "there is a NetworkPolicy of this name"));
    }
    Ok(NetworkPolicy {
        name,
        subject: Selector::All(pods),
        ingress: Some(ingress),
        egress: None,
        audit: false,
    })
}

/// The namespace of a policy that is enforced.
fn namespace_of<'p>(policy: &'p CalicoPolicy, cluster: &Cluster) -> Result<Option<&'p Name>, NoEqual> {
    match policy.name.kind {
        CalicoPolicyKind::NetworkPolicy | CalicoPolicyKind::GlobalNetworkPolicy => {}
        CalicoPolicyKind::StagedGlobalNetworkPolicy
        | CalicoPolicyKind::StagedNetworkPolicy
        | CalicoPolicyKind::StagedKubernetesNetworkPolicy => {
            return Err(NoEqual::new("", "is staged: it is not enforced"));
        }
    }
    let namespace = policy.name.namespace.as_ref();
    if policy.audit || namespace.is_some_and(|namespace| cluster.is_in_audit(namespace)) {
        return Err(NoEqual::new("", "is in audit mode"));
    }
    Ok(namespace)
}

/// NetworkPolicies stand at one place in the tier default: whether a policy is asked before one that may
/// deny, or pass on, must be the same there. Of one order, these come first.
fn in_same_place(policy: &CalicoPolicy, cluster: &Cluster) -> Result<(), NoEqual> {
    let place = TierOrder::of(NETWORK_POLICY_ORDER).unwrap_or(TierOrder::LAST);
    let only_allows = |other: &CalicoPolicy| {
        let rules = other.ingress.iter().flatten();
        rules.map(|rule| rule.action).all(|action| match action {
            Action::Accept | Action::Log => true,
            Action::Deny | Action::Pass => false,
        })
    };
    let of_tier = cluster.calico.policies().filter(|other| other.tier == policy.tier && !only_allows(other));
    let mut between = of_tier.filter(|other| match other.order <= place {
        true => policy.order <= other.order,
        false => policy.order >= other.order,
    });
    match between.next() {
        None => Ok(()),
        Some(other) => {
            let reason = format!(
                "NetworkPolicies stand at order {NETWORK_POLICY_ORDER}: {} is in between and does not only allow",
                other.name
            );
            Err(NoEqual::new("spec.order", reason))
        }
    }
}

/// A direction's list of rules.
const fn list(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, field, reason } = self;
        write!(f, "{object}: ")?;
        if !field.is_empty() {
            write!(f, "{field}: ")?;
        }
        f.write_str(reason)
    }
}
