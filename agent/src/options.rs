//! The options of `podgate agent`: from the command line, the environment or a file.
//!
//! In: text, read by `cli`. Out: checked values. What they do is left to `run`.

use std::{
    fmt, fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::{ArgAction, Args, ValueEnum};
use podgate_common::Protocol;
use podgate_core::model::{FailsafePorts, Name};
use tracing_subscriber::EnvFilter;

use crate::{observe::LogTarget as DenyLogTarget, otlp::CollectorUrl};

/// Where distributions and systemd mount the BPF file system.
pub(crate) const BPFFS: &str = "/sys/fs/bpf";
/// `/run` is gone after a reboot, as the agent is.
pub(crate) const SOCKET: &str = "/run/podgate/podgate.sock";
/// The default directory of libcni, which containerd and CRI-O use.
pub(crate) const CNI_RESULTS: &str = "/var/lib/cni/results";
/// Metrics name pods' neighbours: only the node itself may read them unless the operator says otherwise.
const METRICS: Metrics = Metrics::At(SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9177));
/// What a busy node's conntrack table holds by default (`nf_conntrack_max` with 8 GiB of memory).
const FLOWS: u32 = 262_144;
/// Clients that cache an answer round its time to live up, and connect a moment after it.
const NAMES_KEEP: u32 = 60;
/// A busy node's talks of some hours, in some 20 MiB.
const HISTORY: u32 = 65_536;
/// As Calico's failsafe is meant: long enough to look, short enough to wait for.
const HOST_ENDPOINTS_GUARD: u32 = 60;
/// The kubelet's own default.
const KUBELET_HEALTHZ: &str = "http://127.0.0.1:10248/healthz";
const LOG: &str = "info";
/// What a node's log rotation keeps of a container, some times over.
const DENY_LOG_SIZE: u64 = 100 << 20;

/// OpenTelemetry's default (`OTEL_METRIC_EXPORT_INTERVAL`).
const OTLP_INTERVAL: u32 = 60;

/// Enforce NetworkPolicy on this node until SIGTERM or SIGINT; enforcement continues when the agent ends
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Every option can also be set in the environment (PODGATE_NODE, PODGATE_CNI_RESULTS, ...; several paths in \
PODGATE_MANIFESTS are separated by `:`) and in the file of --config. The command line takes precedence over the \
environment, and the environment over the file. Of OpenTelemetry's own variables count, where podgate's are not set: \
OTEL_EXPORTER_OTLP_ENDPOINT (as --otlp), OTEL_EXPORTER_OTLP_CERTIFICATE (as --otlp-ca), OTEL_EXPORTER_OTLP_HEADERS \
(without --otlp-headers), and OTEL_RESOURCE_ATTRIBUTES, which are sent in addition to podgate's.

Example:
  podgate agent --node worker-1 --manifests /etc/podgate/manifests")]
