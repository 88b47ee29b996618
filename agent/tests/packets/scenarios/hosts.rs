//! Host endpoints on the real programs: incoming and outgoing packets at a device of the node's own, compared
//! with the same decision in user space.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use podgate_common::{
    Address,
    Direction::{self, Egress, Ingress},
    EndpointState, Flow, FlowKey, HEARD_BY_NODE, Hook, HostKey, NODE,
    Outcome::{self, Allowed, Denied, Established, Failsafe, Fragment, NotIsolated, Related},
    PortUse, Protocol, Scratch, ServiceEnd, ServiceKey, decide_at_host,
    frames::{Frame, flag},
};
use podgate_core::{
    compiler::{CompileInput, CompiledTables, Incremental, Site},
    memory::Memory,
    model::{
        Action, CalicoEnds, CalicoPolicy, CalicoPolicyKind, CalicoPolicyName, CalicoRule, DEFAULT_TIER,
        EntityMatch, FailsafePorts, HostDevices, HostEndpoint, HostTraffic, LabelExpression, LabelTest, Name,
        ObjectName, Peers, Pod, PolicyScope, PortRule, Ports, Rule, TierOrder,
    },
};
use podgate_datapath::publisher::{EndpointEntry, Wanted};

use crate::{
    node::{Node, in_memory},
    world::{Family, Host, UPLINK, World},
};

/// A node with a host endpoint at its uplink.
struct HostNode {
    node: Node,
    wanted: Wanted,
    tables: CompiledTables,
    flows: BTreeMap<FlowKey, Flow>,
}

impl HostNode {
    fn new(policies: Vec<CalicoPolicy>, is_open: bool) -> Self {
        let mut world = World::new();
        let labels = Arc::new(BTreeMap::from([(Name::from("role"), Name::from("node"))]));
        let host = HostEndpoint::new(
            "n1".into(),
            "n1".into(),
            HostDevices::Every,
            labels,
            Arc::default(),
            &[],
            is_open,
        );
        let calico = &mut world.cluster.calico.v3;
        calico.host_endpoints.insert("n1".into(), Arc::new(host.clone()));
        calico.policies.extend(policies.into_iter().map(|policy| (policy.name.clone(), Arc::new(policy))));
        let mut node = Node::new(&World::new());
        let mut subjects: BTreeMap<ObjectName, Arc<Pod>> =
            world.subjects().map(|pod| (pod.name.clone(), Arc::new(pod.clone()))).collect();
        for traffic in HostTraffic::ALL {
            let end = host.end(traffic);
            subjects.insert(end.name.clone(), end.clone());
        }
        let site = Some(Site { node: &"n1".into(), own_addresses: &world.node });
        let retained = node.publisher.in_force();
        let input = CompileInput { cluster: &world.cluster, site, subjects: &subjects, retained: &retained };
        let tables = Incremental::default().compile(&input).clone();
        let mut wanted = world.wanted(&tables);
        let key = HostKey::of(UPLINK);
        for (key, traffic) in [(key, HostTraffic::Local), (key.forwarded(), HostTraffic::Forwarded)] {
            let subject = tables.subjects[&host.end(traffic).name];
            let entry = EndpointEntry { state: EndpointState::Identified, subject, master: 0 };
            wanted.endpoints.insert(key.0, entry);
        }
        let FailsafePorts { inbound, outbound } = FailsafePorts::default();
        for (ports, of) in [(inbound, PortUse::FAILSAFE_IN), (outbound, PortUse::FAILSAFE_OUT)] {
            for port in ports {
                let known = wanted.hosts.ports.entry(port).or_default();
                *known = known.union(of);
            }
        }
        for family in Family::ALL {
            let node_port = Address::from(node_address(family)).unspecified();
            let heard = Address::from(heard(family));
            wanted.owners.insert(heard.into(), HEARD_BY_NODE);
            wanted.hosts.services.extend([
                (ServiceKey::new(node_port, Protocol::Tcp, 30_080), ServiceEnd::Elsewhere),
                (ServiceKey::new(heard, Protocol::Tcp, 8_080), ServiceEnd::Elsewhere),
                (ServiceKey::new(outside(family).into(), Protocol::Tcp, 443), ServiceEnd::Node),
            ]);
        }
        node.publisher.publish(&mut node.datapath.maps, &tables, &wanted).expect("the kernel takes it");
        Self { node, wanted, tables, flows: BTreeMap::new() }
    }

