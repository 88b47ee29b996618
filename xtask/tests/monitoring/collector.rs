//! The export to OpenTelemetry's collector: while it works, is away, hangs, or is another server.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use xtask::lab::{Agent, Daemon, Lab, Node, PATIENT, Seen, until};

use super::{
    Readers, Test,
    fixture::AllowDenyFixture,
    scene::{CLOSE, policy},
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("denied_packets_and_all_metrics_reach_a_collector", taken),
    ("an_encrypted_collector_is_known_by_the_authority_that_was_named", encrypted),
    ("a_collector_that_is_away_for_a_while_gets_what_was_denied_meanwhile", away),
    ("a_collector_that_hangs_changes_neither_enforcement_nor_readiness_nor_the_end_of_the_agent", hangs),
];

/// The collector by name, which the running agent must still be able to look up.
const PLAIN: &str = "http://localhost:4318";
/// Much less than the five seconds of `terminationGracePeriodSeconds` in deploy/base, on a machine with time.
const END: Duration = Duration::from_secs(8);

/// A collector in a node's namespace, and what it has taken.
struct Collector {
    process: Daemon,
    file: PathBuf,
}

impl Collector {
    fn start(readers: &Readers, node: &Node, options: &[&str]) -> Result<Self> {
        let file = node.directory().join("collected");
        let mut command = node.place.command(&readers.collector);
        command.arg("-out").arg(&file).args(options).stdout(Stdio::null());
        Ok(Self { process: Daemon::spawn("the collector", &mut command)?, file })
    }

    fn requests(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        // The last line may not be written to its end.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).context("a line of the collector")).collect()
    }

    /// All log records, each with the resource that it is of.
    fn records(&self) -> Result<Vec<(Value, Value)>> {
        let mut found = Vec::new();
        for request in self.requests()? {
            for of_resource in list(&request["logs"]["resourceLogs"]) {
                for of_scope in list(&of_resource["scopeLogs"]) {
                    let records = list(&of_scope["logRecords"]).iter();
                    found.extend(records.map(|record| (record.clone(), of_resource["resource"].clone())));
                }
            }
        }
        Ok(found)
    }

    /// Waits for the record of a packet that was sent to this port.
    fn record_of(&self, port: u16) -> Result<(Value, Value)> {
        until(&format!("a record of port {port}"), PATIENT, || {
            let is_it = |(record, _): &(Value, Value)| {
                attribute(&record["attributes"], "destination.port") == Some(port.to_string().into())
            };
            Ok(self.records()?.into_iter().find(is_it))
        })
    }

