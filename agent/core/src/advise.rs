//! NetworkPolicies for what was seen: for each workload one that allows its connections of the past, and
//! nothing else.
//!
//! In: a cluster and connections. Out: policies whose selectors tell each workload from all others of its
//! namespace, by as few labels as that takes. Pods are one workload when they have the same labels, but for
//! those that differ between replicas and releases.

mod blocks;
mod replay;
mod selector;
mod standing;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use podgate_common::{Direction, Protocol};

pub use self::{
    blocks::AddressBlock,
    replay::{Replay, replay, with_advice},
    selector::WorkloadSelector,
    standing::standing,
};
use crate::{
    model::{Cluster, Labels, Name, ObjectName},
    workload::{by_preference, lasting},
};

/// A connection that was seen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Observation {
    /// The client.
    pub from: ObservedEnd,
    /// The server, as the client addressed it.
    pub to: ObservedEnd,
    /// The server's port.
    pub port: ObservedPort,
    /// When the first and the last one were seen: RFC 3339, UTC.
    pub seen: [String; 2],
    /// What the client's side said of it.
    pub egress: SideVerdicts,
    /// What the server's side said of it.
    pub ingress: SideVerdicts,
}

/// When one side of a connection last said what: RFC 3339, UTC. Where nothing isolates a pod, its side may
/// have said nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SideVerdicts {
    /// It passed.
    pub passed: Option<String>,
    /// Policies denied it.
    pub denied: Option<String>,
}

impl Observation {
    /// What one side said of it.
    pub const fn side(&self, direction: Direction) -> &SideVerdicts {
        match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        }
    }
}

/// A protocol and a port.
pub type ObservedPort = (Protocol, u16);

/// An end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObservedEnd {
    /// A pod, with the labels that it had then.
    Pod(ObjectName, Labels),
    /// A service.
    Service(ObjectName),
    /// Any other address: a node's, or one outside the cluster.
    Address(IpAddr),
}

/// What is advised, and for what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdviceScope {
    /// Only for pods of this namespace.
    pub namespace: Option<Name>,
    /// Nodes of which nothing is known. A workload with pods there gets no policy.
    pub unseen_nodes: BTreeSet<Name>,
}

/// The policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advice {
    /// One for each workload, in the order of their names.
    pub policies: Vec<AdvisedPolicy>,
    /// Workloads that get none, as `namespace/name`: they have pods on nodes of which nothing is known.
    pub left_out: Vec<ObjectName>,
}

/// A NetworkPolicy that isolates a workload in both directions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdvisedPolicy {
    /// Its own name.
    pub name: ObjectName,
    /// The pods of the workload.
    pub subject: WorkloadSelector,
    /// How many it has now.
    pub pods: usize,
    /// Who may connect to it.
    pub ingress: Vec<AdvisedRule>,
    /// What it may connect to.
    pub egress: Vec<AdvisedRule>,
    /// When the first and the last connection of it were seen; `None`: none was.
    pub seen: Option<[String; 2]>,
}

/// Peers that have the same ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdvisedRule {
    /// At least one.
    pub peers: Vec<AdvisedPeer>,
    /// At least one.
    pub ports: BTreeSet<ObservedPort>,
}

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdvisedPeer {
    /// Pods of a namespace.
    Workload(Name, WorkloadSelector),
    /// Addresses.
    Block(AddressBlock),
}

/// The pods of a namespace that have these labels, but for some keys.
type Workload = (Name, Labels);

/// Who is at the other end of a workload's connections, with the ports.
type Peers = BTreeMap<Peer, BTreeSet<ObservedPort>>;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Peer {
    Workload(Workload),
    Address(IpAddr),
}

const DNS: u16 = 53;

