//! A pod: a namespace on a node's veth, and what the cluster is told about it.
//!
//! In: a name, labels and named ports. Out: a pod with both addresses whose manifest (and, on request, CNI
//! result) is written. The steps can be taken one by one, in the order of a real node or in any other:
//! `list_pending`, `plug`, `assign`, `cache_cni_result`, `list`.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};
use serde_json::{Value, json};

use super::{Addresses, Node, Place, PodNetworkMode, address::Mac, node::BRIDGE};

/// A pod that is not there yet.
#[derive(Clone, Debug)]
pub struct PodSpec {
    node: Node,
    namespace: String,
    name: String,
    labels: Vec<(String, String)>,
    ports: Vec<Port>,
}

#[derive(Clone, Debug)]
struct Port {
    name: String,
    protocol: &'static str,
    number: u16,
}

/// A pod with a veth.
#[derive(Clone, Debug)]
pub struct Pod {
    pub place: Place,
    pub addresses: Addresses,
    pub host_interface: String,
    spec: PodSpec,
    number: u8,
}

impl PodSpec {
    pub(super) fn new(node: Node, name: &str) -> Self {
        let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Self { node, namespace, name, labels: Vec::new(), ports: Vec::new() }
    }

    pub fn labels(mut self, labels: &[(&str, &str)]) -> Self {
        self.labels.extend(labels.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())));
        self
    }

    /// Adds a named container port; `protocol` is `TCP`, `UDP` or `SCTP`.
    pub fn port(mut self, name: &str, protocol: &'static str, number: u16) -> Self {
        self.ports.push(Port { name: name.to_owned(), protocol, number });
        self
    }

    /// Takes all steps: the pod runs and the cluster knows it.
    pub fn start(self) -> Result<Pod> {
        let pod = self.plug()?;
        pod.assign()?;
        pod.list()?;
        Ok(pod)
    }

    /// Writes the manifest of a pod that is bound to its node and has no address yet.
    pub fn list_pending(&self) -> Result<()> {
        self.write_manifest(None)
    }

    /// Makes the pod's namespace and veth, both ends up, without an address.
    pub fn plug(self) -> Result<Pod> {
        let number = self.node.next_pod_number();
        let name = format!("{}/{}", self.namespace, self.name);
        let pod = Pod {
            place: Place::new(self.node.sandbox, &name)?,
            addresses: Addresses::of_pod(self.node.number, number),
            host_interface: format!("veth{:08x}", fnv(&name)),
            spec: self,
            number,
        };
        pod.make_veth()?;
        Ok(pod)
    }

    fn file(&self) -> String {
        format!("pod-{}.{}.yaml", self.namespace, self.name)
    }

    fn uid(&self) -> String {
        format!("00000000-0000-4000-8000-{:012x}", fnv(&self.file()))
    }

    fn write_manifest(&self, addresses: Option<Addresses>) -> Result<()> {
        let labels: BTreeMap<_, _> = self.labels.iter().cloned().collect();
        let port = |Port { name, protocol, number }: &Port| json!({"name": name, "protocol": protocol, "containerPort": number});
        let ports: Vec<_> = self.ports.iter().map(port).collect();
        let status = match addresses {
            Some(Addresses { v4, v6 }) => {
                json!({"phase": "Running", "podIP": v4, "podIPs": [{"ip": v4}, {"ip": v6}]})
            }
            None => json!({"phase": "Pending"}),
        };
        let object = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": self.name, "namespace": self.namespace, "uid": self.uid(), "labels": labels},
            "spec": {
                "nodeName": self.node.name(),
                "containers": [{"name": "main", "image": "lab", "ports": ports}],
            },
            "status": status,
        });
        self.node.manifests.write_objects(&self.file(), &[object])
    }
}

impl Pod {
    /// `namespace/name`.
    pub fn name(&self) -> &str {
        self.place.name()
    }

    pub fn node(&self) -> &Node {
        &self.spec.node
    }

    /// Gives the pod its addresses and routes, and the node its way to them.
    pub fn assign(&self) -> Result<()> {
        match self.node().wiring {
            PodNetworkMode::Routed => self.assign_routed(),
            PodNetworkMode::Bridge => self.assign_bridged(),
        }
    }

    /// Writes the manifest of the running pod.
    pub fn list(&self) -> Result<()> {
        self.spec.write_manifest(Some(self.addresses))
    }

    /// Gives the pod other labels, and writes its manifest.
    pub fn relabel(&mut self, labels: &[(&str, &str)]) -> Result<()> {
        self.spec.labels.clear();
        self.spec = self.spec.clone().labels(labels);
        self.list()
    }

    /// Deletes the manifest.
    pub fn unlist(&self) -> Result<()> {
        self.node().manifests.remove(&self.spec.file())
    }

    /// The file that holds its network namespace, as container run-times keep one below `/run/netns`.
    fn keep_namespace(&self) -> Result<PathBuf> {
        let path = self.node().directory().join("netns").join(format!("{:016x}", fnv(self.name())));
        // That of a pod with this name before.
        let _ = umount2(&path, MntFlags::MNT_DETACH);
        self.place.keep_as(&path)?;
        Ok(path)
    }

