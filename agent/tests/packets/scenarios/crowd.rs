//! Many connections at once on all processors, in a table with room for few of them.

use std::thread;

use podgate_common::{
    Outcome::{Allowed, Established, NotIsolated},
    Protocol::Tcp,
    frames::{Frame, flag::*},
};

use crate::{
    node::Node,
    world::{Family, Host, UPLINK, World, all_pods, allow, arrives, block, leaves, port},
};

/// Four sets.
const ROOM: u32 = 28;
const ROUNDS: u16 = 300;
const CONNECTIONS: u16 = 64;

/// What one processor saw.
#[derive(Debug, Default)]
struct Seen {
    opened: usize,
    refused: usize,
    replied: usize,
}

#[test]
fn processors_that_write_to_the_same_sets_open_nothing_and_lose_next_to_nothing() {
    let outside =
        [allow(block("192.0.2.0/24", &[]), port(Tcp, 80)), allow(block("2001:db8::/32", &[]), port(Tcp, 80))];
    let node = Node::with_room(&World::new().ingress(Host::B, outside).egress(Host::B, []), ROOM);
    let processors = thread::available_parallelism().map_or(2, |count| count.get().clamp(2, 16));
    let programs = &node.programs;
    let seen: Vec<Seen> = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..processors).map(|number| scope.spawn(move || crowd(programs, number))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no assertion failed")).collect()
    });
    let total = |count: fn(&Seen) -> usize| seen.iter().map(count).sum::<usize>();
    let (opened, refused) = (total(|seen| seen.opened), total(|seen| seen.refused));
    // A writer that waited in vain.
    assert!(refused * 1_000 <= opened, "{seen:?}");
    assert!(total(|seen| seen.replied) > 0, "{seen:?}");
    let evicted: u64 =
        node.readers.counters.evictions().expect("counters").iter().map(|(_, count)| count).sum();
    assert!(evicted > 1_000, "{evicted} had to go");
}

/// Opens connections that are allowed, and says that there are others.
fn crowd(programs: &crate::node::Programs, number: usize) -> Seen {
    let mut seen = Seen::default();
    let first = 10_000 + 100 * u16::try_from(number).expect("few processors");
    for round in 0..ROUNDS {
        for connection in 0..CONNECTIONS {
            let family = if connection % 2 == 0 { Family::V4 } else { Family::V6 };
            let (client, server) = ((Host::Outside.at(family), first + connection), (Host::B.at(family), 80));
            match programs.run(arrives(Host::B, UPLINK), &Frame::tcp(client, server, SYN).bytes()) {
                true => seen.opened += 1,
                false => seen.refused += 1,
            }
            // Another's may have taken its place meanwhile.
            seen.replied +=
                usize::from(programs.run(leaves(Host::B), &Frame::tcp(server, client, SYN | ACK).bytes()));
            // No one has opened these.
            let client_denied = (client.0, 50_000 + round);
            assert!(!programs.run(leaves(Host::B), &Frame::tcp(server, client_denied, ACK).bytes()));
            let closed = (server.0, 81);
            assert!(!programs.run(arrives(Host::B, UPLINK), &Frame::tcp(client, closed, ACK).bytes()));
        }
    }
    seen
}

/// 64 sets.
const MORE_ROOM: u32 = 7 * 64;

#[test]
fn pods_that_fill_the_table_leave_room_for_those_that_have_less() {
    let to_outside = || [allow(block("192.0.2.0/24", &[]), port(Tcp, 80))];
    let crowd = [Host::B, Host::Z];
    let world =
        crowd.iter().fold(World::new().egress(Host::A, to_outside()).ingress(Host::A, []), |world, pod| {
            world.egress(*pod, to_outside()).ingress(*pod, [])
        });
    let node = Node::with_room(&world, MORE_ROOM);
    let opens = |pod: Host, number: u16| {
        let (client, server) = ((pod.at(Family::V4), 10_000 + number), (Host::Outside.at(Family::V4), 80));
        let answered = Frame::tcp(server, client, SYN | ACK).bytes();
        node.programs.run(leaves(pod), &Frame::tcp(client, server, SYN).bytes())
            && node.programs.run(arrives(pod, UPLINK), &answered)
    };
    // A has some before they come.
    assert!((0..20).all(|number| opens(Host::A, number)), "there is room");
    for number in 0..4 * u16::try_from(MORE_ROOM).expect("few") {
        for pod in crowd {
            opens(pod, number);
        }
    }
    // However many it opens, as long as they are fewer than either has. With these, no set is full of its own
    // connections, wherever the seed puts them.
    for number in 20..60 {
        assert!(opens(Host::A, number), "{number} of A");
    }
    let flows = node.datapath.maps.flows.open().expect("the kernel maps it");
    let held = |veth: u32| flows.entries().filter(|(_, flow)| flow.charged_to() == veth).count();
    assert_eq!(held(Host::A.veth()), 60, "none of A's had to go");
    assert!(crowd.iter().map(|pod| held(pod.veth())).sum::<usize>() > 300, "the table is full");
    for pod in [Host::A, Host::B, Host::Z] {
        assert_eq!(flows.share(pod.veth()) as usize, held(pod.veth()), "the share of {pod:?}");
    }
    // Whoever removes them counts, too.
    flows.remove(|_, flow| flow.charged_to() == Host::B.veth());
    assert_eq!(flows.share(Host::B.veth()), 0);
}

#[test]
fn an_answer_to_a_connection_that_is_gone_counts_towards_no_share() {
    let mut node = Node::new(&World::new().ingress(Host::B, [allow(all_pods(), port(Tcp, 80))]));
    for family in Family::ALL {
        let (client, server) = ((Host::A.at(family), 40_000), (Host::B.at(family), 80));
        node.expect(leaves(Host::A), &Frame::tcp(client, server, SYN), NotIsolated);
        node.expect(arrives(Host::B, Host::A.veth()), &Frame::tcp(client, server, SYN), Allowed);
        node.forget();
        for _ in 0..2 {
            let answer = Frame::tcp(server, client, SYN | ACK);
            node.expect(leaves(Host::B), &answer, NotIsolated);
            node.expect(arrives(Host::A, Host::B.veth()), &answer, NotIsolated);
            assert_eq!(node.flow_count(), 0);
        }
        // Its client goes on, and pays.
        node.expect(leaves(Host::A), &Frame::tcp(client, server, ACK), NotIsolated);
        node.expect(arrives(Host::B, Host::A.veth()), &Frame::tcp(client, server, ACK), Allowed);
        node.expect(leaves(Host::B), &Frame::tcp(server, client, ACK), Established);
        assert!(node.flows().values().all(|flow| flow.charged_to() == Host::A.veth()));
        node.forget();
    }
}
