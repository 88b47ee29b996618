//! `cargo xtask scale`: the agent beside an API server that holds a large cluster.
//!
//! In: how large. Out: how long the agent takes to its full picture, its memory, and what changes of pods
//! cost it, each next to its goal. The API server and its storage are real; most pods are objects alone, on
//! nodes that are not there, and a few run in the lab. Left out: how fast packets are.

use std::{
    fs,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    cargo,
    flags::ScaleFlags,
    kubernetes::{ControlPlane, Mirror, Programs},
    lab::{Agent, Lab, Source},
    root,
    sandbox::{self, Sandbox},
    screen::{Cell, Tone, mark, table},
    setup, shell,
};

/// Pods with veths on the agent's node.
const LOCAL: usize = 20;
/// Pods of a node, as kubelets have it.
const PODS_OF_A_NODE: usize = 110;
/// Changes of pods a second.
const CHANGES: u64 = 50;
/// An agent that needs longer is broken.
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) fn run(flags: &ScaleFlags) -> Result<ExitCode> {
    root::require("an API server between namespaces")?;
    setup::run()?;
    cargo::build_podgate()?;
    let programs = Programs::small()?;
    let code = sandbox::enter(|sandbox| shell::report(measure(sandbox, &programs, flags)))?;
    Ok(code.into())
}

/// What was measured.
struct Figures {
    ready: Duration,
    ready_processor: Duration,
    resident: u64,
    peak: u64,
    idle: f64,
    busy: f64,
}

fn measure(sandbox: Sandbox, programs: &Programs, flags: &ScaleFlags) -> Result<()> {
    let mut lab = Lab::new(sandbox, "scale")?;
    let control_plane = lab.control_plane(programs)?;
    let cluster = Cluster { flags };
    cluster.write(&control_plane)?;
    let node = lab.node("n1")?;
    let mut pods = Vec::new();
    for number in 0..LOCAL {
        let app = cluster.app(number);
        pods.push(
            node.pod(&format!("{}/local-{number}", cluster.namespace(number)))
                .labels(&[("app", &app)])
                .start()?,
        );
    }
    Mirror::new(lab.manifests()).sync(&control_plane)?;

    let kubeconfig = control_plane.kubeconfig();
    let started = Instant::now();
    let mut agent = Agent::spawn(&node, Source::ApiServer(&kubeconfig), &[])?;
    agent.ready(PATIENCE).inspect_err(|_| eprint!("{}", lab.logs()))?;
    let (ready, ready_processor) = (started.elapsed(), agent.cpu_time()?);
    let idle = share(&agent, || std::thread::sleep(Duration::from_secs(flags.seconds)))?;
    let before = agent.cpu_time()?;
    let changing = Instant::now();
    let changed = cluster.change(&control_plane)?;
    let busy = (agent.cpu_time()? - before).as_secs_f64() / changing.elapsed().as_secs_f64();
    let figures = Figures {
        ready,
        ready_processor,
        resident: memory(&agent, "VmRSS")?,
        peak: memory(&agent, "VmHWM")?,
        idle,
        busy,
    };
    figures.show(flags, changed)?;
    agent.terminate()
}

/// The objects, made of numbers.
struct Cluster<'a> {
    flags: &'a ScaleFlags,
}

