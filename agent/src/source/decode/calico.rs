//! Calico's objects: policies, tiers, network sets and host endpoints, as users write them
//! (`projectcalico.org/v3`) and as Calico stores them (`crd.projectcalico.org/v1`).
//!
//! The fields are those of `api/pkg/apis/projectcalico/v3`. A rule with something that is not carried closes
//! (`rule`), and its policy still selects. A policy whose selector cannot be read selects nothing, as a
//! NetworkPolicy: which pods were meant is not known. Left out: whether the tier of a policy exists, which
//! depends on other objects.

mod entity;
mod host_endpoint;
mod metadata;
mod rule;
mod selector;

use std::collections::BTreeSet;

use podgate_common::Direction;
use podgate_core::model::{
    Action, CalicoApi, CalicoPolicy, CalicoPolicyKind, CalicoPolicyName, CalicoRule, CalicoTier,
    DEFAULT_TIER, LabelExpression, LabelTest, Labels, NETWORK_POLICY_ORDER, Name, NetworkPolicy, NetworkSet,
    ObjectName, PolicyScope, Requirement, Rule, Selector, TierOrder,
};

use super::{
    field::{Field, JsonObject, Reported, quoted},
    intern::NameInterner,
    policy, syntax,
};
use selector::Of;

pub(super) use host_endpoint::read as read_host_endpoint;
/// What an object's metadata say, beside what those of all objects do.
pub(super) use metadata::Stored;

/// What is known of an object before its spec is read.
pub(super) struct CalicoHeader {
    pub(super) api: CalicoApi,
    /// `None`: it is the cluster's.
    pub(super) namespace: Option<Name>,
    /// What it is called, as an object.
    pub(super) name: Name,
    pub(super) labels: Labels,
    pub(super) audit: bool,
}

impl CalicoHeader {
    /// As a policy of this kind.
    pub(super) fn policy_name(&self, kind: CalicoPolicyKind) -> CalicoPolicyName {
        CalicoPolicyName { namespace: self.namespace.clone(), name: self.name.clone(), kind }
    }
}

/// A policy; of Kubernetes' own form where it is staged.
pub(super) fn read_policy(
    fields: &JsonObject<'_>,
    header: CalicoHeader,
    kind: CalicoPolicyKind,
    names: &mut NameInterner,
) -> CalicoPolicy {
    let stored = Stored::of(fields, header.api, names);
    let spec_field = fields.get("spec");
    let name = |tier: &str| {
        let name = stored.name.clone().unwrap_or_else(|| header.name.clone());
        // Before 3.30 a policy of this tier is stored under such a name.
        let of_tier =
            (tier == DEFAULT_TIER.0).then(|| name.strip_prefix("default.").map(Name::from)).flatten();
        CalicoPolicyName { namespace: header.namespace.clone(), name: of_tier.unwrap_or(name), kind }
    };
    let is_staged = kind.is_staged();
    let audit = header.audit || stored.audit || is_staged;
    let Ok(spec) = spec_field.object() else {
        // It may have meant anything: of its own namespace, it isolates all and allows nothing.
        let subject =
            if header.namespace.is_some() { LabelExpression::EVERYTHING } else { LabelExpression::NOTHING };
        return CalicoPolicy {
            name: name(DEFAULT_TIER.0),
            tier: DEFAULT_TIER.0.into(),
            order: TierOrder::LAST,
            subject,
            ingress: Some(Vec::new()),
            egress: Some(Vec::new()),
            audit,
            removes: false,
            scope: PolicyScope::Local,
        };
    };
    let staging = if is_staged { staging(&spec.get("stagedAction")) } else { Staging::Applies };
    let (removes, has_effect) = match staging {
        Staging::Applies => (false, true),
        Staging::Removes => (true, true),
        Staging::Nothing => (false, false),
    };
    if kind.is_of_kubernetes() {
        let name = name(DEFAULT_TIER.0);
        let object = ObjectName::new(header.namespace.clone().unwrap_or_default(), name.name.clone());
        let of_kubernetes = policy::read_staged(fields, object, names);
        return of_network_policy(of_kubernetes, name, removes, has_effect);
    }
    report_unknown(&spec, kind);
    let tier = tier_name(&spec.get("tier"), names);
    let order = order(&spec.get("order"));
    let subject = subject(&spec, kind);
    let subject = subject(names).unwrap_or(LabelExpression::NOTHING);
    let scope = scope(&spec);
    let rules = |direction: Direction, names: &mut NameInterner| -> Result<Vec<CalicoRule>, Reported> {
        let list = spec.get(direction.name());
        let namespace = header.namespace.as_ref();
        Ok(list.items()?.map(|item| rule::read(&item, namespace, direction, names)).collect())
    };
    let [ingress, egress] = [Direction::Ingress, Direction::Egress].map(|direction| rules(direction, names));
    let has_rules =
        |rules: &Result<Vec<CalicoRule>, Reported>| rules.as_ref().map_or(true, |it| !it.is_empty());
    let types =
        types(&spec.get("types"), stored.is_written_by_hand, [has_rules(&ingress), has_rules(&egress)]);
    let list = |direction, rules: Result<Vec<CalicoRule>, Reported>| {
        types.contains(&direction).then(|| rules.unwrap_or_default())
    };
    CalicoPolicy {
        name: name(&tier),
        tier,
        order: order.unwrap_or(TierOrder::LAST),
        subject: if has_effect { subject } else { LabelExpression::NOTHING },
        ingress: list(Direction::Ingress, ingress),
        egress: list(Direction::Egress, egress),
        audit,
        removes,
        scope,
    }
}

