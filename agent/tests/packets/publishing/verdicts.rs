//! After each publication the kernel's tables say what the policies say, and hold nothing else.

use std::{cell::RefCell, net::IpAddr, path::Path, sync::Arc};

use podgate_common::{Direction, KernelVerdict, Protocol, RuleProtocol, VerdictQuery};
use podgate_core::{
    compiler::{RuleSet, Subject},
    memory::Memory,
    model::Pod,
};
use podgate_datapath::{Datapath, Pins, publisher::Publisher};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::{
    generate::{PORTS, STRANGERS, clusters},
    naive::{self, Query},
    node::{self, Node, OPTIONS},
    snapshot::{Pinned, Snapshot},
    world::{Family, Host, World, ip},
};

#[test]
fn every_publication_leaves_the_verdicts_of_the_policies_and_no_garbage() {
    let node = RefCell::new(Node::new(&World::new()));
    let mut fresh = Fresh::new();
    let fresh = RefCell::new(&mut fresh);
    let config = Config { cases: 25, failure_persistence: None, max_shrink_iters: 100, ..Config::default() };
    let result = TestRunner::new(config).run(&prop::collection::vec(clusters(), 3), |worlds| {
        let mut node = node.borrow_mut();
        for world in &worlds {
            node.publish(world);
            assert_verdicts(&mut node, world);
        }
        let last = worlds.last().expect("three worlds");
        settle(&mut node, last);
        assert_verdicts(&mut node, last);
        let settled = node.pinned.read();
        let expected = fresh.borrow_mut().publish(last, node.publisher.in_force());
        prop_assert_eq!(settled.set().sizes(), expected.set().sizes(), "rows, addresses, prefixes, ports");
        prop_assert_eq!(settled.owners, expected.owners);
        prop_assert!(settled.endpoints.keys().eq(expected.endpoints.keys()));
        prop_assert_eq!(settled.sets.len(), 1);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn publishing_the_same_again_writes_nothing() {
    let world = World::new().ingress(Host::B, []);
    let mut node = Node::new(&world);
    settle(&mut node, &world);
    let revision = node.datapath.maps.revision().expect("a revision");
    for _ in 0..3 {
        assert!(node.publish(&world).settled);
        assert_eq!(node.datapath.maps.revision().expect("a revision"), revision);
    }
    // A change that no verdict depends on, and one that does.
    node.publish(&world.clone().egress(Host::Z, []));
    assert_eq!(node.datapath.maps.revision().expect("a revision"), revision + 1);
}

/// Publishes until no rule set of the past is kept.
pub(super) fn settle(node: &mut Node, world: &World) {
    let settled = (0..3).any(|_| node.publish(world).settled);
    assert!(settled, "the publisher never settles");
}

/// A publisher that has never published, over maps that have never been written.
struct Fresh {
    pins: Pins,
}

impl Fresh {
    fn new() -> Self {
        // In the sandbox of the node that the test has made before.
        let bpffs = Path::new("/sys/fs/bpf/fresh");
        std::fs::create_dir(bpffs).expect("a bpffs of our own");
        Self { pins: Pins::create(bpffs).expect("a bpffs of our own") }
    }

    /// With the rule sets that are kept of what was published before.
    fn publish(&mut self, world: &World, retained: Vec<Arc<RuleSet>>) -> Snapshot {
        let maps = self.pins.directory().join("maps");
        for pin in std::fs::read_dir(&maps).expect("the directory of pins") {
            std::fs::remove_file(pin.expect("an entry").path()).expect("a pin of ours");
        }
        let mut datapath: Datapath = node::load(&self.pins, OPTIONS).0;
        let tables = world.compile(retained);
        let wanted = world.wanted(&tables);
        Publisher::default().publish(&mut datapath.maps, &tables, &wanted).expect("the kernel takes it");
        Pinned::new(&self.pins).read()
    }
}

/// Asks the kernel's tables, the compiled tables and the policies the same questions.
pub(super) fn assert_verdicts(node: &mut Node, world: &World) {
    assert_compiled_verdicts(node, world);
    let snapshot = node.pinned.read();
    for asked in questions(world) {
        let veth = veth_of(world, asked.subject);
        let in_kernel = snapshot.allows(veth, asked.direction, asked.peer, asked.protocol, asked.port);
        assert_eq!(in_kernel, naive::allows(&world.cluster, asked), "{asked:?}");
    }
}

/// Asks the kernel's tables and the compiled tables the same questions.
pub(super) fn assert_compiled_verdicts(node: &mut Node, world: &World) {
    let snapshot = node.pinned.read();
    let tables = node.tables().clone();
    let memory = Memory::new(&tables);
    for asked in questions(world) {
        let Subject { ingress, egress, .. } = tables.subjects[&asked.subject.name];
        let rule_set = if asked.direction == Direction::Ingress { ingress } else { egress };
        let veth = veth_of(world, asked.subject);
        let in_kernel = snapshot.allows(veth, asked.direction, asked.peer, asked.protocol, asked.port);
        assert_eq!(in_kernel, memory.allowed(rule_set, asked.peer, asked.protocol, asked.port), "{asked:?}");
        // As `explain` asks beside a running agent.
        let query = VerdictQuery::new(veth, asked.direction, asked.peer.into(), asked.protocol, asked.port);
        let said = node.readers.verdicts.ask(&query).expect("the kernel answers");
        assert_eq!(said, if in_kernel { KernelVerdict::Allowed } else { KernelVerdict::Denied }, "{asked:?}");
    }
}

fn veth_of(world: &World, pod: &Pod) -> u32 {
    let (veth, _) = world.veths.iter().find(|(_, veth)| veth.pod == pod.name).expect("a local pod");
    *veth
}

fn questions(world: &World) -> impl Iterator<Item = Query<'_>> {
    let with_ports =
        || Protocol::ALL.into_iter().flat_map(|protocol| PORTS.map(|port| (protocol.into(), port)));
    let without = [(RuleProtocol::Icmp, 0x0800), (RuleProtocol::IcmpV6, 0x8000), (RuleProtocol::Other, 47)];
    world
        .subjects()
        .flat_map(|subject| Direction::ALL.map(|direction| (subject, direction)))
        .flat_map(|(subject, direction)| addresses().map(move |peer| (subject, direction, peer)))
        .flat_map(move |(subject, direction, peer)| {
            let ports = with_ports().chain(without);
            ports.map(move |(protocol, port)| Query {
                subject,
                direction,
                peer,
                protocol,
                port,
                own_node: false,
                learnt: &[],
            })
        })
}

pub(super) fn addresses() -> impl Iterator<Item = IpAddr> {
    let hosts = Host::ALL.into_iter().flat_map(|host| Family::ALL.map(|family| host.at(family)));
    hosts.chain(STRANGERS.map(ip))
}
