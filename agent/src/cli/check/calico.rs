//! `podgate check --calico`: which of Calico's objects podgate carries whole, and of the others what it does
//! not.
//!
//! In: manifest files, as `kubectl get -o yaml` or `calicoctl get -o yaml` write them, or what an API server
//! has. Out: counts, and one line for each field that is not carried with what becomes of it. Nothing is
//! changed.

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use podgate_core::model::{CalicoApi, CalicoObjects, Cluster};
use serde::Serialize;

use crate::{
    cli::{
        dump::failure,
        output::{FOUND, Format},
        table::TextTable,
    },
    fleet::{self, TargetOptions},
    source::{
        ValidationError,
        kube::read_calico,
        manifests::{self, ReadOptions},
    },
};

/// How much of Calico's objects is carried.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct CarriedObjects {
    /// Objects of Calico's.
    objects: usize,
    /// Those that are carried whole.
    whole: usize,
    /// What is not, in the order of the files.
    problems: Vec<NotCarried>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct NotCarried {
    object: String,
    /// Empty: the object itself.
    field: String,
    message: String,
}

pub(super) fn run(paths: &[PathBuf], format: Format) -> anyhow::Result<ExitCode> {
    let read = manifests::read_with(paths, ReadOptions { namespace: None, allow_empty: true });
    if let Some(missing) = read.missing.first() {
        anyhow::bail!("{missing}");
    }
    report(&read.cluster, &read.problems, format)
}

/// The same of a cluster.
pub(super) fn run_live(target: TargetOptions<'_>, format: Format) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (cluster, problems) = runtime.context("cannot start")?.block_on(async {
        let client = fleet::connect(target).await?.client;
        read_calico(&client).await.map_err(failure)
    })?;
    report(&cluster, &problems, format)
}

fn report(cluster: &Cluster, problems: &[ValidationError], format: Format) -> anyhow::Result<ExitCode> {
    let carried = carried(cluster, problems);
    format.print(&carried, text)?;
    Ok(if carried.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FOUND) })
}

fn carried(cluster: &Cluster, problems: &[ValidationError]) -> CarriedObjects {
    let mut objects: BTreeSet<String> = BTreeSet::new();
    for api in CalicoApi::ALL {
        let CalicoObjects { tiers, policies, network_sets, host_endpoints } = match api {
            CalicoApi::V3 => &cluster.calico.v3,
            CalicoApi::V1 => &cluster.calico.v1,
        };
        objects.extend(tiers.keys().map(|name| format!("Tier {name}")));
        objects.extend(policies.keys().map(ToString::to_string));
        objects.extend(network_sets.keys().map(|(namespace, name)| match namespace {
            Some(namespace) => format!("NetworkSet {namespace}/{name}"),
            None => format!("GlobalNetworkSet {name}"),
        }));
        objects.extend(host_endpoints.keys().map(|name| format!("HostEndpoint {name}")));
    }
    // Of a host endpoint without a node or a device only the fault is known.
    let is_host_endpoint = |object: &str| object.starts_with("HostEndpoint ");
    let hosts = problems.iter().filter(|problem| is_host_endpoint(&problem.object));
    objects.extend(hosts.map(|problem| problem.object.clone()));
    // Of a file, or of something in it that is no object, it is not known whose it is.
    let concerns = |problem: &&ValidationError| {
        objects.contains(&problem.object)
            || problem.object.is_empty()
            || problem.object.starts_with("document ")
    };
    let problems: Vec<NotCarried> = problems
        .iter()
        .filter(concerns)
        .map(|ValidationError { file: _, object, field, message }| NotCarried {
            object: object.clone(),
            field: field.clone(),
            message: message.clone(),
        })
        .collect();
    let faulty: BTreeSet<&String> =
        problems.iter().map(|problem| &problem.object).filter(|object| objects.contains(*object)).collect();
    CarriedObjects { objects: objects.len(), whole: objects.len() - faulty.len(), problems }
}

fn text(CarriedObjects { objects, whole, problems }: &CarriedObjects) -> String {
    let counts = format!("objects of Calico's: {objects}, carried whole: {whole}\n");
    if problems.is_empty() {
        return counts;
    }
    let mut table = TextTable::with_header(&["OBJECT", "FIELD", "WHAT"]);
    for NotCarried { object, field, message } in problems {
        let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        table.row([or_dash(object), or_dash(field), message.clone()]);
    }
    format!("{counts}\n{table}")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_is_not_carried_is_named_with_object_and_field() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(
            b"{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: whole},
 spec: {selector: all()}}
---
{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: get, namespace: x},
 spec: {ingress: [{action: Allow, http: {methods: [GET]}}]}}
---
{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: n1}, spec: {node: n1}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: other}, spec: {ingress: 7}}
",
        )
        .unwrap();
        let read = manifests::read(&[file.path().to_owned()]);
        let found = carried(&read.cluster, &read.problems);
        assert_eq!((found.objects, found.whole), (3, 1));
        let named: Vec<_> =
            found.problems.iter().map(|problem| (&*problem.object, &*problem.field)).collect();
        assert_eq!(
            named,
            [
                ("Calico NetworkPolicy x/get", "spec.ingress[0].http"),
                ("HostEndpoint n1", "spec.interfaceName")
            ]
        );
        assert!(text(&found).starts_with("objects of Calico's: 3, carried whole: 1\n\nOBJECT "), "{found:?}");
    }
}
