//! A rule as a clause: any of its peers AND any of its ports. They are never multiplied out, and what a rule
//! lists of one sort is taken together: its blocks are one property of an address, its ports one set.

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
    /// Whether any address and port can match.
    pub(crate) fn can_match(&self) -> bool {
        let Self { peers, ports } = self;
        peers.as_ref().is_none_or(|peers| !peers.is_empty())
            && ports.as_ref().is_none_or(|ports| !ports.numbers.is_empty() || !ports.named.is_empty())
    }

    pub(super) fn atoms(&self) -> impl Iterator<Item = &Shared<Atom>> {
        self.peers.iter().flatten().chain(self.ports.iter().flat_map(|ports| ports.named.keys()))
    }

    pub(super) fn port_sets(&self) -> impl Iterator<Item = &Shared<PortSet>> {
        let sets = self.ports.iter().flat_map(|ports| ports.named.values().chain([&ports.numbers]));
        sets.filter(|set| !set.is_empty())
    }
}
