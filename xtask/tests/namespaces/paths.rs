//! Ways that packets take besides the plain ones: rewritten by the node, not tracked, out by another device,
//! too large for a link, around inside the pod.

use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use xtask::lab::{Addresses, Agent, ClusterService, Lab, Node, PATIENT, Seen, Service, Traffic, until};

use super::{
    Test,
    policies::{DENY_ALL, DENY_INGRESS_OF_ALL, blocks, egress, ingress, pods},
    scene::{EVERY_KIND, apply, becomes, expect, serve_all},
};

mod transfers;

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
    ("a_smaller_mtu_on_the_way_is_found_out_by_an_isolated_pod", transfers::small_mtu),
    ("large_transfers_pass_or_fail_as_a_whole", transfers::large),
];

/// Everything that pods send beyond their node gets the node's address, as ip-masq-agent does it.
fn rewritten(lab: &mut Lab) -> Result<()> {
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    let (named, other) = (lab.outside("named")?, lab.outside("other")?);
    let client = n1.pod("x/client").labels(&[("app", "client")]).start()?;
    let server = n2.pod("x/server").labels(&[("app", "server")]).start()?;
    let places = [&named.place, &other.place, &server.place];
    let _servers = places.map(serve_all).into_iter().collect::<Result<Vec<_>>>()?;
    n1.place.nft(
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
    apply(lab.manifests(), "server", &ingress("server", "from: [{podSelector: {}}]"))?;
    becomes(&client.place, server.addresses.v4.into(), Traffic::Tcp(80), Seen::Blocked)?;
    expect(&client.place, server.addresses, &EVERY_KIND, Seen::Blocked)?;
    let from_node = format!("from: {}", blocks(n1.addresses));
    apply(lab.manifests(), "server", &ingress("server", &from_node))?;
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
    node.place.nft(&format!(
        "table inet portmap {{ chain prerouting {{ type nat hook prerouting priority -100;\n\
         ip daddr {} tcp dport 8080 dnat ip to {v4}:80\nip6 daddr {} tcp dport 8080 dnat ip6 to [{v6}]:80;\n}}\n}}",
        node.addresses.v4, node.addresses.v6
    ))?;
    let _agent = Agent::start(&node, &[])?;
    let at_host = [Traffic::Http(8080)];
    for place in [&named.place, &other.place] {
        expect(place, node.addresses, &at_host, Seen::Reached)?;
    }
    // (the port that the policy names, whether the named client gets through)
    for (port, seen) in [(8080, Seen::Blocked), (80, Seen::Reached)] {
        let from_named = format!("from: {}\n    ports: [{{port: {port}}}]", blocks(named.addresses));
        apply(lab.manifests(), "server", &ingress("server", &from_named))?;
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
    let at = service.addresses();
    node.place.ip(&format!("link add kube-ipvs0 type bridge\n{}", at.on("kube-ipvs0")))?;
    apply(lab.manifests(), "closed", DENY_ALL)?;
    let _agent = Agent::start(&node, &[])?;
    expect(&client.place, at, &[Traffic::Http(80)], Seen::Blocked)?;
    let to_server = egress("closed", &format!("to: {}", pods("server")));
    apply(lab.manifests(), "to-server", &to_server)?;
    becomes(&client.place, at.v4.into(), Traffic::Http(80), Seen::Reached)?;
    expect(&client.place, at, &[Traffic::Http(80)], Seen::Reached)
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
    n1.place.nft(&format!("table inet raw {{\n{}{}{asks}}}\n", chain("prerouting"), chain("output")))?;
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
    n2.place.ip(&late.on("lo"))?;
    n1.place.ip(&late.via(n2.addresses))?;
    expect(&closed.place, late, &EVERY_KIND, Seen::Blocked)?;
    n1.place.ip(&format!("route del {}\nroute del {}\n{}", late.v4, late.v6, late.on("lo")))?;
    becomes(&closed.place, late.v4.into(), Traffic::Tcp(80), Seen::Reached)?;
    becomes(&closed.place, late.v6.into(), Traffic::Tcp(80), Seen::Reached)?;
    expect(&closed.place, late, &EVERY_KIND, Seen::Reached)?;
    // And it speaks from them.
    for (address, to) in late.both().into_iter().zip(closed.addresses.both()) {
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
    apply(lab.manifests(), "client", &egress("client", &format!("to: {}", pods("good"))))?;
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
    until("by the overlay one of the two backends is reached", PATIENT, || {
        Ok(half_gets_through()?.then_some(()))
    })?;
    capture.nothing_from(&client.addresses.both())?;
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
    apply(lab.manifests(), "later", DENY_INGRESS_OF_ALL)?;
    becomes(&knocker.place, free.addresses.v4.into(), Traffic::Tcp(80), Seen::Blocked)?;
    lab.manifests().remove("policy-later.yaml")?;
    becomes(&knocker.place, free.addresses.v4.into(), Traffic::Tcp(80), Seen::Reached)?;
    expect(&knocker.place, closed.addresses, &EVERY_KIND, Seen::Blocked)?;
    expect(&closed.place, knocker.addresses, &EVERY_KIND, Seen::Blocked)?;
    capture.nothing_from(&knocker.addresses.both())?;
    expect(&node.place, closed.addresses, &EVERY_KIND, Seen::Reached)
}
