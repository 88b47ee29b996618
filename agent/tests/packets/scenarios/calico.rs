//! Policies of Calico's: the end of a tier, conditions that exclude, the own node, and protocols without
//! ports.

use std::sync::Arc;

use podgate_common::{
    Direction::{self, Egress, Ingress},
    NODE,
    Outcome::{Allowed, Denied, Established, NotIsolated, OwnNode},
    Protocol::{Tcp, Udp},
    RuleProtocol,
    frames::{Frame, flag},
};
use podgate_core::model::{
    Action, CalicoEnds, CalicoPolicy, CalicoPolicyKind, CalicoPolicyName, CalicoRule, DEFAULT_TIER,
    EntityMatch, LabelExpression, LabelTest, Peers, PolicyScope, PortRule, Ports, Rule, TierOrder,
};

use crate::{
    node::Node,
    world::{Family, Host, UPLINK, World, arrives, leaves},
};

fn app(host: Host, world: &World) -> LabelExpression {
    let label = world.cluster.pods[&host.name()].labels["app"].clone();
    LabelExpression::Label("app".into(), LabelTest::In([label].into()))
}

/// Adds a policy of the tier default for the pod `host`.
fn with(mut world: World, host: Host, order: f64, direction: Direction, rules: Vec<CalicoRule>) -> World {
    let name = CalicoPolicyName {
        namespace: None,
        name: format!("g{order}").into(),
        kind: CalicoPolicyKind::GlobalNetworkPolicy,
    };
    let (ingress, egress) = match direction {
        Ingress => (Some(rules), None),
        Egress => (None, Some(rules)),
    };
    let policy = CalicoPolicy {
        name: name.clone(),
        tier: DEFAULT_TIER.0.into(),
        order: TierOrder::of(order).expect("a number"),
        subject: app(host, &world),
        ingress,
        egress,
        audit: false,
        removes: false,
        scope: PolicyScope::Local,
    };
    world.cluster.calico.v3.policies.insert(name, Arc::new(policy));
    world
}

fn rule(action: Action, peer: EntityMatch, ports: Ports) -> CalicoRule {
    let peers = Peers::Calico(Box::new(CalicoEnds { peer, ..CalicoEnds::default() }));
    CalicoRule { action, matches: Rule { peers, ports } }
}

#[test]
fn the_end_of_a_tier_denies_and_holds_for_the_own_node_as_a_destination() {
    let world = World::new();
    let b = EntityMatch { selector: Some(app(Host::B, &world)), ..EntityMatch::default() };
    let tcp = Ports::Except {
        listed: Some(vec![PortRule::Protocol(Tcp)]),
        except: vec![PortRule::Range { protocol: Tcp, first: 22, last: 22 }],
    };
    let world = with(world, Host::A, 1.0, Egress, vec![rule(Action::Accept, b, tcp)]);
    let mut node = Node::new(&world);
    for family in Family::ALL {
        let [a, b, z, own] = [Host::A, Host::B, Host::Z, Host::Node].map(|host| host.at(family));
        let outside = Host::Outside.at(family);
        node.expect(leaves(Host::A), &Frame::tcp((a, 9), (b, 80), flag::SYN), Allowed);
        node.expect(
            arrives(Host::A, Host::B.veth()),
            &Frame::tcp((b, 80), (a, 9), flag::SYN | flag::ACK),
            Established,
        );
        node.expect(leaves(Host::A), &Frame::tcp((a, 9), (b, 22), flag::SYN), Denied);
        node.expect(leaves(Host::A), &Frame::udp((a, 9), (b, 80), 1), Denied);
        node.expect(leaves(Host::A), &Frame::tcp((a, 9), (z, 80), flag::SYN), Denied);
        node.expect(leaves(Host::A), &Frame::echo_request(a, b, 1), Denied);
        node.expect(leaves(Host::A), &Frame::tcp((a, 9), (own, 80), flag::SYN), Denied);
        node.expect(arrives(Host::A, NODE), &Frame::tcp((own, 10), (a, 80), flag::SYN), OwnNode);
        node.expect(arrives(Host::A, UPLINK), &Frame::tcp((outside, 10), (a, 80), flag::SYN), NotIsolated);
    }
}

#[test]
fn what_is_excluded_is_left_to_later_rules_and_addresses_outside_are_matched_by_exclusion_alone() {
    let world = World::new();
    let not_b = EntityMatch { not_selector: Some(app(Host::B, &world)), ..EntityMatch::default() };
    let not_udp = Ports::Except { listed: None, except: vec![PortRule::Protocol(Udp)] };
    let rules = vec![rule(Action::Accept, not_b, not_udp)];
    let world = with(world, Host::A, 1.0, Ingress, rules);
    let mut node = Node::new(&world);
    for family in Family::ALL {
        let [a, b, outside] = [Host::A, Host::B, Host::Outside].map(|host| host.at(family));
        node.expect(arrives(Host::A, UPLINK), &Frame::tcp((outside, 10), (a, 80), flag::SYN), Allowed);
        node.expect(arrives(Host::A, UPLINK), &Frame::echo_request(outside, a, 1), Allowed);
        node.expect(arrives(Host::A, UPLINK), &Frame::udp((outside, 10), (a, 53), 1), Denied);
        node.expect(arrives(Host::A, Host::B.veth()), &Frame::tcp((b, 10), (a, 80), flag::SYN), Denied);
    }
}

