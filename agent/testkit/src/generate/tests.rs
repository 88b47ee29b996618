//! What generated clusters say, and how often.

use std::collections::BTreeMap;

use proptest::{
    strategy::ValueTree,
    test_runner::{Config, RngSeed, TestRunner},
};

use super::*;
use crate::{
    manifest,
    naive::{ResolvedEndpoint, backends, destinations, matrix},
};

fn clusters(entries: Entries, count: usize) -> Vec<Vec<Value>> {
    let mut runner = TestRunner::new(Config { rng_seed: RngSeed::Fixed(7), ..Config::default() });
    let strategy = cluster(entries);
    (0..count).map(|_| strategy.new_tree(&mut runner).expect("nothing is rejected").current()).collect()
}

#[test]
fn a_seed_names_the_same_clusters_each_time() {
    assert_eq!(clusters(Entries::SomeInvalid, 5), clusters(Entries::SomeInvalid, 5));
}

#[test]
fn placed_clusters_have_a_pod_for_every_place_on_alternating_nodes() {
    let mut runner = TestRunner::new(Config { rng_seed: RngSeed::Fixed(7), ..Config::default() });
    for _ in 0..20 {
        let objects = placed_cluster().new_tree(&mut runner).expect("nothing is rejected").current();
        let pods: Vec<_> = objects.iter().filter(|object| object["kind"] == "Pod").collect();
        assert_eq!(pods.len(), places().count());
        for (slot, pod) in pods.iter().enumerate() {
            assert_eq!(pod["spec"]["nodeName"], NODES[slot % NODES.len()].0);
        }
    }
}

#[test]
fn clusters_say_everything_that_policies_can_say() {
    let text =
        format!("{:?}", manifest::write(&clusters(Entries::Valid, 200).concat(), manifest::Form::YamlFlow))
            .replace('\\', "");
    for part in [
        r#""operator":"In""#,
        r#""operator":"NotIn""#,
        r#""operator":"Exists""#,
        r#""operator":"DoesNotExist""#,
        r#""podSelector":{}"#,
        r#""podSelector":null"#,
        r#""namespaceSelector":{}"#,
        r#""matchLabels""#,
        "kubernetes.io/metadata.name",
        r#""policyTypes":[]"#,
        r#""policyTypes":null"#,
        r#""policyTypes":["Egress"]"#,
        r#""policyTypes":["Ingress","Egress"]"#,
        r#""ingress":[]"#,
        r#""egress":[]"#,
        r#""ingress":null"#,
        r#""from":[]"#,
        r#""to":[]"#,
        r#""from":null"#,
        r#""ports":[]"#,
        r#""ports":[{}"#,
        r#""endPort""#,
        r#""protocol":"SCTP""#,
        r#""port":"http""#,
        r#""except":[]"#,
        r#""except":["10."#,
        r#""except":["fd00"#,
        "/0\"",
        "/32\"",
        "/128\"",
        r#""cidr":"010."#,
        r#""cidr":"::ffff:10."#,
        r#""hostNetwork":true"#,
        r#""restartPolicy":"Always""#,
        r#""phase":"Failed""#,
        r#""phase":"Pending""#,
        "deletionTimestamp",
        r#""cidr":"10.96.0."#,
        r#""clusterIP":"10.96.0."#,
        r#""clusterIP":"fd96::"#,
        r#""clusterIP":"None""#,
        r#""clusterIPs":["10.96.0.1","fd96::1"]"#,
        r#""clusterIPs":["fd96::1","10.96.0.1"]"#,
        r#""type":"ExternalName""#,
        r#""type":"LoadBalancer""#,
        r#""type":"NodePort""#,
        r#""nodePort":300"#,
        r#""externalIPs":["198.51.100."#,
        r#""ipMode":"Proxy""#,
        r#""ipMode":"VIP""#,
        r#""internalTrafficPolicy":"Local""#,
        r#""sessionAffinity":"ClientIP""#,
        r#""targetPort":"http""#,
        r#""targetPort":8080"#,
        r#""publishNotReadyAddresses":true"#,
        r#""addressType":"IPv6""#,
        r#""addressType":"FQDN""#,
        r#""ready":false"#,
        r#""serving":true,"terminating":true"#,
        r#""endpoints":null"#,
        r#""addresses":["203.0.113.9"]"#,
        r#""addresses":["10.10.0.1"]"#,
        "service.kubernetes.io/headless",
        r#""tier":"Admin""#,
        r#""tier":"Baseline""#,
        r#""kind":"AdminNetworkPolicy""#,
        r#""kind":"BaselineAdminNetworkPolicy""#,
        r#""action":"Accept""#,
        r#""action":"Deny""#,
        r#""action":"Pass""#,
        r#""action":"Allow""#,
        r#""networks":["#,
        r#""nodes":{}"#,
        r#""tcp":{}"#,
        r#""destinationNamedPort":"http""#,
        r#""range":{"end""#,
        r#""namedPort":"#,
    ] {
        assert!(text.contains(part), "no cluster has {part}");
    }
}

