//! kube-proxy's part on a node: where services lead, as nftables rules.
//!
//! In: the objects. Out: each place where a service answers with its endpoints, by the specification's
//! choice, and one table that translates and masquerades as kube-proxy does. In the place of chance the
//! client's port decides between the endpoints, so that each connection has one right answer. Left out:
//! session affinity.

use std::{fmt::Write, net::IpAddr};

use podgate_testkit::naive::{Destination, ResolvedEndpoint, backends, destinations};
use serde_json::Value;

use crate::cluster::{NODE_ADDRESSES, NODES, parsed};

/// A place where a service answers.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) at: Destination,
    pub(crate) backends: Vec<(IpAddr, u16)>,
    pub(crate) masquerade: Masquerade,
}

/// Whose address a node rewrites to its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Masquerade {
    All,
    AllButPods,
}

/// The networks of pods.
const PODS: [&str; 2] = ["10.0.0.0/15", "fd00::/64"];
/// kube-proxy's mark of what is to be masqueraded.
const MASQUERADE: &str = "0x4000";
/// How many bits of the client's port decide.
const TURNS: u16 = 16;

/// All that a node's clients may use.
pub(crate) fn ways(objects: &[Value], node: &str) -> Vec<Way> {
    let client = ResolvedEndpoint::Node(node.to_owned());
    let ways = destinations(objects, node).into_iter().map(|at| {
        let found = backends(objects, &client, &at).expect("a service answers there");
        let backends: Vec<_> = found.iter().map(|backend| (backend.address, backend.port)).collect();
        assert!(backends.len() <= usize::from(TURNS), "more endpoints than turns");
        let is_external = !is_cluster_address(objects, &at);
        let hides_pods = is_external && !keeps_clients(objects, &at);
        let masquerade = if hides_pods { Masquerade::All } else { Masquerade::AllButPods };
        Way { at, backends, masquerade }
    });
    ways.filter(|way| way.at.protocol != "SCTP").collect()
}

/// Which endpoint is whose turn.
pub(crate) fn turn(client_port: u16, backends: usize) -> usize {
    usize::from(client_port % TURNS) % backends.max(1)
}

/// The table, in the place of the one before.
pub(crate) fn table(ways: &[Way]) -> String {
    let (mut chains, mut dispatch) = (String::new(), String::new());
    for (number, way) in ways.iter().enumerate() {
        let Destination { address, protocol, port } = &way.at;
        let (protocol, family, pods) = match address {
            IpAddr::V4(_) => (protocol.to_lowercase(), "ip", PODS[0]),
            IpAddr::V6(_) => (protocol.to_lowercase(), "ip6", PODS[1]),
        };
        add(&mut dispatch, &format!("{family} daddr {address} {protocol} dport {port} goto way_{number}"));
        let clients = match way.masquerade {
            Masquerade::All => String::new(),
            Masquerade::AllButPods => format!("{family} saddr != {pods} "),
        };
        let mut rules = String::new();
        add(&mut rules, &format!("{clients}{}", mark()));
        if way.backends.is_empty() {
            add(&mut rules, "drop");
        } else {
            let turns = (0..TURNS)
                .map(|port| format!("{port} : goto way_{number}_{}", turn(port, way.backends.len())));
            let turns: Vec<_> = turns.collect();
            add(&mut rules, &format!("{protocol} sport & {} vmap {{ {} }}", TURNS - 1, turns.join(", ")));
        }
        for (place, (backend, port)) in way.backends.iter().enumerate() {
            let hairpin = format!("    {family} saddr {backend} {}\n", mark());
            let target = std::net::SocketAddr::new(*backend, *port);
            let lead = format!("    meta l4proto {protocol} dnat {family} to {target}\n");
            write!(chains, "  chain way_{number}_{place} {{\n{hairpin}{lead}  }}\n")
                .expect("writing to a string");
        }
        write!(chains, "  chain way_{number} {{\n{rules}  }}\n").expect("writing to a string");
    }
    format!(
        "table inet services {{}}\ndelete table inet services\ntable inet services {{\n{chains}\
         \x20 chain dispatch {{\n{dispatch}  }}\n\
         \x20 chain prerouting {{ type nat hook prerouting priority -100; jump dispatch; }}\n\
         \x20 chain output {{ type nat hook output priority -100; jump dispatch; }}\n\
         \x20 chain postrouting {{ type nat hook postrouting priority 100;\n    \
         meta mark and {MASQUERADE} == {MASQUERADE} meta mark set meta mark xor {MASQUERADE} masquerade fully-random\n  }}\n}}\n"
    )
}

fn add(text: &mut String, rule: &str) {
    writeln!(text, "    {rule}").expect("writing to a string");
}

fn mark() -> String {
    format!("meta mark set meta mark or {MASQUERADE}")
}

/// Whether a service answers there by its own address. Any other service that claims the address is passed
/// over, in whichever network the address lies.
fn is_cluster_address(objects: &[Value], at: &Destination) -> bool {
    objects.iter().filter(|object| object["kind"] == "Service").any(|service| {
        let spec = &service["spec"];
        let several = spec["clusterIPs"].as_array().into_iter().flatten();
        let is_own = several
            .chain([&spec["clusterIP"]])
            .filter_map(|address| address.as_str()?.parse::<IpAddr>().ok())
            .any(|address| address == at.address);
        let is_served = |port: &Value| {
            port["port"] == at.port && port["protocol"].as_str().unwrap_or("TCP") == at.protocol
        };
        is_own && spec["ports"].as_array().into_iter().flatten().any(is_served)
    })
}

/// `externalTrafficPolicy: Local`: the service that answers there is not to hide its clients.
fn keeps_clients(objects: &[Value], at: &Destination) -> bool {
    let is_node = (0..NODES.len()).any(|node| NODE_ADDRESSES[node].map(parsed).contains(&at.address));
    let names = |list: &Value, field: Option<&str>| {
        let entries = list.as_array().into_iter().flatten();
        let texts = entries.filter_map(|entry| field.map_or(entry, |field| &entry[field]).as_str());
        texts.map(parsed).any(|address| address == at.address)
    };
    objects.iter().filter(|object| object["kind"] == "Service").any(|service| {
        let answers = |port: &Value| port[if is_node { "nodePort" } else { "port" }] == at.port;
        let has_port = service["spec"]["ports"].as_array().into_iter().flatten().any(answers);
        let is_there = is_node
            || names(&service["spec"]["externalIPs"], None)
            || names(&service["status"]["loadBalancer"]["ingress"], Some("ip"));
        has_port && is_there && service["spec"]["externalTrafficPolicy"] == "Local"
    })
}
