//! Rules with names of the DNS: a name is looked up and its address connected to at once, whoever is dead.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xtask::lab::{Agent, Lab, Manifests, PATIENT, Place, Resolver, Service};

use super::Test;

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("a_name_is_open_at_once_when_it_is_looked_up_also_without_an_agent", lookups),
    ("a_client_that_keeps_its_socket_to_the_resolver_learns_by_it_after_the_first_rule", one_socket),
    ("an_answer_from_before_the_rule_is_open_as_the_agent_asks_for_the_name", warm_cache),
    ("an_address_counts_for_as_long_as_a_connection_to_it_lives", long_connection),
    ("a_pod_that_asks_another_resolver_is_named_with_it", untrusted_resolver),
    ("a_network_policy_names_domains_in_an_annotation_and_is_credited_with_them", annotation),
];

const PORT: u16 = 80;
const PATIENCE: Duration = Duration::from_secs(2);

fn lookups(lab: &mut Lab) -> Result<()> {
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    let client = n1.pod("x/client").labels(&[("app", "client")]).start()?;
    let dns = n2.pod("x/dns").start()?;
    let pods = ["one", "two", "three"].map(|name| n2.pod(&format!("x/{name}")).start());
    let [one, two, three] = pods.into_iter().collect::<Result<Vec<_>>>()?.try_into().ok().context("three")?;
    let servers = [&one, &two, &three];
    let _http =
        servers.map(|pod| pod.place.serve(Service::Http(PORT))).into_iter().collect::<Result<Vec<_>>>()?;
    let zone = ["one", "two", "three"].iter().zip(servers);
    let zone = zone.map(|(name, pod)| (format!("{name}.example.com"), pod.addresses.v4)).collect();
    let resolver = serve(&dns.place, zone)?;
    let to = |name: &str| format!("{name}.example.com");
    let manifests = lab.manifests();
    let at = dns.addresses.v4;
    allow(manifests, at, "'*.example.com'")?;
    let resolvers = format!("{at}:53");
    let options = ["--resolvers", &resolvers];
    let agent = Agent::start(&n1, &options)?;

    let client = &client.place;
    ensure!(!connects(client, one.addresses.v4), "one is open before it is looked up");
    is_open_at_once(client, at, &to("one"))?;
    let to_one = SocketAddr::new(IpAddr::V4(one.addresses.v4), PORT);
    let held = client.run(|| TcpStream::connect_timeout(&to_one, PATIENCE))?;
    shows(&agent, &[("*.example.com", one.addresses.v4, 1)])?;
    ensure!(agent.ask(&["names", "x/client"])?[0]["entries"][0]["connections"] == 1, "the live connection");
    drop(held);
    ensure!(agent.ask(&["status"])?["names"]["learnt"] == 1, "the counters do not show what was learnt");
    ensure!(agent.ask(&["names", "x/one"]).is_err(), "a pod of another node is known here");
    ensure!(!connects(client, two.addresses.v4), "two is open before it is looked up");
    agent.kill()?;
    is_open_at_once(client, at, &to("two"))?;
    let agent = Agent::start(&n1, &options)?;
    for pod in [&one, &two] {
        ensure!(connects(client, pod.addresses.v4), "{} is closed after a restart", pod.name());
    }
    // Also what was learnt while no agent ran.
    let mut both = [("*.example.com", one.addresses.v4, 1), ("*.example.com", two.addresses.v4, 1)];
    both.sort_unstable();
    shows(&agent, &both)?;
    // Another policy, for the same names among others.
    let before = agent.ask(&["status"])?["revision"].clone();
    allow(manifests, at, "'*.example.com', one.example.com, other.test")?;
    agent.until("the other policy is in force", PATIENT, "status", |status| status["revision"] != before)?;
    ensure!(!connects(client, three.addresses.v4), "three is open before it is looked up");
    is_open_at_once(client, at, &to("three"))?;
    ensure!(connects(client, one.addresses.v4), "one is closed under another policy");
    drop(resolver);
    Ok(())
}

