//! The intended differences from Calico, as `agent/docs/calico.md` lists them.
//!
//! In: a question that Felix answered differently from the naive evaluator. Out: the reason, if it is one of
//! those. Each reason is a change of the objects (or of the question) that turns podgate's reading into
//! Calico's: with it the evaluator must give Felix's answer.

use podgate_testkit::naive::{ResolvedEndpoint, allowed};
use serde_json::{Value, json};
use xtask::peers::objects::{addresses, is_placed};

use crate::{
    asking::Seen,
    cluster::{Cluster, NODES, Question, node_addresses},
};

/// A pod's named ports are those of its containers and sidecars; for Calico also those of init containers
/// that end before these start.
const INIT_CONTAINERS: &str = "a named port that only an init container has";
/// NetworkPolicies of Kubernetes alone never isolate a pod from its own node.
const OWN_NODE: &str = "a pod and its own node, under NetworkPolicies of Kubernetes alone";

/// Calico takes the tier of a policy in its store from the policy's name, podgate from `spec.tier`. The two
/// differ only in objects that were written into the store by hand.
const TIER_OF_NAME: &str = "a policy written into the store by hand, whose name does not begin with its tier";

/// Calico compares policies of one order by what they are called in its store, `NAMESPACE/TIER.NAME`, podgate
/// by their names. Of order 1,000, podgate asks Calico's before those of Kubernetes.
const SAME_ORDER: &str = "policies of the same order, of which one is in a namespace or of Kubernetes";

type Change = fn(Vec<Value>, &Question) -> Vec<Value>;

/// By reason: the objects as Calico reads them.
const REASONS: [(&str, Change); 4] = [
    (INIT_CONTAINERS, keep_init_containers),
    (OWN_NODE, move_pod),
    (TIER_OF_NAME, name_tiers),
    (SAME_ORDER, |objects, _| ordered_as_stored(&objects)),
];

pub(crate) fn reason(cluster: &Cluster, question: &Question, seen: Seen) -> Option<&'static str> {
    let is_seen = |objects: &[Value]| answer(objects, question) == (seen != Seen::Silence);
    let mut all = cluster.objects.clone();
    for (reason, change) in REASONS {
        all = change(all, question);
        if is_seen(&change(cluster.objects.clone(), question)) {
            return Some(reason);
        }
    }
    is_seen(&all).then_some(SEVERAL)
}

const SEVERAL: &str = "several of these";

/// The evaluator's answer to the question; for a question through a service, without the service.
fn answer(objects: &[Value], question: &Question) -> bool {
    let end = question.backend.unwrap_or(question.to);
    let to = ResolvedEndpoint::Address(end.ip());
    let source = question.source.ip();
    let client = match objects.iter().find(|object| has(object, question)) {
        Some(pod) => {
            let text = |field: &str| pod["metadata"][field].as_str().filter(|text| !text.is_empty());
            let namespace = text("namespace").unwrap_or("default").to_owned();
            ResolvedEndpoint::Pod { namespace, name: text("name").unwrap_or_default().to_owned() }
        }
        None => match (0..NODES.len()).find(|node| node_addresses(*node).contains(&source)) {
            Some(node) => ResolvedEndpoint::Node(NODES[node].to_owned()),
            None => ResolvedEndpoint::Address(source),
        },
    };
    let (protocol, number) = question.protocol.asked(end);
    allowed(objects, &client, &to, protocol, number)
}

/// Whether this is the pod that asks.
fn has(object: &Value, question: &Question) -> bool {
    is_placed(object) && addresses(object).contains(&question.source.ip())
}

fn keep_init_containers(mut objects: Vec<Value>, _: &Question) -> Vec<Value> {
    for pod in objects.iter_mut().filter(|object| object["kind"] == "Pod") {
        let containers = pod["spec"].get_mut("initContainers").and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            container["restartPolicy"] = json!("Always");
        }
    }
    objects
}