    /// The verdict that the program and user space must give.
    #[track_caller]
    fn expect(
        &mut self,
        direction: Direction,
        ingress_ifindex: u32,
        frame: &Frame,
        expected: Option<Outcome>,
    ) {
        let bytes = frame.bytes();
        let passes = self.node.programs.run_at_host(direction, UPLINK, ingress_ifindex, &bytes);
        let mut memory = Memory::new(&self.tables);
        let endpoints = self.wanted.endpoints.iter();
        memory.endpoints = endpoints.map(|(key, entry)| (*key, in_memory(&self.tables, entry))).collect();
        memory.owners = self.wanted.owners.iter().map(|(at, owner)| ((*at).into(), *owner)).collect();
        memory.tunnel_ports = self.wanted.tunnel_ports.clone();
        memory.host_ports = self.wanted.hosts.ports.clone();
        memory.host_services = self.wanted.hosts.services.clone();
        memory.flows = std::mem::take(&mut self.flows).into();
        let hook = Hook { direction, ifindex: UPLINK, ingress_ifindex };
        let outcome = decide_at_host(&bytes.as_slice(), &mut { Scratch::EMPTY }, &hook, &memory);
        self.flows = memory.flows.into_inner();
        assert_eq!(outcome, expected, "{frame:?}");
        assert_eq!(passes, expected.is_none_or(Outcome::passes), "the program: {frame:?}");
    }

    #[track_caller]
    fn comes_in(&mut self, frame: &Frame, expected: Option<Outcome>) {
        self.expect(Ingress, UPLINK, frame, expected);
    }

    #[track_caller]
    fn goes_out(&mut self, frame: &Frame, expected: Option<Outcome>) {
        self.expect(Egress, NODE, frame, expected);
    }

    #[track_caller]
    fn is_forwarded(&mut self, frame: &Frame, expected: Option<Outcome>) {
        self.expect(Egress, Host::A.veth(), frame, expected);
    }
}

fn policy(scope: PolicyScope, direction: Direction, rules: Vec<CalicoRule>) -> CalicoPolicy {
    let name = format!("{scope:?}-{direction}").to_lowercase().into();
    let (ingress, egress) = match direction {
        Ingress => (Some(rules), None),
        Egress => (None, Some(rules)),
    };
    CalicoPolicy {
        name: CalicoPolicyName { namespace: None, name, kind: CalicoPolicyKind::GlobalNetworkPolicy },
        tier: DEFAULT_TIER.0.into(),
        order: TierOrder::LAST,
        subject: LabelExpression::Label("role".into(), LabelTest::In(["node".into()].into())),
        ingress,
        egress,
        audit: false,
        removes: false,
        scope,
    }
}

fn rule(action: Action, nets: &[&str], port: Option<u16>) -> CalicoRule {
    let listed = nets.iter().map(|net| net.parse().expect("a network")).collect();
    let peer = EntityMatch { nets: (!nets.is_empty()).then_some(listed), ..EntityMatch::default() };
    let ports = port.map_or(Ports::Any, |port| {
        Ports::Listed(vec![PortRule::Range { protocol: Protocol::Tcp, first: port, last: port }])
    });
    let peers = Peers::Calico(Box::new(CalicoEnds { peer, ..CalicoEnds::default() }));
    CalicoRule { action, matches: Rule { peers, ports } }
}

fn node_address(family: Family) -> IpAddr {
    let node = World::new().node;
    *node.iter().find(|at| at.is_ipv4() == (family == Family::V4)).expect("a node has both")
}

/// An address that is not the node's own, at which its stack takes packets.
fn heard(family: Family) -> IpAddr {
    match family {
        Family::V4 => [10, 96, 0, 200].into(),
        Family::V6 => "fd00:96::200".parse().expect("an address"),
    }
}

fn outside(family: Family) -> IpAddr {
    match family {
        Family::V4 => [203, 0, 113, 7].into(),
        Family::V6 => "2001:db8:7::7".parse().expect("an address"),
    }
}

