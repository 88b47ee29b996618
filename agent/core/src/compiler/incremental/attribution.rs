//! Which rules a connection has met: what the tables say in bits, in names again.
//!
//! In: one side of a connection, by the pod's own addresses, ports and policies. Out: the policies that were
//! asked, each with the rules that match. It is the tables' own classification, so it agrees with the
//! verdict, and it walks over the policies of one pod alone, once for each identity and class (`known`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use podgate_common::{Direction, Protocol, ServiceKey};

use super::{
    Incremental,
    known::{self, Answers, Known, KnownQuestion, QuestionEnd, RulesOf, WorkLimit},
    rules,
};
use crate::{
    compiler::{Backend, Clause, ClausePorts, CompiledTables, PortSignature, Shared, Signature},
    model::{
        Action, Cluster, ClusterNetworkPolicy, ClusterPolicyName, Name, NamedPort, NetworkPolicy, ObjectName,
        Pod, PortSet, Rule,
    },
};

/// One side of a connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionQuery<'a> {
    /// The pod whose side of the connection it is.
    pub pod: &'a Pod,
    /// Ingress: the pod is the server. Egress: it is the client.
    pub direction: Direction,
    /// The address of the other end.
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
    /// A NetworkPolicy.
    Namespaced(ObjectName),
    /// A cluster-wide policy.
    Cluster(ClusterPolicyName),
}

/// A policy that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyMatch {
    /// The policy that was asked.
    pub policy: PolicyName,
    /// Whether it only reports what it would deny.
    pub audit: bool,
    /// The rules that match; of a ClusterNetworkPolicy the one that ended its tier.
    pub matched: BTreeSet<usize>,
}

/// The other end as the tables see it.
struct PeerProperties<'a> {
    signature: &'a Signature,
    ports: &'a PortSignature,
}

impl PeerProperties<'_> {
    /// Whether its port lies in a set.
    fn has(&self, ports: &Shared<PortSet>) -> bool {
        self.ports.binary_search(ports).is_ok()
    }
}

/// What evaluates connections: tables, and what they were made of. A copy costs nothing, and stays as it is.
#[derive(Clone, Debug)]
pub struct PolicySnapshot {
    cluster: Cluster,
    tables: CompiledTables,
    named_ports: Arc<BTreeMap<NamedPort, usize>>,
    known: Known,
}

