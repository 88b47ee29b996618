//! Which rules a connection has met: what the tables say in bits, in names again.
//!
//! In: one side of a connection, by the pod's own addresses, ports and policies. Out: the policies that were
//! asked, each with the rules that match. It is the tables' own classification, so it agrees with the
//! verdict, and it walks over the policies of one pod alone, once for each identity and class
//! (`match_cache`).

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use podgate_common::{Direction, RuleProtocol, ServiceKey};

use super::{
    Incremental,
    answer_versions::AnswerVersions,
    match_cache::{self, CachedQuestion, MatchCache, QuestionEnd, RulesOf, WorkLimit},
    rules,
};
use crate::{
    compiler::{
        Atom, Backend, Clause, ClausePorts, CompiledTables, Condition, NamePlace, PortSignature, Shared,
        Signature, name_key,
    },
    model::{Action, Cluster, NamedPort, Pod, PolicyName, PolicyRef, PortSet, Rule},
    policy_walk::{ConnectionIndexes, PolicyVisitor, PolicyWalk, TierEnd},
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
    /// The protocol.
    pub protocol: RuleProtocol,
    /// Of the server; its place if it is none.
    pub port: u16,
    /// The peer is a service: any of its backends.
    pub is_service: bool,
    /// The names that the pod has learnt the peer for, which rules are asked about, too; none of a service.
    pub names: &'a [NamePlace],
}

/// A policy that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyMatch {
    /// The policy that was asked.
    pub policy: PolicyName,
    /// Whether it only reports what it would deny.
    pub audit: bool,
    /// The rules that match; of a policy with ordered rules the one that ended its tier, and those that only
    /// log.
    pub matched: BTreeSet<usize>,
    /// Its tier denies what none of its rules matches.
    pub isolates: bool,
    /// A rule of it allows some of it.
    pub allows: bool,
    /// It denies some of it, or leads to what does.
    pub denies: bool,
}

/// The other end as the tables see it.
struct PeerProperties<'a> {
    signature: Cow<'a, Signature>,
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
    versions: AnswerVersions,
}

impl Incremental {
    /// What evaluates connections after the last step.
    pub fn policy_snapshot(&self) -> PolicySnapshot {
        let Self { cluster, tables, named_ports, versions, .. } = self;
        PolicySnapshot {
            cluster: cluster.clone(),
            tables: tables.clone(),
            named_ports: named_ports.clone(),
            versions: versions.clone(),
        }
    }
}

impl PolicySnapshot {
    /// Whether a client's packets to this address and port go to a service.
    pub fn is_service(&self, address: IpAddr, protocol: RuleProtocol, port: u16) -> bool {
        let Some(protocol) = protocol.with_ports() else { return false };
        let mut key = ServiceKey::new(address.into(), protocol, port);
        let frontends = &self.tables.services.frontends;
        if frontends.contains_key(&key) {
            return true;
        }
        if self.tables.services.filter.may_have(address) {
            return true;
        }
        key.address = key.address.unspecified();
        frontends.contains_key(&key) && self.is_node(address)
    }

    /// The cluster that the tables were made of.
    pub const fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The policies that were asked about a connection: those enforced, and those in audit mode as if they
    /// were. `None`: there is no work left to find out. `cache`: the caller's own, for snapshots of any
    /// revision.
    pub fn matches(
        &self,
        query: &ConnectionQuery<'_>,
        cache: &mut MatchCache,
        work: &mut WorkLimit,
    ) -> Option<Arc<[PolicyMatch]>> {
        if !work.is_left() {
            return None;
        }
        let question = self.question(query);
        if let Some(matches) = cache.get(&question) {
            work.spend(match_cache::weight(matches));
            return Some(matches.clone());
        }
        let ends = self.ends(query);
        let compiler = rules::Compiler::new(&self.cluster, &self.named_ports);
        let walk = compiler.walk(query.pod, query.direction);
        // All of Calico's are put in order.
        let of_calico = self.cluster.calico.v3.policies.len() + self.cluster.calico.v1.policies.len();
        work.spend(self.cluster.policies_in(&query.pod.name.namespace).count() + MAKING * of_calico);
        let mut rules = RuleAnswers {
            compiler: &compiler,
            query,
            ends: &ends,
            clauses: cache.clauses(self.versions.of_policies()),
            closed: self.is_closed(query),
            work,
            policy: RulesOfPolicy::default(),
        };
        let mut all = matches(&walk.enforced(), &mut rules);
        if walk.has_audit() {
            all.extend(
                matches(&walk.as_if_enforced(), &mut rules).into_iter().filter(|matches| matches.audit),
            );
        }
        let all: Arc<[PolicyMatch]> = all.into();
        cache.put(question, all.clone());
        Some(all)
    }

