//! Objects of the cluster, asked for and changed by `kubectl` as users do it, and podgate among them.

use std::{
    fs::{self, File},
    io::Write,
    process::Stdio,
};

use anyhow::{Context, Result, bail, ensure};
use kube::Client;

use super::{Cluster, supervisor};
use crate::{kubernetes, lab::Place, workspace};

impl Cluster {
    /// Runs `kubectl`, which must succeed, and hands back what it printed.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<String> {
        let output = self.kubectl(arguments)?.output().context("starting kubectl")?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {}: {}", arguments.join(" "), complaint.trim());
        String::from_utf8(output.stdout).context("the output of kubectl")
    }

    /// `kubectl apply` of a text.
    pub(crate) fn apply(&self, yaml: &str) -> Result<()> {
        let mut apply = self.kubectl(&["apply", "-f", "-"])?;
        let mut apply =
            apply.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().context("starting kubectl")?;
        let mut stdin = apply.stdin.take().context("stdin is piped")?;
        stdin.write_all(yaml.as_bytes()).context("writing to kubectl")?;
        drop(stdin);
        let status = apply.wait().context("waiting for kubectl")?;
        ensure!(status.success(), "kubectl apply: {status}");
        Ok(())
    }

    /// Runs `task` with the administrator's client, for requests whose time counts.
    pub(crate) fn run<T: Send, F: Future<Output = Result<T>>>(
        &self,
        task: impl FnOnce(Client) -> F + Send,
    ) -> Result<T> {
        let place = Place::of("control-plane", self.supervisor.child("etcd")?.network()?);
        kubernetes::run(&place, &supervisor::authority()?.join("kubeconfig"), task)
    }

    /// Installs `deploy/base`, whose image the nodes have already, and waits for an agent on each node.
    pub(crate) fn install_podgate(&self) -> Result<()> {
        self.ask(&["apply", "-k", &deploy("base")?])?;
        self.agents_are_ready()
    }

    /// Waits until the newest DaemonSet has a ready agent on each node.
    pub(crate) fn agents_are_ready(&self) -> Result<()> {
        self.ask(&["-n", "kube-system", "rollout", "status", "daemonset/podgate", "--timeout=90s"])
            .map(|_| ())
    }

    /// Prints pods and the ends of an agent's log to stderr, for the report of a failure.
    pub(crate) fn show_pods(&self) {
        for arguments in [
            &["get", "pods", "-A", "-o", "wide"][..],
            &["-n", "kube-system", "logs", "ds/podgate", "--tail=40"],
        ] {
            match self.ask(arguments) {
                Ok(text) => eprint!("{text}"),
                Err(error) => eprintln!("{error:#}"),
            }
        }
    }
}

/// A part of `deploy/`, as `kubectl` takes it.
pub(crate) fn deploy(part: &str) -> Result<String> {
    let path = workspace::root().join("deploy").join(part);
    path.to_str().map(ToOwned::to_owned).context("the path of the workspace is not UTF-8")
}

/// A pod's network namespace: that of a process which has the pod's name for its host's.
pub(crate) fn pod_place(pod: &str) -> Result<Place> {
    for process in fs::read_dir("/proc").context("/proc")?.flatten() {
        let path = process.path();
        // Those that end meanwhile, and all that are no processes, have no such file.
        let Ok(host) = fs::read_to_string(path.join("root/etc/hostname")) else { continue };
        if host.trim() == pod
            && let Ok(netns) = File::open(path.join("ns/net"))
        {
            return Ok(Place::of(pod, netns));
        }
    }
    bail!("no process has {pod} for the name of its host")
}
