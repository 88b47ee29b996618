//! What each policy and each rule has done: from the kernel's flow counters to counts by name.
//!
//! In: flow counters, which only grow, and the compiler that made the tables they speak of. Out: hits of
//! rules, and drops of pods. A flow counter is credited when it is read, to the policies that are in force
//! then: what a connection met in the seconds before a change may be credited to the policies after it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Result;
use podgate_common::{
    Direction, FlowCounterKey, Outcome, PolicyLookup, PolicyRole, RuleProtocol, seconds_of_ticks,
};
use podgate_core::{
    compiler::{ConnectionQuery, NamePlace, PolicyMatch},
    model::{CalicoPolicy, Cluster, ClusterNetworkPolicy, NetworkPolicy, ObjectName, Pod, PolicyName},
};
use podgate_datapath::{CounterSum, FlowCounterReader};

mod report;

pub use report::{DirectionHits, HitReport, PolicyHits, RuleCount};

/// Counts by policy.
#[derive(Debug)]
pub struct HitCounts {
    /// Since when the flow counters count.
    began: SystemTime,
    /// How much of each flow counter was credited.
    credited: BTreeMap<FlowCounterKey, u64>,
    /// Which flow counter comes first the next time: what there was no work left for is not last again.
    next: usize,
    /// The pods behind veths, those too that have gone since the last look.
    pods: BTreeMap<u32, Arc<Pod>>,
    policies: BTreeMap<(PolicyName, Direction), Counts>,
    drops: BTreeMap<(ObjectName, Direction, Outcome), u64>,
}

#[derive(Debug, Default)]
struct Counts {
    /// The policy that the counts are of. When its rules change, they begin again.
    of: NamedRules,
    rules: BTreeMap<usize, (u64, Option<SystemTime>)>,
    denied: u64,
    would_deny: u64,
}

/// A policy with its rules.
#[derive(Clone, Debug, Default)]
enum NamedRules {
    #[default]
    None,
    Policy(Arc<NetworkPolicy>),
    Cluster(Arc<ClusterNetworkPolicy>),
    Calico(Arc<CalicoPolicy>),
}

/// When a flow counter was last reported, in the kernel's ticks.
#[derive(Clone, Copy, Debug)]
pub struct CounterClock {
    pub now: SystemTime,
    pub ticks: u32,
    pub jiffies_per_second: u32,
}

impl HitCounts {
    pub const fn new(began: SystemTime) -> Self {
        Self {
            began,
            credited: BTreeMap::new(),
            next: 0,
            pods: BTreeMap::new(),
            policies: BTreeMap::new(),
            drops: BTreeMap::new(),
        }
    }

    /// Credits what the flow counters have counted since the last time. `veths`: the pods behind them; `ask`:
    /// the policies that a connection meets, or `None` when no more can be asked now. What is left is
    /// credited the next time: flow counters only grow. `names`: those that the pod behind a veth has learnt
    /// an address for.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn collect(
        &mut self,
        flow_counters: &FlowCounterReader,
        veths: &BTreeMap<u32, Arc<Pod>>,
        cluster: &Cluster,
        clock: CounterClock,
        names: impl Fn(u32, IpAddr) -> Vec<NamePlace>,
        mut ask: impl FnMut(&ConnectionQuery<'_>) -> Option<Arc<[PolicyMatch]>>,
    ) -> Result<()> {
        self.pods.extend(veths.iter().map(|(ifindex, pod)| (*ifindex, pod.clone())));
        let read = flow_counters.read()?;
        let mut left = BTreeSet::new();
        let first = self.next;
        for place in (0..read.len()).map(|place| (first + place) % read.len()) {
            let (key, counted) = &read[place];
            if !self.attribute(key, counted, cluster, clock, &names, &mut ask)
                && left.insert(*key)
                && left.len() == 1
            {
                self.next = place;
            }
        }
        // The agent removes those of veths that have gone.
        let there: BTreeSet<&FlowCounterKey> = read.iter().map(|(key, _)| key).collect();
        self.credited.retain(|key, _| there.contains(key));
        let of_left: BTreeSet<u32> = left.iter().map(|key| key.ifindex).collect();
        self.pods.retain(|ifindex, _| veths.contains_key(ifindex) || of_left.contains(ifindex));
        let there: BTreeSet<&ObjectName> = self.pods.values().map(|pod| &pod.name).collect();
        self.drops.retain(|(pod, ..), _| there.contains(pod));
        Ok(())
    }