/// Calico treats a pod's own node as both treat any other node.
fn move_pod(mut objects: Vec<Value>, question: &Question) -> Vec<Value> {
    if let Some(pod) = objects.iter_mut().find(|object| has(object, question)) {
        let node = NODES.iter().position(|name| pod["spec"]["nodeName"] == *name);
        let end = question.backend.unwrap_or(question.to).ip();
        if node.is_some_and(|node| node_addresses(node).contains(&end)) {
            pod["spec"]["nodeName"] = json!("elsewhere");
        }
    }
    objects
}

fn name_tiers(mut objects: Vec<Value>, _: &Question) -> Vec<Value> {
    for policy in &mut objects {
        let is_by_hand = policy["apiVersion"] == "crd.projectcalico.org/v1"
            && policy["kind"].as_str().is_some_and(|kind| kind.ends_with("Policy"))
            && policy["metadata"]["annotations"].is_null();
        if is_by_hand {
            let tier = policy["metadata"]["name"].as_str().and_then(|name| Some(name.split_once('.')?.0));
            policy["spec"]["tier"] = json!(tier.unwrap_or("default"));
        }
    }
    objects
}

/// The order of a NetworkPolicy of Kubernetes.
const OF_KUBERNETES: f64 = 1_000.0;

/// Policies whose names are those of the store, and which come after those of Kubernetes where these names
/// do. As that depends on the namespace of the pod, those of the cluster become one for each.
fn ordered_as_stored(objects: &[Value]) -> Vec<Value> {
    let mut namespaces: Vec<&str> =
        objects.iter().filter_map(|object| object["metadata"]["namespace"].as_str()).collect();
    namespaces.extend(["default"]);
    namespaces.sort_unstable();
    namespaces.dedup();
    let copies = objects.iter().flat_map(|object| {
        let version = object["apiVersion"].as_str().unwrap_or_default();
        let is_stored = version == "crd.projectcalico.org/v1";
        let of_namespace = match object["kind"].as_str() {
            Some("GlobalNetworkPolicy") => None,
            Some("NetworkPolicy") if version.contains("projectcalico") => {
                Some(object["metadata"]["namespace"].as_str().unwrap_or("default"))
            }
            _ => return vec![object.clone()],
        };
        let key = stored_key(object, of_namespace);
        let is_for = |namespace: &&&str| of_namespace.is_none_or(|own| own == **namespace);
        let copy = |namespace: &&str| {
            let mut copy = object.clone();
            // No name with this prefix is shortened.
            let name = format!("k:{key}");
            let kept = copy["metadata"]["annotations"].get_mut("projectcalico.org/metadata");
            match kept {
                Some(kept) if is_stored => {
                    let mut metadata: Value = serde_json::from_str(kept.as_str().unwrap_or_default())
                        .expect("the generator writes JSON");
                    metadata["name"] = json!(format!("{name}@{namespace}"));
                    *kept = json!(metadata.to_string());
                }
                _ => copy["metadata"]["name"] = json!(format!("{name}@{namespace}")),
            }
            if of_namespace.is_none() {
                let own = format!("projectcalico.org/name == '{namespace}'");
                let other = copy["spec"]["namespaceSelector"].as_str().filter(|text| !text.is_empty());
                let both = other.map_or(own.clone(), |other| format!("({other}) && {own}"));
                copy["spec"]["namespaceSelector"] = json!(both);
            }
            let is_after = key > format!("{namespace}/knp.default.");
            if copy["spec"]["order"].as_f64() == Some(OF_KUBERNETES) && is_after {
                copy["spec"]["order"] = json!(OF_KUBERNETES + 0.5);
            }
            copy
        };
        namespaces.iter().filter(is_for).map(copy).collect()
    });
    copies.collect()
}

/// What Felix sorts a policy by.
fn stored_key(policy: &Value, namespace: Option<&str>) -> String {
    let name = policy["metadata"]["name"].as_str().unwrap_or_default();
    let tier = policy["spec"]["tier"].as_str().unwrap_or("default");
    let is_by_hand =
        policy["apiVersion"] == "crd.projectcalico.org/v1" && policy["metadata"]["annotations"].is_null();
    let prefix = format!("{tier}.");
    let stored = if is_by_hand || name.starts_with(&prefix) { name.to_owned() } else { prefix + name };
    namespace.map_or(stored.clone(), |namespace| format!("{namespace}/{stored}"))
}
