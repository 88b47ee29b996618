//! The watch against the kernel: every test in network namespaces of its own, which end with the test.

use std::time::Duration;

use super::*;
use crate::network::{DefaultRoute, read};

mod namespaces;

use namespaces::{Namespace, enter_new_namespace, entry, in_node, ip, link, peer, peer_addresses};

#[test]
fn the_first_look_has_the_loopback_device_and_its_addresses() {
    in_node(async |mut node| {
        node.until("lo", |network| {
            let addresses: Vec<_> = link(network, "lo")?.addresses.iter().map(ToString::to_string).collect();
            (addresses == ["127.0.0.1/8", "::1/128"]).then_some(())
        })
        .await;
    });
}

/// As one of IPv6 alone may be: the kernel has no table of routes of the other family.
#[test]
fn a_node_without_any_route_is_read() {
    in_node(async |_| {
        enter_new_namespace();
        let network = NetworkWatch::open().unwrap().next().await.unwrap();
        assert!(link(&network, "lo").is_some(), "{network:?}");
    });
}

#[test]
fn the_addresses_of_a_peer_are_read_from_outside_its_namespace() {
    in_node(async |mut node| {
        let pod = Namespace::new();
        pod.veth("veth0");
        pod.ip("address add 10.1.0.5/24 dev eth0");
        pod.ip("address add fd00::5/64 dev eth0 nodad");
        pod.ip("address add 10.9.9.9/32 dev lo");
        node.until("both addresses of eth0, and none of lo", |network| {
            (peer_addresses(network, "veth0")? == ["10.1.0.5", "fd00::5"]).then_some(())
        })
        .await;
    });
}

#[test]
fn an_address_that_comes_or_goes_after_its_veth_was_seen_is_noticed() {
    in_node(async |mut node| {
        let pod = Namespace::new();
        pod.veth("veth0");
        node.until("the veth", |network| peer_addresses(network, "veth0")?.is_empty().then_some(())).await;
        for (change, expected) in [
            ("address add 10.1.0.5/32 dev eth0", vec!["10.1.0.5"]),
            ("address add fd00::5/128 dev eth0 nodad", vec!["10.1.0.5", "fd00::5"]),
            ("address del 10.1.0.5/32 dev eth0", vec!["fd00::5"]),
            ("address flush dev eth0", vec![]),
        ] {
            pod.ip(change);
            node.until(change, |network| (peer_addresses(network, "veth0")? == expected).then_some(())).await;
        }
    });
}

#[test]
fn each_pod_namespace_is_told_apart() {
    in_node(async |mut node| {
        let pods: Vec<_> = (0..20).map(|_| Namespace::new()).collect();
        for (number, pod) in pods.iter().enumerate() {
            pod.veth(&format!("veth{number}"));
            pod.ip(&format!("address add 10.1.0.{number}/32 dev eth0"));
        }
        node.until("an address each", |network| {
            (0..pods.len())
                .all(|number| {
                    peer_addresses(network, &format!("veth{number}"))
                        .is_some_and(|it| it == [format!("10.1.0.{number}")])
                })
                .then_some(())
        })
        .await;
    });
}

#[test]
fn two_veths_into_one_namespace_have_the_addresses_of_their_own_ends() {
    in_node(async |mut node| {
        let pod = Namespace::new();
        pod.veth("veth0");
        pod.ip("link set eth0 name net1");
        pod.veth("veth1");
        pod.ip("address add 10.1.0.5/24 dev eth0");
        pod.ip("address add 10.2.0.5/24 dev net1");
        node.until("the addresses of each", |network| {
            let (first, second) = (peer(network, "veth0")?, peer(network, "veth1")?);
            let found = (peer_addresses(network, "veth0")?, peer_addresses(network, "veth1")?);
            (found == (vec!["10.2.0.5".to_owned()], vec!["10.1.0.5".to_owned()])
                && first.namespace == second.namespace
                && first.ifindex != second.ifindex)
                .then_some(())
        })
        .await;
    });
}

