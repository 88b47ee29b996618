//! The compiler against slow and obvious answers; the whole of it against the specification is tested on
//! generated clusters, outside.

mod own_node;
mod services;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;
use podgate_common::{Protocol, RuleProtocol};
use proptest::prelude::*;

use super::*;
use crate::fixtures::{self, has, policy};
use crate::model::{
    Action, ClusterNetworkPolicy, ClusterRule, DomainPattern, IpBlock, NamedPort, NetworkPolicy, Peer, Peers,
    PortRange, PortRule, PortSet, Ports, Rule, Selector, Tier,
};

fn pod(name: &str, address: &str, own: &[(&str, &str)]) -> Pod {
    fixtures::pod(&format!("x/{name}"), "n1", &[address], own)
}

fn ingress(name: &str, subject: Selector, rules: Vec<Rule>) -> NetworkPolicy {
    NetworkPolicy { subject, ..policy(name, Some(rules), None) }
}

fn cluster(pods: Vec<Pod>, policies: Vec<NetworkPolicy>) -> Cluster {
    Cluster {
        pods: pods.into_iter().map(|pod| (pod.name.clone(), pod)).collect(),
        policies: policies.into_iter().map(|policy| (policy.name.clone(), policy)).collect(),
        ..Cluster::default()
    }
}

fn compiled(cluster: &Cluster) -> CompiledTables {
    compile(cluster, None, cluster.pods.values().map(Arc::as_ref), [])
}

#[test]
fn pods_with_the_same_policies_share_a_rule_set() {
    let cluster = cluster(
        vec![
            pod("a", "10.0.0.1", &[("app", "web")]),
            pod("b", "10.0.0.2", &[("app", "web")]),
            pod("c", "10.0.0.3", &[("app", "db")]),
        ],
        vec![ingress("p", has("app", "web"), vec![])],
    );
    let tables = compiled(&cluster);
    let subject = |name| tables.subjects[&ObjectName::new("x", name)];
    assert_eq!(subject("a"), subject("b"));
    assert_ne!(subject("a").ingress, 0);
    assert_eq!(subject("a").egress, 0, "ingress rules do not isolate egress");
    assert_eq!(subject("c"), Subject::NOT_ISOLATED);
    assert_eq!(tables.rule_sets.len(), 2, "the placeholder and the one of `p`");
}

#[test]
fn pods_that_no_rule_mentions_need_no_entry() {
    let peer = Peer::Pods { namespaces: None, pods: has("app", "web") };
    let rule = Rule { peers: Peers::Listed(vec![peer]), ports: Ports::Any };
    let cluster = cluster(
        vec![pod("a", "10.0.0.1", &[("app", "web")]), pod("b", "10.0.0.2", &[])],
        vec![ingress("p", Selector::EVERYTHING, vec![rule])],
    );
    let tables = compiled(&cluster);
    assert_eq!(tables.identities.addresses.keys().collect::<Vec<_>>(), [&IpAddr::from([10, 0, 0, 1])]);
    assert_eq!(tables.identities.signatures.len(), 2);
}

#[test]
fn a_named_port_of_ingress_is_the_subjects_own_number() {
    let named = |number| NamedPort { name: "http".into(), protocol: Protocol::Tcp, number };
    let port = PortRule::Named(Some(Protocol::Tcp), "http".into());
    let rule = Rule { peers: Peers::Any, ports: Ports::Listed(vec![port]) };
    let mut pods = vec![pod("a", "10.0.0.1", &[]), pod("b", "10.0.0.2", &[]), pod("c", "10.0.0.3", &[])];
    pods[0].ports = [named(8080)].into();
    pods[1].ports = [named(9090)].into();
    let cluster = cluster(pods, vec![ingress("p", Selector::EVERYTHING, vec![rule])]);
    let tables = compiled(&cluster);
    let memory = crate::memory::Memory::new(&tables);
    for (name, open) in [("a", Some(8080)), ("b", Some(9090)), ("c", None)] {
        let rule_set = tables.subjects[&ObjectName::new("x", name)].ingress;
        for port in [8080, 9090] {
            let allowed = memory.allowed(rule_set, IpAddr::from([192, 0, 2, 1]), Protocol::Tcp, port);
            assert_eq!(allowed, open == Some(port), "{name}:{port}");
        }
    }
}

