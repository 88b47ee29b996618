//! Policies of Calico's that are converted: what takes their place has the verdicts that Calico's documents
//! give the originals, for all pods, ports and addresses outside, beside whatever was left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use podgate::source::ClusterSnapshot;
use podgate_core::{
    convert::{Conversion, convert},
    model::{CalicoPolicy, Cluster},
};
use podgate_testkit::{
    generate::{Entries, cluster, outside, ports, with_calico, with_plain_calico},
    manifest::{Form, write},
    naive,
};
use proptest::{prelude::*, strategy::BoxedStrategy, test_runner::TestCaseError};
use serde_json::Value;

use crate::{
    answers::{Compiled, Layout, matrix_of, read},
    outside,
    runner::check,
};

const CLUSTERS: u32 = 2_000;

type Sample = (Vec<Value>, Vec<&'static str>, Vec<IpAddr>);

fn samples() -> BoxedStrategy<Sample> {
    let clusters = prop_oneof![
        6 => with_plain_calico(cluster(Entries::Valid)).boxed(),
        1 => with_calico(cluster(Entries::Valid)).boxed(),
    ];
    (clusters, ports(), outside()).boxed()
}

#[test]
fn what_takes_the_place_of_policies_of_calico_has_their_verdicts() {
    let (network_policies, cluster_policies, mixed) =
        (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let property = |(objects, ports, addresses): &Sample| {
        let read = read(objects, Layout::File(Form::JsonList));
        let conversion = conversion(&read);
        let is_mixed = !conversion.converted.is_empty() && !conversion.left_out.is_empty();
        for (count, more) in [
            (&network_policies, conversion.network_policies.len()),
            (&cluster_policies, conversion.cluster_policies.len()),
            (&mixed, usize::from(is_mixed)),
        ] {
            count.fetch_add(more, Ordering::Relaxed);
        }
        every_object_is_accounted_for(&read.cluster, &conversion)?;
        let converted = in_place(&read.cluster, &conversion);
        prop_assert_eq!(matrix_of(&converted, ports), naive::matrix(objects, ports));
        outside::agrees(&Compiled::new(&converted), objects, addresses)
    };
    check(CLUSTERS, samples, property, |(objects, ports, _)| {
        let read = read(objects, Layout::File(Form::JsonList));
        let conversion = conversion(&read);
        format!("ports {ports:?}\n{conversion:#?}\n{}", write(objects, Form::YamlDocuments))
    });
    let [network_policies, cluster_policies, mixed] =
        [network_policies, cluster_policies, mixed].map(AtomicUsize::into_inner);
    println!(
        "{network_policies} NetworkPolicies, {cluster_policies} cluster-wide; {mixed} clusters are mixed"
    );
    let least = CLUSTERS as usize / 10;
    assert!(network_policies > least && cluster_policies > least && mixed > least / 2);
}

fn conversion(read: &ClusterSnapshot) -> Conversion {
    let problems = read.problems.iter();
    let faulty: BTreeMap<String, (String, String)> = problems
        .map(|problem| (problem.object.clone(), (problem.field.clone(), problem.message.clone())))
        .collect();
    convert(&read.cluster, &faulty)
}

/// The converted ones in the place of the originals.
fn in_place(cluster: &Cluster, conversion: &Conversion) -> Cluster {
    let mut cluster = cluster.clone();
    let converted: BTreeSet<*const CalicoPolicy> = conversion.converted.iter().map(Arc::as_ptr).collect();
    for store in [&mut cluster.calico.v3, &mut cluster.calico.v1] {
        let left = store.policies.iter().filter(|(_, policy)| !converted.contains(&Arc::as_ptr(policy)));
        store.policies = left.map(|(name, policy)| (name.clone(), policy.clone())).collect();
    }
    for policy in &conversion.network_policies {
        cluster.policies.insert(policy.name.clone(), Arc::new(policy.clone()));
    }
    for policy in &conversion.cluster_policies {
        cluster.cluster_policies.insert(policy.name.clone(), Arc::new(policy.clone()));
    }
    cluster
}

/// A policy is converted, or left out with a reason.
fn every_object_is_accounted_for(cluster: &Cluster, conversion: &Conversion) -> Result<(), TestCaseError> {
    let left_out: BTreeSet<&str> = conversion.left_out.iter().map(|it| it.object.as_str()).collect();
    for policy in cluster.calico.policies() {
        let is_converted = conversion.converted.iter().any(|converted| Arc::ptr_eq(converted, policy));
        prop_assert_ne!(is_converted, left_out.contains(&*policy.name.to_string()), "{}", policy.name);
    }
    let written = conversion.network_policies.len() + conversion.cluster_policies.len();
    prop_assert_eq!(written, conversion.converted.len());
    prop_assert!(conversion.left_out.iter().all(|left_out| !left_out.reason.is_empty()));
    Ok(())
}
