//! Rules with names of the DNS.
//!
//! The kernel keeps pairs of address and name, and asks about a name only for what a policy denies by the
//! address. So no address has a name as a property, and nothing is multiplied: names are classified as
//! addresses are, and a name that rules speak of stands among these under a [`key`] that no address has.
//!
//! The rules of a rule set that accept names are rule sets of their own, its [`NameStratum`]s: parts between
//! which no other rule decides, each beside what such rules leave open before it. So both are compiled, given
//! ids and written as all others.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use podgate_common::Strata;
use sha2::{Digest as _, Sha256};

use super::{Atom, Clause, RulePart, RuleSet, Shared, Signature, Step, TierRules};
use crate::{
    model::{Action, DomainPattern},
    policy_walk::TierEnd,
};

/// A name as the kernel tells names apart: its last labels (the leftmost first, in lower case) as far as
/// rules have them, and how many are before them: 0, 1, or 2 for more.
pub type NamePlace = (Vec<Box<[u8]>>, u32);

/// A part of the rules with names of a rule set, as indexes of other rule sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameStratum {
    /// What it allows names.
    pub names: usize,
    /// Which destinations no rule before it denies or passes on; 0: all.
    pub open: usize,
}

/// The same as rule sets.
pub(super) struct StratumRules {
    pub(super) names: Arc<RuleSet>,
    pub(super) open: Option<Arc<RuleSet>>,
}

/// The parts of a rule set, in order. What is beyond those that a row has room for allows nothing: of it one
/// part stays, which says that there is more. None where nothing is denied that names could allow.
pub(super) fn strata(rule_set: &RuleSet) -> Vec<StratumRules> {
    if !rule_set.clauses().any(|clause| has_names(clause)) || !rule_set.tiers.iter().any(denies) {
        return Vec::new();
    }
    let mut strata = Vec::new();
    for (index, tier) in rule_set.tiers.iter().enumerate() {
        let before = &rule_set.tiers[..index];
        // What this tier decides otherwise before, and the names since then.
        let mut denied: Vec<Step> = Vec::new();
        let mut names = BTreeSet::new();
        for part in &tier.parts {
            let steps = match part {
                RulePart::Steps(steps) => steps.list(),
                RulePart::AnyOf(clauses) => {
                    names.extend(clauses.iter().filter_map(of_names));
                    &[]
                }
            };
            for Step { action, clause } in steps {
                match action {
                    Action::Accept => names.extend(of_names(clause)),
                    // What is denied or passed on is no name's that stands in the same tier behind it.
                    Action::Deny | Action::Pass => {
                        strata.extend(stratum(&mut names, before, &denied));
                        denied.push(Step { action: Action::Deny, clause: clause.clone() });
                    }
                    Action::Log => {}
                }
            }
        }
        strata.extend(stratum(&mut names, before, &denied));
    }
    strata.truncate(Strata::MOST + 1);
    strata
}

/// Whether a tier denies anything.
fn denies(tier: &TierRules) -> bool {
    let denies = |part: &RulePart| match part {
        RulePart::Steps(steps) => steps.list().iter().any(|step| step.action == Action::Deny),
        RulePart::AnyOf(_) => false,
    };
    match tier.end {
        TierEnd::Isolate | TierEnd::Deny => true,
        TierEnd::Pass => tier.parts.iter().any(denies),
    }
}

/// Finds the parts of rule sets, which are added to them.
pub(super) fn numbered(rule_sets: &mut Vec<Arc<RuleSet>>) -> BTreeMap<usize, Arc<[NameStratum]>> {
    let found: Vec<_> = rule_sets.iter().map(|rule_set| strata(rule_set)).enumerate().collect();
    let mut number = |rule_set: Arc<RuleSet>| {
        rule_sets.iter().position(|known| *known == rule_set).unwrap_or_else(|| {
            rule_sets.push(rule_set);
            rule_sets.len() - 1
        })
    };
    let found = found.into_iter().filter(|(_, strata)| !strata.is_empty());
    found.map(|(index, strata)| (index, indexes(strata, &mut number))).collect()
}

/// The parts by their indexes.
pub(super) fn indexes(
    strata: Vec<StratumRules>,
    mut number: impl FnMut(Arc<RuleSet>) -> usize,
) -> Arc<[NameStratum]> {
    let strata = strata.into_iter().map(|StratumRules { names, open }| NameStratum {
        names: number(names),
        open: open.map_or(0, &mut number),
    });
    strata.collect()
}

