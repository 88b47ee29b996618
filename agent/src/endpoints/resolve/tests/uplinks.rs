//! Veths that lead out of the node.

use super::*;

#[test]
fn a_veth_with_a_default_route_is_an_uplink_whatever_speaks_for_a_pod() {
    let mut world = World::new().veth(2, "eth0", &["10.0.0.9"]).pod("shop/iso-a", "n1", &["10.0.0.9"]);
    world.network.links.get_mut(&2).unwrap().default_route = true;
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
    world.network.links.get_mut(&3).unwrap().default_route = true;
    world = world.port(10, 3).port(11, 3).pod("shop/web", "n1", &["10.0.0.5"]).pod("shop/iso-a", "n1", &[]);
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
    world.network.links.get_mut(&3).unwrap().default_route = true;
    world = world.port(2, 3).port(10, 3).pod("shop/iso-a", "n1", &[]);
    world.expect(10, "held");
}

#[test]
fn a_bridge_that_does_not_lead_out_has_only_pods_on_its_veths() {
    let mut world = World::new().link(3, "cni0", &["10.1.0.1/24"]).veth(10, "veth1", &[]).port(10, 3);
    world = world.pod("shop/iso-a", "n1", &[]);
    world.expect(10, "held");
}
