//! Which rules a connection has met: what the tables say in bits, told by names again.
//!
//! In: one side of a connection, by the pod's own addresses, ports and policies. Out: the policies that were asked, each with
//! the rules that match. It is the tables' own classification, so it agrees with the verdict, and it walks over the
//! policies of one pod alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use podgate_common::{Direction, Protocol, ServiceKey};

use super::{Incremental, PortRange, rules};
use crate::compiler::{Backend, CompiledTables, Signature, Step, Term};
use crate::model::{
    Action, Cluster, ClusterNetworkPolicy, ClusterPolicyName, Name, NamedPort, NetworkPolicy, ObjectName, Pod,
};

/// One side of a connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionQuery<'a> {
    pub pod: &'a Pod,
    pub direction: Direction,
    pub peer: IpAddr,
    /// `None`: one without ports.
    pub protocol: Option<Protocol>,
    /// Of the server.
    pub port: u16,
    /// The peer is a service: any of its backends.
    pub is_service: bool,
}

/// A policy of either kind; printed as `namespace/name`, or as in `ClusterNetworkPolicy base`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyName {
    Namespaced(ObjectName),
    Cluster(ClusterPolicyName),
}

/// A policy that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyMatch {
    pub policy: PolicyName,
    pub audit: bool,
    /// The rules that match; of a ClusterNetworkPolicy the one that ended its tier.
    pub matched: BTreeSet<usize>,
}

/// The other end as the tables see it.
struct PeerProperties<'a> {
    signature: &'a Signature,
    ranges: &'a BTreeSet<PortRange>,
}

/// What evaluates connections: tables, and what they were made of. A copy costs nothing, and stays as it is.
#[derive(Clone, Debug)]
pub struct PolicySnapshot {
    cluster: Cluster,
    tables: CompiledTables,
    named_ports: Arc<BTreeMap<NamedPort, usize>>,
}

impl Incremental {
    /// What evaluates connections after the last step.
    pub fn policy_snapshot(&self) -> PolicySnapshot {
        let Self { cluster, tables, named_ports, .. } = self;
        PolicySnapshot { cluster: cluster.clone(), tables: tables.clone(), named_ports: named_ports.clone() }
    }
}

impl PolicySnapshot {
    /// Whether a client's packets to this address and port go to a service.
    pub fn is_service(&self, address: IpAddr, protocol: Option<Protocol>, port: u16) -> bool {
        let Some(protocol) = protocol else { return false };
        let mut key = ServiceKey::new(address.into(), protocol, port);
        let frontends = &self.tables.services.frontends;
        if frontends.contains_key(&key) {
            return true;
        }
        key.address = key.address.unspecified();
        frontends.contains_key(&key)
            && self.cluster.nodes.values().any(|node| node.addresses.contains(&address))
    }

    pub const fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The policies that were asked about a connection: those enforced, and those in audit mode as if they were.
    pub fn matches(&self, query: &ConnectionQuery<'_>) -> Vec<PolicyMatch> {
        let ends = self.ends(query);
        let named_ports = self.named_ports.keys().collect();
        let compiler = rules::Compiler::new(&self.cluster, named_ports);
        let matches = Policies::of(&self.cluster, &compiler, query);
        let mut all = matches.walk(&compiler, query, &ends, |audit| !audit);
        if matches.has_audit() {
            let audited = matches.walk(&compiler, query, &ends, |_| true);
            all.extend(audited.into_iter().filter(|matches| matches.audit));
        }
        all
    }

    fn ends(&self, query: &ConnectionQuery<'_>) -> Vec<PeerProperties<'_>> {
        let tables = &self.tables;
        let end = |identity: usize, class: usize| PeerProperties {
            signature: &tables.identities.signatures[&identity],
            ranges: &tables.classes.signatures[class],
        };
        if let (true, Some(protocol)) = (query.is_service, query.protocol) {
            let mut key = ServiceKey::new(query.peer.into(), protocol, query.port);
            let mut place = tables.services.frontends.get(&key);
            if place.is_none() {
                key.address = key.address.unspecified();
                place = tables.services.frontends.get(&key);
            }
            let backends = place.and_then(|place| tables.services.backends.get(place));
            let itself =
                || end(tables.identities.identity(query.peer), tables.classes.class(protocol, query.port));
            let ends =
                backends.into_iter().flat_map(|backends| backends.iter()).map(|backend| match *backend {
                    Backend::Node { identity, class }
                    | Backend::Local { identity, class, .. }
                    | Backend::Elsewhere { identity, class } => end(identity, class),
                    Backend::Untranslated => itself(),
                });
            return ends.collect();
        }
        let class = query.protocol.map_or(0, |protocol| tables.classes.class(protocol, query.port));
        vec![end(tables.identities.identity(query.peer), class)]
    }
}

/// The policies for one side, in the order in which they are asked.
struct Policies<'a> {
    admin: Vec<&'a ClusterNetworkPolicy>,
    policies: Vec<(&'a NetworkPolicy, bool)>,
    baseline: Vec<&'a ClusterNetworkPolicy>,
}

impl<'a> Policies<'a> {
    fn of(cluster: &'a Cluster, compiler: &rules::Compiler<'a>, query: &ConnectionQuery<'_>) -> Self {
        let whole_namespace = cluster.is_in_audit(&query.pod.name.namespace);
        let (admin, baseline) = compiler.tiers_of(query.pod, query.direction);
        let policies = cluster.policies_selecting(query.pod, query.direction);
        Self { admin, policies: policies.map(|it| (it, whole_namespace || it.audit)).collect(), baseline }
    }

