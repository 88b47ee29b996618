//! A node: a namespace that routes between its pods and the wire, and the files that belong to it.
//!
//! In: a place with an address on the wire. Out: a node that pods can be started on and an agent can run in,
//! with a bpffs, a socket directory and a CNI result cache of its own, and its Node manifest.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;

use super::{Addresses, Manifests, Place, PodSpec, address::pod_networks};
use crate::sandbox::Sandbox;

/// How a node's pods are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodNetworkMode {
    /// A routed veth per pod with a /32 and a /128, as ptp and Calico do.
    Routed,
    /// All veths in the bridge `cni0` that holds the gateway address, as kubenet and flannel do.
    Bridge,
}

/// A node of the lab's cluster. Clones are the same node.
#[derive(Clone, Debug)]
pub struct Node {
    pub place: Place,
    pub addresses: Addresses,
    pub(super) sandbox: Sandbox,
    pub(super) number: u8,
    pub(super) wiring: PodNetworkMode,
    pub(super) manifests: Manifests,
    pub(super) agent_options: Vec<String>,
    files: Arc<Files>,
    pods: Arc<AtomicU8>,
}

/// The directories of a node; its bpffs is unmounted with the last clone.
#[derive(Debug)]
struct Files {
    directory: PathBuf,
}

/// The bridge of `PodNetworkMode::Bridge`.
pub(super) const BRIDGE: &str = "cni0";
/// Number 1 is the bridge's; the first pod gets this one.
const FIRST_POD: u8 = 11;

impl Node {
    pub(super) fn new(
        sandbox: Sandbox,
        place: Place,
        number: u8,
        addresses: Addresses,
        wiring: PodNetworkMode,
        directory: &Path,
        manifests: Manifests,
    ) -> Result<Self> {
        let files = Arc::new(Files::new(directory)?);
        let pods = Arc::new(AtomicU8::new(FIRST_POD));
        let agent_options = Vec::new();
        let node = Self { place, addresses, sandbox, number, wiring, manifests, agent_options, files, pods };
        node.place.forward()?;
        if wiring == PodNetworkMode::Bridge {
            node.add_bridge()?;
        }
        node.list()?;
        Ok(node)
    }

    pub fn name(&self) -> &str {
        self.place.name()
    }

    /// A pod `namespace/name` to be started on this node.
    pub fn pod(&self, name: &str) -> PodSpec {
        PodSpec::new(self.clone(), name)
    }

    /// The node's own bpffs.
    pub fn bpffs(&self) -> PathBuf {
        self.files.directory.join("bpf")
    }

    /// The node's CNI result cache, in the place of `/var/lib/cni/results`.
    pub fn cni_results(&self) -> PathBuf {
        self.files.directory.join("cni")
    }

    /// The node's directory, in the place of its `/run`.
    pub fn directory(&self) -> &Path {
        &self.files.directory
    }

    /// Has the kernel track connections, as kube-proxy's rules do. It then puts datagrams together before it
    /// forwards them, and of UDP it alone knows who has answered.
    pub fn track_connections(&self) -> Result<()> {
        self.place.nft(
            "table inet tracking { chain forward { type filter hook forward priority 0; ct state established counter; }; }",
        )
    }

    pub(super) fn next_pod_number(&self) -> u8 {
        self.pods.fetch_add(1, Ordering::Relaxed)
    }

    fn add_bridge(&self) -> Result<()> {
        self.place.add_bridge(BRIDGE)?;
        self.place.ip(&Addresses::of_pod(self.number, 1).in_network(BRIDGE))?;
        // What kubelet asks for, where the kernel has it: bridged packets pass iptables too.
        if Path::new("/proc/sys/net/bridge").exists() {
            self.place.sysctls(&[
                ("bridge/bridge-nf-call-iptables", "1"),
                ("bridge/bridge-nf-call-ip6tables", "1"),
            ])?;
        }
        Ok(())
    }

    fn list(&self) -> Result<()> {
        let [pods4, pods6] = pod_networks(self.number);
        let internal = self.addresses.both().map(|address| json!({"type": "InternalIP", "address": address}));
        let addresses = [&[json!({"type": "Hostname", "address": self.name()})], &internal[..]].concat();
        let object = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name(), "labels": {"kubernetes.io/hostname": self.name()}},
            "spec": {"podCIDR": pods4, "podCIDRs": [pods4, pods6]},
            "status": {"addresses": addresses},
        });
        self.manifests.write_objects(&format!("node-{}.yaml", self.name()), &[object])
    }
}

impl Files {
    fn new(directory: &Path) -> Result<Self> {
        for part in ["bpf", "cni", "netns"] {
            let path = directory.join(part);
            fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        }
        let bpffs = directory.join("bpf");
        mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mounting bpffs on {}", bpffs.display()))?;
        Ok(Self { directory: directory.to_owned() })
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // What stays mounted vanishes with the sandbox.
        let _ = umount2(&self.directory.join("bpf"), MntFlags::MNT_DETACH);
    }
}
