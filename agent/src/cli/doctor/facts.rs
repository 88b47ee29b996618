//! The files of the archive: everything that `podgate doctor` reads.

use std::{fmt::Write, fs, path::Path, path::PathBuf};

use podgate_common::LAYOUT_VERSION;
use podgate_datapath::engines;
use serde::Serialize;
use serde_json::json;

use crate::{
    api::{self, EndpointStatus, PROTOCOL, RELEASE, Status},
    check::{self, check},
    server::Ask,
};

/// Where to look.
#[derive(Clone, Debug)]
pub(super) struct DoctorPaths {
    /// `/`, or a tree that has `proc` and `sys`.
    pub(super) root: PathBuf,
    pub(super) bpffs: PathBuf,
    pub(super) cni_results: PathBuf,
    pub(super) socket: PathBuf,
}

/// One file.
#[derive(Clone, Debug)]
pub(super) struct Fact {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) text: String,
}

/// Settings of the kernel that change what podgate or a packet does.
const SETTINGS: [&str; 17] = [
    "proc/sys/kernel/osrelease",
    "proc/sys/kernel/version",
    "proc/sys/kernel/unprivileged_bpf_disabled",
    "proc/sys/kernel/perf_event_paranoid",
    "proc/sys/net/core/bpf_jit_enable",
    "proc/sys/net/core/bpf_jit_harden",
    "proc/sys/net/core/bpf_jit_limit",
    "proc/sys/net/ipv4/ip_forward",
    "proc/sys/net/ipv4/conf/all/rp_filter",
    "proc/sys/net/ipv6/conf/all/forwarding",
    "proc/sys/net/bridge/bridge-nf-call-iptables",
    "proc/sys/net/bridge/bridge-nf-call-ip6tables",
    "proc/sys/net/netfilter/nf_conntrack_max",
    "proc/sys/net/netfilter/nf_conntrack_count",
    "sys/kernel/security/lsm",
    "sys/kernel/security/lockdown",
    "sys/devices/system/cpu/online",
];

/// Deepest directory of pins that is listed, below the BPF file system's own.
const DEPTH: usize = 4;

/// All facts; one that cannot be read says why.
pub(super) fn facts(places: &DoctorPaths) -> Vec<Fact> {
    let DoctorPaths { root, bpffs, cni_results, socket } = places;
    let findings = check(
        &check::CheckPaths { root: root.clone(), bpffs: bpffs.clone(), cni_results: cni_results.clone() },
        engines::look(),
    );
    let versions = json!({
        "podgate": RELEASE, "protocol": PROTOCOL, "layout": LAYOUT_VERSION, "architecture": std::env::consts::ARCH,
    });
    let fact = |name, what, text| Fact { name, what, text };
    vec![
        fact("versions.json", "podgate and its interfaces", pretty(&versions)),
        fact("check.json", "what `podgate check` says", pretty(&findings)),
        fact(
            "status.json",
            "how the agent is doing, with its last error",
            of_agent::<Status>(socket, &Ask::Status),
        ),
        fact(
            "endpoints.json",
            "the pods of this node as the agent sees them",
            of_agent::<Vec<EndpointStatus>>(socket, &Ask::Endpoints),
        ),
        fact("kernel.txt", "settings of the kernel", settings(root)),
        fact("pins.txt", "names of the pins", pins(bpffs)),
    ]
}

fn pretty(value: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(value);
    text.expect("what is collected has string keys and no failing parts") + "\n"
}

fn of_agent<T: Serialize + serde::de::DeserializeOwned>(socket: &Path, ask: &Ask) -> String {
    match api::ask::<T>(socket, ask) {
        Ok(answer) => pretty(&answer),
        Err(error) => pretty(&json!({"error": format!("{error:#}")})),
    }
}

fn settings(root: &Path) -> String {
    let mut text = String::new();
    for name in SETTINGS {
        let value = match fs::read_to_string(root.join(name)) {
            Ok(value) => value.trim().to_owned(),
            Err(error) => format!("({error})"),
        };
        writeln!(text, "/{name}: {value}").expect("a string takes all that is written");
    }
    text
}

/// Only podgate's own.
fn pins(bpffs: &Path) -> String {
    let mut names = Vec::new();
    list(&bpffs.join("podgate"), DEPTH, &mut names);
    names.sort();
    names.iter().map(|name| format!("{name}\n")).collect()
}

fn list(directory: &Path, depth: usize, names: &mut Vec<String>) {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => return names.push(format!("{}: {error}", directory.display())),
    };
    for entry in entries.flatten() {
        let path = entry.path();
        names.push(path.display().to_string());
        if depth > 1 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            list(&path, depth - 1, names);
        }
    }
}