/// As c-ares does it, which Node.js and others look names up with.
fn one_socket(lab: &mut Lab) -> Result<()> {
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    let client = n1.pod("x/client").labels(&[("app", "client")]).start()?;
    let dns = n2.pod("x/dns").start()?;
    let server = n2.pod("x/server").start()?;
    let _http = server.place.serve(Service::Http(PORT))?;
    let name = "server.example.com";
    let resolver = serve(&dns.place, [(name.to_owned(), server.addresses.v4)].into())?;
    let at = dns.addresses.v4;
    let agent = Agent::start(&n1, &["--resolvers", &format!("{at}:53")])?;
    let client = &client.place;
    let socket = client.run(|| socket_to(at))?;
    ask(&socket, name)?;
    let before = agent.ask(&["status"])?["revision"].clone();
    allow(lab.manifests(), at, "'*.example.com'")?;
    agent.until("the policy is in force", PATIENCE, "status", |status| status["revision"] != before)?;
    ensure!(!connects(client, server.addresses.v4), "it is open though no one has looked it up since");
    let address = ask(&socket, name)?;
    ensure!(connects(client, address), "it is closed right after the look-up");
    drop(resolver);
    Ok(())
}

/// A client whose cache has the answer from before there was a rule connects and asks no one.
fn warm_cache(lab: &mut Lab) -> Result<()> {
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    let client = n1.pod("x/client").labels(&[("app", "client")]).start()?;
    let dns = n2.pod("x/dns").start()?;
    let (server, other) = (n2.pod("x/server").start()?, n2.pod("x/other").start()?);
    let _http = [&server, &other].map(|pod| pod.place.serve(Service::Http(PORT)));
    let zone = [("server.example.com", &server), ("wild.example.com", &other)];
    let zone = zone.map(|(name, pod)| (name.to_owned(), pod.addresses.v4)).into();
    let resolver = serve(&dns.place, zone)?;
    let at = dns.addresses.v4;
    let options = [&*format!("--resolvers={at}:53")];
    let agent = Agent::start(&n1, &options)?;
    let client = &client.place;
    let address = client.run(|| look_up(at, "server.example.com"))?;

    let before = agent.ask(&["status"])?["revision"].clone();
    // The second name has no server that answers; it must not keep the first one waiting.
    allow(lab.manifests(), at, "a.silent.test, server.example.com, '*.example.com'")?;
    agent.until("the policy is in force", PATIENCE, "status", |status| status["revision"] != before)?;
    ensure!(connects(client, address), "it is closed to a client that knows it from before the rule");
    ensure!(!connects(client, other.addresses.v4), "no one has asked for a name below the wildcard");
    shows(&agent, &[("server.example.com", address, 1)])?;
    let counts = agent.ask(&["status"])?["names"].clone();
    ensure!(counts["learnt"] == 0 && counts["agent"]["entered"] == 1, "the client has asked: {counts}");

    // An agent that starts asks for what no table has, and for nothing else.
    agent.kill()?;
    allow(lab.manifests(), at, "wild.example.com, server.example.com")?;
    let agent = Agent::start(&n1, &options)?;
    agent.until("the name is known that came while no agent ran", PATIENT, "names", |pods| {
        pods[0]["entries"].as_array().is_some_and(|entries| entries.len() == 2)
    })?;
    ensure!(connects(client, other.addresses.v4), "it is closed");
    drop(resolver);
    Ok(())
}

/// As a JVM has it: an answer is kept for longer than its time to live, and connections are pooled.
fn long_connection(lab: &mut Lab) -> Result<()> {
    const KEEP: u64 = 6;
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    let client = n1.pod("x/client").labels(&[("app", "client")]).start()?;
    let dns = n2.pod("x/dns").start()?;
    let (server, other) = (n2.pod("x/server").start()?, n2.pod("x/other").start()?);
    let _http = [&server, &other].map(|pod| pod.place.serve(Service::Http(PORT)));
    let zone = [("a.example.com", &server), ("b.example.com", &other)];
    let zone = zone.map(|(name, pod)| (name.to_owned(), pod.addresses.v4)).into();
    let resolver = serve(&dns.place, zone)?;
    let at = dns.addresses.v4;
    allow(lab.manifests(), at, "'*.example.com'")?;
    let agent = Agent::start(&n1, &[&format!("--resolvers={at}:53"), &format!("--names-keep={KEEP}")])?;
    let client = &client.place;
    for name in ["a.example.com", "b.example.com"] {
        is_open_at_once(client, at, name)?;
    }
    let to = SocketAddr::new(IpAddr::V4(server.addresses.v4), PORT);
    let held = client.run(|| TcpStream::connect_timeout(&to, PATIENCE))?;
    std::thread::sleep(Duration::from_secs(3 * KEEP));
    ensure!(connects(client, server.addresses.v4), "it has ended although a connection to it lives");
    ensure!(!connects(client, other.addresses.v4), "it counts without a connection");
    drop(held);
    agent.until("it has ended after the last connection", PATIENT, "names", |pods| {
        pods[0]["entries"].as_array().is_some_and(Vec::is_empty)
    })?;
    ensure!(!connects(client, server.addresses.v4), "it counts although no connection is left");
    drop(resolver);
    Ok(())
}