    /// Out: whether there was work left for it.
    fn attribute(
        &mut self,
        key: &FlowCounterKey,
        counted: &CounterSum,
        cluster: &Cluster,
        clock: CounterClock,
        names: impl Fn(u32, IpAddr) -> Vec<NamePlace>,
        ask: &mut impl FnMut(&ConnectionQuery<'_>) -> Option<Arc<[PolicyMatch]>>,
    ) -> bool {
        let known = self.credited.get(key).copied().unwrap_or(0);
        let packets = counted.packets.saturating_sub(known);
        let (Ok(direction), Ok(outcome), Some(pod)) = (
            Direction::try_from(key.direction),
            Outcome::try_from(key.outcome),
            self.pods.get(&key.ifindex).cloned(),
        ) else {
            self.credited.insert(*key, counted.packets);
            return true;
        };
        if packets == 0 {
            return true;
        }
        let peer = IpAddr::from(counted.last.peer);
        // The name that has allowed it is one of these.
        let is_by_name = PolicyLookup::name(key.identity).is_some() && !key.is_of_others();
        let names = if is_by_name { names(key.ifindex, peer) } else { Vec::new() };
        let query = ConnectionQuery {
            pod: &pod,
            direction,
            peer,
            // Of one without ports the place is already what is counted.
            protocol: RuleProtocol::of_packet(counted.last.protocol.into(), 0, 0).0,
            port: counted.last.port,
            is_service: key.class == PolicyLookup::SERVICE,
            names: &names,
        };
        // Of what is beyond a pod's share of flow counters only the sum is known.
        let is_credited = outcome.is_by_policy() && !key.is_of_others();
        let policy_match = if is_credited { ask(&query) } else { Some([].into()) };
        let Some(policy_match) = policy_match else { return false };
        self.credited.insert(*key, counted.packets);
        if !outcome.passes() {
            *self.drops.entry((pod.name.clone(), direction, outcome)).or_default() += packets;
        }
        let last = clock.at(counted.last.since);
        for policy_match in &*policy_match {
            let of = rules(cluster, &policy_match.policy);
            let counts = self.policies.entry((policy_match.policy.clone(), direction)).or_default();
            if !counts.of.says_the_same(&of, direction) {
                *counts = Counts::default();
            }
            counts.of = of;
            counts.add(policy_match, outcome, packets, last);
        }
        true
    }
}

impl Counts {
    fn add(&mut self, policy_match: &PolicyMatch, outcome: Outcome, packets: u64, last: SystemTime) {
        for rule in &policy_match.matched {
            let (hits, seen) = self.rules.entry(*rule).or_default();
            *hits += packets;
            *seen = (*seen).max(Some(last));
        }
        // Of a policy with a rule that matches the rule has denied the packet, or allowed it.
        if !policy_match.matched.is_empty() || !policy_match.denies {
            return;
        }
        match (outcome.policies(), policy_match.audit) {
            (PolicyRole::Deny, false) => self.denied += packets,
            (PolicyRole::Deny | PolicyRole::WouldDeny, true) => self.would_deny += packets,
            (PolicyRole::WouldDeny, false)
            | (PolicyRole::Allow | PolicyRole::NotIsolating | PolicyRole::NotAsked, _) => {}
        }
    }
}

impl NamedRules {
    fn len(&self, direction: Direction) -> usize {
        match self {
            Self::None => 0,
            Self::Policy(policy) => policy.rules(direction).unwrap_or_default().len(),
            Self::Cluster(policy) => policy.rules(direction).len(),
            Self::Calico(policy) => policy.rules(direction).unwrap_or_default().len(),
        }
    }

    /// Mostly it is the same policy, and its rules are not looked at.
    fn says_the_same(&self, other: &Self, direction: Direction) -> bool {
        match (self, other) {
            (Self::Policy(one), Self::Policy(other)) => {
                Arc::ptr_eq(one, other) || one.rules(direction) == other.rules(direction)
            }
            (Self::Cluster(one), Self::Cluster(other)) => {
                Arc::ptr_eq(one, other) || one.rules(direction) == other.rules(direction)
            }
            (Self::Calico(one), Self::Calico(other)) => {
                Arc::ptr_eq(one, other) || one.rules(direction) == other.rules(direction)
            }
            (Self::None, Self::None) => true,
            (Self::None | Self::Policy(_) | Self::Cluster(_) | Self::Calico(_), _) => false,
        }
    }
}

impl CounterClock {
    /// The time of a tick of the past.
    fn at(&self, tick: u32) -> SystemTime {
        let age = self.ticks.wrapping_sub(tick);
        let seconds = seconds_of_ticks(age, self.jiffies_per_second);
        self.now.checked_sub(Duration::from_secs(seconds)).unwrap_or(self.now)
    }
}

fn rules(cluster: &Cluster, policy: &PolicyName) -> NamedRules {
    match policy {
        PolicyName::Namespaced(name) => {
            cluster.policies.get(name).cloned().map_or(NamedRules::None, NamedRules::Policy)
        }
        PolicyName::Cluster(name) => {
            cluster.cluster_policies.get(name).cloned().map_or(NamedRules::None, NamedRules::Cluster)
        }
        PolicyName::Calico(name) => {
            cluster.calico.policy(name).cloned().map_or(NamedRules::None, NamedRules::Calico)
        }
    }
}

#[cfg(test)]
mod tests {
    use podgate_common::{Address, ClassId, FlowCounter, IdentityId};

    use super::*;
    use podgate_core::{
        fixtures::{cluster, policy, rule},
        model::{NetworkPolicy, Peers, Ports},
    };

