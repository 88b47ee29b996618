//! A small cluster: three pods on this node, one elsewhere, and the policies that a test gives it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use podgate_common::{Direction, EndpointState, Hook, NODE, OTHER_NODE, Protocol, frames::MAC};
use podgate_core::{
    compiler::{self, CompileInput, CompiledTables, Incremental, RuleSet, Subject},
    model::{
        Cluster, EndpointSlice, IpBlock, Name, NamedPort, Namespace, NetworkPolicy, Node, ObjectName, Peer,
        Peers, Pod, PortRule, Ports, Proxy, Requirement, Rule, Selector, Service, ServicePort, SliceEndpoint,
        SlicePort,
    },
};
use podgate_datapath::publisher::{EndpointEntry, Wanted};

/// Where packets of other nodes and of the outside come in.
pub(crate) const UPLINK: u32 = 2;
pub(crate) const BRIDGE: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];
}

/// Who sends and receives packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// Pods of this node, in namespace `x`, labelled `app=a` and so on.
    A,
    B,
    Z,
    /// A pod of another node, in namespace `y`, labelled `app=a`.
    Remote,
    Outside,
    /// This node.
    Node,
    OtherNode,
}

impl Host {
    pub(crate) const LOCAL: [Self; 3] = [Self::A, Self::B, Self::Z];
    pub(crate) const PODS: [Self; 4] = [Self::A, Self::B, Self::Z, Self::Remote];
    pub(crate) const ALL: [Self; 7] =
        [Self::A, Self::B, Self::Z, Self::Remote, Self::Outside, Self::Node, Self::OtherNode];

    pub(crate) fn at(self, family: Family) -> IpAddr {
        let (v4, v6) = match self {
            Self::A => ("10.1.0.1", "fd00:1::1"),
            Self::B => ("10.1.0.2", "fd00:1::2"),
            Self::Z => ("10.1.0.26", "fd00:1::26"),
            Self::Remote => ("10.2.0.1", "fd00:2::1"),
            Self::Outside => ("192.0.2.1", "2001:db8::1"),
            Self::Node => ("172.16.0.1", "fd00:f::1"),
            Self::OtherNode => ("172.16.0.2", "fd00:f::2"),
        };
        ip(if family == Family::V4 { v4 } else { v6 })
    }

    /// Ifindex of the host side of a local pod's veth.
    pub(crate) fn veth(self) -> u32 {
        match self {
            Self::A => 11,
            Self::B => 12,
            Self::Z => 13,
            other => panic!("{other:?} has no veth on this node"),
        }
    }

    fn app(self) -> &'static str {
        match self {
            Self::A | Self::Remote => "a",
            Self::B => "b",
            Self::Z => "z",
            other => panic!("{other:?} is no pod"),
        }
    }

    pub(crate) fn name(self) -> ObjectName {
        match self {
            Self::Remote => ObjectName::new("y", "remote"),
            local => ObjectName::new("x", local.app()),
        }
    }
}

/// A port of every node's addresses that leads to the service.
pub(crate) const NODE_PORT: u16 = 30_080;

/// Where tunnels of nodes listen.
pub(crate) const TUNNEL_PORTS: [u16; 2] = [4_789, 6_081];

/// The service's own address.
pub(crate) fn service_at(family: Family) -> IpAddr {
    ip(if family == Family::V4 { "10.96.0.10" } else { "fd00:96::10" })
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("a literal of the test")
}

/// The program at a pod's veth that sees what the pod sends.
pub(crate) fn leaves(pod: Host) -> Hook {
    Hook { direction: Direction::Egress, ifindex: pod.veth(), ingress_ifindex: pod.veth() }
}

/// The program at a pod's veth that sees what the pod receives.
pub(crate) fn arrives(pod: Host, ingress_ifindex: u32) -> Hook {
    Hook { direction: Direction::Ingress, ifindex: pod.veth(), ingress_ifindex }
}

