//! What the agent tells: flows as they happen, the deny log, hits of policies, and policies in audit mode.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xtask::lab::{Agent, Lab, PATIENT, Seen, join, until};

use super::{
    Test,
    fixture::AllowDenyFixture,
    scene::{CLOSE, EVERY_KIND, expect, policy},
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("a_flood_of_denied_packets_costs_the_agent_little_and_loses_no_count", flood),
    ("a_denied_connection_is_told_at_once_with_both_pods_and_the_policy", reported),
    ("flows_are_remembered_by_the_next_agent", remembered),
    ("a_policy_in_audit_mode_tells_what_it_would_deny", audit),
];

/// From the packet to the line that a follower reads.
const AT_ONCE: Duration = Duration::from_millis(100);
const TRIES: u16 = 9;

fn reported(lab: &mut Lab) -> Result<()> {
    let fixture = AllowDenyFixture::new(lab)?;
    let log = fixture.node.directory().join("denied.log");
    let agent = Agent::start(&fixture.node, &["--deny-log", &log.to_string_lossy()])?;
    let follower = fixture.node.follow(&["flows", "--follow", "--since", "1m", "--denied", "-o", "json"])?;
    let mut delays = Vec::new();
    for port in 7_000..7_000 + TRIES {
        let sent = Instant::now();
        fixture.client_denied.place.say((fixture.server.addresses.v4, port), b"x")?;
        let (line, read) = follower.next(PATIENT)?;
        let flow: Value = serde_json::from_str(&line).context("a line of flows")?;
        for (place, expected) in [
            ("/source/pod", "x/stranger"),
            ("/destination/pod", "x/server"),
            ("/policies/0/policy", "x/close"),
            ("/verdict", "denied"),
            ("/reason", "denied"),
            ("/direction", "ingress"),
            ("/protocol", "UDP"),
        ] {
            ensure!(flow.pointer(place).and_then(Value::as_str) == Some(expected), "{place} of {line}");
        }
        ensure!(flow["destination"]["port"] == port && flow["certain"] == true, "{line}");
        delays.push(read.saturating_duration_since(sent));
    }
    delays.sort_unstable();
    let median = delays[delays.len() / 2];
    println!("a denied packet is read by a follower {median:?} after it was sent (median of {TRIES})");
    ensure!(median < AT_ONCE, "denied packets were reported after {delays:?}");
    let lines = fs::read_to_string(&log).context("the deny log")?;
    ensure!(lines.lines().count() == usize::from(TRIES) && lines.contains("x/close"), "deny log: {lines}");

    // What `explain` says beside an agent is what the tables in the kernel say.
    for (from, expected) in [("x/friend", "allow"), ("x/stranger", "deny")] {
        let answer = agent.ask(&["explain", "--from", from, "--to", "x/server", "--port", "TCP/80"])?;
        let kernel = &answer["kernel"];
        ensure!(answer["verdict"] == expected, "{answer}");
        ensure!(kernel["asked"] == 4 && kernel["disagreements"] == serde_json::json!([]), "{kernel}");
    }

    let asked = fixture.node.podgate(&["flows", "--last", "1", "--port", "UDP/7000"])?;
    ensure!(asked.stdout.contains("x/stranger") && asked.stdout.contains("x/close"), "{}", asked.text());
    println!("{}", fixture.node.podgate(&["flows", "--denied", "--last", "3"])?.stdout);
    Ok(())
}

fn remembered(lab: &mut Lab) -> Result<()> {
    let fixture = AllowDenyFixture::new(lab)?;
    let agent = Agent::start(&fixture.node, &[])?;
    let denied = |packets: u64| {
        until("the flow is remembered", PATIENT, || {
            let asked = fixture.node.podgate(&["flows", "--denied", "--port", "UDP/7000", "-o", "json"])?;
            let lines: Vec<&str> = asked.stdout.lines().collect();
            ensure!(lines.len() <= 1, "one kind of flow: {}", asked.text());
            let flow: Value = lines.first().map_or(Ok(Value::Null), |line| serde_json::from_str(line))?;
            Ok((flow["packets"].as_u64() >= Some(packets)).then_some(flow))
        })
    };
    let send = || fixture.client_denied.place.say((fixture.server.addresses.v4, 7_000), b"x");
    send()?;
    let before = denied(1)?;
    agent.terminate()?;
    let next = Agent::start(&fixture.node, &[])?;
    send()?;
    let after = denied(2)?;
    let first = before["first"].as_str().or(before["time"].as_str());
    ensure!(after["first"].as_str() == first, "{before} became {after}");
    // What an agent finds there never keeps it from its work.
    next.terminate()?;
    let saved = fixture.node.directory().join("flow-history.gz");
    ensure!(saved.exists(), "no {}", saved.display());
    fs::write(&saved, b"garbage")?;
    let _agent = Agent::start(&fixture.node, &[])?;
    fixture.verdicts_hold()
}

