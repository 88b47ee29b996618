//! Everything that `cargo xtask` takes on its command line.

mod cluster;

use std::{path::PathBuf, str::FromStr};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::platform::Platform;
pub(crate) use cluster::name;
pub use cluster::{ClusterCommand, Cni, E2eFlags, Engine, PerfFlags, ProxyMode, UpFlags};

/// Set-up, tests, lab and benchmarks of podgate. Each command first finds or installs what it needs.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub struct Flags {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Find or install the eBPF toolchain, bpf-linker, iproute2 and nftables
    Setup,
    /// Run the walkthrough: policies between pods' network namespaces, with real packets (needs root)
    Demo,
    /// Run every check and every test (needs root)
    Test(TestFlags),
    /// Run packet tests and a smoke suite on this kernel and on others, in qemu without KVM (needs root)
    Kernels(KernelsFlags),
    /// The first process of such a machine
    #[command(hide = true)]
    Inside,
    /// Run the unit tests of `common` under Miri, where rustup has it
    Miri,
    /// Count the behaviours of NetworkPolicy that have tests, and those that passed in the last run
    Checklist(ChecklistFlags),
    /// Measure the agent with a real API server that holds a large cluster (needs root)
    Scale(ScaleFlags),
    /// Measure what podgate costs, next to other ways to filter pods (needs root)
    Bench {
        #[command(subcommand)]
        command: BenchCommand,
    },
    /// Test podgate on a real cluster, from installation to uninstallation (needs root)
    E2e(E2eFlags),
    /// Compare podgate's reading of Calico's policies with Calico's own agent, on generated clusters (needs
    /// root)
    Calico(CalicoFlags),
    /// Measure how soon a policy and a new pod take effect on a real cluster, as perf-tests does (needs root)
    Perf(PerfFlags),
    /// Run the conformance suite of ClusterNetworkPolicy on a real cluster (needs root)
    Conformance(ConformanceFlags),
    /// Run Kubernetes' end-to-end specs of network policies on a real cluster (needs root)
    Upstream(UpstreamFlags),
    /// Look names of rules up with many libraries, at real resolvers, and connect at once (needs root)
    Dns(DnsFlags),
    /// Build the container image as an OCI archive
    Image(ImageFlags),
    /// Build the kubectl plugin: static binaries, their archives and checksums, and the manifest for krew
    Plugin(PlatformFlags),
    /// Make everything that a release publishes, for both processors, from a clean tree
    Release(ReleaseFlags),
    /// Write deploy/podgate.yaml, which is deploy/base in one file
    Manifest,
    /// Run a real Kubernetes cluster of two nodes on this machine (needs root)
    Cluster {
        #[command(subcommand)]
        command: ClusterCommand,
    },
    /// Check the rules of the repository: module order, file sizes, file heads, documents, left-over words
    Tidy,
    /// Open a shell in a small lab of two nodes and five pods (needs root)
    Lab(LabFlags),
}

#[derive(Debug, Args)]
pub struct KernelsFlags {
    /// Only these: running, 5.10-amd64, 5.15-amd64, 6.1-amd64, 6.12-amd64, 6.12-arm64 [default: all]
    #[arg(long, value_name = "KERNEL", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Only these parts of each: check, programs, packets, traffic, names, hosts, traces, upgrade, netkit
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    pub part: Vec<String>,
    /// Cargo's profile to build the tests with
    #[arg(long, value_name = "NAME", default_value = "tests")]
    pub profile: String,
}

#[derive(Debug, Args)]
pub struct TestFlags {
    /// Run only tests whose name contains PATTERN, and none of the other checks
    #[arg(long, value_name = "PATTERN")]
    pub only: Option<String>,
    /// Run the I-th of N parts of the tests
    #[arg(long, value_name = "I/N")]
    pub shard: Option<Shard>,
}

#[derive(Debug, Args)]
pub struct ChecklistFlags {
    /// List what has no test, with the reason, and what has not passed
    #[arg(long)]
    pub missing: bool,
}

#[derive(Debug, Args)]
pub struct ScaleFlags {
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub pods: usize,
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    pub namespaces: usize,
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    pub policies: usize,
    /// How long the agent is watched idle, and how long pods are changed
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub seconds: u64,
    /// Write the figures to FILE as well
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// The kernel programs alone: nanoseconds a packet over an empty program, helper calls, instructions
    Decision(ProgramFlags),
    /// Packets and connections between two pods: no filter, podgate, conntrack, Azure NPM's and Calico's
    /// rules
    Path(PathFlags),
    /// The agent in clusters of up to 150,000 pods: cold start, cost of changes, memory
    Control(ProgramFlags),
    /// Names of domains: replies that the programs read, connections by name, and a DNS proxy beside them
    Names(ProgramFlags),
}

