//! The first agent comes to a node whose pods are connected already.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MntFlags, umount2};
use socket2::{Domain, Protocol, Socket, Type};
use xtask::lab::{
    Addresses, Agent, BRIEF, Daemon, Lab, PATIENT, Place, Pod, PodNetworkMode, Seen, join, until,
};

use super::{
    Test,
    policies::DENY_ALL,
    scene::{EVERY_KIND, apply, expect, serve_all, together},
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("live_connections_survive_the_first_agent_and_new_ones_are_evaluated", |lab| {
        arrival(lab, PodNetworkMode::Routed)
    }),
    ("live_connections_survive_the_first_agent_on_a_bridge", |lab| arrival(lab, PodNetworkMode::Bridge)),
    ("a_pod_whose_namespace_is_hidden_is_isolated_all_the_same", hidden),
    ("an_agent_that_rechecks_cuts_what_is_denied_and_keeps_what_is_allowed", rechecked),
];

/// How long connections are watched after the agent is there.
const WATCHED: Duration = Duration::from_secs(3);

fn arrival(lab: &mut Lab, wiring: PodNetworkMode) -> Result<()> {
    let (n1, n2) = (lab.wired_node("n1", wiring)?, lab.node("n2")?);
    n1.track_connections()?;
    let closed = |name: &str| n1.pod(name).labels(&[("app", "closed")]).start();
    // Each pod's network namespace is to be found in another way.
    let (named, running, kept) = (closed("x/named")?, closed("x/running")?, closed("x/kept")?);
    named.cache_cni_result()?;
    // As its pause container is one.
    let _process = Daemon::spawn("sleep", running.place.command("sleep").arg("1000"))?;
    let _file = NamespaceFile::keep(&kept)?;
    let (free, remote) = (n1.pod("x/free").start()?, n2.pod("y/remote").start()?);
    let (outside, client_denied) = (lab.outside("outside")?, lab.outside("stranger")?);
    apply(lab.manifests(), "close", DENY_ALL)?;

    let pods = [&named, &running, &kept, &remote].map(|pod| (&pod.place, pod.addresses));
    let [named_end, running_end, kept_end, remote_end] = pods;
    let outside_end = (&outside.place, outside.addresses);
    let paths = [
        (named_end, running_end),
        (running_end, kept_end),
        (kept_end, outside_end),
        (outside_end, named_end),
        (remote_end, running_end),
        (named_end, remote_end),
    ];
    let open = || -> Result<Vec<Pair>> {
        let ways =
            paths.iter().flat_map(|&(client, (server, at))| at.both().map(|at| (client.0, server, at)));
        let kinds = ways.flat_map(|(client, server, at)| {
            [Type::STREAM, Type::DGRAM].map(|kind| (client, server, at, kind))
        });
        kinds.map(|(client, server, at, kind)| Pair::open(client, server, at, kind)).collect()
    };
    let (busy, idle) = (open()?, open()?);

    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let talking = scope.spawn(|| together(&busy, |pair| pair.talk_until(&over)));
        let evaluated = || -> Result<()> {
            let agent = Agent::start(&n1, &[])?;
            let flows = flows(&agent)?;
            ensure!(flows >= busy.len() + idle.len(), "only {flows} connections are in the table");
            let watched = Instant::now() + WATCHED;
            let servers = [&named, &running, &kept, &remote].map(|pod| serve_all(&pod.place));
            let _servers = servers.into_iter().collect::<Result<Vec<_>>>()?;
            let _outside = serve_all(&outside.place)?;
            for ((client, _), (_, at)) in paths {
                expect(client, at, &EVERY_KIND, Seen::Blocked)?;
            }
            stray_segments(&client_denied.place, client_denied.addresses, &[&named, &running, &kept], &free)?;
            until("the connections were watched", 2 * WATCHED, || {
                Ok((Instant::now() >= watched).then_some(()))
            })?;
            agent.kill()?;
            let _agent = Agent::start(&n1, &[])?;
            expect(&outside.place, named.addresses, &EVERY_KIND, Seen::Blocked)?;
            expect(&named.place, running.addresses, &EVERY_KIND, Seen::Blocked)
        };
        let evaluated = evaluated();
        over.store(true, Ordering::Relaxed);
        let talks = join(talking);
        evaluated?;
        for (pair, count) in busy.iter().zip(talks?) {
            ensure!(count >= 10, "{} has talked {count} times only", pair.what);
        }
        together(&idle, Pair::talk).map(|_| ())
    })
}

