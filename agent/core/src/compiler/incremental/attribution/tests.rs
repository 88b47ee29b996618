//! A cache that is kept answers as one that knows nothing, whatever changed in between.

use std::collections::BTreeMap;

use podgate_common::Protocol;
use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::{
    compiler::CompileInput,
    fixtures::{cluster, from, has, policy, port},
    model::{NetworkPolicy, ObjectName, Peer, PortRule, Selector},
};

/// How many rules a policy has for ingress and for egress, and whether it is in audit mode.
type PolicyForm = (usize, usize, bool);

/// One thing that changes between two revisions.
#[derive(Clone, Debug)]
enum Change {
    Policy(usize, Option<PolicyForm>),
    /// Whether a pod is on the node.
    Pod(usize, bool),
}

const POLICIES: usize = 3;
const PODS: [&str; 2] = ["a", "b"];
const ENDS: [(&str, u16); 5] =
    [("10.0.0.1", 80), ("10.0.0.2", 82), ("10.0.0.2", 8080), ("10.0.0.4", 80), ("10.0.0.4", 8080)];

fn change() -> impl Strategy<Value = Change> {
    let form = option::weighted(0.8, (0_usize..4, 0_usize..4, any::<bool>()));
    prop_oneof![
        (0..POLICIES, form).prop_map(|(place, form)| Change::Policy(place, form)),
        (0..PODS.len(), any::<bool>()).prop_map(|(place, present)| Change::Pod(place, present)),
    ]
}

/// Rules by ports, by names of ports and by peers.
fn rules(place: usize, count: usize) -> Vec<Rule> {
    let number = 80 + u16::try_from(place).unwrap();
    let rules = [
        port(PortRule::Range { protocol: Protocol::Tcp, first: number, last: number }),
        port(PortRule::Named(Some(Protocol::Tcp), "http".into())),
        from(Peer::Pods { namespaces: None, pods: has("role", "frontend") }),
    ];
    rules.into_iter().cycle().skip(place).take(count).collect()
}

fn policies(forms: &[Option<PolicyForm>]) -> Vec<NetworkPolicy> {
    let of = |(place, form): (usize, &Option<PolicyForm>)| {
        let (ingress, egress, audit) = (*form)?;
        let subject = if place == 0 { has("role", "backend") } else { Selector::EVERYTHING };
        let named = format!("p{place}");
        let policy = policy(&named, Some(rules(place, ingress)), Some(rules(place, egress)));
        Some(NetworkPolicy { audit, subject, ..policy })
    };
    forms.iter().enumerate().filter_map(of).collect()
}

proptest! {
    #[test]
    fn a_kept_answer_is_the_one_that_would_be_found_now(
        changes in vec((change(), vec(any::<bool>(), ENDS.len())), 8..20),
    ) {
        let (mut compiler, mut kept) = (Incremental::default(), MatchCache::default());
        let mut snapshots: Vec<(PolicySnapshot, PolicySnapshot)> = Vec::new();
        let (mut forms, mut present) = ([Some((1, 1, false)); POLICIES], [true; PODS.len()]);
        for (change, talks) in changes {
            match change {
                Change::Policy(place, form) => forms[place] = form,
                Change::Pod(place, is_present) => present[place] = is_present,
            }
            let cluster = cluster(policies(&forms));
            let pods = PODS.map(|name| cluster.pods[&ObjectName::new("x", name)].clone());
            let subjects: BTreeMap<_, _> = pods.iter().zip(&present).filter(|(_, present)| **present)
                .map(|(pod, _)| (pod.name.clone(), pod.clone())).collect();
            let step = CompileInput { cluster: &cluster, site: None, subjects: &subjects, retained: &[] };
            compiler.compile(&step);
            let mut fresh = Incremental::default();
            fresh.compile(&step);
            snapshots.push((compiler.policy_snapshot(), fresh.policy_snapshot()));
            // An event may come after the next change, and from a pod that has just gone.
            for (snapshot, fresh) in snapshots.iter().rev().take(2) {
                for (pod, direction) in pods.iter().flat_map(|pod| Direction::ALL.map(|it| (pod, it))) {
                    for ((peer, port), _) in ENDS.into_iter().zip(&talks).filter(|(_, talks)| **talks) {
                        let peer = peer.parse().unwrap();
                        let protocol = Protocol::Tcp.into();
                        let query = ConnectionQuery { pod, direction, peer, protocol, port, is_service: false, names: &[] };
                        let mut work = WorkLimit::of(usize::MAX);
                        let found = snapshot.matches(&query, &mut kept, &mut work);
                        prop_assert_eq!(found, fresh.matches(&query, &mut MatchCache::default(), &mut work));
                    }
                }
            }
        }
    }
}

#[test]
fn a_change_forgets_what_was_known_of_the_pods_that_it_touches_alone() {
    let of = |role: &str, count| NetworkPolicy {
        subject: has("role", role),
        ..policy(role, Some(rules(0, count)), None)
    };
    let (mut compiler, mut kept) = (Incremental::default(), MatchCache::default());
    // Numbers of rules, which distinguish the same ports; whether the answer about a frontend is known.
    for (frontend, backend, is_known) in [(3, 1, false), (3, 0, true), (3, 1, true), (2, 1, false)] {
        let cluster = cluster(vec![of("frontend", frontend), of("backend", backend)]);
        let subjects = PODS.map(|name| cluster.pods[&ObjectName::new("x", name)].clone());
        let subjects: BTreeMap<_, _> = subjects.into_iter().map(|pod| (pod.name.clone(), pod)).collect();
        compiler.compile(&CompileInput { cluster: &cluster, site: None, subjects: &subjects, retained: &[] });
        let query = ConnectionQuery {
            pod: &subjects[&ObjectName::new("x", "a")],
            direction: Direction::Ingress,
            peer: "10.0.0.4".parse().unwrap(),
            protocol: Protocol::Tcp.into(),
            port: 80,
            is_service: false,
            names: &[],
        };
        let mut work = WorkLimit::of(MAKING);
        let found = compiler.policy_snapshot().matches(&query, &mut kept, &mut work).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(work.is_left(), is_known, "{frontend} {backend}");
    }
}
