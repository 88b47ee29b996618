//! Datagrams in parts: only the first has ports, and the others go where it went.

use std::time::{Duration, Instant};

use podgate_common::{
    MAX_FRAGMENTS,
    Outcome::{Allowed, Denied, Established, Fragment as Orphan, NotIsolated, Spoofed, Unparsed, Unreadable},
    Protocol::Udp,
    Share, Unreported,
    frames::{Extension, Fragment, Frame, flag},
};
use podgate_core::model::Ports;

use crate::{
    node::Node,
    world::{Family, Host, UPLINK, World, all_pods, allow, arrives, leaves, port},
};

/// B may be asked on UDP port 53.
fn world() -> World {
    World::new().ingress(Host::B, [allow(all_pods(), port(Udp, 53))]).egress(Host::B, [])
}

fn datagram(family: Family, from: u16, to: u16) -> Frame {
    Frame::udp((Host::Remote.at(family), from), (Host::B.at(family), to), 4_000)
}

#[test]
fn all_fragments_of_an_allowed_datagram_arrive() {
    let mut node = Node::new(&world());
    for family in Family::ALL {
        let parts = datagram(family, 40_000, 53).fragments(7, 180);
        node.expect(arrives(Host::B, UPLINK), &parts[0], Allowed);
        for part in &parts[1..] {
            node.expect(arrives(Host::B, UPLINK), part, Established);
        }
        // Its fragmented answer leaves the pod, though that is isolated for egress.
        let answer = Frame::udp((Host::B.at(family), 53), (Host::Remote.at(family), 40_000), 4_000);
        for part in answer.fragments(8, 180) {
            node.expect(leaves(Host::B), &part, Established);
        }
    }
}

#[test]
fn no_fragment_of_a_denied_datagram_arrives() {
    let mut node = Node::new(&world());
    for family in Family::ALL {
        let parts = datagram(family, 40_000, 54).fragments(7, 180);
        node.expect(arrives(Host::B, UPLINK), &parts[0], Denied);
        for part in &parts[1..] {
            node.expect(arrives(Host::B, UPLINK), part, Orphan);
        }
    }
}

#[test]
fn a_fragment_without_its_first_is_dropped_for_an_isolated_direction_only() {
    let mut node = Node::new(&world());
    for family in Family::ALL {
        let parts = datagram(family, 40_000, 53).fragments(7, 180);
        node.expect(arrives(Host::B, UPLINK), &parts[2], Orphan);
        node.expect(arrives(Host::A, UPLINK), &parts[2], Unparsed);
        for (pod, outcome) in [(Host::A, Unparsed), (Host::B, Orphan)] {
            let own = Frame { source: pod.at(family), ..parts[1].clone() };
            node.expect(leaves(pod), &own, outcome);
        }
        // The first one is there: another datagram's fragments still are not.
        node.expect(arrives(Host::B, UPLINK), &parts[0], Allowed);
        node.expect(arrives(Host::B, UPLINK), &parts[2], Established);
        node.expect(arrives(Host::B, UPLINK), &datagram(family, 40_000, 53).fragments(8, 180)[1], Orphan);
        let from_another = Frame { source: Host::Outside.at(family), ..parts[1].clone() };
        node.expect(arrives(Host::B, UPLINK), &from_another, Orphan);
        let to_another = Frame { destination: Host::A.at(family), ..parts[1].clone() };
        node.expect(arrives(Host::B, UPLINK), &to_another, Orphan);
        let other_protocol = Frame { protocol: 6, ..parts[1].clone() };
        node.expect(arrives(Host::B, UPLINK), &other_protocol, Orphan);
    }
}

#[test]
fn a_fragment_in_the_name_of_another_pod_is_stopped_at_the_senders_veth() {
    let world = World::new().ingress(Host::B, [allow(all_pods(), Ports::Any)]);
    let mut node = Node::new(&world);
    for family in Family::ALL {
        let parts = Frame::udp((Host::A.at(family), 9), (Host::B.at(family), 9), 600).fragments(7, 20);
        node.expect(leaves(Host::A), &parts[0], NotIsolated);
        node.expect(arrives(Host::B, Host::A.veth()), &parts[0], Allowed);
        node.expect(leaves(Host::Z), &parts[1], Spoofed);
        node.expect(arrives(Host::B, Host::Z.veth()), &parts[1], Spoofed);
        node.expect(leaves(Host::A), &parts[1], Established);
        node.expect(arrives(Host::B, Host::A.veth()), &parts[1], Established);
    }
}