/// Entries of the flow table, as the agent counts them.
fn flows(agent: &Agent) -> Result<usize> {
    let status = agent.ask(&["status"])?;
    let tables = status["tables"].as_array().context("a list of tables")?;
    let flows = tables.iter().find(|table| table["name"] == "flows").context("the table of flows")?;
    ensure!(flows["capacity"].as_u64().is_some(), "the table has no size: {flows}");
    Ok(usize::try_from(flows["entries"].as_u64().context("a number of entries")?)?)
}

/// A TCP segment in mid-stream, of a connection that never was, arrives at a free pod and at no closed one.
fn stray_segments(from: &Place, source: Addresses, closed: &[&Pod], free: &Pod) -> Result<()> {
    let captures = closed.iter().map(|pod| pod.place.capture()).collect::<Result<Vec<_>>>()?;
    let arrived = free.place.capture()?;
    for pod in closed.iter().chain([&free]) {
        for to in pod.addresses.both() {
            from.run(|| send_segment(to)).with_context(|| format!("a segment to {to}"))?;
        }
    }
    for address in source.both() {
        until("the segment arrives at the free pod", PATIENT, || {
            Ok((!arrived.from(&[address]).is_empty()).then_some(()))
        })?;
    }
    captures.iter().try_for_each(|capture| capture.nothing_from(&source.both()))
}

/// RFC 9293 section 3.1: from port 40000 to port 80, an ACK alone.
fn send_segment(to: IpAddr) -> std::io::Result<()> {
    let mut segment = [0; 20];
    segment[..2].copy_from_slice(&40_000_u16.to_be_bytes());
    segment[2..4].copy_from_slice(&80_u16.to_be_bytes());
    segment[4..12].copy_from_slice(&[1; 8]);
    (segment[12], segment[13]) = (5 << 4, 0x10);
    let socket = Socket::new(Domain::for_address(SocketAddr::new(to, 0)), Type::RAW, Some(Protocol::TCP))?;
    socket.send_to(&segment, &SocketAddr::new(to, 0).into()).map(|_| ())
}

fn hidden(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let pod = node.pod("x/hidden").labels(&[("app", "closed")]).start()?;
    let outside = lab.outside("outside")?;
    apply(lab.manifests(), "close", DENY_ALL)?;
    let pair = Pair::open(&outside.place, &pod.place, pod.addresses.v4.into(), Type::STREAM)?;
    let _servers = serve_all(&pod.place)?;
    let _agent = Agent::start(&node, &[])?;
    let warned = |line: &str| {
        line.contains("WARN") && line.contains("x/hidden") && line.contains("existing connections")
    };
    ensure!(lab.logs().lines().any(warned), "no warning names the pod");
    expect(&outside.place, pod.addresses, &EVERY_KIND, Seen::Blocked)?;
    ensure!(!pair.hears(BRIEF)?, "its live connection goes on");
    // The node itself is never kept out.
    expect(&node.place, pod.addresses, &EVERY_KIND, Seen::Reached)
}

/// The server may answer its client, but may open nothing: who came to whom must be known.
fn rechecked(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let pod = node.pod("x/server").labels(&[("app", "server")]).start()?;
    pod.cache_cni_result()?;
    let local = node.pod("x/local").start()?;
    local.cache_cni_result()?;
    let (client_allowed, client_denied) = (lab.outside("friend")?, lab.outside("stranger")?);
    let open = |client: &Place| Pair::open(client, &pod.place, pod.addresses.v4.into(), Type::STREAM);
    let [allowed, denied, of_local, of_node] =
        [&client_allowed.place, &client_denied.place, &local.place, &node.place].map(open);
    apply(
        lab.manifests(),
        "friends",
        &format!(
            "  podSelector: {{matchLabels: {{app: server}}}}\n  policyTypes: [Ingress, Egress]\n  ingress:\n  - from:\n    \
             - ipBlock: {{cidr: {}/32}}\n    - podSelector: {{}}\n",
            client_allowed.addresses.v4
        ),
    )?;
    let _agent = Agent::start(&node, &["--established", "recheck"])?;
    // The server speaks first.
    [allowed?, of_local?].iter().try_for_each(Pair::talk)?;
    ensure!(!denied?.hears(BRIEF)?, "a connection that is denied goes on");
    // From the node's address alone no one can tell that it is the node; its next packet does.
    let of_node = of_node?;
    (&of_node.client).write_all(WORDS).context("the node's client")?;
    (&of_node.server).read_exact(&mut [0; WORDS.len()]).context("the node's client is heard")?;
    of_node.talk()
}

pub(crate) const WORDS: &[u8] = b"still there?";

/// How often a connection in use is used: two dozen of them leave the machine to the other tests.
const PACE: Duration = Duration::from_millis(30);

