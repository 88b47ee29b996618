//! Incoming and outgoing packets at a device with a host endpoint.

use super::*;
use crate::{Address, EndpointState, HostKey, PortUse, Protocol, ServiceEnd, ServiceKey};

const ETH0: u32 = 2;
const ETH1: u32 = 3;
const TUNNEL: u32 = 20;

/// Which of its two kinds of traffic policies isolate.
#[derive(Clone, Copy)]
struct Isolated {
    local: bool,
    forwarded: bool,
}

const LOCAL: Isolated = Isolated { local: true, forwarded: false };
const BOTH: Isolated = Isolated { local: true, forwarded: true };

impl Node {
    fn with_host(isolated: Isolated) -> Self {
        let node = Self::new();
        node.allows.set(false);
        let endpoint = |isolates: bool| {
            let policy = if isolates { PolicyId(1) } else { PolicyId::NOT_ISOLATED };
            let state = EndpointState::Identified as u32;
            Endpoint { state, ingress: policy, egress: policy, ..Endpoint::PENDING }
        };
        for ifindex in [ETH0, ETH1] {
            let key = HostKey::of(ifindex);
            node.hosts.borrow_mut().insert(key.0, endpoint(isolated.local));
            node.hosts.borrow_mut().insert(key.forwarded().0, endpoint(isolated.forwarded));
        }
        let known = [(22, PortUse::FAILSAFE_IN), (6443, PortUse::FAILSAFE_OUT)];
        node.host_ports.borrow_mut().extend(known);
        let node_port = ServiceKey::new(Address::from(super::node()).unspecified(), Protocol::Tcp, 30_080);
        node.host_services.borrow_mut().insert(node_port, ServiceEnd::Elsewhere);
        node
    }

    fn at_host(&self, hook: Hook, sent: &Sent<'_>) -> Option<Outcome> {
        decide_at_host(sent, &mut { Scratch::EMPTY }, &hook, self)
    }

    fn comes_in(&self, ifindex: u32, frame: &Frame) -> Option<Outcome> {
        let hook = Hook { direction: Direction::Ingress, ifindex, ingress_ifindex: ifindex };
        self.at_host(hook, &Sent { bytes: &frame.bytes(), ..Sent::default() })
    }

    /// A packet of one of the node's own processes.
    fn goes_out(&self, ifindex: u32, frame: &Frame) -> Option<Outcome> {
        self.is_sent_on(NODE, ifindex, frame)
    }

    /// A packet that has entered the node elsewhere.
    fn is_sent_on(&self, ingress_ifindex: u32, ifindex: u32, frame: &Frame) -> Option<Outcome> {
        let hook = Hook { direction: Direction::Egress, ifindex, ingress_ifindex };
        self.at_host(hook, &Sent { bytes: &frame.bytes(), ..Sent::default() })
    }
}

fn to_node(port: u16, flags: u8) -> Frame {
    Frame::tcp((server(), 5_000), (node(), port), flags)
}

fn from_node(port: u16, flags: u8) -> Frame {
    Frame::tcp((node(), 6_000), (server(), port), flags)
}

#[test]
fn only_failsafe_ports_are_open_where_nothing_is_allowed_and_answers_pass() {
    let host = Node::with_host(LOCAL);
    assert_eq!(host.comes_in(ETH0, &to_node(80, flag::SYN)), Some(Outcome::Denied));
    assert_eq!(host.goes_out(ETH0, &from_node(80, flag::SYN)), Some(Outcome::Denied));
    assert_eq!(host.flows.borrow().len(), 0, "what is denied leaves no trace");
    assert_eq!(host.comes_in(ETH0, &to_node(22, flag::SYN)), Some(Outcome::Failsafe));
    let answer = to_node(22, flag::SYN | flag::ACK).reversed();
    assert_eq!(host.goes_out(ETH0, &answer), Some(Outcome::Established));
    assert_eq!(host.goes_out(ETH0, &from_node(6443, flag::SYN)), Some(Outcome::Failsafe));
    let answer = from_node(6443, flag::SYN | flag::ACK).reversed();
    assert_eq!(host.comes_in(ETH0, &answer), Some(Outcome::Established));
    assert_eq!(host.comes_in(ETH0, &to_node(6443, flag::SYN)), Some(Outcome::Denied), "out is not in");
}

