//! Kubernetes Services in the lab: the manifests, and on each node the rules by which kube-proxy would lead
//! clients.
//!
//! In: a service and its backends. Out: a Service and its EndpointSlices next to the other manifests, and one
//! nftables table for the service on each node: DNAT in turn to the backends, REJECT where there are none,
//! and masquerading by kube-proxy's mark 0x4000 for node ports, hairpins and clients outside the cluster.
//! Left out: session affinity and load balancers.

use std::{fmt::Write, net::IpAddr};

use anyhow::Result;

use super::{Addresses, Node, manifests::quoted};

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

/// The networks of pods, whose clients kube-proxy does not masquerade.
const PODS: [&str; 2] = ["10.244.0.0/16", "fd00:244::/32"];
/// The networks of services.
const SERVICES: [&str; 2] = ["10.96.0.0/16", "fd00:96::/64"];
/// kube-proxy's mark of what is to be masqueraded.
const MASQUERADE: &str = "0x4000";

impl ClusterService {
    /// `name` is `namespace/name`; `number` tells the addresses of services apart.
    pub fn new(name: &str, number: u8, protocol: &'static str, port: u16) -> Self {
        let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        let (node_port, local_traffic, masquerade_all) = (None, false, false);
        Self {
            namespace,
            name,
            number,
            protocol,
            port,
            node_port,
            external: Vec::new(),
            other_proxy: false,
            local_traffic,
            masquerade_all,
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

    /// `externalTrafficPolicy: Local`: clients outside keep their addresses, and reach backends of one node
    /// only.
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

    /// Its own addresses.
    pub fn addresses(&self) -> Addresses {
        Addresses::of_service(self.number)
    }

    /// Writes the manifests and, when these are there, the rules of these nodes.
    pub fn apply(&self, nodes: &[&Node]) -> Result<()> {
        let Some(first) = nodes.first() else { return Ok(()) };
        self.announce(first)?;
        nodes.iter().try_for_each(|node| self.load(node))
    }

    /// Writes the manifests alone: no node translates to it.
    pub fn announce(&self, node: &Node) -> Result<()> {
        let name = format!("service-{}.{}.yaml", self.namespace, self.name);
        node.manifests.write(&name, &self.manifest())
    }

    fn manifest(&self) -> String {
        let Addresses { v4, v6 } = self.addresses();
        let (name, namespace, v6) = (quoted(&self.name), quoted(&self.namespace), quoted(&v6.to_string()));
        let metadata = |name: &str| format!("metadata:\n  name: {name}\n  namespace: {namespace}\n");
        let mut text = format!("apiVersion: v1\nkind: Service\n{}", metadata(&name));
        if self.other_proxy {
            text += "  labels: {service.kubernetes.io/service-proxy-name: other}\n";
        }
        let kind = if self.node_port.is_some() { "NodePort" } else { "ClusterIP" };
        text += &format!("spec:\n  type: {kind}\n  clusterIP: {v4}\n  clusterIPs: [{v4}, {v6}]\n");
        if self.local_traffic {
            text += "  externalTrafficPolicy: Local\n";
        }
        if !self.external.is_empty() {
            let all = self.external.iter().flat_map(|addresses| addresses.both());
            let all: Vec<String> = all.map(|address| quoted(&address.to_string())).collect();
            text += &format!("  externalIPs: [{}]\n", all.join(", "));
        }
        text += &format!("  ports:\n  - protocol: {}\n    port: {}\n", self.protocol, self.port);
        if let Some(port) = self.node_port {
            text += &format!("    nodePort: {port}\n");
        }
        for (number, backend) in self.backends.iter().enumerate() {
            for (kind, address) in ["IPv4", "IPv6"].into_iter().zip(backend.addresses.both()) {
                let slice = format!("{}-{number}-{}", self.name, kind.to_lowercase());
                text += &format!(
                    "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n{}  labels:\n    \
                     kubernetes.io/service-name: {name}\naddressType: {kind}\nports:\n- protocol: {}\n  port: {}\n\
                     endpoints:\n- addresses: [{}]\n  conditions: {{ready: true}}\n",
                    metadata(&quoted(&slice)),
                    self.protocol,
                    backend.port,
                    quoted(&address.to_string()),
                );
                if let Some(node) = &backend.node {
                    text += &format!("  nodeName: {}\n", quoted(node));
                }
            }
        }
        text
    }

    /// Replaces the service's table on a node.
    fn load(&self, node: &Node) -> Result<()> {
        // What the node itself sends to a service needs a way before its address is translated.
        let [v4, v6] = SERVICES;
        node.place.ip(&format!("route replace {v4} dev eth0\nroute replace {v6} dev eth0\n"))?;
        let table = format!("inet service_{}", self.number);
        let script = format!(
            "table {table} {{}}\ndelete table {table}\ntable {table} {{\n{}}}\n",
            self.chains(node.name())
        );
        node.place.feed(&["nft", "-f", "-"], &script)
    }

    fn chains(&self, node: &str) -> String {
        let protocol = self.protocol.to_lowercase();
        let mut text = String::new();
        let mut dispatch = String::new();
        let mut refusals = String::new();
        let families = [("ip", "ipv4"), ("ip6", "ipv6")].into_iter().zip(self.addresses().both()).zip(PODS);
        for (place, (((family, nfproto), own), pods)) in families.enumerate() {
            let at = |backend: &Backend| backend.addresses.both()[place];
            for (number, backend) in self.backends.iter().enumerate() {
                let (address, port) = (at(backend), backend.port);
                let target = match address {
                    IpAddr::V4(v4) => format!("{v4}:{port}"),
                    IpAddr::V6(v6) => format!("[{v6}]:{port}"),
                };
                add(
                    &mut text,
                    &format!("{family}_backend_{number}"),
                    &[
                        // A pod that is led to itself.
                        format!("{family} saddr {address} {}", mark()),
                        format!("meta l4proto {protocol} dnat {family} to {target}"),
                    ],
                );
            }
            let everywhere: Vec<usize> = (0..self.backends.len()).collect();
            let here = |number: &usize| self.backends[*number].node.as_deref() == Some(node);
            let local: Vec<usize> = everywhere.iter().copied().filter(here).collect();
            add(&mut text, &format!("{family}_all"), &in_turn(family, &everywhere));
            add(&mut text, &format!("{family}_local"), &in_turn(family, &local));
            let outside = if self.local_traffic {
                vec![format!("{family} saddr {pods} goto {family}_all"), format!("goto {family}_local")]
            } else {
                vec![mark(), format!("goto {family}_all")]
            };
            add(&mut text, &format!("{family}_outside"), &outside);

            let clients =
                if self.masquerade_all { String::new() } else { format!("{family} saddr != {pods}") };
            let external = self.external.iter().map(|addresses| addresses.both()[place]);
            for address in external.chain([own]) {
                let to_service = format!("{family} daddr {address} {protocol} dport {}", self.port);
                writeln!(dispatch, "    {to_service} {clients} {}", mark()).expect("writing to a string");
                writeln!(dispatch, "    {to_service} goto {family}_all").expect("writing to a string");
                if self.backends.is_empty() {
                    writeln!(refusals, "    {to_service} ct state new reject").expect("writing to a string");
                }
            }
            if let Some(port) = self.node_port {
                writeln!(
                    dispatch,
                    "    meta nfproto {nfproto} fib daddr type local {protocol} dport {port} goto {family}_outside"
                )
                .expect("writing to a string");
            }
        }
        text += &format!("  chain dispatch {{\n{dispatch}  }}\n");
        for hook in ["forward", "output"] {
            text += &format!(
                "  chain filter_{hook} {{\n    type filter hook {hook} priority 0;\n{refusals}  }}\n"
            );
        }
        for hook in ["prerouting", "output"] {
            text += &format!("  chain {hook} {{ type nat hook {hook} priority -100; jump dispatch; }}\n");
        }
        text + &format!(
            "  chain postrouting {{\n    type nat hook postrouting priority 100;\n    \
             meta mark and {MASQUERADE} == {MASQUERADE} meta mark set meta mark xor {MASQUERADE} masquerade fully-random\n  }}\n"
        )
    }
}

fn mark() -> String {
    format!("meta mark set meta mark or {MASQUERADE}")
}

/// A rule that leads to one backend after the other. In the place of chance, so that a test meets them all.
fn in_turn(family: &str, backends: &[usize]) -> Vec<String> {
    if backends.is_empty() {
        return Vec::new();
    }
    let ways = backends.iter().enumerate();
    let ways: Vec<_> =
        ways.map(|(turn, backend)| format!("{turn} : goto {family}_backend_{backend}")).collect();
    vec![format!("numgen inc mod {} vmap {{ {} }}", backends.len(), ways.join(", "))]
}

fn add(text: &mut String, chain: &str, rules: &[String]) {
    let rules: String = rules.iter().map(|rule| format!("    {rule}\n")).collect();
    write!(text, "  chain {chain} {{\n{rules}  }}\n").expect("writing to a string");
}
