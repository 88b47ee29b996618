//! The answer to `names`: what the pods of this node have learnt, with the rules that match it.
//!
//! In: a snapshot, and the tables that the programs fill. Out: the addresses that count now. It is bounded:
//! where all pods are asked for, each has its share of the answer.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, ensure};
use podgate_common::Direction;
use podgate_core::{
    compiler::{NamePlace, name_text},
    explain::{EndpointRef, Explanation, KnownAddress, LearntNames},
    model::{Cluster, DomainPattern, ObjectName, Peer, Peers, Pod},
    policy_walk::OrderedPolicies,
};
use podgate_datapath::{
    ProgramTables,
    names::{LearntAddress, NameReader, NameTableSizes},
};

use crate::{
    api::{LearntName, NameRules, PodNames},
    endpoints::InterfaceState,
    names::UntrustedServers,
    snapshot::{EnforcedInterface, Snapshot},
};

/// Addresses in an answer about all pods.
const MOST: usize = 10_000;

/// Reads the table with a number; `None`: it is not open.
type ReadTable = Arc<dyn Fn(u32) -> Result<Option<Vec<LearntAddress>>> + Send + Sync>;
type CountNames = Arc<dyn Fn() -> NameTableSizes + Send + Sync>;
type CountOpened = Arc<dyn Fn(&BTreeSet<u32>) -> BTreeMap<(u32, IpAddr), usize> + Send + Sync>;

/// Where names are read. All of it may take milliseconds.
#[derive(Clone)]
pub struct NameSource {
    pub read: ReadTable,
    /// What there is of tables and addresses.
    pub sizes: CountNames,
    /// The connections that veths have opened, by address.
    pub opened: CountOpened,
    pub untrusted: UntrustedServers,
}

impl fmt::Debug for NameSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NameSource").finish_non_exhaustive()
    }
}

/// The rules with names of a pod, by policy.
struct PodRules<'a>(Vec<(String, Vec<RulePatterns<'a>>)>);

/// The index of a rule in `egress`, and its names.
type RulePatterns<'a> = (usize, Vec<&'a DomainPattern>);

impl NameSource {
    pub fn new(reader: NameReader, tables: Arc<ProgramTables>, untrusted: UntrustedServers) -> Self {
        let counted = reader.clone();
        Self {
            untrusted,
            read: Arc::new(move |table| reader.read(table)),
            sizes: Arc::new(move || {
                counted.sizes().inspect_err(|error| tracing::warn!("{error:#}")).unwrap_or_default()
            }),
            opened: Arc::new(move |veths| {
                tables.opened_by(veths).inspect_err(|error| tracing::warn!("{error:#}")).unwrap_or_default()
            }),
        }
    }
}

/// What pods have learnt, in the order of their names. `only`: of this pod, all of it.
///
/// # Errors
///
/// When the agent does not know that pod.
pub(super) fn names(
    snapshot: &Snapshot,
    source: &NameSource,
    only: Option<&ObjectName>,
) -> Result<Vec<PodNames>> {
    let interfaces = snapshot.interfaces.values().filter_map(|interface| match &interface.veth.state {
        InterfaceState::Identified { pod, .. } => Some((pod, interface)),
        InterfaceState::Pending | InterfaceState::Unmanaged => None,
    });
    let is_meant = |(pod, interface): &(&ObjectName, &EnforcedInterface)| match only {
        Some(only) => *pod == only,
        None => interface.names != 0,
    };
    let mut meant: Vec<(&ObjectName, &EnforcedInterface)> = interfaces.filter(is_meant).collect();
    if let Some(only) = only {
        ensure!(!meant.is_empty(), "the agent knows no interface of pod {only} on this node");
    }
    meant.sort_unstable_by_key(|(pod, interface)| (*pod, interface.veth.ifindex));
    let share = if only.is_some() { usize::MAX } else { MOST / meant.len().max(1) };
    let veths = meant.iter().filter(|(_, interface)| interface.names != 0);
    let veths: BTreeSet<u32> = veths.map(|(_, interface)| interface.veth.ifindex).collect();
    let opened = if veths.is_empty() { BTreeMap::new() } else { (source.opened)(&veths) };
    let policies = OrderedPolicies::of(&snapshot.cluster);
    let of_pod = |(name, interface): (&ObjectName, &EnforcedInterface)| {
        let (ifindex, has_rules) = (interface.veth.ifindex, interface.names != 0);
        let capacity = if has_rules { NameTableSizes::ROOM } else { 0 };
        let names = PodNames { pod: name.to_string(), has_rules, capacity, ..PodNames::default() };
        if !has_rules {
            return names;
        }
        let untrusted_resolvers = source.untrusted.of(name).into_iter().collect();
        let names = PodNames { untrusted_resolvers, ..names };
        let pod = snapshot.contexts.newest().and_then(|context| context.pods.get(&ifindex).cloned());
        let pod = pod.or_else(|| snapshot.cluster.pods.get(name).cloned());
        let rules = pod.as_ref().map_or_else(|| PodRules(Vec::new()), |pod| PodRules::of(&policies, pod));
        match (source.read)(interface.names) {
            Ok(Some(learnt)) => {
                let connections = |address| opened.get(&(ifindex, address)).copied().unwrap_or(0);
                let mut entries = rules.entries(learnt, connections);
                let live = entries.len();
                entries.truncate(share);
                PodNames { live, omitted: live - entries.len(), entries, ..names }
            }
            Ok(None) => PodNames { error: Some("its table is not open to this agent".into()), ..names },
            Err(error) => PodNames { error: Some(format!("{error:#}")), ..names },
        }
    };
    Ok(meant.into_iter().map(of_pod).collect())
}

