//! What podgate answers: objects go in as manifest files, as users give them; verdicts come out of the
//! compiled tables.

use std::{collections::BTreeSet, fs, path::Path, sync::Arc};

use podgate::source::{ClusterSnapshot, manifests};
use podgate_common::{Direction, Protocol};
use podgate_core::{
    compiler::{self, TableLimits},
    explain::{self, Verdict, explain},
    matrix::matrix,
    memory::Memory,
    model::{Cluster, ObjectName},
    port_spec::PortSpec,
};
use podgate_testkit::{
    manifest::{Form, write},
    question::Question,
};
use serde_json::Value;

/// How objects are laid out in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    File(Form),
    /// Several files of all endings, and one that is no manifest.
    Directory,
}

impl Layout {
    pub(crate) const ALL: [Self; 6] = [
        Self::File(Form::YamlDocuments),
        Self::File(Form::YamlList),
        Self::File(Form::YamlFlow),
        Self::File(Form::JsonList),
        Self::File(Form::Mixed),
        Self::Directory,
    ];
}

/// Reads objects through manifest files.
pub(crate) fn read(objects: &[Value], layout: Layout) -> ClusterSnapshot {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    match layout {
        Layout::File(form) => put(&path.join("objects"), &write(objects, form)),
        Layout::Directory => {
            let third = objects.len().div_ceil(3).max(1);
            let files =
                [("b.yaml", Form::YamlDocuments), ("a.yml", Form::YamlList), ("c.json", Form::JsonList)];
            for ((name, form), part) in files.into_iter().zip(objects.chunks(third)) {
                put(&path.join(name), &write(part, form));
            }
            put(&path.join("README.md"), "kind: [no manifest\n");
        }
    }
    let given = if layout == Layout::Directory { path.into() } else { path.join("objects") };
    manifests::read(&[given])
}

/// Reads one manifest as it stands.
pub(crate) fn read_text(text: &str) -> ClusterSnapshot {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    put(file.path(), text);
    manifests::read(&[file.path().into()])
}

pub(crate) fn problems(picture: &ClusterSnapshot) -> String {
    picture.problems.iter().map(|problem| format!("{problem}\n")).collect()
}

/// The JSON of `podgate matrix`.
pub(crate) fn matrix_of(cluster: &Cluster, ports: &[&str]) -> Value {
    let ports: BTreeSet<PortSpec> =
        ports.iter().map(|port| port.parse().expect("a port of the generator")).collect();
    let matrix = matrix(cluster, &ports);
    serde_json::to_value(matrix).expect("a matrix is JSON")
}

/// The verdict of `podgate explain`.
pub(crate) fn explained(cluster: &Cluster, question: &Question) -> bool {
    let [from, to, port] = question.words();
    let matches = explain::Question {
        from: from.parse().unwrap_or_else(|error| panic!("{question}: {error}")),
        to: to.parse().unwrap_or_else(|error| panic!("{question}: {error}")),
        port: port.parse().unwrap_or_else(|error| panic!("{question}: {error}")),
    };
    let answer = explain(cluster, &matches).unwrap_or_else(|error| panic!("{question}: {error}"));
    answer.verdict == Verdict::Allow
}

/// The verdicts of the compiled tables on addresses outside, as the kernel reads them.
pub(crate) struct Compiled<'a> {
    cluster: &'a Cluster,
    tables: compiler::CompiledTables,
}

impl<'a> Compiled<'a> {
    pub(crate) fn new(cluster: &'a Cluster) -> Self {
        Self::within(&TableLimits::NODE, cluster)
    }

    /// On a node with these limits.
    pub(crate) fn within(limits: &TableLimits, cluster: &'a Cluster) -> Self {
        let pods = cluster.pods.values().map(Arc::as_ref);
        Self { cluster, tables: compiler::compile_within(limits, cluster, None, pods, []) }
    }

    /// Whether a limit has closed what the policies of a pod say.
    pub(crate) fn is_closed(&self, pod: &ObjectName, direction: Direction) -> bool {
        self.tables.closed.contains(&self.rule_set(pod, direction))
    }

    fn rule_set(&self, pod: &ObjectName, direction: Direction) -> usize {
        let subject = self.tables.subjects.get(pod).copied().unwrap_or(compiler::Subject::NOT_ISOLATED);
        match direction {
            Direction::Ingress => subject.ingress,
            Direction::Egress => subject.egress,
        }
    }

    /// Whether the policies of a pod let it talk with an address that is no pod's and no node's.
    pub(crate) fn allows(
        &self,
        pod: &ObjectName,
        direction: Direction,
        outside: std::net::IpAddr,
        port: (Protocol, u16),
    ) -> bool {
        let has_family =
            self.cluster.pods[pod].addresses.iter().any(|own| own.is_ipv4() == outside.is_ipv4());
        let rule_set = self.rule_set(pod, direction);
        has_family && Memory::new(&self.tables).allowed(rule_set, outside, port.0, port.1)
    }
}

fn put(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
