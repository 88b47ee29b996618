//! Which modules of a kernel the tests need, in the order in which they can be loaded.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// By name, without what they depend on. What a kernel has built in is not among its modules.
const NEEDED: [&str; 22] = [
    "veth",
    "bridge",
    "br_netfilter",
    "sch_ingress",
    "cls_bpf",
    "nf_tables",
    "nf_conntrack",
    "nf_nat",
    "nft_chain_nat",
    "nft_nat",
    "nft_masq",
    "nft_ct",
    "nft_fib",
    "nft_fib_ipv4",
    "nft_fib_ipv6",
    "nft_fib_inet",
    "nft_numgen",
    "nf_reject_ipv4",
    "tcp_diag",
    "udp_diag",
    "inet_diag",
    "dummy",
];

/// Paths relative to the directory of modules, what is depended on first.
pub(super) fn in_order(directory: &Path) -> Result<Vec<PathBuf>> {
    let file = directory.join("modules.dep");
    let table = match fs::read_to_string(&file) {
        Ok(table) => table,
        // A package leaves it to its installation: names and dependencies stand in the modules themselves.
        Err(_) => super::files::dependencies(directory)?,
    };
    let dependencies: HashMap<&str, Vec<&str>> = table
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(module, others)| (module, others.split_whitespace().collect()))
        .collect();
    let by_name: HashMap<String, &str> = dependencies.keys().map(|path| (name(path), *path)).collect();
    let mut order = Vec::new();
    for module in NEEDED.iter().filter_map(|needed| by_name.get(*needed)) {
        add(module, &dependencies, &mut order).with_context(|| format!("module {module}"))?;
    }
    Ok(order.into_iter().map(PathBuf::from).collect())
}

fn add<'a>(
    module: &'a str,
    dependencies: &HashMap<&'a str, Vec<&'a str>>,
    order: &mut Vec<&'a str>,
) -> Result<()> {
    if order.contains(&module) {
        return Ok(());
    }
    for other in dependencies.get(module).context("is in no list")? {
        add(other, dependencies, order)?;
    }
    order.push(module);
    Ok(())
}

/// `kernel/net/x/y-z.ko` is `y_z`.
pub(super) fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}
