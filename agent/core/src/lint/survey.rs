//! The cluster as the families of findings look at it: pods that nothing distinguishes as one workload, each
//! policy with the workloads that it selects, and who has the properties that peers ask for.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt::Display,
    sync::Arc,
};

use podgate_common::{Direction, Protocol};

use super::{LintFinding, LintName, ObjectNotes};
use crate::{
    compiler::{Atom, NodeAtoms, PodAtoms, Shared, peer_atoms},
    model::{
        Cluster, ClusterPolicyKind, Labels, Name, NamedPort, NetworkPolicyKind, Peer, Peers, Pod, PolicyName,
        PolicyRef, Rule,
    },
};

pub(super) struct Survey<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) notes: &'a ObjectNotes,
    /// Without pods on the host network, which no selector matches.
    pub(super) workloads: Vec<Workload<'a>>,
    /// NetworkPolicies by their names, then cluster-wide policies, then Calico's.
    pub(super) policies: Vec<SurveyedPolicy<'a>>,
    /// Declared by an object, or named by a pod or a policy.
    pub(super) namespaces: BTreeMap<&'a Name, Labels>,
    /// The workloads that have a property of pods.
    holders: HashMap<Shared<Atom>, Vec<usize>>,
    /// Properties that some node has.
    of_nodes: HashSet<Shared<Atom>>,
}

/// Pods of one namespace with the same labels and ports.
pub(super) struct Workload<'a> {
    /// One of them.
    pub(super) pod: &'a Pod,
    /// `None`: not known.
    pub(super) container_ports: Option<&'a BTreeSet<(Protocol, u16)>>,
    pub(super) pods: usize,
}

pub(super) struct SurveyedPolicy<'a> {
    pub(super) policy: PolicyRef<'a>,
    /// It only reports what it would deny.
    pub(super) audit: bool,
    /// Workloads, by their places.
    pub(super) selected: Vec<usize>,
}

/// What makes pods one workload.
type WorkloadKey<'a> = (&'a Name, &'a Labels, &'a [NamedPort], Option<&'a BTreeSet<(Protocol, u16)>>);

impl<'a> Survey<'a> {
    pub(super) fn new(cluster: &'a Cluster, notes: &'a ObjectNotes) -> Self {
        let workloads = workloads(cluster, notes);
        let namespaces = namespaces(cluster);
        let policies = policies(cluster, &workloads, &namespaces);
        let atoms: HashSet<Shared<Atom>> = policies
            .iter()
            .flat_map(|policy| policy.peers().map(|(_, peer)| policy.atom(peer)).collect::<Vec<_>>())
            .flatten()
            .collect();
        let of_pods = PodAtoms::new(&atoms);
        let mut holders: HashMap<Shared<Atom>, Vec<usize>> = HashMap::new();
        for (place, workload) in workloads.iter().enumerate() {
            for atom in of_pods.of(workload.pod, cluster) {
                holders.entry(atom).or_default().push(place);
            }
        }
        let of_nodes = NodeAtoms::new(&atoms).mentioned(cluster).into_iter().flat_map(|(_, atoms)| atoms);
        let of_nodes = of_nodes.collect();
        Self { cluster, notes, workloads, policies, namespaces, holders, of_nodes }
    }

    /// The workloads that have a property of pods, by their places.
    pub(super) fn holders(&self, atom: &Shared<Atom>) -> &[usize] {
        self.holders.get(atom).map_or(&[], Vec::as_slice)
    }

    pub(super) fn is_of_node(&self, atom: &Shared<Atom>) -> bool {
        self.of_nodes.contains(atom)
    }
}

impl<'a> SurveyedPolicy<'a> {
    /// Which property a peer asks for; `None`: it was not understood.
    pub(super) fn atom(&self, peer: &Peer) -> Option<Shared<Atom>> {
        peer_atoms(std::slice::from_ref(peer), self.policy.namespace()).into_iter().next()
    }

    /// Its peers, each with its field.
    pub(super) fn peers(&self) -> impl Iterator<Item = (String, &'a Peer)> {
        let rules = Direction::ALL.into_iter().flat_map(|direction| {
            let rules = self.policy.rules(direction).into_iter().enumerate();
            rules.map(move |(index, rule)| (direction, index, rule))
        });
        let policy = self.policy;
        let is_cluster_wide = matches!(policy, PolicyRef::Cluster(_));
        rules.flat_map(move |(direction, index, rule)| {
            let peers: &[Peer] = match &rule.peers {
                Peers::Any => &[],
                Peers::Listed(peers) => peers,
                Peers::Calico(_) => &[],
            };
            let list = match direction {
                Direction::Ingress => "from",
                Direction::Egress => "to",
            };
            let mut is_numbered = true;
            peers.iter().enumerate().map(move |(place, peer)| {
                // A list of networks in one entry of a cluster-wide policy is as many peers here.
                is_numbered &= !(is_cluster_wide && matches!(peer, Peer::Block(_)));
                let place = if is_numbered { format!("[{place}]") } else { String::new() };
                (format!("{}.{list}{place}", rule_field(policy, direction, index)), peer)
            })
        })
    }

