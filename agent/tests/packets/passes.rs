//! Passes of the whole reconciler, at real devices.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    sync::Arc,
};

use aya::{
    maps::MapData,
    programs::{SchedClassifier, TcAttachType},
};
use podgate::{
    datapath::{Attacher, Datapath, DatapathOptions, HookKind, Pins},
    endpoints::{Link, Network, VethPeer, cni::CniResults},
    reconciler::Reconciler,
};

use crate::{
    node::FLOWS,
    sandbox,
    world::{Family, Host, World},
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

fn start() -> (Pins, Reconciler) {
    let bpffs = sandbox::enter();
    let pins = Pins::create(&bpffs).expect("a bpffs of our own");
    let options = DatapathOptions {
        flows: FLOWS,
        recheck: false,
        masqueraded: false,
        encapsulation: false,
        share: true,
    };
    let datapath = Datapath::load(Some(&pins), options).expect("programs and maps");
    let attacher = Attacher::new(HookKind::Tcx, &pins).expect("a netlink socket");
    let made = pins.made().expect("the pins were just made");
    let reconciler = Reconciler::new("n1".into(), datapath, attacher, made);
    (pins, reconciler)
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
