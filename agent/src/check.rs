//! Can this node run podgate? Reads /proc and /sys, changes nothing, loads nothing.
//!
//! In: where to look. Out: one [`Finding`] for each thing that matters, with what to do about it. Whether the
//! programs pass this kernel's verifier is left out: only loading them tells, and the agent reports it.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use podgate_common::OLDEST_KERNEL;
use podgate_datapath::{HookKind, bpffs, engines::Trace};
use serde::Serialize;

/// Where to look.
#[derive(Clone, Debug)]
pub struct CheckPaths {
    /// `/`, or a tree that has `proc` and `sys` (tests, a host's root that is mounted elsewhere).
    pub root: PathBuf,
    pub bpffs: PathBuf,
    pub cni_results: PathBuf,
}

/// One thing that podgate needs or would like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub item: &'static str,
    #[serde(flatten)]
    pub state: FindingState,
    /// What is there.
    pub found: String,
    /// What to do, unless all is well.
    pub advice: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "fall_back_to", rename_all = "kebab-case")]
pub enum FindingState {
    Ok,
    /// podgate cannot do without it.
    Missing,
    /// podgate does something else instead.
    FallBack(&'static str),
    /// podgate works, but perhaps not as its user expects.
    Warning,
}

impl fmt::Display for FindingState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::Missing => f.write_str("missing"),
            Self::FallBack(to) => write!(f, "will fall back to {to}"),
            Self::Warning => f.write_str("warning"),
        }
    }
}

const OLDEST: KernelVersion = KernelVersion(OLDEST_KERNEL.0, OLDEST_KERNEL.1);
/// `BPF_LINK_CREATE` for `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS`.
const TCX: KernelVersion = KernelVersion(6, 6);
/// Map memory counts to the cgroup, no longer to RLIMIT_MEMLOCK.
const CGROUP_MEMORY: KernelVersion = KernelVersion(5, 11);

/// Bits of a capability set (linux/capability.h).
const CAP_NET_BROADCAST: u32 = 11;
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Looks at everything. `engines`: what else enforces policies here, as
/// [`engines::look`](podgate_datapath::engines::look) tells.
pub fn check(places: &CheckPaths, engines: Result<BTreeMap<&str, Vec<Trace>>>) -> Vec<Finding> {
    let version = KernelVersion::of(&places.root);
    let capabilities = Capabilities::of(&places.root);
    vec![
        kernel(version),
        btf(&places.root),
        jit(&places.root),
        hooks(version),
        short_cut(&places.root, version),
        capability(capabilities, CAP_NET_ADMIN, "CAP_NET_ADMIN", "to attach programs to interfaces"),
        capability(capabilities, CAP_NET_BROADCAST, "CAP_NET_BROADCAST", "to hear of changes inside of pods"),
        of_sys_admin(capabilities, CAP_BPF, "CAP_BPF", "to load programs and maps"),
        of_sys_admin(capabilities, CAP_PERFMON, "CAP_PERFMON", "to load programs that use pointers"),
        cap_sys_admin(capabilities),
        bpffs(places, capabilities),
        memlock(&places.root, version),
        cni(&places.cni_results),
        forwarding(&places.root, "IPv4 forwarding", "net/ipv4/ip_forward"),
        forwarding(&places.root, "IPv6 forwarding", "net/ipv6/conf/all/forwarding"),
        other_engines(engines),
    ]
}

/// The reason why this kernel cannot load the programs; `None`: it should.
pub(crate) fn kernel_advice(root: &Path) -> Option<String> {
    let Finding { found, advice, .. } = kernel(KernelVersion::of(root));
    advice.map(|advice| format!("this node runs Linux {found}: {advice}"))
}

impl Finding {
    fn ok(item: &'static str, found: impl Into<String>) -> Self {
        Self { item, state: FindingState::Ok, found: found.into(), advice: None }
    }

    fn missing(item: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { item, state: FindingState::Missing, found: found.into(), advice: Some(advice.into()) }
    }

    fn warning(item: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { item, state: FindingState::Warning, found: found.into(), advice: Some(advice.into()) }
    }

    fn fall_back(
        item: &'static str,
        to: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { item, state: FindingState::FallBack(to), found: found.into(), advice: Some(advice.into()) }
    }
}

/// Major and minor number of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct KernelVersion(u32, u32);

