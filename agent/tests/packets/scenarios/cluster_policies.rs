//! ClusterNetworkPolicies: on a pod that no NetworkPolicy isolates, for protocols without ports, towards the
//! own node and behind services.

use std::sync::Arc;

use podgate_common::{
    Direction::{self, Egress, Ingress},
    NODE,
    Outcome::{Allowed, Deferred, Denied, Established, NotIsolated, OwnNode, Related, Unreadable},
    Protocol::{Tcp, Udp},
    frames::{Frame, flag},
};
use podgate_core::model::{
    Action, ClusterNetworkPolicy, ClusterPolicyKind, ClusterPolicyName, ClusterRule, ClusterSubject, Peer,
    Peers, Ports, Rule, Selector, Tier,
};

use crate::{
    node::Node,
    world::{
        Family, Host, NODE_PORT, UPLINK, World, all_pods, allow, app, arrives, block, leaves, port,
        service_at,
    },
};

const SYN: u8 = flag::SYN;
const ACK: u8 = flag::ACK;

/// Adds a policy for the pod `host` with one rule; the first one that is added comes first.
pub(super) fn with(
    mut world: World,
    tier: Tier,
    host: Host,
    direction: Direction,
    rule: ClusterRule,
) -> World {
    let number = u16::try_from(world.cluster.cluster_policies.len()).expect("a few policies");
    let label = world.cluster.pods[&host.name()].labels["app"].clone();
    let (ingress, egress) = match direction {
        Ingress => (vec![rule], vec![]),
        Egress => (vec![], vec![rule]),
    };
    let name = ClusterPolicyName {
        name: format!("c{number}").into(),
        kind: ClusterPolicyKind::ClusterNetworkPolicy,
    };
    let subject = ClusterSubject { namespaces: Selector::EVERYTHING, pods: app(&label) };
    let policy = ClusterNetworkPolicy {
        name: name.clone(),
        tier,
        priority: number,
        subject,
        ingress,
        egress,
        audit: false,
    };
    world.cluster.cluster_policies.insert(name, policy.into());
    world
}

pub(super) fn rule(action: Action, peers: Peers, ports: Ports) -> ClusterRule {
    ClusterRule { action, matches: Rule { peers, ports } }
}

pub(super) fn own_node() -> Peers {
    let families = Family::ALL.map(|family| Host::Node.at(family));
    let blocks = families
        .map(|address| block(&format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 }), &[]));
    Peers::Listed(blocks.into_iter().flat_map(listed).collect())
}

fn listed(peers: Peers) -> Vec<Peer> {
    match peers {
        Peers::Listed(peers) => peers,
        Peers::Any | Peers::Calico(_) => Vec::new(),
    }
}

fn everywhere() -> Peers {
    Peers::Listed(["0.0.0.0/0", "::/0"].into_iter().flat_map(|cidr| listed(block(cidr, &[]))).collect())
}

#[test]
fn a_cluster_policy_evaluates_a_pod_and_isolates_nothing() {
    let deny_b = rule(
        Action::Deny,
        Peers::Listed(vec![Peer::Pods { namespaces: Some(Selector::EVERYTHING), pods: app("b") }]),
        port(Tcp, 80),
    );
    let world = with(World::new(), Tier::Admin, Host::A, Egress, deny_b);
    let mut node = Node::new(&world);
    for family in Family::ALL {
        let (a, b, z) = (Host::A.at(family), Host::B.at(family), Host::Z.at(family));
        node.expect(leaves(Host::A), &Frame::tcp((a, 9), (b, 80), SYN), Denied);
        node.expect(leaves(Host::A), &Frame::tcp((a, 9), (b, 81), SYN), Allowed);
        node.expect(leaves(Host::A), &Frame::udp((a, 9), (b, 80), 1), Allowed);
        node.expect(leaves(Host::A), &Frame::tcp((a, 9), (z, 80), SYN), Allowed);
        node.expect(leaves(Host::A), &Frame::echo_request(a, b, 1), Allowed);
        // Ingress has no rules: no one evaluates it.
        node.expect(arrives(Host::A, Host::B.veth()), &Frame::tcp((b, 10), (a, 80), SYN), NotIsolated);
        // What cannot be read could be what is denied.
        let cut = Frame::tcp((a, 9), (b, 80), SYN).bytes();
        let length = if family == Family::V4 { 36 } else { 56 };
        node.expect_bytes(leaves(Host::A), &cut[..length], Unreadable);
    }
}

