//! Kubernetes Services in the lab: the manifests, and on each node the rules by which kube-proxy would lead
//! clients.
//!
//! In: a service and its backends. Out: a Service and its EndpointSlices next to the other manifests, and one
//! table for the service on each node, which leads to the backends in turn. Node ports are those of the
//! node's addresses on the wire. Left out: load balancers.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    Addresses, Node, Pod,
    proxy::{Choice, Frontend, Masquerade, Proxy},
};

/// A service and where it leads.
#[derive(Clone, Debug)]
pub struct ClusterService {
    namespace: String,
    name: String,
    number: u8,
    protocol: &'static str,
    port: u16,
    node_port: Option<u16>,
    external: Vec<Addresses>,
    other_proxy: bool,
    local_traffic: bool,
    masquerade_all: bool,
    backends: Vec<Backend>,
}

#[derive(Clone, Debug)]
struct Backend {
    addresses: Addresses,
    port: u16,
    node: Option<String>,
}

const PROXY: Proxy<'_> = Proxy {
    pods: ["10.244.0.0/16", "fd00:244::/32"],
    services: &["10.96.0.0/16", "fd00:96::/64"],
    choice: Choice::InTurn,
};

impl ClusterService {
    /// `name` is `namespace/name`; `number` tells the addresses of services apart.
    pub fn new(name: &str, number: u8, protocol: &'static str, port: u16) -> Self {
        let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Self {
            namespace,
            name,
            number,
            protocol,
            port,
            node_port: None,
            external: Vec::new(),
            other_proxy: false,
            local_traffic: false,
            masquerade_all: false,
            backends: Vec::new(),
        }
    }

    pub fn node_port(mut self, port: u16) -> Self {
        self.node_port = Some(port);
        self
    }

    /// `externalIPs`.
    pub fn external(mut self, addresses: Addresses) -> Self {
        self.external.push(addresses);
        self
    }

    /// The label that tells kube-proxy to leave the service to another proxy.
    pub fn other_proxy(mut self) -> Self {
        self.other_proxy = true;
        self
    }

    /// `externalTrafficPolicy: Local`: clients of node ports keep their addresses, and reach backends of that
    /// node only.
    pub fn local_traffic(mut self) -> Self {
        self.local_traffic = true;
        self
    }

    /// What kube-proxy does with `--masquerade-all`.
    pub fn masquerade_all(mut self) -> Self {
        self.masquerade_all = true;
        self
    }

    /// Adds a backend; `node` is where it runs, if it is a pod.
    pub fn backend(mut self, addresses: Addresses, port: u16, node: Option<&Node>) -> Self {
        self.backends.push(Backend { addresses, port, node: node.map(|node| node.name().to_owned()) });
        self
    }

    /// Adds a pod as a backend.
    pub fn to(self, pod: &Pod, port: u16) -> Self {
        self.backend(pod.addresses, port, Some(pod.node()))
    }

    /// Its own addresses.
    pub fn addresses(&self) -> Addresses {
        Addresses::of_service(self.number)
    }

    /// Writes the manifests and, when these are there, the rules of these nodes.
    pub fn apply(&self, nodes: &[&Node]) -> Result<()> {
        let Some(first) = nodes.first() else { return Ok(()) };
        self.announce(first)?;
        let table = format!("service_{}", self.number);
        nodes.iter().try_for_each(|node| node.translate(&PROXY, &table, &self.frontends(node)))
    }

    /// Writes the manifests alone: no node translates to it.
    pub fn announce(&self, node: &Node) -> Result<()> {
        let name = format!("service-{}.{}.yaml", self.namespace, self.name);
        node.manifests.write_objects(&name, &self.objects())
    }

    fn objects(&self) -> Vec<Value> {
        let metadata = |name: &str, label: Option<(&str, &str)>| {
            let labels: BTreeMap<_, _> = label.into_iter().collect();
            json!({"name": name, "namespace": self.namespace, "labels": labels})
        };
        let own = self.addresses();
        let external: Vec<_> = self.external.iter().flat_map(|addresses| addresses.both()).collect();
        let mut port = json!({"protocol": self.protocol, "port": self.port});
        let mut spec = json!({"type": "ClusterIP", "clusterIP": own.v4, "clusterIPs": own.both()});
        spec["externalIPs"] = json!(external);
        if let Some(node_port) = self.node_port {
            spec["type"] = json!("NodePort");
            port["nodePort"] = json!(node_port);
        }
        if self.local_traffic {
            spec["externalTrafficPolicy"] = json!("Local");
        }
        spec["ports"] = json!([port]);
        let label = self.other_proxy.then_some(("service.kubernetes.io/service-proxy-name", "other"));
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata(&self.name, label), "spec": spec,
        });
        let slice = |number: usize, backend: &Backend, family: &str, address: IpAddr| {
            let name = format!("{}-{number}-{}", self.name, family.to_lowercase());
            json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": metadata(&name, Some(("kubernetes.io/service-name", &self.name))),
                "addressType": family,
                "ports": [{"protocol": self.protocol, "port": backend.port}],
                "endpoints": [{"addresses": [address], "conditions": {"ready": true}, "nodeName": backend.node}],
            })
        };
        let mut objects = vec![service];
        for (number, backend) in self.backends.iter().enumerate() {
            let [v4, v6] = backend.addresses.both();
            objects.extend([slice(number, backend, "IPv4", v4), slice(number, backend, "IPv6", v6)]);
        }
        objects
    }

    /// Where it answers on a node, over both families.
    fn frontends(&self, node: &Node) -> Vec<Frontend> {
        let everywhere = if self.masquerade_all { Masquerade::All } else { Masquerade::AllButPods };
        let of_family = |family: usize| {
            let frontend = |at: Addresses, port, masquerade, backends: Vec<&Backend>| Frontend {
                address: at.both()[family],
                protocol: self.protocol.to_owned(),
                port,
                masquerade,
                backends: backends
                    .iter()
                    .map(|backend| SocketAddr::new(backend.addresses.both()[family], backend.port))
                    .collect(),
            };
            let all = || self.backends.iter().collect();
            let here =
                self.backends.iter().filter(|backend| backend.node.as_deref() == Some(node.name())).collect();
            let own = [self.addresses()].into_iter().chain(self.external.iter().copied());
            let mut found: Vec<_> = own.map(|at| frontend(at, self.port, everywhere, all())).collect();
            found.extend(self.node_port.map(|port| match self.local_traffic {
                true => frontend(node.addresses, port, Masquerade::None, here),
                false => frontend(node.addresses, port, Masquerade::All, all()),
            }));
            found
        };
        (0..2).flat_map(of_family).collect()
    }
}
