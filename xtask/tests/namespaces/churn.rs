//! Pods that start while the agent is killed and started again at random, and across a reboot of the node:
//! nothing that an isolated one sends arrives, and nothing arrives at it, from the moment at which the CNI
//! plugin lets it start.
//!
//! `PODGATE_PODS=1000` starts more of them than the suite does.

use std::{
    collections::VecDeque,
    env,
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xtask::lab::{Addresses, Agent, Host, Lab, Node, Place, Pod, Source, join, until};

use super::{Test, cni::forget_all, policies::DENY_ALL, scene::apply};

pub(crate) const TESTS: &[(&str, Test)] =
    &[("no_packet_of_an_isolated_pod_passes_while_agents_are_killed_and_the_node_reboots", churn)];

/// How many pods the suite starts.
const PODS: usize = 32;
/// Of one node: it numbers its pods by bytes, and those after the reboot have other numbers.
const OF_A_NODE: usize = 200;
/// Pods that are started at once.
const AT_ONCE: usize = 4;
/// Every so many pods there is one that no policy selects, for the datagrams would not arrive anyway if
/// nothing did.
const NOT_ISOLATED: usize = 8;

const SINK: u16 = 9;
const PORT: u16 = 7_000;

/// A pod that sends from its start, and listens.
struct Talker {
    pod: Pod,
    is_free: bool,
    sockets: [UdpSocket; 2],
    /// Of its own.
    arrived: AtomicUsize,
}

/// What was sent and what came, of all pods together.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicUsize,
    /// What isolated pods have sent or received.
    leaked: AtomicUsize,
    kills: AtomicUsize,
    again: AtomicUsize,
}

/// A small generator (xorshift): the schedule differs from run to run, and a failure prints where it began.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn churn(lab: &mut Lab) -> Result<()> {
    let pods: usize = env::var("PODGATE_PODS").ok().map_or(Ok(PODS), |text| text.parse())?;
    let seed = u64::from(SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos()) << 1 | 1;
    let (counts, began) = (Counts::default(), Instant::now());
    lab.manifests().namespace("open", &[])?;
    apply(lab.manifests(), "deny-all", DENY_ALL)?;
    let outside = lab.outside("outside")?;
    let mut left = pods;
    for number in 1.. {
        let of_this = left.min(OF_A_NODE);
        if of_this == 0 {
            break;
        }
        left -= of_this;
        let node = lab.node(&format!("n{number}"))?;
        let round = Round { node, outside: &outside, counts: &counts };
        round.run(of_this, Random(seed.wrapping_mul(number))).with_context(|| format!("seed {seed}"))?;
    }
    let Counts { sent, leaked, kills, again } = counts;
    let (sent, leaked) = (sent.into_inner(), leaked.into_inner());
    println!(
        "{pods} pods, {} agents killed, {} ADDs came again, {sent} datagrams of or to isolated pods, {leaked} passed, {} s",
        kills.into_inner(),
        again.into_inner(),
        began.elapsed().as_secs()
    );
    ensure!(sent > pods, "isolated pods have sent");
    ensure!(leaked == 0, "{leaked} of {sent} datagrams passed");
    Ok(())
}

/// The pods of one node.
struct Round<'a> {
    node: Node,
    outside: &'a Host,
    counts: &'a Counts,
}

