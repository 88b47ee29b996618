//! Traces of a pod's packets, packet by packet, for who asks.
//!
//! In: a pod, and which of its packets. Out: the setup that the command must load, because the agent may not;
//! then each packet with its steps. The trace ends when the client closes the connection, with its count or
//! time, or with the pod's interface: the agent's own programs are back before the last line is written.

mod describe;

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use podgate_core::{explain::EndpointRef, model::ObjectName};
use podgate_datapath::TraceStream;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::watch,
    time::{self, Instant},
};

use self::describe::Describer;
use super::{Server, line};
use crate::{
    api::{RELEASE, Reply, TraceLine, TraceSelection, TraceSetup, TraceSummary},
    snapshot::Snapshot,
    traces::{TraceClaim, TraceSite},
};

/// Loading programs takes a second on a slow machine.
const TIME_TO_LOAD: Duration = Duration::from_secs(30);

/// For a line. A pager that is not scrolled takes none.
const TIME_FOR_LINE: Duration = Duration::from_secs(10);

/// No trace runs for longer: the process that asked may live on when no one looks at it any more.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

/// What is asked for.
#[derive(Debug)]
pub(super) struct WantedTrace {
    pub(super) pod: ObjectName,
    pub(super) from: Option<EndpointRef>,
    pub(super) to: Option<EndpointRef>,
    pub(super) protocol: Option<u16>,
    pub(super) port: Option<u16>,
    /// Packets.
    pub(super) count: Option<u64>,
    pub(super) seconds: u64,
}

/// A client that is to get packets.
#[derive(Debug)]
pub(super) struct TraceReplies {
    pod: ObjectName,
    ifindex: u32,
    claim: TraceClaim,
    count: u64,
    lasts: Duration,
    site: Arc<TraceSite>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
}

impl Server {
    /// Claims the pod's interface; the first answer is for the command.
    pub(super) fn trace(&self, wanted: &WantedTrace) -> Result<(TraceSetup, TraceReplies)> {
        let WantedTrace { pod, from, to, protocol, port, count, seconds } = wanted;
        let lasts = Duration::from_secs(*seconds);
        ensure!(lasts <= LONGEST, "a trace runs for 24 hours at most");
        let snapshot = self.snapshot();
        let veth = snapshot.interface_of(pod);
        let veth = veth.with_context(|| format!("the agent knows no interface of pod {pod} on this node"))?;
        let ifindex = veth.ifindex;
        let addresses =
            |end: &Option<EndpointRef>| end.as_ref().map(|end| addresses(&snapshot, end)).transpose();
        let filter = TraceSelection {
            from: addresses(from)?.unwrap_or_default(),
            to: addresses(to)?.unwrap_or_default(),
            protocol: *protocol,
            port: *port,
        };
        ensure!(filter.filter().is_some(), "--from or --to has more addresses than a trace can tell apart");
        let control = &self.inputs.traces;
        let claim = control.claim(ifindex)?;
        let site = control.site.clone();
        let setup = TraceSetup {
            release: RELEASE.to_owned(),
            bpffs: site.bpffs.clone(),
            ifindex,
            programs: (site.options, site.reads).into(),
            filter,
        };
        let replies = TraceReplies {
            pod: pod.clone(),
            ifindex,
            claim,
            count: count.unwrap_or(u64::MAX),
            lasts,
            site,
            snapshots: self.inputs.snapshots.clone(),
        };
        Ok((setup, replies))
    }
}

/// The addresses of an end.
fn addresses(snapshot: &Snapshot, end: &EndpointRef) -> Result<Vec<IpAddr>> {
    let cluster = &snapshot.cluster;
    let found: Vec<IpAddr> = match end {
        EndpointRef::Address(address) => vec![*address],
        EndpointRef::Pod(name) => {
            let pod = cluster.pods.get(name).with_context(|| format!("no pod {name}"))?;
            pod.addresses.iter().copied().collect()
        }
        EndpointRef::Service(name) => {
            let service = cluster.services.get(name).with_context(|| format!("no service {name}"))?;
            service.cluster_addresses.iter().chain(&service.external_addresses).copied().collect()
        }
        EndpointRef::Node(name) => {
            let node = cluster.nodes.get(name).with_context(|| format!("no node {name}"))?;
            node.addresses.to_vec()
        }
        EndpointRef::Name(_) => return Err(anyhow!("{end}: a trace knows addresses, not names of the DNS")),
    };
    ensure!(!found.is_empty(), "{end} has no address");
    Ok(found)
}

impl TraceReplies {
    /// Serves the client until one of them has enough.
    pub(super) async fn write(self, mut stream: UnixStream) -> io::Result<()> {
        // Whatever it writes: it has loaded what it was asked to. Its end is the end of the trace.
        let loaded = time::timeout(TIME_TO_LOAD, stream.read(&mut [0; 64])).await??;
        if loaded == 0 {
            return Ok(());
        }
        // The claim's end puts everything back, also when this fails.
        let started = match self.claim.start().await.and_then(TraceStream::new) {
            Ok(started) => started,
            Err(error) => {
                let answer = line(Reply::<()>::Error(format!("{error:#}")));
                return time::timeout(TIME_FOR_LINE, stream.write_all(answer.as_bytes())).await?;
            }
        };
        tracing::info!(pod = %self.pod, "its packets are traced");
        time::timeout(TIME_FOR_LINE, stream.write_all(line(Reply::Ok(())).as_bytes())).await??;
        self.show(stream, started).await
    }