#[test]
fn a_retained_rule_set_is_answered_right_by_the_new_tables() {
    let from = |value| {
        let peer = Peer::Pods { namespaces: None, pods: has("app", value) };
        vec![Rule { peers: Peers::Listed(vec![peer]), ports: Ports::Any }]
    };
    let pods = vec![
        pod("a", "10.0.0.1", &[]),
        pod("b", "10.0.0.2", &[("app", "old")]),
        pod("c", "10.0.0.3", &[("app", "new")]),
    ];
    let before = cluster(pods.clone(), vec![ingress("p", Selector::EVERYTHING, from("old"))]);
    let after = cluster(pods, vec![ingress("p", Selector::EVERYTHING, from("new"))]);
    let old = compiled(&before).rule_sets[&1].clone();
    let tables = compile(&after, None, after.pods.values().map(Arc::as_ref), [old.clone()]);
    let memory = crate::memory::Memory::new(&tables);
    let kept = *tables.rule_sets.iter().find(|(_, rule_set)| **rule_set == old).unwrap().0;
    let new = tables.subjects[&ObjectName::new("x", "a")].ingress;
    for (rule_set, b, c) in [(kept, true, false), (new, false, true)] {
        let allowed = |last| memory.allowed(rule_set, IpAddr::from([10, 0, 0, last]), Protocol::Udp, 53);
        assert_eq!((allowed(2), allowed(3)), (b, c));
    }
}

/// Rules that allow every other port of two protocols from one block: no two ports have the same rules.
fn greedy(name: &str, subject: Selector, ports: u16) -> NetworkPolicy {
    let rules = (0..ports).flat_map(|number| {
        [Protocol::Tcp, Protocol::Udp].map(|protocol| {
            let cidr = IpNet::from(IpAddr::from([172, 6, 0, 1]));
            let block = IpBlock { cidr, except: BTreeSet::new() };
            let range = PortRule::Range { protocol, first: 2 * number + 1, last: 2 * number + 1 };
            Rule { peers: Peers::Listed(vec![Peer::Block(block)]), ports: Ports::Listed(vec![range]) }
        })
    });
    ingress(name, subject, rules.collect())
}

#[test]
fn a_rule_set_with_more_port_classes_than_there_is_room_for_allows_nothing_and_no_other_one_is_touched() {
    let tcp = |port| {
        let range = PortRule::Range { protocol: Protocol::Tcp, first: port, last: port };
        vec![Rule { peers: Peers::Any, ports: Ports::Listed(vec![range]) }]
    };
    let pods = vec![pod("a", "10.0.0.1", &[("app", "greedy")]), pod("b", "10.0.0.2", &[("app", "honest")])];
    let too_many = u16::try_from(TableLimits::NODE.classes / 2 + 1).unwrap();
    for (ports, closes) in [(too_many - 2, false), (too_many, true)] {
        let policies =
            vec![greedy("g", has("app", "greedy"), ports), ingress("h", has("app", "honest"), tcp(3))];
        let cluster = cluster(pods.clone(), policies);
        let tables = compiled(&cluster);
        assert!(tables.classes.signatures.len() <= TableLimits::NODE.classes);
        let memory = crate::memory::Memory::new(&tables);
        let subject = |name| tables.subjects[&ObjectName::new("x", name)].ingress;
        assert_eq!(
            tables.closed.iter().copied().collect::<Vec<_>>(),
            if closes { vec![subject("a")] } else { vec![] }
        );
        let allowed = |name, peer: [u8; 4], port| {
            memory.allowed(subject(name), IpAddr::from(peer), Protocol::Tcp, port)
        };
        assert_eq!(allowed("a", [172, 6, 0, 1], 3), !closes);
        assert!(allowed("b", [172, 6, 0, 1], 3) && !allowed("b", [172, 6, 0, 1], 5));
        assert_ne!(subject("a"), 0, "it isolates");
    }
}