/// What a pod has learnt and counts now.
pub(super) struct LearntByPod {
    pod: Arc<Pod>,
    entries: Vec<(IpAddr, NamePlace, u64)>,
}

/// `None`: the client is no pod of this node that has rules with names, or its table cannot be read.
pub(super) fn learnt_by(snapshot: &Snapshot, source: &NameSource, from: &EndpointRef) -> Option<LearntByPod> {
    let is_its = |interface: &&EnforcedInterface| match (&interface.veth.state, from) {
        (InterfaceState::Identified { pod, .. }, EndpointRef::Pod(name)) => pod == name,
        (InterfaceState::Identified { addresses, .. }, EndpointRef::Address(address)) => {
            addresses.contains(address)
        }
        (_, EndpointRef::Pod(_) | EndpointRef::Address(_)) => false,
        (_, EndpointRef::Service(_) | EndpointRef::Node(_) | EndpointRef::Name(_)) => false,
    };
    let interface = snapshot.interfaces.values().filter(|interface| interface.names != 0).find(is_its)?;
    let context = snapshot.contexts.newest()?;
    let pod = context.pods.get(&interface.veth.ifindex)?.clone();
    let read = (source.read)(interface.names).inspect_err(|error| tracing::warn!("{error:#}")).ok()??;
    let live = |LearntAddress { address, name, left }: LearntAddress| Some((address, name, left?.as_secs()));
    Some(LearntByPod { pod, entries: read.into_iter().filter_map(live).collect() })
}

impl LearntByPod {
    pub(super) fn by_address(&self) -> LearntNames {
        let mut names = LearntNames::default();
        for (address, name, _) in &self.entries {
            names.0.entry(*address).or_default().insert(name.clone());
        }
        names
    }

    /// What counts now of a question's destination, sorted.
    pub(super) fn known(&self, cluster: &Cluster, explanation: &Explanation) -> Vec<KnownAddress> {
        let mut known = match &explanation.to {
            EndpointRef::Name(name) => {
                let policies = OrderedPolicies::of(cluster);
                let PodRules(rules) = PodRules::of(&policies, &self.pod);
                let patterns = rules.into_iter().flat_map(|(_, rules)| rules);
                let patterns = patterns.flat_map(|(_, patterns)| patterns);
                KnownAddress::of(name, &self.entries, patterns)
            }
            // A service's backends are evaluated without names.
            EndpointRef::Pod(_)
            | EndpointRef::Service(_)
            | EndpointRef::Node(_)
            | EndpointRef::Address(_)
                if explanation.backends.is_some() =>
            {
                Vec::new()
            }
            EndpointRef::Pod(_)
            | EndpointRef::Service(_)
            | EndpointRef::Node(_)
            | EndpointRef::Address(_) => {
                let is_asked = |address: &IpAddr| explanation.pairs.iter().any(|pair| pair.to == *address);
                let of_it = self.entries.iter().filter(|(address, ..)| is_asked(address));
                let known = of_it.map(|(address, name, seconds_left)| KnownAddress {
                    address: *address,
                    name: name_text(name),
                    seconds_left: *seconds_left,
                });
                known.collect()
            }
        };
        known.sort_unstable_by(|one, other| {
            (one.address, &one.name, one.seconds_left).cmp(&(other.address, &other.name, other.seconds_left))
        });
        // One with one label and one with more before the rules' labels print alike.
        known.reverse();
        known.dedup_by(|one, other| (one.address, &one.name) == (other.address, &other.name));
        known.reverse();
        known
    }
}

