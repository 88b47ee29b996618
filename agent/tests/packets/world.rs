//! A small cluster: three pods on this node, one elsewhere, and the policies that a test gives it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use podgate_common::{
    EndpointState, NODE, OTHER_NODE, Protocol, Resolver, ServiceKey, TunnelPort, frames::MAC, is_nodes,
};
use podgate_core::{
    compiler::{self, CompileInput, CompiledTables, Incremental, RuleSet, Subject},
    fixtures::{admin_policy, ready},
    model::{
        Action, Cluster, ClusterRule, EndpointSlice, IpBlock, Name, NamedPort, Namespace, NetworkPolicy,
        Node, ObjectName, Peer, Peers, Pod, Ports, Proxy, Rule, Service, ServicePort, SlicePort,
    },
    tunnels::TunnelServices,
};
use podgate_datapath::{
    WantedHosts,
    publisher::{EndpointEntry, Wanted},
};

mod host;
mod rules;

pub(crate) use host::*;
pub(crate) use rules::*;

/// The node's veths and what is known of the cluster.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) veths: BTreeMap<u32, PodInterface>,
    /// Addresses of this node.
    pub(crate) node: BTreeSet<IpAddr>,
    /// How many addresses and ports that lead to tunnels have room of their own.
    pub(crate) room_for_tunnels: usize,
    /// What pods have learnt by [`crate::node::Node::teach`].
    pub(crate) learnt: Vec<Learnt>,
    /// Servers whose replies are believed.
    pub(crate) resolvers: BTreeMap<ServiceKey, Resolver>,
}

/// A resolver has said to a pod that a name has an address.
#[derive(Clone, Debug)]
pub(crate) struct Learnt {
    pub(crate) pod: Host,
    pub(crate) name: &'static str,
    pub(crate) address: IpAddr,
}

#[derive(Clone, Debug)]
pub(crate) struct PodInterface {
    pub(crate) pod: ObjectName,
    pub(crate) state: EndpointState,
    pub(crate) master: u32,
    /// What the pod's end was given.
    pub(crate) link_address: Option<[u8; 6]>,
}

fn node(host: Host, role: &str) -> Arc<Node> {
    let addresses = Family::ALL.map(|family| host.at(family)).to_vec();
    Arc::new(Node { labels: labels(&[("role", role)]), addresses })
}

