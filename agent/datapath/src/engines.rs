//! Other programs that enforce policies on this node, recognised by what they keep in the kernel.
//!
//! In: the names of chains, tables, sets, queues, BPF programs and interfaces of the node. Out: the engines
//! that they belong to. podgate works beside any of them (a packet then passes when both let it); whoever
//! moves over wants to know that the old one is gone. Left out: taking anything of theirs away.

mod netfilter;
mod xtables;

use std::{collections::BTreeMap, fmt, fs};

use anyhow::Result;
use aya::programs::loaded_programs;

pub(crate) use self::netfilter::device_chains;

/// One thing that an engine keeps in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trace {
    /// What sort of trace it is.
    pub kind: TraceKind,
    /// Its name in the kernel.
    pub name: String,
}

/// What another engine has left in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TraceKind {
    /// A chain of iptables or nftables.
    Chain,
    /// Of nf_tables.
    Table,
    /// Of NFQUEUE, with a program that reads it.
    Queue,
    /// A set of ipset.
    Set,
    /// A BPF program at an interface.
    Program,
    /// A network interface.
    Interface,
}

/// An engine by what its names begin with. Sources: npm/pkg/dataplane/iptables and ipsets of Azure's
/// container networking, felix/rules and felix/bpf of Calico, bpf/lib and pkg/datapath/iptables of Cilium,
/// pkg/controllers/netpol of kube-router, pkg/agent/util/iptables of Antrea, npc of Weave Net, and
/// kubernetes-sigs/kube-network-policies, which kindnet has inside.
const ENGINES: [(&str, &[(TraceKind, &str)]); 8] = [
    ("Azure NPM", &[(TraceKind::Chain, "AZURE-NPM"), (TraceKind::Set, "azure-npm-")]),
    (
        "Calico",
        &[
            (TraceKind::Chain, "cali-"),
            // Where it uses nftables, its chains have other names.
            (TraceKind::Table, "calico"),
            (TraceKind::Set, "cali40"),
            (TraceKind::Set, "cali60"),
            (TraceKind::Program, "cali_"),
        ],
    ),
    (
        "Cilium",
        &[(TraceKind::Chain, "CILIUM_"), (TraceKind::Program, "cil_"), (TraceKind::Interface, "cilium_")],
    ),
    (
        "kube-router",
        &[
            (TraceKind::Chain, "KUBE-ROUTER-"),
            (TraceKind::Chain, "KUBE-NWPLCY-"),
            (TraceKind::Chain, "KUBE-POD-FW-"),
            (TraceKind::Set, "kube-router-"),
            (TraceKind::Set, "KUBE-SRC-"),
            (TraceKind::Set, "KUBE-DST-"),
        ],
    ),
    (
        "Antrea",
        &[(TraceKind::Chain, "ANTREA-"), (TraceKind::Set, "ANTREA-"), (TraceKind::Interface, "antrea-gw")],
    ),
    ("Weave Net", &[(TraceKind::Chain, "WEAVE-NPC"), (TraceKind::Set, "weave-")]),
    (
        "kube-network-policies",
        &[(TraceKind::Table, "kube-network-policies"), (TraceKind::Table, "kindnet-network-policies")],
    ),
    // Whoever it is: packets pass or not by what a program says.
    ("a program behind NFQUEUE", &[(TraceKind::Queue, "")]),
];

/// What every engine on this node keeps in the kernel, by engine.
///
/// # Errors
///
/// When no one may look: chains and sets need CAP_NET_ADMIN. BPF programs are left out where the kernel does
/// not list them (CAP_SYS_ADMIN).
pub fn look() -> Result<BTreeMap<&'static str, Vec<Trace>>> {
    let chains = netfilter::chains()?.into_iter().chain(xtables::chains()?);
    let programs = loaded_programs().filter_map(|program| Some(program.ok()?.name_as_str()?.to_owned()));
    let interfaces = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let interfaces = interfaces.lines().filter_map(|line| line.split_once(':'));
    let queues = fs::read_to_string("/proc/net/netfilter/nfnetlink_queue").unwrap_or_default();
    let named = |kind| move |name: String| Trace { kind, name };
    let traces = chains
        .map(named(TraceKind::Chain))
        .chain(netfilter::sets()?.into_iter().map(named(TraceKind::Set)))
        .chain(netfilter::tables()?.into_iter().map(named(TraceKind::Table)))
        .chain(queue_numbers(&queues).map(named(TraceKind::Queue)))
        .chain(programs.map(named(TraceKind::Program)))
        .chain(interfaces.map(|(name, _)| named(TraceKind::Interface)(name.trim().to_owned())));
    Ok(sorted(traces))
}