#[test]
fn a_failsafe_connection_goes_on_without_an_entry() {
    let host = Node::with_host(LOCAL);
    host.full.set(true);
    assert_eq!(host.comes_in(ETH0, &to_node(22, flag::ACK)), Some(Outcome::Failsafe));
    assert_eq!(host.goes_out(ETH0, &to_node(22, flag::ACK).reversed()), Some(Outcome::Failsafe));
    assert_eq!(host.comes_in(ETH0, &from_node(6443, flag::ACK).reversed()), Some(Outcome::Failsafe));
    // A port alone opens nothing in the other direction.
    assert_eq!(host.goes_out(ETH0, &to_node(22, flag::SYN).reversed()), Some(Outcome::Denied));
}

#[test]
fn what_policies_allow_passes_and_its_answers_by_any_device() {
    let host = Node::with_host(LOCAL);
    host.allows.set(true);
    assert_eq!(host.comes_in(ETH0, &to_node(80, flag::SYN)), Some(Outcome::Allowed));
    assert_eq!(host.goes_out(ETH1, &to_node(80, flag::ACK).reversed()), Some(Outcome::Established));
    host.allows.set(false);
    assert_eq!(host.comes_in(ETH1, &to_node(80, flag::ACK)), Some(Outcome::Established), "it is kept");
    assert_eq!(host.comes_in(ETH0, &to_node(80, flag::SYN)), Some(Outcome::Denied), "a new one is not");
}

#[test]
fn a_connection_that_a_socket_of_the_node_has_goes_on() {
    let host = Node::with_host(LOCAL);
    let hook = Hook { direction: Direction::Ingress, ifindex: ETH0, ingress_ifindex: ETH0 };
    let bytes = to_node(80, flag::ACK).bytes();
    let of_socket = |has_connection| Sent { bytes: &bytes, has_connection, ..Sent::default() };
    assert_eq!(host.at_host(hook, &of_socket(false)), Some(Outcome::Denied));
    assert_eq!(host.at_host(hook, &of_socket(true)), Some(Outcome::Established));
    assert_eq!(host.goes_out(ETH0, &to_node(80, flag::ACK).reversed()), Some(Outcome::Established));
    let opening = to_node(80, flag::SYN).bytes();
    let opening = Sent { bytes: &opening, has_connection: true, ..Sent::default() };
    assert_eq!(host.at_host(hook, &opening), Some(Outcome::Denied), "a new one is evaluated");
}

#[test]
fn forwarded_packets_pass_unless_policies_apply_to_them() {
    let in_and_out = |frame: &Frame| (frame.clone(), frame.reversed());
    let (to_pod, from_pod) = in_and_out(&Frame::tcp((server(), 5_000), (pod(), 80), flag::SYN));
    let free = Node::with_host(LOCAL);
    assert_eq!(free.comes_in(ETH0, &to_pod), None);
    assert_eq!(free.is_sent_on(VETH, ETH0, &from_pod), None);
    assert_eq!(free.flows.borrow().len(), 0, "nothing is noted of it");
    let closed = Node::with_host(BOTH);
    assert_eq!(closed.comes_in(ETH0, &to_pod), Some(Outcome::Denied));
    assert_eq!(closed.is_sent_on(VETH, ETH0, &from_pod), Some(Outcome::Denied));
    closed.allows.set(true);
    assert_eq!(closed.comes_in(ETH0, &to_pod), Some(Outcome::Allowed));
    closed.allows.set(false);
    assert_eq!(closed.is_sent_on(ETH0, ETH1, &to_pod), Some(Outcome::Denied), "it leaves by another one");
    let answer = Frame::tcp((pod(), 80), (server(), 5_000), flag::ACK);
    assert_eq!(closed.is_sent_on(VETH, ETH0, &answer), Some(Outcome::Established));
}

#[test]
fn answers_to_what_is_forwarded_pass_where_policies_apply_one_way() {
    let host = Node::with_host(BOTH);
    for endpoint in host.hosts.borrow_mut().values_mut() {
        endpoint.egress = PolicyId::NOT_ISOLATED;
    }
    let of_pod = Frame::tcp((pod(), 5_000), (server(), 80), flag::SYN);
    let answer = Frame::tcp((pod(), 5_000), (server(), 80), flag::SYN | flag::ACK).reversed();
    assert_eq!(host.comes_in(ETH0, &answer), Some(Outcome::Denied), "to what was not asked for");
    assert_eq!(host.is_sent_on(VETH, ETH0, &of_pod), Some(Outcome::Established));
    assert_eq!(host.comes_in(ETH0, &answer), Some(Outcome::Established));
}

