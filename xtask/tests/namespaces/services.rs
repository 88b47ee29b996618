//! Services: a pod sends to an address that the node translates, and FORWARD's view of it is what counts.

use std::{
    io::ErrorKind,
    net::{IpAddr, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use xtask::lab::{
    Addresses, Agent, BRIEF, ClusterService, Lab, Node, PATIENT, Place, Pod, PodNetworkMode, Seen, Service,
    Traffic, unspecified, until,
};

use super::{
    Test,
    policies::{self, DENY_ALL_OF_ALL, blocks, pods},
    scene::{apply, becomes, expect, together},
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("egress_to_a_service_is_evaluated_by_the_backend_routed", |lab| {
        egress(lab, PodNetworkMode::Routed, false)
    }),
    ("egress_to_a_service_is_evaluated_by_the_backend_bridged", |lab| {
        egress(lab, PodNetworkMode::Bridge, false)
    }),
    ("egress_is_evaluated_by_the_backend_when_everything_is_masqueraded", |lab| {
        egress(lab, PodNetworkMode::Routed, true)
    }),
    ("the_backend_sees_the_client_behind_the_service_routed", |lab| ingress(lab, PodNetworkMode::Routed)),
    ("the_backend_sees_the_client_behind_the_service_bridged", |lab| ingress(lab, PodNetworkMode::Bridge)),
    ("a_client_behind_a_node_port_is_evaluated_by_its_own_address", node_port),
    ("masqueraded_clients_are_let_in_when_that_is_wanted", masqueraded_allowed),
    ("a_pod_reaches_itself_through_its_service_routed", |lab| hairpin(lab, PodNetworkMode::Routed)),
    ("a_pod_reaches_itself_through_its_service_bridged", |lab| hairpin(lab, PodNetworkMode::Bridge)),
    ("the_node_and_services_meet_as_they_should", own_node),
    ("a_port_of_another_node_is_that_node", other_node),
    ("a_datagram_led_to_another_backend_is_evaluated_again", other_backend),
];

pub(crate) const PORT: u16 = 8080;
pub(crate) const NODE_PORT: u16 = 30_080;
pub(crate) const WEB: Traffic = Traffic::Http(80);

/// A pod in namespace `x` with the label `app`, which serves HTTP.
pub(crate) fn server(node: &Node, name: &str, app: &str) -> Result<(Pod, xtask::lab::Server)> {
    let pod = node.pod(&format!("x/{name}")).labels(&[("app", app)]).start()?;
    let server = pod.place.serve(Service::Http(PORT))?;
    Ok((pod, server))
}

pub(crate) fn allow_egress_to(app: &str) -> String {
    policies::egress("client", &format!("to: {}\n    ports: [{{port: {PORT}}}]", pods(app)))
}

/// How many of some connections get through; each asks the next backend.
pub(crate) fn count(from: &Place, to: IpAddr, traffic: Traffic, times: usize) -> Result<usize> {
    let seen = together(&vec![(); times], |()| from.probe(to, traffic, BRIEF))?;
    ensure!(
        seen.iter().all(|seen| [Seen::Reached, Seen::Blocked].contains(seen)),
        "{} to {to}: {seen:?}, only silence may say no",
        from.name()
    );
    Ok(seen.into_iter().filter(|seen| *seen == Seen::Reached).count())
}

/// Backends on the client's node and elsewhere, allowed and not, alone and mixed.
fn egress(lab: &mut Lab, wiring: PodNetworkMode, masquerade_all: bool) -> Result<()> {
    let (n1, n2) = (lab.wired_node("n1", wiring)?, lab.wired_node("n2", wiring)?);
    let client = n1.pod("x/client").labels(&[("app", "client")]).start()?;
    let (good, _good) = server(&n1, "good", "good")?;
    let (bad, _bad) = server(&n1, "bad", "bad")?;
    let (far_good, _far_good) = server(&n2, "far-good", "good")?;
    let (far_bad, _far_bad) = server(&n2, "far-bad", "bad")?;
    let service = |name: &str, number, backends: &[(&Pod, u16)]| -> Result<ClusterService> {
        let service = ClusterService::new(&format!("x/{name}"), number, "TCP", 80);
        let service = if masquerade_all { service.masquerade_all() } else { service };
        let service = backends.iter().fold(service, |service, (pod, port)| service.to(pod, *port));
        service.apply(&[&n1, &n2]).map(|()| service)
    };
    // (service, connections of 8 that get through)
    let table = [
        (service("good", 1, &[(&good, PORT)])?, 8),
        (service("bad", 2, &[(&bad, PORT)])?, 0),
        (service("far-good", 3, &[(&far_good, PORT)])?, 8),
        (service("far-bad", 4, &[(&far_bad, PORT)])?, 0),
        (service("mixed", 5, &[(&good, PORT), (&bad, PORT)])?, 4),
        (service("far-mixed", 6, &[(&far_good, PORT), (&far_bad, PORT)])?, 4),
        (service("all", 7, &[(&good, PORT), (&bad, PORT), (&far_good, PORT), (&far_bad, PORT)])?, 4),
    ];
    let _agents = [Agent::start(&n1, &[])?, Agent::start(&n2, &[])?];
    for (service, _) in &table {
        expect(&client.place, service.addresses(), &[WEB], Seen::Reached)?;
    }
    apply(lab.manifests(), "egress", &allow_egress_to("good"))?;
    let [_, (refused, _), ..] = &table;
    becomes(&client.place, refused.addresses().v4.into(), WEB, Seen::Blocked)?;
    for (service, expected) in &table {
        for address in service.addresses().both() {
            let reached = count(&client.place, address, WEB, 8)?;
            ensure!(
                reached == *expected,
                "{service:?} at {address}: {reached} of 8 got through, not {expected}"
            );
        }
    }
    Ok(())
}

/// The server's policy names the client, and the client comes through a service: on its node, from another
/// one, and with its address rewritten.
fn ingress(lab: &mut Lab, wiring: PodNetworkMode) -> Result<()> {
    let (n1, n2) = (lab.wired_node("n1", wiring)?, lab.wired_node("n2", wiring)?);
    let (web, _server) = server(&n1, "web", "web")?;
    let clients = |node: &Node| -> Result<_> {
        let name = |kind: &str| format!("x/{kind}-{}", node.name());
        let client_allowed = node.pod(&name("friend")).labels(&[("app", "friend")]).start()?;
        Ok((client_allowed, node.pod(&name("stranger")).start()?))
    };
    let (near, far) = (clients(&n1)?, clients(&n2)?);
    let plain = ClusterService::new("x/plain", 1, "TCP", 80).to(&web, PORT);
    let rewriting = ClusterService::new("x/rewriting", 2, "TCP", 80).masquerade_all().to(&web, PORT);
    plain.apply(&[&n1, &n2])?;
    rewriting.apply(&[&n1, &n2])?;
    let from_friends = format!("from: {}\n    ports: [{{port: {PORT}}}]", pods("friend"));
    apply(lab.manifests(), "ingress", &policies::ingress("web", &from_friends))?;
    let _agents = [Agent::start(&n1, &[])?, Agent::start(&n2, &[])?];
    for (client_allowed, client_denied) in [&near, &far] {
        expect(&client_allowed.place, plain.addresses(), &[WEB], Seen::Reached)?;
        expect(&client_denied.place, plain.addresses(), &[WEB], Seen::Blocked)?;
    }
    expect(&near.0.place, rewriting.addresses(), &[WEB], Seen::Reached)?;
    expect(&near.1.place, rewriting.addresses(), &[WEB], Seen::Blocked)
}

fn from(addresses: Addresses) -> String {
    policies::ingress("web", &format!("from: {}", blocks(addresses)))
}

const CLOSED: &str = "  podSelector: {matchLabels: {app: web}}\n  policyTypes: [Ingress]\n";

/// Leads to a pod from two ports of its node: [`NODE_PORT`] masquerades, the next one preserves the client's
/// address.
fn open_node_ports(web: &Pod) -> Result<()> {
    let node = web.node();
    let service = |name, number, port| {
        let service = ClusterService::new(name, number, "TCP", 80);
        service.node_port(port).to(web, PORT)
    };
    service("x/masqueraded", 1, NODE_PORT).apply(&[node])?;
    service("x/preserved", 2, NODE_PORT + 1).local_traffic().apply(&[node])
}

/// Clients outside come through node ports, masqueraded or not.
fn node_port(lab: &mut Lab) -> Result<()> {
    let n1 = lab.node("n1")?;
    let (named, other) = (lab.outside("named")?, lab.outside("other")?);
    let (web, _server) = server(&n1, "web", "web")?;
    open_node_ports(&web)?;
    let _agent = Agent::start(&n1, &[])?;
    let kinds = [Traffic::Http(NODE_PORT), Traffic::Http(NODE_PORT + 1)];
    expect(&named.place, n1.addresses, &kinds, Seen::Reached)?;
    expect(&other.place, n1.addresses, &kinds, Seen::Reached)?;
    apply(lab.manifests(), "ingress", CLOSED)?;
    becomes(&named.place, n1.addresses.v4.into(), kinds[0], Seen::Blocked)?;
    expect(&named.place, n1.addresses, &kinds, Seen::Blocked)?;
    expect(&other.place, n1.addresses, &kinds, Seen::Blocked)?;
    apply(lab.manifests(), "ingress", &from(named.addresses))?;
    becomes(&named.place, n1.addresses.v4.into(), kinds[0], Seen::Reached)?;
    expect(&named.place, n1.addresses, &kinds, Seen::Reached)?;
    expect(&other.place, n1.addresses, &kinds, Seen::Blocked)?;
    // The node itself, through its own port.
    expect(&n1.place, n1.addresses, &[Traffic::Http(NODE_PORT)], Seen::Reached)
}

/// `--masqueraded-ingress allow`, for who comes from Azure NPM.
fn masqueraded_allowed(lab: &mut Lab) -> Result<()> {
    let n1 = lab.node("n1")?;
    let outside = lab.outside("outside")?;
    let (web, _server) = server(&n1, "web", "web")?;
    open_node_ports(&web)?;
    apply(lab.manifests(), "ingress", CLOSED)?;
    let _agent = Agent::start(&n1, &["--masqueraded-ingress", "allow"])?;
    expect(&outside.place, n1.addresses, &[Traffic::Http(NODE_PORT)], Seen::Reached)?;
    expect(&outside.place, n1.addresses, &[Traffic::Http(NODE_PORT + 1)], Seen::Blocked)?;
    expect(&outside.place, web.addresses, &[Traffic::Http(PORT)], Seen::Blocked)
}

/// A pod that is isolated both ways, behind a service of its own.
fn hairpin(lab: &mut Lab, wiring: PodNetworkMode) -> Result<()> {
    let n1 = lab.wired_node("n1", wiring)?;
    let (web, _server) = server(&n1, "web", "web")?;
    let (twin, _twin) = server(&n1, "twin", "web")?;
    let alone = ClusterService::new("x/alone", 1, "TCP", 80).to(&web, PORT);
    let both = ClusterService::new("x/both", 2, "TCP", 80).to(&web, PORT).to(&twin, PORT);
    alone.apply(&[&n1])?;
    both.apply(&[&n1])?;
    apply(lab.manifests(), "closed", DENY_ALL_OF_ALL)?;
    let _agent = Agent::start(&n1, &[])?;
    expect(&web.place, alone.addresses(), &[WEB], Seen::Reached)?;
    expect(&twin.place, alone.addresses(), &[WEB], Seen::Blocked)?;
    for address in both.addresses().both() {
        let reached = count(&web.place, address, WEB, 8)?;
        ensure!(reached == 4, "{address}: {reached} of 8 reached the pod itself, not 4");
    }
    Ok(())
}

/// The node reaches its pods through services, and pods reach the node's own servers through services.
fn own_node(lab: &mut Lab) -> Result<()> {
    let n1 = lab.node("n1")?;
    let (web, _server) = server(&n1, "web", "client")?;
    let _node_server = n1.place.serve(Service::Http(6443))?;
    let to_pod = ClusterService::new("x/web", 1, "TCP", 80).node_port(NODE_PORT).to(&web, PORT);
    let to_node = ClusterService::new("x/apiserver", 2, "TCP", 80).backend(n1.addresses, 6443, None);
    to_pod.apply(&[&n1])?;
    to_node.apply(&[&n1])?;
    apply(lab.manifests(), "closed", DENY_ALL_OF_ALL)?;
    let _agent = Agent::start(&n1, &[])?;
    expect(&n1.place, to_pod.addresses(), &[WEB], Seen::Reached)?;
    expect(&n1.place, n1.addresses, &[Traffic::Http(NODE_PORT)], Seen::Reached)?;
    expect(&web.place, to_node.addresses(), &[WEB], Seen::Reached)?;
    // A node port is its backend, not the node.
    let client_denied = n1.pod("x/stranger").start()?;
    becomes(&client_denied.place, n1.addresses.v4.into(), Traffic::Http(6443), Seen::Reached)?;
    expect(&client_denied.place, n1.addresses, &[Traffic::Http(NODE_PORT)], Seen::Blocked)
}

/// What comes through a port of another node comes from that node, and what goes there goes to that node.
fn other_node(lab: &mut Lab) -> Result<()> {
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    let outside = lab.outside("outside")?;
    let (web, _server) = server(&n2, "web", "web")?;
    let client = n1.pod("x/client").labels(&[("app", "client")]).start()?;
    let service = ClusterService::new("x/web", 1, "TCP", 80).node_port(NODE_PORT).to(&web, PORT);
    service.apply(&[&n1, &n2])?;
    let _agents = [Agent::start(&n1, &[])?, Agent::start(&n2, &[])?];
    let v4 = n1.addresses.v4;
    apply(lab.manifests(), "ingress", CLOSED)?;
    becomes(&outside.place, v4.into(), Traffic::Http(NODE_PORT), Seen::Blocked)?;
    expect(&outside.place, n1.addresses, &[Traffic::Http(NODE_PORT)], Seen::Blocked)?;
    apply(lab.manifests(), "ingress", &from(n1.addresses))?;
    becomes(&outside.place, v4.into(), Traffic::Http(NODE_PORT), Seen::Reached)?;
    expect(&outside.place, n1.addresses, &[Traffic::Http(NODE_PORT)], Seen::Reached)?;

    // The client's egress sees the other node's address: a port of it is no service here.
    lab.manifests().remove("policy-ingress.yaml")?;
    apply(lab.manifests(), "egress", &allow_egress_to("web"))?;
    becomes(&client.place, service.addresses().v4.into(), WEB, Seen::Reached)?;
    let seen = client.place.probe(n2.addresses.v4.into(), Traffic::Http(NODE_PORT), BRIEF)?;
    ensure!(seen == Seen::Blocked, "n2's node port: {seen}");
    let Addresses { v4, v6 } = n2.addresses;
    let to_n2 = format!("to: {}", blocks(n2.addresses));
    apply(lab.manifests(), "egress", &policies::egress("client", &to_n2))?;
    becomes(&client.place, v4.into(), Traffic::Http(NODE_PORT), Seen::Reached)?;
    let seen = client.place.probe(v6.into(), Traffic::Http(NODE_PORT), PATIENT)?;
    ensure!(seen == Seen::Reached, "n2's node port: {seen}");
    Ok(())
}

/// A service gets other backends while a pod goes on sending from one socket: the node leads its datagrams to
/// one that the pod must not reach, on an entry at its veth that is alive.
fn other_backend(lab: &mut Lab) -> Result<()> {
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    let client = n1.pod("x/client").labels(&[("app", "client")]).start()?;
    let free = n1.pod("x/free").start()?;
    let [good, bad] = ["good", "bad"].map(|app| n2.pod(&format!("x/{app}")).labels(&[("app", app)]));
    let (good, bad) = (good.start()?, bad.start()?);
    let _servers = [good.place.serve(Service::UdpEcho(PORT))?, bad.place.serve(Service::UdpEcho(PORT))?];
    let lead_to = |backend: &Pod| {
        let service = ClusterService::new("x/echo", 1, "UDP", 80).to(backend, PORT);
        service.apply(&[&n1, &n2]).map(|()| service.addresses())
    };
    let service = lead_to(&good)?;
    // The node forgets a translation after a second of silence; podgate keeps its entry for longer.
    n1.place.sysctls(&[
        ("netfilter/nf_conntrack_udp_timeout", "1"),
        ("netfilter/nf_conntrack_udp_timeout_stream", "1"),
    ])?;
    let to_good = format!("to: {}\n    ports: [{{port: {PORT}, protocol: UDP}}]", pods("good"));
    apply(lab.manifests(), "egress", &policies::egress("client", &to_good))?;
    let agents = [Agent::start(&n1, &[])?, Agent::start(&n2, &[])?];
    for to in service.both() {
        let [of_client, of_free] = [&client, &free].map(|pod| pod.place.run(|| connected(to)));
        let (of_client, of_free) = (of_client?, of_free?);
        ensure!(answered(&of_client)? && answered(&of_free)?, "{to}: the first backend answers both");
        let capture = bad.place.capture()?;
        lead_to(&bad)?;
        until("the node leads the free pod to the other backend", PATIENT * 4, || {
            answered(&of_client)?;
            let led = answered(&of_free)? && !capture.from(&free.addresses.both()).is_empty();
            // Longer than the node remembers.
            thread::park_timeout(Duration::from_millis(2_200));
            Ok(led.then_some(()))
        })?;
        for _ in 0..3 {
            answered(&of_client)?;
        }
        capture.nothing_from(&client.addresses.both())?;
        lead_to(&good)?;
    }
    let counters = agents[0].page("/metrics")?;
    let none = "podgate_packets_total{direction=\"egress\",outcome=\"denied-backend\"} 0";
    ensure!(!counters.contains(none), "the node has led nothing of the isolated pod's to the other backend");
    Ok(())
}

fn connected(to: IpAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((unspecified(to), 0))?;
    socket.connect((to, 80))?;
    socket.set_read_timeout(Some(BRIEF))?;
    Ok(socket)
}

/// Sends one datagram; whether it comes back.
fn answered(socket: &UdpSocket) -> Result<bool> {
    socket.send(b"who is there?")?;
    match socket.recv(&mut [0; 64]) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
