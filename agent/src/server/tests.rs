//! The servers against polite and against hostile clients.

use std::{
    io::{Read, Write},
    net::TcpStream,
    ops::ControlFlow,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::PathBuf,
    thread::JoinHandle,
    time::Duration,
};

use podgate_common::{Direction, Outcome};
use podgate_core::explain::ExpectedVerdict;
use tokio::{runtime::Runtime, sync::oneshot};

use super::*;
use crate::api::{self, Counter, FlowLine, FlowRecord, LONGEST_REQUEST, PolicyReport, PolicyStatus};
use crate::flows::Observer;

/// Longer than a server waits for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A server with an example's state on a socket and a port of its own, in a thread as the agent has it: one
/// for all.
pub(super) struct Running {
    directory: tempfile::TempDir,
    http: std::net::SocketAddr,
    pub(super) state: watch::Sender<Arc<Snapshot>>,
    observer: SharedObserver,
    followers: Arc<Semaphore>,
    pub(super) pod_waits: Arc<Semaphore>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

fn snapshot(ready: bool) -> Arc<Snapshot> {
    Arc::new(Snapshot {
        taken: Instant::now() - Duration::from_secs(100),
        status: Status { ready, counters: vec![], tables: vec![], ..Status::example() },
        endpoints: vec![EndpointStatus::example()],
        interfaces: BTreeMap::new(),
        cluster: Arc::new(podgate_core::fixtures::cluster(vec![])),
    })
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

pub(super) fn start() -> Running {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deeper/podgate.sock");
    let (state, snapshots) = watch::channel(snapshot(false));
    let observer: SharedObserver = Arc::new(Observer::new("n1".into(), None).into());
    let counter = Counter { direction: Direction::Ingress, outcome: Outcome::Denied, packets: 3 };
    let (counters, tables) = (
        move || KernelCounters { packets: vec![counter], ..KernelCounters::default() },
        || Status::example().tables,
    );
    let (_, hits) = watch::channel(Arc::new(HitReport {
        policies: PolicyReport { counted_seconds: 9, policies: vec![PolicyStatus::example()] },
        drops: api::Drops::new(),
    }));
    let (ask, _) = mpsc::channel(1);
    let (kernel_checks, mut asked) = mpsc::channel(1);
    let server = Server::new(ServerInputs {
        snapshots,
        read_counters: Arc::new(counters),
        count_tables: Arc::new(tables),
        watches: None,
        hits: HitView::new(hits, ask),
        observer: observer.clone(),
        kernel_checks,
        restarts: TaskRestarts::default(),
    });
    let claimed = async move {
        // The tables of this agent deny everything to x/b and know no one else.
        while let Some(KernelCheckRequest { expected_verdicts, reply }) = asked.recv().await {
            let denies = |expected_verdict: &ExpectedVerdict| {
                (expected_verdict.pod.to_string() == "x/b").then_some(false)
            };
            let kernel_reply =
                KernelCheckReply { revision: 7, allowed: expected_verdicts.iter().map(denies).collect() };
            reply.send(kernel_reply).unwrap();
        }
    };
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
            () = claimed => {}
            _ = stopped => {}
        }
    };
    let thread = std::thread::spawn(move || runtime().block_on(serve));
    Running {
        directory,
        http: address.recv().unwrap(),
        state,
        observer,
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
    assert_eq!(policies.policies, [PolicyStatus::example()]);
    let explain = |to: &str| Ask::Explain {
        from: "x/a".parse().unwrap(),
        to: to.parse().unwrap(),
        port: "TCP/80".parse().unwrap(),
        what_if: Change::default(),
    };
    let answer: Explanation = api::ask(&running.socket(), &explain("x/b")).unwrap();
    assert_eq!(answer.verdict, podgate_core::explain::Verdict::Allow);
    let check = answer.kernel.unwrap();
    assert_eq!(check.asked, 2, "an address of each family");
    let line = "ingress of x/b, 10.0.0.1 TCP/80: the rules allow, the tables in the kernel deny";
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

/// Flows as a client gets them, until there are so many.
fn follow(running: &Running, last: Option<usize>, follow: bool, flows: usize) -> Vec<FlowRecord> {
    let mut seen = Vec::new();
    let ask = Ask::Flows { filter: FlowFilter::default(), since_seconds: None, last, follow };
    let take = |line: FlowLine| {
        if let FlowLine::FlowRecord(flow) = line {
            seen.push(*flow);
        }
        Ok(if seen.len() == flows { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    };
    api::follow(&running.socket(), &ask, take).unwrap();
    seen
}

#[test]
fn flows_are_given_as_they_come_and_who_does_not_read_harms_nobody() {
    let running = start();
    let tell = |flows: u64| {
        for packets in 0..flows {
            lock(&running.observer).add(FlowRecord { packets, ..FlowRecord::example() });
        }
    };
    tell(3);
    assert_eq!(follow(&running, None, false, usize::MAX).len(), 3);
    assert_eq!(follow(&running, Some(1), false, usize::MAX)[0].packets, 2);
    let request = b"{\"version\":3,\"verb\":\"flows\",\"follow\":true}\n";
    let deaf: Vec<UnixStream> = (0..flows::FOLLOWERS)
        .map(|_| {
            let mut stream = running.connect();
            stream.write_all(request).unwrap();
            // It has its place; of what comes now it reads nothing.
            stream.read_exact(&mut [0; 10]).unwrap();
            stream
        })
        .collect();
    assert!(running.exchange(request).contains("too many follow flows already"));
    for _ in 0..20 {
        tell(1_000);
        api::ask::<Status>(&running.socket(), &Ask::Status).unwrap();
    }
    drop(deaf);
    // The places come back.
    let began = Instant::now();
    while running.followers.available_permits() < flows::FOLLOWERS {
        assert!(began.elapsed() < PATIENCE, "the places of those who went are not free");
        std::thread::yield_now();
    }
    assert_eq!(follow(&running, Some(2), true, 2).len(), 2);
}

#[test]
fn the_socket_is_its_owners_alone_and_a_stale_one_is_replaced() {
    let running = start();
    let mode = std::fs::metadata(running.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let runtime = runtime();
    let _inside = runtime.enter();
    let error = format!("{:#}", ControlSocket::bind(&running.socket()).unwrap_err());
    assert!(error.ends_with("podgate.sock: another agent answers there"), "{error}");
    let stale = running.directory.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let bound = ControlSocket::bind(&stale).unwrap();
    UnixStream::connect(&stale).unwrap();
    drop(bound);
    assert!(!stale.exists(), "the file goes with its socket");
    let file = running.directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = format!("{:#}", ControlSocket::bind(&file).unwrap_err());
    assert!(error.ends_with("file: something else is there"), "{error}");
}

#[test]
fn hostile_requests_get_one_line_and_harm_nobody() {
    let running = start();
    let huge = vec![b'x'; LONGEST_REQUEST];
    let deep = [vec![b'['; 4000], b"\n".to_vec()].concat();
    let longest = [vec![b' '; LONGEST_REQUEST - 1], b"\n".to_vec()].concat();
    for (request, part) in [
        (&b"garbage\n"[..], "\"error\":\"not a request: expected value at line 1 column 1\""),
        (b"\n", "not a request"),
        (b"\xff\xfe\0\n", "not a request"),
        (b"{}\n", "not a request: missing field `version`"),
        (b"{\"version\":3}\n", "not a request: missing field `verb`"),
        (b"{\"version\":3,\"verb\":\"reboot\"}\n", "not a request: unknown variant `reboot`"),
        (b"{\"version\":3,\"verb\":\"explain\",\"from\":\"x\"}\n", "not a request"),
        (
            b"{\"version\":4,\"podgate\":\"0.9\",\"verb\":\"new\"}\n",
            "who asks speaks protocol 4 (podgate 0.9), this side protocol 3 (podgate 0.1.0): ask with the agent's own binary",
        ),
        (&longest, "not a request"),
        (&deep, "not a request"),
    ] {
        let answer = running.exchange(request);
        let text = String::from_utf8_lossy(&request[..request.len().min(60)]).into_owned();
        assert!(answer.contains(part), "{text:?}: {answer:?}");
        assert_eq!(answer.lines().count(), 1, "{text:?}: {answer:?}");
    }
    // The server closes on a line without end; what it says may be lost with the connection.
    running.exchange(&huge);
    let half: Vec<UnixStream> = (0..100).map(|_| running.connect()).collect();
    let status: Status = api::ask(&running.socket(), &Ask::Status).unwrap();
    assert!(!status.ready, "silent clients do not keep the next one waiting");
    drop(half);
}

#[test]
fn a_silent_client_loses_its_place() {
    let running = start();
    let silent: Vec<UnixStream> = (0..65).map(|_| running.connect()).collect();
    for mut stream in silent {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"", "no answer without a question");
    }
    api::ask::<Status>(&running.socket(), &Ask::Status).unwrap();
}

#[test]
fn a_question_to_nobody_names_the_socket() {
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

#[test]
fn http_says_how_the_agent_is() {
    let running = start();
    let get = |path: &str| running.get(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert!(get("/healthz").starts_with("HTTP/1.1 200"));
    assert!(get("/readyz").starts_with("HTTP/1.1 503"));
    running.state.send_replace(snapshot(true));
    assert!(get("/readyz").starts_with("HTTP/1.1 200"));
    let metrics = get("/metrics");
    assert!(metrics.contains("content-type: text/plain; version=0.0.4"), "{metrics}");
    assert!(
        metrics.contains("\npodgate_packets_total{direction=\"ingress\",outcome=\"denied\"} 3\n"),
        "{metrics}"
    );
    assert!(get("/").starts_with("HTTP/1.1 404"));
    assert!(running.get("POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 405"));
    assert!(running.get("HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n").ends_with("\r\n\r\n"));
}

#[test]
fn hostile_http_harms_nobody() {
    let running = start();
    let half: Vec<TcpStream> = (0..31)
        .map(|_| {
            let mut stream = TcpStream::connect(running.http).unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ").unwrap();
            stream
        })
        .collect();
    let headers = "X: y\r\n".repeat(10_000);
    assert!(running.get("\0\0\0\0\r\n\r\n").starts_with("HTTP/1.1 400"));
    let refused = running.get(&format!("GET /metrics HTTP/1.1\r\n{headers}\r\n"));
    assert!(!refused.starts_with("HTTP/1.1 200"), "{refused}");
    assert!(running.get("GET /healthz HTTP/1.0\r\n\r\n").contains(" 200 "));
    // Those that never finish their headers are sent away.
    for mut stream in half {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(!answer.contains(" 200 "), "{answer}");
    }
}

#[test]
fn probes_find_a_place_beside_any_number_of_clients_that_never_finish() {
    let running = start();
    let began = Instant::now();
    let mut slow = Vec::new();
    for round in 0..10 {
        for _ in 0..50 {
            let mut stream = TcpStream::connect(running.http).unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ").unwrap();
            slow.push(stream);
        }
        let answer = running.get("GET /healthz HTTP/1.0\r\n\r\n");
        assert!(answer.contains(" 200 "), "round {round}: {answer:?}");
    }
    // Sooner than the first of them would have been sent away: no one waited for that.
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[test]
fn probes_are_answered_while_the_deny_log_blocks() {
    let running = start();
    let blocked = lock(&running.observer);
    // More metrics than there are threads for them.
    let scrapes: Vec<TcpStream> = (0..WORKERS + 4)
        .map(|_| {
            let mut stream = TcpStream::connect(running.http).unwrap();
            stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
            stream
        })
        .collect();
    assert!(running.get("GET /healthz HTTP/1.0\r\n\r\n").contains(" 200 "));
    let endpoints: Vec<EndpointStatus> = api::ask(&running.socket(), &Ask::Endpoints).unwrap();
    assert_eq!(endpoints.len(), 1);
    drop(blocked);
    let mut statuses = BTreeMap::<String, usize>::new();
    for mut stream in scrapes {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        *statuses.entry(answer.lines().next().unwrap_or_default().to_owned()).or_default() += 1;
    }
    assert_eq!(statuses.get("HTTP/1.0 200 OK"), Some(&WORKERS), "{statuses:?}");
    assert_eq!(statuses.get("HTTP/1.0 503 Service Unavailable"), Some(&4), "{statuses:?}");
}
