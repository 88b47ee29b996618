//! The policies of a tier of Calico's as ClusterNetworkPolicies: all of them or none, as they are in order.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use podgate_common::Direction;

use super::{Conversion, NoEqual, list, namespace_of, rule, rule::MOST_ENTRIES, selector};
use crate::model::{
    ADMIN_TIER, Action, BASELINE_TIER, CalicoPolicy, CalicoRule, CalicoTier, Cluster, ClusterNetworkPolicy,
    ClusterPolicyKind, ClusterPolicyName, ClusterRule, ClusterSubject, DEFAULT_TIER, LabelExpression, Name,
    Selector, Tier, TierOrder,
};

/// Priorities of ClusterNetworkPolicies are 0 to 1,000.
const MOST_POLICIES: usize = 1_001;

/// `of_tiers`: the policies of each tier but those of Kubernetes. `fault_of`: what was not understood.
pub(super) fn convert(
    cluster: &Cluster,
    of_tiers: BTreeMap<&Name, Vec<&Arc<CalicoPolicy>>>,
    fault_of: &dyn Fn(&Arc<CalicoPolicy>) -> Option<NoEqual>,
    conversion: &mut Conversion,
) {
    let tiers: BTreeMap<&Name, &CalicoTier> = cluster.calico.tiers().collect();
    let place = TierOrder::of(DEFAULT_TIER.1).unwrap_or(TierOrder::LAST);
    let side = |name: &Name| match tiers.get(name)?.order.cmp(&place) {
        Ordering::Less => Some(Tier::Admin),
        Ordering::Greater => Some(Tier::Baseline),
        Ordering::Equal => None,
    };
    for (name, mut policies) in of_tiers.clone() {
        policies.sort_by_key(|policy| (policy.order, &policy.name.name, policy.name.kind, &policy.name));
        let same_side = |tier| of_tiers.keys().filter(|other| side(other) == Some(tier)).count();
        let reason = match (tiers.get(name), side(name)) {
            (None, _) => Some("there is no such tier".to_owned()),
            (Some(_), None) => Some("the tier has the order of the tier default".to_owned()),
            (Some(tier), _) if !tier.passes_rest => {
                Some("the tier denies what its rules leave: ClusterNetworkPolicies pass it on".to_owned())
            }
            (Some(_), Some(tier)) if same_side(tier) > 1 => {
                Some(format!("more tiers than one would be the tier {tier} of ClusterNetworkPolicies"))
            }
            (Some(_), Some(tier)) if has_policies(cluster, tier) => {
                Some(format!("there are policies in the tier {tier} of ClusterNetworkPolicies already"))
            }
            (Some(_), Some(_)) if policies.len() > MOST_POLICIES => {
                Some("the tier has more policies than ClusterNetworkPolicies have priorities".to_owned())
            }
            (Some(_), Some(_)) => None,
        };
        if let Some(reason) = reason {
            for policy in policies {
                let why = fault_of(policy).unwrap_or_else(|| NoEqual::new("spec.tier", reason.clone()));
                conversion.leave_out(policy.name.to_string(), why);
            }
            conversion.leave_out(format!("Tier {name}"), NoEqual::new("", "has policies that were left out"));
            continue;
        }
        let tier = side(name).unwrap_or(Tier::Admin);
        let converted = (0..).zip(&policies).map(|(priority, policy)| match fault_of(policy) {
            Some(fault) => Err(fault),
            None => cluster_policy(policy, tier, priority, cluster),
        });
        let converted: Vec<Result<ClusterNetworkPolicy, NoEqual>> = converted.collect();
        let names: BTreeSet<_> = converted.iter().flatten().map(|policy| policy.name.clone()).collect();
        let is_taken = |policy: &ClusterNetworkPolicy| {
            let mut known =
                cluster.cluster_policies.keys().chain(conversion.cluster_policies.iter().map(|it| &it.name));
            known.any(|name| *name == policy.name)
        };
        let has_own_names = names.len() == converted.iter().flatten().count();
        if has_own_names && converted.iter().all(|it| it.as_ref().is_ok_and(|policy| !is_taken(policy))) {
            conversion.cluster_policies.extend(converted.into_iter().flatten());
            conversion.converted.extend(policies.into_iter().cloned());
            continue;
        }
        for (policy, converted) in policies.into_iter().zip(converted) {
            let reason = "another policy of its tier was left out, or has its name: they are in order";
            let why = converted.err().unwrap_or_else(|| NoEqual::new("spec.tier", reason));
            conversion.leave_out(policy.name.to_string(), why);
        }
        conversion.leave_out(format!("Tier {name}"), NoEqual::new("", "has policies that were left out"));
    }
}

/// Of Kubernetes, or of Calico.
fn has_policies(cluster: &Cluster, tier: Tier) -> bool {
    let (name, _) = match tier {
        Tier::Admin => ADMIN_TIER,
        Tier::Baseline => BASELINE_TIER,
    };
    cluster.cluster_policies.values().any(|policy| policy.tier == tier)
        || cluster.calico.policies().any(|policy| policy.tier.as_str() == name)
}

fn cluster_policy(
    policy: &CalicoPolicy,
    tier: Tier,
    priority: u16,
    cluster: &Cluster,
) -> Result<ClusterNetworkPolicy, NoEqual> {
    let namespace = namespace_of(policy, cluster)?;
    let own = namespace.map(LabelExpression::in_namespace);
    let subject = LabelExpression::all_of(own.into_iter().chain([policy.subject.clone()]));
    let terms = selector::terms(&subject).map_err(|why| why.within("spec.selector"))?;
    let name = match namespace {
        Some(namespace) => Name::from(format!("{namespace}.{}", policy.name.name)),
        None => policy.name.name.clone(),
    };
    let rules = |direction: Direction| -> Result<Vec<ClusterRule>, NoEqual> {
        let list = list(direction);
        let rules = policy.rules(direction).unwrap_or_default();
        if rules.len() > MOST_ENTRIES {
            let reason = format!("a ClusterNetworkPolicy has {MOST_ENTRIES} rules at most");
            return Err(NoEqual::new(format!("spec.{list}"), reason));
        }
        let rules = rules.iter().enumerate().map(|(index, CalicoRule { action, matches })| {
            let at = format!("spec.{list}[{index}]");
            match action {
                Action::Accept | Action::Deny | Action::Pass => {}
                Action::Log => return Err(NoEqual::new("action", "Log has no equal").within(&at)),
            }
            let matches =
                rule::of_cluster_policy(matches, direction, cluster).map_err(|why| why.within(&at))?;
            Ok(ClusterRule { action: *action, matches })
        });
        rules.collect()
    };
    Ok(ClusterNetworkPolicy {
        name: ClusterPolicyName { name, kind: ClusterPolicyKind::ClusterNetworkPolicy },
        tier,
        priority,
        subject: ClusterSubject {
            namespaces: Selector::All(terms.namespaces),
            pods: Selector::All(terms.pods),
        },
        ingress: rules(Direction::Ingress)?,
        egress: rules(Direction::Egress)?,
        audit: false,
    })
}
