//! Services of every size that the API takes, and of ten times that: external addresses times ports, many
//! services at one address, slices times ports.

use std::{net::IpAddr, ops::Range, sync::PoisonError, time::Duration};

use podgate_common::{Protocol, ServiceKey, ServiceVerdict};
use podgate_core::model::ObjectName;
use serde_json::{Value, json};

use super::{
    ALONE, MOST_MEMORY, MOST_TIME, MOST_TIME_OF_NEIGHBOUR, Node, changing,
    clock::cpu_time,
    memory::Peak,
    read,
    shapes::{HONEST, HOSTILE, cluster, peer, policy},
};

/// Of the objects of one tenant.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// One service with 1,500 external addresses and as many ports.
    AddressesAndPorts,
    /// Ten services with 5,000 external addresses each: what does not fit into an object fits into several.
    Addresses,
    /// Ten services with 1,500 ports each.
    Ports,
    /// A hundred services with 150 external addresses and ports each, all at the same addresses.
    ServicesOfAddressesAndPorts,
    /// The same number of pairs in services that fit one by one.
    SmallServices,
    /// 1,000 services at one address and port.
    ServicesAtOneAddress,
    /// A service with 1,000 ports and slices, each of which leads from one of them.
    SliceForEachPort,
    /// Ten slices with as many ports and endpoints as the API takes.
    LargeSlices,
    /// The same behind as many external addresses and ports as fit, and rules that distinguish all of these.
    VariousBackends,
    /// A slice with 4,000 ports, and endpoints that differ in all that a node can distinguish.
    DistinctEndpoints,
}

impl Shape {
    const ALL: [Self; 10] = [
        Self::AddressesAndPorts,
        Self::Addresses,
        Self::Ports,
        Self::ServicesOfAddressesAndPorts,
        Self::SmallServices,
        Self::ServicesAtOneAddress,
        Self::SliceForEachPort,
        Self::LargeSlices,
        Self::VariousBackends,
        Self::DistinctEndpoints,
    ];

    fn objects(self, factor: u32) -> Vec<Value> {
        match self {
            Self::AddressesAndPorts => vec![service("large", 0..1_500 * factor, 1_500 * factor)],
            Self::Addresses => {
                let own = |at: u32| 5_000 * factor * at..5_000 * factor * (at + 1);
                (0..10).map(|at| service(&format!("many-{at}"), own(at), 1)).collect()
            }
            Self::Ports => (0..10).map(|at| service(&format!("ports-{at}"), 0..0, 1_500 * factor)).collect(),
            Self::ServicesOfAddressesAndPorts => {
                (0..100 * factor).map(|at| service(&format!("large-{at}"), 0..150, 150)).collect()
            }
            Self::SmallServices => (0..100 * factor)
                .map(|at| service(&format!("small-{at}"), 60 * at..60 * at + 60, 60))
                .collect(),
            Self::ServicesAtOneAddress => (0..1_000 * factor)
                .flat_map(|at| {
                    let name = format!("same-{at}");
                    [service(&name, 0..1, 1), slice(&name, 0, 1..2, at..at + 1)]
                })
                .collect(),
            Self::SliceForEachPort => {
                let slices = (1..=1_000 * factor).map(|at| slice("large", at, at..at + 1, at..at + 1));
                slices.chain([service("large", 0..1, 1_000 * factor)]).collect()
            }
            Self::LargeSlices => {
                let slices =
                    (0..10 * factor).map(|at| slice("large", at, 1..101, 1_000 * at..1_000 * (at + 1)));
                slices.chain([service("large", 0..1, 100)]).collect()
            }
            Self::VariousBackends => {
                let slices = (0..10 * factor).map(|at| {
                    let mut slice = slice("large", at, 1..101, 1_000 * at..1_000 * (at + 1));
                    for (number, port) in
                        (25 * (at % 10) + 1..).zip(slice["ports"].as_array_mut().expect("a list"))
                    {
                        port["port"] = number.into();
                    }
                    slice
                });
                let rule = |at: u32| {
                    let blocks =
                        [external(at % 60), endpoint(4 * at)].map(|at| peer(&format!("{at}/32"), &[]));
                    json!({"from": blocks, "ports": [{"port": at + 1}]})
                };
                let rules = policy(HOSTILE, "various", (0..250).map(rule).collect());
                slices.chain([service("large", 0..60, 60), rules]).collect()
            }
            Self::DistinctEndpoints => {
                let slices = (0..factor).map(|at| {
                    let mut slice = slice("large", at, 1..4_001, 0..960);
                    for (number, endpoint) in (0..).zip(slice["endpoints"].as_array_mut().expect("a list")) {
                        let has = |bit: u32| number >> bit & 1 != 0;
                        endpoint["conditions"] =
                            json!({"ready": has(0), "serving": has(1), "terminating": has(2)});
                        if has(3) {
                            endpoint["nodeName"] = "n1".into();
                        }
                    }
                    slice
                });
                let rule = |at: u32| {
                    let block = peer(&format!("{}/28", endpoint(16 * at)), &[]);
                    json!({"from": [block], "ports": [{"port": at + 1}]})
                };
                let rules = policy(HOSTILE, "distinct", (0..60).map(rule).collect());
                slices.chain([service("large", 0..1, 4_000), rules]).collect()
            }
        }
    }