#[test]
fn a_veth_with_both_ends_here_has_no_peer_elsewhere() {
    in_node(async |mut node| {
        ip("link add name a type veth peer name b");
        node.until("both ends", |network| {
            (link(network, "a")?.peer.is_none() && link(network, "b")?.peer.is_none()).then_some(())
        })
        .await;
    });
}

#[test]
fn an_end_that_moves_away_makes_the_other_end_a_candidate_and_one_that_moves_on_is_followed() {
    in_node(async |mut node| {
        let (first, second) = (Namespace::new(), Namespace::new());
        ip("link add veth0 type veth peer name eth0");
        node.until("two ends", |network| link(network, "eth0").map(drop)).await;
        first.take("eth0");
        let before = node.until("a peer", |network| peer(network, "veth0").map(|peer| peer.namespace)).await;
        first.ip(&format!("link set eth0 netns {}", second.thread_id));
        second.ip("address add 10.1.0.5/32 dev eth0");
        node.until("the address in the second namespace", |network| {
            let after = peer(network, "veth0")?.namespace;
            (after != before && peer_addresses(network, "veth0")? == ["10.1.0.5"]).then_some(())
        })
        .await;
    });
}

#[test]
fn a_veth_that_goes_is_gone_and_one_that_is_renamed_stays_the_same_device() {
    in_node(async |mut node| {
        let pod = Namespace::new();
        pod.veth("veth0");
        let before = node.until("the veth", |network| entry(network, "veth0")).await;
        ip("link set veth0 name cali0");
        let after = node.until("the new name", |network| entry(network, "cali0")).await;
        assert_eq!(before, after, "ifindex and generation");
        ip("link del cali0");
        node.until("no veth", |network| link(network, "cali0").is_none().then_some(())).await;
    });
}

#[test]
fn a_pod_namespace_that_ends_takes_its_veth_along() {
    in_node(async |mut node| {
        let pod = Namespace::new();
        pod.veth("veth0");
        node.until("the veth", |network| peer(network, "veth0").map(drop)).await;
        drop(pod);
        node.until("no veth", |network| link(network, "veth0").is_none().then_some(())).await;
    });
}

#[test]
fn a_device_that_takes_over_the_ifindex_of_another_is_told_apart() {
    in_node(async |mut node| {
        ip("link add name veth0 index 77 type veth peer name b");
        let before = node.until("the first", |network| entry(network, "veth0")).await;
        // Both commands lie between two looks: only the events tell that anything happened.
        ip("link del veth0");
        ip("link add name veth0 index 77 type veth peer name b");
        let after =
            node.until("another device", |network| entry(network, "veth0").filter(|it| *it != before)).await;
        assert_eq!((before.0, after.0), (77, 77), "ifindex");
    });
}

#[test]
fn a_port_has_its_bridge_as_master_and_leaving_the_bridge_makes_no_new_device_of_it() {
    in_node(async |mut node| {
        let pod = Namespace::new();
        pod.veth("veth0");
        ip("link add cni0 type bridge");
        let before = node.until("the veth", |network| entry(network, "veth0")).await;
        ip("link set veth0 master cni0");
        node.until("a port", |network| {
            (link(network, "veth0")?.master == entry(network, "cni0")?.0).then_some(())
        })
        .await;
        ip("link set veth0 nomaster");
        let after = node
            .until("no port", |network| {
                entry(network, "veth0").filter(|_| link(network, "veth0").unwrap().master == 0)
            })
            .await;
        assert_eq!(before, after, "ifindex and generation");
    });
}

#[test]
fn the_port_of_a_tunnel_is_read_from_its_link() {
    in_node(async |mut node| {
        for (name, kind, port) in
            [("t0", "vxlan id 1 dstport 8473 dev lo", Some(8_473)), ("t1", "bridge", None)]
        {
            ip(&format!("link add {name} type {kind}"));
            node.until(kind, |network| (link(network, name)?.tunnel_port == port).then_some(())).await;
        }
    });
}

