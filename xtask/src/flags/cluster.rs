//! What `cargo xtask cluster` takes, and every command that runs a cluster.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Start it, and wait until both nodes are Ready
    Up(UpFlags),
    /// Stop it and remove everything
    Down,
    /// Run kubectl as administrator: `cargo xtask cluster kubectl -- get pods -A`
    Kubectl {
        #[arg(last = true, value_name = "ARGUMENT")]
        arguments: Vec<String>,
    },
    /// Open a shell on a node, n1 or n2
    Shell {
        node: String,
        /// Program to run instead of an interactive shell
        #[arg(last = true, value_name = "PROGRAM")]
        program: Vec<String>,
    },
    /// Load an image (an OCI or docker archive) on both nodes
    Load { archive: PathBuf },
    /// Cut a node's power, and wait until it is back
    Reboot { node: String },
    /// Kill the API server, and leave it down
    KillApiServer,
    /// Start the API server again, on the same data
    StartApiServer,
    /// What holds the cluster in the background
    #[command(hide = true)]
    Keep(UpFlags),
    /// The first process of a node
    #[command(hide = true)]
    Machine {
        node: String,
        #[command(flatten)]
        flags: UpFlags,
    },
}

#[derive(Clone, Copy, Debug, Default, Args)]
pub struct UpFlags {
    /// How pods are connected
    #[arg(long, value_enum, default_value_t)]
    pub cni: Cni,
    /// How kube-proxy leads clients of services
    #[arg(long, value_enum, default_value_t)]
    pub proxy: ProxyMode,
    /// Another engine of network policies on each node
    #[arg(long, value_enum)]
    pub engine: Option<Engine>,
}

#[derive(Debug, Args)]
pub struct E2eFlags {
    #[command(flatten)]
    pub up: UpFlags,
    /// Leave out what takes long and is the same in every network: floods of changes, outages, upgrades, Helm
    #[arg(long)]
    pub quick: bool,
    /// Install this image, with the tag of deploy/base, instead of building one
    #[arg(long, value_name = "ARCHIVE", requires = "quick")]
    pub image: Option<PathBuf>,
    /// Only the move from Calico to podgate, step by step, on a cluster with Calico's own agent
    #[arg(long = "move", conflicts_with_all = ["cni", "proxy", "engine", "quick"])]
    pub moves: bool,
}

#[derive(Debug, Args)]
pub struct PerfFlags {
    #[command(flatten)]
    pub up: UpFlags,
    /// Pods that are created and reached
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub pods: usize,
    /// Policies that are created, one after the other
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub policies: usize,
    /// Install this image, with the tag of deploy/base, instead of building one
    #[arg(long, value_name = "ARCHIVE")]
    pub image: Option<PathBuf>,
}

/// What connects the pods of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Cni {
    /// A routed veth per pod
    #[default]
    Ptp,
    /// The same, with veths named as Calico's agent looks for them
    PtpCalico,
    /// All veths in one bridge
    Bridge,
    /// kindnet: ptp and its masquerading, laid out as kindnetd does it, which no Go module has
    Kindnet,
    /// The real flanneld, its backend host-gw; its CNI plugin's delegate is written out
    Flannel,
    /// The same with its backend vxlan
    FlannelVxlan,
    /// The real CNI plugin of AWS, a stand-in for its ipamd and for the VPC
    Aws,
    /// The real CNI plugin of Azure in its mode transparent, with addresses of host-local
    Azure,
}

/// kube-proxy's `--proxy-mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ProxyMode {
    #[default]
    Iptables,
    Nftables,
    /// Only where the kernel has IPVS
    Ipvs,
}

/// An engine beside podgate: what both allow passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// Its firewall alone: iptables and ipset
    KubeRouter,
}

impl UpFlags {
    /// The same flags for a command line.
    pub(crate) fn arguments(self) -> Vec<String> {
        let mut arguments = vec!["--cni".to_owned(), name(self.cni), "--proxy".to_owned(), name(self.proxy)];
        arguments.extend(self.engine.into_iter().flat_map(|engine| ["--engine".to_owned(), name(engine)]));
        arguments
    }
}

/// A value as on the command line.
pub(crate) fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