impl Incremental {
    /// What evaluates connections after the last step.
    pub fn policy_snapshot(&self) -> PolicySnapshot {
        let Self { cluster, tables, named_ports, known, .. } = self;
        PolicySnapshot {
            cluster: cluster.clone(),
            tables: tables.clone(),
            named_ports: named_ports.clone(),
            known: known.clone(),
        }
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

    /// The cluster that the tables were made of.
    pub const fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The policies that were asked about a connection: those enforced, and those in audit mode as if they
    /// were. `None`: there is no work left to find out.
    pub fn matches(&self, query: &ConnectionQuery<'_>, work: &mut WorkLimit) -> Option<Arc<[PolicyMatch]>> {
        if !work.is_left() {
            return None;
        }
        let question = self.question(query);
        let mut known = self.known.lock();
        if let Some(matches) = known.get(&question) {
            work.spend(known::weight(matches));
            return Some(matches.clone());
        }
        let ends = self.ends(query);
        let compiler = rules::Compiler::new(&self.cluster, &self.named_ports);
        let matches = Policies::of(&self.cluster, &compiler, query);
        work.spend(self.cluster.policies_in(&query.pod.name.namespace).count());
        let mut rules = RuleAnswers {
            compiler: &compiler,
            query,
            known: &mut known,
            closed: self.is_closed(query),
            work,
        };
        let mut all = matches.walk(&mut rules, &ends, |audit| !audit);
        if matches.has_audit() {
            let audited = matches.walk(&mut rules, &ends, |_| true);
            all.extend(audited.into_iter().filter(|matches| matches.audit));
        }
        let all: Arc<[PolicyMatch]> = all.into();
        known.put(question, all.clone());
        Some(all)
    }

    fn question(&self, query: &ConnectionQuery<'_>) -> KnownQuestion {
        let end = match self.place(query) {
            Some(place) => QuestionEnd::Service(place),
            None => QuestionEnd::Address {
                identity: self.tables.identities.identity(query.peer),
                class: self.class(query),
            },
        };
        KnownQuestion { pod: query.pod.name.clone(), direction: query.direction, end }
    }

    fn is_closed(&self, query: &ConnectionQuery<'_>) -> bool {
        let subject = self.tables.subjects.get(&query.pod.name).copied().unwrap_or_default();
        self.tables.closed.contains(match query.direction {
            Direction::Ingress => &subject.ingress,
            Direction::Egress => &subject.egress,
        })
    }

    fn class(&self, query: &ConnectionQuery<'_>) -> usize {
        query.protocol.map_or(0, |protocol| self.tables.classes.class(protocol, query.port))
    }

    /// What stands behind the service that the peer is; `None`: it is none.
    fn place(&self, query: &ConnectionQuery<'_>) -> Option<Option<usize>> {
        let (true, Some(protocol)) = (query.is_service, query.protocol) else { return None };
        let frontends = &self.tables.services.frontends;
        let mut key = ServiceKey::new(query.peer.into(), protocol, query.port);
        let own = frontends.get(&key).copied();
        key.address = key.address.unspecified();
        Some(own.or_else(|| frontends.get(&key).copied()))
    }

    fn ends(&self, query: &ConnectionQuery<'_>) -> Vec<PeerProperties<'_>> {
        let tables = &self.tables;
        let end = |identity: usize, class: usize| PeerProperties {
            signature: &tables.identities.signatures[&identity],
            ports: &tables.classes.signatures[class],
        };
        let Some(place) = self.place(query) else {
            return vec![end(tables.identities.identity(query.peer), self.class(query))];
        };
        let backends = place.and_then(|place| tables.services.backends.get(&place));
        let itself = || end(tables.identities.identity(query.peer), self.class(query));
        let ends = backends.into_iter().flat_map(|backends| backends.iter()).map(|backend| match *backend {
            Backend::Node { identity, class }
            | Backend::Local { identity, class, .. }
            | Backend::Elsewhere { identity, class } => end(identity, class),
            Backend::Untranslated => itself(),
        });
        ends.collect()
    }
}

/// The rules of policies, for one side.
struct RuleAnswers<'a, 'c> {
    compiler: &'a rules::Compiler<'c>,
    query: &'a ConnectionQuery<'a>,
    known: &'a mut Answers,
    /// NetworkPolicies allow nothing.
    closed: bool,
    work: &'a mut WorkLimit,
}

impl RuleAnswers<'_, '_> {
    fn of(
        &mut self,
        policy: PolicyName,
        rules: &mut dyn ExactSizeIterator<Item = &Rule>,
    ) -> Arc<[Shared<Clause>]> {
        let ConnectionQuery { pod, direction, .. } = *self.query;
        let namespace = policy.namespace().cloned();
        let own_ports = if direction == Direction::Ingress { pod.ports.clone() } else { Arc::default() };
        let key = RulesOf { policy, direction, own_ports };
        if let Some(known) = self.known.clauses.get(&key) {
            return known.clone();
        }
        let mut size = 0;
        let clauses = rules.map(|rule| {
            size += rule.size();
            Shared::new(self.compiler.clause_for(rule, namespace.as_ref(), pod, direction))
        });
        let clauses: Arc<[Shared<Clause>]> = clauses.collect();
        self.work.spend(MAKING * size);
        self.known.clauses.insert(key, clauses.clone());
        clauses
    }

    fn meets(&mut self, clause: &Clause, end: &PeerProperties<'_>) -> bool {
        self.work.spend(1);
        let Clause { peers, ports } = clause;
        let any = peers.as_ref().is_none_or(|peers| {
            self.work.spend(peers.len().min(end.signature.len()));
            have_common(peers, end.signature)
        });
        any && ports.as_ref().is_none_or(|ClausePorts { numbers, named }| {
            self.work.spend(named.len().min(end.signature.len()));
            let is_named = |(atom, set)| end.signature.contains(atom) && end.has(set);
            end.has(numbers)
                || if named.len() <= end.signature.len() {
                    named.iter().any(is_named)
                } else {
                    end.signature.iter().filter_map(|atom| named.get_key_value(atom)).any(is_named)
                }
        })
    }
}

/// A peer or port takes so much longer to be made a property of than to be looked at.
const MAKING: usize = 20;

fn have_common<T: Ord>(one: &BTreeSet<T>, other: &BTreeSet<T>) -> bool {
    let (few, many) = if one.len() <= other.len() { (one, other) } else { (other, one) };
    few.iter().any(|item| many.contains(item))
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
        rules: &mut RuleAnswers<'_, '_>,
        ends: &[PeerProperties<'_>],
        takes_part: impl Fn(bool) -> bool,
    ) -> Vec<PolicyMatch> {
        let mut matches: Vec<PolicyMatch> = Vec::new();
        let mut open: Vec<&PeerProperties<'_>> = ends.iter().collect();
        let direction = rules.query.direction;
        let tier = |rules: &mut RuleAnswers<'_, '_>,
                    policies: &[&'a ClusterNetworkPolicy],
                    open: &mut Vec<&PeerProperties<'_>>,
                    matches: &mut Vec<PolicyMatch>| {
            let mut passed = Vec::new();
            for policy in policies.iter().filter(|policy| takes_part(policy.audit)) {
                let name = PolicyName::Cluster(policy.name.clone());
                let own = policy.rules(direction);
                let clauses = rules.of(name.clone(), &mut own.iter().map(|rule| &rule.matches));
                let mut matched = BTreeSet::new();
                for (index, (rule, clause)) in own.iter().zip(&*clauses).enumerate() {
                    let (hit, rest) =
                        open.iter().partition::<Vec<&PeerProperties<'_>>, _>(|end| rules.meets(clause, end));
                    if !hit.is_empty() {
                        matched.insert(index);
                    }
                    if rule.action == Action::Pass {
                        passed.extend(hit);
                    }
                    *open = rest;
                }
                if !matched.is_empty() {
                    matches.push(PolicyMatch { policy: name, audit: policy.audit, matched });
                }
            }
            open.extend(passed);
        };
        tier(rules, &self.admin, &mut open, &mut matches);
        let mut isolated = false;
        for (policy, audit) in self.policies.iter().filter(|(_, audit)| takes_part(*audit)) {
            isolated = true;
            if open.is_empty() {
                break;
            }
            let name = PolicyName::Namespaced(policy.name.clone());
            let clauses = rules.of(name.clone(), &mut policy.rules(direction).unwrap_or_default().iter());
            let matched = clauses
                .iter()
                .enumerate()
                .filter(|(_, clause)| !rules.closed && open.iter().any(|end| rules.meets(clause, end)));
            let matched = matched.map(|(index, _)| index).collect();
            matches.push(PolicyMatch { policy: name, audit: *audit, matched });
        }
        if !isolated {
            tier(rules, &self.baseline, &mut open, &mut matches);
        }
        matches
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
