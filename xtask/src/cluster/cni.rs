//! What connects a node's pods: CNI plugins and the daemons behind them, laid out as each project does it.
//!
//! In: the choice and the node. Out: the plugins in a directory of the node's own, their configuration, and a
//! daemon where there is one. Real are the plugins of containernetworking, flanneld, and the plugins of AWS
//! and Azure. What Go modules do not have, or what asks a cloud, is laid out here as its public source does
//! it: kindnetd's configuration and rules, what the plugin of flannel hands to `bridge`, the second interface
//! of an EC2 instance (a table of routes), and ways between nodes, which the wire has for those that leave
//! them to a cloud.

use std::{
    fs,
    io::Write,
    net::Ipv4Addr,
    os::unix::{fs::symlink, net::UnixStream},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    NODES,
    wire::{Member, PODS, pods_of},
};
use crate::{
    flags::Cni,
    kubernetes::{CniPrograms, VETH_NAME},
    lab::{Daemon, Log},
};

/// Where the node's containerd finds plugins.
pub(super) const PLUGINS: &str = "/var/lib/cni-plugins";
/// Those of the Debian package.
const PACKAGED: &str = "/usr/lib/cni";

/// What flanneld reads, and what it writes for its plugin.
const FLANNEL_NETWORK: &str = "/etc/kube-flannel/net-conf.json";
const FLANNEL_SUBNET: &str = "/run/flannel/subnet.env";
const IPAMD_SOCKET: &str = "/var/run/aws-node/ipamd.sock";
/// The number that ipamd gives the routes of an instance's second interface.
const SECOND_INTERFACE: u8 = 2;
/// Bytes of the wire's frames.
const MTU: &str = "1500";

/// The network of one node's pods.
pub(super) struct PodNetwork<'a> {
    pub(super) cni: Cni,
    pub(super) node: &'a str,
    pub(super) number: u8,
}

impl PodNetwork<'_> {
    /// Makes it ready for containerd: plugins, rules, daemon. Out: the daemon, and the text of the network
    /// list.
    pub(super) fn start(
        &self,
        authority: &Path,
        log: &Log,
        limit: Duration,
    ) -> Result<(Option<Daemon>, String)> {
        let programs = CniPrograms::of(self.cni)?;
        link_plugins(&programs).context("the CNI plugins")?;
        let daemon = match self.cni {
            Cni::Ptp | Cni::PtpCalico | Cni::Bridge | Cni::Azure => None,
            Cni::Kindnet => {
                feed("iptables-restore", &["--noflush"], &kindnet_rules())?;
                None
            }
            Cni::Flannel | Cni::FlannelVxlan => {
                let mut flanneld = self.flanneld(&programs, authority, log)?;
                flanneld.ready(limit, || Ok(Path::new(FLANNEL_SUBNET).exists()))?;
                Some(flanneld)
            }
            Cni::Aws => {
                feed("ip", &["-batch", "-"], &self.second_interface())?;
                let mut ipamd = Command::new(programs.daemon()?);
                ipamd.arg(format!("--node={}", Member::Node(self.number).address()));
                ipamd.args([format!("--pods={}", pods_of(self.number)), format!("--vpc={PODS}")]);
                let mut ipamd = Daemon::start("ipamd", ipamd.env("AWS_VPC_ENI_MTU", MTU), log)?;
                ipamd.ready(limit, || Ok(UnixStream::connect(IPAMD_SOCKET).is_ok()))?;
                Some(ipamd)
            }
        };
        Ok((daemon, format!("{:#}\n", self.list()?)))
    }

    /// As the project writes it, with its plugin first and host ports by `portmap`.
    fn list(&self) -> Result<Value> {
        let subnet = pods_of(self.number);
        let ranges = json!([[{"subnet": subnet}]]);
        let everywhere = json!([{"dst": "0.0.0.0/0"}]);
        let ipam = json!({"type": "host-local", "ranges": ranges, "routes": everywhere});
        let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
        let (version, name, plugin) = match self.cni {
            Cni::Ptp | Cni::PtpCalico => {
                ("0.4.0", "podgate", json!({"type": "ptp", "ipMasq": false, "ipam": ipam}))
            }
            Cni::Bridge => (
                "0.4.0",
                "podgate",
                json!({"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
                       "ipMasq": false, "ipam": ipam}),
            ),
            Cni::Kindnet => (
                "0.3.1",
                "kindnet",
                json!({"type": "ptp", "ipMasq": false, "mtu": 1500, "ipam": {
                    "type": "host-local", "dataDir": "/run/cni-ipam-state", "routes": everywhere,
                    "ranges": ranges,
                }}),
            ),
            // What the plugin of flannel makes of its own configuration and of flanneld's file.
            Cni::Flannel | Cni::FlannelVxlan => {
                let env = fs::read_to_string(FLANNEL_SUBNET).context(FLANNEL_SUBNET)?;
                let [network, mtu] = ["FLANNEL_NETWORK", "FLANNEL_MTU"].map(|key| setting(&env, key));
                let mtu: u32 = mtu?.parse().context("FLANNEL_MTU")?;
                let ipam = json!({"type": "host-local", "ranges": ranges, "routes": [{"dst": network?}]});
                let bridge = json!({"type": "bridge", "hairpinMode": true, "isDefaultGateway": true,
                                    "isGateway": true, "ipMasq": false, "mtu": mtu, "ipam": ipam});
                ("0.3.1", "cbr0", bridge)
            }
            Cni::Aws => (
                "0.4.0",
                "aws-cni",
                json!({"name": "aws-cni", "type": "aws-cni", "vethPrefix": "eni", "mtu": MTU,
                       "podSGEnforcingMode": "strict", "pluginLogLevel": "INFO",
                       "pluginLogFile": "/var/log/aws-plugin.log",
                       "capabilities": {"io.kubernetes.cri.pod-annotations": true}}),
            ),
            Cni::Azure => (
                "0.3.0",
                "azure",
                json!({"type": "azure-vnet", "mode": "transparent", "master": "eth0",
                       "ipsToRouteViaHost": ["169.254.20.10"],
                       "ipam": {"type": "host-local", "subnet": subnet}}),
            ),
        };
        let mut plugins = vec![plugin, portmap];
        if self.cni == Cni::PtpCalico {
            plugins.insert(1, json!({"type": VETH_NAME}));
        }
        Ok(json!({"cniVersion": version, "name": name, "plugins": plugins}))
    }

    fn flanneld(&self, programs: &CniPrograms, authority: &Path, log: &Log) -> Result<Daemon> {
        let backend = if self.cni == Cni::Flannel { "host-gw" } else { "vxlan" };
        let network = json!({"Network": PODS, "Backend": {"Type": backend}});
        write(FLANNEL_NETWORK, &network.to_string())?;
        let mut flanneld = Command::new(programs.daemon()?);
        flanneld.args(["--ip-masq", "--kube-subnet-mgr", "--iface=eth0"]);
        flanneld.arg(format!("--net-config-path={FLANNEL_NETWORK}"));
        flanneld.arg(format!("--subnet-file={FLANNEL_SUBNET}"));
        flanneld.arg(format!("--kubeconfig-file={}", authority.join("kubeconfig").display()));
        Daemon::start("flanneld", flanneld.env("NODE_NAME", self.node), log)
    }

    /// The routes of an interface that a second ENI would be: here they lead by the first one.
    fn second_interface(&self) -> String {
        let route = |to: &str, via: Ipv4Addr| {
            format!("route add {to} via {via} dev eth0 onlink table {SECOND_INTERFACE}\n")
        };
        let nodes = (1..).zip(NODES).map(|(number, _)| number).filter(|number| *number != self.number);
        let pods: String =
            nodes.map(|number| route(&pods_of(number), Member::Node(number).address())).collect();
        let nodes = format!("route add {} dev eth0 table {SECOND_INTERFACE}\n", super::wire::NODES_NETWORK);
        nodes + &pods + &route("default", Member::ControlPlane.address())
    }
}

