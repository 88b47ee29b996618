//! What comes of a server with AWS's or GKE's kinds, which come and go while the agent runs.

use super::*;

const LIST: &str = "/apis/networking.gke.io/v1alpha1/fqdnnetworkpolicies";
const WATCH: &str = "FQDNNetworkPolicy.networking.gke.io";

fn policy() -> Value {
    json!({"metadata": {"name": "web", "namespace": "x"},
           "spec": {"podSelector": {}, "egress": [{"matches": [{"name": "a.test"}]}]}})
}

fn named(picture: &ClusterSnapshot) -> Vec<String> {
    picture.cluster.policies.keys().map(ToString::to_string).collect()
}

async fn until_named(updates: &mut mpsc::Receiver<Update>, expected: &[&str]) {
    while named(&next(updates).await) != expected {}
}

#[tokio::test]
async fn a_kind_of_gke_is_watched_while_the_server_has_it() {
    let (fake, client) = Fake::start().await;
    fake.state().lists.insert(LIST.into(), vec![policy()]);
    let (mut updates, health) = start(&client);
    until_named(&mut updates, &["x/FQDNNetworkPolicy/web", "x/p"]).await;
    until(&health, WATCH, |watch| watch.listed).await;
    fake.state().lists.remove(LIST);
    fake.state().forgotten.send_modify(|version| *version += 1);
    until_named(&mut updates, &["x/p"]).await;
    assert!(health.read().iter().all(|watch| watch.kind != WATCH), "{:?}", health.read());
    fake.state().lists.insert(LIST.into(), vec![policy()]);
    until_named(&mut updates, &["x/FQDNNetworkPolicy/web", "x/p"]).await;
}

#[tokio::test]
async fn without_the_right_to_list_a_kind_of_gke_everything_else_is_enforced() {
    let (fake, client) = Fake::start().await;
    fake.state().lists.insert(LIST.into(), vec![policy()]);
    fake.state().refused.insert(LIST.into(), 403);
    let (mut updates, health) = start(&client);
    let picture = next(&mut updates).await;
    assert_eq!(named(&picture), ["x/p"]);
    let problems: Vec<String> = picture.problems.iter().map(ToString::to_string).collect();
    let named = problems.iter().any(|problem| problem.contains(&format!("{WATCH}: are not enforced")));
    assert!(named, "{problems:?}");
    let watch = until(&health, WATCH, |watch| watch.error.is_some()).await;
    assert!(!watch.listed && watch.error.unwrap().contains("ClusterRole"));
}

#[tokio::test]
async fn a_server_that_starts_and_names_no_groups_yet_hides_no_kind_of_another_engine() {
    let (fake, client) = Fake::start().await;
    let stored = json!({"metadata": {"name": "stored"}, "spec": {"selector": "all()"}});
    let of_calico = "globalnetworkpolicies";
    let definition =
        format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{of_calico}.crd.projectcalico.org");
    fake.state().lists.insert(LIST.into(), vec![policy()]);
    fake.state().lists.insert(definition, Vec::new());
    fake.state().lists.insert(format!("/apis/crd.projectcalico.org/v1/{of_calico}"), vec![stored]);
    fake.state().hides_groups = true;
    let (mut updates, _health) = start(&client);
    // The first snapshot: nothing is enforced before it is complete.
    let picture = next(&mut updates).await;
    assert_eq!(named(&picture), ["x/FQDNNetworkPolicy/web", "x/p"]);
    assert_eq!(picture.cluster.calico.policies().count(), 1);
}
