//! A pod that scans, floods and churns as fast as it can, beside pods that do little: what they have stays,
//! what they open gets through, and what is denied to others is counted.
//!
//! It lasts some seconds; `PODGATE_FLOOD_SECONDS` says how many.

use std::{
    env,
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Socket, Type};
use xtask::lab::{Agent, BRIEF, Lab, PATIENT, Place, Seen, Service, Traffic, unspecified, until};

use super::{
    Test,
    live::Live,
    reported::metric,
    scene::{CLOSE, EVERY_KIND, apply, becomes, expect, serve_all},
};

pub(crate) const TESTS: &[(&str, Test)] =
    &[("a_pod_that_scans_floods_and_churns_ends_no_connection_of_others", flood)];

const SECONDS: &str = "PODGATE_FLOOD_SECONDS";
/// What the flood lasts otherwise.
const BY_DEFAULT: u64 = 5;
/// Room for connections: the flood fills it many times.
const ROOM: &str = "8192";
/// Idle connections of each pod, to each address.
const IDLE: usize = 20;

fn flood(lab: &mut Lab) -> Result<()> {
    let time = env::var(SECONDS).ok().map(|text| text.parse()).transpose().context(SECONDS)?;
    let time = Duration::from_secs(time.unwrap_or(BY_DEFAULT));
    let node = lab.node("n1")?;
    let outside = lab.outside("outside")?;
    let closed = |name: &str| node.pod(name).labels(&[("app", "closed")]).start();
    let (server, vault) = (closed("x/server")?, closed("x/vault")?);
    let quiet = [closed("x/quiet-0")?, closed("x/quiet-1")?, closed("x/quiet-2")?];
    let (honest, stranger) =
        (node.pod("x/honest").labels(&[("role", "friend")]).start()?, node.pod("x/stranger").start()?);
    let (attacker, sink) = (node.pod("x/attacker").start()?, node.pod("x/sink").start()?);
    let _servers = [serve_all(&server.place)?, serve_all(&vault.place)?, serve_all(&quiet[0].place)?];
    let _sinks = [sink.place.serve(Service::TcpEcho(7))?, attacker.place.serve(Service::TcpEcho(7))?];
    let agent = Agent::start(&node, &["--flows", ROOM])?;

    // The policy comes after them: they live by their entries alone.
    let clients = quiet.iter().map(|pod| (&pod.place, &server)).chain([(&outside.place, &quiet[0])]);
    let mut idle = Vec::new();
    for (place, to) in clients {
        for address in to.addresses.both() {
            for _ in 0..IDLE {
                idle.push(Live::open(place, address)?);
            }
        }
    }
    apply(lab.manifests(), "close", CLOSE)?;
    for (place, to) in [(&quiet[1].place, &server), (&outside.place, &quiet[0])] {
        becomes(place, to.addresses.v4.into(), Traffic::Tcp(7), Seen::Blocked)?;
    }

    let drops =
        || metric(&agent, "podgate_pod_drops_total{pod=\"x/vault\",direction=\"ingress\",reason=\"denied\"}");
    let before = drops()?;
    let end = Instant::now() + time;
    let sent = AtomicU64::new(0);
    let follower = node.follow(&["flows", "--denied", "--follow", "-o", "json"])?;
    let denied = thread::scope(|scope| -> Result<u64> {
        let (at, target) = (&attacker.place, &server);
        let floods: [(&Place, Attack, IpAddr); 5] = [
            (at, scan, target.addresses.v4.into()),
            (at, scan, target.addresses.v6.into()),
            (at, half_open, target.addresses.v4.into()),
            (at, churn, sink.addresses.v4.into()),
            // It answers and refuses.
            (&outside.place, churn, attacker.addresses.v4.into()),
        ];
        let sent = &sent;
        let floods: Vec<_> =
            floods.map(|(place, attack, to)| scope.spawn(move || place.run(|| attack(to, end, sent)))).into();
        let mut denied = 0;
        while Instant::now() < end {
            expect(&honest.place, server.addresses, &EVERY_KIND, Seen::Reached)?;
            let seen = stranger.place.probe(vault.addresses.v4.into(), Traffic::Tcp(80), BRIEF / 4)?;
            ensure!(seen == Seen::Blocked, "a stranger's connection: {seen}");
            denied += 1;
        }
        for flood in floods {
            flood.join().expect("it does not panic")?;
        }
        Ok(denied)
    })?;
    let evicted = agent.page("/metrics")?;
    let evicted: Vec<_> = evicted.lines().filter(|line| line.starts_with("podgate_flow_evict")).collect();
    println!("{} packets and connections in {time:?}: {evicted:#?}", sent.load(Ordering::Relaxed));

    idle.iter_mut().try_for_each(Live::goes_on).context("an idle connection")?;
    expect(&honest.place, server.addresses, &EVERY_KIND, Seen::Reached)?;
    until("what was denied to others is counted", PATIENT, || {
        Ok((drops()? - before >= denied).then_some(()))
    })?;
    until("what was denied to others is reported", PATIENT, || {
        let (line, _) = follower.next(PATIENT)?;
        Ok((line.contains("x/stranger") && line.contains("x/vault")).then_some(()))
    })
}

/// Attacks an address until it is over, and counts what it has sent.
type Attack = fn(IpAddr, Instant, &AtomicU64) -> Result<()>;

/// Every port, from one port after the other.
fn scan(to: IpAddr, end: Instant, sent: &AtomicU64) -> Result<()> {
    while Instant::now() < end {
        let socket = UdpSocket::bind(SocketAddr::new(unspecified(to), 0))?;
        for port in 1_000..2_000 {
            // Others have taken the room of the queue.
            sent.fetch_add(
                u64::from(socket.send_to(b"x", SocketAddr::new(to, port)).is_ok()),
                Ordering::Relaxed,
            );
        }
    }
    Ok(())
}

/// SYNs that nothing comes of.
fn half_open(to: IpAddr, end: Instant, sent: &AtomicU64) -> Result<()> {
    let mut ports = (10_000..60_000_u16).cycle();
    while Instant::now() < end {
        let socket = Socket::new(Domain::for_address(SocketAddr::new(to, 0)), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        let port = ports.next().context("a cycle")?;
        // It is in progress, or there was no port left.
        let _ = socket.connect(&SocketAddr::new(to, port).into());
        sent.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Connections that are answered and reset, and others that are refused.
fn churn(to: IpAddr, end: Instant, sent: &AtomicU64) -> Result<()> {
    for port in [7, 7, 81].into_iter().cycle() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        match TcpStream::connect_timeout(&SocketAddr::new(to, port), left.min(BRIEF)) {
            // No port waits for late segments then.
            Ok(stream) => Socket::from(stream).set_linger(Some(Duration::ZERO))?,
            Err(error) if error.kind() == ErrorKind::InvalidInput => return Err(error.into()),
            Err(_) => {}
        }
        sent.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
