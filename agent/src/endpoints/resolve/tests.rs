//! Who is behind a veth, case by case. The node is `n1`; pods `iso-…` are isolated, others are not.

mod duplicate_claims;
mod gone;
mod holds;
mod random;
mod uplinks;

use std::{sync::Arc, time::Duration};

use podgate_core::model::{
    Action, ClusterNetworkPolicy, ClusterPolicyKind, ClusterPolicyName, ClusterRule, ClusterSubject,
    NAMESPACE_NAME_LABEL, NetworkPolicy, Node, Peers, Ports, Requirement, Rule, Tier,
};
use podgate_datapath::network::DefaultRoute;

use super::*;
use crate::endpoints::cni::CniResult;

#[test]
fn a_cni_result_that_names_the_veth_tells_whose_it_is() {
    let mut world = World::new().veth(10, "veth1", &["10.1.0.5", "fe80::5"]).pod("shop/web", "n1", &[]);
    world = world.cni("shop/web", "eth0", &["veth1"], &["10.1.0.5"]);
    world.expect(10, "shop/web 10.1.0.5");
}

#[test]
fn a_cni_result_counts_before_the_far_end_has_its_address() {
    let mut world = World::new().veth(10, "veth1", &[]).pod("shop/web", "n1", &[]);
    world = world.cni("shop/web", "eth0", &["veth1"], &["10.1.0.5"]);
    world.expect(10, "shop/web 10.1.0.5");
}

#[test]
fn a_cni_result_without_interfaces_tells_by_its_address() {
    let mut world = World::new().veth(10, "veth1", &["10.1.0.5"]).pod("shop/web", "n1", &[]);
    world = world.cni("shop/web", "eth0", &["cni0"], &["10.1.0.5"]);
    world.expect(10, "shop/web 10.1.0.5");
}

#[test]
fn a_pod_whose_status_has_the_address_of_the_far_end_is_behind_the_veth() {
    let mut world =
        World::new().veth(10, "veth1", &["10.1.0.5"]).pod("shop/web", "n1", &["10.1.0.5", "fd00::5"]);
    world.expect(10, "shop/web 10.1.0.5 fd00::5");
}

#[test]
fn pods_of_other_nodes_and_pods_on_the_host_network_are_behind_no_veth() {
    let mut world = World::new().veth(10, "veth1", &["10.1.0.5"]).veth(11, "veth2", &["10.0.0.1"]);
    world = world.pod("shop/web", "n2", &["10.1.0.5"]).pod("shop/proxy", "n1", &["10.0.0.1"]);
    Arc::make_mut(world.cluster.pods.get_mut(&name("shop/proxy")).unwrap()).host_network = true;
    world.expect(10, "open");
    world.expect(11, "open");
}

#[test]
fn a_link_layer_address_is_known_from_the_results_for_this_veth_alone_where_they_agree() {
    let (one, other) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let world = || World::new().veth(10, "veth1", &["10.1.0.5"]).pod("shop/web", "n1", &["10.1.0.5"]);
    let recorded = |mut world: World, pod: &str, address: &str, given: Option<[u8; 6]>| {
        world = world.cni(pod, "eth0", &["veth1"], &[address]);
        let results = std::mem::take(&mut world.cni.0);
        let given = |mut result: CniResult| {
            if result.link_address.is_none() && result.addresses.contains(&address.parse().unwrap()) {
                result.link_address = given;
            }
            result
        };
        world.cni.0 = results.into_iter().map(given).collect();
        world
    };
    let found = |world: World| world.resolve().veths[&10].link_address;
    assert_eq!(found(world()), None);
    assert_eq!(found(recorded(world(), "shop/web", "10.1.0.5", None)), None);
    assert_eq!(found(recorded(world(), "shop/web", "10.1.0.5", Some(one))), Some(one));
    // Of another pod, of an earlier sandbox, and two that both may be meant.
    assert_eq!(found(recorded(world(), "shop/other", "10.1.0.6", Some(one))), None);
    let earlier = recorded(world(), "shop/web", "10.1.0.5", Some(one));
    assert_eq!(found(recorded(earlier, "shop/web", "10.1.0.6", Some(other))), Some(one));
    let mut twice = recorded(world(), "shop/web", "10.1.0.5", Some(one));
    let mut result = twice.cni.0.first().unwrap().clone();
    result.link_address = Some(other);
    twice.cni.0.insert(result);
    assert_eq!(found(twice), None);
}

