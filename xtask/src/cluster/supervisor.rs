//! The keeper: the process in the background that holds the cluster.
//!
//! In: a directory and cgroups that `up` made. Out: a sandbox with the wire, the control plane and a machine
//! for each node, until SIGTERM; everything ends with it. Lines on stdout tell how far it is. A machine that
//! was killed is started again, as one whose power comes back. Whoever writes into the pipe
//! `start-api-server` has the API server started again.

use std::{
    fs,
    net::Ipv6Addr,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use http::Request;
use nix::{sys::stat::Mode, unistd::mkfifo};
use serde_json::Value;

use super::{NODES, READY, START_API_SERVER, config, directory, image, wire::Member};
use crate::{
    flags::UpFlags,
    kubernetes::{ControlPlane, ControlPlaneMode, Programs},
    lab::{Addresses, Daemon, Host, Log, Place, Wire, until},
    sandbox::{self, Sandbox},
    shell::report,
};

/// How long nodes may take to be Ready.
const NODES_READY: Duration = Duration::from_secs(240);

/// What a machine ends with when its first process was killed: 128 + SIGKILL.
const POWER_CUT: i32 = 137;

pub(super) fn run(flags: UpFlags) -> Result<ExitCode> {
    Ok(sandbox::enter(|sandbox| report(keep(sandbox, flags)))?.into())
}

/// The directory with keys, certificates and the administrator's kubeconfig.
pub(super) fn authority() -> Result<PathBuf> {
    Ok(directory()?.join("control-plane/authority"))
}

/// The archive of images for tests.
pub(super) fn images() -> Result<PathBuf> {
    Ok(directory()?.join("images.tar"))
}

fn keep(sandbox: Sandbox, flags: UpFlags) -> Result<()> {
    let directory = directory()?;
    let programs = Programs::whole()?;
    image::write(&images()?, &[image::PAUSE, image::BUSYBOX], None)?;
    let wire = Wire::new(sandbox)?;
    let place = Place::new(sandbox, "control-plane")?;
    Member::ControlPlane.join(&wire, &place, flags.cni)?;
    let addresses = Addresses { v4: Member::ControlPlane.address(), v6: Ipv6Addr::LOCALHOST };
    let host = Host { place: place.clone(), addresses };
    let mut control_plane =
        ControlPlane::start_for(&programs, &host, &directory.join("control-plane"), ControlPlaneMode::Full)?;
    println!("the API server answers on {}", control_plane.address());
    let objects: Vec<_> = (1..).zip(NODES).map(|(number, node)| config::node_object(node, number)).collect();
    control_plane.create(&objects)?;
    let _controllers = start_controllers(&programs, &place, &directory)?;

    let machine = |(number, node)| {
        let machine = Machine { sandbox, node, number, wire: wire.clone(), flags };
        thread::spawn(move || machine.keep_on())
    };
    let mut machines: Vec<_> = (1..).zip(NODES).map(machine).collect();
    until("all nodes are Ready", NODES_READY, || {
        fail_with_any(&mut machines)?;
        let run = NODES.iter().all(|node| directory.join(node).join(READY).exists());
        Ok((run && ready_nodes(&control_plane)? == NODES.len()).then_some(()))
    })?;
    println!("the nodes {} are Ready", NODES.join(" and "));
    let orders = directory.join(START_API_SERVER);
    mkfifo(&orders, Mode::S_IRUSR | Mode::S_IWUSR).context("making the pipe for orders")?;
    fs::write(directory.join(READY), "").context("telling that all is ready")?;
    loop {
        // Each read waits for somebody who writes, and ends with them.
        fs::read(&orders).context("waiting for orders")?;
        control_plane.kill_api_server()?;
        control_plane.start_api_server()?;
    }
}

fn start_controllers(programs: &Programs, place: &Place, directory: &Path) -> Result<[Daemon; 2]> {
    let authority = authority()?;
    let start = |name: &str, options: Vec<String>| {
        let log = Log::new(directory.join(format!("{name}.log")));
        Daemon::start(name, place.command(programs.path(name)).args(options), &log)
    };
    Ok([
        start("kube-controller-manager", config::controller_manager(&authority))?,
        start("kube-scheduler", config::scheduler(&authority))?,
    ])
}

/// A node's machine.
struct Machine {
    sandbox: Sandbox,
    node: &'static str,
    number: u8,
    wire: Wire,
    flags: UpFlags,
}

impl Machine {
    /// Runs it, and runs it again whenever its power was cut.
    fn keep_on(self) -> Result<()> {
        let program = std::env::current_exe().context("finding this program")?;
        let member = Member::Node(self.number);
        loop {
            let place = Place::new(self.sandbox, self.node)?;
            member.join(&self.wire, &place, self.flags.cni)?;
            let mut machine = place.command(&program);
            machine.args(["cluster", "machine", self.node]).args(self.flags.arguments());
            let status = machine.stdin(Stdio::null()).status().context("starting a machine")?;
            self.wire.unplug(member.number());
            if status.code() != Some(POWER_CUT) {
                bail!("the machine {} ended: {status}", self.node);
            }
            println!("{} starts again", self.node);
        }
    }
}

/// Machines that ended by themselves say why.
fn fail_with_any(machines: &mut Vec<JoinHandle<Result<()>>>) -> Result<()> {
    let Some(ended) = machines.iter().position(JoinHandle::is_finished) else { return Ok(()) };
    machines.remove(ended).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn ready_nodes(control_plane: &ControlPlane) -> Result<usize> {
    let request = Request::get("/api/v1/nodes").body(Vec::new()).context("a request")?;
    let nodes: Value = control_plane.run(|client| async move { Ok(client.request(request).await?) })?;
    let is_ready = |node: &&Value| {
        let conditions = node["status"]["conditions"].as_array();
        conditions
            .into_iter()
            .flatten()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    };
    Ok(nodes["items"].as_array().into_iter().flatten().filter(is_ready).count())
}
