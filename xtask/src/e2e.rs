//! `cargo xtask e2e`: podgate on a real cluster, from installation to uninstallation, as its users do it.
//!
//! In: the image and `deploy/`. Out: one line for each check, on a cluster of its own that is gone
//! afterwards. What pods see is asked by real connections out of real pods. Left out: what the tests between
//! namespaces show better, that is, everything about single packets.

mod engines;
mod helm;
mod hosts;
mod moving;
mod plugin;
mod services;
mod steady;
mod watch;

use std::{
    net::Ipv4Addr,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{
    cluster::{self, Cluster, NODES, deploy},
    flags::{self, E2eFlags, UpFlags},
    image,
    lab::until,
    root,
    screen::mark,
    setup,
};

/// The tag that `deploy/base` names, and one to upgrade to.
const INSTALLED: &str = env!("CARGO_PKG_VERSION");
const UPGRADED: &str = "next";

const OBJECTS: &str = include_str!("e2e/objects.yaml");

/// As isolated as the server, and ready when the kubelet reaches it.
const PROBED: &str = include_str!("e2e/probed.yaml");

/// As isolated as the server.
const FLEET: &str = include_str!("e2e/fleet.yaml");

/// The label of the agents' pods in `deploy/base`.
const AGENTS: &str = "app.kubernetes.io/name=podgate";

/// A change of policy has arrived, a pod runs, a node is back.
const PATIENCE: Duration = Duration::from_secs(90);

/// From here on only friends reach the server.
const CLOSE: &str = "{from: [{podSelector: {matchLabels: {role: friend}}}]}";

pub(crate) fn run(flags: &E2eFlags) -> Result<ExitCode> {
    let (up, quick) = (flags.up, flags.quick);
    root::require("a cluster in namespaces")?;
    setup::run()?;
    if flags.moves {
        return moving::run();
    }
    let images = match &flags.image {
        Some(archive) => vec![archive.clone()],
        None => vec![image::build(INSTALLED)?.path, image::build(UPGRADED)?.path],
    };
    let cluster = cluster::up(up)?;
    let outcome = images
        .iter()
        .try_for_each(|image| cluster.load_image(image))
        .and_then(|()| Run { cluster: &cluster, up, quick, passed: 0 }.all());
    if outcome.is_err() {
        cluster.show_pods();
    }
    cluster::down()?;
    let of = format!("{}, kube-proxy {}", flags::name(up.cni), flags::name(up.proxy));
    println!("{of}: {} checks passed", outcome?);
    Ok(ExitCode::SUCCESS)
}

struct Run<'a> {
    cluster: &'a Cluster,
    up: UpFlags,
    quick: bool,
    passed: usize,
}

/// Who asks the server.
const CLIENT_ALLOWED: &str = "friend";
const CLIENT_DENIED: &str = "stranger";