    async fn show(mut self, mut stream: UnixStream, mut packets: TraceStream) -> io::Result<()> {
        let (mut from_client, mut to_client) = stream.split();
        let deadline = Instant::now() + self.lasts;
        let mut describer = Describer::new(self.site.jiffies_per_second);
        let mut shown = 0;
        let reason = loop {
            if shown == self.count {
                break "all packets that were asked for";
            }
            let mut nothing = [0; 64];
            let packet = tokio::select! {
                packet = packets.next() => match packet {
                    Ok(packet) => packet,
                    Err(error) => {
                        tracing::warn!(pod = %self.pod, "{error:#}");
                        break "packets cannot be read any more";
                    }
                },
                read = from_client.read(&mut nothing) => match read? {
                    0 => break "the client has ended it",
                    _ => continue,
                },
                () = time::sleep_until(deadline) => break "the time is up",
                changed = self.snapshots.changed() => {
                    let is_there = |snapshot: &Snapshot| {
                        snapshot.interface_of(&self.pod).is_some_and(|veth| veth.ifindex == self.ifindex)
                    };
                    if changed.is_ok() && is_there(&self.snapshots.borrow_and_update()) {
                        continue;
                    }
                    break "the pod's interface is gone";
                }
            };
            let snapshot = self.snapshots.borrow().clone();
            let Some(packet) = describer.describe(&packet, &snapshot) else { continue };
            shown += 1;
            write(&mut to_client, &TraceLine::Packet(Box::new(packet))).await?;
        };
        self.claim.end().await;
        tracing::info!(pod = %self.pod, reason, "its packets are traced no longer");
        let [packets, limited, unread] = packets.reader().counts().unwrap_or_else(|error| {
            tracing::warn!("{error:#}");
            [0; 3]
        });
        let summary = TraceSummary { reason: reason.to_owned(), packets, shown, limited, unread };
        write(&mut to_client, &TraceLine::Ended(summary)).await
    }
}

async fn write(to: &mut (impl AsyncWriteExt + Unpin), line: &TraceLine) -> io::Result<()> {
    let mut line = serde_json::to_vec(line).expect("a packet has string keys and no failing parts");
    line.push(b'\n');
    time::timeout(TIME_FOR_LINE, to.write_all(&line)).await?
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};

    use super::*;
    use crate::{
        api,
        server::{
            Ask,
            tests::{Running, start},
        },
    };

    fn ask(pod: &str, to: Option<&str>) -> Ask {
        let (pod, to) = (pod.split_once('/').unwrap(), to.map(|to| to.parse().unwrap()));
        let pod = ObjectName::new(pod.0, pod.1);
        Ask::Trace { pod, from: None, to, protocol: Some(6), port: Some(80), count: None, seconds: 30 }
    }

    fn setup(running: &Running, pod: &str, to: Option<&str>) -> Result<TraceSetup, String> {
        api::ask(&running.socket(), &ask(pod, to)).map_err(|error| error.to_string())
    }

    #[test]
    fn who_asks_for_a_trace_hears_what_to_load_or_why_not() {
        let running = start();
        let asked = setup(&running, "x/a", Some("x/b")).unwrap();
        assert_eq!((asked.release.as_str(), asked.ifindex), (RELEASE, 3));
        let b = &Snapshot::example(true).cluster.pods[&ObjectName::new("x", "b")];
        assert_eq!(asked.filter.to, b.addresses.iter().copied().collect::<Vec<_>>());
        assert_eq!((asked.filter.protocol, asked.filter.port), (Some(6), Some(80)));
        for (pod, to, error) in [
            ("x/missing", None, "knows no interface of pod x/missing"),
            ("x/a", Some("x/missing"), "no pod x/missing"),
            ("x/a", Some("node/missing"), "no node missing"),
            ("x/a", Some("name:example.org"), "not names of the DNS"),
        ] {
            let refused = setup(&running, pod, to).unwrap_err();
            assert!(refused.contains(error), "{refused}");
        }
    }

    /// The client's end is the end of its claim, also before it has loaded anything.
    #[test]
    fn a_pod_is_traced_once_until_the_client_goes() {
        let running = start();
        let mut first = running.connect();
        let request = api::Request { version: api::PROTOCOL, podgate: String::new(), ask: ask("x/a", None) };
        writeln!(first, "{}", serde_json::to_string(&request).unwrap()).unwrap();
        let mut answer = String::new();
        BufReader::new(&first).read_line(&mut answer).unwrap();
        assert!(answer.contains("\"ifindex\":3"), "{answer}");
        let refused = setup(&running, "x/a", None).unwrap_err();
        assert!(refused.contains("the pod is traced already"), "{refused}");
        drop(first);
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while setup(&running, "x/a", None).is_err() {
            assert!(std::time::Instant::now() < deadline, "the claim of a client that has gone");
        }
    }
}