impl KernelVersion {
    fn of(root: &Path) -> Option<Self> {
        let release = read(root, "proc/sys/kernel/osrelease")?;
        let mut parts = release.split(|c: char| !c.is_ascii_digit());
        Some(Self(parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The effective set of this process.
#[derive(Clone, Copy, Debug)]
struct Capabilities(u64);

impl Capabilities {
    fn of(root: &Path) -> Self {
        let status = read(root, "proc/self/status").unwrap_or_default();
        let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        Self(set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0))
    }

    const fn has(self, capability: u32) -> bool {
        self.0 >> capability & 1 != 0
    }
}

fn kernel(version: Option<KernelVersion>) -> Finding {
    const ITEM: &str = "kernel";
    match version {
        Some(version) if version >= OLDEST => Finding::ok(ITEM, version.to_string()),
        Some(version) => {
            Finding::missing(ITEM, version.to_string(), format!("run Linux {OLDEST} or newer on this node"))
        }
        None => Finding::missing(ITEM, "its version cannot be read", "mount /proc"),
    }
}

fn btf(root: &Path) -> Finding {
    const ITEM: &str = "BTF";
    if root.join("sys/kernel/btf/vmlinux").exists() {
        Finding::ok(ITEM, "/sys/kernel/btf/vmlinux")
    } else {
        Finding::fall_back(
            ITEM,
            "programs that do not read connection tracking, so that masqueraded packets count as the node's, nor \
             names: rules with domainNames allow nothing",
            "no /sys/kernel/btf/vmlinux",
            "run a kernel with CONFIG_DEBUG_INFO_BTF",
        )
    }
}

fn jit(root: &Path) -> Finding {
    const ITEM: &str = "BPF JIT";
    match read(root, "proc/sys/net/core/bpf_jit_enable").as_deref() {
        Some("0") => Finding::fall_back(
            ITEM,
            "the interpreter, several times slower",
            "net.core.bpf_jit_enable=0",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        Some(value) => Finding::ok(ITEM, format!("net.core.bpf_jit_enable={value}")),
        // The kernel shows it in its first network namespace alone.
        None => Finding::ok(ITEM, "not shown in this network namespace"),
    }
}

fn hooks(version: Option<KernelVersion>) -> Finding {
    const ITEM: &str = "hooks";
    if version.is_some_and(|version| version >= TCX) {
        Finding::ok(ITEM, "TCX")
    } else {
        Finding::fall_back(
            ITEM,
            "clsact filters, about 50 ns a packet slower",
            "no TCX",
            format!("Linux {TCX} or newer has it"),
        )
    }
}

/// Off by default, so no node lacks anything.
fn short_cut(root: &Path, version: Option<KernelVersion>) -> Finding {
    const ITEM: &str = "short cut";
    let KernelVersion(major, minor) = version.unwrap_or(KernelVersion(0, 0));
    let number = |number: u32| number.try_into().unwrap_or(u8::MAX);
    let version = aya::util::KernelVersion::new(number(major), number(minor), 0);
    match podgate_datapath::kernel_obstacle(root, version, HookKind::Tcx) {
        None => Finding::ok(ITEM, "open, with --shortcut local"),
        Some(obstacle) => Finding::ok(ITEM, format!("closed, also with --shortcut local: {obstacle}")),
    }
}

/// One that the agent does not start without. `purpose`: what it is held for.
fn capability(held: Capabilities, number: u32, item: &'static str, purpose: &str) -> Finding {
    if held.has(number) {
        Finding::ok(item, format!("held, {purpose}"))
    } else {
        Finding::missing(item, "not held", "run as root, or add it to securityContext.capabilities")
    }
}

/// The same of one that CAP_SYS_ADMIN stands for.
fn of_sys_admin(held: Capabilities, number: u32, item: &'static str, purpose: &str) -> Finding {
    if held.has(number) || !held.has(CAP_SYS_ADMIN) {
        return capability(held, number, item, purpose);
    }
    Finding::fall_back(
        item,
        "CAP_SYS_ADMIN, which a running agent then keeps",
        "not held",
        "it is the smaller privilege",
    )
}

fn cap_sys_admin(capabilities: Capabilities) -> Finding {
    const ITEM: &str = "CAP_SYS_ADMIN";
    if capabilities.has(CAP_SYS_ADMIN) {
        Finding::ok(ITEM, "held at the start, to mount the BPF file system and to read the sockets of pods")
    } else {
        Finding::fall_back(
            ITEM,
            "a BPF file system that is mounted already, and to live connections being evaluated again at the first start",
            "not held",
            "add it to securityContext.capabilities for both",
        )
    }
}

fn bpffs(places: &CheckPaths, capabilities: Capabilities) -> Finding {
    const ITEM: &str = "BPF file system";
    let path = &places.bpffs;
    let mounts = read(&places.root, "proc/self/mountinfo").unwrap_or_default();
    let mount = format!("mount -t bpf bpf {}", path.display());
    let is_mounted = bpffs::mount_over(&mounts, path).is_some_and(|mount| mount.kind == "bpf");
    if is_mounted {
        match bpffs::pins_lost(&places.root, path, false) {
            None => Finding::ok(ITEM, format!("mounted at {}", path.display())),
            Some(reason) => Finding::fall_back(
                ITEM,
                "enforcement that ends with the agent",
                format!("mounted at {}, in this mount namespace alone", path.display()),
                reason,
            ),
        }
    } else if capabilities.has(CAP_SYS_ADMIN) {
        Finding::fall_back(
            ITEM,
            "mounting it when the agent starts",
            format!("not mounted at {}", path.display()),
            format!("{mount}, on the host: what is pinned ends with a container that mounts it for itself"),
        )
    } else {
        Finding::missing(ITEM, format!("not mounted at {}", path.display()), mount)
    }
}

fn memlock(root: &Path, version: Option<KernelVersion>) -> Finding {
    const ITEM: &str = "locked memory";
    if version.is_some_and(|version| version >= CGROUP_MEMORY) {
        return Finding::ok(ITEM, "maps count to the cgroup's memory");
    }
    let limits = read(root, "proc/self/limits").unwrap_or_default();
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"));
    match limit.and_then(|limit| limit.split_whitespace().next()) {
        Some("unlimited") => Finding::ok(ITEM, "unlimited"),
        limit => Finding::missing(
            ITEM,
            format!("limited to {} bytes", limit.unwrap_or("unknown")),
            format!("ulimit -l unlimited, as kernels before {CGROUP_MEMORY} count maps there"),
        ),
    }
}

fn cni(results: &Path) -> Finding {
    const ITEM: &str = "CNI result cache";
    match fs::read_dir(results) {
        Ok(entries) => Finding::ok(ITEM, format!("{} results in {}", entries.count(), results.display())),
        Err(error) => Finding::fall_back(
            ITEM,
            "the addresses in the pods' status, which come later",
            format!("{}: {error}", results.display()),
            "mount the host's directory, or name it with --cni-results",
        ),
    }
}

fn forwarding(root: &Path, item: &'static str, sysctl: &str) -> Finding {
    match read(root, &format!("proc/sys/{sysctl}")).as_deref() {
        None => Finding::ok(item, "this kernel does not have the IP family"),
        Some("0") => Finding::warning(
            item,
            format!("{}=0: this node forwards no packets for pods", sysctl.replace('/', ".")),
            format!("sysctl -w {}=1, unless all pods share one bridge", sysctl.replace('/', ".")),
        ),
        Some(value) => Finding::ok(item, format!("{}={value}", sysctl.replace('/', "."))),
    }
}

fn other_engines(engines: Result<BTreeMap<&str, Vec<Trace>>>) -> Finding {
    const ITEM: &str = "other policy engines";
    match engines {
        Err(error) => Finding::warning(
            ITEM,
            format!("cannot be looked for: {error:#}"),
            "run this command with the capabilities of the agent",
        ),
        Ok(engines) if engines.is_empty() => Finding::ok(ITEM, "none"),
        Ok(engines) => Finding::warning(
            ITEM,
            engines.iter().map(|(engine, traces)| traced(engine, traces)).collect::<Vec<_>>().join(", "),
            "a packet passes only if every engine allows it; remove the others if podgate is to decide alone, then run \
             this again to find what they left behind",
        ),
    }
}

/// As in `Calico (chain cali-FORWARD and 27 more)`.
fn traced(engine: &str, traces: &[Trace]) -> String {
    let first = traces.first().map(|Trace { kind, name }| format!("{kind} {name}")).unwrap_or_default();
    match traces.len() {
        0 | 1 => format!("{engine} ({first})"),
        several => format!("{engine} ({first} and {} more)", several - 1),
    }
}

fn read(root: &Path, path: &str) -> Option<String> {
    fs::read_to_string(root.join(path)).ok().map(|text| text.trim_end().to_owned())
}

#[cfg(test)]
mod tests;
