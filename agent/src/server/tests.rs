//! The servers against polite and against hostile clients.

mod flows;
mod http;
mod socket;

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    thread::JoinHandle,
};

use podgate_common::{Direction, KernelVerdict, Outcome};
use tokio::{
    runtime::Runtime,
    sync::{mpsc, oneshot},
};

use super::*;
use crate::{
    api::{self, Counter, EndpointStatus, PolicyReport},
    observe::HitReport,
};
use crate::{snapshot::PolicyVersions, traces::TraceSite};

/// Longer than a server waits for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A server with an example's state on a socket and a port of its own, in a thread as the agent has it: one
/// for all.
pub(super) struct Running {
    directory: tempfile::TempDir,
    http: std::net::SocketAddr,
    pub(super) state: watch::Sender<Arc<Snapshot>>,
    flows: FlowHistory,
    /// While this is locked, no tables are counted.
    counting: Arc<Mutex<()>>,
    followers: Arc<Semaphore>,
    pub(super) pod_waits: Arc<Semaphore>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

pub(super) fn start() -> Running {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deeper/podgate.sock");
    let (state, snapshots) = watch::channel(Arc::new(Snapshot::example(false)));
    let (flows, counting) = (FlowHistory::new("n1".into(), 4_096), Arc::new(Mutex::new(())));
    let counted = counting.clone();
    let counter = Counter { direction: Direction::Ingress, outcome: Outcome::Denied, packets: 3 };
    let (counters, tables) = (
        move || KernelCounters { packets: vec![counter], ..KernelCounters::default() },
        move || {
            let _counted = counted.lock().unwrap_or_else(PoisonError::into_inner);
            Status::example().tables
        },
    );
    let (_, hits) = watch::channel(Arc::new(HitReport::example()));
    let (ask, _) = mpsc::channel(1);
    let site = TraceSite {
        bpffs: directory.path().to_owned(),
        options: podgate_datapath::DatapathOptions::with_room(8),
        reads: podgate_datapath::KernelReads::default(),
        jiffies_per_second: 250,
    };
    let server = Server::new(ServerInputs {
        snapshots,
        read_counters: Arc::new(counters),
        count_tables: Arc::new(tables),
        watches: None,
        hits: HitView::new(hits, ask),
        flows: flows.clone(),
        lost_lines: LostLines::default(),
        // The tables of this agent deny everything.
        ask_tables: Arc::new(|_| Ok(KernelVerdict::Denied)),
        restarts: TaskRestarts::default(),
        names: names::tests::source(),
        export: None,
        traces: TraceControl::new(site).0,
    });
    let followers = server.followers.clone();
    let pod_waits = server.pod_waits.clone();
    let (stop, stopped) = oneshot::channel();
    let (listening, address) = std::sync::mpsc::channel();
    let serve = async move {
        let socket = ControlSocket::bind(&path).unwrap();
        let http = Http::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        listening.send(http.address().unwrap()).unwrap();
        tokio::select! {
            ended = socket.serve(server.clone()) => ended.unwrap(),
            ended = http.serve(server) => ended.unwrap(),
            _ = stopped => {}
        }
    };
    let thread = std::thread::spawn(move || runtime().block_on(serve));
    Running {
        directory,
        http: address.recv().unwrap(),
        state,
        flows,
        counting,
        followers,
        pod_waits,
        stop: Some(stop),
        thread: Some(thread),
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking(), "the server panicked");
    }
}

impl Running {
    pub(super) fn socket(&self) -> PathBuf {
        self.directory.path().join("deeper/podgate.sock")
    }

