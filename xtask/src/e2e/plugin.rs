//! `kubectl podgate` on a cluster: answers of all nodes at once, as an operator gets them.
//!
//! In: a cluster on which `friend` is let in and `stranger` is not; both run on the first node, the server on
//! the second.

use std::{
    collections::BTreeSet,
    fs,
    process::Output,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{CLIENT_ALLOWED, CLIENT_DENIED, CLOSE, PATIENCE, Run};
use crate::{cluster::NODES, image, lab::until, platform::Platform, workspace};

/// From the return of `apply` to the end of `rollout status`: the plugin's start, and what a node takes.
const ROLLOUT: Duration = Duration::from_secs(2);

/// How long flows are followed.
const FOLLOWED: &str = "8";

/// Denies all that leaves a pod with the label.
const MUTE: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: mute, namespace: shop}\n\
                    spec: {podSelector: {matchLabels: {mute: 'yes'}}, policyTypes: [Egress]}\n";

/// The server's policy, which then takes everyone in.
const OPEN: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web, namespace: shop}\n\
                    spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress], ingress: [{}]}\n";

impl Run<'_> {
    pub(super) fn rollout(&self) -> Result<()> {
        const STATUS: [&str; 5] = ["rollout", "status", "netpol/web", "-n", "shop"];
        for rule in ["", CLOSE] {
            self.policy(rule)?;
            let applied = Instant::now();
            let said = self.answer(&STATUS)?;
            let took = applied.elapsed();
            ensure!(said.contains("enforced on 1 of 1 nodes"), "{said}");
            ensure!(took < ROLLOUT, "{took:?} until {said}");
        }
        let server_node = NODES[1];
        self.signal_agent(server_node, "STOP")?;
        // Another version, which that node does not learn of.
        let outcome = self.policy("").and_then(|()| {
            let late = [&STATUS[..], &["--timeout", "3s", "--request-timeout", "2s"]].concat();
            self.plugin(&late)
        });
        self.signal_agent(server_node, "CONT")?;
        let outcome = outcome?;
        let said = String::from_utf8_lossy(&outcome.stdout) + String::from_utf8_lossy(&outcome.stderr);
        ensure!(outcome.status.code() == Some(1) && said.contains(server_node), "{}: {said}", outcome.status);
        self.policy(CLOSE)?;
        self.answer(&STATUS).map(|_| ())
    }

    pub(super) fn flows_of_the_past(&self) -> Result<()> {
        let address = self.address("web")?;
        ensure!(!self.reaches(CLIENT_DENIED, &address)?, "the stranger is denied");
        until("the drop is in the history of its node", PATIENCE, || {
            let flows = self.flows(&["flows", "--denied", "--since", "1m", "-n", "shop"])?;
            let is_it = |flow: &Value| {
                flow["source"]["pod"] == "shop/stranger"
                    && flow["destination"]["pod"] == "shop/web"
                    && flow["node"] == NODES[1]
            };
            Ok(flows.iter().any(is_it).then_some(()))
        })
    }

    /// Drops on both nodes in turns come in the order of their times.
    pub(super) fn flows_of_all_nodes(&self) -> Result<()> {
        self.apply(MUTE)?;
        self.ask(&["-n", "shop", "label", "pod", CLIENT_DENIED, "mute=yes", "--overwrite"])?;
        self.policy("")?;
        self.becomes(CLIENT_ALLOWED, false)?;
        let mut follow = self.cluster.client("timeout".as_ref())?;
        follow.arg(FOLLOWED).arg(image::program(Platform::HOST)?);
        follow.args(["cluster", "flows", "--follow", "--denied", "-n", "shop", "-o", "json"]);
        follow.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
        let follow = follow.spawn().context("starting podgate")?;
        let address = self.address("web")?;
        let asked = [CLIENT_DENIED, CLIENT_ALLOWED].into_iter().cycle().take(6);
        let asked = asked.map(|client| self.reaches(client, &address)).collect::<Result<Vec<_>>>();
        let output = follow.wait_with_output().context("waiting for podgate")?;
        ensure!(!asked?.contains(&true), "all are denied");

        let flows = records(&output.stdout)?;
        let field =
            |name: &str| flows.iter().map(|flow| flow[name].as_str().unwrap_or_default()).collect::<Vec<_>>();
        let times = field("time");
        ensure!(times.is_sorted(), "out of order: {times:?}");
        let nodes: BTreeSet<&str> = field("node").into_iter().collect();
        ensure!(nodes == NODES.into(), "flows of {nodes:?}");

        self.ask(&["-n", "shop", "label", "pod", CLIENT_DENIED, "mute-"])?;
        self.ask(&["-n", "shop", "delete", "networkpolicy", "mute"])?;
        self.policy(CLOSE)?;
        self.becomes(CLIENT_ALLOWED, true)
    }

    /// Both ends of a connection between the nodes, each from the agent that enforces it.
    pub(super) fn explain(&self) -> Result<()> {
        for (client, verdict) in [(CLIENT_ALLOWED, "allow"), (CLIENT_DENIED, "deny")] {
            let from = format!("shop/{client}");
            let question = ["explain", "--from", &from, "--to", "shop/web", "--port", "TCP/80", "-o", "json"];
            let answer: Value = serde_json::from_str(&self.answer(&question)?).context("an explanation")?;
            let nodes = ["egress", "ingress"].map(|side| &answer[side]["node"]);
            ensure!(answer["verdict"] == verdict && nodes == NODES, "{answer:#}");
        }
        // The one that is denied, if the server took everyone in.
        let change = workspace::target()?.join("e2e-what-if.yaml");
        fs::write(&change, OPEN).with_context(|| change.display().to_string())?;
        let (from, file) = (format!("shop/{CLIENT_DENIED}"), change.display().to_string());
        let question = ["explain", "--from", &from, "--to", "shop/web", "--port", "TCP/80", "-o", "json"];
        let answer = self.answer(&[&question[..], &["--what-if", &file]].concat());
        fs::remove_file(&change).with_context(|| change.display().to_string())?;
        let answer: Value = serde_json::from_str(&answer?).context("an explanation")?;
        let nodes = ["egress", "ingress"].map(|side| &answer[side]["node"]);
        ensure!(answer["verdict"] == "allow" && nodes == NODES, "{answer:#}");
        let address = self.address("web")?;
        ensure!(!self.reaches(CLIENT_DENIED, &address)?, "nothing was applied");
        Ok(())
    }

    /// Policies written from what was seen let the same connections pass, and close the others.
    pub(super) fn advise(&self) -> Result<()> {
        let address = self.address("web")?;
        ensure!(self.reaches(CLIENT_ALLOWED, &address)?, "the friend is let in");
        let advised = self.answer(&["advise", "-n", "shop", "--since", "20s", "--enforce"])?;
        self.ask(&["-n", "shop", "delete", "networkpolicy", "web"])?;
        self.apply(&advised)?;
        self.answer(&["rollout", "status", "--all", "-n", "shop", "--timeout", "30s"])?;
        ensure!(self.reaches(CLIENT_ALLOWED, &address)?, "what was seen is let in: {advised}");
        self.becomes(CLIENT_DENIED, false).with_context(|| advised)?;
        self.ask(&["-n", "shop", "delete", "networkpolicy", "--all"])?;
        self.policy(CLOSE)
    }

    /// Runs the plugin as administrator.
    fn plugin(&self, arguments: &[&str]) -> Result<Output> {
        let mut plugin = self.cluster.client(&image::program(Platform::HOST)?)?;
        plugin.arg("cluster").args(arguments).output().context("starting podgate")
    }

    /// What the plugin prints; it must succeed.
    pub(super) fn answer(&self, arguments: &[&str]) -> Result<String> {
        let output = self.plugin(arguments)?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "podgate cluster {}: {}", arguments.join(" "), complaint.trim());
        String::from_utf8(output.stdout).context("the output of podgate")
    }

    fn flows(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        records(self.answer(&[arguments, &["-o", "json"]].concat())?.as_bytes())
    }

    fn signal_agent(&self, node: &str, signal: &str) -> Result<()> {
        let mut kill = self.cluster.command_on(node, "sh")?;
        let status = kill.args(["-c", &format!("kill -{signal} $(pidof -s podgate)")]).status();
        let status = status.context("starting sh")?;
        ensure!(status.success(), "signal {signal} to the agent of {node}: {status}");
        Ok(())
    }
}

/// One object a line. A last line that was cut off is none.
fn records(output: &[u8]) -> Result<Vec<Value>> {
    let whole = output.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let lines = output[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).context("a flow")).collect()
}
