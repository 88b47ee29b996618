//! NetworkPolicy (networking.k8s.io/v1) after defaults and validation.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use podgate_common::{Direction, Protocol, RuleProtocol};

use super::{CalicoEnds, DomainPattern, Name, ObjectName, Pod, PortRange, Selector};

/// The annotation of a NetworkPolicy with names of the DNS that its pods may reach, beside its egress rules.
pub const EGRESS_DOMAINS: &str = "podgate.io/egress-domains";

/// One NetworkPolicy. `None` for a direction: `policyTypes` does not name it, the policy does not isolate it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Namespace and name: of another kind than Kubernetes' own, [`NetworkPolicyKind::policy_name`].
    pub name: ObjectName,
    /// Which pods of the policy's own namespace it selects.
    pub subject: Selector,
    /// Rules for connections to the pods. `None`: it does not isolate them for ingress.
    pub ingress: Option<Vec<Rule>>,
    /// Rules for connections from the pods, then one for each name in [`EGRESS_DOMAINS`]. `None`: it does not
    /// isolate them for egress.
    pub egress: Option<Vec<Rule>>,
    /// What it would deny is reported, and passes. Its namespace may say so, too: see
    /// [`crate::policy_walk::PolicyWalk::audits`].
    pub audit: bool,
}

/// Kinds of policies of a namespace that isolate and allow as a NetworkPolicy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NetworkPolicyKind {
    /// Kubernetes' own.
    NetworkPolicy,
    /// Of AWS (`networking.k8s.aws`): its peers may be names of the DNS.
    ApplicationNetworkPolicy,
    /// Of GKE (`networking.gke.io`): its peers are names of the DNS.
    FqdnNetworkPolicy,
}

impl NetworkPolicyKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::NetworkPolicy, Self::ApplicationNetworkPolicy, Self::FqdnNetworkPolicy];

    /// As objects have it.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ApplicationNetworkPolicy => "ApplicationNetworkPolicy",
            Self::FqdnNetworkPolicy => "FQDNNetworkPolicy",
        }
    }

    /// What an object of this kind is called among all of its namespace: as it is, or as `KIND/NAME`. No
    /// object has a name with a slash.
    pub fn policy_name(self, ObjectName { namespace, name }: ObjectName) -> ObjectName {
        let name = match self {
            Self::NetworkPolicy => name,
            Self::ApplicationNetworkPolicy | Self::FqdnNetworkPolicy => {
                format!("{}/{name}", self.kind()).into()
            }
        };
        ObjectName { namespace, name }
    }

    /// The inverse: the kind, and what the object is called.
    pub fn of(policy: &ObjectName) -> (Self, ObjectName) {
        let of_kind = |kind: Self| {
            let name = policy.name.strip_prefix(kind.kind())?.strip_prefix('/')?;
            Some((kind, ObjectName::new(policy.namespace.clone(), name)))
        };
        Self::ALL.into_iter().find_map(of_kind).unwrap_or_else(|| (Self::NetworkPolicy, policy.clone()))
    }
}

impl NetworkPolicy {
    /// Its rules for a direction; `None` when it does not isolate it.
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Egress => self.egress.as_deref(),
            Direction::Ingress => self.ingress.as_deref(),
        }
    }

    /// The annotation that a rule comes from; `None`: it stands in `spec`, where no peer of a NetworkPolicy
    /// of Kubernetes' own is a name.
    pub fn annotation(&self, direction: Direction, index: usize) -> Option<&'static str> {
        if NetworkPolicyKind::of(&self.name).0 != NetworkPolicyKind::NetworkPolicy {
            return None;
        }
        let rule = self.rules(direction)?.get(index)?;
        let Peers::Listed(peers) = &rule.peers else { return None };
        peers.iter().any(|peer| matches!(peer, Peer::Name(_))).then_some(EGRESS_DOMAINS)
    }

    /// Whether it selects a pod.
    pub fn selects(&self, pod: &Pod) -> bool {
        !pod.host_network && self.name.namespace == pod.name.namespace && self.subject.matches(&pod.labels)
    }
}

/// One rule: what matches a peer *and* a port. A NetworkPolicy allows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// Who may be at the other end.
    pub peers: Peers,
    /// Ports of the server.
    pub ports: Ports,
}

impl Rule {
    /// The Service of which the other end has to be an endpoint, in a rule of Calico's.
    pub fn service(&self) -> Option<&ObjectName> {
        match &self.peers {
            Peers::Any | Peers::Listed(_) => None,
            Peers::Calico(ends) => ends.peer.service.as_ref(),
        }
    }

    /// Names of the DNS among its peers.
    pub fn names(&self) -> impl Iterator<Item = &DomainPattern> {
        let peers: &[Peer] = match &self.peers {
            Peers::Listed(peers) => peers,
            Peers::Any | Peers::Calico(_) => &[],
        };
        peers.iter().filter_map(|peer| match peer {
            Peer::Name(name) => Some(name),
            Peer::Pods { .. } | Peer::Block(_) | Peer::Nodes(_) | Peer::Nothing => None,
        })
    }

