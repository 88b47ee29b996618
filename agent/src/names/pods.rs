//! The pods of this node that have rules with names, and which names are new for them.
//!
//! In: snapshots. Out: the names that a pod may have in a cache of its own from before the rule. A pod that
//! was not there before has nothing in a cache.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use podgate_common::Direction;
use podgate_core::{
    compiler::NamePlace,
    model::{DomainPattern, Name, ObjectName, Peer, Peers, Rule},
};

use super::questions::Asker;
use crate::{
    endpoints::InterfaceState,
    snapshot::{AppliedPolicies, EnforcedInterface, Snapshot},
};

/// The pods, as the last snapshot had them.
#[derive(Debug, Default)]
pub(super) struct NamedPods {
    /// By ifindex.
    pods: BTreeMap<u32, NamedPod>,
    /// Veths whose pods could send packets.
    present: BTreeSet<u32>,
    has_begun: bool,
}

/// A pod that has rules with names.
#[derive(Debug)]
pub(super) struct NamedPod {
    pub(super) name: ObjectName,
    /// The number of its table.
    pub(super) table: u32,
    /// What the patterns are of.
    egress: AppliedPolicies,
    patterns: BTreeSet<DomainPattern>,
}

/// A name that has come into a pod's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NewName {
    pub(super) namespace: Name,
    pub(super) asker: Asker,
    pub(super) name: NamePlace,
}

impl NamedPods {
    /// Follows a snapshot: what is new in it. `live`: the names of which something counts in a table; it is
    /// asked at the start alone.
    pub(super) fn follow(
        &mut self,
        snapshot: &Snapshot,
        live: impl Fn(u32) -> BTreeSet<NamePlace>,
    ) -> Vec<NewName> {
        if !snapshot.progress.ready {
            return Vec::new();
        }
        let mut before = std::mem::take(&mut self.pods);
        let mut new = Vec::new();
        for (ifindex, interface) in &snapshot.interfaces {
            let Some(pod) = identified(interface) else { continue };
            if interface.names == 0 {
                continue;
            }
            let known = before.remove(ifindex).filter(|it| it.name == *pod && it.table == interface.names);
            let now = match &known {
                Some(known) if is_same(&known.egress, &interface.egress) => None,
                Some(_) | None => Some(NamedPod {
                    name: pod.clone(),
                    table: interface.names,
                    egress: interface.egress.clone(),
                    patterns: patterns(&interface.egress),
                }),
            };
            let Some(now) = now else {
                self.pods.extend(known.map(|known| (*ifindex, known)));
                continue;
            };
            let has_it: BTreeSet<NamePlace> = match &known {
                Some(known) => known.patterns.iter().filter_map(exact).collect(),
                None if !self.has_begun => live(now.table),
                None if self.present.contains(ifindex) => BTreeSet::new(),
                // It was not there before.
                None => now.patterns.iter().filter_map(exact).collect(),
            };
            let names = now.patterns.iter().filter_map(exact).filter(|name| !has_it.contains(name));
            new.extend(names.map(|name| NewName {
                namespace: pod.namespace.clone(),
                asker: (*ifindex, now.table),
                name,
            }));
            self.pods.insert(*ifindex, now);
        }
        let present = snapshot.interfaces.iter().filter(|(_, it)| may_have_sent(&it.veth.state));
        self.present = present.map(|(ifindex, _)| *ifindex).collect();
        self.has_begun = true;
        new
    }

    /// Whether a rule of a pod still has a name.
    pub(super) fn has(&self, (ifindex, table): Asker, name: &NamePlace) -> bool {
        self.pods.get(&ifindex).is_some_and(|pod| pod.table == table && pod.matches(name))
    }

    /// By ifindex.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &NamedPod)> {
        self.pods.iter().map(|(ifindex, pod)| (*ifindex, pod))
    }
}

impl NamedPod {
    /// Whether one of its rules has a name, as far as rules tell it from others.
    pub(super) fn matches(&self, (labels, left): &NamePlace) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches_names_below(labels, *left))
    }
}

fn identified(interface: &EnforcedInterface) -> Option<&ObjectName> {
    match &interface.veth.state {
        InterfaceState::Identified { pod, .. } => Some(pod),
        InterfaceState::Pending | InterfaceState::Unmanaged => None,
    }
}

/// Nothing passes while a veth is held.
const fn may_have_sent(state: &InterfaceState) -> bool {
    match state {
        InterfaceState::Identified { .. } | InterfaceState::Unmanaged => true,
        InterfaceState::Pending => false,
    }
}

/// Whether they are the very same policies: a source shares what has not changed.
fn is_same(before: &AppliedPolicies, now: &AppliedPolicies) -> bool {
    fn all_same<T>(before: &[Arc<T>], now: &[Arc<T>]) -> bool {
        before.len() == now.len() && before.iter().zip(now).all(|(before, now)| Arc::ptr_eq(before, now))
    }
    all_same(&before.policies, &now.policies)
        && all_same(&before.cluster_policies, &now.cluster_policies)
        && all_same(&before.calico_policies, &now.calico_policies)
}

