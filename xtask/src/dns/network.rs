//! Two nodes, a client, a resolver and servers outside, and the ways from the client to the resolver.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::json;

use super::{
    acceptor::Acceptor,
    clients::Family,
    programs::Programs,
    resolvers::{Resolver, authority},
};
use crate::{
    lab::{Daemon, Lab, Node, Place, Pod},
    sandbox::Sandbox,
};

/// How a pod reaches its resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResolverPath {
    /// By the address of the resolver's pod.
    Pod,
    /// By the address of a Service, which iptables translates.
    Iptables,
    /// The same with nftables.
    Nftables,
    /// A resolver on the node that has the Service's address, and packets that connection tracking does not
    /// see, as NodeLocal DNSCache.
    NodeLocal,
}

/// What a client and its resolver need. Everything ends with it.
pub(super) struct Network {
    pub(super) lab: Lab,
    pub(super) client_node: Node,
    pub(super) client: Pod,
    /// Where all addresses of names are.
    pub(super) internet: Place,
    /// The client's resolver for each family: a file as `/etc/resolv.conf`.
    resolver_files: [PathBuf; 2],
    _daemons: Vec<Daemon>,
    _server: Acceptor,
}

/// The cluster's DNS service.
const SERVICE: [&str; 2] = ["10.96.0.53", "fd00:96::53"];
/// The second address of NodeLocal DNSCache.
const NODE_LOCAL: &str = "169.254.20.10";

impl ResolverPath {
    pub(super) const ALL: [Self; 4] = [Self::Pod, Self::Iptables, Self::Nftables, Self::NodeLocal];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Pod => "its pod's address",
            Self::Iptables => "a Service, iptables",
            Self::Nftables => "a Service, nftables",
            Self::NodeLocal => "NodeLocal, NOTRACK",
        }
    }
}

impl Network {
    /// `is_near`: the resolver's pod is on the client's node.
    pub(super) fn new(
        sandbox: Sandbox,
        name: &str,
        programs: &Programs,
        resolver: Resolver,
        way: ResolverPath,
        is_near: bool,
    ) -> Result<Self> {
        let mut lab = Lab::new(sandbox, name)?;
        let (client_node, other_node) = (lab.node("n1")?, lab.node("n2")?);
        let outside = lab.outside("internet")?;
        outside.place.ip("route add local 198.18.0.0/15 dev lo\nroute add local fd00:198::/96 dev lo\n")?;
        for node in [&client_node, &other_node] {
            let [v4, v6] = outside.addresses.both();
            let routes = format!("route add 198.18.0.0/15 via {v4}\nroute add fd00:198::/96 via {v6}\n");
            node.place.ip(&routes)?;
        }
        let server = Acceptor::start(&outside.place)?;
        let client = client_node.pod("x/client").labels(&[("app", "client")]).start()?;
        let dns = if is_near { &client_node } else { &other_node }.pod("kube-system/dns").start()?;
        let directory = lab.manifests().directory().with_file_name("files");
        fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
        let zone = authority(programs, &outside.place, &directory)?;
        let server_of_zone = IpAddr::V4(outside.addresses.v4);
        let mut daemons = vec![zone, resolver.start(programs, &dns.place, &[], server_of_zone, &directory)?];
        lab.manifests().write("cluster-policy-names.yaml", &policy(&[]))?;
        announce(&lab, &dns)?;

        let [v4, v6] = dns.addresses.both();
        let node = &client_node.place;
        match way {
            ResolverPath::Pod => {}
            ResolverPath::Iptables => iptables(node, [v4, v6])?,
            ResolverPath::Nftables => node.nft(&nftables([v4, v6]))?,
            ResolverPath::NodeLocal => {
                let listen = node_local(node)?;
                daemons.push(resolver.start(programs, node, &listen, v4, &directory)?);
            }
        }
        let asked = match way {
            ResolverPath::Pod => [v4.to_string(), v6.to_string()],
            ResolverPath::Iptables | ResolverPath::Nftables => SERVICE.map(str::to_owned),
            ResolverPath::NodeLocal => [SERVICE[0], NODE_LOCAL].map(str::to_owned),
        };
        let file = |(number, address): (usize, &String)| {
            let file = directory.join(format!("resolv.conf-{number}"));
            let text = format!("nameserver {address}\noptions timeout:5\n");
            fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
            Ok(file)
        };
        let files = asked.iter().enumerate().map(file).collect::<Result<Vec<_>>>()?;
        let resolver_files = files.try_into().ok().context("one of each family")?;
        let internet = outside.place;
        Ok(Self { lab, client_node, client, internet, resolver_files, _daemons: daemons, _server: server })
    }