impl<'a> PodRules<'a> {
    fn of(policies: &OrderedPolicies<'a>, pod: &Pod) -> Self {
        let patterns = |peers: &'a Peers| match peers {
            Peers::Listed(peers) => peers.iter().filter_map(pattern).collect(),
            Peers::Any | Peers::Calico(_) => Vec::new(),
        };
        let walk = policies.for_pod(pod, Direction::Egress);
        let of_policies = walk.policies().map(|policy| {
            let rules = policy.rules(Direction::Egress).into_iter().enumerate();
            let rules = rules.map(|(index, rule)| (index, patterns(&rule.peers)));
            let rules = rules.filter(|(_, patterns): &RulePatterns<'_>| !patterns.is_empty());
            (policy.name().to_string(), rules.collect::<Vec<_>>())
        });
        Self(of_policies.filter(|(_, rules)| !rules.is_empty()).collect())
    }

    fn matching(&self, (suffix, left): &NamePlace) -> Vec<NameRules> {
        let matches = |pattern: &&DomainPattern| pattern.matches_names_below(suffix, *left);
        let of_policies = self.0.iter().map(|(policy, rules)| {
            let rules = rules.iter().filter(|(_, patterns)| patterns.iter().any(matches));
            NameRules { policy: policy.clone(), rules: rules.map(|(index, _)| *index).collect() }
        });
        of_policies.filter(|of_policy| !of_policy.rules.is_empty()).collect()
    }

    /// What counts, sorted. Names that print alike, as those with one and with two labels before a rule's,
    /// are one: some rule tells them apart if it has a wildcard of one label.
    fn entries(&self, learnt: Vec<LearntAddress>, connections: impl Fn(IpAddr) -> usize) -> Vec<LearntName> {
        let mut matching: HashMap<NamePlace, Vec<NameRules>> = HashMap::new();
        let mut entries: BTreeMap<(String, IpAddr), (Duration, Vec<NameRules>)> = BTreeMap::new();
        for LearntAddress { address, name, left } in learnt {
            let Some(left) = left else { continue };
            let policies = matching.entry(name.clone()).or_insert_with(|| self.matching(&name));
            let entry = entries.entry((name_text(&name), address));
            let (longest, known) = entry.or_insert_with(|| (left, policies.clone()));
            *longest = left.max(*longest);
            let others: Vec<_> = policies.iter().filter(|of| !known.contains(of)).cloned().collect();
            known.extend(others);
        }
        let entries = entries.into_iter().map(|((name, address), (left, policies))| LearntName {
            address,
            name,
            policies,
            seconds_left: left.as_secs(),
            connections: connections(address),
        });
        entries.collect()
    }
}

