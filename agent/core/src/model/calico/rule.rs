//! The two ends of a rule of Calico's: what it wants of the peer, and of the pod itself.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::LabelExpression;
use crate::model::{IpBlock, ObjectName};

/// What a rule wants of both ends: all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CalicoEnds {
    /// Of the other end: `source` of an ingress rule, `destination` of an egress rule.
    pub peer: EntityMatch,
    /// Of the pod's own end.
    pub own: EntityMatch,
    /// `ipVersion`; `None`: both.
    pub family: Option<IpFamily>,
}

/// What a rule wants of one end: all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityMatch {
    /// A pod or a network of a set with such labels; with the namespaces and service accounts that the rule
    /// names.
    pub selector: Option<LabelExpression>,
    /// Neither a pod nor a network of a set with such labels.
    pub not_selector: Option<LabelExpression>,
    /// An address in one of these. An empty list holds none.
    pub nets: Option<BTreeSet<IpNet>>,
    /// An address in none of these.
    pub not_nets: BTreeSet<IpNet>,
    /// An endpoint of this Service ([`ServiceEndpoints`](crate::model::ServiceEndpoints)): of egress by its
    /// address and port, of ingress by its address. The pod's own end never has one.
    pub service: Option<ObjectName>,
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl CalicoEnds {
    /// How many selectors, networks and services it lists.
    pub fn size(&self) -> usize {
        let Self { peer, own, family: _ } = self;
        peer.size() + own.size()
    }
}

impl EntityMatch {
    /// Whether it wants nothing.
    pub fn is_any(&self) -> bool {
        let Self { selector, not_selector, nets, not_nets, service } = self;
        selector.is_none()
            && not_selector.is_none()
            && nets.is_none()
            && not_nets.is_empty()
            && service.is_none()
    }

    /// Its selectors.
    pub fn selectors(&self) -> impl Iterator<Item = &LabelExpression> {
        self.selector.iter().chain(&self.not_selector)
    }

    /// Its lists of networks.
    pub fn networks(&self) -> impl Iterator<Item = &BTreeSet<IpNet>> {
        self.nets.iter().chain(Some(&self.not_nets).filter(|nets| !nets.is_empty()))
    }

    fn size(&self) -> usize {
        let services = usize::from(self.service.is_some());
        self.selectors().count() + self.networks().map(BTreeSet::len).sum::<usize>() + services
    }
}

impl IpFamily {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Of an address.
    pub const fn of(address: &IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// All its addresses.
    pub fn block(self) -> IpBlock {
        let cidr = match self {
            Self::V4 => IpNet::V4(Ipv4Net::default()),
            Self::V6 => IpNet::V6(Ipv6Net::default()),
        };
        IpBlock { cidr, except: BTreeSet::new() }
    }
}

impl fmt::Display for IpFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}