/// The node's veths and what is known of the cluster.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) veths: BTreeMap<u32, PodInterface>,
    /// Addresses of this node.
    pub(crate) node: BTreeSet<IpAddr>,
}

#[derive(Clone, Debug)]
pub(crate) struct PodInterface {
    pub(crate) pod: ObjectName,
    pub(crate) state: EndpointState,
    pub(crate) master: u32,
    /// What the pod's end was given.
    pub(crate) link_address: Option<[u8; 6]>,
}

impl World {
    /// All pods, known, and no policy. Every pod names its port TCP 8080 `web`; B has `web` also on UDP 8081.
    pub(crate) fn new() -> Self {
        let pod = |host: Host| Pod {
            name: host.name(),
            labels: labels(&[("app", host.app())]),
            node: Some(if host == Host::Remote { "n2" } else { "n1" }.into()),
            addresses: Family::ALL.map(|family| host.at(family)).to_vec(),
            uid: None,
            host_network: false,
            host_ports: Box::default(),
            ports: [
                Some(NamedPort { name: "web".into(), protocol: Protocol::Tcp, number: 8080 }),
                (host == Host::B).then(|| NamedPort {
                    name: "web".into(),
                    protocol: Protocol::Udp,
                    number: 8081,
                }),
            ]
            .into_iter()
            .flatten()
            .collect(),
        };
        let veth = |host: Host| {
            let state = EndpointState::Identified;
            (host.veth(), PodInterface { pod: host.name(), state, master: 0, link_address: Some(MAC) })
        };
        let namespace = |name: &str| {
            let labels = labels(&[("kubernetes.io/metadata.name", name)]);
            (Name::from(name), Arc::new(Namespace { labels, audit: false }))
        };
        let cluster = Cluster {
            namespaces: ["x", "y"].map(namespace).into_iter().collect(),
            pods: Host::PODS.map(|host| (host.name(), Arc::new(pod(host)))).into_iter().collect(),
            nodes: [("n1", Host::Node, "own"), ("n2", Host::OtherNode, "other")]
                .map(|(name, host, role)| {
                    let addresses = Family::ALL.map(|family| host.at(family)).to_vec();
                    (Name::from(name), Arc::new(Node { labels: labels(&[("role", role)]), addresses }))
                })
                .into_iter()
                .collect(),
            ..Cluster::default()
        };
        Self {
            cluster,
            veths: Host::LOCAL.map(veth).into(),
            node: Family::ALL.map(|family| Host::Node.at(family)).into(),
        }
    }

    /// The tables of this node, fine enough for `retained`.
    pub(crate) fn compile(&self, retained: Vec<Arc<RuleSet>>) -> CompiledTables {
        let node: Name = "n1".into();
        let site = compiler::Site { node: &node, own_addresses: &self.node };
        compiler::compile(&self.cluster, Some(site), self.subjects(), retained)
    }

    /// The same, in a step from the world before.
    pub(crate) fn step(&self, compiler: &mut Incremental, retained: &[Arc<RuleSet>]) -> CompiledTables {
        let node: Name = "n1".into();
        let site = Some(compiler::Site { node: &node, own_addresses: &self.node });
        let pods = self.veths.values().filter_map(|veth| self.cluster.pods.get_key_value(&veth.pod));
        let subjects = pods.map(|(name, pod)| (name.clone(), pod.clone())).collect();
        let step = CompileInput { cluster: &self.cluster, site, subjects: &subjects, retained };
        compiler.compile(&step).clone()
    }