/// A part, if there are names: behind these tiers, and behind these steps of its own.
fn stratum(
    names: &mut BTreeSet<Shared<Clause>>,
    before: &[TierRules],
    denied: &[Step],
) -> Option<StratumRules> {
    let names = std::mem::take(names);
    if names.is_empty() {
        return None;
    }
    let tier = |part, end| TierRules { parts: vec![part], end };
    let mut open: Vec<TierRules> = before.iter().filter(|tier| denies(tier)).cloned().collect();
    if !denied.is_empty() {
        open.push(tier(RulePart::Steps(denied.iter().cloned().collect()), TierEnd::Pass));
    }
    // After the last tier everything is allowed.
    let open = (!open.is_empty()).then(|| Arc::new(RuleSet { tiers: open }));
    let names = Arc::new(RuleSet { tiers: vec![tier(RulePart::AnyOf(names), TierEnd::Isolate)] });
    Some(StratumRules { names, open })
}

fn has_names(clause: &Clause) -> bool {
    clause.peers.iter().flatten().any(|atom| matches!(**atom, Atom::Names(_)))
}

/// The part of a rule that is about names. One that asks more of the other end than its name matches none: of
/// a name nothing else is known.
fn of_names(clause: &Shared<Clause>) -> Option<Shared<Clause>> {
    let peers = clause.peers.iter().flatten();
    let peers: BTreeSet<_> = peers.filter(|atom| matches!(***atom, Atom::Names(_))).cloned().collect();
    (!peers.is_empty() && !clause.is_narrowed()).then(|| {
        let (peers, ports) = (Some(peers), clause.ports.clone());
        Shared::new(Clause { peers, ports, conditions: Vec::new(), except_ports: None })
    })
}

/// How many labels the names of these properties have, each once below the one to its right.
pub(super) fn label_count<'a>(atoms: impl IntoIterator<Item = &'a Shared<Atom>>) -> usize {
    let patterns = atoms.into_iter().filter_map(|atom| match &**atom {
        Atom::Names(names) => Some(names),
        _ => None,
    });
    let suffixes: HashSet<&str> = patterns.flatten().flat_map(DomainPattern::suffixes).collect();
    suffixes.len()
}

/// A pattern, and the property that has it.
type Matching<'a> = (&'a DomainPattern, &'a Shared<Atom>);

/// The properties of each name that rules tell from others.
pub(super) fn places<'a>(
    atoms: impl IntoIterator<Item = &'a Shared<Atom>>,
) -> BTreeMap<NamePlace, Signature> {
    let mut patterns: BTreeMap<&DomainPattern, Vec<&Shared<Atom>>> = BTreeMap::new();
    for atom in atoms {
        let Atom::Names(names) = &**atom else { continue };
        names.iter().for_each(|name| patterns.entry(name).or_default().push(atom));
    }
    // By their own labels, so that each suffix finds those that it ends with.
    let mut by_name: BTreeMap<Vec<&[u8]>, Vec<Matching<'_>>> = BTreeMap::new();
    let mut suffixes: BTreeSet<Vec<&[u8]>> = BTreeSet::new();
    for (pattern, atoms) in patterns {
        let labels: Vec<&[u8]> = pattern.labels().collect();
        (0..labels.len()).for_each(|at| {
            suffixes.insert(labels[at..].to_vec());
        });
        by_name.entry(labels).or_default().extend(atoms.into_iter().map(|atom| (pattern, atom)));
    }
    let mut places = BTreeMap::new();
    for suffix in suffixes {
        for left in 0..3_u32 {
            let mut signature = Signature::new();
            for at in 0..suffix.len() {
                let patterns = by_name.get(&suffix[at..]).into_iter().flatten();
                let matching = patterns.filter(|(pattern, _)| pattern.matches_before(at + left as usize));
                signature.extend(matching.map(|(_, atom)| (*atom).clone()));
            }
            if !signature.is_empty() {
                places.insert((suffix.iter().map(|label| (*label).into()).collect(), left), signature);
            }
        }
    }
    places
}

/// A name as far as rules tell it from others: `api.example.com`, or `*.example.com` for any name below one.
pub fn name_text((suffix, left): &NamePlace) -> String {
    let labels: Vec<_> = suffix.iter().map(|label| String::from_utf8_lossy(label)).collect();
    let before = if *left == 0 { "" } else { "*." };
    format!("{before}{}", labels.join("."))
}

/// Where a name stands among addresses: in a block that is no one's (`::/8`, RFC 4291, 2.4), by a hash of
/// which no two are found that are alike.
pub fn key((suffix, left): &NamePlace) -> IpAddr {
    let mut hash = Sha256::new();
    for label in suffix {
        hash.update([u8::try_from(label.len()).unwrap_or(0)]);
        hash.update(label);
    }
    hash.update([0, u8::try_from(*left).unwrap_or(0)]);
    let mut bytes = [0; 16];
    bytes[1..].copy_from_slice(&hash.finalize()[..15]);
    IpAddr::V6(Ipv6Addr::from(bytes))
}
