//! How long veths that no one claims are held, and for which pods.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_veth_that_is_older_than_a_pod_is_not_held_for_it() {
    let mut world = World::new().veth(10, "docker1", &["172.17.0.2"]);
    world.expect(10, "open");
    world = world.later(SECOND).pod("shop/iso-a", "n1", &[]);
    world.expect(10, "open");
    world = world.later(SECOND).veth(11, "veth1", &[]);
    world.expect(10, "open");
    world.expect(11, "held");
    // When another device takes its ifindex that one is new.
    world.network.links.get_mut(&10).unwrap().generation = 1;
    world.expect(10, "held");
}

#[test]
fn what_an_earlier_agent_did_not_hold_is_older_than_every_pod() {
    let mut world = World::new().veth(10, "docker1", &[]).veth(11, "veth1", &[]).veth(12, "veth2", &[]);
    world = world.pod("shop/iso-a", "n1", &[]);
    world.previous.history = History::of_earlier_agent([
        (10, podgate_common::EndpointState::Unmanaged),
        (11, podgate_common::EndpointState::Pending),
    ]);
    world.expect(10, "open");
    world.expect(11, "held");
    world.expect(12, "held");
}

#[test]
fn a_pod_that_stays_pending_holds_a_new_veth_no_longer_than_the_limit() {
    let mut world = World::new().pod("shop/iso-a", "n1", &[]);
    world.resolve_and_remember();
    for hour in 0..3 {
        let container = 20 + hour;
        world = world.later(3600 * SECOND).veth(container, "docker1", &[]);
        world.expect(container, "held");
        let hold = &world.previous.holds[&container];
        assert_eq!((hold.since, hold.until), (world.now, Some(world.now + LONGEST_HOLD)));
        assert_eq!(hold.pods, [name("shop/iso-a")].into());
        assert_eq!(world.previous.next_deadline(), hold.until);
        world = world.later(LONGEST_HOLD - SECOND);
        world.expect(container, "held");
        world = world.later(SECOND);
        world.expect(container, "open");
        assert_eq!(world.previous.next_deadline(), None);
        // What holds new ones does not hold it again.
        world = world.pod("shop/iso-b", "n1", &[]);
        world.expect(container, "open");
        world.cluster.pods.remove(&name("shop/iso-b"));
        world.network.links.clear();
    }
}

#[test]
fn a_hold_ends_when_the_pod_has_another_veth_or_is_gone() {
    let mut world = World::new().pod("shop/iso-a", "n1", &["10.1.0.5"]).veth(10, "docker1", &[]);
    world.expect(10, "held");
    world = world.veth(11, "veth1", &["10.1.0.5"]);
    world.expect(10, "open");
    world.network.links.remove(&11);
    world.expect(10, "held");
    world.cluster.pods.clear();
    world.expect(10, "open");
}

#[test]
fn a_veth_that_something_speaks_for_is_held_until_it_is_decided() {
    let mut world = World::new().veth(10, "veth1", &["10.1.0.5"]);
    world = world.pod("shop/iso-a", "n1", &["10.1.0.5"]).pod("shop/web", "n1", &["10.1.0.5"]);
    world.expect(10, "held");
    assert_eq!(world.previous.holds[&10].until, None);
    world = world.later(10 * LONGEST_HOLD);
    world.expect(10, "held");
    assert_eq!(world.previous.holds[&10].since, world.now - 10 * LONGEST_HOLD);
}