pub struct AgentOptions {
    /// Name of this node: pods with this spec.nodeName are local [default: NODE_NAME, else the host name]
    #[arg(long, value_name = "NAME", default_value = host_name(), hide_default_value = true, value_parser = node_name)]
    pub node: Name,
    /// File or directory of objects to read and watch, instead of an API server (repeatable)
    #[arg(long, value_name = "PATH")]
    pub manifests: Vec<PathBuf>,
    /// Accept a path without any object, and an API server without any namespace
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false,
          default_missing_value = "true", action = clap::ArgAction::Set)]
    pub allow_empty: bool,
    /// File that says how to reach the API server [default: in-cluster, then $KUBECONFIG, then
    /// ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// BPF file system for the pins; it is mounted if necessary
    #[arg(long, value_name = "DIR", default_value = BPFFS)]
    pub bpffs: PathBuf,
    /// Socket for the commands that ask a running agent
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    pub socket: PathBuf,
    /// Address for /metrics, /healthz and /readyz, or `off`
    #[arg(long, value_name = "ADDR:PORT", default_value_t = METRICS)]
    pub metrics: Metrics,
    /// Result cache of libcni; it may be absent
    #[arg(long, value_name = "DIR", default_value = CNI_RESULTS)]
    pub cni_results: PathBuf,
    /// Size of the flow table, in connections
    #[arg(long, value_name = "N", default_value_t = FLOWS, value_parser = clap::value_parser!(u32).range(1..))]
    pub flows: u32,
    /// What a policy change does to established connections
    #[arg(long, value_enum, default_value_t = Established::Keep)]
    pub established: Established,
    /// How programs are attached to the interfaces of pods
    #[arg(long, value_enum, default_value_t = AttachBy::Auto)]
    pub hook: AttachBy,
    /// How to treat connections that arrive masqueraded to the node's own address
    #[arg(long, value_enum, default_value_t = MasqueradedIngress::Evaluate)]
    pub masqueraded_ingress: MasqueradedIngress,
    /// Readiness while pods that should be isolated are not
    #[arg(long, value_enum, default_value_t = UnenforcedMode::Degraded)]
    pub unenforced: UnenforcedMode,
    /// Let pods send encapsulated packets (VXLAN, Geneve, IP in IP, GRE and similar) to nodes, which may
    /// unpack them and forward what is inside from any address
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value_t = false, default_missing_value = "true")]
    pub allow_encapsulation: bool,
    /// Hand packets of known connections between pods of this node straight to the receiver, past routing and
    /// netfilter of the node
    #[arg(long, value_enum, default_value_t = ShortcutMode::Off)]
    pub shortcut: ShortcutMode,
    /// Servers that pods' DNS is believed from, each ADDRESS[:PORT], in place of the cluster's own
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub resolvers: Vec<Resolver>,
    /// Least time in seconds for which an address counts that a pod has learnt for a name
    #[arg(long, value_name = "SECONDS", default_value_t = NAMES_KEEP, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub names_keep: u32,
    /// Ports to which host endpoints let everything in, each PROTOCOL/PORT, or `none`
    #[arg(long, value_name = "LIST", default_value_t = PortList(FailsafePorts::default().inbound))]
    pub failsafe_inbound: PortList,
    /// Ports to which host endpoints let everything out
    #[arg(long, value_name = "LIST", default_value_t = PortList(FailsafePorts::default().outbound))]
    pub failsafe_outbound: PortList,
    /// Seconds after which a change of host endpoints is undone, unless the API server and the kubelet have
    /// answered since; 0: it is never undone
    #[arg(long, value_name = "SECONDS", default_value_t = HOST_ENDPOINTS_GUARD, value_parser = clap::value_parser!(u32).range(..=3_600))]
    pub host_endpoints_guard: u32,
    /// Address of the kubelet's health check, or `off` to ask the API server alone
    #[arg(long, value_name = "URL", default_value = KUBELET_HEALTHZ)]
    pub kubelet_healthz: KubeletHealth,
    /// How many kinds of flows are kept for `podgate flows`, each in at most 1 KiB; they survive a restart
    #[arg(long, value_name = "N", default_value_t = HISTORY, value_parser = clap::value_parser!(u32).range(1..))]
    pub history: u32,
    /// Write denied packets as lines of JSON to this file, or to standard output (`-`)
    #[arg(long, value_name = "PATH")]
    pub deny_log: Option<DenyLogTarget>,
    /// Size in bytes at which the file of the deny log is renamed to PATH.1 and a new one begins
    #[arg(long, value_name = "BYTES", default_value_t = DENY_LOG_SIZE)]
    pub deny_log_size: u64,
    /// Send denied packets and all metrics to this collector of OpenTelemetry, by OTLP over HTTP: for example
    /// http://collector:4318
    #[arg(long, value_name = "URL")]
    pub otlp: Option<CollectorUrl>,
    /// File with headers for the collector, a line NAME: VALUE each; it is read for each request
    #[arg(long, value_name = "FILE")]
    pub otlp_headers: Option<PathBuf>,
    /// File with certificates, in PEM, of who may sign that of a collector at https:// [default: those of the
    /// system]
    #[arg(long, value_name = "FILE")]
    pub otlp_ca: Option<PathBuf>,
    /// Interval in seconds at which metrics are sent
    #[arg(long, value_name = "SECONDS", default_value_t = OTLP_INTERVAL, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub otlp_interval: u32,
    /// Log filter, in the syntax of RUST_LOG
    #[arg(long, value_name = "FILTER", default_value = LOG)]
    pub log: LogFilter,
    /// Format of the log
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// YAML file with these options, by the same names
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Established {
    /// They continue
    Keep,
    /// They are evaluated again
    Recheck,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ShortcutMode {
    /// Never
    Off,
    /// Between pods whose interfaces have nothing that must see each packet
    Local,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AttachBy {
    /// TCX if the kernel has it, else clsact
    Auto,
    /// TCX links (Linux 6.6 and later)
    Tcx,
    /// Filters of a clsact qdisc
    Clsact,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MasqueradedIngress {
    /// Evaluate them like any other connection
    Evaluate,
    /// Let them pass, as Azure NPM does
    Allow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum UnenforcedMode {
    /// Ready; `/readyz` and `status` name the pods
    Degraded,
    /// Not ready
    NotReady,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Where the HTTP server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metrics {
    Off,
    At(SocketAddr),
}

/// Ports of the node, printed as `TCP/22,UDP/68`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortList(pub Vec<(Protocol, u16)>);

/// The kubelet's health endpoint, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KubeletHealth {
    Off,
    At(HealthUrl),
}

/// A URL of a health endpoint: HTTP, without TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthUrl {
    /// Host and port.
    pub authority: String,
    pub path: String,
}

/// A server of names, printed as `192.0.2.1:53`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolver(pub SocketAddr);

/// A filter that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

/// Where the agent keeps what a reboot may take: beside its socket.
pub(crate) fn run_directory(socket: &Path) -> &Path {
    socket.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// The kubelet's default for a node's name: the host's name, trimmed, in lower case.
fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_lowercase()
}

fn node_name(text: &str) -> Result<Name, &'static str> {
    if text.is_empty() { Err("a node's name cannot be empty") } else { Ok(text.into()) }
}

impl FromStr for Metrics {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self::Off);
        }
        text.parse()
            .map(Self::At)
            .map_err(|_| "not an address and port like 127.0.0.1:9177 or [::]:9177, nor `off`")
    }
}

