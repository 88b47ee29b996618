//! The agent under test: `podgate agent` in a node's namespace, and the verbs that ask it.
//!
//! In: a node. Out: a running agent that is ready, and ways to end it, kindly or not. Its files are the
//! node's; what it writes goes to a log that failed tests print.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr},
    os::unix::process::{CommandExt as _, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{libc, sys::signal::Signal, unistd::Pid};
use serde_json::Value;

use super::{Daemon, Log, Node, http_get, until};
use crate::workspace;

/// The log of a node's agent, in the node's directory.
pub(super) const LOG: &str = "agent.log";
/// How long an agent may take to be ready, and to end.
const START: Duration = Duration::from_secs(20);
const END: Duration = Duration::from_secs(10);

/// A running agent; it is killed when it is dropped.
#[derive(Debug)]
pub struct Agent {
    node: Node,
    process: Daemon,
}

/// Where an agent learns of objects.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// The lab's own files.
    Manifests,
    /// Another file or directory.
    Path(&'a Path),
    /// By a kubeconfig.
    ApiServer(&'a Path),
}

/// A verb that goes on, line by line.
#[derive(Debug)]
pub struct Follower {
    _process: Daemon,
    /// Each line, and when it was read.
    lines: mpsc::Receiver<(String, Instant)>,
}

/// What a verb of `podgate` answered.
#[derive(Clone, Debug)]
pub struct Asked {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Agent {
    /// Starts an agent with the node's files, the lab's options and `options` besides, and waits until it
    /// enforces the manifests.
    pub fn start(node: &Node, options: &[&str]) -> Result<Self> {
        Self::start_from(node, Source::Manifests, options)
    }

    /// The same with objects from elsewhere.
    pub fn start_from(node: &Node, source: Source<'_>, options: &[&str]) -> Result<Self> {
        let mut agent = Self::spawn(node, source, options)?;
        agent.ready(START)?;
        Ok(agent)
    }

    /// Starts an agent, whether or not it can become ready.
    pub fn spawn(node: &Node, source: Source<'_>, options: &[&str]) -> Result<Self> {
        Self::run(node, source, options, node.place.command(workspace::podgate()?), &node.bpffs())
    }

    /// The same, with the lab's files as its source, as a container run-time starts one that gets these
    /// capabilities alone (a mask of their numbers).
    pub fn spawn_with_capabilities(node: &Node, capabilities: u64) -> Result<Self> {
        let mut command = node.place.command(workspace::podgate()?);
        // SAFETY: between fork and exec the closure makes plain system calls; it neither allocates nor locks.
        unsafe {
            command.pre_exec(move || {
                for capability in (0..u64::BITS).filter(|capability| capabilities >> capability & 1 == 0) {
                    // Most of these numbers are no capability.
                    libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0);
                }
                Ok(())
            });
        }
        Self::run(node, Source::Manifests, &[], command, &node.bpffs())
    }

    /// The same in a mount namespace of its own, as a container has one, with pins below `bpffs`.
    /// `propagation`: how mounts spread between it and the node's.
    pub fn spawn_unshared(node: &Node, propagation: &str, bpffs: &Path) -> Result<Self> {
        let mut command = node.place.command("unshare");
        command.args(["--mount", "--propagation", propagation]).arg(workspace::podgate()?);
        Self::run(node, Source::Manifests, &[], command, bpffs)
    }

    fn run(
        node: &Node,
        source: Source<'_>,
        options: &[&str],
        mut command: Command,
        bpffs: &Path,
    ) -> Result<Self> {
        without_settings(&mut command);
        command.arg("agent").args(["--node", node.name(), "--metrics", &METRICS.to_string()]);
        match source {
            Source::Manifests => command.arg("--manifests").arg(node.manifests.directory()),
            Source::Path(path) => command.arg("--manifests").arg(path),
            Source::ApiServer(kubeconfig) => command.arg("--kubeconfig").arg(kubeconfig),
        };
        command.arg("--bpffs").arg(bpffs).arg("--socket").arg(socket(node));
        command.arg("--cni-results").arg(node.cni_results());
        command.args(&node.agent_options).args(options);
        let log = Log::new(node.directory().join(LOG));
        let process = Daemon::start(&format!("the agent on {}", node.name()), &mut command, &log)?;
        Ok(Self { node: node.clone(), process })
    }

    /// Waits until it enforces what its source says.
    pub fn ready(&mut self, patience: Duration) -> Result<()> {
        let node = &self.node;
        self.process.ready(patience, || Ok(is_ready(node)))
    }

    pub fn is_ready(&self) -> bool {
        is_ready(&self.node)
    }

    pub fn process_id(&self) -> Pid {
        self.process.process_id()
    }

    /// How long it has run on processors (proc_pid_stat(5): utime and stime).
    pub fn cpu_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process_id()));
        let stat = stat.context("the agent's CPU time")?;
        // The name stands in brackets and may hold anything.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u32>);
        let ticks = ticks.sum::<Result<u32, _>>().context("the agent's CPU time")?;
        // USER_HZ is 100 on every architecture that there is.
        Ok(Duration::from_millis(10) * ticks)
    }

    /// Waits until it ends by itself.
    pub fn ended(self) -> Result<ExitStatus> {
        self.process.ended(START)
    }

    /// Ends the agent without a warning, as the OOM killer would.
    pub fn kill(self) -> Result<()> {
        self.process.kill()
    }

    /// Asks the agent to end, and checks that it does so in order.
    pub fn terminate(self) -> Result<()> {
        let status = self.process.terminate(END)?;
        ensure!(status.success(), "the agent ended with {status}");
        Ok(())
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// A page of the agent's own HTTP server, `/metrics` for instance.
    pub fn page(&self, path: &str) -> Result<String> {
        let answer =
            self.node.place.run(|| http_get(METRICS, path, START)).with_context(|| format!("GET {path}"))?;
        ensure!(answer.status == 200, "GET {path}: status {}", answer.status);
        Ok(answer.body)
    }

    /// Asks until the agent answers and the answer fits; returns it.
    pub fn until(
        &self,
        what: &str,
        patience: Duration,
        verb: &str,
        mut fits: impl FnMut(&Value) -> bool,
    ) -> Result<Value> {
        let mut last = Ok(Value::Null);
        let waited = until(what, patience, || {
            last = self.ask(&[verb]);
            Ok(last.as_ref().ok().filter(|answer| fits(answer)).cloned())
        });
        waited.with_context(|| match &last {
            Ok(answer) => format!("{verb} says {answer}"),
            Err(error) => format!("{error:#}"),
        })
    }

    /// The JSON answer of a verb that must succeed.
    pub fn ask(&self, verb: &[&str]) -> Result<Value> {
        let asked = self.node.podgate(&[verb, &["-o", "json"]].concat())?;
        ensure!(asked.status.success(), "podgate {verb:?}: {} {}", asked.status, asked.stderr.trim());
        serde_json::from_str(&asked.stdout)
            .with_context(|| format!("podgate {verb:?} printed {:?}", asked.stdout))
    }
}

