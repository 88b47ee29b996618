//! Rules with names of the DNS: who is believed, what is learnt, and what it opens.

mod entered;
mod hostile;
mod segments;

use std::net::IpAddr;

use podgate_common::{
    Direction::Egress,
    Hook, NODE, NameCount,
    Outcome::{self, Allowed, Denied, DeniedBackend, Established, NotIsolated, OwnNode},
    Protocol::{Tcp, Udp},
    Resolver, ServiceKey,
    frames::{
        Frame,
        dns::{datagram, labels, reply},
        flag,
    },
};
use podgate_core::model::{Action, DomainPattern, Peer, Peers, Ports, Tier};
use podgate_datapath::names::NameTableSizes;

use super::cluster_policies::{rule, with};
use crate::{
    node::Node,
    world::{Family, Host, UPLINK, World, arrives, block, leaves, port},
};

const SYN: u8 = flag::SYN;
const ACK: u8 = flag::ACK;

/// Where names are asked.
const RESOLVER: Host = Host::Remote;
const PORT: u16 = 53;

fn names(names: &[&str]) -> Peers {
    let name = |text: &&str| Peer::Name(DomainPattern::parse(text).expect("a literal of the test"));
    Peers::Listed(names.iter().map(name).collect())
}

fn everywhere() -> Peers {
    let Peers::Listed(mut all) = block("0.0.0.0/0", &[]) else { panic!("a list") };
    let Peers::Listed(v6) = block("::/0", &[]) else { panic!("a list") };
    all.extend(v6);
    Peers::Listed(all)
}

fn policy(world: World, action: Action, peers: Peers, ports: Ports) -> World {
    with(world, Tier::Admin, Host::A, Egress, rule(action, peers, ports))
}

/// A may ask everyone on port 53, and reach these names on TCP 443; all else is denied.
fn world(allowed: &[&str]) -> World {
    let mut world = World::new();
    for protocol in [Udp, Tcp] {
        world = policy(world, Action::Accept, everywhere(), port(protocol, PORT));
        let at = Family::ALL.map(|family| ServiceKey::new(RESOLVER.at(family).into(), protocol, PORT));
        world.resolvers.extend(at.map(|key| (key, Resolver::BELIEVED)));
    }
    let world = policy(world, Action::Accept, names(allowed), port(Tcp, 443));
    policy(world, Action::Deny, everywhere(), Ports::Any)
}

/// What A sends from a port of its own to a server, and gets from it.
fn exchange(node: &mut Node, family: Family, server: (Host, u16), own: u16, message: &[u8]) {
    let (client, server) = ((Host::A.at(family), own), (server.0.at(family), server.1));
    let asked = node.evaluate(leaves(Host::A), &datagram(client, server, b"a question").bytes());
    assert!(asked.passes(), "{asked}");
    node.expect(arrives(Host::A, UPLINK), &datagram(server, client, message), Established);
}

fn connect(node: &mut Node, to: IpAddr, port: u16, expected: Outcome) {
    node.expect(leaves(Host::A), &connection(to, port), expected);
}

fn connection(to: IpAddr, port: u16) -> Frame {
    let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
    Frame::tcp((Host::A.at(family), 50_000), (to, port), SYN)
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("a literal of the test")
}

#[test]
fn an_address_is_open_once_its_reply_has_arrived() {
    let mut node = Node::new(&world(&["api.example.com", "*.wild.test"]));
    for (family, at) in [(Family::V4, "198.51.100.7"), (Family::V6, "2001:db8:7::7")] {
        let (at, other) = (address(at), Host::Outside.at(family));
        connect(&mut node, at, 443, Denied);
        exchange(&mut node, family, (RESOLVER, PORT), 40_000, &reply("API.example.com", &[at]));
        connect(&mut node, at, 443, Allowed);
        // Neither another port, nor another address, nor another pod's.
        connect(&mut node, at, 80, Denied);
        connect(&mut node, other, 443, Denied);
        // Over the same connection to the resolver.
        exchange(&mut node, family, (RESOLVER, PORT), 40_000, &reply("a.b.wild.test", &[other]));
        connect(&mut node, other, 443, Allowed);
    }
    assert_eq!(node.named(NameCount::Learnt), 4);
}

