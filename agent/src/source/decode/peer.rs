//! Entries of `from` and `to` in a policy's rule.

use std::collections::BTreeSet;

use ipnet::IpNet;
use podgate_core::model::{DomainPattern, IpBlock, Peer};

use super::{
    address,
    field::{Field, Reported, quoted},
    intern::NameInterner,
    selector,
};

/// An entry with any fault matches nothing; in one with selectors the bad selector does it.
pub(super) fn read(field: &Field<'_>, names: &mut NameInterner) -> Peer {
    peer(field, names).unwrap_or(Peer::Nothing)
}

const NAMES: &str = "domainNames";

/// The same where an entry may be a list of names in place of the others. A name that is not understood
/// matches nothing.
pub(super) fn read_with_names(field: &Field<'_>, names: &mut NameInterner) -> Vec<Peer> {
    let Ok(object) = field.object() else { return vec![Peer::Nothing] };
    let listed = object.get(NAMES);
    if !listed.is_given() {
        return vec![read(field, names)];
    }
    if object.has_only(&[NAMES]).is_err() {
        return vec![Peer::Nothing];
    }
    match listed.items() {
        Ok(items) if items.len() == 0 => {
            let _reported = listed.fault("must not be empty");
            vec![Peer::Nothing]
        }
        Ok(items) => items.map(|item| name(&item, DomainPattern::parse)).collect(),
        Err(_reported) => vec![Peer::Nothing],
    }
}

/// A name of the DNS, as its list has it.
pub(super) fn name(field: &Field<'_>, parse: fn(&str) -> Result<DomainPattern, &'static str>) -> Peer {
    let Ok(text) = field.required_text() else { return Peer::Nothing };
    parse(text).map_or_else(
        |reason| {
            let _reported = field.fault(format!("{} {reason}, matches nothing", quoted(text)));
            Peer::Nothing
        },
        Peer::Name,
    )
}

fn peer(field: &Field<'_>, names: &mut NameInterner) -> Result<Peer, Reported> {
    let object = field.object()?;
    let only_known = object.has_only(&["podSelector", "namespaceSelector", "ipBlock"]);
    let (pods, namespaces) = (object.get("podSelector"), object.get("namespaceSelector"));
    let block = object.get("ipBlock");
    let peer = match (pods.is_given() || namespaces.is_given(), block.is_given()) {
        (true, false) => Ok(Peer::Pods {
            namespaces: namespaces.is_given().then(|| selector::read(&namespaces, names)),
            pods: selector::read(&pods, names),
        }),
        (false, true) => ip_block(&block).map(Peer::Block),
        (true, true) => Err(field.fault("ipBlock must not stand beside a selector")),
        (false, false) => Err(field.fault("needs a podSelector, a namespaceSelector or an ipBlock")),
    };
    only_known?;
    peer
}

/// A bad `except` spoils the whole block: without it the block would be wider than meant.
fn ip_block(field: &Field<'_>) -> Result<IpBlock, Reported> {
    let object = field.object()?;
    let only_known = object.has_only(&["cidr", "except"]);
    let cidr = address::read_cidr(&object.get("cidr"));
    let except = object.get("except");
    let each: Vec<_> = except.items()?.map(|item| excepted(&item, cidr)).collect();
    let except = each.into_iter().collect::<Result<BTreeSet<_>, _>>()?;
    only_known?;
    Ok(IpBlock { cidr: cidr?, except })
}

fn excepted(field: &Field<'_>, cidr: Result<IpNet, Reported>) -> Result<IpNet, Reported> {
    let except = address::read_cidr(field)?;
    let cidr = cidr?;
    if except == cidr || except.contains(&cidr) {
        return Err(field.fault(format!("{except} is not smaller than {cidr}")));
    }
    if !cidr.contains(&except) {
        return Err(field.fault(format!("{except} is not inside {cidr}")));
    }
    Ok(except)
}
