//! Passes of the whole reconciler, at real devices.

#[path = "../sizes/clock.rs"]
mod clock;
#[path = "../sizes/shapes.rs"]
mod shapes;

use std::{
    fs, io,
    net::IpAddr,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use aya::{
    maps::MapData,
    programs::{SchedClassifier, TcAttachType},
};
use podgate::{
    control::Reconciler,
    endpoints::cni::CniResults,
    source::{ClusterSnapshot, manifests},
};
use podgate_common::frames::Frame;
use podgate_core::model::Cluster;
use podgate_datapath::{
    Attacher, Datapath, DatapathOptions, HookKind, Pins,
    network::{Link, Network, VethPeer},
};
use serde_json::{Value, json};

use self::{
    clock::cpu_time,
    shapes::{HONEST, HOSTILE, Shape, cluster, honest_policy},
};
use crate::{
    node::{OPTIONS, Programs},
    sandbox,
    world::{Family, Host, World, leaves},
};

/// `BPF_MAP_FREEZE` of `linux/bpf.h`: no process may write to the map any more.
const MAP_FREEZE: libc::c_long = 22;

#[test]
fn a_pass_that_fails_leaves_no_veth_of_a_new_pod_without_its_programs() {
    let (pins, mut reconciler) = start();
    let world = World::new().ingress(Host::A, []);
    let cni = Arc::new(CniResults::default());
    reconciler.reconcile(&world.cluster, &network(&[Host::B]), &cni).expect("the first pass");
    assert_eq!((programs(Host::A), programs(Host::B)), (0, 2));

    freeze(&pins.directory().join("maps/REVISION"));
    let error = reconciler.reconcile(&world.cluster, &network(&[Host::A, Host::B]), &cni);
    assert!(error.is_err(), "the kernel refuses a write");
    assert_eq!((programs(Host::A), programs(Host::B)), (2, 2));
}

#[test]
fn changes_beside_twenty_large_objects_of_another_tenant_are_enforced_in_a_tenth_of_a_second() {
    const ROUNDS: usize = 100;
    let (_pins, mut reconciler) = start();
    let large: Vec<_> =
        (0..20).map(|at| Shape::ALL[at % Shape::ALL.len()].policy(&format!("large-{at}"), 1)).collect();
    let picture = read(&cluster(large));
    let clusters: Vec<Cluster> = (2_000..2_008)
        .map(|port| {
            let mut changed = Cluster::clone(&picture.cluster);
            let small = read(&[honest_policy("changing", port)]).cluster;
            changed
                .policies
                .extend(small.policies.iter().map(|(name, policy)| (name.clone(), policy.clone())));
            changed
        })
        .collect();
    let at = |host, last| link(host, [IpAddr::from([10, 244, 0, last])]);
    let links = [at(Host::A, 1), at(Host::B, 101)];
    let (network, cni) =
        (Arc::new(Network { links: links.into_iter().collect() }), Arc::new(CniResults::default()));
    // The time of the processor counts; by the clock, the machine may be busy with other tests.
    let mut took: Vec<(Duration, Duration)> = (0..=ROUNDS)
        .map(|round| {
            let (cpu, begin) = (cpu_time(), Instant::now());
            let pass =
                reconciler.reconcile(&clusters[round % clusters.len()], &network, &cni).expect("a pass");
            (cpu_time() - cpu, pass.enforced.saturating_duration_since(begin))
        })
        .collect();
    let (first, _) = took.remove(0);
    let (mut cpu, mut enforced): (Vec<Duration>, Vec<Duration>) = took.into_iter().unzip();
    cpu.sort();
    enforced.sort();
    let of = |took: &[Duration]| (took[ROUNDS / 2], took[ROUNDS * 99 / 100]);
    println!(
        "the first pass {first:?}; p50, p99 of the processor {:?}, until enforced {:?}",
        of(&cpu),
        of(&enforced)
    );
    assert!(first < Duration::from_secs(1), "{first:?}");
    assert!(of(&cpu).1 < Duration::from_millis(100), "{cpu:?}");
}

#[test]
fn an_object_of_any_size_and_of_ten_times_that_is_enforced_in_less_than_a_second() {
    let (_pins, mut reconciler) = start();
    let links =
        [(Host::A, 1), (Host::B, 101)].map(|(host, last)| link(host, [IpAddr::from([10, 244, 0, last])]));
    let network = Arc::new(Network { links: links.into_iter().collect() });
    let cni = Arc::new(CniResults::default());
    let without = read(&cluster(Vec::new()));
    for (shape, factor) in Shape::ALL.iter().flat_map(|shape| [(shape, 1), (shape, 10)]) {
        let with = read(&cluster(vec![shape.policy("large", factor)]));
        let took = [&with, &without].map(|picture| {
            let before = cpu_time();
            reconciler.reconcile(&picture.cluster, &network, &cni).expect("a pass");
            cpu_time() - before
        });
        println!("{shape:?} x{factor}: {took:?}");
        assert!(took.iter().all(|took| *took < Duration::from_secs(1)), "{shape:?} x{factor}: {took:?}");
    }
}

/// Two services of one tenant, each as large as the API server takes it.
#[test]
fn a_service_of_many_ports_that_lead_to_a_tunnel_is_enforced_in_less_than_a_second() {
    let (_pins, mut reconciler) = start();
    let (network, cni) = (network(&[Host::A]), Arc::new(CniResults::default()));
    for (ports, slices) in [(1_000, 1), (10_000, 4)] {
        let world = World::new().with_tunnels("10.97.0", 1, ports, slices);
        let before = cpu_time();
        reconciler.reconcile(&world.cluster, &network, &cni).expect("a pass");
        let took = cpu_time() - before;
        println!("{ports} ports, {slices} slices: {took:?}");
        assert!(took < Duration::from_secs(1), "{ports} ports, {slices} slices: {took:?}");
    }
}

#[test]
fn a_service_of_many_external_addresses_and_ports_is_enforced_in_less_than_a_second() {
    let (_pins, mut reconciler) = start();
    let network = Network { links: [link(Host::A, [IpAddr::from([10, 244, 0, 1])])].into() };
    let (network, cni) = (Arc::new(network), Arc::new(CniResults::default()));
    let isolate = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": HONEST, "name": "egress"},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"]},
    });
    let without = [cluster(Vec::new()), vec![isolate]].concat();
    for number in [1_500_u32, 15_000] {
        let address = |at: u32| format!("198.18.{}.{}", at >> 8, at & 0xff);
        let ports: Vec<Value> =
            (1..=number).map(|at| json!({"name": format!("p{at}"), "port": at})).collect();
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": HOSTILE, "name": "large"},
            "spec": {
                "clusterIP": "10.97.0.1", "externalIPs": (0..number).map(address).collect::<Vec<_>>(),
                "ports": ports,
            },
        });
        let with = read(&[without.clone(), vec![service]].concat());
        let took = [&with, &read(&without), &with].map(|picture| {
            let before = cpu_time();
            reconciler.reconcile(&picture.cluster, &network, &cni).expect("a pass");
            cpu_time() - before
        });
        let sizes = reconciler.sizes();
        let entries = sizes.iter().find(|table| table.name == "services").map(|table| table.entries);
        println!("{number} addresses and ports: {took:?}, {entries:?} entries");
        assert_eq!(entries, Some(1), "the one of all services in the filter");
        assert!(took.iter().all(|took| *took < Duration::from_secs(1)), "{number}: {took:?}");
    }
}