/// Egress to names alone.
fn to_names(name: &str, app: &str, names: impl IntoIterator<Item = String>) -> NetworkPolicy {
    let pattern = |name: String| Peer::Name(DomainPattern::parse(&name).unwrap());
    let peers = Peers::Listed(names.into_iter().map(pattern).collect());
    let egress = Some(vec![Rule { peers, ports: Ports::Any }]);
    NetworkPolicy { ingress: None, egress, ..ingress(name, has("app", app), Vec::new()) }
}

#[test]
fn names_and_ports_that_do_not_fit_close_those_with_the_most_of_them_alone() {
    let pods = vec![pod("a", "10.0.0.1", &[("app", "ports")]), pod("b", "10.0.0.2", &[("app", "names")])];
    let names = |count: usize| (0..count).map(|number| format!("host-{number}.example.com"));
    let closed = |ports, count, limits: TableLimits| {
        let policies = vec![greedy("g", has("app", "ports"), ports), to_names("n", "names", names(count))];
        let cluster = cluster(pods.clone(), policies);
        let tables = compile_within(&limits, &cluster, None, cluster.pods.values().map(Arc::as_ref), []);
        let is_closed = |rule_set: usize| tables.closed.contains(&rule_set);
        let subject = |name| tables.subjects[&ObjectName::new("x", name)];
        [is_closed(subject("a").ingress), is_closed(subject("b").egress)]
    };
    let node = TableLimits::NODE;
    // Many names and too many ports, then many ports and too many names.
    assert_eq!(closed(8, 100, TableLimits { classes: 8, ..node }), [true, false]);
    assert_eq!(closed(100, 8, TableLimits { labels: 8, ..node }), [false, true]);
    assert_eq!(closed(100, 100, TableLimits { labels: 8, classes: 8, ..node }), [true, true]);
}

#[test]
fn a_rule_set_with_more_labels_of_names_than_there_is_room_for_is_closed_and_its_names_are_no_ones() {
    let pods = vec![pod("a", "10.0.0.1", &[("app", "greedy")]), pod("b", "10.0.0.2", &[("app", "honest")])];
    let many = ["a.example.com", "b.example.com", "c.d.example.com"].map(str::to_owned);
    let policies = vec![to_names("g", "greedy", many), to_names("h", "honest", ["*.example.com".to_owned()])];
    let cluster = cluster(pods, policies);
    for (labels, closes) in [(6, false), (5, true)] {
        let limits = TableLimits { labels, ..TableLimits::NODE };
        let tables = compile_within(&limits, &cluster, None, cluster.pods.values().map(Arc::as_ref), []);
        let egress = |name| tables.subjects[&ObjectName::new("x", name)].egress;
        assert_eq!(tables.closed.contains(&egress("a")), closes);
        assert!(!tables.closed.contains(&egress("b")));
        let names: BTreeSet<String> = tables.names.iter().map(name_text).collect();
        assert_eq!(names.contains("a.example.com"), !closes, "{names:?}");
        assert!(names.contains("*.example.com"), "{names:?}");
        assert!(tables.strata.contains_key(&egress("b")));
    }
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0u32..64).prop_map(|low| IpAddr::V4(Ipv4Addr::from(0x0a00_0000 | low))),
        (0u128..64).prop_map(|low| IpAddr::V6(Ipv6Addr::from(0xfd00_u128 << 112 | low))),
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from(bits))),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from(bits))),
    ]
}

fn net() -> impl Strategy<Value = IpNet> {
    (address(), 0u8..=128).prop_map(|(address, length)| {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        IpNet::new(address, length % (longest + 1)).unwrap().trunc()
    })
}

fn blocks() -> impl Strategy<Value = BTreeSet<IpBlock>> {
    proptest::collection::btree_set(block(), 1..4)
}

fn block() -> impl Strategy<Value = IpBlock> {
    (net(), proptest::collection::btree_set(net(), 0..4)).prop_map(|(cidr, except)| {
        let except = except.into_iter().filter(|net| cidr.contains(net) && cidr != *net).collect();
        IpBlock { cidr, except }
    })
}

