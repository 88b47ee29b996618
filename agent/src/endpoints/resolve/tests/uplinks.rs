//! Veths that lead out of the node.

use super::*;

#[test]
fn a_veth_with_a_default_route_that_was_set_is_an_uplink_unless_something_speaks_for_a_pod() {
    let mut world =
        World::new().veth(2, "eth0", &[]).route(2, DefaultRoute::Set).pod("shop/iso-a", "n1", &[]);
    world.expect(2, "uplink");
    for claimed in [
        World::new().veth(2, "eth0", &["10.0.0.9"]).pod("shop/iso-a", "n1", &["10.0.0.9"]),
        World::new().veth(2, "eth0", &[]).pod("shop/iso-a", "n1", &[]).cni(
            "shop/iso-a",
            "eth0",
            &["eth0"],
            &["10.0.0.9"],
        ),
    ] {
        let mut world = claimed.node("n1", &["10.0.0.1"]).own(2, "10.0.0.1/24").route(2, DefaultRoute::Set);
        world.expect(2, "shop/iso-a 10.0.0.9");
    }
}

#[test]
fn a_veth_that_had_a_pod_once_is_no_uplink_whatever_routes_it_gets() {
    let mut world = World::new().veth(10, "veth1", &["10.1.0.5"]).pod("shop/iso-a", "n1", &["10.1.0.5"]);
    world.expect(10, "shop/iso-a 10.1.0.5");
    world.cluster.pods.clear();
    world = world.veth(10, "veth1", &[]).route(10, DefaultRoute::Set);
    world.expect(10, "shop/iso-a 10.1.0.5 gone");
    // Nor for the next agent, which finds it in the pins.
    world.previous = Endpoints::default();
    world.previous.history = History::of_earlier_agent([(10, podgate_common::EndpointState::Identified)]);
    world.expect(10, "open");
    world = world.pod("shop/iso-b", "n1", &[]);
    world.expect(10, "held");
}

#[test]
fn a_default_route_that_a_pod_can_cause_makes_no_uplink() {
    // Before anything speaks for the pod, while the uplink is a device that is no veth.
    for has_node in [true, false] {
        let mut world = World::new().link(2, "eth0", &["10.0.0.1/24"]).route(2, DefaultRoute::Set);
        if has_node {
            world = world.node("n1", &["10.0.0.1"]);
        }
        world.expect(2, "absent");
        world = world
            .later(Duration::from_secs(1))
            .pod("shop/iso-a", "n1", &[])
            .veth(10, "veth1", &[])
            .route(10, DefaultRoute::Learned);
        world.expect(10, "held");
        world = world.pod("shop/iso-a", "n1", &["10.1.0.5"]).veth(10, "veth1", &["10.1.0.5"]);
        world = world.route(10, DefaultRoute::Learned);
        world.expect(10, "shop/iso-a 10.1.0.5");
        world = world.route(10, DefaultRoute::Learned);
        world.expect(10, "shop/iso-a 10.1.0.5");
    }
}

#[test]
fn an_address_that_a_pod_can_cause_makes_no_uplink() {
    let mut world =
        World::new().veth(10, "veth1", &[]).own(10, "2001:db8::1/64").pod("shop/iso-a", "n1", &[]);
    let link = world.network.links.get_mut(&10).unwrap();
    link.learned_addresses = ["2001:db8::1".parse().unwrap()].into();
    world.expect(10, "held");
}

#[test]
fn a_bridge_with_a_default_route_that_a_pod_can_cause_does_not_lead_out() {
    let mut world = World::new().link(3, "cni0", &["10.1.0.1/24"]).route(3, DefaultRoute::Learned);
    world = world.veth(10, "veth1", &[]).port(10, 3).pod("shop/iso-a", "n1", &[]);
    world.expect(10, "held");
}