/// The first number of each line (`seq_show` in net/netfilter/nfnetlink_queue.c).
fn queue_numbers(queues: &str) -> impl Iterator<Item = String> + '_ {
    queues.lines().filter_map(|line| line.split_whitespace().next().map(str::to_owned))
}

fn sorted(traces: impl IntoIterator<Item = Trace>) -> BTreeMap<&'static str, Vec<Trace>> {
    let mut found: BTreeMap<&'static str, Vec<Trace>> = BTreeMap::new();
    for trace in traces {
        if let Some(engine) = engine(&trace) {
            found.entry(engine).or_default().push(trace);
        }
    }
    for traces in found.values_mut() {
        traces.sort();
        traces.dedup();
    }
    found
}

fn engine(trace: &Trace) -> Option<&'static str> {
    let belongs = |marks: &[(TraceKind, &str)]| {
        marks.iter().any(|(kind, start)| *kind == trace.kind && trace.name.starts_with(start))
    };
    ENGINES.iter().find(|(_, marks)| belongs(marks)).map(|(engine, _)| *engine)
}

impl fmt::Display for TraceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chain => "chain",
            Self::Table => "table",
            Self::Queue => "queue",
            Self::Set => "set",
            Self::Program => "BPF program",
            Self::Interface => "interface",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_are_told_by_what_names_begin_with() {
        for (kind, name, expected) in [
            (TraceKind::Chain, "AZURE-NPM-INGRESS", Some("Azure NPM")),
            (TraceKind::Set, "azure-npm-2064349730", Some("Azure NPM")),
            (TraceKind::Chain, "cali-FORWARD", Some("Calico")),
            (TraceKind::Set, "cali40s:abc", Some("Calico")),
            (TraceKind::Table, "calico", Some("Calico")),
            (TraceKind::Program, "cali_tc_preambl", Some("Calico")),
            (TraceKind::Program, "cil_from_contai", Some("Cilium")),
            (TraceKind::Interface, "cilium_host", Some("Cilium")),
            (TraceKind::Chain, "KUBE-POD-FW-ABC", Some("kube-router")),
            (TraceKind::Chain, "KUBE-SERVICES", None),
            (TraceKind::Chain, "FORWARD", None),
            (TraceKind::Set, "cilium_node_set_v4", None),
            (TraceKind::Interface, "cali12345", None),
            (TraceKind::Program, "from_pod", None),
            (TraceKind::Table, "kube-network-policies", Some("kube-network-policies")),
            (TraceKind::Table, "kube-proxy", None),
            (TraceKind::Queue, "100", Some("a program behind NFQUEUE")),
        ] {
            assert_eq!(engine(&Trace { kind, name: name.into() }), expected, "{kind} {name}");
        }
    }

    #[test]
    fn queues_with_a_reader_are_read_by_their_numbers() {
        let file = "  100   1742     0 2 65535     0     0        7  1\n  101   1742     0 2 65535     0     0        0  1\n";
        assert_eq!(queue_numbers(file).collect::<Vec<_>>(), ["100", "101"]);
        assert_eq!(queue_numbers("").count(), 0);
    }

    #[test]
    fn a_name_that_several_tables_have_counts_once() {
        let chain = |name: &str| Trace { kind: TraceKind::Chain, name: name.into() };
        let found = sorted(["cali-B", "cali-A", "cali-B", "INPUT"].map(chain));
        assert_eq!(found, BTreeMap::from([("Calico", vec![chain("cali-A"), chain("cali-B")])]));
    }
}