#[test]
fn verdicts_are_neither_all_open_nor_all_denied() {
    let mut counts: BTreeMap<char, usize> = BTreeMap::new();
    for objects in clusters(Entries::SomeInvalid, 200) {
        let seen = matrix(&objects, PORTS);
        for row in
            seen["ports"].as_object().into_iter().flatten().flat_map(|(_, rows)| rows.as_object()).flatten()
        {
            for character in row.1.as_str().expect("a row is text").chars() {
                *counts.entry(character).or_default() += 1;
            }
        }
    }
    let all: usize = counts.values().sum();
    for character in ['.', 'X', '-'] {
        assert!(counts[&character] * 20 > all, "{character} is too rare: {counts:?}");
    }
}

#[test]
fn backends_of_services_are_all_allowed_none_allowed_and_mixed() {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for objects in clusters(Entries::Valid, 300) {
        let pods =
            objects.iter().filter(|object| object["kind"] == "Pod" && object["status"]["phase"] == "Running");
        for pod in pods {
            let text = |pointer| pod.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
            let namespace = text("/metadata/namespace").unwrap_or_else(|| "default".into());
            let name = text("/metadata/name").expect("generated pods have names");
            let node = text("/spec/nodeName").expect("generated pods have nodes");
            let client = ResolvedEndpoint::Pod { namespace, name };
            for destination in destinations(&objects, &node) {
                let found = backends(&objects, &client, &destination).expect("a service answers there");
                let allowed = found.iter().filter(|backend| backend.egress).count();
                let sort = match (found.len(), allowed) {
                    (0, _) => "no backend",
                    (all, allowed) if all == allowed => "all",
                    (_, 0) => "none",
                    _ => "mixed",
                };
                *counts.entry(sort).or_default() += 1;
            }
        }
    }
    let all: usize = counts.values().sum();
    for sort in ["no backend", "all", "none", "mixed"] {
        let count = counts.get(sort).copied().unwrap_or(0);
        assert!(count * 100 > all, "{sort} is too rare: {counts:?}");
    }
}

#[test]
fn the_large_cluster_is_as_large_as_it_says() {
    let objects = large(1_000);
    let text = manifest::write(&objects, manifest::Form::YamlFlow);
    let kind = |kind| objects.iter().filter(|object| object["kind"] == kind).count();
    assert_eq!((kind("Pod"), kind("NetworkPolicy")), (1_000, 500));
    let distinct = |field: &str| {
        let after = text.split(field).skip(1);
        after
            .filter_map(|rest| rest.split([',', '}']).next())
            .collect::<std::collections::BTreeSet<_>>()
            .len()
    };
    assert_eq!(distinct(r#""cidr":"#), 500);
    assert!(distinct(r#""port":"#) >= 300);
}