#[test]
fn what_the_node_masquerades_is_forwarded_and_so_are_its_answers() {
    let host = Node::with_host(LOCAL);
    let masqueraded = Frame::udp((node(), 40_000), (server(), 53), 0);
    assert_eq!(host.is_sent_on(VETH, ETH0, &masqueraded), Some(Outcome::Established));
    assert_eq!(host.comes_in(ETH0, &masqueraded.reversed()), Some(Outcome::Established));
    let other = Frame::udp((server(), 53), (node(), 40_001), 0);
    assert_eq!(host.comes_in(ETH0, &other), Some(Outcome::Denied));
}

#[test]
fn a_node_port_leads_elsewhere_and_the_rest_of_the_nodes_addresses_do_not() {
    let host = Node::with_host(LOCAL);
    assert_eq!(host.comes_in(ETH0, &to_node(30_080, flag::SYN)), None);
    assert_eq!(host.comes_in(ETH0, &to_node(30_081, flag::SYN)), Some(Outcome::Denied));
    let closed = Node::with_host(BOTH);
    assert_eq!(closed.comes_in(ETH0, &to_node(30_080, flag::SYN)), Some(Outcome::Denied));
    let v6 = |port| Frame::tcp((ip("2001:db8::1"), 5), (ip("fd00:f::1"), port), flag::SYN);
    assert_eq!(host.comes_in(ETH0, &v6(30_080)), Some(Outcome::Denied), "it is one of IPv4 alone");
}

#[test]
fn what_the_nodes_stack_takes_belongs_to_the_node_also_at_addresses_that_are_not_its_own() {
    let host = Node::with_host(LOCAL);
    for to in ["255.255.255.255", "224.0.0.5", "172.16.0.255", "10.96.0.9"] {
        let datagram = Frame::udp((server(), 5), (ip(to), 9), 200);
        assert_eq!(host.comes_in(ETH0, &datagram), Some(Outcome::Denied), "{to}");
        let cut = Frame::ip(server(), ip(to), crate::protocol::number::TCP, std::vec![0; 6]);
        assert_eq!(host.comes_in(ETH0, &cut), Some(Outcome::Unreadable), "{to}");
        assert_eq!(host.comes_in(ETH0, &datagram.fragments(7, 10)[1]), Some(Outcome::Fragment), "{to}");
    }
}

/// kube-proxy translates the destination only behind the device.
#[test]
fn a_service_belongs_to_the_node_where_it_leads_to_it() {
    let host = Node::with_host(LOCAL);
    let (heard, routed, other) = (ip("10.96.0.9"), ip("198.51.100.9"), ip("198.51.100.10"));
    let key = |at: IpAddr| ServiceKey::new(at.into(), Protocol::Tcp, 80);
    host.host_services.borrow_mut().extend([
        (key(heard), ServiceEnd::Elsewhere),
        (key(routed), ServiceEnd::Node),
        (ServiceKey::of_address(routed.into()), ServiceEnd::Node),
        (key(pod()), ServiceEnd::Node),
    ]);
    let to = |at, port| Frame::tcp((server(), 5_000), (at, port), flag::SYN);
    assert_eq!(host.comes_in(ETH0, &to(heard, 80)), None);
    assert_eq!(host.comes_in(ETH0, &to(heard, 22)), Some(Outcome::Failsafe), "no service has that port");
    assert_eq!(host.comes_in(ETH0, &to(heard, 81)), Some(Outcome::Denied));
    assert_eq!(host.comes_in(ETH0, &to(routed, 80)), Some(Outcome::Denied));
    assert_eq!(host.comes_in(ETH0, &to(routed, 81)), None);
    assert_eq!(host.comes_in(ETH0, &to(other, 80)), None);
    assert_eq!(host.comes_in(ETH0, &to(pod(), 80)), None, "a pod has the address");
    // The kernel puts the parts together before it translates them.
    let cut = |to| Frame::ip(server(), to, crate::protocol::number::TCP, std::vec![0; 6]);
    assert_eq!(host.comes_in(ETH0, &cut(routed)), Some(Outcome::Unreadable));
    assert_eq!(host.comes_in(ETH0, &cut(other)), None);
}

