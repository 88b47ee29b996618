//! kube-proxy's choice, case by case.

use podgate_common::Protocol::{self, Sctp, Tcp, Udp};

use super::*;
use crate::model::{Proxy, SlicePort};

/// How endpoints are written: `address[@node][ state]`, where the state is `ready` when none is given.
fn endpoint(text: &str) -> SliceEndpoint {
    let (place, state) = text.split_once(' ').unwrap_or((text, "ready"));
    let (address, node) = place.split_once('@').map_or((place, None), |(at, node)| (at, Some(node.into())));
    let (ready, serving, terminating) = match state {
        "ready" => (true, true, false),
        "unready" => (false, false, false),
        "leaving" => (false, true, true),
        "gone" => (false, false, true),
        // Not ready for a reason of its own: not a stand-in, it is not terminating.
        "serving" => (false, true, false),
        other => panic!("no state {other:?}"),
    };
    SliceEndpoint { address: address.parse().unwrap(), node, ready, serving, terminating, hints: None }
}

fn slice(
    name: &str,
    service: &str,
    ports: &[(&str, Protocol, Option<u16>)],
    endpoints: &[&str],
) -> EndpointSlice {
    let port = |(name, protocol, number): &(&str, Protocol, Option<u16>)| SlicePort {
        name: (*name).into(),
        protocol: *protocol,
        number: *number,
    };
    EndpointSlice {
        name: ObjectName::new("x", name),
        service: ObjectName::new("x", service),
        proxy: Proxy::KubeProxy,
        ports: ports.iter().map(port).collect(),
        endpoints: endpoints.iter().map(|text| endpoint(text)).collect(),
    }
}

fn service(internal_local: bool) -> Service {
    let port =
        |name: &str, protocol, number| ServicePort { name: name.into(), protocol, number, node_port: None };
    Service {
        name: ObjectName::new("x", "web"),
        cluster_addresses: vec!["10.96.0.1".parse().unwrap(), "fd96::1".parse().unwrap()],
        external_addresses: vec![],
        internal_local,
        external_local: false,
        is_over_limit: false,
        proxy: Proxy::KubeProxy,
        ports: vec![port("http", Tcp, 80), port("dns", Udp, 53)],
    }
}

/// Asks for one of the service's ports.
fn backends(cluster: &Cluster, service: &Service, port: usize, frontend: Frontend, v6: bool) -> Vec<String> {
    let (port, node) = (&service.ports[port], Name::from("n1"));
    let found = cluster.slices_by_service().backends(service, port, frontend, v6, &node);
    found.into_iter().map(|(address, number)| format!("{address} {number}")).collect()
}

fn cluster(slices: impl IntoIterator<Item = EndpointSlice>) -> Cluster {
    let slices = slices.into_iter().map(|slice| (slice.name.clone(), slice)).collect();
    Cluster { slices, ..Cluster::default() }
}

#[test]
fn ready_endpoints_are_chosen_and_terminating_ones_step_in_when_there_is_none() {
    let table: [(&[&str], &[&str]); 9] = [
        (&[], &[]),
        (&["10.0.0.1", "10.0.0.2"], &["10.0.0.1", "10.0.0.2"]),
        (&["10.0.0.1", "10.0.0.2 unready"], &["10.0.0.1"]),
        (&["10.0.0.1", "10.0.0.2 leaving"], &["10.0.0.1"]),
        (&["10.0.0.1 leaving", "10.0.0.2 unready"], &["10.0.0.1"]),
        (&["10.0.0.1 leaving", "10.0.0.2 leaving", "10.0.0.3 gone"], &["10.0.0.1", "10.0.0.2"]),
        (&["10.0.0.1 serving", "10.0.0.2 gone"], &[]),
        (&["10.0.0.1 unready"], &[]),
        (&["10.0.0.1", "10.0.0.1"], &["10.0.0.1"]),
    ];
    for (endpoints, expected) in table {
        let cluster = cluster([slice("a", "web", &[("http", Tcp, Some(8080))], endpoints)]);
        let expected: Vec<_> = expected.iter().map(|address| format!("{address} 8080")).collect();
        assert_eq!(
            backends(&cluster, &service(false), 0, Frontend::Cluster, false),
            expected,
            "{endpoints:?}"
        );
    }
}

#[test]
fn a_local_policy_leaves_only_the_nodes_own_endpoints_to_clients_of_the_cluster_address() {
    let table: [(&[&str], &[&str], &[&str]); 5] = [
        (&["10.0.0.1@n1", "10.0.0.2@n2", "10.0.0.3"], &["10.0.0.1"], &["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
        (&["10.0.0.2@n2"], &[], &["10.0.0.2"]),
        (&["10.0.0.1@n1 leaving", "10.0.0.2@n2"], &["10.0.0.1"], &["10.0.0.2"]),
        (&["10.0.0.1@n1 leaving", "10.0.0.2@n2 leaving"], &["10.0.0.1"], &["10.0.0.1", "10.0.0.2"]),
        (&["10.0.0.1@n1 unready"], &[], &[]),
    ];
    let lines =
        |addresses: &[&str]| addresses.iter().map(|address| format!("{address} 8080")).collect::<Vec<_>>();
    for (endpoints, by_cluster, by_external) in table {
        let cluster = cluster([slice("a", "web", &[("http", Tcp, Some(8080))], endpoints)]);
        let seen = |local, frontend| backends(&cluster, &service(local), 0, frontend, false);
        assert_eq!(seen(true, Frontend::Cluster), lines(by_cluster), "{endpoints:?}");
        assert_eq!(seen(true, Frontend::External), lines(by_external), "{endpoints:?}");
        assert_eq!(seen(false, Frontend::Cluster), lines(by_external), "{endpoints:?}");
    }
}

#[test]
fn a_port_leads_to_the_port_of_its_name_and_protocol_in_every_slice_of_the_service() {
    let cluster = cluster([
        slice("a", "web", &[("http", Tcp, Some(8080)), ("dns", Udp, Some(5353))], &["10.0.0.1"]),
        // A named targetPort that is another number on other pods.
        slice("b", "web", &[("http", Tcp, Some(9090)), ("dns", Tcp, Some(53))], &["10.0.0.2"]),
        slice("c", "web", &[("http", Tcp, None), ("", Tcp, Some(1)), ("http", Sctp, Some(2))], &["10.0.0.3"]),
        slice("d", "db", &[("http", Tcp, Some(8080))], &["10.0.0.4"]),
        slice("e", "web", &[("http", Tcp, Some(8080))], &["fd00::1"]),
    ]);
    let service = service(false);
    let seen = |port, v6| backends(&cluster, &service, port, Frontend::Cluster, v6);
    assert_eq!(seen(0, false), ["10.0.0.1 8080", "10.0.0.2 9090"]);
    assert_eq!(seen(0, true), ["fd00::1 8080"]);
    assert_eq!(seen(1, false), ["10.0.0.1 5353"]);
    assert_eq!(seen(1, true), [""; 0]);
}

#[test]
fn a_service_is_served_in_the_families_of_its_cluster_addresses() {
    for (addresses, v4, v6) in
        [(vec!["10.96.0.1"], true, false), (vec!["fd96::1"], false, true), (vec![], false, false)]
    {
        let addresses = addresses.into_iter().map(|address: &str| address.parse().unwrap()).collect();
        let service = Service { cluster_addresses: addresses, ..service(false) };
        assert_eq!((service.has_family(false), service.has_family(true)), (v4, v6), "{service:?}");
    }
}