/// Advises policies that allow what was observed, and the cluster's DNS.
pub fn advise(cluster: &Cluster, observations: &[Observation], scope: &AdviceScope) -> Advice {
    let mut observed = Observed::of(cluster);
    observations.iter().for_each(|observation| observed.add(observation));
    let label_sets = observed.label_sets();
    let selector = |(namespace, labels): &Workload| {
        WorkloadSelector::among(labels, label_sets.get(namespace).into_iter().flatten())
    };
    let dns = observed.dns();
    let mut advice = Advice::default();
    let mut names = BTreeSet::new();
    for (workload, counted) in &observed.workloads {
        let (namespace, labels) = workload;
        let is_asked = scope.namespace.as_ref().is_none_or(|only| only == namespace);
        // A workload of the past has no pod that a policy could select.
        if !is_asked || counted.pods == 0 {
            continue;
        }
        let name = unused_name(cluster, &mut names, namespace, labels);
        if counted.nodes.iter().any(|node| scope.unseen_nodes.contains(node)) {
            advice.left_out.push(name);
            continue;
        }
        let mut egress = counted.egress.clone();
        for (peer, port) in dns.iter().filter(|(peer, _)| *peer != Peer::Workload(workload.clone())) {
            egress.entry(peer.clone()).or_default().insert(*port);
        }
        advice.policies.push(AdvisedPolicy {
            name,
            subject: selector(workload),
            pods: counted.pods,
            ingress: rules(&counted.ingress, selector),
            egress: rules(&egress, selector),
            seen: counted.seen.clone(),
        });
    }
    advice
}

/// What is known of each workload.
struct Observed<'a> {
    cluster: &'a Cluster,
    workloads: BTreeMap<Workload, WorkloadTraffic>,
    /// Whose addresses these are.
    owners: BTreeMap<IpAddr, Workload>,
}

#[derive(Default)]
struct WorkloadTraffic {
    pods: usize,
    nodes: BTreeSet<Name>,
    ingress: Peers,
    egress: Peers,
    seen: Option<[String; 2]>,
}

impl<'a> Observed<'a> {
    fn of(cluster: &'a Cluster) -> Self {
        let mut observed = Self { cluster, workloads: BTreeMap::new(), owners: BTreeMap::new() };
        for pod in cluster.pods.values().filter(|pod| !pod.host_network) {
            let workload = (pod.name.namespace.clone(), lasting(&pod.labels));
            observed.owners.extend(pod.addresses.iter().map(|address| (*address, workload.clone())));
            let counted = observed.workloads.entry(workload).or_default();
            counted.pods += 1;
            counted.nodes.extend(pod.node.clone());
        }
        observed
    }

    fn add(&mut self, Observation { from, to, port, seen, .. }: &Observation) {
        for (source, destination, port) in self.connections(from, to, *port) {
            self.connect(Direction::Egress, &source, &destination, port, seen);
            self.connect(Direction::Ingress, &destination, &source, port, seen);
        }
    }

    /// Between whom, and to which port: through a service to each of its backends.
    fn connections(
        &self,
        from: &ObservedEnd,
        to: &ObservedEnd,
        port: ObservedPort,
    ) -> Vec<(Peer, Peer, ObservedPort)> {
        let destinations = self.peers(to, port);
        let sources = self.peers(from, port).into_iter().map(|(source, _)| source);
        let pairs = sources.flat_map(|source| {
            destinations.iter().map(move |(destination, port)| (source.clone(), destination.clone(), *port))
        });
        pairs.collect()
    }

    /// Notes a connection on the side of one of its ends.
    fn connect(
        &mut self,
        direction: Direction,
        own: &Peer,
        other: &Peer,
        port: ObservedPort,
        [first, last]: &[String; 2],
    ) {
        let Peer::Workload(workload) = own else { return };
        let counted = self.workloads.entry(workload.clone()).or_default();
        let peers = match direction {
            Direction::Egress => &mut counted.egress,
            Direction::Ingress => &mut counted.ingress,
        };
        peers.entry(other.clone()).or_default().insert(port);
        counted.seen = Some(match counted.seen.take() {
            Some([before, after]) => [before.min(first.clone()), after.max(last.clone())],
            None => [first.clone(), last.clone()],
        });
    }

    /// Who is behind an end, and the port there.
    fn peers(&self, end: &ObservedEnd, port: ObservedPort) -> Vec<(Peer, ObservedPort)> {
        match end {
            ObservedEnd::Pod(name, labels) => match self.cluster.pods.get(name) {
                Some(pod) if pod.host_network => {
                    pod.addresses.iter().map(|address| (Peer::Address(*address), port)).collect()
                }
                pod => {
                    let labels = pod.map_or(labels, |pod| &pod.labels);
                    vec![(Peer::Workload((name.namespace.clone(), lasting(labels))), port)]
                }
            },
            ObservedEnd::Address(address) => vec![(self.owner(*address), port)],
            ObservedEnd::Service(name) => self.backends(name, port),
        }
    }

