//! A node's machine: the first process of its own process namespace, in the network that the keeper gave it.
//!
//! In: the name of the node and its directory. Out: containerd, kubelet and kube-proxy that run until this
//! process is killed or one of them ends. It takes the exit of whatever process has lost its parent, as an
//! init must.

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::{fs::symlink, net::UnixStream},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::sys::wait::wait;

use super::{NODES, READY, config, directory, disk, image, supervisor};
use crate::{
    flags::Cni,
    kubernetes::{CalicoPrograms, Programs},
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

pub(super) fn run(node: &str, cni: Cni) -> Result<u8> {
    let number = (1..).zip(NODES).find(|(_, name)| *name == node).context("there is no such node")?.0;
    let directory = directory()?.join(node);
    sandbox::isolate(|| disk::mount_all(node, &directory), || report(live(node, number, cni, &directory)))
}

fn live(node: &str, number: u8, cni: Cni, directory: &Path) -> Result<()> {
    let ready = directory.join(READY);
    if ready.exists() {
        fs::remove_file(&ready).context("taking back that the node is ready")?;
    }
    let programs = Programs::whole()?;
    let authority = supervisor::authority()?;
    write("/etc/containerd/config.toml", &config::containerd(cni))?;
    if cni == Cni::PtpCalico {
        link_plugins()?;
    }
    write("/etc/cni/net.d/10-podgate.conflist", &config::network(cni, number))?;
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
    let mut proxy = start("kube-proxy", command.args(config::proxy(node, &authority)))?;
    kubelet.ready(START, || Ok(page(KUBELET, "/healthz").is_some()))?;
    proxy.ready(START, || Ok(page(PROXY, "/metrics").is_some_and(|metrics| has_rules(&metrics))))?;
    fs::write(&ready, "").context("telling that the node is ready")?;

    loop {
        let ended = wait().context("waiting for processes")?.pid();
        let daemons = [&containerd, &kubelet, &proxy];
        if let Some(daemon) = daemons.into_iter().find(|daemon| Some(daemon.process_id()) == ended) {
            bail!("on {node} a program ended\n{}", daemon.tail());
        }
    }
}

/// The package's plug-ins, and one that gives veths Calico's names.
fn link_plugins() -> Result<()> {
    fs::create_dir_all(config::OWN_PLUGINS).with_context(|| format!("creating {}", config::OWN_PLUGINS))?;
    let plugins = fs::read_dir(config::PLUGINS).with_context(|| format!("reading {}", config::PLUGINS))?;
    let mut files = vec![CalicoPrograms::built()?.path(config::VETH_NAME)];
    for plugin in plugins {
        files.push(plugin.context("reading a directory")?.path());
    }
    for file in files {
        let link = Path::new(config::OWN_PLUGINS).join(file.file_name().context("a plug-in has a name")?);
        match symlink(&file, &link) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("linking {}", link.display()));
            }
            _ => {}
        }
    }
    Ok(())
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

fn write(file: &str, text: &str) -> Result<()> {
    let directory = Path::new(file).parent().context("the file is in a directory")?;
    fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
    fs::write(file, text).with_context(|| format!("writing {file}"))
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