    const fn is_over_limit(self, factor: u32) -> bool {
        match self {
            Self::AddressesAndPorts
            | Self::Addresses
            | Self::Ports
            | Self::ServicesOfAddressesAndPorts
            | Self::SmallServices => true,
            // With a cluster address and an external one 2,000 frontends, or 20,000: of one service, or of
            // small ones.
            Self::SliceForEachPort | Self::ServicesAtOneAddress => factor > 1,
            Self::LargeSlices | Self::VariousBackends => false,
            // 8,000.
            Self::DistinctEndpoints => true,
        }
    }
}

/// CPU time of reading ten Services of the largest size from a file, in a build that is not optimised.
const MOST_TIME_OF_READING: Duration = Duration::from_secs(4);

#[test]
fn services_of_any_size_and_of_ten_times_that_take_less_than_150_mib_and_a_second() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for shape in Shape::ALL {
        for factor in [1, 10] {
            let (objects, without) = (of_tenants(shape.objects(factor)), read(&of_tenants(Vec::new())));
            let cpu = cpu_time();
            let with = read(&objects);
            let reading = cpu_time() - cpu;
            // A file is read in one piece, unlike a list of the API server.
            let peak = Peak::begin();
            let mut node = Node::default();
            // Once more from before, and a change to a part of it.
            let took = [&with, &without, &with].map(|picture| node.pass(picture));
            let mut changed = podgate_core::model::Cluster::clone(&with.cluster);
            let last = with.cluster.services_in(&HOSTILE.into()).last();
            let mut service = last.map(|service| (**service).clone()).expect("a service of the tenant");
            service.ports.pop();
            changed.services.insert(service.name.clone(), service.into());
            let changed = podgate::source::ClusterSnapshot { cluster: changed.into(), ..with.clone() };
            let of_part = [&changed, &with].map(|picture| node.pass(picture));
            let of_neighbour: Vec<Duration> =
                changing(&with).iter().map(|picture| node.pass(picture)).skip(1).collect();
            let used = peak.end();
            let neighbour = of_neighbour.into_iter().max().expect("some changes");
            println!(
                "{shape:?} x{factor}: {} MiB, {reading:?}, {took:?}, {of_part:?}, {neighbour:?}",
                used >> 20
            );
            assert!(used < MOST_MEMORY, "{shape:?} x{factor}: {used} bytes");
            assert!(reading < MOST_TIME_OF_READING, "{shape:?} x{factor}: {reading:?}");
            assert!(took.iter().chain(&of_part).all(|took| *took < MOST_TIME), "{shape:?} x{factor}");
            assert!(neighbour < MOST_TIME_OF_NEIGHBOUR * factor, "{shape:?} x{factor}: {neighbour:?}");
            let filter = &node.tables().services.filter;
            assert_eq!(!filter.is_empty(), shape.is_over_limit(factor), "{shape:?} x{factor}");
            // What the tenant has not claimed is decided where it is sent, as before.
            for (address, port, expected) in [
                ([10, 96, 0, 1], 80, Some(ServiceVerdict::Allowed)),
                ([10, 96, 0, 1], 81, Some(ServiceVerdict::Denied)),
                ([203, 0, 113, 1], 80, Some(ServiceVerdict::Deferred)),
                ([203, 0, 113, 1], 81, Some(ServiceVerdict::Denied)),
                ([203, 0, 113, 1], 82, None),
            ] {
                assert_eq!(verdict(&node, address.into(), port), expected, "{shape:?} x{factor}: {port}");
            }
        }
    }
}