#[test]
fn what_a_pod_puts_on_its_own_interface_it_may_not_send_from() {
    let mut world = World::new().veth(10, "veth1", &["10.1.0.5", "10.1.0.99"]);
    world = world.pod("shop/web", "n1", &["10.1.0.5"]).cni("shop/web", "eth0", &["veth1"], &["10.1.0.5"]);
    world.expect(10, "shop/web 10.1.0.5");
    world.cni = CniResults::default();
    world.expect(10, "shop/web 10.1.0.5");
}

#[test]
fn of_the_status_a_pod_with_a_cni_result_may_send_from_what_it_carries_too() {
    let mut world = World::new().veth(10, "veth1", &["10.1.0.5", "fd00::5"]);
    world = world.pod("shop/web", "n1", &["10.1.0.4", "fd00::5"]).cni(
        "shop/web",
        "eth0",
        &["veth1"],
        &["10.1.0.5"],
    );
    world.expect(10, "shop/web 10.1.0.5 fd00::5");
}

#[test]
fn an_unknown_veth_is_held_while_an_isolated_pod_of_this_node_has_none() {
    for (pod, node, addresses, expected) in [
        ("shop/iso-a", "n1", &[][..], "held"),
        ("shop/iso-a", "n1", &["10.1.0.5"], "held"),
        ("shop/web", "n1", &[], "open"),
        ("shop/iso-a", "n2", &[], "open"),
    ] {
        let mut world = World::new().veth(10, "veth1", &[]).pod(pod, node, addresses);
        world.expect(10, expected);
    }
}

#[test]
fn an_unknown_veth_is_open_once_every_isolated_pod_has_its_own() {
    let mut world = World::new().veth(10, "veth1", &["10.1.0.5"]).veth(11, "veth2", &[]);
    world = world.pod("shop/iso-a", "n1", &["10.1.0.5"]);
    world.expect(11, "open");
    world.network.links.remove(&10);
    world.expect(11, "held");
}

#[test]
fn a_pod_that_only_a_cni_result_knows_is_held_if_a_policy_of_its_namespace_could_mean_it() {
    let mut world = World::new().veth(10, "veth1", &["10.1.0.5"]);
    world = world.cni("shop/new", "eth0", &["veth1"], &["10.1.0.5"]);
    world.expect(10, "open");
    world = world.policy("bank/p", Selector::EVERYTHING).policy("shop/q", Selector::Nothing);
    world.expect(10, "open");
    world = world.policy("shop/p", Selector::EVERYTHING);
    world.expect(10, "held");
    // Other pods that wait are no reason: this veth is not theirs.
    world = world.pod("bank/iso-a", "n1", &[]);
    world.cluster.policies.clear();
    world.expect(10, "open");
}

#[test]
fn a_pod_that_a_cluster_policy_has_rules_for_is_held_like_an_isolated_one() {
    let rule = ClusterRule { action: Action::Deny, matches: Rule { peers: Peers::Any, ports: Ports::Any } };
    let is_shop = Requirement::In(NAMESPACE_NAME_LABEL.into(), ["shop".into()].into());
    let name = ClusterPolicyName { name: "base".into(), kind: ClusterPolicyKind::ClusterNetworkPolicy };
    let policy = |ingress| ClusterNetworkPolicy {
        name: name.clone(),
        tier: Tier::Baseline,
        priority: 0,
        subject: ClusterSubject {
            namespaces: Selector::All(vec![is_shop.clone()]),
            pods: Selector::EVERYTHING,
        },
        ingress,
        egress: Vec::new(),
        audit: false,
    };
    for pod in ["shop/new", "bank/new"] {
        let world = World::new().veth(10, "veth1", &["10.1.0.5"]);
        let mut world = world.cni(pod, "eth0", &["veth1"], &["10.1.0.5"]);
        world.cluster.cluster_policies.insert(name.clone(), policy(vec![]).into());
        world.expect(10, "open");
        world.cluster.cluster_policies.insert(name.clone(), policy(vec![rule.clone()]).into());
        world.expect(10, if pod == "shop/new" { "held" } else { "open" });
    }
}