    /// The list of ports of its rules.
    pub(super) fn port_list(&self) -> &'static str {
        match self.policy.name() {
            PolicyName::Cluster(name) if name.kind == ClusterPolicyKind::ClusterNetworkPolicy => "protocols",
            PolicyName::Calico(name) if !name.kind.is_of_kubernetes() => "destination.ports",
            PolicyName::Namespaced(_) | PolicyName::Cluster(_) | PolicyName::Calico(_) => "ports",
        }
    }

    /// As findings name it.
    pub(super) fn object(&self) -> String {
        match self.policy.name() {
            PolicyName::Namespaced(name) => {
                let (kind, name) = NetworkPolicyKind::of(&name);
                format!("{} {name}", kind.kind())
            }
            PolicyName::Cluster(name) => name.to_string(),
            PolicyName::Calico(name) => name.to_string(),
        }
    }

    pub(super) fn rules(&self, direction: Direction) -> Vec<&'a Rule> {
        self.policy.rules(direction)
    }

    /// As findings name a rule.
    pub(super) fn rule_field(&self, direction: Direction, index: usize) -> String {
        rule_field(self.policy, direction, index)
    }

    pub(super) fn finding(&self, field: impl Display, name: LintName, message: impl Display) -> LintFinding {
        LintFinding { object: self.object(), field: field.to_string(), name, message: message.to_string() }
    }
}

fn rule_field(policy: PolicyRef<'_>, direction: Direction, index: usize) -> String {
    match policy.annotation(direction, index) {
        Some(annotation) => format!("metadata.annotations[{annotation}]"),
        None => format!("spec.{}[{index}]", direction.name()),
    }
}

/// As in `1 pod` and `3 pods`.
pub(super) fn count_of_pods(pods: usize) -> String {
    format!("{pods} {}", if pods == 1 { "pod" } else { "pods" })
}

fn workloads<'a>(cluster: &'a Cluster, notes: &'a ObjectNotes) -> Vec<Workload<'a>> {
    let mut workloads: Vec<Workload<'a>> = Vec::new();
    let mut known: HashMap<WorkloadKey<'a>, usize> = HashMap::new();
    for pod in cluster.pods.values().map(Arc::as_ref).filter(|pod| !pod.host_network) {
        let container_ports = notes.container_ports.get(&pod.name).map(Arc::as_ref);
        let key = (&pod.name.namespace, &pod.labels, &*pod.ports, container_ports);
        let place = *known.entry(key).or_insert_with(|| {
            workloads.push(Workload { pod, container_ports, pods: 0 });
            workloads.len() - 1
        });
        workloads[place].pods += 1;
    }
    workloads
}

fn namespaces(cluster: &Cluster) -> BTreeMap<&Name, Labels> {
    let pods = cluster.pods.keys().map(|name| &name.namespace);
    let policies = cluster.policies.keys().map(|name| &name.namespace);
    let of_calico = cluster.calico.policies().filter_map(|policy| policy.name.namespace.as_ref());
    let names: BTreeSet<&Name> =
        cluster.namespaces.keys().chain(pods).chain(policies).chain(of_calico).collect();
    names.into_iter().map(|name| (name, cluster.namespace_labels(name))).collect()
}

fn policies<'a>(
    cluster: &'a Cluster,
    workloads: &[Workload<'a>],
    namespaces: &BTreeMap<&'a Name, Labels>,
) -> Vec<SurveyedPolicy<'a>> {
    let mut by_namespace: HashMap<&Name, Vec<usize>> = HashMap::new();
    for (place, workload) in workloads.iter().enumerate() {
        by_namespace.entry(&workload.pod.name.namespace).or_default().push(place);
    }
    let places = |namespace: &Name| by_namespace.get(namespace).map_or(&[][..], Vec::as_slice);
    let of_namespaces = cluster.policies.values().map(|policy| {
        let namespace = &policy.name.namespace;
        let selected = places(namespace).iter().copied();
        SurveyedPolicy {
            policy: PolicyRef::Namespaced(policy),
            audit: policy.audit || cluster.is_in_audit(namespace),
            selected: selected.filter(|place| policy.selects(workloads[*place].pod)).collect(),
        }
    });
    let of_cluster = cluster.cluster_policies.values().map(|policy| {
        let matching = namespaces.iter().filter(|(_, labels)| policy.subject.namespaces.matches(labels));
        let selected = matching.flat_map(|(namespace, labels)| {
            places(namespace).iter().copied().filter(|place| policy.selects(workloads[*place].pod, labels))
        });
        let policy_ref = PolicyRef::Cluster(policy);
        SurveyedPolicy { policy: policy_ref, audit: policy.audit, selected: selected.collect() }
    });
    let of_calico = cluster.calico.policies().filter(|policy| !policy.removes).map(|policy| {
        let places = match &policy.name.namespace {
            Some(namespace) => places(namespace).to_vec(),
            None => (0..workloads.len()).collect(),
        };
        let is_selected = |place: &usize| {
            let pod = workloads[*place].pod;
            policy.selects(pod, &cluster.calico.labels_of(pod, &namespaces[&pod.name.namespace]))
        };
        let policy_ref = PolicyRef::Calico(policy);
        let selected = places.into_iter().filter(is_selected).collect();
        SurveyedPolicy { policy: policy_ref, audit: policy.audit, selected }
    });
    of_namespaces.chain(of_cluster).chain(of_calico).collect()
}
