//! A cluster as large ones are: namespaces of some Deployments, policies among them, a service for each
//! Deployment.
//!
//! Names, label sets and lists of ports are shared as the decoder shares them. Pods are spread over the nodes
//! in turn, so that those of one node are of many namespaces.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use podgate_common::Protocol;
use podgate_core::model::{
    CalicoPolicy, Cluster, EndpointSlice, IpBlock, Labels, NAMESPACE_NAME_LABEL, Name, NamedPort, Namespace,
    NetworkPolicy, Node, ObjectName, Peer, Peers, Pod, PortRule, Ports, Proxy, Requirement, Rule, Selector,
    Service, ServicePort, SliceEndpoint, SlicePort,
};

use crate::calico;

/// The node that is measured.
pub(crate) const NODE: &str = "node-0";
/// Pods of a node.
pub(crate) const LOCAL_PODS: usize = 110;
/// Pods of a namespace, and of a Deployment.
const NAMESPACE_PODS: usize = 75;
const REPLICAS: usize = 15;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub(crate) pods: usize,
    pub(crate) policies: usize,
    /// Whose the policies are.
    pub(crate) of: Engine,
}

/// Whose policies a cluster has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Kubernetes,
    /// In [`calico::TIERS`] tiers.
    Calico,
}

impl Scale {
    pub(crate) fn variant(self) -> String {
        match self.of {
            Engine::Kubernetes => format!("{} pods, {} policies", self.pods, self.policies),
            Engine::Calico => {
                format!("{} pods, {} Calico policies in {} tiers", self.pods, self.policies, calico::TIERS)
            }
        }
    }

    fn namespaces(self) -> usize {
        self.pods.div_ceil(NAMESPACE_PODS)
    }

    /// The pods alone.
    pub(crate) fn pods(self) -> Cluster {
        let nodes: Vec<Name> =
            (0..self.pods.div_ceil(LOCAL_PODS)).map(|node| format!("node-{node}").into()).collect();
        let ports: Arc<[NamedPort]> =
            [NamedPort { name: "http".into(), protocol: Protocol::Tcp, number: 8080 }].into();
        let mut cluster = Cluster::default();
        for space in 0..self.namespaces() {
            let namespace = namespace(space);
            for app in 0..NAMESPACE_PODS / REPLICAS {
                let labels = app_labels(space, app);
                for replica in 0..REPLICAS {
                    let number = space * NAMESPACE_PODS + app * REPLICAS + replica;
                    if number >= self.pods {
                        return cluster;
                    }
                    let name =
                        ObjectName::new(namespace.clone(), format!("app-{app}-6f7c9d5b8-{replica:05}"));
                    let pod = Pod {
                        name: name.clone(),
                        labels: labels.clone(),
                        node: Some(nodes[number % nodes.len()].clone()),
                        addresses: [address(number)].into(),
                        uid: None,
                        service_account: None,
                        host_network: false,
                        host_ports: Box::default(),
                        host: None,
                        ports: ports.clone(),
                    };
                    cluster.pods.insert(name, Arc::new(pod));
                }
            }
        }
        cluster
    }

    /// Everything else.
    pub(crate) fn fill(self, cluster: &mut Cluster) {
        for space in 0..self.namespaces() {
            let name = namespace(space);
            let labels = labels(&[
                (NAMESPACE_NAME_LABEL.into(), name.clone()),
                ("team".into(), format!("team-{}", space % TEAMS).into()),
            ]);
            cluster.namespaces.insert(name, Arc::new(Namespace { labels, audit: false }));
        }
        for node in 0..self.pods.div_ceil(LOCAL_PODS) {
            let bytes = u32::try_from(node).expect("fewer nodes than addresses") + 0xac10_0000;
            let addresses = vec![Ipv4Addr::from(bytes).into()];
            let node = Node { labels: Arc::default(), addresses };
            cluster.nodes.insert(format!("node-{}", cluster.nodes.len()).into(), Arc::new(node));
        }
        for number in 0..self.policies {
            let space = number % self.namespaces();
            self.of.policy(space, number, number / self.namespaces()).enter(cluster);
        }
        if self.of == Engine::Calico {
            calico::add_tiers(cluster);
        }
        let mut backends: BTreeMap<(Name, Name), Vec<SliceEndpoint>> = BTreeMap::new();
        for pod in cluster.pods.values() {
            let endpoint = SliceEndpoint {
                address: pod.addresses[0],
                node: pod.node.clone(),
                ready: true,
                serving: true,
                terminating: false,
                hints: None,
            };
            let app = pod.labels["app"].clone();
            backends.entry((pod.name.namespace.clone(), app)).or_default().push(endpoint);
        }
        for (number, ((namespace, app), endpoints)) in backends.into_iter().enumerate() {
            let (service, slice) = service(namespace, app, number, endpoints);
            cluster.services.insert(service.name.clone(), Arc::new(service));
            cluster.slices.insert(slice.name.clone(), Arc::new(slice));
        }
    }
}

/// A policy of either.
#[derive(Clone, Debug)]
pub(crate) enum Policy {
    Kubernetes(NetworkPolicy),
    Calico(CalicoPolicy),
}

impl Engine {
    /// As [`policy`].
    pub(crate) fn policy(self, space: usize, number: usize, kind: usize) -> Policy {
        match self {
            Self::Kubernetes => Policy::Kubernetes(policy(space, number, kind)),
            Self::Calico => Policy::Calico(calico::policy(space, number, kind)),
        }
    }
}

