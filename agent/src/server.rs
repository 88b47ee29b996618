//! What a running agent tells: verbs over its unix socket, metrics and health over HTTP.
//!
//! In: snapshots of the agent's state, and packet counters that are read when somebody asks. Out: text. It
//! only reads: nothing here can change a verdict. Clients are not trusted: each has little time, short
//! requests and few places, and none can make the agent wait.

mod await_pod;
mod connection_limit;
mod flows;
mod hits;
mod http;
mod kernel_check;
mod metrics;
mod socket;
mod task_restarts;

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
pub use hits::{HitReport, HitView};
pub use http::Http;
pub use kernel_check::{KernelCheckReply, KernelCheckRequest};
use podgate_core::{
    explain::{Explanation, Question, explain},
    model::{Cluster, Name, ObjectName, Uid},
};
use serde::Serialize;
pub use socket::ControlSocket;
pub use task_restarts::TaskRestarts;
use tokio::sync::{Semaphore, mpsc, watch};

use self::{
    await_pod::{AwaitedPod, PodWait},
    flows::FlowReplies,
};

use crate::{
    api::{
        Ask, EndpointStatus, FlowFilter, KernelCounters, PROTOCOL, PeerVersion, RELEASE, Reply,
        ReportedState, Request, Response, SourceStatus, Status, TableFill, WatchStatus,
    },
    flows::{SharedObserver, lock},
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
    /// Its counters are read again for each question.
    pub status: Status,
    pub endpoints: Vec<EndpointStatus>,
    /// By ifindex: the pods' interfaces, as the programs in the kernel know them.
    pub interfaces: BTreeMap<u32, ReportedInterface>,
    pub cluster: Arc<Cluster>,
}

/// The host side of a pod's interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedInterface {
    pub name: Name,
    /// The pod that it was found to be last, also while that pod's policies are not known.
    pub pod: Option<ObjectName>,
    /// Of the object by which that pod is evaluated.
    pub uid: Option<Uid>,
    pub state: ReportedState,
    /// Programs are at it.
    pub attached: bool,
}

/// Reads the kernel's counters. Must not wait for anything.
pub type ReadCounters = Arc<dyn Fn() -> KernelCounters + Send + Sync>;

/// Counts what is in the tables that the programs write. May take a while: it runs on a thread of its own.
pub type CountTables = Arc<dyn Fn() -> Vec<TableFill> + Send + Sync>;

/// Requests that are worked on at once apart from the thread that answers probes.
const WORKERS: usize = 16;
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
    pub observer: SharedObserver,
    pub kernel_checks: mpsc::Sender<KernelCheckRequest>,
    pub restarts: TaskRestarts,
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
        let snapshot = self.snapshot();
        let since = snapshot.taken.elapsed().as_secs();
        let mut status = snapshot.status.clone();
        status.uptime_seconds += since;
        for age in status.sources.iter_mut().filter_map(|source| source.age_seconds.as_mut()) {
            *age += since;
        }
        if let Some(health) = &self.inputs.watches {
            let watches = health.read();
            watched(&mut status.sources, &watches);
            if !status.ready {
                status.last_error = status.last_error.or_else(|| unlisted(&watches));
            }
        }
        let KernelCounters { packets, evictions, lost } = (self.inputs.read_counters)();
        (status.counters, status.evictions, status.lost) = (packets, evictions, lost);
        status
    }

    /// `None`: too many wait for them already.
    async fn metrics(&self) -> Option<String> {
        let server = self.clone();
        let text = move || {
            let observed = metrics::Observed {
                events: lock(&server.inputs.observer).counts(),
                restarts: server.inputs.restarts.read(),
            };
            metrics::text(&server.status(), &server.inputs.hits.last(), &observed)
        };
        self.work(text).await
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
        let revision = snapshot.status.revision;
        let is_real = what_if.is_empty();
        let seen = snapshot.clone();
        let answer = move || {
            let mut cluster = snapshot.cluster.clone();
            if !what_if.is_empty() {
                what_if.apply(Arc::make_mut(&mut cluster))?;
            }
            Ok::<_, anyhow::Error>(explain(&cluster, &question)?)
        };
        let mut explanation = self.work(answer).await.context(BUSY)??;
        if is_real {
            let pods = explanation.pods();
            let unenforced = seen.status.unenforced.iter().filter(|it| pods.contains(&it.pod));
            explanation.unenforced = unenforced.map(ToString::to_string).collect();
            explanation.kernel =
                kernel_check::check(&self.inputs.kernel_checks, &explanation, revision).await;
        }
        for line in explanation.kernel.iter().flat_map(|check| &check.disagreements) {
            tracing::error!("the tables in the kernel disagree with the rules: {line}");
        }
        Ok(explanation)
    }

    /// One line of JSON for another, and what follows it.
    async fn answer(&self, request: &[u8]) -> (String, Option<Later>) {
        let ask = match read_request(request) {
            Ok(ask) => ask,
            Err(error) => return (line(Reply::<()>::Error(error)), None),
        };
        let answer = match ask {
            Ask::Flows { filter, since_seconds, last, follow } => {
                return match self.flows(filter, since_seconds, last, follow).await {
                    Some(flows) => (line(Reply::Ok(())), Some(Later::FlowReplies(flows))),
                    None => (line(Reply::<()>::Error("too many follow flows already".into())), None),
                };
            }
            Ask::AwaitPod { pod, uid, interface, ifindex, milliseconds } => {
                let wanted = AwaitedPod { pod, uid: Uid::parse(&uid), interface, ifindex };
                return match self.await_pod(wanted, Duration::from_millis(milliseconds)) {
                    Some(wait) => (String::new(), Some(Later::Pod(wait))),
                    None => (line(Reply::<()>::Error("too many wait for pods already".into())), None),
                };
            }
            Ask::Status => match self.full_status().await {
                Some(status) => line(Reply::Ok(status)),
                None => line(Reply::<()>::Error(BUSY.into())),
            },
            Ask::Policies => line(Reply::Ok(&self.inputs.hits.newest().await.policies)),
            Ask::Endpoints => line(Reply::Ok(&self.snapshot().endpoints)),
            Ask::Explain { from, to, port, what_if } => {
                match self.explain(Question { from, to, port }, what_if).await {
                    Ok(explanation) => line(Reply::Ok(explanation)),
                    Err(error) => line(Reply::<()>::Error(format!("{error:#}"))),
                }
            }
        };
        (answer, None)
    }

    /// `None`: there is no place.
    async fn flows(
        &self,
        filter: FlowFilter,
        since_seconds: Option<u64>,
        last: Option<usize>,
        follow: bool,
    ) -> Option<FlowReplies> {
        let place = self.followers.clone().try_acquire_owned().ok()?;
        let since = since_seconds.map(Duration::from_secs);
        let (observer, wanted) = (self.inputs.observer.clone(), filter.clone());
        let (past, live) = self.work(move || lock(&observer).follow(&wanted, since, last)).await?;
        Some(FlowReplies { past, live: follow.then_some(live), filter, _place: place })
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

fn read_request(request: &[u8]) -> Result<Ask, String> {
    let peer_version: PeerVersion =
        serde_json::from_slice(request).map_err(|error| format!("not a request: {error}"))?;
    peer_version.check("who asks")?;
    let request: Request =
        serde_json::from_slice(request).map_err(|error| format!("not a request: {error}"))?;
    Ok(request.ask)
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
