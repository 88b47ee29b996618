//! What podgate answers: objects go in as manifest files, as users give them; verdicts come out of the
//! compiled tables.

use std::{collections::BTreeSet, fs, net::IpAddr, path::Path, sync::Arc};

use podgate::source::{ClusterSnapshot, manifests};
use podgate_common::{
    Direction, Endpoint, EndpointState, FlowSeed, Headers, Hook, Opened, Protocol, Scratch, Stream, Walk,
    decide,
    frames::{Frame, dns, flag},
};
use podgate_core::{
    compiler::{self, TableLimits},
    explain::{self, Verdict, explain},
    matrix::matrix,
    memory::{Memory, policy_id},
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
        outside: IpAddr,
        port: (Protocol, u16),
    ) -> bool {
        let has_family =
            self.cluster.pods[pod].addresses.iter().any(|own| own.is_ipv4() == outside.is_ipv4());
        let rule_set = self.rule_set(pod, direction);
        has_family && Memory::new(&self.tables).allowed(rule_set, outside, port.0, port.1)
    }

    /// Whether a pod that has learnt these addresses from replies of its resolver may open a connection.
    pub(crate) fn opens(
        &self,
        pod: &ObjectName,
        learnt: &[(&str, IpAddr)],
        outside: IpAddr,
        (protocol, port): (Protocol, u16),
    ) -> bool {
        const VETH: u32 = 7;
        let own = &self.cluster.pods[pod].addresses;
        let Some(source) = own.iter().copied().find(|own| own.is_ipv4() == outside.is_ipv4()) else {
            return false;
        };
        let rule_set = self.rule_set(pod, Direction::Egress);
        let has_names = self.tables.strata.contains_key(&rule_set);
        let mut memory = Memory::new(&self.tables);
        let endpoint = Endpoint {
            state: EndpointState::Identified as u32,
            egress: policy_id(&self.tables, rule_set),
            names: u32::from(has_names),
            ..Endpoint::PENDING
        };
        memory.endpoints.insert(VETH, endpoint);
        memory.owners = own.iter().map(|address| ((*address).into(), VETH)).collect();
        for (name, address) in learnt.iter().filter(|_| has_names) {
            learn(&memory, &dns::reply(name, &[*address]));
        }
        let (from, to) = ((source, 40_000), (outside, port));
        let frame = match protocol {
            Protocol::Tcp => Frame::tcp(from, to, flag::SYN),
            Protocol::Udp => Frame::udp(from, to, 0),
            Protocol::Sctp => Frame::sctp(from, to, 1),
        };
        let hook = Hook { direction: Direction::Egress, ifindex: VETH, ingress_ifindex: VETH };
        decide(&frame.bytes().as_slice(), &mut { Scratch::EMPTY }, &hook, &memory).passes()
    }
}

/// What the programs do with a reply, in the first table.
fn learn(memory: &Memory<'_>, reply: &[u8]) {
    let [resolver, client] = [([192, 0, 2, 53].into(), 53), ([192, 0, 2, 1].into(), 40_000)];
    let frame = dns::datagram(resolver, client, reply).bytes();
    let (mut walk, packet) = (Walk::EMPTY, frame.as_slice());
    let opened = walk.open(&packet, &Headers::EMPTY.tuple, Stream::default(), 1, &FlowSeed::default());
    assert_eq!(opened, Opened::Walk);
    while walk.step(&packet, memory) {}
}

fn put(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
