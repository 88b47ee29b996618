//! Advised policies as the objects that users apply.

use anyhow::Context as _;
use podgate_core::{
    advise::{Advice, AdvisedPeer, AdvisedPolicy, AdvisedRule, WorkloadSelector},
    model::{NAMESPACE_NAME_LABEL, Name},
    printable::printable,
};
use serde_json::{Value, json};

/// A stream of YAML, with a comment on each policy. `enforce`: they deny at once, not only report.
pub(super) fn yaml(advice: &Advice, enforce: bool) -> anyhow::Result<String> {
    let mut text = String::new();
    for policy in &advice.policies {
        let object = serde_saphyr::to_string(&object(policy, enforce)).context("cannot print")?;
        text += &format!("---\n# {}: {}", printable(&policy.name.to_string()), sure(policy));
        text += &format!("\n{object}");
    }
    Ok(text)
}

/// How well a policy is founded.
fn sure(AdvisedPolicy { pods, seen, .. }: &AdvisedPolicy) -> String {
    let pods = if *pods == 1 { "1 pod".to_owned() } else { format!("{pods} pods") };
    match seen {
        Some([first, last]) => {
            format!("{pods}; connections seen from {} to {}", printable(first), printable(last))
        }
        None => format!("{pods}; no connection seen"),
    }
}

fn object(policy: &AdvisedPolicy, enforce: bool) -> Value {
    let AdvisedPolicy { name, subject, ingress, egress, .. } = policy;
    let mut metadata = json!({"namespace": name.namespace, "name": name.name});
    if !enforce {
        metadata["annotations"] = json!({"podgate.io/mode": "audit"});
    }
    let rules = |rules: &[AdvisedRule], peers: &str| -> Vec<Value> {
        let rule = |AdvisedRule { peers: listed, ports }: &AdvisedRule| {
            let listed: Vec<Value> = listed.iter().map(|peer| peer_object(&name.namespace, peer)).collect();
            let ports: Vec<Value> = ports
                .iter()
                .map(|(protocol, port)| json!({"protocol": protocol.to_string(), "port": port}))
                .collect();
            json!({peers: listed, "ports": ports})
        };
        rules.iter().map(rule).collect()
    };
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {
            "podSelector": selector(subject),
            "policyTypes": ["Ingress", "Egress"],
            "ingress": rules(ingress, "from"),
            "egress": rules(egress, "to"),
        },
    })
}

fn peer_object(own_namespace: &Name, peer: &AdvisedPeer) -> Value {
    match peer {
        AdvisedPeer::Workload(namespace, pods) if namespace == own_namespace => {
            json!({"podSelector": selector(pods)})
        }
        AdvisedPeer::Workload(namespace, pods) => json!({
            "namespaceSelector": {"matchLabels": {NAMESPACE_NAME_LABEL: namespace}},
            "podSelector": selector(pods),
        }),
        AdvisedPeer::Block(block) => {
            let mut object = json!({"cidr": block.cidr.to_string()});
            if !block.except.is_empty() {
                object["except"] = block.except.iter().map(ToString::to_string).collect();
            }
            json!({"ipBlock": object})
        }
    }
}

fn selector(WorkloadSelector { labels, absent }: &WorkloadSelector) -> Value {
    let mut object = json!({});
    if !labels.is_empty() {
        object["matchLabels"] = labels.iter().map(|(key, value)| (key.to_string(), json!(value))).collect();
    }
    if !absent.is_empty() {
        let expression = |key: &Name| json!({"key": key, "operator": "DoesNotExist"});
        object["matchExpressions"] = absent.iter().map(expression).collect();
    }
    object
}

#[cfg(test)]
mod tests {
    use std::fs;

    use podgate_core::{
        advise::{AdviceScope, Observation, ObservedEnd, SideVerdicts, advise, with_advice},
        fixtures::cluster,
        model::{Labels, NetworkPolicy, ObjectName},
    };

    use super::*;
    use crate::source::manifests::Change;

    #[test]
    fn what_is_printed_is_what_was_proven() {
        let cluster = cluster(vec![]);
        let end = |name: &str| {
            let (namespace, name) = name.split_once('/').unwrap();
            ObservedEnd::Pod(ObjectName::new(namespace, name), Labels::default())
        };
        let address = |text: &str| ObservedEnd::Address(text.parse().unwrap());
        let many = (0..20).map(|at| (end("x/a"), address(&format!("198.51.{at}.1")), 443));
        let pairs = [
            (end("x/a"), end("x/b"), 80),
            (end("y/c"), end("x/b"), 81),
            (end("y/v4"), end("y/c"), 53),
            (address("2001:db8::1"), end("x/b"), 81),
        ];
        let observations: Vec<Observation> = pairs
            .into_iter()
            .chain(many)
            .map(|(from, to, port)| {
                let seen = ["2026-01-01T00:00:00Z".to_owned(), "2026-01-01T00:00:01Z".to_owned()];
                let port = (podgate_common::Protocol::Tcp, port);
                let [egress, ingress] = [SideVerdicts::default(), SideVerdicts::default()];
                Observation { from, to, port, seen, egress, ingress }
            })
            .collect();
        let advice = advise(&cluster, &observations, &AdviceScope::default());
        let directory = tempfile::tempdir().unwrap();
        for enforce in [false, true] {
            let file = directory.path().join("advised.yaml");
            fs::write(&file, yaml(&advice, enforce).unwrap()).unwrap();
            let (change, problems) = Change::read(&[file]).unwrap();
            assert!(problems.is_empty(), "{problems:?}");
            let mut read = cluster.clone();
            change.apply(&mut read).unwrap();
            let proven = with_advice(&cluster, &advice).policies;
            assert_eq!(read.policies.len(), proven.len());
            for (name, policy) in &proven {
                let expected = NetworkPolicy { audit: !enforce, ..NetworkPolicy::clone(policy) };
                assert_eq!(*read.policies[name], expected);
            }
        }
    }
}