/// Whether nodes hide pods behind their own address from other nodes, as kindnetd and flanneld have it by
/// default: whoever enforces there sees the node.
pub(crate) const fn masquerades_to_nodes(cni: Cni) -> bool {
    matches!(cni, Cni::Kindnet | Cni::Flannel | Cni::FlannelVxlan)
}

/// Whether the daemon leads to the pods of other nodes.
pub(super) const fn makes_ways(cni: Cni) -> bool {
    matches!(cni, Cni::Flannel | Cni::FlannelVxlan)
}

/// kindnetd's, by which pods reach what is no pod under their node's address.
fn kindnet_rules() -> String {
    format!(
        "*nat\n:KIND-MASQ-AGENT - [0:0]\n-A POSTROUTING -m addrtype ! --dst-type LOCAL -j KIND-MASQ-AGENT\n\
         -A KIND-MASQ-AGENT -d {PODS} -j RETURN\n-A KIND-MASQ-AGENT -j MASQUERADE\nCOMMIT\n"
    )
}

/// The plugins of the package, and those that Go built, in one directory.
fn link_plugins(programs: &CniPrograms) -> Result<()> {
    fs::create_dir_all(PLUGINS).context(PLUGINS)?;
    let packaged = fs::read_dir(PACKAGED).context(PACKAGED)?;
    let packaged = packaged.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    for program in packaged.into_iter().chain(programs.plugin().map(Path::to_owned)) {
        let name = program.file_name().context("a program has a name")?;
        match symlink(&program, Path::new(PLUGINS).join(name)) {
            // The disk outlives a reboot.
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("linking {}", program.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn setting(env: &str, key: &str) -> Result<String> {
    let value = env.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value.map(ToOwned::to_owned).with_context(|| format!("{FLANNEL_SUBNET} has no {key}"))
}

/// Runs a program that reads `text`, and must succeed.
fn feed(program: &str, arguments: &[&str], text: &str) -> Result<()> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().with_context(|| format!("starting {program}"))?;
    let mut stdin = process.stdin.take().context("stdin is piped")?;
    stdin.write_all(text.as_bytes()).with_context(|| format!("writing to {program}"))?;
    drop(stdin);
    let output = process.wait_with_output().with_context(|| format!("waiting for {program}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {}\n{text}", complaint.trim());
    Ok(())
}

pub(super) fn write(file: &str, text: &str) -> Result<()> {
    let directory = Path::new(file).parent().context("the file is in a directory")?;
    fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
    fs::write(file, text).with_context(|| format!("writing {file}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_flanneld_writes_is_read_by_its_keys() {
        let env = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\n";
        assert_eq!(setting(env, "FLANNEL_MTU").expect("it is there"), "1450");
        assert!(setting(env, "FLANNEL_IPMASQ").is_err());
    }

    #[test]
    fn a_second_interface_leads_to_other_nodes_and_their_pods() {
        let network = PodNetwork { cni: Cni::Aws, node: "n1", number: 1 };
        let expected = "route add 10.10.0.0/24 dev eth0 table 2\n\
                        route add 10.244.2.0/24 via 10.10.0.12 dev eth0 onlink table 2\n\
                        route add default via 10.10.0.100 dev eth0 onlink table 2\n";
        assert_eq!(network.second_interface(), expected);
    }
}
