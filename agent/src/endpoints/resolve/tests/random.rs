//! Whatever happens to a node, in any order.

use proptest::{
    prelude::*,
    sample::{select, subsequence},
};

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_happens_to_a_node_addresses_have_one_owner_and_a_second_look_changes_nothing(
        steps in proptest::collection::vec(any_step(), 1..12),
    ) {
        let mut world = World::new();
        for step in steps {
            world = step.apply(world);
            let found = world.resolve();
            let mut owned = BTreeSet::new();
            for veth in found.veths.values() {
                if let InterfaceState::Identified { addresses, .. } = &veth.state {
                    prop_assert!(!addresses.is_empty(), "{:?} has no address", veth);
                    for address in addresses {
                        prop_assert!(owned.insert(*address), "{} has two owners: {:#?}", address, found);
                    }
                }
            }
            for (ifindex, _) in world.network.links.iter().filter(|(_, link)| link.peer.is_some()) {
                let (veth, uplink) = (found.veths.contains_key(ifindex), found.uplinks.contains(ifindex));
                prop_assert!(veth != uplink, "link {} is both or neither: {:#?}", ifindex, found);
            }
            world.previous = found.clone();
            prop_assert_eq!(world.resolve(), found);
        }
    }
}

/// Something that happens on a small node, where names and addresses soon collide.
#[derive(Clone, Debug)]
enum Step {
    PodInterface {
        ifindex: u32,
        addresses: Vec<&'static str>,
        own: Option<&'static str>,
    },
    NoLink(u32),
    Pod {
        pod: &'static str,
        node: &'static str,
        addresses: Vec<&'static str>,
    },
    NoPod(&'static str),
    Result {
        pod: &'static str,
        interface: &'static str,
        veths: Vec<&'static str>,
        addresses: Vec<&'static str>,
    },
    NoResults,
    Port {
        ifindex: u32,
        bridge: u32,
    },
}

fn any_step() -> impl Strategy<Value = Step> {
    let ifindex = || 10..14u32;
    let addresses = || subsequence(vec!["10.1.0.1", "10.1.0.2", "10.1.0.3", "fd00::1"], 0..3);
    let pod = || select(vec!["shop/a", "shop/b", "shop/iso-c", "bank/iso-d"]);
    let own = proptest::option::of(select(vec!["10.9.0.1/24", "10.9.0.1/32", "169.254.1.1/16"]));
    prop_oneof![
        4 => (ifindex(), addresses(), own)
            .prop_map(|(ifindex, addresses, own)| Step::PodInterface { ifindex, addresses, own }),
        1 => ifindex().prop_map(Step::NoLink),
        3 => (pod(), select(vec!["n1", "n1", "n2"]), addresses())
            .prop_map(|(pod, node, addresses)| Step::Pod { pod, node, addresses }),
        1 => pod().prop_map(Step::NoPod),
        2 => (pod(), select(vec!["eth0", "net1"]), subsequence(vec!["veth10", "veth11", "veth12"], 0..2), addresses())
            .prop_map(|(pod, interface, veths, addresses)| Step::Result { pod, interface, veths, addresses }),
        1 => Just(Step::NoResults),
        1 => (ifindex(), select(vec![0, 3])).prop_map(|(ifindex, bridge)| Step::Port { ifindex, bridge }),
    ]
}

impl Step {
    fn apply(self, mut world: World) -> World {
        match self {
            Self::PodInterface { ifindex, addresses, own } => {
                world = world.veth(ifindex, &format!("veth{ifindex}"), &addresses);
                own.into_iter().fold(world, |world, own| world.own(ifindex, own))
            }
            Self::NoLink(ifindex) => {
                world.network.links.remove(&ifindex);
                world
            }
            Self::Pod { pod, node, addresses } => world.pod(pod, node, &addresses),
            Self::NoPod(pod) => {
                world.cluster.pods.remove(&name(pod));
                world
            }
            Self::Result { pod, interface, veths, addresses } => {
                world.cni(pod, interface, &veths, &addresses)
            }
            Self::NoResults => {
                world.cni = CniResults::default();
                world
            }
            Self::Port { ifindex, bridge } => {
                world = world.link(3, "br0", &["10.8.0.1/24"]);
                world.network.links.entry(3).and_modify(|link| link.default_route = DefaultRoute::Set);
                world.network.links.entry(ifindex).and_modify(|link| link.master = bridge);
                world
            }
        }
    }
}
