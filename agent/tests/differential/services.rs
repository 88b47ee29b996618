//! Where services lead: the model's choice of backends is what the specification says, on generated clusters.

use std::{collections::BTreeSet, net::IpAddr};

use podgate::model::{Cluster, Front, Service, ServicePort};
use proptest::{prelude::*, sample, test_runner::TestCaseError};
use serde_json::Value;

use crate::{
    answers::{Layout, problems, read},
    oracle::{
        generate::{Entries, cluster},
        manifest::{Form, write},
        naive::{Destination, Party, backends, destinations},
    },
    runner::check,
};

const CLUSTERS: u32 = 1_000;
/// The generator's nodes, and one that is none of them.
const NODES: [&str; 3] = ["n1", "n2", "n3"];

type Sample = (Vec<Value>, Layout);

#[test]
fn services_lead_where_the_specification_says() {
    let samples = || (cluster(Entries::Valid), sample::select(&Layout::ALL[..]));
    check(CLUSTERS, samples, leads_there, describe);
}

fn leads_there((objects, layout): &Sample) -> Result<(), TestCaseError> {
    let picture = read(objects, *layout);
    prop_assert!(picture.problems.is_empty(), "valid objects were refused:\n{}", problems(&picture));
    for node in NODES {
        let client = Party::Node(node.into());
        for destination in destinations(objects, node) {
            let beside = Destination { port: destination.port ^ 1, ..destination.clone() };
            for asked in [destination, beside] {
                let expected = backends(objects, &client, &asked)
                    .map(|found| found.iter().map(|backend| (backend.address, backend.port)).collect());
                let seen = chosen(&picture.cluster, node, &asked);
                prop_assert_eq!(seen, expected, "from {} to {:?}", node, asked);
            }
        }
    }
    Ok(())
}

/// `None` when no service answers there.
fn chosen(cluster: &Cluster, node: &str, asked: &Destination) -> Option<BTreeSet<(IpAddr, u16)>> {
    let (service, port, front) = cluster.services.values().find_map(|service| {
        service
            .ports
            .iter()
            .find_map(|port| Some((service, port, front(cluster, node, service, port, asked)?)))
    })?;
    let slices = cluster.slices_by_service();
    Some(slices.backends(service, port, front, asked.address.is_ipv6(), &node.into()))
}

fn front(
    cluster: &Cluster,
    node: &str,
    service: &Service,
    port: &ServicePort,
    asked: &Destination,
) -> Option<Front> {
    let Destination { address, protocol, port: number } = asked;
    let own = cluster.nodes.get(node).is_some_and(|node| node.addresses.contains(address));
    let front = match port.number == *number {
        true if service.cluster_addresses.contains(address) => Some(Front::Cluster),
        true if service.external_addresses.contains(address) => Some(Front::External),
        _ if own && port.node_port == Some(*number) => Some(Front::External),
        _ => None,
    };
    front.filter(|_| port.protocol.to_string() == *protocol && service.has_family(address.is_ipv6()))
}

fn describe((objects, layout): &Sample) -> String {
    format!("read as {layout:?}\n{}", write(objects, Form::YamlDocuments))
}