    fn owner(&self, address: IpAddr) -> Peer {
        self.owners.get(&address).cloned().map_or(Peer::Address(address), Peer::Workload)
    }

    /// Where a port of a service leads.
    fn backends(&self, name: &ObjectName, (protocol, number): ObservedPort) -> Vec<(Peer, ObservedPort)> {
        let Some(service) = self.cluster.services.get(name) else { return Vec::new() };
        let ports = service.ports.iter().filter(|port| port.protocol == protocol && port.number == number);
        let names: BTreeSet<&Name> = ports.map(|port| &port.name).collect();
        let slices = self.cluster.slices.range(ObjectName::new(name.namespace.clone(), "")..);
        let slices = slices.take_while(|(slice, _)| slice.namespace == name.namespace);
        let mut backends = BTreeSet::new();
        for (_, slice) in slices.filter(|(_, slice)| slice.service == *name) {
            let led_to =
                slice.ports.iter().filter(|led| led.protocol == protocol && names.contains(&led.name));
            for number in led_to.filter_map(|led| led.number) {
                let ends = slice.endpoints.iter().map(|end| (self.owner(end.address), (protocol, number)));
                backends.extend(ends);
            }
        }
        backends.into_iter().collect()
    }

    /// The cluster's DNS, by its backends.
    fn dns(&self) -> BTreeSet<(Peer, ObservedPort)> {
        let services = self.cluster.dns_services();
        let ports = [Protocol::Udp, Protocol::Tcp].map(|protocol| (protocol, DNS));
        services.flat_map(|service| ports.map(|port| self.backends(&service.name, port))).flatten().collect()
    }

    /// The labels of the workloads of each namespace.
    fn label_sets(&self) -> BTreeMap<Name, Vec<Labels>> {
        let mut sets: BTreeMap<Name, Vec<Labels>> = BTreeMap::new();
        for (namespace, labels) in self.workloads.keys() {
            sets.entry(namespace.clone()).or_default().push(labels.clone());
        }
        sets
    }
}

/// One rule for all peers that have the same ports.
fn rules(peers: &Peers, selector: impl Fn(&Workload) -> WorkloadSelector) -> Vec<AdvisedRule> {
    let mut by_ports: BTreeMap<&BTreeSet<ObservedPort>, (BTreeSet<AdvisedPeer>, Vec<IpNet>)> =
        BTreeMap::new();
    for (peer, ports) in peers {
        let (workloads, addresses) = by_ports.entry(ports).or_default();
        match peer {
            Peer::Workload(workload) => {
                workloads.insert(AdvisedPeer::Workload(workload.0.clone(), selector(workload)));
            }
            Peer::Address(address) => addresses.push(IpNet::from(*address)),
        }
    }
    let rule = |(ports, (workloads, addresses)): (&BTreeSet<ObservedPort>, (BTreeSet<AdvisedPeer>, _))| {
        let blocks = blocks::merged(addresses).into_iter().map(AdvisedPeer::Block);
        AdvisedRule { peers: workloads.into_iter().chain(blocks).collect(), ports: ports.clone() }
    };
    by_ports.into_iter().map(rule).collect()
}

/// A name that neither the cluster nor the advice has in the namespace.
fn unused_name(
    cluster: &Cluster,
    names: &mut BTreeSet<ObjectName>,
    namespace: &Name,
    labels: &Labels,
) -> ObjectName {
    let workload = by_preference(labels).next().map(|(_, value)| value.to_lowercase());
    let is_plain = |character: &char| character.is_ascii_lowercase() || character.is_ascii_digit();
    let workload: String =
        workload.unwrap_or_default().chars().map(|at| if is_plain(&at) { at } else { '-' }).collect();
    let workload = match workload.trim_matches('-') {
        "" => "pods",
        workload => workload,
    };
    let numbered = (1..).map(|number| match number {
        1 => format!("advised-{workload}"),
        _ => format!("advised-{workload}-{number}"),
    });
    let mut unused = numbered.map(|name| ObjectName::new(namespace.clone(), name));
    let name = unused.find(|name| !cluster.policies.contains_key(name) && !names.contains(name));
    let name = name.expect("numbers do not end");
    names.insert(name.clone());
    name
}
