//! Taking programs away: when it is done, no packet meets them any more.

use std::{
    ffi::CString,
    fs::{self, Permissions},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{PermissionsExt as _, chown},
    },
    path::Path,
};

use aya::programs::{SchedClassifier, TcAttachType};
use podgate_datapath::{
    Attacher, Datapath, DatapathOptions, Device, DeviceRole, HookKind, Pins, bpffs::mount, detach,
};

use crate::{node::OPTIONS, sandbox, world::Host};

/// Programs at the veth of A, by TCX links.
fn attached(bpffs: &Path) -> (Pins, Attacher, Device) {
    let pins = Pins::create(bpffs).expect("a bpffs of our own");
    let options = DatapathOptions { share: true, ..OPTIONS };
    let (mut datapath, _) = Datapath::load(Some(&pins), options).expect("programs and maps");
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

/// The bpffs of these tests is for all users, as the kernel mounts it without options.
#[test]
fn no_other_user_gets_at_the_pins() {
    let bpffs = sandbox::enter();
    let root = bpffs.join("podgate");
    // As an agent of before has left it.
    fs::create_dir(&root).expect("it is absent");
    fs::set_permissions(&root, Permissions::from_mode(0o755)).expect("it is ours");
    let pins = Pins::create(&bpffs).expect("a bpffs of our own");
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&root), 0o700, "who can open a directory can lock agents out");
    fs::remove_dir_all(&root).expect("they are ours");
    drop(pins);
    fs::create_dir(&root).expect("it is absent");
    chown(&root, Some(65_534), None).expect("root may");
    let refused = Pins::create(&bpffs).expect_err("its owner could take the pins away");
    assert!(format!("{refused:#}").contains("belongs to user 65534"), "{refused:#}");
}

#[test]
fn an_agent_mounts_a_bpffs_for_its_own_user_alone() {
    sandbox::enter();
    let directory = tempfile::tempdir().expect("a directory");
    assert!(mount(directory.path()).expect("root may"), "there is none");
    let mode = fs::metadata(directory.path()).expect("it is there").permissions().mode() & 0o777;
    let path = CString::new(directory.path().as_os_str().as_bytes()).expect("a path without a zero");
    // SAFETY: the path is a string that lives. Not by a program: a machine for tests may have none.
    assert_eq!(unsafe { libc::umount2(path.as_ptr(), 0) }, 0, "it is ours");
    assert_eq!(mode, 0o700);
}

#[test]
fn an_agent_takes_its_programs_off_a_device_at_once() {
    let bpffs = sandbox::enter();
    let (_pins, mut attacher, device) = attached(&bpffs);
    attacher.detach([device], &[DeviceRole::Pod]).expect("they are ours");
    assert_eq!(programs(), 0);
}

#[test]
fn programs_of_an_agent_with_other_maps_are_gone_when_it_is_retired() {
    let bpffs = sandbox::enter();
    let (pins, ..) = attached(&bpffs);
    fs::rename(pins.directory(), bpffs.join("podgate/v1")).expect("one file system");
    let pins = Pins::create(&bpffs).expect("the same bpffs");
    let links =
        pins.previous_agents().expect("none runs").remove_previous(&pins).expect("no one else has them");
    assert_eq!((links, programs()), (2, 0));
}