#[test]
fn networks_match_protocols_without_ports_and_replies_and_errors_pass() {
    let accept_tcp = rule(Action::Accept, everywhere(), port(Tcp, 80));
    let world = with(World::new(), Tier::Admin, Host::A, Egress, accept_tcp);
    let world = with(world, Tier::Admin, Host::A, Egress, rule(Action::Deny, everywhere(), Ports::Any));
    let world = with(world, Tier::Admin, Host::A, Ingress, rule(Action::Deny, Peers::Any, Ports::Any));
    let mut node = Node::new(&world);
    for family in Family::ALL {
        let (a, outside) = (Host::A.at(family), Host::Outside.at(family));
        let opened = Frame::tcp((a, 9), (outside, 80), SYN);
        node.expect(leaves(Host::A), &opened, Allowed);
        node.expect(arrives(Host::A, UPLINK), &Frame::tcp((outside, 80), (a, 9), SYN | ACK), Established);
        node.expect(arrives(Host::A, UPLINK), &Frame::unreachable(outside, &opened), Related);
        node.expect(leaves(Host::A), &Frame::echo_request(a, outside, 1), Denied);
        node.expect(leaves(Host::A), &Frame::ip(a, outside, 47, vec![0; 20]), Denied);
        node.expect(leaves(Host::A), &Frame::udp((a, 9), (outside, 80), 1), Denied);
        node.expect(arrives(Host::A, UPLINK), &Frame::tcp((outside, 10), (a, 80), SYN), Denied);
    }
}

#[test]
fn the_own_node_is_behind_cluster_policies_alone_and_only_as_a_destination() {
    let deny = |ports| rule(Action::Deny, own_node(), ports);
    let accept = rule(Action::Accept, own_node(), port(Udp, 53));
    // A NetworkPolicy that isolates settles what Admin leaves open: the own node passes, the baseline is not
    // asked.
    let isolated = World::new().egress(Host::A, []).ingress(Host::A, []);
    let by_admin = with(isolated.clone(), Tier::Admin, Host::A, Egress, deny(port(Tcp, 80)));
    let by_admin = with(by_admin, Tier::Admin, Host::A, Ingress, rule(Action::Deny, Peers::Any, Ports::Any));
    let by_base = with(World::new(), Tier::Baseline, Host::A, Egress, accept);
    let by_base = with(by_base, Tier::Baseline, Host::A, Egress, deny(Ports::Any));
    let both = with(isolated, Tier::Baseline, Host::A, Egress, deny(Ports::Any));
    // (world, TCP 80, UDP 53, echo)
    let table = [
        (&by_admin, [Denied, OwnNode, OwnNode]),
        (&by_base, [Denied, OwnNode, Denied]),
        (&both, [OwnNode, OwnNode, OwnNode]),
    ];
    for (world, [tcp, udp, echo]) in table {
        let mut node = Node::new(world);
        for family in Family::ALL {
            let (a, to) = (Host::A.at(family), Host::Node.at(family));
            node.expect(leaves(Host::A), &Frame::tcp((a, 9), (to, 80), SYN), tcp);
            node.expect(leaves(Host::A), &Frame::udp((a, 9), (to, 53), 1), udp);
            node.expect(leaves(Host::A), &Frame::echo_request(a, to, 1), echo);
            node.expect(arrives(Host::A, NODE), &Frame::tcp((to, 10), (a, 80), SYN), OwnNode);
        }
    }
}

