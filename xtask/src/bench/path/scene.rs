//! One variant, alive: a client and a server on a node that filters between them, in network namespaces of
//! their own.
//!
//! In: a variant. Out: sockets of both ends, once it was checked that the filter lets through what it must
//! and stops what it must. Everything is gone with the sandbox. Left out: measuring.

use std::{
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    cluster::{CLOSED_PORT, Cluster, NAMESPACE, PORT},
    empty,
    traffic::Ends,
    variant::{Backend, Hook, SMALL_TABLE, System, Variant},
};
use crate::{
    lab::{Agent, BRIEF, Lab, Node, Pod, Source, until},
    peers::{
        calico::{self, Family},
        npm,
    },
    sandbox::Sandbox,
};

/// A client, a node and a server, and what filters between them. The filter goes when this is dropped.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) variant: Variant,
    pub(super) ends: Ends,
    /// How long the filter took to take its policies in.
    pub(super) loading: Duration,
    _set: Set,
}

/// The namespaces of a scene, and its filter.
#[derive(Debug)]
struct Set {
    lab: Lab,
    node: Node,
    client: Pod,
    server: Pod,
    agent: Option<Agent>,
    empty: Option<empty::Links>,
}

/// How long a filter may take to take its policies in.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// How many exchanges show how many packets each of them has.
const EXCHANGES: u64 = 1_000;
/// Where a packet goes that the node drops at its door, and by way of whom.
const ASTRAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const NOBODY: &str = "169.254.1.2";
const NOBODYS_MAC: &str = "02:90:ff:00:00:01";

impl Scene {
    /// Makes the namespaces, loads the filter, opens the sockets and checks the filter. `None` when the
    /// filter has not taken its policies in within [`PATIENCE`].
    pub(super) fn open(sandbox: Sandbox, number: usize, variant: Variant) -> Result<Option<Self>> {
        let mut set = Set::new(sandbox, number, variant)?;
        let describe = |set: &Set| format!("{}\n{}", variant.describe(), set.lab.logs());
        let started = Instant::now();
        match set.load(variant) {
            Err(_) if started.elapsed() >= PATIENCE => return Ok(None),
            loaded => loaded.with_context(|| describe(&set))?,
        }
        let loading = started.elapsed();
        let unfiltered = matches!(variant.system, System::Nothing | System::Control);
        let address = if unfiltered { ASTRAY } else { set.server.addresses.v4 };
        let denied = SocketAddrV4::new(address, CLOSED_PORT);
        let mut ends = Ends::open(&set.client, &set.server, denied).with_context(|| describe(&set))?;
        set.check(&mut ends, variant.denies()).with_context(|| describe(&set))?;
        Ok(Some(Self { variant, ends, loading, _set: set }))
    }
}

impl Set {
    fn new(sandbox: Sandbox, number: usize, variant: Variant) -> Result<Self> {
        let mut lab = Lab::new(sandbox, &format!("b{number}"))?;
        let node = lab.node("n1")?;
        let apps = Cluster::apps(variant.policies, variant.standing);
        let [client, server] = [("client", &apps[0]), ("server", &apps[1])].map(|(name, app)| {
            let pod = node.pod(&format!("{NAMESPACE}/{name}")).labels(&[("app", app)]).start()?;
            // A client that ends thousands of connections may use their ports again, and one that rests
            // between two visits goes on as it was.
            pod.place.sysctls(&[
                ("ipv4/ip_local_port_range", "1024 65535"),
                ("ipv4/tcp_tw_reuse", "1"),
                ("ipv4/tcp_syncookies", "0"),
                ("ipv4/tcp_slow_start_after_idle", "0"),
            ])?;
            anyhow::Ok(pod)
        });
        let (client, server) = (client?, server?);
        client.place.ip(&format!(
            "neigh replace {NOBODY} lladdr {NOBODYS_MAC} dev eth0 nud permanent\n\
             route add {NOBODY} dev eth0 scope link\nroute add {ASTRAY} via {NOBODY} dev eth0\n"
        ))?;
        Ok(Self { lab, node, client, server, agent: None, empty: None })
    }