impl Round<'_> {
    fn run(&self, pods: usize, mut random: Random) -> Result<()> {
        let before = pods / 2;
        let talkers = self.life(0..before, &mut random)?;
        // The reboot: everything in the kernel is gone, and what is below `/run`.
        for Talker { pod, .. } in talkers {
            pod.remove()?;
        }
        forget_all(&self.node)?;
        let talkers = self.life(before..pods, &mut random)?;
        talkers.into_iter().try_for_each(|talker| talker.pod.remove())
    }

    /// From the start of the node to its end: pods start without an agent, then while agents come and go.
    fn life(&self, numbers: std::ops::Range<usize>, random: &mut Random) -> Result<Vec<Talker>> {
        let (talkers, over) = (Mutex::new(Vec::new()), AtomicBool::new(false));
        let early = numbers.start + numbers.len() / 4;
        let waiting: Mutex<VecDeque<usize>> = Mutex::new((numbers.start..early).collect());
        let later: Vec<usize> = (early..numbers.end).collect();
        thread::scope(|scope| {
            let pump = scope.spawn(|| self.pump(&talkers, &over));
            let lived = (|| {
                self.start_all(&waiting, &talkers)?;
                lock(&waiting).extend(later);
                let started = AtomicBool::new(false);
                let agent = thread::scope(|scope| {
                    let chaos = scope.spawn(|| self.chaos(&started, random));
                    let done = self.start_all(&waiting, &talkers);
                    started.store(true, Ordering::Relaxed);
                    let agent = join(chaos)?;
                    done.map(|()| agent)
                })?;
                until("free pods are heard", Duration::from_secs(60), || {
                    let talkers = lock(&talkers);
                    let heard = |it: &&Talker| it.arrived.load(Ordering::Relaxed) > 0;
                    Ok(talkers.iter().filter(|it| it.is_free).all(|it| heard(&it)).then_some(()))
                })?;
                agent.kill()
            })();
            over.store(true, Ordering::Relaxed);
            join(pump)?;
            lived
        })?;
        Ok(talkers.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn start_all(&self, waiting: &Mutex<VecDeque<usize>>, talkers: &Mutex<Vec<Talker>>) -> Result<()> {
        thread::scope(|scope| {
            let starters: Vec<_> = (0..AT_ONCE)
                .map(|_| {
                    scope.spawn(|| -> Result<()> {
                        loop {
                            let Some(number) = lock(waiting).pop_front() else { return Ok(()) };
                            let talker = self.start(number)?;
                            lock(talkers).push(talker);
                        }
                    })
                })
                .collect();
            starters.into_iter().try_for_each(join)
        })
    }

    /// As the kubelet starts a pod: it tries again for as long as it is told to.
    fn start(&self, number: usize) -> Result<Talker> {
        let kind = number % NOT_ISOLATED;
        let is_free = kind <= 1;
        let (name, labels) = match kind {
            0 => (format!("open/pod-{number}"), &[("app", "closed")][..]),
            1 => (format!("x/free-{number}"), &[][..]),
            _ => (format!("x/pod-{number}"), &[("app", "closed")][..]),
        };
        let spec = self.node.pod(&name).labels(labels);
        spec.list_pending()?;
        let pod = spec.plug()?;
        pod.assign()?;
        until(&format!("{name} starts"), Duration::from_secs(120), || {
            let added = pod.cni("ADD", json!({"timeout": 5}))?;
            if added.status.success() {
                return Ok(Some(()));
            }
            self.counts.again.fetch_add(1, Ordering::Relaxed);
            let error: Value = serde_json::from_str(&added.stdout).unwrap_or_default();
            ensure!(error["code"] == 11, "ADD of {name}: {}", added.text());
            ensure!(pod.cni("DEL", json!({}))?.status.success(), "DEL of {name}");
            Ok(None)
        })?;
        let sockets = bound(&pod.place, pod.addresses, PORT)?;
        pod.cache_cni_result()?;
        pod.list()?;
        Ok(Talker { pod, is_free, sockets, arrived: AtomicUsize::new(0) })
    }

    /// Starts agents and kills them, some before they are ready, until all pods have started; returns one
    /// that is ready.
    fn chaos(&self, started: &AtomicBool, random: &mut Random) -> Result<Agent> {
        while !started.load(Ordering::Relaxed) {
            let agent = Agent::spawn(&self.node, Source::Manifests, &[])?;
            self.rest(started, random.below(4_000));
            agent.kill()?;
            self.counts.kills.fetch_add(1, Ordering::Relaxed);
            self.rest(started, random.below(1_000));
        }
        Agent::start(&self.node, &[])
    }

    /// Lets time pass, unless all pods have started.
    fn rest(&self, started: &AtomicBool, milliseconds: u64) {
        // That the time is up is no fault here.
        let _ = until("all pods have started", Duration::from_millis(milliseconds), || {
            Ok(started.load(Ordering::Relaxed).then_some(()))
        });
    }

    /// Sends from every pod to a host outside, and from there to every pod, and counts what comes.
    fn pump(&self, talkers: &Mutex<Vec<Talker>>, over: &AtomicBool) -> Result<()> {
        let to = self.outside.addresses;
        let outside = bound(&self.outside.place, to, SINK)?;
        let sinks = to.both().map(|to| SocketAddr::new(to, SINK));
        while !over.load(Ordering::Relaxed) {
            {
                let talkers = lock(talkers);
                for (number, talker) in talkers.iter().enumerate() {
                    talker.speak(number, &sinks, &outside, self.counts)?;
                }
                self.listen(&outside, &talkers)?;
            }
            // Other tests run on this machine, too.
            thread::park_timeout(Duration::from_millis(5));
        }
        Ok(())
    }

    fn listen(&self, outside: &[UdpSocket; 2], talkers: &[Talker]) -> Result<()> {
        let mut number = [0; 8];
        for socket in outside {
            while let Some(8) = received(socket, &mut number)? {
                let talker = talkers.get(usize::from_ne_bytes(number)).context("a pod's number")?;
                talker.arrived.fetch_add(1, Ordering::Relaxed);
                if !talker.is_free {
                    self.counts.leaked.fetch_add(1, Ordering::Relaxed);
                    eprintln!("a datagram of {} has arrived", talker.pod.name());
                }
            }
        }
        Ok(())
    }
}

impl Talker {
    fn speak(
        &self,
        number: usize,
        sinks: &[SocketAddr; 2],
        outside: &[UdpSocket; 2],
        counts: &Counts,
    ) -> Result<()> {
        let own = self.pod.addresses.both();
        for ((inner, outer), (own, sink)) in self.sockets.iter().zip(outside).zip(own.into_iter().zip(sinks))
        {
            // What the kernel has no room for is lost like any other datagram.
            let _ = inner.send_to(&number.to_ne_bytes(), sink);
            let _ = outer.send_to(b"in", SocketAddr::new(own, PORT));
            counts.sent.fetch_add(if self.is_free { 0 } else { 2 }, Ordering::Relaxed);
            while received(inner, &mut [0; 8])?.is_some() {
                if !self.is_free {
                    counts.leaked.fetch_add(1, Ordering::Relaxed);
                    eprintln!("a datagram has arrived at {}", self.pod.name());
                }
            }
        }
        Ok(())
    }
}

/// A socket for each family.
fn bound(place: &Place, addresses: Addresses, port: u16) -> Result<[UdpSocket; 2]> {
    place.run(|| {
        let [v4, v6] = addresses.both().map(|address| {
            let socket =
                UdpSocket::bind((address, port)).with_context(|| format!("binding {address}:{port}"))?;
            socket.set_nonblocking(true)?;
            Ok::<_, anyhow::Error>(socket)
        });
        Ok([v4?, v6?])
    })
}

/// The length of a datagram that waits. Errors that others have sent by ICMP are none of ours.
fn received(socket: &UdpSocket, buffer: &mut [u8]) -> Result<Option<usize>> {
    match socket.recv(buffer) {
        Ok(length) => Ok(Some(length)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(None),
        Err(error) => Err(error).context("receiving"),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