const fn pattern(peer: &Peer) -> Option<&DomainPattern> {
    match peer {
        Peer::Name(pattern) => Some(pattern),
        Peer::Pods { .. } | Peer::Block(_) | Peer::Nodes(_) | Peer::Nothing => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use podgate_core::{
        fixtures::admin_policy,
        model::{Action, ClusterRule, Ports, Rule},
    };

    use super::*;

    /// Where nothing was learnt.
    pub(in crate::server) fn source() -> NameSource {
        NameSource {
            read: Arc::new(|_| Ok(None)),
            sizes: Arc::new(NameTableSizes::default),
            opened: Arc::new(|_| BTreeMap::new()),
            untrusted: UntrustedServers::default(),
        }
    }

    fn place(name: &str, left: u32) -> NamePlace {
        (name.split('.').map(|label| label.as_bytes().into()).collect(), left)
    }

    fn learnt(address: &str, name: NamePlace, seconds: Option<u64>) -> LearntAddress {
        LearntAddress { address: address.parse().unwrap(), name, left: seconds.map(Duration::from_secs) }
    }

    /// Pod `x/a` with rules for these names, and what it has learnt.
    fn example(names: &[&str], table: Vec<LearntAddress>) -> (Snapshot, NameSource) {
        let mut snapshot = Snapshot::example(true);
        let rule = |name: &&str| ClusterRule {
            action: Action::Accept,
            matches: Rule {
                peers: Peers::Listed(vec![Peer::Name(DomainPattern::parse(name).unwrap())]),
                ports: Ports::Any,
            },
        };
        let policy = admin_policy("base", names.iter().map(rule).collect());
        let policies = &mut Arc::make_mut(&mut snapshot.cluster).cluster_policies;
        policies.insert(policy.name.clone(), Arc::new(policy));
        snapshot.interfaces.get_mut(&3).unwrap().names = 5;
        let read = move |number| Ok((number == 5).then(|| table.clone()));
        let opened = |veths: &BTreeSet<u32>| {
            assert_eq!(*veths, [3].into());
            [((3, "10.1.0.1".parse().unwrap()), 2)].into()
        };
        (snapshot, NameSource { read: Arc::new(read), opened: Arc::new(opened), ..source() })
    }

    fn lines(names: &PodNames) -> Vec<String> {
        let rules = |policies: &[NameRules]| {
            policies.iter().map(|it| format!("{} {:?}", it.policy, it.rules)).collect::<Vec<_>>().join(",")
        };
        let line = |LearntName { address, name, policies, seconds_left, connections }: &LearntName| {
            format!("{name} {address} {seconds_left} {connections} {}", rules(policies))
        };
        names.entries.iter().map(line).collect()
    }

    #[test]
    fn what_counts_is_listed_by_name_with_the_rules_that_match() {
        let table = vec![
            learnt("10.1.0.9", place("example.com", 2), Some(3)),
            learnt("10.1.0.9", place("example.com", 1), Some(40)),
            learnt("10.1.0.1", place("a.example.com", 0), Some(7)),
            learnt("10.1.0.2", place("a.example.com", 0), None),
            learnt("10.1.0.3", place("of.another", 0), Some(9)),
        ];
        let (snapshot, source) = example(&["*.example.com", "a.example.com", "b.test"], table);
        let found = names(&snapshot, &source, None).unwrap();
        let [of_pod] = &found[..] else { panic!("{found:?}") };
        assert_eq!((&*of_pod.pod, of_pod.live, of_pod.omitted), ("x/a", 3, 0));
        assert_eq!(
            lines(of_pod),
            [
                "*.example.com 10.1.0.9 40 0 ClusterNetworkPolicy base [0]",
                "a.example.com 10.1.0.1 7 2 ClusterNetworkPolicy base [0, 1]",
                "of.another 10.1.0.3 9 0 ",
            ]
        );
    }

    #[test]
    fn servers_that_a_pod_asks_and_that_are_not_believed_are_named() {
        let (snapshot, mut source) = example(&["a.test"], vec![]);
        source.untrusted = UntrustedServers::example("a", "192.0.2.53:53");
        let found = names(&snapshot, &source, None).unwrap();
        assert_eq!(found[0].untrusted_resolvers, ["192.0.2.53:53".parse().unwrap()]);
    }

    #[test]
    fn a_long_list_is_cut_unless_one_pod_is_asked_for() {
        let address = |at: u32| IpAddr::from(std::net::Ipv4Addr::from(at)).to_string();
        let most = u32::try_from(MOST).unwrap();
        let table = (0..most + 5).map(|at| learnt(&address(at), place("a.test", 0), Some(9))).collect();
        let (snapshot, source) = example(&["a.test"], table);
        let found = names(&snapshot, &source, None).unwrap();
        assert_eq!((found[0].live, found[0].omitted, found[0].entries.len()), (MOST + 5, 5, MOST));
        let one = names(&snapshot, &source, Some(&ObjectName::new("x", "a"))).unwrap();
        assert_eq!((one[0].omitted, one[0].entries.len()), (0, MOST + 5));
    }

    #[test]
    fn pods_without_rules_and_pods_that_are_not_there_are_distinguished() {
        let (mut snapshot, source) = example(&["a.test"], vec![]);
        let error = names(&snapshot, &source, Some(&ObjectName::new("x", "gone"))).unwrap_err();
        assert_eq!(error.to_string(), "the agent knows no interface of pod x/gone on this node");
        snapshot.interfaces.get_mut(&3).unwrap().names = 0;
        assert!(names(&snapshot, &source, None).unwrap().is_empty());
        let one = names(&snapshot, &source, Some(&ObjectName::new("x", "a"))).unwrap();
        assert!(!one[0].has_rules);
        // A table that an agent without the right to open it has found.
        snapshot.interfaces.get_mut(&3).unwrap().names = 9;
        let unread = names(&snapshot, &source, None).unwrap();
        assert!(unread[0].error.is_some() && unread[0].entries.is_empty());
    }
}