proptest! {
    #[test]
    fn the_longest_prefix_knows_every_block(
        blocks in proptest::collection::btree_set(blocks(), 0..8),
        mut probes in proptest::collection::vec(address(), 20),
    ) {
        let edges = |net: &IpNet| [net.network(), net.broadcast()];
        probes.extend(blocks.iter().flatten().flat_map(|block| edges(&block.cidr)));
        probes.extend(blocks.iter().flatten().flat_map(|block| &block.except).flat_map(edges));
        // A mapped address is no address of a packet; the parser refuses it.
        probes.retain(|probe| !matches!(probe, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()));
        let atoms: Vec<Shared<Atom>> =
            blocks.iter().cloned().map(|blocks| Shared::new(Atom::Blocks(blocks))).collect();
        let pairs: Vec<(&Shared<Atom>, &BTreeSet<IpBlock>)> = atoms.iter().zip(&blocks).collect();
        let compiled: BTreeMap<_, Arc<Signature>> = prefixes::compile(&pairs, &TableLimits::NODE).unwrap();
        for probe in probes {
            let found = prefixes::longest(&compiled, probe.into()).cloned().unwrap_or_default();
            let covers = |blocks: &BTreeSet<IpBlock>| blocks.iter().any(|block| block.contains(&probe));
            let expected: Signature =
                pairs.iter().filter(|(_, blocks)| covers(blocks)).map(|(atom, _)| (*atom).clone()).collect();
            prop_assert_eq!(&*found, &expected, "{}", probe);
        }
    }

    #[test]
    fn a_class_knows_every_set_of_ports(
        sets in proptest::collection::vec(
            proptest::collection::vec((0..RuleProtocol::ALL.len(), 0u16..200, 0u16..200), 1..5),
            0..12,
        ),
        ports in proptest::collection::vec(any::<u16>(), 20),
    ) {
        let sets: Vec<Vec<PortRange>> = sets
            .into_iter()
            .map(|ranges| {
                let range = |(protocol, a, b): (usize, u16, u16)| {
                    PortRange::new(RuleProtocol::ALL[protocol], a.min(b), a.max(b))
                };
                ranges.into_iter().map(range).collect()
            })
            .collect();
        let shared: Vec<Shared<PortSet>> =
            sets.iter().map(|ranges| Shared::new(ranges.iter().copied().collect())).collect();
        let classes = classes::compile(&shared, &TableLimits::NODE).unwrap();
        for protocol in RuleProtocol::ALL {
            for port in (0..=201).chain(ports.iter().copied()) {
                let lies_in = |range: &PortRange| {
                    range.protocol == protocol && (range.first..=range.last).contains(&port)
                };
                let expected: BTreeSet<Shared<PortSet>> = sets
                    .iter()
                    .zip(&shared)
                    .filter(|(ranges, _)| ranges.iter().any(lies_in))
                    .map(|(_, shared)| shared.clone())
                    .collect();
                let signature = &classes.signatures[classes.class(protocol, port)];
                prop_assert_eq!(&**signature, &expected.into_iter().collect::<Vec<_>>());
            }
        }
    }
}

/// Nested sets and blocks: the third lies in all three, so that the lists have 1 + 2 + 3 members.
#[test]
fn what_lies_in_how_many_sets_is_limited_too() {
    let port_sets: Vec<Shared<PortSet>> = [30, 20, 10]
        .map(|last| Shared::new([PortRange::new(Protocol::Tcp, 1, last)].into_iter().collect()))
        .into();
    let blocks: Vec<BTreeSet<IpBlock>> = ["10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24"]
        .map(|cidr| BTreeSet::from([IpBlock { cidr: cidr.parse().unwrap(), except: BTreeSet::new() }]))
        .into();
    let atoms: Vec<Shared<Atom>> =
        blocks.iter().cloned().map(|blocks| Shared::new(Atom::Blocks(blocks))).collect();
    let pairs: Vec<(&Shared<Atom>, &BTreeSet<IpBlock>)> = atoms.iter().zip(&blocks).collect();
    for (memberships, fits) in [(6, true), (5, false)] {
        let limits = TableLimits { memberships, ..TableLimits::NODE };
        assert_eq!(classes::compile(&port_sets, &limits).is_some(), fits, "ports, {memberships}");
        assert_eq!(prefixes::compile(&pairs, &limits).is_some(), fits, "blocks, {memberships}");
    }
}
