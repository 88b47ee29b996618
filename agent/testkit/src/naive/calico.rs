//! Calico's policies, tier by tier and rule by rule, on raw objects.
//!
//! Written from Calico's reference pages of GlobalNetworkPolicy, NetworkPolicy, Tier, GlobalNetworkSet and of
//! the selectors, and from what they say of Kubernetes' own policies: these stand in the tier "default" at
//! order 1,000 and only allow. Where pages and programs of Calico differ it follows the reading that
//! `agent/docs/semantics.md` names. Left out: staged policies, which decide nothing, and forwarding.

mod host;
mod label;
mod rule;

use std::cmp::Ordering;

use serde_json::Value;

use super::{
    Connection, Direction, EndpointRef, cluster_policy,
    object::{items, name_of, namespace_of},
    policy,
};
pub(super) use host::allowed as allowed_at_host;
use label::{Labels, matches};

const V3: &str = "projectcalico.org/v3";
const V1: &str = "crd.projectcalico.org/v1";

/// Tiers that are there without an object.
const KNOWN: [(&str, f64); 3] =
    [("kube-admin", 1_000.0), ("default", 1_000_000.0), ("kube-baseline", 10_000_000.0)];

/// Whether Calico has a say in a cluster.
pub(super) fn is_used(objects: &[Value]) -> bool {
    objects.iter().any(|object| {
        matches!(object["apiVersion"].as_str(), Some(V3 | V1))
            && matches!(object["kind"].as_str(), Some("GlobalNetworkPolicy" | "NetworkPolicy"))
    })
}

/// The verdict of all tiers: also of the policies of Kubernetes.
pub(super) fn allowed(
    objects: &[Value],
    direction: Direction,
    pod: &Value,
    peer: EndpointRef<'_>,
    connection: &Connection<'_>,
    is_own_node: bool,
) -> bool {
    let query = ConnectionQuery { objects, direction, pod, peer, connection };
    for tier in tiers(objects) {
        // "kube-admin" and "kube-baseline" hold Kubernetes' cluster-wide policies, and pass what these leave.
        let of_kubernetes = match tier.name.as_str() {
            "kube-admin" => Some("Admin"),
            "kube-baseline" => Some("Baseline"),
            _ => None,
        };
        if let Some(name) = of_kubernetes {
            match cluster_policy::verdict(objects, name, direction, pod, peer, connection) {
                Some(verdict) => return verdict,
                None => continue,
            }
        }
        if let Some(verdict) = query.tier(&tier, is_own_node) {
            return verdict;
        }
    }
    // After the last tier the profile of the namespace allows.
    true
}

/// A connection, and the pod at whose side policies decide about it.
#[derive(Clone, Copy)]
struct ConnectionQuery<'a> {
    objects: &'a [Value],
    direction: Direction,
    pod: &'a Value,
    peer: EndpointRef<'a>,
    connection: &'a Connection<'a>,
}

struct Tier {
    name: String,
    order: f64,
    /// "Pass" as default action.
    passes: bool,
    /// No object declares it.
    is_unknown: bool,
}

fn tiers(objects: &[Value]) -> Vec<Tier> {
    let known =
        KNOWN.map(|(name, order)| Tier { name: name.into(), order, passes: false, is_unknown: false });
    let mut tiers: Vec<Tier> = known.into();
    for object in counting(objects, &["Tier"]) {
        let name = name_of(object).to_owned();
        if tiers.iter().all(|tier| tier.name != name) {
            let passes = object["spec"]["defaultAction"] == "Pass";
            let order = object["spec"]["order"].as_f64().unwrap_or(f64::INFINITY);
            tiers.push(Tier { name, order, passes, is_unknown: false });
        }
    }
    for policy in policies(objects) {
        let name = tier_of(policy).to_owned();
        if tiers.iter().all(|tier| tier.name != name) {
            tiers.push(Tier { name, order: f64::INFINITY, passes: false, is_unknown: true });
        }
    }
    // One that does not exist comes last. Otherwise the lowest order comes first, then the lowest name.
    tiers.sort_by(|one, other| {
        (one.is_unknown.cmp(&other.is_unknown))
            .then(one.order.partial_cmp(&other.order).unwrap_or(Ordering::Equal))
            .then_with(|| one.name.cmp(&other.name))
    });
    tiers
}

