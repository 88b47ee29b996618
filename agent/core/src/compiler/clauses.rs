//! A rule as a clause: any of its peers AND any of its ports. They are never multiplied out, and what a rule
//! lists of one sort is taken together: its blocks are one property of an address, its ports one set.

use std::collections::{BTreeMap, BTreeSet};

use super::Shared;
use crate::model::{IpBlock, Name, NamedPort, Peer, PortSet, Selector};

/// A property that an address has or has not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Atom {
    /// It is a pod's, in one namespace, with such labels.
    PodsIn(Name, Selector),
    /// It is a pod's, in a namespace with such labels, with such labels of its own.
    PodsAcross {
        /// By the labels of the namespace.
        namespaces: Selector,
        /// By the labels of the pod.
        pods: Selector,
    },
    /// It is a pod's that has this named port.
    Port(NamedPort),
    /// It lies in one of these blocks: all those of a rule together.
    Blocks(BTreeSet<IpBlock>),
    /// It is one of a node with such labels.
    Node(Selector),
}

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
    pub(super) fn can_match(&self) -> bool {
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

/// Left out is a peer that was not understood and matches nothing, or that means a namespace that its policy
/// does not have.
pub(super) fn peer_atoms(peers: &[Peer], namespace: Option<&Name>) -> BTreeSet<Shared<Atom>> {
    let mut blocks = BTreeSet::new();
    let mut atoms = BTreeSet::new();
    for peer in peers {
        let atom = match peer {
            Peer::Pods { namespaces: None, pods } => {
                let Some(namespace) = namespace else { continue };
                Atom::PodsIn(namespace.clone(), pods.clone())
            }
            Peer::Pods { namespaces: Some(namespaces), pods } => {
                Atom::PodsAcross { namespaces: namespaces.clone(), pods: pods.clone() }
            }
            Peer::Block(block) => {
                blocks.insert(block.clone());
                continue;
            }
            Peer::Nodes(nodes) => Atom::Node(nodes.clone()),
            Peer::Nothing => continue,
        };
        atoms.insert(Shared::new(atom));
    }
    if !blocks.is_empty() {
        atoms.insert(Shared::new(Atom::Blocks(blocks)));
    }
    atoms
}
