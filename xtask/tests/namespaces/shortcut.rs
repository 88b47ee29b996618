//! The short cut between pods of a node: what takes it, what it goes past, and how it ends.

use std::{
    fs,
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xtask::lab::{Agent, BRIEF, Lab, Node, PATIENT, Place, Pod, Seen, Service, Traffic, until};

use super::{Test, live::Live, policies::ingress, reported::metric, scene::apply, traces::packet};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("a_connection_between_pods_takes_the_short_cut_until_it_comes_through_the_node", there_and_back),
    ("what_is_at_an_interface_closes_the_short_cut_with_its_name", obstacles),
    ("connections_on_the_short_cut_leave_nothing_invalid_behind", churn),
    ("a_trace_shows_packets_that_took_the_short_cut_before", traced),
];

const SHORTCUT: &[&str] = &["--shortcut", "local"];
const SETTINGS: [(&str, &str); 2] =
    [("netfilter/nf_conntrack_tcp_loose", "1"), ("netfilter/nf_conntrack_tcp_be_liberal", "1")];

/// Connection tracking, as kube-proxy has it: what it finds invalid is dropped, and counted.
const TRACKED: &str = "
table inet shortcut {
    counter invalid { }
    counter forwarded { }
    chain forward {
        type filter hook forward priority filter;
        ct state invalid counter name invalid drop
        meta l4proto { tcp, udp } counter name forwarded
    }
}
";
const CUT: &str = "
table inet cut {
    chain forward {
        type filter hook forward priority filter; policy drop;
    }
}
";

struct Scene {
    node: Node,
    client: Pod,
    server: Pod,
    agent: Agent,
    _servers: Vec<xtask::lab::Server>,
}

fn scene(lab: &mut Lab) -> Result<Scene> {
    let node = lab.node("n1")?;
    let client = node.pod("x/client").labels(&[("role", "friend")]).start()?;
    let server = node.pod("x/server").labels(&[("app", "closed")]).start()?;
    let servers = vec![server.place.serve(Service::TcpEcho(7))?, server.place.serve(Service::UdpEcho(53))?];
    apply(
        lab.manifests(),
        "close",
        &ingress("closed", "from: [{podSelector: {matchLabels: {role: friend}}}]"),
    )?;
    node.place.nft(TRACKED)?;
    node.place.sysctls(&SETTINGS)?;
    let agent = Agent::start(&node, SHORTCUT)?;
    are_open(&agent, 2)?;
    Ok(Scene { node, client, server, agent, _servers: servers })
}

fn traced(lab: &mut Lab) -> Result<()> {
    let Scene { node, client, server, agent, _servers } = scene(lab)?;
    let mut live = Live::open(&client.place, server.addresses.v4.into())?;
    let before = taken(&agent)?;
    live.goes_on()?;
    ensure!(taken(&agent)? > before, "the connection takes the short cut");
    let from = ["--from", client.name(), "--port", "TCP/7"];
    let follower = node.follow(&[&["trace", "--pod", server.name()], &from[..]].concat())?;
    are_open(&agent, 1)?;
    for direction in ["ingress", "egress"] {
        live.goes_on()?;
        let is_shown = |text: &str| text.contains(&format!("{direction} of {}", server.name()));
        until(&format!("packets of {direction}"), PATIENT, || {
            let text = packet(&follower)?;
            Ok((is_shown(&text) && text.contains("established, passes")).then_some(()))
        })?;
    }
    drop(follower);
    are_open(&agent, 2)?;
    live.goes_on()
}

/// Waits until packets may take it at so many interfaces.
fn are_open(agent: &Agent, count: usize) -> Result<()> {
    let open = |endpoints: &Value| {
        let all = endpoints.as_array().map(Vec::as_slice).unwrap_or_default();
        all.iter().filter(|endpoint| endpoint["shortcut"]["open"] == true).count() == count
    };
    agent.until(&format!("the short cut is open at {count} interfaces"), PATIENT, "endpoints", open).map(drop)
}

fn taken(agent: &Agent) -> Result<u64> {
    metric(agent, "podgate_shortcut_packets_total")
}

/// The connections that connection tracking knows, in words.
fn tracked(place: &Place) -> Result<String> {
    place.run(|| fs::read_to_string("/proc/thread-self/net/nf_conntrack")).context("reading what is tracked")
}

/// What a counter of the node's rules says, in packets.
fn counted(place: &Place, name: &str) -> Result<u64> {
    let output = place.command("nft").args(["-j", "list", "counter", "inet", "shortcut", name]).output()?;
    let answer: Value = serde_json::from_slice(&output.stdout).context("nft answers in JSON")?;
    let counters = answer["nftables"].as_array().context("a list")?;
    counters.iter().find_map(|entry| entry["counter"]["packets"].as_u64()).context("a counter")
}