    fn question(&self, query: &ConnectionQuery<'_>) -> CachedQuestion {
        let end = match self.place(query) {
            Some(place) => QuestionEnd::Service(place),
            None => QuestionEnd::Address {
                identity: self.tables.identities.identity(query.peer),
                names: self.names(query).collect(),
                class: self.class(query),
            },
        };
        let pod = query.pod.name.clone();
        CachedQuestion { version: self.versions.of(&pod).clone(), pod, direction: query.direction, end }
    }

    /// The identities of the peer's names. One that no rule has any more is what it is to those that there
    /// are: a name with fewer labels, and more before them.
    fn names(&self, query: &ConnectionQuery<'_>) -> impl Iterator<Item = usize> {
        query.names.iter().filter_map(|(labels, left)| {
            (0..labels.len()).find_map(|at| {
                let more = u32::try_from(at).unwrap_or(u32::MAX);
                let place = (labels[at..].to_vec(), left.saturating_add(more).min(2));
                self.tables.identities.addresses.get(&name_key(&place)).copied()
            })
        })
    }

    fn is_closed(&self, query: &ConnectionQuery<'_>) -> bool {
        let subject = self.tables.subjects.get(&query.pod.name).copied().unwrap_or_default();
        self.tables.closed.contains(match query.direction {
            Direction::Ingress => &subject.ingress,
            Direction::Egress => &subject.egress,
        })
    }

    fn class(&self, query: &ConnectionQuery<'_>) -> usize {
        self.tables.classes.class(query.protocol, query.port)
    }

    /// What stands behind the service that the peer is; `None`: it is none.
    fn place(&self, query: &ConnectionQuery<'_>) -> Option<Option<usize>> {
        let (true, Some(protocol)) = (query.is_service, query.protocol.with_ports()) else { return None };
        let frontends = &self.tables.services.frontends;
        let key = ServiceKey::new(query.peer.into(), protocol, query.port);
        let node_port = ServiceKey { address: key.address.unspecified(), ..key };
        let is_filtered = self.tables.services.filter.may_have(query.peer);
        let keys = match is_filtered && !self.is_node(query.peer) {
            true => [key, ServiceKey::FILTERED, node_port],
            false => [key, node_port, ServiceKey::FILTERED],
        };
        let known = keys.iter().filter(|key| is_filtered || !key.is_filtered());
        Some(known.filter_map(|key| frontends.get(key).copied()).next())
    }

    fn is_node(&self, address: IpAddr) -> bool {
        self.cluster.nodes.values().any(|node| node.addresses.contains(&address))
    }

    fn ends(&self, query: &ConnectionQuery<'_>) -> Vec<PeerProperties<'_>> {
        let tables = &self.tables;
        let end = |identity: usize, class: usize| PeerProperties {
            signature: Cow::Borrowed(&tables.identities.signatures[&identity]),
            ports: &tables.classes.signatures[class],
        };
        let Some(place) = self.place(query) else {
            let mut end = end(tables.identities.identity(query.peer), self.class(query));
            for name in self.names(query) {
                end.signature.to_mut().extend(tables.identities.signatures[&name].iter().cloned());
            }
            return vec![end];
        };
        let backends = place.and_then(|place| tables.services.backends.get(&place));
        let itself = || end(tables.identities.identity(query.peer), self.class(query));
        let ends = backends.into_iter().flat_map(|backends| backends.iter()).map(|backend| match *backend {
            Backend::Node { identity, class }
            | Backend::Local { identity, class, .. }
            | Backend::Elsewhere { identity, class } => end(identity, class),
            Backend::Untranslated | Backend::Unlisted => itself(),
        });
        ends.collect()
    }
}

/// The policies that are asked about all ends: of those that deny what no rule matches all, of the others
/// those with a rule that matches.
fn matches<'c>(walk: &PolicyWalk<'c>, rules: &mut RuleAnswers<'_, 'c>) -> Vec<PolicyMatch> {
    let direction = rules.query.direction;
    let walked = walk.walk((0..rules.ends.len()).collect(), rules).policies.into_iter();
    let matches = walked.map(|walked| {
        let actions = walked.policy.actions(direction);
        let hits = actions.iter().zip(&walked.hits).enumerate().filter(|(_, (_, ends))| !ends.is_empty());
        let hits: Vec<(usize, Action)> = hits.map(|(rule, (action, _))| (rule, *action)).collect();
        let has = |wanted: Action| hits.iter().any(|(_, action)| *action == wanted);
        let (is_rule_of_order, isolates) = match walked.policy {
            PolicyRef::Namespaced(_) => (false, true),
            PolicyRef::Cluster(_) => (true, false),
            PolicyRef::Calico(policy) => (!policy.name.kind.is_of_kubernetes(), walked.end != TierEnd::Pass),
        };
        let denies = match walked.policy {
            PolicyRef::Namespaced(_) => hits.is_empty(),
            // Also one that passes: it leads to what denies.
            PolicyRef::Cluster(_) => true,
            PolicyRef::Calico(_) if is_rule_of_order => {
                has(Action::Deny) || !walked.dropped_at_end.is_empty()
            }
            PolicyRef::Calico(_) => hits.is_empty(),
        };
        PolicyMatch {
            policy: walked.policy.name(),
            audit: walked.audit,
            matched: hits.iter().map(|(rule, _)| *rule).collect(),
            isolates,
            allows: has(Action::Accept),
            denies,
        }
    });
    matches.filter(|matches| matches.isolates || !matches.matched.is_empty()).collect()
}