#[test]
fn a_service_that_does_not_fit_is_a_problem_that_names_it_and_the_consequence() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let problems = |shape: Shape| -> Vec<String> {
        read(&of_tenants(shape.objects(1))).problems.iter().map(ToString::to_string).collect()
    };
    let large = problems(Shape::AddressesAndPorts);
    let expected = "Service hostile/large: spec.externalIPs: 1 cluster addresses and 1500 external ones with 1500 \
                    ports do not fit: the Services of namespace hostile have more than 4096 such pairs";
    assert!(large.len() == 1 && large[0].contains(expected), "{large:?}");
    // One of them alone would fit, and the first one does.
    assert_eq!(problems(Shape::SmallServices).len(), 99);
    assert_eq!(problems(Shape::ServicesAtOneAddress), [""; 0]);
}

/// What the honest tenant's pods may send to an address and port, as far as it is a service's.
fn verdict(node: &Node, address: IpAddr, port: u16) -> Option<ServiceVerdict> {
    let tables = node.tables();
    let place = *tables.services.frontends.get(&ServiceKey::new(address.into(), Protocol::Tcp, port))?;
    let rule_set = tables.subjects[&ObjectName::new(HONEST, "a")].egress;
    let verdict = tables.services.verdicts.get(&(rule_set, place)).copied();
    Some(verdict.unwrap_or(ServiceVerdict::Denied))
}

/// The honest tenant's pods may send to each other's port 8080, and have a service for that and another port.
fn of_tenants(hostile: Vec<Value>) -> Vec<Value> {
    let mut objects = cluster(Vec::new());
    for (namespace, rules) in
        [(HOSTILE, json!([])), (HONEST, json!([{"to": [{"podSelector": {}}], "ports": [{"port": 8_080}]}]))]
    {
        objects.push(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": namespace, "name": "egress"},
            "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": rules},
        }));
    }
    objects.push(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": HONEST, "name": "web"},
        "spec": {
            "clusterIP": "10.96.0.1", "externalIPs": ["203.0.113.1"],
            "ports": [{"name": "web", "port": 80}, {"name": "other", "port": 81}],
        },
    }));
    // The second port leads out of the cluster.
    for (name, port, address) in [("web", 8_080, "10.244.0.2"), ("other", 8_081, "192.0.2.1")] {
        objects.push(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "namespace": HONEST, "name": name, "labels": {"kubernetes.io/service-name": "web"},
            },
            "ports": [{"name": name, "port": port}], "endpoints": [{"addresses": [address]}],
        }));
    }
    objects.extend(hostile);
    objects
}

fn service(name: &str, addresses: Range<u32>, ports: u32) -> Value {
    let addresses: Vec<String> = addresses.map(external).collect();
    let ports: Vec<Value> = (1..=ports).map(|at| json!({"name": format!("p{at}"), "port": at})).collect();
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": HOSTILE, "name": name},
        "spec": {"clusterIP": "10.97.0.1", "externalIPs": addresses, "ports": ports},
    })
}

/// Of these ports and endpoints.
fn slice(service: &str, number: u32, ports: Range<u32>, endpoints: Range<u32>) -> Value {
    let ports: Vec<Value> = ports.map(|at| json!({"name": format!("p{at}"), "port": at})).collect();
    let endpoints: Vec<Value> = endpoints.map(|at| json!({"addresses": [endpoint(at)]})).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "namespace": HOSTILE, "name": format!("{service}-{number}"),
            "labels": {"kubernetes.io/service-name": service},
        },
        "ports": ports, "endpoints": endpoints,
    })
}

fn external(at: u32) -> String {
    format!("198.{}.{}.{}", 18 + (at >> 16), at >> 8 & 0xff, at & 0xff)
}

fn endpoint(at: u32) -> String {
    format!("10.{}.{}.{}", 128 + (at >> 16), at >> 8 & 0xff, at & 0xff)
}
