//! Names of the DNS in questions: a destination that is a name, and the names that a pod has learnt for an
//! address.
//!
//! Which addresses a name has is not in the objects. It is answered for one that no rule has beside its name:
//! outside the cluster, and in no block but those of all addresses.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use podgate_common::Direction;
use serde::{Deserialize, Serialize};

use crate::{
    compiler::{NamePlace, name_text},
    model::{Cluster, DomainName, DomainPattern, Peer, Peers, PolicyRef},
};

/// The names that the client has learnt for addresses; empty where that is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LearntNames(pub BTreeMap<IpAddr, BTreeSet<NamePlace>>);

/// Of a running agent: an address that the client has learnt, and that counts now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownAddress {
    /// The address.
    pub address: IpAddr,
    /// The name that it was learnt for, as far as the node's rules tell it from others.
    pub name: String,
    /// For how long it counts.
    pub seconds_left: u64,
}

/// A name that a rule wants, and the one in question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameFinding {
    /// By the rule.
    pub wanted: DomainPattern,
    /// `None`: it is asked about an address that the client is not known to have learnt for any.
    pub asked: Option<String>,
    /// It is one that the rule wants.
    pub matched: bool,
}

/// An address, as an answer shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShownAddress {
    /// One in question.
    Address(IpAddr),
    /// Whichever a name has.
    Of(DomainName),
}

/// What is known of the other end's name.
#[derive(Clone, Copy)]
pub(super) enum AskedName<'a> {
    /// It is what is asked about.
    Name(&'a DomainName),
    /// It is an address.
    Learnt(&'a LearntNames, IpAddr),
}

impl AskedName<'_> {
    /// `Ok` when a rule that wants the name matches.
    pub(super) fn find(self, wanted: &DomainPattern) -> Result<NameFinding, NameFinding> {
        let (asked, matched) = match self {
            Self::Name(name) => (Some(name.to_string()), wanted.matches(name.as_str())),
            Self::Learnt(names, address) => {
                let names = || names.0.get(&address).into_iter().flatten();
                let is_meant = |(labels, left): &&NamePlace| wanted.matches_names_below(labels, *left);
                match names().find(is_meant) {
                    Some(name) => (Some(name_text(name)), true),
                    None => (names().next().map(name_text), false),
                }
            }
        };
        let found = NameFinding { wanted: wanted.clone(), asked, matched };
        if matched { Ok(found) } else { Err(found) }
    }
}

impl NameFinding {
    /// Of what no name opens.
    pub(super) fn of_none(wanted: &DomainPattern) -> Self {
        Self { wanted: wanted.clone(), asked: None, matched: false }
    }
}

impl KnownAddress {
    /// Of what a pod has learnt, with the time for which it counts: what may be an address of a name.
    /// `patterns`: those of the pod's rules. A name of which they have a longer part is kept under that part.
    pub fn of<'a>(
        name: &DomainName,
        learnt: &[(IpAddr, NamePlace, u64)],
        patterns: impl IntoIterator<Item = &'a DomainPattern>,
    ) -> Vec<Self> {
        let labels: Vec<&[u8]> = name.labels().collect();
        let ends = |suffix: &[&[u8]]| labels.ends_with(suffix);
        let of_pattern = |pattern: &DomainPattern| {
            let own: Vec<&[u8]> = pattern.labels().collect();
            (0..own.len()).map(|at| &own[at..]).find(|suffix| ends(suffix)).map_or(0, <[_]>::len)
        };
        let of_place = |(suffix, left): &NamePlace| {
            let suffix: Vec<&[u8]> = suffix.iter().map(|label| &**label).collect();
            let before = labels.len().checked_sub(suffix.len()).filter(|_| ends(&suffix));
            before.filter(|before| (*before).min(2) == *left as usize).map(|_| suffix.len())
        };
        let deepest = patterns.into_iter().map(of_pattern);
        let deepest = deepest.chain(learnt.iter().filter_map(|(_, place, _)| of_place(place))).max();
        let known =
            learnt.iter().filter(|(_, place, _)| of_place(place).is_some_and(|of| Some(of) == deepest));
        let known = known.map(|(address, place, seconds)| Self {
            address: *address,
            name: name_text(place),
            seconds_left: *seconds,
        });
        known.collect()
    }
}

/// An address of each family that no pod, no node and no block of a rule has, but for blocks of all
/// addresses.
pub(crate) fn addresses(cluster: &Cluster) -> Vec<IpAddr> {
    let blocks = blocks(cluster);
    // Of documentation (RFC 5737, RFC 3849); where a rule has these, what comes behind a block of a rule.
    let first: [IpAddr; 2] =
        [Ipv4Addr::new(203, 0, 113, 1).into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()];
    let behind = || blocks.iter().filter_map(|block| next(block.broadcast()));
    let is_free = |address: &IpAddr| {
        !blocks.iter().any(|block| block.contains(address))
            && !cluster.pods.values().any(|pod| pod.addresses.contains(address))
            && !cluster.nodes.values().any(|node| node.addresses.contains(address))
    };
    first
        .into_iter()
        .map(|first| {
            let candidates = std::iter::once(first).chain(behind());
            let mut of_family = candidates.filter(|address| address.is_ipv4() == first.is_ipv4());
            of_family.find(is_free).unwrap_or(first)
        })
        .collect()
}

fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => u32::from(v4).checked_add(1).map(|next| Ipv4Addr::from(next).into()),
        IpAddr::V6(v6) => u128::from(v6).checked_add(1).map(|next| Ipv6Addr::from(next).into()),
    }
}

/// Those of egress rules, but for blocks of all addresses.
fn blocks(cluster: &Cluster) -> BTreeSet<IpNet> {
    let policies = cluster.policies.values().map(|policy| PolicyRef::Namespaced(policy));
    let policies = policies.chain(cluster.cluster_policies.values().map(|policy| PolicyRef::Cluster(policy)));
    let policies = policies.chain(cluster.calico.policies().map(PolicyRef::Calico));
    let rules = policies.flat_map(|policy| policy.rules(Direction::Egress));
    let mut blocks = BTreeSet::new();
    for rule in rules {
        match &rule.peers {
            Peers::Any => {}
            Peers::Listed(peers) => {
                for peer in peers {
                    if let Peer::Block(block) = peer {
                        blocks.insert(block.cidr);
                        blocks.extend(&block.except);
                    }
                }
            }
            Peers::Calico(ends) => {
                blocks.extend(ends.peer.nets.iter().flatten());
                blocks.extend(&ends.peer.not_nets);
            }
        }
    }
    blocks.retain(|block| block.prefix_len() > 0);
    blocks
}

impl fmt::Display for NameFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wanted, asked, matched } = self;
        write!(f, "wants an address that the pod has learnt for {wanted}")?;
        asked.as_ref().map_or(Ok(()), |asked| {
            if *matched { write!(f, ", as for {asked}") } else { write!(f, ", not for {asked}") }
        })
    }
}

impl fmt::Display for ShownAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Of(name) => write!(f, "an address of {name}"),
        }
    }
}
