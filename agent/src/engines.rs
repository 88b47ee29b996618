//! Other programs that enforce policies on this node, recognised by what they keep in the kernel.
//!
//! In: the names of chains, tables, sets, queues, BPF programs and interfaces of the node. Out: the engines that they belong to. podgate
//! works beside any of them (a packet then passes when both let it); whoever moves over wants to know that the old one
//! is gone. Left out: taking anything of theirs away.

mod netfilter;
mod xtables;

use std::{collections::BTreeMap, fmt, fs};

use anyhow::Result;
use aya::programs::loaded_programs;

/// One thing that an engine keeps in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trace {
    pub kind: Kind,
    pub name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Chain,
    /// Of nf_tables.
    Table,
    /// Of NFQUEUE, with a program that reads it.
    Queue,
    Set,
    Program,
    Interface,
}

/// An engine by what its names begin with. Sources: npm/pkg/dataplane/iptables and ipsets of Azure's container
/// networking, felix/rules and felix/bpf of Calico, bpf/lib and pkg/datapath/iptables of Cilium,
/// pkg/controllers/netpol of kube-router, pkg/agent/util/iptables of Antrea, npc of Weave Net, and
/// kubernetes-sigs/kube-network-policies, which kindnet has inside.
const ENGINES: [(&str, &[(Kind, &str)]); 8] = [
    ("Azure NPM", &[(Kind::Chain, "AZURE-NPM"), (Kind::Set, "azure-npm-")]),
    (
        "Calico",
        &[(Kind::Chain, "cali-"), (Kind::Set, "cali40"), (Kind::Set, "cali60"), (Kind::Program, "cali_")],
    ),
    ("Cilium", &[(Kind::Chain, "CILIUM_"), (Kind::Program, "cil_"), (Kind::Interface, "cilium_")]),
    (
        "kube-router",
        &[
            (Kind::Chain, "KUBE-ROUTER-"),
            (Kind::Chain, "KUBE-NWPLCY-"),
            (Kind::Chain, "KUBE-POD-FW-"),
            (Kind::Set, "kube-router-"),
            (Kind::Set, "KUBE-SRC-"),
            (Kind::Set, "KUBE-DST-"),
        ],
    ),
    ("Antrea", &[(Kind::Chain, "ANTREA-"), (Kind::Set, "ANTREA-"), (Kind::Interface, "antrea-gw")]),
    ("Weave Net", &[(Kind::Chain, "WEAVE-NPC"), (Kind::Set, "weave-")]),
    (
        "kube-network-policies",
        &[(Kind::Table, "kube-network-policies"), (Kind::Table, "kindnet-network-policies")],
    ),
    // Whoever it is: packets pass or not by what a program says.
    ("a program behind NFQUEUE", &[(Kind::Queue, "")]),
];

/// What every engine on this node keeps in the kernel, by engine.
///
/// # Errors
///
/// When nobody may look: chains and sets need CAP_NET_ADMIN. BPF programs are left out where the kernel does not list
/// them (CAP_SYS_ADMIN).
pub fn look() -> Result<BTreeMap<&'static str, Vec<Trace>>> {
    let chains = netfilter::chains()?.into_iter().chain(xtables::chains()?);
    let programs = loaded_programs().filter_map(|program| Some(program.ok()?.name_as_str()?.to_owned()));
    let interfaces = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let interfaces = interfaces.lines().filter_map(|line| line.split_once(':'));
    let queues = fs::read_to_string("/proc/net/netfilter/nfnetlink_queue").unwrap_or_default();
    let named = |kind| move |name: String| Trace { kind, name };
    let traces = chains
        .map(named(Kind::Chain))
        .chain(netfilter::sets()?.into_iter().map(named(Kind::Set)))
        .chain(netfilter::tables()?.into_iter().map(named(Kind::Table)))
        .chain(queue_numbers(&queues).map(named(Kind::Queue)))
        .chain(programs.map(named(Kind::Program)))
        .chain(interfaces.map(|(name, _)| named(Kind::Interface)(name.trim().to_owned())));
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
    let belongs = |marks: &[(Kind, &str)]| {
        marks.iter().any(|(kind, start)| *kind == trace.kind && trace.name.starts_with(start))
    };
    ENGINES.iter().find(|(_, marks)| belongs(marks)).map(|(engine, _)| *engine)
}

impl fmt::Display for Kind {
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
            (Kind::Chain, "AZURE-NPM-INGRESS", Some("Azure NPM")),
            (Kind::Set, "azure-npm-2064349730", Some("Azure NPM")),
            (Kind::Chain, "cali-FORWARD", Some("Calico")),
            (Kind::Set, "cali40s:abc", Some("Calico")),
            (Kind::Program, "cali_tc_preambl", Some("Calico")),
            (Kind::Program, "cil_from_contai", Some("Cilium")),
            (Kind::Interface, "cilium_host", Some("Cilium")),
            (Kind::Chain, "KUBE-POD-FW-ABC", Some("kube-router")),
            (Kind::Chain, "KUBE-SERVICES", None),
            (Kind::Chain, "FORWARD", None),
            (Kind::Set, "cilium_node_set_v4", None),
            (Kind::Interface, "cali12345", None),
            (Kind::Program, "from_pod", None),
            (Kind::Table, "kube-network-policies", Some("kube-network-policies")),
            (Kind::Table, "kube-proxy", None),
            (Kind::Queue, "100", Some("a program behind NFQUEUE")),
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
        let chain = |name: &str| Trace { kind: Kind::Chain, name: name.into() };
        let found = sorted(["cali-B", "cali-A", "cali-B", "INPUT"].map(chain));
        assert_eq!(found, BTreeMap::from([("Calico", vec![chain("cali-A"), chain("cali-B")])]));
    }
}