#[test]
fn a_rule_about_nodes_follows_their_labels_and_addresses() {
    let nodes = |role: &str| {
        Peers::Listed(vec![Peer::Nodes(Selector::All(vec![podgate_core::model::Requirement::In(
            "role".into(),
            [role.into()].into(),
        )]))])
    };
    let mut world =
        with(World::new(), Tier::Admin, Host::A, Egress, rule(Action::Deny, nodes("other"), Ports::Any));
    let mut node = Node::new(&world);
    let ask = |node: &mut Node, own, other| {
        for family in Family::ALL {
            let a = (Host::A.at(family), 9);
            node.forget();
            node.expect(leaves(Host::A), &Frame::tcp(a, (Host::Node.at(family), 80), SYN), own);
            node.expect(leaves(Host::A), &Frame::tcp(a, (Host::OtherNode.at(family), 80), SYN), other);
        }
    };
    ask(&mut node, OwnNode, Denied);
    let swapped = |world: &mut World, name: &str, role: &str| {
        let labels = crate::world::labels(&[("role", role)]);
        Arc::make_mut(world.cluster.nodes.get_mut(name).expect("a node of the world")).labels = labels;
    };
    swapped(&mut world, "n1", "other");
    swapped(&mut world, "n2", "own");
    node.publish(&world);
    ask(&mut node, Denied, Allowed);
    let nodes = &mut world.cluster.nodes;
    let addresses = std::mem::take(&mut Arc::make_mut(&mut nodes["n2"]).addresses);
    Arc::make_mut(&mut nodes["n1"]).addresses.extend(addresses);
    node.publish(&world);
    ask(&mut node, Denied, Denied);
}

#[test]
fn cluster_policies_hold_for_what_is_behind_a_service() {
    let deny_z = || {
        let z = Peers::Listed(vec![Peer::Pods { namespaces: Some(Selector::EVERYTHING), pods: app("z") }]);
        rule(Action::Deny, z, Ports::Any)
    };
    let deny_node = || rule(Action::Deny, own_node(), Ports::Any);
    let deny = |rule| with(World::new(), Tier::Admin, Host::A, Egress, rule);
    // (world, backends, what becomes of A's packet to the service)
    let table = [
        (deny(deny_z()), &[(Host::B, 8080)][..], Allowed),
        (deny(deny_z()), &[(Host::Z, 8080)], Denied),
        (deny(deny_z()), &[(Host::B, 8080), (Host::Z, 8080)], Deferred),
        (deny(deny_z()), &[(Host::Node, 6443)], Allowed),
        (deny(deny_node()), &[(Host::Node, 6443)], Denied),
        // What is delivered to the node is seen by no hook once it is translated.
        (deny(deny_node()), &[(Host::Node, 6443), (Host::B, 8080)], Denied),
        (deny(deny_node()), &[(Host::OtherNode, 6443)], Allowed),
        // A pod reaches itself through its service, whatever is denied.
        (deny(rule(Action::Deny, all_pods(), Ports::Any)), &[(Host::A, 8080)], Deferred),
    ];
    for (world, backends, expected) in table {
        let mut node = Node::new(&world.service(Tcp, backends));
        for family in Family::ALL {
            let a = Host::A.at(family);
            let frontends = [(service_at(family), 80), (Host::Node.at(family), NODE_PORT)];
            for (number, frontend) in (40_000..).zip(frontends) {
                node.expect(leaves(Host::A), &Frame::tcp((a, number), frontend, SYN), expected);
            }
        }
    }
    // A NetworkPolicy that allows is no help against Admin.
    let allowing = World::new().egress(Host::A, [allow(all_pods(), Ports::Any)]);
    let world = with(allowing, Tier::Admin, Host::A, Egress, deny_z()).service(Tcp, &[(Host::Z, 8080)]);
    let mut node = Node::new(&world);
    node.expect(
        leaves(Host::A),
        &Frame::tcp((Host::A.at(Family::V4), 9), (service_at(Family::V4), 80), SYN),
        Denied,
    );
}
