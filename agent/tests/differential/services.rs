//! Where services lead: the model's choice of backends, and `explain`, are what the specification says, on
//! generated clusters.

use std::{collections::BTreeSet, net::IpAddr};

use podgate_core::model::{Cluster, Frontend, Proxy, Service, ServicePort};
use podgate_testkit::{
    generate::{Entries, cluster},
    manifest::{Form, write},
    naive::{Destination, ResolvedEndpoint, backends, destinations},
    question::Question,
};
use proptest::{prelude::*, sample, test_runner::TestCaseError};
use serde_json::Value;

use crate::{
    answers::{Layout, explained, problems, read},
    runner::check,
};

const CLUSTERS: u32 = 1_000;
/// The generator's nodes, and one that is none of them.
const NODES: [&str; 3] = ["n1", "n2", "n3"];

type Sample = (Vec<Value>, Layout);

fn samples() -> impl Strategy<Value = Sample> {
    (cluster(Entries::Valid), sample::select(&Layout::ALL[..]))
}

#[test]
fn services_lead_where_the_specification_says() {
    check(CLUSTERS, samples, leads_there, describe);
}

#[test]
fn explain_has_the_verdicts_of_the_specification_for_services() {
    check(CLUSTERS / 4, samples, explain_agrees, describe);
}

fn leads_there((objects, layout): &Sample) -> Result<(), TestCaseError> {
    let picture = read(objects, *layout);
    prop_assert!(picture.problems.is_empty(), "valid objects were refused:\n{}", problems(&picture));
    for node in NODES {
        let client = ResolvedEndpoint::Node(node.into());
        for destination in destinations(objects, node) {
            let beside = Destination { port: destination.port ^ 1, ..destination.clone() };
            for matches in [destination, beside] {
                let expected = backends(objects, &client, &matches)
                    .map(|found| found.iter().map(|backend| (backend.address, backend.port)).collect());
                let seen = chosen(&picture.cluster, node, &matches);
                prop_assert_eq!(seen, expected, "from {} to {:?}", node, matches);
            }
        }
    }
    Ok(())
}

fn explain_agrees((objects, layout): &Sample) -> Result<(), TestCaseError> {
    let picture = read(objects, *layout);
    // Of both nodes, with and without policies; the first few are enough.
    for pod in picture.cluster.pods.values().filter(|pod| !pod.addresses.is_empty()).take(4) {
        let from = ResolvedEndpoint::Pod {
            namespace: pod.name.namespace.to_string(),
            name: pod.name.name.to_string(),
        };
        let of_family = |v6| pod.addresses.iter().any(|address| address.is_ipv6() == v6) && !pod.host_network;
        let node = pod.node.as_deref().unwrap_or_default();
        for to in destinations(objects, node).into_iter().filter(|to| of_family(to.address.is_ipv6())) {
            let found = backends(objects, &from, &to).expect("a service answers there");
            let expected = !found.is_empty() && found.iter().all(|backend| backend.egress && backend.ingress);
            let Destination { address, protocol, port } = to;
            let question =
                Question { from: from.clone(), to: ResolvedEndpoint::Address(address), protocol, port };
            prop_assert_eq!(explained(&picture.cluster, &question), expected, "{}", question);
        }
        // By the addresses of any node: most of these ports are at another one.
        for to in NODES.into_iter().flat_map(|node| destinations(objects, node)) {
            let Destination { address, protocol, port } = to;
            let question =
                Question { from: from.clone(), to: ResolvedEndpoint::Address(address), protocol, port };
            let seen = explained(&picture.cluster, &question);
            prop_assert_eq!(seen, question.is_allowed(objects), "{}", question);
        }
        // Headless ones have no address of their own.
        for service in picture.cluster.services.values() {
            for port in &service.ports {
                let to = ResolvedEndpoint::Service {
                    namespace: service.name.namespace.to_string(),
                    name: service.name.name.to_string(),
                };
                let (protocol, port) = (port.protocol.to_string(), port.number);
                let question = Question { from: from.clone(), to, protocol, port };
                let seen = explained(&picture.cluster, &question);
                prop_assert_eq!(seen, question.is_allowed(objects), "{}", question);
            }
        }
    }
    Ok(())
}

/// `None` when no service answers there. Several may: a cluster address is its own service's, others are a
/// union.
fn chosen(cluster: &Cluster, node: &str, matches: &Destination) -> Option<BTreeSet<(IpAddr, u16)>> {
    let ports =
        cluster.services.values().flat_map(|service| service.ports.iter().map(move |port| (service, port)));
    let mut found: Vec<_> = ports
        .filter_map(|(service, port)| Some((service, port, frontend(cluster, node, service, port, matches)?)))
        .collect();
    if found.iter().any(|(.., frontend)| *frontend == Frontend::Cluster) {
        found.retain(|(.., frontend)| *frontend == Frontend::Cluster);
    }
    let slices = cluster.slices_by_service();
    let zone = cluster.nodes.get(node).and_then(|node| node.labels.get("topology.kubernetes.io/zone"));
    let v6 = matches.address.is_ipv6();
    let ends = found.iter().flat_map(|(service, port, frontend)| match service.proxy {
        Proxy::Other => {
            let all = slices.all(service, port, v6);
            all.into_iter().chain([(matches.address, matches.port)]).collect::<BTreeSet<_>>()
        }
        Proxy::KubeProxy | Proxy::Headless => {
            slices.preferred(service, port, *frontend, v6, &node.into(), zone)
        }
    });
    let ends = ends.collect();
    (!found.is_empty()).then_some(ends)
}

fn frontend(
    cluster: &Cluster,
    node: &str,
    service: &Service,
    port: &ServicePort,
    matches: &Destination,
) -> Option<Frontend> {
    let Destination { address, protocol, port: number } = matches;
    let own = cluster.nodes.get(node).is_some_and(|node| node.addresses.contains(address));
    let frontend = match port.number == *number {
        true if service.cluster_addresses.contains(address) => Some(Frontend::Cluster),
        true if service.external_addresses.contains(address) => Some(Frontend::External),
        _ if own && port.node_port == Some(*number) => Some(Frontend::External),
        _ => None,
    };
    frontend.filter(|_| port.protocol.to_string() == *protocol && service.has_family(address.is_ipv6()))
}

fn describe((objects, layout): &Sample) -> String {
    format!("read as {layout:?}\n{}", write(objects, Form::YamlDocuments))
}
