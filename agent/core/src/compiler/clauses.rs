//! A rule as a clause: any of its peers AND any of its ports, and further conditions of a rule of Calico's.
//! They are never multiplied out, and what a rule lists of one sort is taken together: its blocks are one
//! property of an address, its ports one set.

use std::collections::{BTreeMap, BTreeSet};

use super::{Atom, Shared};
use crate::model::PortSet;

/// A rule: what has any of the peers' properties and goes to any of the ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Clause {
    /// `None`: every address.
    pub peers: Option<BTreeSet<Shared<Atom>>>,
    /// `None`: everything, protocols without ports too.
    pub ports: Option<ClausePorts>,
    /// What the other end has to be beside that: all of it.
    pub conditions: Vec<Condition>,
    /// Ports that do not match.
    pub except_ports: Option<ClausePorts>,
}

/// What the other end has to be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    /// It has any of these properties.
    AnyOf(BTreeSet<Shared<Atom>>),
    /// It has none of these.
    NoneOf(BTreeSet<Shared<Atom>>),
}

/// Ports of a clause.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClausePorts {
    /// Those of every peer.
    pub numbers: Shared<PortSet>,
    /// Those of peers that have this property, too: the named port that they stand for.
    pub named: BTreeMap<Shared<Atom>, Shared<PortSet>>,
}

impl Clause {
    /// Whether it says more than peers and ports.
    pub(super) const fn is_narrowed(&self) -> bool {
        !self.conditions.is_empty() || self.except_ports.is_some()
    }

    /// Whether any address and port can match.
    pub(crate) fn can_match(&self) -> bool {
        let Self { peers, ports, conditions, except_ports: _ } = self;
        peers.as_ref().is_none_or(|peers| !peers.is_empty())
            && !conditions.iter().any(Condition::is_never)
            && ports.as_ref().is_none_or(ClausePorts::has_any)
    }

    pub(super) fn atoms(&self) -> impl Iterator<Item = &Shared<Atom>> {
        let of_ports = self.ports.iter().chain(&self.except_ports).flat_map(|ports| ports.named.keys());
        self.peers.iter().chain(self.conditions.iter().map(Condition::atoms)).flatten().chain(of_ports)
    }

    pub(super) fn port_sets(&self) -> impl Iterator<Item = &Shared<PortSet>> {
        let ports = self.ports.iter().chain(&self.except_ports);
        let sets = ports.flat_map(|ports| ports.named.values().chain([&ports.numbers]));
        sets.filter(|set| !set.is_empty())
    }
}

impl ClausePorts {
    /// Whether there is a port at all.
    pub(super) fn has_any(&self) -> bool {
        !self.numbers.is_empty() || !self.named.is_empty()
    }
}

impl Condition {
    /// The properties that it speaks of.
    pub(super) const fn atoms(&self) -> &BTreeSet<Shared<Atom>> {
        match self {
            Self::AnyOf(atoms) | Self::NoneOf(atoms) => atoms,
        }
    }

    /// The same, taken out of it.
    pub(super) fn into_atoms(self) -> BTreeSet<Shared<Atom>> {
        match self {
            Self::AnyOf(atoms) | Self::NoneOf(atoms) => atoms,
        }
    }

    /// Nothing can meet it.
    fn is_never(&self) -> bool {
        match self {
            Self::AnyOf(atoms) => atoms.is_empty(),
            Self::NoneOf(_) => false,
        }
    }
}
