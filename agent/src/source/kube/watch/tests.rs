//! What comes of an API server that serves little, hides something, forgets, or is away for a while.

mod calico;
mod cloud;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures::stream;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use kube::Config;
use podgate_core::model::ObjectName;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, time::timeout};

use super::{
    super::{WatchHealth, client::client, object},
    *,
};
use crate::source::ClusterSnapshot;

/// Far longer than any of this takes; a test that waits for it has failed.
const DEADLINE: Duration = Duration::from_secs(60);

const POLICIES: &str = "/apis/networking.k8s.io/v1/networkpolicies";
const NAMESPACES: &str = "/api/v1/namespaces";
const GROUP: &str = "policy.networking.k8s.io";

/// A server that knows what a test gives it, and nothing of Kubernetes.
#[derive(Clone)]
struct Fake(Arc<Mutex<State>>);

struct State {
    /// The items of the list at each path.
    lists: BTreeMap<String, Vec<Value>>,
    /// Versions of [`GROUP`] that have `clusternetworkpolicies`.
    versions: Vec<&'static str>,
    /// The answer to a path instead of what it holds.
    refused: BTreeMap<String, u16>,
    /// All requests are refused.
    is_away: bool,
    /// A server that lists no group of another engine, as while it starts.
    hides_groups: bool,
    /// Watches end when this changes; those of before it are expired.
    forgotten: watch::Sender<u64>,
    /// What was created: the path, and the object.
    created: Vec<(String, Value)>,
}

impl Fake {
    /// Serves every kind of Kubernetes itself, with one namespace and one policy.
    async fn start() -> (Self, Client) {
        let mut lists = BTreeMap::new();
        for kind in Kind::ALL.into_iter().filter(|kind| !kind.info().is_custom) {
            let resource = object::resource(kind, kind.info().api_versions[0]);
            let path = <object::ApiObject as kube::Resource>::url_path(&resource, None);
            lists.insert(path, Vec::new());
        }
        lists.insert(NAMESPACES.into(), vec![json!({"metadata": {"name": "kube-system", "uid": "c-1"}})]);
        lists.insert(POLICIES.into(), vec![json!({"metadata": {"name": "p", "namespace": "x"}, "spec": {}})]);
        let (versions, refused) = (Vec::new(), BTreeMap::new());
        let (is_away, hides_groups) = (false, false);
        let forgotten = watch::Sender::new(0);
        let created = Vec::new();
        let state = State { lists, versions, refused, is_away, hides_groups, forgotten, created };
        let fake = Self(Arc::new(Mutex::new(state)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(fake.clone().serve(listener));
        let config = Config::new(format!("http://{address}").parse().unwrap());
        (fake, client(config).unwrap())
    }

    async fn serve(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let fake = self.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let fake = fake.clone();
                async move {
                    if request.method() != Method::POST {
                        return Ok(fake.respond(&request));
                    }
                    let path = request.uri().path().to_owned();
                    let body = request.into_body().collect().await?.to_bytes();
                    let object: Value = serde_json::from_slice(&body).unwrap();
                    let response = answer(201, &object);
                    fake.state().created.push((path, object));
                    Ok::<_, hyper::Error>(response)
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn respond(&self, request: &Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
        let state = self.state();
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
        let refused = state.refused.get(path).copied().or(state.is_away.then_some(503));
        let versions = state.versions.iter().map(|version| format!("{GROUP}/{version}"));
        let of_group = versions.into_iter().find(|version| path == format!("/apis/{version}"));
        match (refused, state.lists.get(path), of_group) {
            (Some(code), ..) => answer(code, &status(code)),
            (None, Some(_), _) if query.contains("watch=") => {
                let since: u64 = parameter(query, "resourceVersion").parse().unwrap();
                Response::new(until_forgotten(state.forgotten.subscribe(), since))
            }
            (None, Some(items), _) => {
                let metadata = json!({"resourceVersion": state.forgotten.borrow().to_string()});
                answer(
                    200,
                    &json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}),
                )
            }
            (None, None, Some(version)) => {
                let resource = json!({"name": "clusternetworkpolicies", "singularName": "", "namespaced": false,
                                      "kind": "ClusterNetworkPolicy", "verbs": ["list", "watch"]});
                answer(
                    200,
                    &json!({"kind": "APIResourceList", "groupVersion": version, "resources": [resource]}),
                )
            }
            (None, None, None) if path == "/apis" => {
                let versions: Vec<_> = state
                    .versions
                    .iter()
                    .map(|version| json!({"groupVersion": format!("{GROUP}/{version}"), "version": version}))
                    .collect();
                let mut groups = json!([{"name": GROUP, "versions": versions}]);
                for group in super::super::calico::GROUPS {
                    let is_there = |path: &String| path.starts_with(&format!("/apis/{group}/"));
                    if !state.hides_groups && state.lists.keys().any(is_there) {
                        groups.as_array_mut().unwrap().push(json!({"name": group, "versions": []}));
                    }
                }
                answer(200, &json!({"kind": "APIGroupList", "groups": groups}))
            }
            (None, None, None) => answer(404, &status(404)),
        }
    }
}

fn parameter<'a>(query: &'a str, name: &str) -> &'a str {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).unwrap()
}

