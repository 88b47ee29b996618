//! A node's machine: the first process of its own process namespace, in the network that the keeper gave it.
//!
//! In: the name of the node and its directory. Out: containerd, kubelet and kube-proxy that run until this
//! process is killed or one of them ends. It takes the exit of whatever process has lost its parent, as an
//! init must.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::sys::wait::wait;

use super::{
    NODES, READY,
    cni::{PodNetwork, write},
    config, directory, disk, image, supervisor,
};
use crate::{
    flags::{Engine, UpFlags},
    kubernetes::{self, Programs},
    lab::{Daemon, Log, http_get},
    sandbox,
    shell::report,
};

/// How long each program may take to start.
const START: Duration = Duration::from_secs(120);
/// Where kubelet says how it is.
const KUBELET: SocketAddr = local(10248);
/// Where kube-proxy counts, and since when it has rules; its health page is content without.
const PROXY: SocketAddr = local(10249);
const RULES_WRITTEN: &str = "kubeproxy_sync_proxy_rules_last_timestamp_seconds";

pub(super) fn run(node: &str, flags: UpFlags) -> Result<u8> {
    let number = (1..).zip(NODES).find(|(_, name)| *name == node).context("there is no such node")?.0;
    let directory = directory()?.join(node);
    sandbox::isolate(|| disk::mount_all(node, &directory), || report(live(node, number, flags, &directory)))
}

fn live(node: &str, number: u8, flags: UpFlags, directory: &Path) -> Result<()> {
    let ready = directory.join(READY);
    if ready.exists() {
        fs::remove_file(&ready).context("taking back that the node is ready")?;
    }
    let programs = Programs::whole()?;
    let authority = supervisor::authority()?;
    write("/etc/containerd/config.toml", &config::containerd())?;
    let network = PodNetwork { cni: flags.cni, node, number };
    let log = Log::new(directory.join("cni.log"));
    let (network, list) = network.start(&authority, &log, START).context("the network of pods")?;
    write("/etc/cni/net.d/10-podgate.conflist", &list)?;
    write(config::KUBELET_FILE, &config::kubelet(node))?;
    let start = |name: &str, command: &mut Command| {
        Daemon::start(name, command, &Log::new(directory.join(format!("{name}.log"))))
    };

    let mut containerd = start("containerd", &mut Command::new("containerd"))?;
    containerd.ready(START, || Ok(UnixStream::connect(config::SOCKET).is_ok()))?;
    image::import(&mut Command::new("ctr"), &supervisor::images()?)?;
    let mut command = Command::new(programs.path("kubelet"));
    let mut kubelet = start("kubelet", command.args(config::kubelet_options(node, number, &authority)))?;
    let mut command = Command::new(programs.path("kube-proxy"));
    let mut proxy = start("kube-proxy", command.args(config::proxy(node, flags.proxy, &authority)))?;
    kubelet.ready(START, || Ok(page(KUBELET, "/healthz").is_some()))?;
    proxy.ready(START, || Ok(page(PROXY, "/metrics").is_some_and(|metrics| has_rules(&metrics))))?;
    // It may be ended: the move from it is a test.
    let _engine = match flags.engine {
        Some(Engine::KubeRouter) => {
            let mut command = Command::new(kubernetes::kube_router()?);
            Some(start("kube-router", command.args(config::kube_router(node, &authority)))?)
        }
        None => None,
    };
    fs::write(&ready, "").context("telling that the node is ready")?;

    loop {
        let ended = wait().context("waiting for processes")?.pid();
        let mut daemons = [&containerd, &kubelet, &proxy].into_iter().chain(&network);
        if let Some(daemon) = daemons.find(|daemon| Some(daemon.process_id()) == ended) {
            bail!("on {node} a program ended\n{}", daemon.tail());
        }
    }
}

const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// What a program answers, unless it cannot or is not well.
fn page(program: SocketAddr, path: &str) -> Option<String> {
    let answer = http_get(program, path, START).ok()?;
    (answer.status == 200).then_some(answer.body)
}

/// From the metrics of kube-proxy; a value of 0 is "never".
fn has_rules(metrics: &str) -> bool {
    metrics.lines().any(|line| line.starts_with(RULES_WRITTEN) && !line.ends_with(" 0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kube_proxy_has_rules_once_it_says_since_when() {
        for (metrics, expected) in [
            ("# TYPE kubeproxy_sync_proxy_rules_last_timestamp_seconds gauge\n", false),
            ("kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv4\"} 0\n", false),
            ("kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv4\"} 1.7951e+09\n", true),
            ("", false),
        ] {
            assert_eq!(has_rules(metrics), expected, "{metrics}");
        }
    }
}
