//! The agent and a real API server: what it says is enforced, and what happens when it is away.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use xtask::{
    kubernetes::{ControlPlane, Mirror},
    lab::{Agent, Lab, PATIENT, Seen, Source},
    workspace,
};

use super::{
    Test,
    fixture::AllowDenyFixture,
    scene::{CLOSE, apply},
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("what_an_api_server_says_is_enforced_with_the_rights_of_the_deployment", enforced),
    ("verdicts_stay_while_the_api_server_is_away_and_changes_arrive_afterwards", outage),
    ("what_was_deleted_out_of_sight_of_a_watch_is_gone_afterwards", relist),
    ("an_agent_that_finds_no_api_server_changes_nothing_until_it_is_back", no_server),
    ("an_agent_without_rights_says_what_it_may_not_do", no_rights),
];

/// The pods, known to the API server.
struct MirroredFixture {
    pods: AllowDenyFixture,
    mirror: Mirror,
}

const OPEN: &str =
    "  podSelector: {matchLabels: {app: closed}}\n  policyTypes: [Ingress]\n  ingress:\n  - {}\n";

impl MirroredFixture {
    fn new(lab: &mut Lab, control_plane: &ControlPlane) -> Result<Self> {
        let pods = AllowDenyFixture::new(lab)?;
        let mut mirror = Mirror::new(lab.manifests());
        mirror.sync(control_plane)?;
        Ok(Self { pods, mirror })
    }

    fn agent(&self, control_plane: &ControlPlane) -> Result<Agent> {
        Agent::start_from(&self.pods.node, Source::ApiServer(&control_plane.kubeconfig()), &[])
    }

    /// Changes of the policy arrive: to one that lets everybody in, and back.
    fn opens_and_closes(&mut self, lab: &Lab, control_plane: &ControlPlane) -> Result<()> {
        for (spec, seen) in [(OPEN, Seen::Reached), (CLOSE, Seen::Blocked)] {
            apply(lab.manifests(), "close", spec)?;
            self.mirror.sync(control_plane)?;
            self.pods.denied_client_becomes(seen)?;
        }
        Ok(())
    }
}

fn enforced(lab: &mut Lab, control_plane: &mut ControlPlane) -> Result<()> {
    let mut fixture = MirroredFixture::new(lab, control_plane)?;
    let base = workspace::root().join("deploy/base");
    let base = base.to_str().context("the path of the workspace is not UTF-8")?;
    control_plane.ask(&["apply", "--kustomize", base])?;
    let token = control_plane.ask(&["create", "token", "podgate", "--namespace", "kube-system"])?;
    let kubeconfig = control_plane.kubeconfig().with_file_name("podgate");
    control_plane.write_kubeconfig(&kubeconfig, token.trim())?;
    let agent = Agent::start_from(&fixture.pods.node, Source::ApiServer(&kubeconfig), &[])?;
    fixture.pods.verdicts_hold()?;

    fixture.opens_and_closes(lab, control_plane)?;
    // A label makes a friend of the stranger, and the policy's end one of everybody.
    fixture.pods.client_denied.relabel(&[("role", "friend")])?;
    fixture.mirror.sync(control_plane)?;
    fixture.pods.denied_client_becomes(Seen::Reached)?;
    fixture.pods.client_denied.relabel(&[])?;
    fixture.mirror.sync(control_plane)?;
    fixture.pods.denied_client_becomes(Seen::Blocked)?;
    lab.manifests().remove("policy-close.yaml")?;
    fixture.mirror.sync(control_plane)?;
    fixture.pods.denied_client_becomes(Seen::Reached)?;

    let status = agent.ask(&["status"])?;
    let source = &status["sources"][0];
    ensure!(source["name"] == "kubernetes" && source["age_seconds"] == 0, "the source is up: {source}");
    ensure!(watches(&status)?.iter().all(|watch| watch["listed"] == true), "all is listed: {source}");
    // A packet shows a change as soon as the kernel has it; the pass ends, and is reported, a moment later.
    agent.until("each change was timed", PATIENT, "status", |status| {
        status["latency"]["count"].as_u64() >= Some(6)
    })?;
    let metrics = agent.page("/metrics")?;
    ensure!(metrics.contains("\npodgate_watch_restarts_total{kind=\"Pod\"} 0\n"), "{metrics}");
    agent.terminate()
}