fn status(code: u16) -> Value {
    let reason = if code == 403 { "Forbidden" } else { "Refused" };
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "it is so",
           "reason": reason, "code": code})
}

fn answer(code: u16, value: &Value) -> Response<BoxBody<Bytes, Infallible>> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())).boxed());
    *response.status_mut() = code.try_into().unwrap();
    response
}

/// A watch that says nothing until it ends; one from before the server forgot says so.
fn until_forgotten(mut forgotten: watch::Receiver<u64>, since: u64) -> BoxBody<Bytes, Infallible> {
    let body = stream::once(async move {
        let _ = forgotten.wait_for(|now| *now > since).await;
        let event = json!({"type": "ERROR", "object": status(410)});
        Ok(Frame::data(Bytes::from(format!("{event}\n"))))
    });
    BoxBody::new(StreamBody::new(body))
}

async fn next(updates: &mut mpsc::Receiver<Update>) -> ClusterSnapshot {
    timeout(DEADLINE, updates.recv()).await.expect("a picture in time").unwrap().picture
}

async fn until(health: &Health, kind: &str, is_so: impl Fn(&WatchHealth) -> bool) -> WatchHealth {
    let look = async {
        loop {
            let found = health.read().into_iter().find(|watch| watch.kind == kind).unwrap();
            if is_so(&found) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, look).await.expect("the health in time")
}

fn start(client: &Client) -> (mpsc::Receiver<Update>, Health) {
    watch(client, "n1".into(), false)
}

#[tokio::test]
async fn an_expired_watch_is_listed_again_within_five_seconds_also_after_an_outage() {
    let (fake, client) = Fake::start().await;
    let (mut updates, health) = start(&client);
    assert_eq!(next(&mut updates).await.cluster.policies.len(), 1);
    // The server is away, and when it comes back it has forgotten where the watches were.
    fake.state().is_away = true;
    fake.state().lists.insert(POLICIES.into(), Vec::new());
    fake.state().forgotten.send_modify(|version| *version += 1);
    until(&health, "NetworkPolicy", |watch| watch.restarts >= 5).await;
    fake.state().is_away = false;
    let back = Instant::now();
    while !next(&mut updates).await.cluster.policies.is_empty() {}
    assert!(back.elapsed() < Duration::from_secs(5), "{:?}", back.elapsed());
}

#[tokio::test]
async fn cluster_policies_are_watched_at_whichever_known_version_is_served() {
    for version in ["v1alpha2", "v1beta1"] {
        let (fake, client) = Fake::start().await;
        let policy = json!({"metadata": {"name": "p"}, "spec": {"tier": "Admin", "priority": 1,
                            "subject": {"namespaces": {}}}});
        let path = format!("/apis/{GROUP}/{version}/clusternetworkpolicies");
        fake.state().lists.insert(path, vec![policy]);
        fake.state().versions = vec![version, "v7"];
        let (mut updates, _health) = start(&client);
        let picture = next(&mut updates).await;
        assert_eq!((picture.cluster.cluster_policies.len(), picture.lacking), (1, vec![]), "{version}");
        assert_eq!(picture.cluster_id.as_deref(), Some("c-1"));
    }
}

#[tokio::test]
async fn a_policy_over_a_limit_gets_an_event_and_is_a_problem_and_no_other_policy_is_touched() {
    let (fake, client) = Fake::start().await;
    let rule =
        |at: u16| json!({"from": [{"ipBlock": {"cidr": format!("10.{}.{}.0/24", at >> 8, at & 0xff)}}]});
    let policy = |name: &str, namespace: &str, rules: std::ops::Range<u16>| {
        let rules: Vec<Value> = rules.map(rule).collect();
        json!({"metadata": {"name": name, "namespace": namespace, "uid": name},
               "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": rules}})
    };
    let policies =
        vec![policy("large", "x", 0..600), policy("small", "x", 700..705), policy("other", "y", 0..5)];
    fake.state().lists.insert(POLICIES.into(), policies);
    fake.state().lists.insert("/api/v1/nodes".into(), vec![json!({"metadata": {"name": "n1"}})]);
    let (mut updates, _health) = start(&client);
    let picture = next(&mut updates).await;
    let problems: Vec<String> = picture.problems.iter().map(ToString::to_string).collect();
    let field = "NetworkPolicy x/large: spec.ingress[506]: this rule, and 93 more rules, do not fit";
    assert!(problems.len() == 1 && problems[0].contains(field), "{problems:?}");
    for (namespace, name) in [("x", "small"), ("y", "other")] {
        let rules = picture.cluster.policies[&ObjectName::new(namespace, name)].ingress.as_deref().unwrap();
        assert!(rules.len() == 5 && rules.iter().all(|rule| rule.size() == 2), "{rules:?}");
    }
    let created = async {
        while fake.state().created.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        fake.state().created.clone()
    };
    let created = timeout(DEADLINE, created).await.expect("an Event in time");
    assert_eq!(created.len(), 1, "{created:?}");
    let (path, event) = &created[0];
    assert_eq!(path, "/apis/events.k8s.io/v1/namespaces/x/events");
    let of_policy = json!({"name": "large", "namespace": "x", "uid": "large"});
    for (field, expected) in of_policy.as_object().unwrap() {
        assert_eq!(&event["regarding"][field], expected, "{event}");
    }
    assert_eq!((&event["reason"], &event["type"]), (&json!("LimitExceeded"), &json!("Warning")));
    let note = event["note"].as_str().unwrap();
    assert!(note.contains("spec.ingress[506]") && note.contains("allows nothing"), "{note}");
}

