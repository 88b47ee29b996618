//! Pods that should be isolated and are not: each is reported within five seconds wherever people look.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xtask::lab::{Agent, Lab, Node, Pod, Source, until};

use super::{
    Test,
    kernel::attach_foreign,
    scene::{CLOSE, apply},
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("a_pod_behind_macvlan_is_reported_in_every_place", macvlan),
    ("an_agent_that_shall_is_not_ready_while_a_pod_is_unenforced", not_ready),
    ("a_foreign_program_ahead_of_ours_is_reported", foreign_program),
    ("a_foreign_filter_ahead_of_ours_is_reported", foreign_filter),
    ("a_veth_that_takes_no_program_is_reported", refused),
    ("two_pods_with_one_address_are_reported", twins),
    ("a_program_that_somebody_took_away_comes_back", taken_away),
];

/// From the change until it is reported.
const IN_TIME: Duration = Duration::from_secs(5);

/// A pod that a policy isolates.
fn closed(node: &Node) -> Result<Pod> {
    node.pod("x/closed").labels(&[("app", "closed")]).start()
}

/// Gives a pod a macvlan device of the node's uplink in the place of its veth.
fn behind_macvlan(lab: &Lab, node: &Node) -> Result<Pod> {
    apply(lab.manifests(), "close", CLOSE)?;
    let pod = node.pod("x/closed").labels(&[("app", "closed")]).plug()?;
    node.place.ip(&format!(
        "link del {}\nlink add link {UPLINK} name mv0 type macvlan mode bridge\nlink set mv0 netns {}",
        pod.host_interface,
        pod.place.path()
    ))?;
    pod.place.ip(&format!("link set mv0 up\n{}", pod.addresses.on("mv0")))?;
    pod.cache_cni_result()?;
    pod.list()?;
    Ok(pod)
}

/// The node's way to the wire.
const UPLINK: &str = "eth0";

/// Waits until the pod is reported with this reason.
fn reported(agent: &Agent, pod: &str, reason: &str) -> Result<()> {
    let is_it = |it: &Value| it["pod"] == pod && it["reason"] == reason;
    let is_reported =
        |status: &Value| status["unenforced"].as_array().is_some_and(|all| all.iter().any(is_it));
    agent.until(&format!("{pod} is reported: {reason}"), IN_TIME, "status", is_reported).map(drop)
}

fn nothing_reported(agent: &Agent) -> Result<()> {
    let status = agent.ask(&["status"])?;
    ensure!(status["unenforced"].is_null(), "{}", status["unenforced"]);
    Ok(())
}

/// Waits until no pod is reported any more.
fn nothing_left(agent: &Agent) -> Result<()> {
    let is_clean = |status: &Value| status["unenforced"].is_null();
    agent.until("nothing is reported", IN_TIME, "status", is_clean).map(drop)
}

fn macvlan(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let agent = Agent::start(&node, &[])?;
    nothing_reported(&agent)?;
    let pod = behind_macvlan(lab, &node)?;
    reported(&agent, pod.name(), "macvlan")?;

    let endpoints = agent.ask(&["endpoints"])?;
    let is_it = |it: &&Value| it["pod"] == pod.name();
    let endpoint = endpoints.as_array().context("a list")?.iter().find(is_it).context("the pod")?;
    ensure!(endpoint["unenforced"].as_str().is_some_and(|why| why.contains("macvlan")), "{endpoint}");
    let text = |verb: &[&str]| -> Result<String> {
        let asked = node.podgate(verb)?;
        ensure!(asked.status.success(), "{verb:?}: {}", asked.text());
        Ok(asked.stdout)
    };
    ensure!(text(&["endpoints"])?.contains("UNENFORCED"));
    ensure!(text(&["status"])?.contains("degraded"));
    let explained = text(&["explain", "--from", "node/n1", "--to", pod.name(), "--port", "TCP/80"])?;
    let first = explained.lines().next().unwrap_or_default();
    ensure!(first.contains(pod.name()) && first.contains("NOT ENFORCED"), "{first:?}");
    ensure!(agent.page("/readyz")?.contains(pod.name()));
    let metrics = agent.page("/metrics")?;
    let gauge = "podgate_unenforced_pods{reason=\"macvlan\"} 1";
    ensure!(metrics.lines().any(|line| line == gauge), "{metrics}");
    let named = |line: &str| line.contains("WARN") && line.contains(pod.name()) && line.contains("macvlan");
    ensure!(lab.logs().lines().any(named), "no warning names the pod");

    // And nothing any more when no policy isolates it.
    lab.manifests().remove("policy-close.yaml")?;
    nothing_left(&agent)
}

