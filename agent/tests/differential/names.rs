//! Rules with names of the DNS: what a pod has learnt opens what the specification says, among rules that
//! deny and pass on, NetworkPolicies and Calico's tiers, also in the words of AWS and GKE.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use podgate_common::Protocol;
use podgate_core::{
    explain::{Question, Verdict, explain},
    matrix::{MatrixScope, PairVerdict, name_matrix},
    model::ObjectName,
    port_spec::PortSpec,
};
use podgate_testkit::{
    generate::{Entries, cluster, learnt, outside, with_calico, with_cloud_names, with_names},
    manifest::{Form, write},
    naive,
};
use proptest::{prelude::*, test_runner::TestCaseError};
use serde_json::Value;

use crate::{
    answers::{Compiled, Layout, read},
    outside::{PORTS, pods, to_outside},
    runner::check,
};

const CLUSTERS: u32 = 1_000;

type Learnt = Vec<(&'static str, IpAddr)>;
type Sample = (Vec<Value>, Learnt, Vec<IpAddr>);

#[test]
fn names_open_what_the_specification_says() {
    agree(|| (with_names(cluster(Entries::Valid)), learnt(), outside()));
}

#[test]
fn names_open_what_the_specification_says_among_policies_of_calico() {
    agree(|| (with_names(with_calico(cluster(Entries::Valid))), learnt(), outside()));
}

#[test]
fn names_in_rules_of_aws_and_gke_open_what_their_definitions_say() {
    agree(|| (with_cloud_names(cluster(Entries::Valid)), learnt(), outside()));
}

#[test]
fn the_matrix_of_names_says_what_explain_says_of_each() {
    let asked = AtomicUsize::new(0);
    let ports: BTreeSet<PortSpec> = ["TCP/80", "TCP/443", "UDP/53"].map(|port| port.parse().unwrap()).into();
    let agrees = |objects: &Vec<Value>| {
        let cluster = read(objects, Layout::File(Form::JsonList)).cluster;
        let matrix = name_matrix(&cluster, &ports, &MatrixScope::default());
        for (port, rows) in &matrix.ports {
            for (pod, row) in rows {
                for (name, verdict) in matrix.names.iter().zip(&row.0) {
                    let reaches = |name: &str| {
                        let to = format!("name:{name}").parse().unwrap();
                        let question = Question { from: pod.parse().unwrap(), to, port: port.clone() };
                        explain(&cluster, &question).expect("an answer").verdict == Verdict::Allow
                    };
                    // A wildcard is no name: those below it that no rule has.
                    let is_reached = match (name.strip_prefix("*."), name.strip_suffix(" (one label)")) {
                        (None, _) => reaches(name),
                        (Some(_), Some(one)) => reaches(&one.replace('*', "no-rules")),
                        (Some(_), None) => {
                            reaches(&name.replace('*', "no-rules"))
                                && reaches(&name.replace('*', "a.no-rules"))
                        }
                    };
                    let expected = if is_reached { PairVerdict::Allowed } else { PairVerdict::Denied };
                    asked.fetch_add(1, Ordering::Relaxed);
                    prop_assert_eq!(*verdict, expected, "{} to {} on {}", pod, name, port);
                }
            }
        }
        Ok(())
    };
    let describe = |objects: &Vec<Value>| write(objects, Form::YamlDocuments);
    // Not both in one: of more than four parts between which others decide, `explain` knows nothing.
    check(CLUSTERS / 2, || with_names(cluster(Entries::Valid)), agrees, describe);
    check(CLUSTERS / 2, || with_cloud_names(cluster(Entries::Valid)), agrees, describe);
    assert!(asked.into_inner() > 10_000, "names were asked about");
}

fn agree<S: Strategy<Value = Sample>>(samples: impl Fn() -> S + Sync) {
    let opened = AtomicUsize::new(0);
    check(CLUSTERS, samples, |sample| agrees(sample, &opened), describe);
    let opened = opened.into_inner();
    println!("names opened {opened} connections");
    assert!(opened > 200, "names opened {opened} connections");
}

/// Every other pod has learnt everything, so that what one knows is no other one's.
fn agrees((objects, facts, addresses): &Sample, opened: &AtomicUsize) -> Result<(), TestCaseError> {
    let picture = read(objects, Layout::File(Form::JsonList));
    let compiled = Compiled::new(&picture.cluster);
    let pods = pods(objects);
    let learns = |pod: &ObjectName| pods.iter().position(|other| other == pod).is_some_and(|at| at % 2 == 0);
    let known = pods.iter().filter(|pod| learns(pod)).flat_map(|pod| {
        facts.iter().map(move |(name, address)| naive::learnt(&pod.to_string(), name, *address))
    });
    let objects: Vec<Value> = objects.iter().cloned().chain(known).collect();
    let all: Vec<IpAddr> =
        addresses.iter().copied().chain(facts.iter().map(|(_, address)| *address)).collect();
    for pod in &pods {
        let facts: &[_] = if learns(pod) { facts } else { &[] };
        for (address, port) in
            all.iter().flat_map(|address| PORTS.map(|port: (Protocol, u16)| (*address, port)))
        {
            let question = to_outside(pod, address, port);
            let seen = compiled.opens(pod, facts, address, port);
            prop_assert_eq!(seen, question.is_allowed(&objects), "{}", question);
            let by_address = compiled.opens(pod, &[], address, port);
            opened.fetch_add(usize::from(seen && !by_address), Ordering::Relaxed);
        }
    }
    Ok(())
}

fn describe((objects, facts, addresses): &Sample) -> String {
    format!("learnt {facts:?}, addresses {addresses:?}\n{}", write(objects, Form::YamlDocuments))
}