/// Whether the node's agent says that it enforces what its source says.
fn is_ready(node: &Node) -> bool {
    let answer = node.place.run(|| http_get(METRICS, "/readyz", START));
    answer.is_ok_and(|answer| answer.status == 200)
}

impl Follower {
    /// The next line, and when it came.
    pub fn next(&self, patience: Duration) -> Result<(String, Instant)> {
        self.lines.recv_timeout(patience).context("no line came")
    }
}

impl Node {
    /// Starts a verb that asks this node's agent and goes on.
    pub fn follow(&self, arguments: &[&str]) -> Result<Follower> {
        let mut command = self.place.command(workspace::podgate()?);
        command.args(arguments).arg("--socket").arg(socket(self));
        without_settings(&mut command);
        let mut process = Daemon::spawn("podgate", command.stdout(Stdio::piped()))?;
        let stdout = process.stdout().context("the verb's standard output")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send((line, Instant::now())).is_err() {
                    return;
                }
            }
        });
        Ok(Follower { _process: process, lines })
    }

    /// Runs a verb of `podgate` against this node's agent or kernel. One that does not end is killed, which
    /// fails it.
    pub fn podgate(&self, arguments: &[&str]) -> Result<Asked> {
        let mut command = self.place.command("timeout");
        command
            .arg("--signal=KILL")
            .arg(END.as_secs().to_string())
            .arg(workspace::podgate()?)
            .args(arguments);
        without_settings(&mut command);
        if arguments.first().is_some_and(|verb| TOUCH_THE_KERNEL.contains(verb)) {
            command.arg("--bpffs").arg(self.bpffs());
        } else {
            command.arg("--socket").arg(socket(self));
        }
        Ok(command.output().context("running podgate")?.into())
    }
}

impl From<Output> for Asked {
    fn from(Output { status, stdout, stderr }: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { status, stdout: text(stdout), stderr: text(stderr) }
    }
}

impl Asked {
    /// Both streams, for messages.
    pub fn text(&self) -> String {
        let signal = self.status.signal().map(|signal| format!("(signal {signal})")).unwrap_or_default();
        format!("{}{}{signal}", self.stdout, self.stderr)
    }
}

/// Verbs that take `--bpffs` in the place of `--socket`.
const TOUCH_THE_KERNEL: [&str; 3] = ["agent", "check", "detach"];

/// Where each agent serves its metrics: the namespace is its own.
const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9177);

/// Nothing of the caller's settings may leak into the program under test.
pub(super) fn without_settings(command: &mut Command) {
    let is_foreign = |key: &str| key.starts_with("PODGATE_") || key.starts_with("OTEL_");
    let foreign = std::env::vars_os().map(|(key, _)| key).filter(|key| is_foreign(&key.to_string_lossy()));
    for key in foreign.chain(["NODE_NAME", "KUBECONFIG", "RUST_LOG"].map(Into::into)) {
        command.env_remove(key);
    }
}

pub(super) fn socket(node: &Node) -> PathBuf {
    node.directory().join("podgate.sock")
}
