//! The agent and a real API server: what it says is enforced, and what happens when it is away.

use anyhow::{Context, Result, ensure};
use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::Value;
use xtask::{
    kubernetes::{ControlPlane, Mirror},
    lab::{Agent, Lab, Node, PATIENT, Pod, Seen, Server, Source, Traffic, until},
    workspace,
};

use super::{
    Test,
    scene::{CLOSE, EVERY_KIND, apply, becomes, expect, serve_all},
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("what_an_api_server_says_is_enforced_with_the_rights_of_the_deployment", enforced),
    ("verdicts_stay_while_the_api_server_is_away_and_changes_arrive_afterwards", outage),
    ("what_was_deleted_out_of_sight_of_a_watch_is_gone_afterwards", relist),
    ("an_agent_that_finds_no_api_server_changes_nothing_until_it_is_back", no_server),
    ("an_agent_without_rights_says_what_it_may_not_do", no_rights),
];

/// One closed server, a friend that it lets in and a stranger, known to the API server.
struct AllowDenyFixture {
    node: Node,
    server: Pod,
    client_allowed: Pod,
    client_denied: Pod,
    mirror: Mirror,
    _servers: Vec<Server>,
}

const OPEN: &str =
    "  podSelector: {matchLabels: {app: closed}}\n  policyTypes: [Ingress]\n  ingress:\n  - {}\n";

impl AllowDenyFixture {
    fn new(lab: &mut Lab, control_plane: &ControlPlane) -> Result<Self> {
        let node = lab.node("n1")?;
        let server = node.pod("x/server").labels(&[("app", "closed")]).start()?;
        let client_allowed = node.pod("x/friend").labels(&[("role", "friend")]).start()?;
        let client_denied = node.pod("x/stranger").start()?;
        let servers = serve_all(&server.place)?;
        apply(lab.manifests(), "close", CLOSE)?;
        let mut mirror = Mirror::new(lab.manifests());
        mirror.sync(control_plane)?;
        Ok(Self { node, server, client_allowed, client_denied, mirror, _servers: servers })
    }

    fn agent(&self, control_plane: &ControlPlane) -> Result<Agent> {
        let mut agent = Agent::spawn(&self.node, Source::ApiServer(&control_plane.kubeconfig()), &[])?;
        agent.ready(PATIENT)?;
        Ok(agent)
    }

    fn verdicts_hold(&self) -> Result<()> {
        expect(&self.client_allowed.place, self.server.addresses, &EVERY_KIND, Seen::Reached)?;
        expect(&self.client_denied.place, self.server.addresses, &EVERY_KIND, Seen::Blocked)
    }

    /// Changes of the policy arrive: to one that lets everybody in, and back.
    fn opens_and_closes(&mut self, lab: &Lab, control_plane: &ControlPlane) -> Result<()> {
        for (spec, seen) in [(OPEN, Seen::Reached), (CLOSE, Seen::Blocked)] {
            apply(lab.manifests(), "close", spec)?;
            self.mirror.sync(control_plane)?;
            self.client_denied_becomes(seen)?;
        }
        Ok(())
    }

    /// Waits until the stranger's connections end so.
    fn client_denied_becomes(&self, seen: Seen) -> Result<()> {
        becomes(&self.client_denied.place, self.server.addresses.v4.into(), Traffic::Tcp(80), seen)
    }
}

fn enforced(lab: &mut Lab, control_plane: &mut ControlPlane) -> Result<()> {
    let mut fixture = AllowDenyFixture::new(lab, control_plane)?;
    let base = workspace::root().join("deploy/base");
    let base = base.to_str().context("the path of the workspace is not UTF-8")?;
    control_plane.ask(&["apply", "--kustomize", base])?;
    let token = control_plane.ask(&["create", "token", "podgate", "--namespace", "kube-system"])?;
    let kubeconfig = control_plane.kubeconfig().with_file_name("podgate");
    control_plane.write_kubeconfig(&kubeconfig, token.trim())?;
    let mut agent = Agent::spawn(&fixture.node, Source::ApiServer(&kubeconfig), &[])?;
    agent.ready(PATIENT)?;
    fixture.verdicts_hold()?;

    fixture.opens_and_closes(lab, control_plane)?;
    // A label makes a friend of the stranger, and the policy's end one of everybody.
    fixture.client_denied.relabel(&[("role", "friend")])?;
    fixture.mirror.sync(control_plane)?;
    fixture.client_denied_becomes(Seen::Reached)?;
    fixture.client_denied.relabel(&[])?;
    fixture.mirror.sync(control_plane)?;
    fixture.client_denied_becomes(Seen::Blocked)?;
    lab.manifests().remove("policy-close.yaml")?;
    fixture.mirror.sync(control_plane)?;
    fixture.client_denied_becomes(Seen::Reached)?;

    let status = agent.ask(&["status"])?;
    let source = &status["sources"][0];
    ensure!(source["name"] == "kubernetes" && source["age_seconds"] == 0, "the source is up: {source}");
    ensure!(watches(&status)?.iter().all(|watch| watch["listed"] == true), "all is listed: {source}");
    let latency = &status["latency"];
    ensure!(latency["count"].as_u64() >= Some(6), "each change was timed: {latency}");
    let metrics = agent.page("/metrics")?;
    ensure!(metrics.contains("\npodgate_watch_restarts_total{kind=\"Pod\"} 0\n"), "{metrics}");
    agent.terminate()
}

