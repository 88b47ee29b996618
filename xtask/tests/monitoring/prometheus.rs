//! The dashboard and the alerts of `deploy/overlays/monitoring`, as Prometheus evaluates them on a real
//! agent.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, umount2};
use serde::Deserialize;
use serde_json::{Value, json};
use xtask::{
    lab::{Agent, Lab, Node, PATIENT, Source, join},
    workspace,
};

use super::{
    Readers, Test,
    fixture::AllowDenyFixture,
    scene::{CLOSE, apply, policy},
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("each_panel_of_the_dashboard_has_data_and_no_alert_fires_while_all_is_well", healthy),
    ("alerts_fire_when_they_should", provoked),
];

/// Panels without data on a node where all is well, and why.
const WITHOUT_DATA: [(&str, &str); 3] = [
    ("Live connections replaced in a full flow table", "the table is not full"),
    ("Addresses and replies of names, but for those learnt", "no rule has a name"),
    ("Lost records for the collector", "the agent has none"),
];

/// Alerts that no test here provokes, and what they need.
const NOT_PROVOKED: [(&str, &str); 7] = [
    ("PodgateHostEndpointUndone", "a kubelet that does not answer, and a device with a host endpoint"),
    ("PodgateHostEndpointUnenforced", "a host endpoint"),
    ("PodgateSourceStale", "an API server that is away for five minutes"),
    ("PodgateSlowProgramming", "changes that take more than a second"),
    ("PodgateLiveConnectionsReplaced", "a flood of a whole flow table by another pod"),
    ("PodgateNamesEvicted", "a pod that learns a whole table of names"),
    ("PodgateTableNearlyFull", "thousands of pods"),
];

/// Of another pod's exporters: the agent needs little of the memory that it may have, or nearly all.
const LITTLE_MEMORY: u32 = 50;
const NEARLY_ALL_MEMORY: u32 = 390;
const MEMORY_LIMIT: u32 = 400;

/// Scrapes of one evaluation, and the seconds that are taken for passed between two: enough for the longest
/// `for` and range of an alert together.
const SCRAPES: u32 = 90;
const STEP: u32 = 15;

/// What Prometheus finds.
#[derive(Debug, Deserialize)]
struct Evaluation {
    queries: Vec<QueryResult>,
    alerts: Vec<AlertState>,
}

#[derive(Debug, Deserialize)]
struct QueryResult {
    query: String,
    #[serde(default)]
    error: Option<String>,
    series: usize,
}

#[derive(Debug, Deserialize)]
struct AlertState {
    name: String,
    pending: bool,
    firing: bool,
}

impl Evaluation {
    fn firing(&self) -> BTreeSet<&str> {
        self.alerts.iter().filter(|alert| alert.firing).map(|alert| &*alert.name).collect()
    }
}

