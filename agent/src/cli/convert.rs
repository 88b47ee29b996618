//! `podgate convert`: policies of Calico's as policies of Kubernetes, where these say exactly the same.
//!
//! In: manifest files. Out: a stream of YAML with the policies that take the place of Calico's, and on stderr
//! one line for each object that has no equal. Nothing is asked of a cluster.

pub(super) mod object;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use podgate_core::{
    convert::{Conversion, LeftOut, convert},
    model::Cluster,
    printable::printable,
};

use super::{
    advise::ONLY_YAML,
    output::{FOUND, Format, print, say},
};
use crate::source::{
    ValidationError,
    manifests::{self, ReadOptions},
};

/// Write Calico's policies as policies of Kubernetes, where these say exactly the same
#[derive(Debug, Args)]
#[command(after_help = "\
The files hold Calico's objects, and all policies, Services and namespaces beside which these stand: whether a policy \
has an equal depends on the others. What is written takes the place of the policies that it is made from, all of them \
together, and no verdict is another one. Each other object is a line on standard error with the field that has no \
equal. It stays as it is: podgate enforces it.

Policies of the tier default become NetworkPolicies, those of one tier before or after it ClusterNetworkPolicies.

Exit code 3: some objects were left out.

Example:
  podgate convert cluster.yaml > converted.yaml
  podgate dump | podgate convert -")]
pub(super) struct ConvertOptions {
    /// Files or directories of objects, `-` for standard input
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
}

impl ConvertOptions {
    pub(super) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        ensure!(format == Format::Table, ONLY_YAML);
        let read = manifests::read_with(&self.paths, ReadOptions { namespace: None, allow_empty: true });
        if let Some(missing) = read.missing.first() {
            bail!("{missing}");
        }
        // A policy that could not be read may stand among those that could.
        if let Some(unread) = read.unread.iter().find(|unread| !is_of_calico(&read.cluster, &unread.problem))
        {
            bail!("what is equal depends on all policies, and one could not be read: {}", unread.problem);
        }
        let Conversion { network_policies, cluster_policies, left_out, .. } =
            convert(&read.cluster, &faults(&read.problems));
        let mut text = String::new();
        let objects = network_policies.iter().map(object::network_policy);
        for object in objects.chain(cluster_policies.iter().map(object::cluster_policy)) {
            text += &format!("---\n{}", serde_saphyr::to_string(&object?).context("cannot print")?);
        }
        print(|out| out.write_all(text.as_bytes()))?;
        let hosts = read.problems.iter().filter(|problem| problem.object.starts_with("HostEndpoint "));
        let hosts = hosts.map(|ValidationError { file: _, object, field, message }| LeftOut {
            object: object.clone(),
            field: field.clone(),
            reason: message.clone(),
        });
        let left_out: BTreeSet<LeftOut> = left_out.into_iter().chain(hosts).collect();
        for object in &left_out {
            say(format_args!("{}\n", printable(&object.to_string())));
        }
        let written = network_policies.len() + cluster_policies.len();
        say(format_args!("written: {written}, left out: {}\n", left_out.len()));
        Ok(if left_out.is_empty() { ExitCode::SUCCESS } else { FOUND.into() })
    }
}

/// Whether it is a policy of Calico's, which is left out for itself.
fn is_of_calico(cluster: &Cluster, problem: &ValidationError) -> bool {
    let stores = [&cluster.calico.v3, &cluster.calico.v1].into_iter();
    stores.flat_map(|store| store.policies.keys()).any(|name| name.to_string() == problem.object)
}

/// The first of each object.
fn faults(problems: &[ValidationError]) -> BTreeMap<String, (String, String)> {
    let mut faults = BTreeMap::new();
    for ValidationError { file: _, object, field, message } in problems {
        faults.entry(object.clone()).or_insert_with(|| (field.clone(), message.clone()));
    }
    faults
}