#[test]
fn a_first_fragment_that_hides_the_flags_is_unreadable() {
    let mut node = Node::new(&world());
    for family in Family::ALL {
        let (from, to) = ((Host::Remote.at(family), 9), (Host::B.at(family), 80));
        let mut segment = Frame::tcp(from, to, flag::SYN);
        segment.payload.resize(64, 0);
        let parts = segment.fragments(7, 1);
        node.expect(arrives(Host::B, UPLINK), &parts[0], Unreadable);
        // Flags that lie behind the end of the packet are no flags.
        let mut padded = parts[0].bytes();
        padded.extend([0, 0, 0, 0, 5 << 4, flag::ACK, 0, 0, 0, 0, 0, 0]);
        node.expect_bytes(arrives(Host::B, UPLINK), &padded, Unreadable);
        // Nor may a second fragment bring others.
        node.expect(arrives(Host::B, UPLINK), &parts[1], Unreadable);
    }
}

#[test]
fn an_atomic_fragment_is_a_whole_datagram() {
    let mut node = Node::new(&world());
    let (from, to) = (Host::Remote.at(Family::V6), Host::B.at(Family::V6));
    let atomic = Extension::Fragment(Fragment { id: 7, offset: 0, more: false });
    let ask = |port| Frame::udp((from, 9), (to, port), 30).with_extensions(&[atomic]);
    node.expect(arrives(Host::B, UPLINK), &ask(53), Allowed);
    node.expect(arrives(Host::B, UPLINK), &ask(54), Denied);
    assert!(node.pinned.fragments().keys().next().is_none(), "nothing more comes of it");
}

#[test]
fn fragments_of_protocols_without_ports_follow_their_first() {
    let world = World::new().ingress(Host::B, [allow(all_pods(), Ports::Any)]);
    let mut node = Node::new(&world);
    for family in Family::ALL {
        let (from, to) = (Host::Remote.at(family), Host::B.at(family));
        let mut echo = Frame::echo_request(from, to, 7);
        echo.payload.resize(200, 0);
        for whole in [echo, Frame::ip(from, to, 47, vec![0; 200])] {
            let [first, later, ..] = &whole.fragments(7, 10)[..] else { panic!("three fragments") };
            node.expect(arrives(Host::B, UPLINK), later, Orphan);
            node.expect(arrives(Host::B, UPLINK), first, Allowed);
            node.expect(arrives(Host::B, UPLINK), later, Established);
        }
    }
}

/// As long as it takes a veth to begin as many datagrams as there is room for.
const TIME_TO_FILL: Duration = Duration::from_secs(MAX_FRAGMENTS as u64 / Share::FRAGMENTS as u64 - 1);

#[test]
fn a_pod_that_floods_with_fragments_takes_no_room_from_others() {
    let node = Node::new(&world());
    let datagram = |number: usize| {
        let number = u32::try_from(number).expect("few of them");
        let mut parts =
            Frame::udp((Host::A.at(Family::V6), 9), (Host::Z.at(Family::V6), 9), 40).fragments(number, 3);
        parts.swap_remove(0).bytes()
    };
    let began = Instant::now();
    // B's are on their way while A sends more than there is room for.
    let [first, later, ..] = &self::datagram(Family::V4, 40_000, 53).fragments(7, 180)[..] else {
        panic!("three fragments")
    };
    assert!(node.programs.run(arrives(Host::B, UPLINK), &first.bytes()));
    let mut sent = 0;
    while sent < MAX_FRAGMENTS + MAX_FRAGMENTS / 4 && began.elapsed() < TIME_TO_FILL {
        assert!(node.programs.run(leaves(Host::A), &datagram(sent)), "the first one passes");
        sent += 1;
    }
    let known = node.pinned.fragments().keys().count();
    // A second of the programs' clock is a little shorter than one, and the first and the last may be parts
    // of one.
    let windows = 2 + usize::try_from(began.elapsed().as_millis() / 900).expect("few");
    let most = Share::FRAGMENTS as usize * windows;
    assert!(sent <= known || sent > Share::FRAGMENTS as usize && known <= most, "{known} of {sent}");
    assert!(
        node.programs.run(arrives(Host::B, UPLINK), &later.bytes()),
        "B's still arrive: {known} of {sent}"
    );
    let limited = node.lost(Unreported::Fragment);
    assert_eq!(
        usize::try_from(limited),
        Ok((sent + 1).saturating_sub(known)),
        "what is beyond the share is counted"
    );
}
