//! What a connection is credited to is what `explain` names, on generated clusters: the same policies, the
//! same rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use podgate_common::{Direction, Protocol};
use podgate_core::{
    compiler::{CompileInput, ConnectionQuery, Incremental, MatchCache, PolicySnapshot, WorkLimit},
    explain::{DirectionResult, EndpointRef, Question, Unanswerable, explain},
    model::{Action, Cluster, ClusterPolicyName, ObjectName, Pod, PolicyName},
    port_spec::PortSpec,
};
use podgate_testkit::{
    generate::{Entries, cluster},
    manifest::Form,
};
use proptest::{prelude::*, test_runner::TestCaseError};
use serde_json::Value;

use crate::{
    answers::{Layout, read},
    runner::check,
};

const CLUSTERS: u32 = 300;
const PORTS: [u16; 4] = [53, 80, 8080, 9000];

/// Objects, and which policies are in audit mode.
type Sample = (Vec<Value>, Vec<bool>);

#[test]
fn a_connection_is_credited_to_the_rules_that_explain_names() {
    let audit = || prop::collection::vec(prop::bool::weighted(0.3), 8);
    check(CLUSTERS, || (cluster(Entries::SomeInvalid), audit()), agrees, |sample| format!("{sample:#?}"));
}

fn agrees((objects, audit): &Sample) -> Result<(), TestCaseError> {
    let picture = read(objects, Layout::File(Form::JsonList));
    let mut cluster = Cluster::clone(&picture.cluster);
    for (name, audit) in cluster.policies.clone().keys().zip(audit.iter().cycle()) {
        Arc::make_mut(&mut cluster.policies[name]).audit = *audit;
    }
    for (name, audit) in cluster.cluster_policies.clone().keys().zip(audit.iter().rev().cycle()) {
        Arc::make_mut(&mut cluster.cluster_policies[name]).audit = *audit;
    }
    let subjects: BTreeMap<ObjectName, Arc<Pod>> =
        cluster.pods.iter().map(|(name, pod)| (name.clone(), pod.clone())).collect();
    let mut compiler = Incremental::default();
    let step = CompileInput { cluster: &cluster, site: None, subjects: &subjects, retained: &[] };
    compiler.compile(&step);
    let policy_snapshot = compiler.policy_snapshot();
    for pod in subjects.values().filter(|pod| !pod.host_network && !pod.addresses.is_empty()) {
        for peer in subjects.values().filter(|peer| peer.name != pod.name) {
            for direction in Direction::ALL {
                for (peer, port) in peer.addresses.iter().flat_map(|peer| PORTS.map(|port| (*peer, port))) {
                    one(&cluster, &policy_snapshot, pod, direction, peer, port)?;
                }
            }
        }
    }
    Ok(())
}

fn one(
    cluster: &Cluster,
    policy_snapshot: &PolicySnapshot,
    pod: &Pod,
    direction: Direction,
    peer: IpAddr,
    port: u16,
) -> Result<(), TestCaseError> {
    let protocol = Protocol::Tcp.into();
    let met = ConnectionQuery { pod, direction, peer, protocol, port, is_service: false, names: &[] };
    let (mut cache, mut work) = (MatchCache::default(), WorkLimit::of(usize::MAX));
    let matches = policy_snapshot.matches(&met, &mut cache, &mut work).expect("there is work left");
    let whole = with_audit_enforced(cluster);
    for (cluster, in_audit) in [(cluster, false), (&whole, true)] {
        let Some(side) = side(cluster, pod, direction, peer, port)? else { continue };
        // A rule that passes decides nothing for `explain`.
        let rules = side.cluster_policies.iter().flat_map(|policy| &policy.rules);
        let passes = rules.filter(|rule| rule.action == Action::Pass).any(|rule| rule.trace.matched);
        let counts = |name: &PolicyName| !passes || matches!(name, PolicyName::Namespaced(_));
        let credited: BTreeMap<&PolicyName, &BTreeSet<usize>> = matches
            .iter()
            .filter(|matches| matches.audit == in_audit && counts(&matches.policy))
            .map(|matches| (&matches.policy, &matches.matched))
            .collect();
        let audited =
            |name: &PolicyName| matches.iter().any(|matches| matches.audit && matches.policy == *name);
        let mut named = named(&side);
        named.retain(|name, _| counts(name));
        for (policy, rules) in &named {
            if audited(policy) == in_audit {
                prop_assert_eq!(credited.get(policy), Some(&rules), "{} {:?}", policy, side);
            }
        }
        for (policy, rules) in credited {
            prop_assert_eq!(named.get(policy), Some(rules), "{} {:?}", policy, side);
        }
    }
    Ok(())
}

/// The same cluster with all policies enforced.
fn with_audit_enforced(cluster: &Cluster) -> Cluster {
    let mut enforced = cluster.clone();
    for name in cluster.policies.keys() {
        Arc::make_mut(&mut enforced.policies[name]).audit = false;
    }
    for name in cluster.cluster_policies.keys() {
        Arc::make_mut(&mut enforced.cluster_policies[name]).audit = false;
    }
    enforced
}

/// What the side of a pod says by `explain`; `None`: the two cannot talk.
pub(crate) fn side(
    cluster: &Cluster,
    pod: &Pod,
    direction: Direction,
    peer: IpAddr,
    port: u16,
) -> Result<Option<DirectionResult>, TestCaseError> {
    let (own, other) = (EndpointRef::Pod(pod.name.clone()), EndpointRef::Address(peer));
    let (from, to) = if direction == Direction::Egress { (own, other) } else { (other, own) };
    let port = PortSpec::number(Protocol::Tcp, port);
    match explain(cluster, &Question { from, to, port }) {
        Ok(answer) if answer.pairs.is_empty() || answer.backends.is_some() => Ok(None),
        Ok(answer) if direction == Direction::Egress => Ok(Some(answer.egress)),
        Ok(answer) => Ok(Some(answer.ingress)),
        Err(Unanswerable::NoSuchPort { .. }) => Ok(None),
        Err(error) => Err(TestCaseError::fail(error.to_string())),
    }
}

/// The policies that were asked, and the rules that settle or pass on.
fn named(side: &DirectionResult) -> BTreeMap<PolicyName, BTreeSet<usize>> {
    let mut named = BTreeMap::new();
    let mut settled = false;
    for policy in &side.cluster_policies {
        let decided: BTreeSet<usize> = policy.decided.iter().copied().collect();
        settled |= !decided.is_empty() && policy.tier == podgate_core::model::Tier::Admin;
        if !decided.is_empty() {
            let name = ClusterPolicyName { name: policy.name.clone(), kind: policy.kind };
            named.insert(PolicyName::Cluster(name), decided);
        }
    }
    if !settled {
        for policy in &side.policies {
            let name = ObjectName::new(policy.namespace.clone(), policy.name.clone());
            named.insert(PolicyName::Namespaced(name), policy.matched.iter().copied().collect());
        }
    }
    named
}
