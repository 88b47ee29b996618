//! One end of a rule of Calico's: `source` or `destination`.
//!
//! Out: what is wanted of it, and whether that is all that was written. What was not understood wants
//! nothing: the rule knows what to make of that.

use std::collections::BTreeSet;

use ipnet::IpNet;
use podgate_core::model::{EntityMatch, IpFamily, LabelExpression, LabelTest, Name, ObjectName, label_keys};

use super::{
    super::{
        address,
        field::{Field, JsonObject, Reported, quoted},
        intern::NameInterner,
        syntax,
    },
    selector::{self, Of},
};

/// What surrounds the end.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    /// The policy's namespace, if it has one: selectors without a `namespaceSelector` are about it.
    pub(super) namespace: Option<&'a Name>,
    /// The rule denies: where documents and programs of Calico differ, it is read as the wider one.
    pub(super) denies: bool,
}

/// Which end of a rule it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RuleEnd {
    Peer,
    /// The pod itself, which policies select.
    Own,
}

/// An end.
#[derive(Default)]
pub(super) struct Entity {
    pub(super) matches: EntityMatch,
    /// Something in it is not carried, or not understood.
    pub(super) is_partial: bool,
}

const FIELDS: [&str; 9] = [
    "nets",
    "notNets",
    "selector",
    "notSelector",
    "namespaceSelector",
    "serviceAccounts",
    "ports",
    "notPorts",
    SERVICES,
];
const SERVICES: &str = "services";

pub(super) fn read(field: &Field<'_>, end: RuleEnd, scope: Scope<'_>, names: &mut NameInterner) -> Entity {
    let Ok(object) = field.object() else { return Entity { is_partial: true, ..Entity::default() } };
    let mut is_partial = object.has_only(&FIELDS).is_err();
    let mut whole = |found: Result<Option<LabelExpression>, Reported>| {
        is_partial |= found.is_err();
        found.ok().flatten()
    };
    let namespaces = whole(expression(&object.get("namespaceSelector"), Of::Namespaces, names));
    let own = whole(expression(&object.get("selector"), Of::Endpoints, names));
    let not_selector = whole(expression(&object.get("notSelector"), Of::Endpoints, names));
    let accounts = whole(service_accounts(&object.get("serviceAccounts"), names));
    let nets = networks(&object.get("nets"));
    let not_nets = networks(&object.get("notNets"));
    is_partial |= nets.is_err() || not_nets.is_err();
    let service = service(&object, end, scope, names);
    is_partial |= service.is_err();
    let is_selecting = own.is_some() || accounts.is_some() || not_selector.is_some() && !scope.denies;
    let of_policy = || scope.namespace.filter(|_| is_selecting).map(LabelExpression::in_namespace);
    let parts: Vec<LabelExpression> =
        namespaces.or_else(of_policy).into_iter().chain(accounts).chain(own).collect();
    let selector = (!parts.is_empty()).then(|| LabelExpression::all_of(parts));
    let matches = EntityMatch {
        selector,
        not_selector,
        nets: nets.ok().flatten(),
        not_nets: of_their_families(not_nets.ok().flatten().unwrap_or_default()),
        service: service.ok().flatten(),
    };
    Entity { matches, is_partial }
}

/// `notNets` of one family are about that family: Felix (`FilterRuleToIPVersion`) leaves such a rule out of
/// the other one's.
fn of_their_families(mut nets: BTreeSet<IpNet>) -> BTreeSet<IpNet> {
    let families = IpFamily::ALL.map(|family| family.block().cidr);
    let others = families.into_iter().filter(|all| !nets.iter().any(|net| all.contains(net)));
    let others: Vec<IpNet> = others.filter(|_| !nets.is_empty()).collect();
    nets.extend(others);
    nets
}

