//! Changes to a small cluster, as users write them.

use std::fs;

use super::*;
use crate::source::manifests;

const CLUSTER: &str = "
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: x, labels: {role: old}}
status: {phase: Running, podIP: 10.0.0.1}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: x}
spec: {podSelector: {}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: other, namespace: x}
spec: {podSelector: {}}
";

const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n";

/// The names of policies and the role of the pod after a change, or what is wrong with it.
fn changed(change: &str) -> Result<(String, Vec<String>), String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.yaml");
    fs::write(&path, CLUSTER).unwrap();
    let mut cluster = Cluster::clone(&manifests::read(&[path]).cluster);
    let path = directory.path().join("change.yaml");
    fs::write(&path, change).unwrap();
    let shown =
        |problem: ValidationError| problem.to_string().replace(&path.display().to_string(), "change.yaml");
    let (change, problems) = Change::read(std::slice::from_ref(&path)).map_err(shown)?;
    let sent: Change = serde_json::from_str(&serde_json::to_string(&change).unwrap()).unwrap();
    assert_eq!(sent, change, "it arrives at an agent as it was");
    change.apply(&mut cluster).map_err(shown)?;
    let policies: Vec<String> = cluster.policies.keys().map(|name| name.name.to_string()).collect();
    let roles = cluster.pods.values().map(|pod| format!("role={}", pod.labels["role"]));
    let words: Vec<String> = policies.into_iter().chain(roles).collect();
    Ok((words.join(" "), problems.into_iter().map(shown).collect()))
}

#[test]
fn objects_are_added_changed_and_removed() {
    for (change, expected) in [
        ("# nothing\n".to_owned(), "deny other role=old"),
        (format!("{POLICY}metadata: {{name: new, namespace: x}}\nspec: {{}}"), "deny new other role=old"),
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: x, labels: {role: new}}, \
             status: {podIP: 10.0.0.1}}"
                .to_owned(),
            "deny other role=new",
        ),
        (
            format!(
                "{POLICY}metadata: {{name: deny, namespace: x, annotations: {{podgate.io/what-if: remove}}}}"
            ),
            "other role=old",
        ),
        (format!("{POLICY}metadata: {{name: deny, namespace: x}}\n$patch: delete"), "other role=old"),
        (
            format!(
                "{POLICY}metadata: {{name: new, namespace: x}}\nspec: {{}}\n---\n\
                 {POLICY}metadata: {{name: new, namespace: x}}\n$patch: delete"
            ),
            "deny other role=old",
        ),
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: x}, $patch: delete}".to_owned(),
            "deny other",
        ),
        ("{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}}".to_owned(), "deny other role=old"),
    ] {
        assert_eq!(changed(&change), Ok((expected.to_owned(), vec![])), "{change}");
    }
}

#[test]
fn a_change_that_is_not_understood_has_no_answer() {
    for (change, error) in [
        ("a: [".to_owned(), "change.yaml: document 1 (line 1): "),
        ("{kind: 3}".to_owned(), "change.yaml: document 1 (line 1): kind: is a number, not text"),
        (
            format!("{POLICY}metadata: {{name: gone, namespace: x}}\n$patch: delete"),
            "change.yaml: NetworkPolicy x/gone: is to be removed, but does not exist",
        ),
        (
            format!("{POLICY}metadata: {{name: deny, namespace: x}}\n$patch: replace"),
            "change.yaml: NetworkPolicy x/deny: $patch: \"replace\" is not known, only \"delete\"",
        ),
        (
            format!(
                "{POLICY}metadata: {{name: deny, namespace: x, annotations: {{podgate.io/what-if: delete}}}}"
            ),
            "change.yaml: NetworkPolicy x/deny: metadata.annotations.podgate.io/what-if: \
             \"delete\" is not known, only \"remove\"",
        ),
    ] {
        let seen = changed(&change).unwrap_err();
        assert!(seen.starts_with(error), "{change}: {seen}");
    }
}

#[test]
fn an_entry_that_is_not_in_order_is_reported_and_has_its_effect() {
    let change =
        format!("{POLICY}metadata: {{name: new, namespace: x}}\nspec: {{ingress: [{{from: [{{}}]}}]}}");
    let (words, problems) = changed(&change).unwrap();
    assert_eq!(words, "deny new other role=old");
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].starts_with("change.yaml: NetworkPolicy x/new: spec.ingress[0].from[0]"),
        "{problems:?}"
    );
}

#[test]
fn what_marks_a_removal_means_nothing_in_manifests() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.yaml");
    let marked =
        format!("{POLICY}metadata: {{name: p, annotations: {{podgate.io/what-if: remove}}}}\nspec: {{}}");
    fs::write(&path, marked).unwrap();
    let picture = manifests::read(&[path]);
    assert_eq!((picture.cluster.policies.len(), picture.problems), (1, vec![]));
}