fn outage(lab: &mut Lab, control_plane: &mut ControlPlane) -> Result<()> {
    let mut fixture = AllowDenyFixture::new(lab, control_plane)?;
    let agent = fixture.agent(control_plane)?;
    fixture.verdicts_hold()?;
    for frozen in [false, true] {
        let away = if frozen { control_plane.freeze_api_server() } else { control_plane.kill_api_server() };
        away?;
        fixture.verdicts_hold()?;
        if !frozen {
            until("the watches know that the server is away", PATIENT, || {
                let status = agent.ask(&["status"])?;
                let failing = watches(&status)?.iter().all(|watch| watch["error"].is_string());
                Ok((failing && status["sources"][0]["age_seconds"].as_u64() > Some(0)).then_some(()))
            })?;
            ensure!(agent.is_ready(), "what was in force is in force");
            fixture.verdicts_hold()?;
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
    let mut fixture = AllowDenyFixture::new(lab, control_plane)?;
    apply(lab.manifests(), "also", CLOSE)?;
    fixture.mirror.sync(control_plane)?;
    let agent = fixture.agent(control_plane)?;
    fixture.verdicts_hold()?;
    let before = watches(&agent.ask(&["status"])?)?;

    // While the agent sees nothing, objects go, and with its memory the server forgets that they were there.
    let process = Pid::from_raw(i32::try_from(agent.process_id())?);
    nix::sys::signal::kill(process, Signal::SIGSTOP)?;
    let changed = (|| {
        lab.manifests().remove("policy-close.yaml")?;
        lab.manifests().remove("policy-also.yaml")?;
        fixture.client_allowed.unlist()?;
        fixture.mirror.sync(control_plane)?;
        control_plane.kill_api_server()?;
        control_plane.start_api_server()
    })();
    nix::sys::signal::kill(process, Signal::SIGCONT)?;
    changed?;

    fixture.client_denied_becomes(Seen::Reached)?;
    let status = agent.ask(&["status"])?;
    let pods = &status["sources"][0]["objects"]["pods"];
    ensure!(*pods == 2, "the friend is no object any more: {status}");
    let restarts =
        |watches: &[Value]| -> u64 { watches.iter().filter_map(|watch| watch["restarts"].as_u64()).sum() };
    let after = watches(&status)?;
    ensure!(restarts(&after) > restarts(&before), "the watches failed: {after:?}");
    agent.terminate()
}

fn no_server(lab: &mut Lab, control_plane: &mut ControlPlane) -> Result<()> {
    let mut fixture = AllowDenyFixture::new(lab, control_plane)?;
    fixture.agent(control_plane)?.kill()?;
    control_plane.kill_api_server()?;
    let mut agent = Agent::spawn(&fixture.node, Source::ApiServer(&control_plane.kubeconfig()), &[])?;
    until("the agent has tried", PATIENT, || {
        let Ok(status) = agent.ask(&["status"]) else { return Ok(None) };
        Ok(watches(&status)?.iter().any(|watch| watch["restarts"].as_u64() > Some(1)).then_some(()))
    })?;
    ensure!(!agent.is_ready(), "an agent that knows nothing says that it is ready");
    fixture.verdicts_hold()?;
    control_plane.start_api_server()?;
    agent.ready(PATIENT)?;
    fixture.verdicts_hold()?;
    apply(lab.manifests(), "close", OPEN)?;
    fixture.mirror.sync(control_plane)?;
    fixture.client_denied_becomes(Seen::Reached)?;
    agent.terminate()
}

fn no_rights(lab: &mut Lab, control_plane: &mut ControlPlane) -> Result<()> {
    let fixture = AllowDenyFixture::new(lab, control_plane)?;
    control_plane.ask(&["create", "serviceaccount", "nobody"])?;
    let token = control_plane.ask(&["create", "token", "nobody"])?;
    let kubeconfig = control_plane.kubeconfig().with_file_name("nobody");
    control_plane.write_kubeconfig(&kubeconfig, token.trim())?;
    let agent = Agent::spawn(&fixture.node, Source::ApiServer(&kubeconfig), &[])?;
    until("the agent says why it is not ready", PATIENT, || {
        let Ok(status) = agent.ask(&["status"]) else { return Ok(None) };
        let errors = watches(&status)?;
        let reported = errors
            .iter()
            .all(|watch| watch["error"].as_str().is_some_and(|error| error.contains("forbidden")));
        Ok(reported.then_some(()))
    })?;
    ensure!(!agent.is_ready(), "an agent that may not look says that it is ready");
    agent.terminate()
}

fn watches(status: &Value) -> Result<Vec<Value>> {
    let watches = status["sources"][0]["watches"].as_array();
    watches.cloned().with_context(|| format!("the source has watches: {status}"))
}