#[test]
fn a_pod_without_an_address_is_held_only_if_it_is_isolated() {
    for (pod, expected) in [("shop/web", "open"), ("shop/iso-a", "held")] {
        let mut world = World::new().veth(10, "veth1", &[]).pod(pod, "n1", &[]).pod("bank/iso-b", "n1", &[]);
        world = world.cni(pod, "eth0", &["veth1"], &[]);
        world.expect(10, expected);
    }
}

#[test]
fn a_result_that_was_left_over_for_the_same_name_gives_way_to_the_one_whose_address_is_there() {
    let mut world = World::new().veth(10, "cali1", &["10.1.0.5"]).pod("shop/web", "n1", &["10.1.0.5"]);
    world = world.cni("shop/web", "eth0", &["cali1"], &["10.1.0.5"]).cni(
        "shop/old",
        "eth0",
        &["cali1"],
        &["10.1.0.4"],
    );
    world.expect(10, "shop/web 10.1.0.5");
}

#[test]
fn a_result_for_a_pod_that_is_no_more_does_not_outweigh_a_pod_that_is() {
    let mut world = World::new().veth(10, "veth1", &["10.1.0.5"]).pod("shop/iso-a", "n1", &["10.1.0.5"]);
    world = world.cni("shop/old", "eth0", &["veth1"], &["10.1.0.5"]);
    world.expect(10, "held");
}

#[test]
fn the_second_veth_of_a_pod_is_no_ones_and_free() {
    let mut world = World::new().veth(10, "veth1", &["10.1.0.5"]).veth(11, "veth2", &["192.168.7.5"]);
    world = world.pod("shop/web", "n1", &["10.1.0.5"]).pod("shop/iso-a", "n1", &[]);
    world = world.cni("shop/web", "eth0", &["veth1"], &["10.1.0.5"]).cni(
        "shop/web",
        "net1",
        &["veth2"],
        &["192.168.7.5"],
    );
    world.expect(10, "shop/web 10.1.0.5");
    world.expect(11, "open");
}

#[test]
fn a_veth_whose_both_ends_are_here_is_no_endpoint() {
    let mut world = World::new().veth(10, "veth1", &["10.1.0.5"]).pod("shop/web", "n1", &["10.1.0.5"]);
    world.network.links.get_mut(&10).unwrap().peer = None;
    world.expect(10, "absent");
}

#[test]
fn a_bridge_port_is_an_endpoint_with_its_bridge_as_master() {
    let mut world = World::new().link(3, "cni0", &["10.1.0.1/24"]).veth(10, "veth1", &["10.1.0.5"]);
    world = world.port(10, 3).pod("shop/web", "n1", &["10.1.0.5"]);
    world.expect(10, "shop/web 10.1.0.5");
    assert_eq!(world.resolve().veths[&10].master, 3);
}

#[test]
fn every_address_of_the_node_is_its_own_save_those_of_ipvs_services() {
    let world = World::new()
        .link(1, "lo", &["127.0.0.1/8", "::1/128"])
        .link(2, "eth0", &["10.0.0.1/24", "fe80::1/64"])
        .link(3, "kube-ipvs0", &["10.96.0.1/32"])
        .link(4, "kube-dummy-if", &["10.96.0.2/32"]);
    let own: Vec<_> = world.resolve().own_addresses.iter().map(ToString::to_string).collect();
    assert_eq!(own, ["10.0.0.1", "127.0.0.1", "::1", "fe80::1"]);
}

/// A node and its cluster, and what was resolved before.
struct World {
    network: Network,
    cni: CniResults,
    cluster: Cluster,
    previous: Endpoints,
    now: Instant,
}

impl World {
    fn new() -> Self {
        Self {
            network: Network::default(),
            cni: CniResults::default(),
            cluster: Cluster::default(),
            previous: Endpoints::default(),
            now: Instant::now(),
        }
    }