fn patterns(egress: &AppliedPolicies) -> BTreeSet<DomainPattern> {
    const EGRESS: Direction = Direction::Egress;
    let AppliedPolicies { policies, cluster_policies, .. } = egress;
    let rules = policies.iter().flat_map(|policy| policy.rules(EGRESS).unwrap_or_default());
    let of_cluster = cluster_policies.iter().flat_map(|policy| policy.rules(EGRESS));
    let names = |rule: &Rule| match &rule.peers {
        Peers::Listed(peers) => peers.iter().filter_map(pattern).cloned().collect(),
        // Calico's rules name none here.
        Peers::Any | Peers::Calico(_) => Vec::new(),
    };
    rules.chain(of_cluster.map(|rule| &rule.matches)).flat_map(names).collect()
}

const fn pattern(peer: &Peer) -> Option<&DomainPattern> {
    match peer {
        Peer::Name(pattern) => Some(pattern),
        Peer::Pods { .. } | Peer::Block(_) | Peer::Nodes(_) | Peer::Nothing => None,
    }
}

/// The name of a pattern that has one; no one knows which names a wildcard stands for.
fn exact(pattern: &DomainPattern) -> Option<NamePlace> {
    (!pattern.is_wildcard()).then(|| (pattern.labels().map(Into::into).collect(), 0))
}

#[cfg(test)]
pub(super) mod tests {
    use podgate_core::model::{NetworkPolicy, Ports, Selector};

    use super::{super::message::tests::place, *};

    /// A policy of namespace `x` with one rule for these names.
    pub(in super::super) fn policy(names: &[&str]) -> Arc<NetworkPolicy> {
        let names = names.iter().map(|name| Peer::Name(DomainPattern::parse(name).unwrap()));
        let rule = Rule { peers: Peers::Listed(names.collect()), ports: Ports::Any };
        Arc::new(NetworkPolicy {
            name: ObjectName::new("x", "names"),
            subject: Selector::EVERYTHING,
            ingress: None,
            egress: Some(vec![rule]),
            audit: false,
        })
    }

    /// Pod `x/a` behind veth 3 has a table and a policy.
    pub(in super::super) fn with(table: u32, policy: Option<Arc<NetworkPolicy>>) -> Snapshot {
        let mut snapshot = Snapshot::example(true);
        let interface = snapshot.interfaces.get_mut(&3).unwrap();
        interface.names = table;
        interface.egress.policies.extend(policy);
        snapshot
    }

    fn new(pods: &mut NamedPods, snapshot: &Snapshot, live: &[&str]) -> Vec<String> {
        let live = |_| live.iter().map(|name| place(name)).collect();
        let new = pods.follow(snapshot, live).into_iter();
        new.map(|it| podgate_core::compiler::name_text(&it.name)).collect()
    }

    #[test]
    fn names_are_new_when_a_rule_with_them_comes_to_a_pod_that_runs() {
        let mut pods = NamedPods::default();
        let one = with(5, Some(policy(&["a.test", "*.b.test"])));
        assert_eq!(new(&mut pods, &with(0, None), &[]), [""; 0]);
        assert_eq!(new(&mut pods, &one, &["a.test"]), ["a.test"]);
        assert_eq!(new(&mut pods, &one, &[]), [""; 0]);
        let two = with(5, Some(policy(&["a.test", "c.test", "*.b.test"])));
        assert_eq!(new(&mut pods, &two, &[]), ["c.test"]);
        assert!(pods.has((3, 5), &place("c.test")) && pods.has((3, 5), &place("x.b.test")));
        assert!(!pods.has((3, 6), &place("c.test")) && !pods.has((4, 5), &place("c.test")));
        assert_eq!(new(&mut pods, &one, &[]), [""; 0]);
        assert!(!pods.has((3, 5), &place("c.test")), "its rule has gone");
        assert_eq!(new(&mut pods, &two, &[]), ["c.test"], "it has come back");
    }

    #[test]
    fn at_the_start_names_are_new_of_which_nothing_is_known() {
        let both = with(5, Some(policy(&["a.test", "c.test"])));
        let mut pods = NamedPods::default();
        let mut starting = both.clone();
        starting.progress.ready = false;
        assert_eq!(new(&mut pods, &starting, &[]), [""; 0]);
        assert_eq!(new(&mut pods, &both, &["a.test"]), ["c.test"]);
    }

    #[test]
    fn a_pod_that_was_not_there_before_has_no_cache() {
        let both = with(5, Some(policy(&["a.test", "c.test"])));
        let mut nothing = both.clone();
        let of_pod = nothing.interfaces.remove(&3);
        let mut held = both.clone();
        held.interfaces.get_mut(&3).unwrap().veth.state = InterfaceState::Pending;
        let mut unmanaged = both.clone();
        unmanaged.interfaces.get_mut(&3).unwrap().veth.state = InterfaceState::Unmanaged;
        assert!(of_pod.is_some());
        for (before, expected) in [(&nothing, &[][..]), (&held, &[]), (&unmanaged, &["a.test", "c.test"])] {
            let mut pods = NamedPods::default();
            assert_eq!(new(&mut pods, before, &[]), [""; 0]);
            assert_eq!(new(&mut pods, &both, &[]), expected);
        }
    }

    #[test]
    fn another_pod_behind_the_same_veth_is_another_one() {
        let one = with(5, Some(policy(&["a.test"])));
        let mut pods = NamedPods::default();
        assert_eq!(new(&mut pods, &one, &["a.test"]), [""; 0]);
        let mut other = one.clone();
        other.interfaces.get_mut(&3).unwrap().names = 6;
        assert_eq!(new(&mut pods, &other, &[]), ["a.test"], "a table is new and empty");
    }
}