/// Pings may come and go, and GRE may go; nothing else without ports.
#[test]
fn rules_distinguish_messages_of_icmp_and_other_protocols() {
    let icmp = |family, kind| match family {
        Family::V4 => PortRule::Icmp { protocol: RuleProtocol::Icmp, kind, code: Some(0) },
        Family::V6 => PortRule::Icmp { protocol: RuleProtocol::IcmpV6, kind, code: None },
    };
    let accept =
        |ports: Vec<PortRule>| vec![rule(Action::Accept, EntityMatch::default(), Ports::Listed(ports))];
    let pings = || vec![icmp(Family::V4, 8), icmp(Family::V6, 128)];
    let going = pings().into_iter().chain([PortRule::Number(47)]).collect();
    let world = with(World::new(), Host::A, 1.0, Egress, accept(going));
    let world = with(world, Host::B, 2.0, Ingress, accept(pings()));
    let mut node = Node::new(&world);
    for family in Family::ALL {
        let [a, b, outside] = [Host::A, Host::B, Host::Outside].map(|host| host.at(family));
        let (request, query) = match family {
            Family::V4 => (8, 13),
            Family::V6 => (128, 139),
        };
        // The identifier 0 is one like any other.
        for id in [0, 7] {
            node.expect(leaves(Host::A), &Frame::icmp(a, outside, request, id), Allowed);
            node.expect(arrives(Host::A, UPLINK), &Frame::echo_reply(outside, a, id), Established);
        }
        node.expect(arrives(Host::B, UPLINK), &Frame::echo_request(outside, b, 0), Allowed);
        node.expect(leaves(Host::B), &Frame::echo_reply(b, outside, 0), Established);
        // What was opened for echoes is opened for nothing else, whatever stands in the place of their
        // identifier.
        let as_identifier = u16::from_be_bytes([query, 0]);
        node.expect(leaves(Host::A), &Frame::echo_request(a, outside, as_identifier), Allowed);
        node.expect(leaves(Host::A), &Frame::icmp(a, outside, query, 0), Denied);
        node.expect(leaves(Host::A), &Frame::echo_reply(a, outside, 9), Denied);
        node.expect(arrives(Host::B, UPLINK), &Frame::icmp(outside, b, query, 7), Denied);
        node.expect(arrives(Host::B, UPLINK), &Frame::echo_reply(outside, b, 9), Denied);
        // An error about nothing that is known is none that a rule may let pass.
        let unknown = Frame::unreachable(outside, &Frame::udp((b, 9), (outside, 53), 1));
        node.expect(arrives(Host::B, UPLINK), &unknown, Denied);
        node.expect(leaves(Host::A), &Frame::ip(a, outside, 47, vec![0; 8]), Allowed);
        node.expect(leaves(Host::A), &Frame::ip(a, outside, 50, vec![0; 8]), Denied);
        node.expect(arrives(Host::A, UPLINK), &Frame::ip(outside, a, 47, vec![0; 8]), Established);
        node.expect(arrives(Host::B, UPLINK), &Frame::ip(outside, b, 47, vec![0; 8]), Denied);
        node.expect(leaves(Host::A), &Frame::tcp((a, 9), (outside, 80), flag::SYN), Denied);
    }
}

#[test]
fn one_message_of_icmp_opens_no_other_and_its_answer_belongs_to_it() {
    let no_redirects = Ports::Except {
        listed: Some(vec![PortRule::Number(1), PortRule::Number(58)]),
        except: vec![PortRule::Icmp { protocol: RuleProtocol::Icmp, kind: 5, code: None }],
    };
    let rules = vec![rule(Action::Accept, EntityMatch::default(), no_redirects)];
    let world = with(World::new(), Host::A, 1.0, Egress, rules.clone());
    let world = with(world, Host::B, 2.0, Ingress, rules);
    let mut node = Node::new(&world);
    let [a, b, outside] = [Host::A, Host::B, Host::Outside].map(|host| host.at(Family::V4));
    node.expect(leaves(Host::A), &Frame::icmp(a, outside, 13, 7), Allowed);
    node.expect(arrives(Host::A, UPLINK), &Frame::icmp(outside, a, 14, 7), Established);
    node.expect(leaves(Host::A), &Frame::icmp(a, outside, 5, 7), Denied);
    node.expect(arrives(Host::B, UPLINK), &Frame::icmp(outside, b, 13, 7), Allowed);
    node.expect(arrives(Host::B, UPLINK), &Frame::icmp(outside, b, 5, 7), Denied);
    node.expect(leaves(Host::B), &Frame::icmp(b, outside, 14, 7), Established);
}
