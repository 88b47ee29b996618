//! What isolation keeps out and what it lets through, on routed veths and on a bridge.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use xtask::lab::{Agent, Lab, Place, PodNetworkMode, Seen, Traffic};

use super::{
    Test,
    policies::{self, DENY_ALL, pods},
    scene::{EVERY_KIND, apply, becomes, expect, serve_all, together},
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("deny_all_lets_nothing_through_for_a_minute_and_replies_pass", deny_all_for_a_minute),
    ("egress_isolation_stops_what_a_pod_starts_and_nothing_else", egress),
    ("a_node_always_reaches_its_own_pods", node_to_pod),
    ("a_rule_allows_its_ports_and_peers_only", ports_and_peers),
    ("a_bridge_is_enforced_like_routed_veths", bridge),
];

const PROBING: Duration = Duration::from_secs(60);
/// How long one of these probes waits. Short, to send many; that nothing arrived is read from the capture.
const GLANCE: Duration = Duration::from_millis(100);
/// Between two probes: they are fewer than the flow table has room for.
const REST: Duration = Duration::from_millis(10);

const DENY_INGRESS_OF_HALF: &str = "  podSelector: {matchLabels: {app: half}}\n  policyTypes: [Ingress]\n";

fn deny_all_for_a_minute(lab: &mut Lab) -> Result<()> {
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    let closed = n1.pod("x/closed").labels(&[("app", "closed")]).start()?;
    let half = n1.pod("x/half").labels(&[("app", "half")]).start()?;
    let (local, remote, outside) =
        (n1.pod("x/local").start()?, n2.pod("y/remote").start()?, lab.outside("outside")?);
    let server = n2.pod("y/server").start()?;
    let _servers = [serve_all(&closed.place)?, serve_all(&half.place)?, serve_all(&server.place)?];
    apply(lab.manifests(), "deny-all", DENY_ALL)?;
    apply(lab.manifests(), "deny-ingress", DENY_INGRESS_OF_HALF)?;
    let _agents = [Agent::start(&n1, &[])?, Agent::start(&n2, &[])?];

    let probers = [
        (&local.place, local.addresses),
        (&remote.place, remote.addresses),
        (&outside.place, outside.addresses),
    ];
    let captures = [closed.place.capture()?, half.place.capture()?];
    let deadline = Instant::now() + PROBING;
    // The node's probes reach the closed pod, and the half-closed pod's own connections get their answers.
    let allowed = [(&n1.place, closed.addresses), (&half.place, server.addresses)];
    let denied = probers.iter().flat_map(|&(from, _)| [(from, closed.addresses), (from, half.addresses)]);
    let paths = denied.map(|path| (path, Seen::Blocked)).chain(allowed.map(|path| (path, Seen::Reached)));
    let probes: Vec<_> = paths
        .flat_map(|((from, to), expected)| to.both().map(|address| (from, address, expected)))
        .flat_map(|(from, to, expected)| EVERY_KIND.map(|kind| (from, to, kind, expected)))
        .collect();
    let counts =
        together(&probes, |&(from, to, kind, expected)| keep_probing(from, to, kind, expected, deadline))?;
    ensure!(counts.iter().all(|count| *count >= 60), "too few probes to mean something: {counts:?}");

    let sources: Vec<IpAddr> = probers.iter().flat_map(|(_, addresses)| addresses.both()).collect();
    captures.iter().try_for_each(|capture| capture.nothing_from(&sources))?;

    // The same probes arrive as soon as nothing denies them.
    lab.manifests().remove("policy-deny-all.yaml")?;
    for (from, addresses) in probers {
        becomes(from, closed.addresses.v4.into(), Traffic::Tcp(80), Seen::Reached)?;
        expect(from, closed.addresses, &EVERY_KIND, Seen::Reached)?;
        ensure!(!captures[0].from(&addresses.both()).is_empty(), "the capture sees what arrives");
    }
    Ok(())
}

/// Probes until the deadline; each one must end as expected. Hands back how many there were.
fn keep_probing(from: &Place, to: IpAddr, kind: Traffic, expected: Seen, deadline: Instant) -> Result<usize> {
    let mut count = 0;
    while Instant::now() < deadline {
        let seen = match expected {
            Seen::Blocked => from.probe(to, kind, GLANCE)?,
            _ => from.probe_expecting(to, kind, expected)?,
        };
        count += 1;
        thread::sleep(REST);
        ensure!(seen == expected, "{} to {to}: {kind} {seen} at probe {count}, not {expected}", from.name());
    }
    Ok(count)
}