impl FromStr for PortList {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" {
            return Ok(Self(Vec::new()));
        }
        let port = |text: &str| {
            let (protocol, number) = text.trim().split_once('/')?;
            let is_named = |known: &Protocol| known.to_string().eq_ignore_ascii_case(protocol);
            Some((Protocol::ALL.into_iter().find(is_named)?, number.parse().ok().filter(|port| *port != 0)?))
        };
        let ports: Option<Vec<_>> = text.split(',').map(port).collect();
        ports.map(Self).ok_or("not a list like TCP/22,UDP/68, nor `none`")
    }
}

impl fmt::Display for PortList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let ports: Vec<String> = self.0.iter().map(|(protocol, port)| format!("{protocol}/{port}")).collect();
        f.write_str(&ports.join(","))
    }
}

impl FromStr for KubeletHealth {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" { Ok(Self::Off) } else { text.parse().map(Self::At) }
    }
}

impl FromStr for HealthUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "not a URL like http://127.0.0.1:10248/healthz, nor `off`";
        let rest = text.strip_prefix("http://").ok_or(WRONG)?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        if !has_port || !is_plain {
            return Err(WRONG);
        }
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self { authority: authority.to_owned(), path: path.to_owned() })
    }
}

impl fmt::Display for KubeletHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(url) => url.fmt(f),
        }
    }
}

impl fmt::Display for HealthUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { authority, path } = self;
        write!(f, "http://{authority}{path}")
    }
}

impl FromStr for Resolver {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const DNS: u16 = 53;
        let address = text.parse().map(|address| SocketAddr::new(address, DNS));
        let address = address.or_else(|_| text.parse());
        address.map(Self).map_err(|_| "not an address like 192.0.2.1, 192.0.2.1:5353 or [2001:db8::1]:5353")
    }
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(address) => address.fmt(f),
        }
    }
}

impl LogFilter {
    pub(crate) fn filter(&self) -> EnvFilter {
        EnvFilter::try_new(&self.0).expect("the filter was parsed when the option was")
    }
}

impl FromStr for LogFilter {
    type Err = tracing_subscriber::filter::ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        EnvFilter::try_new(text).map(|_| Self(text.into()))
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