fn outage(lab: &mut Lab, control_plane: &mut ControlPlane) -> Result<()> {
    let mut fixture = MirroredFixture::new(lab, control_plane)?;
    let agent = fixture.agent(control_plane)?;
    fixture.pods.verdicts_hold()?;
    for frozen in [false, true] {
        let away = if frozen { control_plane.freeze_api_server() } else { control_plane.kill_api_server() };
        away?;
        fixture.pods.verdicts_hold()?;
        if !frozen {
            agent.until("the watches know that the server is away", PATIENT, "status", |status| {
                let is_failing = |watch: &Value| watch["error"].is_string();
                watches(status).is_ok_and(|watches| watches.iter().all(is_failing))
                    && status["sources"][0]["age_seconds"].as_u64() > Some(0)
            })?;
            ensure!(agent.is_ready(), "what was in force is in force");
            fixture.pods.verdicts_hold()?;
        }
        if frozen {
            control_plane.thaw_api_server()?;
        } else {
            control_plane.start_api_server()?;
        }
        fixture.opens_and_closes(lab, control_plane)?;
    }
    agent.terminate()
}

fn relist(lab: &mut Lab, control_plane: &mut ControlPlane) -> Result<()> {
    let mut fixture = MirroredFixture::new(lab, control_plane)?;
    apply(lab.manifests(), "also", CLOSE)?;
    fixture.mirror.sync(control_plane)?;
    let agent = fixture.agent(control_plane)?;
    fixture.pods.verdicts_hold()?;
    let before = watches(&agent.ask(&["status"])?)?;

    // While the agent sees nothing, objects go, and with its memory the server forgets that they were there.
    agent.signal(Signal::SIGSTOP)?;
    let changed = (|| {
        lab.manifests().remove("policy-close.yaml")?;
        lab.manifests().remove("policy-also.yaml")?;
        fixture.pods.client_allowed.unlist()?;
        fixture.mirror.sync(control_plane)?;
        control_plane.kill_api_server()?;
        control_plane.start_api_server()
    })();
    agent.signal(Signal::SIGCONT)?;
    changed?;

    fixture.pods.denied_client_becomes(Seen::Reached)?;
    // Each kind is listed by itself, and a snapshot comes after what is enforced.
    let status = agent.until("the friend is no object any more", PATIENT, "status", |status| {
        status["sources"][0]["objects"]["pods"] == 2
    })?;
    let restarts =
        |watches: &[Value]| -> u64 { watches.iter().filter_map(|watch| watch["restarts"].as_u64()).sum() };
    let after = watches(&status)?;
    ensure!(restarts(&after) > restarts(&before), "the watches failed: {after:?}");
    agent.terminate()
}

fn no_server(lab: &mut Lab, control_plane: &mut ControlPlane) -> Result<()> {
    let mut fixture = MirroredFixture::new(lab, control_plane)?;
    fixture.agent(control_plane)?.kill()?;
    control_plane.kill_api_server()?;
    let mut agent = Agent::spawn(&fixture.pods.node, Source::ApiServer(&control_plane.kubeconfig()), &[])?;
    agent.until("the agent has tried", PATIENT, "status", |status| {
        let has_tried = |watch: &Value| watch["restarts"].as_u64() > Some(1);
        watches(status).is_ok_and(|watches| watches.iter().any(has_tried))
    })?;
    ensure!(!agent.is_ready(), "an agent that knows nothing says that it is ready");
    fixture.pods.verdicts_hold()?;
    control_plane.start_api_server()?;
    agent.ready(PATIENT)?;
    fixture.pods.verdicts_hold()?;
    apply(lab.manifests(), "close", OPEN)?;
    fixture.mirror.sync(control_plane)?;
    fixture.pods.denied_client_becomes(Seen::Reached)?;
    agent.terminate()
}

fn no_rights(lab: &mut Lab, control_plane: &mut ControlPlane) -> Result<()> {
    let fixture = MirroredFixture::new(lab, control_plane)?;
    control_plane.ask(&["create", "serviceaccount", "nobody"])?;
    let token = control_plane.ask(&["create", "token", "nobody"])?;
    let kubeconfig = control_plane.kubeconfig().with_file_name("nobody");
    control_plane.write_kubeconfig(&kubeconfig, token.trim())?;
    let agent = Agent::spawn(&fixture.pods.node, Source::ApiServer(&kubeconfig), &[])?;
    agent.until("the agent says why it is not ready", PATIENT, "status", |status| {
        let is_forbidden =
            |watch: &Value| watch["error"].as_str().is_some_and(|error| error.contains("forbidden"));
        watches(status).is_ok_and(|watches| watches.iter().all(is_forbidden))
    })?;
    ensure!(!agent.is_ready(), "an agent that may not look says that it is ready");
    agent.terminate()
}

fn watches(status: &Value) -> Result<Vec<Value>> {
    let watches = status["sources"][0]["watches"].as_array();
    watches.cloned().with_context(|| format!("the source has watches: {status}"))
}
