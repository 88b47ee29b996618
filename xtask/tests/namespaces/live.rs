//! What happens while things change: connections that are open, pods that appear, veths that are replaced.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::net::if_::if_nametoindex;
use serde_json::Value;
use xtask::lab::{Addresses, Agent, BRIEF, Lab, PATIENT, Place, Pod, Seen, Traffic, join};

use super::{
    Test,
    policies::{DENY_INGRESS, ingress},
    scene::{EVERY_KIND, apply, becomes, expect, serve_all, together},
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("a_live_connection_survives_a_change_of_policy", connection_survives),
    ("a_new_pod_is_isolated_from_its_first_packet", new_pod),
    ("a_veth_that_is_there_before_its_pod_is_listed_is_isolated_once_it_has_its_addresses", veth_first),
    ("a_replaced_veth_is_enforced_again", replaced_veth),
    ("a_spoofed_source_address_gets_nowhere", spoofed),
];

fn connection_survives(lab: &mut Lab) -> Result<()> {
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    let server = n1.pod("x/server").labels(&[("app", "closed")]).start()?;
    let clients = [n1.pod("x/local").start()?, n2.pod("x/remote").start()?];
    let _servers = serve_all(&server.place)?;
    let _agents = [Agent::start(&n1, &[])?, Agent::start(&n2, &[])?];

    let open = |client: &Pod| server.addresses.both().map(|to| Live::open(&client.place, to));
    let mut connections = clients.iter().flat_map(open).collect::<Result<Vec<_>>>()?;

    apply(lab.manifests(), "close", DENY_INGRESS)?;
    for client in &clients {
        becomes(&client.place, server.addresses.v4.into(), Traffic::Tcp(7), Seen::Blocked)?;
        expect(&client.place, server.addresses, &EVERY_KIND, Seen::Blocked)?;
    }
    connections.iter_mut().try_for_each(Live::goes_on)
}

/// A connection to a TCP echo.
pub(crate) struct Live {
    what: String,
    stream: TcpStream,
}

impl Live {
    /// Words have gone both ways when it returns.
    pub(crate) fn open(from: &Place, to: IpAddr) -> Result<Self> {
        let what = format!("a connection from {} to {to}", from.name());
        let stream = from.run(|| TcpStream::connect_timeout(&SocketAddr::new(to, 7), PATIENT));
        let mut live = Self { stream: stream.with_context(|| what.clone())?, what };
        live.goes_on()?;
        Ok(live)
    }

    /// Fails unless words come back.
    pub(crate) fn goes_on(&mut self) -> Result<()> {
        self.goes_on_within(PATIENT)
    }

    pub(crate) fn goes_on_within(&mut self, patience: Duration) -> Result<()> {
        let mut heard = [0; WORDS.len()];
        let echo = self.stream.set_read_timeout(Some(patience));
        let echo = echo.and_then(|()| self.stream.write_all(WORDS));
        echo.and_then(|()| self.stream.read_exact(&mut heard)).with_context(|| self.what.clone())?;
        ensure!(heard == *WORDS, "{} hears {heard:?}", self.what);
        Ok(())
    }
}

const WORDS: &[u8; 12] = b"still there?";

/// In the order of a real node: the API server knows the pod, the veth comes, gets its addresses, and the pod
/// starts to listen; its addresses are listed last. Somebody knocks all the time.
fn new_pod(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let (knocker, outside) = (node.pod("x/knocker").start()?, lab.outside("outside")?);
    apply(lab.manifests(), "close", DENY_INGRESS)?;
    let agent = Agent::start(&node, &[])?;

    let pending = node.pod("x/closed").labels(&[("app", "closed")]);
    pending.list_pending()?;
    knows_pods(&agent, 2)?;
    let pod = pending.plug()?;
    let capture = pod.place.capture()?;
    let (knockers, over) = ([&knocker.place, &outside.place], AtomicBool::new(false));
    let seen = thread::scope(|scope| {
        let knocking = scope.spawn(|| together(&knockers, |from| knock(from, &pod, &over)));
        let started = start_step_by_step(&pod, &node.place);
        over.store(true, Ordering::Relaxed);
        started.and(join(knocking))
    })?;
    ensure!(seen.iter().all(|reached| !reached), "a knock was answered: {seen:?}");
    capture.nothing_from(&[knocker.addresses.both(), outside.addresses.both()].concat())
}

