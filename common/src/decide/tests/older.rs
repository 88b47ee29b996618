//! Connections that are older than the agent.

use super::*;

#[test]
fn a_connection_older_than_the_agent_goes_on_from_wherever_its_client_may_come() {
    let at_pod = (pod(), 80);
    // (client, where its packets come from, what becomes of them)
    let table = [
        (server(), UPLINK, Outcome::Established),
        (server(), NEXT_VETH, Outcome::Established),
        (neighbour(), NEXT_VETH, Outcome::Established),
        (neighbour(), UPLINK, Outcome::Spoofed),
        (neighbour(), VETH, Outcome::Spoofed),
    ];
    for (client, ingress_ifindex, expected) in table {
        let node = Node::new();
        node.allows.set(false);
        let client = (client, 5_000);
        node.knows_older(client, at_pod.1);
        let flows = node.flows.borrow().clone();
        assert_eq!(node.sends(&Frame::tcp(at_pod, client, flag::ACK)), Outcome::Established);
        assert_eq!(
            node.receives_from(ingress_ifindex, &Frame::tcp(client, at_pod, flag::ACK)),
            expected,
            "{client:?}"
        );
        // Another connection of the same client is a new one, and so is this one when it begins again.
        let other = (client.0, 5_001);
        for frame in [Frame::tcp(other, at_pod, flag::ACK), Frame::tcp(client, at_pod, flag::SYN)] {
            assert_ne!(node.receives_from(ingress_ifindex, &frame), Outcome::Established, "{client:?}");
        }
        assert_eq!(*node.flows.borrow(), flows, "nothing was denied or made known");
    }
}

#[test]
fn a_connection_older_than_the_agent_is_evaluated_by_where_it_comes_from_once_that_is_known() {
    let (client, at_pod) = ((neighbour(), 5_000), (pod(), 80));
    let (evaluation, reply) = (Frame::tcp(client, at_pod, flag::ACK), Frame::tcp(at_pod, client, flag::ACK));
    for (allows, expected) in [(true, Outcome::Allowed), (false, Outcome::Denied)] {
        let node = Node::new();
        node.recheck.set(true);
        node.allows.set(allows);
        node.knows_older(client, at_pod.1);
        let ingress_ifindex = || node.flows.borrow().values().next().expect("one connection").ingress_ifindex;
        // The server speaks first: the way of the client is not known yet.
        assert_eq!(node.sends(&reply), expected);
        assert_eq!(ingress_ifindex(), Flow::ANY_INGRESS);
        node.knows_older(client, at_pod.1);
        assert_eq!(node.receives_from(NEXT_VETH, &evaluation), expected);
        assert_eq!(ingress_ifindex(), if allows { NEXT_VETH } else { Flow::ANY_INGRESS });
        // The node's own connections are never evaluated by a policy.
        let client = (self::node(), 5_000);
        node.knows_older(client, at_pod.1);
        assert_eq!(node.receives_from(NODE, &Frame::tcp(client, at_pod, flag::ACK)), Outcome::OwnNode);
    }
}