#[test]
fn what_was_learnt_can_be_read() {
    let mut node = Node::new(&world(&["api.example.com", "*.wild.test"]));
    let of = |last: u8| IpAddr::from([198, 51, 100, last]);
    for (name, first) in [("api.example.com", 0), ("a.wild.test", 20), ("a.b.wild.test", 40)] {
        let addresses: Vec<IpAddr> = (first..first + 20).map(of).collect();
        exchange(&mut node, Family::V4, (RESOLVER, PORT), 40_000, &reply(name, &addresses));
    }
    connect(&mut node, of(25), 443, Allowed);
    let names = &node.readers.names;
    assert_eq!(names.sizes().expect("sizes"), NameTableSizes { tables: 1, live: 60 });
    let all = names.read(1).expect("it is read").expect("it is open");
    let place = |name: &str, left| (name.split('.').map(|label| label.as_bytes().into()).collect(), left);
    let places = [place("api.example.com", 0), place("wild.test", 1), place("wild.test", 2)];
    for (at, place) in (0..).zip(&places) {
        let mut found: Vec<_> = all.iter().filter(|it| it.name == *place).map(|it| it.address).collect();
        found.sort_unstable();
        assert_eq!(found, (20 * at..20 * at + 20).map(of).collect::<Vec<_>>());
    }
    // The time to live is 30 s, and a name is kept for a minute.
    assert!(all.iter().all(|it| it.left.is_some_and(|left| (58..=60).contains(&left.as_secs()))));
    let one = names.find(1, of(25)).expect("it is read");
    assert_eq!(one.iter().map(|it| &it.name).collect::<Vec<_>>(), [&places[1]]);
    assert_eq!(names.find(1, of(99)).expect("it is read"), []);
    assert_eq!(names.read(2).expect("it is asked"), None, "there is no other table");
    let opened = node.readers.tables.opened_by(&[Host::A.veth()].into()).expect("connections");
    assert_eq!(opened.get(&(Host::A.veth(), of(25))), Some(&1));
}

#[test]
fn names_that_no_rule_has_open_nothing() {
    let mut node = Node::new(&world(&["api.example.com", "*.wild.test"]));
    let at = address("198.51.100.7");
    for name in ["example.com", "api.example.com.evil.test", "wild.test", "x.api.example.com", "notwild.test"]
    {
        exchange(&mut node, Family::V4, (RESOLVER, PORT), 40_000, &reply(name, &[at]));
        connect(&mut node, at, 443, Denied);
    }
    assert_eq!(node.named(NameCount::Learnt), 0);
}

#[test]
fn only_resolvers_are_believed_and_only_by_the_pod_that_has_asked() {
    let mut node = Node::new(&world(&["api.example.com"]));
    let at = address("198.51.100.7");
    let message = reply("api.example.com", &[at]);
    // An allowed peer that is no resolver, and a resolver's address on another port.
    exchange(&mut node, Family::V4, (Host::Outside, PORT), 40_000, &message);
    connect(&mut node, at, 443, Denied);
    // No one has asked: it passes only as A is not isolated for ingress.
    let (client, server) = ((Host::A.at(Family::V4), 40_001), (RESOLVER.at(Family::V4), PORT));
    let unasked = datagram(server, client, &message);
    assert!(node.evaluate(arrives(Host::A, UPLINK), &unasked.bytes()).passes());
    connect(&mut node, at, 443, Denied);
    assert_eq!(node.named(NameCount::Learnt), 0);
}

#[test]
fn what_no_name_may_open_stays_closed() {
    let mut node = Node::new(&world(&["api.example.com"]));
    let metadata = ["169.254.169.254", "127.0.0.1"].map(address);
    exchange(&mut node, Family::V4, (RESOLVER, PORT), 40_000, &reply("api.example.com", &metadata));
    connect(&mut node, metadata[0], 443, Denied);
    let own_link = ["::1", "fe80::1"].map(address);
    exchange(&mut node, Family::V4, (RESOLVER, PORT), 40_000, &reply("api.example.com", &own_link));
    assert_eq!((node.named(NameCount::Learnt), node.named(NameCount::Refused)), (0, 4));
    // Addresses of nodes are learnt, and not opened: the own node's is evaluated as such, as ever.
    let other = Host::OtherNode.at(Family::V4);
    exchange(&mut node, Family::V4, (RESOLVER, PORT), 40_000, &reply("api.example.com", &[other]));
    connect(&mut node, other, 443, Denied);
}

#[test]
fn a_rule_that_denies_before_a_name_wins_and_one_behind_it_does_not() {
    let at = address("198.51.100.7");
    let message = reply("api.example.com", &[at, address("203.0.113.9")]);
    let before = |action: Action| {
        let world = policy(World::new(), action, block("198.51.100.0/24", &[]), port(Tcp, 443));
        let world = policy(world, Action::Accept, everywhere(), port(Udp, PORT));
        let mut world = policy(world, Action::Accept, names(&["api.example.com"]), Ports::Any);
        let resolver = ServiceKey::new(RESOLVER.at(Family::V4).into(), Udp, PORT);
        world.resolvers = [(resolver, Resolver::BELIEVED)].into();
        policy(world, Action::Deny, everywhere(), Ports::Any)
    };
    for (action, expected) in [(Action::Deny, Denied), (Action::Pass, Allowed)] {
        let mut node = Node::new(&before(action));
        exchange(&mut node, Family::V4, (RESOLVER, PORT), 40_000, &message);
        // What is passed on no NetworkPolicy isolates here.
        connect(&mut node, at, 443, expected);
        connect(&mut node, at, 80, Allowed);
        connect(&mut node, address("203.0.113.9"), 443, Allowed);
        connect(&mut node, address("203.0.113.8"), 443, Denied);
    }
}

