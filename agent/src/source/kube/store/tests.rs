//! Events of watches, and the pictures that they make.

use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use super::*;

fn object(value: Value) -> ApiObject {
    serde_json::from_value(value).unwrap()
}

/// As the API server sends the items of a list: without their kind.
fn pod(name: &str, app: &str) -> ApiObject {
    object(json!({"metadata": {"name": name, "namespace": "x", "labels": {"app": app}}, "spec": {}}))
}

fn policy(name: &str, from: Value) -> ApiObject {
    let spec = json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": from}]});
    object(json!({"metadata": {"name": name, "namespace": "x"}, "spec": spec}))
}

/// Applies events of one kind; out: which of them made a difference.
fn take<const N: usize>(store: &mut ObjectStore, kind: Kind, events: [Event<ApiObject>; N]) -> [bool; N] {
    events.map(|event| store.take(kind, event))
}

fn pods(store: &mut ObjectStore) -> String {
    let picture = store.picture();
    picture.cluster.pods.keys().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_list_counts_when_it_is_complete_and_takes_the_place_of_the_one_before() {
    let mut store = ObjectStore::default();
    let list = [Event::Init, Event::InitApply(pod("a", "1")), Event::InitApply(pod("b", "1"))];
    assert_eq!(take(&mut store, Kind::Pod, list), [false; 3]);
    assert_eq!(pods(&mut store), "");
    assert!(store.take(Kind::Pod, Event::InitDone));
    assert_eq!(pods(&mut store), "x/a x/b");

    // One that is cut off is forgotten; what was known stays until the next has come to its end.
    let _ = take(&mut store, Kind::Pod, [Event::Init, Event::InitApply(pod("d", "1"))]);
    let _ = take(&mut store, Kind::Pod, [Event::Init, Event::InitApply(pod("b", "1"))]);
    assert_eq!(pods(&mut store), "x/a x/b");
    let _ = take(&mut store, Kind::Pod, [Event::InitApply(pod("c", "1")), Event::InitDone]);
    assert_eq!(pods(&mut store), "x/b x/c");
}

#[test]
fn only_what_a_verdict_can_depend_on_makes_a_difference() {
    let mut store = ObjectStore::default();
    let with_status = |phase: &str| {
        let metadata = json!({"name": "a", "namespace": "x", "resourceVersion": "7"});
        object(json!({"metadata": metadata, "spec": {}, "status": {"phase": phase, "message": phase}}))
    };
    let events = [
        Event::Apply(with_status("Pending")),
        Event::Apply(with_status("Running")),
        Event::Apply(pod("a", "1")),
        Event::Apply(with_status("Succeeded")),
        Event::Apply(with_status("Failed")),
        Event::Delete(with_status("Failed")),
        Event::Apply(pod("b", "1")),
        Event::Delete(pod("b", "2")),
        Event::Delete(pod("b", "2")),
    ];
    let expected = [true, false, true, true, false, false, true, true, false];
    assert_eq!(take(&mut store, Kind::Pod, events), expected);
}

#[test]
fn a_version_of_a_policy_is_known_as_soon_as_it_comes_and_keeps_its_age() {
    let versioned = |version: &str| {
        let mut value = policy("p", json!([])).value;
        value["metadata"]["uid"] = "u".into();
        value["metadata"]["resourceVersion"] = version.into();
        value["metadata"]["generation"] = 3.into();
        object(value)
    };
    let mut store = ObjectStore::new(true);
    let list = |version: &str| [Event::Init, Event::InitApply(versioned(version)), Event::InitDone];
    let _ = take(&mut store, Kind::NetworkPolicy, list("7"));
    let first = store.picture().policy_objects;
    // A list that says the same does not make it younger; a version alone is a change.
    let _ = take(&mut store, Kind::NetworkPolicy, list("7"));
    assert_eq!(store.picture().policy_objects, first);
    let events = [Event::Apply(versioned("7")), Event::Apply(versioned("8")), Event::Apply(versioned("8"))];
    assert_eq!(take(&mut store, Kind::NetworkPolicy, events), [false, true, false]);
    let second = store.picture().policy_objects;
    let changes: Vec<_> = first.changes(&second).collect();
    let [crate::source::PolicyObjectChange::Put(changed)] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!((changed.resource_version.as_deref(), changed.generation), (Some("8"), Some(3)));
    // Lists of other kinds are no news of policies.
    let _ = take(&mut store, Kind::Pod, [Event::Init, Event::InitDone]);
    assert_eq!(store.picture().policy_objects, second);
    let _ = take(&mut store, Kind::NetworkPolicy, [Event::Init, Event::InitDone]);
    assert_eq!(store.picture().policy_objects, PolicyObjects::default());
}

#[test]
fn a_problem_lives_as_long_as_the_object_that_has_it() {
    let mut store = ObjectStore::new(true);
    let problems = |store: &mut ObjectStore| {
        store.picture().problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    let bad = || policy("p", json!([{"ipBlock": {"cidr": "10.0.0.0/99"}}]));
    let good = || policy("p", json!([{"ipBlock": {"cidr": "10.0.0.0/8"}}]));
    let apply = [Event::Apply(bad()), Event::Apply(bad())];
    assert_eq!(take(&mut store, Kind::NetworkPolicy, apply), [true, false]);
    assert!(
        problems(&mut store).starts_with("NetworkPolicy x/p: spec.ingress[0].from[0].ipBlock.cidr: "),
        "{}",
        problems(&mut store)
    );
    for healed in [Event::Apply(good()), Event::Delete(bad())] {
        let mut store = ObjectStore::new(true);
        let _ = store.take(Kind::NetworkPolicy, Event::Apply(bad()));
        assert!(store.take(Kind::NetworkPolicy, healed));
        assert_eq!(problems(&mut store), "");
    }
    let _ = take(&mut store, Kind::NetworkPolicy, [Event::Init, Event::InitDone]);
    assert_eq!(problems(&mut store), "");
}

#[test]
fn what_is_no_object_at_all_disturbs_nothing() {
    let mut store = ObjectStore::new(true);
    let _ = store.take(Kind::Pod, Event::Apply(pod("a", "1")));
    for value in [json!(null), json!("text"), json!({"metadata": {}}), json!({"metadata": {"name": ["x"]}})] {
        let _ =
            take(&mut store, Kind::Pod, [Event::Apply(object(value.clone())), Event::Delete(object(value))]);
        assert_eq!(pods(&mut store), "x/a");
    }
}

#[test]
fn a_picture_that_was_given_does_not_change() {
    let mut store = ObjectStore::new(true);
    let _ = store.take(Kind::Pod, Event::Apply(pod("a", "1")));
    let before = store.picture();
    let _ = store.take(Kind::Pod, Event::Delete(pod("a", "1")));
    assert_eq!((before.cluster.pods.len(), store.picture().cluster.pods.len()), (1, 0));
}

#[test]
fn a_policy_over_a_limit_is_noted_as_such_with_its_uid_until_it_fits() {
    let blocks = |count: u16| {
        let block = |at: u16| json!({"ipBlock": {"cidr": format!("10.{}.{}.0/24", at >> 8, at & 0xff)}});
        (0..count).map(block).collect::<Vec<Value>>()
    };
    let of_namespace = |count| {
        let rules: Vec<Value> = blocks(count).into_iter().map(|block| json!({"from": [block]})).collect();
        let spec = json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": rules});
        object(json!({"metadata": {"name": "p", "namespace": "x", "uid": "1"}, "spec": spec}))
    };
    let of_cluster = |count: u16| {
        let networks: Vec<String> =
            (0..count).map(|at| format!("10.{}.{}.0/24", at >> 8, at & 0xff)).collect();
        let rule = |network: &String| json!({"action": "Accept", "to": [{"networks": [network]}]});
        let rules: Vec<Value> = networks.iter().map(rule).collect();
        let spec = json!({
            "tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "egress": rules,
        });
        object(json!({"metadata": {"name": "c", "uid": "2"}, "spec": spec}))
    };
    let cluster_kind = Kind::ClusterPolicy(podgate_core::model::ClusterPolicyKind::ClusterNetworkPolicy);
    let mut store = ObjectStore::new(true);
    let service = |count: u16| {
        let external: Vec<String> =
            (0..count).map(|at| format!("198.51.{}.{}", at >> 8, at & 0xff)).collect();
        let port = |at: u16| json!({"name": format!("p{at}"), "port": at});
        let ports: Vec<Value> = (1..=count).map(port).collect();
        let spec = json!({"clusterIP": "10.96.0.1", "externalIPs": external, "ports": ports});
        object(json!({"metadata": {"name": "s", "namespace": "x", "uid": "3"}, "spec": spec}))
    };
    for (count, expected) in [(600, 3), (8, 0)] {
        let _ = store.take(Kind::NetworkPolicy, Event::Apply(of_namespace(count)));
        let _ = store.take(cluster_kind, Event::Apply(of_cluster(count)));
        let _ = store.take(Kind::Service, Event::Apply(service(count)));
        let ClusterSnapshot { problems, cluster, .. } = store.picture();
        assert_eq!(problems.len(), expected, "{problems:?}");
        assert!(cluster.services.values().all(|service| service.is_over_limit == (expected > 0)));
        let noted = store.problems();
        assert_eq!(noted.len(), expected, "{noted:?}");
        assert!(noted.values().all(|noted| noted.is_over_limit && noted.problems.len() == 1), "{noted:?}");
        let uids: Vec<_> = noted.values().filter_map(|noted| noted.uid.as_deref()).collect();
        assert_eq!(uids.len(), expected, "{uids:?}");
    }
}