    fn later(mut self, time: Duration) -> Self {
        self.now += time;
        self
    }

    /// A default route by this link.
    fn route(mut self, ifindex: u32, route: DefaultRoute) -> Self {
        self.network.links.get_mut(&ifindex).unwrap().default_route = route;
        self
    }

    /// Some link of the node with addresses of its own.
    fn link(mut self, ifindex: u32, name: &str, addresses: &[&str]) -> Self {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.network.links.insert(ifindex, Link { name: name.into(), addresses, ..Link::default() });
        self
    }

    /// A veth and the addresses at its far end.
    fn veth(mut self, ifindex: u32, name: &str, addresses: &[&str]) -> Self {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let peer = VethPeer { namespace: i32::try_from(ifindex).unwrap(), ifindex: 2, addresses };
        self.network.links.insert(ifindex, Link { name: name.into(), peer: Some(peer), ..Link::default() });
        self
    }

    /// An address of the node on a veth.
    fn own(mut self, ifindex: u32, address: &str) -> Self {
        self.network.links.get_mut(&ifindex).unwrap().addresses.insert(address.parse().unwrap());
        self
    }

    fn port(mut self, ifindex: u32, bridge: u32) -> Self {
        self.network.links.get_mut(&ifindex).unwrap().master = bridge;
        self
    }

    fn pod(mut self, pod: &str, node: &str, addresses: &[&str]) -> Self {
        let pod = podgate_core::fixtures::pod(pod, node, addresses, &[]);
        self.cluster.pods.insert(pod.name.clone(), pod.into());
        self
    }

    fn node(mut self, node: &str, addresses: &[&str]) -> Self {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.cluster.nodes.insert(node.into(), Node { labels: Arc::default(), addresses }.into());
        self
    }

    fn policy(mut self, policy: &str, subject: Selector) -> Self {
        let policy = NetworkPolicy {
            name: name(policy),
            subject,
            ingress: Some(Vec::new()),
            egress: None,
            audit: false,
        };
        self.cluster.policies.insert(policy.name.clone(), policy.into());
        self
    }

    fn cni(mut self, pod: &str, interface: &str, host_interfaces: &[&str], addresses: &[&str]) -> Self {
        self.cni.0.insert(CniResult {
            pod: name(pod),
            primary: interface == "eth0",
            host_interfaces: host_interfaces.iter().map(|name| (*name).into()).collect(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            link_address: None,
            namespaces: BTreeSet::new(),
        });
        self
    }

    fn resolve(&self) -> Endpoints {
        let mut local = crate::endpoints::LocalPods::new("n1".into());
        local.follow(&self.cluster);
        let Self { network, cni, cluster, .. } = self;
        let evidence = Evidence { network, cni, cluster, node: "n1", local: local.pods() };
        resolve(&evidence, &|pod| pod.name.name.starts_with("iso-"), &self.previous, self.now)
    }

    fn resolve_and_remember(&mut self) {
        self.previous = self.resolve();
    }

    /// Resolves, compares what is said of one link, and remembers the outcome for the next time.
    #[track_caller]
    fn expect(&mut self, ifindex: u32, expected: &str) {
        let found = self.resolve();
        let said = match found.veths.get(&ifindex).map(|veth| &veth.state) {
            _ if found.uplinks.contains(&ifindex) => "uplink".to_owned(),
            None => "absent".to_owned(),
            Some(InterfaceState::Pending) => "held".to_owned(),
            Some(InterfaceState::Unmanaged) => "open".to_owned(),
            Some(InterfaceState::Identified { pod, addresses, gone }) => {
                let addresses = addresses.iter().map(|address| format!(" {address}"));
                format!("{pod}{}{}", addresses.collect::<String>(), if *gone { " gone" } else { "" })
            }
        };
        assert_eq!(said, expected, "link {ifindex} of {found:#?}");
        self.previous = found;
    }
}

fn name(name: &str) -> ObjectName {
    let (namespace, name) = name.split_once('/').unwrap();
    ObjectName::new(namespace, name)
}