    /// An `/etc/resolv.conf` for clients that ask for addresses of a family.
    pub(super) fn resolver_file(&self, family: Family) -> &Path {
        let [v4, v6] = &self.resolver_files;
        match family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }
}

/// The client may ask any resolver, and reach the names below `example.com` and these.
pub(super) fn policy(more: &[String]) -> String {
    let names = more.iter().fold("'*.example.com'".to_owned(), |names, name| format!("{names}, {name}"));
    format!(
        "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: names}}\n\
         spec:\n  tier: Admin\n  priority: 1\n  subject: {{pods: {{namespaceSelector: {{}}, podSelector: \
         {{matchLabels: {{app: client}}}}}}}}\n  egress:\n  - action: Accept\n    to: [{{networks: [0.0.0.0/0, \
         '::/0']}}]\n    protocols: [{{udp: {{destinationPort: {{number: 53}}}}}}, {{tcp: {{destinationPort: \
         {{number: 53}}}}}}]\n  - {{action: Accept, to: [{{domainNames: [{names}]}}]}}\n  - {{action: Deny, to: \
         [{{networks: [0.0.0.0/0, '::/0']}}]}}\n"
    )
}

/// The Service of the cluster's DNS with this pod behind it, as podgate knows which resolvers to believe.
fn announce(lab: &Lab, dns: &Pod) -> Result<()> {
    let ports = json!([{"name": "udp", "protocol": "UDP", "port": 53}, {"name": "tcp", "protocol": "TCP", "port": 53}]);
    let mut documents = vec![json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "kube-dns", "namespace": "kube-system"},
        "spec": {"clusterIP": SERVICE[0], "clusterIPs": SERVICE, "ports": ports},
    })];
    documents.extend(["IPv4", "IPv6"].iter().zip(dns.addresses.both()).map(|(family, address)| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
            "metadata": {"name": format!("dns-{}", family.to_lowercase()), "namespace": "kube-system",
                "labels": {"kubernetes.io/service-name": "kube-dns"}},
            "ports": ports, "endpoints": [{"addresses": [address], "conditions": {"ready": true},
                "nodeName": dns.node().name()}],
        })
    }));
    let text: Vec<String> = documents.iter().map(|document| format!("{document:#}\n")).collect();
    lab.manifests().write("service-kube-dns.yaml", &text.join("---\n"))
}

fn iptables(node: &Place, backends: [IpAddr; 2]) -> Result<()> {
    let programs = ["iptables-restore", "ip6tables-restore"];
    for ((program, service), backend) in programs.iter().zip(SERVICE).zip(backends) {
        let to = if backend.is_ipv4() { backend.to_string() } else { format!("[{backend}]") };
        let rule = |protocol| {
            format!("-A PREROUTING -d {service} -p {protocol} --dport 53 -j DNAT --to-destination {to}:53\n")
        };
        let text = format!("*nat\n{}{}COMMIT\n", rule("udp"), rule("tcp"));
        node.feed(&[program, "--noflush"], &text)?;
    }
    Ok(())
}

fn nftables([v4, v6]: [IpAddr; 2]) -> String {
    let [service4, service6] = SERVICE;
    format!(
        "table inet dns {{ chain prerouting {{ type nat hook prerouting priority dstnat;\n\
         ip daddr {service4} meta l4proto {{ tcp, udp }} th dport 53 dnat ip to {v4}:53\n\
         ip6 daddr {service6} meta l4proto {{ tcp, udp }} th dport 53 dnat ip6 to [{v6}]:53; }}; }}\n"
    )
}

/// Gives the node the addresses, and hides their packets from connection tracking.
fn node_local(node: &Place) -> Result<[IpAddr; 2]> {
    let listen = [SERVICE[0], NODE_LOCAL];
    let mut rules = String::from("*raw\n");
    // A bridge without ports serves addresses as a dummy device does, which the kernel may lack.
    let mut addresses = String::from("link add nodelocaldns type bridge\nlink set nodelocaldns up\n");
    for address in listen {
        addresses += &format!("addr add {address}/32 dev nodelocaldns\n");
        for protocol in ["udp", "tcp"] {
            for (chain, end) in [("PREROUTING", "-d"), ("OUTPUT", "-s")] {
                let port = if end == "-d" { "--dport" } else { "--sport" };
                rules += &format!("-A {chain} {end} {address} -p {protocol} {port} 53 -j CT --notrack\n");
            }
        }
    }
    node.ip(&addresses)?;
    node.feed(&["iptables-restore", "--noflush"], &format!("{rules}COMMIT\n"))?;
    // Other packets are tracked, as on every node with kube-proxy.
    node.nft("table inet tracking { chain forward { type filter hook forward priority 0; ct state established counter; }; }")?;
    Ok([SERVICE[0].parse()?, NODE_LOCAL.parse()?])
}
