//! While one state replaces another, each packet is evaluated by one of the two.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use podgate_common::{
    Direction, Hook, Protocol, RuleProtocol,
    frames::{Frame, flag},
};
use podgate_core::{
    fixtures::admin_policy,
    model::{Action, ClusterRule, Peers, Ports, Rule},
};
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::{Config, TestRunner},
};

use super::verdicts::addresses;
use crate::{
    generate::{PORTS, clusters},
    naive::{self, Query},
    node::{Node, Programs},
    world::{Family, Host, UPLINK, World, allow, arrives, block, leaves, pods_like, port},
};

/// How many worlds take turns.
const WORLDS: usize = 5;

/// A packet that opens a connection, and what all worlds say of it.
struct Probe {
    hook: Hook,
    frame: Vec<u8>,
    passes: bool,
}

/// What differs between the worlds that replace each other.
///
/// Not both at once: a policy of before that meets labels of after gives the verdict of a cluster in which
/// the labels were changed first, which is one that the API server may well have shown us. So does a pod
/// whose own labels change which policies it has, when it meets new labels of another one: such a pod is not
/// asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Changing {
    Policies,
    Labels,
}

#[test]
fn while_policies_change_each_packet_is_evaluated_by_one_of_the_states() {
    probe_while(Changing::Policies, 300);
}

#[test]
fn while_labels_change_each_packet_is_evaluated_by_one_of_the_states() {
    probe_while(Changing::Labels, 100);
}

#[test]
fn while_a_service_exceeds_the_limit_and_fits_again_no_packet_misses_it() {
    let external = Host::Outside.at(Family::V4);
    // The address itself is forbidden, what is behind it is not.
    let fits = World::new()
        .egress(Host::A, [allow(pods_like(Host::B), port(Protocol::Tcp, 8080))])
        .external(external, &[(Host::B, 8080)]);
    let over_limit = fits.clone().over_limit();
    let frame = Frame::tcp((Host::A.at(Family::V4), 1_024), (external, 80), flag::SYN);
    let probe = Probe { hook: leaves(Host::A), frame: frame.bytes(), passes: true };
    let worlds = [&fits, &over_limit, &fits, &over_limit, &fits].map(Clone::clone);
    probe_during(&worlds, &[probe], "services", 300);
}

#[test]
fn while_a_service_and_the_policy_change_together_each_packet_is_evaluated_by_one_of_the_states() {
    let external = Host::Outside.at(Family::V4);
    // All three let A reach the address itself and what is behind it.
    let world = |other: u16| {
        let [backend, other] = [(Host::B, 8080), (Host::Z, other)]
            .map(|(host, at)| allow(pods_like(host), port(Protocol::Tcp, at)));
        let itself = allow(block(&format!("{external}/32"), &[]), port(Protocol::Tcp, 80));
        World::new().egress(Host::A, [backend, itself, other])
    };
    let service = |world: World| world.external(external, &[(Host::B, 8080)]);
    let fits = service(world(1));
    let gone = world(2);
    let over_limit = service(world(3)).over_limit();
    let frame = Frame::tcp((Host::A.at(Family::V4), 1_024), (external, 80), flag::SYN);
    let probe = Probe { hook: leaves(Host::A), frame: frame.bytes(), passes: true };
    let worlds = [fits, over_limit.clone(), gone.clone(), over_limit, gone];
    probe_during(&worlds, &[probe], "services and policies", 300);
}

/// Of a pod that a NetworkPolicy isolates the own node is open but for what is denied there; of any other it
/// is as any address.
#[test]
fn while_an_address_comes_to_the_node_and_goes_what_is_denied_at_it_stays_denied() {
    let outside = Host::Outside.at(Family::V4);
    for is_isolated in [false, true] {
        let worlds = [0, 1, 2, 3, 4].map(|number: u16| {
            let at =
                |host: &str, number| Rule { peers: block(host, &[]), ports: port(Protocol::Tcp, number) };
            let accept = |matches| ClusterRule { action: Action::Accept, matches };
            let deny = Rule { peers: Peers::Any, ports: Ports::Any };
            // Each with other classes of ports and other identities.
            let rules = vec![
                accept(at("192.0.2.1/32", 80)),
                accept(at(&format!("192.0.2.0/{}", 24 + number), 1_000 + number)),
                ClusterRule { action: Action::Deny, matches: deny },
            ];
            let mut world = World::new();
            if is_isolated {
                world = world.egress(Host::A, [allow(pods_like(Host::B), port(Protocol::Tcp, 80))]);
            }
            let policy = admin_policy("all", rules);
            world.cluster.cluster_policies.insert(policy.name.clone(), policy.into());
            if number % 2 == 1 {
                world.node.insert(outside);
            }
            world
        });
        let probes = [(80, true), (81, false), (999, false)].map(|(to, passes)| {
            let frame = Frame::tcp((Host::A.at(Family::V4), 1_024), (outside, to), flag::SYN);
            Probe { hook: leaves(Host::A), frame: frame.bytes(), passes }
        });
        probe_during(&worlds, &probes, "the node's addresses", 300);
    }
}

fn probe_while(changing: Changing, publications: usize) {
    let (worlds, probes) = worlds_with_probes(changing);
    probe_during(&worlds, &probes, &format!("{changing:?}"), publications);
}

