//! What comes of a server with Calico's kinds, without them, or with those that the agent may not read.

use super::*;
use crate::source::decode::{KindInfo, group};

const DEFINITION: &str =
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/globalnetworkpolicies.crd.projectcalico.org";

#[tokio::test]
async fn policies_of_calico_are_read_from_custom_resources_alone() {
    let (fake, client) = Fake::start().await;
    let policy = |name: &str| json!({"metadata": {"name": name}, "spec": {"selector": "all()"}});
    let account = json!({"metadata": {"name": "a", "namespace": "x", "labels": {"role": "b"}}});
    let path = |group: &str| format!("/apis/{group}/globalnetworkpolicies");
    let lists = |fake: &Fake| {
        // Calico's own API server serves this, and no definition stands for it.
        fake.state().lists.insert(path("projectcalico.org/v3"), vec![policy("served")]);
        fake.state().lists.insert(path("crd.projectcalico.org/v1"), vec![policy("stored")]);
        fake.state().lists.insert(DEFINITION.into(), Vec::new());
        fake.state().lists.insert("/api/v1/serviceaccounts".into(), vec![account.clone()]);
    };
    lists(&fake);
    let (mut updates, health) = start(&client);
    let calico = next(&mut updates).await.cluster.calico.clone();
    let names: Vec<String> = calico.policies().map(|policy| policy.name.to_string()).collect();
    assert_eq!((names, calico.service_accounts.len()), (vec!["GlobalNetworkPolicy stored".to_owned()], 1));
    let of_calico = || health.read().into_iter().filter(|watch| watch.kind.contains("calico")).count();
    assert_eq!(of_calico(), 1, "{:?}", health.read());
    until(&health, "GlobalNetworkPolicy.crd.projectcalico.org", |watch| watch.listed).await;
}

#[tokio::test]
async fn without_calico_nothing_is_said_of_it() {
    let (_fake, client) = Fake::start().await;
    let (mut updates, health) = start(&client);
    let picture = next(&mut updates).await;
    assert!(picture.cluster.calico.is_empty() && picture.problems.is_empty());
    let kinds: Vec<String> = health.read().into_iter().map(|watch| watch.kind).collect();
    assert!(kinds.len() == 9 && kinds.iter().all(|kind| !kind.contains("calico")), "{kinds:?}");
}

#[tokio::test]
async fn without_the_right_to_look_for_calicos_kinds_everything_else_is_enforced() {
    let (fake, client) = Fake::start().await;
    let path = "/apis/crd.projectcalico.org/v1/globalnetworkpolicies";
    let policy = json!({"metadata": {"name": "p"}, "spec": {"selector": "all()"}});
    fake.state().lists.insert(path.into(), vec![policy]);
    let definitions = Kind::ALL.into_iter().filter(|kind| matches!(kind, Kind::Calico(..))).map(|kind| {
        let KindInfo { plural, api_versions, .. } = kind.info();
        let group = group(api_versions[0]);
        format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}.{group}")
    });
    fake.state().refused.extend(definitions.map(|path| (path, 403)));
    fake.state().refused.insert("/api/v1/serviceaccounts".into(), 403);
    let (mut updates, health) = start(&client);
    let picture = next(&mut updates).await;
    assert_eq!((picture.cluster.policies.len(), picture.lacking), (1, vec![]));
    let problems: Vec<String> = picture.problems.iter().map(ToString::to_string).collect();
    assert!(
        problems.len() == 1 && problems[0].contains("Calico's policies: are not enforced"),
        "{problems:?}"
    );
    let kind = "GlobalNetworkPolicy.crd.projectcalico.org";
    let watch = until(&health, kind, |watch| watch.error.is_some()).await;
    assert!(!watch.listed && watch.error.unwrap().contains("ClusterRole"));
    // The right is granted later.
    fake.state().lists.insert(DEFINITION.into(), Vec::new());
    fake.state().lists.insert("/api/v1/serviceaccounts".into(), Vec::new());
    fake.state().refused.clear();
    let picture = loop {
        let picture = next(&mut updates).await;
        if picture.problems.is_empty() {
            break picture;
        }
    };
    assert_eq!(picture.cluster.calico.policies().count(), 1);
}