    fn has_audit(&self) -> bool {
        self.policies.iter().any(|(_, audit)| *audit)
            || self.admin.iter().chain(&self.baseline).any(|policy| policy.audit)
    }

    /// Asks those of them that take part, in their order, about each end.
    fn walk(
        &self,
        compiler: &rules::Compiler<'a>,
        query: &ConnectionQuery<'_>,
        ends: &[PeerProperties<'_>],
        takes_part: impl Fn(bool) -> bool,
    ) -> Vec<PolicyMatch> {
        let mut matches: Vec<PolicyMatch> = Vec::new();
        let mut open: Vec<&PeerProperties<'_>> = ends.iter().collect();
        let tier = |policies: &[&'a ClusterNetworkPolicy],
                    open: &mut Vec<&PeerProperties<'_>>,
                    matches: &mut Vec<PolicyMatch>| {
            let mut passed = Vec::new();
            for policy in policies.iter().filter(|policy| takes_part(policy.audit)) {
                let mut matched = BTreeSet::new();
                for (index, rule) in policy.rules(query.direction).iter().enumerate() {
                    let step = compiler.step_of(rule, query.pod, query.direction);
                    let (hit, rest) =
                        open.iter().partition::<Vec<&PeerProperties<'_>>, _>(|end| step.meets(end));
                    if !hit.is_empty() {
                        matched.insert(index);
                    }
                    if rule.action == Action::Pass {
                        passed.extend(hit);
                    }
                    *open = rest;
                }
                if !matched.is_empty() {
                    let policy_name = PolicyName::Cluster(policy.name.clone());
                    matches.push(PolicyMatch { policy: policy_name, audit: policy.audit, matched });
                }
            }
            open.extend(passed);
        };
        tier(&self.admin, &mut open, &mut matches);
        let mut isolated = false;
        for (policy, audit) in self.policies.iter().filter(|(_, audit)| takes_part(*audit)) {
            isolated = true;
            if open.is_empty() {
                break;
            }
            let matched = (0..).zip(policy.rules(query.direction).unwrap_or_default()).filter(|(_, rule)| {
                let terms = compiler.terms_of(rule, &policy.name.namespace, query.pod, query.direction);
                terms.iter().any(|term| open.iter().any(|end| term.meets(end)))
            });
            matches.push(PolicyMatch {
                policy: PolicyName::Namespaced(policy.name.clone()),
                audit: *audit,
                matched: matched.map(|(index, _)| index).collect(),
            });
        }
        if !isolated {
            tier(&self.baseline, &mut open, &mut matches);
        }
        matches
    }
}

impl Term {
    fn meets(&self, end: &PeerProperties<'_>) -> bool {
        self.atoms.is_subset(end.signature) && self.ports.is_none_or(|range| end.ranges.contains(&range))
    }
}

impl Step {
    fn meets(&self, end: &PeerProperties<'_>) -> bool {
        let Self { action: _, peers, ports } = self;
        peers.as_ref().is_none_or(|peers| !peers.is_disjoint(end.signature))
            && ports.as_ref().is_none_or(|ports| {
                ports.iter().any(|port| {
                    end.ranges.contains(&port.range)
                        && port.named.as_ref().is_none_or(|named| end.signature.contains(named))
                })
            })
    }
}

impl PolicyName {
    /// `None`: it is in none.
    pub const fn namespace(&self) -> Option<&Name> {
        match self {
            Self::Namespaced(name) => Some(&name.namespace),
            Self::Cluster(_) => None,
        }
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespaced(name) => name.fmt(f),
            Self::Cluster(name) => name.fmt(f),
        }
    }
}