#[test]
fn what_a_pod_sends_by_the_node_is_in_the_pods_share_of_the_table() {
    let host = Node::with_host(BOTH);
    host.allows.set(true);
    let shares = || host.flows.borrow().values().map(Flow::charged_to).collect::<std::vec::Vec<_>>();
    let own = from_node(80, flag::SYN);
    assert_eq!(host.goes_out(ETH0, &own), Some(Outcome::Allowed));
    assert_eq!(shares(), [HostKey::of(ETH0).0]);
    host.flows.borrow_mut().clear();
    let of_pod = Frame::tcp((pod(), 5_000), (server(), 80), flag::SYN);
    assert_eq!(host.is_sent_on(VETH, ETH0, &of_pod), Some(Outcome::Allowed));
    assert_eq!(shares(), [VETH]);
    host.allows.set(false);
    let answer = Frame::tcp((pod(), 5_000), (server(), 80), flag::SYN | flag::ACK).reversed();
    assert_eq!(host.comes_in(ETH0, &answer), Some(Outcome::Established));
}

#[test]
fn the_link_stays_alive_and_what_is_no_device_of_a_host_endpoint_is_left_alone() {
    let host = Node::with_host(BOTH);
    let solicitation = Frame::solicitation(ip("fe80::1"), ip("fd00:f::1"), ip("fd00:f::1"));
    assert_eq!(host.comes_in(ETH0, &solicitation), None);
    let to_bridged = Frame::solicitation(ip("fe80::1"), ip("fd00::1"), ip("fd00::1"));
    assert_eq!(host.comes_in(ETH0, &to_bridged), None);
    // What a router has sent on is none, whatever it says.
    let routed = Frame { hop_limit: 254, ..to_bridged };
    assert_eq!(host.comes_in(ETH0, &routed), Some(Outcome::Denied));
    assert_eq!(host.is_sent_on(VETH, ETH0, &routed.reversed()), Some(Outcome::Denied));
    let hook = Hook { direction: Direction::Ingress, ifindex: ETH0, ingress_ifindex: ETH0 };
    let arp = crate::frames::arp(1, [192, 0, 2, 1].into(), [172, 16, 0, 1].into());
    let lldp = [&[0; 12][..], &[0x88, 0xcc], &[0; 40]].concat();
    let vlan = to_node(80, flag::SYN).bytes();
    for sent in [
        Sent { bytes: &arp, ..Sent::default() },
        Sent { bytes: &lldp, ..Sent::default() },
        Sent { bytes: &vlan, is_tagged: true, vlan: 7, ..Sent::default() },
    ] {
        assert_eq!(host.at_host(hook, &sent), None);
    }
    assert_eq!(host.comes_in(ETH0 + 10, &to_node(80, flag::SYN)), None);
}

/// The kernel delivers such frames as if they had no tag, also when there are two.
#[test]
fn a_tag_with_a_priority_alone_hides_nothing() {
    let host = Node::with_host(LOCAL);
    let hook = Hook { direction: Direction::Ingress, ifindex: ETH0, ingress_ifindex: ETH0 };
    let plain = to_node(80, flag::SYN).bytes();
    let tagged = Sent { bytes: &plain, is_tagged: true, ..Sent::default() };
    assert_eq!(host.at_host(hook, &tagged), Some(Outcome::Denied));
    for kind in [[0x81, 0x00], [0x88, 0xa8]] {
        let twice = [&plain[..12], &kind, &[0, 0], &plain[12..]].concat();
        let twice = Sent { bytes: &twice, is_tagged: true, ..Sent::default() };
        assert_eq!(host.at_host(hook, &twice), Some(Outcome::Unreadable));
    }
}

#[test]
fn what_cannot_be_read_is_dropped_where_the_node_is_closed() {
    let cut = |to: IpAddr| Frame::ip(server(), to, crate::protocol::number::TCP, std::vec![0; 6]);
    let host = Node::with_host(LOCAL);
    assert_eq!(host.comes_in(ETH0, &cut(node())), Some(Outcome::Unreadable));
    assert_eq!(host.comes_in(ETH0, &cut(pod())), None);
    let parts = Frame::udp((server(), 5), (node(), 9), 200).fragments(7, 10);
    assert_eq!(host.comes_in(ETH0, &parts[1]), Some(Outcome::Fragment));
    host.allows.set(true);
    assert_eq!(
        parts.iter().map(|part| host.comes_in(ETH0, part)).collect::<std::vec::Vec<_>>(),
        [Some(Outcome::Allowed), Some(Outcome::Established), Some(Outcome::Established)]
    );
}