enum Staging {
    Applies,
    Removes,
    /// It only notes something down.
    Nothing,
}

/// "Set" when absent.
fn staging(field: &Field<'_>) -> Staging {
    match field.optional_text() {
        Ok(None | Some("Set")) => Staging::Applies,
        Ok(Some("Delete")) => Staging::Removes,
        Ok(Some("Learn" | "Ignore")) => Staging::Nothing,
        Ok(Some(text)) => {
            let _reported = field.fault(format!("{} is not Set, Delete, Learn or Ignore", quoted(text)));
            Staging::Applies
        }
        Err(_reported) => Staging::Applies,
    }
}

fn report_unknown(spec: &JsonObject<'_>, kind: CalicoPolicyKind) {
    let common = [
        "tier",
        "order",
        "selector",
        "serviceAccountSelector",
        "types",
        "ingress",
        "egress",
        "performanceHints",
    ];
    let of_cluster = ["namespaceSelector", "applyOnForward", "preDNAT", "doNotTrack"];
    let is_of_cluster = match kind {
        CalicoPolicyKind::GlobalNetworkPolicy | CalicoPolicyKind::StagedGlobalNetworkPolicy => true,
        CalicoPolicyKind::NetworkPolicy
        | CalicoPolicyKind::StagedNetworkPolicy
        | CalicoPolicyKind::StagedKubernetesNetworkPolicy => false,
    };
    let known: Vec<&str> = common
        .into_iter()
        .chain(of_cluster.into_iter().filter(|_| is_of_cluster))
        .chain(kind.is_staged().then_some("stagedAction"))
        .collect();
    spec.report_unknown(&known);
}

fn tier_name(field: &Field<'_>, names: &mut NameInterner) -> Name {
    let text = field.optional_text().map(|text| text.unwrap_or(DEFAULT_TIER.0));
    match text.and_then(|text| syntax::check(field, text, syntax::dns_subdomain(text)).map(|()| text)) {
        Ok(text) => names.name(text),
        // No tier is called so, and what names one that does not exist fails closed.
        Err(_reported) => names.name("(not understood)"),
    }
}

/// Without one it is the last.
fn order(field: &Field<'_>) -> Result<TierOrder, Reported> {
    Ok(field.decimal()?.and_then(TierOrder::of).unwrap_or(TierOrder::LAST))
}

/// Pods by their own labels, and those of their namespaces and service accounts.
fn subject<'s>(
    spec: &'s JsonObject<'s>,
    kind: CalicoPolicyKind,
) -> impl FnOnce(&mut NameInterner) -> Result<LabelExpression, Reported> + 's {
    let fields: &[(&str, Of)] = match kind {
        CalicoPolicyKind::GlobalNetworkPolicy | CalicoPolicyKind::StagedGlobalNetworkPolicy => &[
            ("namespaceSelector", Of::Namespaces),
            ("serviceAccountSelector", Of::ServiceAccounts),
            ("selector", Of::Endpoints),
        ],
        CalicoPolicyKind::NetworkPolicy
        | CalicoPolicyKind::StagedNetworkPolicy
        | CalicoPolicyKind::StagedKubernetesNetworkPolicy => {
            &[("serviceAccountSelector", Of::ServiceAccounts), ("selector", Of::Endpoints)]
        }
    };
    move |names| {
        let parts: Vec<Result<Option<LabelExpression>, Reported>> =
            fields.iter().map(|(field, of)| entity::expression(&spec.get(field), *of, names)).collect();
        let parts = parts.into_iter().collect::<Result<Vec<_>, Reported>>()?;
        Ok(LabelExpression::all_of(parts.into_iter().flatten()))
    }
}

/// The traffic of host endpoints that the policy applies to. Calico requires `applyOnForward` together with
/// the other two, which apply to all traffic.
fn scope(spec: &JsonObject<'_>) -> PolicyScope {
    let is_set = |name: &'static str| spec.get(name).boolean() == Ok(Some(true));
    match ["doNotTrack", "preDNAT", "applyOnForward"].map(is_set) {
        [true, _, _] => PolicyScope::Untracked,
        [_, true, _] => PolicyScope::PreDnat,
        [_, _, true] => PolicyScope::OnForward,
        [false, false, false] => PolicyScope::Local,
    }
}

