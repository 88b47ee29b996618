//! What a running agent tells: verbs over its unix socket, metrics and health over HTTP.
//!
//! In: snapshots of the agent's state, what is observed, and packet counters that are read when somebody
//! asks. Out: text. It only reads: nothing here can change a verdict. Clients are not trusted: each has
//! little time, short requests and few places, and none can make the agent wait.

mod ask;
mod await_pod;
mod connection_limit;
mod counters;
mod flows;
mod http;
mod metrics;
mod names;
mod report;
mod rollout;
mod socket;
mod task_restarts;
mod trace;

use std::{fmt, sync::Arc, time::Duration};

use anyhow::Context as _;
pub use ask::Ask;
pub use counters::{count_tables, read_counters};
pub use http::Http;
pub use metrics::{FamilyKind, FamilyValue, LatencyBuckets, MetricFamily, Sample};
pub use names::NameSource;
use podgate_core::explain::{Explanation, KernelCheck, Question, explain_with};
use serde::Serialize;
pub use socket::ControlSocket;
pub use task_restarts::TaskRestarts;
use tokio::{
    sync::{Semaphore, watch},
    time,
};

use self::{await_pod::PodWait, flows::FlowReplies, names::LearntByPod, trace::TraceReplies};

use crate::{
    api::{
        ExportStatus, KernelCounters, PROTOCOL, RELEASE, Reply, Response, SourceStatus, Status, TableFill,
        WatchStatus,
    },
    observe::{AskTables, ExportCounts, FlowHistory, HitView, LostLines, check_tables},
    snapshot::Snapshot,
    source::{
        kube::{Health, WatchHealth},
        manifests::Change,
    },
    traces::TraceControl,
};

/// Reads the kernel's counters. Must not wait for anything.
pub type ReadCounters = Arc<dyn Fn() -> KernelCounters + Send + Sync>;

/// Counts what is in the tables that the programs write. May take a while: it runs on a thread of its own.
pub type CountTables = Arc<dyn Fn() -> Vec<TableFill> + Send + Sync>;

/// Requests that are worked on at once apart from the thread that answers probes.
const WORKERS: usize = 16;
/// How long somebody who asks for an explanation waits for what the kernel says to it.
const PATIENCE: Duration = Duration::from_secs(1);
const BUSY: &str = "too many questions at once";

/// Where the servers find what they are asked for.
#[derive(Clone)]
pub struct ServerInputs {
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    pub read_counters: ReadCounters,
    pub count_tables: CountTables,
    /// Those that the source is fed by, if it is an API server.
    pub watches: Option<Health>,
    pub hits: HitView,
    pub flows: FlowHistory,
    pub lost_lines: LostLines,
    pub ask_tables: AskTables,
    pub restarts: TaskRestarts,
    pub names: NameSource,
    /// The URL of the collector, and the counters of the export.
    pub export: Option<(String, ExportCounts)>,
    pub traces: TraceControl,
}

/// Answers questions about the agent.
#[derive(Clone)]
pub struct Server {
    inputs: ServerInputs,
    followers: Arc<Semaphore>,
    /// CNI plugins that wait for pods.
    pod_waits: Arc<Semaphore>,
    /// Requests that need a thread of their own for a while.
    workers: Arc<Semaphore>,
}

impl Server {
    pub fn new(inputs: ServerInputs) -> Self {
        let followers = Arc::new(Semaphore::new(flows::FOLLOWERS));
        let pod_waits = Arc::new(Semaphore::new(await_pod::MAX_CONNECTIONS));
        Self { inputs, followers, pod_waits, workers: Arc::new(Semaphore::new(WORKERS)) }
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.inputs.snapshots.borrow().clone()
    }

