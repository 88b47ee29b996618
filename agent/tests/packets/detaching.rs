//! Taking programs away: when it is done, no packet meets them any more.

use std::{fs, path::Path};

use aya::programs::{SchedClassifier, TcAttachType};
use podgate_datapath::{Attacher, Datapath, DatapathOptions, Device, DeviceRole, HookKind, Pins, detach};

use crate::{node::FLOWS, sandbox, world::Host};

/// Programs at the veth of A, by TCX links.
fn attached(bpffs: &Path) -> (Pins, Attacher, Device) {
    let pins = Pins::create(bpffs).expect("a bpffs of our own");
    let options = DatapathOptions {
        flows: FLOWS,
        recheck: false,
        masqueraded: false,
        encapsulation: false,
        share: true,
    };
    let mut datapath = Datapath::load(Some(&pins), options).expect("programs and maps");
    let mut attacher = Attacher::new(HookKind::Tcx, &pins).expect("a netlink socket");
    let device = Device { ifindex: Host::A.veth(), generation: 0 };
    attacher.attach(&mut datapath, DeviceRole::Pod, &device, &interface()).expect("a device");
    assert_eq!(programs(), 2, "one at each hook");
    (pins, attacher, device)
}

fn interface() -> String {
    format!("at{}", Host::A.veth())
}

/// How many programs there are at both hooks of the veth.
fn programs() -> usize {
    let at = |hook| SchedClassifier::query_tcx(&interface(), hook).expect("Linux 6.6").1.len();
    at(TcAttachType::Ingress) + at(TcAttachType::Egress)
}

#[test]
fn detach_returns_when_no_hook_has_a_program() {
    let bpffs = sandbox::enter();
    drop(attached(&bpffs));
    detach(&bpffs).expect("no agent runs");
    assert_eq!(programs(), 0);
}

#[test]
fn an_agent_takes_its_programs_off_a_device_at_once() {
    let bpffs = sandbox::enter();
    let (_pins, mut attacher, device) = attached(&bpffs);
    attacher.detach([device]).expect("they are ours");
    assert_eq!(programs(), 0);
}

#[test]
fn programs_of_an_agent_with_other_maps_are_gone_when_it_is_retired() {
    let bpffs = sandbox::enter();
    let (pins, ..) = attached(&bpffs);
    fs::rename(pins.directory(), bpffs.join("podgate/v1")).expect("one file system");
    let pins = Pins::create(&bpffs).expect("the same bpffs");
    let links =
        pins.previous_agents().expect("none runs").remove_previous(&pins).expect("nobody else has them");
    assert_eq!((links, programs()), (2, 0));
}