/// How often a lost datagram is sent again.
const RESEND: Duration = Duration::from_millis(200);

/// Both ends of a connection.
pub(crate) struct Pair {
    what: String,
    client: Socket,
    server: Socket,
    kind: Type,
    /// What tells that the server is one.
    _listener: Socket,
}

impl Pair {
    /// Over TCP, or between two connected UDP sockets. Words have gone both ways when it returns.
    pub(crate) fn open(client: &Place, server: &Place, at: IpAddr, kind: Type) -> Result<Self> {
        let what = format!("{} to {} at {at}, {kind:?}", client.name(), server.name());
        let open = || -> Result<Self> {
            let domain = Domain::for_address(SocketAddr::new(at, 0));
            // As most servers: one IPv6 socket on all addresses takes IPv4 too.
            let listener = server.run(|| bound(Domain::IPV6, kind, (Ipv6Addr::UNSPECIFIED, 0).into()))?;
            let port = listener.local_addr()?.as_socket().context("an IP socket")?.port();
            let client = client.run(|| Socket::new(domain, kind, None))?;
            let (client, server) = match kind {
                Type::STREAM => {
                    listener.listen(1)?;
                    client.connect_timeout(&SocketAddr::new(at, port).into(), PATIENT)?;
                    (client, listener.accept()?.0)
                }
                _ => {
                    client.connect(&SocketAddr::new(at, port).into())?;
                    let peer = client.local_addr()?;
                    let answering = server.run(|| bound(domain, kind, SocketAddr::new(at, port)))?;
                    answering.connect(&peer)?;
                    (client, answering)
                }
            };
            for socket in [&client, &server] {
                socket.set_read_timeout(Some(if kind == Type::STREAM { PATIENT } else { RESEND }))?;
            }
            let pair = Self { what: what.clone(), client, server, kind, _listener: listener };
            pair.talk()?;
            Ok(pair)
        };
        open().with_context(|| what.clone())
    }

    /// Words from the server to the client, and back.
    pub(crate) fn talk(&self) -> Result<()> {
        for (from, to) in [(&self.server, &self.client), (&self.client, &self.server)] {
            self.say(from, to).with_context(|| self.what.clone())?;
        }
        Ok(())
    }

    fn say(&self, mut from: &Socket, mut to: &Socket) -> Result<()> {
        let mut heard = [0; WORDS.len()];
        let deadline = Instant::now() + PATIENT;
        from.write_all(WORDS)?;
        while let Err(error) = to.read_exact(&mut heard) {
            let lost = error.kind() == ErrorKind::WouldBlock && self.kind == Type::DGRAM;
            if !lost || Instant::now() > deadline {
                bail!("nothing is heard: {error}");
            }
            from.write_all(WORDS)?;
        }
        ensure!(heard == WORDS, "heard {heard:?}");
        Ok(())
    }

    /// Talks until it is over; returns how often.
    fn talk_until(&self, over: &AtomicBool) -> Result<usize> {
        let mut count = 0;
        while !over.load(Ordering::Relaxed) {
            let next = Instant::now() + PACE;
            self.talk().with_context(|| format!("at talk {count}"))?;
            count += 1;
            until("the next talk", PATIENT, || Ok((Instant::now() >= next).then_some(())))?;
        }
        Ok(count)
    }

    /// Whether anything of what the server says arrives in time.
    fn hears(&self, patience: Duration) -> Result<bool> {
        (&self.server).write_all(WORDS)?;
        self.client.set_read_timeout(Some(patience))?;
        match (&self.client).read(&mut [0; WORDS.len()]) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error).context("waiting for what must not come"),
        }
    }
}

pub(crate) fn bound(domain: Domain, kind: Type, at: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(domain, kind, None)?;
    // For a connected UDP socket beside the one that takes all others.
    socket.set_reuse_port(true)?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(false)?;
    }
    socket.bind(&at.into())?;
    Ok(socket)
}

/// A pod's namespace as a file, as `ip netns` and container runtimes keep it.
struct NamespaceFile(PathBuf);

impl NamespaceFile {
    fn keep(pod: &Pod) -> Result<Self> {
        let directory = PathBuf::from("/run/netns");
        fs::create_dir_all(&directory).context("creating /run/netns")?;
        // Labs of other tests keep theirs in the same place.
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let path = directory.join(format!("cni-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        pod.place.keep_as(&path)?;
        Ok(Self(path))
    }
}

impl Drop for NamespaceFile {
    fn drop(&mut self) {
        // What stays vanishes with the sandbox.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
        let _ = fs::remove_file(&self.0);
    }
}