    /// Does what may take long, or wait for a lock, away from the thread that answers probes. `None`: all
    /// such threads are busy. One that waits for ever keeps its place, so there are never more of them.
    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let place = self.workers.clone().try_acquire_owned().ok()?;
        let work = move || {
            let _place = place;
            work()
        };
        Some(tokio::task::spawn_blocking(work).await.expect("such work does not panic"))
    }

    /// Without the tables that must be counted: metrics are asked for again and again.
    fn status(&self) -> Status {
        let mut status = report::status(&self.snapshot());
        if let Some(health) = &self.inputs.watches {
            let watches = health.read();
            watched(&mut status.sources, &watches);
            if !status.ready {
                status.last_error = status.last_error.or_else(|| unlisted(&watches));
            }
        }
        let KernelCounters { packets, evictions, lost, shortcut, names } = (self.inputs.read_counters)();
        (status.counters, status.evictions, status.lost) = (packets, evictions, lost);
        (status.shortcut_packets, status.names) = (shortcut, names);
        let export = self.inputs.export.as_ref();
        status.export = export.map(|(collector, counts)| ExportStatus::of(collector.clone(), counts));
        status
    }

    /// All metrics in Prometheus' text format. `None`: too many requests wait for them already.
    async fn metrics(&self) -> Option<String> {
        self.families(|families| metrics::text(&families)).await
    }

    /// All metrics as they are now, converted by `make`. `None`: too many requests wait for them already.
    pub(crate) async fn families<T: Send + 'static>(
        &self,
        make: impl FnOnce(Vec<MetricFamily>) -> T + Send + 'static,
    ) -> Option<T> {
        let server = self.clone();
        let made = move || {
            let observed = metrics::Observed {
                events: server.inputs.flows.counts(),
                unwritten: server.inputs.lost_lines.count(),
                restarts: server.inputs.restarts.read(),
                names: (server.inputs.names.sizes)(),
                untrusted: server.inputs.names.untrusted.pods(),
            };
            make(metrics::families(&server.status(), &server.inputs.hits.last(), &observed))
        };
        self.work(made).await
    }

    async fn full_status(&self) -> Option<Status> {
        let count = self.inputs.count_tables.clone();
        let counted = self.work(move || count()).await?;
        let mut status = self.status();
        status.tables.extend(counted);
        Some(status)
    }

    async fn explain(&self, question: Question, what_if: Change) -> anyhow::Result<Explanation> {
        let snapshot = self.snapshot();
        let revision = snapshot.progress.revision;
        let is_real = what_if.is_empty();
        let (seen, names) = (snapshot.clone(), self.inputs.names.clone());
        let answer = move || {
            let mut cluster = snapshot.cluster.clone();
            if !what_if.is_empty() {
                what_if.apply(Arc::make_mut(&mut cluster))?;
            }
            let learnt = names::learnt_by(&snapshot, &names, &question.from);
            let by_address = learnt.as_ref().map(LearntByPod::by_address).unwrap_or_default();
            let explanation = explain_with(&cluster, &question, &by_address)?;
            let known = learnt.map(|learnt| learnt.known(&cluster, &explanation));
            Ok::<_, anyhow::Error>(Explanation { learnt: known, ..explanation })
        };
        let mut explanation = self.work(answer).await.context(BUSY)??;
        if is_real {
            let pods = explanation.pods();
            let unenforced = report::unenforced(&seen).into_iter().filter(|it| pods.contains(&it.pod));
            explanation.unenforced = unenforced.map(|it| it.to_string()).collect();
            explanation.kernel = self.check_tables(&explanation, revision).await;
        }
        for line in explanation.kernel.iter().flat_map(|check| &check.disagreements) {
            tracing::error!("the tables in the kernel disagree with the rules: {line}");
        }
        Ok(explanation)
    }

    async fn check_tables(&self, explanation: &Explanation, revision: u32) -> Option<KernelCheck> {
        // It uses one thread at a time.
        let _place = self.workers.clone().try_acquire_owned().ok()?;
        let ServerInputs { ask_tables, snapshots, .. } = &self.inputs;
        let check = check_tables(ask_tables, snapshots.clone(), explanation, revision);
        time::timeout(PATIENCE, check).await.ok().flatten()
    }
}

/// What is left to do for a client when its request was read. None of it takes one of the places of short
/// questions.
#[derive(Debug)]
enum Later {
    /// After the answer.
    FlowReplies(FlowReplies),
    /// Before it.
    Pod(PodWait),
    /// After the answer, and what it asks for.
    Trace(Box<TraceReplies>),
}

/// Why there is no picture yet: the first kind that cannot be listed.
fn unlisted(watches: &[WatchHealth]) -> Option<String> {
    let WatchHealth { kind, error, .. } =
        watches.iter().find(|watch| !watch.listed && watch.error.is_some())?;
    error.as_ref().map(|error| format!("{kind} cannot be listed: {error}"))
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

impl fmt::Debug for ServerInputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerInputs").field("snapshots", &self.snapshots).finish_non_exhaustive()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("snapshot", &self.inputs.snapshots).finish_non_exhaustive()
    }
}

fn refuse(error: &str) -> String {
    line(Reply::<()>::Error(format!("not a request: {error}")))
}

fn line<T: Serialize>(answer: Reply<T>) -> String {
    let response = Response { version: PROTOCOL, podgate: RELEASE.to_owned(), answer };
    serde_json::to_string(&response).expect("all that is answered has string keys and no failing parts")
        + "\n"
}

#[cfg(test)]
mod tests;
