//! Why a connection is allowed or denied: each side by the agent of its own node.

use std::{fs, path::Path};

use podgate::source::manifests;
use podgate_core::{
    explain::{Explanation, KernelCheck, Question, explain},
    model::{Cluster, ObjectName},
};
use serde_json::{Value, json};

use crate::{
    plugin::{Finished, run},
    server::{Behaviour, PODS, Server, agent_pod, node_name, version},
};

pub(crate) const TO_BACKEND: &str = "explain --from shop/frontend --to shop/backend-2 --port TCP/8080";

/// A pod on the host network, beside the shop.
const HOST: &str = "\
{apiVersion: v1, kind: Pod, metadata: {name: host, namespace: shop}, spec: {nodeName: n2, hostNetwork: true},
 status: {phase: Running, podIP: 192.168.0.2}}
";

fn shop() -> Cluster {
    let shop = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verbs/shop.yaml");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let host = directory.path().join("host.yaml");
    fs::write(&host, HOST).expect("a new file");
    Cluster::clone(&manifests::read(&[shop, host]).cluster)
}

/// What an agent that knows the cluster answers to `explain`.
pub(crate) fn explanation(cluster: &Cluster, arguments: &[String]) -> Result<Explanation, String> {
    let option = |name: &str| {
        let value = arguments.iter().find_map(|argument| argument.strip_prefix(name));
        value.unwrap_or_else(|| panic!("no {name} in {arguments:?}"))
    };
    let question = Question {
        from: option("--from=").parse().expect("an end"),
        to: option("--to=").parse().expect("an end"),
        port: option("--port=").parse().expect("a port"),
    };
    let mut answer = explain(cluster, &question).map_err(|error| error.to_string())?;
    answer.kernel = Some(KernelCheck { asked: 1, disagreements: Vec::new() });
    Ok(answer)
}

fn answers(cluster: &Cluster, arguments: &[String]) -> Behaviour {
    Behaviour::Prints(match &*arguments[0] {
        "version" => version(),
        "status" => json!({"ready": true}).to_string(),
        "explain" => match explanation(cluster, arguments) {
            Ok(answer) => serde_json::to_string(&answer).expect("JSON"),
            Err(error) => return Behaviour::Fails(format!("error: {error}\n").leak()),
        },
        other => panic!("{other}"),
    })
}

fn pod(namespace: &str, name: &str, node: usize) -> Value {
    json!({
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"nodeName": node_name(node), "containers": []}, "status": {"phase": "Running"},
    })
}

/// The shop on two nodes of three, whose agents all know it.
pub(crate) fn server(
    agents: impl Fn(&Cluster, &str, &[String]) -> Option<Behaviour> + Send + Sync + 'static,
) -> Server {
    let cluster = shop();
    let server = Server::with_nodes(3, move |node, _, arguments| {
        agents(&cluster, node, arguments).unwrap_or_else(|| answers(&cluster, arguments))
    });
    let shop = [("frontend", 0), ("backend-1", 0), ("backend-2", 1), ("database", 1)];
    let mut host = pod("shop", "host", 1);
    host["spec"]["hostNetwork"] = true.into();
    let mut done = pod("shop", "done", 1);
    done["status"]["phase"] = "Succeeded".into();
    let pods = shop.map(|(name, node)| pod("shop", name, node)).into_iter().chain([host, done]);
    let mut objects = server.objects();
    objects.lists.insert("/api/v1/namespaces/shop/pods".into(), pods.collect());
    objects.lists.insert("/api/v1/namespaces/guests/pods".into(), vec![pod("guests", "visitor", 1)]);
    drop(objects);
    server
}

pub(crate) fn healthy() -> Server {
    server(|_, _, _| None)
}

