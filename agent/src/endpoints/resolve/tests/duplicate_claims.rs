//! Two that claim one address or one veth.

use super::*;

#[test]
fn of_two_pods_with_one_address_the_one_with_the_cni_result_has_the_veth() {
    let mut world = World::new().veth(11, "veth2", &["10.1.0.5"]);
    world = world.pod("shop/old", "n1", &["10.1.0.5"]).pod("shop/web", "n1", &[]);
    world = world.cni("shop/web", "eth0", &[], &["10.1.0.5"]);
    world.expect(11, "shop/web 10.1.0.5");
}

#[test]
fn of_two_pods_with_one_address_neither_has_the_veth_if_nothing_decides() {
    for (second, expected) in [("shop/iso-a", "held"), ("shop/web", "open")] {
        let mut world = World::new().veth(11, "veth2", &["10.1.0.5"]);
        world = world.pod("shop/old", "n1", &["10.1.0.5"]).pod(second, "n1", &["10.1.0.5"]);
        world.expect(11, expected);
        world.cluster.pods.remove(&name("shop/old"));
        world.expect(11, &format!("{second} 10.1.0.5"));
    }
}

#[test]
fn a_pod_that_adds_the_address_of_another_stays_itself_and_so_does_the_other() {
    let mut world =
        World::new().veth(10, "veth1", &["10.1.0.5"]).veth(11, "veth2", &["10.1.0.6", "10.1.0.5"]);
    world = world.pod("shop/iso-a", "n1", &["10.1.0.5"]).pod("shop/thief", "n1", &["10.1.0.6"]);
    world.expect(10, "shop/iso-a 10.1.0.5");
    world.expect(11, "shop/thief 10.1.0.6");
}

#[test]
fn a_pod_that_takes_the_address_of_another_for_its_own_stays_itself() {
    let mut world = World::new().veth(10, "veth1", &["10.1.0.5"]).veth(11, "veth2", &["10.1.0.6"]);
    world = world.pod("shop/iso-a", "n1", &["10.1.0.5"]).pod("shop/thief", "n1", &["10.1.0.6"]);
    world.expect(11, "shop/thief 10.1.0.6");
    world = world.veth(11, "veth2", &["10.1.0.5"]);
    world.expect(10, "shop/iso-a 10.1.0.5");
    world.expect(11, "shop/thief 10.1.0.6");
}

#[test]
fn two_veths_with_the_address_of_one_isolated_pod_are_both_held_if_nothing_decides() {
    let mut world = World::new().veth(10, "veth1", &["10.1.0.5"]).veth(11, "veth2", &["10.1.0.5"]);
    world = world.pod("shop/iso-a", "n1", &["10.1.0.5"]);
    world.expect(10, "held");
    world.expect(11, "held");
}

#[test]
fn a_new_veth_with_the_pods_address_takes_over_from_one_that_has_lost_it() {
    let mut world = World::new().veth(10, "veth1", &["10.1.0.5"]).pod("shop/iso-a", "n1", &["10.1.0.5"]);
    world.expect(10, "shop/iso-a 10.1.0.5");
    world = world.veth(10, "veth1", &[]).veth(11, "veth2", &["10.1.0.5"]);
    world.expect(11, "shop/iso-a 10.1.0.5");
    world.expect(10, "held");
}

#[test]
fn an_address_that_two_results_give_belongs_to_the_pod_that_carries_it() {
    let mut world = World::new().veth(10, "veth1", &["10.1.0.5"]).veth(11, "veth2", &["10.1.0.6"]);
    world = world.pod("shop/web", "n1", &[]).pod("shop/iso-a", "n1", &[]);
    world = world.cni("shop/web", "eth0", &["veth1"], &["10.1.0.5"]);
    world = world.cni("shop/iso-a", "eth0", &["veth2"], &["10.1.0.5", "10.1.0.6"]);
    world.expect(10, "shop/web 10.1.0.5");
    world.expect(11, "shop/iso-a 10.1.0.6");
}

#[test]
fn an_address_that_two_results_give_and_both_pods_carry_belongs_to_neither() {
    let mut world = World::new().veth(10, "veth1", &["10.1.0.5"]).veth(11, "veth2", &["10.1.0.5"]);
    world = world.pod("shop/web", "n1", &[]).pod("shop/iso-a", "n1", &[]);
    world = world.cni("shop/web", "eth0", &["veth1"], &["10.1.0.5"]).cni(
        "shop/iso-a",
        "eth0",
        &["veth2"],
        &["10.1.0.5"],
    );
    world.expect(10, "open");
    world.expect(11, "held");
}