    pub(super) fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// What comes back for these bytes until the server closes.
    fn exchange(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        // The server may close before it has read all of it.
        let _ = stream.write_all(request);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    pub(super) fn get(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }
}

#[test]
fn every_verb_is_answered() {
    let running = start();
    let status: Status = api::ask(&running.socket(), &Ask::Status).unwrap();
    assert_eq!(status.counters.len(), 1, "counters are read when asked for");
    assert_eq!(status.tables, Status::example().tables, "and the tables of the programs counted");
    assert!((160..170).contains(&status.uptime_seconds), "{}", status.uptime_seconds);
    let age = status.sources[0].age_seconds.unwrap();
    assert!((105..115).contains(&age), "{age}");
    let endpoints: Vec<EndpointStatus> = api::ask(&running.socket(), &Ask::Endpoints).unwrap();
    assert_eq!(endpoints, [EndpointStatus::example()]);
    let policies: PolicyReport = api::ask(&running.socket(), &Ask::Policies).unwrap();
    assert_eq!(policies, report::policies(&HitReport::example(), &PolicyVersions::default()));
    let explain = |to: &str| Ask::Explain {
        from: "x/a".parse().unwrap(),
        to: to.parse().unwrap(),
        port: "TCP/80".parse().unwrap(),
        what_if: Change::default(),
    };
    let answer: Explanation = api::ask(&running.socket(), &explain("x/b")).unwrap();
    assert_eq!(answer.verdict, podgate_core::explain::Verdict::Allow);
    let check = answer.kernel.unwrap();
    assert_eq!(check.asked, 2, "an address of each family of the pod that is here");
    let line = "egress of x/a, 10.0.0.2 TCP/80: the rules allow, the tables in the kernel deny";
    assert!(check.disagreements.iter().any(|found| found == line), "{:?}", check.disagreements);
    let error = api::ask::<Explanation>(&running.socket(), &explain("x/nobody")).unwrap_err();
    assert_eq!(error.to_string(), "no pod x/nobody: it does not exist, or it has finished");
}

#[test]
fn explain_answers_for_a_cluster_with_a_change_and_keeps_its_own() {
    let running = start();
    let policy = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: deny, namespace: x}, spec: {";
    let ask = |change: Option<String>| {
        let mut what_if = Change::default();
        if let Some(change) = change {
            let path = running.directory.path().join("change.yaml");
            std::fs::write(&path, change).unwrap();
            what_if = Change::read(&[path]).unwrap().0;
        }
        let (from, to) = ("x/a".parse().unwrap(), "x/b".parse().unwrap());
        let ask = Ask::Explain { from, to, port: "TCP/80".parse().unwrap(), what_if };
        let answer = api::ask::<Explanation>(&running.socket(), &ask);
        answer.map(|answer| answer.verdict.to_string()).unwrap_or_else(|error| error.to_string())
    };
    assert_eq!(ask(Some(format!("{policy}podSelector: {{}}}}}}"))), "deny");
    // As long as a hundred large policies.
    let many = |count| (0..count).map(|_| format!("{policy}{}}}}}\n---\n", " ".repeat(100))).collect();
    assert_eq!(ask(Some(many(500))), "deny");
    let gone = ask(Some(format!("{policy}}}, $patch: delete}}")));
    assert!(gone.ends_with("NetworkPolicy x/deny: is to be removed, but does not exist"), "{gone}");
    assert_eq!(ask(None), "allow");
}

#[test]
fn a_question_without_an_agent_names_the_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("none.sock");
    let error = api::ask::<Status>(&path, &Ask::Status).unwrap_err().to_string();
    let expected = format!(
        "no agent answers on {}: No such file or directory (os error 2) (is `podgate agent` running?)",
        path.display()
    );
    assert_eq!(error, expected);
}

#[test]
fn an_answer_that_is_not_understood_is_one_clear_line() {
    for (answer, part) in [
        (
            "{\"version\":1,\"ok\":1}\n",
            "speaks protocol 1, this side protocol 3 (podgate 0.1.0): ask with the agent's own binary",
        ),
        ("hello\n", "is no podgate agent"),
        ("", "closed the connection without an answer"),
        ("{\"version\":3,\"ok\":{}}\n", "the answer of the agent"),
        ("{\"version\":3,\"error\":\"why\"}\n", "why"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("other.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let other = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 256];
            let length = stream.read(&mut request).unwrap();
            assert!(length > 0);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let error = format!("{:#}", api::ask::<Status>(&path, &Ask::Status).unwrap_err());
        assert!(error.contains(part), "{answer:?}: {error}");
        other.join().unwrap();
    }
}
