//! Many connections at once on all processors, in a table with room for few of them.

use std::thread;

use podgate_common::{
    Protocol::Tcp,
    frames::{Frame, flag::*},
};

use crate::{
    node::Node,
    world::{Family, Host, UPLINK, World, allow, arrives, block, leaves, port},
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
        node.datapath.counters.evictions().expect("counters").iter().map(|(_, count)| count).sum();
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
            // Somebody else's may have taken its place meanwhile.
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