fn untrusted_resolver(lab: &mut Lab) -> Result<()> {
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    let client = n1.pod("x/client").labels(&[("app", "client")]).start()?;
    let dns = n2.pod("x/dns").start()?;
    let at = dns.addresses.v4;
    // An address beyond the cluster: whose it is does not matter to who asks.
    let outside = Ipv4Addr::new(198, 51, 100, 7);
    let resolver = serve(&dns.place, [("a.example.com".to_owned(), outside)].into())?;
    allow(lab.manifests(), at, "'*.example.com'")?;
    let agent = Agent::start(&n1, &["--resolvers=192.0.2.53", "--names-keep=3"])?;
    let client = &client.place;
    let address = client.run(|| look_up(at, "a.example.com"))?;
    ensure!(!connects(client, address), "an answer was believed that is no resolver's");
    let server = format!("{at}:53");
    agent.until("the server is named", PATIENT, "names", |pods| {
        pods[0]["untrusted_resolvers"][0] == *server
    })?;
    ensure!(!connects(client, address), "an answer was believed that is no resolver's");
    let flows = n1.podgate(&["flows", "--pod", "x/client", "--denied", "-o", "json"])?;
    ensure!(flows.stdout.contains("\"name_missing\":\"resolver-untrusted\""), "{}", flows.stdout);
    drop(resolver);
    Ok(())
}

fn annotation(lab: &mut Lab) -> Result<()> {
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    let client = n1.pod("x/client").labels(&[("app", "client")]).start()?;
    let (dns, server) = (n2.pod("x/dns").start()?, n2.pod("x/server").start()?);
    let _http = server.place.serve(Service::Http(PORT))?;
    let (at, address) = (dns.addresses.v4, server.addresses.v4);
    let _resolver = serve(&dns.place, [("api.example.com".to_owned(), address)].into())?;
    let policy = format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: names\n  namespace: x\n  \
         annotations:\n    podgate.io/egress-domains: |\n      - *.example.com:{PORT}\nspec:\n  podSelector: \
         {{matchLabels: {{app: client}}}}\n  policyTypes: [Egress]\n  egress:\n  - {{to: [{{ipBlock: {{cidr: \
         {at}/32}}}}]}}\n"
    );
    lab.manifests().write("policy-names.yaml", &policy)?;
    let resolvers = format!("{at}:53");
    let agent = Agent::start(&n1, &["--resolvers", &resolvers])?;
    let client = &client.place;
    let explain = |to: &str| {
        agent.ask(&["explain", "--from", "x/client", "--to", to, "--port", &format!("TCP/{PORT}")])
    };

    ensure!(!connects(client, address), "it is open before it is looked up");
    let answer = explain(&address.to_string())?;
    ensure!(answer["verdict"] == "deny" && answer["kernel"]["asked"] != 0, "{answer:#}");
    let answer = explain("name:api.example.com")?;
    ensure!(
        answer["verdict"] == "allow" && answer["learnt"].as_array().is_some_and(Vec::is_empty),
        "{answer:#}"
    );

    is_open_at_once(client, at, "api.example.com")?;
    let answer = explain("name:api.example.com")?;
    ensure!(
        answer["verdict"] == "allow" && answer["learnt"][0]["address"] == address.to_string(),
        "{answer:#}"
    );
    let rule = &answer["egress"]["policies"][0]["rules"][1];
    ensure!(rule["matched"] == true && rule["annotation"] == "podgate.io/egress-domains", "{answer:#}");
    let answer = explain(&address.to_string())?;
    ensure!(answer["verdict"] == "allow" && answer["learnt"][0]["name"] == "*.example.com", "{answer:#}");
    let disagreements = answer["kernel"]["disagreements"].as_array();
    ensure!(disagreements.is_none_or(Vec::is_empty), "{answer:#}");
    agent.until("the rule of the name has a hit", PATIENCE, "policies", |answer| {
        answer["policies"][0]["egress"]["rules"][1]["hits"] == 1
    })?;
    let flows = n1.podgate(&["flows", "--pod", "x/client", "-o", "json"])?;
    let by_name = |line: &str| {
        let flow: Value = serde_json::from_str(line).ok()?;
        let is_its = flow["verdict"] == "allowed" && flow["destination"]["port"] == PORT;
        (is_its && flow["certain"] == true).then(|| (flow["names"][0].clone(), flow["policies"][0].clone()))
    };
    let flow = flows.stdout.lines().find_map(by_name).with_context(|| flows.stdout.clone())?;
    ensure!(flow.0 == "*.example.com" && flow.1["rules"][0] == 1, "{flow:?}");
    Ok(())
}

