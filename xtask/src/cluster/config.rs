//! Configuration of what runs on a node, each setting that is not the default with its reason.
//!
//! In: the node. Out: texts of files, and command lines.

use std::path::Path;

use serde_json::{Value, json};

use super::{
    cgroups, cni, image,
    wire::{Member, PODS, pods_of},
};
use crate::flags::{self, ProxyMode};

/// Where containerd listens, as everywhere.
pub(super) const SOCKET: &str = "/run/containerd/containerd.sock";

/// Services' addresses of the nodes' family.
const SERVICES: &str = "10.96.0.0/24";

/// Where the text of [`kubelet`] goes.
pub(super) const KUBELET_FILE: &str = "/var/lib/kubelet/config.json";

/// containerd 1.6 and later.
pub(super) fn containerd() -> String {
    let (pause, plugins) = (image::PAUSE, cni::PLUGINS);
    format!(
        r#"version = 2
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.internal.v1.tracing"]

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
# Not every machine gives root CAP_SYS_RESOURCE.
restrict_oom_score_adj = true
# Profiles belong to the whole machine.
disable_apparmor = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "/etc/cni/net.d"
"#
    )
}

/// A kubelet that trusts whoever reaches it: only the control plane does.
pub(super) fn kubelet(node: &str) -> String {
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
        // No systemd, whose driver is the default.
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroups::root_of(node),
        // There would have to be a cgroup for the system's own programs.
        "enforceNodeAllocatable": [],
        "failCgroupV1": false,
        "failSwapOn": false,
        // A full disk of a developer is no reason to send pods away.
        "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "localStorageCapacityIsolation": false,
        // Names are not resolved here.
        "resolvConf": "",
        "clusterDomain": "",
        "shutdownGracePeriod": "0s",
    });
    format!("{config:#}\n")
}

pub(super) fn kubelet_options(node: &str, number: u8, authority: &Path) -> Vec<String> {
    vec![
        format!("--config={KUBELET_FILE}"),
        kubeconfig(authority),
        format!("--hostname-override={node}"),
        format!("--node-ip={}", Member::Node(number).address()),
        "--cert-dir=/var/lib/kubelet/pki".to_owned(),
    ]
}

pub(super) fn proxy(node: &str, mode: ProxyMode, authority: &Path) -> Vec<String> {
    vec![
        kubeconfig(authority),
        format!("--hostname-override={node}"),
        format!("--proxy-mode={}", flags::name(mode)),
        format!("--cluster-cidr={PODS}"),
        // These are limits of the whole machine, out of reach from a network namespace.
        "--conntrack-max-per-core=0".to_owned(),
        "--conntrack-tcp-timeout-established=0s".to_owned(),
        "--conntrack-tcp-timeout-close-wait=0s".to_owned(),
        "--metrics-bind-address=127.0.0.1:10249".to_owned(),
    ]
}

/// kube-router as an engine of policies and nothing else.
pub(super) fn kube_router(node: &str, authority: &Path) -> Vec<String> {
    vec![
        kubeconfig(authority),
        format!("--hostname-override={node}"),
        "--run-firewall=true".to_owned(),
        "--run-router=false".to_owned(),
        "--run-service-proxy=false".to_owned(),
        "--run-loadbalancer=false".to_owned(),
        "--enable-cni=false".to_owned(),
        format!("--service-cluster-ip-range={SERVICES}"),
    ]
}

/// The object that the node's kubelet finds and goes on with: its pods' network is known from the start.
pub(super) fn node_object(node: &str, number: u8) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        // The controller manager's, a moment later. flanneld takes for granted that there is one.
        "metadata": {"name": node, "annotations": {"node.alpha.kubernetes.io/ttl": "0"}},
        "spec": {"podCIDR": pods_of(number), "podCIDRs": [pods_of(number)]},
    })
}

pub(super) fn controller_manager(authority: &Path) -> Vec<String> {
    vec![
        kubeconfig(authority),
        format!("--root-ca-file={}", authority.join("ca.crt").display()),
        format!("--service-account-private-key-file={}", authority.join("service-accounts.key").display()),
        "--leader-elect=false".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
    ]
}

pub(super) fn scheduler(authority: &Path) -> Vec<String> {
    vec![kubeconfig(authority), "--leader-elect=false".to_owned(), "--bind-address=127.0.0.1".to_owned()]
}

/// All programs are administrators.
fn kubeconfig(authority: &Path) -> String {
    format!("--kubeconfig={}", authority.join("kubeconfig").display())
}
