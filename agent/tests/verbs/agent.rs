//! An agent's answers that were written down, on a socket of their own.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use podgate::{
    api::{
        Counter, EndpointStatus, FlowLine, FlowRecord, PROTOCOL, PodNames, PolicyReport, RELEASE, Reply,
        Request, Response, RolloutReport, Status,
    },
    server::Ask,
    source::manifests::{self, Change},
};
use podgate_common::{Direction, Outcome};
use podgate_core::{
    explain::{Explanation, Question, explain},
    model::Cluster,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::podgate::directory;

pub(crate) struct Agent {
    directory: tempfile::TempDir,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What it knows.
struct Known {
    status: Status,
    endpoints: Vec<EndpointStatus>,
    names: Vec<PodNames>,
    policies: PolicyReport,
    rollout: RolloutReport,
    flows: Vec<FlowRecord>,
    cluster: Arc<Cluster>,
}

impl Agent {
    pub(crate) fn start() -> Self {
        Self::start_with(str::to_owned)
    }

    /// With what it knows changed, as JSON.
    pub(crate) fn start_with(change: fn(&str) -> String) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let listener = UnixListener::bind(directory.path().join("podgate.sock")).expect("a new socket");
        let stop = Arc::new(AtomicBool::new(false));
        let (known, stopped) = (Known::read(change), stop.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                known.answer(&stream.expect("a client"));
            }
        });
        Self { directory, stop, thread: Some(thread) }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("podgate.sock")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It looks when someone comes.
        let _ = UnixStream::connect(self.socket());
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(()))) || std::thread::panicking(), "the agent panicked");
    }
}

impl Known {
    fn read(change: fn(&str) -> String) -> Self {
        let mut status: Status = read("status.json", change);
        let counters = [(Direction::Ingress, Outcome::Denied, 7), (Direction::Egress, Outcome::OwnNode, 0)];
        let counters = counters.map(|(direction, outcome, packets)| Counter { direction, outcome, packets });
        status.counters = counters.to_vec();
        Self {
            status,
            endpoints: read("endpoints.json", change),
            names: read("names.json", change),
            policies: read("policies.json", change),
            rollout: read("rollout.json", change),
            flows: read("flows.json", change),
            cluster: manifests::read(&[Path::new(&directory()).join("shop.yaml")]).cluster,
        }
    }

    fn answer(&self, mut stream: &UnixStream) {
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("a request");
        let request: Request<Ask> = serde_json::from_str(&line).expect("the form of a request");
        let lines = match request.ask {
            Ask::Status => response(Reply::Ok(&self.status)),
            Ask::Endpoints => response(Reply::Ok(&self.endpoints)),
            Ask::Names { pod: None } => {
                response(Reply::Ok(self.names.iter().filter(|names| names.has_rules).collect::<Vec<_>>()))
            }
            Ask::Names { pod: Some(pod) } => {
                match self.names.iter().filter(|names| names.pod == pod.to_string()).collect::<Vec<_>>() {
                    known if known.is_empty() => response(Reply::<()>::Error(format!(
                        "the agent knows no interface of pod {pod} on this node"
                    ))),
                    known => response(Reply::Ok(known)),
                }
            }
            Ask::Policies => response(Reply::Ok(&self.policies)),
            Ask::Rollout { policy } => {
                let mut rollout = self.rollout.clone();
                rollout.policies.retain(|known| policy.as_ref().is_none_or(|only| *only == known.policy));
                response(Reply::Ok(&rollout))
            }
            Ask::Explain { from, to, port, what_if } => {
                match self.explain(&Question { from, to, port }, &what_if) {
                    Ok(explanation) => response(Reply::Ok(explanation)),
                    Err(error) => response(Reply::<()>::Error(format!("{error:#}"))),
                }
            }
            Ask::Flows { filter, last, .. } => {
                let flows: Vec<_> = self.flows.iter().filter(|flow| filter.matches(flow)).collect();
                if let Some(pod) = filter.pod.filter(|_| flows.is_empty()) {
                    let error =
                        format!("no pod {pod}: the cluster does not have it, and no flow here is of it");
                    let _ = stream.write_all(response(Reply::<()>::Error(error)).as_bytes());
                    return;
                }
                let newest = last.map_or(0, |last| flows.len().saturating_sub(last));
                let flows = flows[newest..].iter().map(|flow| {
                    let flow = FlowLine::FlowRecord(Box::new(FlowRecord::clone(flow)));
                    serde_json::to_string(&flow).expect("a flow") + "\n"
                });
                response(Reply::Ok(())) + &flows.collect::<String>()
            }
            Ask::Trace { pod, .. } => {
                let known = self.endpoints.iter().find(|known| known.pod == Some(pod.to_string()));
                response(Reply::<()>::Error(match known {
                    Some(known) => format!("cannot attach from_pod to {}", known.interface),
                    None => format!("the agent knows no interface of pod {pod} on this node"),
                }))
            }
            Ask::AwaitPod { .. } => panic!("no verb waits for pods"),
        };
        // Clients need not read to the end.
        let _ = stream.write_all(lines.as_bytes());
    }

    fn explain(&self, question: &Question, what_if: &Change) -> anyhow::Result<Explanation> {
        let mut cluster = Cluster::clone(&self.cluster);
        what_if.apply(&mut cluster)?;
        Ok(explain(&cluster, question)?)
    }
}

fn response<T: Serialize>(answer: Reply<T>) -> String {
    let response = Response { version: PROTOCOL, podgate: RELEASE.to_owned(), answer };
    serde_json::to_string(&response).expect("it has string keys") + "\n"
}

fn read<T: DeserializeOwned>(name: &str, change: fn(&str) -> String) -> T {
    let path = directory().join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&change(&text)).unwrap_or_else(|error| panic!("{name}: {error}"))
}