    fn load(&mut self, variant: Variant) -> Result<()> {
        let addresses = [&self.client, &self.server].map(|pod| pod.addresses.v4);
        let cluster = Cluster::new(variant.policies, variant.standing, addresses);
        let table = SMALL_TABLE.to_string();
        match variant.system {
            System::Nothing | System::Control => Ok(()),
            System::Empty => {
                let veths = [&self.client, &self.server].map(|pod| pod.host_interface.as_str());
                self.empty = Some(self.node.place.run(|| empty::attach(&veths))?);
                Ok(())
            }
            System::Conntrack => {
                let rule = "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT";
                let rules = format!("*filter\n:FORWARD ACCEPT [0:0]\n{rule}\nCOMMIT\n");
                self.restore("iptables-nft-restore", &rules)
            }
            System::Podgate(Hook::Tcx) => self.start_agent(&cluster, &["--hook", "tcx"]),
            System::Podgate(Hook::Clsact) => self.start_agent(&cluster, &["--hook", "clsact"]),
            System::SmallTable => self.start_agent(&cluster, &["--hook", "tcx", "--flows", &table]),
            System::Shortcut => {
                let settings = ["nf_conntrack_tcp_loose", "nf_conntrack_tcp_be_liberal"];
                let settings = settings.map(|name| (format!("netfilter/{name}"), "1"));
                self.node.place.sysctls(&settings.each_ref().map(|(name, value)| (name.as_str(), *value)))?;
                self.start_agent(&cluster, &["--hook", "tcx", "--shortcut", "local"])?;
                self.shortcut_is_open()
            }
            System::Npm(backend) => {
                let (pods, policies) = cluster.everything();
                let rules = npm::rules(NAMESPACE, &pods, &policies);
                self.node.place.feed(&["ipset", "restore"], &rules.sets)?;
                self.restore(backend.restore(), &rules.filter)
            }
            System::Calico => {
                let (objects, here) = cluster.on_a_node();
                let own = [&self.client, &self.server].map(|pod| pod.host_interface.clone());
                // Interfaces of pods that do not talk need not be there to be matched against.
                let others = (own.len()..here).map(|number| format!("veth{:08x}", scattered(number)));
                let veths: Vec<String> = own.into_iter().chain(others).collect();
                let pods: Vec<_> = objects.iter().zip(veths.iter().map(String::as_str)).take(here).collect();
                let rules = calico::rules(&objects, 0, Family::V4, &pods);
                self.node.place.feed(&["ipset", "restore"], &rules.sets)?;
                self.restore(Family::V4.restore(), &rules.filter)
            }
        }
    }

    fn start_agent(&mut self, cluster: &Cluster, options: &[&str]) -> Result<()> {
        self.lab.manifests().write("cluster.json", &cluster.manifests().to_string())?;
        let agent = self.agent.insert(Agent::spawn(&self.node, Source::Manifests, options)?);
        agent.ready(PATIENCE)
    }

    /// Waits until packets between the two pods may take the short cut.
    fn shortcut_is_open(&self) -> Result<()> {
        let agent = self.agent.as_ref().context("no agent")?;
        let own = [&self.client, &self.server].map(|pod| pod.host_interface.clone());
        let is_open = |endpoint: &Value| {
            own.iter().any(|name| endpoint["interface"] == **name) && endpoint["shortcut"]["open"] == true
        };
        let are_open = |endpoints: &Value| {
            endpoints.as_array().is_some_and(|all| all.iter().filter(|one| is_open(one)).count() == own.len())
        };
        agent.until("the short cut is open", PATIENCE, "endpoints", are_open).map(drop)
    }

    /// Loads a table, for as long as patience lasts.
    fn restore(&self, program: &str, rules: &str) -> Result<()> {
        self.node.place.feed(&["timeout", &PATIENCE.as_secs().to_string(), program], rules)
    }

    /// What is opened is open (else the sockets would not stand), and the rest is closed where policies say
    /// so.
    fn check(&self, ends: &mut Ends, denies: bool) -> Result<()> {
        ends.one_way(Duration::ZERO).context("a datagram to the open port")?;
        ends.request(Duration::ZERO).context("a datagram and its answer")?;
        ends.syn(Duration::ZERO).context("SYNs to the full listener")?;
        for (what, from, to, port) in [
            ("to a closed port", &self.client, &self.server, CLOSED_PORT),
            ("from the server to the client", &self.server, &self.client, PORT),
        ] {
            let arrived = arrives(from, to, port)?;
            ensure!(arrived != denies, "a datagram {what}: arrived is {arrived}, denied should be {denies}");
        }
        // Without this an exchange would have other packets than one each way, and a packet another price.
        let before = self.packets()?;
        for _ in 0..EXCHANGES {
            ends.exchange(1)?;
        }
        let packets = self.packets()? - before;
        ensure!(
            (EXCHANGES..EXCHANGES + EXCHANGES / 20).contains(&packets),
            "{packets} packets to the server in {EXCHANGES} exchanges"
        );
        Ok(())
    }

    /// How many packets the server has received.
    fn packets(&self) -> Result<u64> {
        let (interface, place) = ("eth0", &self.server.place);
        let counters = place.run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))?;
        let line = counters.lines().find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'));
        // Bytes, packets (proc_net(5)).
        let received = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        received.with_context(|| format!("no counters of {interface}"))
    }
}

/// Whether a datagram to `port` gets through.
fn arrives(from: &Pod, to: &Pod, port: u16) -> Result<bool> {
    let address = to.addresses.v4;
    // The open port is held by the receiver of all measurements.
    let receiver = to.place.run(|| UdpSocket::bind((address, port))).context("binding a receiver")?;
    receiver.set_nonblocking(true)?;
    let sender = from.place.run(|| UdpSocket::bind((from.addresses.v4, 0))).context("binding a sender")?;
    sender.send_to(&[1], (address, port)).context("sending")?;
    let seen = until("a datagram", BRIEF, || Ok(receiver.recv(&mut [0; 1]).ok()));
    Ok(seen.is_ok())
}

/// Numbers whose hexadecimal digits look like those of hashes (Knuth's multiplicative one).
fn scattered(number: usize) -> u32 {
    u32::try_from(number).expect("few pods").wrapping_mul(2_654_435_761)
}

impl Backend {
    fn restore(self) -> &'static str {
        match self {
            Self::Nft => "iptables-nft-restore",
            Self::Legacy => "iptables-legacy-restore",
        }
    }
}
