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
use crate::compiler::{Backend, Signature, Step, Tables, Term};
use crate::model::{
    Action, Cluster, ClusterNetworkPolicy, ClusterPolicyName, Name, NamedPort, NetworkPolicy, ObjectName, Pod,
};

/// One side of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Met<'a> {
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
pub struct Asked {
    pub policy: PolicyName,
    pub audit: bool,
    /// The rules that match; of a ClusterNetworkPolicy the one that ended its tier.
    pub matched: BTreeSet<usize>,
}

/// The other end as the tables see it.
struct End<'a> {
    signature: &'a Signature,
    ranges: &'a BTreeSet<PortRange>,
}

/// What judges connections: tables, and what they were made of. A copy costs nothing, and stays as it is.
#[derive(Clone, Debug)]
pub struct Judgement {
    cluster: Cluster,
    tables: Tables,
    named_ports: Arc<BTreeMap<NamedPort, usize>>,
}

impl Incremental {
    /// What judges connections after the last step.
    pub fn judgement(&self) -> Judgement {
        let Self { cluster, tables, named_ports, .. } = self;
        Judgement { cluster: cluster.clone(), tables: tables.clone(), named_ports: named_ports.clone() }
    }
}

impl Judgement {
    /// Whether a client's packets to this address and port go to a service.
    pub fn is_service(&self, address: IpAddr, protocol: Option<Protocol>, port: u16) -> bool {
        let Some(protocol) = protocol else { return false };
        let mut key = ServiceKey::new(address.into(), protocol, port);
        let fronts = &self.tables.services.fronts;
        if fronts.contains_key(&key) {
            return true;
        }
        key.address = key.address.unspecified();
        fronts.contains_key(&key) && self.cluster.nodes.values().any(|node| node.addresses.contains(&address))
    }

    pub const fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The policies that were asked about a connection: those enforced, and those in audit mode as if they were.
    pub fn asked(&self, met: &Met<'_>) -> Vec<Asked> {
        let ends = self.ends(met);
        let named_ports = self.named_ports.keys().collect();
        let compiler = rules::Compiler::new(&self.cluster, named_ports);
        let asked = Policies::of(&self.cluster, &compiler, met);
        let mut all = asked.walk(&compiler, met, &ends, |audit| !audit);
        if asked.has_audit() {
            let audited = asked.walk(&compiler, met, &ends, |_| true);
            all.extend(audited.into_iter().filter(|asked| asked.audit));
        }
        all
    }

    fn ends(&self, met: &Met<'_>) -> Vec<End<'_>> {
        let tables = &self.tables;
        let end = |identity: usize, class: usize| End {
            signature: &tables.identities.signatures[&identity],
            ranges: &tables.classes.signatures[class],
        };
        if let (true, Some(protocol)) = (met.is_service, met.protocol) {
            let mut key = ServiceKey::new(met.peer.into(), protocol, met.port);
            let mut place = tables.services.fronts.get(&key);
            if place.is_none() {
                key.address = key.address.unspecified();
                place = tables.services.fronts.get(&key);
            }
            let behind = place.and_then(|place| tables.services.behind.get(place));
            let itself =
                || end(tables.identities.identity(met.peer), tables.classes.class(protocol, met.port));
            let ends = behind.into_iter().flat_map(|behind| behind.iter()).map(|backend| match *backend {
                Backend::Node { identity, class }
                | Backend::Local { identity, class, .. }
                | Backend::Elsewhere { identity, class } => end(identity, class),
                Backend::Untranslated => itself(),
            });
            return ends.collect();
        }
        let class = met.protocol.map_or(0, |protocol| tables.classes.class(protocol, met.port));
        vec![end(tables.identities.identity(met.peer), class)]
    }
}

/// The policies for one side, in the order in which they are asked.
struct Policies<'a> {
    admin: Vec<&'a ClusterNetworkPolicy>,
    policies: Vec<(&'a NetworkPolicy, bool)>,
    baseline: Vec<&'a ClusterNetworkPolicy>,
}

impl<'a> Policies<'a> {
    fn of(cluster: &'a Cluster, compiler: &rules::Compiler<'a>, met: &Met<'_>) -> Self {
        let whole_namespace = cluster.is_in_audit(&met.pod.name.namespace);
        let (admin, baseline) = compiler.tiers_of(met.pod, met.direction);
        let policies = cluster.selecting(met.pod, met.direction);
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
        met: &Met<'_>,
        ends: &[End<'_>],
        takes_part: impl Fn(bool) -> bool,
    ) -> Vec<Asked> {
        let mut asked: Vec<Asked> = Vec::new();
        let mut open: Vec<&End<'_>> = ends.iter().collect();
        let tier =
            |policies: &[&'a ClusterNetworkPolicy], open: &mut Vec<&End<'_>>, asked: &mut Vec<Asked>| {
                let mut passed = Vec::new();
                for policy in policies.iter().filter(|policy| takes_part(policy.audit)) {
                    let mut matched = BTreeSet::new();
                    for (index, rule) in policy.rules(met.direction).iter().enumerate() {
                        let step = compiler.step_of(rule, met.pod, met.direction);
                        let (hit, rest) = open.iter().partition::<Vec<&End<'_>>, _>(|end| step.meets(end));
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
                        asked.push(Asked { policy: policy_name, audit: policy.audit, matched });
                    }
                }
                open.extend(passed);
            };
        tier(&self.admin, &mut open, &mut asked);
        let mut isolated = false;
        for (policy, audit) in self.policies.iter().filter(|(_, audit)| takes_part(*audit)) {
            isolated = true;
            if open.is_empty() {
                break;
            }
            let matched = (0..).zip(policy.rules(met.direction).unwrap_or_default()).filter(|(_, rule)| {
                let terms = compiler.terms_of(rule, &policy.name.namespace, met.pod, met.direction);
                terms.iter().any(|term| open.iter().any(|end| term.meets(end)))
            });
            asked.push(Asked {
                policy: PolicyName::Namespaced(policy.name.clone()),
                audit: *audit,
                matched: matched.map(|(index, _)| index).collect(),
            });
        }
        if !isolated {
            tier(&self.baseline, &mut open, &mut asked);
        }
        asked
    }
}

impl Term {
    fn meets(&self, end: &End<'_>) -> bool {
        self.atoms.is_subset(end.signature) && self.ports.is_none_or(|range| end.ranges.contains(&range))
    }
}

impl Step {
    fn meets(&self, end: &End<'_>) -> bool {
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