pub(crate) fn json_of(done: &Finished) -> Value {
    serde_json::from_str(&done.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", done.stdout, done.stderr))
}

#[test]
fn each_side_is_that_of_the_agent_of_its_own_node() {
    // The agent of the source has not seen yet that its egress is denied, that of the destination sees all.
    let done = run(
        &server(|cluster, node, arguments| {
            let mut behind = cluster.clone();
            behind.policies.remove(&ObjectName::new("shop", "no-canary"));
            (node == "node-000").then(|| answers(&behind, arguments))
        }),
        TO_BACKEND,
    );
    let expected = "\
allow: shop/frontend -> shop/backend-2 TCP/8080
  10.0.0.1 -> 10.0.0.3

egress of shop/frontend, on node-000: allow (not isolated, no policy selects it for this direction)
  note: the agent of node-001 says deny (isolated, no rule matches): one of the two has not seen a change yet

ingress of shop/backend-2, on node-001: allow (isolated, a rule matches)
";
    assert!(done.stdout.starts_with(expected), "{}{}", done.stdout, done.stderr);
    let end = "\n\nthe tables in the kernel of 2 nodes (node-000, node-001) say the same (2 asked)\n";
    assert!(done.stdout.ends_with(end), "{}", done.stdout);
    assert_eq!((done.code, &*done.stderr), (Some(0), "2 of 2 nodes answered\n"));
}

#[test]
fn a_denied_connection_is_explained_as_on_a_node_and_can_be_an_exit_code() {
    let server = healthy();
    let done = run(&server, TO_BACKEND);
    let expected = "\
deny: shop/frontend -> shop/backend-2 TCP/8080
  10.0.0.1 -> 10.0.0.3

egress of shop/frontend, on node-000: deny (isolated, no rule matches)
  shop/no-canary, for pods of shop with role=frontend
    egress[0] does not match
";
    assert!(done.stdout.starts_with(expected) && done.code == Some(0), "{}{}", done.stdout, done.stderr);
    assert_eq!(run(&server, &format!("{TO_BACKEND} --exit-code")).code, Some(3));
    assert!(!server.objects().asked.iter().any(|asked| asked.contains("node-002")));
}

#[test]
fn names_without_a_namespace_are_in_that_of_the_context_and_yaml_is_json() {
    let server = healthy();
    let line = "explain --from frontend --to svc:web --port 80";
    let report = json_of(&run(&server, &format!("{line} -o json")));
    assert_eq!((&report["nodes"], &report["answered"]), (&json!(2), &json!(2)));
    assert_eq!((&report["verdict"], &report["to"]), (&json!("deny"), &json!("shop/svc:web")));
    // Where the service leads is known from the first answer alone.
    let backends = report["backends"].as_array().unwrap();
    let of = |backend: &Value| {
        ["to", "verdict"]
            .map(|key| backend[key].clone())
            .into_iter()
            .chain([backend["ingress"]["node"].clone()])
            .collect::<Vec<_>>()
    };
    let expected = [json!(["10.0.0.2", "allow", "node-000"]), json!(["10.0.0.3", "deny", "node-001"])];
    assert_eq!(backends.iter().map(|backend| Value::from(of(backend))).collect::<Vec<_>>(), expected);
    let yaml: Value = serde_saphyr::from_str(&run(&server, &format!("{line} -o yaml")).stdout).unwrap();
    assert_eq!(yaml, report);
    let done = run(&server, "explain -A --from frontend --to svc:web --port 80");
    assert_eq!(done.stderr, "error: --from frontend: -A does not say which namespace is meant\n");
}

#[test]
fn the_node_of_an_address_is_found_by_an_agent() {
    let done = run(&healthy(), "explain --from 10.0.0.1 --to 10.0.0.3 --port 8080 -o json");
    let report = json_of(&done);
    assert_eq!(
        (&report["egress"]["pod"], &report["egress"]["node"]),
        (&json!("shop/frontend"), &json!("node-000"))
    );
    assert_eq!(
        (&report["ingress"]["pod"], &report["ingress"]["node"]),
        (&json!("shop/backend-2"), &json!("node-001"))
    );
    assert_eq!(report["verdict"], json!("deny"));
    // A guide that does not answer is replaced by another, and no one misses it.
    let server = server(|_, node, _| (node == "node-000").then_some(Behaviour::Refused(500)));
    let done = run(&server, "explain --from 192.0.2.1 --to 10.0.0.3 --port 8080");
    assert!(done.stdout.contains("egress of 192.0.2.1: NOT ENFORCED: not a pod"), "{}", done.stdout);
    assert_eq!((done.code, &*done.stderr), (Some(0), "1 of 1 nodes answered\n"), "{}", done.stdout);
}

#[test]
fn an_end_that_nothing_enforces_is_said_to_be_open() {
    let server = healthy();
    // No agent: the policies would deny, and do not.
    let pods = server.objects().lists[PODS].clone();
    server.objects().lists.insert(
        PODS.into(),
        pods.iter().filter(|pod| pod["spec"]["nodeName"] != "node-001").cloned().collect(),
    );
    let done = run(&server, "explain --from shop/frontend --to shop/database --port 5432");
    assert!(done.stdout.starts_with("allow: shop/frontend -> shop/database"), "{}", done.stdout);
    let open = "ingress of shop/database, on node-001: NOT ENFORCED: no agent runs there";
    assert!(done.stdout.contains(open), "{}", done.stdout);
    assert_eq!(
        (done.code, &*done.stderr),
        (Some(4), "node-001: no agent runs there\n1 of 2 nodes answered\n")
    );
    let done = run(&healthy(), "explain --from guests/visitor --to shop/host --port 80");
    let open = "ingress of shop/host, on node-001: NOT ENFORCED: it is on the host network of node-001";
    assert!(
        done.stdout.starts_with("allow: ") && done.stdout.contains(open),
        "{}{}",
        done.stdout,
        done.stderr
    );
    assert_eq!((done.code, &*done.stderr), (Some(0), "1 of 1 nodes answered\n"));
    let done = run(&healthy(), "explain --from shop/host --to name:example.org --port 443");
    assert!(
        done.stdout.contains("ingress of name:example.org: NOT ENFORCED"),
        "{}{}",
        done.stdout,
        done.stderr
    );
    assert_eq!((done.code, &*done.stderr), (Some(0), "0 of 0 nodes answered\n"));

    // The node's tables do not reach it.
    let unenforced = self::server(|_, node, arguments| {
        let status = json!({"ready": true, "unenforced": [
            {"pod": "shop/backend-2", "reason": "macvlan", "detail": "its interface is no veth", "age_seconds": 9}]});
        (node == "node-001" && arguments[0] == "status").then(|| Behaviour::Prints(status.to_string()))
    });
    let done = run(&unenforced, "explain --from guests/visitor --to shop/backend-2 --port 8080");
    let open = "\
ingress of shop/backend-2, on node-001: NOT ENFORCED: macvlan: its interface is no veth
  its policies would say: deny (a cluster-wide policy denies)
";
    assert!(
        done.stdout.starts_with("allow: ") && done.stdout.contains(open),
        "{}{}",
        done.stdout,
        done.stderr
    );
}

#[test]
fn an_agent_that_does_not_answer_makes_the_verdict_uncertain() {
    let down = |_: &Cluster, node: &str, _: &[String]| (node == "node-001").then_some(Behaviour::Hangs);
    let line = "--request-timeout 1s --port 8080 --exit-code --from shop/frontend";
    let done = run(&server(down), &format!("explain {line} --to shop/database"));
    let expected = "\
UNCERTAIN: ingress: no answer within 1 s
allow: shop/frontend -> shop/database TCP/8080
";
    assert!(done.stdout.starts_with(expected), "{}{}", done.stdout, done.stderr);
    let quoted = "\
ingress of shop/database, on node-001: NOT KNOWN: no answer within 1 s
  what its agent last enforced is in force
  by the agent of node-000, its policies say: allow
";
    assert!(done.stdout.contains(quoted.trim_end()), "{}", done.stdout);
    assert_eq!(
        (done.code, &*done.stderr),
        (Some(4), "node-001: no answer within 1 s\n1 of 2 nodes answered\n")
    );
    // What the other side denies for certain is denied.
    let done = run(&server(down), &format!("explain {line} --to shop/backend-2"));
    assert!(done.stdout.starts_with("deny: "), "{}", done.stdout);
    assert_eq!(done.code, Some(3));
    let done =
        run(&server(|_, _, _| Some(Behaviour::Refused(403))), &format!("explain {line} --to shop/database"));
    assert!(done.stdout.contains("not known: shop/frontend -> shop/database"), "{}", done.stdout);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
}

#[test]
fn an_uncertain_answer_of_an_agent_is_shown_and_is_no_success() {
    let server = server(|cluster, _, arguments| {
        (arguments[0] == "explain").then(|| {
            let mut answer = explanation(cluster, arguments).expect("an answer");
            answer.uncertain_because = vec!["which node is not known".into()];
            let answer = serde_json::to_string(&answer).expect("JSON");
            Behaviour::PrintsAndFails(answer, "error: the answer is uncertain\n")
        })
    });
    let done = run(&server, TO_BACKEND);
    assert!(
        done.stdout.starts_with("UNCERTAIN: which node is not known\ndeny: "),
        "{}{}",
        done.stdout,
        done.stderr
    );
    assert_eq!(
        (done.code, &*done.stderr),
        (Some(1), "2 of 2 nodes answered\nerror: the answer is uncertain\n")
    );
}

#[test]
fn a_kernel_that_says_otherwise_is_the_first_line() {
    let server = server(|cluster, node, arguments| {
        (node == "node-001" && arguments[0] == "explain").then(|| {
            let mut answer = explanation(cluster, arguments).expect("an answer");
            answer.kernel = Some(KernelCheck { asked: 1, disagreements: vec!["ingress is open".into()] });
            Behaviour::Prints(serde_json::to_string(&answer).expect("JSON"))
        })
    });
    let done = run(&server, TO_BACKEND);
    assert!(
        done.stdout.starts_with("node-001: THE KERNEL SAYS OTHERWISE: ingress is open\n"),
        "{}",
        done.stdout
    );
}

#[test]
fn an_agent_that_is_not_ready_makes_the_verdict_uncertain() {
    let server = server(|_, node, arguments| {
        let status = json!({"ready": false, "last_error": "no API server"}).to_string();
        (node == "node-001" && arguments[0] == "status").then_some(Behaviour::Prints(status))
    });
    let line = "explain --from shop/frontend --to shop/database --port 5432";
    let done = run(&server, line);
    let uncertain = "UNCERTAIN: ingress: its agent is not ready (no API server)\nallow: ";
    assert!(done.stdout.starts_with(uncertain), "{}", done.stdout);
    assert_eq!(
        (done.code, &*done.stderr),
        (Some(1), "2 of 2 nodes answered\nerror: the answer is uncertain\n")
    );
    assert_eq!(
        json_of(&run(&server, &format!("{line} -o json")))["ingress"]["enforcement"],
        json!("unknown")
    );
}

#[test]
fn a_kernel_that_was_not_asked_is_said() {
    let server = server(|cluster, _, arguments| {
        (arguments[0] == "explain").then(|| {
            let mut answer = explanation(cluster, arguments).expect("an answer");
            answer.kernel = None;
            Behaviour::Prints(serde_json::to_string(&answer).expect("JSON"))
        })
    });
    let done = run(&server, TO_BACKEND);
    let note = "note: not compared with the tables in its kernel";
    assert_eq!(done.stdout.matches(note).count(), 2, "{}", done.stdout);
    assert!(!done.stdout.contains("say the same"), "{}", done.stdout);
}

#[test]
fn another_version_is_named_and_mistakes_are_clear() {
    let server = server(|_, node, arguments| match (node, &*arguments[0]) {
        ("node-001", "version") => Some(Behaviour::Prints(json!({"version": "9.0"}).to_string())),
        _ => None,
    });
    let other = agent_pod("node-001", "podgate-node-001", "sha256:b");
    server.objects().lists.get_mut(PODS).unwrap()[1] = other;
    let done = run(&server, TO_BACKEND);
    assert_eq!(done.stderr, "podgate 9.0 runs on node-001, this is podgate 0.1.0\n2 of 2 nodes answered\n");
    for (line, error) in [
        ("--from shop/absent --to shop/database", "no pod shop/absent: the API server does not have it"),
        (
            "--from shop/done --to shop/database",
            "pod shop/done has finished: it opens and takes no connection",
        ),
        ("--from node/absent --to shop/database", "no node absent: the API server does not have it"),
        (
            "--from shop/frontend --to shop/svc:absent",
            "the agents say: no service shop/absent: it does not exist, or it is only a name for something elsewhere",
        ),
        (
            "--from sh_op --to shop/database",
            "--from: \"shop/sh_op\" is none of NAMESPACE/POD, NAMESPACE/svc:SERVICE, node/NAME, name:DOMAIN or an address",
        ),
        (
            "--node node-000 --from shop/frontend --to shop/database",
            "--node and -l choose nothing here: the ends of the connection say which nodes are asked",
        ),
    ] {
        let done = run(&server, &format!("explain --port 80 {line}"));
        assert_eq!(
            (done.code, &*done.stdout, &*done.stderr),
            (Some(1), "", &*format!("error: {error}\n")),
            "{line}"
        );
    }
    server.objects().refused.insert("/api/v1/namespaces/shop/pods".into(), 403);
    let done = run(&server, TO_BACKEND);
    assert_eq!(done.stderr, "error: you may not list pods in namespace shop (403): it \\u{1b}[31mis so\n");
}

#[test]
fn names_in_answers_cannot_steer_the_terminal() {
    let server = server(|cluster, node, arguments| {
        (node == "node-001" && arguments[0] == "explain").then(|| {
            let mut answer = explanation(cluster, arguments).expect("an answer");
            answer.kernel = Some(KernelCheck { asked: 1, disagreements: vec!["\u{1b}[2J\u{202e}".into()] });
            Behaviour::Prints(serde_json::to_string(&answer).expect("JSON"))
        })
    });
    for format in ["table", "json", "yaml"] {
        let done = run(&server, &format!("{TO_BACKEND} -o {format}"));
        let obeyed = |character: char| character.is_control() && character != '\n' || character == '\u{202e}';
        assert!(done.code == Some(0) && !done.stdout.contains(obeyed), "{:?}", done.stdout);
    }
}