#[test]
fn a_closed_host_endpoint_has_failsafe_ports_and_answers() {
    let mut host = HostNode::new(Vec::new(), false);
    for family in Family::ALL {
        let (own, far) = (node_address(family), outside(family));
        let to = |port, flags| Frame::tcp((far, 5_000), (own, port), flags);
        let from = |port, flags| Frame::tcp((own, 6_000), (far, port), flags);
        host.comes_in(&to(80, flag::SYN), Some(Denied));
        host.goes_out(&from(80, flag::SYN), Some(Denied));
        host.comes_in(&to(22, flag::SYN), Some(Failsafe));
        host.goes_out(&to(22, flag::SYN | flag::ACK).reversed(), Some(Established));
        host.goes_out(&from(6443, flag::SYN), Some(Failsafe));
        host.comes_in(&from(6443, flag::SYN | flag::ACK).reversed(), Some(Established));
        host.comes_in(&Frame::unreachable(far, &from(6443, flag::SYN)), Some(Related));
        host.comes_in(&Frame::unreachable(far, &from(81, flag::SYN)), Some(Denied));
        host.comes_in(&Frame::echo_request(far, own, 9), Some(Denied));
        let parts = Frame::udp((far, 5), (own, 9), 200).fragments(7, 10);
        host.comes_in(&parts[1], Some(Fragment));
        // No policy of this host endpoint applies to forwarded traffic.
        let pod = Host::A.at(family);
        host.comes_in(&Frame::tcp((far, 5_000), (pod, 80), flag::SYN), None);
        host.is_forwarded(&Frame::tcp((pod, 5_000), (far, 80), flag::SYN), None);
        host.comes_in(&to(30_080, flag::SYN), None);
        // Neither are services that lead elsewhere; one of the node's own is.
        host.comes_in(&Frame::tcp((far, 5_000), (heard(family), 8_080), flag::SYN), None);
        host.comes_in(&Frame::tcp((far, 5_000), (heard(family), 8_081), flag::SYN), Some(Denied));
        host.comes_in(&Frame::tcp((own, 5_000), (far, 443), flag::SYN), Some(Denied));
        // What it masquerades has its address, and answers come to it.
        host.is_forwarded(&Frame::udp((own, 41_000), (far, 53), 0), Some(Established));
        host.comes_in(&Frame::udp((far, 53), (own, 41_000), 0), Some(Established));
    }
}

#[test]
fn policies_and_profiles_open_a_host_endpoint() {
    let allows = |nets: &[&str], port| vec![rule(Action::Accept, nets, port)];
    let ingress = policy(PolicyScope::Local, Ingress, allows(&["203.0.113.0/24"], Some(80)));
    let mut host = HostNode::new(vec![ingress], true);
    let (own, far) = (node_address(Family::V4), outside(Family::V4));
    let other: IpAddr = [198, 51, 100, 1].into();
    let to = |from, port| Frame::tcp((from, 5_000), (own, port), flag::SYN);
    host.comes_in(&to(far, 80), Some(Allowed));
    host.comes_in(&to(far, 81), Some(Denied));
    host.comes_in(&to(other, 80), Some(Denied));
    host.goes_out(&Frame::tcp((own, 6_000), (other, 443), flag::SYN), Some(NotIsolated));
    host.comes_in(&Frame::tcp((other, 443), (own, 6_000), flag::SYN | flag::ACK), Some(Established));
}

#[test]
fn policies_for_forwarded_traffic_and_before_translation_apply_to_what_is_not_the_nodes() {
    let forward =
        policy(PolicyScope::OnForward, Ingress, vec![rule(Action::Accept, &["203.0.113.0/24"], Some(8_080))]);
    let out = policy(
        PolicyScope::OnForward,
        Egress,
        vec![rule(Action::Deny, &["198.51.100.0/24"], None), rule(Action::Accept, &[], None)],
    );
    let mut first =
        policy(PolicyScope::PreDnat, Ingress, vec![rule(Action::Accept, &["192.0.2.0/24"], None)]);
    first.order = TierOrder::of(5.0).expect("a number");
    let mut host = HostNode::new(vec![forward, out, first], false);
    let (own, far) = (node_address(Family::V4), outside(Family::V4));
    let (closed, first): (IpAddr, IpAddr) = ([198, 51, 100, 1].into(), [192, 0, 2, 9].into());
    let pod = Host::A.at(Family::V4);
    let to = |from, at, port| Frame::tcp((from, 5_000), (at, port), flag::SYN);
    for at in [own, pod] {
        host.comes_in(&to(far, at, 8_080), Some(Allowed));
        host.comes_in(&to(far, at, 8_081), Some(Denied));
        host.comes_in(&to(first, at, 8_081), Some(Allowed));
    }
    host.comes_in(&to(far, own, 30_080), Some(Denied));
    host.is_forwarded(&to(pod, far, 443), Some(Allowed));
    host.is_forwarded(&to(pod, closed, 443), Some(Denied));
    host.goes_out(&to(own, closed, 443), Some(Denied));
    // An answer to what came in, by the same device.
    host.is_forwarded(&Frame::tcp((pod, 8_080), (far, 5_000), flag::SYN | flag::ACK), Some(Established));
}