impl Policy {
    pub(crate) fn enter(&self, cluster: &mut Cluster) {
        match self {
            Self::Kubernetes(policy) => {
                cluster.policies.insert(policy.name.clone(), Arc::new(policy.clone()));
            }
            Self::Calico(policy) => {
                cluster.calico.v3.policies.insert(policy.name.clone(), Arc::new(policy.clone()));
            }
        }
    }

    pub(crate) fn remove(&self, cluster: &mut Cluster) {
        match self {
            Self::Kubernetes(policy) => {
                cluster.policies.remove(&policy.name);
            }
            Self::Calico(policy) => {
                cluster.calico.v3.policies.remove(&policy.name);
            }
        }
    }

    /// For connections to the pod alone, from the pods of one app in the namespaces of one team.
    pub(crate) fn with_team(mut self, number: usize) -> Self {
        match &mut self {
            Self::Kubernetes(policy) => {
                if let Some(rule) = policy.ingress.iter_mut().flatten().next() {
                    rule.peers = Peers::Listed(vec![team(number)]);
                }
                policy.egress = None;
            }
            Self::Calico(policy) => {
                if let Some(rule) = policy.ingress.iter_mut().flatten().next() {
                    rule.matches.peers = calico::team(number);
                }
                policy.egress = None;
            }
        }
        self
    }

    /// The same with other ports to the pod.
    pub(crate) fn with_port(mut self, port: u16) -> Self {
        let ports = || Ports::Listed(vec![tcp(port)]);
        match &mut self {
            Self::Kubernetes(policy) => {
                policy.ingress.iter_mut().flatten().for_each(|rule| rule.ports = ports());
            }
            Self::Calico(policy) => {
                policy.ingress.iter_mut().flatten().for_each(|rule| rule.matches.ports = ports());
            }
        }
        self
    }
}

pub(crate) fn tcp(port: u16) -> PortRule {
    PortRule::Range { protocol: Protocol::Tcp, first: port, last: port }
}

/// Teams share namespaces.
pub(crate) const TEAMS: usize = 40;

/// One policy of a namespace; `kind` says what sort, `number` makes it unique.
fn policy(space: usize, number: usize, kind: usize) -> NetworkPolicy {
    let app = |app: usize| equals("app", &format!("app-{app}"));
    let here = |number| Peer::Pods { namespaces: None, pods: app(number) };
    let rule = |peers, ports| Rule { peers: Peers::Listed(peers), ports: Ports::Listed(ports) };
    let dns = PortRule::Range { protocol: Protocol::Udp, first: 53, last: 53 };
    let everywhere =
        Peer::Pods { namespaces: Some(Selector::EVERYTHING), pods: equals("k8s-app", "kube-dns") };
    let block = IpBlock {
        cidr: format!("198.51.{}.0/24", number % 100).parse().expect("a network"),
        except: BTreeSet::new(),
    };
    let ingress = vec![rule(vec![here(kind + 1), team(space + kind)], vec![tcp(8080)])];
    let egress = vec![
        rule(vec![here(kind + 2), Peer::Block(block)], vec![tcp(8080), tcp(443)]),
        rule(vec![everywhere], vec![dns]),
    ];
    NetworkPolicy {
        name: ObjectName::new(namespace(space), format!("policy-{number}")),
        subject: app(kind % 5),
        ingress: Some(ingress),
        egress: (kind.is_multiple_of(2)).then_some(egress),
        audit: false,
    }
}

/// The pods of one app in the namespaces of one team, one of 200 such peers.
fn team(number: usize) -> Peer {
    Peer::Pods {
        namespaces: Some(equals("team", &format!("team-{}", number % TEAMS))),
        pods: equals("app", &format!("app-{}", number / TEAMS % 5)),
    }
}

pub(crate) fn address(number: usize) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + u32::try_from(number).expect("fewer pods than addresses")).into()
}

/// The place of a namespace among all of them.
pub(crate) fn space(namespace: &str) -> usize {
    namespace.trim_start_matches("space-").parse().expect("a namespace of this cluster")
}

fn service(
    namespace: Name,
    app: Name,
    number: usize,
    endpoints: Vec<SliceEndpoint>,
) -> (Service, EndpointSlice) {
    let name = ObjectName::new(namespace.clone(), app.clone());
    let at = u32::try_from(number).expect("fewer services than addresses") + 0x0a80_0000 + 0x0040_0000;
    let service = Service {
        name: name.clone(),
        cluster_addresses: vec![Ipv4Addr::from(at).into()],
        external_addresses: Vec::new(),
        proxy: Proxy::KubeProxy,
        internal_local: false,
        external_local: false,
        is_over_limit: false,
        ports: vec![ServicePort { name: "".into(), protocol: Protocol::Tcp, number: 80, node_port: None }],
    };
    let slice = EndpointSlice {
        name: ObjectName::new(namespace, format!("{app}-x7k2p")),
        service: name,
        proxy: Proxy::KubeProxy,
        ports: vec![SlicePort { name: "".into(), protocol: Protocol::Tcp, number: Some(8080) }],
        endpoints,
    };
    (service, slice)
}

pub(crate) fn namespace(space: usize) -> Name {
    format!("space-{space}").into()
}

fn app_labels(space: usize, app: usize) -> Labels {
    labels(&[
        ("app".into(), format!("app-{app}").into()),
        ("pod-template-hash".into(), format!("{space:x}-6f7c9d5b8").into()),
        ("tier".into(), format!("tier-{}", app % 3).into()),
    ])
}

fn labels(pairs: &[(Name, Name)]) -> Labels {
    Arc::new(pairs.iter().cloned().collect())
}

fn equals(key: &str, value: &str) -> Selector {
    Selector::All(vec![Requirement::In(key.into(), [value.into()].into())])
}
