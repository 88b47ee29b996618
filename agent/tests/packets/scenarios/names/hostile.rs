//! Replies that an honest resolver hands on, or that seem to be a resolver's, from someone who wants an
//! address opened.

use std::collections::BTreeMap;

use podgate_common::EndpointState;

use super::*;

const EVIL: &str = "203.0.113.66";
const NAME: &str = "api.example.com";

/// What has to be believed for [`EVIL`] to be open.
fn forged() -> Vec<u8> {
    reply(NAME, &[address(EVIL)])
}

fn asks(node: &mut Node, family: Family, own: u16) {
    let question = datagram((Host::A.at(family), own), (RESOLVER.at(family), PORT), b"a question");
    assert_eq!(node.evaluate(leaves(Host::A), &question.bytes()), Allowed);
}

#[test]
fn a_message_within_a_later_fragment_is_none() {
    for family in Family::ALL {
        let mut node = Node::new(&world(&[NAME]));
        asks(&mut node, family, 40_000);
        // The owner of a zone fills records so that one fragment begins like a datagram.
        let mut message = reply("evil.test", &[]);
        let forged = forged();
        let length = u16::try_from(8 + forged.len()).expect("short").to_be_bytes();
        message.resize(7 * 8 - 8, 7);
        message.extend([[0, 53, 0x9c, 0x40], [length[0], length[1], 0, 0]].concat());
        message.extend(&forged);
        let whole = datagram((RESOLVER.at(family), PORT), (Host::A.at(family), 40_000), &message);
        let parts = whole.fragments(9, 7);
        assert!(parts[1].payload.starts_with(&[0, 53, 0x9c, 0x40]), "the second one begins so");
        for part in parts {
            node.expect(arrives(Host::A, UPLINK), &part, Established);
        }
        connect(&mut node, address(EVIL), 443, Denied);
        assert_eq!(node.named(NameCount::Learnt), 0, "{family:?}");
    }
}

#[test]
fn a_connection_that_outlives_its_resolver_is_not_read_any_more() {
    let mut world = world(&[NAME]);
    let mut node = Node::new(&world);
    asks(&mut node, Family::V4, 40_000);
    // Another pod has the address now, and answers on a connection that the client has kept alive.
    world.resolvers.clear();
    node.publish(&world);
    exchange(&mut node, Family::V4, (RESOLVER, PORT), 40_000, &forged());
    connect(&mut node, address(EVIL), 443, Denied);
}

#[test]
fn a_veth_whose_pod_is_not_known_answers_in_no_resolvers_name() {
    let world = world(&[NAME]).with_state(Host::B, EndpointState::Unmanaged);
    let mut node = Node::new(&world);
    asks(&mut node, Family::V4, 40_000);
    // At its own veth it would have taken the connection over, unless the client asks again meanwhile.
    let answer = datagram((RESOLVER.at(Family::V4), PORT), (Host::A.at(Family::V4), 40_000), &forged());
    node.expect(arrives(Host::A, Host::B.veth()), &answer, Established);
    connect(&mut node, address(EVIL), 443, Denied);
}

#[test]
fn an_address_that_another_service_claims_is_believed_only_by_its_backend() {
    // No connection tracking says here who has answered.
    let mut world = world(&[NAME]);
    for believed in world.resolvers.values_mut() {
        *believed = Resolver::CLAIMED;
    }
    let mut node = Node::new(&world);
    exchange(&mut node, Family::V4, (RESOLVER, PORT), 40_000, &forged());
    connect(&mut node, address(EVIL), 443, Denied);
}

/// Both cluster addresses of the cluster's DNS, in a cluster of two families: their last bytes are alike.
const CLUSTER_DNS: [&str; 2] = ["10.96.0.10", "fd00:10:96::a"];

#[test]
fn one_stream_says_nothing_of_where_messages_of_another_begin() {
    let mut world = world(&[NAME]);
    let servers = CLUSTER_DNS.map(address);
    let keys = servers.map(|server| ServiceKey::new(server.into(), Tcp, PORT));
    world.resolvers = keys.map(|key| (key, Resolver::BELIEVED)).into();
    let mut node = Node::new(&world);
    let segment = |family: usize, sequence: u32, flags: u8, data: &[u8]| {
        let own = Host::A.at(Family::ALL[family]);
        let mut frame = Frame::tcp((servers[family], PORT), (own, 41_000), flags);
        frame.payload[4..8].copy_from_slice(&sequence.to_be_bytes());
        frame.payload.extend(data);
        frame
    };
    for (family, sequence) in [(0, 1_000), (1, 5_000)] {
        let own = Host::A.at(Family::ALL[family]);
        let open = Frame::tcp((own, 41_000), (servers[family], PORT), SYN);
        node.expect(leaves(Host::A), &open, Allowed);
        node.expect(arrives(Host::A, UPLINK), &segment(family, sequence, SYN | ACK, &[]), Established);
    }
    // In the middle of a message of the first stream, at the number that begins the second one.
    let data = [&[7; 11][..], &framed(&forged())].concat();
    node.expect(arrives(Host::A, UPLINK), &segment(0, 4_990, ACK, &data), Established);
    connect(&mut node, address(EVIL), 443, Denied);
    let data = framed(&reply(NAME, &[address("198.51.100.7")]));
    node.expect(arrives(Host::A, UPLINK), &segment(1, 5_001, ACK, &data), Established);
    connect(&mut node, address("198.51.100.7"), 443, Allowed);
}

#[test]
fn a_connection_to_a_resolver_is_read_that_is_older_than_the_rules_or_the_resolver() {
    let with_names = world(&[NAME]);
    let without = World { resolvers: BTreeMap::new(), ..with_names.clone() };
    let at = address("198.51.100.7");
    for before in [World::new(), without] {
        let mut node = Node::new(&before);
        // An answer has come already, so that the fast path knows the connection.
        exchange(&mut node, Family::V4, (RESOLVER, PORT), 40_000, b"an answer");
        exchange(&mut node, Family::V4, (Host::Outside, PORT), 40_000, b"an answer");
        node.publish(&with_names);
        exchange(&mut node, Family::V4, (Host::Outside, PORT), 40_000, &reply(NAME, &[at]));
        connect(&mut node, at, 443, Denied);
        exchange(&mut node, Family::V4, (RESOLVER, PORT), 40_000, &reply(NAME, &[at]));
        connect(&mut node, at, 443, Allowed);
    }
}

#[test]
fn what_a_name_opens_reaches_a_pod_also_when_policies_change_on_the_way() {
    let world = world(&[NAME]);
    let mut node = Node::new(&world);
    let to = Host::B.at(Family::V4);
    exchange(&mut node, Family::V4, (RESOLVER, PORT), 40_000, &reply(NAME, &[to]));
    let open = connection(to, 443);
    node.expect(leaves(Host::A), &open, Allowed);
    let other = world.ingress(Host::Z, []);
    node.publish(&other);
    node.expect(arrives(Host::B, Host::A.veth()), &open, NotIsolated);
    // What no name opens does not.
    let denied = connection(to, 444);
    let published = node.publish(&other);
    assert!(published.settled);
    node.expect(arrives(Host::B, Host::A.veth()), &denied, DeniedBackend);
}