/// The client may ask the resolver, and reach these names.
fn allow(manifests: &Manifests, resolver: Ipv4Addr, names: &str) -> Result<()> {
    let text = format!(
        "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: names}}\n\
         spec:\n  tier: Admin\n  priority: 1\n  subject: {{pods: {{namespaceSelector: {{}}, podSelector: \
         {{matchLabels: {{app: client}}}}}}}}\n  egress:\n  - {{action: Accept, to: [{{networks: \
         [{resolver}/32]}}]}}\n  - {{action: Accept, to: [{{domainNames: [{names}]}}]}}\n  - {{action: Deny, \
         to: [{{networks: [0.0.0.0/0, '::/0']}}]}}\n"
    );
    manifests.write("cluster-policy-names.yaml", &text)
}

/// `names` has these entries of the client: name, address, and the rule that matches.
fn shows(agent: &Agent, expected: &[(&str, Ipv4Addr, u64)]) -> Result<()> {
    let pods = agent.ask(&["names"])?;
    let shown = pods[0]["entries"].as_array().context("no entries")?.iter().map(|entry| {
        let [policy] = entry["policies"].as_array()?.as_slice() else { return None };
        let address = entry["address"].as_str()?.parse::<Ipv4Addr>().ok()?;
        let rule = policy["rules"].as_array()?.first()?.as_u64()?;
        let is_alive = (1..=60).contains(&entry["seconds_left"].as_u64()?);
        let is_its = policy["policy"] == "ClusterNetworkPolicy names";
        (is_alive && is_its).then_some((entry["name"].as_str()?, address, rule))
    });
    let expected = expected.iter().map(|entry| Some(*entry));
    ensure!(pods[0]["pod"] == "x/client" && shown.eq(expected), "{pods:#}");
    Ok(())
}

/// Looks a name up and connects to its address in the same breath.
fn is_open_at_once(from: &Place, resolver: Ipv4Addr, name: &str) -> Result<()> {
    let address = from.run(|| look_up(resolver, name)).with_context(|| format!("looking {name} up"))?;
    ensure!(connects(from, address), "{name} is closed right after the look-up");
    Ok(())
}

fn connects(from: &Place, to: Ipv4Addr) -> bool {
    let to = SocketAddr::new(IpAddr::V4(to), PORT);
    from.run(|| TcpStream::connect_timeout(&to, PATIENCE).is_ok())
}

fn look_up(resolver: Ipv4Addr, name: &str) -> Result<Ipv4Addr> {
    ask(&socket_to(resolver)?, name)
}

fn socket_to(resolver: Ipv4Addr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect((resolver, 53))?;
    Ok(socket)
}

fn ask(socket: &UdpSocket, name: &str) -> Result<Ipv4Addr> {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len())?);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    socket.send(&query)?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer)?;
    let address = answer[..length].last_chunk::<4>().context("an answer with an address")?;
    Ok(Ipv4Addr::from(*address))
}

/// A server of these names.
fn serve(place: &Place, zone: BTreeMap<String, Ipv4Addr>) -> Result<Resolver> {
    Resolver::start(place, move |query| answer(query, &zone))
}

fn answer(query: &[u8], zone: &BTreeMap<String, Ipv4Addr>) -> Option<Vec<u8>> {
    let mut labels = Vec::new();
    let mut at = 12;
    while let length @ 1.. = usize::from(*query.get(at)?) {
        labels.push(String::from_utf8_lossy(query.get(at + 1..=at + length)?).into_owned());
        at += 1 + length;
    }
    let address = zone.get(&labels.join("."))?;
    let mut answer = query.get(..at + 5)?.to_vec();
    (answer[2], answer[3], answer[7]) = (0x81, 0x80, 1);
    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4]);
    answer.extend(address.octets());
    Some(answer)
}