/// As the kernel lists them (uapi/linux/if_link.h, if_tunnel.h): not every kernel has these kinds of devices.
#[test]
fn the_port_of_a_tunnel_stands_where_its_kind_has_it() {
    let attribute = |kind: u16, value: &[u8]| {
        let length = u16::try_from(4 + value.len()).expect("a short value");
        let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let information = |kind: &str, port_at: u16, port: u16| {
        // Something else stands before it.
        let data = [attribute(4, &[64]), attribute(port_at, &port.to_be_bytes())].concat();
        let name = attribute(libc::IFLA_INFO_KIND, format!("{kind}\0").as_bytes());
        [name, attribute(libc::IFLA_INFO_DATA, &data)].concat()
    };
    let kinds = [
        ("vxlan", 15),
        ("geneve", 5),
        ("bareudp", 1),
        ("ipip", 18),
        ("sit", 18),
        ("ip6tnl", 18),
        ("gre", 17),
        ("gretap", 17),
        ("ip6gre", 17),
        ("ip6gretap", 17),
    ];
    for (kind, port_at) in kinds {
        assert_eq!(read::tunnel_port(&information(kind, port_at, 5_555)), Some(5_555), "{kind}");
        assert_eq!(read::tunnel_port(&information(kind, port_at, 0)), None, "{kind} without a port");
        assert_eq!(read::tunnel_port(&information(kind, 40, 5_555)), None, "{kind} without this attribute");
    }
    assert_eq!(read::tunnel_port(&information("veth", 15, 5_555)), None);
}

#[test]
fn links_with_a_default_route_are_marked_whatever_its_form() {
    in_node(async |mut node| {
        for name in ["u0", "u1", "u2", "u3"] {
            ip(&format!("link add {name} type bridge"));
            ip(&format!("link set {name} up"));
        }
        let marked = |network: &Network| {
            let links = network.links.values().filter(|link| link.default_route != DefaultRoute::None);
            links.map(|link| link.name.to_string()).collect::<Vec<_>>()
        };
        for (change, expected) in [
            ("route add 10.0.0.0/8 dev u0", vec![]),
            ("route add default dev u1 table 100", vec![]),
            ("route add default dev u0", vec!["u0"]),
            ("-6 route add default dev u1", vec!["u0", "u1"]),
            ("route add default metric 9 nexthop dev u2 nexthop dev u3", vec!["u0", "u1", "u2", "u3"]),
            ("route del default metric 9", vec!["u0", "u1"]),
            ("route del default dev u0", vec!["u1"]),
            ("route add default dev u2", vec!["u1", "u2"]),
            // The kernel drops the route without an event of its own.
            ("link set u2 down", vec!["u1"]),
        ] {
            ip(change);
            node.until(change, |network| (marked(network) == expected).then_some(())).await;
        }
    });
}

#[test]
fn a_change_that_was_not_asked_about_is_not_reported() {
    in_node(async |mut node| {
        ip("link add u0 type bridge");
        node.until("the link", |network| link(network, "u0").map(drop)).await;
        ip("link set u0 mtu 1400");
        let next = tokio::time::timeout(Duration::from_millis(100), node.watch.next()).await;
        assert!(next.is_err(), "reported: {next:?}");
    });
}

#[test]
fn lost_events_are_told_from_none() {
    in_node(async |mut node| {
        assert_eq!(node.watch.all.take(|_| {}).unwrap(), DrainResult::All);
        node.flood();
        assert_eq!(node.watch.all.take(|_| {}).unwrap(), DrainResult::Overflow);
        assert_eq!(node.watch.all.take(|_| {}).unwrap(), DrainResult::All);
    });
}

#[test]
fn what_happened_in_lost_events_is_found_nevertheless() {
    in_node(async |mut node| {
        let pod = Namespace::new();
        pod.veth("veth0");
        node.until("the veth", |network| peer(network, "veth0").map(drop)).await;
        node.flood();
        pod.ip("address add 10.1.0.5/32 dev eth0");
        node.until("the address", |network| {
            (peer_addresses(network, "veth0")? == ["10.1.0.5"]).then_some(())
        })
        .await;
    });
}
