//! The chart on a cluster: installed, enforced, uninstalled.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{CLIENT_ALLOWED, CLIENT_DENIED, Run};
use crate::{cluster::deploy, kubernetes};

/// From `helm install` to a policy that is enforced.
const ENFORCED: Duration = Duration::from_secs(60);

impl Run<'_> {
    pub(super) fn helm(&self) -> Result<()> {
        let started = Instant::now();
        self.ask_helm(&["install", "podgate", &deploy("helm/podgate")?])?;
        self.becomes(CLIENT_DENIED, false)?;
        let took = started.elapsed();
        ensure!(took < ENFORCED, "enforced after {took:?}");
        self.becomes(CLIENT_ALLOWED, true)?;
        self.ask_helm(&["uninstall", "podgate", "--wait"])?;
        // The kernel goes on with what was enforced.
        self.uninstall()
    }

    fn ask_helm(&self, arguments: &[&str]) -> Result<String> {
        let mut helm = self.cluster.client(&kubernetes::helm()?)?;
        let output =
            helm.args(["--namespace", "kube-system"]).args(arguments).output().context("starting helm")?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "helm {}: {}", arguments.join(" "), complaint.trim());
        String::from_utf8(output.stdout).context("the output of helm")
    }
}