    /// A service at [`SERVICE`] and, as a node port, at [`NODE_PORT`], with these backends.
    #[must_use]
    pub(crate) fn service(mut self, protocol: Protocol, backends: &[(Host, u16)]) -> Self {
        let name = ObjectName::new("x", format!("s{}", self.cluster.services.len()));
        let port = ServicePort { name: "".into(), protocol, number: 80, node_port: Some(NODE_PORT) };
        let service = Service {
            name: name.clone(),
            cluster_addresses: Family::ALL.map(service_at).to_vec(),
            external_addresses: Vec::new(),
            internal_local: false,
            external_local: false,
            proxy: Proxy::KubeProxy,
            ports: vec![port],
        };
        self.cluster.services.insert(name.clone(), service.into());
        for (number, (host, port)) in backends.iter().enumerate() {
            for family in Family::ALL {
                let slice_name =
                    ObjectName::new("x", format!("{}-{number}-{}", name.name, family == Family::V6));
                let endpoint = SliceEndpoint {
                    address: host.at(family),
                    node: None,
                    ready: true,
                    serving: true,
                    terminating: false,
                    hints: None,
                };
                let slice = EndpointSlice {
                    name: slice_name.clone(),
                    service: name.clone(),
                    proxy: Proxy::KubeProxy,
                    ports: vec![SlicePort { name: "".into(), protocol, number: Some(*port) }],
                    endpoints: vec![endpoint],
                };
                self.cluster.slices.insert(slice_name, slice.into());
            }
        }
        self
    }

    /// One more service, with a cluster address that no one asks for, which claims this address and TCP port
    /// 80 as an external one.
    #[must_use]
    pub(crate) fn external(self, address: IpAddr, backends: &[(Host, u16)]) -> Self {
        let number = self.cluster.services.len();
        let mut world = self.service(Protocol::Tcp, backends);
        let name = ObjectName::new("x", format!("s{number}"));
        let service = Arc::make_mut(&mut world.cluster.services[&name]);
        let own = |family| {
            if family == Family::V4 { format!("10.97.0.{number}") } else { format!("fd00:97::{number}") }
        };
        service.cluster_addresses = Family::ALL.map(|family| ip(&own(family))).to_vec();
        service.external_addresses = vec![address];
        service.ports[0].node_port = None;
        world
    }

    /// The last service that was added claims its external address at the node port of the first one.
    #[must_use]
    pub(crate) fn at_the_node_port(mut self) -> Self {
        let name = ObjectName::new("x", format!("s{}", self.cluster.services.len() - 1));
        Arc::make_mut(&mut self.cluster.services[&name]).ports[0].number = NODE_PORT;
        self
    }

    /// The last service that was added is served by another proxy than kube-proxy.
    #[must_use]
    pub(crate) fn of_another_proxy(mut self) -> Self {
        let name = ObjectName::new("x", format!("s{}", self.cluster.services.len() - 1));
        Arc::make_mut(&mut self.cluster.services[&name]).proxy = Proxy::Other;
        self
    }

    /// Isolates a pod for ingress, but for these rules.
    #[must_use]
    pub(crate) fn ingress<const N: usize>(self, pod: Host, rules: [Rule; N]) -> Self {
        self.with(pod, |policy| policy.ingress = Some(rules.into()))
    }

    /// Isolates a pod for egress, but for these rules.
    #[must_use]
    pub(crate) fn egress<const N: usize>(self, pod: Host, rules: [Rule; N]) -> Self {
        self.with(pod, |policy| policy.egress = Some(rules.into()))
    }

    fn with(mut self, pod: Host, fill: impl FnOnce(&mut NetworkPolicy)) -> Self {
        let name = ObjectName::new(pod.name().namespace, format!("p{}", self.cluster.policies.len()));
        let mut policy = NetworkPolicy {
            name: name.clone(),
            subject: app(pod.app()),
            ingress: None,
            egress: None,
            audit: false,
        };
        fill(&mut policy);
        self.cluster.policies.insert(name, policy.into());
        self
    }

    #[must_use]
    pub(crate) fn with_state(mut self, pod: Host, state: EndpointState) -> Self {
        self.veth(pod).state = state;
        self
    }