#[test]
fn services_of_many_ports_lead_a_pod_to_no_tunnel() {
    let bpffs = sandbox::enter();
    let pins = Pins::create(&bpffs).expect("a bpffs of our own");
    let (mut datapath, _) =
        Datapath::load(Some(&pins), DatapathOptions { share: false, ..OPTIONS }).expect("programs and maps");
    let programs = Programs::of(&mut datapath, &bpffs);
    let attacher = Attacher::new(HookKind::Tcx, &pins).expect("a netlink socket");
    let mut reconciler = Reconciler::new("n1".into(), datapath, attacher);
    let (network, cni) = (network(&[Host::A]), Arc::new(CniResults::default()));
    for (services, ports) in [(2, 16), (9, 1_000), (200, 1_000)] {
        let world = World::new().with_tunnels("10.97.0", services, ports, 1);
        reconciler.reconcile(&world.cluster, &network, &cni).expect("a pass");
        for service in 1..=services {
            for port in [1, ports / 2, ports] {
                let to = (IpAddr::from([10, 97, 0, u8::try_from(service).expect("a few")]), port);
                let frame = Frame::udp((Host::A.at(Family::V4), 40_000), to, 60);
                assert!(!programs.run(leaves(Host::A), &frame.bytes()), "{services} services: {to:?}");
            }
        }
    }
}

fn start() -> (Pins, Reconciler) {
    let bpffs = sandbox::enter();
    let pins = Pins::create(&bpffs).expect("a bpffs of our own");
    let options = DatapathOptions { share: true, ..OPTIONS };
    let (datapath, _) = Datapath::load(Some(&pins), options).expect("programs and maps");
    let attacher = Attacher::new(HookKind::Tcx, &pins).expect("a netlink socket");
    let reconciler = Reconciler::new("n1".into(), datapath, attacher);
    (pins, reconciler)
}

fn read(objects: &[Value]) -> ClusterSnapshot {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("objects.json");
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
    fs::write(&file, list.to_string()).expect("a file");
    manifests::read(&[file])
}

fn interface(host: Host) -> String {
    format!("at{}", host.veth())
}

/// How many programs there are at both hooks of a veth.
fn programs(host: Host) -> usize {
    let at = |hook| SchedClassifier::query_tcx(&interface(host), hook).expect("Linux 6.6").1.len();
    at(TcAttachType::Ingress) + at(TcAttachType::Egress)
}

fn network(hosts: &[Host]) -> Arc<Network> {
    let links = hosts.iter().map(|host| link(*host, Family::ALL.map(|family| host.at(family))));
    Arc::new(Network { links: links.collect() })
}

fn link(host: Host, addresses: impl IntoIterator<Item = IpAddr>) -> (u32, Link) {
    let peer = VethPeer { namespace: 0, ifindex: 2, addresses: addresses.into_iter().collect() };
    (host.veth(), Link { name: interface(host).into(), peer: Some(peer), ..Link::default() })
}

fn freeze(pin: &Path) {
    let map = MapData::from_pin(pin).expect("a pinned map");
    // The rest of `union bpf_attr` may be left out: the kernel takes it for zeros.
    let attributes =
        [u32::try_from(map.fd().as_fd().as_raw_fd()).expect("a descriptor is no negative number")];
    // SAFETY: the kernel reads the attributes, whose size is given, and keeps no pointer to them.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, MAP_FREEZE, attributes.as_ptr(), size_of_val(&attributes)) };
    assert_eq!(result, 0, "BPF_MAP_FREEZE: {}", io::Error::last_os_error());
}
