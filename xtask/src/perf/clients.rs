//! Clients that poll targets: threads in the network namespaces of pods.
//!
//! In: names of pods, and addresses of targets. Out: when each pair of client and target first had a
//! connection. A new connection is tried every [`INTERVAL`], as a denied one would say nothing for a second.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::mpsc::{Receiver, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{cluster::pod_place, lab::Place};

/// The interval of polls, and the time limit of each.
const INTERVAL: Duration = Duration::from_millis(10);
/// The targets'.
const PORT: u16 = 80;

/// The pods that ask.
pub(super) struct Clients(Vec<Place>);

/// A target and when it was reached.
pub(super) struct Reached {
    /// When its address was known.
    pub(super) known: Instant,
    /// By each client.
    pub(super) reached: Vec<Instant>,
}

/// Every pair of client and target, at work.
pub(super) struct Polling(Vec<JoinHandle<Option<Instant>>>);

impl Clients {
    pub(super) fn of(pods: &[String]) -> Result<Self> {
        Ok(Self(pods.iter().map(|pod| pod_place(pod)).collect::<Result<_>>()?))
    }

    /// Takes addresses of `count` targets as they come, and polls each from all clients until it is reached.
    pub(super) fn reach_each(
        &self,
        addresses: &Receiver<(Ipv4Addr, Instant)>,
        count: usize,
        patience: Duration,
    ) -> Result<Vec<Reached>> {
        let end = Instant::now() + patience;
        let mut seen: Vec<(Ipv4Addr, Instant, Polling)> = Vec::new();
        while seen.len() < count {
            let rest = end.saturating_duration_since(Instant::now());
            let (address, known) = match addresses.recv_timeout(rest) {
                Ok(found) => found,
                Err(RecvTimeoutError::Timeout) => bail!("{} of {count} pods got an address", seen.len()),
                Err(RecvTimeoutError::Disconnected) => bail!("kubectl ended"),
            };
            if seen.iter().all(|(before, ..)| *before != address) {
                seen.push((address, known, self.poll(&[address], patience)));
            }
        }
        let reached =
            |(_, known, polling): (_, _, Polling)| Ok(Reached { known, reached: polling.first_successes()? });
        seen.into_iter().map(reached).collect()
    }

    /// Starts to poll.
    pub(super) fn poll(&self, targets: &[Ipv4Addr], patience: Duration) -> Polling {
        let pairs = self.0.iter().flat_map(|client| targets.iter().map(move |target| (client, *target)));
        Polling(pairs.map(|(client, target)| client.spawn(move || first_success(target, patience))).collect())
    }

    /// Whether no target is reached by any client, each asked once.
    pub(super) fn none_reaches(&self, targets: &[Ipv4Addr]) -> bool {
        let polling = self.poll(targets, Duration::ZERO);
        polling.0.into_iter().all(|pair| join(pair).is_none())
    }
}

impl Polling {
    /// Waits until each pair has had a connection.
    pub(super) fn first_successes(self) -> Result<Vec<Instant>> {
        let times: Vec<_> = self.0.into_iter().map(join).collect();
        let missing = times.iter().filter(|time| time.is_none()).count();
        ensure!(missing == 0, "{missing} of {} pairs had no connection", times.len());
        times.into_iter().map(|time| time.context("each has one")).collect()
    }
}

/// `None`: not within `patience`, though it is tried once at least.
fn first_success(target: Ipv4Addr, patience: Duration) -> Option<Instant> {
    let (target, end) = (SocketAddr::from((target, PORT)), Instant::now() + patience);
    loop {
        let started = Instant::now();
        if TcpStream::connect_timeout(&target, INTERVAL).is_ok() {
            return Some(Instant::now());
        }
        if started >= end {
            return None;
        }
        // A refusal comes at once.
        thread::sleep(INTERVAL.saturating_sub(started.elapsed()));
    }
}

fn join(pair: JoinHandle<Option<Instant>>) -> Option<Instant> {
    pair.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
