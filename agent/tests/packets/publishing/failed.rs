//! Publications that the kernel breaks off: what was written until then opens nothing, and the next one
//! finishes what they have left.

use std::net::{IpAddr, Ipv6Addr};

use podgate_common::{
    EndpointState, MAX_ENDPOINTS, MAX_OWNERS, Protocol,
    frames::{Frame, flag},
};
use podgate_core::compiler::Subject;
use podgate_datapath::publisher::{EndpointEntry, Wanted};

use crate::{
    node::Node,
    world::{Family, Host, TUNNEL_PORTS, World, leaves, service_at},
};

/// More addresses than there is room for, all behind those of the world: they are ordered as words of memory.
fn too_many_owners(wanted: &mut Wanted) {
    let last = |number: u32| IpAddr::V6(Ipv6Addr::from(0xff << 64 | u128::from(number)));
    wanted.owners.extend((0..).take(MAX_OWNERS).map(|number| (last(number), 1 << 20)));
}

/// More veths than there is room for, all behind those of the world.
fn too_many_endpoints(wanted: &mut Wanted) {
    let unmanaged =
        EndpointEntry { state: EndpointState::Unmanaged, subject: Subject::NOT_ISOLATED, master: 0 };
    wanted.endpoints.extend((0..).take(MAX_ENDPOINTS + 1).map(|number| ((1 << 20) + number, unmanaged)));
}

#[test]
fn an_address_that_changes_hands_is_not_its_former_veths_whatever_fails() {
    for spoil in [too_many_owners, too_many_endpoints] {
        let world = World::new();
        let mut node = Node::new(&world);
        let moved = world.with_address_moved(Host::A, Host::Z);
        let from_a = |family: Family, port| {
            Frame::tcp((Host::A.at(family), port), (Host::B.at(family), 80), flag::SYN).bytes()
        };
        for family in Family::ALL {
            assert!(node.programs.run(leaves(Host::A), &from_a(family, 1)), "until now it is");
        }
        node.fail_to_publish(&moved, spoil);
        for family in Family::ALL {
            assert!(!node.programs.run(leaves(Host::A), &from_a(family, 2)), "{family:?}");
        }
    }
}

/// Also what an agent leaves that dies in a publication: the next one does not know how far it came.
#[test]
fn the_next_publication_ends_the_connections_that_a_failed_one_was_to_end() {
    let service = |backend| World::new().service(Protocol::Udp, &[backend]);
    let before = service((Host::Outside, 80));
    let after = service((Host::Node, TUNNEL_PORTS[0])).with_address_moved(Host::A, Host::Z);
    let mut node = Node::new(&before);
    let frames = Family::ALL.map(|family| {
        let to_service = Frame::udp((Host::B.at(family), 40_000), (service_at(family), 80), 60);
        let (a, outside) = ((Host::A.at(family), 40_000), (Host::Outside.at(family), 80));
        [
            (Host::B, to_service.bytes()),
            (Host::A, Frame::tcp(a, outside, flag::SYN).bytes()),
            (Host::A, Frame::tcp(a, outside, flag::ACK).bytes()),
        ]
    });
    for (pod, frame) in frames.as_flattened() {
        assert!(node.programs.run(leaves(*pod), frame), "until now it passes");
    }
    node.fail_to_publish(&after, too_many_endpoints);
    node.publish(&after);
    for (pod, frame) in frames.as_flattened() {
        assert!(!node.programs.run(leaves(*pod), frame), "{pod:?}: {frame:02x?}");
    }
}