impl ConnectionQuery<'_> {
    /// "If no rule of a tier's policies matches, and the tier has a policy that selects the endpoint, its
    /// default action is taken. A tier without such a policy is skipped." `None`: the next tier is asked.
    fn tier(&self, tier: &Tier, is_own_node: bool) -> Option<bool> {
        let mut of_tier: Vec<&Value> =
            policies(self.objects).filter(|it| tier_of(it) == tier.name && self.is_for(it)).collect();
        of_tier.sort_by(|one, other| {
            let key =
                |policy| (order_of(policy), true_name(policy), policy["kind"].as_str().unwrap_or_default());
            let ((one_order, one_name, one_kind), (other_order, other_name, other_kind)) =
                (key(one), key(other));
            let by_order = one_order.partial_cmp(&other_order).unwrap_or(Ordering::Equal);
            by_order.then_with(|| (one_name, one_kind).cmp(&(other_name, other_kind)))
        });
        let of_kubernetes: Vec<&Value> = match tier.name.as_str() {
            "default" => super::object::policies(self.objects)
                .filter(|it| policy::selects(it, self.pod) && policy::isolates(it, self.direction))
                .collect(),
            _ => Vec::new(),
        };
        if of_tier.is_empty() && of_kubernetes.is_empty() {
            return None;
        }
        // Where both have the same order, those that may deny come first.
        let (before, after): (Vec<&Value>, Vec<&Value>) =
            of_tier.iter().partition(|policy| order_of(policy) <= 1_000.0);
        for policy in &before {
            match self.policy(policy, tier) {
                Outcome::Decided(verdict) => return Some(verdict),
                Outcome::Passed => return None,
                Outcome::Nothing => {}
            }
        }
        let is_allowed = of_kubernetes.iter().any(|policy| {
            policy::rules(policy, self.direction).iter().any(|rule| {
                let namespace = namespace_of(policy);
                policy::rule_allows(self.objects, namespace, rule, self.direction, self.peer, self.connection)
            })
        });
        if is_allowed {
            return Some(true);
        }
        for policy in &after {
            match self.policy(policy, tier) {
                Outcome::Decided(verdict) => return Some(verdict),
                Outcome::Passed => return None,
                Outcome::Nothing => {}
            }
        }
        // Kubernetes' policies alone say nothing of a pod and its own node.
        if of_tier.is_empty() && is_own_node {
            return Some(true);
        }
        if tier.passes { None } else { Some(false) }
    }

    fn policy(&self, policy: &Value, tier: &Tier) -> Outcome {
        let rules = match self.direction {
            Direction::Ingress => &policy["spec"]["ingress"],
            Direction::Egress => &policy["spec"]["egress"],
        };
        let namespace = namespace(policy);
        for rule in items(rules) {
            let outcome = match rule::action(self, namespace, rule) {
                Some("Allow") if tier.is_unknown => Outcome::Nothing,
                Some("Allow") => Outcome::Decided(true),
                Some("Pass") if tier.is_unknown => Outcome::Decided(false),
                Some("Pass") => Outcome::Passed,
                Some("Deny") => Outcome::Decided(false),
                Some(_) | None => Outcome::Nothing,
            };
            if !matches!(outcome, Outcome::Nothing) {
                return outcome;
            }
        }
        Outcome::Nothing
    }

    /// Whether the policy selects the pod, and is about this direction.
    fn is_for(&self, policy: &Value) -> bool {
        let spec = &policy["spec"];
        if spec["doNotTrack"] == true || spec["preDNAT"] == true {
            return false;
        }
        let labels = Labels::of_pod(self.objects, self.pod);
        let text = |field: &str| spec[field].as_str().unwrap_or_default();
        let is_in = namespace(policy).is_none_or(|namespace| namespace == namespace_of(self.pod));
        is_in
            && is_about(policy, self.direction)
            && matches(text("selector"), &|key| labels.get(key), "")
            && matches(text("serviceAccountSelector"), &|key| labels.get(key), "pcsa.")
            && matches(text("namespaceSelector"), &|key| labels.get(key), "pcns.")
    }
}

enum Outcome {
    Decided(bool),
    /// The rest of the tier is not asked.
    Passed,
    Nothing,
}

/// "types": without it a policy is about ingress, unless it has rules of egress alone, and about egress if it
/// has such rules. Objects that somebody has put into Calico's store by hand are about both.
fn is_about(policy: &Value, direction: Direction) -> bool {
    let spec = &policy["spec"];
    let types = items(&spec["types"]);
    if !types.is_empty() {
        return types.iter().any(|listed| {
            listed
                == match direction {
                    Direction::Ingress => "Ingress",
                    Direction::Egress => "Egress",
                }
        });
    }
    let [ingress, egress] = ["ingress", "egress"].map(|list| !items(&spec[list]).is_empty());
    if policy["apiVersion"] == V1 && kept(policy).is_none() {
        return true;
    }
    match direction {
        Direction::Ingress => ingress || !egress,
        Direction::Egress => egress,
    }
}

/// The objects of these kinds; where both stores hold one of the same name, that of v3 alone.
fn counting<'a>(objects: &'a [Value], kinds: &'a [&'a str]) -> impl Iterator<Item = &'a Value> {
    let of = move |version: &'static str| {
        objects.iter().filter(move |object| {
            object["apiVersion"] == version && kinds.iter().any(|kind| object["kind"] == *kind)
        })
    };
    let is_same = |one: &Value, other: &Value| {
        one["kind"] == other["kind"]
            && namespace(one) == namespace(other)
            && true_name(one) == true_name(other)
    };
    let of_v1 = of(V1).filter(move |object| !of(V3).any(|other| is_same(object, other)));
    of(V3).chain(of_v1)
}

fn policies(objects: &[Value]) -> impl Iterator<Item = &Value> {
    counting(objects, &["GlobalNetworkPolicy", "NetworkPolicy"])
}

/// `None`: it is the cluster's.
fn namespace(object: &Value) -> Option<&str> {
    matches!(object["kind"].as_str(), Some("NetworkPolicy" | "NetworkSet")).then(|| namespace_of(object))
}

fn tier_of(policy: &Value) -> &str {
    policy["spec"]["tier"].as_str().unwrap_or("default")
}

fn order_of(policy: &Value) -> f64 {
    policy["spec"]["order"].as_f64().unwrap_or(f64::INFINITY)
}

/// In Calico's store a policy of the tier default may be called `default.<name>`.
fn true_name(object: &Value) -> String {
    let stored = kept(object).and_then(|kept| kept["name"].as_str().map(str::to_owned));
    let name = stored.unwrap_or_else(|| name_of(object).to_owned());
    let is_policy = matches!(object["kind"].as_str(), Some("GlobalNetworkPolicy" | "NetworkPolicy"));
    match name.strip_prefix("default.") {
        Some(rest) if is_policy && tier_of(object) == "default" => rest.to_owned(),
        _ => name,
    }
}

/// The metadata that Calico keeps in an annotation of its own store.
fn kept(object: &Value) -> Option<Value> {
    let text = object["metadata"]["annotations"]["projectcalico.org/metadata"].as_str()?;
    serde_json::from_str(text).ok().filter(|_| object["apiVersion"] == V1)
}
