//! Addresses that no pod has: the compiled prefixes are what the specification says of ipBlocks, and so is
//! `explain`.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use podgate_common::{Direction, Protocol};
use podgate_core::{compiler::TableLimits, model::ObjectName};
use podgate_testkit::{
    generate::{Entries, cluster, outside},
    manifest::{Form, write},
    naive::{ResolvedEndpoint, matrix},
    question::Question,
};
use proptest::{prelude::*, test_runner::TestCaseError};
use serde_json::Value;

use crate::{
    answers::{Compiled, Layout, explained, read},
    runner::check,
};

const CLUSTERS: u32 = 1_000;
pub(crate) const PORTS: [(Protocol, u16); 3] =
    [(Protocol::Tcp, 80), (Protocol::Udp, 53), (Protocol::Sctp, 80)];

type Sample = (Vec<Value>, Vec<IpAddr>);

fn samples() -> impl Strategy<Value = Sample> {
    (cluster(Entries::SomeInvalid), outside())
}

#[test]
fn compiled_prefixes_have_the_verdicts_of_the_specification() {
    check(CLUSTERS, samples, compiled_agrees, describe);
}

#[test]
fn explain_has_the_verdicts_of_the_specification_for_pods_nodes_and_outside() {
    check(CLUSTERS / 4, samples, explain_agrees, describe);
}

/// So narrow that most clusters have rule sets that must be closed, and others.
#[test]
fn rule_sets_that_a_limit_closes_allow_nothing_and_all_others_what_the_specification_says() {
    let node = TableLimits::NODE;
    let (closed, open) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let property = |(objects, addresses): &Sample| {
        let picture = read(objects, Layout::File(Form::JsonList));
        for limits in [
            TableLimits { classes: 4, ..node },
            TableLimits { memberships: 4, ..node },
            TableLimits { rows: 3, ..node },
            TableLimits { labels: 3, ..node },
        ] {
            let compiled = Compiled::within(&limits, &picture.cluster);
            agrees(&compiled, objects, addresses)?;
            let sides = pods(objects).into_iter().flat_map(|pod| {
                [Direction::Ingress, Direction::Egress].map(|direction| (pod.clone(), direction))
            });
            for (pod, direction) in sides {
                let count = if compiled.is_closed(&pod, direction) { &closed } else { &open };
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    };
    check(CLUSTERS / 4, samples, property, describe);
    let (closed, open) = (closed.into_inner(), open.into_inner());
    println!("{closed} sides of pods were closed, {open} were not");
    assert!(closed > 100 && open > 100, "{closed} were closed, {open} were not");
}

fn compiled_agrees((objects, addresses): &Sample) -> Result<(), TestCaseError> {
    let picture = read(objects, Layout::File(Form::JsonList));
    agrees(&Compiled::new(&picture.cluster), objects, addresses)
}

/// `objects`: what the specification is asked about.
pub(crate) fn agrees(
    compiled: &Compiled<'_>,
    objects: &[Value],
    addresses: &[IpAddr],
) -> Result<(), TestCaseError> {
    for pod in pods(objects) {
        for (address, port) in addresses.iter().flat_map(|address| PORTS.map(|port| (*address, port))) {
            for direction in [Direction::Ingress, Direction::Egress] {
                let question = between(&pod, direction, address, port);
                let seen = compiled.allows(&pod, direction, address, port);
                let expected = !compiled.is_closed(&pod, direction) && question.is_allowed(objects);
                prop_assert_eq!(seen, expected, "{}", question);
            }
        }
    }
    Ok(())
}

fn explain_agrees((objects, addresses): &Sample) -> Result<(), TestCaseError> {
    let picture = read(objects, Layout::File(Form::JsonList));
    let pods: Vec<ResolvedEndpoint> = pods(objects).iter().map(party).collect();
    let others = addresses.iter().map(|address| ResolvedEndpoint::Address(*address));
    let nodes = ["n1", "n2"].map(|name| ResolvedEndpoint::Node(name.into()));
    let node_address = ResolvedEndpoint::Address(IpAddr::from([10, 10, 0, 1]));
    let pod_address = ResolvedEndpoint::Address(IpAddr::from([10, 0, 0, 1]));
    let peers: Vec<ResolvedEndpoint> =
        pods.iter().cloned().chain(others).chain(nodes).chain([node_address, pod_address]).collect();
    for (index, pod) in pods.iter().enumerate() {
        for (turn, peer) in peers.iter().enumerate() {
            let (protocol, port) = PORTS[(index + turn) % PORTS.len()];
            for (from, to) in [(pod, peer), (peer, pod)] {
                let (from, to) = (from.clone(), to.clone());
                let question = Question { from, to, protocol: protocol.to_string(), port };
                let seen = explained(&picture.cluster, &question);
                prop_assert_eq!(seen, question.is_allowed(objects), "{}", question);
            }
        }
    }
    Ok(())
}

/// The pods that the matrix is about.
pub(crate) fn pods(objects: &[Value]) -> Vec<ObjectName> {
    let seen = matrix(objects, &[]);
    let names = seen["pods"].as_array().expect("the form of the matrix").iter();
    names
        .map(|name| name.as_str().and_then(|name| name.split_once('/')).expect("a pod is NAMESPACE/NAME"))
        .map(|(namespace, name)| ObjectName::new(namespace, name))
        .collect()
}

pub(crate) fn to_outside(pod: &ObjectName, outside: IpAddr, port: (Protocol, u16)) -> Question {
    between(pod, Direction::Egress, outside, port)
}

fn between(
    pod: &ObjectName,
    direction: Direction,
    outside: IpAddr,
    (protocol, port): (Protocol, u16),
) -> Question {
    let (pod, outside) = (party(pod), ResolvedEndpoint::Address(outside));
    let (from, to) = match direction {
        Direction::Ingress => (outside, pod),
        Direction::Egress => (pod, outside),
    };
    Question { from, to, protocol: protocol.to_string(), port }
}

fn party(pod: &ObjectName) -> ResolvedEndpoint {
    ResolvedEndpoint::Pod { namespace: pod.namespace.to_string(), name: pod.name.to_string() }
}

fn describe((objects, addresses): &Sample) -> String {
    format!("addresses {addresses:?}\n{}", write(objects, Form::YamlDocuments))
}
