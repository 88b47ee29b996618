//! Clusters of the oracle's generator, as objects, with Calico's policies among the others: packets meet what
//! a naive reading of the objects says.
//!
//! In: objects, as users write them. All pods stand at veths of one node, so that each packet is evaluated as
//! it leaves its sender and as it arrives at its receiver. Out: the first packet that the programs and the
//! naive evaluator do not agree about.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::IpAddr,
    ops::Range,
    sync::Arc,
};

use podgate::source::manifests;
use podgate_common::{
    Direction, EndpointState, Headers, Hook, PacketKind,
    frames::{Frame, flag},
    parse,
};
use podgate_core::model::{Cluster, Name};
use podgate_testkit::{
    generate::{Entries, cluster, outside, ports, with_calico},
    manifest::{Form, write},
    question::Question,
};
use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, RngSeed, TestRunner},
};
use serde_json::Value;

use crate::{
    node::{Answer, Node},
    sandbox,
    world::{PodInterface, UPLINK, World},
};

const CLUSTERS: u32 = 2_000;
/// Of each cluster.
const QUESTIONS: usize = 60;
const SEED: u64 = 1;
/// As many as the generator has pods at most.
const VETHS: Range<u32> = 101..113;

/// Of the ends' addresses, and of the ports.
type Ask = (Index, Index, Index);

#[test]
fn packets_meet_what_policies_of_calico_kubernetes_and_the_cluster_say() {
    // Packets in packets to nodes are no matter of policies.
    let node = RefCell::new(Node::that_allows_encapsulation(&World::new()));
    sandbox::add_devices(VETHS);
    let (asked, allowed) = (Cell::new(0_u32), Cell::new(0_u32));
    let config = Config {
        cases: CLUSTERS,
        rng_seed: RngSeed::Fixed(SEED),
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..Config::default()
    };
    let objects = with_calico(cluster(Entries::Valid));
    let asks = prop::collection::vec(any::<Ask>(), QUESTIONS);
    let result = TestRunner::new(config).run(&(objects, outside(), ports(), asks), |sample| {
        let (objects, outside, ports, asks) = sample;
        let mut node = node.borrow_mut();
        let world = world(&objects);
        node.forget();
        node.publish(&world);
        let veths = veths(&world);
        let ends: Vec<IpAddr> = veths.keys().copied().chain(outside).collect();
        for (source_port, (from, to, port)) in (10_000..).zip(asks) {
            let (from, to) = (*from.get(&ends), *to.get(&ends));
            let text = format!("{from} {to} {}", port.get(&ports));
            // Names of ports have no packets; numbers that they stand for are asked about as well.
            let Ok(question) = text.parse::<Question>() else { continue };
            let Some(frame) = opening(&question, from, to, source_port) else { continue };
            // Without ports, all packets between two ends are of one connection.
            if question.protocol == "IP" {
                node.forget();
            }
            let seen = passes(&node, &frame, veths.get(&from).copied(), veths.get(&to).copied());
            let Some(seen) = seen else { continue };
            let expected = question.is_allowed(&objects);
            asked.set(asked.get() + 1);
            allowed.set(allowed.get() + u32::from(expected));
            prop_assert_eq!(seen, expected, "{}\n{}", question, write(&objects, Form::YamlDocuments));
        }
        Ok(())
    });
    let (asked, allowed) = (asked.get(), allowed.get());
    println!("{asked} connections of {CLUSTERS} clusters, {allowed} allowed");
    if let Err(error) = result {
        panic!("{error}");
    }
    assert!(asked >= 10 * CLUSTERS && (asked / 10..asked).contains(&allowed), "the clusters try nothing");
}

/// The cluster of some objects, with all of its pods on this node.
fn world(objects: &[Value]) -> World {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), write(objects, Form::YamlDocuments)).expect("a file of our own");
    let cluster: Arc<Cluster> = manifests::read(&[file.path().into()]).cluster;
    let pods = cluster.pods.values().filter(|pod| !pod.host_network && !pod.addresses.is_empty());
    let veths = VETHS.zip(pods).map(|(ifindex, pod)| {
        let (pod, state) = (pod.name.clone(), EndpointState::Identified);
        (ifindex, PodInterface { pod, state, master: 0, link_address: None })
    });
    let veths = veths.collect();
    let node = cluster.nodes.get(&Name::from("n1")).expect("the generator's first node").addresses.clone();
    World { veths, node: node.into_iter().collect(), cluster: Cluster::clone(&cluster), ..World::new() }
}

fn veths(world: &World) -> BTreeMap<IpAddr, u32> {
    let of_pod = |(ifindex, veth): (&u32, &PodInterface)| {
        let addresses = world.cluster.pods[&veth.pod].addresses.clone();
        addresses.into_iter().map(|address| (address, *ifindex)).collect::<Vec<_>>()
    };
    world.veths.iter().flat_map(of_pod).collect()
}

/// The packet that opens the connection; `None`: no packet does.
fn opening(question: &Question, from: IpAddr, to: IpAddr, source_port: u16) -> Option<Frame> {
    if from == to || from.is_ipv4() != to.is_ipv4() {
        return None;
    }
    let (client, server) = ((from, source_port), (to, question.port));
    let [kind, code] = question.port.to_be_bytes();
    let is_of_family = (question.protocol == "ICMP") == from.is_ipv4();
    let frame = match &*question.protocol {
        "TCP" => Frame::tcp(client, server, flag::SYN),
        "UDP" => Frame::udp(client, server, 8),
        "SCTP" => Frame::sctp(client, server, 1),
        "ICMP" | "ICMPv6" if is_of_family && code == 0 => Frame::icmp(from, to, kind, source_port),
        "IP" => Frame::ip(from, to, question.port.into(), vec![0; 8]),
        _ => return None,
    };
    // An error is about another connection.
    let kind = parse(&&*frame.bytes(), &mut { Headers::EMPTY });
    (kind == PacketKind::Flow).then_some(frame)
}

/// Whether the programs at both ends let it pass, those that are at a veth; `None`: neither is.
fn passes(node: &Node, frame: &Frame, from: Option<u32>, to: Option<u32>) -> Option<bool> {
    let leaves = from.map(|ifindex| Hook { direction: Direction::Egress, ifindex, ingress_ifindex: ifindex });
    let arrives = to.map(|ifindex| {
        let ingress_ifindex = from.unwrap_or(UPLINK);
        Hook { direction: Direction::Ingress, ifindex, ingress_ifindex }
    });
    let hooks = || leaves.into_iter().chain(arrives);
    hooks().next()?;
    let bytes = frame.bytes();
    Some(hooks().all(|hook| node.programs.answer(hook, &bytes) != Answer::Dropped))
}