fn egress(lab: &mut Lab) -> Result<()> {
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    let confined = n1.pod("x/confined").labels(&[("app", "confined")]).start()?;
    let database = n2.pod("x/database").labels(&[("app", "database")]).start()?;
    let (local, outside) = (n1.pod("x/local").start()?, lab.outside("outside")?);
    let places = [&confined.place, &database.place, &local.place, &outside.place, &n1.place];
    let _servers = places.map(serve_all).into_iter().collect::<Result<Vec<_>>>()?;
    let to_database = format!("to: {}\n    ports: [{{port: 80}}]", pods("database"));
    apply(lab.manifests(), "egress", &policies::egress("confined", &to_database))?;
    let _agents = [Agent::start(&n1, &[])?, Agent::start(&n2, &[])?];

    expect(&confined.place, database.addresses, &[Traffic::Tcp(80)], Seen::Reached)?;
    let other_kinds = [Traffic::Tcp(7), Traffic::Udp(7), Traffic::Echo];
    expect(&confined.place, database.addresses, &other_kinds, Seen::Blocked)?;
    expect(&confined.place, local.addresses, &EVERY_KIND, Seen::Blocked)?;
    expect(&confined.place, outside.addresses, &EVERY_KIND, Seen::Blocked)?;
    // Its own node is never behind a policy, and ingress to it is free: the answers go out.
    expect(&confined.place, n1.addresses, &EVERY_KIND, Seen::Reached)?;
    for from in [&local.place, &database.place, &outside.place] {
        expect(from, confined.addresses, &EVERY_KIND, Seen::Reached)?;
    }
    Ok(())
}

fn node_to_pod(lab: &mut Lab) -> Result<()> {
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    let closed = n1.pod("x/closed").labels(&[("app", "closed")]).start()?;
    let _servers = serve_all(&closed.place)?;
    apply(lab.manifests(), "deny-all", DENY_ALL)?;
    let _agent = Agent::start(&n1, &[])?;
    expect(&n1.place, closed.addresses, &EVERY_KIND, Seen::Reached)?;
    // The address of a node proves nothing, least of all another node's.
    expect(&n2.place, closed.addresses, &EVERY_KIND, Seen::Blocked)
}

const SELECTIVE: &str = "  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress]
  ingress:
  - from:
    - podSelector: {matchLabels: {role: friend}}
    ports:
    - port: web
    - protocol: UDP
      port: 5
      endPort: 9
  - from:
    - ipBlock: {cidr: 10.10.0.0/24, except: [10.10.0.100/32]}
    - ipBlock: {cidr: 'fd00:10::/64', except: ['fd00:10::100/128']}
";

fn ports_and_peers(lab: &mut Lab) -> Result<()> {
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    let server = n1.pod("x/server").labels(&[("app", "server")]).port("web", "TCP", 80).start()?;
    let client_allowed = n2.pod("x/friend").labels(&[("role", "friend")]).start()?;
    let client_denied = n1.pod("x/stranger").start()?;
    // A friend's label in another namespace does not count.
    let namesake = n1.pod("y/namesake").labels(&[("role", "friend")]).start()?;
    let (excepted, listed) = (lab.outside("excepted")?, lab.outside("listed")?);
    let _servers = serve_all(&server.place)?;
    apply(lab.manifests(), "selective", SELECTIVE)?;
    let _agent = Agent::start(&n1, &[])?;

    expect(&client_allowed.place, server.addresses, &[Traffic::Http(80), Traffic::Udp(7)], Seen::Reached)?;
    expect(&client_allowed.place, server.addresses, &[Traffic::Tcp(7), Traffic::Echo], Seen::Blocked)?;
    expect(&listed.place, server.addresses, &EVERY_KIND, Seen::Reached)?;
    for from in [&client_denied.place, &namesake.place, &excepted.place] {
        expect(from, server.addresses, &EVERY_KIND, Seen::Blocked)?;
    }
    Ok(())
}

fn bridge(lab: &mut Lab) -> Result<()> {
    let (n1, n2) = (lab.wired_node("n1", PodNetworkMode::Bridge)?, lab.node("n2")?);
    let server = n1.pod("x/server").labels(&[("app", "server")]).port("web", "TCP", 80).start()?;
    let closed = n1.pod("x/closed").labels(&[("app", "closed")]).start()?;
    let (client_allowed, client_denied) =
        (n1.pod("x/friend").labels(&[("role", "friend")]).start()?, n1.pod("x/stranger").start()?);
    let remote = n2.pod("x/remote").start()?;
    let places = [&server.place, &closed.place, &client_denied.place];
    let _servers = places.map(serve_all).into_iter().collect::<Result<Vec<_>>>()?;
    apply(lab.manifests(), "selective", SELECTIVE)?;
    apply(lab.manifests(), "deny-all", DENY_ALL)?;
    let _agent = Agent::start(&n1, &[])?;

    expect(&client_allowed.place, server.addresses, &[Traffic::Http(80), Traffic::Udp(7)], Seen::Reached)?;
    expect(&client_allowed.place, server.addresses, &[Traffic::Tcp(7), Traffic::Echo], Seen::Blocked)?;
    for from in [&client_denied.place, &remote.place] {
        expect(from, server.addresses, &EVERY_KIND, Seen::Blocked)?;
        expect(from, closed.addresses, &EVERY_KIND, Seen::Blocked)?;
    }
    expect(&closed.place, client_denied.addresses, &EVERY_KIND, Seen::Blocked)?;
    expect(&remote.place, client_denied.addresses, &EVERY_KIND, Seen::Reached)?;
    // The node speaks to its pods from the bridge.
    expect(&n1.place, closed.addresses, &EVERY_KIND, Seen::Reached)
}