impl World {
    /// All pods, known, and no policy. Every pod names its port TCP 8080 `web`; B has `web` also on UDP 8081.
    pub(crate) fn new() -> Self {
        let web = |protocol, number| NamedPort { name: "web".into(), protocol, number };
        let pod = |host: Host| Pod {
            name: host.name(),
            labels: labels(&[("app", host.app())]),
            node: Some(if host == Host::Remote { "n2" } else { "n1" }.into()),
            addresses: Family::ALL.map(|family| host.at(family)).into_iter().collect(),
            uid: None,
            service_account: None,
            host_network: false,
            host_ports: Box::default(),
            host: None,
            ports: [Some(web(Protocol::Tcp, 8080)), (host == Host::B).then(|| web(Protocol::Udp, 8081))]
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
                .map(|(name, host, role)| (Name::from(name), node(host, role)))
                .into_iter()
                .collect(),
            ..Cluster::default()
        };
        Self {
            cluster,
            veths: Host::LOCAL.map(veth).into(),
            node: Family::ALL.map(|family| Host::Node.at(family)).into(),
            room_for_tunnels: usize::MAX,
            learnt: Vec::new(),
            resolvers: BTreeMap::new(),
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
            is_over_limit: false,
            proxy: Proxy::KubeProxy,
            ports: vec![port],
        };
        self.cluster.services.insert(name.clone(), service.into());
        for (number, (host, port)) in backends.iter().enumerate() {
            for family in Family::ALL {
                let slice_name =
                    ObjectName::new("x", format!("{}-{number}-{}", name.name, family == Family::V6));
                let slice = EndpointSlice {
                    name: slice_name.clone(),
                    service: name.clone(),
                    proxy: Proxy::KubeProxy,
                    ports: vec![SlicePort { name: "".into(), protocol, number: Some(*port) }],
                    endpoints: vec![ready(host.at(family))],
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
        let service = world.last_service();
        let own = |family| {
            if family == Family::V4 { format!("10.97.0.{number}") } else { format!("fd00:97::{number}") }
        };
        service.cluster_addresses = Family::ALL.map(|family| ip(&own(family))).to_vec();
        service.external_addresses = vec![address];
        service.ports[0].node_port = None;
        world
    }

    /// Services at the addresses behind this prefix, each with so many ports of UDP and slices, all of which
    /// lead to a tunnel of the other node.
    #[must_use]
    pub(crate) fn with_tunnels(mut self, prefix: &str, services: u16, ports: u16, slices: u16) -> Self {
        for service in 1..=services {
            let name = ObjectName::new("x", format!("tunnels{service}"));
            let port_name = |number: u16| Name::from(format!("port-{number}").as_str());
            let service_port = |number| ServicePort {
                name: port_name(number),
                protocol: Protocol::Udp,
                number,
                node_port: None,
            };
            let slice_port = |number| SlicePort {
                name: port_name(number),
                protocol: Protocol::Udp,
                number: Some(TUNNEL_PORTS[0]),
            };
            let of = Service {
                name: name.clone(),
                cluster_addresses: vec![ip(&format!("{prefix}.{service}"))],
                external_addresses: Vec::new(),
                internal_local: false,
                external_local: false,
                is_over_limit: false,
                proxy: Proxy::KubeProxy,
                ports: (1..=ports).map(service_port).collect(),
            };
            self.cluster.services.insert(name.clone(), of.into());
            for number in 1..=slices {
                let slice_name = ObjectName::new("x", format!("{}-{number}", name.name));
                let slice = EndpointSlice {
                    name: slice_name.clone(),
                    service: name.clone(),
                    proxy: Proxy::KubeProxy,
                    ports: (1..=ports).map(slice_port).collect(),
                    endpoints: vec![ready(Host::OtherNode.at(Family::V4))],
                };
                self.cluster.slices.insert(slice_name, slice.into());
            }
        }
        self
    }

    /// The last service that was added claims its external address at the node port of the first one.
    #[must_use]
    pub(crate) fn at_the_node_port(mut self) -> Self {
        self.last_service().ports[0].number = NODE_PORT;
        self
    }

    /// The last service that was added has another UDP port with this backend.
    #[must_use]
    pub(crate) fn second_port(mut self, number: u16, (host, backend): (Host, u16)) -> Self {
        let service = self.last_service();
        let name: Name = "second".into();
        let port = ServicePort { name: name.clone(), protocol: Protocol::Udp, number, node_port: None };
        service.ports.push(port);
        let of = service.name.clone();
        let slice_name = ObjectName::new("x", format!("{}-second", of.name));
        let slice = EndpointSlice {
            name: slice_name.clone(),
            service: of,
            proxy: Proxy::KubeProxy,
            ports: vec![SlicePort { name, protocol: Protocol::Udp, number: Some(backend) }],
            endpoints: Family::ALL.map(|family| ready(host.at(family))).to_vec(),
        };
        self.cluster.slices.insert(slice_name, slice.into());
        self
    }

    /// The last service that was added is served by another proxy than kube-proxy.
    #[must_use]
    pub(crate) fn of_another_proxy(mut self) -> Self {
        self.last_service().proxy = Proxy::Other;
        self
    }

    /// The last service that was added has more addresses and ports than fit.
    #[must_use]
    pub(crate) fn over_limit(mut self) -> Self {
        self.last_service().is_over_limit = true;
        self
    }

    fn last_service(&mut self) -> &mut Service {
        let name = ObjectName::new("x", format!("s{}", self.cluster.services.len() - 1));
        Arc::make_mut(&mut self.cluster.services[&name])
    }

    /// All pods may ask a server, before all that other policies say.
    #[must_use]
    pub(crate) fn asks_at(mut self, server: IpAddr) -> Self {
        let cidr = server.into();
        let server = Peer::Block(IpBlock { cidr, except: BTreeSet::new() });
        let matches = Rule { peers: Peers::Listed(vec![server]), ports: Ports::Any };
        let policy = admin_policy("", vec![ClusterRule { action: Action::Accept, matches }]);
        self.cluster.cluster_policies.insert(policy.name.clone(), policy.into());
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

    /// One pod is given the addresses of another, which has none any more.
    #[must_use]
    pub(crate) fn with_address_moved(mut self, from: Host, to: Host) -> Self {
        let pods = &mut self.cluster.pods;
        let former = Arc::make_mut(pods.get_mut(&from.name()).expect("a pod of the world"));
        let moved = std::mem::take(&mut former.addresses);
        Arc::make_mut(pods.get_mut(&to.name()).expect("a pod of the world")).addresses.extend(moved);
        self
    }

    /// A host is a node of the cluster.
    #[must_use]
    pub(crate) fn with_node(mut self, host: Host) -> Self {
        self.cluster.nodes.insert("n3".into(), node(host, "other"));
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
        for address in self.cluster.nodes.values().flat_map(|node| &node.addresses) {
            owners.entry(*address).or_insert(OTHER_NODE);
        }
        let endpoints = self.veths.iter().map(|(ifindex, veth)| (*ifindex, evaluated(veth))).collect();
        let bridged = self.veths.iter().filter(|(_, veth)| veth.master != 0);
        let link_addresses =
            bridged.filter_map(|(ifindex, veth)| Some((*ifindex, veth.link_address?))).collect();
        let nodes = owners.iter().filter(|(_, owner)| is_nodes(**owner));
        let nodes = nodes.map(|(address, _)| *address).collect();
        let services = TunnelServices::of(&self.cluster, &TUNNEL_PORTS.into(), &nodes, self.room_for_tunnels);
        let of_nodes = TUNNEL_PORTS.into_iter().chain(services.node_ports);
        let mut tunnel_ports: BTreeMap<_, _> = of_nodes.map(|port| (port, TunnelPort::OF_NODES)).collect();
        for port in services.ports {
            let port = tunnel_ports.entry(port).or_default();
            *port = port.union(TunnelPort::OF_SERVICES);
        }
        Wanted {
            endpoints,
            owners,
            tunnel_ports,
            tunnel_services: &services.frontends | &services.exceptions,
            tunnel_filter: services.filter,
            resolvers: self.resolvers.clone(),
            link_addresses,
            hosts: WantedHosts::default(),
        }
    }
}