    /// Writes what libcni keeps when CNI ADD has ended.
    pub fn cache_cni_result(&self) -> Result<()> {
        let record = json!({
            "kind": "cniCacheV1",
            "containerId": self.container(),
            "ifName": "eth0",
            "networkName": "lab",
            "cniArgs": self.cni_arguments(),
            "result": self.cni_result(&self.keep_namespace()?.to_string_lossy()),
        });
        let file = self.node().cni_results().join(format!("lab-{}-eth0", self.container()));
        std::fs::write(&file, record.to_string()).with_context(|| format!("writing {}", file.display()))
    }

    /// The id of the pod's sandbox.
    pub fn container(&self) -> String {
        format!("{:016x}", fnv(self.name()))
    }

    /// What the kubelet says of the pod to CNI plugins.
    pub(super) fn cni_arguments(&self) -> [[String; 2]; 5] {
        let PodSpec { namespace, name, .. } = &self.spec;
        [
            ["IgnoreUnknown".to_owned(), "1".to_owned()],
            ["K8S_POD_NAMESPACE".to_owned(), namespace.clone()],
            ["K8S_POD_NAME".to_owned(), name.clone()],
            ["K8S_POD_INFRA_CONTAINER_ID".to_owned(), self.container()],
            ["K8S_POD_UID".to_owned(), self.spec.uid()],
        ]
    }

    /// What the CNI plugin that has made the veth says of it. `sandbox`: the path of the pod's network
    /// namespace.
    pub(super) fn cni_result(&self, sandbox: &str) -> Value {
        let address =
            |address: String, gateway: &str| json!({"address": address, "interface": 1, "gateway": gateway});
        json!({
            "cniVersion": "0.4.0",
            "interfaces": [
                {"name": self.host_interface, "mac": self.host_mac().to_string()},
                {"name": "eth0", "mac": self.pod_mac().to_string(), "sandbox": sandbox},
            ],
            "ips": [
                address(format!("{}/32", self.addresses.v4), GATEWAY4),
                address(format!("{}/128", self.addresses.v6), GATEWAY6),
            ],
            "dns": {},
        })
    }

    /// Replaces the veth by a new one with the same name and addresses.
    pub fn rewire(&self) -> Result<()> {
        self.unplug()?;
        self.make_veth()?;
        self.assign()
    }

    /// Takes the veth and the manifest away.
    pub fn remove(self) -> Result<()> {
        self.unplug()?;
        self.unlist()
    }

    fn unplug(&self) -> Result<()> {
        self.node().place.ip(&format!("link del {}", self.host_interface))
    }

    fn pod_mac(&self) -> Mac {
        Mac::of_pod(self.node().number, self.number)
    }

    fn host_mac(&self) -> Mac {
        Mac::of_host(self.node().number, self.number)
    }

    fn make_veth(&self) -> Result<()> {
        let (host, node) = (&self.host_interface, &self.node().place);
        let bridge = (self.node().wiring == PodNetworkMode::Bridge).then_some(BRIDGE);
        node.pair(host, self.host_mac(), bridge, &self.place, self.pod_mac())?;
        // As the CNI plug-in `bridge` does for kubelet: else a pod does not reach itself through its service.
        bridge.map_or(Ok(()), |_| node.ip(&format!("link set {host} type bridge_slave hairpin on")))
    }

    /// The node needs no address on the veth: the pod's gateway exists as a neighbour entry alone.
    fn assign_routed(&self) -> Result<()> {
        let (Addresses { v4, v6 }, host, mac) = (self.addresses, &self.host_interface, self.host_mac());
        self.place.ip(&format!(
            "{}neigh replace {GATEWAY4} lladdr {mac} dev eth0 nud permanent\n\
             neigh replace {GATEWAY6} lladdr {mac} dev eth0 nud permanent\n\
             route add {GATEWAY4} dev eth0 scope link\n\
             route add 0.0.0.0/0 via {GATEWAY4} dev eth0\n\
             route add ::/0 via {GATEWAY6} dev eth0\n",
            self.addresses.on("eth0")
        ))?;
        let mac = self.pod_mac();
        self.node().place.ip(&format!(
            "neigh replace {v4} lladdr {mac} dev {host} nud permanent\n\
             neigh replace {v6} lladdr {mac} dev {host} nud permanent\n\
             route add {v4} dev {host} scope link\n\
             route add {v6} dev {host}\n"
        ))
    }

    fn assign_bridged(&self) -> Result<()> {
        let gateway = Addresses::of_pod(self.node().number, 1);
        self.place.ip(&format!(
            "{}route add 0.0.0.0/0 via {} dev eth0\nroute add ::/0 via {} dev eth0\n",
            self.addresses.in_network("eth0"),
            gateway.v4,
            gateway.v6
        ))
    }
}

/// The gateway of a routed pod: link-local addresses that no interface holds.
const GATEWAY4: &str = "169.254.1.1";
const GATEWAY6: &str = "fe80::1";

/// FNV-1a: interface names that look like those of CNI plug-ins and are the same in every run.
fn fnv(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