#[test]
fn a_learned_default_route_makes_an_uplink_of_a_veth_that_was_there_first_or_has_the_nodes_address() {
    let mut world = World::new().veth(2, "eth0", &[]).route(2, DefaultRoute::Learned);
    world = world.pod("shop/iso-a", "n1", &[]);
    world.expect(2, "uplink");
    world = world.later(Duration::from_secs(1)).veth(10, "veth1", &[]).route(10, DefaultRoute::Learned);
    world.expect(2, "uplink");
    world.expect(10, "held");
    // Where the Node object has an address, that decides.
    world = world.node("n1", &["10.0.0.1"]);
    world.expect(2, "held");
    world = world.own(2, "10.0.0.1/24");
    world.expect(2, "uplink");
}

#[test]
fn a_veth_that_alone_has_the_address_of_the_node_object_is_an_uplink() {
    let mut world = World::new().veth(2, "eth0", &[]).own(2, "10.0.0.1/32").pod("shop/iso-a", "n1", &[]);
    world.expect(2, "held");
    world = world.node("n1", &["10.0.0.1"]);
    world.expect(2, "uplink");
}

#[test]
fn a_veth_that_borrows_the_address_of_another_link_is_no_uplink() {
    let mut world =
        World::new().link(2, "eth0", &["10.0.0.1/24"]).veth(10, "veth1", &[]).own(10, "10.0.0.1/32");
    world = world.node("n1", &["10.0.0.1"]).pod("shop/iso-a", "n1", &[]);
    world.expect(10, "held");
}

#[test]
fn the_gateways_address_on_a_pods_veth_makes_no_uplink_of_it() {
    // What the ptp plug-in and Calico put on the node's end; with one pod on the node no other link has it.
    for gateway in ["10.244.1.1/32", "fd00:1::1/128", "169.254.1.1/16", "fe80::1/64"] {
        let mut world = World::new().veth(10, "veth1", &[]).own(10, gateway).pod("shop/iso-a", "n1", &[]);
        world.expect(10, "held");
    }
}

#[test]
fn an_unclaimed_veth_with_a_subnet_of_its_own_is_an_uplink() {
    let mut world = World::new().veth(2, "eth0", &[]).own(2, "10.0.0.1/24").pod("shop/iso-a", "n1", &[]);
    world.expect(2, "uplink");
    // Pods that share one gateway address on their veths have no subnet of their own there.
    world = world.veth(3, "eth1", &[]).own(3, "10.0.0.1/24");
    world.expect(2, "held");
    world.expect(3, "held");
}

#[test]
fn a_veth_with_a_subnet_of_its_own_is_a_pods_once_a_pod_has_the_far_end() {
    let mut world = World::new().veth(10, "veth1", &["10.1.0.2"]).own(10, "10.1.0.1/30");
    world = world.pod("shop/web", "n1", &["10.1.0.2"]);
    world.expect(10, "shop/web 10.1.0.2");
}

#[test]
fn the_one_unclaimed_port_of_a_bridge_that_leads_out_is_an_uplink_and_stays_it() {
    let mut world = World::new().link(3, "azure0", &["10.0.0.1/24"]).veth(10, "veth1", &["10.0.0.5"]).veth(
        11,
        "eth0",
        &[],
    );
    world = world
        .route(3, DefaultRoute::Set)
        .port(10, 3)
        .port(11, 3)
        .pod("shop/web", "n1", &["10.0.0.5"])
        .pod("shop/iso-a", "n1", &[]);
    world.expect(11, "uplink");
    world.expect(10, "shop/web 10.0.0.5");
    world = world.veth(12, "veth2", &[]).port(12, 3);
    world.expect(11, "uplink");
    world.expect(12, "held");
}

#[test]
fn a_bridge_that_leads_out_by_another_port_has_only_pods_on_its_veths() {
    let mut world =
        World::new().link(3, "azure0", &["10.0.0.1/24"]).link(2, "eth0", &[]).veth(10, "veth1", &[]);
    world = world.route(3, DefaultRoute::Set).port(2, 3).port(10, 3).pod("shop/iso-a", "n1", &[]);
    world.expect(10, "held");
}

#[test]
fn a_bridge_that_does_not_lead_out_has_only_pods_on_its_veths() {
    let mut world = World::new().link(3, "cni0", &["10.1.0.1/24"]).veth(10, "veth1", &[]).port(10, 3);
    world = world.pod("shop/iso-a", "n1", &[]);
    world.expect(10, "held");
}