fn there_and_back(lab: &mut Lab) -> Result<()> {
    let Scene { node, client, server, agent, _servers } = scene(lab)?;
    let open = |to: IpAddr| Live::open(&client.place, to);
    let mut live = server.addresses.both().map(open).into_iter().collect::<Result<Vec<_>>>()?;
    let before = (taken(&agent)?, counted(&node.place, "forwarded")?);
    for _ in 0..10 {
        live.iter_mut().try_for_each(Live::goes_on)?;
    }
    let after = (taken(&agent)?, counted(&node.place, "forwarded")?);
    ensure!(after.0 >= before.0 + 40 && after.1 == before.1, "{before:?} {after:?}");

    // A rule that comes later sees new connections alone.
    node.place.nft(CUT)?;
    live.iter_mut().try_for_each(Live::goes_on)?;
    let new = client.place.probe(server.addresses.v4.into(), Traffic::Tcp(7), BRIEF)?;
    ensure!(new == Seen::Blocked, "a new connection: {new}");
    node.place.nft("delete table inet cut")?;

    // A setting closes it, and all go on through the node, also when it is open again: connection tracking
    // knows them now, and must see how they end.
    node.place.sysctls(&[("netfilter/nf_conntrack_tcp_be_liberal", "0")])?;
    are_open(&agent, 0)?;
    node.place.sysctls(&SETTINGS)?;
    let before = counted(&node.place, "forwarded")?;
    live.iter_mut().try_for_each(Live::goes_on)?;
    let between = counted(&node.place, "forwarded")?;
    ensure!(between > before, "none came through the node");
    are_open(&agent, 2)?;
    live.iter_mut().try_for_each(Live::goes_on)?;
    ensure!(counted(&node.place, "forwarded")? > between, "they took it again");
    drop(live);
    until("connection tracking has seen their ends", PATIENT, || {
        Ok((!tracked(&node.place)?.contains("ESTABLISHED")).then_some(()))
    })?;

    let mut live = server.addresses.both().map(open).into_iter().collect::<Result<Vec<_>>>()?;
    let before = taken(&agent)?;
    live.iter_mut().try_for_each(Live::goes_on)?;
    ensure!(taken(&agent)? > before, "new ones take it");
    // Without an agent it ends within seconds, and the connections do not.
    let before = counted(&node.place, "forwarded")?;
    agent.kill()?;
    until("packets come through the node again", PATIENT, || {
        live.iter_mut().try_for_each(Live::goes_on)?;
        Ok((counted(&node.place, "forwarded")? > before).then_some(()))
    })?;
    live.iter_mut().try_for_each(Live::goes_on)?;
    ensure!(counted(&node.place, "invalid")? == 0, "connection tracking took packets for invalid");
    Ok(())
}

fn obstacles(lab: &mut Lab) -> Result<()> {
    let Scene { node, client, server, agent, _servers } = scene(lab)?;
    let mut live = Live::open(&client.place, server.addresses.v4.into())?;
    let says = |what: &str| {
        let named = |endpoints: &Value| endpoints.to_string().contains(what);
        agent.until(&format!("the reason: {what}"), PATIENT, "endpoints", named).map(drop)
    };
    let veth = &server.host_interface;
    // A queue that shapes what the pod gets.
    let tbf =
        ["qdisc", "add", "dev", veth, "root", "tbf", "rate", "80mbit", "burst", "64kb", "latency", "50ms"];
    node.place.feed(&[&["tc"], &tbf[..]].concat(), "")?;
    says("queueing discipline tbf")?;
    live.goes_on()?;
    node.place.feed(&["tc", "qdisc", "del", "dev", veth, "root"], "")?;
    are_open(&agent, 2)?;
    // Filters.
    node.place.feed(&["tc", "qdisc", "add", "dev", veth, "clsact"], "")?;
    says("queueing discipline clsact")?;
    live.goes_on()?;
    node.place.feed(&["tc", "qdisc", "del", "dev", veth, "clsact"], "")?;
    are_open(&agent, 2)?;
    // A chain at the device itself, of both families that have them.
    let chain = format!("type filter hook ingress device \"{veth}\" priority 0;");
    for family in ["netdev", "inet"] {
        node.place.nft(&format!("table {family} own {{\n chain early {{\n {chain}\n }}\n}}\n"))?;
        says("the chain early of nf_tables")?;
        live.goes_on()?;
        node.place.nft(&format!("delete table {family} own"))?;
        are_open(&agent, 2)?;
    }
    live.goes_on()
}

/// Opens, uses and closes connections as fast as it can, from few ports.
fn churn(lab: &mut Lab) -> Result<()> {
    let Scene { node, client, server, agent, _servers } = scene(lab)?;
    let end = Instant::now() + Duration::from_secs(3);
    let mut opened = 0;
    while Instant::now() < end {
        for to in server.addresses.both() {
            Live::open(&client.place, to)?;
            opened += 1;
        }
    }
    ensure!(opened > 50 && taken(&agent)? > 2 * opened, "{opened} opened");
    // The last ones close.
    thread::sleep(BRIEF);
    ensure!(counted(&node.place, "invalid")? == 0, "connection tracking took packets for invalid");
    Ok(())
}
