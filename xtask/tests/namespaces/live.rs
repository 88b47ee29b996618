//! What happens while things change: connections that are open, pods that appear, veths that are replaced.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context, Result, ensure};
use nix::net::if_::if_nametoindex;
use xtask::lab::{Agent, BRIEF, Lab, PATIENT, Place, Pod, Seen, Traffic, until};

use super::{
    Test,
    scene::{EVERY_KIND, apply, becomes, expect, serve_all, together},
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("a_live_connection_survives_a_change_of_policy", connection_survives),
    ("a_new_pod_is_isolated_from_its_first_packet", new_pod),
    ("a_veth_that_is_there_before_its_pod_is_listed_is_isolated_from_its_first_packet", veth_first),
    ("a_replaced_veth_is_enforced_again", replaced_veth),
    ("a_spoofed_source_address_gets_nowhere", spoofed),
];

const CLOSE: &str = "  podSelector: {matchLabels: {app: closed}}\n  policyTypes: [Ingress]\n";

fn connection_survives(lab: &mut Lab) -> Result<()> {
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    let server = n1.pod("x/server").labels(&[("app", "closed")]).start()?;
    let clients = [n1.pod("x/local").start()?, n2.pod("x/remote").start()?];
    let _servers = serve_all(&server.place)?;
    let _agents = [Agent::start(&n1, &[])?, Agent::start(&n2, &[])?];

    let ends =
        clients.iter().flat_map(|client| server.addresses.both().map(|address| (&client.place, address)));
    let open =
        |(place, address): (&Place, _)| Ok((place.clone(), connect(place, SocketAddr::new(address, 7))?));
    let mut connections = ends.map(open).collect::<Result<Vec<_>>>()?;
    connections.iter_mut().try_for_each(|(place, stream)| say(place, stream, b"before"))?;

    apply(lab.manifests(), "close", CLOSE)?;
    for client in &clients {
        becomes(&client.place, server.addresses.v4.into(), Traffic::Tcp(7), Seen::Blocked)?;
        expect(&client.place, server.addresses, &EVERY_KIND, Seen::Blocked)?;
    }
    connections.iter_mut().try_for_each(|(place, stream)| say(place, stream, b"after"))
}

pub(crate) fn connect(place: &Place, to: SocketAddr) -> Result<TcpStream> {
    let stream = place
        .run(|| TcpStream::connect_timeout(&to, PATIENT))
        .with_context(|| format!("connecting to {to}"))?;
    stream.set_read_timeout(Some(PATIENT)).context("setting a time-out")?;
    Ok(stream)
}

/// Sends `words` to an echo server and waits for them.
pub(crate) fn say(place: &Place, stream: &mut TcpStream, words: &[u8]) -> Result<()> {
    let what = || format!("{} says {:?}", place.name(), String::from_utf8_lossy(words));
    stream.write_all(words).with_context(what)?;
    let mut heard = vec![0; words.len()];
    stream.read_exact(&mut heard).with_context(what)?;
    ensure!(heard == words, "{} hears {heard:?}", place.name());
    Ok(())
}

/// In the order of a real node: the API server knows the pod, the veth comes, gets its addresses, and the pod
/// starts to listen; its addresses are listed last. Somebody knocks all the time.
fn new_pod(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let (knocker, outside) = (node.pod("x/knocker").start()?, lab.outside("outside")?);
    apply(lab.manifests(), "close", CLOSE)?;
    let agent = Agent::start(&node, &[])?;

    let pending = node.pod("x/closed").labels(&[("app", "closed")]);
    pending.list_pending()?;
    until("the agent knows the pending pod", PATIENT, || Ok((pods(&agent)? == 2).then_some(())))?;
    let pod = pending.plug()?;
    let capture = pod.place.capture()?;
    let (knockers, over) = ([&knocker.place, &outside.place], AtomicBool::new(false));
    let seen = thread::scope(|scope| {
        let knocking = scope.spawn(|| together(&knockers, |from| knock(from, &pod, &over)));
        let started = start_step_by_step(&pod, &node.place);
        over.store(true, Ordering::Relaxed);
        let seen = knocking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        started.and(seen)
    })?;
    ensure!(seen.iter().all(|reached| !reached), "a knock was answered: {seen:?}");
    let sources = [knocker.addresses.both(), outside.addresses.both()].concat();
    let arrived = capture.from(&sources);
    ensure!(arrived.is_empty(), "{} packets reached the pod: {:?} …", arrived.len(), arrived[0]);
    Ok(())
}

/// How many pods the agent has read.
fn pods(agent: &Agent) -> Result<u64> {
    let status = agent.ask(&["status"])?;
    status["sources"][0]["objects"]["pods"]
        .as_u64()
        .with_context(|| format!("the number of pods in {status}"))
}

