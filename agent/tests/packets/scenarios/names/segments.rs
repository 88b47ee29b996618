//! Messages over TCP that come in several segments.

use super::*;

const NAME: &str = "api.example.com";

/// A connection of A to its resolver.
struct Connection {
    family: Family,
    own: u16,
    next: u32,
}

impl Connection {
    fn open(node: &mut Node, family: Family, own: u16) -> Self {
        let connection = Self { family, own, next: 0x8000_0000 };
        let question = Frame::tcp((Host::A.at(family), own), (RESOLVER.at(family), PORT), SYN);
        node.expect(leaves(Host::A), &question, Allowed);
        let answer = connection.segment(0x7fff_ffff, SYN | ACK, &[]);
        node.expect(arrives(Host::A, UPLINK), &answer, Established);
        connection
    }

    fn segment(&self, sequence: u32, flags: u8, data: &[u8]) -> Frame {
        let (server, client) = ((RESOLVER.at(self.family), PORT), (Host::A.at(self.family), self.own));
        let mut frame = Frame::tcp(server, client, flags);
        frame.payload[4..8].copy_from_slice(&sequence.to_be_bytes());
        frame.payload.extend(data);
        frame
    }

    fn takes(&mut self, node: &mut Node, data: &[u8]) {
        node.expect(arrives(Host::A, UPLINK), &self.segment(self.next, ACK, data), Established);
        self.next += u32::try_from(data.len()).expect("short");
    }
}

fn counts(node: &Node) -> [u64; 3] {
    [NameCount::Learnt, NameCount::Unlearnt, NameCount::Malformed].map(|of| node.named(of))
}

fn numbered(family: Family, number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    match family {
        Family::V4 => IpAddr::from([198, 51, high, low]),
        Family::V6 => IpAddr::from([0x2001, 0xdb8, 7, 0, 0, 0, 0, number]),
    }
}

fn large(family: Family, count: u16) -> Vec<u8> {
    framed(&reply(NAME, &(0..count).map(|number| numbered(family, number)).collect::<Vec<_>>()))
}

#[test]
fn a_message_over_segments_is_learnt_from_before_its_last_bytes_arrive() {
    let mut node = Node::new(&world(&[NAME]));
    for family in Family::ALL {
        let mut connection = Connection::open(&mut node, family, 41_000);
        let message = large(family, 300);
        let parts: Vec<&[u8]> = message.chunks(1_448).collect();
        let (last, before) = parts.split_last().expect("there are some");
        for part in before {
            connection.takes(&mut node, part);
        }
        connect(&mut node, numbered(family, 0), 443, Denied);
        connection.takes(&mut node, last);
        for number in [0, 1, 150, 299] {
            connect(&mut node, numbered(family, number), 443, Allowed);
        }
        connect(&mut node, numbered(family, 300), 443, Denied);
    }
    assert_eq!(counts(&node), [600, 0, 0]);
}

#[test]
fn a_message_is_learnt_from_wherever_it_is_cut() {
    let mut node = Node::new(&world(&[NAME]));
    let message = large(Family::V4, 2);
    for (at, own) in (1..message.len()).zip(42_000..) {
        let mut connection = Connection::open(&mut node, Family::V4, own);
        // What is behind the message in its last segment is read as well, and what follows.
        let [begun, rest] = [&message[..at], &[&message[at..], &message[..at]].concat()];
        for part in [begun, rest, &message[at..]] {
            connection.takes(&mut node, part);
        }
    }
    let cuts = u64::try_from(message.len() - 1).expect("short");
    assert_eq!(counts(&node), [4 * cuts, 0, 0]);
}

#[test]
fn what_is_missing_between_segments_is_counted_and_opens_nothing() {
    let mut node = Node::new(&world(&[NAME]));
    let mut connection = Connection::open(&mut node, Family::V4, 43_000);
    let message = large(Family::V4, 200);
    connection.takes(&mut node, &message[..1_000]);
    connection.next += 1_000;
    connection.takes(&mut node, &message[2_000..]);
    connect(&mut node, numbered(Family::V4, 0), 443, Denied);
    assert_eq!(counts(&node), [0, 1, 0]);
    // Where the next message begins is known.
    connection.takes(&mut node, &framed(&reply(NAME, &[numbered(Family::V4, 7)])));
    connect(&mut node, numbered(Family::V4, 7), 443, Allowed);
}

#[test]
fn two_streams_at_a_time_are_kept_apart_and_a_third_costs_the_oldest() {
    let mut node = Node::new(&world(&[NAME]));
    let messages = [0, 100, 200].map(|first| {
        framed(&reply(NAME, &(first..first + 50).map(|it| numbered(Family::V4, it)).collect::<Vec<_>>()))
    });
    let mut connections = [44_000, 44_001, 44_002].map(|own| Connection::open(&mut node, Family::V4, own));
    for (connection, message) in connections.iter_mut().zip(&messages).take(2) {
        connection.takes(&mut node, &message[..300]);
    }
    for (connection, message) in connections.iter_mut().zip(&messages).take(2) {
        connection.takes(&mut node, &message[300..]);
    }
    assert_eq!(counts(&node), [100, 0, 0]);
    for (connection, message) in connections.iter_mut().zip(&messages) {
        connection.takes(&mut node, &message[..300]);
    }
    for (connection, message) in connections.iter_mut().zip(&messages) {
        connection.takes(&mut node, &message[300..]);
    }
    assert_eq!(counts(&node), [200, 1, 0]);
    connect(&mut node, numbered(Family::V4, 200), 443, Allowed);
}
