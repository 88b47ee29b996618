//! `cargo xtask cluster`: a real Kubernetes cluster of two nodes on this machine, without a container engine.
//!
//! In: Debian packages (containerd, runc, CNI plugins, iptables, conntrack) and the programs that Go built.
//! Out: a keeper in the background, with everything in namespaces of its own: a host for the control plane
//! and two nodes, each a machine of its own with processes, mounts, network and disk. Its files are in
//! `target/cluster`, its cgroups below `podgate-cluster`; nothing else of this machine changes, and `down`
//! takes both away. Left out: podgate. It is installed on this cluster as on any other.

mod cgroups;
mod cni;
mod config;
mod disk;
mod image;
mod machine;
mod objects;
mod process;
mod supervisor;
mod wire;

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};

use crate::{
    flags::{ClusterCommand, ProxyMode, UpFlags},
    kubernetes::{self, CniPrograms, Programs},
    lab::until,
    root, setup, workspace,
};
pub(crate) use cni::masquerades_to_nodes;
pub use image::BUSYBOX;
pub(crate) use image::{ImageFiles, write as write_image};
pub(crate) use objects::{deploy, pod_place};
use process::Process;

pub(crate) fn run(command: &ClusterCommand) -> Result<ExitCode> {
    root::require("the cluster (namespaces, cgroups, containers)")?;
    match command {
        ClusterCommand::Up(flags) => up(*flags).map(|_| ExitCode::SUCCESS),
        ClusterCommand::Down => down().map(|()| ExitCode::SUCCESS),
        ClusterCommand::Kubectl { arguments } => pass(&mut Cluster::find()?.kubectl(arguments)?),
        ClusterCommand::Shell { node, program } => {
            let program = if program.is_empty() { &["bash".to_owned()][..] } else { program };
            let mut command = Cluster::find()?.command_on(node, &program[0])?;
            pass(command.args(&program[1..]))
        }
        ClusterCommand::Load { archive } => Cluster::find()?.load_image(archive).map(|()| ExitCode::SUCCESS),
        ClusterCommand::Reboot { node } => Cluster::find()?.reboot(node).map(|()| ExitCode::SUCCESS),
        ClusterCommand::KillApiServer => Cluster::find()?.kill_api_server().map(|()| ExitCode::SUCCESS),
        ClusterCommand::StartApiServer => Cluster::find()?.start_api_server().map(|()| ExitCode::SUCCESS),
        ClusterCommand::Keep(flags) => supervisor::run(*flags),
        ClusterCommand::Machine { node, flags } => Ok(machine::run(node, *flags)?.into()),
    }
}

/// A running cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    programs: Programs,
    /// The first process of the keeper's process namespace.
    supervisor: Process,
}

/// Its nodes; their numbers are 1 and 2.
pub const NODES: [&str; 2] = ["n1", "n2"];

/// From nothing to two Ready nodes.
const START: Duration = Duration::from_secs(300);
/// Everything ends at once: the kernel kills the namespace of processes.
const END: Duration = Duration::from_secs(60);
/// From the end of a machine to a Ready node.
const REBOOT: Duration = Duration::from_secs(180);

/// Programs of Debian packages.
const PACKAGES: [(&str, &str); 6] = [
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("busybox", "busybox-static"),
    ("ip", "iproute2"),
];

/// Starts a cluster and waits until both nodes are Ready.
pub fn up(flags: UpFlags) -> Result<Cluster> {
    let started = Instant::now();
    let running = Process::recorded(&directory()?.join(SUPERVISOR))?;
    ensure!(running.is_none(), "a cluster is up already: `cargo xtask cluster down` ends it");
    install()?;
    Programs::whole()?;
    CniPrograms::of(flags.cni)?;
    if flags.proxy == ProxyMode::Ipvs {
        has_ipvs()?;
    }
    if flags.engine.is_some() {
        kubernetes::kube_router()?;
        setup::install(&[("ipset", "ipset")])?;
    }
    // What an unkind end has left.
    remove_traces()?;
    fs::create_dir_all(directory()?).context("creating the cluster's directory")?;
    NODES.iter().try_for_each(|node| cgroups::create(node))?;
    start_supervisor(flags)?;
    let cluster = Cluster::find()?;
    println!("the cluster is up after {:.0} s:", started.elapsed().as_secs_f64());
    println!("  cargo xtask cluster kubectl -- get pods --all-namespaces");
    println!("  cargo xtask cluster shell {}", NODES[0]);
    println!("  cargo xtask cluster down");
    Ok(cluster)
}