/// What all states allow is never dropped, and what all deny never passes.
fn probe_during(worlds: &[World], probes: &[Probe], changing: &str, publications: usize) {
    let mut node = Node::new(&worlds[0]);
    let bpffs = std::path::Path::new("/sys/fs/bpf");
    let programs = Programs::of(&mut node.datapath, bpffs);
    let (stop, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    let wrong = thread::scope(|scope| {
        let prober = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for probe in probes {
                    if programs.run(probe.hook, &probe.frame) != probe.passes {
                        return Some(probe);
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            }
            None
        });
        for number in 0..publications {
            // Each follows on each; every third time the tables settle in between.
            let at = number / 3 * 2 + number % 3 / 2;
            node.publish(&worlds[at * (1 + at / WORLDS % (WORLDS - 1)) % WORLDS]);
            if prober.is_finished() {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        prober.join().expect("the prober does not panic")
    });
    if let Some(Probe { hook, frame, passes }) = wrong {
        let counted = node.readers.counters.read().expect("counters");
        let counted: Vec<_> = counted.into_iter().filter(|(.., count)| *count > 0).collect();
        panic!(
            "{changing} change: {hook:?} must always {}: {frame:02x?}; of all probes: {counted:?}",
            if *passes { "pass" } else { "be dropped" }
        );
    }
    println!("{changing} change: {} probes", asked.into_inner());
}

/// Worlds that agree on some packets, of which some pass and some do not.
fn worlds_with_probes(changing: Changing) -> (Vec<World>, Vec<Probe>) {
    let mut runner = TestRunner::new(Config::default());
    for _ in 0..1_000 {
        let mut world = || clusters().new_tree(&mut runner).expect("the generator rejects nothing").current();
        let mut worlds: Vec<World> = (0..WORLDS).map(|_| world()).collect();
        let first = worlds[0].cluster.clone();
        for world in &mut worlds {
            let of_its_own = std::mem::replace(&mut world.cluster, first.clone());
            match changing {
                Changing::Policies => {
                    world.cluster.policies = of_its_own.policies;
                    world.cluster.cluster_policies = of_its_own.cluster_policies;
                }
                Changing::Labels => {
                    world.cluster.pods = of_its_own.pods;
                    world.cluster.namespaces = of_its_own.namespaces;
                }
            }
        }
        let probes = probes(&worlds, changing);
        let count = |passes| probes.iter().filter(|probe| probe.passes == passes).count();
        if count(true) >= 50 && count(false) >= 50 {
            return (worlds, probes);
        }
    }
    panic!("no worlds agree on enough packets");
}

fn probes(worlds: &[World], changing: Changing) -> Vec<Probe> {
    let mut probes = Vec::new();
    for pod in Host::LOCAL {
        for (direction, peer, number) in asked() {
            let family = if peer.is_ipv4() { Family::V4 } else { Family::V6 };
            let own = pod.at(family);
            let local = Host::LOCAL.into_iter().find(|host| host.at(family) == peer);
            let allows = |world: &World, subject: Host, direction, peer| {
                let subject = &world.cluster.pods[&subject.name()];
                let query = Query {
                    subject,
                    direction,
                    peer,
                    protocol: RuleProtocol::Tcp,
                    port: number,
                    own_node: direction == Direction::Egress && peer == Host::Node.at(family),
                    learnt: &[],
                };
                naive::allows(&world.cluster, query)
            };
            // Where a packet of a local pod arrives that did not pass that pod's own veth, its egress is
            // evaluated, too.
            let sender = local.filter(|_| direction == Direction::Ingress);
            let verdicts = |world: &World| {
                let sends = sender.is_none_or(|sender| allows(world, sender, Direction::Egress, own));
                (allows(world, pod, direction, peer), sends)
            };
            let has_equal_verdict = |host: Host| {
                worlds
                    .iter()
                    .all(|world| naive::has_equal_verdict(&worlds[0].cluster, &world.cluster, &host.name()))
            };
            if changing == Changing::Labels
                && !(has_equal_verdict(pod) && sender.is_none_or(has_equal_verdict))
            {
                continue;
            }
            let verdicts: Vec<(bool, bool)> = worlds.iter().map(verdicts).collect();
            // A pod that is free today says nothing of the tables.
            let isolated = worlds
                .iter()
                .any(|world| naive::isolates(&world.cluster, &world.cluster.pods[&pod.name()], direction));
            if !isolated || verdicts.iter().any(|verdict| *verdict != verdicts[0]) {
                continue;
            }
            // Its own node always reaches a pod.
            if own == peer || direction == Direction::Ingress && Host::Node.at(family) == peer {
                continue;
            }
            let (hook, frame) = match direction {
                Direction::Egress => (leaves(pod), Frame::tcp((own, 1_024), (peer, number), flag::SYN)),
                Direction::Ingress => {
                    let ingress_ifindex = local.map_or(UPLINK, Host::veth);
                    (arrives(pod, ingress_ifindex), Frame::tcp((peer, 1_024), (own, number), flag::SYN))
                }
            };
            probes.push(Probe { hook, frame: frame.bytes(), passes: verdicts[0] == (true, true) });
        }
    }
    probes
}

fn asked() -> impl Iterator<Item = (Direction, std::net::IpAddr, u16)> {
    Direction::ALL
        .into_iter()
        .flat_map(|direction| addresses().flat_map(move |peer| PORTS.map(|port| (direction, peer, port))))
}