#[tokio::test]
async fn a_service_over_a_limit_gets_an_event() {
    let (fake, client) = Fake::start().await;
    let external: Vec<String> = (0..100).map(|at| format!("198.51.100.{at}")).collect();
    let ports: Vec<Value> = (1..=100).map(|at| json!({"name": format!("p{at}"), "port": at})).collect();
    let service = json!({
        "metadata": {"name": "large", "namespace": "x", "uid": "7"},
        "spec": {"clusterIP": "10.96.0.9", "externalIPs": external, "ports": ports},
    });
    fake.state().lists.insert("/api/v1/services".into(), vec![service]);
    fake.state().lists.insert("/api/v1/nodes".into(), vec![json!({"metadata": {"name": "n1"}})]);
    let (mut updates, _health) = start(&client);
    let picture = next(&mut updates).await;
    assert!(picture.cluster.services[&ObjectName::new("x", "large")].is_over_limit);
    let created = async {
        while fake.state().created.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        fake.state().created.clone()
    };
    let created = timeout(DEADLINE, created).await.expect("an Event in time");
    let [(_, event)] = &created[..] else { panic!("{created:?}") };
    let Value::Object(regarding) = &event["regarding"] else { panic!("{event}") };
    assert_eq!((&regarding["kind"], &regarding["uid"]), (&json!("Service"), &json!("7")));
    assert_eq!(event["reason"], json!("LimitExceeded"));
}

#[tokio::test]
async fn a_kind_that_is_served_only_at_unknown_versions_is_lacking() {
    let (fake, client) = Fake::start().await;
    fake.state().versions = vec!["v7"];
    let (mut updates, health) = start(&client);
    let picture = next(&mut updates).await;
    let expected = "API server: ClusterNetworkPolicy: is served only as policy.networking.k8s.io/v7; known here: \
                    policy.networking.k8s.io/v1beta1 and policy.networking.k8s.io/v1alpha2";
    assert_eq!(picture.lacking.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
    assert_eq!(picture.problems, picture.lacking);
    let watch = until(&health, "ClusterNetworkPolicy", |watch| watch.error.is_some()).await;
    assert!(!watch.listed && watch.error.unwrap().contains("v7"));
    // The forerunners are served at no version: there are none.
    assert!(until(&health, "AdminNetworkPolicy", |watch| watch.listed).await.error.is_none());
}

#[tokio::test]
async fn without_the_right_to_list_a_kind_there_is_no_picture() {
    let (fake, client) = Fake::start().await;
    fake.state().refused.insert(POLICIES.into(), 403);
    let (mut updates, health) = start(&client);
    let watch = until(&health, "NetworkPolicy", |watch| watch.restarts >= 2).await;
    assert!(!watch.listed && watch.error.unwrap().contains("it is so"));
    assert!(updates.try_recv().is_err(), "a picture without policies");
    fake.state().refused.clear();
    assert_eq!(next(&mut updates).await.cluster.policies.len(), 1);
}

#[tokio::test]
async fn a_server_without_any_namespace_gives_no_picture_unless_that_is_meant() {
    let (fake, client) = Fake::start().await;
    fake.state().lists.insert(NAMESPACES.into(), Vec::new());
    let (mut updates, _health) = start(&client);
    let picture = next(&mut updates).await;
    assert_eq!(picture.missing.len(), 1);
    assert!(picture.missing[0].to_string().contains("without any namespace"), "{}", picture.missing[0]);
    let (mut updates, _health) = watch(&client, "n1".into(), true);
    assert_eq!(next(&mut updates).await.missing, []);
}
