//! What would be, if a change were applied: each agent answers with the change in its cluster.

use std::{fs, path::PathBuf, sync::Arc};

use podgate::source::manifests::Change;
use podgate_core::model::Cluster;
use serde_json::json;

use crate::{
    explain::{TO_BACKEND, explanation, healthy, json_of, server},
    plugin::run,
    server::{Behaviour, Server},
};

const CHANGE: &str = "tests/verbs/change.yaml";

/// What an agent does that reads the change it is sent.
fn with_change(cluster: &Cluster, arguments: &[String]) -> Option<Behaviour> {
    let length = arguments.iter().find_map(|argument| argument.strip_prefix("--what-if-stdin="))?;
    let (cluster, arguments) = (cluster.clone(), arguments.to_vec());
    let read = move |sent: &[u8]| {
        let (change, problems) = Change::of_json(sent).expect("a change");
        assert!(problems.is_empty(), "{problems:?}");
        let mut changed = cluster.clone();
        if let Err(error) = change.apply(&mut changed) {
            return Behaviour::Fails(format!("error: {error}\n").leak());
        }
        let mut answer = explanation(&changed, &arguments).expect("an answer");
        answer.kernel = None;
        Behaviour::Prints(serde_json::to_string(&answer).expect("JSON"))
    };
    Some(Behaviour::Reads(length.parse().expect("a number"), Arc::new(read)))
}

fn ready() -> Server {
    server(|cluster, _, arguments| with_change(cluster, arguments))
}

/// A file of its own for the objects.
fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("change.yaml");
    fs::write(&path, text).expect("a new file");
    (directory, path)
}

#[test]
fn both_ends_answer_for_the_cluster_with_the_change() {
    let server = ready();
    let done = run(&server, &format!("{TO_BACKEND} --what-if {CHANGE}"));
    let expected = "\
allow: shop/frontend -> shop/backend-2 TCP/8080
  10.0.0.1 -> 10.0.0.3

egress of shop/frontend, on node-000: allow (not isolated, no policy selects it for this direction)

ingress of shop/backend-2, on node-001: allow (isolated, a rule matches)
";
    assert!(done.stdout.starts_with(expected), "{}{}", done.stdout, done.stderr);
    let end = "\n\nthis is the answer with the change, which was not applied\n";
    assert!(done.stdout.ends_with(end), "{}", done.stdout);
    assert_eq!((done.code, &*done.stderr), (Some(0), "2 of 2 nodes answered\n"));

    let report = json_of(&run(&server, &format!("{TO_BACKEND} --what-if {CHANGE} -o json")));
    assert_eq!((&report["what_if"], &report["verdict"]), (&json!(true), &json!("allow")));
    let report = json_of(&run(&server, &format!("{TO_BACKEND} -o json")));
    assert_eq!((report.get("what_if"), &report["verdict"]), (None, &json!("deny")));
}

#[test]
fn objects_that_name_no_namespace_are_in_that_of_the_context() {
    let deny = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: deny},
                 spec: {podSelector: {}, policyTypes: [Ingress]}}\n";
    let (_directory, path) = file(deny);
    let line = "explain --from shop/database --to shop/frontend --port 80 -o json";
    for (namespace, verdict) in [("", "deny"), (" -n guests", "allow"), (" -A", "allow")] {
        let done = run(&ready(), &format!("{line} --what-if {}{namespace}", path.display()));
        assert_eq!(json_of(&done)["verdict"], json!(verdict), "{namespace}");
    }
}

#[test]
fn a_change_that_is_none_or_too_long_is_not_sent() {
    let server = healthy();
    let none = file("kind: ConfigMap\napiVersion: v1\nmetadata: {name: a}\n");
    let long = file(&format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: a, annotations: {{a: {}}}}}}}\n",
        "x".repeat(1 << 20)
    ));
    for ((_directory, path), error) in
        [(none, "the change holds no object"), (long, "as JSON, of which agents take 1044480")]
    {
        let done = run(&server, &format!("{TO_BACKEND} --what-if {}", path.display()));
        assert!(done.stderr.contains(error), "{}", done.stderr);
        assert_eq!((done.code, &*done.stdout), (Some(1), ""));
    }
    let done = run(&server, &format!("{TO_BACKEND} --what-if absent.yaml"));
    assert_eq!((done.code, &*done.stdout), (Some(1), ""), "{}", done.stderr);
    assert!(server.objects().asked.is_empty(), "{:?}", server.objects().asked);
}

#[test]
fn what_agents_refuse_is_an_error_that_names_the_file() {
    let (_directory, path) = file(
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: absent, annotations:
          {podgate.io/what-if: remove}}}\n",
    );
    let done = run(&ready(), &format!("{TO_BACKEND} --what-if {}", path.display()));
    let error = format!(
        "error: the agents say: {}: NetworkPolicy shop/absent: is to be removed, but does not exist\n",
        path.display()
    );
    assert_eq!((done.code, &*done.stderr), (Some(1), &*error));

    // An agent of before, which ends without reading what it is sent.
    let server = server(|_, _, arguments| {
        let is_sent = arguments.iter().any(|argument| argument.starts_with("--what-if-stdin="));
        is_sent.then_some(Behaviour::Fails("error: unexpected argument '--what-if-stdin' found\n"))
    });
    let (_directory, path) = file(&format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: a, annotations: {{a: {}}}}}}}\n",
        "x".repeat(1_000_000)
    ));
    let done = run(&server, &format!("{TO_BACKEND} --what-if {} --request-timeout 60s", path.display()));
    let error = "error: the agents say: unexpected argument '--what-if-stdin' found\n";
    assert_eq!((done.code, &*done.stderr), (Some(1), error));
}