/// Which directions a policy is about. Absent: ingress, unless there are only rules of egress. Where Calico's
/// own server has filled in nothing its programs take both, which is the closed reading.
fn types(field: &Field<'_>, is_written_by_hand: bool, [ingress, egress]: [bool; 2]) -> BTreeSet<Direction> {
    let both = || BTreeSet::from(Direction::ALL);
    let Ok(items) = field.items() else { return both() };
    if items.len() == 0 {
        let absent = |direction: &Direction| match direction {
            Direction::Ingress => ingress || !egress,
            Direction::Egress => egress,
        };
        return if is_written_by_hand { both() } else { Direction::ALL.into_iter().filter(absent).collect() };
    }
    let mut types = BTreeSet::new();
    for item in items {
        let text = item.required_text().unwrap_or_default();
        match (text.eq_ignore_ascii_case("ingress"), text.eq_ignore_ascii_case("egress")) {
            (true, _) => types.extend([Direction::Ingress]),
            (_, true) => types.extend([Direction::Egress]),
            (false, false) => {
                if !text.is_empty() {
                    let _reported = item.fault(format!("{} is not Ingress or Egress", quoted(text)));
                }
                types = both();
            }
        }
    }
    types
}

/// A staged policy of Kubernetes: its rules allow, in the place that NetworkPolicies have.
fn of_network_policy(
    policy: NetworkPolicy,
    name: CalicoPolicyName,
    removes: bool,
    has_effect: bool,
) -> CalicoPolicy {
    let NetworkPolicy { name: _, subject, ingress, egress, audit: _ } = policy;
    let rules = |rules: Option<Vec<Rule>>| {
        let allow = |matches| CalicoRule { action: Action::Accept, matches };
        rules.map(|rules| rules.into_iter().map(allow).collect())
    };
    CalicoPolicy {
        name,
        tier: DEFAULT_TIER.0.into(),
        order: TierOrder::of(NETWORK_POLICY_ORDER).unwrap_or(TierOrder::LAST),
        subject: if has_effect { as_expression(subject) } else { LabelExpression::NOTHING },
        ingress: rules(ingress),
        egress: rules(egress),
        audit: true,
        removes,
        scope: PolicyScope::Local,
    }
}

/// A selector of Kubernetes in Calico's terms.
fn as_expression(selector: Selector) -> LabelExpression {
    let requirements = match selector {
        Selector::All(requirements) => requirements,
        Selector::Nothing => return LabelExpression::NOTHING,
    };
    LabelExpression::all_of(requirements.into_iter().map(|requirement| match requirement {
        Requirement::In(key, values) => LabelExpression::Label(key, LabelTest::In(values)),
        Requirement::NotIn(key, values) => LabelExpression::Label(key, LabelTest::NotIn(values)),
        Requirement::Exists(key) => LabelExpression::Label(key, LabelTest::Exists),
        Requirement::DoesNotExist(key) => {
            LabelExpression::Not(Box::new(LabelExpression::Label(key, LabelTest::Exists)))
        }
    }))
}

pub(super) fn read_tier(fields: &JsonObject<'_>) -> CalicoTier {
    let spec = fields.get("spec");
    let Ok(spec) = spec.object() else { return CalicoTier { order: TierOrder::LAST, passes_rest: false } };
    spec.report_unknown(&["order", "defaultAction"]);
    let action = spec.get("defaultAction");
    let passes_rest = match action.optional_text() {
        Ok(None | Some("Deny")) | Err(_) => false,
        Ok(Some("Pass")) => true,
        Ok(Some(text)) => {
            let _reported = action.fault(format!("{} is not Deny or Pass", quoted(text)));
            false
        }
    };
    CalicoTier { order: order(&spec.get("order")).unwrap_or(TierOrder::LAST), passes_rest }
}

/// A network that is not understood is left out.
pub(super) fn read_network_set(
    fields: &JsonObject<'_>,
    header: CalicoHeader,
    names: &mut NameInterner,
) -> NetworkSet {
    let CalicoHeader { api, namespace, name: _, labels, audit: _ } = header;
    let labels = Stored::of(fields, api, names).labels.unwrap_or(labels);
    let spec = fields.get("spec");
    let mut nets = BTreeSet::new();
    if let Ok(spec) = spec.object() {
        spec.report_unknown(&["nets"]);
        let list = spec.get("nets");
        nets.extend(list.items().into_iter().flatten().filter_map(|item| entity::network(&item).ok()));
    }
    NetworkSet { namespace, labels, nets }
}
