//! Host endpoints with Calico's policies: the compiled tables and `explain` follow Calico's documents.

use std::{net::IpAddr, sync::Arc};

use podgate_common::{Direction, Protocol};
use podgate_core::{
    compiler::{self, CompiledTables},
    memory::Memory,
    model::{Cluster, FailsafePorts, HostEndpoint, HostTraffic, Pod},
};
use podgate_testkit::{
    generate::{Entries, cluster, with_calico},
    manifest::{Form, write},
    question::Question,
};
use proptest::{collection::vec, option, prelude::*, sample, test_runner::TestCaseError};
use serde_json::{Value, json};

use crate::{
    answers::{Layout, explained, read},
    runner::check,
};

const CLUSTERS: u32 = 1_000;
const OUTSIDE: [&str; 2] = ["203.0.113.7", "2001:db8::7"];
const OWN: [&str; 2] = ["198.18.0.1", "2001:db8:18::1"];
const PORTS: [&str; 4] = ["TCP/80", "UDP/53", "TCP/22", "TCP/8080"];

type Sample = (Vec<Value>, Layout);

/// A node with one host endpoint, and another node with one that rules may name.
fn samples() -> impl Strategy<Value = Sample> {
    let label = |values: &'static [&'static str]| option::of(sample::select(values));
    let host = (label(&["a", "b", "web"]), label(&["a", "b", "db"]), any::<bool>(), any::<bool>());
    let scopes = vec(sample::select(&["", "applyOnForward", "preDNAT", "doNotTrack"][..]), 8);
    (with_calico(cluster(Entries::Valid)), vec(host, 2), scopes, sample::select(&Layout::ALL[..])).prop_map(
        |(mut objects, hosts, scopes, layout)| {
            let mut scopes = scopes.into_iter().cycle();
            for policy in objects.iter_mut().filter(|it| it["kind"] == "GlobalNetworkPolicy") {
                let scope = scopes.next().unwrap_or_default();
                if !scope.is_empty() {
                    policy["spec"]["applyOnForward"] = json!(true);
                    policy["spec"][scope] = json!(true);
                }
            }
            for (number, (app, role, is_open, is_of_all)) in hosts.into_iter().enumerate() {
                let name = format!("h{number}");
                let addresses = match number {
                    0 => OWN.to_vec(),
                    _ => vec!["198.18.0.2"],
                };
                let listed: Vec<Value> =
                    addresses.iter().map(|at| json!({"type": "InternalIP", "address": at})).collect();
                objects.push(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
                    "status": {"addresses": listed}}));
                let labels = [("app", app), ("role", role)];
                let labels: serde_json::Map<String, Value> =
                    labels.into_iter().filter_map(|(key, it)| Some((key.to_owned(), it?.into()))).collect();
                let devices = if is_of_all { "*" } else { "eth0" };
                let profiles: &[&str] = if is_open { &["projectcalico-default-allow"] } else { &[] };
                objects.push(json!({"apiVersion": "projectcalico.org/v3", "kind": "HostEndpoint",
                    "metadata": {"name": name, "labels": labels},
                    "spec": {"node": name, "interfaceName": devices, "expectedIPs": addresses,
                        "profiles": profiles}}));
            }
            (objects, layout)
        },
    )
}

#[test]
fn host_endpoints_have_the_verdicts_of_calicos_documents() {
    check(CLUSTERS, samples, agrees, describe);
}

fn agrees((objects, layout): &Sample) -> Result<(), TestCaseError> {
    let cluster = Cluster::clone(&read(objects, *layout).cluster);
    let host = cluster.calico.host_endpoints().find(|host| &*host.node == "h0").expect("it was added");
    let tables = tables_of(&cluster, host);
    let pods = cluster.pods.values().filter(|pod| !pod.host_network).flat_map(|pod| pod.addresses.clone());
    let others = OUTSIDE.iter().chain(&["198.18.0.2"]).map(|at| at.parse::<IpAddr>().expect("an address"));
    let peers: Vec<IpAddr> = pods.chain(others).collect();
    for peer in peers {
        let own =
            OWN.iter().find(|own| own.parse::<IpAddr>().is_ok_and(|own| own.is_ipv4() == peer.is_ipv4()));
        let own = own.expect("it has both");
        for port in PORTS {
            for (direction, text) in [
                (Direction::Ingress, format!("{peer} {own} {port}")),
                (Direction::Egress, format!("{own} {peer} {port}")),
            ] {
                let question: Question = text.parse().expect("a question");
                let expected = question.is_allowed(objects);
                prop_assert_eq!(explained(&cluster, &question), expected, "{}", question);
                // Outside addresses have no policies: only the host endpoint decides.
                if OUTSIDE.contains(&peer.to_string().as_str()) {
                    let seen = is_allowed(&tables, host, direction, peer, &question);
                    prop_assert_eq!(seen, expected, "the tables: {}", question);
                }
            }
        }
    }
    Ok(())
}

fn tables_of(cluster: &Cluster, host: &HostEndpoint) -> CompiledTables {
    let ends = HostTraffic::ALL.map(|traffic| host.end(traffic).clone());
    let pods = cluster.pods.values().chain(&ends).map(Arc::as_ref).collect::<Vec<&Pod>>();
    compiler::compile(cluster, None, pods, [])
}

fn is_allowed(
    tables: &CompiledTables,
    host: &HostEndpoint,
    direction: Direction,
    peer: IpAddr,
    Question { protocol, port, to: _, from: _ }: &Question,
) -> bool {
    let named = |known: &Protocol| known.to_string() == *protocol;
    let protocol = Protocol::ALL.into_iter().find(named).expect("one with ports");
    let subject = tables.subjects[&host.local.name];
    let rule_set = match direction {
        Direction::Ingress => subject.ingress,
        Direction::Egress => subject.egress,
    };
    FailsafePorts::default().has(direction, protocol, *port)
        || Memory::new(tables).allowed(rule_set, peer, protocol, *port)
}

fn describe((objects, layout): &Sample) -> String {
    format!("read as {layout:?}\n{}", write(objects, Form::YamlDocuments))
}