    const VETH: u32 = 11;
    const CLOCK: CounterClock =
        CounterClock { now: SystemTime::UNIX_EPOCH, ticks: 5_000, jiffies_per_second: 250 };

    fn name() -> PolicyName {
        PolicyName::Namespaced(ObjectName::new("x", "p"))
    }

    /// Counts beside pod `x/a`, which a policy with so many rules selects.
    fn counts(rules: usize, audit: bool) -> (HitCounts, Cluster) {
        let any = vec![rule(Peers::Any, Ports::Any); rules];
        let cluster = cluster(vec![NetworkPolicy { audit, ..policy("p", Some(any), None) }]);
        let pod = cluster.pods[&ObjectName::new("x", "a")].clone();
        let mut counts = HitCounts::new(SystemTime::UNIX_EPOCH);
        counts.pods.insert(VETH, pod);
        (counts, cluster)
    }

    /// A flow counter has grown to `packets`; the policy has met them with these rules.
    fn grow(counts: &mut HitCounts, cluster: &Cluster, outcome: Outcome, packets: u64, matched: &[usize]) {
        let key = FlowCounterKey {
            ifindex: VETH,
            identity: IdentityId(1),
            class: ClassId(1),
            direction: Direction::Ingress as u8,
            outcome: outcome as u8,
        };
        let last = FlowCounter { since: 4_000, peer: Address::from_v4([10, 0, 0, 2]), ..FlowCounter::EMPTY };
        let audit = cluster.policies[&ObjectName::new("x", "p")].audit;
        let policy_match = PolicyMatch {
            policy: name(),
            audit,
            matched: matched.iter().copied().collect(),
            isolates: true,
            allows: !matched.is_empty(),
            denies: matched.is_empty(),
        };
        let mut ask = |_: &ConnectionQuery<'_>| Some([policy_match.clone()].into());
        assert!(counts.attribute(
            &key,
            &CounterSum { packets, last },
            cluster,
            CLOCK,
            |_, _| vec![],
            &mut ask
        ));
    }

    fn report(counts: &HitCounts, cluster: &Cluster) -> HitReport {
        counts.report(cluster, [&cluster.pods[&ObjectName::new("x", "a")]], CLOCK.now)
    }

    fn ingress(counts: &HitCounts, cluster: &Cluster) -> DirectionHits {
        report(counts, cluster).policies[&name()].ingress.clone().expect("the policy is of ingress")
    }

    #[test]
    fn each_packet_is_credited_once_to_every_rule_that_matches() {
        let (mut counts, cluster) = counts(3, false);
        for (packets, hits) in [(4, 4), (4, 4), (9, 9)] {
            grow(&mut counts, &cluster, Outcome::Allowed, packets, &[0, 2]);
            let found = ingress(&counts, &cluster);
            assert_eq!(found.rules.iter().map(|rule| rule.hits).collect::<Vec<_>>(), [hits, 0, hits]);
            // 1,000 ticks ago, of 16 jiffies each.
            assert_eq!((found.rules[0].idle, found.rules[1].idle), (Some(Duration::from_secs(64)), None));
        }
        assert!(report(&counts, &cluster).drops.is_empty());
    }

    #[test]
    fn what_no_rule_allows_is_counted_as_denied_and_as_a_drop_of_the_pod() {
        let (mut counts, cluster) = counts(1, false);
        grow(&mut counts, &cluster, Outcome::Denied, 7, &[]);
        grow(&mut counts, &cluster, Outcome::Spoofed, 2, &[]);
        let found = ingress(&counts, &cluster);
        assert_eq!((found.denied, found.would_deny, found.rules[0].hits), (7, 0, 0));
        let drop = |reason, packets| ((ObjectName::new("x", "a"), Direction::Ingress, reason), packets);
        let drops = [drop(Outcome::Denied, 7), drop(Outcome::Spoofed, 2)];
        assert_eq!(report(&counts, &cluster).drops, drops.into());
    }

    #[test]
    fn in_audit_mode_it_is_what_would_have_been() {
        let (mut counts, cluster) = counts(1, true);
        grow(&mut counts, &cluster, Outcome::WouldDeny, 5, &[]);
        grow(&mut counts, &cluster, Outcome::NotIsolated, 3, &[0]);
        let found = ingress(&counts, &cluster);
        assert_eq!((found.denied, found.would_deny, found.rules[0].hits), (0, 5, 3));
        assert!(report(&counts, &cluster).drops.is_empty());
    }

    #[test]
    fn other_rules_begin_again() {
        let (mut counts, before) = counts(1, false);
        grow(&mut counts, &before, Outcome::Allowed, 4, &[0]);
        let (_, after) = self::counts(2, false);
        assert_eq!(ingress(&counts, &after).rules.iter().map(|rule| rule.hits).sum::<u64>(), 0);
        grow(&mut counts, &after, Outcome::Allowed, 6, &[1]);
        assert_eq!(ingress(&counts, &after).rules.iter().map(|rule| rule.hits).collect::<Vec<_>>(), [0, 2]);
    }
}