#[test]
fn what_was_learnt_survives_a_change_of_policies() {
    let mut node = Node::new(&world(&["api.example.com"]));
    let at = address("198.51.100.7");
    exchange(&mut node, Family::V4, (RESOLVER, PORT), 40_000, &reply("api.example.com", &[at]));
    connect(&mut node, at, 443, Allowed);
    node.publish(&world(&["other.test", "api.example.com"]));
    connect(&mut node, at, 443, Allowed);
    // The name is still the one that it was, to whatever rules there are.
    let wild = world(&["other.test", "*.example.com"]);
    node.publish(&wild);
    connect(&mut node, at, 443, Allowed);
    node.publish(&wild);
    assert!(node.programs.run(leaves(Host::A), &connection(at, 443).bytes()));
    node.publish(&world(&["example.com"]));
    node.publish(&world(&["example.com"]));
    assert!(!node.programs.run(leaves(Host::A), &connection(at, 443).bytes()));
    node.publish(&world(&["api.example.com"]));
    assert!(node.programs.run(leaves(Host::A), &connection(at, 443).bytes()));
}

/// A segment of a resolver's stream.
fn segment(own: u16, sequence: u32, flags: u8, data: &[u8]) -> Frame {
    let mut frame = Frame::tcp((RESOLVER.at(Family::V4), PORT), (Host::A.at(Family::V4), own), flags);
    frame.payload[4..8].copy_from_slice(&sequence.to_be_bytes());
    frame.payload.extend(data);
    frame
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).expect("short").to_be_bytes()[..], message].concat()
}

#[test]
fn messages_of_a_stream_count_where_they_begin() {
    let mut node = Node::new(&world(&["api.example.com"]));
    let [one, two, evil] = ["198.51.100.7", "198.51.100.8", "203.0.113.66"].map(address);
    let open = Frame::tcp((Host::A.at(Family::V4), 41_000), (RESOLVER.at(Family::V4), PORT), SYN);
    node.expect(leaves(Host::A), &open, Allowed);
    let hook = arrives(Host::A, UPLINK);
    node.expect(hook, &segment(41_000, 1_000, SYN | ACK, &[]), Established);
    // Two messages in one segment.
    let two_messages =
        [framed(&reply("other.test", &[evil])), framed(&reply("api.example.com", &[one]))].concat();
    node.expect(hook, &segment(41_000, 1_001, ACK, &two_messages), Established);
    connect(&mut node, one, 443, Allowed);
    connect(&mut node, evil, 443, Denied);
    // A message in two segments, of which the second looks like one itself: whoever has a zone writes it.
    let next = 1_001 + u32::try_from(two_messages.len()).expect("short");
    let forged = framed(&reply("api.example.com", &[evil]));
    let begun = [&u16::try_from(20 + forged.len()).expect("short").to_be_bytes()[..], &[7; 20]].concat();
    node.expect(hook, &segment(41_000, next, ACK, &begun), Established);
    let next = next + u32::try_from(begun.len()).expect("short");
    node.expect(hook, &segment(41_000, next, ACK, &forged), Established);
    connect(&mut node, evil, 443, Denied);
    // Behind it, it goes on; what is sent again is not read again.
    let next = next + u32::try_from(forged.len()).expect("short");
    let last = framed(&reply("api.example.com", &[two]));
    node.expect(hook, &segment(41_000, next, ACK, &last), Established);
    connect(&mut node, two, 443, Allowed);
    // A gap hides where messages begin.
    node.expect(hook, &segment(41_000, next + 9_000, ACK, &forged), Established);
    connect(&mut node, evil, 443, Denied);
    let counts = [NameCount::Learnt, NameCount::Malformed, NameCount::Unlearnt].map(|of| node.named(of));
    assert_eq!(counts, [2, 1, 1]);
}