/// Waits until the agent has read that there are so many pods.
pub(crate) fn knows_pods(agent: &Agent, count: u64) -> Result<()> {
    let has_all = |status: &Value| status["sources"][0]["objects"]["pods"] == count;
    agent.until(&format!("the agent knows {count} pods"), PATIENT, "status", has_all).map(drop)
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

/// A veth without an owner is there first, which is not held for a pod that nothing was known of. The pod is
/// listed, addresses and all, before the veth has them; from then on it is a moment until it is known whose
/// the veth is. Without that moment: the CNI plugin.
fn veth_first(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let knocker = node.pod("x/knocker").start()?;
    apply(lab.manifests(), "close", DENY_INGRESS)?;
    let agent = Agent::start(&node, &[])?;
    let pod = node.pod("x/closed").labels(&[("app", "closed")]).plug()?;
    let capture = pod.place.capture()?;
    pod.list()?;
    knows_pods(&agent, 2)?;

    pod.assign()?;
    let _servers = serve_all(&pod.place)?;
    has_found(&agent, &pod)?;
    expect(&knocker.place, pod.addresses, &EVERY_KIND, Seen::Blocked)?;
    expect(&node.place, pod.addresses, &EVERY_KIND, Seen::Reached)?;
    capture.nothing_from(&knocker.addresses.both())
}

fn replaced_veth(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let pod = node.pod("x/closed").labels(&[("app", "closed")]).start()?;
    let (free, knocker) = (node.pod("x/free").start()?, node.pod("x/knocker").start()?);
    let _servers = [serve_all(&pod.place)?, serve_all(&free.place)?];
    apply(lab.manifests(), "close", DENY_INGRESS)?;
    let agent = Agent::start(&node, &[])?;
    for _ in 0..3 {
        let capture = pod.place.capture()?;
        pod.rewire()?;
        free.rewire()?;
        has_found(&agent, &pod)?;
        expect(&knocker.place, pod.addresses, &EVERY_KIND, Seen::Blocked)?;
        capture.nothing_from(&knocker.addresses.both())?;
        expect(&knocker.place, free.addresses, &EVERY_KIND, Seen::Reached)?;
    }
    Ok(())
}

/// Waits until the agent has found out that the pod is behind its present veth. On a machine that is busy it
/// can be some time until it gets to read that the kernel has a new device.
fn has_found(agent: &Agent, pod: &Pod) -> Result<()> {
    let ifindex = pod.node().place.run(|| if_nametoindex(pod.host_interface.as_str()))?;
    agent
        .until("the agent has found the pod's veth", PATIENT, "endpoints", |endpoints| {
            let mut rows = endpoints.as_array().into_iter().flatten();
            rows.any(|row| row["ifindex"] == ifindex && row["pod"] == pod.name())
        })
        .map(drop)
}

/// A pod that takes over an allowed peer's address is not that peer.
fn spoofed(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let server = node.pod("x/server").labels(&[("app", "server")]).start()?;
    let client_allowed = node.pod("x/friend").labels(&[("role", "friend")]).start()?;
    let thief = node.pod("x/thief").start()?;
    let capture = server.place.capture()?;
    let _servers = serve_all(&server.place)?;
    let from_friends = "from: [{podSelector: {matchLabels: {role: friend}}}]";
    apply(lab.manifests(), "friends", &ingress("server", from_friends))?;
    let _agent = Agent::start(&node, &[])?;
    expect(&thief.place, server.addresses, &EVERY_KIND, Seen::Blocked)?;
    let stolen = client_allowed.addresses;
    let Addresses { v4, v6 } = server.addresses;
    thief.place.ip(&format!(
        "{}route replace {v4} via 169.254.1.1 dev eth0 src {}\nroute replace {v6} via fe80::1 dev eth0 src {}",
        stolen.on("eth0"),
        stolen.v4,
        stolen.v6
    ))?;
    expect(&thief.place, server.addresses, &EVERY_KIND, Seen::Blocked)?;
    capture.nothing_from(&stolen.both())?;
    expect(&client_allowed.place, server.addresses, &EVERY_KIND, Seen::Reached)
}
