//! Names that speak to a terminal: no verb prints what it obeys, whoever wrote the objects or answers as the
//! agent.

use std::{collections::BTreeSet, fs, path::Path};

use crate::{agent::Agent, podgate::run};

/// Every name holds ESC, or turns the direction of writing.
const OBJECTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: x, labels: {"team\e[31m": "a\u202e"}}
---
apiVersion: v1
kind: Node
metadata: {name: "n1\e[31m"}
status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: x, labels: {"role\e[31m": "a\r\n"}}
spec: {nodeName: "n1\e[31m", containers: [{name: "c\e[31m", ports: [{name: http, containerPort: 80}]}]}
status: {phase: Running, podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: "b\e[31m", namespace: "x", labels: {role: b}}
spec: {nodeName: "n1\e[31m"}
status: {phase: Running, podIP: 10.0.0.2}
---
apiVersion: v1
kind: Pod
metadata: {name: "c", namespace: "y\e]0;title\a", labels: {role: b}}
spec: {nodeName: "n1\e[31m"}
status: {phase: Running, podIP: 10.0.0.3}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: x}
spec: {clusterIP: 10.96.0.1, selector: {role: b}, ports: [{name: "p\e[31m", port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: "web\e[31m", namespace: x, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: "p\e[31m", protocol: TCP, port: 80}]
endpoints: [{addresses: [10.0.0.2], nodeName: "n1\e[31m"}, {addresses: [10.0.0.3]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: "policy\e[31m", namespace: x}
spec:
  podSelector: {matchExpressions: [{key: "role\e[31m", operator: Exists}]}
  policyTypes: [Ingress, "Egress\e[31m"]
  ingress:
  - from: [{podSelector: {matchLabels: {"role\u202e": "b\e[31m"}}}]
    ports: [{port: "http\e[31m"}]
  - from: [{ipBlock: {cidr: "10.0.0.0\e[31m"}}]
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: "cluster\e[31m"}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {}}
  ingress: [{name: "rule\e[31m", action: "Deny", from: [{namespaces: {matchLabels: {"team\e[31m": b}}}]}]
---
apiVersion: "networking.k8s.io/v9\e[31m"
kind: NetworkPolicy
metadata: {name: "other\e[31m", namespace: x}
"#;

/// Verbs that print nothing that objects or agents name, and two that need an API server (tests `fleet`).
const OTHERS: [&str; 12] = [
    "agent",
    "cni",
    "check",
    "cluster",
    "detach",
    "dump",
    "mount",
    "doctor",
    "completion",
    "man",
    "help",
    "version",
];

#[test]
fn no_verb_prints_what_a_terminal_obeys() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("objects.yaml");
    fs::write(&path, OBJECTS).expect("a file");
    let path = path.display();
    let offline = [
        "matrix --manifests FILE --ports TCP/80",
        "matrix --manifests FILE --ports TCP/80,TCP/http -o csv",
        "matrix --manifests FILE --ports TCP/80 -o json",
        "matrix --manifests FILE --ports TCP/80,TCP/http -o html",
        "matrix --manifests shop.yaml --ports TCP/80 --diff FILE -o html",
        "matrix --manifests shop.yaml --ports TCP/80 --diff FILE -o csv",
        "matrix --manifests shop.yaml --ports TCP/80 --diff FILE -o json",
        "explain --from x/a --to 192.168.0.1 --port TCP/8880 --manifests FILE -o json",
        "matrix --manifests shop.yaml --ports TCP/80 --diff FILE",
        "matrix --manifests FILE --ports TCP/80 --diff shop.yaml -o csv",
        "explain --from x/a --to x/svc:web --port TCP/80 --manifests FILE",
        "explain --from x/a --to x/svc:web --port TCP/80 --manifests FILE -o json",
        "explain --from 10.0.0.2 --to x/a --port TCP/http --manifests FILE",
        "explain --from 10.0.0.3 --to 10.0.0.1 --port TCP/80 --manifests shop.yaml --what-if FILE",
        "lint FILE --severity error --allow-empty",
        "lint FILE -o json --strict",
        "coverage FILE -o wide",
        "coverage FILE -o json",
        "advise FILE --flows seen.jsonl",
        "convert FILE",
        "explain --from x/absent --to 192.168.0.1 --port TCP/80 --manifests FILE --strict",
    ];
    let live = [
        "status",
        "endpoints",
        "endpoints -o json",
        "names",
        "names -o json",
        "policies",
        "policies -o json",
        "rollout",
        "rollout -o json",
        "flows",
        "flows -o json",
        "trace --pod shop/frontend",
        "status -o json",
        "explain --from guests/visitor --to shop/backend-2 --port TCP/8080 -o json",
        "explain --from guests/visitor --to shop/backend-2 --port TCP/8080",
    ];
    let agent = Agent::start_with(|json| {
        // Beside names that are asked for by the command lines.
        json.replace("guests", r"guests\u001b[31m")
            .replace("no-canary", r"no\u202ecanary")
            .replace("veth", r"\u001bveth")
            .replace("internet", r"\u001binternet")
    });
    let socket = agent.socket();
    let mut verbs: BTreeSet<String> = OTHERS.map(str::to_owned).into();
    let mut escaped = 0;
    for line in offline.into_iter().chain(live) {
        verbs.insert(line.split(' ').next().expect("a verb").to_owned());
        let line = line.replace("FILE", &path.to_string());
        let environment: &[(&str, &Path)] =
            if live.contains(&&*line) { &[("PODGATE_SOCKET", &socket)] } else { &[] };
        let output = run(&line, environment);
        let text = String::from_utf8([output.stdout, output.stderr].concat()).expect("podgate prints UTF-8");
        // RFC 4180 ends lines of CSV so.
        let text = text.replace("\r\n", "\n");
        assert!(matches!(output.status.code(), Some(0 | 1 | 3)), "{line}: {:?}\n{text}", output.status);
        let obeyed = |it: char| it.is_control() && it != '\n' || it == '\u{202e}';
        assert!(!text.contains(obeyed), "{line}: {text:?}");
        escaped += usize::from(text.contains("u{1b}"));
    }
    assert!(escaped > 12, "names are shown, escaped: only {escaped} outputs have one");
    let help = run("--help", &[]);
    let help = String::from_utf8(help.stdout).expect("podgate prints UTF-8");
    let commands = help.split("Commands:\n").nth(1).expect("a list of verbs").lines();
    let listed = commands.take_while(|line| line.starts_with("  ")).filter(|line| !line.starts_with("   "));
    let listed: BTreeSet<String> =
        listed.filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect();
    let untried: Vec<&String> = listed.difference(&verbs).collect();
    assert!(!listed.is_empty() && untried.is_empty(), "{untried:?}");
}
