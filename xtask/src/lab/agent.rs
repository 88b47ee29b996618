//! The agent under test: `podgate agent` in a node's namespace, and the verbs that ask it.
//!
//! In: a node. Out: a running agent that is ready, and ways to end it, kindly or not. Its files are the
//! node's; what it writes goes to a log that failed tests print.

use std::{
    fs::OpenOptions,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr},
    os::unix::process::{CommandExt as _, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    libc,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::{Node, http_get, until};
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
    process: Child,
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
    process: Child,
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
        let mut agent = Self::spawn(node, Source::Manifests, options)?;
        agent.ready(START)?;
        Ok(agent)
    }

    /// Starts an agent, whether or not it can become ready.
    pub fn spawn(node: &Node, source: Source<'_>, options: &[&str]) -> Result<Self> {
        Self::run(node, source, options, node.place.command(workspace::podgate()?))
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
        Self::run(node, Source::Manifests, &[], command)
    }

    fn run(node: &Node, source: Source<'_>, options: &[&str], mut command: Command) -> Result<Self> {
        let log = node.directory().join(LOG);
        let log =
            OpenOptions::new().create(true).append(true).open(&log).context("opening the agent's log")?;
        without_settings(&mut command);
        command.arg("agent").args(["--node", node.name(), "--metrics", &METRICS.to_string()]);
        match source {
            Source::Manifests => command.arg("--manifests").arg(node.manifests.directory()),
            Source::Path(path) => command.arg("--manifests").arg(path),
            Source::ApiServer(kubeconfig) => command.arg("--kubeconfig").arg(kubeconfig),
        };
        command.arg("--bpffs").arg(node.bpffs()).arg("--socket").arg(socket(node));
        command.arg("--cni-results").arg(node.cni_results());
        command.args(&node.agent_options).args(options);
        let (out, err) = (log.try_clone().context("sharing the log")?, log);
        let process =
            command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().context("starting podgate agent")?;
        Ok(Self { node: node.clone(), process })
    }

    /// Waits until it enforces what its source says.
    pub fn ready(&mut self, patience: Duration) -> Result<()> {
        let name = self.node.name().to_owned();
        until(&format!("the agent on {name} is ready"), patience, || {
            if let Some(status) = self.process.try_wait().context("waiting for the agent")? {
                bail!("the agent on {name} ended before it was ready: {status}");
            }
            Ok(self.is_ready().then_some(()))
        })
    }

    pub fn is_ready(&self) -> bool {
        let answer = self.node.place.run(|| http_get(METRICS, "/readyz", START));
        answer.is_ok_and(|answer| answer.status == 200)
    }

    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Waits until it ends by itself.
    pub fn ended(mut self) -> Result<ExitStatus> {
        until("the agent ends", START, || self.process.try_wait().context("waiting for the agent"))
    }

    /// Ends the agent without a warning, as the OOM killer would.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill().context("killing the agent")?;
        self.process.wait().context("waiting for the killed agent")?;
        Ok(())
    }

    /// Asks the agent to end, and checks that it does so in order.
    pub fn terminate(mut self) -> Result<()> {
        let id = Pid::from_raw(i32::try_from(self.process.id()).context("process id")?);
        kill(id, Signal::SIGTERM).context("SIGTERM")?;
        let status =
            until("the agent ends", END, || self.process.try_wait().context("waiting for the agent"))?;
        ensure!(status.success(), "the agent ended with {status}");
        Ok(())
    }

    /// A page of the agent's own HTTP server, `/metrics` for instance.
    pub fn page(&self, path: &str) -> Result<String> {
        let answer =
            self.node.place.run(|| http_get(METRICS, path, START)).with_context(|| format!("GET {path}"))?;
        ensure!(answer.status == 200, "GET {path}: status {}", answer.status);
        Ok(answer.body)
    }

    /// The JSON answer of a verb that must succeed.
    pub fn ask(&self, verb: &[&str]) -> Result<Value> {
        let asked = self.node.podgate(&[verb, &["-o", "json"]].concat())?;
        ensure!(asked.status.success(), "podgate {verb:?}: {} {}", asked.status, asked.stderr.trim());
        serde_json::from_str(&asked.stdout)
            .with_context(|| format!("podgate {verb:?} printed {:?}", asked.stdout))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Ended already when `kill` or `terminate` came first.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Follower {
    /// The next line, and when it came.
    pub fn next(&self, patience: Duration) -> Result<(String, Instant)> {
        self.lines.recv_timeout(patience).context("no line came")
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Node {
    /// Starts a verb that asks this node's agent and goes on.
    pub fn follow(&self, arguments: &[&str]) -> Result<Follower> {
        let mut command = self.place.command(workspace::podgate()?);
        command.args(arguments).arg("--socket").arg(socket(self));
        without_settings(&mut command);
        let mut process =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("starting podgate")?;
        let stdout = process.stdout.take().context("the verb's standard output")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send((line, Instant::now())).is_err() {
                    return;
                }
            }
        });
        Ok(Follower { process, lines })
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
        let Output { status, stdout, stderr } = command.output().context("running podgate")?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Asked { status, stdout: text(stdout), stderr: text(stderr) })
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
    let foreign =
        std::env::vars_os().map(|(key, _)| key).filter(|key| key.to_string_lossy().starts_with("PODGATE_"));
    for key in foreign.chain(["NODE_NAME", "KUBECONFIG", "RUST_LOG"].map(Into::into)) {
        command.env_remove(key);
    }
}

pub(super) fn socket(node: &Node) -> PathBuf {
    node.directory().join("podgate.sock")
}
