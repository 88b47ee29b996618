//! Which veths are evaluated: what a pod does to be taken for an uplink, and containers that are no pods.

use std::net::{Ipv6Addr, SocketAddrV6};

use anyhow::{Context, Result, ensure};
use nix::net::if_::if_nametoindex;
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};
use xtask::lab::{Agent, BRIEF, Lab, PATIENT, Place, Seen, until};

use super::{
    Test,
    live::knows_pods,
    policies::DENY_ALL,
    scene::{EVERY_KIND, apply, expect, serve_all},
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("a_router_advertisement_from_a_pod_does_not_free_it", advertised),
    ("a_container_that_is_no_pod_is_not_held_for_a_pod_that_came_later", container),
];

/// The node has learned a default route from the pod before the first agent comes, and learns another one
/// after.
fn advertised(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let pod = node.pod("x/closed").labels(&[("app", "closed")]).start()?;
    let outside = lab.outside("outside")?;
    apply(lab.manifests(), "close", DENY_ALL)?;
    let _servers = serve_all(&pod.place)?;
    let veth = &pod.host_interface;
    node.place.sysctls(&[(&format!("ipv6/conf/{veth}/accept_ra"), "2")])?;
    until("the node has a default route by the pod's veth", PATIENT, || {
        pod.place.run(advertise).context("sending a router advertisement")?;
        Ok(route_by(&node.place, veth)?.then_some(()))
    })?;
    expect(&outside.place, pod.addresses, &EVERY_KIND, Seen::Reached)?;
    let agent = Agent::start(&node, &[])?;
    pod.place.run(advertise)?;
    let endpoints = agent.ask(&["endpoints"])?;
    let known = |endpoint: &Value| {
        endpoint["pod"] == "x/closed"
            && endpoint["interface"] == veth.as_str()
            && endpoint["state"] == "identified"
    };
    ensure!(endpoints.as_array().is_some_and(|all| all.iter().any(known)), "{endpoints}");
    expect(&outside.place, pod.addresses, &EVERY_KIND, Seen::Blocked)
}

/// Whether the node has a default route that it learned from a router at this interface.
fn route_by(node: &Place, interface: &str) -> Result<bool> {
    let routes = node.command("ip").args(["-6", "route", "show", "default", "dev", interface]).output()?;
    Ok(String::from_utf8_lossy(&routes.stdout).contains("proto ra"))
}

/// RFC 4861 section 4.2: a router for half an hour, without options, to all nodes of the link.
fn advertise() -> std::io::Result<()> {
    const TYPE: u8 = 134;
    const LIFETIME: [u8; 2] = 1800_u16.to_be_bytes();
    let message = [TYPE, 0, 0, 0, 64, 0, LIFETIME[0], LIFETIME[1], 0, 0, 0, 0, 0, 0, 0, 0];
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.set_multicast_hops_v6(255)?;
    let interface = if_nametoindex("eth0")?;
    socket.set_multicast_if_v6(interface)?;
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    socket.send_to(&message, &SocketAddrV6::new(all_nodes, 0, 0, interface).into()).map(|_| ())
}

fn container(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let outside = lab.outside("outside")?;
    apply(lab.manifests(), "close", DENY_ALL)?;
    // As `docker run` makes it: the cluster never hears of it.
    let unlisted = |name: &str| -> Result<_> {
        let container = node.pod(name).plug()?;
        container.assign()?;
        let servers = serve_all(&container.place)?;
        Ok((container, servers))
    };
    let (older, _servers) = unlisted("none/older")?;
    let agent = Agent::start(&node, &[])?;
    let pending = node.pod("x/pending").labels(&[("app", "closed")]);
    pending.list_pending()?;
    knows_pods(&agent, 1)?;
    expect(&outside.place, older.addresses, &EVERY_KIND, Seen::Reached)?;
    // Nor by the next agent.
    agent.terminate()?;
    let agent = Agent::start(&node, &[])?;
    expect(&outside.place, older.addresses, &EVERY_KIND, Seen::Reached)?;

    // This one may be the pod's. It is reported, and free again as soon as the pod has its own veth.
    let (newer, _servers) = unlisted("none/newer")?;
    let is_pending = |count| move |status: &Value| status["endpoints"]["pending"] == count;
    agent.until("the agent sees the new veth", PATIENT, "status", is_pending(1))?;
    expect(&outside.place, newer.addresses, &EVERY_KIND, Seen::Blocked)?;
    let interface = &newer.host_interface;
    let says = |what: &str| {
        let logs = lab.logs();
        logs.lines().any(|line| line.contains("WARN") && line.contains(what) && line.contains(interface))
    };
    until("the hold is in the log", PATIENT, || Ok(says("x/pending").then_some(())))?;
    let pod = pending.plug()?;
    pod.assign()?;
    pod.list()?;
    agent.until("the container is free", PATIENT, "status", is_pending(0))?;
    expect(&outside.place, newer.addresses, &EVERY_KIND, Seen::Reached)?;
    let seen = outside.place.probe(pod.addresses.v4.into(), EVERY_KIND[0], BRIEF)?;
    ensure!(seen == Seen::Blocked, "the pod: {seen}");
    expect(&outside.place, older.addresses, &EVERY_KIND, Seen::Reached)
}