#[test]
fn a_stream_whose_beginning_was_not_seen_teaches_nothing() {
    let mut node = Node::new(&world(&["api.example.com"]));
    let at = address("198.51.100.7");
    let open = Frame::tcp((Host::A.at(Family::V4), 41_000), (RESOLVER.at(Family::V4), PORT), SYN);
    node.expect(leaves(Host::A), &open, Allowed);
    let message = framed(&reply("api.example.com", &[at]));
    node.expect(arrives(Host::A, UPLINK), &segment(41_000, 1_001, ACK, &message), Established);
    connect(&mut node, at, 443, Denied);
    assert_eq!(node.named(NameCount::Unlearnt), 1);
}

#[test]
fn a_reply_in_fragments_is_cut_so_that_its_client_asks_again() {
    let mut node = Node::new(&world(&["api.example.com"]));
    for family in Family::ALL {
        let (client, server) = ((Host::A.at(family), 40_000), (RESOLVER.at(family), PORT));
        let question = datagram(client, server, b"a question");
        assert_eq!(node.evaluate(leaves(Host::A), &question.bytes()), Allowed);
        let addresses = [address("198.51.100.7"); 30];
        let whole = datagram(server, client, &reply("api.example.com", &addresses));
        let part = whole.fragments(7, 20).remove(0);
        let before = part.bytes();
        let hook: Hook = arrives(Host::A, UPLINK);
        let cut = node.programs.changed(hook, &before);
        node.take_events();
        let header = if family == Family::V4 { 34 } else { 54 + 8 };
        let question = 12 + labels("api.example.com").len() + 4;
        assert_eq!(cut.len(), header + 8 + question, "{family:?}");
        let message = &cut[header + 8..];
        assert_eq!(message[2] & 2, 2, "truncated");
        assert_eq!(message[4..12], [0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(message[12..], before[header + 20..][..question - 12]);
        let length = u16::try_from(8 + question).expect("short").to_be_bytes();
        assert_eq!(cut[header + 4..][..2], length);
        if family == Family::V4 {
            assert_eq!(cut[16..18], u16::try_from(20 + 8 + question).expect("short").to_be_bytes());
            assert_eq!((cut[20] & 0x3f, cut[21], sum(&cut[14..34])), (0, 0, u16::MAX));
            assert_eq!(cut[header + 6..][..2], [0, 0]);
        } else {
            assert_eq!(cut[18..20], u16::try_from(8 + 8 + question).expect("short").to_be_bytes());
            assert_eq!(cut[56..58], [0, 0], "an atomic fragment");
            let pseudo = [&cut[22..54], &[0, 0], &length[..], &[0, 17]].concat();
            let mut all = [&pseudo[..], &cut[header..]].concat();
            all.resize(all.len().next_multiple_of(2), 0);
            assert_eq!(sum(&all), u16::MAX);
        }
    }
    assert_eq!(node.named(NameCount::Cut), 2);
}

/// The sum of words (RFC 1071), which is all ones where a checksum is right.
fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded")
}

#[test]
fn fragments_for_other_names_and_malformed_messages_pass_as_they_are() {
    let mut node = Node::new(&world(&["api.example.com"]));
    let (client, server) = ((Host::A.at(Family::V4), 40_000), (RESOLVER.at(Family::V4), PORT));
    node.expect(leaves(Host::A), &datagram(client, server, b"a question"), Allowed);
    let whole = datagram(server, client, &reply("other.test", &[address("198.51.100.7"); 30]));
    let part = whole.fragments(7, 20).remove(0);
    assert!(node.programs.run(arrives(Host::A, UPLINK), &part.bytes()));
    let torn = &reply("api.example.com", &[address("198.51.100.7")])[..40];
    assert!(node.programs.run(arrives(Host::A, UPLINK), &datagram(server, client, torn).bytes()));
    assert_eq!((node.named(NameCount::Cut), node.named(NameCount::Learnt)), (0, 0));
    assert!(node.named(NameCount::Malformed) >= 1);
}

#[test]
fn the_nodes_own_resolver_is_believed_from_the_node_alone() {
    let mut world = world(&["api.example.com"]);
    let at = address("198.51.100.7");
    let own = (Host::Node.at(Family::V4), PORT);
    world.resolvers.insert(ServiceKey::new(own.0.into(), Udp, PORT), Resolver::BELIEVED);
    let mut node = Node::new(&world);
    let client = (Host::A.at(Family::V4), 40_000);
    assert!(node.evaluate(leaves(Host::A), &datagram(client, own, b"a question").bytes()).passes());
    let message = datagram(own, client, &reply("api.example.com", &[at]));
    node.evaluate(arrives(Host::A, UPLINK), &message.bytes());
    connect(&mut node, at, 443, Denied);
    let outcome = node.evaluate(arrives(Host::A, NODE), &message.bytes());
    assert!(matches!(outcome, Established | OwnNode), "{outcome}");
    connect(&mut node, at, 443, Allowed);
}