/// The rules of policies, for one side.
struct RuleAnswers<'a, 'c> {
    compiler: &'a rules::Compiler<'c>,
    query: &'a ConnectionQuery<'a>,
    ends: &'a [PeerProperties<'a>],
    clauses: &'a mut HashMap<RulesOf, Arc<[Shared<Clause>]>>,
    /// NetworkPolicies allow nothing.
    closed: bool,
    work: &'a mut WorkLimit,
    policy: RulesOfPolicy,
}

/// The policy at hand.
#[derive(Default)]
struct RulesOfPolicy {
    clauses: Arc<[Shared<Clause>]>,
    /// None of them matches.
    closed: bool,
}

impl<'c> PolicyVisitor<'c> for RuleAnswers<'_, 'c> {
    const TRIES_ALL: bool = false;

    fn policy(&mut self, policy: PolicyRef<'c>) {
        let clauses = self.clauses(policy);
        let is_cluster_wide = match policy {
            PolicyRef::Namespaced(_) | PolicyRef::Calico(_) => false,
            PolicyRef::Cluster(_) => true,
        };
        self.policy = RulesOfPolicy { clauses, closed: self.closed && !is_cluster_wide };
    }

    fn rule(&mut self, index: usize, _: &'c Rule, left: &ConnectionIndexes) -> ConnectionIndexes {
        if self.policy.closed {
            return ConnectionIndexes::new();
        }
        let clause = self.policy.clauses[index].clone();
        left.iter().copied().filter(|end| self.meets(&clause, &self.ends[*end])).collect()
    }
}

impl RuleAnswers<'_, '_> {
    fn clauses(&mut self, policy: PolicyRef<'_>) -> Arc<[Shared<Clause>]> {
        let ConnectionQuery { pod, direction, .. } = *self.query;
        let own_ports = if direction == Direction::Ingress { pod.ports.clone() } else { Arc::default() };
        let key = RulesOf { policy: policy.name(), direction, own_ports };
        // What it wants of this pod another one, or this one later, may not meet.
        let is_of_pod = policy.wants_own_end(direction) || pod.is_of_forwarded();
        if let Some(clauses) = self.clauses.get(&key).filter(|_| !is_of_pod) {
            return clauses.clone();
        }
        let rules = policy.rules(direction);
        self.work.spend(MAKING * rules.iter().map(|rule| rule.size()).sum::<usize>());
        let clause =
            |(rule, action)| self.compiler.clause_of(rule, action, policy.namespace(), pod, direction);
        let rules = rules.into_iter().zip(policy.actions(direction));
        let clauses: Arc<[_]> = rules.map(|rule| Shared::new(clause(rule))).collect();
        if !is_of_pod {
            self.clauses.insert(key, clauses.clone());
        }
        clauses
    }

    fn meets(&mut self, clause: &Clause, end: &PeerProperties<'_>) -> bool {
        self.work.spend(1);
        let Clause { peers, ports, conditions, except_ports } = clause;
        peers.as_ref().is_none_or(|peers| self.has_any(peers, end))
            && conditions.iter().all(|condition| match condition {
                Condition::AnyOf(atoms) => self.has_any(atoms, end),
                Condition::NoneOf(atoms) => !self.has_any(atoms, end),
            })
            && ports.as_ref().is_none_or(|ports| self.has_port(ports, end))
            && !except_ports.as_ref().is_some_and(|ports| self.has_port(ports, end))
    }

    fn has_any(&mut self, atoms: &BTreeSet<Shared<Atom>>, end: &PeerProperties<'_>) -> bool {
        self.work.spend(atoms.len().min(end.signature.len()));
        have_common(atoms, &end.signature)
    }

    fn has_port(&mut self, ports: &ClausePorts, end: &PeerProperties<'_>) -> bool {
        let ClausePorts { numbers, named } = ports;
        self.work.spend(named.len().min(end.signature.len()));
        let is_named = |(atom, set)| end.signature.contains(atom) && end.has(set);
        end.has(numbers)
            || if named.len() <= end.signature.len() {
                named.iter().any(is_named)
            } else {
                end.signature.iter().filter_map(|atom| named.get_key_value(atom)).any(is_named)
            }
    }
}

/// A peer or port takes so much longer to be made a property of than to be looked at.
const MAKING: usize = 20;

fn have_common<T: Ord>(one: &BTreeSet<T>, other: &BTreeSet<T>) -> bool {
    let (few, many) = if one.len() <= other.len() { (one, other) } else { (other, one) };
    few.iter().any(|item| many.contains(item))
}

#[cfg(test)]
mod tests;
