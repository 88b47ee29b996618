//! Worlds with a few policies of every form.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use podgate_common::{EndpointState, Protocol, RuleProtocol};
use podgate_core::{
    fixtures::admin_policy,
    model::{
        Action, ClusterNetworkPolicy, ClusterPolicyKind, ClusterPolicyName, ClusterRule, ClusterSubject,
        DomainPattern, IpBlock, Name, NetworkPolicy, ObjectName, Peer, Peers, PortRule, Ports, Requirement,
        Rule, Selector, Tier,
    },
};
use proptest::{prelude::*, sample::Index};

use super::{PORTS, STRANGERS};
use crate::world::{BRIDGE, Family, Host, Learnt, World, app, ip, labels, service_at};

const BLOCKS: [&str; 18] = [
    "0.0.0.0/0",
    "0.0.0.0/1",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.0.0/30",
    "10.1.0.2/32",
    "10.2.0.0/16",
    "172.16.0.0/12",
    "192.0.2.0/24",
    "192.0.2.1/32",
    "::/0",
    "::/1",
    "fd00::/8",
    "fd00:1::/32",
    "fd00:1::2/128",
    "fd00:2::/32",
    "2001:db8::/32",
    "2001:db8::1/128",
];

/// A world with a few policies; nearly all veths are known.
pub(crate) fn worlds() -> impl Strategy<Value = World> {
    let state = prop_oneof![
        12 => Just(EndpointState::Identified),
        1 => Just(EndpointState::Pending),
        1 => Just(EndpointState::Unmanaged),
    ];
    let veths = prop::collection::vec((state, prop::bool::weighted(0.2)), Host::LOCAL.len());
    let external = prop::collection::vec((claimed(), backends(), any::<bool>()), 0..3);
    let worlds = (clusters(), services(), external, veths, prop::collection::vec(learnt(), 0..24));
    worlds.prop_map(|(world, services, external, veths, learnt)| {
        let world = services.into_iter().fold(world, |world, (protocol, (behind, is_over_limit))| {
            let world = world.service(protocol, &behind);
            if is_over_limit { world.over_limit() } else { world }
        });
        let mut world = external.into_iter().fold(world, |world, (address, behind, is_over_limit)| {
            let world = world.external(address, &behind);
            if is_over_limit { world.over_limit() } else { world }
        });
        for (veth, (state, bridged)) in world.veths.values_mut().zip(veths) {
            veth.state = state;
            veth.master = if bridged { BRIDGE } else { 0 };
        }
        world.node.insert(ip("fe80::1"));
        world.learnt = learnt;
        world
    })
}

/// Names of servers, of which rules have some.
const NAMES: [&str; 5] = ["api.example.com", "x.example.com", "a.b.example.com", "example.com", "other.test"];
const PATTERNS: [&str; 7] = [
    "api.example.com",
    "*.example.com",
    "*.b.example.com",
    "example.com",
    "x.example.com",
    "*.com",
    "none.test",
];

/// Of any address that a packet may go to, also a service's and a node's.
fn learnt() -> impl Strategy<Value = Learnt> {
    let host = |host: Host| Family::ALL.map(|family| host.at(family));
    let addresses: Vec<IpAddr> = Host::ALL.into_iter().flat_map(host).chain(STRANGERS.map(ip)).collect();
    let service = Family::ALL.map(service_at).to_vec();
    let address = prop_oneof![8 => prop::sample::select(addresses), 1 => prop::sample::select(service)];
    let pods = prop::sample::select(Host::LOCAL.to_vec());
    (pods, prop::sample::select(NAMES.to_vec()), address).prop_map(|(pod, name, address)| Learnt {
        pod,
        name,
        address,
    })
}

/// Services of different protocols, each with a few backends.
fn services() -> impl Strategy<Value = BTreeMap<Protocol, (Vec<(Host, u16)>, bool)>> {
    prop::collection::btree_map(protocols(), (backends(), prop::bool::weighted(0.2)), 1..4)
}

fn backends() -> impl Strategy<Value = Vec<(Host, u16)>> {
    let backend = (prop::sample::select(Host::ALL.to_vec()), prop::sample::select(vec![80, 8080, 9000]));
    prop::collection::vec(backend, 0..5)
}

/// What a tenant may write into `externalIPs`: anyone's address, also another service's.
fn claimed() -> impl Strategy<Value = IpAddr> {
    let hosts = || prop::sample::select(Host::ALL.to_vec());
    let address = prop_oneof![
        3 => hosts().prop_map(|host| (host.at(Family::V4), host.at(Family::V6))),
        1 => Just((service_at(Family::V4), service_at(Family::V6))),
    ];
    (address, any::<bool>()).prop_map(|((v4, v6), first)| if first { v4 } else { v6 })
}