    /// The names of metrics.
    fn metrics(&self) -> Result<BTreeSet<String>> {
        let requests = self.requests()?;
        let of_resources = requests.iter().flat_map(|request| list(&request["metrics"]["resourceMetrics"]));
        let of_scopes = of_resources.flat_map(|of| list(&of["scopeMetrics"]));
        let metrics = of_scopes.flat_map(|of| list(&of["metrics"]));
        Ok(metrics.filter_map(|metric| metric["name"].as_str()).map(str::to_owned).collect())
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The value of an attribute in OTLP's JSON; numbers are text there.
fn attribute(attributes: &Value, key: &str) -> Option<Value> {
    let found = list(attributes).iter().find(|attribute| attribute["key"] == key)?;
    found["value"].as_object()?.values().next().cloned()
}

fn deny(fixture: &AllowDenyFixture, port: u16) -> Result<()> {
    fixture.client_denied.place.say((fixture.server.addresses.v4, port), b"x")
}

/// The value of one sample; 0 if it is not there.
fn metric(agent: &Agent, sample: &str) -> Result<u64> {
    let page = agent.page("/metrics")?;
    Ok(page.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse().ok()).unwrap_or(0))
}

fn taken(lab: &mut Lab, readers: &Readers) -> Result<()> {
    let fixture = AllowDenyFixture::new(lab)?;
    let collector = Collector::start(readers, &fixture.node, &[])?;
    let headers = fixture.node.directory().join("headers");
    fs::write(&headers, "Authorization: Bearer of-a-test\n")?;
    let options = ["--otlp", PLAIN, "--otlp-interval", "1", "--otlp-headers", &headers.to_string_lossy()];
    let agent = Agent::start(&fixture.node, &options)?;
    fixture.verdicts_hold()?;
    deny(&fixture, 7_001)?;
    let (record, resource) = collector.record_of(7_001)?;
    for (key, expected) in [
        ("source.k8s.pod.name", "stranger"),
        ("source.k8s.namespace.name", "x"),
        ("destination.k8s.pod.name", "server"),
        ("k8s.pod.name", "server"),
        ("network.transport", "udp"),
        ("podgate.verdict", "denied"),
        ("podgate.direction", "ingress"),
    ] {
        ensure!(attribute(&record["attributes"], key) == Some(expected.into()), "{key} of {record}");
    }
    let body = &record["body"]["kvlistValue"]["values"];
    ensure!(attribute(body, "node") == Some("n1".into()), "{record}");
    for (key, expected) in [("service.name", "podgate"), ("k8s.node.name", "n1")] {
        ensure!(attribute(&resource["attributes"], key) == Some(expected.into()), "{key} of {resource}");
    }
    ensure!(
        collector.requests()?.iter().all(|request| request["authorization"][0] == "Bearer of-a-test"),
        "a request lacks its header"
    );

    // All metrics of `/metrics`, once both sides have been read.
    let page = agent.page("/metrics")?;
    let names =
        page.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(['{', ' ']).next());
    let histogram = "podgate_programming_latency_seconds";
    let exposed: BTreeSet<String> =
        names.map(|name| if name.starts_with(histogram) { histogram } else { name }.to_owned()).collect();
    ensure!(exposed.len() > 30, "{exposed:?}");
    until("all metrics are there", PATIENT, || Ok(exposed.is_subset(&collector.metrics()?).then_some(())))?;

    let audited = policy("close", CLOSE)
        .replace("  namespace: x\n", "  namespace: x\n  annotations: {podgate.io/mode: audit}\n");
    lab.manifests().write("policy-close.yaml", &audited)?;
    fixture.denied_client_becomes(Seen::Reached)?;
    deny(&fixture, 7_002)?;
    let (record, _) = collector.record_of(7_002)?;
    ensure!(attribute(&record["attributes"], "podgate.verdict") == Some("would-deny".into()), "{record}");

    let status = agent.ask(&["status"])?;
    ensure!(
        status["export"]["collector"] == PLAIN && status["export"]["records"]["no-room"] == 0,
        "{status}"
    );
    let text = fixture.node.podgate(&["status"])?;
    ensure!(text.stdout.contains(&format!("records to {PLAIN}, 0 lost")), "{}", text.text());

    // What the agent knows when it is asked to end goes out with it.
    deny(&fixture, 7_003)?;
    until("the agent knows of it", PATIENT, || {
        let flows = fixture.node.podgate(&["flows", "--port", "UDP/7003"])?;
        Ok(flows.stdout.contains("7003").then_some(()))
    })?;
    agent.terminate()?;
    let before = collector.records()?.len();
    collector.record_of(7_003)?;
    ensure!(collector.records()?.len() == before, "it was there when the agent ended");
    Ok(())
}

fn encrypted(lab: &mut Lab, readers: &Readers) -> Result<()> {
    let fixture = AllowDenyFixture::new(lab)?;
    let directory = fixture.node.directory();
    let write = |name: &str, text: String| -> Result<String> {
        let path = directory.join(name);
        fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    };
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let certificate = write("certificate", own.cert.pem())?;
    let key = write("key", own.signing_key.serialize_pem())?;
    let another = write("another", other.cert.pem())?;
    let collector = Collector::start(readers, &fixture.node, &["-certificate", &certificate, "-key", &key])?;
    let options = |authority: &str| {
        ["--otlp", "https://127.0.0.1:4318", "--otlp-interval", "1", "--otlp-ca", authority]
            .map(str::to_owned)
    };
    let start = |authority: &str| -> Result<Agent> {
        let options = options(authority);
        Agent::start(&fixture.node, &options.each_ref().map(String::as_str))
    };
    let agent = start(&another)?;
    agent.until("it is not believed", PATIENT, "status", |status| {
        let error = &status["export"]["requests"][1]["error"];
        error.as_str().is_some_and(|error| error.contains("certificate"))
    })?;
    deny(&fixture, 7_001)?;
    agent.terminate()?;
    ensure!(collector.requests()?.is_empty(), "another's authority was enough");
    let _agent = start(&certificate)?;
    deny(&fixture, 7_002)?;
    collector.record_of(7_002).map(drop)
}