#[test]
fn errors_about_known_connections_pass_and_others_do_not() {
    let host = Node::with_host(LOCAL);
    let router = ip("198.51.100.1");
    let quoted = from_node(6443, flag::SYN);
    let error = Frame::unreachable(router, &quoted);
    assert_eq!(host.comes_in(ETH0, &error), Some(Outcome::Denied));
    assert_eq!(host.goes_out(ETH0, &quoted), Some(Outcome::Failsafe));
    assert_eq!(host.comes_in(ETH0, &error), Some(Outcome::Related));
    let of_pod = Frame::unreachable(router, &Frame::udp((pod(), 1), (server(), 2), 0));
    assert_eq!(host.comes_in(ETH0, &of_pod), None, "of a connection that is forwarded");
}

#[test]
fn tunnels_between_nodes_carry_on() {
    let host = Node::with_host(BOTH);
    let other = ip("172.16.0.2");
    let vxlan = |from: IpAddr, to: IpAddr| Frame::udp((from, 50_000), (to, 4_789), 64);
    assert_eq!(host.comes_in(ETH0, &vxlan(other, node())), None);
    assert_eq!(host.is_sent_on(TUNNEL, ETH0, &vxlan(node(), other)), None);
    assert_eq!(host.comes_in(ETH0, &vxlan(server(), node())), Some(Outcome::Denied));
    for part in vxlan(other, node()).fragments(7, 10) {
        assert_eq!(host.comes_in(ETH0, &part), None);
    }
    // Without these no tunnel learns how large its packets may be.
    let router = ip("198.51.100.1");
    assert_eq!(host.comes_in(ETH0, &Frame::unreachable(router, &vxlan(node(), other))), None);
    assert_eq!(host.goes_out(ETH0, &Frame::unreachable(node(), &vxlan(other, node()))), None);
    let strangers = Frame::unreachable(router, &vxlan(node(), server()));
    assert_eq!(host.comes_in(ETH0, &strangers), Some(Outcome::Denied));
}

#[test]
fn a_change_that_is_over_gives_way_to_what_was_before() {
    let host = Node::with_host(LOCAL);
    let syn = to_node(80, flag::SYN);
    assert_eq!(host.comes_in(ETH0, &syn), Some(Outcome::Denied));
    host.host_change_expired.set(true);
    assert_eq!(host.comes_in(ETH0, &syn), None, "there was nothing before");
    let before = HostKey::of(ETH0).before();
    let open = Endpoint { state: EndpointState::Identified as u32, ..Endpoint::PENDING };
    host.hosts.borrow_mut().insert(before.0, open);
    assert_eq!(host.comes_in(ETH0, &syn), Some(Outcome::NotIsolated));
    host.hosts.borrow_mut().insert(before.0, Endpoint { ingress: PolicyId(1), ..open });
    assert_eq!(host.comes_in(ETH0, &syn), Some(Outcome::Denied));
}

#[test]
fn a_live_connection_meets_other_policies_where_it_shall() {
    let host = Node::with_host(LOCAL);
    host.allows.set(true);
    let bytes = to_node(80, flag::ACK).bytes();
    let hook = Hook { direction: Direction::Ingress, ifindex: ETH0, ingress_ifindex: ETH0 };
    let goes_on = || host.at_host(hook, &Sent { bytes: &bytes, has_connection: true, ..Sent::default() });
    assert_eq!(host.comes_in(ETH0, &to_node(80, flag::SYN)), Some(Outcome::Allowed));
    host.allows.set(false);
    host.revision.set(2);
    assert_eq!(goes_on(), Some(Outcome::Established));
    host.recheck.set(true);
    assert_eq!(goes_on(), Some(Outcome::Denied), "its socket says nothing of that");
}

/// As the kernel makes them of a pod's datagram.
#[test]
fn what_the_kernel_makes_in_the_name_of_a_pod_is_forwarded() {
    let host = Node::with_host(LOCAL);
    let of_pod = Frame::udp((ip("fd00::1"), 9), (ip("2001:db8::1"), 53), 0);
    assert_eq!(host.goes_out(ETH0, &of_pod), None);
    let own = Frame::udp((ip("fd00:f::1"), 9), (ip("2001:db8::1"), 53), 0);
    assert_eq!(host.goes_out(ETH0, &own), Some(Outcome::Denied));
}