    /// Whether it lists a port by name.
    pub(crate) fn has_named_port(&self) -> bool {
        let is_named = |port: &PortRule| matches!(port, PortRule::Named(..));
        match &self.ports {
            Ports::Any => false,
            Ports::Listed(ports) => ports.iter().any(is_named),
            Ports::Except { listed, except } => listed.iter().flatten().chain(except).any(is_named),
        }
    }

    /// How many peers, networks of peers and ports it lists.
    pub fn size(&self) -> usize {
        let peers = match &self.peers {
            Peers::Any => 0,
            Peers::Listed(peers) => peers.iter().map(Peer::size).sum(),
            Peers::Calico(ends) => ends.size(),
        };
        let ports = match &self.ports {
            Ports::Any => 0,
            Ports::Listed(ports) => ports.len(),
            Ports::Except { listed, except } => listed.iter().flatten().count() + except.len(),
        };
        1 + peers + ports
    }
}

/// What a peer distinguishes addresses by.
pub(super) enum PeerTerms<'a> {
    Block(&'a IpBlock),
    /// Of namespaces, and of what is in them.
    Selectors(Option<&'a Selector>, &'a Selector),
    Nothing,
}

impl Peer {
    pub(super) const fn terms(&self) -> PeerTerms<'_> {
        match self {
            Self::Pods { namespaces, pods } => PeerTerms::Selectors(namespaces.as_ref(), pods),
            Self::Block(block) => PeerTerms::Block(block),
            Self::Nodes(nodes) => PeerTerms::Selectors(None, nodes),
            Self::Name(_) | Self::Nothing => PeerTerms::Nothing,
        }
    }

    fn size(&self) -> usize {
        match self.terms() {
            PeerTerms::Block(block) => 1 + block.except.len(),
            PeerTerms::Selectors(..) | PeerTerms::Nothing => 1,
        }
    }
}

/// `from` or `to`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peers {
    /// Missing or empty: every address.
    Any,
    /// Any of these. None, if the list is empty.
    Listed(Vec<Peer>),
    /// Of a rule of Calico's: what it wants of both ends.
    Calico(Box<CalicoEnds>),
}

/// One entry of `from` or `to`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// Live pods that are not on the host network. `namespaces: None` is the policy's own namespace.
    Pods {
        /// By the labels of the namespace.
        namespaces: Option<Selector>,
        /// By the labels of the pod.
        pods: Selector,
    },
    /// Addresses in a block.
    Block(IpBlock),
    /// The addresses of nodes with such labels. Only ClusterNetworkPolicies have it, for egress.
    Nodes(Selector),
    /// Addresses that the pod has learnt for a name of the DNS. Only for egress.
    Name(DomainPattern),
    /// Not understood: matches nothing.
    Nothing,
}

/// `ipBlock`: the addresses of `cidr` that are in none of `except`. Networks are masked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpBlock {
    /// The block.
    pub cidr: IpNet,
    /// Blocks in it that do not match.
    pub except: BTreeSet<IpNet>,
}

impl IpBlock {
    /// Whether the address is in the block and in no exception.
    pub fn contains(&self, address: &IpAddr) -> bool {
        self.cidr.contains(address) && !self.except.iter().any(|except| except.contains(address))
    }
}

/// `ports` of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ports {
    /// Missing or empty: every port of every protocol, those without ports too.
    Any,
    /// Any of these. None, if the list is empty.
    Listed(Vec<PortRule>),
    /// Of a rule of Calico's: those listed, but for some.
    Except {
        /// `None`: every port of every protocol, those without ports too.
        listed: Option<Vec<PortRule>>,
        /// Not these.
        except: Vec<PortRule>,
    },
}

impl PortRule {
    /// The ports that it stands for whoever the destination is; `None`: a name, or nothing.
    pub fn range(&self) -> Option<PortRange> {
        match self {
            Self::Protocol(protocol) => Some(PortRange::all(*protocol)),
            Self::Range { protocol, first, last } => Some(PortRange::new(*protocol, *first, *last)),
            Self::Number(number) => Some(PortRange::of_number(*number)),
            Self::Icmp { protocol, kind, code } => {
                let [first, last] = [code.unwrap_or(0), code.unwrap_or(u8::MAX)];
                let place = |code| u16::from_be_bytes([*kind, code]);
                Some(PortRange::new(*protocol, place(first), place(last)))
            }
            Self::Named(..) | Self::Nothing => None,
        }
    }
}

/// One entry of `ports`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortRule {
    /// Protocol alone: all its ports.
    Protocol(Protocol),
    /// `port` to `endPort`, both included; `first == last` for a single port.
    Range {
        /// The protocol of all of them.
        protocol: Protocol,
        /// The lowest.
        first: u16,
        /// The highest.
        last: u16,
    },
    /// A name, resolved on the destination pod; of any protocol where none is given, as in a
    /// ClusterNetworkPolicy.
    Named(Option<Protocol>, Name),
    /// Everything of a protocol without ports, by its number.
    Number(u8),
    /// Messages of ICMP (`protocol`: [`RuleProtocol::Icmp`] or [`RuleProtocol::IcmpV6`]) of one type, and of
    /// one code if there is one.
    Icmp {
        /// Which ICMP.
        protocol: RuleProtocol,
        /// The type.
        kind: u8,
        /// `None`: any.
        code: Option<u8>,
    },
    /// Not understood: matches nothing.
    Nothing,
}