/// `services`: nothing else may be wanted of an end that has it.
fn service(
    object: &JsonObject<'_>,
    end: RuleEnd,
    scope: Scope<'_>,
    names: &mut NameInterner,
) -> Result<Option<ObjectName>, Reported> {
    let field = object.get(SERVICES);
    if !field.is_given() {
        return Ok(None);
    }
    if end == RuleEnd::Own {
        return Err(
            field.fault("may stand in the destination of egress rules and the source of ingress rules")
        );
    }
    // Ports are those of the endpoints, or, of a source, not carried.
    if let Some(other) = FIELDS.into_iter().find(|other| *other != SERVICES && object.get(other).is_filled())
    {
        return Err(object.get(other).fault("may not stand beside services"));
    }
    let service = field.object()?;
    service.has_only(&["name", "namespace"])?;
    let (name_field, namespace_field) = (service.get("name"), service.get("namespace"));
    let name = name_field.required_text()?;
    syntax::check(&name_field, name, syntax::dns_label(name))?;
    let namespace = match (namespace_field.optional_text()?, scope.namespace) {
        (Some(namespace), _) => {
            syntax::check(&namespace_field, namespace, syntax::dns_label(namespace))?;
            names.name(namespace)
        }
        (None, Some(of_policy)) => of_policy.clone(),
        (None, None) => return Err(namespace_field.fault("is missing: the policy is in no namespace")),
    };
    Ok(Some(ObjectName { namespace, name: names.name(name) }))
}

/// `None`: absent, or empty.
pub(super) fn expression(
    field: &Field<'_>,
    of: Of,
    names: &mut NameInterner,
) -> Result<Option<LabelExpression>, Reported> {
    let Some(text) = field.optional_text()? else { return Ok(None) };
    match selector::parse(text, of, names) {
        Ok(expression) => Ok(Some(expression)),
        Err(reason) => Err(field.fault(format!("{} is not a selector: {reason}", quoted(text)))),
    }
}

/// "Names" and "selector" must both hold.
fn service_accounts(
    field: &Field<'_>,
    names: &mut NameInterner,
) -> Result<Option<LabelExpression>, Reported> {
    if !field.is_given() {
        return Ok(None);
    }
    let object = field.object()?;
    object.has_only(&["names", "selector"])?;
    let mut parts = Vec::new();
    let listed = object.get("names");
    let listed = listed.items()?;
    if listed.len() > 0 {
        let mut values = Vec::new();
        for item in listed {
            values.push(names.name(item.required_text()?));
        }
        let values = values.into_iter().collect();
        parts.push(LabelExpression::Label(label_keys::ACCOUNT.into(), LabelTest::In(values)));
    }
    parts.extend(expression(&object.get("selector"), Of::ServiceAccounts, names)?);
    Ok((!parts.is_empty()).then(|| LabelExpression::all_of(parts)))
}

/// Networks, and addresses as networks of one. `None`: absent, or empty.
pub(super) fn networks(field: &Field<'_>) -> Result<Option<BTreeSet<IpNet>>, Reported> {
    let items = field.items()?;
    if items.len() == 0 {
        return Ok(None);
    }
    // Every fault is reported before it gives up.
    let nets: Vec<Result<IpNet, Reported>> = items.map(|item| network(&item)).collect();
    nets.into_iter().collect::<Result<BTreeSet<IpNet>, Reported>>().map(Some)
}

pub(super) fn network(field: &Field<'_>) -> Result<IpNet, Reported> {
    let text = field.required_text()?;
    if text.contains('/') { address::read_cidr(field) } else { address::read(field).map(IpNet::from) }
}

/// Ports of an end that rules cannot ask for: those of the client.
pub(super) fn client_ports(object: &JsonObject<'_>) -> Result<(), Reported> {
    let mut all = Ok(());
    for list in ["ports", "notPorts"] {
        let field = object.get(list);
        if field.is_given() && field.values().map_or(true, |values| !values.is_empty()) {
            all = Err(field.fault("is not carried: podgate does not match the client's port"));
        }
    }
    all
}
