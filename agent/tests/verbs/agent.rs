//! An agent's server with a state that was written down, on a socket of its own.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use podgate::{
    api::{Counter, FlowRecord, KernelCounters, Status},
    flows::{Observer, SharedObserver},
    server::{ControlSocket, HitReport, HitView, Server, ServerInputs, Snapshot, TaskRestarts},
    source::manifests,
};
use podgate_common::{Direction, Outcome};
use tokio::sync::{mpsc, oneshot, watch};

use crate::podgate::directory;

pub(crate) struct Agent {
    directory: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    pub(crate) fn start() -> Self {
        Self::start_with(str::to_owned)
    }

    /// With its state changed, as JSON.
    pub(crate) fn start_with(change: fn(&str) -> String) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("podgate.sock");
        let (stop, stopped) = oneshot::channel();
        let (listening, listens) = std::sync::mpsc::channel();
        let serve = async move {
            let socket = ControlSocket::bind(&path).expect("a new socket");
            let (_state, snapshots) = watch::channel(Arc::new(snapshot(change)));
            let counters =
                [(Direction::Ingress, Outcome::Denied, 7), (Direction::Egress, Outcome::OwnNode, 0)];
            let counters =
                counters.map(|(direction, outcome, packets)| Counter { direction, outcome, packets });
            let counted = move || KernelCounters { packets: counters.to_vec(), ..KernelCounters::default() };
            let policies =
                serde_json::from_str(&change(&text("policies.json"))).expect("the form of policies");
            let (_hits, reports) = watch::channel(Arc::new(HitReport { policies, ..HitReport::default() }));
            let (ask, _asked) = mpsc::channel(1);
            // No one answers: there is no kernel.
            let (kernel_checks, _) = mpsc::channel(1);
            let server = Server::new(ServerInputs {
                snapshots,
                read_counters: Arc::new(counted),
                count_tables: Arc::new(Vec::new),
                watches: None,
                hits: HitView::new(reports, ask),
                observer: observer(change),
                kernel_checks,
                restarts: TaskRestarts::default(),
            });
            listening.send(()).expect("the test waits");
            tokio::select! {
                ended = socket.serve(server) => ended.expect("it serves for ever"),
                _ = stopped => {}
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let thread = std::thread::spawn(move || runtime.block_on(serve));
        listens.recv().expect("it listens");
        Self { directory, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("podgate.sock")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(()))) || std::thread::panicking(), "the server panicked");
    }
}

fn observer(change: fn(&str) -> String) -> SharedObserver {
    let flows: Vec<FlowRecord> =
        serde_json::from_str(&change(&text("flows.json"))).expect("the form of flows");
    let mut observer = Observer::new("n1".into(), None);
    flows.into_iter().for_each(|flow| observer.add(flow));
    Arc::new(observer.into())
}

fn text(name: &str) -> String {
    let path = directory().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn snapshot(change: fn(&str) -> String) -> Snapshot {
    let status: Status = serde_json::from_str(&change(&text("status.json"))).expect("the form of a status");
    Snapshot {
        // Ages grow from then on; not in these tests, however slow.
        taken: Instant::now() + Duration::from_secs(3600),
        status,
        endpoints: serde_json::from_str(&change(&text("endpoints.json"))).expect("the form of endpoints"),
        interfaces: BTreeMap::new(),
        cluster: manifests::read(&[Path::new(&directory()).join("shop.yaml")]).cluster,
    }
}
