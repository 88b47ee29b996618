//! Ways that packets take besides the plain ones: rewritten by the node, not tracked, out by another device,
//! too large for a link, around inside the pod.

use std::{
    fs::File,
    io::{Read, Write, copy},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    process::Stdio,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use xtask::lab::{Addresses, Agent, ClusterService, Lab, Node, PATIENT, Place, Seen, Service, Traffic};

use super::{
    Test,
    scene::{EVERY_KIND, apply, becomes, expect, serve_all},
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("addresses_that_are_rewritten_on_the_way_out_do_not_count", rewritten),
    ("a_host_port_is_evaluated_as_the_port_of_its_pod", host_port),
    ("a_service_whose_address_is_on_the_node_is_not_the_node", service_on_node),
    // NodeLocal DNSCache tells netfilter not to track what goes to it; here nothing is tracked at all.
    ("what_the_kernel_does_not_track_is_evaluated_all_the_same", |lab| tracked_by(lab, "notrack")),
    ("what_the_kernel_tracks_in_a_zone_of_its_own_is_evaluated_all_the_same", |lab| {
        tracked_by(lab, "ct zone set 7")
    }),
    ("an_address_that_the_node_gets_later_is_its_own", new_address),
    ("a_way_out_of_the_node_that_appears_later_is_evaluated_too", |lab| {
        new_device(lab, |node| node.addresses.v4.into())
    }),
    ("a_way_out_of_the_node_that_appears_later_is_evaluated_too_over_ipv6", |lab| {
        new_device(lab, |node| node.addresses.v6.into())
    }),
    ("a_pod_reaches_itself_whatever_isolates_it", itself),
    ("a_pod_whose_object_is_gone_stays_isolated_while_its_veth_is_there", unlisted),
    ("a_smaller_mtu_on_the_way_is_found_out_by_an_isolated_pod", small_mtu),
    ("large_transfers_pass_or_fail_as_a_whole", large),
];

const DENY_ALL: &str = "  podSelector: {matchLabels: {app: closed}}\n  policyTypes: [Ingress, Egress]\n";

/// Loads an nftables script in a place.
fn nft(place: &Place, script: &str) -> Result<()> {
    let mut nft = place.command("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn()?;
    nft.stdin.take().context("stdin is piped")?.write_all(script.as_bytes())?;
    let status = nft.wait().context("running nft (package nftables)")?;
    ensure!(status.success(), "nft: {status}\n{script}");
    Ok(())
}

/// `ipBlock` peers for both addresses.
fn blocks(Addresses { v4, v6 }: Addresses) -> String {
    format!("[{{ipBlock: {{cidr: {v4}/32}}}}, {{ipBlock: {{cidr: '{v6}/128'}}}}]")
}

/// Everything that pods send beyond their node gets the node's address, as ip-masq-agent does it.
fn rewritten(lab: &mut Lab) -> Result<()> {
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    let (named, other) = (lab.outside("named")?, lab.outside("other")?);
    let client = n1.pod("x/client").labels(&[("app", "client")]).start()?;
    let server = n2.pod("x/server").labels(&[("app", "server")]).start()?;
    let places = [&named.place, &other.place, &server.place];
    let _servers = places.map(serve_all).into_iter().collect::<Result<Vec<_>>>()?;
    nft(
        &n1.place,
        "table inet masq { chain postrouting { type nat hook postrouting priority 100; oifname \"eth0\" masquerade; }\n}",
    )?;
    // The client may not be reached, and may reach one host outside and the server.
    let peers = blocks(named.addresses);
    apply(
        lab.manifests(),
        "client",
        &format!(
            "  podSelector: {{matchLabels: {{app: client}}}}\n  policyTypes: [Ingress, Egress]\n  egress:\n  \
             - to: {peers}\n  - to: [{{podSelector: {{matchLabels: {{app: server}}}}}}]\n"
        ),
    )?;
    let _agents = [Agent::start(&n1, &[])?, Agent::start(&n2, &[])?];
    expect(&client.place, named.addresses, &EVERY_KIND, Seen::Reached)?;
    expect(&client.place, other.addresses, &EVERY_KIND, Seen::Blocked)?;
    expect(&client.place, server.addresses, &EVERY_KIND, Seen::Reached)?;

    // The server sees the client's node, and nothing of its labels.
    let from_client =
        "  podSelector: {matchLabels: {app: server}}\n  ingress:\n  - from: [{podSelector: {}}]\n";
    apply(lab.manifests(), "server", from_client)?;
    becomes(&client.place, server.addresses.v4.into(), Traffic::Tcp(80), Seen::Blocked)?;
    expect(&client.place, server.addresses, &EVERY_KIND, Seen::Blocked)?;
    let from_node = format!(
        "  podSelector: {{matchLabels: {{app: server}}}}\n  ingress:\n  - from: {}\n",
        blocks(n1.addresses)
    );
    apply(lab.manifests(), "server", &from_node)?;
    becomes(&client.place, server.addresses.v4.into(), Traffic::Tcp(80), Seen::Reached)?;
    expect(&client.place, server.addresses, &EVERY_KIND, Seen::Reached)
}

/// As the CNI plug-in `portmap` does it: to the pod's port, the client's address stays.
fn host_port(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let (named, other) = (lab.outside("named")?, lab.outside("other")?);
    let pod = node.pod("x/server").labels(&[("app", "server")]).start()?;
    let _servers = serve_all(&pod.place)?;
    let Addresses { v4, v6 } = pod.addresses;
    nft(
        &node.place,
        &format!(
            "table inet portmap {{ chain prerouting {{ type nat hook prerouting priority -100;\n\
             ip daddr {} tcp dport 8080 dnat ip to {v4}:80\nip6 daddr {} tcp dport 8080 dnat ip6 to [{v6}]:80;\n}}\n}}",
            node.addresses.v4, node.addresses.v6
        ),
    )?;
    let _agent = Agent::start(&node, &[])?;
    let at_host = [Traffic::Http(8080)];
    for place in [&named.place, &other.place] {
        expect(place, node.addresses, &at_host, Seen::Reached)?;
    }
    // (the port that the policy names, whether the named client gets through)
    for (port, seen) in [(8080, Seen::Blocked), (80, Seen::Reached)] {
        let spec = format!(
            "  podSelector: {{matchLabels: {{app: server}}}}\n  ingress:\n  - from: {}\n    ports: [{{port: {port}}}]\n",
            blocks(named.addresses)
        );
        apply(lab.manifests(), "server", &spec)?;
        becomes(&named.place, node.addresses.v4.into(), at_host[0], seen)?;
        expect(&named.place, node.addresses, &at_host, seen)?;
        expect(&other.place, node.addresses, &at_host, Seen::Blocked)?;
    }
    Ok(())
}

/// kube-proxy in IPVS mode puts the addresses of all services on an interface of the node, `kube-ipvs0`.
fn service_on_node(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let client = node.pod("x/client").labels(&[("app", "closed")]).start()?;
    let server = node.pod("x/server").labels(&[("app", "server")]).start()?;
    let _server = server.place.serve(Service::Http(8080))?;
    let service = ClusterService::new("x/web", 1, "TCP", 80).backend(server.addresses, 8080, Some(&node));
    service.apply(&[&node])?;
    let Addresses { v4, v6 } = service.addresses();
    node.place.ip(&format!(
        "link add kube-ipvs0 type bridge\naddr add {v4}/32 dev kube-ipvs0\naddr add {v6}/128 dev kube-ipvs0 nodad\n"
    ))?;
    apply(lab.manifests(), "closed", DENY_ALL)?;
    let _agent = Agent::start(&node, &[])?;
    expect(&client.place, service.addresses(), &[Traffic::Http(80)], Seen::Blocked)?;
    let to_server = "  podSelector: {matchLabels: {app: closed}}\n  policyTypes: [Egress]\n  egress:\n  \
                     - to: [{podSelector: {matchLabels: {app: server}}}]\n";
    apply(lab.manifests(), "to-server", to_server)?;
    becomes(&client.place, v4.into(), Traffic::Http(80), Seen::Reached)?;
    expect(&client.place, service.addresses(), &[Traffic::Http(80)], Seen::Reached)
}

/// With what else the node does to every packet before it is tracked.
fn tracked_by(lab: &mut Lab, rule: &str) -> Result<()> {
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    let closed = n1.pod("x/closed").labels(&[("app", "closed")]).start()?;
    let (free, remote) = (n1.pod("x/free").start()?, n2.pod("x/remote").start()?);
    let places = [&closed.place, &free.place, &remote.place, &n1.place];
    let _servers = places.map(serve_all).into_iter().collect::<Result<Vec<_>>>()?;
    let chain = |hook: &str| format!("chain {hook} {{ type filter hook {hook} priority -300; {rule}; }}\n");
    // Somebody who asks for the state of connections makes the kernel track them.
    let asks = "chain forward { type filter hook forward priority 0; ct state established accept; }\n";
    nft(&n1.place, &format!("table inet raw {{\n{}{}{asks}}}\n", chain("prerouting"), chain("output")))?;
    let to_remote = "  podSelector: {matchLabels: {app: closed}}\n  policyTypes: [Ingress, Egress]\n  egress:\n  \
                     - to: [{podSelector: {matchExpressions: [{key: app, operator: DoesNotExist}]}}]\n    \
                     ports: [{port: 80}]\n";
    apply(lab.manifests(), "closed", to_remote)?;
    let _agent = Agent::start(&n1, &[])?;
    for server in [free.addresses, remote.addresses] {
        expect(&closed.place, server, &[Traffic::Http(80)], Seen::Reached)?;
        expect(&closed.place, server, &[Traffic::Udp(7), Traffic::Echo], Seen::Blocked)?;
    }
    // The node's own cache, and the node's probes.
    expect(&closed.place, n1.addresses, &EVERY_KIND, Seen::Reached)?;
    expect(&n1.place, closed.addresses, &EVERY_KIND, Seen::Reached)?;
    for from in [&free.place, &remote.place] {
        expect(from, closed.addresses, &EVERY_KIND, Seen::Blocked)?;
    }
    Ok(())
}

fn new_address(lab: &mut Lab) -> Result<()> {
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    let closed = n1.pod("x/closed").labels(&[("app", "closed")]).start()?;
    let _servers = [serve_all(&closed.place)?, serve_all(&n1.place)?, serve_all(&n2.place)?];
    apply(lab.manifests(), "closed", DENY_ALL)?;
    let _agent = Agent::start(&n1, &[])?;
    let late = Addresses { v4: "10.99.0.1".parse()?, v6: "fd99::1".parse()? };
    // Not the node's yet: n2 has them, and is no place to go.
    let add = format!("addr add {}/32 dev lo\naddr add {}/128 dev lo nodad\n", late.v4, late.v6);
    n2.place.ip(&add)?;
    let Addresses { v4, v6 } = n2.addresses;
    n1.place.ip(&format!("route add {} via {v4}\nroute add {} via {v6}\n", late.v4, late.v6))?;
    expect(&closed.place, late, &EVERY_KIND, Seen::Blocked)?;
    n1.place.ip(&format!("route del {}\nroute del {}\n{add}", late.v4, late.v6))?;
    becomes(&closed.place, late.v4.into(), Traffic::Tcp(80), Seen::Reached)?;
    becomes(&closed.place, late.v6.into(), Traffic::Tcp(80), Seen::Reached)?;
    expect(&closed.place, late, &EVERY_KIND, Seen::Reached)?;
    // And it speaks from them.
    for address in late.both() {
        let to = if address.is_ipv4() { closed.addresses.v4.into() } else { closed.addresses.v6.into() };
        let from = |to: IpAddr| -> Result<TcpStream> {
            let domain = socket2::Domain::for_address(SocketAddr::new(to, 0));
            let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(address, 0).into())?;
            socket.connect_timeout(&SocketAddr::new(to, 80).into(), PATIENT)?;
            Ok(socket.into())
        };
        n1.place.run(|| from(to)).with_context(|| format!("from {address} to the pod"))?;
    }
    Ok(())
}

/// A service with backends on the other node, of which one is allowed; then an overlay leads there.
fn new_device(lab: &mut Lab, underlay: fn(&Node) -> IpAddr) -> Result<()> {
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    let client = n1.pod("x/client").labels(&[("app", "client")]).start()?;
    let (good, bad) = (
        n2.pod("x/good").labels(&[("app", "good")]).start()?,
        n2.pod("x/bad").labels(&[("app", "bad")]).start()?,
    );
    let _servers = [good.place.serve(Service::Http(8080))?, bad.place.serve(Service::Http(8080))?];
    let service =
        [&good, &bad].into_iter().fold(ClusterService::new("x/web", 1, "TCP", 80), |service, pod| {
            service.backend(pod.addresses, 8080, Some(&n2))
        });
    service.apply(&[&n1])?;
    let to_good = "  podSelector: {matchLabels: {app: client}}\n  policyTypes: [Egress]\n  egress:\n  \
                   - to: [{podSelector: {matchLabels: {app: good}}}]\n";
    apply(lab.manifests(), "client", to_good)?;
    let _agent = Agent::start(&n1, &[])?;
    let half_gets_through = || -> Result<bool> {
        let ask = |_| {
            client.place.probe(service.addresses().v4.into(), Traffic::Http(80), Duration::from_millis(500))
        };
        let seen = (0..4).map(ask).collect::<Result<Vec<_>>>()?;
        Ok(seen.iter().filter(|seen| **seen == Seen::Reached).count() == 2
            && seen.iter().filter(|seen| **seen == Seen::Blocked).count() == 2)
    };
    ensure!(half_gets_through()?, "by the wire one of the two backends is reached");

    // An overlay: what goes to pods of the other node goes into it.
    let capture = bad.place.capture()?;
    let (here, there) = (underlay(&n1), underlay(&n2));
    for (node, local, remote, number) in [(&n1, here, there, 1), (&n2, there, here, 2)] {
        let (mac, other) = (format!("02:00:00:00:07:0{number}"), format!("02:00:00:00:07:0{}", 3 - number));
        node.place.ip(&format!(
            "link add over address {mac} mtu 1400 type vxlan id 7 local {local} remote {remote} dstport 4789 dev eth0\n\
             link set over up\naddr add 10.77.0.{number}/24 dev over\n\
             neigh replace 10.77.0.{} lladdr {other} dev over nud permanent\n",
            3 - number
        ))?;
    }
    for pod in [&good, &bad] {
        n1.place.ip(&format!("route add {} via 10.77.0.2 dev over onlink\n", pod.addresses.v4))?;
    }
    xtask::lab::until("by the overlay one of the two backends is reached", PATIENT, || {
        Ok(half_gets_through()?.then_some(()))
    })?;
    let arrived = capture.from(&client.addresses.both());
    ensure!(arrived.is_empty(), "{} packets reached the denied backend: {:?} …", arrived.len(), arrived[0]);
    expect(&client.place, bad.addresses, &[Traffic::Http(8080)], Seen::Blocked)
}

fn itself(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let closed = node.pod("x/closed").labels(&[("app", "closed")]).start()?;
    let _servers = serve_all(&closed.place)?;
    apply(lab.manifests(), "closed", DENY_ALL)?;
    let _agent = Agent::start(&node, &[])?;
    let loopback = Addresses { v4: "127.0.0.1".parse()?, v6: "::1".parse()? };
    for at in [loopback, closed.addresses] {
        expect(&closed.place, at, &EVERY_KIND, Seen::Reached)?;
    }
    expect(&node.place, closed.addresses, &EVERY_KIND, Seen::Reached)
}

/// `kubectl delete --force` takes the object at once; the containers may run on.
fn unlisted(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let closed = node.pod("x/closed").labels(&[("app", "closed")]).start()?;
    let (free, knocker) = (node.pod("x/free").start()?, node.pod("x/knocker").start()?);
    let _servers = [serve_all(&closed.place)?, serve_all(&free.place)?, serve_all(&knocker.place)?];
    apply(lab.manifests(), "closed", DENY_ALL)?;
    let _agent = Agent::start(&node, &[])?;
    expect(&knocker.place, closed.addresses, &EVERY_KIND, Seen::Blocked)?;
    let capture = closed.place.capture()?;
    closed.unlist()?;
    // What the agent reads after that is in force: so was the deletion.
    apply(lab.manifests(), "later", "  podSelector: {}\n  policyTypes: [Ingress]\n")?;
    becomes(&knocker.place, free.addresses.v4.into(), Traffic::Tcp(80), Seen::Blocked)?;
    lab.manifests().remove("policy-later.yaml")?;
    becomes(&knocker.place, free.addresses.v4.into(), Traffic::Tcp(80), Seen::Reached)?;
    expect(&knocker.place, closed.addresses, &EVERY_KIND, Seen::Blocked)?;
    expect(&closed.place, knocker.addresses, &EVERY_KIND, Seen::Blocked)?;
    let arrived = capture.from(&knocker.addresses.both());
    ensure!(arrived.is_empty(), "{} packets reached the pod: {:?} …", arrived.len(), arrived[0]);
    expect(&node.place, closed.addresses, &EVERY_KIND, Seen::Reached)
}

/// Much more than a window of TCP.
const MUCH: u64 = 4 << 20;

/// Sends much from a file, as a web server does it, and waits until all of it was read.
fn transfer(from: &Place, to: &Place, at: SocketAddr, listener: &TcpListener) -> Result<()> {
    let what = || format!("{} to {at}", from.name());
    let mut sender = from.run(|| TcpStream::connect_timeout(&at, PATIENT)).with_context(what)?;
    let (mut receiver, _) = to.run(|| listener.accept()).with_context(what)?;
    sender.set_write_timeout(Some(PATIENT))?;
    receiver.set_read_timeout(Some(PATIENT))?;
    let mut file = tempfile()?;
    file.set_len(MUCH)?;
    let receive = move || -> Result<u64> {
        let (mut count, mut buffer) = (0, vec![0; 1 << 16]);
        loop {
            match receiver.read(&mut buffer).with_context(|| format!("after {count} bytes"))? {
                0 => return Ok(count),
                length => count += length as u64,
            }
        }
    };
    thread::scope(|scope| {
        let receiving = scope.spawn(receive);
        // sendfile(2): the kernel sends pages of the file.
        let sent =
            copy(&mut file, &mut sender).and_then(|count| sender.shutdown(Shutdown::Write).map(|()| count));
        let received = receiving.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        ensure!(sent.with_context(what)? == MUCH, "{}: not all was sent", what());
        let count = received.with_context(what)?;
        ensure!(count == MUCH, "{}: {count} of {MUCH} bytes arrived", what());
        Ok(())
    })
}

/// A file without a name, in memory.
fn tempfile() -> Result<File> {
    let file = nix::sys::memfd::memfd_create(c"much", nix::sys::memfd::MFdFlags::empty())?;
    Ok(file.into())
}

const MAY_SEND: &str = "  podSelector: {matchLabels: {app: client}}\n  policyTypes: [Ingress, Egress]\n  egress:\n  \
                        - to: [{podSelector: {matchLabels: {app: server}}}]\n    ports: [{port: 9}]\n";

/// The other node cannot hand on what the client sends at first, and tells it so by ICMP.
fn small_mtu(lab: &mut Lab) -> Result<()> {
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    let client = n1.pod("x/client").labels(&[("app", "client")]).start()?;
    let server = n2.pod("x/server").labels(&[("app", "server")]).start()?;
    let service = ClusterService::new("x/much", 1, "TCP", 80).backend(server.addresses, 9, Some(&n2));
    service.apply(&[&n1])?;
    let Addresses { v4, v6 } = server.addresses;
    let veth = &server.host_interface;
    n2.place.ip(&format!(
        "route replace {v4} dev {veth} scope link mtu 1300\nroute replace {v6} dev {veth} mtu 1300\n"
    ))?;
    apply(lab.manifests(), "client", MAY_SEND)?;
    let _agent = Agent::start(&n1, &[])?;
    let listener = server.place.run(|| TcpListener::bind(("::", 9)))?;
    let capture = client.place.capture()?;
    for (at, port) in [(server.addresses, 9), (service.addresses(), 80)] {
        for address in at.both() {
            transfer(&client.place, &server.place, SocketAddr::new(address, port), &listener)?;
        }
    }
    let errors = capture.from(&n2.addresses.both());
    for protocol in [1, 58] {
        ensure!(
            errors.iter().any(|packet| packet.protocol == protocol),
            "no ICMP (protocol {protocol}): {errors:?}"
        );
    }
    // It is isolated all the same.
    expect(&server.place, client.addresses, &EVERY_KIND, Seen::Blocked)?;
    expect(&n2.place, client.addresses, &EVERY_KIND, Seen::Blocked)
}

/// Segments of 64 KiB with their data in pages, between pods of one node and of two.
fn large(lab: &mut Lab) -> Result<()> {
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    let client = n1.pod("x/client").labels(&[("app", "client")]).start()?;
    let servers = [n1.pod("x/near"), n2.pod("x/far")].map(|pod| pod.labels(&[("app", "server")]).start());
    apply(lab.manifests(), "client", MAY_SEND)?;
    let from_client = "  podSelector: {matchLabels: {app: server}}\n  policyTypes: [Ingress, Egress]\n  ingress:\n  \
                       - from: [{podSelector: {matchLabels: {app: client}}}]\n    ports: [{port: 9}]\n";
    apply(lab.manifests(), "server", from_client)?;
    let _agents = [Agent::start(&n1, &[])?, Agent::start(&n2, &[])?];
    for server in servers {
        let server = server?;
        let listener = server.place.run(|| TcpListener::bind(("::", 9)))?;
        let _others = serve_all(&server.place)?;
        for address in server.addresses.both() {
            transfer(&client.place, &server.place, SocketAddr::new(address, 9), &listener)?;
        }
        expect(&client.place, server.addresses, &EVERY_KIND, Seen::Blocked)?;
    }
    Ok(())
}