const FLOOD: u64 = 1_000_000;
const FLOOD_TIME: Duration = Duration::from_secs(10);
const BURSTS: u32 = 200;
/// Of one CPU.
const MOST: f64 = 0.2;

fn flood(lab: &mut Lab) -> Result<()> {
    let fixture = AllowDenyFixture::new(lab)?;
    let agent = Agent::start(&fixture.node, &[])?;
    let _follower = fixture.node.follow(&["flows", "--follow", "-o", "json"])?;
    let counted = || metric(&agent, "podgate_packets_total{direction=\"ingress\",outcome=\"denied\"}");
    let dropped = || {
        metric(&agent, "podgate_pod_drops_total{pod=\"x/server\",direction=\"ingress\",reason=\"denied\"}")
    };
    let (before, used) = (counted()?, agent.cpu_time()?);
    let began = Instant::now();
    let to = SocketAddr::new(fixture.server.addresses.v4.into(), 9_999);
    thread::scope(|scope| -> Result<()> {
        let flood = scope.spawn(|| fixture.client_denied.place.run(|| pour(to)));
        // Whoever may, gets through meanwhile.
        while !flood.is_finished() {
            expect(&fixture.client_allowed.place, fixture.server.addresses, &EVERY_KIND, Seen::Reached)?;
        }
        join(flood)
    })?;
    let took = began.elapsed();
    let share = (agent.cpu_time()? - used).as_secs_f64() / took.as_secs_f64();
    println!("{FLOOD} denied packets in {took:.1?} cost the agent {:.1} % of a CPU", share * 100.0);
    ensure!(share < MOST, "the agent took {share:.2} of a CPU");
    ensure!(counted()? - before == FLOOD, "{} of {FLOOD} packets were counted", counted()? - before);
    until("all drops are credited to the pod", PATIENT, || Ok((dropped()? >= FLOOD).then_some(())))?;
    ensure!(dropped()? == FLOOD, "{} packets were credited", dropped()?);
    Ok(())
}

/// Sends many datagrams in a given time.
fn pour(to: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(to)?;
    let began = Instant::now();
    for burst in 0..BURSTS {
        for _ in 0..FLOOD / u64::from(BURSTS) {
            socket.send(b"x")?;
        }
        thread::sleep((FLOOD_TIME * (burst + 1) / BURSTS).saturating_sub(began.elapsed()));
    }
    Ok(())
}

/// The value of one sample of the agent's metrics; 0 if it is not there.
pub(crate) fn metric(agent: &Agent, sample: &str) -> Result<u64> {
    let page = agent.page("/metrics")?;
    let value = page.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse().ok());
    Ok(value.unwrap_or(0))
}

fn audit(lab: &mut Lab) -> Result<()> {
    let fixture = AllowDenyFixture::new(lab)?;
    let audited = policy("close", CLOSE)
        .replace("  namespace: x\n", "  namespace: x\n  annotations: {podgate.io/mode: audit}\n");
    lab.manifests().write("policy-close.yaml", &audited)?;
    let agent = Agent::start(&fixture.node, &[])?;
    expect(&fixture.client_denied.place, fixture.server.addresses, &EVERY_KIND, Seen::Reached)?;
    expect(&fixture.client_allowed.place, fixture.server.addresses, &EVERY_KIND, Seen::Reached)?;
    let flows = fixture.node.podgate(&["flows", "--denied"])?;
    for word in ["x/stranger", "x/server", "would-deny", "x/close"] {
        ensure!(flows.stdout.contains(word), "no {word} in {}", flows.text());
    }
    ensure!(!flows.stdout.contains("x/friend"), "{}", flows.text());
    let report = agent.ask(&["policies"])?;
    let policy = &report["policies"][0];
    ensure!(policy["policy"] == "x/close" && policy["mode"] == "audit", "{report}");
    let of_ingress = |field: &str| policy["ingress"][field].as_u64().unwrap_or(0);
    ensure!(of_ingress("would_deny") >= 6 && of_ingress("denied") == 0, "{report}");
    ensure!(policy["ingress"]["rules"][0]["hits"].as_u64() >= Some(6), "{report}");

    lab.manifests().write("policy-close.yaml", &self::policy("close", CLOSE))?;
    agent.until("the policy is enforced", PATIENT, "policies", |report| {
        report["policies"][0]["mode"] == "enforce"
    })?;
    fixture.verdicts_hold()
}
