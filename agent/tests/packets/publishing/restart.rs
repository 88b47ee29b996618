//! A new agent over the maps of an old one.

use std::path::Path;

use podgate_common::{
    EndpointState, NODE, Outcome, Protocol,
    frames::{Frame, flag},
};
use podgate_core::model::Ports;
use podgate_datapath::{Datapath, Pins, publisher::Publisher};

use crate::{
    node::{self, Node, OPTIONS, Programs},
    snapshot::Snapshot,
    world::{Family, Host, UPLINK, World, allow, arrives, ip, leaves, pods_like, port, service_at},
};

fn restart(node: &Node, pins: &Pins, world: &World) -> (Datapath, Snapshot) {
    let mut datapath = node::load(pins, OPTIONS).0;
    let mut publisher = Publisher::default();
    let tables = world.compile(publisher.in_force());
    let wanted = world.wanted(&tables);
    publisher.publish(&mut datapath.maps, &tables, &wanted).expect("the kernel takes it");
    (datapath, node.pinned.read())
}

#[test]
fn a_new_agent_takes_over_and_leaves_nothing_of_the_old() {
    let rules = |number| [allow(pods_like(Host::A), port(Protocol::Tcp, number))];
    let world = World::new().ingress(Host::B, rules(80)).egress(Host::Z, []);
    let mut node = Node::new(&world);
    let (a, b) = ((Host::A.at(Family::V4), 40_000), (Host::B.at(Family::V4), 80));
    let to_b = arrives(Host::B, Host::A.veth());
    node.expect(to_b, &Frame::tcp(a, b, flag::SYN), Outcome::Allowed);

    let bpffs = Path::new("/sys/fs/bpf");
    let pins = Pins::create(bpffs).expect("the same directory");
    let before = node.pinned.read();
    // Nothing has changed but the agent: it takes another slot, and fills it as the old one did.
    let (_, same) = restart(&node, &pins, &world);
    assert_ne!(before.table_set(), same.table_set());
    assert_eq!(same.sets.len(), 1);
    assert_eq!(before.set().sizes(), same.set().sizes());
    assert_eq!(before.owners, same.owners);
    // The programs of the old agent, which may still be attached, evaluate by what the new one has written.
    assert!(node.programs.run(to_b, &Frame::tcp(a, b, flag::ACK).bytes()), "the connection lives on");
    assert!(node.programs.run(to_b, &Frame::tcp((a.0, 40_001), b, flag::SYN).bytes()));

    // A world in which Z is gone and B listens elsewhere.
    let mut next = World::new().ingress(Host::B, rules(81));
    next.veths.remove(&Host::Z.veth());
    let (mut datapath, changed) = restart(&node, &pins, &next);
    assert_eq!(changed.sets.len(), 1);
    assert_eq!(changed.endpoints.len(), 2);
    assert!(changed.owners.values().all(|owner| *owner != Host::Z.veth()));
    assert!(!changed.endpoints[&Host::A.veth()].egress.isolates());
    for programs in [&node.programs, &Programs::of(&mut datapath, bpffs)] {
        assert!(programs.run(to_b, &Frame::tcp(a, b, flag::ACK).bytes()), "the connection lives on");
        for (number, passes) in [(80, false), (81, true)] {
            let syn = Frame::tcp((a.0, 40_002), (b.0, number), flag::SYN);
            assert_eq!(programs.run(to_b, &syn.bytes()), passes);
        }
    }
}

#[test]
fn an_agent_that_was_killed_between_two_flips_is_cleaned_up_after() {
    let world = World::new().ingress(Host::B, []).egress(Host::A, []);
    let node = Node::new(&world);
    let pins = Pins::create(Path::new("/sys/fs/bpf")).expect("the same directory");
    let old = node.pinned.read();
    let (mut second, new) = restart(&node, &pins, &world);
    // Back to where it had flipped one endpoint only: they are evaluated by two slots.
    let flipped = new.endpoints[&Host::B.veth()];
    assert_ne!(flipped.table_set, old.table_set());
    let half = old
        .endpoints
        .iter()
        .map(|(ifindex, before)| (*ifindex, if *ifindex == Host::B.veth() { flipped } else { *before }));
    second.maps.endpoints.put_all(&half.collect()).expect("the kernel takes it");
    let (_, after) = restart(&node, &pins, &world);
    assert_eq!(after.sets.len(), 1);
    let table_set = after.table_set();
    assert!(
        table_set != old.table_set() && table_set != flipped.table_set,
        "neither of the two that were in use"
    );
}

/// It does not know which connections the one before has looked at: it looks at all of them.
#[test]
fn a_new_agent_ends_no_connection_that_may_go_on() {
    let world = World::new()
        .service(Protocol::Udp, &[(Host::B, 8_081), (Host::Outside, 80)])
        .egress(Host::A, [allow(pods_like(Host::B), Ports::Any)])
        .on_bridge(Host::Z);
    for pending in [None, Some(Host::A), Some(Host::B), Some(Host::Z)] {
        let mut node = Node::new(&world);
        let mut frames = Vec::new();
        for family in Family::ALL {
            let at = |host: Host, port| (host.at(family), port);
            for (hook, from, to) in [
                (leaves(Host::A), at(Host::A, 1), at(Host::B, 80)),
                (arrives(Host::B, Host::A.veth()), at(Host::A, 1), at(Host::B, 80)),
                (leaves(Host::A), at(Host::A, 2), (service_at(family), 80)),
                (arrives(Host::B, Host::A.veth()), at(Host::A, 2), at(Host::B, 8_081)),
                // The node has put its own address in place of A's.
                (arrives(Host::B, Host::A.veth()), at(Host::Node, 3), at(Host::B, 80)),
                (arrives(Host::B, NODE), at(Host::Node, 4), at(Host::B, 80)),
                (arrives(Host::B, UPLINK), at(Host::Outside, 5), at(Host::B, 80)),
                (arrives(Host::B, UPLINK), at(Host::OtherNode, 6), at(Host::B, 80)),
                (leaves(Host::B), at(Host::B, 7), at(Host::Outside, 443)),
                (arrives(Host::Z, Host::B.veth()), at(Host::B, 8), at(Host::Z, 80)),
            ] {
                let frame = Frame::udp(from, to, 60);
                assert!(node.evaluate(hook, &frame.bytes()).passes(), "{frame:?}");
                frames.push((hook, frame));
            }
        }
        let (link, router) = (ip("fe80::1"), ip("fe80::99"));
        for (hook, frame) in [
            (leaves(Host::B), Frame::udp((link, 1), (router, 53), 60)),
            (arrives(Host::B, UPLINK), Frame::udp((router, 2), (link, 53), 60)),
        ] {
            assert!(node.evaluate(hook, &frame.bytes()).passes(), "{frame:?}");
            frames.push((hook, frame));
        }
        let flows = node.flow_count();
        node.publisher = Publisher::default();
        let again =
            pending.map_or(world.clone(), |pod| world.clone().with_state(pod, EndpointState::Pending));
        node.publish(&again);
        assert_eq!(node.flow_count(), flows, "{pending:?}");
        node.assert_same_state();
        node.publish(&world);
        for (hook, frame) in &frames {
            node.expect(*hook, frame, Outcome::Established);
        }
    }
}