/// The same with veths that are all known, and without services.
pub(crate) fn clusters() -> impl Strategy<Value = World> {
    let tiers = prop::collection::vec(prop::sample::select(vec!["", "web", "db"]), Host::PODS.len());
    let cluster_policies = prop_oneof![Just(Vec::new()), prop::collection::vec(cluster_policies(), 1..4)];
    let audit = prop::bool::weighted(0.1);
    (prop::collection::vec(policies(), 1..8), cluster_policies, prop::option::of(accepting()), tiers, audit)
        .prop_map(|(policies, wide, accepting, tiers, audit)| {
            let mut world = World::new();
            Arc::make_mut(&mut world.cluster.namespaces[&Name::from("x")]).audit = audit;
            for (number, mut policy) in wide.into_iter().enumerate() {
                policy.name.name = format!("c{number}").into();
                world.cluster.cluster_policies.insert(policy.name.clone(), policy.into());
            }
            if let Some(policy) = accepting {
                world.cluster.cluster_policies.insert(policy.name.clone(), policy.into());
            }
            for (number, mut policy) in policies.into_iter().enumerate() {
                policy.name = ObjectName::new("x", format!("p{number}"));
                world.cluster.policies.insert(policy.name.clone(), policy.into());
            }
            let names: Vec<_> = world.cluster.pods.keys().cloned().collect();
            for (name, tier) in names.iter().zip(tiers) {
                let pod = Arc::make_mut(&mut world.cluster.pods[name]);
                let app = pod.labels["app"].clone();
                pod.labels = labels(&[("app", &*app), ("tier", tier)]);
            }
            world
        })
}

fn policies() -> impl Strategy<Value = NetworkPolicy> {
    let direction = || prop::option::of(prop::collection::vec(rules(), 0..4));
    (selectors(), direction(), direction(), audit()).prop_map(|(subject, ingress, egress, audit)| {
        NetworkPolicy { name: ObjectName::new("x", ""), subject, ingress, egress, audit }
    })
}

fn audit() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.2)
}

fn cluster_policies() -> impl Strategy<Value = ClusterNetworkPolicy> {
    let tiers = prop::sample::select(Tier::ALL.to_vec());
    let pods = (namespaces(), selectors()).prop_map(|(namespaces, pods)| ClusterSubject { namespaces, pods });
    let rules = |of_egress| prop::collection::vec(cluster_rules(of_egress), 0..4);
    (tiers, 0..3_u16, pods, rules(false), rules(true), audit()).prop_map(
        |(tier, priority, subject, ingress, mut egress, audit)| {
            let opens = |rule: &ClusterRule| (tier, rule.action) == (Tier::Admin, Action::Accept);
            egress.iter_mut().filter(|rule| !opens(rule)).for_each(without_names);
            ClusterNetworkPolicy {
                name: ClusterPolicyName { name: "".into(), kind: ClusterPolicyKind::ClusterNetworkPolicy },
                tier,
                priority,
                subject,
                ingress,
                egress,
                audit,
            }
        },
    )
}

/// A policy whose rule opens names to all pods.
fn accepting() -> impl Strategy<Value = ClusterNetworkPolicy> {
    (prop::collection::vec(names(), 1..4), audit()).prop_map(|(names, audit)| {
        let matches = Rule { peers: Peers::Listed(names), ports: Ports::Any };
        let rule = ClusterRule { action: Action::Accept, matches };
        ClusterNetworkPolicy { audit, ..admin_policy("names", vec![rule]) }
    })
}

fn names() -> impl Strategy<Value = Peer> {
    let pattern = |text: &str| DomainPattern::parse(text).expect("a literal of the test");
    prop::sample::select(PATTERNS.to_vec()).prop_map(move |text| Peer::Name(pattern(text)))
}

/// Names stand in rules of the first tier that accept.
fn without_names(rule: &mut ClusterRule) {
    if let Peers::Listed(peers) = &mut rule.matches.peers {
        for peer in peers.iter_mut().filter(|peer| matches!(peer, Peer::Name(_))) {
            *peer = Peer::Nodes(Selector::EVERYTHING);
        }
    }
}

fn cluster_rules(of_egress: bool) -> impl Strategy<Value = ClusterRule> {
    let pods = || {
        (namespaces(), selectors())
            .prop_map(|(namespaces, pods)| Peer::Pods { namespaces: Some(namespaces), pods })
    };
    let network = blocks().prop_map(|block| Peer::Block(IpBlock { except: BTreeSet::new(), ..block }));
    let node =
        |role: &str| Peer::Nodes(Selector::All(vec![Requirement::In("role".into(), [role.into()].into())]));
    let peers = if of_egress {
        prop_oneof![
            4 => pods(),
            4 => network,
            6 => names(),
            1 => Just(Peer::Nodes(Selector::EVERYTHING)),
            1 => Just(node("own")),
            1 => Just(node("other")),
        ]
        .boxed()
    } else {
        pods().boxed()
    };
    let peers = prop::collection::vec(peers, 1..3).prop_map(Peers::Listed);
    // What fails closed denies all.
    let peers = prop_oneof![1 => Just(Peers::Any), 8 => peers];
    let ports = prop_oneof![
        4 => protocols().prop_map(PortRule::Protocol),
        6 => ports().prop_filter("nothing of a rule is left out", |port| *port != PortRule::Nothing),
        1 => Just(PortRule::Named(None, "web".into())),
    ];
    let ports = prop_oneof![
        2 => Just(Ports::Any),
        3 => prop::collection::vec(ports, 1..3).prop_map(Ports::Listed),
    ];
    let actions = prop::sample::select(vec![Action::Accept, Action::Deny, Action::Pass]);
    (actions, peers, ports)
        .prop_map(|(action, peers, ports)| ClusterRule { action, matches: Rule { peers, ports } })
}