fn away(lab: &mut Lab, readers: &Readers) -> Result<()> {
    let fixture = AllowDenyFixture::new(lab)?;
    let agent = Agent::start(&fixture.node, &["--otlp", PLAIN, "--otlp-interval", "1"])?;
    let failed = "podgate_otlp_requests_total{signal=\"logs\",result=\"failed\"}";
    let mut failures = 0;
    // Away from the start, and again in the middle.
    for port in [7_001, 7_002] {
        deny(&fixture, port)?;
        until("it is tried in vain", PATIENT, || Ok((metric(&agent, failed)? > failures).then_some(())))?;
        ensure!(metric(&agent, "podgate_otlp_waiting_records")? > 0, "the record is kept");
        fixture.verdicts_hold()?;
        ensure!(agent.page("/readyz")? == "ready\n", "it is ready without a collector");
        let collector = Collector::start(readers, &fixture.node, &[])?;
        collector.record_of(port)?;
        until("none waits", PATIENT, || {
            Ok((metric(&agent, "podgate_otlp_waiting_records")? == 0).then_some(()))
        })?;
        failures = metric(&agent, failed)?;
    }
    for lost in ["no-room", "refused", "expired"] {
        let sample = format!("podgate_otlp_records_total{{result=\"{lost}\"}}");
        ensure!(metric(&agent, &sample)? == 0, "{lost}");
    }
    agent.terminate()
}

/// Labels of a pod of which some hundred records fill the queue.
const LABELS: usize = 60;

fn hangs(lab: &mut Lab, readers: &Readers) -> Result<()> {
    let fixture = AllowDenyFixture::new(lab)?;
    let keys: Vec<String> = (0..LABELS).map(|number| format!("{number:0>63}")).collect();
    let labels: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), key.as_str())).collect();
    let large = fixture.node.pod("x/large").labels(&labels).start()?;
    let collector = Collector::start(readers, &fixture.node, &[])?;
    let agent = Agent::start(&fixture.node, &["--otlp", PLAIN, "--otlp-interval", "1"])?;
    until("the collector answers", PATIENT, || Ok((!collector.metrics()?.is_empty()).then_some(())))?;
    // The kernel takes connections in its place, and no one answers.
    collector.process.signal(Signal::SIGSTOP)?;
    let lost = "podgate_otlp_records_total{result=\"no-room\"}";
    let mut port = 10_000;
    let used = agent.cpu_time()?;
    let began = Instant::now();
    until("the queue is full", 4 * PATIENT, || {
        for _ in 0..16 {
            port += 1;
            large.place.say((fixture.server.addresses.v4, port), b"x")?;
        }
        Ok((metric(&agent, lost)? > 0).then_some(()))
    })?;
    println!(
        "the queue was full after {} packets in {:.1?}; the agent used {:.1?} of a CPU",
        port - 10_000,
        began.elapsed(),
        agent.cpu_time()? - used
    );
    fixture.verdicts_hold()?;
    ensure!(agent.page("/readyz")? == "ready\n", "it is ready while the collector hangs");
    let waiting = metric(&agent, "podgate_otlp_waiting_records")?;
    ensure!(waiting > 100 && waiting < 1_000, "{waiting} records wait");
    let began = Instant::now();
    agent.terminate()?;
    ensure!(began.elapsed() < END, "the agent ended after {:?}", began.elapsed());
    ensure!(lab.logs().contains("the collector takes too long"), "nothing says that records were left");
    Ok(())
}