/// Ends the cluster, if there is one, and takes away its files and cgroups.
pub fn down() -> Result<()> {
    let started = Instant::now();
    if let Some(supervisor) = Process::recorded(&directory()?.join(SUPERVISOR))? {
        kill(supervisor.id(), Signal::SIGTERM).context("ending the keeper")?;
        until("the keeper ends", END, || Ok((!supervisor.is_running()).then_some(())))?;
    }
    remove_traces()?;
    println!("the cluster is down after {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

impl Cluster {
    /// The one that is up.
    pub fn find() -> Result<Self> {
        let none = "no cluster is up: `cargo xtask cluster up` starts one";
        let supervisor = Process::recorded(&directory()?.join(SUPERVISOR))?.context(none)?;
        ensure!(directory()?.join(READY).exists(), "{none}, or the one there is not ready");
        let inside = supervisor.children()?.into_iter().next().context("the keeper has no process inside")?;
        Ok(Self { programs: Programs::whole()?, supervisor: inside })
    }

    /// The real `kubectl` as administrator, on the control plane's host.
    pub fn kubectl<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Result<Command> {
        let mut kubectl = self.client(&self.programs.path("kubectl"))?;
        kubectl.args(arguments);
        Ok(kubectl)
    }

    /// A client of the API server as administrator, on the control plane's host.
    pub fn client(&self, program: &Path) -> Result<Command> {
        // etcd is there even while the API server is not.
        let host = self.supervisor.child("etcd")?;
        let mut client = host.enter(program);
        client.env("KUBECONFIG", Self::kubeconfig()?).env("HOME", directory()?);
        Ok(client)
    }

    /// The administrator's, on every node, too.
    pub(crate) fn kubeconfig() -> Result<PathBuf> {
        Ok(supervisor::authority()?.join("kubeconfig"))
    }

    /// A command in all namespaces of a node.
    pub fn command_on(&self, node: &str, program: impl AsRef<Path>) -> Result<Command> {
        Ok(self.machine(node)?.enter(program.as_ref()))
    }

    /// Gives an image (an OCI or docker archive) to containerd on each node.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        let archive = archive.canonicalize().with_context(|| archive.display().to_string())?;
        for node in NODES {
            let mut import = self.command_on(node, "ctr")?;
            image::import(&mut import, &archive).with_context(|| format!("on {node}"))?;
        }
        Ok(())
    }

    /// Cuts a node's power: all its processes, mounts and networks are gone at once. It starts again by
    /// itself, with its disk; waits until its programs run. Its pods come back later, and the API server
    /// knows nothing of all that yet.
    pub fn reboot(&self, node: &str) -> Result<()> {
        let ready = directory()?.join(node).join(READY);
        let before = self.machine(node)?;
        fs::remove_file(&ready).with_context(|| format!("{node} is not ready"))?;
        kill(before.id(), Signal::SIGKILL).with_context(|| format!("killing {node}"))?;
        until(&format!("{node} is ready again"), REBOOT, || Ok(ready.exists().then_some(())))
    }

    /// Kills the API server; it stays away until [`Self::start_api_server`].
    pub fn kill_api_server(&self) -> Result<()> {
        let server = self.supervisor.child("kube-apiserver")?;
        kill(server.id(), Signal::SIGKILL).context("killing the API server")?;
        until("the API server ends", END, || Ok((!server.is_running()).then_some(())))
    }

    /// Has the keeper start the API server again, and waits until it answers.
    pub fn start_api_server(&self) -> Result<()> {
        fs::write(directory()?.join(START_API_SERVER), "start\n").context("telling the keeper")?;
        until("the API server answers", START, || {
            let output = self.kubectl(&["get", "--raw", "/readyz"])?.output().context("starting kubectl")?;
            Ok(output.status.success().then_some(()))
        })
    }

    /// The first process of a node.
    fn machine(&self, node: &str) -> Result<Process> {
        ensure!(NODES.contains(&node), "there is no node {node}; there are {}", NODES.join(", "));
        let is_it = |child: &Process| child.arguments().iter().any(|argument| argument == node);
        let outer = self.supervisor.children()?.into_iter().find(is_it);
        let outer = outer.with_context(|| format!("{node} is not running"))?;
        outer.children()?.into_iter().next().with_context(|| format!("{node} is not running yet"))
    }
}

/// Files in the cluster's directory: the keeper's process; there once all nodes are ready, or once one is in
/// the node's own directory; a pipe to the keeper; what the keeper says.
const SUPERVISOR: &str = "keeper.process";
const READY: &str = "ready";
const START_API_SERVER: &str = "start-api-server";
const LOG: &str = "keeper.log";

fn directory() -> Result<PathBuf> {
    Ok(workspace::target()?.join("cluster"))
}

/// Programs that the cluster runs or is made with.
pub(crate) fn install() -> Result<()> {
    setup::install(&PACKAGES)?;
    setup::install_files(&[("/usr/lib/cni/ptp", "containernetworking-plugins")])
}

/// An error where the kernel has no IPVS: kube-proxy would fall back to nothing and exit.
fn has_ipvs() -> Result<()> {
    let there = || Path::new("/proc/net/ip_vs").exists();
    if !there() {
        // No module, no program for modules: either way it is not there afterwards.
        let _ = Command::new("modprobe").args(["-q", "ip_vs"]).status();
    }
    ensure!(there(), "this kernel has no IPVS (CONFIG_IP_VS): kube-proxy cannot run in its ipvs mode here");
    setup::install(&[("ipset", "ipset")])
}

/// Starts the keeper in the background, and shows what it says until the cluster is ready.
fn start_supervisor(flags: UpFlags) -> Result<()> {
    let directory = directory()?;
    let log = fs::File::create_new(directory.join(LOG)).context("creating the keeper's log")?;
    let mut command = Command::new(std::env::current_exe().context("finding this program")?);
    command.args(["cluster", "keep"]).args(flags.arguments()).current_dir("/").stdin(Stdio::null());
    command.stdout(log.try_clone().context("sharing the log")?).stderr(log);
    // SAFETY: setsid(2) is one plain system call; it neither allocates nor locks.
    unsafe {
        command.pre_exec(|| Ok(nix::unistd::setsid().map(|_| ())?));
    }
    let mut supervisor = command.spawn().context("starting the keeper")?;
    Process::of(supervisor.id())?.record(&directory.join(SUPERVISOR))?;

    let said = fs::File::open(directory.join(LOG)).context("reading the keeper's log")?;
    let mut said = BufReader::new(said);
    let started = Instant::now();
    let outcome = until("both nodes are Ready", START, || {
        show(&mut said, started)?;
        if let Some(status) = supervisor.try_wait().context("waiting for the keeper")? {
            bail!("the keeper ended: {status}");
        }
        Ok(directory.join(READY).exists().then_some(()))
    });
    show(&mut said, started)?;
    outcome.with_context(|| format!("logs are in {}", directory.display()))
}

/// Prints the lines that are new and complete.
fn show(said: &mut BufReader<fs::File>, started: Instant) -> Result<()> {
    let mut line = String::new();
    while said.read_line(&mut line).context("reading the keeper's log")? > 0 {
        if !line.ends_with('\n') {
            let back = i64::try_from(line.len()).context("a long line")?;
            said.seek_relative(-back).context("going back in the keeper's log")?;
            break;
        }
        print!("{:4.0} s  {line}", started.elapsed().as_secs_f64());
        line.clear();
    }
    Ok(())
}

fn remove_traces() -> Result<()> {
    cgroups::remove()?;
    match fs::remove_dir_all(directory()?) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context("removing the cluster's directory")
        }
        _ => Ok(()),
    }
}

/// Runs a command in the place of this one.
fn pass(command: &mut Command) -> Result<ExitCode> {
    let status = command.status().with_context(|| format!("starting {command:?}"))?;
    let code = status.code().or_else(|| Some(128 + status.signal()?)).context("an exit has a status")?;
    Ok(u8::try_from(code).context("exit code")?.into())
}