impl Cluster<'_> {
    fn namespace(&self, number: usize) -> String {
        format!("ns-{}", number % self.flags.namespaces)
    }

    fn app(&self, number: usize) -> String {
        format!("app-{}", number / self.flags.namespaces % 10)
    }

    fn write(&self, control_plane: &ControlPlane) -> Result<()> {
        let ScaleFlags { pods, namespaces, policies, .. } = *self.flags;
        let nodes = pods.div_ceil(PODS_OF_A_NODE);
        let kinds: [(&str, Vec<Value>); 4] = [
            ("namespaces", (0..namespaces).map(|number| self.namespace_object(number)).collect()),
            ("nodes", (0..nodes).map(node).collect()),
            ("pods", (0..pods).map(|number| self.pod(number)).collect()),
            ("policies", (0..policies).map(|number| self.policy(number)).collect()),
        ];
        for (what, objects) in kinds {
            let (writing, count) = (Instant::now(), objects.len());
            for chunk in objects.chunks(1_000) {
                control_plane.create(chunk)?;
            }
            let line = format!("{count} {what} written in {:.1} s", writing.elapsed().as_secs_f64());
            println!("{}", Cell::new(line, Tone::Quiet));
        }
        Ok(())
    }

    fn namespace_object(&self, number: usize) -> Value {
        let labels = json!({"team": format!("team-{}", number % 50)});
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace(number), "labels": labels}})
    }

    fn pod(&self, number: usize) -> Value {
        let address = format!("10.{}.{}.{}", 100 + number / 62_500, number / 250 % 250, 1 + number % 250);
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": format!("pod-{number}"),
                "namespace": self.namespace(number),
                "labels": {"app": self.app(number), "pod-template-hash": format!("{:010}", number / 5), "track": "stable"},
            },
            "spec": {
                "nodeName": format!("node-{}", number / PODS_OF_A_NODE),
                "containers": [{"name": "main", "image": "image", "ports": [{"name": "http", "containerPort": 8080}]}],
            },
            "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
        })
    }

    /// Each opens an app of a namespace to another app of a team.
    fn policy(&self, number: usize) -> Value {
        let from = json!({
            "namespaceSelector": {"matchLabels": {"team": format!("team-{}", number % 50)}},
            "podSelector": {"matchLabels": {"app": self.app(number * 7)}},
        });
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": format!("policy-{number}"), "namespace": self.namespace(number)},
            "spec": {
                "podSelector": {"matchLabels": {"app": self.app(number)}},
                "ingress": [{"from": [from], "ports": [{"port": 8000 + number % 100}]}],
            },
        })
    }

    /// Changes labels of pods, evenly spread over time. Out: how many.
    fn change(&self, control_plane: &ControlPlane) -> Result<usize> {
        let count = usize::try_from(CHANGES * self.flags.seconds).context("so many seconds")?;
        control_plane.run(|client| async move {
            let mut ticks = interval(Duration::from_secs(1) / u32::try_from(CHANGES).context("a rate")?);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            for number in 0..count {
                ticks.tick().await;
                let pod = number * 37 % self.flags.pods;
                let api: kube::Api<k8s_openapi::api::core::v1::Pod> =
                    kube::Api::namespaced(client.clone(), &self.namespace(pod));
                let patch = json!({"metadata": {"labels": {"track": format!("canary-{}", number % 5)}}});
                let patch = kube::api::Patch::Merge(patch);
                api.patch(&format!("pod-{pod}"), &kube::api::PatchParams::default(), &patch).await?;
            }
            Ok(())
        })?;
        Ok(count)
    }
}

fn node(number: usize) -> Value {
    let address = format!("10.9.{}.{}", number / 250, 1 + number % 250);
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": format!("node-{number}")},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    })
}

/// The agent's part of one processor while something else goes on.
fn share(agent: &Agent, meanwhile: impl FnOnce()) -> Result<f64> {
    let (before, started) = (agent.cpu_time()?, Instant::now());
    meanwhile();
    Ok((agent.cpu_time()? - before).as_secs_f64() / started.elapsed().as_secs_f64())
}

/// A line of the agent's status as a process, in bytes.
fn memory(agent: &Agent, line: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.process_id()));
    let status = status.context("the process's status")?;
    let value = status.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(':'));
    let kilobytes = value.and_then(|value| value.trim().strip_suffix(" kB"));
    Ok(1024 * kilobytes.with_context(|| format!("no {line}"))?.parse::<u64>()?)
}

impl Figures {
    /// (name, unit, value, goal) of each.
    fn rows(&self) -> [(&'static str, &'static str, f64, Option<f64>); 6] {
        const MIB: f64 = 1024.0 * 1024.0;
        #[expect(clippy::cast_precision_loss, reason = "bytes of memory, as people read them")]
        let mebibytes = |bytes: u64| bytes as f64 / MIB;
        [
            ("start to full picture enforced", "s", self.ready.as_secs_f64(), Some(15.0)),
            ("processor time until then", "s", self.ready_processor.as_secs_f64(), None),
            ("resident memory", "MiB", mebibytes(self.resident), Some(60.0)),
            ("peak of it", "MiB", mebibytes(self.peak), None),
            ("idle", "% of a CPU", 100.0 * self.idle, Some(0.2)),
            ("50 pod changes a second", "% of a CPU", 100.0 * self.busy, Some(5.0)),
        ]
    }

    fn show(&self, flags: &ScaleFlags, changed: usize) -> Result<()> {
        let ScaleFlags { pods, namespaces, policies, ref json, .. } = *flags;
        println!(
            "\n{pods} pods, {namespaces} namespaces, {policies} policies, {LOCAL} local pods, {changed} changes"
        );
        let rows = self.rows().map(|(name, unit, value, goal)| {
            let met = goal.map_or(Cell::from(""), |goal| mark(value <= goal));
            let goal = goal.map_or_else(String::new, |goal| format!("≤ {goal}"));
            vec![name.into(), format!("{value:.1} {unit}").into(), goal.into(), met]
        });
        let header = ["FIGURE", "MEASURED", "GOAL"].map(Cell::from).to_vec();
        print!("{}", table(&[&[header], &rows[..]].concat()));
        if let Some(file) = json {
            let figures = self.rows().map(|(name, unit, value, goal)| {
                json!({"name": name, "unit": unit, "value": value, "goal": goal, "met": goal.map(|goal| value <= goal)})
            });
            let report =
                json!({"pods": pods, "namespaces": namespaces, "policies": policies, "figures": figures});
            fs::write(file, report.to_string()).with_context(|| file.display().to_string())?;
        }
        Ok(())
    }
}
