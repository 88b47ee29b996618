//! Each kind of finding, beside what looks like it and is none. The cluster is that of the fixtures: pods a
//! (frontend) and b (backend, ports http and many) in namespace x, c and others in y.

mod calico;
mod dns;
mod isolation;
mod ports;
mod selection;
mod shadowed;

use std::sync::Arc;

use super::*;
use crate::{
    fixtures::cluster,
    model::{ClusterNetworkPolicy, NetworkPolicy, Peer, Selector},
};

/// The findings with this name, as `OBJECT: FIELD`.
fn places(cluster: &Cluster, notes: &ObjectNotes, name: LintName) -> Vec<String> {
    let findings = lint(cluster, notes).into_iter().filter(|finding| finding.name == name);
    findings.map(|finding| format!("{}: {}", finding.object, finding.field)).collect()
}

/// The same for the fixtures' cluster with these policies.
fn places_with(policies: Vec<NetworkPolicy>, name: LintName) -> Vec<String> {
    places(&cluster(policies), &ObjectNotes::default(), name)
}

fn with_cluster_policies(policies: Vec<ClusterNetworkPolicy>) -> Cluster {
    let mut cluster = cluster(Vec::new());
    cluster.cluster_policies =
        policies.into_iter().map(|policy| (policy.name.clone(), Arc::new(policy))).collect();
    cluster
}

fn in_own(pods: Selector) -> Peer {
    Peer::Pods { namespaces: None, pods }
}

fn across(namespaces: Selector, pods: Selector) -> Peer {
    Peer::Pods { namespaces: Some(namespaces), pods }
}

#[test]
fn an_object_silences_what_it_names_and_nothing_else() {
    let mut cluster = cluster(vec![crate::fixtures::policy("web", Some(Vec::new()), None)]);
    let policy = cluster.policies.iter().next().map(|(_, policy)| policy.clone()).unwrap();
    let mut policy = Arc::unwrap_or_clone(policy);
    policy.subject = crate::fixtures::has("role", "nothing");
    cluster.policies.insert(policy.name.clone(), policy.into());
    let name = LintName::PolicySelectsNoPod;
    let found = |ignored: &[&str]| {
        let names = ignored.iter().map(|name| (*name).to_owned()).collect();
        let ignored = BTreeMap::from([("NetworkPolicy x/web".to_owned(), names)]);
        let notes = ObjectNotes { ignored, ..ObjectNotes::default() };
        (places(&cluster, &notes, name).len(), places(&cluster, &notes, LintName::UnknownIgnoredName))
    };
    assert_eq!(found(&[]), (1, vec![]));
    assert_eq!(found(&["shadowed-rule"]), (1, vec![]));
    assert_eq!(found(&["shadowed-rule", "policy-selects-no-pod"]), (0, vec![]));
    let field = "NetworkPolicy x/web: metadata.annotations[podgate.io/lint-ignore]";
    assert_eq!(found(&["policy-selects-no-pods"]), (1, vec![field.to_owned()]));
    assert_eq!(found(&["policy-selects-no-pods", "unknown-ignored-name"]), (1, vec![]));
}

#[test]
fn nothing_is_said_of_pods_where_there_are_none() {
    let mut cluster = cluster(vec![crate::fixtures::policy("web", Some(Vec::new()), Some(Vec::new()))]);
    cluster.pods = imbl::OrdMap::new();
    assert_eq!(lint(&cluster, &ObjectNotes::default()), []);
}