fn namespaces() -> impl Strategy<Value = Selector> {
    let named = |name: &str| {
        Selector::All(vec![Requirement::In("kubernetes.io/metadata.name".into(), [name.into()].into())])
    };
    prop_oneof![2 => Just(Selector::EVERYTHING), 1 => Just(named("x")), 1 => Just(named("y"))]
}

fn selectors() -> impl Strategy<Value = Selector> {
    let app = prop::sample::select(vec!["a", "b", "z"]).prop_map(app);
    let tier = |tier: &str| Selector::All(vec![Requirement::In("tier".into(), [tier.into()].into())]);
    let not = Selector::All(vec![Requirement::NotIn("app".into(), ["a".into()].into())]);
    prop_oneof![
        4 => app,
        2 => Just(Selector::EVERYTHING),
        1 => Just(tier("web")),
        1 => Just(tier("db")),
        1 => Just(not),
        1 => Just(Selector::Nothing),
    ]
}

fn rules() -> impl Strategy<Value = Rule> {
    let peers = prop_oneof![
        1 => Just(Peers::Any),
        5 => prop::collection::vec(peers(), 1..4).prop_map(Peers::Listed),
    ];
    let ports = prop_oneof![
        1 => Just(Ports::Any),
        3 => prop::collection::vec(ports(), 1..4).prop_map(Ports::Listed),
    ];
    (peers, ports).prop_map(|(peers, ports)| Rule { peers, ports })
}

fn peers() -> impl Strategy<Value = Peer> {
    let own = selectors().prop_map(|pods| Peer::Pods { namespaces: None, pods });
    let all = selectors().prop_map(|pods| Peer::Pods { namespaces: Some(Selector::EVERYTHING), pods });
    prop_oneof![3 => own, 2 => all, 5 => blocks().prop_map(Peer::Block), 1 => Just(Peer::Nothing)]
}

fn blocks() -> impl Strategy<Value = IpBlock> {
    let net = |text: &str| -> IpNet { text.parse().expect("a literal of the test") };
    let all: Vec<IpNet> = BLOCKS.map(net).to_vec();
    (prop::sample::select(all.clone()), prop::collection::vec(any::<Index>(), 0..3)).prop_map(
        move |(cidr, excepts)| {
            let inside: Vec<&IpNet> =
                all.iter().filter(|other| cidr != **other && cidr.contains(*other)).collect();
            let except: BTreeSet<IpNet> = if inside.is_empty() {
                BTreeSet::new()
            } else {
                excepts.iter().map(|at| **at.get(&inside)).collect()
            };
            IpBlock { cidr, except }
        },
    )
}

fn protocols() -> impl Strategy<Value = Protocol> {
    prop::sample::select(Protocol::ALL.to_vec())
}

fn ports() -> impl Strategy<Value = PortRule> {
    let number = || prop::sample::select(PORTS[1..].to_vec());
    let range = (protocols(), number(), number()).prop_map(|(protocol, one, other)| PortRule::Range {
        protocol,
        first: one.min(other),
        last: one.max(other),
    });
    let single = (protocols(), number()).prop_map(|(protocol, number)| PortRule::Range {
        protocol,
        first: number,
        last: number,
    });
    prop_oneof![
        3 => single,
        2 => range,
        1 => protocols().prop_map(PortRule::Protocol),
        1 => protocols().prop_map(|protocol| PortRule::Named(Some(protocol), "web".into())),
        1 => without_ports(),
        1 => Just(PortRule::Nothing),
    ]
}

/// Messages of ICMP, and other protocols, as generated packets are.
fn without_ports() -> impl Strategy<Value = PortRule> {
    let numbers = vec![(1, RuleProtocol::Icmp), (58, RuleProtocol::IcmpV6), (47, RuleProtocol::Other)];
    let kinds = vec![0, 8, 128, 129, 5, 13, 14, 139];
    let parts = (prop::sample::select(numbers), prop::sample::select(kinds), prop::option::of(0_u8..2));
    (parts, any::<bool>()).prop_map(|(((number, protocol), kind, code), is_whole)| {
        if is_whole || protocol == RuleProtocol::Other {
            PortRule::Number(number)
        } else {
            PortRule::Icmp { protocol, kind, code }
        }
    })
}
