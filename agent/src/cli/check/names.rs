//! `podgate check --names`: pods whose rules have names of the DNS, and whose resolver is not believed or may
//! not be seen.
//!
//! In: manifest files, or what an API server has. Out: one line for each thing about a pod. Nothing is
//! changed.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use podgate_common::{Protocol, ServiceKey};
use podgate_core::{
    lint::ObjectNotes,
    model::Cluster,
    name_check::{NameCheck, NameCheckFinding, check_names},
    printable::printable,
};

use crate::{
    cli::{
        dump::failure,
        output::{FOUND, Format},
        table::TextTable,
    },
    control::resolvers,
    fleet::{self, TargetOptions},
    source::{
        kube::read_written,
        manifests::{self, ReadOptions},
    },
};

pub(super) fn run(paths: &[PathBuf], configured: &[SocketAddr], format: Format) -> anyhow::Result<ExitCode> {
    let (read, written) = manifests::read_written(paths, ReadOptions { namespace: None, allow_empty: true });
    if let Some(missing) = read.missing.first() {
        anyhow::bail!("{missing}");
    }
    report(&read.cluster, &written.notes, configured, format)
}

/// The same of a cluster.
pub(super) fn run_live(
    target: TargetOptions<'_>,
    configured: &[SocketAddr],
    format: Format,
) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (cluster, written) = runtime.context("cannot start")?.block_on(async {
        let client = fleet::connect(target).await?.client;
        read_written(&client).await.map_err(failure)
    })?;
    report(&cluster, &written.notes, configured, format)
}

fn report(
    cluster: &Cluster,
    notes: &ObjectNotes,
    configured: &[SocketAddr],
    format: Format,
) -> anyhow::Result<ExitCode> {
    // Whether a node has NodeLocal DNSCache is not known here.
    let believed = resolvers(configured, cluster, true);
    let is_believed =
        |address: std::net::IpAddr| believed.contains(&ServiceKey::new(address.into(), Protocol::Udp, DNS));
    let found = check_names(cluster, &notes.dns, is_believed);
    format.print(&found, text)?;
    Ok(if found.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FOUND) })
}

/// Nameservers of pods have no other port.
const DNS: u16 = 53;

fn text(NameCheck { pods, findings }: &NameCheck) -> String {
    let counts = format!("pods whose rules have names: {pods}, findings: {}\n", findings.len());
    if findings.is_empty() {
        return counts;
    }
    let mut table = TextTable::with_header(&["POD", "FINDING", "WHAT"]);
    for NameCheckFinding { pod, name, message } in findings {
        table.row([pod.to_string(), name.to_string(), printable(message).into_owned()]);
    }
    format!("{counts}\n{table}")
}
