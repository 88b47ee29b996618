//! Pods that went, came back, or changed while they stayed.

use super::*;

#[test]
fn a_pod_that_is_force_deleted_stays_known_until_its_veth_goes() {
    let mut world = World::new().veth(10, "veth1", &["10.1.0.5"]).pod("shop/web", "n1", &["10.1.0.5"]);
    world.expect(10, "shop/web 10.1.0.5");
    world.cluster.pods.clear();
    world.expect(10, "shop/web 10.1.0.5 gone");
    world.expect(10, "shop/web 10.1.0.5 gone");
    world = world.veth(10, "veth1", &[]);
    world.expect(10, "shop/web 10.1.0.5 gone");
    world.network.links.clear();
    world.expect(10, "absent");
}

#[test]
fn a_pod_whose_name_lives_on_at_another_node_is_gone_from_this_one() {
    let mut world = World::new().veth(10, "veth1", &["10.1.0.5"]).pod("shop/web-0", "n1", &["10.1.0.5"]);
    world = world.cni("shop/web-0", "eth0", &["veth1"], &["10.1.0.5"]);
    world.expect(10, "shop/web-0 10.1.0.5");
    world = world.pod("shop/web-0", "n2", &["10.2.0.5"]);
    world.expect(10, "shop/web-0 10.1.0.5 gone");
}

#[test]
fn a_pod_that_comes_back_under_its_name_is_no_longer_gone() {
    let mut world = World::new().veth(10, "veth1", &["10.1.0.5"]).pod("shop/web", "n1", &["10.1.0.5"]);
    world.expect(10, "shop/web 10.1.0.5");
    world.cluster.pods.clear();
    world.expect(10, "shop/web 10.1.0.5 gone");
    world = world.pod("shop/web", "n1", &["10.1.0.5"]);
    world.expect(10, "shop/web 10.1.0.5");
}

#[test]
fn a_gone_pod_gives_way_to_a_pod_that_claims_its_veth() {
    let mut world = World::new().veth(10, "veth1", &["10.1.0.5"]).pod("shop/old", "n1", &["10.1.0.5"]);
    world.expect(10, "shop/old 10.1.0.5");
    world.cluster.pods.clear();
    world = world.pod("shop/web", "n1", &["10.1.0.5"]);
    world.expect(10, "shop/web 10.1.0.5");
}

#[test]
fn a_gone_pod_loses_its_address_to_a_pod_on_another_veth() {
    let mut world =
        World::new().veth(10, "veth1", &["10.1.0.5"]).pod("shop/old", "n1", &["10.1.0.5", "fd00::5"]);
    world = world.cni("shop/old", "eth0", &["veth1"], &["10.1.0.5", "fd00::5"]);
    world.expect(10, "shop/old 10.1.0.5 fd00::5");
    world.cluster.pods.clear();
    world = world.veth(11, "veth2", &["10.1.0.5"]).pod("shop/web", "n1", &["10.1.0.5"]);
    world = world.cni("shop/web", "eth0", &["veth2"], &["10.1.0.5"]);
    world.expect(10, "shop/old fd00::5 gone");
    world.expect(11, "shop/web 10.1.0.5");
}

#[test]
fn another_device_with_the_same_ifindex_does_not_inherit_the_pod() {
    for (name, generation) in [("veth1", 1), ("other", 0)] {
        let mut world = World::new().veth(10, "veth1", &["10.1.0.5"]).pod("shop/web", "n1", &["10.1.0.5"]);
        world.expect(10, "shop/web 10.1.0.5");
        world.cluster.pods.clear();
        world = world.veth(10, name, &["10.1.0.5"]);
        world.network.links.get_mut(&10).unwrap().generation = generation;
        world.expect(10, "open");
    }
}

#[test]
fn a_known_pod_stays_known_when_it_drops_its_address_and_its_status() {
    let mut world = World::new().veth(10, "veth1", &["10.1.0.5"]).pod("shop/web", "n1", &["10.1.0.5"]);
    world.expect(10, "shop/web 10.1.0.5");
    world = world.veth(10, "veth1", &[]).pod("shop/web", "n1", &[]);
    world.expect(10, "shop/web 10.1.0.5");
}

#[test]
fn a_pod_that_takes_the_address_of_a_pod_without_a_veth_is_neither() {
    let mut world = World::new().veth(10, "veth1", &["10.1.0.6"]).pod("shop/thief", "n1", &["10.1.0.6"]);
    world.expect(10, "shop/thief 10.1.0.6");
    world = world.veth(10, "veth1", &["10.1.0.5"]).pod("shop/iso-a", "n1", &["10.1.0.5"]);
    world.expect(10, "held");
    world.expect(10, "held");
    world = world.veth(10, "veth1", &["10.1.0.6"]);
    world.expect(10, "shop/thief 10.1.0.6");
}
