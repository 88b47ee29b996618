//! A real API server with its storage, for tests: one command, seconds, nothing left behind.
//!
//! In: a host of the lab and the programs. Out: an API server with RBAC, certificates and tokens that answers
//! on the lab's wire, ways to talk to it, and ways to take it away for a while: ended, killed or frozen, and
//! started again on the same data. Its logs are files in the lab's directory. Left out: controllers,
//! scheduler and kubelets; what they would write, tests write themselves.

use std::{
    ffi::OsStr,
    fs,
    net::{IpAddr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use http::Request;
use kube::Client;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{
    Authority, Programs, client,
    options::{self, ControlPlaneMode},
};
use crate::lab::{Daemon, Host, Lab, Log, Place};

/// A running control plane. Its programs end when it is dropped.
#[derive(Debug)]
pub struct ControlPlane {
    programs: Programs,
    place: Place,
    address: IpAddr,
    directory: PathBuf,
    mode: ControlPlaneMode,
    authority: Authority,
    /// First here, so that it is dropped first.
    api_server: Option<Daemon>,
    _etcd: Daemon,
}

/// How long the two programs may take to start, on a machine that builds something else meanwhile.
const START: Duration = Duration::from_secs(240);
/// How long the API server may take to end.
const END: Duration = Duration::from_secs(30);

const ETCD_LOG: &str = "etcd.log";
const API_SERVER_LOG: &str = "kube-apiserver.log";

impl Lab {
    /// Adds a host outside the cluster that runs the control plane, and waits until it is ready.
    pub fn control_plane(&mut self, programs: &Programs) -> Result<ControlPlane> {
        let host = self.outside("control-plane")?;
        ControlPlane::start(programs, &host, &self.directory().join("control-plane"))
    }
}

impl ControlPlane {
    /// Starts it on `host`, with its files in `directory`, and waits until it is ready.
    pub fn start(programs: &Programs, host: &Host, directory: &Path) -> Result<Self> {
        Self::start_for(programs, host, directory, ControlPlaneMode::ApiServerOnly)
    }

    /// The same beside other programs of a cluster.
    pub(crate) fn start_for(
        programs: &Programs,
        host: &Host,
        directory: &Path,
        mode: ControlPlaneMode,
    ) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
        let authority = Authority::new(&directory.join("authority"), &host.addresses.both())?;
        let mut etcd = host.place.command(programs.path("etcd"));
        etcd.args(options::etcd(&directory.join("data")));
        let etcd = Daemon::start("etcd", &mut etcd, &Log::new(directory.join(ETCD_LOG)))?;
        let mut control_plane = Self {
            programs: programs.clone(),
            place: host.place.clone(),
            address: host.addresses.v4.into(),
            directory: directory.to_owned(),
            mode,
            authority,
            api_server: None,
            _etcd: etcd,
        };
        control_plane.start_api_server()?;
        Ok(control_plane)
    }

    /// The administrator's kubeconfig. It names the server by its IPv4 address on the wire.
    pub fn kubeconfig(&self) -> PathBuf {
        self.authority.kubeconfig()
    }

    /// Writes a kubeconfig whose user shows `token`, for instance one that `kubectl create token` gave.
    pub fn write_kubeconfig(&self, file: &Path, token: &str) -> Result<()> {
        fs::write(file, self.authority.kubeconfig_for(token))
            .with_context(|| format!("writing {}", file.display()))
    }

    /// Where the API server listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.address, super::authority::PORT)
    }

    /// The real `kubectl`, as administrator.
    pub fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut kubectl = self.place.command(self.programs.path("kubectl"));
        // It caches what it has learnt about a server in the home directory.
        kubectl.env("KUBECONFIG", self.kubeconfig()).env("HOME", &self.directory).args(arguments);
        kubectl
    }

    /// A command inside the server's network.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.place.command(program)
    }

    /// Runs `kubectl`, which must succeed, and hands back what it printed.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        let output = self.kubectl(arguments).output().context("starting kubectl")?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {}: {}", arguments.join(" "), complaint.trim());
        String::from_utf8(output.stdout).context("the output of kubectl")
    }

    /// Runs `task` with the administrator's client, inside the server's network.
    pub fn run<T: Send, F: Future<Output = Result<T>>>(
        &self,
        task: impl FnOnce(Client) -> F + Send,
    ) -> Result<T> {
        client::run(&self.place, &self.kubeconfig(), task)
    }

    /// Creates objects, with their status where they have one, many at a time and in no order: namespaces
    /// first.
    pub fn create(&self, objects: &[Value]) -> Result<()> {
        self.run(|client| async move { client::create_all(&client, objects).await })
    }

    /// Creates or changes objects, with their status.
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        self.run(|client| async move { client::apply_all(&client, objects).await })
    }

    /// Deletes objects at once: no kubelet is asked.
    pub fn delete(&self, objects: &[Value]) -> Result<()> {
        self.run(|client| async move { client::delete_all(&client, objects).await })
    }

    /// Starts the API server on the data that are there, and waits until it is ready. A running one is fine.
    pub fn start_api_server(&mut self) -> Result<()> {
        if self.api_server.is_some() {
            return Ok(());
        }
        let mut command = self.place.command(self.programs.path("kube-apiserver"));
        command.args(options::api_server(&self.authority, self.address, self.mode));
        let log = Log::new(self.directory.join(API_SERVER_LOG));
        let mut server = Daemon::start("kube-apiserver", &mut command, &log)?;
        server.ready(START, || self.is_ready()).context("the API server")?;
        self.api_server = Some(server);
        Ok(())
    }

    /// Ends it in order: it says goodbye to its clients.
    pub fn stop_api_server(&mut self) -> Result<()> {
        self.api_server.take().map_or(Ok(()), |server| server.terminate(END).map(|_| ()))
    }

    /// Ends it as a power cut would, but for its host, which resets its connections.
    pub fn kill_api_server(&mut self) -> Result<()> {
        self.api_server.take().map_or(Ok(()), Daemon::kill)
    }

    /// From here on it answers nothing; connections stay open.
    pub fn freeze_api_server(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// It goes on where it was.
    pub fn thaw_api_server(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// The ends of both logs, for the report of a failed test.
    pub fn logs(&self) -> String {
        [ETCD_LOG, API_SERVER_LOG].map(|name| Log::new(self.directory.join(name)).tail()).join("\n")
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        self.api_server.as_ref().context("the API server is not running")?.signal(signal)
    }

    fn is_ready(&self) -> Result<bool> {
        // A client would try again and again by itself, more and more rarely.
        if self.place.run(|| TcpStream::connect(self.address())).is_err() {
            return Ok(false);
        }
        let get = |path: &str| Request::get(path).body(Vec::new()).context("a request");
        // It makes the namespace `default` itself, a moment after it says that it is ready.
        let requests = [get("/readyz")?, get("/api/v1/namespaces/default")?];
        self.run(|client| async move {
            for request in requests {
                if client.request_text(request).await.is_err() {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }
}