fn monitoring(file: &str) -> Result<String> {
    let path = workspace::root().join("deploy/overlays/monitoring").join(file);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// The titles of panels and their queries, as Grafana sends them for all nodes and the last hour.
fn panels() -> Result<Vec<(String, String)>> {
    let dashboard: Value = serde_json::from_str(&monitoring("dashboard.json")?)?;
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().context("panels")? {
        let title = panel["title"].as_str().context("a title")?;
        for target in panel["targets"].as_array().context("targets")? {
            let query = target["expr"].as_str().context("a query")?;
            found.push((title.to_owned(), query.replace("$node", ".*").replace("$__rate_interval", "10m")));
        }
    }
    Ok(found)
}

/// Has Prometheus scrape what is at `url`, for `lasts`, and evaluate the panels and alerts.
fn evaluate(readers: &Readers, node: &Node, lasts: Duration, memory: u32) -> Result<Evaluation> {
    let rules: Value = serde_saphyr::from_str(&monitoring("prometheus-rule.yaml")?)?;
    let of_agent = r#"namespace="kube-system",pod="podgate-abcde",container="agent""#;
    let others = format!(
        "container_memory_working_set_bytes{{{of_agent}}} {memory}e6\n\
         kube_pod_container_resource_limits{{{of_agent},resource=\"memory\",unit=\"byte\"}} {MEMORY_LIMIT}e6\n"
    );
    let asked = json!({
        "url": "http://127.0.0.1:9177/metrics",
        "labels": {"node": node.name(), "job": "kube-system/podgate", "instance": "10.0.0.1:9177"},
        "scrapes": SCRAPES,
        "pause_milliseconds": (lasts / SCRAPES).as_millis(),
        "step_seconds": STEP,
        "others": others,
        "queries": panels()?.into_iter().map(|(_, query)| query).collect::<Vec<_>>(),
        "rules": rules["spec"],
    });
    let mut command = node.place.command(&readers.prometheus);
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    process.stdin.take().context("stdin is piped")?.write_all(asked.to_string().as_bytes())?;
    let output = process.wait_with_output()?;
    ensure!(output.status.success(), "Prometheus: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("what Prometheus prints")
}

/// Long enough for hits to be counted several times.
const WHILE_COUNTED: Duration = Duration::from_secs(16);

fn healthy(lab: &mut Lab, readers: &Readers) -> Result<()> {
    let fixture = AllowDenyFixture::new(lab)?;
    let audited = fixture.node.pod("x/audited").labels(&[("app", "audited")]).start()?;
    let audit = policy("audit", "  podSelector: {matchLabels: {app: audited}}\n")
        .replace("  namespace: x\n", "  namespace: x\n  annotations: {podgate.io/mode: audit}\n");
    lab.manifests().write("policy-audit.yaml", &audit)?;
    let _agent = Agent::start(&fixture.node, &[])?;
    let is_over = AtomicBool::new(false);
    let (fixture, manifests) = (&fixture, lab.manifests());
    let evaluation = thread::scope(|scope| -> Result<Evaluation> {
        let traffic = scope.spawn(|| -> Result<()> {
            for port in (10_000..60_000).cycle() {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let (closed, open) = (fixture.server.addresses.v4, audited.addresses.v4);
                fixture.client_allowed.place.say((closed, port), b"x")?;
                fixture.client_denied.place.say((closed, port), b"x")?;
                fixture.client_denied.place.say((open, port), b"x")?;
                // A change now and then, which takes its time until it is enforced.
                if port % 40 == 0 {
                    let of = format!("  podSelector: {{matchLabels: {{app: other-{port}}}}}\n");
                    apply(manifests, "other", &of)?;
                }
                thread::sleep(Duration::from_millis(25));
            }
            Ok(())
        });
        let evaluation = evaluate(readers, &fixture.node, WHILE_COUNTED, LITTLE_MEMORY);
        is_over.store(true, Ordering::Relaxed);
        join(traffic)?;
        evaluation
    })?;

    let titles: BTreeMap<String, String> =
        panels()?.into_iter().map(|(title, query)| (query, title)).collect();
    ensure!(titles.len() > 20 && evaluation.queries.len() == titles.len(), "{evaluation:?}");
    for QueryResult { query, error, series } in &evaluation.queries {
        let title = &titles[query];
        ensure!(error.is_none(), "{title}: {query}: {error:?}");
        let exempt = WITHOUT_DATA.iter().find(|(panel, _)| panel == title);
        match exempt {
            None => ensure!(*series > 0, "{title} is empty: {query}"),
            Some((_, why)) => ensure!(*series == 0, "{title} has data, though {why}: {query}"),
        }
    }
    let pending: Vec<&AlertState> = evaluation.alerts.iter().filter(|alert| alert.pending).collect();
    ensure!(evaluation.alerts.len() > 10 && pending.is_empty(), "{pending:?}");
    Ok(())
}

/// While an agent is as it is.
const MOMENT: Duration = Duration::from_secs(3);

fn provoked(lab: &mut Lab, readers: &Readers) -> Result<()> {
    let mut seen = BTreeSet::new();
    let node = lab.node("n1")?;
    let mut fires = |lasts: Duration, memory: u32, expected: &[&str]| -> Result<()> {
        let evaluation = evaluate(readers, &node, lasts, memory)?;
        let expected: BTreeSet<&str> = expected.iter().copied().collect();
        ensure!(evaluation.firing() == expected, "{:?} fire, not {expected:?}", evaluation.firing());
        seen.extend(expected.into_iter().map(str::to_owned));
        Ok(())
    };
    fires(MOMENT, LITTLE_MEMORY, &["PodgateAgentDown"])?;

    let empty = node.directory().join("empty");
    fs::create_dir(&empty)?;
    let agent = Agent::spawn(&node, Source::Path(&empty), &[])?;
    agent.until("it answers", PATIENT, "status", |_| true)?;
    // A source without objects is a problem of that source, too.
    let without_objects =
        ["PodgateFailing", "PodgateMemoryNearLimit", "PodgateNotReady", "PodgateObjectsNotUnderstood"];
    fires(MOMENT, NEARLY_ALL_MEMORY, &without_objects)?;
    drop(agent);

    // Two pods with one address, a policy that is not understood, and a collector that is none.
    apply(lab.manifests(), "close", CLOSE)?;
    let pod = node.pod("x/closed").labels(&[("app", "closed")]).start()?;
    let twin = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "twin", "namespace": "x", "labels": {"app": "closed"}},
        "spec": {"nodeName": node.name(), "containers": [{"name": "main", "image": "lab"}]},
        "status": {"phase": "Running", "podIP": pod.addresses.v4},
    });
    lab.manifests().write("pod-twin.yaml", &twin.to_string())?;
    let unknown = "  podSelector: {}\n  ingress: [{from: [{podSelector: {matchLabels: {a: 1}}}]}]\n";
    lab.manifests().write("policy-unknown.yaml", &policy("unknown", unknown))?;
    let agent = Agent::start(&node, &["--otlp", "http://127.0.0.1:9177"])?;
    agent.until("the pods are reported", PATIENT, "status", |status| {
        status["unenforced"].as_array().is_some_and(|pods| pods.len() == 2)
    })?;
    // That policy allows nothing.
    let (other, client) = (node.pod("x/other").start()?, node.pod("x/client").start()?);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        let traffic = scope.spawn(|| -> Result<()> {
            for port in 10_000..60_000 {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                client.place.say((other.addresses.v4, port), b"x")?;
                thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        });
        // Records go out once a second.
        let fired = fires(
            WHILE_COUNTED,
            LITTLE_MEMORY,
            &["PodgateExportLoses", "PodgateObjectsNotUnderstood", "PodgateUnenforcedPods"],
        );
        is_over.store(true, Ordering::Relaxed);
        join(traffic)?;
        fired
    })?;
    drop(agent);

    umount2(&node.bpffs(), MntFlags::MNT_DETACH).context("unmounting the node's bpffs")?;
    for object in ["pod-twin.yaml", "policy-unknown.yaml"] {
        lab.manifests().remove(object)?;
    }
    let agent = Agent::spawn_unshared(&node, "private", &node.bpffs())?;
    agent.until("it is ready", PATIENT, "status", |status| status["ready"] == true)?;
    fires(MOMENT, LITTLE_MEMORY, &["PodgateEnforcementEndsWithAgent"])?;

    let rules: Value = serde_saphyr::from_str(&monitoring("prometheus-rule.yaml")?)?;
    let groups = rules["spec"]["groups"].as_array().context("groups")?.iter();
    let all = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten());
    let all: BTreeSet<&str> = all.filter_map(|rule| rule["alert"].as_str()).collect();
    let known = seen.iter().map(String::as_str).chain(NOT_PROVOKED.map(|(alert, _)| alert));
    let known: BTreeSet<&str> = known.collect();
    ensure!(all == known, "provoked, or known not to be: {known:?}; there are {all:?}");
    Ok(())
}