impl Run<'_> {
    /// Every check, in an order in which a user would meet them. Out: how many.
    fn all(mut self) -> Result<usize> {
        self.check("pods on two nodes, a connection that stays open", Self::begin)?;
        self.check("installed: the DaemonSet is ready on each node", |run| run.cluster.install_podgate())?;
        self.check("`podgate check` in its pod finds that nothing is missing", |run| {
            run.ask(&["-n", "kube-system", "exec", "ds/podgate", "--", "/podgate", "check"]).map(|_| ())
        })?;
        self.check("a policy lets the friend in and no one else, to the service too", |run| {
            run.policy(CLOSE)?;
            run.becomes(CLIENT_DENIED, false)?;
            run.becomes(CLIENT_ALLOWED, true)?;
            ensure!(run.reaches(CLIENT_ALLOWED, SERVICE)?, "the friend reaches the service");
            ensure!(!run.reaches(CLIENT_DENIED, SERVICE)?, "the stranger does not");
            Ok(())
        })?;
        self.check("the server's host port lets in whom its policy names, as the node sees them", |run| {
            run.host_port()
        })?;
        self.check("cluster address and node port are what stands behind them, both ways", Self::services)?;
        self.check("the connection of before goes on, though a new one would be denied", Self::goes_on)?;
        self.check("the kubelet's probes of an isolated pod succeed", |run| {
            run.policy("")?;
            run.becomes(CLIENT_ALLOWED, false)?;
            // One that was ready before would stay so for some probes.
            run.apply(PROBED)?;
            run.ask(&["-n", "shop", "wait", "--for=condition=Ready", "pod/probed", "--timeout=30s"])?;
            run.ask(&["-n", "shop", "delete", "pod", "probed"]).map(|_| ())
        })?;
        self.check("a namespace that is relabelled is let in, and out again", |run| {
            run.policy("{from: [{namespaceSelector: {matchLabels: {team: bakery}}}]}")?;
            run.ask(&["label", "namespace", "shop", "team=bakery", "--overwrite"])?;
            run.becomes(CLIENT_DENIED, true)?;
            run.ask(&["label", "namespace", "shop", "team=shop", "--overwrite"])?;
            run.becomes(CLIENT_DENIED, false)
        })?;
        self.check(
            "a pod whose first act is to connect is isolated from its first packet",
            Self::first_packet,
        )?;
        self.check("a Deployment that grows and shrinks: each of its pods is isolated", Self::fleet)?;
        if !self.quick {
            self.all_that_takes_long()?;
        }
        self.check("a node is restarted: its pods are isolated again", |run| {
            run.cluster.reboot(NODES[1])?;
            run.becomes(CLIENT_ALLOWED, true)?;
            run.becomes(CLIENT_DENIED, false)
        })?;
        if self.up.engine.is_some() {
            self.check("what one engine denies does not pass, whichever of the two it is", Self::both_agree)?;
            self.check("the other engine is taken away, and nothing else changes", Self::move_away)?;
        }
        self.check("uninstalled: no program, map or file is left, and no pod is isolated", Self::uninstall)?;
        if !self.quick {
            self.check("installed by Helm: enforced within a minute, and uninstalled", Self::helm)?;
        }
        Ok(self.passed)
    }

    /// What is the same whatever connects the pods.
    fn all_that_takes_long(&mut self) -> Result<()> {
        self.check(
            "`kubectl podgate rollout status` waits for nodes, and names one whose agent is frozen",
            Self::rollout,
        )?;
        self.check(
            "`kubectl podgate explain` shows both ends from their nodes, also of a change",
            Self::explain,
        )?;
        self.check("`kubectl podgate flows` shows a drop of before", Self::flows_of_the_past)?;
        self.check("`kubectl podgate flows --follow` merges both nodes by time", Self::flows_of_all_nodes)?;
        self.check(
            "`kubectl podgate advise` writes policies that let the same connections pass",
            Self::advise,
        )?;
        self.check("the policy changes 200 times", Self::policy_changes)?;
        self.check("the API server is away for 60 s, changes arrive afterwards", Self::outage)?;
        self.check("10 agents are killed", Self::kills)?;
        self.check("3 upgrades to another image", Self::upgrades)?;
        self.check("both overlays are valid to the API server", |run| {
            ["azure-npm", "calico"].iter().try_for_each(|overlay| {
                let path = deploy(&format!("overlays/{overlay}"))?;
                run.ask(&["apply", "--dry-run=server", "-k", &path]).map(|_| ())
            })
        })
    }

    fn check(&mut self, what: &str, check: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        let started = Instant::now();
        let outcome = check(self);
        println!("{} {what}, {:.1} s", mark(outcome.is_ok()), started.elapsed().as_secs_f64());
        self.passed += usize::from(outcome.is_ok());
        outcome.with_context(|| what.to_owned())
    }

    fn begin(&self) -> Result<()> {
        self.apply(OBJECTS)?;
        self.ask(&["-n", "shop", "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s"])?;
        self.becomes(CLIENT_DENIED, true)?;
        let address = self.address("web")?;
        // What it sends comes back, and is counted by the lines of the file.
        let talk = format!(
            "(while sleep 0.2; do date; done) 2> /dev/null < /dev/null | nc {address} 81 > /tmp/echo 2> /dev/null &"
        );
        self.inside(CLIENT_DENIED, &talk)?;
        self.goes_on()
    }

    fn goes_on(&self) -> Result<()> {
        let lines = || -> Result<usize> {
            let count = self.inside(CLIENT_DENIED, "wc -l < /tmp/echo")?;
            count.trim().parse().with_context(|| format!("{count:?} lines"))
        };
        let before = lines()?;
        until("the connection carries more", PATIENCE, || Ok((lines()? > before).then_some(())))
    }

    fn first_packet(&self) -> Result<()> {
        self.policy("{}")?;
        self.apply(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: silent, namespace: shop}\n\
             spec: {podSelector: {matchLabels: {role: silent}}, policyTypes: [Egress]}\n",
        )?;
        let address = self.address("web")?;
        for number in 0..5 {
            let name = format!("first-{number}");
            let act = format!(
                "printf 'GET / HTTP/1.0\\\\r\\\\n\\\\r\\\\n' | nc -w 2 {address} 80 && echo OPEN; echo DONE; sleep 1000"
            );
            self.apply(&format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{role: silent}}}}\nspec:\n  \
                 nodeName: {}\n  terminationGracePeriodSeconds: 0\n  containers: [{{name: main, image: \
                 'localhost/busybox:1', imagePullPolicy: Never, command: [sh, -c, \"{act}\"]}}]\n",
                NODES[number % NODES.len()]
            ))?;
            let log = until("the pod has acted", PATIENCE, || {
                let log = self.ask(&["-n", "shop", "logs", &name]).unwrap_or_default();
                Ok(log.contains("DONE").then_some(log))
            })?;
            ensure!(!log.contains("OPEN") && !log.contains("hello"), "{name} got through: {log:?}");
            self.ask(&["-n", "shop", "delete", "pod", &name, "--wait=false"])?;
        }
        self.policy(CLOSE)?;
        self.becomes(CLIENT_DENIED, false)
    }

    fn fleet(&self) -> Result<()> {
        self.apply(FLEET)?;
        for replicas in [4, 1, 3] {
            self.ask(&["-n", "shop", "scale", "deployment", "fleet", &format!("--replicas={replicas}")])?;
            self.ask(&["-n", "shop", "rollout", "status", "deployment/fleet", "--timeout=60s"])?;
            let path = "jsonpath={.items[?(@.status.phase=='Running')].status.podIP}";
            let addresses = self.ask(&["-n", "shop", "get", "pods", "-l", "fleet=yes", "-o", path])?;
            for address in addresses.split_whitespace() {
                until("the friend reaches the new pod", PATIENCE, || {
                    Ok(self.reaches(CLIENT_ALLOWED, address)?.then_some(()))
                })?;
                ensure!(!self.reaches(CLIENT_DENIED, address)?, "{address} is open");
            }
        }
        self.ask(&["-n", "shop", "delete", "deployment", "fleet", "--wait=true"]).map(|_| ())
    }

    fn uninstall(&self) -> Result<()> {
        self.ask(&["apply", "-k", &deploy("uninstall")?])?;
        self.cluster.agents_are_ready()?;
        self.becomes(CLIENT_DENIED, true)?;
        self.ask(&["delete", "-k", &deploy("uninstall")?, "--wait=true"])?;
        self.nothing_is_left()
    }

    fn nothing_is_left(&self) -> Result<()> {
        for node in NODES {
            let mut list = self.cluster.command_on(node, "find")?;
            let left =
                list.args(["/sys/fs/bpf", "/run/podgate", "-mindepth", "1"]).output().context("find")?;
            let left = String::from_utf8_lossy(&left.stdout).into_owned();
            let ours: Vec<&str> = left.lines().filter(|line| line.contains("podgate")).collect();
            ensure!(ours.is_empty(), "left on {node}: {ours:?}");
        }
        Ok(())
    }

    /// The policy of the server with one rule, or none.
    fn policy(&self, rule: &str) -> Result<()> {
        self.apply(&format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: web, namespace: shop}}\n\
             spec: {{podSelector: {{matchLabels: {{app: web}}}}, policyTypes: [Ingress], ingress: [{rule}]}}\n"
        ))
    }

    /// Runs a line in a pod's shell.
    fn inside(&self, pod: &str, line: &str) -> Result<String> {
        self.ask(&["-n", "shop", "exec", pod, "--", "sh", "-c", line])
    }

    /// Waits until the server is reached, or not reached any more.
    fn becomes(&self, who: &str, reached: bool) -> Result<()> {
        let what = format!("{who} {} the server", if reached { "reaches" } else { "does not reach" });
        until(&what, PATIENCE, || {
            let answer = self.address("web").and_then(|address| self.reaches(who, &address));
            Ok((answer.ok() == Some(reached)).then_some(()))
        })
    }

    /// Whether a pod gets the server's page. An error: it could not be asked.
    fn reaches(&self, who: &str, address: &str) -> Result<bool> {
        self.gets(who, address, if address == SERVICE { 8080 } else { 80 })
    }

    fn gets(&self, who: &str, address: &str, port: u16) -> Result<bool> {
        let ask = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 1 {address} {port}; true");
        Ok(self.inside(who, &ask)?.contains("hello"))
    }

    fn address(&self, pod: &str) -> Result<String> {
        let address = self.ask(&["-n", "shop", "get", "pod", pod, "-o", "jsonpath={.status.podIP}"])?;
        let _: Ipv4Addr = address.parse().with_context(|| format!("{pod} has the address {address:?}"))?;
        Ok(address)
    }

    fn apply(&self, yaml: &str) -> Result<()> {
        self.cluster.apply(yaml)
    }

    fn ask(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.ask(arguments)
    }
}

/// The service's address in `objects.yaml`.
const SERVICE: &str = "10.96.0.80";
