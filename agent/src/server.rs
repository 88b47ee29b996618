//! What a running agent tells: verbs over its unix socket, metrics and health over HTTP.
//!
//! In: snapshots of the agent's state, and packet counters that are read when somebody asks. Out: text. It only reads:
//! nothing here can change a verdict. Clients are not trusted: each has little time, short requests and few places, and
//! none can make the agent wait.

mod flows;
mod hits;
mod http;
mod inquiry;
mod metrics;
mod socket;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

pub use hits::{HitReport, HitView};
pub use http::Http;
pub use inquiry::{Inquiry, Testimony};
use serde::Serialize;
pub use socket::Socket;
use tokio::sync::{Semaphore, mpsc, watch};

use self::flows::Flows;

use crate::{
    api::{
        Answer, Ask, Counted, EndpointStatus, FlowFilter, PROTOCOL, RELEASE, Request, Response, SourceStatus,
        Speaker, Status, TableFill, WatchStatus,
    },
    explain::{Explanation, Question, explain},
    flows::{SharedObserver, lock},
    model::Cluster,
    source::{
        kube::{Health, WatchHealth},
        manifests::Change,
    },
};

/// The agent's state after its last change.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When ages and uptime were measured.
    pub taken: Instant,
    /// Its counters are read anew for each question.
    pub status: Status,
    pub endpoints: Vec<EndpointStatus>,
    pub cluster: Arc<Cluster>,
}

/// Reads the kernel's counters. Must not wait for anything.
pub type ReadCounters = Arc<dyn Fn() -> Counted + Send + Sync>;

/// Counts what is in the tables that the programs write. May take a while: it runs on a thread of its own.
pub type CountTables = Arc<dyn Fn() -> Vec<TableFill> + Send + Sync>;

/// Answers questions about the agent.
#[derive(Clone)]
pub struct Server {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    read_counters: ReadCounters,
    count_tables: CountTables,
    watches: Option<Health>,
    hits: HitView,
    observer: SharedObserver,
    followers: Arc<Semaphore>,
    inquiries: mpsc::Sender<Inquiry>,
}

impl Server {
    /// `watches`: those that the source is fed by, if it is an API server.
    pub fn new(
        snapshots: watch::Receiver<Arc<Snapshot>>,
        read_counters: ReadCounters,
        count_tables: CountTables,
        watches: Option<Health>,
        hits: HitView,
        observer: SharedObserver,
        inquiries: mpsc::Sender<Inquiry>,
    ) -> Self {
        let followers = Arc::new(Semaphore::new(flows::FOLLOWERS));
        Self { snapshots, read_counters, count_tables, watches, hits, observer, followers, inquiries }
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    /// Without the tables that must be counted: metrics are asked for again and again.
    fn status(&self) -> Status {
        let snapshot = self.snapshot();
        let since = snapshot.taken.elapsed().as_secs();
        let mut status = snapshot.status.clone();
        status.uptime_seconds += since;
        for age in status.sources.iter_mut().filter_map(|source| source.age_seconds.as_mut()) {
            *age += since;
        }
        if let Some(health) = &self.watches {
            watched(&mut status.sources, &health.read());
        }
        let Counted { packets, evictions, untold: _ } = (self.read_counters)();
        (status.counters, status.evictions) = (packets, evictions);
        status
    }

    fn metrics(&self) -> String {
        let observed = metrics::Observed {
            events: lock(&self.observer).counts(),
            untold: (self.read_counters)().untold,
        };
        metrics::text(&self.status(), &self.hits.last(), &observed)
    }

    async fn full_status(&self) -> Status {
        let count = self.count_tables.clone();
        let counted = tokio::task::spawn_blocking(move || count()).await;
        let mut status = self.status();
        status.tables.extend(counted.expect("counting does not panic"));
        status
    }

    async fn explain(&self, question: &Question, what_if: &Change) -> anyhow::Result<Explanation> {
        let snapshot = self.snapshot();
        let mut cluster = snapshot.cluster.clone();
        if !what_if.is_empty() {
            what_if.apply(Arc::make_mut(&mut cluster))?;
            return Ok(explain(&cluster, question)?);
        }
        let mut explanation = explain(&cluster, question)?;
        let epoch = snapshot.status.epoch;
        explanation.kernel = inquiry::check(&self.inquiries, &explanation, epoch).await;
        for line in explanation.kernel.iter().flat_map(|check| &check.disagreements) {
            tracing::error!("the tables in the kernel are not what the rules say: {line}");
        }
        Ok(explanation)
    }

    /// One line of JSON for another, and what follows it.
    async fn answer(&self, request: &[u8]) -> (String, Option<Flows>) {
        let ask = match read_request(request) {
            Ok(ask) => ask,
            Err(error) => return (line(Answer::<()>::Error(error)), None),
        };
        let answer = match ask {
            Ask::Flows { filter, since_seconds, last, follow } => {
                return match self.flows(filter, since_seconds, last, follow) {
                    Some(flows) => (line(Answer::Ok(())), Some(flows)),
                    None => (line(Answer::<()>::Error("too many follow flows already".into())), None),
                };
            }
            Ask::Status => line(Answer::Ok(self.full_status().await)),
            Ask::Policies => line(Answer::Ok(&self.hits.newest().await.policies)),
            Ask::Endpoints => line(Answer::Ok(&self.snapshot().endpoints)),
            Ask::Explain { from, to, port, what_if } => {
                match self.explain(&Question { from, to, port }, &what_if).await {
                    Ok(explanation) => line(Answer::Ok(explanation)),
                    Err(error) => line(Answer::<()>::Error(format!("{error:#}"))),
                }
            }
        };
        (answer, None)
    }

    /// `None`: there is no place.
    fn flows(
        &self,
        filter: FlowFilter,
        since_seconds: Option<u64>,
        last: Option<usize>,
        follow: bool,
    ) -> Option<Flows> {
        let place = self.followers.clone().try_acquire_owned().ok()?;
        let since = since_seconds.map(Duration::from_secs);
        let (past, live) = lock(&self.observer).follow(&filter, since, last);
        Some(Flows { past, live: follow.then_some(live), filter, _place: place })
    }
}

/// A source that is watched is as old as the oldest of its watches.
fn watched(sources: &mut [SourceStatus], watches: &[WatchHealth]) {
    for source in sources {
        if source.age_seconds.is_some() {
            source.age_seconds = watches.iter().map(|watch| watch.age.as_secs()).max();
        }
        let status = watches.iter().cloned().map(|WatchHealth { kind, listed, age, restarts, error }| {
            WatchStatus { kind, listed, age_seconds: age.as_secs(), restarts, error }
        });
        source.watches = status.collect();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("snapshot", &self.snapshots).finish_non_exhaustive()
    }
}

fn read_request(request: &[u8]) -> Result<Ask, String> {
    let speaker: Speaker =
        serde_json::from_slice(request).map_err(|error| format!("not a request: {error}"))?;
    speaker.check("who asks")?;
    let request: Request =
        serde_json::from_slice(request).map_err(|error| format!("not a request: {error}"))?;
    Ok(request.ask)
}

fn refuse(error: &str) -> String {
    line(Answer::<()>::Error(format!("not a request: {error}")))
}

fn line<T: Serialize>(answer: Answer<T>) -> String {
    let response = Response { version: PROTOCOL, podgate: RELEASE.to_owned(), answer };
    serde_json::to_string(&response).expect("all that is answered has string keys and no failing parts")
        + "\n"
}

#[cfg(test)]
mod tests;