#[derive(Debug, Args)]
pub struct ProgramFlags {
    /// Fewer cases and fewer rounds
    #[arg(long)]
    pub quick: bool,
    #[command(flatten)]
    pub report: ReportFlags,
}

#[derive(Debug, Args)]
pub struct PathFlags {
    /// Take under two minutes: fewer variants and fewer rounds
    #[arg(long)]
    pub quick: bool,
    /// Numbers of policies [default: 10,100,1000,10000; with --quick 10,1000]
    #[arg(long, value_name = "N,N", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(2..=50_000))]
    pub policies: Vec<u32>,
    #[command(flatten)]
    pub report: ReportFlags,
}

/// Where figures come from and go to, but for the terminal.
#[derive(Debug, Args)]
pub struct ReportFlags {
    /// Measure nothing: show the figures that an earlier run wrote to FILE with --json
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "json"])]
    pub from: Option<PathBuf>,
    /// Write the figures to FILE as well
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a page, with plots where there are any, to FILE
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Args)]
pub struct CalicoFlags {
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub clusters: u32,
    /// Which clusters are generated
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Ask about the N-th cluster alone
    #[arg(long, value_name = "N")]
    pub only: Option<u32>,
}

#[derive(Debug, Args)]
pub struct ConformanceFlags {
    /// Only one version of the API [default: all, one after the other]
    #[arg(long, value_enum, value_name = "VERSION")]
    pub api: Option<PolicyApi>,
    /// Only tests whose name matches
    #[arg(long, value_name = "REGEX")]
    pub focus: Option<String>,
}

/// A version of ClusterNetworkPolicy that has a conformance suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PolicyApi {
    V1alpha2,
    V1beta1,
}

impl PolicyApi {
    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V1alpha2 => "v1alpha2",
            Self::V1beta1 => "v1beta1",
        }
    }
}

#[derive(Debug, Args)]
pub struct UpstreamFlags {
    /// Only specs whose name matches
    #[arg(long, value_name = "REGEX")]
    pub focus: Option<String>,
}

#[derive(Debug, Args)]
pub struct DnsFlags {
    /// Names that are looked up with an agent, and again without one
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub lookups: u32,
}

#[derive(Debug, Args)]
pub struct ImageFlags {
    /// The image is podgate:TAG
    #[arg(long, value_name = "TAG", default_value = env!("CARGO_PKG_VERSION"))]
    pub tag: String,
    #[command(flatten)]
    pub platforms: PlatformFlags,
}

#[derive(Debug, Args)]
pub struct PlatformFlags {
    /// Build for these processors [default: this machine's]
    #[arg(long, value_enum, value_name = "PLATFORM", value_delimiter = ',')]
    pub platform: Vec<Platform>,
}

impl PlatformFlags {
    /// The processors to build for.
    pub(crate) fn chosen(&self) -> Vec<Platform> {
        if self.platform.is_empty() { vec![Platform::HOST] } else { self.platform.clone() }
    }
}

#[derive(Debug, Args)]
pub struct ReleaseFlags {
    /// Also of a tree with changes that are not committed or have no version yet; names end in -dirty
    #[arg(long)]
    pub dirty: bool,
}

#[derive(Debug, Args)]
pub struct LabFlags {
    /// Make only the network: build and start no agent
    #[arg(long)]
    pub bare: bool,
    /// Program to run instead of an interactive shell
    #[arg(last = true, value_name = "PROGRAM")]
    pub program: Vec<String>,
}

/// One of several parts of equal size, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl Shard {
    /// Whether this part takes the `position`-th thing.
    pub fn takes(self, position: usize) -> bool {
        position % self.count == self.index - 1
    }
}

impl FromStr for Shard {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (index, count) = text.split_once('/')?;
            Some(Self { index: index.parse().ok()?, count: count.parse().ok()? })
        };
        parse()
            .filter(|shard| (1..=shard.count).contains(&shard.index))
            .ok_or("give I/N with I from 1 to N, like 2/3")
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Flags::command().debug_assert();
    }

    #[test]
    fn shards_take_everything_once() {
        let shards = ["1/3", "2/3", "3/3"].map(|text| text.parse::<Shard>().expect("well-formed"));
        for position in 0..10 {
            assert_eq!(shards.iter().filter(|shard| shard.takes(position)).count(), 1, "{position}");
        }
        for bad in ["0/3", "4/3", "1/0", "1", "a/b", "-1/2"] {
            assert!(bad.parse::<Shard>().is_err(), "{bad}");
        }
    }
}