    /// Makes a pod's veth a port of the bridge.
    #[must_use]
    pub(crate) fn on_bridge(mut self, pod: Host) -> Self {
        self.veth(pod).master = BRIDGE;
        self
    }

    /// No one has said which link-layer address the pod's end was given.
    #[must_use]
    pub(crate) fn without_link_address(mut self, pod: Host) -> Self {
        self.veth(pod).link_address = None;
        self
    }

    fn veth(&mut self, pod: Host) -> &mut PodInterface {
        self.veths.get_mut(&pod.veth()).expect("every local pod has a veth")
    }

    /// The pods behind the veths.
    pub(crate) fn subjects(&self) -> impl Iterator<Item = &Pod> {
        self.veths.values().filter_map(|veth| self.cluster.pods.get(&veth.pod).map(Arc::as_ref))
    }

    pub(crate) fn wanted(&self, tables: &CompiledTables) -> Wanted {
        let known = |veth: &PodInterface| veth.state == EndpointState::Identified;
        let evaluated = |veth: &PodInterface| {
            let subject = if known(veth) { tables.subjects[&veth.pod] } else { Subject::NOT_ISOLATED };
            EndpointEntry { state: veth.state, subject, master: veth.master }
        };
        let mut owners: BTreeMap<IpAddr, u32> = self.node.iter().map(|address| (*address, NODE)).collect();
        for (ifindex, veth) in self.veths.iter().filter(|(_, veth)| known(veth)) {
            let addresses = &self.cluster.pods[&veth.pod].addresses;
            owners.extend(addresses.iter().map(|address| (*address, *ifindex)));
        }
        owners.extend(Family::ALL.map(|family| (Host::OtherNode.at(family), OTHER_NODE)));
        let endpoints = self.veths.iter().map(|(ifindex, veth)| (*ifindex, evaluated(veth))).collect();
        let bridged = self.veths.iter().filter(|(_, veth)| veth.master != 0);
        let link_addresses =
            bridged.filter_map(|(ifindex, veth)| Some((*ifindex, veth.link_address?))).collect();
        Wanted { endpoints, owners, tunnel_ports: TUNNEL_PORTS.into(), link_addresses }
    }
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> podgate_core::model::Labels {
    Arc::new(pairs.iter().map(|&(key, value)| (key.into(), value.into())).collect())
}

/// Pods with this label `app`.
pub(crate) fn app(name: &str) -> Selector {
    Selector::All(vec![Requirement::In("app".into(), [name.into()].into())])
}

pub(crate) fn allow(peers: Peers, ports: Ports) -> Rule {
    Rule { peers, ports }
}

/// Pods of the policy's own namespace with the label of this one.
pub(crate) fn pods_like(pod: Host) -> Peers {
    Peers::Listed(vec![Peer::Pods { namespaces: None, pods: app(pod.app()) }])
}

pub(crate) fn all_pods() -> Peers {
    Peers::Listed(vec![Peer::Pods { namespaces: Some(Selector::EVERYTHING), pods: Selector::EVERYTHING }])
}

pub(crate) fn block(cidr: &str, except: &[&str]) -> Peers {
    let net = |text: &str| text.parse().expect("a literal of the test");
    let except: BTreeSet<_> = except.iter().map(|text| net(text)).collect();
    Peers::Listed(vec![Peer::Block(IpBlock { cidr: net(cidr), except })])
}

pub(crate) fn port(protocol: Protocol, number: u16) -> Ports {
    range(protocol, number, number)
}

pub(crate) fn range(protocol: Protocol, first: u16, last: u16) -> Ports {
    Ports::Listed(vec![PortRule::Range { protocol, first, last }])
}

pub(crate) fn every_port_of(protocol: Protocol) -> Ports {
    Ports::Listed(vec![PortRule::Protocol(protocol)])
}

pub(crate) fn named(protocol: Protocol, name: &str) -> Ports {
    Ports::Listed(vec![PortRule::Named(Some(protocol), name.into())])
}