/// Gives the pod its addresses and servers, lists it, and ends when the node, as kubelet would, has found it
/// ready and everybody else has had time to knock.
fn start_step_by_step(pod: &Pod, node: &Place) -> Result<()> {
    pod.assign()?;
    let _servers = serve_all(&pod.place)?;
    pod.cache_cni_result()?;
    pod.list()?;
    expect(node, pod.addresses, &[Traffic::Http(80)], Seen::Reached)?;
    // One probe that is known to fail takes as long as a knocker needs for several.
    pod.place.probe("10.10.0.99".parse()?, Traffic::Udp(1), BRIEF).map(|_| ())
}

/// Knocks until it is over; says whether anything but silence came back.
fn knock(from: &Place, pod: &Pod, over: &AtomicBool) -> Result<bool> {
    let mut answered = false;
    while !over.load(Ordering::Relaxed) {
        for address in pod.addresses.both() {
            for kind in EVERY_KIND {
                let seen = from.probe(address, kind, BRIEF / 20)?;
                answered |= matches!(seen, Seen::Reached | Seen::Refused);
            }
        }
    }
    Ok(answered)
}

/// A veth without an owner is there first. Its pod is listed, addresses and all, before the veth has them.
fn veth_first(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let knocker = node.pod("x/knocker").start()?;
    apply(lab.manifests(), "close", CLOSE)?;
    let agent = Agent::start(&node, &[])?;
    let pod = node.pod("x/closed").labels(&[("app", "closed")]).plug()?;
    let capture = pod.place.capture()?;
    pod.list()?;
    until("the agent knows the listed pod", PATIENT, || Ok((pods(&agent)? == 2).then_some(())))?;

    pod.assign()?;
    let _servers = serve_all(&pod.place)?;
    expect(&knocker.place, pod.addresses, &EVERY_KIND, Seen::Blocked)?;
    expect(&node.place, pod.addresses, &EVERY_KIND, Seen::Reached)?;
    let arrived = capture.from(&knocker.addresses.both());
    ensure!(arrived.is_empty(), "{} packets reached the pod: {:?} …", arrived.len(), arrived[0]);
    Ok(())
}

fn replaced_veth(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let pod = node.pod("x/closed").labels(&[("app", "closed")]).start()?;
    let (free, knocker) = (node.pod("x/free").start()?, node.pod("x/knocker").start()?);
    let _servers = [serve_all(&pod.place)?, serve_all(&free.place)?];
    apply(lab.manifests(), "close", CLOSE)?;
    let agent = Agent::start(&node, &[])?;
    for _ in 0..3 {
        let capture = pod.place.capture()?;
        pod.rewire()?;
        free.rewire()?;
        has_seen(&agent, &pod)?;
        expect(&knocker.place, pod.addresses, &EVERY_KIND, Seen::Blocked)?;
        let arrived = capture.from(&knocker.addresses.both());
        ensure!(arrived.is_empty(), "{} packets reached the pod: {:?} …", arrived.len(), arrived[0]);
        expect(&knocker.place, free.addresses, &EVERY_KIND, Seen::Reached)?;
    }
    Ok(())
}

/// Waits until the agent has its programs at the pod's present veth. On a machine that is busy it can be some
/// time until it gets to read that the kernel has a new device.
fn has_seen(agent: &Agent, pod: &Pod) -> Result<()> {
    let ifindex = pod.node().place.run(|| if_nametoindex(pod.host_interface.as_str()))?;
    until("the agent has seen the new veth", PATIENT, || {
        let endpoints = agent.ask(&["endpoints"])?.to_string();
        Ok(endpoints.contains(&format!("\"ifindex\":{ifindex},")).then_some(()))
    })
}

/// A pod that takes over an allowed peer's address is not that peer.
fn spoofed(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let server = node.pod("x/server").labels(&[("app", "server")]).start()?;
    let client_allowed = node.pod("x/friend").labels(&[("role", "friend")]).start()?;
    let thief = node.pod("x/thief").start()?;
    let capture = server.place.capture()?;
    let _servers = serve_all(&server.place)?;
    apply(
        lab.manifests(),
        "friends",
        "  podSelector: {matchLabels: {app: server}}\n  ingress:\n  \
         - from: [{podSelector: {matchLabels: {role: friend}}}]\n",
    )?;
    let _agent = Agent::start(&node, &[])?;
    expect(&thief.place, server.addresses, &EVERY_KIND, Seen::Blocked)?;
    let stolen = client_allowed.addresses;
    thief.place.ip(&format!(
        "addr add {0}/32 dev eth0\naddr add {1}/128 dev eth0 nodad\n\
         route replace {2} via 169.254.1.1 dev eth0 src {0}\nroute replace {3} via fe80::1 dev eth0 src {1}",
        stolen.v4, stolen.v6, server.addresses.v4, server.addresses.v6
    ))?;
    expect(&thief.place, server.addresses, &EVERY_KIND, Seen::Blocked)?;
    let arrived = capture.from(&stolen.both());
    ensure!(arrived.is_empty(), "{} spoofed packets arrived: {:?} …", arrived.len(), arrived[0]);
    expect(&client_allowed.place, server.addresses, &EVERY_KIND, Seen::Reached)
}