fn not_ready(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let pod = behind_macvlan(lab, &node)?;
    let agent = Agent::spawn(&node, Source::Manifests, &["--unenforced", "not-ready"])?;
    agent.until("the pod is reported", 4 * IN_TIME, "status", |status| {
        status["unenforced"][0]["pod"] == pod.name()
    })?;
    ensure!(!agent.is_ready(), "it says that it is ready");
    lab.manifests().remove("policy-close.yaml")?;
    until("the agent is ready", IN_TIME, || Ok(agent.is_ready().then_some(())))
}

fn foreign_program(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let pod = closed(&node)?;
    apply(lab.manifests(), "close", CLOSE)?;
    for options in [&["--hook", "tcx"], &["--hook", "clsact"]] {
        let agent = Agent::start(&node, options)?;
        let foreign = node.place.run(|| attach_foreign(&pod.host_interface))?;
        reported(&agent, pod.name(), "foreign-program")?;
        drop(foreign);
        nothing_left(&agent)?;
    }
    Ok(())
}

fn foreign_filter(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let pod = closed(&node)?;
    apply(lab.manifests(), "close", CLOSE)?;
    let agent = Agent::start(&node, &["--hook", "clsact"])?;
    for (preference, is_ahead) in [("40000", false), ("10", true)] {
        let filter = format!(
            "filter add dev {} egress pref {preference} protocol all u32 match u32 0 0 flowid 1:1\n",
            pod.host_interface
        );
        node.place.feed(&["tc", "-batch", "-"], &filter)?;
        match is_ahead {
            true => reported(&agent, pod.name(), "foreign-program")?,
            false => nothing_reported(&agent)?,
        }
    }
    Ok(())
}

fn refused(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let pod = closed(&node)?;
    apply(lab.manifests(), "close", CLOSE)?;
    let ingress = |verb: &str| format!("qdisc {verb} dev {} ingress\n", pod.host_interface);
    node.place.feed(&["tc", "-batch", "-"], &ingress("add"))?;
    let agent = Agent::start(&node, &["--hook", "clsact"])?;
    reported(&agent, pod.name(), "attach-refused")?;
    node.place.feed(&["tc", "-batch", "-"], &ingress("del"))?;
    nothing_left(&agent)
}

fn twins(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let pod = closed(&node)?;
    apply(lab.manifests(), "close", CLOSE)?;
    let agent = Agent::start(&node, &[])?;
    nothing_reported(&agent)?;
    drop(agent);
    let twin = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: twin\n  namespace: x\n  labels: {{app: closed}}\nspec:\n  \
         nodeName: n1\n  containers: [{{name: main, image: lab}}]\nstatus:\n  phase: Running\n  podIP: {}\n",
        pod.addresses.v4
    );
    lab.manifests().write("pod-twin.yaml", &twin)?;
    let agent = Agent::start(&node, &[])?;
    reported(&agent, "x/closed", "duplicate-address")?;
    reported(&agent, "x/twin", "duplicate-address")
}

fn taken_away(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let pod = closed(&node)?;
    apply(lab.manifests(), "close", CLOSE)?;
    let _agent = Agent::start(&node, &["--hook", "clsact"])?;
    let delete = format!("qdisc del dev {} clsact\n", pod.host_interface);
    node.place.feed(&["tc", "-batch", "-"], &delete)?;
    until("the filters are back", IN_TIME, || {
        let filters = super::hooks::filters(&node.place, &pod.host_interface)?;
        Ok((filters.len() == 2).then_some(()))
    })
}
